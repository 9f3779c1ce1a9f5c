"""For which x is sqrt(ln(x^2)) = 2.13, found by sending the error back through the chain?

Four people pass a value on: a = x^2, b = ln a, c = sqrt b; then the error c - y comes back,
divided by one local derivative at each. Expect the note's table, four updates from x = 2, and
that the whole is nothing but Newton's method: the same steps as x - (f(x) - y) / f'(x). From
x <= 1 there is no way: ln(x^2) is negative, its root no number.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell import playgrounds as playgrounds_
from experiments.shell.report import Expectation, Table
from jaxgd import chains, descent, plots, surfaces

FIGURE_SIZE = (11, 7.4)
STAGES = (jnp.square, jnp.log, jnp.sqrt)  # x -> a -> b -> c
START, TARGET = 2.0, 2.13
SECOND_START, SECOND_TARGET = 1.3, 1.8
DOMAIN = (1.0, 10.0)
TOLERANCE, MAX_STEPS = 1e-3, 20
BAD_STARTS = (1.0, 0.5, 0.0)


class Results(NamedTuple):
    """What was computed.

    Attributes:
      solution: from x = 2 to y = 2.13.
      corrections: the chain's values and deltas at each iterate, leading axis N + 1.
      traces: its values and adjoints there.
      slopes: f'(x) at each iterate, by ``jax.grad`` of the composed chain.
      newton_steps: (f(x) - y) / f'(x) at each iterate.
      analytic: the exact x, exp(y^2 / 2).
      largest: f(10), the largest value on the domain.
      second: the program's other demo, from 1.3 to 1.8.
      clamped: from 10 to 0.5, put back to 1.1 when a step leaves the domain.
      bad: the status from starts at and below 1.
      curve: f and its derivative over the domain.
    """

    solution: chains.Solution
    corrections: chains.Correction
    traces: chains.Trace
    slopes: jax.Array
    newton_steps: jax.Array
    analytic: jax.Array
    largest: jax.Array
    second: chains.Solution
    clamped: chains.Solution
    bad: jax.Array
    curve: surfaces.Surface


def compute(seed: int = 0) -> Results:
    """Computes the table, both demos, and the proof that it is Newton's method."""
    del seed  # nothing here is random
    return jax.device_get(jax.jit(_compute)())


def _compute() -> Results:
    f = chains.compose(*STAGES)
    slope = jax.grad(f)

    def solve(start: Any, target: float, project: Any = None) -> chains.Solution:
        return chains.solve(
            STAGES, start, target, tolerance=TOLERANCE, max_steps=MAX_STEPS, project=project
        )

    solution = solve(START, TARGET)
    slopes = jax.vmap(slope)(solution.path)
    return Results(
        solution=solution,
        corrections=jax.vmap(lambda x: chains.correct(STAGES, x, TARGET))(solution.path),
        traces=jax.vmap(lambda x: chains.backprop(STAGES, x))(solution.path),
        slopes=slopes,
        newton_steps=(jax.vmap(f)(solution.path) - TARGET) / slopes,
        analytic=jnp.exp(jnp.square(TARGET) / 2),
        largest=f(DOMAIN[1]),
        second=solve(SECOND_START, SECOND_TARGET),
        clamped=solve(10.0, 0.5, project=lambda x: jnp.where(x < 1, 1.1, x)),
        bad=jax.vmap(lambda x: solve(x, TARGET).status)(jnp.array(BAD_STARTS)),
        curve=surfaces.sweep(
            lambda x: {"function": f(x), "derivative": slope(x)}, jnp.linspace(1.2, 10.0, 200)
        ),
    )


