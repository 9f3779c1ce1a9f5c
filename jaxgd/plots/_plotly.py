"""Figures to turn and to play, built with Plotly from plain arrays.

A figure works alone, in a notebook, with Plotly's own buttons and slider. Its ``layout.meta``
says the same for a page that has better ones: ``description``, what there is to see in words;
``notes``, what a reader must know; ``narrow``, changes of the layout for a small screen;
``width``, the pixels below which it cannot be read.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from jaxgd.plots import _inputs, _words
from jaxgd.plots._inputs import Grid, Track
from jaxgd.plots._style import PATH_COLOURS, Aspect, pick

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "x", "cross", "circle-open")
EDGE = {"color": "#000000", "width": 1}
FEW_POINTS = 40  # a mark for each point; more would hide the line
WIDENING = 0.25  # of the surface's own length, to show where a path leaves it
FRAME_MILLISECONDS = 60
STAGE_MILLISECONDS = 900
# Browsers draw three dimensions in single precision: what spreads by less than this share of its
# size is drawn from its middle on, and its ticks say what it is.
NARROW_SPREAD = 1e-3


def surface(
    grid: Grid,
    runs: Mapping[str, Track],
    *,
    axis_names: tuple[str, str],
    value_name: str,
    log: bool,
    aspect: Aspect,
) -> go.Figure:
    """A surface to turn, its contours, both on a linear and on a logarithmic scale."""
    linear, decades = _finite(grid.values), _decades(grid.values)
    middles = [_middle(axis) for axis in grid.axes]
    middle = _middle(linear)
    has_log = bool(np.isfinite(decades).any()) and middle == 0
    hover = _hover(axis_names, value_name)
    solid = _solid(grid, linear, middles, middle, "coloraxis", hover)
    views = {
        "3-D": solid,
        "contour": _contour(grid, linear - middle, linear, "coloraxis", hover),
    }
    if has_log:
        positive = np.where(np.isfinite(decades), linear, np.nan)
        views |= {
            "3-D, log": _solid(grid, positive, middles, 0.0, "coloraxis2", hover, decades),
            "contour, log": _contour(grid, decades, positive, "coloraxis2", hover),
        }
    notes = _holes(grid.values, has_log) + _strays(grid, runs)
    if middle != 0:
        notes.append("The values are so close to each other that no logarithmic scale is needed.")
    elif not has_log:
        notes.append("No value is above 0: there is no logarithmic scale.")
    shown = "3-D, log" if log and has_log else "3-D"
    figure = go.Figure([trace.update(visible=view == shown) for view, trace in views.items()])
    for i, (name, run) in enumerate(runs.items()):
        look = _look(i, name)
        solid_look = {
            **look,
            "line": {**look["line"], "width": 6},
            "marker": {**look["marker"], "size": 3, "line": {"width": 0}},
        }
        if solid_look["marker"]["symbol"] == "x":
            solid_look["marker"]["size"] = 2
        figure.update_traces(opacity=0.85, selector={"type": "surface"})  # a path may lie below
        columns = [run.points[:, k] for k in (0, 1)]
        told = {
            "customdata": np.stack([*columns, run.losses], axis=1),
            "hovertemplate": _hover_told(axis_names, value_name, name),
        } if any(middles) or middle else {
            "hovertemplate": _hover(axis_names, value_name, name)
        }  # fmt: skip
        x_of, y_of = (
            _light(column - m, axis)
            for column, m, axis in zip(columns, middles, grid.axes, strict=True)
        )
        figure.add_scatter3d(
            x=x_of, y=y_of, z=_light(_finite(run.losses) - middle), mode="lines+markers",
            **told, **solid_look,
        )  # fmt: skip
        x_of, y_of = (_light(column, axis) for column, axis in zip(columns, grid.axes, strict=True))
        figure.add_scatter(
            x=x_of, y=y_of, customdata=_light(run.losses), mode="lines+markers", visible=False,
            hovertemplate=_hover(axis_names, value_name, name, "customdata"), **look,
        )  # fmt: skip

    flat = [_axis(grid, runs, k, axis_names[k]) for k in (0, 1)]
    deep = [_axis(grid, runs, k, axis_names[k], middles[k]) for k in (0, 1)]
    losses = [run.losses for run in runs.values()]
    heights = {
        "linear": _room(linear - middle, [each - middle for each in losses]),
        "log": _room(decades, [_decades(each) for each in losses]),
    }
    marks = _shifted_ticks(heights["linear"], middle) if middle else {"tickmode": "auto"}
    zaxis = {"linear": marks, "log": _log_ticks(*heights["log"], base=10.0)}

    def state(view: str) -> tuple[dict[str, Any], dict[str, Any]]:
        scale, is_flat = ("log" if "log" in view else "linear"), view.startswith("contour")
        return (
            {"visible": [other == view for other in views] + [not is_flat, is_flat] * len(runs)},
            {
                "scene.zaxis.type": scale,
                "scene.zaxis.range": heights[scale],
                **{f"scene.zaxis.{key}": value for key, value in zaxis[scale].items()},
                "xaxis.visible": is_flat,
                "yaxis.visible": is_flat,
            },
        )

    buttons = [{"label": v, "method": "update", "args": list(state(v))} for v in sorted(views)]
    plain = {"showbackground": False, "nticks": 6, "exponentformat": "power"}
    figure.update_layout(
        scene={
            "xaxis": {**plain, **deep[0]},
            "yaxis": {**plain, **deep[1]},
            "zaxis": {**plain, "title": {"text": value_name}},
            "camera": {
                "eye": {"x": 1.4, "y": -1.5, "z": 0.85},
                "center": {"x": 0, "y": 0, "z": -0.1},
            },
            **_solid_aspect(deep, aspect),
        },
        xaxis={**flat[0], "automargin": True},
        yaxis={**flat[1], "automargin": True, **_flat_aspect(aspect)},
        coloraxis=_colours(linear, value_name, middle),
        coloraxis2=_log_colours(decades, value_name),
        uirevision="kept",  # turning a figure is not undone by a button
        updatemenus=[_menu(buttons, active=sorted(views).index(shown))],
    )
    figure.update_layout(state(shown)[1])
    words = _in_words(grid, runs, axis_names, value_name)
    narrow = {"scene.camera.eye": {"x": 1.95, "y": -2.1, "z": 1.15}}  # the labels need room
    return _finish(figure, f"A surface to turn: {words}", notes, narrow)


def descent(
    grid: Grid,
    runs: Mapping[str, Track],
    steps: np.ndarray,
    *,
    axis_names: tuple[str, str],
    value_name: str,
    log: bool,
    aspect: Aspect,
) -> go.Figure:
    """Contours, the runs over them, and their losses, played step by step."""
    middle = 0.0 if log else _middle(_finite(grid.values))
    shades = _decades(grid.values) if log else _finite(grid.values) - middle
    words = axis_names, value_name
    still = [_contour(grid, shades, _finite(grid.values), "coloraxis", _hover(*words))]
    kept = {name: _at(run, steps) for name, run in runs.items()}
    for i, (name, rows) in enumerate(kept.items()):
        still += _pair(i, name, rows, grid, words, "whole")
    end = _moment(kept, len(steps), grid, words)
    moving = list(range(len(still), len(still) + len(end)))
    figure = go.Figure([*still, *end])
    figure.frames = [
        go.Frame(
            name=str(step),
            data=_moment(kept, k + 1, grid, words),
            traces=moving,
        )
        for k, step in enumerate(steps)
    ]
    x_axis, y_axis = (_axis(grid, runs, k, axis_names[k]) for k in (0, 1))
    low, high, is_log = _inputs.loss_limits(runs)
    above = [name for name, run in runs.items() if np.nanmax(_finite(run.losses)) > high]
    ends = np.log10([low, high]) if is_log else np.array([low, high])
    margin = 0.05 * (ends[1] - ends[0]) or 1.0
    # With redraw off, Plotly takes the contours away with the first frame.
    figure.update_layout(
        xaxis={**x_axis, "domain": [0, 0.5]},
        yaxis={**y_axis, **_flat_aspect(aspect)},
        xaxis2={"title": {"text": "step"}, "domain": [0.68, 1], "anchor": "y2",
                "range": [0, 1.04 * max(int(steps[-1]), 1)]},
        yaxis2={"title": {"text": value_name}, "anchor": "x2", "nticks": 6,
                "type": "log" if is_log else "linear", "exponentformat": "power",
                "range": [ends[0] - margin, ends[1] + margin]},
        coloraxis=_log_colours(shades, value_name, x=0.51) if log
        else _colours(_finite(grid.values), value_name, middle, x=0.51),
        updatemenus=[_player(FRAME_MILLISECONDS)],
        sliders=[_slider([str(s) for s in steps], "step ", active=len(steps) - 1)],
    )  # fmt: skip
    notes = _holes(grid.values, log) + _strays(grid, runs) + _thinned(runs, steps)
    notes += [f"{name}: its losses rise beyond the picture." for name in above]
    narrow = {
        "xaxis.domain": [0, 0.86], "yaxis.domain": [0.46, 1],
        "xaxis2.domain": [0, 0.86], "yaxis2.domain": [0, 0.3],
        "coloraxis.colorbar.x": 0.88, "coloraxis.colorbar.y": 0.73, "coloraxis.colorbar.len": 0.6,
    }  # fmt: skip
    return _finish(figure, f"A descent to play: {_in_words(grid, runs, *words)}", notes, narrow)


def chain(
    names: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    says: Mapping[str, str],
) -> go.Figure:
    """A chain played stage by stage: the first row left to right, the others right to left.

    Args:
      names: of the values, from the input on.
      rows: by heading, what is written at each value.
      says: by heading, what a frame tells: ``{name}`` and ``{value}`` are filled in.
    """
    count, headings = len(names), list(rows)
    order = [(0, i) for i in range(count)]
    order += [(r, i) for r in range(1, len(headings)) for i in reversed(range(count))]
    heights = [0.75, *(-0.75 - 0.75 * r for r in range(len(headings) - 1))]
    colours = ("#0072B2", "#D55E00", "#009E73")

    def moment(k: int) -> list[Any]:
        row, at = order[k]
        so_far = set(order[: k + 1])
        traces: list[Any] = []
        for r, heading in enumerate(headings):
            written = [rows[heading][i] if (r, i) in so_far else "" for i in range(count)]
            look = {"size": 15, "color": colours[r]}
            traces.append(go.Scatter(x=list(range(count)), y=[heights[r]] * count, text=written,
                                     mode="text", textfont=look, hoverinfo="skip"))  # fmt: skip
        told = says[headings[row]].format(name=names[at], value=rows[headings[row]][at])
        told = told.replace("<br>", ", ")
        ring = {"size": 54, "color": "rgba(0,0,0,0)", "line": {"color": colours[row], "width": 5}}
        traces.append(go.Scatter(x=[at], y=[0], mode="markers", marker=ring, hoverinfo="skip"))
        onwards = row == 0
        before = at - 0.5 if onwards else at + 0.5  # between this value and the one before
        arrow = {"size": 16, "color": colours[row], "line": {"width": 0},
                 "symbol": "triangle-right" if onwards else "triangle-left"}  # fmt: skip
        between = [before] if 0 < before < count - 1 else []
        traces.append(go.Scatter(x=between, y=[0] * len(between), mode="markers", marker=arrow,
                                 hoverinfo="skip"))  # fmt: skip
        look = {"size": 16, "color": colours[row]}
        traces.append(go.Scatter(x=[(count - 1) / 2], y=[1.45], mode="text", text=[told],
                                 textfont=look, hoverinfo="skip"))  # fmt: skip
        return traces

    node = {"size": 46, "color": "#FFFFFF", "line": {"color": "#0072B2", "width": 2}}
    still = go.Scatter(
        x=list(range(count)), y=[0] * count, mode="lines+markers+text", text=names, marker=node,
        line={"color": "#888888", "width": 2}, textfont={"size": 18, "color": "#000000"},
        hoverinfo="skip",
    )  # fmt: skip
    last = len(order) - 1
    end = moment(last)
    figure = go.Figure([still, *end])
    moving = list(range(1, len(end) + 1))
    labels = [f"{headings[row]} of {names[at]}" for row, at in order]
    figure.frames = [
        go.Frame(name=label, data=moment(k), traces=moving) for k, label in enumerate(labels)
    ]
    for heading, height, colour in zip(headings, heights, colours, strict=False):
        figure.add_annotation(
            x=0, xref="paper", y=height, text=heading, showarrow=False, xanchor="left",
            font={"color": colour, "size": 13},
        )  # fmt: skip
    figure.update_layout(
        xaxis={"visible": False, "range": [-1.1, count - 0.5], "fixedrange": True},
        yaxis={"visible": False, "range": [heights[-1] - 0.5, 1.8], "fixedrange": True},
        height=360,
        showlegend=False,
        updatemenus=[_player(STAGE_MILLISECONDS)],
        sliders=[_slider(labels, "", active=last)],
    )
    words = "; ".join(
        f"{heading} " + ", ".join(f"{n} {t}" for n, t in zip(names, texts, strict=True))
        for heading, texts in rows.items()
    )
    words = words.replace("<br>", " and ")
    lines = [line for texts in rows.values() for text in texts for line in text.split("<br>")]
    width = round((count + 0.6) * max(66, 8 * max(map(len, lines)) + 10))
    return _finish(figure, f"A chain of {count} values, played: {words}.", [], {}, width)


def _finite(values: np.ndarray) -> np.ndarray:
    """What can be drawn: the rest stays a hole."""
    return np.where(np.isfinite(values), values, np.nan)


def _decades(values: np.ndarray) -> np.ndarray:
    """The logarithm to base 10; a hole where there is none."""
    usable = np.isfinite(values) & (values > 0)
    return np.log10(np.where(usable, values, np.nan))


def _middle(values: np.ndarray) -> float:
    """Where to draw from: 0, or the middle of what spreads little for its size."""
    low, high = _ends(values)
    narrow = 0 < high - low < NARROW_SPREAD * max(abs(low), abs(high))
    return (low + high) / 2 if narrow else 0.0


def _light(values: np.ndarray, picture: np.ndarray | None = None) -> np.ndarray:
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
    low, high = _ends(values if picture is None else picture)
    rounded = finite.astype(np.float32)
    is_close = np.abs(rounded - finite).max() <= 1e-5 * (high - low)
    # Far from most of the values one of them may span all: the others must still differ.
    differ = picture is not None or np.unique(rounded).size >= 0.9 * np.unique(finite).size
    return values.astype(np.float32) if is_close and differ else values


def _solid(
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
    z = _light(values - middle).T
    told = {"hovertemplate": hover.replace("%{value", "%{z")}
    if any(middles) or middle:
        each = np.broadcast_arrays(grid.axes[0][:, None], grid.axes[1], values)
        told = {
            "customdata": np.stack([part.T for part in each], axis=-1),
            "hovertemplate": hover.replace("%{x", "%{customdata[0]").replace(
                "%{y", "%{customdata[1]").replace("%{value", "%{customdata[2]"),
        }  # fmt: skip
    shade = z if shades is None else _light(shades.T)
    return go.Surface(
        x=x, y=y, z=z, surfacecolor=shade, coloraxis=colours, name="surface", showlegend=False,
        **told,
    )  # fmt: skip


def _contour(grid: Grid, shade: np.ndarray, values: np.ndarray, colours: str, hover: str) -> Any:
    low, high = _ends(shade)
    levels = {"start": low, "end": high, "size": (high - low) / 20 or 1}
    return go.Contour(
        x=grid.axes[0], y=grid.axes[1], z=_light(shade.T), customdata=_light(values.T),
        coloraxis=colours, contours=levels, autocontour=False, connectgaps=False,
        line={"width": 0.5, "color": "rgba(255,255,255,0.6)"}, name="contour", showlegend=False,
        hovertemplate=hover.replace("%{value", "%{customdata"),
    )  # fmt: skip


def _axis(
    grid: Grid, runs: Mapping[str, Track], k: int, name: str, middle: float = 0.0
) -> dict[str, Any]:
    """A coordinate's axis: its title, its scale, and room for the runs."""
    axis, scale = grid.axes[k], grid.scales[k]
    others = [run.points[:, k] for run in runs.values()]
    layout = {"title": {"text": name}, "type": scale, "exponentformat": "power"}
    if scale == "log":
        return {**layout, "range": _room(np.log10(axis), [_decades(other) for other in others])}
    ends = _room(axis - middle, [other - middle for other in others])
    narrow = _shifted_ticks(ends, middle) if middle else {}
    if not middle and _middle(axis):
        narrow = _shifted_ticks(ends, 0.0)
    return {**layout, "range": ends, **narrow}


