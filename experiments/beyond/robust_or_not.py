"""Does the ramp withstand outliers where the hinge does not, and is a convex loss enough?

Points on a line, 20 of each class about -1 and 1, and beside them points labelled -1 that lie
far out on the other side. Expect one of them to be enough to ruin the hinge: beyond a distance
that can be computed, the sum of all y x less one point's, its best weight is 0; its square and
the logistic loss to fail, too. Expect the ramp's minimum not to move; but the ramp is not
convex: expect descents from other starts to end in worse places, or never to start, where its
gradient is 0. And expect convexity alone not to be enough: with a step above 2 / lambda, lambda
being the curvature at the minimum, a convex cost is not minimized; nor is the hinge, which has
a kink there, with any constant step, but with a decaying one.

(Not expected, and found: of the convex losses the hinge stands longest against one outlier; and
the ramp's exact minimum can be a cliff that overfits, which no descent finds: with seed 0 it is.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, plots, surfaces

FIGURE_SIZE = (13, 9.6)
SECONDS = 10
PER_CLASS, SPREAD = 20, 0.5
DISTANCES = tuple(float(x) for x in np.geomspace(2, 80, 33))
COUNTS = tuple(float(x) for x in range(0, 33, 2))
COUNTED_AT, MAP_AT = 4.0, 6.0  # how far out are the outliers that are counted, and the map's one
CUT = -1.0
LOSSES = {
    "hinge": losses.hinge,
    "squared hinge": losses.squared_hinge,
    "logistic": lambda m: losses.sigmoid_binary_cross_entropy(m, jnp.ones_like(m)),
    "ramp": lambda m: losses.ramp(m, CUT),
}
SMOOTH = ("logistic", "squared hinge")
KINKS = {"hinge": (1.0,), "ramp": (1.0, CUT)}  # the margins where a loss has a corner
RUNS = {  # by name: the loss, and the weight to start from
    "hinge": ("hinge", 0),
    "squared hinge": ("squared hinge", 0),
    "logistic": ("logistic", 0),
    "ramp from w = 0": ("ramp", 0),
    "ramp from w = 1": ("ramp", 1),
}
NUM_STEPS, RESOLUTION = 2000, 21
WELL = 0.5  # the risk of telling the classes apart; that of not even trying is 1
FRACTIONS, CONVEX_STEPS, TOLERANCE = (0.5, 0.95, 1.05, 2.0), 4000, 1e-8
HINGE_RATES = (3.0, 0.3, 0.03)


class Data(NamedTuple):
    """Labelled points; the last one counts several times: N - 1 clean ones and the outliers."""

    inputs: Any  # (N, 1)
    labels: Any  # (N,)
    weights: Any  # (N,)


class Results(NamedTuple):
    """What was computed.

    Attributes:
      clean: the points without an outlier.
      by_distance: by run, the neuron for each of ``DISTANCES``, one outlier.
      by_count: by run, the neuron for each of ``COUNTS`` outliers at ``COUNTED_AT``.
      starts: by loss, over the start (w, b), one outlier at ``MAP_AT``: how the descent ends.
      curvatures: by smooth loss, the largest eigenvalue of the Hessian at its minimum.
      convex: by smooth loss, descents at ``FRACTIONS`` of 2 / curvature, one lane each.
      hinge: descents at ``HINGE_RATES``, one lane each, then one with a decaying rate.
    """

    clean: Data
    by_distance: dict[str, neurons.Neuron]
    by_count: dict[str, neurons.Neuron]
    starts: dict[str, surfaces.Surface]
    curvatures: dict[str, jax.Array]
    convex: dict[str, descent.Trajectory]
    hinge: descent.Trajectory


def sample(key: Any) -> Data:
    """The clean points, and a last one of weight 0."""
    noise = SPREAD * jax.random.normal(key, (2 * PER_CLASS,))
    labels = jnp.repeat(jnp.array([-1.0, 1.0]), PER_CLASS)
    inputs = jnp.append(labels + noise, 0.0)[:, None]
    weights = jnp.append(jnp.ones_like(labels), 0.0)
    return Data(inputs=inputs, labels=jnp.append(labels, -1.0), weights=weights)


def with_outliers(data: Data, distance: Any, count: Any) -> Data:
    """Puts ``count`` points labelled -1 at ``distance``."""
    return data._replace(
        inputs=data.inputs.at[-1, 0].set(distance), weights=data.weights.at[-1].set(count)
    )


def risk(neuron: neurons.Neuron, data: Data, loss: Any) -> jax.Array:
    """The mean loss of the margins y (w x + b)."""
    margins = losses.binary_margin(neurons.weighted_sum(neuron, data.inputs), data.labels)
    return jnp.average(loss(margins), weights=data.weights)


def end_of(
    clean: Data, loss: Any, distance: Any, count: Any, weight: Any, bias: Any
) -> descent.Trajectory:
    """A descent from (w, b) with outliers; a gradient of exactly 0 counts as CONVERGED.

    By Adam, whose rate falls to 0 in a straight line: it settles on kinks, at any scale.
    """
    data = with_outliers(clean, distance, count)
    return descent.optimize(
        lambda neuron: risk(neuron, data, loss),
        neurons.Neuron(weights=weight[None], bias=bias),
        optimizer=optax.adam(optax.linear_schedule(0.1, 0.0, NUM_STEPS)),
        num_steps=NUM_STEPS,
        tolerance=0.0,
        record=lambda _: None,
    )


def lanes(weights: Any, biases: Any) -> tuple[np.ndarray, dict[Any, slice]]:
    """The (distance, count, w, b) of every descent under a loss, and which rows are what.

    The outlier moves away, and its kind multiplies, from w = 0 and from w = 1; then the grid of
    starts with one outlier at ``MAP_AT``.
    """
    rows, where = [], {}

    def add(name: Any, more: list[tuple[float, ...]]) -> None:
        where[name] = slice(len(rows), len(rows) + len(more))
        rows.extend(more)

    for weight in (0, 1):
        add(("distance", weight), [(at, 1, weight, 0) for at in DISTANCES])
        add(("count", weight), [(COUNTED_AT, count, weight, 0) for count in COUNTS])
    add("starts", [(MAP_AT, 1, w, b) for w in weights for b in biases])
    return np.array(rows, float), where


def ends_under_each_loss(clean: Data, rows: jax.Array) -> dict[str, descent.Trajectory]:
    """The descents of ``lanes``, by loss, a lane per row; the grid for losses with kinks only."""
    plain = rows[: 2 * (len(DISTANCES) + len(COUNTS))]
    return {
        name: jax.vmap(lambda row, loss=loss: end_of(clean, loss, *row))(
            rows if name in KINKS else plain
        )
        for name, loss in LOSSES.items()
    }


def convex_descents(data: Data, loss: Any) -> tuple[jax.Array, descent.Trajectory]:
    """The curvature at the minimum, and descents with steps below and above its bound."""

    def cost(parameters: jax.Array) -> jax.Array:
        neuron = neurons.Neuron(weights=parameters[:1], bias=parameters[1])
        return risk(neuron, data, loss)

    def run(rate: Any) -> descent.Trajectory:
        return descent.gradient_descent(
            cost, jnp.zeros(2), learning_rate=rate, num_steps=CONVEX_STEPS, tolerance=TOLERANCE
        )

    curvature = jnp.linalg.eigvalsh(jax.hessian(cost)(run(0.1).params))[-1]
    return curvature, jax.vmap(run)(jnp.array(FRACTIONS) * 2 / curvature)


def hinge_descents(data: Data) -> descent.Trajectory:
    """The hinge at constant rates, and at one that falls to 0 in a straight line."""

    def run(rate: Any, decay: Any) -> descent.Trajectory:
        start = neurons.Neuron(weights=jnp.zeros(1), bias=jnp.zeros(()))
        return descent.optimize(
            lambda neuron: risk(neuron, data, losses.hinge),
            start,
            optimizer=optax.sgd(lambda t: rate * (1 - decay * t / CONVEX_STEPS)),
            num_steps=CONVEX_STEPS,
        )

    rates = jnp.array([*HINGE_RATES, HINGE_RATES[0]])
    return jax.vmap(run)(rates, jnp.array([0.0] * len(HINGE_RATES) + [1.0]))


def compute(seed: int = 0) -> Results:
    """Trains under each loss while the outlier moves away, and while its kind multiplies."""
    axes = np.linspace(-4, 4, RESOLUTION), np.linspace(-6, 6, RESOLUTION)
    rows, where = lanes(*axes)
    clean = jax.jit(sample)(jax.random.key(seed))
    ends = jax.jit(ends_under_each_loss)(clean, rows)
    one = with_outliers(clean, MAP_AT, 1.0)
    smooth = {
        name: jax.jit(convex_descents, static_argnums=1)(one, LOSSES[name]) for name in SMOOTH
    }

    def neurons_of(kind: str) -> dict[str, neurons.Neuron]:
        return {
            name: jax.tree.map(lambda p, of=of: p[where[kind, of[1]]], ends[of[0]].params)
            for name, of in RUNS.items()
        }

    def surface_of(runs: descent.Trajectory) -> surfaces.Surface:
        values = {"risk": runs.losses[:, -1], "status": runs.status, "steps": runs.num_steps}
        shaped = {key: v[where["starts"]].reshape(RESOLUTION, -1) for key, v in values.items()}
        return surfaces.Surface(coordinates=tuple(map(jnp.asarray, axes)), values=shaped)

    return Results(
        clean=clean,
        by_distance=neurons_of("distance"),
        by_count=neurons_of("count"),
        starts={name: surface_of(ends[name]) for name in KINKS},
        curvatures={name: pair[0] for name, pair in smooth.items()},
        convex={name: pair[1] for name, pair in smooth.items()},
        hinge=jax.jit(hinge_descents)(one),
    )


def exact_minimum(data: Data, name: str) -> tuple[float, np.ndarray]:
    """The least risk of a loss made of straight pieces, and the (w, b) where it is found.

    Over (w, b) such a risk is flat between the lines y (w x + b) = kink; bounded below, it is
    least at a crossing of two of them. All crossings are tried: no descent, no local minimum.
    """
    x, y, weights = np.asarray(data.inputs)[:, 0], np.asarray(data.labels), np.asarray(data.weights)
    lines = np.array([(a, s, s * kink) for a, s in zip(x, y, strict=True) for kink in KINKS[name]])
    i, j = np.triu_indices(len(lines), k=1)
    crosses = np.abs(lines[i, 0] - lines[j, 0]) > 1e-12
    (x1, _, v1), (x2, _, v2) = lines[i[crosses]].T, lines[j[crosses]].T
    w = (v1 - v2) / (x1 - x2)  # where w x + b = y kink on both, y being its own inverse
    b = v1 - w * x1
    margins = y * (w[:, None] * x + b[:, None])
    values = np.maximum(0, 1 - margins)
    if name == "ramp":
        values -= np.maximum(0, CUT - margins)
    risks = values @ weights / weights.sum()
    best = risks.argmin()
    return float(risks[best]), np.array([w[best], b[best]])


@jax.jit
def accuracy(neuron: neurons.Neuron) -> jax.Array:
    """On fresh points without outliers: the classes are Gaussian, so it has a closed form."""
    w, b = neuron.weights[..., 0], neuron.bias
    scale = jnp.abs(w) * SPREAD
    right = jax.scipy.stats.norm.cdf(jnp.stack([(w + b) / scale, (w - b) / scale]))
    return right.mean(axis=0)


def giving_up(data: Data) -> float:
    """From which distance of one outlier on w = 0, b = -1 is the best that the hinge can do.

    There the hinge of all of class 1 has slope, that of class -1 is at its kink and has any
    share of it. The slopes can cancel as soon as the outlier weighs up all points but one.
    """
    x, y = np.asarray(data.inputs)[:-1, 0], np.asarray(data.labels)[:-1]
    return float(np.sum(y * x) + x.min())


def tables(results: Results) -> list[Table]:
    """How the boundary fares, what the ramp costs, and what convexity is worth."""
    header = ("", *RUNS, "hinge, exact", "ramp, exact")
    return [
        Table(
            f"Accuracy while one outlier moves away (best hinge has w = 0 from "
            f"{giving_up(results.clean):.2f} on)",
            header,
            _accuracies(results, results.by_distance, DISTANCES, 4, "at {:.1f}", moves=True),
        ),
        Table(
            f"Accuracy while outliers at {COUNTED_AT:g} multiply, beside {2 * PER_CLASS} points",
            header,
            _accuracies(results, results.by_count, COUNTS, 2, "{:.0f} of them", moves=False),
        ),
        Table(
            f"Descents from {RESOLUTION**2} starts, one outlier at {MAP_AT:g}",
            ("loss", "least risk", "by exact search", f"end below {WELL:g}",
             "end where the gradient is 0", "never start", "worst end"),
            [_from_all_starts(results, name) for name in KINKS],
        ),
        Table(
            f"Convex losses, {CONVEX_STEPS} steps at most",
            ("loss", "rate", "of 2 / lambda", "status", "steps", "last risk less the least"),
            _convex(results),
        ),
    ]  # fmt: skip


def _accuracies(
    results: Results, trained: dict[str, neurons.Neuron], values: Any, stride: int, text: str,
    *, moves: bool,
) -> list[tuple[str, ...]]:  # fmt: skip
    rows = []
    shown = {name: accuracy(neuron) for name, neuron in trained.items()}
    for i in range(0, len(values), stride):
        where = (values[i], 1.0) if moves else (COUNTED_AT, values[i])
        exact = [_exact_accuracy(with_outliers(results.clean, *where), name) for name in KINKS]
        cells = (f"{x:.1%}" for x in (*(shown[name][i] for name in RUNS), *exact))
        rows.append((text.format(values[i]), *cells))
    return rows


def _exact_accuracy(data: Data, name: str) -> float:
    weight, bias = exact_minimum(data, name)[1]
    return float(accuracy(neurons.Neuron(weights=jnp.array([weight]), bias=jnp.array(bias))))


def _from_all_starts(results: Results, name: str) -> tuple[str, ...]:
    values = {key: np.asarray(v) for key, v in results.starts[name].values.items()}
    exact = exact_minimum(with_outliers(results.clean, MAP_AT, 1.0), name)[0]
    flat = values["status"] == descent.Status.CONVERGED
    shares = (values["risk"] < WELL, flat, values["steps"] == 0)
    told = (f"{np.mean(share):.1%}" for share in shares)
    low, high = values["risk"].min(), values["risk"].max()
    return name, f"{low:.4f}", f"{exact:.4f}", *told, f"{high:.2f}"


def _convex(results: Results) -> list[tuple[str, ...]]:
    rows = []
    for name in SMOOTH:
        runs, bound = results.convex[name], 2 / float(results.curvatures[name])
        least = runs.losses.min()
        for i, fraction in enumerate(FRACTIONS):
            status = descent.status_name(runs.status[i])
            rows.append((name, f"{fraction * bound:.3f}", f"{fraction:g}", status,
                         f"{runs.num_steps[i]}", f"{runs.losses[i, -1] - least:.1e}"))  # fmt: skip
    names = [*(f"{rate:g}" for rate in HINGE_RATES), f"{HINGE_RATES[0]:g}, falling to 0"]
    for i, (name, excess) in enumerate(zip(names, hinge_excess(results), strict=True)):
        status = descent.status_name(results.hinge.status[i])
        rows.append(("hinge", name, "", status, f"{CONVEX_STEPS}", f"{excess[-100:].mean():.1e}"))
    return rows


def hinge_excess(results: Results) -> np.ndarray:
    """By rate and step: the hinge's risk less the least there is."""
    least = exact_minimum(with_outliers(results.clean, MAP_AT, 1.0), "hinge")[0]
    return np.asarray(results.hinge.losses) - least


