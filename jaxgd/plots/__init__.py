"""How it is drawn: each function takes an Axes and a result, and returns what it drew.

What is turned or played (``interactive_...``, ``animate_...``) takes a result and returns a
figure of its own. Nothing here shows or saves a figure. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart, and cividis and viridis where colour is a number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import normalize_kwargs
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm, Normalize, to_rgba_array
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.axes3d import Axes3D

from jaxgd import _checks
from jaxgd.chains import Correction, Solution, Trace
from jaxgd.descent import Trajectory
from jaxgd.neurons import Neuron
from jaxgd.planes import Projection
from jaxgd.surfaces import Surface

if TYPE_CHECKING:
    import plotly.graph_objects as go

Run = Trajectory | tuple[Any, Any]
"""A descent over two coordinates: a Trajectory, or its points (T, 2) and its losses (T,).

Of a Trajectory, ``path`` must hold two numbers per point: an array (N + 1, 2), or a pytree of
two scalars, the first leaf to the right; ``record`` chooses them. It is drawn up to its last
step. In a pair, the losses are those of the run; on a projection those of the surface differ.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PATH_COLOURS = ("#FFFFFF", "#E69F00", "#CC79A7", "#56B4E9")
"""For paths over a surface drawn in viridis."""
_GREY = "0.35"


def neuron_diagram(
    ax: Axes,
    neuron: Neuron,
    x: Any,
    *,
    activation: Callable[[Any], Any],
    input_names: Sequence[str] = (),
) -> list[Artist]:
    """Draws the five parts of one neuron at work: inputs, weights, bias, sum, activation.

    Args:
      ax: where to draw; its axis lines are switched off.
      neuron: weights (m,), bias ().
      x: shape (m,), the input.
      activation: of the weighted sum.
      input_names: m words; ``x_1, x_2, ...`` where none are given.

    Returns:
      The circles.

    Raises:
      TypeError: if ``neuron`` is not a Neuron.
      ValueError: if it is a layer, or ``x`` does not fit its weights.
    """
    where = "plots.neuron_diagram"
    _checks.instance(where, "neuron", neuron, Neuron)
    weights, x = np.asarray(neuron.weights), np.asarray(x)
    _checks.that(
        where,
        weights.ndim == 1 and x.shape == weights.shape,
        "weights and x must have one shape (m,)",
        f"{weights.shape} and {x.shape}",
    )
    z = float(x @ weights + np.asarray(neuron.bias))
    names = input_names or [f"$x_{{{i + 1}}}$" for i in range(x.size)]
    heights = np.linspace(1, -1, x.size) if x.size > 1 else np.zeros(1)
    circles: list[Artist] = []

    def node(at: tuple[float, float], text: str, colour: str) -> None:
        circles.append(ax.add_patch(Circle(at, 0.27, facecolor="white", edgecolor=colour, lw=2)))
        ax.text(*at, text, ha="center", va="center", fontsize=11)

    def arrow(start: tuple[float, float], end: tuple[float, float], width: float = 1.5) -> None:
        style = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch(start, end, color=_GREY, lw=width, **style))

    widest = max(float(np.abs(weights).max()), 1e-12)
    for name, height, value, weight in zip(names, heights, x, weights, strict=True):
        node((0, height), f"{value:g}", COLOURS[0])
        ax.text(-0.38, height, name, ha="right", va="center", fontsize=11)
        arrow((0.27, height), (1.75, 0.12 * height), 1 + 3 * abs(float(weight)) / widest)
        text = ax.text(0.85, 0.55 * height, f"w = {weight:g}", ha="center", va="center")
        text.set(color=COLOURS[1], bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    ax.text(2.02, 0.72, f"bias\nb = {float(neuron.bias):g}", ha="center", color=COLOURS[1])
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
      ValueError: if the surface is not over one coordinate, or its values are no dict.
    """
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
      ValueError: if the surface is not over one coordinate, or its values are no dict.
    """
    lines = _curves(ax, "plots.loss_functions", surface)
    ax.axvline(0, color="0.8", lw=1, zorder=0)
    ax.set_xlabel("margin m (right where m > 0)")
    ax.set_ylabel("loss of one example")
    return lines


def _curves(ax: Axes, where: str, surface: Surface) -> list[Line2D]:
    _one_coordinate(where, surface)
    _checks.instance(where, "surface.values", surface.values, Mapping)
    lines = []
    dashes = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 3)))
    for i, (name, curve) in enumerate(surface.values.items()):
        look: Any = {"color": COLOURS[i % 7], "linestyle": dashes[i % 7], "label": name}
        lines += ax.plot(surface.coordinates[0], curve, lw=2, **look)
    ax.legend(fontsize=9)
    return lines


