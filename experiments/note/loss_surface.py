"""What does the loss of one neuron look like, against b, against w, and over both?

The data are 50 points near y = 2x + 3. The note's own were random and are lost; these are a
stand-in, made by formula so that all 40 loss values that its source published come out
(``data/points.py``). Expect parabolas along b and w, a bowl over (w, b) stretched along the line on
which a larger w makes up for a smaller b, and a vmapped grid that is computed hundreds of
times faster than by the note's double loop.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.data import points
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import losses, neurons, planes, plots, surfaces

FIGURE_SIZE = (13, 6.4)
NUM_SAMPLES = 50
W, B = 2.0, 3.0
HALF_WIDTH, STEP, COUNT = 1, 0.05, 40
WIDE_HALF_WIDTH, WIDE_STEP, WIDE_COUNT = 10, 0.1, 200
X, Y = points.FIFTY
COST = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)

# What ai-edu (Microsoft, chapter 3.1) prints of its loss: the first and last three rows and
# columns of a 200 x 200 grid, w in [0, 4] downwards, b in [1, 5] to the right; and the loss of
# four lines with w = 2.
PUBLISHED_GRID = np.array(
    [
        [4.69, 4.63, 4.57, 0.72, 0.74, 0.76],
        [4.66, 4.60, 4.54, 0.73, 0.75, 0.77],
        [4.62, 4.56, 4.50, 0.73, 0.75, 0.77],
        [0.70, 0.68, 0.66, 4.57, 4.63, 4.69],
        [0.69, 0.67, 0.65, 4.60, 4.66, 4.72],
        [0.68, 0.66, 0.64, 4.63, 4.69, 4.75],
    ]
)
PUBLISHED_LINES = {2.0: "0.53", 2.5: "0.16", 3.0: "0.048", 3.5: "0.18"}


class Results(NamedTuple):
    """What was computed.

    Attributes:
      along_b: the loss against b, at w = 2.
      along_w: the loss against w, at b = 3.
      near: the loss over (w, b), 200 x 200, the published grid.
      wide: the loss over (w, b), 200 x 200, the note's grid.
      lines: the loss of the four published lines.
      least_squares: the best (w, b).
      seconds: of the wide grid by the note's double loop, by the vmapped and jitted sweep of the
        same formula, and by the sweep of the restricted loss.
      largest_difference: of the two sweeps from the loop, relative.
    """

    along_b: surfaces.Surface
    along_w: surfaces.Surface
    near: surfaces.Surface
    wide: surfaces.Surface
    lines: dict[float, jax.Array]
    least_squares: np.ndarray
    seconds: tuple[float, float, float]
    largest_difference: float


def compute(seed: int = 0) -> Results:
    """Sweeps the loss, and times the note's double loop against the sweep."""
    del seed  # nothing here is random
    neuron = neurons.Neuron(weights=jnp.array([W]), bias=jnp.array(B))
    x, y = jnp.asarray(X[:, None]), jnp.asarray(Y)
    over_b = planes.coordinate(neuron, ("bias",))
    over_w = planes.coordinate(neuron, ("weights", 0))
    over_wb = planes.coordinate(neuron, ("weights", 0), ("bias",))

    @jax.jit
    def surface(plane: planes.Plane, x: Any, y: Any, *axes: Any) -> surfaces.Surface:
        return surfaces.sweep(lambda *c: COST(planes.point(plane, *c), x, y), *axes)

    b = B - HALF_WIDTH + STEP * np.arange(COUNT)
    w = W - HALF_WIDTH + STEP * np.arange(COUNT)
    wide_w = W - WIDE_HALF_WIDTH + WIDE_STEP * np.arange(WIDE_COUNT)
    wide_b = B - WIDE_HALF_WIDTH + WIDE_STEP * np.arange(WIDE_COUNT)
    wide = surface(over_wb, x, y, wide_w, wide_b)

    swept_formula = jax.jit(lambda x, y, *axes: surfaces.sweep(_formula(x, y), *axes))
    looped, loop_seconds = _timed(lambda: double_loop(wide_w, wide_b), 1)
    swept, sweep_seconds = _timed(
        lambda: jax.block_until_ready(swept_formula(x[:, 0], y, wide_w, wide_b)), 20
    )
    phi = planes.restrict(COST, over_wb, x, y)
    swept_phi = jax.jit(surfaces.sweep)  # phi is a pytree: an argument like any other
    restricted, restricted_seconds = _timed(
        lambda: jax.block_until_ready(swept_phi(phi, wide_w, wide_b)), 20
    )
    differences = [
        float(np.max(np.abs(looped / np.asarray(way.values) - 1))) for way in (swept, restricted)
    ]
    line = jax.jit(lambda bias: COST(planes.point(over_b, bias), x, y))
    results = Results(
        along_b=surface(over_b, x, y, b),
        along_w=surface(over_w, x, y, w),
        near=surface(over_wb, x, y, np.linspace(0, 4, 200), np.linspace(1, 5, 200)),
        wide=wide,
        lines={bias: line(bias) for bias in PUBLISHED_LINES},
        least_squares=np.polyfit(X, Y, 1),
        seconds=(loop_seconds, sweep_seconds, restricted_seconds),
        largest_difference=max(differences),
    )
    return jax.device_get(results)


