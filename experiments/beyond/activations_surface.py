"""What do the activation and the size of the first weights do to the loss surface?

One 64-32-10 network, with tanh and with relu, from usual and from six times larger initial
weights, trained by momentum on the digits and seen from filter-normalized planes with the same
directions. Expect the usual start to end in a wide bowl under both activations. From large
weights expect training to end at about the same loss and at a worse test accuracy, in a bowl
many times steeper: the same relative change of larger weights moves the logits further. Far
out the surface under tanh, whose units saturate, lies lower than that under relu.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, neurons, planes, plots, surfaces

FIGURE_SIZE = (11, 9)
SECONDS = 10
SIZES = (64, 32, 10)
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
SCALES = {"usual": 1.0, "large": 6.0}
NUM_STEPS, RESOLUTION, BATCH_SIZE, HALF_WIDTH = 200, 51, 8, 1.0


class Case(NamedTuple):
    """What was computed of one activation and one size of the initial weights.

    Attributes:
      descent: the training; its path keeps nothing.
      accuracy: on the test digits.
      sharpness: the largest Hessian eigenvalue at the end.
      surface: the loss on the plane.
    """

    descent: descent.Trajectory
    accuracy: jax.Array
    sharpness: jax.Array
    surface: surfaces.Surface


class Results(NamedTuple):
    """One case for each activation and size, by ``"tanh, usual"`` and so on."""

    cases: dict[str, Case]


def compute(seed: int = 0) -> Results:
    """Trains four networks and sweeps the loss of each."""
    digits = load_digits(seed)
    data = jnp.asarray(digits.train_images, jnp.float32), jnp.asarray(digits.train_labels)
    key_start, key_plane, key_lanczos = jax.random.split(jax.random.key(seed), 3)
    start = neurons.init_network(key_start, SIZES)
    axis = jnp.linspace(-HALF_WIDTH, HALF_WIDTH, RESOLUTION, dtype=jnp.float32)
    cases = {}
    for name, activation in ACTIVATIONS.items():

        def predict(network: Any, x: Any, activation: Any = activation) -> jax.Array:
            return neurons.apply_network(network, x, activation=activation)

        risk = losses.empirical_risk(predict, losses.softmax_cross_entropy_with_integer_labels)

        @jax.jit
        def train(network: Any, *data: Any, risk: Any = risk) -> Any:
            trajectory = descent.optimize(
                risk, network, *data, optimizer=optax.sgd(0.02, momentum=0.9), num_steps=NUM_STEPS,
                record=lambda _: None,
            )  # fmt: skip
            end = trajectory.params
            return trajectory, curvature.sharpness(key_lanczos, risk, end, *data, num_iterations=20)

        sweep = jax.jit(lambda phi: surfaces.sweep(phi, axis, axis, batch_size=BATCH_SIZE))
        for size, scale in SCALES.items():
            scaled = jax.tree.map(lambda leaf, s=scale: (s * leaf).astype(jnp.float32), start)
            trajectory, sharpness = train(scaled, *data)
            plane = planes.random(key_plane, trajectory.params)
            plane = planes.filter_normalize(plane, filter_axis=-1)
            logits = predict(trajectory.params, digits.test_images)
            cases[f"{name}, {size}"] = Case(
                descent=trajectory,
                accuracy=jnp.mean(logits.argmax(axis=-1) == digits.test_labels),
                sharpness=sharpness,
                surface=sweep(planes.restrict(risk, plane, *data)),
            )
    return Results(cases=cases)


def tables(results: Results) -> list[Table]:
    """How each network trained and how its surface lies."""
    rows = []
    for name, case in results.cases.items():
        values = case.surface.values
        rows.append(
            (name, f"{case.descent.losses[0]:.3g}", f"{case.descent.losses[-1]:.4f}",
             f"{case.accuracy:.1%}", f"{case.sharpness:.2f}", f"{values.min():.4f}",
             f"{jnp.median(values):.3g}", f"{values.max():.3g}")
        )  # fmt: skip
    header = ("network, weights", "first loss", "last loss", "test accuracy", "sharpness",
              "plane: lowest", "median", "highest")  # fmt: skip
    return [Table("The digits, by activation and initial weights", header, rows)]


def expectations(results: Results) -> list[Expectation]:
    """Large first weights: worse accuracy, steeper bowls."""
    cases, expected = results.cases, []
    for activation in ACTIVATIONS:
        usual, large = cases[f"{activation}, usual"], cases[f"{activation}, large"]
        medians = float(jnp.median(usual.surface.values)), float(jnp.median(large.surface.values))
        expected += [
            Expectation(
                f"{activation}: large first weights end at a worse test accuracy",
                f"{large.accuracy:.1%} against {usual.accuracy:.1%}",
                bool(large.accuracy < usual.accuracy),
            ),
            Expectation(
                f"{activation}: and in a bowl several times steeper",
                f"median of the plane: {medians[1]:.3g} against {medians[0]:.3g}",
                medians[1] > 3 * medians[0],
            ),
        ]
    return expected


def draw(figure: Figure, results: Results) -> None:
    """Four surfaces on the same directions, at the same levels."""
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    levels = plots.common_levels(*(case.surface for case in results.cases.values()), log=True)
    names = ("filter-normalized direction 1", "direction 2")
    look: Any = {"axis_names": names, "log": True, "levels": levels, "aspect": "equal"}
    drawn = []
    for ax, (name, case) in zip(axes.ravel(), results.cases.items(), strict=True):
        drawn.append(plots.surface_contour(ax, case.surface, colorbar=False, **look))
        ax.plot(0, 0, "*", color="white", mec="black", ms=13)
        ax.set_title(
            f"{name} weights: loss {case.descent.losses[-1]:.2g},\n"
            f"{case.accuracy:.1%} of the test digits right"
        )
        ax.set(xticks=[-1, -0.5, 0, 0.5, 1], yticks=[-1, -0.5, 0, 0.5, 1])
        ax.label_outer()
    decades = [0.2, 0.5, 1, 2, 5, 10, 20, 50]
    ticks = [tick for tick in decades if levels[0] <= tick <= levels[-1]]
    bar = figure.colorbar(drawn[0], ax=axes, label="loss, nats: one scale for all four", aspect=40)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    panels.letters(*axes.ravel())


def interactive(results: Results) -> dict[str, Any]:
    """The four surfaces, to turn."""
    names = ("filter-normalized direction 1", "direction 2")
    return {
        f"{name} weights": plots.interactive_surface(
            case.surface, axis_names=names, log=True, aspect="equal"
        )
        for name, case in results.cases.items()
    }
