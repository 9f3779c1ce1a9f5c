"""How do plain SGD, momentum and Adam train the same small convolutional network?

A network of eight 3 x 3 filters learns scikit-learn's handwritten digits from minibatches, ten
times for each rule: ten starts, ten orders of the data, all thirty runs by vmap. Expect all of
them to know more than 85 % of the digits that they have not seen, momentum to get there much
earlier than plain SGD, and the spread over seeds to be smaller than the distance between the two. A
plane through a run's path shows most of its way, not all: what it hides is drawn beside. And
expect the gradients of single digits to agree less and less: their noise scale, the batch size
up to which larger batches help, grows along the way.

Source: Kingma and Ba, Adam: a method for stochastic optimization, 2015; McCandlish, Kaplan,
Amodei et al., An empirical model of large-batch training, 2018.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, planes, plots, surfaces
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (15, 8)
SECONDS = 30
NUM_SEEDS, NUM_STEPS, BATCH_SIZE, STRIDE = 10, 300, 64, 20
NUM_FILTERS, PROBE_SIZE, NUM_PROBED = 8, 16, 5
RULES = {
    "SGD": optax.sgd(0.1),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "Adam": optax.adam(0.003),
}
REACHED = 0.5  # the loss by which the rules' speeds are compared
DRAWN = "momentum"  # the rule whose path is drawn


class Results(NamedTuple):
    """What was computed.

    Attributes:
      runs: by rule, Trajectories with a leading axis of seeds; their path has the params and
        the accuracy on unseen digits every STRIDE steps.
      noise: by rule, the noise scale of one digit every STRIDE steps, of the first NUM_PROBED
        runs: shape (runs, steps / STRIDE + 1).
      projection: where the path of DRAWN's first run lies on its principal plane.
      surface: the training loss over that plane.
    """

    runs: dict[str, descent.Trajectory]
    noise: dict[str, Array]
    projection: planes.Projection
    surface: surfaces.Surface


def patches(images: np.ndarray) -> Array:
    """The 3 x 3 surroundings of each pixel: (m, 64) to (m, 8, 8, 9), zeros beyond the edge."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return jnp.asarray(windows.reshape(-1, 8, 8, 9), jnp.float32)


def init(key: PRNGKey) -> Params:
    """Draws filters and an output layer, He and Glorot, without biases so far."""
    first, second = jax.random.split(key)
    sizes = {"filters": (9, NUM_FILTERS), "output": (16 * NUM_FILTERS, 10)}
    weights = {
        name: jax.random.normal(k, shape, jnp.float32) * np.sqrt(2 / shape[0], dtype=np.float32)
        for k, (name, shape) in zip((first, second), sizes.items(), strict=True)
    }
    biases = {
        "filter_bias": jnp.zeros(NUM_FILTERS, jnp.float32),
        "bias": jnp.zeros(10, jnp.float32),
    }
    return weights | biases


def predict(params: Params, x: Array) -> Array:
    """Convolution, ReLU, means over 2 x 2 pixels, and a linear layer: (m, 8, 8, 9) to (m, 10)."""
    hidden = jax.nn.relu(x @ params["filters"] + params["filter_bias"])
    pooled = hidden.reshape(-1, 4, 2, 4, 2, NUM_FILTERS).mean(axis=(2, 4))
    return pooled.reshape(-1, 16 * NUM_FILTERS) @ params["output"] + params["bias"]


RISK = losses.empirical_risk(predict, losses.softmax_cross_entropy_with_integer_labels)


def on_rows(params: Params, x: Array, y: Array, rows: Array) -> Array:
    """The loss on some rows."""
    return RISK(params, x[rows], y[rows])


