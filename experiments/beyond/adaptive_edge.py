"""What holds Adam stable, whose steps are no gradients?

Adam divides each entry of its step by the root of a mean square, P. A quadratic is stable under a
step ``-rate P^-1 g`` with momentum beta only while the largest eigenvalue of ``P^-1/2 H P^-1/2``,
the preconditioned sharpness, is below ``(2 + 2 beta) / ((1 - beta) rate)``, which is 38 / rate at
beta = 0.9. A network of 300 parameters learns a Chebyshev polynomial, all 20 points at every step.
Expect its preconditioned sharpness to rise to that level within a few hundred steps and to stay
there, for two rates and for a second beta, while the plain sharpness goes on growing: nothing
bounds it, since P shrinks along with the gradients.

Source: Cohen, Ghorbani, Krishnan et al., Adaptive gradient methods at the edge of stability, 2022.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, neurons, plots
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (14, 4.6)
SECONDS = 20
WIDTH, NUM_EXAMPLES, DEGREE = 100, 20, 4
NUM_STEPS, STRIDE, NUM_WARM_UP = 6_000, 200, 10
NUM_ITERATIONS = 20  # of Lanczos


class Lane(NamedTuple):
    """A descent: Adam's rate and the beta of its momentum."""

    rate: float
    beta: float


LANES = (Lane(0.003, 0.9), Lane(0.01, 0.9), Lane(0.01, 0.8))


class Results(NamedTuple):
    """What was computed, one row for each lane, one column for every STRIDE steps.

    Attributes:
      preconditioned: the largest eigenvalue of ``P^-1/2 H P^-1/2``.
      sharpness: that of H.
      losses: the loss.
    """

    preconditioned: Array
    sharpness: Array
    losses: Array


def init(key: PRNGKey) -> tuple[neurons.Neuron, Array]:
    """Draws a start: a hidden layer without bias so far, and output weights."""
    hidden, output = (
        gain * np.sqrt(2 / (1 + WIDTH)) * jax.random.normal(k, (WIDTH,))
        for k, gain in zip(jax.random.split(key), (1.9, 1.0), strict=True)
    )
    return neurons.Neuron(weights=hidden[None], bias=jnp.zeros(WIDTH)), output


def predict(params: Any, x: Array) -> Array:
    """Applies the network: x (m, 1) to (m,)."""
    hidden, output = params
    return neurons.apply(hidden, x, activation=jnp.tanh) @ output


RISK = losses.empirical_risk(predict, losses.half_squared_error)


def bound(lane: Lane) -> float:
    """The preconditioned sharpness above which Adam is not stable on a quadratic."""
    return (2 + 2 * lane.beta) / ((1 - lane.beta) * lane.rate)


