"""Figures to turn and to play, built with Plotly from plain arrays.

A figure works alone, in a notebook, with Plotly's own buttons and slider. Its ``layout.meta``
says the same for a page that has better ones: ``description``, what there is to see in words;
``notes``, what a reader must know; ``narrow``, changes of the layout for a small screen;
``width``, the pixels below which it cannot be read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from jaxgd.plots import _plotly_parts as parts
from jaxgd.plots import _runs
from jaxgd.plots._inputs import Grid
from jaxgd.plots._runs import Track
from jaxgd.plots._style import Aspect

FRAME_MILLISECONDS = 60
STAGE_MILLISECONDS = 900


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
    linear, decades = parts.finite(grid.values), parts.decades(grid.values)
    middles = [parts.middle_of(axis) for axis in grid.axes]
    middle = parts.middle_of(linear)
    has_log = bool(np.isfinite(decades).any()) and middle == 0
    hover = parts.hover(axis_names, value_name)
    solid = parts.solid(grid, linear, middles, middle, "coloraxis", hover)
    views = {
        "3-D": solid,
        "contour": parts.contour(grid, linear - middle, linear, "coloraxis", hover),
    }
    if has_log:
        positive = np.where(np.isfinite(decades), linear, np.nan)
        views |= {
            "3-D, log": parts.solid(grid, positive, middles, 0.0, "coloraxis2", hover, decades),
            "contour, log": parts.contour(grid, decades, positive, "coloraxis2", hover),
        }
    notes = parts.holes(grid.values, has_log) + parts.strays(grid, runs)
    if middle != 0:
        notes.append("The values are so close to each other that no logarithmic scale is needed.")
    elif not has_log:
        notes.append("No value is above 0: there is no logarithmic scale.")
    shown = "3-D, log" if log and has_log else "3-D"
    figure = go.Figure([trace.update(visible=view == shown) for view, trace in views.items()])
    for i, (name, run) in enumerate(runs.items()):
        look = parts.style_of(i, name)
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
            "hovertemplate": parts.hover_told(axis_names, value_name, name),
        } if any(middles) or middle else {
            "hovertemplate": parts.hover(axis_names, value_name, name)
        }  # fmt: skip
        x_of, y_of = (
            parts.light(column - m, axis)
            for column, m, axis in zip(columns, middles, grid.axes, strict=True)
        )
        figure.add_scatter3d(
            x=x_of, y=y_of, z=parts.light(parts.finite(run.losses) - middle), mode="lines+markers",
            **told, **solid_look,
        )  # fmt: skip
        x_of, y_of = (
            parts.light(column, axis) for column, axis in zip(columns, grid.axes, strict=True)
        )
        figure.add_scatter(
            x=x_of, y=y_of, customdata=parts.light(run.losses), mode="lines+markers", visible=False,
            hovertemplate=parts.hover(axis_names, value_name, name, "customdata"), **look,
        )  # fmt: skip

    flat = [parts.axis(grid, runs, k, axis_names[k]) for k in (0, 1)]
    deep = [parts.axis(grid, runs, k, axis_names[k], middles[k]) for k in (0, 1)]
    losses = [run.losses for run in runs.values()]
    heights = {
        "linear": parts.widened(linear - middle, [each - middle for each in losses]),
        "log": parts.widened(decades, [parts.decades(each) for each in losses]),
    }
    marks = parts.shifted_ticks(heights["linear"], middle) if middle else {"tickmode": "auto"}
    zaxis = {"linear": marks, "log": parts.log_ticks(*heights["log"], base=10.0)}

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
            **parts.solid_aspect(deep, aspect),
        },
        xaxis={**flat[0], "automargin": True},
        yaxis={**flat[1], "automargin": True, **parts.flat_aspect(aspect)},
        coloraxis=parts.colours(linear, value_name, middle),
        coloraxis2=parts.log_colours(decades, value_name),
        uirevision="kept",  # turning a figure is not undone by a button
        updatemenus=[parts.menu(buttons, active=sorted(views).index(shown))],
    )
    figure.update_layout(state(shown)[1])
    words = parts.in_words(grid, runs, axis_names, value_name)
    narrow = {"scene.camera.eye": {"x": 1.95, "y": -2.1, "z": 1.15}}  # the labels need room
    return parts.finish(figure, f"A surface to turn: {words}", notes, narrow)


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
    middle = 0.0 if log else parts.middle_of(parts.finite(grid.values))
    shades = parts.decades(grid.values) if log else parts.finite(grid.values) - middle
    words = axis_names, value_name
    contours = parts.contour(
        grid, shades, parts.finite(grid.values), "coloraxis", parts.hover(*words)
    )
    kept = {name: parts.at(run, steps) for name, run in runs.items()}
    whole, moving = parts.whole_and_moving(kept, grid, words)
    figure = go.Figure([contours, *whole, *moving])
    places = list(range(1 + len(whole), 1 + len(whole) + len(moving)))
    figure.frames = [
        go.Frame(name=str(step), data=parts.moment(kept, k + 1, grid), traces=places)
        for k, step in enumerate(steps)
    ]
    x_axis, y_axis = (parts.axis(grid, runs, k, axis_names[k]) for k in (0, 1))
    low, high, is_log = _runs.loss_limits(runs)
    above = [
        name for name, run in runs.items() if (run.losses[np.isfinite(run.losses)] > high).any()
    ]
    ends = np.log10([low, high]) if is_log else np.array([low, high])
    margin = 0.05 * (ends[1] - ends[0]) or 1.0
    # With redraw off, Plotly takes the contours away with the first frame.
    figure.update_layout(
        xaxis={**x_axis, "domain": [0, 0.5]},
        yaxis={**y_axis, **parts.flat_aspect(aspect)},
        xaxis2={"title": {"text": "step"}, "domain": [0.68, 1], "anchor": "y2",
                "range": [0, 1.04 * max(int(steps[-1]), 1)]},
        yaxis2={"title": {"text": value_name}, "anchor": "x2", "nticks": 6,
                "type": "log" if is_log else "linear", "exponentformat": "power",
                **(parts.log_marks(*ends) if is_log else {}),
                "range": [ends[0] - margin, ends[1] + margin]},
        coloraxis=parts.log_colours(shades, value_name, x=0.51) if log
        else parts.colours(parts.finite(grid.values), value_name, middle, x=0.51),
        updatemenus=[parts.player(FRAME_MILLISECONDS)],
        sliders=[parts.slider([str(s) for s in steps], "step ", active=len(steps) - 1)],
    )  # fmt: skip
    notes = parts.holes(grid.values, log) + parts.strays(grid, runs) + parts.thinned(runs, steps)
    notes += [f"{name}: its losses rise beyond the picture." for name in above]
    narrow = {
        "xaxis.domain": [0, 0.86], "yaxis.domain": [0.46, 1],
        "xaxis2.domain": [0, 0.86], "yaxis2.domain": [0, 0.3],
        "coloraxis.colorbar.x": 0.88, "coloraxis.colorbar.y": 0.73, "coloraxis.colorbar.len": 0.6,
    }  # fmt: skip
    return parts.finish(
        figure, f"A descent to play: {parts.in_words(grid, runs, *words)}", notes, narrow
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
        updatemenus=[parts.player(STAGE_MILLISECONDS)],
        sliders=[parts.slider(labels, "", active=last)],
    )
    written = {
        heading: [f"({text.replace('<br>', ', ')})" if "<br>" in text else text for text in texts]
        for heading, texts in rows.items()
    }
    words = "; ".join(
        f"{heading} " + ", ".join(f"{n} = {t}" for n, t in zip(names, texts, strict=True))
        for heading, texts in written.items()
    )
    lines = [line for texts in rows.values() for text in texts for line in text.split("<br>")]
    width = round((count + 0.6) * max(66, 8 * max(map(len, lines)) + 10))
    return parts.finish(figure, f"A chain of {count} values, played: {words}.", [], {}, width)
