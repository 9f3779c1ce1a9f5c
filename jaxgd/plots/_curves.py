"""What lies between two minima and around one, and the minima of a surface in numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D

from jaxgd import _checks
from jaxgd.curves import Barrier, BasinProfile
from jaxgd.planes import Projection
from jaxgd.plots import _inputs
from jaxgd.plots._style import COLOURS, GREY, outline, pick
from jaxgd.surfaces import Persistence


def barrier(ax: Axes, barrier: Barrier | Mapping[str, Barrier]) -> list[Line2D]:
    """Draws the loss from one minimum to another, and how high it rises in between.

    An arrow stands where the loss is highest above the straight line between its two ends.

    Args:
      ax: where to draw.
      barrier: of ``curves.barrier``; or several, by name: before and after ``curves.align``.

    Returns:
      One line per barrier.

    Raises:
      TypeError: if one is not a Barrier.
      ValueError: if coordinates and losses are not of one shape (N,), N at least 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import curves, plots
      >>> wells = lambda x: (x**2 - 1) ** 2
      >>> hill = curves.barrier(wells, jnp.array(-1.0), jnp.array(1.0))
      >>> (line,) = plots.barrier(Figure().add_subplot(), hill)
      >>> line.get_label()
      'barrier 1'
    """
    where = "plots.barrier"
    _inputs.flat_axes(where, ax)
    several = isinstance(barrier, Mapping)
    named: Mapping[str, Any] = barrier if several else {"": barrier}
    _checks.that(where, bool(named), "there must be a barrier", "none")
    lines = []
    for i, (text, (key, value)) in enumerate(
        zip(_inputs.names(where, "barrier", named), named.items(), strict=True)
    ):
        t, losses, height = _line_of(where, f"barrier[{key!r}]" if several else "barrier", value)
        colour = pick(COLOURS, i)
        label = f"{text}: barrier {height:.3g}" if text else f"barrier {height:.3g}"
        lines += ax.plot(t, losses, color=colour, lw=2, marker="o", ms=3, label=label)
        ax.plot(t[[0, -1]], losses[[0, -1]], color=colour, lw=1, ls="--")
        straight = np.interp(t, t[[0, -1]], losses[[0, -1]])
        rise = np.where(np.isfinite(losses), losses - straight, -np.inf)
        top = int(rise.argmax())
        if height > 0 and rise[top] > 0:
            arrow = {"arrowstyle": "<->", "color": colour, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (t[top], losses[top]), (t[top], straight[top]), arrowprops=arrow)
    ax.set_xlabel("from the first minimum (0) to the last (1)")
    ax.set_ylabel("loss")
    ax.legend(fontsize=9)
    return lines


def _line_of(where: str, name: str, value: Any) -> tuple[np.ndarray, np.ndarray, float]:
    _checks.instance(where, name, value, Barrier, _inputs.SEVERAL)
    t = _inputs.numbers(where, f"{name}.coordinates", value.coordinates)
    losses = _inputs.numbers(where, f"{name}.losses", value.losses)
    height = _inputs.numbers(where, f"{name}.height", value.height)
    fits = t.ndim == 1 and t.shape == losses.shape and t.size >= 2 and height.shape == ()
    cure = _inputs.PICK_A_LANE.format(name) if losses.ndim > 1 else ""
    wanted = f"{name}.coordinates and {name}.losses must have one shape (N,)"
    _checks.that(where, fits, wanted, f"{t.shape} and {losses.shape}", cure)
    return t, losses, float(height)


def curve_path(ax: Axes, projection: Projection, **line_kwargs: Any) -> list[Line2D]:
    """Draws a curve between two minima over its own plane, and beside it the straight line.

    Args:
      ax: where to draw, over a surface on the same plane, ``planes.through`` the two ends and
        the middle of the curve.
      projection: of ``planes.project_path`` on that plane, of the points of the curve.
      **line_kwargs: passed on to ``ax.plot`` for the curve.

    Returns:
      The curve, the straight line, and the marks of the two ends.

    Raises:
      TypeError: if ``projection`` is not a Projection.
      ValueError: if the plane has not two directions.
    """
    where = "plots.curve_path"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "projection", projection, Projection)
    points = _inputs.numbers(where, "projection.coordinates", projection.coordinates)
    fits = points.ndim == 2 and points.shape[1] == 2 and len(points) >= 2
    wanted = "projection.coordinates must have the shape (T, 2), T at least 2"
    _checks.that(where, fits, wanted, str(points.shape))
    ends = points[[0, -1]]
    default = {"color": COLOURS[1], "linewidth": 2.5, "label": "the curve"}
    (curve,) = ax.plot(*points.T, **default | normalize_kwargs(line_kwargs, Line2D))
    straight: Any = {"color": curve.get_color(), "lw": 1.8, "ls": "--"}
    (line,) = ax.plot(*ends.T, label="the straight line", **straight)
    (marks,) = ax.plot(*ends.T, "o", ms=8, color=curve.get_color(), mec="black")
    outline(curve, line)
    return [curve, line, marks]


def persistence_diagram(ax: Axes, persistence: Persistence) -> PathCollection:
    """Draws each minimum of a surface at its own value and the value at which it joins a deeper.

    A minimum far above the diagonal is a basin of its own; one near it a ripple. The lowest
    minimum joins none: it stands on the dotted line at the top.

    Args:
      ax: where to draw.
      persistence: of ``surfaces.persistence``.

    Returns:
      The points.

    Raises:
      TypeError: if ``persistence`` is not a Persistence.
      ValueError: if these are not of one shape (P,), or no birth is finite.
    """
    where = "plots.persistence_diagram"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "persistence", persistence, Persistence)
    births = _inputs.numbers(where, "persistence.births", persistence.births)
    deaths = _inputs.numbers(where, "persistence.deaths", persistence.deaths)
    fits = births.ndim == 1 and births.shape == deaths.shape
    wanted = "persistence.births and persistence.deaths must have one shape (P,)"
    _checks.that(where, fits, wanted, f"{births.shape} and {deaths.shape}")
    _checks.that(
        where,
        bool(np.isfinite(births).any()),
        "persistence.births must have a finite value",
        "none",
    )
    finite = np.concatenate([births[np.isfinite(births)], deaths[np.isfinite(deaths)]])
    low, high = float(finite.min()), float(finite.max())
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    never = high + 2 * room
    ax.plot([low - room, never], [low - room, never], color=GREY, lw=1)
    is_lasting = np.isposinf(deaths)
    if is_lasting.any():
        ax.axhline(never, color=GREY, ls=":", lw=1.2)
        ax.text(high + room, never, "never joins", ha="right", va="bottom", color=GREY)
    heights = np.where(is_lasting, never, deaths)
    colours = [COLOURS[1] if lasting else COLOURS[0] for lasting in is_lasting]
    points = ax.scatter(births, heights, c=colours, s=45, zorder=3)
    ax.set(xlim=(low - room, high + room), ylim=(low - room, never + 1.5 * room))
    ax.set_xlabel("value of the minimum")
    ax.set_ylabel("value where it joins a deeper one")
    return points


def basin_profile(ax: Axes, profile: BasinProfile, **line_kwargs: Any) -> list[Artist]:
    """Draws how the loss rises with the distance from a point, for most directions and the worst.

    Heights are above the loss at the point itself. On logarithmic axes (``ax.loglog()``) a
    quadratic is a line of slope 2.

    Args:
      ax: where to draw.
      profile: of ``curves.basin_profile``.
      **line_kwargs: passed on to ``ax.plot`` for both lines.

    Returns:
      The line of the middle level, that of the worst direction, and the band from the lowest to
      the highest level, where there are several.

    Raises:
      TypeError: if ``profile`` is not a BasinProfile.
      ValueError: if its arrays do not fit each other, or no quantile is finite.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import curves, plots
      >>> profile = curves.basin_profile(
      ...     jax.random.key(0),
      ...     lambda x: x @ x,
      ...     jnp.zeros(3),
      ...     radii=jnp.linspace(0.0, 1.0, 5),
      ...     num_directions=9,
      ... )
      >>> middle, worst, band = plots.basin_profile(Figure().add_subplot(), profile)
      >>> middle.get_label(), band.get_label()
      ('median', '5 % to 95 %')
    """
    where = "plots.basin_profile"
    _inputs.flat_axes(where, ax)
    _checks.instance(where, "profile", profile, BasinProfile)
    radii, center, levels, quantiles, worst = (
        _inputs.numbers(where, f"profile.{name}", getattr(profile, name))
        for name in ("radii", "center", "levels", "quantiles", "worst")
    )
    fits = radii.ndim == levels.ndim == 1 and levels.size > 0 and center.shape == ()
    fits = fits and quantiles.shape == levels.shape + radii.shape and worst.shape == radii.shape
    wanted = "profile must have levels (Q,), radii and worst (R,), and quantiles (Q, R)"
    shapes = ", ".join(str(part.shape) for part in (levels, radii, worst, quantiles))
    _checks.that(where, fits, wanted, shapes, _inputs.PICK_A_LANE.format("profile"))
    _inputs.some_value(where, quantiles, log=False)
    order = np.argsort(levels)
    levels, rises = levels[order], quantiles[order] - center
    middle = len(levels) // 2
    label = "median" if levels[middle] == 0.5 else f"{100 * levels[middle]:g} %"
    plain: Any = normalize_kwargs(line_kwargs, Line2D)
    (median,) = ax.plot(radii, rises[middle], **{"color": COLOURS[0], "label": label} | plain)
    (highest,) = ax.plot(
        radii, worst - center, **{"color": COLOURS[1], "label": "the worst direction"} | plain
    )
    drawn: list[Artist] = [median, highest]
    if len(levels) > 1:
        label = f"{100 * levels[0]:g} % to {100 * levels[-1]:g} %"
        look: Any = {"color": median.get_color(), "alpha": 0.22, "lw": 0, "label": label}
        drawn.append(ax.fill_between(radii, rises[0], rises[-1], **look))
    ax.set_xlabel("distance from the point")
    ax.set_ylabel("rise of the loss")
    ax.legend(fontsize=9)
    return drawn
