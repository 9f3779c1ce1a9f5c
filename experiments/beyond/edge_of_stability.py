"""What keeps gradient descent stable when its learning rate seems too large for the loss?

A step is stable on a quadratic only below 2 divided by the sharpness, the largest eigenvalue of
the Hessian. A network of 300 parameters learns a Chebyshev polynomial at 20 points. Expect its
sharpness to rise until it stands at 2 / rate and to stay there for thousands of steps, while the
parameters jump to and fro along the leading eigenvector and the loss no longer falls from step
to step. For degree 4 it falls all the same; for degree 3 it ends amid bursts that die away. At a
tenth of the rate nothing holds the sharpness, and it stays below its own, tenfold bound.

The network: 1-100-1, tanh, biases in the first layer only and zero at the start, weights
Xavier-normal with gains 1.9 and 1. (Biases drawn like the weights would start it at a sharpness
of 6 to 9, not of 3.) The loss is half the mean squared error. Several starts are run; the
first is drawn in full, and the tables tell how far the others spread. What holds for every
start is the level 2 / rate. The loss at the edge depends on the start, up to a factor of ten, and
by some percent on the last bit of a sum, as the motion there is chaotic.

Sharpness belongs to the parameters, not to the function they compute: scaling one layer up and
the next one down changes it and leaves a positively homogeneous network as it is (Dinh et al.,
Sharp minima can generalize for deep nets, 2017). What is held here is the sharpness in these
parameters, those that the rule descends in.

Source: Cohen, Kaur, Li, Kolter and Talwalkar, Gradient descent on neural networks typically
occurs at the edge of stability, 2021.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, neurons, plots
from jaxgd.types import Array, ArrayLike, Params, PRNGKey

FIGURE_SIZE = (14, 8)
SECONDS = (12, 200)
WIDTH, NUM_EXAMPLES, GAINS = 100, 20, (1.9, 1.0)
NUM_STARTS, NUM_STEPS, STRIDE = 5, 20_000, 200
NUM_ITERATIONS = 15  # of Lanczos; with 20 examples, few eigenvalues are not next to zero
SWING_FROM, SWING_STEPS = 10_000, 40
LOOKED_AT = (0, 2_000, 4_000, 8_000, 10_000, 20_000)


class Case(NamedTuple):
    """A descent: the degree of the polynomial to learn, and the learning rate."""

    degree: int
    rate: float


EDGES = (Case(4, 0.3), Case(3, 0.1))
CONTROLS = tuple(Case(case.degree, case.rate / 10) for case in EDGES)
LANES = (*(case for case in EDGES for _ in range(NUM_STARTS)), *CONTROLS)
REFERENCE = {
    EDGES[0]: {0: 2.93, 2_000: 6.7, 20_000: 6.67},
    EDGES[1]: {0: 2.94, 4_000: 11.6, 8_000: 19.5, 10_000: 20.0, 20_000: 20.0},
}
"""Sharpness by step in another implementation, from one start of its own."""
REFERENCE_LOSS = {EDGES[0]: {2_000: 0.15, 20_000: 0.0006}}


class Course(NamedTuple):
    """A descent, looked at every STRIDE steps.

    Attributes:
      losses: at every step, shape (NUM_STEPS + 1,).
      params: leading axis NUM_STEPS / STRIDE + 1.
    """

    losses: Array
    params: Params


class Results(NamedTuple):
    """What was computed.

    Attributes:
      losses: (lanes, NUM_STEPS + 1), one lane for each of LANES: the edges from every start, the
        controls from the first.
      sharpness: (lanes, NUM_STEPS / STRIDE + 1).
      witness: (edges, points looked at): the sharpness of the first start, from whole Hessians.
      swing: SWING_STEPS steps of the first lane, along the leading eigenvector, about their mean.
    """

    losses: Array
    sharpness: Array
    witness: np.ndarray
    swing: Array


def init(key: PRNGKey) -> tuple[neurons.Neuron, Array]:
    """Draws a start: a hidden layer without bias so far, and output weights."""
    hidden, output = (
        gain * np.sqrt(2 / (1 + WIDTH)) * jax.random.normal(k, (WIDTH,))
        for k, gain in zip(jax.random.split(key), GAINS, strict=True)
    )
    return neurons.Neuron(weights=hidden[None], bias=jnp.zeros(WIDTH)), output


def predict(params: Any, x: Array) -> Array:
    """Applies the network: x (m, 1) to (m,)."""
    hidden, output = params
    return neurons.apply(hidden, x, activation=jnp.tanh) @ output


RISK = losses.empirical_risk(predict, losses.half_squared_error)


def examples(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced points on [-1, 1] and a Chebyshev polynomial there."""
    x = np.linspace(-1, 1, NUM_EXAMPLES)
    return x[:, None], np.polynomial.Chebyshev.basis(degree)(x)


