"""Which optimizer arrives, how fast, and at which minimum?

Six optimizers on four surfaces with known minima: a quadratic of condition number 100, turned by
30 degrees, so that scaling each coordinate by itself does not help; the curved valley of
Rosenbrock; the four minima of Himmelblau; the plateaus of Beale. Each descends from every point
of a grid of starts. Expect L-BFGS to arrive in tens of steps; momentum (0.9) to beat plain
gradient descent in the valleys, and to lose among Himmelblau's minima, which are round: with it
no error shrinks faster than by sqrt(0.9) = 0.949 a step; RMSProp, whose steps do not shrink, to
keep hopping about the minimum from most starts; and neither the nearest minimum nor one and the
same to be reached always.

(Where RMSProp is said to arrive, it mostly passes by: from starts near the diagonals of a minimum
both coordinates cross it at one step, which ends the run; without a tolerance it leaves again.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.shell.panels import END, START, colour_of_rule, letters
from experiments.shell.report import Expectation, Table
from jaxgd import descent, plots, surfaces

FIGURE_SIZE = (14, 13)
SECONDS = 15
OPTIMIZERS = {
    "SGD": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "Adam": optax.adam,
    "Nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "RMSProp": optax.rmsprop,
    "L-BFGS": lambda _: optax.lbfgs(),  # its line search finds the step
}
NUM_STEPS = dict.fromkeys(OPTIMIZERS, 2000) | {"L-BFGS": 200}  # each of which costs several
TOLERANCE, NEAR = 1e-6, 1e-3  # of the gradient, and what counts as there: a distance
NUM_STARTS, SURFACE_RESOLUTION = 32, 121  # per axis


class Landscape(NamedTuple):
    """A surface to descend: the sum of the squares of up to three polynomials.

    Attributes:
      residuals: each polynomial as {(power of x, power of y): coefficient}.
      window: ((low, high) of x, (low, high) of y), which holds every start.
      start: where the path that is drawn begins.
      rates: by optimizer, its learning rate; L-BFGS has none.
    """

    residuals: tuple[dict[tuple[int, int], float], ...]
    window: tuple[tuple[float, float], tuple[float, float]]
    start: tuple[float, float]
    rates: dict[str, float]


_COS, _SIN = np.cos(np.pi / 6), np.sin(np.pi / 6)
LANDSCAPES = {
    # u^2 / 2 + 100 v^2 / 2, where (u, v) is (x, y) turned by 30 degrees
    "quadratic": Landscape(
        (
            {(1, 0): _COS / 2**0.5, (0, 1): _SIN / 2**0.5},
            {(1, 0): -_SIN * 50**0.5, (0, 1): _COS * 50**0.5},
        ),
        ((-3, 3), (-3, 3)), (-2.7, 0.8),
        {"SGD": 0.015, "momentum": 0.015, "Nesterov": 0.008, "Adam": 0.1, "RMSProp": 0.01},
    ),
    # (1 - x)^2 + 100 (y - x^2)^2
    "Rosenbrock": Landscape(
        ({(0, 0): 1, (1, 0): -1}, {(0, 1): 10, (2, 0): -10}),
        ((-2, 2), (-1, 3)), (-1.5, 2.5),
        {"SGD": 5e-4, "momentum": 3e-4, "Nesterov": 2e-4, "Adam": 0.1, "RMSProp": 0.01},
    ),
    # (x^2 + y - 11)^2 + (x + y^2 - 7)^2
    "Himmelblau": Landscape(
        ({(2, 0): 1, (0, 1): 1, (0, 0): -11}, {(1, 0): 1, (0, 2): 1, (0, 0): -7}),
        ((-5, 5), (-5, 5)), (-0.6, -0.2),
        {"SGD": 0.005, "momentum": 0.005, "Nesterov": 0.003, "Adam": 0.1, "RMSProp": 0.01},
    ),
    # (1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2
    "Beale": Landscape(
        tuple({(0, 0): c, (1, 0): -1, (1, k): 1} for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
        ((-1, 4), (-1.2, 1.2)), (0.0, -1.0),
        {"SGD": 0.005, "momentum": 0.002, "Nesterov": 0.002, "Adam": 0.05, "RMSProp": 0.01},
    ),
}  # fmt: skip


def coefficients(landscape: Landscape) -> np.ndarray:
    """Entry (k, i, j): what x^i y^j counts in residual k."""
    table = np.zeros((3, 3, 4))
    for k, residual in enumerate(landscape.residuals):
        for powers, value in residual.items():
            table[k, *powers] = value
    return table


def loss(point: jax.Array, terms: Any) -> jax.Array:
    """The height of a landscape, by its ``coefficients``: one program serves all of them."""
    x, y = point
    residuals = terms @ jnp.stack([y**0, y, y**2, y**3]) @ jnp.stack([x**0, x, x**2])
    return jnp.sum(residuals**2)


def minima() -> dict[str, np.ndarray]:
    """Every minimum, shape (count, 2): those of Himmelblau are roots of a quartic."""
    x = np.sort(np.roots([1, 0, -22, 1, 114]).real)
    return {
        "quadratic": np.zeros((1, 2)),
        "Rosenbrock": np.ones((1, 2)),
        "Himmelblau": np.stack([x, 11 - x**2], axis=1),
        "Beale": np.array([[3.0, 0.5]]),
    }


class Results(NamedTuple):
    """What was computed.

    Attributes:
      trajectories: by landscape, by optimizer, the whole descent from the start that is drawn.
      ends: by landscape, by optimizer, over a grid of starts: x, y, loss, steps and status at
        the end.
      surfaces: by landscape, its loss over the window.
    """

    trajectories: dict[str, dict[str, descent.Trajectory]]
    ends: dict[str, dict[str, surfaces.Surface]]
    surfaces: dict[str, surfaces.Surface]


def descents(
    name: str, terms: Any, axes: tuple[Any, Any], start: Any, rate: Any
) -> tuple[descent.Trajectory, surfaces.Surface]:
    """The descent from one start, and how those from a grid of starts end, in one vmap."""
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    runs = jax.vmap(
        lambda point: descent.optimize(
            loss,
            point,
            terms,
            optimizer=OPTIMIZERS[name](rate),
            num_steps=NUM_STEPS[name],
            tolerance=TOLERANCE,
        )
    )(jnp.concatenate([start[None], grid]))
    x, y = runs.params[1:].T
    ends = {"x": x, "y": y, "loss": runs.losses[1:, -1]}
    ends |= {"steps": runs.num_steps[1:], "status": runs.status[1:]}
    shape = tuple(axis.size for axis in axes)
    ends = jax.tree.map(lambda values: values.reshape(shape), ends)
    return jax.tree.map(lambda rows: rows[0], runs), surfaces.Surface(axes, ends)


def compute(seed: int = 0, full: bool = False) -> Results:
    """Descends with every optimizer on every landscape; ``full`` takes a finer grid of starts."""
    del seed  # nothing here is random
    count = NUM_STARTS * (2 if full else 1)
    terms = {name: coefficients(landscape) for name, landscape in LANDSCAPES.items()}

    def axes_of(landscape: Landscape, size: int) -> tuple[Any, Any]:
        x, y = (np.linspace(*span, size) for span in landscape.window)
        return x, y

    stacked = jax.tree.map(
        lambda *rows: np.stack(rows),
        *(
            (terms[name], axes_of(landscape, count), np.array(landscape.start))
            for name, landscape in LANDSCAPES.items()
        ),
    )
    rates = {
        name: np.array([landscape.rates.get(name, 0.0) for landscape in LANDSCAPES.values()])
        for name in OPTIMIZERS
    }

    @jax.jit
    def everything(stacked: Any, rates: Any) -> Any:
        # One landscape after the other: its descents end when its slowest one does.
        return {
            name: jax.lax.map(lambda of: descents(name, *of), (*stacked, rates[name]))  # noqa: B023
            for name in OPTIMIZERS
        }

    @jax.jit
    def sweep(terms: Any, *axes: Any) -> surfaces.Surface:
        return surfaces.sweep(lambda x, y: loss(jnp.stack([x, y]), terms), *axes)

    computed = jax.tree.map(np.asarray, everything(stacked, rates))
    by_landscape = {
        name: {key: jax.tree.map(lambda rows, i=i: rows[i], computed[key]) for key in OPTIMIZERS}
        for i, name in enumerate(LANDSCAPES)
    }
    return Results(
        surfaces={
            name: sweep(terms[name], *axes_of(landscape, SURFACE_RESOLUTION))
            for name, landscape in LANDSCAPES.items()
        },
        trajectories={
            name: {key: pair[0] for key, pair in by_landscape[name].items()} for name in LANDSCAPES
        },
        ends={
            name: {key: pair[1] for key, pair in by_landscape[name].items()} for name in LANDSCAPES
        },
    )


def arrivals(ends: surfaces.Surface, known: np.ndarray) -> np.ndarray:
    """Which minimum each start leads to; -1 where a descent did not converge to one of them."""
    points = np.stack([ends.values["x"], ends.values["y"]], axis=-1)
    distances = np.linalg.norm(points[..., None, :] - known, axis=-1)
    there = (ends.values["status"] == descent.Status.CONVERGED) & (distances.min(-1) <= NEAR)
    return np.where(there, distances.argmin(axis=-1), -1)


def nearest(ends: surfaces.Surface, known: np.ndarray) -> np.ndarray:
    """Which minimum each start is nearest to."""
    starts = np.stack(np.meshgrid(*ends.coordinates, indexing="ij"), axis=-1)
    return np.linalg.norm(starts[..., None, :] - known, axis=-1).argmin(axis=-1)


def tables(results: Results) -> list[Table]:
    """Who converged, how fast, and how near to the minimum."""
    known, rows = minima(), []
    for name, landscape in LANDSCAPES.items():
        for key in OPTIMIZERS:
            ends = results.ends[name][key]
            there = arrivals(ends, known[name])
            status, taken = ends.values["status"], ends.values["steps"]
            counts = [np.sum(status == s) for s in descent.Status]
            steps = np.median(np.where(there >= 0, taken, np.inf))
            points = np.stack([ends.values["x"], ends.values["y"]], axis=-1)[there >= 0]
            away = np.linalg.norm(points[:, None] - known[name], axis=-1).min(axis=-1)
            rows.append((
                name, key, f"{landscape.rates[key]:g}" if key in landscape.rates else "",
                *counts, f"{np.mean(there >= 0):.1%}",
                f"> {NUM_STEPS[key]}" if np.isinf(steps) else f"{steps:.0f}",
                f"{np.median(ends.values['loss']):.1e}", f"{away.max():.1e}" if away.size else "",
            ))  # fmt: skip
    size = results.ends["Himmelblau"]["SGD"].values["x"].size
    return [
        Table(
            f"{size} starts each, until every |gradient entry| <= {TOLERANCE:g}",
            ("landscape", "optimizer", "rate", *(s.name for s in descent.Status), "arrived",
             "median steps", "median last loss", "farthest from the minimum"),
            rows,
        ),
        _basin_table(results),
    ]  # fmt: skip


def _basin_table(results: Results) -> Table:
    known = minima()["Himmelblau"]
    basins = {key: arrivals(results.ends["Himmelblau"][key], known) for key in OPTIMIZERS}
    closest = nearest(results.ends["Himmelblau"]["SGD"], known)
    rows = [
        (
            key,
            *(f"{np.mean(basin == i):.1%}" for i in (*range(len(known)), -1)),
            f"{np.mean(basin == closest):.1%}",
            f"{np.mean(basin == basins['SGD']):.1%}",
        )
        for key, basin in basins.items()
    ]
    names = [f"({x:.3f}, {y:.3f})" for x, y in known]
    header = ("to", *names, "none", "the nearest", "where SGD goes")
    return Table("Which minimum of Himmelblau the starts lead to", header, rows)


def expectations(results: Results) -> list[Expectation]:
    """Who is fast where, who never arrives, and that the nearest minimum is not always reached."""
    steps, shares, last_losses = {}, {}, {}
    for name, known in minima().items():
        for key, ends in results.ends[name].items():
            has_arrived = arrivals(ends, known) >= 0
            steps[name, key] = np.median(np.where(has_arrived, ends.values["steps"], np.inf))
            shares[name, key] = np.mean(has_arrived)
            last_losses[name, key] = np.median(ends.values["loss"])
    most = max(steps[name, "L-BFGS"] for name in LANDSCAPES)
    expected = [
        Expectation(
            "L-BFGS arrives in tens of steps", f"median: at most {most:.0f}", bool(most < 100)
        )
    ]
    for name in LANDSCAPES:
        measure, unit = steps, "steps"
        if np.isinf([steps[name, "SGD"], steps[name, "momentum"]]).all():
            measure, unit = last_losses, "last loss; neither arrives"
        plain, heavy = measure[name, "SGD"], measure[name, "momentum"]
        wins = name != "Himmelblau"
        expected.append(
            Expectation(
                f"momentum {'beats' if wins else 'loses to'} SGD on {name}",
                f"{heavy:.4g} against {plain:.4g} {unit}".replace("inf", "too many"),
                bool((heavy < plain) == wins),
            )
        )
    hopping = max(shares[name, "RMSProp"] for name in LANDSCAPES)
    found = f"it arrives from up to {hopping:.1%} of the starts"
    expected.append(
        Expectation("RMSProp comes to rest from a minority of the starts", found, hopping < 0.5)
    )

    ends, known = results.ends["Himmelblau"], minima()["Himmelblau"]
    arriving = [key for key in OPTIMIZERS if shares["Himmelblau", key] == 1]
    basins = np.array([arrivals(ends[key], known) for key in arriving])
    near = np.mean(basins == nearest(ends[arriving[0]], known), axis=(1, 2))
    agree = np.mean((basins == basins[0]).all(axis=0))
    return [
        *expected,
        Expectation(
            "on Himmelblau a descent does not always lead to the nearest minimum",
            f"{near.min():.1%} to {near.max():.1%} of the starts lead there",
            bool(near.max() < 1),
        ),
        Expectation(
            "nor do all optimizers lead to the same one",
            f"the {len(arriving)} that always arrive agree on {agree:.1%} of the starts",
            bool(agree < 1),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Paths from one start, three optimizers in a panel; their losses; Himmelblau's basins."""
    rows = figure.add_gridspec(2, 1, height_ratios=(10.3, 3.25))
    top, bottom = (figure.add_subfigure(row) for row in rows)
    above, below, lowest = top.subplots(3, len(LANDSCAPES), height_ratios=(1, 1, 0.85))
    colours = {key: colour_of_rule(key) for key in OPTIMIZERS}
    trios = ("SGD", "momentum", "Nesterov"), ("Adam", "RMSProp", "L-BFGS")
    for column, (name, landscape) in enumerate(LANDSCAPES.items()):
        surface, contours = results.surfaces[name], []
        surface = surface._replace(values=np.maximum(surface.values, 1e-3))
        for panels_of_row, trio in zip((above, below), trios, strict=True):
            ax = panels_of_row[column]
            words: Any = {"axis_names": ("x", "y"), "log": True, "num_levels": 16}
            contours.append(plots.surface_contour(ax, surface, colorbar=False, **words))
            for key, width in zip(trio, (4.5, 3.0, 1.5), strict=True):  # each over the one before
                run = results.trajectories[name][key]
                look: Any = {"color": colours[key], "marker": "", "lw": width}
                plots.descent_path(ax, run, label=key, **look)
            for line in ax.lines:
                line.set_path_effects(
                    [withStroke(linewidth=line.get_linewidth() + 1, foreground="white")]
                )
            ax.plot(*minima()[name].T, "*", color=END, mec="black", ms=13, ls="none")
            ax.plot(*landscape.start, "s", color=START, mec="black", ms=7, ls="none")
            ax.set(xlim=landscape.window[0], ylim=landscape.window[1])
            ax.set_ylabel("y" if column == 0 else "")
        above[column].set_xlabel("")
        above[column].set_title(f"{name}\n{', '.join(trios[0])}", fontsize=10)
        below[column].set_title(", ".join(trios[1]), fontsize=10)
        bar = top.colorbar(contours[0], ax=[above[column], below[column]], aspect=45, pad=0.02)
        lowest_level, highest_level = surface.values.min(), surface.values.max()
        ticks = [10.0**k for k in range(-3, 6) if lowest_level <= 10.0**k <= highest_level]
        bar.set_ticks(ticks)
        bar.set_ticks([], minor=True)
        bar.ax.set_title("loss", fontsize=9)
        for key in OPTIMIZERS:
            run = results.trajectories[name][key]
            plots.loss_curve(lowest[column], run, color=colours[key], lw=2, label=key)
        lowest[column].set(xscale="symlog", yscale="log", ylim=(1e-14, None), ylabel="")
    lowest[0].set_ylabel("loss")
    lowest[1].legend(fontsize=8, loc="lower left")
    letters(*above, *below, *lowest)
    _basins(bottom, results)