def compute(seed: int = 0) -> Results:
    """Trains with every rule from every seed, and looks along the way of the first."""
    digits = load_digits(seed)
    x, unseen = patches(digits.train_images), patches(digits.test_images)
    y, unseen_y = jnp.asarray(digits.train_labels), jnp.asarray(digits.test_labels)
    keys = jax.random.split(jax.random.key(seed), NUM_SEEDS)

    def record(params: Params) -> tuple[Params, Array]:
        return params, jnp.mean(predict(params, unseen).argmax(axis=-1) == unseen_y)

    def train(key: PRNGKey, optimizer: optax.GradientTransformation) -> descent.Trajectory:
        start, draw = jax.random.split(key)
        rows = descent.minibatches(draw, len(x), batch_size=BATCH_SIZE, num_steps=NUM_STEPS)
        return descent.optimize(
            on_rows, init(start), x, y, optimizer=optimizer, num_steps=NUM_STEPS,
            per_step=rows, record=record, record_every=STRIDE,
        )  # fmt: skip

    @jax.jit
    def noise_along(path: Params) -> Array:
        order = jax.random.permutation(jax.random.key(seed), len(x))
        batches = order[: len(x) // PROBE_SIZE * PROBE_SIZE].reshape(-1, PROBE_SIZE)

        def scale(params: Params) -> Array:
            estimate = curvature.gradient_noise_scale(on_rows, params, x, y, per_step=batches)
            return estimate.value * batches.shape[1]

        return jax.vmap(lambda points: jax.lax.map(scale, points))(path)

    runs = {
        name: jax.jit(jax.vmap(lambda key, rule=rule: train(key, rule)))(keys)
        for name, rule in RULES.items()
    }
    paths = {name: jax.tree.map(lambda leaf: leaf[0], run.path[0]) for name, run in runs.items()}
    plane = planes.principal(paths[DRAWN])
    projection = planes.project_path(plane, paths[DRAWN])
    low, high = (reach(projection.coordinates, axis=0) for reach in (np.min, np.max))
    margin = 0.25 * (high - low)
    axes = [jnp.linspace(a, b, 25) for a, b in zip(low - margin, high + margin, strict=True)]
    surface = jax.jit(surfaces.sweep)(planes.restrict(RISK, plane, x[:300], y[:300]), *axes)
    noise = {
        name: noise_along(jax.tree.map(lambda leaf: leaf[:NUM_PROBED], run.path[0]))
        for name, run in runs.items()
    }
    return Results(runs, noise, projection, surface)


def first_steps_below(run: descent.Trajectory) -> np.ndarray:
    """By seed, the first step from which the mean of STRIDE losses lies below REACHED."""
    trace = np.asarray(run.losses)[:, :-1].reshape(NUM_SEEDS, -1, STRIDE).mean(axis=-1)
    is_below = trace < REACHED
    return np.where(is_below.any(axis=1), is_below.argmax(axis=1) * STRIDE, NUM_STEPS)


def noise_growth(noise: Array) -> float:
    """How the median noise scale over runs has grown: the last five points against the start."""
    medians = np.median(np.asarray(noise), axis=0)
    return float(np.median(medians[-5:]) / medians[0])


def _hidden_share(results: Results) -> float:
    """How much of its distance from the end lies off the plane, in the median over the path."""
    along = np.linalg.norm(np.asarray(results.projection.coordinates)[:-1], axis=1)
    off = np.asarray(results.projection.residuals)[:-1]
    return float(np.median(off / np.hypot(along, off)))


def tables(results: Results) -> list[Table]:
    """Each rule's speed, its accuracy, and its noise scale at the start and at the end."""
    rows = []
    for name, run in results.runs.items():
        accuracy, steps = np.asarray(run.path[1])[:, -1], first_steps_below(run)
        noise = np.median(np.asarray(results.noise[name]), axis=0)
        last = np.asarray(run.losses)[:, -STRIDE:].mean(axis=1)
        rows.append(
            (name, f"{np.median(steps):.0f}", f"{steps.min()} .. {steps.max()}",
             f"{np.median(last):.3f}", f"{np.median(accuracy):.1%}",
             f"{accuracy.min():.1%} .. {accuracy.max():.1%}", f"{noise[0]:.0f}",
             f"{np.median(noise[-5:]):.0f}")
        )  # fmt: skip
    return [
        Table(
            f"{NUM_SEEDS} seeds each, {NUM_STEPS} steps of {BATCH_SIZE} digits",
            ("rule", f"median step below {REACHED}", "of all seeds", "last loss", "unseen digits",
             "of all seeds", "noise scale, first", "last five"),
            rows,
        )
    ]  # fmt: skip


def expectations(results: Results) -> list[Expectation]:
    """All rules learn, momentum and Adam sooner; and the gradients' noise grows."""
    worst = {name: float(run.path[1][:, -1].min()) for name, run in results.runs.items()}
    steps = {name: first_steps_below(run) for name, run in results.runs.items()}
    growth = {name: noise_growth(noise) for name, noise in results.noise.items()}
    hidden = _hidden_share(results)
    return [
        Expectation(
            "every run knows more than 85 % of the digits that it has not seen",
            ", ".join(f"{name} at least {share:.1%}" for name, share in worst.items()),
            min(worst.values()) > 0.85,
        ),
        Expectation(
            f"every run of momentum reaches a loss of {REACHED} before any of plain SGD",
            f"at most {steps['momentum'].max()} against at least {steps['SGD'].min()} steps",
            bool(steps["momentum"].max() < steps["SGD"].min()),
        ),
        Expectation(
            "the noise scale grows along the way of every rule",
            ", ".join(f"{name} {factor:.1f} times" for name, factor in growth.items()),
            min(growth.values()) > 1,
        ),
        Expectation(
            "the plane shows most of the path, not all",
            f"in the median {hidden:.1%} of the distance to its end lies off the plane",
            0 < hidden < 0.5,
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Losses and accuracies with their spread, the noise, one path and what its plane hides."""
    above, below = (figure.add_subfigure(row) for row in figure.add_gridspec(2, 1))
    loss, accuracy, noise = above.subplots(1, 3)
    path, hidden = below.subplots(1, 2, width_ratios=(2, 1))
    steps = np.arange(0, NUM_STEPS + 1, STRIDE)
    for name, run in results.runs.items():
        colour = panels.colour_of_rule(name)
        _draw_losses(loss, name, run, colour)
        shares = np.asarray(run.path[1])
        accuracy.plot(steps, np.median(shares, axis=0), color=colour, label=name)
        accuracy.fill_between(
            steps, shares.min(axis=0), shares.max(axis=0), color=colour, alpha=0.2
        )
        scales = np.median(np.asarray(results.noise[name]), axis=0)
        noise.semilogy(steps, scales, color=colour, label=name)
    loss.set_title(f"Loss on the batch: {NUM_SEEDS} seeds, all within the band")
    accuracy.set(xlabel="step", ylabel="share of unseen digits known", ylim=(0, 1))
    accuracy.set_title("Accuracy: medians and full range over seeds")
    growth = min(noise_growth(scales) for scales in results.noise.values())
    noise.set(xlabel="step", ylabel=f"noise scale, digits, median of {NUM_PROBED} runs")
    noise.set_title(
        f"Noise: the median of the last five points\nis {growth:.1f} times the start or more"
    )
    for ax in (loss, accuracy, noise):
        ax.legend()
    plots.surface_contour(path, results.surface, axis_names=("first component", "second component"),
                          value_name="training loss", log=True)  # fmt: skip
    plots.descent_path(path, np.asarray(results.projection.coordinates), color="white", ms=3)
    path.set_title(f"One run of {DRAWN} on its principal plane")
    hidden.plot(steps, results.projection.residuals, color=panels.colour_of_rule(DRAWN))
    hidden.set(xlabel="step", ylabel="distance from the plane")
    hidden.set_title(f"The plane hides {_hidden_share(results):.0%} of the way")
    panels.letters(loss, accuracy, noise, path, hidden)


def _draw_losses(ax: Axes, name: str, run: Any, colour: Any) -> None:
    """The losses of all seeds, averaged over STRIDE steps: median and full range."""
    trace = np.asarray(run.losses)[:, :-1].reshape(NUM_SEEDS, -1, STRIDE).mean(axis=-1)
    steps = np.arange(trace.shape[1]) * STRIDE + STRIDE / 2
    ax.semilogy(steps, np.median(trace, axis=0), color=colour, label=name)
    ax.fill_between(steps, trace.min(axis=0), trace.max(axis=0), color=colour, alpha=0.2)
    ax.set(xlabel="step", ylabel=f"loss, mean of {STRIDE} steps")