def _shifted_ticks(ends: Sequence[float], middle: float) -> dict[str, Any]:
    """Ticks that say what a value is, though it is drawn from the middle on."""
    marks = _words.ticks(ends[0] + middle, ends[1] + middle, log=False, count=5)
    return {"tickmode": "array", "tickvals": marks - middle, "ticktext": _words.labels(marks)}


def _flat_aspect(aspect: Aspect) -> dict[str, Any]:
    return {"scaleanchor": "x", "constrain": "domain"} if aspect == "equal" else {}


def _solid_aspect(axes: Sequence[Mapping[str, Any]], aspect: Aspect) -> dict[str, Any]:
    if aspect == "auto":
        return {"aspectmode": "cube"}
    lengths = [axis["range"][1] - axis["range"][0] for axis in axes]
    ratios = [length / max(lengths) for length in lengths]
    return {
        "aspectmode": "manual",
        "aspectratio": {"x": ratios[0], "y": ratios[1], "z": 0.8},
    }


def _hover(
    axis_names: tuple[str, str], value_name: str, name: str = "", value: str = "value"
) -> str:
    if name and value == "value":
        value = "z"
    return (
        f"{axis_names[0]}: %{{x:.5g}}<br>{axis_names[1]}: %{{y:.5g}}<br>"
        f"{value_name}: %{{{value}:.5g}}<extra>{name}</extra>"
    )