def _basins(figure: Any, results: Results) -> None:
    """Where the descents on Himmelblau lead, by their start."""
    known = minima()["Himmelblau"]
    (low_x, high_x), (low_y, high_y) = LANDSCAPES["Himmelblau"].window
    colours = ListedColormap(["0.85", *(plots.COLOURS[i] for i in (0, 4, 2, 3))])
    panels = figure.subplots(1, len(OPTIMIZERS), sharey=True)
    for ax, key in zip(panels, OPTIMIZERS, strict=True):
        basin = arrivals(results.ends["Himmelblau"][key], known)
        look: Any = {"origin": "lower", "extent": (low_x, high_x, low_y, high_y)}
        ax.imshow(basin.T, cmap=colours, vmin=-1, vmax=3, interpolation="nearest", **look)
        ax.plot(*known.T, "*", color=END, mec="black", ms=11)
        missing = np.mean(basin < 0)
        ax.set_title(key + (f", {missing:.0%} unfinished" if missing else ""), fontsize=11)
        ax.set(xlabel="x of the start", xticks=(-4, -2, 0, 2, 4), yticks=(-4, -2, 0, 2, 4))
    panels[0].set_ylabel("y of the start")
    figure.suptitle("Which minimum of Himmelblau (stars) a start leads to; grey: none in time")


def _in_order(runs: dict[str, descent.Trajectory]) -> dict[str, descent.Trajectory]:
    """The runs as the optimizers are listed, so that each has its colour in every picture."""
    return {key: runs[key] for key in OPTIMIZERS}


def interactive(results: Results) -> dict[str, Any]:
    """The six descents, played on each landscape, and Himmelblau's four valleys to turn."""
    look: Any = {"axis_names": ("x", "y"), "log": True}
    played = {
        f"{name}: six ways down": plots.interactive_descent(
            results.surfaces[name], _in_order(results.trajectories[name]), num_frames=36, **look
        )
        for name in LANDSCAPES
    }
    valleys = plots.interactive_surface(
        results.surfaces["Himmelblau"], _in_order(results.trajectories["Himmelblau"]), **look
    )
    return {**played, "Himmelblau's four valleys to turn": valleys}
