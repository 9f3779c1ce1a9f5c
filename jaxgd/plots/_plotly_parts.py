"""The parts that Plotly's figures are put together from: traces, axes, colours, buttons, words."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from jaxgd.plots import _runs, _words
from jaxgd.plots._inputs import Grid
from jaxgd.plots._runs import Track
from jaxgd.plots._style import FEW_POINTS, PATH_COLOURS, Aspect, pick

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "x", "cross", "circle-open")
EDGE = {"color": "#000000", "width": 1}
WIDENING = 0.25  # of the surface's own length, to show where a path leaves it
# Browsers draw three dimensions in single precision: what spreads by less than this share of its
# size is drawn from its middle on, and its ticks say what it is.
NARROW_SPREAD = 1e-3


def finite(values: np.ndarray) -> np.ndarray:
    """What can be drawn: the rest stays a hole."""
    return np.where(np.isfinite(values), values, np.nan)


def decades(values: np.ndarray) -> np.ndarray:
    """The logarithm to base 10; a hole where there is none."""
    usable = np.isfinite(values) & (values > 0)
    return np.log10(np.where(usable, values, np.nan))


def middle_of(values: np.ndarray) -> float:
    """Where to draw from: 0, or the middle of what spreads little for its size."""
    low, high = span(values)
    narrow = 0 < high - low < NARROW_SPREAD * max(abs(low), abs(high))
    return (low + high) / 2 if narrow else 0.0


def light(values: np.ndarray, picture: np.ndarray | None = None) -> np.ndarray:
    """In single precision, where nobody can see that in the picture; else as it is.

    Args:
      values: what is drawn.
      picture: what spans the picture; the values themselves where it is not given.
    """
    finite = values[np.isfinite(values)]
    size = np.abs(finite[finite != 0])
    if size.size == 0:
        return values.astype(np.float32)
    if size.max() > 1e38 or size.min() < 1e-37:
        return values
    low, high = span(values if picture is None else picture)
    rounded = finite.astype(np.float32)
    is_close = np.abs(rounded - finite).max() <= 1e-5 * (high - low)
    # Far from most of the values one of them may span all: the others must still differ.
    differ = picture is not None or np.unique(rounded).size >= 0.9 * np.unique(finite).size
    return values.astype(np.float32) if is_close and differ else values


def solid(
    grid: Grid,
    values: np.ndarray,
    middles: Sequence[float],
    middle: float,
    colours: str,
    hover: str,
    shades: np.ndarray | None = None,
) -> Any:
    # Plotly reads rows as y, a Surface reads them as the first coordinate: hence .T.
    x, y = (axis - m for axis, m in zip(grid.axes, middles, strict=True))
    z = light(values - middle).T
    told = {"hovertemplate": hover.replace("%{value", "%{z")}
    if any(middles) or middle:
        each = np.broadcast_arrays(grid.axes[0][:, None], grid.axes[1], values)
        told = {
            "customdata": np.stack([part.T for part in each], axis=-1),
            "hovertemplate": hover.replace("%{x", "%{customdata[0]").replace(
                "%{y", "%{customdata[1]").replace("%{value", "%{customdata[2]"),
        }  # fmt: skip
    shade = z if shades is None else light(shades.T)
    return go.Surface(
        x=x, y=y, z=z, surfacecolor=shade, coloraxis=colours, name="surface", showlegend=False,
        **told,
    )  # fmt: skip


def contour(grid: Grid, shade: np.ndarray, values: np.ndarray, colours: str, hover: str) -> Any:
    low, high = span(shade)
    levels = {"start": low, "end": high, "size": (high - low) / 20 or 1}
    return go.Contour(
        x=grid.axes[0], y=grid.axes[1], z=light(shade.T), customdata=light(values.T),
        coloraxis=colours, contours=levels, autocontour=False, connectgaps=False,
        line={"width": 0.5, "color": "rgba(255,255,255,0.6)"}, name="contour", showlegend=False,
        hovertemplate=hover.replace("%{value", "%{customdata"),
    )  # fmt: skip


def axis(
    grid: Grid, runs: Mapping[str, Track], k: int, name: str, middle: float = 0.0
) -> dict[str, Any]:
    """A coordinate's axis: its title, its scale, and room for the runs."""
    axis, scale = grid.axes[k], grid.scales[k]
    others = [run.points[:, k] for run in runs.values()]
    layout = {"title": {"text": name}, "type": scale, "exponentformat": "power"}
    if scale == "log":
        return {**layout, "range": widened(np.log10(axis), [decades(other) for other in others])}
    ends = widened(axis - middle, [other - middle for other in others])
    narrow = shifted_ticks(ends, middle) if middle else {}
    if not middle and middle_of(axis):
        narrow = shifted_ticks(ends, 0.0)
    return {**layout, "range": ends, **narrow}