def _hover_told(axis_names: tuple[str, str], value_name: str, name: str) -> str:
    """The same where the numbers themselves travel beside what is drawn."""
    template = _hover(axis_names, value_name, name, "customdata[2]")
    return template.replace("%{x", "%{customdata[0]").replace("%{y", "%{customdata[1]")


def _look(i: int, name: str) -> dict[str, Any]:
    """Colour, dash and symbol together: each tells the runs apart alone."""
    colour = pick(PATH_COLOURS, i)
    return {
        "name": name,
        "legendgroup": name,
        "line": {"color": colour, "width": 2.5, "dash": pick(DASHES, i)},
        "marker": {"color": colour, "size": 5, "symbol": pick(SYMBOLS, i), "line": EDGE},
    }


def _at(run: Track, steps: np.ndarray) -> Track:
    """Where a run was at each of the steps shown; where it ended it stays."""
    rows = _inputs.rows_until(run, steps)
    return Track(run.points[rows], run.losses[rows], run.steps[rows])


def _pair(
    i: int, name: str, run: Track, grid: Grid, words: tuple[tuple[str, str], str], part: str
) -> list[Any]:
    """A path over the contours and its losses: the whole of them faint, a trail, or its head."""
    look = _look(i, name)
    few = "lines+markers" if len(run.steps) <= FEW_POINTS else "lines"
    mode = {"whole": "lines", "trail": few, "head": "markers"}[part]
    if part == "head":
        look["marker"] |= {"size": 13, "line": {"color": "#000000", "width": 2}}
    look |= {"mode": mode, "opacity": 0.35 if part == "whole" else 1}
    axis_names, value_name = words
    if part == "whole":
        look["hoverinfo"] = "skip"
        told = curve = None
    else:
        told = _hover(axis_names, value_name, name, "customdata")
        curve = f"step %{{x}}<br>{value_name}: %{{y:.5g}}<extra>{name}</extra>"
    x, y = (_light(run.points[:, k], grid.axes[k]) for k in (0, 1))
    return [
        go.Scatter(x=x, y=y, customdata=_light(run.losses), hovertemplate=told,
                   showlegend=part == "trail", **look),
        go.Scatter(x=run.steps, y=_light(_finite(run.losses)), xaxis="x2", yaxis="y2",
                   hovertemplate=curve, showlegend=False, **look),
    ]  # fmt: skip


