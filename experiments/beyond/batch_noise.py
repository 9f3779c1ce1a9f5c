"""What does a descent lose by looking at a few examples only?

Stochastic gradient descent takes at each step the gradient of a batch, drawn anew with
replacement. Expect it to come down as the full descent does and then to hover: at a constant
rate the loss settles above its minimum by an excess that grows with the rate and shrinks with
the batch, as rate / batch size while the rate is small. For a line through points the excess is
known exactly, from a linear equation for the second moments of the error, with no assumption on
the noise. A rate that decays as 1 / t lets even batches of one example reach the minimum, later.

The line is that of the note's 20 points, their x standardized.

Source: Bottou, Curtis and Nocedal, Optimization Methods for Large-Scale Machine Learning, 2018,
Sec. 4.2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.data import points
from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, planes, plots, surfaces
from jaxgd.types import Array, PRNGKey

FIGURE_SIZE = (15, 4.8)
SECONDS = 10
X = (points.TWENTY.x - points.TWENTY.x.mean()) / points.TWENTY.x.std()
Y = points.TWENTY.y
COST = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
RATES, BATCH_SIZES = (0.01, 0.03, 0.1, 0.3), (1, 4, 16)
NUM_CHAINS, NUM_STEPS = 256, 2000
RATE, DECAY = 0.1, 100  # of the curves; the decaying rate is RATE / (1 + t / DECAY)


class Results(NamedTuple):
    """What was computed.

    Attributes:
      excess: the mean excess over the last half of the steps, of chains that start at the
        minimum: shape (rates, batch sizes, chains).
      exact: what it must be on average, shape (rates, batch sizes).
      curves: the mean excess at every step, from (0, 0): by name, shape (steps,).
      path: of one chain from (0, 0) with batches of one, Neurons with a leading axis.
      full_path: the same with all examples.
      surface: the cost over (bias, weight).
    """

    excess: Array
    exact: np.ndarray
    curves: dict[str, Array]
    path: neurons.Neuron
    full_path: neurons.Neuron
    surface: surfaces.Surface


def least_squares() -> neurons.Neuron:
    """The line of least squares, from NumPy."""
    bias, weight = np.linalg.lstsq(np.stack([np.ones(20), X], axis=1), Y, rcond=None)[0]
    return neurons.Neuron(weights=jnp.array([weight]), bias=jnp.array(bias))


def chain(
    key: PRNGKey, start: neurons.Neuron, rates: Array, batch_size: int | None
) -> tuple[neurons.Neuron, Array]:
    """One stochastic descent.

    Args:
      key: for the batches.
      start: a neuron with one input.
      rates: shape (steps,): the learning rate of each step.
      batch_size: static; None takes all 20 examples.

    Returns:
      The neuron and the cost of all examples before each step, leading axis steps.
    """
    x, y = jnp.asarray(X)[:, None], jnp.asarray(Y)
    batches = (
        jnp.broadcast_to(jnp.arange(len(X)), (rates.size, len(X)))
        if batch_size is None
        else jax.random.randint(key, (rates.size, batch_size), 0, len(X))
    )
    run = descent.optimize(
        lambda neuron, rows: COST(neuron, x[rows], y[rows]),
        start,
        optimizer=optax.sgd(lambda step: rates[step]),
        num_steps=rates.size,
        per_step=batches,
        record=lambda neuron: (neuron, COST(neuron, x, y)),
    )
    return jax.tree.map(lambda rows: rows[:-1], run.path)


def exact_excess(rate: float, batch_size: int) -> float:
    """The mean excess loss of a chain that has forgotten its start, in NumPy.

    With inputs a_i = (1, x_i), residuals r_i at the minimum and H the mean of a a', the error e
    follows e' = (I - rate A) e - rate n, A and n being means of a a' and of a r over the batch.
    At rest S = E[e e'] solves S = (I - rate H) S (I - rate H) + rate^2 / B (E[a a' S a a'] -
    H S H + E[r^2 a a']), which is linear in S; the excess is half the trace of H S.
    """
    a = np.stack([np.ones(20), X], axis=1)
    solution = np.linalg.lstsq(a, Y, rcond=None)[0]
    outer = a[:, :, None] * a[:, None, :]
    hessian, identity = outer.mean(0), np.eye(2)
    noise = (((a @ solution - Y) ** 2)[:, None, None] * outer).mean(0)
    stay = np.kron(identity - rate * hessian, identity - rate * hessian)
    spread = np.mean([np.kron(m, m) for m in outer], axis=0) - np.kron(hessian, hessian)
    share = rate**2 / batch_size
    moments = np.linalg.solve(np.eye(4) - stay - share * spread, share * noise.ravel())
    return float(hessian.ravel() @ moments / 2)


def compute(seed: int = 0) -> Results:
    """Runs all chains: the excess at rest, the way to it, and two paths."""
    keys = jax.random.split(jax.random.key(seed), 3)
    best, far = least_squares(), neurons.Neuron(weights=jnp.zeros(1), bias=jnp.zeros(()))
    x, y = jnp.asarray(X)[:, None], jnp.asarray(Y)
    least = COST(best, x, y)
    steps = jnp.arange(NUM_STEPS)
    constant, decaying = jnp.full(NUM_STEPS, RATE), RATE / (1 + steps / DECAY)

    def at_rest(key: PRNGKey, rate: Array, batch_size: int) -> Array:
        def mean_excess(key: PRNGKey) -> Array:
            _, costs = chain(key, best, jnp.full(NUM_STEPS, rate), batch_size)
            return jnp.mean(costs[NUM_STEPS // 2 :]) - least

        return jax.vmap(mean_excess)(jax.random.split(key, NUM_CHAINS))

    def curve(key: PRNGKey, rates: Array, batch_size: int | None) -> Array:
        many = jax.random.split(key, NUM_CHAINS if batch_size else 1)
        return jax.vmap(lambda key: chain(key, far, rates, batch_size)[1])(many).mean(0) - least

    excess = [
        jax.jit(jax.vmap(lambda rate, size=size: at_rest(keys[0], rate, size)))(jnp.array(RATES))
        for size in BATCH_SIZES
    ]
    curves: dict[str, Array] = {
        f"batches of {size}": jax.jit(lambda size=size: curve(keys[1], constant, size))()
        for size in BATCH_SIZES
    }
    curves["batches of 1, decaying rate"] = jax.jit(lambda: curve(keys[1], decaying, 1))()
    curves["all examples"] = jax.jit(lambda: curve(keys[1], constant, None))()
    plane = planes.coordinate(far, ("bias",), ("weights", 0))
    phi = planes.restrict(COST, plane, x, y)
    return Results(
        excess=jnp.stack(excess, axis=1),
        exact=np.array([[exact_excess(rate, size) for size in BATCH_SIZES] for rate in RATES]),
        curves=curves,
        path=chain(keys[2], far, constant[:200], 1)[0],
        full_path=chain(keys[2], far, constant[:200], None)[0],
        surface=surfaces.sweep(phi, jnp.linspace(-1, 13, 71), jnp.linspace(-1, 8, 61)),
    )


def tables(results: Results) -> list[Table]:
    """The excess beside the exact one, and the ends of the curves."""
    rows = []
    for i, rate in enumerate(RATES):
        for j, size in enumerate(BATCH_SIZES):
            chains, exact = np.asarray(results.excess[i, j]), results.exact[i, j]
            error = chains.std(ddof=1) / np.sqrt(chains.size)
            rows.append(
                (f"{rate:g}", size, f"{chains.mean():.5f}", f"{error:.5f}", f"{exact:.5f}",
                 f"{(chains.mean() - exact) / error:+.1f}", f"{exact * size / rate:.3f}")
            )  # fmt: skip
    ends = [
        (name, f"{costs[0]:.3g}", f"{costs[50]:.3g}", f"{costs[-100:].mean():.3g}")
        for name, costs in results.curves.items()
    ]
    return [
        Table(
            f"The excess at rest: {NUM_CHAINS} chains, the last half of {NUM_STEPS} steps",
            ("rate", "batch size", "measured", "standard error", "exact", "errors apart",
             "exact * batch size / rate"),
            rows,
        ),
        Table(
            f"The mean excess from (0, 0), at rate {RATE} or {RATE} / (1 + t / {DECAY})",
            ("", "at the start", "step 50", "last 100 steps"),
            ends,
        ),
    ]  # fmt: skip


def expectations(results: Results) -> list[Expectation]:
    """The excess is the known one, it grows as rate / batch size, and a decaying rate arrives."""
    chains = np.asarray(results.excess)
    errors = chains.std(axis=-1, ddof=1) / np.sqrt(chains.shape[-1])
    apart = np.abs((chains.mean(axis=-1) - results.exact) / errors).max()
    small = results.exact[0] * np.array(BATCH_SIZES) / RATES[0]
    hovers, arrives = (
        results.curves[name][-100:].mean()
        for name in ("batches of 1", "batches of 1, decaying rate")
    )
    return [
        Expectation(
            "the excess is the exact one",
            f"at most {apart:.1f} standard errors apart",
            bool(apart < 4),
        ),
        Expectation(
            "at a small rate it is proportional to rate / batch size",
            f"their ratio is {small.min():.3f} to {small.max():.3f} at rate {RATES[0]}",
            bool(np.ptp(small) < 0.02 * small.mean()),
        ),
        Expectation(
            "a decaying rate gets ten times closer to the minimum than a constant one",
            f"{arrives:.2g} against {hovers:.2g}",
            bool(arrives < hovers / 10),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Two paths, the curves with their exact levels, and the excess against the rate."""
    contour, curve, level = figure.subplots(1, 3)
    plots.surface_contour(contour, results.surface, axis_names=("bias", "weight"),
                          value_name="cost", log=True)  # fmt: skip
    colours = {"all examples": plots.COLOURS[0]} | {
        f"batches of {size}": plots.COLOURS[i]
        for size, i in zip(BATCH_SIZES, (1, 4, 3), strict=True)
    }
    ways = (("batches of 1", results.path), ("all examples", results.full_path))
    for name, path in ways:
        points = np.stack([path.bias, path.weights[:, 0]], axis=1)
        look: Any = {"color": colours[name], "ms": 3, "lw": 1.2, "mec": "white", "mew": 0.3}
        plots.descent_path(contour, points, label=name, **look)
    contour.legend(loc="lower right")
    contour.set_title(f"{len(results.path.bias)} steps with one example, and with all")

    for name, costs in results.curves.items():
        dashes = "--" if "decaying" in name else "-"
        curve.plot(
            np.arange(1, costs.size + 1),
            costs,
            dashes,
            color=colours[name.split(",")[0]],
            label=name,
        )
    for j, size in enumerate(BATCH_SIZES):
        name, ratios = f"batches of {size}", np.asarray(RATES) / size
        curve.axhline(results.exact[RATES.index(RATE), j], color=colours[name], lw=0.8, ls=":")
        level.plot(ratios, results.exact[:, j], color=colours[name], label=name)
        level.plot(ratios, results.excess[:, j].mean(-1), "o", color=colours[name])
    curve.set(xscale="log", yscale="log", ylim=(1e-4, 100), xlabel="step",
              ylabel="mean cost above the minimum")  # fmt: skip
    curve.legend(fontsize=8, loc="upper right")
    hovers, arrives = (
        results.curves[name][-100:].mean()
        for name in ("batches of 1", "batches of 1, decaying rate")
    )
    curve.set_title(f"Batches of 1: {hovers:.2g} at last, {arrives:.2g} if the rate decays")
    level.set(xscale="log", yscale="log", xlabel="learning rate / batch size",
              ylabel="mean cost above the minimum, at rest")  # fmt: skip
    level.legend(title="lines: exact, dots: measured", fontsize=8, title_fontsize=9)
    off = np.abs(np.asarray(results.excess).mean(-1) / results.exact - 1).max()
    level.set_title(f"At rest: at most {off:.1%} from the exact excess")
    letters(contour, curve, level)
