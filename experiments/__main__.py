"""The command: ``python -m experiments``. Arguments, precision, seeds, figures, files."""

import argparse
import functools
import importlib
import inspect
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import NAMES, load
from experiments.data import THE_NOTE
from experiments.shell import gallery, languages, play, progress, report, sweep

LARGE_MAPS = {"digits": "network_surface", "trainability": "trainability"}
USUAL_SECONDS = 5  # of an experiment that does not say how long it takes


class Run(NamedTuple):
    """What one experiment left behind.

    Attributes:
      picture: where it was written.
      numbers: the note's numbers that it computed, by id.
      expectations: what it expected, and whether it came out so.
      entry: its section of the gallery; None if no gallery is asked for.
    """

    picture: pathlib.Path
    numbers: dict[str, Any]
    expectations: list[report.Expectation]
    entry: gallery.Entry | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs experiments and tells what they found.

    Returns:
      0; 1 if a number of the note is off or an expectation does not hold; 2 if nothing can be
      written.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["sweep"]:
        maps = {name: load(experiment).large_map for name, experiment in LARGE_MAPS.items()}
        return sweep.main(arguments[1:], maps)
    if arguments[:1] == ["play"]:
        return play.main(arguments[1:])
    parser = _parser()
    options = parser.parse_args(arguments)

    if options.names != ["bench"]:
        _check(parser, options)
    if options.list:
        for name in NAMES:
            print(f"{name:20}{languages.translate(_question(name), options.lang)}")
        return 0
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        print(f"{parser.prog}: cannot write to {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    if options.names == ["bench"]:
        return _bench(options)
    with jax.enable_x64(True):  # the published digits are those of float64
        return _run_all(options)


def _bench(options: argparse.Namespace) -> int:
    """Races the library against other ways and keeps the figures."""
    bench = importlib.import_module("experiments.bench")
    tables = []

    def show(table: report.Table) -> None:
        tables.append(table)
        print(f"\n{report.render(table)}", flush=True)

    bench.main(show)
    path = options.out / "bench.md"
    path.write_text(bench.figures(tables), encoding="utf-8")
    print(f"\nThe figures: {path}.")
    return 0


def _run_all(options: argparse.Namespace) -> int:
    """Runs the experiments asked for, one after the other."""
    names = [name for name in NAMES if name in options.names or not options.names]
    print(languages.translate(_announcement(names, options), options.lang) + "\n", flush=True)
    runs = {}
    for index, name in enumerate(names, start=1):
        question = languages.translate(_question(name), options.lang)
        print(f"[{index}/{len(names)}] {name}: {question}", flush=True)
        try:
            runs[name] = _run(name, options)
        except ModuleNotFoundError as error:
            told = f'left out: no {error.name} here: pip install -e ".[experiments]"'
            print(f"    {languages.translate(told, options.lang)}\n")
    return _conclude(runs, options)


def _run(name: str, options: argparse.Namespace) -> Run:
    """Computes an experiment, shows its tables, and draws its picture."""
    experiment = load(name)
    with progress.ticking(_usual_seconds(name, options)):
        results = _compute(experiment, options)
    expectations = report.expectations_of(experiment, results)
    for table in [*experiment.tables(results), *report.expectations_tables(expectations)]:
        print(f"\n{report.render(languages.table(table, options.lang))}")
    picture = options.out / f"{name}.png"
    figure = _draw(experiment, results, picture)
    print(f"\n    -> {picture}\n", flush=True)
    return Run(
        picture=picture,
        numbers=report.numbers_of(experiment, results),
        expectations=expectations,
        entry=gallery.entry(name, experiment, results, figure, picture)
        if options.gallery
        else None,
    )


def _conclude(runs: dict[str, Run], options: argparse.Namespace) -> int:
    """The numbers of the note, what did not come out, and where everything is."""
    verdicts = report.verdicts({k: v for run in runs.values() for k, v in run.numbers.items()})
    expectations = [e for run in runs.values() for e in run.expectations]
    failed = [expectation for expectation in expectations if not expectation.holds]
    say = functools.partial(languages.translate, language=options.lang)
    numbers = options.out / "numbers.json"
    if verdicts:
        numbers.write_text(report.numbers_json(verdicts), encoding="utf-8")
        print(report.render(languages.table(report.numbers_table(verdicts, say), options.lang)))
        print(f"\n{say(report.count(verdicts))}")
    if expectations:
        held = f"all but {len(failed)} of which hold" if failed else "all of which hold"
        print(f"\n{say(f'{len(expectations)} expectations, {held}.')}")
    for expectation in failed:
        says, found, _ = languages.expectation(expectation, options.lang)
        print(f"    {say('does not hold')}: {says} ({found})")
    if runs:
        pictures = [str(run.picture) for run in runs.values()]
        more = f" and {len(pictures) - 1} more beside it" if pictures[1:] else ""
        print(f"\n{say(f'The pictures: {pictures[0]}{more}.')}")
    if verdicts:
        print(say(f"The numbers: {numbers}."))
    if options.gallery:
        entries = [run.entry for run in runs.values() if run.entry is not None]
        page = options.out / "index.html"
        print(gallery.write(page, entries, verdicts, options.seed, options.lang))
    return 1 if failed or any(verdict.kind == "OFF" for verdict in verdicts) else 0


def _announcement(names: Sequence[str], options: argparse.Namespace) -> str:
    """How many experiments, how long they take, and where they write."""
    seconds = sum(_usual_seconds(name, options) for name in names)
    duration = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    count = "1 experiment" if len(names) == 1 else f"{len(names)} experiments"
    return f"{count}, about {duration} on two cores. Pictures and numbers go to {options.out}."


def _usual_seconds(name: str, options: argparse.Namespace) -> float:
    """How long an experiment takes on two cores, compilation included."""
    sizes = getattr(load(name), "SECONDS", USUAL_SECONDS)
    default, full = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    return full if options.full else default


def _parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Recompute the numbers of the study note and go on from there: each experiment "
        "asks a question, prints what it found beside what was expected, and draws a picture.",
        epilog=THE_NOTE,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="experiments; all if none is named. Or bench, alone: the library beside other ways. "
        "Or sweep, first, with options of its own (sweep --help): a large map, resumably. "
        "Or play, first (play --help): a page in which your own function is descended",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the experiments and their questions"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("results"),
        metavar="DIR",
        help="the folder for pictures, numbers and the gallery, made where it is missing "
        "(default: results)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for what is drawn at random"
    )
    parser.add_argument(
        "--lang",
        choices=languages.LANGUAGES,
        default="en",
        help="the language of tables and words on the terminal, and the first of the gallery",
    )
    parser.add_argument(
        "--full", action="store_true", help="the long experiments at their full size, in minutes"
    )
    parser.add_argument(
        "--gallery",
        action="store_true",
        help="write DIR/index.html, too: one page to turn, to play, to search, and to send; its "
        'moving figures need Plotly: pip install -e ".[interactive]"',
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