def _formula(x: jax.Array, y: jax.Array) -> Any:
    """The same loss as the note writes it, a function of w and b."""
    return lambda w, b: jnp.mean(losses.squared_error(w * x + b, y)) / 2


def double_loop(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The loss over a grid as the note computes it: one point at a time, in NumPy."""
    grid = np.zeros((len(w), len(b)))
    for i in range(len(w)):
        for j in range(len(b)):
            z = w[i] * X + b[j]
            grid[i, j] = ((z - Y) ** 2).sum() / NUM_SAMPLES / 2
    return grid


def _timed(fn: Any, repeats: int) -> tuple[Any, float]:
    """The result, and the least seconds that it took."""
    seconds = []
    result = None
    for _ in range(repeats):
        start = time.perf_counter()
        result = fn()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def tables(results: Results) -> list[Table]:
    """The published values beside ours, the minima, and the race."""
    corners = np.ix_((0, 1, 2, -3, -2, -1), (0, 1, 2, -3, -2, -1))
    ours = np.asarray(results.near.values)[corners]
    agree = int(np.sum(np.round(ours, 2) == PUBLISHED_GRID))
    lines = [
        (f"z = 2x + {bias:g}", printed, f"{results.lines[bias]:.6f}",
         "match" if f"{float(results.lines[bias]):.2g}" == f"{float(printed):.2g}" else "OFF")
        for bias, printed in PUBLISHED_LINES.items()
    ]  # fmt: skip
    grid = [
        (f"row {i}", *(f"{v:.2f}" for v in row))
        for i, row in zip((0, 1, 2, 197, 198, 199), ours, strict=True)
    ]
    minima = []
    for name, surface in (("b", results.along_b), ("w", results.along_w)):
        best = int(np.argmin(surface.values))
        minima.append(
            (name, f"{surface.coordinates[0][best]:.2f}", f"{surface.values[best]:.6f}",
             f"{surface.values[0]:.3f}", f"{surface.values[-1]:.3f}")
        )  # fmt: skip
    loop, sweep, restricted = results.seconds
    race = [
        ("the note's double loop, NumPy", f"{1e3 * loop:.1f}", "1"),
        ("the same formula, surfaces.sweep, jitted", f"{1e3 * sweep:.3f}", f"{loop / sweep:.0f}"),
        (
            "the neuron's loss, restricted to (w, b)",
            f"{1e3 * restricted:.3f}",
            f"{loop / restricted:.0f}",
        ),
    ]
    columns = ("", *(f"column {j}" for j in (0, 1, 2, 197, 198, 199)))
    return [
        Table(f"The published grid: {agree} of 36 entries agree", columns, grid),
        Table("The four published lines", ("line", "published", "ours", "verdict"), lines),
        Table("Along one parameter", ("against", "lowest at", "loss", "first", "last"), minima),
        Table(
            "200 x 200 losses of 50 samples (largest relative difference "
            f"{results.largest_difference:.0e})",
            ("how", "milliseconds", "times as fast"),
            race,
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The published losses come out, the curves are parabolas, and the sweep is the loop."""
    corners = np.ix_((0, 1, 2, -3, -2, -1), (0, 1, 2, -3, -2, -1))
    agree = np.round(np.asarray(results.near.values)[corners], 2) == PUBLISHED_GRID
    third = max(
        np.abs(np.diff(np.asarray(line.values), n=3)).max()
        for line in (results.along_b, results.along_w)
    )
    loop, sweep, _ = results.seconds
    return [
        Expectation("all 36 published entries of the grid come out", f"{agree.sum()}", agree.all()),
        Expectation(
            "along b and along w the loss is a parabola",
            f"third differences up to {third:.0e}",
            bool(third < 1e-5),
        ),
        Expectation(
            "the sweep equals the note's double loop",
            f"to {results.largest_difference:.0e}, {loop / sweep:.0f} times as fast",
            bool(results.largest_difference < 1e-5 and sweep < loop),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Loss against b, against w, and over both: in three dimensions, as contours, as dots."""
    grid = figure.add_gridspec(2, 3, width_ratios=(1.9, 1, 1))
    solid: Any = figure.add_subplot(grid[:, 0], projection="3d")
    contour, dots = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[0, 2])
    along_b, along_w = figure.add_subplot(grid[1, 1]), figure.add_subplot(grid[1, 2])
    names, name = ("w", "b"), "loss J"
    w, b = (np.asarray(axis) for axis in results.near.coordinates)
    values = np.asarray(results.near.values)
    plots.surface_3d(solid, results.near, axis_names=names, value_name=name, log=True)
    floor = -0.45 * values.max()
    levels = plots.common_levels(results.near, log=True, num_levels=14)
    floor_look: Any = {"zdir": "z", "offset": floor, "cmap": "viridis", "norm": "log"}
    solid.contour(*np.meshgrid(w, b, indexing="ij"), values, levels=levels, **floor_look)
    solid.plot(*results.least_squares, floor, "*", color=plots.COLOURS[1], ms=13, mec="black")
    solid.set_zlim(floor, values.max())
    solid.set_zticks([0, 1, 2, 3, 4])
    solid.set(xticks=[0, 1, 2, 3, 4], yticks=[1, 2, 3, 4, 5])
    solid.view_init(elev=24, azim=-52)
    solid.set_zlabel("")
    solid.text(w[-1], b[-1], 1.1 * values.max(), "J", fontsize=11)
    solid.set_box_aspect((1, 1, 0.95), zoom=1.08)
    solid.set_title("The loss over (w, b), and its contours on the floor", y=1.04)

    plots.surface_contour(contour, results.near, axis_names=names, value_name="J", log=True)
    contour.plot(*results.least_squares, "*", color=plots.COLOURS[1], ms=13, mec="black",
                 ls="none", label="least squares")  # fmt: skip
    contour.legend(fontsize=8)
    contour.set_title("As contours")
    plots.level_sets(dots, results.near, axis_names=names)
    dots.set_title("Equal loss, equal colour")
    plots.loss_line(along_b, results.along_b, axis_name="b", value_name=name,
                    color=plots.COLOURS[0], marker="x", ms=4, ls="")  # fmt: skip
    along_b.set_title("Against b (w = 2)")
    plots.loss_line(along_w, results.along_w, axis_name="w", value_name=name,
                    color=plots.COLOURS[1], marker="o", ms=3, ls="")  # fmt: skip
    along_w.set_title("Against w (b = 3)")
    panels.letters(solid, contour, dots, along_b, along_w)


def playgrounds() -> dict[str, str]:
    """The bowl over (w, b) beside the line that w and b draw through the data."""

    def cost(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        neuron = neurons.Neuron(weights=jnp.stack([params["w"]]), bias=params["b"])
        return COST(neuron, x[:, None], y)

    page = plots.playground(
        cost, {"w": 0.0, "b": 1.0}, np.ravel(X), np.ravel(Y), learning_rate=0.5,
        predict_fn=lambda params, x: params["w"] * x + params["b"],
        domains=((0, 5), (-2, 6)), title="One neuron, 50 points",
    )  # fmt: skip
    return {"By hand: drag (b, w) and watch the line; paste data of your own": page}


def interactive(results: Results) -> dict[str, Any]:
    """The surface to turn: every third point of the published grid each way."""
    w, b = results.near.coordinates
    surface = surfaces.Surface((w[::3], b[::3]), results.near.values[::3, ::3])
    figure = plots.interactive_surface(surface, axis_names=("w", "b"), value_name="loss J")
    return {"The bowl over (w, b), every third point of the grid": figure}


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on its loss pictures."""
    return {
        "V01": HALF_WIDTH,
        "V02": STEP,
        "V03": HALF_WIDTH,
        "V04": WIDE_HALF_WIDTH,
        "V05": WIDE_STEP,
        "V06": results.along_b.values.size,
        "V07": results.wide.values.shape,
    }