def backprop_trace(
    ax: Axes, result: Trace | Correction, *, names: Sequence[str] = ()
) -> list[Artist]:
    """Draws a chain: values flowing forwards above, adjoints (or deltas) backwards below.

    Args:
      ax: where to draw; its axis lines are switched off.
      result: of ``chains.backprop``, or of ``chains.correct``. Numbers are written out;
        of an array the shape and the largest absolute entry.
      names: L + 1 words; ``x_0, x_1, ...`` where none are given.

    Returns:
      The circles.

    Raises:
      TypeError: if ``result`` is neither a Trace nor a Correction.
    """
    _checks.instance("plots.backprop_trace", "result", result, (Trace, Correction))
    backwards, symbol = (
        (result.adjoints, "adjoint") if isinstance(result, Trace) else (result.deltas, "delta")
    )
    branches = (result.param_adjoints if isinstance(result, Trace) else None) or ()
    count = len(result.primals)
    names = names or [f"$x_{{{i}}}$" for i in range(count)]
    circles: list[Artist] = []
    arrow: Any = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
    for i in range(count):
        circle = Circle((2 * i, 0), 0.32, facecolor="white", edgecolor=COLOURS[0], lw=2)
        circles.append(ax.add_patch(circle))
        ax.text(2 * i, 0, names[i], ha="center", va="center", fontsize=12)
        ax.text(2 * i, 0.45, _figure_of(result.primals[i]), ha="center", color=COLOURS[0])
        ax.text(2 * i, -0.45, _figure_of(backwards[i]), ha="center", va="top", color=COLOURS[1])
        if i + 1 < count:
            forth = ((2 * i + 0.36, 0.1), (2 * i + 1.64, 0.1))
            back = ((2 * i + 1.64, -0.1), (2 * i + 0.36, -0.1))
            ax.add_patch(FancyArrowPatch(*forth, color=COLOURS[0], **arrow))
            ax.add_patch(FancyArrowPatch(*back, color=COLOURS[1], **arrow))
        if i < len(branches) and jax.tree.leaves(branches[i]):
            branch = ((2 * i + 1, -0.14), (2 * i + 1, -0.85))
            ax.add_patch(FancyArrowPatch(*branch, color=COLOURS[2], **arrow))
            text = _figure_of(branches[i])
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


def _figure_of(tree: Any) -> str:
    """A number, or the shape and the size of what is not one."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    if len(leaves) == 1 and leaves[0].ndim == 0:
        return f"{leaves[0]:.4g}"
    if all(leaf.ndim == 0 for leaf in leaves):
        return "\n".join(f"{leaf:.4g}" for leaf in leaves)
    shapes = ", ".join("×".join(map(str, leaf.shape)) or "1" for leaf in leaves)
    return f"{shapes}\nmax |.| {max(float(np.abs(leaf).max()) for leaf in leaves):.2g}"


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
      ValueError: if the surface is not over one coordinate, or x is no scalar.
    """
    where = "plots.newton_path"
    _one_coordinate(where, surface)
    x, y = np.asarray(solution.path), np.asarray(solution.outputs)
    _checks.that(where, x.ndim == 1, "solution must be of a scalar x", f"paths of {x.shape[1:]}")
    steps = int(solution.num_steps)
    curve = ax.plot(surface.coordinates[0], surface.values, color=COLOURS[0], lw=2, label="f(x)")
    ax.axhline(target, color=_GREY, ls=":", lw=1.2, label=f"target {target:g}")
    for t in range(steps):
        label = "tangent, followed to the target" if t == 0 else None
        ax.plot(x[t : t + 2], (y[t], target), color=COLOURS[2], lw=1.2, label=label)
        ax.plot((x[t + 1],) * 2, (target, y[t + 1]), color=COLOURS[2], lw=1, ls=":")
    marks = ax.plot(
        x[: steps + 1], y[: steps + 1], "x", color=COLOURS[1], ms=9, mew=2, label="iterates"
    )
    # The last iterates crowd at the solution: number those that stand apart.
    for t in range(steps + 1):
        if t == 0 or abs(x[t] - x[t - 1]) > 0.03 * np.ptp(np.asarray(surface.coordinates[0])):
            ax.annotate(
                str(t), (x[t], y[t]), xytext=(5, -13), textcoords="offset points", color=COLOURS[1]
            )
    ax.set_xlabel("x")
    ax.set_ylabel("f(x)")
    ax.legend(fontsize=9)
    return [*curve, *marks]