def shifted_ticks(ends: Sequence[float], middle: float) -> dict[str, Any]:
    """Ticks that say what a value is, though it is drawn from the middle on."""
    marks = _words.ticks(ends[0] + middle, ends[1] + middle, log=False, count=5)
    return {"tickmode": "array", "tickvals": marks - middle, "ticktext": _words.labels(marks)}


def flat_aspect(aspect: Aspect) -> dict[str, Any]:
    return {"scaleanchor": "x", "constrain": "domain"} if aspect == "equal" else {}


def solid_aspect(axes: Sequence[Mapping[str, Any]], aspect: Aspect) -> dict[str, Any]:
    if aspect == "auto":
        return {"aspectmode": "cube"}
    lengths = [axis["range"][1] - axis["range"][0] for axis in axes]
    wide = (lengths[0] / lengths[1]) ** 0.5  # the floor keeps its area
    return {
        "aspectmode": "manual",
        "aspectratio": {"x": wide, "y": 1 / wide, "z": 0.8},
    }


def hover(
    axis_names: tuple[str, str], value_name: str, name: str = "", value: str = "value"
) -> str:
    if name and value == "value":
        value = "z"
    return (
        f"{axis_names[0]}: %{{x:.5g}}<br>{axis_names[1]}: %{{y:.5g}}<br>"
        f"{value_name}: %{{{value}:.5g}}<extra>{name}</extra>"
    )


def hover_told(axis_names: tuple[str, str], value_name: str, name: str) -> str:
    """The same where the numbers themselves travel beside what is drawn."""
    template = hover(axis_names, value_name, name, "customdata[2]")
    return template.replace("%{x", "%{customdata[0]").replace("%{y", "%{customdata[1]")


def style_of(i: int, name: str) -> dict[str, Any]:
    """Colour, dash and symbol together: each tells the runs apart alone."""
    colour = pick(PATH_COLOURS, i)
    return {
        "name": name,
        "legendgroup": name,
        "line": {"color": colour, "width": 2.5, "dash": pick(DASHES, i)},
        "marker": {"color": colour, "size": 5, "symbol": pick(SYMBOLS, i), "line": EDGE},
    }


def at(run: Track, steps: np.ndarray) -> Track:
    """Where a run was at each of the steps shown; where it ended it stays."""
    rows = _runs.rows_until(run, steps)
    return Track(run.points[rows], run.losses[rows], run.steps[rows])


