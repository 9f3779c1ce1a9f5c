"""How large may the step be, and does momentum allow a larger one?

A descent on a quadratic stays bounded as long as rate times lambda, the curvature, is below 2
for gradient descent, below 2 + 2 beta for the heavy ball, and below (2 + 2 beta) / (1 + 2 beta)
for Nesterov's momentum. Expect these bounds within 1 % from descents alone, halving the interval
between a rate that holds and one that runs away, whatever the curvature; momentum to allow a
larger step, up to twice the plain one, Nesterov's a smaller one, down to two thirds; and on the
note's 20 points the largest eigenvalue of the Hessian to rule.

``optax.sgd(nesterov=True)`` follows the point where the gradient is taken. That point obeys
x' = y + beta (y - y_before) with y = x - rate * gradient(x), Nesterov's own recursion.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.data import points
from experiments.shell.panels import colour_of_rule, letters
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, surfaces

FIGURE_SIZE = (14, 5.2)
METHODS = {
    "gradient descent": lambda rate, _: optax.sgd(rate),
    "heavy ball": lambda rate, beta: optax.sgd(rate, momentum=beta),
    "Nesterov": lambda rate, beta: optax.sgd(rate, momentum=beta, nesterov=True),
}
BOUNDS = {
    "gradient descent": lambda beta: 2 + 0 * beta,
    "heavy ball": lambda beta: 2 + 2 * beta,
    "Nesterov": lambda beta: (2 + 2 * beta) / (1 + 2 * beta),
}
COLOURS = {
    "gradient descent": colour_of_rule("SGD"),
    "heavy ball": colour_of_rule("momentum"),
    "Nesterov": colour_of_rule("Nesterov"),
}
CURVATURES = (0.5, 7.0, 100.0)
MOMENTA = (0.0, 0.3, 0.6, 0.9)
NUM_STEPS, NUM_HALVINGS = 1000, 16
COST = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
MAP_STEPS, TOLERANCE, RESOLUTION, BATCH_SIZE = 500, 1e-6, (101, 80), 1010


class Results(NamedTuple):
    """What was computed.

    Attributes:
      found: by method, shape (curvatures, momenta): the largest rate that holds.
      found_on_points: by method, shape (momenta,): the same on the note's 20 points.
      curvature_of_points: the largest eigenvalue of their Hessian.
      maps: by method with momentum, over (rate times lambda, beta): steps taken, and status.
    """

    found: dict[str, jax.Array]
    found_on_points: dict[str, jax.Array]
    curvature_of_points: float
    maps: dict[str, surfaces.Surface]


def parabola(x: jax.Array, curvature: Any) -> jax.Array:
    """The loss: ``curvature * x^2 / 2``."""
    return curvature * x**2 / 2


def largest_rate(
    loss_fn: Any, start: Any, *data: Any, optimizer: Callable[[Any], Any], too_large: Any
) -> jax.Array:
    """Halves the interval between a rate that holds and one that runs away.

    A descent runs away when its status says that it diverged, or is no longer finite.
    """

    def halve(_: Any, interval: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = interval
        middle = (low + high) / 2
        run = descent.optimize(
            loss_fn,
            start,
            *data,
            optimizer=optimizer(middle),
            num_steps=NUM_STEPS,
            record=lambda _: None,
        )
        holds = run.status == descent.Status.MAX_STEPS
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

    interval = jnp.zeros_like(too_large), too_large
    low, high = jax.lax.fori_loop(0, NUM_HALVINGS, halve, interval)
    return (low + high) / 2


def bounds_of_parabolas(method: str) -> jax.Array:
    """The largest rate for each curvature and each momentum."""

    def bound(curvature: Any, beta: Any) -> jax.Array:
        return largest_rate(
            parabola,
            1.0,
            curvature,
            optimizer=lambda rate: METHODS[method](rate, beta),
            too_large=8 / curvature,
        )

    return surfaces.sweep(bound, jnp.array(CURVATURES), jnp.array(MOMENTA)).values


def bounds_of_points(method: str, inputs: Any, targets: Any) -> jax.Array:
    """The largest rate on the note's 20 points, from its start (1, 1), for each momentum."""
    start = neurons.Neuron(weights=jnp.ones(1), bias=jnp.ones(()))

    def bound(beta: Any) -> jax.Array:
        return largest_rate(
            COST,
            start,
            inputs,
            targets,
            optimizer=lambda rate: METHODS[method](rate, beta),
            too_large=jnp.array(0.05),
        )

    return surfaces.sweep(bound, jnp.array(MOMENTA)).values


