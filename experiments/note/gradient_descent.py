"""Where does descent lead on the note's 20 points, and how large may its step be?

The note sets up a line through 20 points and never descends. Expect the published fit after
4,035 updates, by hand and by Optax alike; and a sharp limit of the learning rate, 2 divided by
the largest eigenvalue of the Hessian: 0.0138 converges, 0.0139 runs away. On y = x^2, on
x^2 + sin^2 y and on (x - 1)^2 + 0.1 the error shrinks at each step by the factor that the
second derivative and the learning rate give.

Why did yours diverge? Most often the columns of its data differ in size: an input a hundred
times as large as another makes the loss ten thousand times as strongly curved along its weight.
Of an area in square metres beside a number of rooms, the area alone sets the largest rate that
holds, near 1.5e-4, and at that rate the bias hardly moves in 10,000 steps. A smaller rate only
ends the divergence. Scale the inputs instead, to mean 0 and size 1: a rate of 0.5 then needs
ten steps.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments.data import points
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, planes, plots, surfaces

FIGURE_SIZE = (12, 10.5)
SECONDS = 8
X, Y = points.TWENTY
LEARNING_RATE, TOLERANCE, MAX_STEPS = 0.01, 1e-5, 10_000
CRITICAL_RATES = (0.0138, 0.0139)
PICTURE_RATES = (1.1, 1.0, 0.8, 0.6, 0.4, 0.2, 0.1)
COST = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
SWEEP = jax.jit(surfaces.sweep, static_argnums=0)


class Results(NamedTuple):
    """What was computed.

    Attributes:
      by_hand: the descent with the hand-written rule.
      with_optax: the same with ``optax.sgd``.
      gradient: at the start.
      hessian: (2, 2), in the order weight, bias.
      critical: descents at 0.0138 and at 0.0139, one lane each.
      surface: the cost over (bias, weight).
      one_variable: x^2 from 1.2 at 0.3.
      two_variables: x^2 + sin^2 y from (3, 1) at 0.1.
      rates: (x - 1)^2 + 0.1 from -0.8, one lane per learning rate.
      plot_points: how many points the note draws its line through.
    """

    by_hand: descent.Trajectory
    with_optax: descent.Trajectory
    gradient: neurons.Neuron
    hessian: jax.Array
    critical: descent.Trajectory
    surface: surfaces.Surface
    one_variable: descent.Trajectory
    two_variables: descent.Trajectory
    rates: descent.Trajectory
    plot_points: int


def compute(seed: int = 0) -> Results:
    """Computes every descent of the note and of its sources."""
    del seed  # nothing here is random
    results = jax.device_get(jax.jit(_compute)(X[:, None], Y))
    return results._replace(plot_points=np.arange(0, 21, 0.2).size)


def _compute(x: jax.Array, y: jax.Array) -> Results:
    start = neurons.Neuron(weights=jnp.ones(1), bias=jnp.ones(()))
    wide: Any = {"num_steps": MAX_STEPS, "tolerance": TOLERANCE}

    def cost_of(bias: Any, weight: Any) -> jax.Array:
        return COST(planes.point(plane, bias, weight), x, y)

    plane = planes.coordinate(start, ("bias",), ("weights", 0))
    return Results(
        by_hand=descent.gradient_descent(COST, start, x, y, learning_rate=LEARNING_RATE, **wide),
        with_optax=descent.optimize(COST, start, x, y, optimizer=optax.sgd(LEARNING_RATE), **wide),
        gradient=jax.grad(COST)(start, x, y),
        hessian=jax.hessian(cost_of, argnums=(0, 1))(0.0, 0.0),
        critical=jax.vmap(
            lambda rate: descent.gradient_descent(
                COST, start, x, y, learning_rate=rate, num_steps=2000
            )
        )(jnp.array(CRITICAL_RATES)),
        surface=surfaces.sweep(cost_of, jnp.linspace(-1.5, 2.5, 81), jnp.linspace(0.78, 1.16, 77)),
        one_variable=descent.gradient_descent(lambda x: x**2, 1.2, learning_rate=0.3, num_steps=4),
        two_variables=descent.gradient_descent(
            lambda p: p[0] ** 2 + jnp.sin(p[1]) ** 2, (3.0, 1.0), learning_rate=0.1, num_steps=16
        ),
        rates=jax.vmap(
            lambda rate: descent.gradient_descent(
                lambda x: (x - 1) ** 2 + 0.1, -0.8, learning_rate=rate, num_steps=9
            )
        )(jnp.array(PICTURE_RATES)),
        plot_points=0,
    )


def tables(results: Results) -> list[Table]:
    """The fit, the stability bound, and the small examples."""
    fits = [
        (name, str(t.num_steps), *(f"{v:.8f}" for v in (t.params.bias, t.params.weights[0])),
         f"{t.losses[-1]:.15f}", descent.status_name(t.status))
        for name, t in (("by hand", results.by_hand), ("optax.sgd", results.with_optax))
    ]  # fmt: skip
    bias, weight = np.linalg.lstsq(np.stack([np.ones(20), X], axis=1), Y, rcond=None)[0]
    least = np.mean((weight * X + bias - Y) ** 2) / 2
    fits.append(("least squares", "", f"{bias:.8f}", f"{weight:.8f}", f"{least:.15f}", ""))

    bound = 2 / np.linalg.eigvalsh(np.asarray(results.hessian))[-1]
    stability = [
        (f"{rate:g}", f"{rate / bound:.4f}", f"{costs[0]:.4f}", f"{costs[-1]:.4g}",
         descent.status_name(status))
        for rate, costs, status in zip(
            CRITICAL_RATES, results.critical.losses, results.critical.status, strict=True
        )
    ]  # fmt: skip
    one, two = results.one_variable, results.two_variables
    return [
        Table(
            "The 20 points, from (1, 1) at 0.01 until every |gradient entry| <= 1e-5",
            ("", "updates", "theta0", "theta1", "cost", "status"),
            fits,
        ),
        Table(
            f"The learning rate's bound, 2 / lambda_max = {bound:.7f}: 2,000 steps",
            ("rate", "of the bound", "first cost", "last cost", "status"),
            stability,
        ),
        Table(
            "y = x^2, from 1.2 at 0.3",
            ("step", "x", "y"),
            [(t, f"{one.path[t]:.6f}", f"{one.losses[t]:.6f}") for t in range(5)],
        ),
        Table(
            "x^2 + sin^2 y, from (3, 1) at 0.1",
            ("step", "x", "y", "J"),
            [
                (t, *(f"{v[t]:.6f}" for v in (*two.path, two.losses)))
                for t in range(int(two.num_steps) + 1)
            ],
        ),
        Table(
            "(x - 1)^2 + 0.1, from -0.8: x after each step",
            ("rate", *(str(t) for t in range(10))),
            [
                (f"{rate:g}", *(f"{x:.4g}" for x in path))
                for rate, path in zip(PICTURE_RATES, results.rates.path, strict=True)
            ],
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The published fit, the sharp limit of the rate, the factors of the quadratics."""
    hand, optax_run = results.by_hand, results.with_optax
    bound = 2 / float(np.linalg.eigvalsh(results.hessian).max())
    statuses = [descent.status_name(status) for status in results.critical.status]
    # (x - 1)^2 + 0.1 has the second derivative 2: each step multiplies x - 1 by 1 - 2 rate.
    errors = np.asarray(results.rates.path) - 1
    factors = errors[:, 1:] - (1 - 2 * np.array(PICTURE_RATES))[:, None] * errors[:, :-1]
    return [
        Expectation(
            "by hand and with Optax it takes 4,035 updates",
            f"{int(hand.num_steps):,} and {int(optax_run.num_steps):,}",
            int(hand.num_steps) == int(optax_run.num_steps) == 4035,
        ),
        Expectation(
            f"the rate's bound, {bound:.7f}, lies between {CRITICAL_RATES[0]} and "
            f"{CRITICAL_RATES[1]}, and only the first holds",
            " and ".join(statuses),
            CRITICAL_RATES[0] < bound < CRITICAL_RATES[1]
            and statuses[0] != "DIVERGED"
            and statuses[1] == "DIVERGED",
        ),
        Expectation(
            "on (x - 1)^2 + 0.1 every step multiplies the error by 1 - 2 rate",
            f"to {np.abs(factors).max():.0e}",
            bool(np.abs(factors).max() < 1e-5),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The fit, the path on the cost, the bound, and the learning-rate pictures."""
    grid = figure.add_gridspec(3, 1, height_ratios=(1.2, 1, 1))
    top, middle, bottom = (figure.add_subfigure(row) for row in grid)
    fit, contour = top.subplots(1, 2)
    by_hand = results.by_hand
    num_steps = int(by_hand.num_steps)
    plots.fitted_line(fit, by_hand.params, X, Y)
    fit.set_title(f"The fit after {num_steps:,} updates")
    names = (r"$\theta_0$ (bias)", r"$\theta_1$ (weight)")
    plots.surface_contour(contour, results.surface, axis_names=names, value_name="cost", log=True)
    points, _ = _on_the_cost(by_hand)
    (line,) = plots.descent_path(contour, points, color=plots.PATH_COLOURS[0], marker="", lw=2)
    line.set_label(f"{num_steps:,} updates")
    few = [step for step in (1, 2, 3, 4, 5, 10, 100, 300, 1000, 2000) if step < num_steps]
    plots.descent_path(contour, points[few], color=plots.PATH_COLOURS[0], ls="", mec="white", ms=6)
    panels.ends(contour, points, start="start", end="end")
    for step in (1, 300, 1000):
        if step < num_steps:
            contour.annotate(f"{step:,}", points[step], xytext=(7, 3), color="white",
                             textcoords="offset points", fontsize=9)  # fmt: skip
    contour.legend(loc="upper right", fontsize=8)
    across = int(np.sum(np.abs(np.diff(points[:, 1])) > 1e-3))
    contour.set_title(f"{across} steps across the valley, {num_steps - across:,} along it")

    middle_panels = _draw_middle(middle, results)
    rates = _draw_rates(bottom, results)
    panels.letters(fit, contour, *middle_panels, *rates)


def _draw_middle(figure: SubFigure, results: Results) -> list[Axes]:
    """The limit of the rate, and the descents on x² + sin² y and on x²."""
    bound, valley, curve = figure.subplots(1, 3)
    for lane, rate in enumerate(CRITICAL_RATES):
        run = jax.tree.map(lambda rows, lane=lane: rows[lane], results.critical)
        plots.loss_curve(bound, run, color=plots.COLOURS[lane], lw=2, label=f"rate {rate}")
    bound.set_yscale("log")
    bound.set_ylabel("cost")
    ends = (
        f"{rate} {'diverges' if status == descent.Status.DIVERGED else 'holds'}"
        for rate, status in zip(CRITICAL_RATES, results.critical.status, strict=True)
    )
    bound.set_title(", ".join(ends))
    bound.legend(fontsize=8, loc="center right")
    bowl = SWEEP(
        lambda x, y: x**2 + jnp.sin(y) ** 2,
        np.linspace(-3.2, 3.2, 65),
        np.linspace(-1.6, 1.6, 49),
    )
    plots.surface_contour(valley, bowl, axis_names=("x", "y"), value_name="J")
    way = np.stack(results.two_variables.path, axis=1)[: int(results.two_variables.num_steps) + 1]
    plots.descent_path(valley, way, color=plots.PATH_COLOURS[0], mec="white")
    panels.ends(valley, way)
    valley.set_title(f"x² + sin² y, {len(way) - 1} updates at 0.1")
    parabola = SWEEP(jnp.square, np.linspace(-1.3, 1.3, 101))
    plots.loss_line(curve, parabola, axis_name="x", value_name="y", color=plots.COLOURS[0])
    one = results.one_variable
    on_the_curve = np.stack([one.path, one.losses], axis=1)[: int(one.num_steps) + 1]
    _bounces(curve, on_the_curve)
    curve.set_title(f"y = x², {len(on_the_curve) - 1} updates at 0.3")
    return [bound, valley, curve]


def _draw_rates(figure: SubFigure, results: Results) -> list[Axes]:
    """One parabola under four rates."""
    line = SWEEP(lambda x: (x - 1) ** 2 + 0.1, np.linspace(-2.2, 4.2, 121))
    rates = figure.subplots(1, 4, sharey=True)
    for ax, rate in zip(rates, (1.1, 1.0, 0.8, 0.1), strict=True):
        lane = PICTURE_RATES.index(rate)
        plots.loss_line(ax, line, axis_name="x", value_name="", color=plots.COLOURS[0])
        last = int(results.rates.num_steps[lane])
        lane_path = np.stack([results.rates.path[lane], results.rates.losses[lane]], axis=1)
        _bounces(ax, lane_path[: last + 1])
        ax.set_xlim(-2.3, 4.3)
        ax.set_ylim(-0.3, 10.5)
        end = float(lane_path[last, 0])
        ax.set_title(f"rate {rate}: {last} updates, x = {end:.3g}", fontsize=10)
    rates[0].set_ylabel("J = (x - 1)² + 0.1")
    return list(rates)


def _bounces(ax: Axes, points: np.ndarray) -> None:
    """A descent on a curve: its start marked, and an arrow for each of its first updates."""
    plots.descent_path(ax, points, color=plots.COLOURS[1], ms=4, lw=1)
    for here, there in itertools.pairwise(points[:5]):
        arrow = {"arrowstyle": "-|>", "color": plots.COLOURS[1], "lw": 1.4, "shrinkB": 3}
        ax.annotate("", there, here, arrowprops=arrow, annotation_clip=True)
    ax.plot(*points[0], "s", color=panels.START, mec="black", ms=7, zorder=5)
    ax.annotate("start", points[0], xytext=(-8, -4), textcoords="offset points",
                ha="right", fontsize=9)  # fmt: skip


def playgrounds() -> dict[str, str]:
    """The 20 points, descended by hand, with a line through them."""

    def cost(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        neuron = neurons.Neuron(weights=jnp.stack([params["w"]]), bias=params["b"])
        return COST(neuron, x[:, None], y)

    page = plots.playground(
        cost, {"b": 0.0, "w": 0.0}, np.ravel(X), np.ravel(Y), learning_rate=CRITICAL_RATES[0],
        predict_fn=lambda params, x: params["w"] * x + params["b"], title="The 20 points",
    )  # fmt: skip
    low, high = CRITICAL_RATES
    return {f"By hand: type the rate {low}, then {high}": page}


def interactive(results: Results) -> dict[str, Any]:
    """The descent on the cost, to turn and to play; and the rates beside the limit."""
    words: Any = {"axis_names": ("θ₀ (bias)", "θ₁ (weight)"), "value_name": "cost"}
    descents = {f"rate {LEARNING_RATE:g}": _on_the_cost(results.by_hand)}
    lanes = {
        f"rate {rate:g}": _on_the_cost(jax.tree.map(lambda rows, i=i: rows[i], results.critical))
        for i, rate in enumerate(CRITICAL_RATES)
    }
    return {
        "The descent, step by step": plots.interactive_descent(
            results.surface, descents, log=True, **words
        ),
        "Just below and just above the limit of the learning rate": plots.interactive_descent(
            results.surface, lanes, log=True, num_frames=40, **words
        ),
        "The same cost, to turn": plots.interactive_surface(
            results.surface, descents, log=True, **words
        ),
    }


def _on_the_cost(run: descent.Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """A run's points (bias, weight) and its costs, up to its last step."""
    end = int(run.num_steps) + 1
    points = np.stack([run.path.bias, run.path.weights[:, 0]], axis=1)
    return points[:end], np.asarray(run.losses)[:end]


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on gradient descent."""
    by_hand = results.by_hand
    last = int(by_hand.num_steps)
    return {
        "G01": X.size,
        "G02": f"{X[0]:g}..{X[-1]:g}",
        "G03": Y,
        "G04": LEARNING_RATE,
        "G05": by_hand.losses[0],
        "G06": [results.gradient.bias, results.gradient.weights[0]],
        "G07": by_hand.params.bias,
        "G08": by_hand.params.weights[0],
        "G09": by_hand.losses[last],
        "G10": results.plot_points,
    }
