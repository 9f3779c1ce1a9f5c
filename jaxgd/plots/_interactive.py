"""Figures to turn and to play, built with Plotly from plain arrays. ``plots`` is the way in.

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

Run = tuple[np.ndarray, np.ndarray]  # points (T, 2), losses (T,)

COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#009E73")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "x", "cross", "circle-open")
EDGE = {"color": "#000000", "width": 1}
FEW_POINTS = 40  # a mark for each point; more would hide the line
WIDENING = 0.25  # of the surface's own length, to show where a path leaves it
FRAME_MILLISECONDS = 60
STAGE_MILLISECONDS = 900


def surface(
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    runs: Mapping[str, Run],
    *,
    axis_names: tuple[str, str],
    value_name: str,
    log: bool,
) -> go.Figure:
    """A surface to turn, its contours, both on a linear and on a logarithmic scale."""
    linear, decades = _finite(values), _decades(values)
    has_log = bool(np.isfinite(decades).any())
    hover = _hover(axis_names, value_name)
    views = {
        "3-D": _solid(x, y, linear, linear, "coloraxis", hover),
        "contour": _contour(x, y, linear, linear, "coloraxis", hover),
    }
    if has_log:
        positive = np.where(np.isfinite(decades), linear, np.nan)
        views |= {
            "3-D, log": _solid(x, y, positive, decades, "coloraxis2", hover),
            "contour, log": _contour(x, y, decades, positive, "coloraxis2", hover),
        }
    notes = _holes(values, has_log) + _strays(x, y, runs)
    if not has_log:
        notes.append("No value is above 0: there is no logarithmic scale.")
    shown = "3-D, log" if log else "3-D"
    figure = go.Figure([trace.update(visible=view == shown) for view, trace in views.items()])
    for i, (name, (points, losses)) in enumerate(runs.items()):
        look = _look(i, name)
        line = {**look["line"], "width": 6}
        solid = {
            **look,
            "line": line,
            "marker": {**look["marker"], "size": 3, "line": {"width": 0}},
        }
        if solid["marker"]["symbol"] == "x":
            solid["marker"]["size"] = 2
        x_of, y_of = _light(points[:, 0]), _light(points[:, 1])
        figure.update_traces(opacity=0.85, selector={"type": "surface"})  # a path may lie below
        figure.add_scatter3d(
            x=x_of, y=y_of, z=_light(_finite(losses)), mode="lines+markers",
            hovertemplate=_hover(axis_names, value_name, name), **solid,
        )  # fmt: skip
        figure.add_scatter(
            x=x_of, y=y_of, customdata=_light(losses), mode="lines+markers", visible=False,
            hovertemplate=_hover(axis_names, value_name, name, "customdata"), **look,
        )  # fmt: skip

    x_range, y_range = (_room(axis, [p[:, k] for p, _ in runs.values()])
                        for k, axis in enumerate((x, y)))  # fmt: skip
    heights = {
        "linear": _room(linear, [losses for _, losses in runs.values()]),
        "log": _room(decades, [_decades(losses) for _, losses in runs.values()]),
    }

    def state(view: str) -> tuple[dict[str, Any], dict[str, Any]]:
        scale, flat = ("log" if "log" in view else "linear"), view.startswith("contour")
        return (
            {"visible": [other == view for other in views] + [not flat, flat] * len(runs)},
            {
                "scene.zaxis.type": scale,
                "scene.zaxis.range": heights[scale],
                "scene.zaxis.tickmode": "auto" if scale == "linear" else "array",
                "xaxis.visible": flat,
                "yaxis.visible": flat,
            },
        )

    buttons = [{"label": v, "method": "update", "args": list(state(v))} for v in sorted(views)]
    plain = {"showbackground": False, "nticks": 6}
    axes = {"title": {"text": axis_names[0]}}, {"title": {"text": axis_names[1]}}
    figure.update_layout(
        scene={
            "xaxis": {**axes[0], **plain, "range": x_range},
            "yaxis": {**axes[1], **plain, "range": y_range},
            "zaxis": {"title": {"text": value_name}, **plain, **_log_ticks(heights["log"], 10.0)},
            "camera": {
                "eye": {"x": 1.4, "y": -1.5, "z": 0.85},
                "center": {"x": 0, "y": 0, "z": -0.1},
            },
            "aspectmode": "cube",
        },
        xaxis={**axes[0], "range": x_range, "automargin": True},
        yaxis={**axes[1], "range": y_range, "automargin": True},
        coloraxis=_colours(linear, value_name),
        coloraxis2=_log_colours(decades, value_name),
        uirevision="kept",  # turning a figure is not undone by a button
        updatemenus=[_menu(buttons, active=sorted(views).index(shown))],
    )
    figure.update_layout(state(shown)[1])
    words = _in_words(x, y, values, runs, axis_names, value_name)
    narrow = {"scene.camera.eye": {"x": 1.95, "y": -2.1, "z": 1.15}}  # the labels need room
    return _finish(figure, f"A surface to turn: {words}", notes, narrow)


def descent(
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    runs: Mapping[str, Run],
    steps: np.ndarray,
    *,
    axis_names: tuple[str, str],
    value_name: str,
    log: bool,
) -> go.Figure:
    """Contours, the runs over them, and their losses, played step by step."""
    shades = _decades(values) if log else _finite(values)
    words = axis_names, value_name
    still = [_contour(x, y, shades, _finite(values), "coloraxis", _hover(*words))]
    kept = {name: _at(run, steps) for name, run in runs.items()}
    for i, (name, rows) in enumerate(kept.items()):
        still += _pair(i, name, rows, words, "whole")
    end = _moment(kept, len(steps), words)
    moving = list(range(len(still), len(still) + len(end)))
    figure = go.Figure([*still, *end])
    figure.frames = [
        go.Frame(
            name=str(step),
            data=_moment(kept, k + 1, words),
            traces=moving,
        )
        for k, step in enumerate(steps)
    ]
    ranges = [_room(a, [p[:, k] for p, _ in runs.values()]) for k, a in enumerate((x, y))]
    every = np.concatenate([losses for _, losses in runs.values()])
    positive = bool((every[np.isfinite(every)] > 0).all())
    colours = _log_colours if log else _colours
    figure.update_layout(
        xaxis={"title": {"text": axis_names[0]}, "domain": [0, 0.5], "range": ranges[0]},
        yaxis={"title": {"text": axis_names[1]}, "range": ranges[1]},
        xaxis2={"title": {"text": "step"}, "domain": [0.68, 1], "anchor": "y2",
                "range": [0, 1.04 * max(int(steps[-1]), 1)]},
        yaxis2={"title": {"text": value_name}, "anchor": "x2",
                "type": "log" if positive else "linear", "nticks": 6},
        coloraxis=colours(shades, value_name, x=0.51),
        updatemenus=[_player(FRAME_MILLISECONDS, redraw=False)],
        sliders=[_slider([str(s) for s in steps], "step ", redraw=False, active=len(steps) - 1)],
    )  # fmt: skip
    notes = _holes(values, log) + _strays(x, y, runs) + _thinned(steps)
    narrow = {
        "xaxis.domain": [0, 0.86], "yaxis.domain": [0.46, 1],
        "xaxis2.domain": [0, 0.86], "yaxis2.domain": [0, 0.3],
        "coloraxis.colorbar.x": 0.88, "coloraxis.colorbar.y": 0.73, "coloraxis.colorbar.len": 0.6,
    }  # fmt: skip
    return _finish(
        figure, f"A descent to play: {_in_words(x, y, values, runs, *words)}", notes, narrow
    )


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
        updatemenus=[_player(STAGE_MILLISECONDS, redraw=True)],
        sliders=[_slider(labels, "", redraw=True, active=last)],
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


def _light(values: np.ndarray) -> np.ndarray:
    """In single precision, which holds seven digits, where the range allows it."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    fits = size.size == 0 or (size.max() < 1e38 and size.min() > 1e-37)
    return values.astype(np.float32) if fits else values