def outcome(method: str, scaled_rate: Any, beta: Any) -> dict[str, jax.Array]:
    """How a descent on x^2 / 2 ends."""
    run = descent.optimize(
        parabola,
        1.0,
        1.0,
        optimizer=METHODS[method](scaled_rate, beta),
        num_steps=MAP_STEPS,
        tolerance=TOLERANCE,
        record=lambda _: None,
    )
    return {"steps": run.num_steps, "status": run.status}


def compute(seed: int = 0, full: bool = False) -> Results:
    """Finds every bound, and sweeps the outcomes; ``full`` takes a map four times finer."""
    del seed  # nothing here is random
    scale = 4 if full else 1
    scaled_rates = jnp.linspace(0.04, 4.2, scale * (RESOLUTION[0] - 1) + 1)
    betas = jnp.linspace(0, 0.98, scale * (RESOLUTION[1] - 1) + 1)
    inputs, targets = points.TWENTY.x[:, None], points.TWENTY.y

    @jax.jit
    def everything(inputs: Any, targets: Any) -> Any:
        return (
            {method: bounds_of_parabolas(method) for method in METHODS},
            {method: bounds_of_points(method, inputs, targets) for method in METHODS},
            {
                method: surfaces.sweep(
                    lambda rate, beta, method=method: outcome(method, rate, beta),
                    scaled_rates,
                    betas,
                    batch_size=BATCH_SIZE,
                )
                for method in ("heavy ball", "Nesterov")
            },
        )

    found, found_on_points, maps = everything(inputs, targets)
    design = np.concatenate([inputs, np.ones_like(inputs)], axis=1)
    return Results(
        found=found,
        found_on_points=found_on_points,
        curvature_of_points=float(np.linalg.eigvalsh(design.T @ design / len(design))[-1]),
        maps=maps,
    )


def scaled(results: Results) -> dict[str, np.ndarray]:
    """Every bound found, times its curvature: by method, (curvatures and the points, momenta)."""
    factors = np.array([*CURVATURES, results.curvature_of_points])[:, None]
    return {
        method: factors * np.vstack([results.found[method], results.found_on_points[method]])
        for method in METHODS
    }


def tables(results: Results) -> list[Table]:
    """The bounds found beside the formula, and the outcomes on both sides of it."""
    names = [f"lambda {curvature:g}" for curvature in CURVATURES] + ["20 points"]
    rows, largest = [], 0.0
    for method, values in scaled(results).items():
        for beta, found in zip(MOMENTA, values.T, strict=True):
            if method == "gradient descent" and beta > 0:
                continue  # it has none
            bound = BOUNDS[method](beta)
            error = np.abs(found / bound - 1).max()
            largest = max(largest, error)
            rows.append((method, f"{beta:g}", *(f"{x:.5f}" for x in found), f"{bound:.5f}",
                         f"{error:.2%}", "yes" if error <= 0.01 else "no"))  # fmt: skip
    sides = []
    for method in ("heavy ball", "Nesterov"):
        surface = results.maps[method]
        rates, betas = (np.asarray(axis) for axis in surface.coordinates)
        below = rates[:, None] < BOUNDS[method](betas)
        status = np.asarray(surface.values["status"])
        for name, members in (("below the bound", below), ("above it", ~below)):
            counts = [int(np.sum(status[members] == s)) for s in descent.Status]
            sides.append((method, name, *counts))
    return [
        Table(
            f"The largest rate that holds for {NUM_STEPS} steps, times the curvature "
            f"(error at most {largest:.2%})",
            ("method", "beta", *names, "formula", "error", "within 1 %"),
            rows,
        ),
        Table(
            f"Outcomes over (rate, beta) on x^2 / 2: {MAP_STEPS} steps, tolerance {TOLERANCE:g}",
            ("method", "rate", *(status.name for status in descent.Status)),
            sides,
        ),
    ]


def _largest_error(found: dict[str, np.ndarray]) -> float:
    """How far the bounds found are from the formula, relative."""
    return max(
        float(np.abs(values / [BOUNDS[method](beta) for beta in MOMENTA] - 1).max())
        for method, values in found.items()
    )


