"""Where does the sharpness settle when every step sees a small batch only?

Descent on all examples stops sharpening at 2 / rate. With small batches the sharpness of the
whole loss stays lower. What settles at 2 / rate then is the curvature that a step meets on its own
batch, along its own gradient: the batch sharpness, ``mean over batches of g . H g / g . g``. A
network with one hidden layer of 128 learns 200 digits with squared errors, from three starts, by
batches of 8 and by all 200 at once. Expect the batch sharpness to rise to 2 / rate and to stay
there, the whole sharpness far below it with small batches and at it with all. (Batches of 16
stood at 0.92 to 0.98 of it, from six starts.) Not every run reaches the edge: at half the rate,
where it is twice as high, expect the batch sharpness to come to rest at some two thirds of it.

Source: Andreyev and Beneventano, Edge of stochastic stability: revisiting the edge of stability
for SGD, 2024; Cohen, Kaur, Li et al., Gradient descent on neural networks typically occurs at the
edge of stability, 2021.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, neurons, plots
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (14, 4.6)
SECONDS = 25
NUM_EXAMPLES, SIZES, NUM_SEEDS = 200, (64, 128, 10), 3
NUM_STEPS, STRIDE, NUM_ITERATIONS = 8_000, 500, 15
NUM_PROBED = 1024  # rows of all batches of one estimate


class Case(NamedTuple):
    """A run: how many rows a step sees, and the learning rate."""

    batch_size: int
    rate: float


SMALL, ALL, SLOW = CASES = Case(8, 0.2), Case(NUM_EXAMPLES, 0.2), Case(8, 0.1)


class Course(NamedTuple):
    """What was seen of a case: arrays of shape (seeds, NUM_STEPS / STRIDE).

    Attributes:
      batch: the batch sharpness after every STRIDE steps.
      whole: the largest eigenvalue of the Hessian of the loss on all examples.
      losses: that loss.
    """

    batch: Array
    whole: Array
    losses: Array


def predict(params: Params, x: Array) -> Array:
    """Applies the network with tanh: (m, 64) to (m, 10)."""
    return neurons.apply_network(params, x, activation=jnp.tanh)


def risk(params: Params, x: Array, y: Array) -> Array:
    """Half the squared distance to the label's unit vector, in the mean over examples."""
    return losses.half_squared_error(predict(params, x), y).sum(axis=-1).mean()


def on_rows(params: Params, x: Array, y: Array, rows: Array) -> Array:
    """The loss on some rows."""
    return risk(params, x[rows], y[rows])


