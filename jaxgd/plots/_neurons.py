"""One neuron: its parts, the functions it is made of, the line it draws through data."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch

from jaxgd import _checks
from jaxgd.neurons import Neuron
from jaxgd.plots import _inputs
from jaxgd.plots._style import COLOURS, DASHES, GREY, pick
from jaxgd.surfaces import Surface
from jaxgd.types import PyTree


def neuron_diagram(
    ax: Axes,
    neuron: Neuron,
    x: PyTree,
    *,
    activation: Callable[[PyTree], PyTree],
    input_names: Sequence[str] = (),
) -> list[Artist]:
    """Draws the five parts of one neuron at work: inputs, weights, bias, sum, activation.

    Args:
      ax: where to draw; its axis lines are switched off.
      neuron: weights (m,), bias ().
      x: shape (m,), the input.
      activation: the activation function, applied to the weighted sum.
      input_names: m words; ``x_1, x_2, ...`` where none are given.

    Returns:
      The circles.

    Raises:
      TypeError: if ``neuron`` is not a Neuron, or ``activation`` cannot be called.
      ValueError: if it is a layer, ``x`` does not fit its weights, or ``input_names`` are not m.
    """
    where = "plots.neuron_diagram"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "neuron", neuron, Neuron)
    _checks.function(where, "activation", activation)
    weights, bias = _inputs.numbers(where, "weights", neuron.weights), _bias(where, neuron)
    x = _inputs.numbers(where, "x", x)
    _checks.that(
        where,
        weights.ndim == 1 and x.shape == weights.shape,
        "weights and x must have one shape (m,)",
        f"{weights.shape} and {x.shape}",
    )
    z = float(x @ weights + bias)
    names = input_names or [f"$x_{{{i + 1}}}$" for i in range(x.size)]
    _inputs.some_names(where, "input_names", names, x.size, "one per input")
    heights = np.linspace(1, -1, x.size) if x.size > 1 else np.zeros(1)
    circles: list[Artist] = []

    def node(at: tuple[float, float], text: str, colour: str) -> None:
        circles.append(ax.add_patch(Circle(at, 0.27, facecolor="white", edgecolor=colour, lw=2)))
        size = 11 if len(text) <= 3 else 40 / len(text)  # a long number keeps off its circle
        ax.text(*at, text, ha="center", va="center", fontsize=size)

    def arrow(start: tuple[float, float], end: tuple[float, float], width: float = 1.5) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch(start, end, color=GREY, lw=width, **style))

    widest = max(float(np.abs(weights).max()), 1e-12)
    for name, height, value, weight in zip(names, heights, x, weights, strict=True):
        node((0, height), f"{value:g}", COLOURS[0])
        ax.text(-0.38, height, name, ha="right", va="center", fontsize=11)
        arrow((0.27, height), (1.75, 0.12 * height), 1 + 3 * abs(float(weight)) / widest)
        text = ax.text(0.85, 0.55 * height, f"w = {weight:g}", ha="center", va="center")
        text.set(color=COLOURS[1], bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    ax.text(2.02, 0.72, f"bias\nb = {bias:g}", ha="center", color=COLOURS[1])
    arrow((2.02, 0.66), (2.02, 0.28))
    node((2.02, 0), f"{z:.3g}", COLOURS[2])
    arrow((2.29, 0), (3.2, 0))
    ax.text(2.02, -0.34, "sum\nz = x · w + b", ha="center", va="top")
    node((3.47, 0), f"{float(activation(z)):.3g}", COLOURS[3])
    name = getattr(activation, "__name__", "activation")
    ax.text(3.47, -0.34, f"activation\na = {name}(z)", ha="center", va="top")
    ax.set_xlim(-1.5, 4.1)
    ax.set_ylim(-1.4, 1.4)
    ax.set_aspect("equal")
    ax.axis("off")
    return circles


def activation_curves(ax: Axes, surface: Surface) -> list[Line2D]:
    """Draws activations against the weighted sum.

    Args:
      ax: where to draw.
      surface: over one coordinate z; its values are a dict from a name to a curve, as swept
        from ``lambda z: {"tanh": jnp.tanh(z), ...}``.

    Returns:
      One line per activation.

    Raises:
      TypeError: if ``surface`` is not a Surface, or its values are no dict.
      ValueError: if the surface is not over one coordinate that increases or decreases, or no
        value of a curve is finite.
    """
    _inputs.flat_axes("plots.activation_curves", ax)
    lines = _curves(ax, "plots.activation_curves", surface)
    ax.set_xlabel("weighted sum z")
    ax.set_ylabel("activation a(z)")
    return lines


def loss_functions(ax: Axes, surface: Surface) -> list[Line2D]:
    """Draws margin losses against the margin.

    Args:
      ax: where to draw.
      surface: over one coordinate, the margin; its values are a dict from a name to a curve.

    Returns:
      One line per loss.

    Raises:
      TypeError: if ``surface`` is not a Surface, or its values are no dict.
      ValueError: if the surface is not over one coordinate that increases or decreases, or no
        value of a curve is finite.
    """
    _inputs.flat_axes("plots.loss_functions", ax)
    lines = _curves(ax, "plots.loss_functions", surface)
    ax.axvline(0, color="0.8", lw=1, zorder=0)
    ax.set_xlabel("margin m (right where m > 0)")
    ax.set_ylabel("loss of one example")
    return lines


def _bias(where: str, neuron: Neuron) -> float:
    bias = _inputs.numbers(where, "bias", neuron.bias)
    _checks.that(where, bias.shape == (), "bias must be one number", f"shape {bias.shape}")
    return float(bias)


def _curves(ax: Axes, where: str, surface: Surface) -> list[Line2D]:
    z, curves = _inputs.curves(where, surface)
    lines = []
    for i, (name, curve) in enumerate(curves.items()):
        line_kwargs: Any = {"color": pick(COLOURS, i), "linestyle": pick(DASHES, i), "label": name}
        lines += ax.plot(z, curve, lw=2, **line_kwargs)
    ax.legend(fontsize=9)
    return lines


def fitted_line(ax: Axes, neuron: Neuron, x: PyTree, y: Any) -> list[Artist]:
    """Draws data and the line ``z = w x + b`` of a neuron with one input.

    Args:
      ax: where to draw.
      neuron: weights (1,), bias ().
      x: shape (N,), the inputs.
      y: shape (N,), the targets.

    Returns:
      The points and the line.

    Raises:
      TypeError: if ``neuron`` is not a Neuron.
      ValueError: if it has several inputs, or ``x`` and ``y`` are not of one shape (N,).
    """
    where = "plots.fitted_line"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "neuron", neuron, Neuron)
    weights, b = _inputs.numbers(where, "weights", neuron.weights), _bias(where, neuron)
    _checks.that(where, weights.shape == (1,), "weights must be (1,)", str(weights.shape))
    w = float(weights[0])
    x, y = _inputs.numbers(where, "x", x), _inputs.numbers(where, "y", y)
    fits = x.ndim == 1 and x.shape == y.shape and x.size > 0
    cure = "Write x[:, 0]." if x.shape == (*y.shape, 1) else ""
    wanted = "x and y must have one shape (N,)"
    _checks.that(where, fits, wanted, f"{x.shape} and {y.shape}", cure)
    ends = np.array([x.min(), x.max()]) + np.array([-0.04, 0.04]) * np.ptp(x)
    points = ax.scatter(x, y, s=26, color=COLOURS[1], marker="s", label="data")
    sign = "+" if b >= 0 else "-"
    (line,) = ax.plot(
        ends, w * ends + b, color=COLOURS[0], lw=2, label=f"z = {w:.4f} x {sign} {abs(b):.4f}"
    )
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    ax.legend(fontsize=9)
    return [points, line]
