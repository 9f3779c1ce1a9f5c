"""How is a map computed that takes hours: at any size, on disk, and resumably?

``python -m experiments sweep --map digits --size 512 --store digits.zarr`` computes the loss and
the accuracy of a network trained on handwritten digits over a filter-normalized random plane;
``--map trainability`` the value of each training run over the learning rates of two layers. A bar
shows the time left. Killed, the same command goes on from there. Expect one picture, in ``--out``,
and a store that ``xarray.open_zarr`` reads, also while it grows.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.shell import report
from jaxgd import surfaces, sweeps


class Map(NamedTuple):
    """What is swept, and how it is drawn.

    Attributes:
      fn: two coordinates -> a scalar, or a dict of scalars.
      axes: where.
      figure_size: in inches.
      draw: draws the surface into a figure.
    """

    fn: Callable[..., Any]
    axes: tuple[jax.Array, jax.Array]
    figure_size: tuple[float, float]
    draw: Callable[[Figure, surfaces.Surface], None]


def main(arguments: Sequence[str], maps: Mapping[str, Callable[[int, int], Map]]) -> int:
    """Sweeps a map of the size asked for, goes on where it was killed, and draws it.

    Args:
      arguments: of the command line.
      maps: by name, a function of the seed and of the number of points along each side.

    Returns:
      The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments sweep", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--map", choices=maps, default="digits", help="what is swept")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="points a side")
    parser.add_argument("--store", type=pathlib.Path, metavar="DIR", help="kept here, resumable")
    parser.add_argument("--batch-size", type=int, metavar="N", help="points computed at once")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    for name, value, least in (("--size", options.size, 2), ("--seed", options.seed, 0)):
        if value < least:
            parser.error(f"{name} must be at least {least}, got {value}")

    with jax.enable_x64(True):
        return _swept(maps[options.map](options.seed, options.size), options)


def _swept(chosen: Map, options: argparse.Namespace) -> int:
    """Sweeps a map, draws it, and tells what was found; the exit status."""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        surface = sweeps.run(
            chosen.fn, *chosen.axes, batch_size=options.batch_size, store=options.store
        )
    except KeyboardInterrupt as interrupt:
        print(*getattr(interrupt, "__notes__", ["stopped"]), sep="\n", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"python -m experiments sweep: {error}", file=sys.stderr)
        return 2
    print(report.render(_table(options.map, surface)))
    print(f"\n    -> {_drawn(options.out / f'sweep_{options.map}.png', chosen, surface)}")
    return 0


def _table(name: str, surface: surfaces.Surface) -> report.Table:
    """What was found, in a line for each value."""
    values = surface.values if isinstance(surface.values, dict) else {"value": surface.values}
    rows = [
        (key, f"{np.nanmin(v):.4g}", f"{np.nanmedian(v):.4g}", f"{np.nanmax(v):.4g}")
        for key, v in ((key, np.asarray(v)) for key, v in values.items())
    ]
    shape = " x ".join(str(axis.size) for axis in surface.coordinates)
    return report.Table(f"{name}, {shape} points", ("", "lowest", "median", "highest"), rows)


def _drawn(picture: pathlib.Path, chosen: Map, surface: surfaces.Surface) -> pathlib.Path:
    figure = Figure(figsize=chosen.figure_size, layout="constrained")
    FigureCanvasAgg(figure)
    chosen.draw(figure, surface)
    figure.savefig(picture, dpi=120)
    return picture