def follow(x: Array, y: Array, rate: Array, key: PRNGKey, batch_size: int) -> Course:
    """Descends by batches; every STRIDE steps it stops to look how the losses bend."""
    start, draw, probe, vector = jax.random.split(key, 4)

    def batches(key: PRNGKey, t: Array, num_steps: int) -> Array:
        key = jax.random.fold_in(key, t)
        return descent.minibatches(key, NUM_EXAMPLES, batch_size=batch_size, num_steps=num_steps)

    def stretch(params: Params, t: Array) -> tuple[Params, Course]:
        params = descent.gradient_descent(
            on_rows, params, x, y, learning_rate=rate, num_steps=STRIDE,
            per_step=batches(draw, t, STRIDE), record=lambda _: None,
        ).params  # fmt: skip
        probes = batches(probe, t, NUM_PROBED // batch_size)
        batch = curvature.batch_sharpness(on_rows, params, x, y, per_step=probes)
        whole = curvature.sharpness(vector, risk, params, x, y, num_iterations=NUM_ITERATIONS)
        return params, Course(batch.value, whole, risk(params, x, y))

    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), neurons.init_network(start, SIZES))
    return jax.lax.scan(stretch, net, jnp.arange(NUM_STEPS // STRIDE))[1]


def compute(seed: int = 0) -> dict[Case, Course]:
    """Follows every case from every seed, by one program for each batch size."""
    digits = load_digits(seed)
    images = digits.train_images[:NUM_EXAMPLES]
    x = jnp.asarray((images - images.mean(axis=0)) / images.std(), jnp.float32)
    y = jax.nn.one_hot(digits.train_labels[:NUM_EXAMPLES], 10, dtype=jnp.float32)
    keys = jax.random.split(jax.random.key(seed), NUM_SEEDS)
    runs = jax.jit(jax.vmap(follow, (None, None, None, 0, None)), static_argnums=4)
    return {case: runs(x, y, jnp.float32(case.rate), keys, case.batch_size) for case in CASES}


def levels(case: Case, sharpness: Array) -> np.ndarray:
    """By seed, the mean of the last half over 2 / rate."""
    late = np.asarray(sharpness)[:, NUM_STEPS // STRIDE // 2 :].mean(axis=1)
    return late * case.rate / 2


def tables(results: dict[Case, Course]) -> list[Table]:
    """Where both sharpnesses stand, in units of 2 / rate."""
    rows = [
        (case.batch_size, f"{case.rate:g}", f"{2 / case.rate:g}",
         _spread(levels(case, course.batch)), _spread(levels(case, course.whole)),
         f"{np.max(course.losses[:, -1]):.0e}")
        for case, course in results.items()
    ]  # fmt: skip
    return [
        Table(
            f"Mean of the last {NUM_STEPS // 2:,} steps over 2 / rate, from {NUM_SEEDS} starts",
            ("batch size", "rate", "2 / rate", "batch sharpness", "sharpness of the whole",
             "largest last loss"),
            rows,
        )
    ]  # fmt: skip


def expectations(results: dict[Case, Course]) -> list[Expectation]:
    """At the edge stands the batch sharpness, and the whole one only if the batch is all."""
    batch = levels(SMALL, results[SMALL].batch)
    below = levels(SMALL, results[SMALL].whole)
    whole = levels(ALL, results[ALL].whole)
    slow = levels(SLOW, results[SLOW].batch)
    return [
        Expectation(
            "batches of 8: from every start the batch sharpness stands at 2 / rate to 5 %",
            _spread(batch),
            bool((np.abs(batch - 1) < 0.05).all()),
        ),
        Expectation(
            "meanwhile the sharpness of the whole stays below three quarters of 2 / rate",
            _spread(below),
            bool((below < 0.75).all()),
        ),
        Expectation(
            "all digits at once: from every start the sharpness stands at 2 / rate to 5 %",
            _spread(whole),
            bool((np.abs(whole - 1) < 0.05).all()),
        ),
        Expectation(
            "batches of 8 at half the rate: the batch sharpness comes to rest below 2 / rate",
            _spread(slow),
            bool((slow < 0.9).all()),
        ),
    ]


def draw(figure: Figure, results: dict[Case, Course]) -> None:
    """Batch sharpness and sharpness of the whole against the step, in each case."""
    panels = figure.subplots(1, 3)
    for ax, (case, course) in zip(panels, results.items(), strict=True):
        _draw_case(ax, case, course)
    letters(*panels)


def _draw_case(ax: Axes, case: Case, course: Course) -> None:
    steps = STRIDE * np.arange(1, NUM_STEPS // STRIDE + 1)
    ax.plot(steps, np.asarray(course.batch).T, color=plots.COLOURS[1], lw=1)
    ax.lines[0].set_label("of a batch, along its gradient")
    plots.sharpness_curve(
        ax, course.whole, case.rate, steps=steps, color=plots.COLOURS[0], label="of the whole"
    )
    ax.set_ylim(0, 2.4 / case.rate)
    share = levels(case, course.batch).mean()
    size = "All digits at once" if case == ALL else f"Batches of {case.batch_size}"
    title = f"{size}, rate {case.rate:g}: on a batch at {share:.2f} of 2 / rate"
    ax.set_title(title, fontsize=10)
    ax.legend(loc="lower right", fontsize=9)


def _spread(values: np.ndarray) -> str:
    return f"{values.min():.2f} .. {values.max():.2f}"