def _moment(kept: Mapping[str, Track], count: int, grid: Grid, words: Any) -> list[Any]:
    """What moves, after so many of the steps shown."""
    traces = []
    for i, (name, run) in enumerate(kept.items()):
        trail, head = (Track(*(rows[part] for rows in run))
                       for part in (slice(count), slice(count - 1, count)))  # fmt: skip
        traces += _pair(i, name, trail, grid, words, "trail")
        traces += _pair(i, name, head, grid, words, "head")
    return traces


def _ends(values: np.ndarray) -> tuple[float, float]:
    shown = values[np.isfinite(values)]
    return (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)


def _room(values: np.ndarray, others: Sequence[np.ndarray]) -> list[float]:
    """The range of the surface, widened for the runs by up to a quarter at each end."""
    low, high = _ends(values)
    length = (high - low) or max(abs(high), 1.0)
    ends = [_ends(other) for other in others if np.isfinite(other).any()]
    least = min([low, *(end[0] for end in ends)])
    most = max([high, *(end[1] for end in ends)])
    margin = 0.02 * length if least < low or most > high or low == high else 0.0
    return [
        max(least, low - WIDENING * length) - margin,
        min(most, high + WIDENING * length) + margin,
    ]


def _colours(
    values: np.ndarray, value_name: str, middle: float = 0.0, **place: Any
) -> dict[str, Any]:
    """The colours of values that are drawn from ``middle`` on, labelled with what they are."""
    low, high = _ends(values)
    marks = _words.ticks(low, high, log=False)
    bar = {"title": {"text": value_name}, "thickness": 12, "len": 0.8, "tickmode": "array",
           "tickvals": marks - middle, "ticktext": _words.labels(marks), **place}  # fmt: skip
    return {"colorscale": "Viridis", "cmin": low - middle, "cmax": high - middle, "colorbar": bar}


