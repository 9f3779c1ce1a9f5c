"""Surfaces: along a line, as contours, as cells, as dots, and in three dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator
from mpl_toolkits.mplot3d.axes3d import Axes3D

from jaxgd import _checks
from jaxgd.plots import _inputs, _words
from jaxgd.plots._style import Aspect
from jaxgd.surfaces import Approximation, Surface


def loss_line(
    ax: Axes,
    surface: Surface | Approximation,
    *,
    axis_name: str = "a",
    value_name: str = "loss",
    resolution: int = 201,
    **line_kwargs: Any,
) -> list[Line2D]:
    """Draws a loss along a line.

    Args:
      ax: where to draw.
      surface: a Surface or an Approximation, over one coordinate. Where its points grow in
        equal ratios, the axis is logarithmic.
      axis_name: what the coordinate is.
      value_name: what the values are.
      resolution: how many points per axis an Approximation is drawn at; at least 2.
      **line_kwargs: passed on to ``ax.plot``.

    Returns:
      The line.

    Raises:
      TypeError: if ``surface`` is neither a Surface nor an Approximation.
      ValueError: if the surface is not over one coordinate that increases or decreases, its
        values are not one array of real numbers, or none of them is finite.
    """
    _inputs.flat_axes("plots.loss_line", ax)
    for name, word in (("axis_name", axis_name), ("value_name", value_name)):
        _checks.instance("plots.loss_line", name, word, str)
    grid = _inputs.grid("plots.loss_line", surface, 1, resolution=resolution)
    _set_scales(ax, grid)
    ax.set_xlabel(axis_name)
    ax.set_ylabel(_inputs.captioned(grid, value_name))
    return ax.plot(grid.axes[0], grid.values, **line_kwargs)


def common_levels(
    *surfaces: Surface | Approximation, log: bool = False, num_levels: int = 20
) -> np.ndarray:
    """Computes contour levels that span several surfaces, so that their pictures compare.

    Args:
      *surfaces: at least one, each over two coordinates.
      log: whether the levels grow in equal ratios.
      num_levels: about how many, at least 2.

    Returns:
      Shape (L,), increasing: ``levels`` for ``surface_contour`` of each of the surfaces.

    Raises:
      TypeError: if one is not a Surface, or ``num_levels`` is no int.
      ValueError: if there is none, one cannot be drawn, or ``num_levels`` is below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import plots, surfaces
      >>> axis = jnp.linspace(-1.0, 1.0, 5)
      >>> low, high = (surfaces.sweep(lambda a, b: c + a * b, axis, axis) for c in (1, 4))
      >>> plots.common_levels(low, high, num_levels=5)
      array([0., 1., 2., 3., 4., 5.])
    """
    where = "plots.common_levels"
    _checks.that(where, bool(surfaces), "there must be a surface", "none")
    num_levels = _checks.count(where, "num_levels", num_levels, least=2)
    every = [_inputs.grid(where, surface, 2, log=log).values.ravel() for surface in surfaces]
    return _levels(np.concatenate(every), log, num_levels)


def surface_contour(
    ax: Axes,
    surface: Surface | Approximation,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_levels: int = 20,
    levels: Sequence[float] | np.ndarray | None = None,
    cmap: str = "viridis",
    aspect: Aspect = "auto",
    colorbar: bool = True,
    resolution: int = 201,
) -> QuadContourSet:
    """Draws a surface as filled contours, the first coordinate to the right, with a colour bar.

    Between the points of a coarse grid contours invent what was not computed: ``surface_cells``
    draws the points themselves. Two pictures compare only where their levels are the same:
    ``common_levels`` finds them.

    Args:
      ax: where to draw.
      surface: a Surface or an Approximation, over two coordinates. An axis whose points
        grow in equal ratios is logarithmic.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the levels grow in equal ratios; values that are not positive stay blank.
      num_levels: about how many, at least 2.
      levels: the levels themselves, increasing. What lies beyond them has the colour of the end.
      cmap: the name of a colour map.
      aspect: "equal" where both axes have one unit, as on a plane whose directions are
        normalized: a round bowl is then drawn round.
      colorbar: whether a colour bar stands beside it; without, the contours that come back
        serve ``figure.colorbar`` for several panels.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      The contours.

    Raises:
      TypeError: if ``surface`` is neither a Surface nor an Approximation,
        or ``num_levels`` is no int.
      ValueError: if the surface is not over two coordinates that increase or decrease, its
        values are not one array of real numbers, none of them is finite (with ``log``,
        positive), ``num_levels`` is below 2, or ``levels`` do not increase.
    """
    where = "plots.surface_contour"
    _inputs.flat_axes(where, ax)
    _inputs.a_look(where, aspect, cmap)
    _inputs.words(where, axis_names, value_name)
    _inputs.flags(where, colorbar=colorbar)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    num_levels = _checks.count(where, "num_levels", num_levels, least=2)
    if levels is None:
        levels = _levels(grid.values, log, num_levels)
    else:
        levels = _inputs.numbers(where, "levels", levels)
        rising = levels.ndim == 1 and levels.size >= 2 and bool((np.diff(levels) > 0).all())
        rising = rising and (levels[0] > 0 or not log)
        wanted = "levels must be two or more numbers that increase"
        _checks.that(where, rising, wanted + (", above 0" if log else ""), f"{levels}")
    shown = _drawable(grid.values, log)
    beyond = bool(np.nanmin(shown) < levels[0]), bool(np.nanmax(shown) > levels[-1])
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
    norm = (LogNorm if log else Normalize)(levels[0], levels[-1])
    _set_scales(ax, grid)
    contours = ax.contourf(*grid.axes, shown.T, levels=levels, norm=norm, cmap=cmap, extend=extend)
    if np.nanmin(shown) < np.nanmax(shown):
        ax.contour(*grid.axes, shown.T, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
    _finish(ax, axis_names, aspect)
    if colorbar:
        _colour_bar(ax, contours, _inputs.captioned(grid, value_name), levels[0], levels[-1], log)
    return contours


def surface_cells(
    ax: Axes,
    surface: Surface | Approximation,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    cmap: str = "viridis",
    aspect: Aspect = "auto",
    colorbar: bool = True,
    resolution: int = 201,
) -> QuadMesh:
    """Draws a surface as a heat map with one cell per point, inventing nothing between them.

    Args:
      ax: where to draw.
      surface: a Surface or an Approximation, over two coordinates, learning rates and
        momenta, say. An axis whose points grow in equal ratios is logarithmic.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the colours grow in equal ratios; values that are not positive stay blank.
      cmap: the name of a colour map.
      aspect: "equal" where both axes have one unit.
      colorbar: whether a colour bar stands beside it.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      The cells.

    Raises:
      TypeError: if ``surface`` is neither a Surface nor an Approximation.
      ValueError: if the surface is not over two coordinates that increase or decrease, its
        values are not one array of real numbers, or none of them is finite (with ``log``,
        positive).
    """
    where = "plots.surface_cells"
    _inputs.flat_axes(where, ax)
    _inputs.a_look(where, aspect, cmap)
    _inputs.words(where, axis_names, value_name)
    _inputs.flags(where, colorbar=colorbar)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    shown = _drawable(grid.values, log)
    low, high = _spread(shown, log)
    norm = (LogNorm if log else Normalize)(low, high)
    edges = [_edges(axis, scale) for axis, scale in zip(grid.axes, grid.scales, strict=True)]
    _set_scales(ax, grid)
    cells = ax.pcolormesh(*edges, np.ma.masked_invalid(shown.T), norm=norm, cmap=cmap)
    _finish(ax, axis_names, aspect)
    if colorbar:
        _colour_bar(ax, cells, _inputs.captioned(grid, value_name), low, high, log)
    return cells


def level_sets(
    ax: Axes,
    surface: Surface | Approximation,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    num_levels: int = 12,
    resolution: int = 201,
) -> PathCollection:
    """Draws a surface as dots: points of nearly equal value share a colour, the rest is left out.

    Args:
      ax: where to draw.
      surface: a Surface or an Approximation, over two coordinates, with positive values.
      axis_names: what the coordinates are.
      num_levels: how many values, in equal ratios, at least 2.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      The dots.

    Raises:
      TypeError: if ``surface`` is neither a Surface nor an Approximation,
        or ``num_levels`` is no int.
      ValueError: if the surface is not over two coordinates that increase or decrease, its
        values are not one array of real numbers, none of them is positive, or ``num_levels``
        is below 2.
    """
    where = "plots.level_sets"
    _inputs.flat_axes(where, ax)
    _inputs.words(where, axis_names)
    grid = _inputs.grid(where, surface, 2, log=True, resolution=resolution)
    num_levels = _checks.count(where, "num_levels", num_levels, least=2)
    shown = _drawable(grid.values, True)
    levels = _levels(shown, True, num_levels)
    # What cannot be drawn is far from every level.
    away = np.abs(np.log(np.where(np.isnan(shown), np.inf, shown)[..., None] / levels))
    i, j = np.nonzero(away.min(axis=-1) < 0.02)
    nearest = levels[away[i, j].argmin(axis=-1)]
    x, y = grid.axes
    norm = LogNorm(levels[0], levels[-1])
    _set_scales(ax, grid)
    dots = ax.scatter(x[i], y[j], c=nearest, s=4, norm=norm, cmap="viridis")
    _finish(ax, axis_names, "auto")
    return dots


def surface_3d(
    ax: Axes3D,
    surface: Surface | Approximation,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    cmap: str = "viridis",
    resolution: int = 101,
) -> Artist:
    """Draws a surface in three dimensions, every point of it.

    Matplotlib takes some seconds for 200 x 200 points; ``interactive_surface`` does not.

    Args:
      ax: axes made with ``projection="3d"``.
      surface: a Surface or an Approximation, over two coordinates. An axis whose points
        grow in equal ratios is logarithmic.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the colours, not the heights, grow in equal ratios.
      cmap: the name of a colour map.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      The surface.

    Raises:
      TypeError: if ``ax`` has no third dimension, or ``surface`` is not a Surface.
      ValueError: if the surface is not over two coordinates that increase or decrease, its
        values are not one array of real numbers, or none of them is finite (with ``log``,
        positive).
    """
    where = "plots.surface_3d"
    cure = 'Make them with projection="3d".'
    _checks.instance(where, "ax", ax, Axes3D, cure)
    _inputs.a_look(where, "auto", cmap)
    _inputs.words(where, axis_names, value_name)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    shown = _drawable(grid.values, False)
    # These axes know no logarithmic scale: it is drawn as what it is, and labelled so.
    placed = [np.log10(a) if s == "log" else a for a, s in zip(grid.axes, grid.scales, strict=True)]
    first, second = np.meshgrid(*placed, indexing="ij")
    low, high = _spread(_drawable(grid.values, log), log)
    norm = (LogNorm if log else Normalize)(low, high)
    drawn = ax.plot_surface(
        first,
        second,
        shown,
        cmap=cmap,
        norm=norm,
        rstride=1,
        cstride=1,
        linewidth=0,
        antialiased=False,
    )
    for axis, values, scale in zip((ax.xaxis, ax.yaxis), grid.axes, grid.scales, strict=True):
        if scale == "log":
            marks = _words.ticks(values[0], values[-1], log=True, count=4)
            axis.set_major_locator(FixedLocator(list(np.log10(marks))))
            axis.set_ticklabels(_words.labels(marks))
        else:
            axis.set_major_locator(MaxNLocator(5))
    ax.zaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    label = _inputs.captioned(grid, value_name)
    ax.set_zlabel(label, labelpad=9)  # past the tick labels, which are longer than the others
    return drawn


def _drawable(values: np.ndarray, log: bool) -> np.ndarray:
    """The values, with NaN for what is not finite or has no place on a logarithmic scale."""
    return np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)


def _spread(values: np.ndarray, log: bool) -> tuple[float, float]:
    """The lowest and the highest value; of values that are all but equal, somewhat more."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if high - low <= 8 * np.finfo(float).eps * max(abs(low), abs(high)):
        if log:
            return low / 1.1, min(high * 1.1, np.finfo(float).max)
        margin = abs(low) / 10 or 1.0
        return low - margin, high + margin
    return low, high


