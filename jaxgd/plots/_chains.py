"""Chains: the values and the errors that flow along them, and Newton's way to a target."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.ticker import MaxNLocator

from jaxgd import _checks
from jaxgd.chains import Correction, Solution, Trace
from jaxgd.plots import _inputs, _words
from jaxgd.plots._style import COLOURS, GREY
from jaxgd.surfaces import Surface


def backprop_trace(
    ax: Axes,
    result: Trace | Correction,
    *,
    names: Sequence[str] = (),
    stage_names: Sequence[str] = (),
    derivatives: Sequence[str] = (),
) -> list[Artist]:
    """Draws a chain: values flowing forwards above, adjoints (or deltas) backwards below.

    Args:
      ax: where to draw; its axis lines are switched off.
      result: of ``chains.backprop``, or of ``chains.correct``. Numbers are written out;
        of an array the shape and the largest absolute entry.
      names: L + 1 words; ``x_0, x_1, ...`` where none are given.
      stage_names: L words, written over the arrows forwards: what each stage computes.
      derivatives: L words, written under the arrows back: the local derivatives.

    Returns:
      The circles.

    Raises:
      TypeError: if ``result`` is neither a Trace nor a Correction.
      ValueError: if there are not as many words as said.
    """
    where = "plots.backprop_trace"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "result", result, (Trace, Correction))
    backwards, symbol = (
        (result.adjoints, "adjoint") if isinstance(result, Trace) else (result.deltas, "delta")
    )
    branches = (result.param_adjoints if isinstance(result, Trace) else None) or ()
    count = len(result.primals)
    names = names or [f"$x_{{{i}}}$" for i in range(count)]
    _inputs.some_names(where, "names", names, count, "one per value")
    stage_names, derivatives = stage_names or [""] * (count - 1), derivatives or [""] * (count - 1)
    _inputs.some_names(where, "stage_names", stage_names, count - 1, "one per stage")
    _checks.length(where, "derivatives", derivatives, count - 1, "one per stage")
    circles: list[Artist] = []
    arrow: Any = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
    for i in range(count):
        circle = Circle((2 * i, 0), 0.32, facecolor="white", edgecolor=COLOURS[0], lw=2)
        circles.append(ax.add_patch(circle))
        ax.text(2 * i, 0, names[i], ha="center", va="center", fontsize=12)
        ax.text(2 * i, 0.45, _words.entry(result.primals[i]), ha="center", color=COLOURS[0])
        ax.text(2 * i, -0.45, _words.entry(backwards[i]), ha="center", va="top", color=COLOURS[1])
        if i + 1 < count:
            forth = ((2 * i + 0.36, 0.1), (2 * i + 1.64, 0.1))
            back = ((2 * i + 1.64, -0.1), (2 * i + 0.36, -0.1))
            for words, height, va, colour in (
                (stage_names[i], 0.17, "bottom", COLOURS[0]),
                (derivatives[i], -0.17, "top", COLOURS[1]),
            ):
                size = (
                    10 if len(words) <= 14 else 140 / len(words)
                )  # long words keep off the circles
                place = (2 * i + 1, height)
                ax.text(*place, words, ha="center", va=va, color=colour, fontsize=size)
            ax.add_patch(FancyArrowPatch(*forth, color=COLOURS[0], **arrow))
            ax.add_patch(FancyArrowPatch(*back, color=COLOURS[1], **arrow))
        if i < len(branches) and jax.tree.leaves(branches[i]):
            branch = ((2 * i + 1, -0.14), (2 * i + 1, -0.85))
            ax.add_patch(FancyArrowPatch(*branch, color=COLOURS[2], **arrow))
            text = _words.entry(branches[i])
            ax.text(2 * i + 1, -0.95, text, ha="center", va="top", color=COLOURS[2])
    ax.text(-0.6, 0.45, "value", ha="right", color=COLOURS[0])
    ax.text(-0.6, -0.45, symbol, ha="right", va="top", color=COLOURS[1])
    if branches:
        ax.text(-0.6, -0.95, "params", ha="right", va="top", color=COLOURS[2])
    ax.set_xlim(-1.7, 2 * count - 1.2)
    ax.set_ylim(-1.6 if branches else -1, 0.9)
    ax.set_aspect("equal")
    ax.axis("off")
    return circles


def newton_path(ax: Axes, surface: Surface, solution: Solution, target: float) -> list[Line2D]:
    """Draws a curve, the iterates of a solve on it, and the tangent followed by each step.

    Args:
      ax: where to draw.
      surface: the curve f(x), over one coordinate.
      solution: of ``chains.solve`` with a scalar x.
      target: the wanted f(x).

    Returns:
      The curve and the markers of the iterates.

    Raises:
      TypeError: if ``surface`` is not a Surface, or ``solution`` not a Solution.
      ValueError: if the surface cannot be drawn over one coordinate, x is no scalar, or the
        solution is of several runs.
    """
    where = "plots.newton_path"
    _inputs.flat_axes(where, ax)
    grid = _inputs.grid(where, surface, 1)
    num_steps = _one_solve(where, solution)
    x = _inputs.numbers(where, "solution.path", solution.path)
    y = _inputs.numbers(where, "solution.outputs", solution.outputs)
    _checks.that(where, x.ndim == 1, "solution must be of a scalar x", f"paths of {x.shape[1:]}")
    target = float(_checks.scalar(where, "target", target))
    curve = ax.plot(grid.axes[0], grid.values, color=COLOURS[0], lw=2, label="f(x)")
    ax.axhline(target, color=GREY, ls=":", lw=1.2, label=f"target {target:g}")
    for t in range(num_steps):
        label = "tangent, followed to the target" if t == 0 else None
        ax.plot(x[t : t + 2], (y[t], target), color=COLOURS[2], lw=1.2, label=label)
        ax.plot((x[t + 1],) * 2, (target, y[t + 1]), color=COLOURS[2], lw=1, ls=":")
    marks = ax.plot(
        x[: num_steps + 1], y[: num_steps + 1], "x", color=COLOURS[1], ms=9, mew=2, label="iterates"
    )
    # The last iterates crowd at the solution: number those that stand apart.
    for t in range(num_steps + 1):
        if t == 0 or abs(x[t] - x[t - 1]) > 0.03 * np.ptp(grid.axes[0]):
            ax.annotate(
                str(t), (x[t], y[t]), xytext=(5, -13), textcoords="offset points", color=COLOURS[1]
            )
    ax.set_xlabel("x")
    ax.set_ylabel("f(x)")
    ax.legend(fontsize=9)
    return [*curve, *marks]


def residual_curve(ax: Axes, solution: Solution, **line_kwargs: Any) -> list[Line2D]:
    """Draws ``|f(x) - target|`` against the step, on a logarithmic scale.

    Args:
      ax: where to draw.
      solution: of ``chains.solve``; drawn up to its last step.
      **line_kwargs: passed on to ``ax.plot``.

    Returns:
      The line. A residual of exactly 0 has no place on the scale and ends it.

    Raises:
      TypeError: if ``solution`` is not a Solution.
      ValueError: if it is of several runs, or its residuals are not real numbers.
    """
    where = "plots.residual_curve"
    _inputs.flat_axes(where, ax)
    num_steps = _one_solve(where, solution)
    residuals = np.abs(_inputs.numbers(where, "solution.residuals", solution.residuals))
    residuals = residuals[: num_steps + 1]
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("|f(x) - target|")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax.plot(np.where(residuals > 0, residuals, np.nan), **line_kwargs)


def _one_solve(where: str, solution: Solution) -> int:
    """The number of steps of a single solve."""
    _checks.instance(where, "solution", solution, Solution)
    shape = np.shape(solution.num_steps)
    cure = _inputs.PICK_A_LANE.format("solution")
    _checks.that(where, shape == (), "solution must be one run", f"runs of shape {shape}", cure)
    return int(solution.num_steps)
