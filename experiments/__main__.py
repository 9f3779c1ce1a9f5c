"""The shell around the experiments: arguments, precision, seeds, figures, files."""

import argparse
import importlib
import inspect
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import NAMES, load
from experiments.shell import gallery, report, sweep

LARGE_MAPS = {"digits": "network_surface", "trainability": "trainability"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs experiments and tells what they found; 1 if a number of the note is off."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["sweep"]:
        maps = {name: load(experiment).large_map for name, experiment in LARGE_MAPS.items()}
        return sweep.main(arguments[1:], maps)
    parser = _parser()
    options = parser.parse_args(arguments)

    if options.names == ["bench"]:
        bench = importlib.import_module("experiments.bench")
        bench.main(lambda table: print(f"\n{report.render(table)}", flush=True))
        return 0
    _check(parser, options)
    if options.list:
        for name in NAMES:
            print(f"{name:20}{_question(name)}")
        return 0
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "numbers.json").touch()
    except OSError as error:
        print(f"{parser.prog}: cannot write to {options.out}: {error.strerror}", file=sys.stderr)
        return 2

    jax.config.update("jax_enable_x64", True)  # the published digits are those of float64
    names = [name for name in NAMES if name in options.names or not options.names]
    computed, entries = {}, []
    for index, name in enumerate(names, start=1):
        print(f"[{index}/{len(names)}] {name}: {_question(name)}", flush=True)
        experiment = load(name)
        try:
            results = _compute(experiment, options)
        except ModuleNotFoundError as error:
            print(f'    left out: no {error.name} here: pip install -e ".[experiments]"\n')
            continue
        for table in experiment.tables(results):
            print(f"\n{report.render(table)}")
        picture = options.out / f"{name}.png"
        figure = _draw(experiment, results, picture)
        print(f"\n    -> {picture}\n", flush=True)
        if hasattr(experiment, "numbers"):
            computed |= experiment.numbers(results)
        if options.gallery:
            entries.append(gallery.entry(name, experiment, results, figure, picture))

    verdicts = report.verdicts(computed)
    (options.out / "numbers.json").write_text(report.numbers_json(verdicts), encoding="utf-8")
    if verdicts:
        print(report.render(report.numbers_table(verdicts)))
    counts = {kind: sum(v.kind == kind for v in verdicts) for kind in ("match", "erratum", "OFF")}
    print(
        f"\n{len(verdicts)} numbers: {counts['match']} match, {counts['erratum']} are errata of "
        f"the note, {counts['OFF']} are off. Written to {options.out}."
    )
    if options.gallery:
        print(gallery.write(options.out / "index.html", entries, verdicts, options.seed))
    return 1 if counts["OFF"] else 0


def _parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Recompute the study note: its numbers, its errors, its pictures.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="experiments; all if none is named. Or bench, alone: the library beside other ways. "
        "Or sweep, first, with options of its own (sweep --help): a large map, resumably",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the experiments and their questions"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"), metavar="DIR")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for what is drawn at random"
    )
    parser.add_argument(
        "--full", action="store_true", help="the long experiments at their full size, in minutes"
    )
    parser.add_argument(
        "--gallery",
        action="store_true",
        help="write DIR/index.html, too: one page to turn, to play, to search, and to send",
    )
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses a name that is none, and a seed that cannot be one."""
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(
            f"no experiment named {', '.join(unknown)}; known: {', '.join(NAMES)}; bench, alone"
        )
    if options.seed < 0:
        parser.error(f"--seed must be at least 0, got {options.seed}")


def _compute(experiment: ModuleType, options: argparse.Namespace) -> Any:
    """An experiment's results, at full size if it has one and it is asked for."""
    has_sizes = "full" in inspect.signature(experiment.compute).parameters
    size = {"full": options.full} if has_sizes else {}
    return experiment.compute(options.seed, **size)


def _draw(experiment: ModuleType, results: Any, picture: pathlib.Path) -> Figure:
    """Draws an experiment's picture and saves it."""
    figure = Figure(figsize=experiment.FIGURE_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    experiment.draw(figure, results)
    figure.savefig(picture, dpi=120)
    return figure


def _question(name: str) -> str:
    """The first line of an experiment's docstring."""
    docstring = load(name).__doc__ or ""
    return docstring.strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