def _levels(values: np.ndarray, log: bool, num_levels: int) -> np.ndarray:
    """Levels from at most the lowest to at least the highest value."""
    low, high = _spread(_drawable(values, log), log)
    if log:
        levels = np.geomspace(low, high, num_levels)
    else:
        levels = np.asarray(MaxNLocator(num_levels).tick_values(low, high))
    # Rounding may leave an end inside the range, and contours leave out what is beyond.
    levels[0], levels[-1] = min(levels[0], low), max(levels[-1], high)
    return np.unique(levels)


def _edges(axis: np.ndarray, scale: str) -> np.ndarray:
    """The edges of cells around points: half-way, on a logarithmic axis in ratio."""
    if scale == "log":
        return np.exp(_edges(np.log(axis), "linear"))
    between = (axis[:-1] + axis[1:]) / 2
    return np.concatenate([[2 * axis[0] - between[0]], between, [2 * axis[-1] - between[-1]]])


def _set_scales(ax: Axes, grid: _inputs.Grid) -> None:
    """Logarithmic where the grid is; otherwise the axes stay as they are."""
    for set_scale, scale in zip((ax.set_xscale, ax.set_yscale), grid.scales, strict=False):
        if scale == "log":
            set_scale("log")


def _finish(ax: Axes, axis_names: Sequence[str], aspect: Aspect) -> None:
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    if aspect == "equal":
        ax.set_aspect("equal", adjustable="box")


def _colour_bar(
    ax: Axes, drawn: ScalarMappable, label: str, low: float, high: float, log: bool
) -> None:
    """Beside the axes, with ticks at round numbers that all read differently."""
    figure = ax.get_figure()
    if figure is None:
        return
    marks = _words.ticks(low, high, log=log)
    # Axes of equal aspect shrink: their bar shrinks with them.
    is_equal = ax.get_aspect() != "auto"
    place: Any = {"cax": ax.inset_axes((1.04, 0, 0.05, 1))} if is_equal else {"ax": ax}
    bar = figure.colorbar(drawn, **place)
    if len(label) <= 12:  # above the bar, away from the label of the next panel's axis
        bar.ax.set_title(label, fontsize="medium", pad=8)
    else:
        bar.set_label(label)
    bar.ax.minorticks_off()
    bar.set_ticks(list(marks), labels=_words.labels(marks))
