"""Descents: their losses against the step, and their paths over a surface."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.colors import to_rgba_array
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from jaxgd import _checks
from jaxgd.descent import Trajectory
from jaxgd.planes import Projection
from jaxgd.plots import _inputs, _runs
from jaxgd.plots._style import PATH_COLOURS, outline, pick

_START: Any = {"marker": "s", "ms": 7, "mec": "black", "mew": 0.6, "zorder": 4}
_END: Any = _START | {"marker": "*", "ms": 13}
_SHARE = "% off the plane: of the distance from (0, 0)"


def loss_curve(ax: Axes, trajectory: Trajectory, **line_kwargs: Any) -> list[Line2D]:
    """Draws the loss against the step.

    Args:
      ax: where to draw.
      trajectory: of one descent; drawn up to its last step.
      **line_kwargs: passed on to ``ax.plot``.

    Returns:
      The line.

    Raises:
      TypeError: if ``trajectory`` is not a Trajectory.
      ValueError: if it is of several runs, or no loss is finite.
    """
    _inputs.flat_axes("plots.loss_curve", ax)
    losses = _runs.one_run("plots.loss_curve", "trajectory", trajectory)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    return ax.plot(losses, **line_kwargs)


def loss_band(
    ax: Axes,
    trajectory: Trajectory,
    *,
    quantiles: tuple[float, float] = (0.1, 0.9),
    **line_kwargs: Any,
) -> list[Artist]:
    """Draws the losses of many runs as their median and a band around it.

    Args:
      ax: where to draw.
      trajectory: of several runs, under ``jax.vmap``: over seeds, say. A run that has ended
        counts with its last loss. Losses that are not finite are left out of both, step by step,
        and the label counts their runs.
      quantiles: the lower and the upper edge of the band, from 0 to 1.
      **line_kwargs: passed on to ``ax.plot`` for the median; ``label`` and ``color`` among them.

    Returns:
      The line of the median, and the band.

    Raises:
      TypeError: if ``trajectory`` is not a Trajectory.
      ValueError: if it is of one run only, no loss is finite, or ``quantiles`` do not increase
        within 0 and 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import descent, plots
      >>> def run(start):
      ...     return descent.gradient_descent(jnp.square, start, learning_rate=0.1, num_steps=9)
      >>> many = jax.vmap(run)(jnp.linspace(1.0, 2.0, 5))
      >>> line, band = plots.loss_band(Figure().add_subplot(), many, label="5 starts")
      >>> line.get_label()
      '5 starts'
    """
    where = "plots.loss_band"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "trajectory", trajectory, Trajectory)
    losses = _inputs.numbers(where, "trajectory.losses", trajectory.losses)
    got = f"losses of shape {losses.shape}"
    wanted = "trajectory must be of several runs, under jax.vmap"
    _checks.that(where, losses.ndim >= 2, wanted, got, "plots.loss_curve draws one run.")
    low, high = quantiles
    _checks.that(where, 0 <= low < high <= 1, "quantiles must increase from 0 to 1", f"{quantiles}")
    lanes = losses.reshape(-1, losses.shape[-1])
    usable = np.where(np.isfinite(lanes), lanes, np.nan)
    steps = np.flatnonzero(np.isfinite(usable).any(axis=0))
    _checks.that(where, steps.size > 0, "trajectory must have a finite loss", "none")
    lower, median, upper = np.nanquantile(usable[:, steps], (low, 0.5, high), axis=0)
    (line,) = ax.plot(steps, median, **line_kwargs)
    lost = int((~np.isfinite(lanes)).any(axis=1).sum())
    if lost:
        told = f"{lost} of {len(lanes)} not finite"
        label = str(line.get_label())
        line.set_label(told if label.startswith("_") else f"{label} ({told})")
    band = ax.fill_between(steps, lower, upper, color=line.get_color(), alpha=0.22, lw=0)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    return [line, band]


def descent_path(ax: Axes, path: object, **line_kwargs: Any) -> list[Line2D]:
    """Draws a path over two coordinates: a line with a mark at each point.

    Args:
      ax: where to draw; the coordinates of a surface drawn before.
      path: a Trajectory, drawn up to its last step; or its points, shape (T, 2), or a pytree of
        two arrays (T,), one per coordinate. The entries of a dict are matched with the labels
        of the axes.
      **line_kwargs: passed on to ``ax.plot``, over the default look.

    Returns:
      The line.

    Raises:
      ValueError: if ``path`` does not hold two numbers per point, it is of several runs, or a
        dict does not say which of its entries belongs to which axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import descent, plots
      >>> cost = lambda p: p[0] ** 2 + 3 * p[1] ** 2
      >>> run = descent.gradient_descent(cost, (1.0, -0.5), learning_rate=0.1, num_steps=9)
      >>> (line,) = plots.descent_path(Figure().add_subplot(), run)
      >>> line.get_xydata().shape
      (10, 2)
    """
    where = "plots.descent_path"
    _inputs.flat_axes(where, ax)
    axis_names = ax.get_xlabel(), ax.get_ylabel()
    if isinstance(path, Trajectory):
        points = _runs.track(where, "path", path, axis_names).points
    else:
        points = _runs.two_columns(where, "path", path, axis_names)
    default = {"marker": "o", "markersize": 4, "linewidth": 1.5}
    return ax.plot(*points.T, **default | normalize_kwargs(line_kwargs, Line2D))


def projected_paths(
    ax: Axes,
    projections: Mapping[str, Projection],
    losses: Mapping[str, Any],
    *,
    legend: bool = True,
) -> list[Line2D]:
    """Draws several descents on one plane, each fading where it is far from the plane.

    A square marks the start of each, a star its end. The label of each tells its true last
    loss, which is not that of the surface below it, and the largest share off the plane: of
    the distance from the origin of the plane, (0, 0), to a point of the path, how much the
    plane does not show.

    Args:
      ax: where to draw, over a surface on the same plane.
      projections: by name, of ``planes.project_path`` on a plane with two directions.
      losses: by name, shape (T,): the true losses, as in ``Trajectory.losses``.
      legend: whether the labels stand below the axes, with what the marks and the share mean;
        without, ``figure.legend`` places the labels.

    Returns:
      One line per descent.

    Raises:
      TypeError: if a value of ``projections`` is not a Projection.
      ValueError: if the names differ, a plane has not two directions, or there is not one loss
        per point.
    """
    where = "plots.projected_paths"
    _inputs.flat_axes(where, ax)
    _inputs.flags(where, legend=legend)
    for name, value in (("projections", projections), ("losses", losses)):
        cure = f"Give the one you have a name: {{'run': {name}}}."
        _checks.instance(where, name, value, Mapping, cure)
    got = f"{list(projections)} and {list(losses)}"
    same = set(projections) == set(losses)
    _checks.that(where, same, "projections and losses must have the same names", got)
    texts = _inputs.names(where, "projections", projections)
    lines = []
    for i, (text, (key, projection)) in enumerate(zip(texts, projections.items(), strict=True)):
        name = f"projections[{key!r}]"
        _checks.instance(where, name, projection, Projection)
        path = _inputs.numbers(where, name, projection.coordinates)
        hidden = _inputs.numbers(where, name, projection.residuals)
        true_losses = _inputs.numbers(where, f"losses[{key!r}]", losses[key])
        wanted = f"the coordinates of {name} must have the shape (T, 2)"
        fits = path.ndim == 2 and path.shape[1] == 2 and len(path) > 0
        _checks.that(where, fits, wanted, str(path.shape))
        wanted = f"losses[{key!r}] and {name} must have one entry per point, shape ({len(path)},)"
        fits = true_losses.shape == hidden.shape == (len(path),)
        _checks.that(where, fits, wanted, f"{true_losses.shape} and {hidden.shape}")
        colour = pick(PATH_COLOURS, i)
        label = f"{text}: loss {true_losses[-1]:.2g}, up to {np.nanmax(hidden):.0%} off the plane"
        (line,) = ax.plot(*path.T, color=colour, lw=1.4, label=label)
        outline(line)
        visible = np.nan_to_num(np.clip(1 - hidden, 0.08, 1), nan=0.08)
        faded = to_rgba_array([colour] * len(path), alpha=visible)
        ax.scatter(*path.T, s=14, color=faded, lw=0, zorder=3)
        ax.plot(*path[0], color=colour, **_START)
        ax.plot(*path[-1], color=colour, **_END)
        lines.append(line)
    if legend:
        _legend(ax, lines)
    return lines


def _legend(ax: Axes, lines: list[Line2D]) -> None:
    """Names the paths below the axes, and says what their marks and shares mean."""
    marks = tuple(Line2D([], [], color="white", ls="none", **look) for look in (_START, _END))
    handles = [*lines, marks, Line2D([], [], ls="none")]
    labels = [*(str(line.get_label()) for line in lines), "start and end", _SHARE]
    place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4}
    together = {tuple: HandlerTuple(ndivide=None, pad=0.6)}
    drawn = ax.legend(handles, labels, handler_map=together, fontsize=9, frameon=False, **place)
    for handle in drawn.get_lines()[: len(lines)]:
        handle.set(linewidth=3)