def _log_colours(decades: np.ndarray, value_name: str, **place: Any) -> dict[str, Any]:
    """The colours of logarithms, labelled with what they are the logarithms of."""
    low, high = _ends(decades)
    bar = {"title": {"text": value_name}, "thickness": 12, "len": 0.8, **place}
    return {"colorscale": "Viridis", "cmin": low, "cmax": high,
            "colorbar": {**bar, **_log_ticks(low, high)}}  # fmt: skip


def _log_ticks(low: float, high: float, base: float = 0.0) -> dict[str, Any]:
    """Round numbers between two powers of ten, placed at their logarithms, or as they are."""
    marks = _words.ticks(10.0**low, 10.0**high, log=True)
    places = marks if base else np.log10(marks)
    return {"tickmode": "array", "tickvals": places, "ticktext": _words.labels(marks)}


def _menu(buttons: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    place = {"direction": "right", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"type": "buttons", "buttons": buttons, **place, **more}


def _player(milliseconds: int) -> dict[str, Any]:
    frame = {"duration": milliseconds, "redraw": True}
    play = {"frame": frame, "fromcurrent": True, "transition": {"duration": 0}, "mode": "immediate"}
    still = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    return _menu(
        [
            {"label": "Play", "method": "animate", "args": [None, play]},
            {"label": "Pause", "method": "animate", "args": [[None], still]},
        ],
        showactive=False,
    )


def _slider(names: Sequence[str], prefix: str, *, active: int) -> dict[str, Any]:
    jump = {
        "frame": {"duration": 0, "redraw": True},
        "mode": "immediate",
        "transition": {"duration": 0},
    }
    steps = [{"label": name, "method": "animate", "args": [[name], jump]} for name in names]
    return {"steps": steps, "active": active, "currentvalue": {"prefix": prefix}, "pad": {"t": 45}}


def _holes(values: np.ndarray, log: bool) -> list[str]:
    bad = int(np.sum(~np.isfinite(values)))
    low = int(np.sum(np.isfinite(values) & (values <= 0)))
    notes = [f"{bad:,} of {values.size:,} values are not finite: they are holes."] if bad else []
    if low and log:
        notes.append(
            f"{low:,} of {values.size:,} values are not above 0: "
            "a logarithmic scale leaves them out."
        )
    return notes


def _strays(grid: Grid, runs: Mapping[str, Track]) -> list[str]:
    """Which points of a run lie beside the surface, and which beyond what is shown."""
    notes = []
    room = [_room(a, [run.points[:, k] for run in runs.values()]) for k, a in enumerate(grid.axes)]
    for name, run in runs.items():
        columns = run.points.T
        inside = [_within(c, *_ends(axis)) for c, axis in zip(columns, grid.axes, strict=True)]
        off = len(run.points) - int(np.sum(inside[0] & inside[1]))
        seen = [_within(c, *ends) for c, ends in zip(columns, room, strict=True)]
        unseen = len(run.points) - int(np.sum(seen[0] & seen[1]))
        if off:
            beyond = f", {unseen:,} of them beyond the picture" if unseen else ""
            notes.append(
                f"{name}: {off:,} of {len(run.points):,} points lie off the surface{beyond}."
            )
    return notes


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    slack = 1e-6 * (high - low)  # an end that was rounded is no end passed
    return (values >= low - slack) & (values <= high + slack)


def _thinned(runs: Mapping[str, Track], steps: np.ndarray) -> list[str]:
    total = len(np.unique(np.concatenate([run.steps for run in runs.values()])))
    if len(steps) == total:
        return []
    shown = [f"{s:,}" for s in steps]
    few = shown if len(shown) <= 12 else [*shown[:8], "...", *shown[-2:]]
    return [
        f"{len(steps):,} of {total:,} points are shown, closer together at the start: "
        f"steps {', '.join(few)}."
    ]


def _in_words(
    grid: Grid, runs: Mapping[str, Track], axis_names: tuple[str, str], value_name: str
) -> str:
    sides = " and ".join(
        f"{name} from {_ends(axis)[0]:.4g} to {_ends(axis)[1]:.4g}"
        for name, axis in zip(axis_names, grid.axes, strict=True)
    )
    (x, y), values = grid.axes, grid.values
    found = []
    for word, choose in (("lowest", np.nanargmin), ("highest", np.nanargmax)):
        i, j = np.unravel_index(choose(_finite(values)), values.shape)
        found.append(f"{word} {values[i, j]:.4g} at ({x[i]:.4g}, {y[j]:.4g})")
    ways = "".join(f" {name}: {_journey(run)}." for name, run in runs.items())
    return f"{value_name} over {sides}; {', '.join(found)}.{ways}"


def _journey(run: Track) -> str:
    ends = [
        f"{run.losses[t]:.4g} at ({run.points[t, 0]:.4g}, {run.points[t, 1]:.4g})" for t in (0, -1)
    ]
    return f"{run.steps[-1]:,} steps from {ends[0]} to {ends[1]}"


def _finish(
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