def residual_curve(ax: Axes, solution: Solution, **look: Any) -> list[Line2D]:
    """Draws ``|f(x) - target|`` against the step, on a logarithmic scale.

    Args:
      ax: where to draw.
      solution: of ``chains.solve``; drawn up to its last step.
      **look: passed on to ``ax.plot``.

    Returns:
      The line. A residual of exactly 0 has no place on the scale and ends it.
    """
    residuals = np.abs(np.asarray(solution.residuals)[: int(solution.num_steps) + 1])
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("|f(x) - target|")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax.plot(np.where(residuals > 0, residuals, np.nan), **look)


def fitted_line(ax: Axes, neuron: Neuron, x: Any, y: Any) -> list[Artist]:
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
      ValueError: if it has several inputs.
    """
    _checks.instance("plots.fitted_line", "neuron", neuron, Neuron)
    weights = np.asarray(neuron.weights)
    _checks.that(
        "plots.fitted_line", weights.shape == (1,), "weights must be (1,)", str(weights.shape)
    )
    x = np.asarray(x)
    ends = np.array([x.min(), x.max()]) + np.array([-0.04, 0.04]) * np.ptp(x)
    w, b = float(weights[0]), float(neuron.bias)
    points = ax.scatter(x, np.asarray(y), s=26, color=COLOURS[1], marker="s", label="data")
    sign = "+" if b >= 0 else "-"
    (line,) = ax.plot(
        ends, w * ends + b, color=COLOURS[0], lw=2, label=f"z = {w:.4f} x {sign} {abs(b):.4f}"
    )
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    ax.legend(fontsize=9)
    return [points, line]


def loss_curve(ax: Axes, trajectory: Trajectory, **look: Any) -> list[Line2D]:
    """Draws the loss against the step.

    Args:
      ax: where to draw.
      trajectory: of a descent; drawn up to its last step.
      **look: passed on to ``ax.plot``.

    Returns:
      The line.
    """
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    return ax.plot(np.asarray(trajectory.losses)[: int(trajectory.num_steps) + 1], **look)


def descent_path(ax: Axes, path: Any, **look: Any) -> list[Line2D]:
    """Draws a path over two coordinates: a line with a mark at each point.

    Args:
      ax: where to draw; the coordinates of a surface drawn before.
      path: shape (T, 2), the points in order.
      **look: passed on to ``ax.plot``, over the default look.

    Returns:
      The line.

    Raises:
      ValueError: if ``path`` is not of shape (T, 2).
    """
    path = np.asarray(path)
    wanted = "path must have the shape (T, 2)"
    _checks.that(
        "plots.descent_path", path.ndim == 2 and path.shape[1] == 2, wanted, f"{path.shape}"
    )
    default = {"marker": "o", "markersize": 4, "linewidth": 1.5}
    return ax.plot(path[:, 0], path[:, 1], **default | normalize_kwargs(look, Line2D))


def projected_paths(
    ax: Axes, projections: Mapping[str, Projection], losses: Mapping[str, Any]
) -> list[Line2D]:
    """Draws several descents on one plane, each fading where it is far from the plane.

    The label of each tells its true last loss, which is not that of the surface below it,
    and the largest share of its way that the plane does not show.

    Args:
      ax: where to draw, over a surface on the same plane.
      projections: by name, of ``planes.project_path`` on a plane with two directions.
      losses: by name, shape (T,): the true losses, as in ``Trajectory.losses``.

    Returns:
      One line per descent.

    Raises:
      ValueError: if the names differ, or a plane has not two directions.
    """
    where = "plots.projected_paths"
    got = f"{sorted(projections)} and {sorted(losses)}"
    same = set(projections) == set(losses)
    _checks.that(where, same, "projections and losses must have the same names", got)
    lines = []
    for i, (name, projection) in enumerate(projections.items()):
        path, hidden = np.asarray(projection.coordinates), np.asarray(projection.residuals)
        wanted = "coordinates must have the shape (T, 2)"
        _checks.that(where, path.ndim == 2 and path.shape[1] == 2, wanted, str(path.shape))
        colour = PATH_COLOURS[i % len(PATH_COLOURS)]
        loss = float(np.asarray(losses[name])[-1])
        label = f"{name}: loss {loss:.2g}, up to {hidden.max():.0%} off the plane"
        lines += ax.plot(*path.T, color=colour, lw=1.2, alpha=0.7, label=label)
        faded = to_rgba_array([colour] * len(path), alpha=np.clip(1 - hidden, 0.08, 1))
        ax.scatter(*path.T, s=14, color=faded, lw=0)
        ax.plot(*path[-1], "*", color=colour, ms=13, mec="black", mew=0.6)
    legend = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=9)
    legend.get_frame().set_facecolor("0.4")
    for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True):
        text.set_color("white")
        handle.set(linewidth=3, alpha=1)
    return lines


def loss_line(
    ax: Axes, surface: Surface, *, axis_name: str = "a", value_name: str = "loss", **look: Any
) -> list[Line2D]:
    """Draws a loss along a line.

    Args:
      ax: where to draw.
      surface: over one coordinate.
      axis_name: what the coordinate is.
      value_name: what the values are.
      **look: passed on to ``ax.plot``.

    Returns:
      The line.

    Raises:
      ValueError: if the surface is not over one coordinate.
    """
    _one_coordinate("plots.loss_line", surface)
    ax.set_xlabel(axis_name)
    ax.set_ylabel(value_name)
    return ax.plot(surface.coordinates[0], surface.values, **look)


def surface_contour(
    ax: Axes,
    surface: Surface,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_levels: int = 20,
) -> QuadContourSet:
    """Draws a surface as filled contours, the first coordinate to the right, with a colour bar.

    Args:
      ax: where to draw.
      surface: over two coordinates.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the levels grow in equal ratios; values that are not positive stay blank.
      num_levels: how many.

    Returns:
      The contours.

    Raises:
      ValueError: if the surface is not over two coordinates, or with ``log`` no value is positive.
    """
    where = "plots.surface_contour"
    x, y, values = _two_coordinates(where, surface)
    norm, levels = _levels(where, values, log, num_levels)
    contours = ax.contourf(x, y, values.T, levels=levels, norm=norm, cmap="viridis")
    ax.contour(x, y, values.T, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(contours, ax=ax, label=value_name, format="%.3g")
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    return contours


def level_sets(
    ax: Axes,
    surface: Surface,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    num_levels: int = 12,
) -> PathCollection:
    """Draws a surface as dots: points of nearly equal value share a colour, the rest is left out.

    Args:
      ax: where to draw.
      surface: over two coordinates, with positive values.
      axis_names: what the coordinates are.
      num_levels: how many values, in equal ratios.

    Returns:
      The dots.

    Raises:
      ValueError: if the surface is not over two coordinates, or no value is positive.
    """
    where = "plots.level_sets"
    x, y, values = _two_coordinates(where, surface)
    norm, levels = _levels(where, values, True, num_levels)
    distance = np.abs(np.log(values[..., None] / levels))
    i, j = np.nonzero(distance.min(axis=-1) < 0.02)
    shown = levels[distance[i, j].argmin(axis=-1)]
    dots = ax.scatter(x[i], y[j], c=shown, s=4, norm=norm, cmap="viridis")
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    return dots


def surface_3d(
    ax: Axes3D,
    surface: Surface,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
) -> Artist:
    """Draws a surface in three dimensions.

    Args:
      ax: axes made with ``projection="3d"``.
      surface: over two coordinates.
      axis_names: what the coordinates are.
      value_name: what the values are.

    Returns:
      The surface.

    Raises:
      TypeError: if ``ax`` has no third dimension.
      ValueError: if the surface is not over two coordinates.
    """
    where = "plots.surface_3d"
    cure = 'Make them with projection="3d".'
    _checks.instance(where, "ax", ax, Axes3D, cure)
    x, y, values = _two_coordinates(where, surface)
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    drawn = ax.plot_surface(grid_x, grid_y, values, cmap="viridis", rcount=60, ccount=60)
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    ax.set_zlabel(value_name)
    return drawn


def interactive_surface(
    surface: Surface,
    paths: Mapping[str, Run] | Sequence[Run] | None = None,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
) -> "go.Figure":
    """Draws a surface to turn in three dimensions, or to see as contours of the same values.

    Buttons switch between the two, and between a linear and a logarithmic scale, which leaves
    out what is not above 0 and says so. Hovering tells both coordinates and the value. A value
    that is not finite is a hole. A path may leave the surface: the picture widens by up to a
    quarter on each side, and tells how many points lie off the surface.

    Args:
      surface: over two coordinates.
      paths: by name, descents drawn at the height of their own losses; see ``Run``.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the logarithmic scale is shown first.

    Returns:
      A Plotly figure: the last line of a notebook cell shows it, ``write_html`` saves it.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``surface`` is not a Surface, or ``paths`` are not runs.
      ValueError: if the surface is not over two coordinates, no value is finite (with ``log``,
        positive), or a path is not of two numbers per point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import plots, surfaces
      >>> axis = jnp.linspace(-1.0, 1.0, 21)
      >>> bowl = surfaces.sweep(lambda a, b: a**2 + 3 * b**2, axis, axis)
      >>> figure = plots.interactive_surface(bowl)
      >>> [button.label for button in figure.layout.updatemenus[0].buttons]
      ['3-D', '3-D, log', 'contour', 'contour, log']
    """
    where = "plots.interactive_surface"
    x, y, values = _two_coordinates(where, surface)
    _drawable(where, values, log)
    runs = _runs(where, "paths", {} if paths is None else paths)
    return _plotly(where).surface(
        x, y, values, runs, axis_names=axis_names, value_name=value_name, log=log
    )


def interactive_descent(
    surface: Surface,
    descents: Mapping[str, Run] | Sequence[Run],
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_frames: int = 120,
) -> "go.Figure":
    """Draws descents over contours, to be played step by step, their losses moving along.

    Args:
      surface: over two coordinates.
      descents: by name, what moves; see ``Run``. One that ends early stays at its end.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the contours grow in equal ratios.
      num_frames: how many steps are shown at most, at least 2. Of a longer run they are chosen
        in equal ratios, so closer together at the start; the figure names them.

    Returns:
      A Plotly figure with one frame per step shown, a slider, and buttons to play and pause.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``surface`` is not a Surface, ``descents`` are not runs, or ``num_frames``
        is no int.
      ValueError: if the surface is not over two coordinates, no value is finite (with ``log``,
        positive), there are no descents, one is not of two numbers per point, or
        ``num_frames`` is below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import descent, plots, surfaces
      >>> cost = lambda p: p[0] ** 2 + 3 * p[1] ** 2
      >>> axis = jnp.linspace(-1.0, 1.0, 21)
      >>> bowl = surfaces.sweep(lambda a, b: cost((a, b)), axis, axis)
      >>> run = descent.gradient_descent(cost, (1.0, -0.5), learning_rate=0.1, num_steps=9)
      >>> len(plots.interactive_descent(bowl, {"rate 0.1": run}).frames)
      10
    """
    where = "plots.interactive_descent"
    x, y, values = _two_coordinates(where, surface)
    _drawable(where, values, log)
    runs = _runs(where, "descents", descents)
    steps = _shown_steps(where, runs, num_frames)
    return _plotly(where).descent(
        x, y, values, runs, steps, axis_names=axis_names, value_name=value_name, log=log
    )


def interactive_backprop(
    trace: Trace, correction: Correction | None = None, *, names: Sequence[str] = ()
) -> "go.Figure":
    """Draws a chain to be played: values appear from left to right, then adjoints flow back.

    Args:
      trace: of ``chains.backprop``. Numbers are written out; of an array the shape and the
        largest absolute entry.
      correction: of ``chains.correct`` on the same chain; its deltas flow back last.
      names: L + 1 words; ``x0, x1, ...`` where none are given.

    Returns:
      A Plotly figure with one frame per value and pass, a slider, and buttons.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``trace`` is not a Trace, or ``correction`` not a Correction.
      ValueError: if ``names`` or ``correction`` do not have one entry per value.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import chains, plots
      >>> trace = chains.backprop([jnp.square, jnp.log], 2.0)
      >>> [frame.name for frame in plots.interactive_backprop(trace, names="xab").frames]
      ['value of x', 'value of a', 'value of b', 'adjoint of b', 'adjoint of a', 'adjoint of x']
    """
    where = "plots.interactive_backprop"
    _checks.instance(where, "trace", trace, Trace)
    count = len(trace.primals)
    names = list(names) or [f"x{i}" for i in range(count)]
    _checks.length(where, "names", names, count, "one per value")
    parts = {"value": trace.primals, "adjoint": trace.adjoints}
    says = {
        "value": "Forwards: {name} = {value}",
        "adjoint": f"Backwards: d {names[-1]} / d {{name}} = {{value}}",
    }
    if correction is not None:
        _checks.instance(where, "correction", correction, Correction)
        _checks.length(where, "correction.deltas", correction.deltas, count, "one per value")
        parts["delta"] = correction.deltas
        says["delta"] = "The error back: {name} is off by {value}"
    rows = {
        heading: [_figure_of(value).replace("\n", "<br>") for value in row]
        for heading, row in parts.items()
    }
    return _plotly(where).chain(names, rows, says)


def animate_descent(
    surface: Surface,
    trajectories: Mapping[str, Run] | Sequence[Run],
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_frames: int = 120,
    figure_size: tuple[float, float] = (9, 4),
) -> FuncAnimation:
    """Films descents over contours, beside their losses.

    Args:
      surface: over two coordinates.
      trajectories: by name, what moves; see ``Run``. One that ends early stays at its end.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the contours grow in equal ratios.
      num_frames: how many steps are shown at most, as in ``interactive_descent``.
      figure_size: width and height, in inches.

    Returns:
      An animation on a figure of its own. ``animation.save("x.gif", writer="pillow", dpi=80)``
      writes a GIF; ``save("x.mp4", writer="ffmpeg")`` a film, where FFmpeg is installed.

    Raises:
      TypeError: if ``surface`` is not a Surface, ``trajectories`` are not runs, or
        ``num_frames`` is no int.
      ValueError: if the surface is not over two coordinates, no value is finite (with ``log``,
        positive), there are no trajectories, one is not of two numbers per point, or
        ``num_frames`` is below 2.
    """
    where = "plots.animate_descent"
    x, y, _ = _two_coordinates(where, surface)
    runs = _runs(where, "trajectories", trajectories)
    steps = _shown_steps(where, runs, num_frames)
    figure = Figure(figsize=figure_size, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    words: Any = {"axis_names": axis_names, "value_name": value_name}
    surface_contour(left, surface, log=log, **words)
    left.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    right.set(xlabel="step", ylabel=value_name, facecolor="0.4")
    moving = []
    for i, (name, (points, losses)) in enumerate(runs.items()):
        look: Any = {"color": PATH_COLOURS[i % len(PATH_COLOURS)], "label": name}
        right.plot(losses, alpha=0, label="_")  # sets the limits
        moving.append(
            (
                descent_path(left, points[:1], markersize=2.5, lw=1.6, **look),
                left.plot(*points[0], "o", ms=9, mec="black", color=look["color"]),
                right.plot(losses[:1], lw=2.2, **look),
                right.plot(0, losses[0], "o", ms=7, mec="black", color=look["color"]),
            )
        )
    positive = all((losses[np.isfinite(losses)] > 0).all() for _, losses in runs.values())
    right.set_yscale("log" if positive else "linear")
    right.legend(facecolor="0.4", labelcolor="white")

    def show(k: int) -> list[Artist]:
        for (path, head, curve, tip), (points, losses) in zip(moving, runs.values(), strict=True):
            taken = np.minimum(steps[: k + 1], len(losses) - 1)
            path[0].set_data(*points[taken].T)
            head[0].set_data(*points[taken[-1:]].T)
            curve[0].set_data(taken, losses[taken])
            tip[0].set_data(taken[-1:], losses[taken[-1:]])
        right.set_title(f"step {steps[k]:,} of {steps[-1]:,}")
        return [line for lines in moving for (line,) in lines]

    # No first drawing is asked for: an animation nobody saves is then dropped without a warning.
    return FuncAnimation(figure, show, frames=len(steps), interval=60, blit=False)


def _plotly(where: str) -> Any:
    """What builds the interactive figures; Plotly is imported when it is first needed."""
    _checks.extra(where, "plotly", "interactive")
    from jaxgd.plots import _interactive  # noqa: PLC0415

    return _interactive


def _drawable(where: str, values: np.ndarray, log: bool) -> None:
    usable = np.isfinite(values) & ((values > 0) | (not log))
    wanted = "surface must have positive values on a log scale" if log else "values must be finite"
    _checks.that(where, bool(usable.any()), wanted, "none")


def _runs(where: str, name: str, runs: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each run as its points (T, 2) and its losses (T,), up to the last step taken."""
    single = isinstance(runs, Trajectory)
    cure = f'Write {{"descent": {name}}}.' if single else ""
    _checks.instance(where, name, None if single else runs, (Mapping, list, tuple), cure)
    if not isinstance(runs, Mapping):
        runs = {f"run {i}": run for i, run in enumerate(runs, start=1)}
    return {str(key): _run(where, f"{name}[{key!r}]", run) for key, run in runs.items()}


