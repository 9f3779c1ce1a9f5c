"""Where does the border run between the learning rates that train a network and those that do not?

A tanh network of two matrices learns random targets by full-batch descent, each matrix at a
learning rate of its own. Over the two rates, nine powers of ten each, every pixel is one network
trained from the same start. Expect no clean line between the runs that converged and those that
diverged: wherever one looks closer, at 1/8 and then at 1/64 of the map's side, the border shows
new folds, down to places where neighbouring pixels look drawn by lot. Its box-counting
dimension lies above the 1 of a smooth curve.

Which side a run falls on can nearly always be reproduced (in 999 networks of 1,000 of the whole
map, between programs that sum in different orders); its value can not. The order changes the last
bit of a gradient, and near the border chaos makes it large.

The map is that of Sohl-Dickstein, The boundary of neural network trainability is fractal, 2024.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from experiments.shell.sweep import Map
from jaxgd import descent, surfaces
from jaxgd.types import Array, ArrayLike, PRNGKey

FIGURE_SIZE = (14, 6.3)
SECONDS = (6, 400)
LOG_RATES = (-3.0, 6.0)
NUM_ZOOMS, ZOOM = 2, 8
CLIP = 1e6
TAIL = 20
BATCH_SIZE = 32  # so that what the networks of a batch compute stays in the cache
RESOLVED = 0.25


class Size(NamedTuple):
    """How much is computed: n inputs and n hidden units, steps, pixels along each side."""

    width: int
    num_steps: int
    resolution: int


DEFAULT = Size(width=4, num_steps=300, resolution=128)
FULL = Size(width=8, num_steps=500, resolution=256)  # 4 minutes of one core


class Dimension(NamedTuple):
    """A box-counting dimension and the standard error of its fit.

    The error is that of a straight line through the counts. It does not know of what a grid
    leaves unresolved, nor that the counts at two sizes are of the same cells.
    """

    estimate: float
    standard_error: float


class Results(NamedTuple):
    """What was computed.

    Attributes:
      size: how much.
      maps: surfaces over the base-10 logarithms of the two rates, each a zoom into the one
        before. A value is negative where the run converged; see ``outcome_of``.
      dimensions: of each map's border.
    """

    size: Size
    maps: list[surfaces.Surface]
    dimensions: list[Dimension]


def outcome_of(
    key: PRNGKey, *, width: int, num_steps: int
) -> Callable[[ArrayLike, ArrayLike], Array]:
    """Draws a network and data; returns how its training ends as a function of the two rates.

    With n for the width, the prediction for an input x of n numbers is
    ``tanh(sqrt(2) x @ W / sqrt(n)) @ V / n``. W, V, the inputs and the targets are standard
    normal; there are as many inputs as parameters, n^2 + n. The loss is the mean squared error.

    With v for the losses of the run divided by the first, what is not finite set to 1e6, all
    clipped at 1e6, the run converged if the mean of the last 20 is below 1. Its value is then
    ``-sum(v)``, and ``sum(1 / v)`` if not: the slower the verdict, the larger in magnitude.
    A run whose loss has risen a millionfold is DIVERGED and followed no further.

    Args:
      key: a PRNG key, for the network and the data.
      width: n, static.
      num_steps: how many losses a run has, static.

    Returns:
      ``(log_rate_1, log_rate_2) -> value``, all scalars: base-10 logarithms of the learning
      rates of W and of V. The dtype is that of the session; float64 is meant.
    """
    keys = jax.random.split(key, 4)
    shapes = ((width, width), (width,), (width * width + width, width), (width * width + width,))
    *start, inputs, targets = (
        jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)
    )

    def loss(params: dict[str, Array]) -> Array:
        hidden = jnp.tanh(jnp.sqrt(2.0) * (inputs @ params["first"]) / jnp.sqrt(width))
        return jnp.mean((hidden @ params["second"] / width - targets) ** 2)

    layers = {"first": "first", "second": "second"}

    def outcome(log_rate_1: ArrayLike, log_rate_2: ArrayLike) -> Array:
        rates = jnp.power(10.0, log_rate_1), jnp.power(10.0, log_rate_2)
        rules: Any = {layer: optax.sgd(rate) for layer, rate in zip(layers, rates, strict=True)}
        run = descent.optimize(
            loss,
            dict(zip(layers, start, strict=True)),
            optimizer=optax.partition(rules, layers),
            num_steps=num_steps - 1,
            record=lambda _: None,
        )
        ratios = run.losses / run.losses[0]
        v = jnp.minimum(jnp.where(jnp.isfinite(ratios), ratios, CLIP), CLIP)
        return jnp.where(jnp.mean(v[-TAIL:]) < 1, -jnp.sum(v), jnp.sum(1 / v))

    return outcome


def border(values: ArrayLike) -> np.ndarray:
    """Marks the cells of a map whose next cell, along either axis, has the other sign."""
    converged = np.asarray(values) < 0
    cells = np.zeros_like(converged)
    cells[:-1] |= converged[:-1] != converged[1:]
    cells[:, :-1] |= converged[:, :-1] != converged[:, 1:]
    return cells


def count_boxes(cells: np.ndarray, size: int) -> int:
    """Counts the boxes of ``size`` by ``size`` cells in which a cell is marked."""
    rows, columns = (-(-length // size) for length in cells.shape)
    padding = [(0, -length % size) for length in cells.shape]
    return int(np.pad(cells, padding).reshape(rows, size, columns, size).any(axis=(1, 3)).sum())


def dimension_of(cells: np.ndarray, sizes: Sequence[int]) -> Dimension:
    """Fits a line to log N(size) against log(1 / size): its slope is the dimension.

    Args:
      cells: a two-dimensional array, True where the set is.
      sizes: of the boxes, in cells; at least three.

    Returns:
      The slope with its standard error; NaN for a set without cells.
    """
    counts = np.array([count_boxes(cells, size) for size in sizes], float)
    if not counts.all():
        return Dimension(np.nan, np.nan)
    x, y = -np.log(np.asarray(sizes, float)), np.log(counts)
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    variance = np.sum((y - slope * x) ** 2) / (len(sizes) - 2)
    return Dimension(float(slope), float(np.sqrt(variance / (x @ x))))


def box_sizes(resolution: int) -> list[int]:
    """Powers of two, from one cell to an eighth of the map."""
    return [2**i for i in range((resolution // 8).bit_length())]


def window(surface: surfaces.Surface) -> tuple[tuple[float, float], ...]:
    """Finds where to look closer: the window nearest to a quarter of border cells.

    A window with fewer shows less of the border; with more, the grid no longer resolves it.
    """
    cells = border(surface.values)
    side = cells.shape[0] // ZOOM
    shares = np.lib.stride_tricks.sliding_window_view(cells, (side, side)).mean(axis=(2, 3))
    corner = np.unravel_index(np.abs(shares - RESOLVED).argmin(), shares.shape)
    axes = (np.asarray(axis) for axis in surface.coordinates)
    return tuple(
        (float(axis[i]), float(axis[i + side - 1])) for axis, i in zip(axes, corner, strict=True)
    )


def compute(seed: int = 0, full: bool = False) -> Results:
    """Sweeps the whole map, finds a piece of its border, and sweeps that, twice."""
    size = FULL if full else DEFAULT

    @jax.jit
    def sweep(key: PRNGKey, *axes: Array) -> surfaces.Surface:
        outcome = outcome_of(key, width=size.width, num_steps=size.num_steps)
        return surfaces.sweep(outcome, *axes, batch_size=BATCH_SIZE)

    key = jax.random.key(seed)
    spans = (LOG_RATES, LOG_RATES)
    maps = []
    for _ in range(NUM_ZOOMS + 1):
        maps.append(sweep(key, *(jnp.linspace(*span, size.resolution) for span in spans)))
        spans = window(maps[-1])
    sizes = box_sizes(size.resolution)
    return Results(size, maps, [dimension_of(border(m.values), sizes) for m in maps])


def tables(results: Results) -> list[Table]:
    """Where each map lies, what it holds, and the dimension of its border."""
    size = results.size
    rows = []
    for surface, dimension in zip(results.maps, results.dimensions, strict=True):
        values = np.asarray(surface.values)
        spans = (f"{float(axis[0]):.4f} .. {float(axis[-1]):.4f}" for axis in surface.coordinates)
        rows.append(
            (*spans, f"{(values < 0).mean():.3f}", f"{border(values).mean():.3f}",
             f"{dimension.estimate:.3f}", f"{dimension.standard_error:.3f}")
        )  # fmt: skip
    return [
        Table(
            f"{size.resolution} x {size.resolution} networks a map, {size.width} inputs and hidden"
            f" units, {size.width**2 + size.width} examples, {size.num_steps} steps; box sizes "
            f"{', '.join(map(str, box_sizes(size.resolution)))}",
            ("log10 rate 1", "log10 rate 2", "share converged", "on the border",
             "dimension", "standard error"),
            rows,
        )
    ]  # fmt: skip


def ranks(values: ArrayLike) -> np.ndarray:
    """Replaces values by colours: -1 .. 0 converged, 0 .. 1 diverged, the fastest next to 0."""
    values = np.asarray(values)
    coloured = np.zeros(values.shape)
    for side, sign in ((values < 0, -1), (values >= 0, 1)):
        order = np.abs(values[side]).argsort().argsort()
        coloured[side] = sign * (order + 0.5) / max(order.size, 1)
    return coloured


def colours() -> ListedColormap:
    """Blues for the converged, oranges for the diverged; dark where the verdict took long."""
    steps = np.linspace(0, 1, 128)[:, None]
    blues = np.array([0.80, 0.92, 1.0]) * (1 - steps) + np.array([0.0, 0.18, 0.42]) * steps
    oranges = np.array([1.0, 0.93, 0.70]) * (1 - steps) + np.array([0.78, 0.27, 0.0]) * steps
    return ListedColormap(np.concatenate([blues[::-1], oranges]))


def expectations(results: Results) -> list[Expectation]:
    """The border is neither a point set nor smooth: its dimension lies between one and two."""
    estimates = [dimension.estimate for dimension in results.dimensions]
    errors = [dimension.standard_error for dimension in results.dimensions]
    return [
        Expectation(
            "the border has a dimension above 1 and below 2, however far one zooms in",
            ", ".join(f"{d:.2f}" for d in estimates),
            all(d - 2 * e > 1 and d < 2 for d, e in zip(estimates, errors, strict=True)),
        )
    ]


def draw(figure: Figure, results: Results) -> None:
    """The whole map and the two zooms, each framed in the one before."""
    panels: list[Axes] = list(figure.subplots(1, len(results.maps)))
    names = ["The whole map", *(f"Frame, {ZOOM**i} times larger" for i in range(1, len(panels)))]
    cmap, norm = colours(), Normalize(-1, 1)
    for i, (ax, surface) in enumerate(zip(panels, results.maps, strict=True)):
        x, y = (np.asarray(axis) for axis in surface.coordinates)
        ax.pcolormesh(x, y, ranks(surface.values).T, cmap=cmap, norm=norm, rasterized=True)
        ax.set_xlabel("log₁₀ of the first layer's learning rate")
        dimension = results.dimensions[i]
        ax.set_title(
            f"{names[i]}: border of dimension\n"
            f"{dimension.estimate:.2f}, standard error {dimension.standard_error:.2f}"
        )
        if i + 1 < len(panels):
            (left, right), (low, high) = (
                (float(axis[0]), float(axis[-1])) for axis in results.maps[i + 1].coordinates
            )
            frame = Rectangle((left, low), right - left, high - low, fill=False, lw=2, ec="black")
            ax.add_patch(frame)
    panels[0].set_ylabel("log₁₀ of the second layer's learning rate")
    bar = figure.colorbar(
        ScalarMappable(norm, cmap), ax=panels, orientation="horizontal", shrink=0.6, aspect=50
    )
    bar.set_ticks(
        [-0.88, -0.2, 0.2, 0.88],
        labels=["converges slowly", "converges fast", "diverges fast", "diverges slowly"],
    )
    bar.set_label("by rank of the value within each map")
    letters(*panels)


def large_map(seed: int, size: int) -> Map:
    """How the training of a network of two matrices ends, over a learning rate for each."""
    fn = outcome_of(jax.random.key(seed), width=FULL.width, num_steps=FULL.num_steps)
    axis = jnp.linspace(LOG_RATES[0], LOG_RATES[1], size)

    def draw(figure: Figure, surface: surfaces.Surface) -> None:
        ax = figure.subplots()
        x, y = (np.asarray(axis) for axis in surface.coordinates)
        coloured = ranks(surface.values).T
        norm = Normalize(-1, 1)
        ax.pcolormesh(x, y, coloured, cmap=colours(), norm=norm, rasterized=True)
        ax.set_xlabel("log10 of the first layer's learning rate")
        ax.set_ylabel("log10 of the second layer's learning rate")
        ax.set_title("Blue converged, orange diverged; dark where it took long")

    return Map(fn, (axis, axis), (8, 7.4), draw)