def tables(results: Results) -> list[Table]:
    """The note's table column by column, the equality with Newton, the other runs."""
    steps = int(results.solution.num_steps)
    columns = [f"iteration {t + 1}" for t in range(steps + 1)]
    names = ("x", "a = x^2", "b = ln a", "c = sqrt b")
    rows = [
        (name, *(f"{v:.6f}" for v in values[: steps + 1]))
        for name, values in zip(names, results.corrections.primals, strict=True)
    ]
    deltas = ("delta c = c - y", "delta b", "delta a", "delta x")
    rows += [
        (name, *(f"{v:.6f}" for v in values[: steps + 1]))
        for name, values in zip(deltas, reversed(results.corrections.deltas), strict=True)
    ]
    # To the last bit the two differ by rounding; in exact arithmetic they are the same.
    newton = [
        (f"{t + 1}", f"{by_chain:.12f}", f"{by_grad:.12f}", f"{abs(by_chain - by_grad):.1e}")
        for t, (by_chain, by_grad) in enumerate(
            zip(results.corrections.deltas[0][:steps], results.newton_steps[:steps], strict=True)
        )
    ]

    def row(name: str, run: chains.Solution) -> tuple[str, ...]:
        n = int(run.num_steps)
        path = " ".join(f"{x:.6g}" for x in run.path[: n + 1])
        return name, path, f"{run.outputs[n]:.6f}", descent.status_name(run.status)

    others = [
        row("x = 2, y = 2.13", results.solution),
        row("x = 1.3, y = 1.8", results.second),
        row("x = 10, y = 0.5, put back to 1.1", results.clamped),
    ]
    others += [
        (f"x = {x:g}, y = 2.13", f"{x:g}", "", descent.status_name(status))
        for x, status in zip(BAD_STARTS, results.bad, strict=True)
    ]
    return [
        Table("The chain forwards and backwards, from x = 2 to y = 2.13", ("", *columns), rows),
        Table(
            "It is Newton's method: the chain's delta x and (f(x) - y) / f'(x)",
            ("iteration", "by the chain", "by jax.grad", "difference"),
            newton,
        ),
        Table("Every run", ("run", "iterates", "last c", "status"), others),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The chain's correction is Newton's step; there is no way from x <= 1."""
    steps = int(results.solution.num_steps)
    by_chain = np.asarray(results.corrections.deltas[0])[:steps]
    apart = np.abs(by_chain - np.asarray(results.newton_steps)[:steps]).max()
    lost = [descent.status_name(status) for status in np.ravel(results.bad)]
    return [
        Expectation("from x = 2 it takes four updates", f"{steps}", steps == 4),
        Expectation(
            "each is Newton's step, (f(x) - y) / f'(x)", f"to {apart:.0e}", bool(apart < 1e-5)
        ),
        Expectation("from x <= 1 there is no way", ", ".join(lost), set(lost) == {"NON_FINITE"}),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The curve with its iterates, the derivative, and the chain at its first iterate."""
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1.15))
    left, right, below = (figure.add_subplot(cell) for cell in (grid[0, 0], grid[0, 1], grid[1, :]))
    function = surfaces.select(results.curve, "function")
    plots.newton_path(left, function, results.solution, TARGET)
    plots.loss_line(
        left, surfaces.select(results.curve, "derivative"), axis_name="x",
        value_name="f(x)", color=plots.COLOURS[3], ls="--", label="derivative f'(x)",
    )  # fmt: skip
    solution = float(results.analytic)
    left.plot(solution, TARGET, "*", color=panels.END, mec="black", ms=14, ls="none", zorder=5,
              label=f"x* = exp(y²/2) = {solution:.4f}")  # fmt: skip
    left.legend(fontsize=8, loc="center right")
    left.set_title("f(x) = √(ln x²): each step follows the tangent")
    steps = int(results.solution.num_steps)
    errors = np.abs(np.asarray(results.solution.path)[: steps + 1] - solution)
    residual = abs(float(results.solution.residuals[steps]))
    plots.residual_curve(
        right, results.solution, marker="o", color=plots.COLOURS[1], label="|c − y|"
    )
    right.plot(errors, marker="s", color=plots.COLOURS[0], label="|x − x*|")
    right.axhline(TOLERANCE, color="0.5", ls=":")
    right.annotate(f"stop: |c − y| < {TOLERANCE:g}", (0, TOLERANCE), xytext=(2, 4),
                   textcoords="offset points", fontsize=8, color="0.3")  # fmt: skip
    right.set_ylabel("error")
    right.set_title(f"At the stop c is off by {residual:.5f}, x by {errors[-1]:.4f}")
    right.legend(fontsize=9)
    first = jax.tree.map(lambda rows: rows[0], results.corrections)
    x, a, _, c = (float(value) for value in first.primals)
    local = [f"÷ 2x = {2 * x:.4g}", f"÷ 1/a = {1 / a:.4g}", f"÷ 1/(2c) = {1 / (2 * c):.3g}"]
    plots.backprop_trace(
        below, first, names=("x", "a", "b", "c"), stage_names=("a = x²", "b = ln a", "c = √b"),
        derivatives=local,
    )  # fmt: skip
    below.set_title("Iteration 1: values forwards; the error back, divided by each derivative",
                    fontsize=11)  # fmt: skip
    panels.letters(left, right, below)


def playgrounds() -> dict[str, str]:
    """The people of the chain at work, and the same question to gradient descent."""
    f = chains.compose(*STAGES)
    people = playgrounds_.people(
        lambda x, target: chains.correct(STAGES, x, target),
        start=START, target=TARGET, tolerance=TOLERANCE, most=MAX_STEPS,
    )  # fmt: skip
    curve = plots.playground(
        lambda x: jnp.square(f(x) - TARGET) / 2, START, learning_rate=1.0, axis_names=("x",),
        domains=((1.02, 14.0),), title="(f(x) − 2.13)² / 2",
    )  # fmt: skip
    return {
        "By hand: type x and the target, and watch the table fill; try an x below 1": people,
        "By hand: gradient descent on the squared error, and Newton's parabola": curve,
    }


def interactive(results: Results) -> dict[str, Any]:
    """The chain at its first two iterates: values forwards, adjoints and deltas back."""
    figures = {}
    for t, ordinal in enumerate(("first", "second")):
        trace, correction = jax.tree.map(
            lambda rows, t=t: rows[t], (results.traces, results.corrections)
        )
        figures[f"The {ordinal} iteration, stage by stage"] = plots.interactive_backprop(
            trace, correction, names=("x", "a", "b", "c")
        )
    return figures


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on non-linear back-propagation."""
    solution, (x, a, b, c) = results.solution, results.corrections.primals
    dx, da, db, dc = results.corrections.deltas
    steps = int(solution.num_steps)
    found = {
        "NL01": DOMAIN[0],
        "NL02": DOMAIN[1],
        "NL03": results.largest,
        "NL04": START,
        "NL05": TARGET,
        "NL06": TOLERANCE,
        "NL07": results.analytic,
        "NL48": TARGET,
        "NL49": steps + 1,
        "NL50": jnp.abs(solution.residuals[steps]),
        "NL51": jnp.abs(solution.path[steps] - results.analytic),
    }
    table = [value for row in (x, a, b, c, dc, db, da, dx) for value in row[:5]]
    return found | {f"NL{8 + i:02}": value for i, value in enumerate(table)}