def _run(where: str, name: str, run: Any) -> tuple[np.ndarray, np.ndarray]:
    _checks.instance(where, name, run, tuple)
    if not isinstance(run, Trajectory):
        wanted = f"{name} must be a pair of points and losses"
        _checks.that(where, len(run) == 2, wanted, f"a tuple of {len(run)}")
        points, losses = (np.asarray(part, float) for part in run)
    else:
        losses = np.asarray(run.losses, float)
        cure = "Pick one lane: jax.tree.map(lambda rows: rows[0], trajectory)."
        _checks.that(
            where,
            losses.ndim == 1,
            f"{name} must be one run",
            f"losses of shape {losses.shape}",
            cure,
        )
        leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(run.path)]
        flat = [leaf.reshape(len(losses), -1) for leaf in leaves]
        points = np.concatenate(flat, axis=1) if flat else np.zeros((len(losses), 0))
        end = int(run.num_steps) + 1
        points, losses = points[:end], losses[:end]
    cure = "Keep two with record, or project: planes.project_path." if points.ndim == 2 else ""
    _checks.that(
        where,
        points.ndim == 2 and points.shape[1] == 2,
        f"{name} must have two numbers per point, shape (T, 2)",
        str(points.shape),
        cure,
    )
    got = f"{losses.shape} for {len(points)} points"
    fits = losses.shape == (len(points),) and len(points) > 0
    _checks.that(where, fits, f"{name} must have one loss per point", got)
    return points, losses