def follow(params: Params, x: Array, y: Array, rate: ArrayLike, *, num_steps: int) -> Course:
    """Descends, keeping every loss, but the params only every STRIDE steps."""
    run = descent.gradient_descent(
        RISK, params, x, y, learning_rate=rate, num_steps=num_steps, record_every=STRIDE
    )
    return Course(losses=run.losses, params=run.path)


def sharpness_along(path: Params, x: Array, y: Array) -> Array:
    """The sharpness at each point of a path, by Lanczos iteration."""
    key = jax.random.key(0)  # for the first vector
    return jax.lax.map(
        lambda params: curvature.sharpness(key, RISK, params, x, y, num_iterations=NUM_ITERATIONS),
        path,
    )


def hessian(params: Params, x: Array, y: Array) -> Array:
    """The whole Hessian, a square matrix over all parameters."""
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda entries: RISK(unravel(entries), x, y))(flat)


def swing_along(vector: Array, params: Params, x: Array, y: Array, rate: ArrayLike) -> Array:
    """Takes SWING_STEPS steps; returns where they lead along a vector, about their mean."""
    run = descent.gradient_descent(
        RISK, params, x, y, learning_rate=rate, num_steps=SWING_STEPS,
        record=lambda params: ravel_pytree(params)[0] @ vector,
    )  # fmt: skip
    return run.path - run.path.mean()


def compute(seed: int = 0) -> Results:
    """Follows every lane, then looks at the steps at the edge one by one."""
    x, labels = examples(0)[0], np.stack([examples(case.degree)[1] for case in LANES])
    rates = np.array([case.rate for case in LANES])
    starts_of_lanes = np.array([*range(NUM_STARTS)] * len(EDGES) + [0] * len(CONTROLS))
    firsts, looked_at = np.array([0, NUM_STARTS]), np.array(LOOKED_AT) // STRIDE

    # One program for each part: XLA runs several loops of one program up to twice as slowly.
    @jax.jit
    def run(key: PRNGKey, x: Array, labels: Array, rates: Array) -> Course:
        starts = jax.vmap(init)(jax.random.split(key, NUM_STARTS)[starts_of_lanes])
        lane = partial(follow, num_steps=NUM_STEPS)
        return jax.vmap(lane, in_axes=(0, None, 0, 0))(starts, x, labels, rates)

    @jax.jit
    def look(path: Params, x: Array, labels: Array) -> tuple[Params, Array]:
        points = jax.tree.map(lambda leaf: leaf[firsts][:, looked_at], path)
        of_lane = jax.vmap(hessian, in_axes=(0, None, None))
        return points, jax.vmap(of_lane, in_axes=(0, None, 0))(points, x, labels[firsts])

    course = run(jax.random.key(seed), x, labels, rates)
    sharpness = jax.jit(jax.vmap(sharpness_along, in_axes=(0, None, 0)))
    points, hessians = look(course.params, x, labels)
    here = LOOKED_AT.index(SWING_FROM)
    leading = np.linalg.eigh(np.asarray(hessians)[0, here])[1][:, -1]
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[0, here], points)
    return Results(
        losses=course.losses,
        sharpness=sharpness(course.params, x, labels),
        witness=np.linalg.eigvalsh(np.asarray(hessians))[..., -1],
        swing=jax.jit(swing_along)(leading, params, x, labels[0], rates[0]),
    )