def expectations(results: Results) -> list[Expectation]:
    """Every bound is that of the formula, whatever the curvature."""
    found = scaled(results)
    largest_error = _largest_error(found)
    plain = found["gradient descent"][0, 0]
    heavy, nesterov = (found[name][0, -1] / plain for name in ("heavy ball", "Nesterov"))
    points = np.abs(found["heavy ball"][-1] / found["heavy ball"][0] - 1).max()
    spread = max(np.ptp(values[:-1], axis=0).max() for values in found.values())
    beta = MOMENTA[-1]
    return [
        Expectation(
            "every bound is that of the formula to 1 %",
            f"the largest error is {largest_error:.2%}",
            bool(largest_error <= 0.01),
        ),
        Expectation(
            "rate times curvature is the same for every curvature",
            f"they differ by {spread:.0e}",
            bool(spread < 1e-3),
        ),
        Expectation(
            f"the heavy ball allows up to twice the step (beta = {beta:g}: {1 + beta:g} times)",
            f"{heavy:.3f} times",
            bool(abs(heavy - 1 - beta) < 0.01),
        ),
        Expectation(
            "Nesterov's momentum allows down to 2/3 of it "
            f"(beta = {beta:g}: {(1 + beta) / (1 + 2 * beta):.3f} times)",
            f"{nesterov:.3f} times",
            bool(abs(nesterov - (1 + beta) / (1 + 2 * beta)) < 0.01),
        ),
        Expectation(
            "on the 20 points the largest eigenvalue of the Hessian rules",
            f"the bounds are {points:.2%} apart",
            bool(points < 0.01),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The outcomes over rate and momentum with the curves of theory, and the bounds found."""
    *panels, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.95))
    found = scaled(results)
    for ax, method in zip(panels, ("heavy ball", "Nesterov"), strict=True):
        _outcomes(ax, results.maps[method])
        betas = np.asarray(results.maps[method].coordinates[1])
        (line,) = ax.plot(BOUNDS[method](betas), betas, color=COLOURS[method], lw=3, label="theory")
        line.set_path_effects([withStroke(linewidth=5, foreground="white")])
        ax.set_ylim(betas[0], betas[-1])
        times = found[method][0, -1] / found["gradient descent"][0, 0]
        ax.set_title(f"{method}: at β = {MOMENTA[-1]:g}\n{times:.2f} times the plain step")
        ax.legend(loc="lower right", fontsize=9)
    bar = figure.colorbar(panels[0].images[0], ax=panels, pad=0.02, aspect=40)
    bar.ax.set_title("steps", fontsize=10)
    panels[0].set_ylabel("momentum β")
    panels[1].set_yticklabels([])

    betas = np.linspace(0, 1, 101)
    for method, values in found.items():
        look: Any = {"color": COLOURS[method]}
        right.plot(BOUNDS[method](betas), betas, lw=2, label=f"{method}: theory", **look)
        # All four lie on one spot of the curve: they are drawn one above the other.
        for marker, rates, lift in zip("o^s*", values, (-0.03, -0.01, 0.01, 0.03), strict=True):
            height = np.asarray(MOMENTA) + lift
            right.plot(rates, height, marker, ms=6, mfc="white", mew=1.3, ls="none", **look)
    names = [f"λ = {curvature:g}" for curvature in CURVATURES] + ["20 points"]
    for marker, name in zip("o^s*", names, strict=True):
        look = {"ms": 6, "mfc": "white", "color": "0.3", "ls": "none", "label": f"found, {name}"}
        right.plot([], [], marker, **look)
    right.set_xlabel("largest rate times λ")
    right.set_ylabel("momentum β")
    right.set(xlim=(1, 5.6), ylim=(-0.06, 1))
    right.legend(fontsize=9, loc="lower right")
    right.set_title(f"Bounds found, at most\n{_largest_error(found):.2%} off the curves")
    letters(*panels, right)


def _outcomes(ax: Axes, surface: surfaces.Surface) -> None:
    """The steps that a descent takes to converge; white: too many; grey: it runs away."""
    rates, betas = surface.coordinates
    status = np.asarray(surface.values["status"])
    steps = np.asarray(surface.values["steps"], float)
    steps[status != descent.Status.CONVERGED] = np.nan
    extent = (float(rates[0]), float(rates[-1]), float(betas[0]), float(betas[-1]))
    look: Any = {"origin": "lower", "extent": extent, "aspect": "auto"}
    ax.imshow(steps.T, cmap="viridis", norm="log", **look)
    gone = np.isin(status, [descent.Status.DIVERGED, descent.Status.NON_FINITE])
    ax.imshow(np.where(gone, 1.0, np.nan).T, cmap="gray_r", vmin=0, vmax=6.0, **look)
    for name, grey in ((f"more than {MAP_STEPS}", "1.0"), ("runs away", "0.86")):
        ax.plot([], [], "s", color=grey, mec="black", ms=9, label=name)
    ax.set_xlabel("rate times λ")