def _shown_steps(where: str, runs: Mapping[str, Any], num_frames: int) -> np.ndarray:
    """All steps, or at most so many, in equal ratios: the first and the last among them."""
    num_frames = _checks.count(where, "num_frames", num_frames, least=2)
    _checks.that(where, bool(runs), "there must be a descent", "none")
    longest = max(len(losses) for _, losses in runs.values())
    if longest <= num_frames:
        return np.arange(longest)
    return np.unique(np.geomspace(1, longest, num_frames).round().astype(int)) - 1


def _one_coordinate(where: str, surface: Surface) -> None:
    _checks.instance(where, "surface", surface, Surface)
    got = str(len(surface.coordinates))
    _checks.that(where, len(surface.coordinates) == 1, "surface must have one coordinate", got)


def _two_coordinates(where: str, surface: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _checks.instance(where, "surface", surface, Surface)
    got = str(len(surface.coordinates))
    _checks.that(where, len(surface.coordinates) == 2, "surface must have two coordinates", got)
    cure = "Pick one: surfaces.select(surface, name)."
    single = hasattr(surface.values, "shape")
    got = f"a {type(surface.values).__name__}"
    _checks.that(where, single, "surface must have one array of values", got, cure)
    x, y = (np.asarray(axis, float) for axis in surface.coordinates)
    return x, y, np.asarray(surface.values, float)


def _levels(
    where: str, values: np.ndarray, log: bool, num_levels: int
) -> tuple[Normalize, np.ndarray]:
    shown = values[np.isfinite(values) & ((values > 0) | (not log))]
    wanted = "surface must have positive values on a log scale" if log else "values must be finite"
    _checks.that(where, shown.size > 0, wanted, "none")
    low, high = shown.min(), shown.max()
    if low == high:
        high = low + max(abs(low), 1) * 1e-6
    if log:
        return LogNorm(low, high), np.geomspace(low, high, num_levels)
    levels = np.asarray(MaxNLocator(num_levels).tick_values(low, high))
    return Normalize(low, high), levels