def lanes_of(results: Results, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The sharpness and the losses of a case, one row for each start."""
    rows = [i for i, lane in enumerate(LANES) if lane == case]
    return (
        np.asarray(results.sharpness)[rows],
        np.asarray(results.losses)[rows],
    )


def rising(trace: np.ndarray) -> np.ndarray:
    """The share of steps at which the loss rises, along the last axis."""
    return np.mean(np.diff(trace) > 0, axis=-1)


def _spread(values: np.ndarray, form: str) -> str:
    return f"{values.min():{form}} .. {values.max():{form}}"


def tables(results: Results) -> list[Table]:
    """Ours beside the reference, the spread over starts, and the controls."""
    beside, level = [], []
    for i, case in enumerate(EDGES):
        name = f"degree {case.degree}, rate {case.rate:g}"
        sharpness, trace = lanes_of(results, case)
        for step in LOOKED_AT:
            ours, wanted = sharpness[:, step // STRIDE], REFERENCE[case].get(step)
            off = f"{ours[0] / wanted - 1:+.1%}" if wanted else ""
            dense = results.witness[i, LOOKED_AT.index(step)]
            beside.append(
                (name, f"sharpness, step {step:,}", f"{wanted or ''}", f"{ours[0]:.3f}", off,
                 f"{dense:.3f}", f"{np.median(ours):.2f}", _spread(ours, ".2f"))
            )  # fmt: skip
        for step, wanted in REFERENCE_LOSS.get(case, {}).items():
            ours = trace[:, step]
            beside.append(
                (name, f"loss, step {step:,}", f"{wanted:g}", f"{ours[0]:.3g}",
                 f"{ours[0] / wanted - 1:+.1%}", "", f"{np.median(ours):.2g}", _spread(ours, ".2g"))
            )  # fmt: skip
    for case in EDGES + CONTROLS:
        sharpness, trace = lanes_of(results, case)
        late = sharpness[:, sharpness.shape[1] // 2 :].mean(axis=1)
        level.append(
            (f"degree {case.degree}, rate {case.rate:g}", len(sharpness), f"{2 / case.rate:.4g}",
             _spread(late, ".2f"), _spread(sharpness.max(axis=1), ".2f"),
             _spread(rising(trace), ".0%"), _spread(trace[:, -1], ".2g"))
        )  # fmt: skip
    first_starts = np.asarray(results.sharpness)[[0, NUM_STARTS]][:, np.array(LOOKED_AT) // STRIDE]
    difference = np.abs(first_starts - results.witness).max()
    return [
        Table(
            "The first start beside the reference, the whole Hessian, and the other starts",
            ("", "", "reference", "ours", "off by", "whole Hessian", "median", "all starts"),
            beside,
        ),
        Table(
            "The level at the edge (Lanczos iteration and whole Hessians differ by at most "
            f"{difference:.0e})",
            ("", "starts", "2 / rate", "mean sharpness, last half", "largest sharpness",
             "steps at which the loss rose", "last loss"),
            level,
        ),
    ]  # fmt: skip


def expectations(results: Results) -> list[Expectation]:
    """At the edge the sharpness stands at 2 / rate; far below it, it stays under its bound."""
    expected = []
    for case in EDGES:
        sharpness, trace = lanes_of(results, case)
        late = sharpness[:, sharpness.shape[1] // 2 :].mean(axis=1)
        off = np.abs(late * case.rate / 2 - 1).max()
        expected += [
            Expectation(
                f"degree {case.degree}: from every start the sharpness stands at 2 / rate to 5 %",
                f"{_spread(late, '.2f')} against {2 / case.rate:.4g}",
                bool(off < 0.05),
            ),
            Expectation(
                f"degree {case.degree}: the loss rises at many steps",
                f"at {_spread(rising(trace), '.0%')} of them",
                bool(rising(trace).min() > 0.01),
            ),
        ]
    for case in CONTROLS:
        largest = lanes_of(results, case)[0].max()
        expected.append(
            Expectation(
                f"degree {case.degree}, rate {case.rate:g}: the sharpness stays below its bound",
                f"at most {largest:.2f} of {2 / case.rate:.4g}",
                bool(largest < 2 / case.rate),
            )
        )
    return expected


def draw(figure: Figure, results: Results) -> None:
    """Loss and sharpness against the step at each edge, and the swing from step to step."""
    panels = figure.subplots(2, 3, width_ratios=(1.1, 1.1, 1))
    for column, case, control in zip(panels.T, EDGES, CONTROLS, strict=False):
        _draw_edge(column, results, case, control)
    swing, trace = panels[:, 2]
    steps = np.arange(SWING_STEPS + 1)
    swing.axhline(0, color="0.8", lw=1)
    swing.plot(steps, results.swing, "o-", color=plots.COLOURS[0], ms=4, lw=0.8)
    swing.set_ylabel("distance along the leading eigenvector")
    crossings = int(np.sum(np.diff(np.sign(np.asarray(results.swing))) != 0))
    swing.set_title(f"{crossings} of {SWING_STEPS} steps cross the valley")
    trace.plot(
        steps, results.losses[0, SWING_FROM + steps], "o-", color=plots.COLOURS[0], ms=4, lw=0.8
    )
    trace.set_ylabel("loss")
    trace.set_title("The loss of the same steps, degree 4")
    letters(*panels[0], *panels[1])
    for ax in panels[:, 2]:
        ax.set_xlabel(f"steps from step {SWING_FROM:,} on")


def _draw_edge(axes: Sequence[Axes], results: Results, case: Case, control: Case) -> None:
    loss, sharp = axes
    steps = np.arange(0, NUM_STEPS + 1, STRIDE)
    for one, colour in ((control, plots.COLOURS[2]), (case, plots.COLOURS[0])):
        sharpness, trace = lanes_of(results, one)
        label = f"rate {one.rate:g}"
        for i, row in enumerate(sharpness[1:]):
            others = f"{label}, {len(sharpness) - 1} other starts" if i == 0 else None
            sharp.plot(steps, row, color=colour, lw=0.8, alpha=0.4, label=others)
        every = 10  # so that swings from step to step do not fill the picture
        loss.semilogy(np.arange(0, NUM_STEPS + 1, every), trace[0, ::every],
                      color=colour, lw=1, label=label)  # fmt: skip
    for ax in axes:
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MultipleLocator(5000))
    bound, below = 2 / case.rate, f"rate {control.rate:g}, bound {2 / control.rate:.3g}"
    first = lanes_of(results, case)[0][0]
    style: Any = {"steps": steps, "color": plots.COLOURS[0], "label": f"rate {case.rate:g}"}
    plots.sharpness_curve(sharp, first, case.rate, lw=2, **style)
    sharp.plot(steps, lanes_of(results, control)[0][0], color=plots.COLOURS[2], lw=2, label=below)
    sharp.set_ylim(0, None)
    late = first[len(first) // 2 :].mean()
    sharp.set_title(f"Sharpness from {first[0]:.2g} to {late:.3g}; 2 / rate is {bound:.3g}")
    sharp.legend(fontsize=8)
    loss.set_ylabel("loss")
    share = float(rising(lanes_of(results, case)[1][0]))
    loss.set_title(f"Degree {case.degree}: the loss rises at {share:.0%} of the steps")
    loss.legend(loc="upper right")
