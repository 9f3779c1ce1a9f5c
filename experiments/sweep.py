"""How is a map computed that takes hours: at any size, on disk, and resumably?

``python -m experiments sweep --map digits --size 512 --store digits.zarr`` computes the loss and
the accuracy of a network trained on handwritten digits over a filter-normalized random plane;
``--map trainability`` the value of each training run over the learning rates of two layers. A bar
shows the time left. Killed, the same command goes on from there. Expect one picture, in ``--out``,
and a store that ``xarray.open_zarr`` reads, also while it grows.
"""

import argparse
import importlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments import _digits, _report
from experiments import network_surface as network
from jaxgd import descent, neurons, planes, plots, surfaces, sweeps


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


def digits(seed: int, size: int) -> Map:
    """Loss and accuracy of a trained network on a random plane, filters normalized."""
    loaded = _digits.load(seed)
    data = jnp.asarray(loaded.train_images, jnp.float32), jnp.asarray(loaded.train_labels)
    key_start, key_plane = jax.random.split(jax.random.key(seed))
    start = neurons.init_network(key_start, network.SIZES)
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)

    @jax.jit
    def restricted(network_start: Any, *data: Any) -> Any:
        end = descent.optimize(
            network.RISK, network_start, *data, optimizer=network.OPTIMIZERS["momentum"],
            num_steps=network.NUM_STEPS, record=lambda _: None,
        ).params  # fmt: skip
        plane = planes.filter_normalize(planes.random(key_plane, end), filter_axis=-1)
        return planes.restrict(network.loss_and_accuracy, plane, *data)

    axis = jnp.linspace(-1, 1, size, dtype=jnp.float32)
    return Map(restricted(start, *data), (axis, axis), (12, 5), _draw_digits)


def _draw_digits(figure: Figure, surface: surfaces.Surface) -> None:
    names = ("filter-normalized direction 1", "direction 2")
    titles = {
        "loss": "Loss of a trained network on a random plane",
        "accuracy": "Its accuracy there",
    }
    for ax, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        part = surface._replace(values=surface.values[name])
        told = "loss, nats" if name == "loss" else name
        plots.surface_contour(ax, part, axis_names=names, value_name=told, log=name == "loss")
        ax.set_title(titles[name])


def trainability(seed: int, size: int) -> Map:
    """How the training of a network of two matrices ends, over a learning rate for each."""
    experiment = importlib.import_module("experiments.trainability")
    fn = experiment.outcome_of(
        jax.random.key(seed), width=experiment.FULL.width, num_steps=experiment.FULL.num_steps
    )
    axis = jnp.linspace(experiment.LOG_RATES[0], experiment.LOG_RATES[1], size)

    def draw(figure: Figure, surface: surfaces.Surface) -> None:
        ax = figure.subplots()
        x, y = (np.asarray(axis) for axis in surface.coordinates)
        coloured = experiment.ranks(surface.values).T
        norm = Normalize(-1, 1)
        ax.pcolormesh(x, y, coloured, cmap=experiment.colours(), norm=norm, rasterized=True)
        ax.set_xlabel("log10 of the first layer's learning rate")
        ax.set_ylabel("log10 of the second layer's learning rate")
        ax.set_title("Blue converged, orange diverged; dark where it took long")

    return Map(fn, (axis, axis), (8, 7.4), draw)


MAPS = {"digits": digits, "trainability": trainability}


def main(arguments: Sequence[str]) -> int:
    """Sweeps a map of the size asked for, goes on where it was killed, and draws it."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments sweep", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--map", choices=MAPS, default="digits", help="what is swept")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="points a side")
    parser.add_argument("--store", type=pathlib.Path, metavar="DIR", help="kept here, resumable")
    parser.add_argument("--batch-size", type=int, metavar="N", help="points computed at once")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    for name, value, least in (("--size", options.size, 2), ("--seed", options.seed, 0)):
        if value < least:
            parser.error(f"{name} must be at least {least}, got {value}")

    jax.config.update("jax_enable_x64", True)
    chosen = MAPS[options.map](options.seed, options.size)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        surface = sweeps.run(
            chosen.fn, *chosen.axes, batch_size=options.batch_size, store=options.store
        )
    except KeyboardInterrupt as interrupt:
        print(*getattr(interrupt, "__notes__", ["stopped"]), sep="\n", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(_report.render(_table(options.map, surface)))
    print(f"\n    -> {_drawn(options.out / f'sweep_{options.map}.png', chosen, surface)}")
    return 0


def _table(name: str, surface: surfaces.Surface) -> _report.Table:
    """What was found, in a line for each value."""
    values = surface.values if isinstance(surface.values, dict) else {"value": surface.values}
    rows = [
        (key, f"{np.nanmin(v):.4g}", f"{np.nanmedian(v):.4g}", f"{np.nanmax(v):.4g}")
        for key, v in ((key, np.asarray(v)) for key, v in values.items())
    ]
    shape = " x ".join(str(axis.size) for axis in surface.coordinates)
    return _report.Table(f"{name}, {shape} points", ("", "lowest", "median", "highest"), rows)


def _drawn(picture: pathlib.Path, chosen: Map, surface: surfaces.Surface) -> pathlib.Path:
    figure = Figure(figsize=chosen.figure_size, layout="constrained")
    FigureCanvasAgg(figure)
    chosen.draw(figure, surface)
    figure.savefig(picture, dpi=120)
    return picture
