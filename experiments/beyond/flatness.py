"""Which measures of flatness belong to a function, and which to its parameters alone?

A network with relu units stays the function it is when one layer is multiplied by a factor and
the next divided by it (Dinh et al., 2017). Expect everything that is read off the Hessian in the
parameters to change with the factor, sharpness and trace by orders of magnitude, and so the loss
along random directions of length r and along the sharpest one; and expect the sharpness along
filter-normalized directions, which are scaled like the weights themselves, to stay as it is. In
the trained parameters themselves the worst direction is far worse than a typical one: on a
quadratic the mean rise at radius r is ``r^2 tr H / (2 n)``, the worst ``r^2 lambda_max / 2``.

A network 2-24-1 of relu units without a bias in the second layer, fitted to a wave by Adam; 100
random unit directions, all of them in one jitted program.

Source: Dinh, Pascanu, Bengio and Bengio, Sharp minima can generalize for deep nets, 2017; Li, Xu,
Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets, 2018.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, curves, descent, losses, neurons, planes, plots
from jaxgd.types import Array, ArrayLike, Params

FIGURE_SIZE = (13, 4.8)
SECONDS = 20
WIDTH, NUM_EXAMPLES, NUM_STEPS, RATE = 24, 60, 2_000, 0.01
FACTORS = (1.0, 3.0, 10.0)
NUM_DIRECTIONS, NUM_ITERATIONS, NUM_SAMPLES = 100, 60, 100
RADII = np.geomspace(0.01, 1.0, 13)
MEASURES = ("sharpness", "trace", "filter-normalized curvature")


class Results(NamedTuple):
    """What was computed, one row for each of FACTORS.

    Attributes:
      values: (factors, examples): what the network says, which should not change.
      measures: (factors, 3): MEASURES.
      profile: the loss by the distance from the params as trained: along random directions, and
        in the worst.
      num_params: n.
    """

    values: Array
    measures: Array
    profile: curves.BasinProfile
    num_params: int


def predict(params: Any, x: Array) -> Array:
    """Applies the network: x (m, 2), a column of ones beside the input, to (m,)."""
    hidden, output = params
    return jax.nn.relu(x @ hidden) @ output


RISK = losses.empirical_risk(predict, losses.half_squared_error)


def rescaled(params: Any, factor: ArrayLike) -> Any:
    """The same function: the first layer times the factor, the second divided by it."""
    hidden, output = params
    return hidden * factor, output / factor


def normalized(params: Params, direction: Params) -> Params:
    """A direction whose filters are as long as those of the params."""
    plane = planes.Plane(origin=params, directions=(direction,))
    return planes.filter_normalize(plane, filter_axis=-1, vectors="match").directions[0]


def measure(params: Params, x: Array, y: Array) -> Array:
    """The three measures."""
    key_top, key_trace, key_directions = jax.random.split(jax.random.key(1), 3)
    top = curvature.top_eigenpairs(
        key_top, RISK, params, x, y, num_pairs=1, num_iterations=NUM_ITERATIONS
    )
    trace = curvature.hessian_trace(key_trace, RISK, params, x, y, num_samples=NUM_SAMPLES)
    directions = jax.vmap(lambda key: optax.tree.random_like(key, params))(
        jax.random.split(key_directions, NUM_DIRECTIONS)
    )

    def curvature_along(direction: Params) -> Array:
        along = normalized(params, direction)
        return jnp.asarray(optax.tree.vdot(along, curvature.hvp(RISK, params, x, y)(along)))

    along = jax.vmap(curvature_along)(directions).mean()
    return jnp.stack([top.values[0], trace.value, along])


def compute(seed: int = 0) -> Results:
    """Fits the network, rescales it, and measures every copy."""
    inputs = np.linspace(-1, 1, NUM_EXAMPLES)
    x, y = np.stack([inputs, np.ones(NUM_EXAMPLES)], axis=1), np.sin(4 * inputs)
    start = tuple(
        layer.weights if layer.weights.shape[1] > 1 else layer.weights[:, 0]
        for layer in neurons.init_network(jax.random.key(seed), (2, WIDTH, 1))
    )

    @jax.jit
    def run(start: Params, x: Array, y: Array) -> Any:
        end = descent.optimize(
            RISK, start, x, y, optimizer=optax.adam(RATE), num_steps=NUM_STEPS,
            record=lambda _: None,
        ).params  # fmt: skip
        copies = jax.vmap(rescaled, in_axes=(None, 0))(end, jnp.array(FACTORS))
        values = jax.vmap(predict, in_axes=(0, None))(copies, x)
        profile = curves.basin_profile(
            jax.random.key(2), RISK, end, x, y, radii=RADII, num_directions=NUM_DIRECTIONS,
            batch_size=NUM_DIRECTIONS,
        )  # fmt: skip
        return values, jax.vmap(measure, in_axes=(0, None, None))(copies, x, y), profile

    values, measures, profile = run(start, x, y)
    return Results(values, measures, profile, sum(leaf.size for leaf in start))


def rises(profile: curves.BasinProfile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rise of the loss by radius: in the mean, in the median and in the worst direction."""
    center = np.asarray(profile.center)
    return (
        np.asarray(profile.mean) - center,
        np.asarray(profile.quantiles[1]) - center,
        np.asarray(profile.worst) - center,
    )