def places(run: Track, grid: Grid, part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a run is, over the contours and in its losses: all that changes while it is played."""
    few = "lines+markers" if len(run.steps) <= FEW_POINTS else "lines"
    mode = {"whole": "lines", "trail": few, "head": "markers"}[part]
    x, y = (light(run.points[:, k], grid.axes[k]) for k in (0, 1))
    return (
        {"x": x, "y": y, "customdata": light(run.losses), "mode": mode},
        {"x": run.steps, "y": light(finite(run.losses)), "mode": mode},
    )


def pair(
    i: int, name: str, run: Track, grid: Grid, words: tuple[tuple[str, str], str], part: str
) -> list[Any]:
    """A path over the contours and its losses: the whole of them faint, a trail, or its head."""
    look = style_of(i, name)
    if part == "head":
        look["marker"] |= {"size": 13, "line": {"color": "#000000", "width": 2}}
    look |= {"opacity": 0.35 if part == "whole" else 1}
    axis_names, value_name = words
    if part == "whole":
        look["hoverinfo"] = "skip"
        told = curve = None
    else:
        told = hover(axis_names, value_name, name, "customdata")
        curve = f"step %{{x}}<br>{value_name}: %{{y:.5g}}<extra>{name}</extra>"
    on_contours, on_losses = places(run, grid, part)
    return [
        go.Scatter(**on_contours, hovertemplate=told, showlegend=part == "trail", **look),
        go.Scatter(**on_losses, xaxis="x2", yaxis="y2", hovertemplate=curve, showlegend=False,
                   **look),
    ]  # fmt: skip


def whole_and_moving(
    kept: Mapping[str, Track], grid: Grid, words: tuple[tuple[str, str], str]
) -> tuple[list[Any], list[Any]]:
    """The runs, faint, as they stay; and trails with their heads, at the end of all steps."""
    still, moving = [], []
    for i, (name, run) in enumerate(kept.items()):
        still += pair(i, name, run, grid, words, "whole")
        moving += pair(i, name, run, grid, words, "trail")
        moving += pair(i, name, last_of(run, len(run.steps)), grid, words, "head")
    return still, moving


def moment(kept: Mapping[str, Track], count: int, grid: Grid) -> list[dict[str, Any]]:
    """Where all that moves is after so many of the steps shown: a frame's changes of the traces.

    Only these: Plotly checks each attribute of each trace of each frame, which takes longer than
    all else, and a page would carry them all.
    """
    traces = []
    for run in kept.values():
        traces += places(Track(*(rows[:count] for rows in run)), grid, "trail")
        traces += places(last_of(run, count), grid, "head")
    return traces


def last_of(run: Track, count: int) -> Track:
    """The last of so many points of a run."""
    return Track(*(rows[count - 1 : count] for rows in run))


def span(values: np.ndarray) -> tuple[float, float]:
    shown = values[np.isfinite(values)]
    return (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)


def widened(values: np.ndarray, others: Sequence[np.ndarray]) -> list[float]:
    """The range of the surface, widened for the runs by up to a quarter at each end."""
    low, high = span(values)
    length = (high - low) or max(abs(high), 1.0)
    ends = [span(other) for other in others if np.isfinite(other).any()]
    least = min([low, *(end[0] for end in ends)])
    most = max([high, *(end[1] for end in ends)])
    margin = 0.02 * length if least < low or most > high or low == high else 0.0
    return [
        max(least, low - WIDENING * length) - margin,
        min(most, high + WIDENING * length) + margin,
    ]


def colours(
    values: np.ndarray, value_name: str, middle: float = 0.0, **place: Any
) -> dict[str, Any]:
    """The colours of values that are drawn from ``middle`` on, labelled with what they are."""
    low, high = span(values)
    marks = _words.ticks(low, high, log=False)
    bar = {"title": {"text": value_name}, "thickness": 12, "len": 0.8, "tickmode": "array",
           "tickvals": marks - middle, "ticktext": _words.labels(marks), **place}  # fmt: skip
    return {"colorscale": "Viridis", "cmin": low - middle, "cmax": high - middle, "colorbar": bar}


def log_colours(decades: np.ndarray, value_name: str, **place: Any) -> dict[str, Any]:
    """The colours of logarithms, labelled with what they are the logarithms of."""
    low, high = span(decades)
    bar = {"title": {"text": value_name}, "thickness": 12, "len": 0.8, **place}
    return {"colorscale": "Viridis", "cmin": low, "cmax": high,
            "colorbar": {**bar, **log_ticks(low, high)}}  # fmt: skip


def log_ticks(low: float, high: float, base: float = 0.0) -> dict[str, Any]:
    """Round numbers between two powers of ten, placed at their logarithms, or as they are."""
    marks = _words.ticks(10.0**low, 10.0**high, log=True)
    places = marks if base else np.log10(marks)
    return {"tickmode": "array", "tickvals": places, "ticktext": _words.labels(marks)}


def log_marks(low: float, high: float) -> dict[str, Any]:
    """Between two powers of ten: a tick at each or every so many; at 1, 2 and 5 where few.

    Within less than one decade there may be none of these: round numbers.
    """
    if high - low < 1:
        return log_ticks(low, high, base=10.0)
    return {"dtick": max(1.0, np.ceil((high - low) / 6)) if high - low >= 2 else "D2"}


def menu(buttons: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    place = {"direction": "right", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"type": "buttons", "buttons": buttons, **place, **more}


def player(milliseconds: int) -> dict[str, Any]:
    frame = {"duration": milliseconds, "redraw": True}
    play = {"frame": frame, "fromcurrent": True, "transition": {"duration": 0}, "mode": "immediate"}
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    return menu(
        [
            {"label": "Play", "method": "animate", "args": [None, play]},
            {"label": "Pause", "method": "animate", "args": [[None], still]},
        ],
        showactive=False,
    )


def slider(names: Sequence[str], prefix: str, *, active: int) -> dict[str, Any]:
    jump = {
        "frame": {"duration": 0, "redraw": True},
        "mode": "immediate",
        "transition": {"duration": 0},
    }
    steps = [{"label": name, "method": "animate", "args": [[name], jump]} for name in names]
    return {"steps": steps, "active": active, "currentvalue": {"prefix": prefix}, "pad": {"t": 45}}


def holes(values: np.ndarray, log: bool) -> list[str]:
    bad = int(np.sum(~np.isfinite(values)))
    low = int(np.sum(np.isfinite(values) & (values <= 0)))
    notes = [f"{bad:,} of {values.size:,} values are not finite: they are holes."] if bad else []
    if low and log:
        notes.append(
            f"{low:,} of {values.size:,} values are not above 0: "
            "a logarithmic scale leaves them out."
        )
    return notes


def strays(grid: Grid, runs: Mapping[str, Track]) -> list[str]:
    """Which points of a run lie beside the surface, and which beyond what is shown."""
    notes = []
    room = [
        widened(a, [run.points[:, k] for run in runs.values()]) for k, a in enumerate(grid.axes)
    ]
    for name, run in runs.items():
        columns = run.points.T
        inside = [within(c, *span(axis)) for c, axis in zip(columns, grid.axes, strict=True)]
        off = len(run.points) - int(np.sum(inside[0] & inside[1]))
        seen = [within(c, *ends) for c, ends in zip(columns, room, strict=True)]
        unseen = len(run.points) - int(np.sum(seen[0] & seen[1]))
        if off:
            beyond = f", {unseen:,} of them beyond the picture" if unseen else ""
            notes.append(
                f"{name}: {off:,} of {len(run.points):,} points lie off the surface{beyond}."
            )
    return notes


def within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    slack = 1e-6 * (high - low)  # an end that was rounded is no end passed
    return (values >= low - slack) & (values <= high + slack)


def thinned(runs: Mapping[str, Track], steps: np.ndarray) -> list[str]:
    total = len(np.unique(np.concatenate([run.steps for run in runs.values()])))
    if len(steps) == total:
        return []
    shown = [f"{s:,}" for s in steps]
    few = shown if len(shown) <= 12 else [*shown[:8], "...", *shown[-2:]]
    return [
        f"{len(steps):,} of {total:,} points are shown, closer together at the start: "
        f"steps {', '.join(few)}."
    ]


def in_words(
    grid: Grid, runs: Mapping[str, Track], axis_names: tuple[str, str], value_name: str
) -> str:
    sides = " and ".join(
        f"{name} from {span(axis)[0]:.4g} to {span(axis)[1]:.4g}"
        for name, axis in zip(axis_names, grid.axes, strict=True)
    )
    (x, y), values = grid.axes, grid.values
    found = []
    for word, choose in (("lowest", np.nanargmin), ("highest", np.nanargmax)):
        i, j = np.unravel_index(choose(finite(values)), values.shape)
        found.append(f"{word} {values[i, j]:.4g} at ({x[i]:.4g}, {y[j]:.4g})")
    ways = "".join(f" {name}: {journey(run)}." for name, run in runs.items())
    return f"{value_name} over {sides}; {', '.join(found)}.{ways}"


def journey(run: Track) -> str:
    ends = [
        f"{run.losses[t]:.4g} at ({run.points[t, 0]:.4g}, {run.points[t, 1]:.4g})" for t in (0, -1)
    ]
    return f"{run.steps[-1]:,} steps from {ends[0]} to {ends[1]}"


def finish(
    figure: go.Figure,
    description: str,
    notes: list[str],
    narrow: dict[str, Any],
    width: int = 0,
) -> go.Figure:
    lines = [line for note in notes for line in textwrap.wrap(note, 100)]
    figure.update_layout(
        template="plotly_white",
        title={"text": "<br>".join(lines), "font": {"size": 12}, "y": 0.02, "yanchor": "bottom"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right",
                "bgcolor": "rgba(128,128,128,0.25)"},
        margin={"l": 60, "r": 20, "t": 70, "b": 60},
        meta={"description": description, "notes": notes, "narrow": narrow, "width": width},
    )  # fmt: skip
    return figure