def _solid(x: Any, y: Any, z: Any, shade: Any, colours: str, hover: str) -> Any:
    # Plotly reads rows as y, a Surface reads them as the first coordinate: hence .T.
    return go.Surface(
        x=_light(x), y=_light(y), z=_light(z.T), surfacecolor=_light(shade.T), coloraxis=colours,
        hovertemplate=hover.replace("%{value", "%{z"), name="surface", showlegend=False,
    )  # fmt: skip


def _contour(x: Any, y: Any, shade: Any, values: Any, colours: str, hover: str) -> Any:
    low, high = _ends(shade)
    levels = {"start": low, "end": high, "size": (high - low) / 20 or 1}
    return go.Contour(
        x=_light(x), y=_light(y), z=_light(shade.T), customdata=_light(values.T),
        coloraxis=colours, contours=levels, autocontour=False, connectgaps=False,
        line={"width": 0.5, "color": "rgba(255,255,255,0.6)"}, name="contour", showlegend=False,
        hovertemplate=hover.replace("%{value", "%{customdata"),
    )  # fmt: skip


def _hover(
    axis_names: tuple[str, str], value_name: str, name: str = "", value: str = "value"
) -> str:
    if name and value == "value":
        value = "z"
    return (
        f"{axis_names[0]}: %{{x:.5g}}<br>{axis_names[1]}: %{{y:.5g}}<br>"
        f"{value_name}: %{{{value}:.5g}}<extra>{name}</extra>"
    )