def tables(results: Results) -> list[Table]:
    """The measures by factor, and the rises beside those of a quadratic."""
    measures = np.asarray(results.measures)
    rows = [
        (f"{factor:g}", *(f"{value:.4g}" for value in row))
        for factor, row in zip(FACTORS, measures, strict=True)
    ]
    sharpness, trace = measures[0, :2]
    mean, _, worst = rises(results.profile)
    beside = [
        (f"{radius:.3g}", f"{mean[j]:.3g}",
         f"{radius**2 * trace / (2 * results.num_params):.3g}", f"{worst[j]:.3g}",
         f"{radius**2 * sharpness / 2:.3g}")
        for j, radius in enumerate(RADII)
        if j % 3 == 0
    ]  # fmt: skip
    return [
        Table("One function under rescaled layers", ("factor", *MEASURES), rows),
        Table(
            "The rise of the loss at a radius, as trained",
            ("radius", "mean of 100", "quadratic", "worst direction", "quadratic"),
            beside,
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The function stays, the Hessian's measures change, the filter-normalized one stays."""
    values, measures = np.asarray(results.values), np.asarray(results.measures)
    change = np.abs(values - values[0]).max()
    ratios = measures.max(axis=0) / measures.min(axis=0)
    mean, _, worst = rises(results.profile)
    quadratic = RADII[0] ** 2 * measures[0, 1] / (2 * results.num_params)
    typical = mean[0] / quadratic
    highest = worst[0] / (RADII[0] ** 2 * measures[0, 0] / 2)
    return [
        Expectation("the function stays as it is", f"to {change:.0e}", bool(change < 1e-9)),
        Expectation(
            "sharpness and trace change tenfold and more",
            f"{ratios[0]:.0f} and {ratios[1]:.0f} times",
            bool(ratios[:2].min() > 10),
        ),
        Expectation(
            "the curvature along filter-normalized directions stays",
            f"it changes by {ratios[2] - 1:.0e}",
            bool(ratios[2] - 1 < 1e-6),
        ),
        Expectation(
            "near the params the mean rise is r^2 tr H / (2 n), the worst r^2 lambda_max / 2",
            f"{typical:.2f} and {highest:.2f} times",
            bool(0.7 < typical < 1.3 and 0.9 < highest < 1.1),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The measures against the factor, and the loss by radius as trained."""
    left, right = figure.subplots(1, 2)
    measures = np.asarray(results.measures)
    for i, name in enumerate(MEASURES):
        relative = measures[:, i] / measures[0, i]
        left.loglog(FACTORS, relative, "o-", color=plots.COLOURS[i], label=name)
    ratios = measures[-1] / measures[0]
    left.set_title(
        f"The same function, layers rescaled by {FACTORS[-1]:g}: sharpness × {ratios[0]:.0f},\n"
        f"filter-normalized curvature × {ratios[2]:.3g}",
        fontsize=11,
    )
    left.set_xlabel("factor between the layers")
    left.set_ylabel("measure, relative to that at factor 1")
    left.legend()
    right.loglog()
    plots.basin_profile(right, results.profile)
    _, median, worst = rises(results.profile)
    sharpness, trace = measures[0, :2]
    for coefficient in (trace / results.num_params, sharpness):
        right.loglog(RADII, RADII**2 * coefficient / 2, color="0.5", ls=":", lw=1.5)
    right.set_title(
        f"As trained, the worst direction rises {worst[0] / median[0]:.0f} times\n"
        "faster than a typical one (dotted: quadratics)",
        fontsize=11,
    )
    letters(left, right)
