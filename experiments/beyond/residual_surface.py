"""What do skip connections do to the loss of a deep network?

Seventeen convolutions learn scikit-learn's handwritten digits by Adam, once with a skip connection
round each pair of them and once without: the picture of Li et al., at home. Expect both to learn,
the one with skips better. On a filter-normalized plane expect a smooth bowl with skips; without
them, a hole in a rugged plateau as high as the loss of a network that guesses: tens of minima, but
none other as deep as a tenth of the range. Each surface is a Chebyshev series through at most some
1,200 points, with its error; the rugged one needs more points and is followed less closely.

Source: Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets, 2018.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.data import residual
from experiments.data.digits import load_digits
from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import descent, planes, plots, surfaces, sweeps
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (14, 8.4)
SECONDS = 25
NETWORKS = {"with skips": True, "without skips": False}
NUM_SEEN, REACH, TOLERANCE, MAX_DEGREE = 128, 1.0, 0.02, 32
NUM_CHECKED, RESOLUTION = 64, 101
CHANCE = float(np.log(10))  # nats: the loss of a network that calls all digits equally likely


class Results(NamedTuple):
    """What was computed, by network.

    Attributes:
      runs: the trainings; no path is kept.
      accuracies: on the test digits, after training.
      series: the loss of NUM_SEEN training digits over a plane, as a Chebyshev series.
      basins: its minima on a grid and where their basins end.
      surfaces: its values on that grid, to be drawn.
      deviations: the largest deviation of the series from the loss at NUM_CHECKED random points.
    """

    runs: dict[str, descent.Trajectory]
    accuracies: dict[str, float]
    series: dict[str, surfaces.Approximation]
    basins: dict[str, surfaces.Persistence]
    surfaces: dict[str, surfaces.Surface]
    deviations: dict[str, float]


def compute(seed: int = 0) -> Results:
    """Trains both networks and follows their losses over a plane through each."""
    digits = load_digits(seed)
    seen, unseen = (
        (residual.images(images), jnp.asarray(labels))
        for images, labels in (
            (digits.train_images, digits.train_labels),
            (digits.test_images, digits.test_labels),
        )
    )
    few = (
        residual.images(digits.train_images[:NUM_SEEN]),
        jnp.asarray(digits.train_labels[:NUM_SEEN]),
    )
    key_train, key_plane, checked = _drawn(seed)
    axis = np.linspace(-REACH, REACH, RESOLUTION)
    results = Results({}, {}, {}, {}, {}, {})
    for name, has_skips in NETWORKS.items():
        run = residual.train(key_train, *seen, np.bool_(has_skips))
        plane, accuracy = _looked_from(key_plane, run.params, *unseen, np.bool_(has_skips))
        phi = planes.restrict(residual.risk, plane, *few, np.bool_(has_skips))
        series = sweeps.approximate(
            phi, *[(-REACH, REACH)] * 2, tolerance=TOLERANCE, max_degree=MAX_DEGREE, progress=False
        )
        drawn, deviations = _seen(series, phi, axis, checked)
        results.runs[name] = run
        results.accuracies[name] = float(accuracy)
        results.series[name] = series
        results.surfaces[name] = drawn
        results.basins[name] = surfaces.persistence(drawn)
        results.deviations[name] = float(np.max(deviations))
    return results


@jax.jit
def _drawn(seed: Any) -> tuple[PRNGKey, PRNGKey, Array]:
    """The keys of the training and of the plane, and points at which a series is checked."""
    key_train, key_plane, key_check = jax.random.split(jax.random.key(seed), 3)
    points = jax.random.uniform(key_check, (2, NUM_CHECKED), jnp.float32, -REACH, REACH)
    return key_train, key_plane, points


@jax.jit
def _looked_from(
    key: PRNGKey, params: Params, x: Array, y: Array, has_skips: Array
) -> tuple[planes.Plane, Array]:
    """A plane through a network, and how many digits that has right."""
    plane = planes.filter_normalize(planes.random(key, params), filter_axis=residual.filter_axis)
    logits = residual.predict(params, x, has_skips=has_skips)
    return plane, jnp.mean(logits.argmax(axis=-1) == y)


@jax.jit
def _seen(series: Any, phi: Any, axis: Any, points: Any) -> tuple[surfaces.Surface, Any]:
    """A series on a grid, and its deviations from the loss itself at some points."""
    drawn = surfaces.sweep(lambda a, b: surfaces.evaluate(series, a, b), axis, axis)
    deviations = jax.lax.map(
        lambda point: jnp.abs(surfaces.evaluate(series, *point) - phi(*point)), tuple(points)
    )
    return drawn, deviations


def height(surface: surfaces.Surface) -> float:
    """The range of the values."""
    return float(np.ptp(np.asarray(surface.values)))


def depths(results: Results, name: str) -> np.ndarray:
    """How deep the basins lie below their passes, as shares of the range, but for the lowest."""
    basins = results.basins[name]
    lasting = np.asarray(basins.deaths - basins.births)
    return lasting[np.isfinite(lasting)] / height(results.surfaces[name])


def tables(results: Results) -> list[Table]:
    """What was learned, and what the surfaces are like."""
    rows = []
    for name, surface in results.surfaces.items():
        series, whole, others = results.series[name], height(surface), depths(results, name)
        rows.append(
            (name, f"{results.runs[name].losses[-20:].mean():.3f}",
             f"{results.accuracies[name]:.1%}", f"{np.min(np.asarray(surface.values)):.3f}",
             f"{np.max(np.asarray(surface.values)):.2f}",
             1 + len(others), f"{others.max():.1%}" if len(others) else "none",
             int(series.num_points),
             f"{float(series.errors) / whole:.1%}", f"{results.deviations[name] / whole:.1%}")
        )  # fmt: skip
    title = f"Seventeen convolutions, {residual.NUM_STEPS} steps; the loss of {NUM_SEEN} digits"
    header = ("network", "last losses", "unseen digits", "lowest", "highest",
              "minima", "depth of the second", "evaluations", "error stated",
              f"error at {NUM_CHECKED} points")  # fmt: skip
    return [Table(title, header, rows)]


def expectations(results: Results) -> list[Expectation]:
    """Both learn; with skips the surface has fewer minima, and fewer points follow it."""
    smooth, rugged = NETWORKS
    minima = {name: 1 + len(depths(results, name)) for name in NETWORKS}
    second = max(depths(results, rugged), default=0.0)
    error = {n: float(results.series[n].errors) / height(results.surfaces[n]) for n in NETWORKS}
    deviations, accuracy = results.deviations, results.accuracies
    last = {name: float(results.runs[name].losses[-20:].mean()) for name in NETWORKS}
    return [
        Expectation(
            "both know 9 in 10 digits that they have not seen",
            ", ".join(f"{name} {accuracy[name]:.1%}" for name in NETWORKS),
            min(accuracy.values()) > 0.9,
        ),
        Expectation(
            "with skips the network ends at less than half the loss",
            ", ".join(f"{name} {last[name]:.3f}" for name in NETWORKS),
            last[smooth] < last[rugged] / 2,
        ),
        Expectation(
            "without skips there are more minima, and the series follows less closely",
            ", ".join(f"{n}: {minima[n]}, error {error[n]:.1%} of the range" for n in NETWORKS),
            minima[smooth] < minima[rugged] and error[smooth] < error[rugged],
        ),
        Expectation(
            "without skips, too, one minimum alone is deeper than a tenth of the range",
            f"the second is {second:.1%} deep",
            bool(second < 0.1),
        ),
        Expectation(
            "no checked point is further off than the stated error",
            ", ".join(f"{n} {deviations[n]:.3f} of {results.series[n].errors:.3f} nats"
                      for n in NETWORKS),
            all(deviations[name] <= float(results.series[name].errors) for name in NETWORKS),
        ),
    ]  # fmt: skip


def draw(figure: Figure, results: Results) -> None:
    """Each surface as a relief and as a map, at common levels, and the two trainings."""
    levels = plots.common_levels(*results.surfaces.values(), num_levels=24)
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 0.8))
    names: Any = {"axis_names": ("direction 1", "direction 2")}
    reliefs, maps = [], []
    for column, (name, surface) in enumerate(results.surfaces.items()):
        relief = figure.add_subplot(grid[0, column], projection="3d")
        plots.surface_3d(relief, surface, **names)
        relief.set_title(f"Loss {name}")
        ax = figure.add_subplot(grid[1, column])
        plots.surface_contour(ax, surface, levels=levels, aspect="equal", **names)
        error = float(results.series[name].errors) / height(surface)
        points = results.series[name].num_points
        ax.set_title(f"Within {error:.1%} of its range, from {points} points", fontsize=10)
        ax.set_xticks([-1, -0.5, 0, 0.5, 1])
        reliefs.append(relief)
        maps.append(ax)
    loss, cut = (figure.add_subplot(grid[row, 2]) for row in (0, 1))
    for (name, run), colour in zip(results.runs.items(), plots.COLOURS, strict=False):
        trace = np.asarray(run.losses)[:-1].reshape(-1, 10).mean(axis=1)
        label = f"{name}: {results.accuracies[name]:.1%} of unseen digits"
        loss.semilogy(10 * np.arange(trace.size) + 5, trace, color=colour, label=label)
        surface = results.surfaces[name]
        middle = np.asarray(surface.values)[:, RESOLUTION // 2]
        cut.plot(surface.coordinates[0], middle, color=colour, label=name)
    cut.axhline(CHANCE, color="grey", ls=":", label="all digits equally likely")
    loss.set(xlabel="step", ylabel="loss on the batch, mean of 10 steps")
    loss.set_title("Training")
    cut.set(xlabel="direction 1", ylabel="loss")
    cut.set_title("Cuts along direction 1")
    loss.set_ylim(None, 20)  # room for the legend
    cut.set_ylim(None, 8.5)
    for ax in (loss, cut):
        ax.legend(loc="upper right", fontsize=9)
    letters(*reliefs, loss, *maps, cut)


def interactive(results: Results) -> dict[str, Any]:
    """Both surfaces to turn."""
    names: Any = {"axis_names": ("direction 1", "direction 2"), "aspect": "equal"}
    return {
        f"The loss {name}": plots.interactive_surface(surface, **names)
        for name, surface in results.surfaces.items()
    }