def _look(i: int, name: str) -> dict[str, Any]:
    """Colour, dash and symbol together: each tells the runs apart alone."""
    colour = COLOURS[i % len(COLOURS)]
    return {
        "name": name,
        "legendgroup": name,
        "line": {"color": colour, "width": 2.5, "dash": DASHES[i % len(DASHES)]},
        "marker": {"color": colour, "size": 5, "symbol": SYMBOLS[i % len(SYMBOLS)], "line": EDGE},
    }


def _at(run: Run, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The steps that a run took among those shown, its own last one included; points; losses."""
    points, losses = run
    last = len(losses) - 1
    taken = np.minimum(steps, last)
    return taken, points[taken], losses[taken]


def _pair(i: int, name: str, rows: Any, words: tuple[tuple[str, str], str], part: str) -> list[Any]:
    """A path over the contours and its losses: the whole of them faint, a trail, or its head."""
    taken, points, losses = rows
    look = _look(i, name)
    few = "lines+markers" if len(taken) <= FEW_POINTS else "lines"
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
    return [
        go.Scatter(x=_light(points[:, 0]), y=_light(points[:, 1]), customdata=_light(losses),
                   hovertemplate=told, showlegend=part == "trail", **look),
        go.Scatter(x=taken, y=_light(_finite(losses)), xaxis="x2", yaxis="y2",
                   hovertemplate=curve, showlegend=False, **look),
    ]  # fmt: skip


def _moment(kept: Mapping[str, Any], count: int, words: Any) -> list[Any]:
    """What moves, after so many of the steps shown."""
    traces = []
    for i, (name, arrays) in enumerate(kept.items()):
        traces += _pair(i, name, [rows[:count] for rows in arrays], words, "trail")
        traces += _pair(i, name, [rows[count - 1 : count] for rows in arrays], words, "head")
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


def _colours(values: np.ndarray, value_name: str, **place: Any) -> dict[str, Any]:
    low, high = _ends(values)
    bar = {"title": {"text": value_name}, "thickness": 12, "len": 0.8, **place}
    return {"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar}


def _log_colours(decades: np.ndarray, value_name: str, **place: Any) -> dict[str, Any]:
    """The colours of logarithms, labelled with what they are the logarithms of."""
    colours = _colours(decades, value_name, **place)
    colours["colorbar"] |= _log_ticks((colours["cmin"], colours["cmax"]))
    return colours


def _log_ticks(ends: Sequence[float], base: float | None = None) -> dict[str, Any]:
    """Six ticks in equal ratios, placed at their logarithms, or with a base at the values."""
    ticks = np.linspace(ends[0], ends[1], 6)
    words = [f"{10.0**tick:.2g}" for tick in ticks]
    return {"tickvals": ticks if base is None else base**ticks, "ticktext": words}


def _menu(buttons: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    place = {"direction": "right", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"type": "buttons", "buttons": buttons, **place, **more}


def _player(milliseconds: int, *, redraw: bool) -> dict[str, Any]:
    frame = {"duration": milliseconds, "redraw": redraw}
    play = {"frame": frame, "fromcurrent": True, "transition": {"duration": 0}, "mode": "immediate"}
    still = {"frame": {"duration": 0, "redraw": redraw}, "mode": "immediate"}
    return _menu(
        [
            {"label": "Play", "method": "animate", "args": [None, play]},
            {"label": "Pause", "method": "animate", "args": [[None], still]},
        ],
        showactive=False,
    )


def _slider(names: Sequence[str], prefix: str, *, redraw: bool, active: int) -> dict[str, Any]:
    jump = {
        "frame": {"duration": 0, "redraw": redraw},
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


def _strays(x: np.ndarray, y: np.ndarray, runs: Mapping[str, Run]) -> list[str]:
    """Which points of a run lie beside the surface, and which beyond what is shown."""
    notes = []
    for name, (points, _) in runs.items():
        inside = [_within(points[:, k], *_ends(axis)) for k, axis in enumerate((x, y))]
        off = len(points) - int(np.sum(inside[0] & inside[1]))
        view = [_room(a, [p[:, k] for p, _ in runs.values()]) for k, a in enumerate((x, y))]
        seen = [_within(points[:, k], *view[k]) for k in (0, 1)]
        unseen = len(points) - int(np.sum(seen[0] & seen[1]))
        if off:
            beyond = f", {unseen:,} of them beyond the picture" if unseen else ""
            notes.append(f"{name}: {off:,} of {len(points):,} points lie off the surface{beyond}.")
    return notes


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    slack = 1e-6 * (high - low)  # an end that was rounded is no end passed
    return (values >= low - slack) & (values <= high + slack)


def _thinned(steps: np.ndarray) -> list[str]:
    total = int(steps[-1]) + 1
    if len(steps) == total:
        return []
    shown = ", ".join(f"{s:,}" for s in steps)
    few = (
        shown
        if len(steps) <= 12
        else ", ".join(f"{s:,}" for s in (*steps[:8], "...") if s != "...")
    )
    if len(steps) > 12:
        few += f", ..., {steps[-2]:,}, {steps[-1]:,}"
    return [
        f"{len(steps):,} of {total:,} points are shown, closer together at the start: steps {few}."
    ]


def _in_words(
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    runs: Mapping[str, Run],
    axis_names: tuple[str, str],
    value_name: str,
) -> str:
    sides = " and ".join(
        f"{name} from {_ends(axis)[0]:.4g} to {_ends(axis)[1]:.4g}"
        for name, axis in zip(axis_names, (x, y), strict=True)
    )
    if not np.isfinite(values).any():
        return f"{value_name} over {sides}: no value is finite."
    found = []
    for word, pick in (("lowest", np.nanargmin), ("highest", np.nanargmax)):
        i, j = np.unravel_index(pick(_finite(values)), values.shape)
        found.append(f"{word} {values[i, j]:.4g} at ({x[i]:.4g}, {y[j]:.4g})")
    ways = "".join(f" {name}: {_journey(run)}." for name, run in runs.items())
    return f"{value_name} over {sides}; {', '.join(found)}.{ways}"


def _journey(run: Run) -> str:
    points, losses = run
    ends = [f"{losses[t]:.4g} at ({points[t, 0]:.4g}, {points[t, 1]:.4g})" for t in (0, -1)]
    return f"{len(losses) - 1:,} steps from {ends[0]} to {ends[1]}"


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