def expectations(results: Results) -> list[Expectation]:
    """Outliers ruin the convex losses, not the ramp, whose end depends on its start."""
    limit = giving_up(results.clean)
    best = accuracy(results.by_distance["ramp from w = 1"]).max()
    expected = []
    for name in ("hinge", *SMOOTH):
        accuracies = accuracy(results.by_distance[name])
        fails = int(np.argmax(accuracies < 0.9 * best))  # 0 if it never does
        found = f"fine at {DISTANCES[fails - 1]:.1f}, not at {DISTANCES[fails]:.1f}"
        if name == "hinge":
            found += f"; theory: {limit:.1f}"
        expected.append(Expectation(f"one outlier ruins the {name}", found, fails > 0))
    minima = [
        exact_minimum(with_outliers(results.clean, at, 1.0), "ramp")[1] for at in DISTANCES[::8]
    ]
    moved = np.ptp(np.array(minima), axis=0).max()
    found = f"it moves by {moved:.1g}"
    expected.append(Expectation("the ramp's minimum does not move", found, bool(moved < 0.01)))
    risks = results.starts["ramp"].values["risk"]
    exact = exact_minimum(with_outliers(results.clean, MAP_AT, 1.0), "ramp")[0]
    found = f"ends from {risks.min():.2f} to {risks.max():.2f}; the least risk is {exact:.2f}"
    expected.append(
        Expectation(
            "where it starts decides where the ramp ends",
            found,
            bool(risks.max() > 1.1 * risks.min()),
        )
    )
    for name in SMOOTH:
        status = [descent.status_name(s) for s in results.convex[name].status]
        below, above = status[: len(FRACTIONS) // 2], status[len(FRACTIONS) // 2 :]
        fails = set(below) == {"CONVERGED"} and "CONVERGED" not in above
        expected.append(
            Expectation(f"{name}: steps above 2 / lambda fail", ", ".join(status), fails)
        )
    plateaus = hinge_excess(results)[:, -100:].mean(axis=1)
    found = ", ".join(f"{x:.0e}" for x in plateaus)
    falls = bool((np.diff(plateaus[:-1]) < 0).all())
    return [*expected, Expectation("hinge: the excess risk falls with the rate", found, falls)]


def draw(figure: Figure, results: Results) -> None:
    """Accuracy as outliers move and multiply, the ramp's many ends, and steps too large."""
    (far, many), (starts, steps) = figure.subplots(2, 2)
    looks = dict(zip(RUNS, ("-", "--", "-.", ":", "-"), strict=True))
    for ax, values, trained in (
        (far, DISTANCES, results.by_distance), (many, COUNTS, results.by_count),
    ):  # fmt: skip
        for name, dashes in looks.items():
            ax.plot(values, 100 * accuracy(trained[name]), ls=dashes, lw=2.5, label=name,
                    color=panels.colour_of_loss(name))  # fmt: skip
        ax.set_ylabel("accuracy on clean points, %")
        ax.set_ylim(30, 102)
    limit = giving_up(results.clean)
    far.axvline(limit, color="0.5", lw=1, label=f"the hinge gives up: {limit:.1f} (theory)")
    far.set_xscale("log")
    far.set_xticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    far.minorticks_off()
    far.set_xlabel("distance of one outlier (classes at -1 and 1)")
    ruined = [name for name in RUNS if 100 * accuracy(results.by_distance[name])[-1] < 90]
    far.set_title(f"The farthest outlier ruins {len(ruined)} of {len(RUNS)} runs")
    far.legend(fontsize=9, loc="lower left")
    many.set_xlabel(f"number of outliers at {COUNTED_AT:g}, beside {2 * PER_CLASS} points")
    held = {
        name: int(max((n for n, a in zip(COUNTS, accuracy(results.by_count[name]), strict=True)
                       if a > 0.9), default=0))
        for name in RUNS
    }  # fmt: skip
    best = max(held, key=held.__getitem__)
    many.set_title(f"{best} withstands the most: {held[best]}")

    surface = results.starts["ramp"]
    surface = surface._replace(values=surface.values["risk"])
    _map_of_ends(starts, surface)
    _convex_curves(steps, results)
    panels.letters(far, many, starts, steps)


def _map_of_ends(ax: Axes, surface: surfaces.Surface) -> None:
    """The risk at the end of a descent under the ramp, by its start."""
    names = ("weight w of the start", "bias b of the start")
    plots.surface_cells(ax, surface, axis_names=names, value_name="risk at the end")
    share = np.mean(surface.values < WELL)
    ax.set_title(f"The ramp's price: {share:.0%} of the starts end well (dark)")


def _convex_curves(ax: Axes, results: Results) -> None:
    """What is left of the risk, step by step, for steps below and above the bound."""
    for name in SMOOTH:
        runs = results.convex[name]
        for lane, dashes in ((1, "-"), (2, ":")):
            last = int(runs.num_steps[lane]) + 1
            left = np.asarray(runs.losses[lane, :last] - runs.losses.min())
            ax.plot(left, dashes, color=panels.colour_of_loss(name), lw=2,
                    label=f"{name}, {FRACTIONS[lane]:g} of 2/λ")  # fmt: skip
    excess = hinge_excess(results)
    for lane, name in ((0, f"hinge, rate {HINGE_RATES[0]:g}"), (-1, "hinge, falling to 0")):
        alpha = 1.0 if lane else 0.45  # the falling rate over the constant one
        ax.plot(excess[lane], color=panels.colour_of_loss(name), lw=1, alpha=alpha, label=name)
    ax.set(xscale="symlog", yscale="log", ylim=(1e-9, 1e2))
    ax.set_xlabel("step")
    ax.set_ylabel("risk less the least")
    ax.legend(fontsize=8, loc="lower left")
    statuses = [descent.status_name(results.convex[SMOOTH[0]].status[lane]) for lane in (1, 2)]
    ax.set_title(
        f"{SMOOTH[0]} loss: {statuses[0]} at {FRACTIONS[1]:g} of 2/λ, {statuses[1]} at "
        f"{FRACTIONS[2]:g}"
    )