def follow(start: Params, x: Array, y: Array, rate: Array, beta: Array) -> Results:
    """Descends by Adam; every STRIDE steps it stops to look how the loss bends."""
    optimizer = optax.adam(rate, b1=beta)
    key = jax.random.key(0)  # for the first vectors

    def run(params: Params, state: Any, num_steps: int) -> descent.Trajectory:
        return descent.optimize(
            RISK, params, x, y, optimizer=optimizer, num_steps=num_steps, state=state,
            record=lambda _: None,
        )  # fmt: skip

    def stretch(last: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], Results]:
        params, state = last
        seen = Results(
            preconditioned=curvature.preconditioned_sharpness(
                key, RISK, params, curvature.adam_preconditioner(state), x, y,
                num_iterations=NUM_ITERATIONS,
            ),
            sharpness=curvature.sharpness(
                key, RISK, params, x, y, num_iterations=NUM_ITERATIONS
            ),
            losses=RISK(params, x, y),
        )  # fmt: skip
        after = run(params, state, STRIDE)
        return (after.params, after.state), seen

    # At the very start P is the size of one gradient and says nothing yet.
    first = run(start, None, NUM_WARM_UP)
    return jax.lax.scan(stretch, (first.params, first.state), length=NUM_STEPS // STRIDE)[1]


def compute(seed: int = 0) -> Results:
    """Follows all lanes from one start."""
    x = np.linspace(-1, 1, NUM_EXAMPLES)
    y = np.polynomial.Chebyshev.basis(DEGREE)(x)
    rates, betas = (np.array(column) for column in zip(*LANES, strict=True))
    lanes = jax.jit(jax.vmap(follow, in_axes=(None, None, None, 0, 0)))
    return lanes(init(jax.random.key(seed)), x[:, None], y, rates, betas)


def _levels(results: Results) -> np.ndarray:
    """The mean preconditioned sharpness of each lane's last half, over its bound."""
    late = np.asarray(results.preconditioned)[:, NUM_STEPS // STRIDE // 2 :].mean(axis=1)
    return late / [bound(lane) for lane in LANES]


def tables(results: Results) -> list[Table]:
    """The level at the edge, and what the plain sharpness does meanwhile."""
    rows = [
        (f"{lane.rate:g}", f"{lane.beta:g}", f"{bound(lane):,.0f}", f"{level * bound(lane):,.0f}",
         f"{level - 1:+.1%}", f"{sharpness[1]:.1f}", f"{sharpness[-1]:.1f}", f"{trace[-1]:.1e}")
        for lane, level, sharpness, trace in zip(
            LANES, _levels(results), np.asarray(results.sharpness), np.asarray(results.losses),
            strict=True,
        )
    ]  # fmt: skip
    return [
        Table(
            "The preconditioned sharpness at the edge of Adam",
            ("rate", "beta", "bound", "mean of the last half", "off by",
             f"sharpness, step {STRIDE}", f"step {NUM_STEPS - STRIDE:,}", "last loss"),
            rows,
        )
    ]  # fmt: skip


def expectations(results: Results) -> list[Expectation]:
    """The preconditioned sharpness stands at its bound; the plain one grows."""
    expected = [
        Expectation(
            f"rate {lane.rate:g}, beta {lane.beta:g}: it stands at its bound to 5 %",
            f"{level:.3f} of {bound(lane):,.0f}",
            bool(abs(level - 1) < 0.05),
        )
        for lane, level in zip(LANES, _levels(results), strict=True)
    ]
    first, last = np.asarray(results.sharpness)[:, 1], np.asarray(results.sharpness)[:, -1]
    return [
        *expected,
        Expectation(
            "meanwhile the plain sharpness grows in every run",
            ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(first, last, strict=True)),
            bool((last > first).all()),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Both sharpnesses and the loss against the step."""
    left, middle, right = figure.subplots(1, 3)
    steps = NUM_WARM_UP + STRIDE * np.arange(NUM_STEPS // STRIDE)
    for i, lane in enumerate(LANES):
        style = {"color": plots.COLOURS[i], "label": f"rate {lane.rate:g}, β {lane.beta:g}"}
        plots.sharpness_curve(
            left, results.preconditioned[i], lane.rate, steps=steps,
            threshold=bound(lane) * lane.rate, **style,
        )  # fmt: skip
        middle.plot(steps, results.sharpness[i], **style)
        right.semilogy(steps, results.losses[i], **style)
    off = np.abs(_levels(results) - 1).max()
    left.set_title(f"Preconditioned: within {off:.1%} of its bounds (dashed)", fontsize=10)
    grown = np.asarray(results.sharpness)[:, -1] / np.asarray(results.sharpness)[:, 1]
    middle.set_title(f"Sharpness: grows {grown.min():.1f} to {grown.max():.1f} times", fontsize=10)
    right.set_title("Loss", fontsize=10)
    for ax in (left, middle, right):
        ax.set_xlabel("step")
    left.set_yscale("log")
    left.set_ylabel("largest eigenvalue of $P^{-1/2} H P^{-1/2}$")
    middle.set_ylabel("largest eigenvalue of $H$")
    right.set_ylabel("loss")
    middle.set_ylim(0, None)
    middle.legend()
    letters(left, middle, right)
