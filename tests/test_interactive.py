"""What is turned and what is played is what was computed."""

import sys
from typing import Any

import _runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import chains, plots, surfaces

surface_of: Any = surfaces.Surface

# Plotly's attributes are made when they are asked for: its figures are Any.
turned: Any = plots.interactive_surface
played: Any = plots.interactive_descent
chained: Any = plots.interactive_backprop
filmed: Any = plots.animate_descent

HALVES = np.linspace(0.5, 4, 7, dtype=np.float32)
LINE = surface_of(coordinates=(HALVES,), values=HALVES**2)
AXES = np.linspace(0, 1, 4, dtype=np.float32), np.linspace(0, 2, 6, dtype=np.float32)
GRID = surface_of(AXES, 1 + AXES[0][:, None] ** 2 + 10 * AXES[1])
POINTS = np.array([[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]])
PATH = POINTS, np.array([1.0, 11.5, 22.0])


def views(figure):
    return {b.label: b.args for b in figure.layout.updatemenus[0].buttons}


def shown(figure):
    return [trace.type for trace in figure.data if trace.visible is not False]


def test_an_interactive_surface_holds_each_value_at_its_own_coordinates():
    tens = surfaces.sweep(lambda a, b: 10 * a + b, jnp.arange(3.0), 3 + jnp.arange(5.0))
    for trace in turned(tens).data[:2]:
        z = np.asarray(trace.z if trace.type == "surface" else trace.customdata)
        assert z.shape == (5, 3)
        for i, a in enumerate(trace.x):
            for j, b in enumerate(trace.y):
                assert z[j, i] == 10 * a + b


def test_an_interactive_surface_shows_one_view_and_each_button_another():
    figure = turned(GRID, {"run": PATH}, axis_names=("w", "b"))
    assert set(views(figure)) == {"3-D", "3-D, log", "contour", "contour, log"}
    assert shown(figure) == ["surface", "scatter3d"]
    for label, (restyle, relayout) in views(figure).items():
        kinds = [
            trace.type
            for trace, visible in zip(figure.data, restyle["visible"], strict=True)
            if visible
        ]
        flat = label.startswith("contour")
        assert kinds == (["contour", "scatter"] if flat else ["surface", "scatter3d"])
        assert relayout["scene.zaxis.type"] == ("log" if "log" in label else "linear")
    assert figure.layout.scene.xaxis.title.text == "w"
    np.testing.assert_allclose(figure.data[-2].z, PATH[1])


def test_a_logarithmic_surface_has_the_colours_of_its_logarithms():
    figure = turned(GRID, log=True)
    solid = next(trace for trace in figure.data if trace.visible)
    np.testing.assert_allclose(solid.z, np.asarray(GRID.values).T)
    np.testing.assert_allclose(solid.surfacecolor, np.log10(GRID.values).T, rtol=1e-6)
    assert figure.layout.scene.zaxis.type == "log"


def test_what_is_not_finite_is_a_hole_and_what_is_not_positive_is_named():
    values = np.asarray(GRID.values).copy()
    values[0, 1], values[2, 3], values[1, 1] = np.nan, np.inf, -7.0
    figure = turned(GRID._replace(values=values))
    z = np.asarray(figure.data[0].z).T
    assert np.isnan(z[0, 1])
    assert np.isnan(z[2, 3])
    kept = np.isfinite(values)
    np.testing.assert_array_equal(z[kept], values[kept].astype(np.float32))
    notes = " ".join(figure.layout.meta["notes"])
    assert "2 of 24 values are not finite: they are holes." in notes
    assert "1 of 24 values are not above 0: a logarithmic scale leaves them out." in notes
    assert f"lowest {-7.0:g} at (0.3333, 0.4)" in figure.layout.meta["description"]


def test_without_a_positive_value_there_is_no_logarithmic_button():
    figure = turned(GRID._replace(values=-GRID.values))
    assert set(views(figure)) == {"3-D", "contour"}
    assert "there is no logarithmic scale" in figure.layout.meta["notes"][-1]


def test_values_beyond_single_precision_are_not_altered():
    huge = np.asarray(GRID.values, float) * 1e40
    np.testing.assert_array_equal(turned(GRID._replace(values=huge)).data[0].z, huge.T)


def test_points_off_the_surface_are_drawn_and_counted():
    points = np.array([[0.5, 1.0], [1.2, 1.0], [9.0, 1.0]])
    figure = turned(GRID, {"run": (points, np.ones(3))})
    (note,) = figure.layout.meta["notes"]
    assert note == "run: 2 of 3 points lie off the surface, 1 of them beyond the picture."
    low, high = figure.layout.scene.xaxis.range
    assert low <= 0
    assert 1.2 < high < 1.3
    np.testing.assert_allclose(figure.data[-1].x, points[:, 0])


@pytest.mark.parametrize(
    "form",
    [
        lambda run, a, b: run,
        lambda run, a, b: run._replace(path=jnp.stack([a, b], axis=1)),
        lambda run, a, b: run._replace(path=(a, b[:, None])),
        lambda run, a, b: (np.stack([a, b], axis=1), run.losses),
    ],
)
def test_a_run_is_a_trajectory_of_two_scalars_or_points_with_losses(form):
    rose = _runs.rose()
    figure = played(GRID, {"rose": form(rose, rose.path["a"], rose.path["b"])})
    path, curve = (trace for trace in figure.data if trace.opacity == 0.35)
    np.testing.assert_allclose(path.x, 0.2 ** np.arange(7), rtol=1e-5)
    np.testing.assert_allclose(path.y, -2 * 0.92 ** np.arange(7), rtol=1e-5)
    np.testing.assert_allclose(
        curve.y, 10 * 0.04 ** np.arange(7) + 4 * 0.8464 ** np.arange(7), rtol=1e-5
    )


def test_a_frame_shows_each_run_up_to_its_step_and_an_ended_one_at_its_end():
    short = POINTS[:2], PATH[1][:2]
    figure = played(GRID, {"long": PATH, "short": short})
    assert [frame.name for frame in figure.frames] == ["0", "1", "2"]
    assert [step.args[0] for step in figure.layout.sliders[0].steps] == [("0",), ("1",), ("2",)]
    for k, frame in enumerate(figure.frames):
        trail, curve, head, tip, short_trail, *_ = frame.data
        np.testing.assert_allclose(trail.x, POINTS[: k + 1, 0])
        np.testing.assert_allclose(curve.y, PATH[1][: k + 1])
        np.testing.assert_allclose((head.x[0], head.y[0]), POINTS[k])
        assert (tip.x[0], tip.y[0]) == (k, PATH[1][k])
        assert short_trail.y[-1] == POINTS[min(k, 1), 1]
        assert [figure.data[i].name for i in frame.traces] == ["long"] * 4 + ["short"] * 4


def test_a_long_run_is_thinned_and_says_to_which_steps():
    t = np.arange(5001.0)
    figure = played(GRID, {"r": (np.stack([t, t], 1), t + 1)}, num_frames=60)
    steps = [int(frame.name) for frame in figure.frames]
    assert len(steps) <= 60
    assert (steps[0], steps[1], steps[-1]) == (0, 1, 5000)
    assert steps == sorted(set(steps))
    np.testing.assert_allclose(figure.data[1].x, steps)
    note = figure.layout.meta["notes"][-1]
    assert note.startswith(f"{len(steps)} of 5,001 points are shown")
    assert note.endswith(f"{steps[-2]:,}, 5,000.")
    assert len(played(GRID, {"r": PATH}, num_frames=3).frames) == 3


def test_a_chain_is_played_forwards_then_backwards():
    stages = [jnp.square, jnp.log]
    trace, correction = chains.backprop(stages, 2.0), chains.correct(stages, 2.0, 1.0)
    figure = chained(trace, correction, names=("x", "a", "b"))
    order = [
        (row, name)
        for row, names in (("value", "xab"), ("adjoint", "bax"), ("delta", "bax"))
        for name in names
    ]
    assert [frame.name for frame in figure.frames] == [f"{row} of {name}" for row, name in order]
    texts = [
        [list(trace.text) for trace in frame.data if trace.mode == "text"]
        for frame in figure.frames
    ]
    assert texts[1] == [["2", "4", ""], [""] * 3, [""] * 3, ["Forwards: a = 4"]]
    assert texts[4][1] == ["", "0.25", "1"]
    assert texts[4][3] == ["Backwards: d b / d a = 0.25"]
    delta = (np.log(4) - 1) / 1.0
    assert texts[-1][2] == [f"{delta:.4g}", f"{delta * 4:.4g}", f"{delta:.4g}"]
    assert len(chained(trace).frames) == 6


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: turned(LINE), ValueError, "surface must have two"),
        (lambda: turned(GRID.values), TypeError, "surface must be a Surface"),
        (
            lambda: turned(GRID._replace(values=-GRID.values), log=True),
            ValueError,
            "positive values on a log scale",
        ),
        (
            lambda: turned(GRID._replace(values=GRID.values * jnp.nan)),
            ValueError,
            "values must be finite",
        ),
        (lambda: turned(GRID, {"run": POINTS}), TypeError, r"runs\['run'\] must be a tuple"),
        (
            lambda: turned(GRID, {"run": (POINTS,)}),
            ValueError,
            r"runs\['run'\] must be a pair of points and losses, got a tuple of 1",
        ),
        (
            lambda: turned(GRID, {"run": (POINTS, PATH[1][:2])}),
            ValueError,
            r"must have one loss per point, got \(2,\) for 3 points",
        ),
        (
            lambda: turned(GRID, {"run": (POINTS[:, :1], PATH[1])}),
            ValueError,
            r"two numbers per point, shape \(T, 2\), got \(3, 1\)",
        ),
        (
            lambda: turned(GRID, _runs.line()),
            ValueError,
            r"runs\['descent'\] must have two numbers per point.*record",
        ),
        (
            lambda: played(GRID, [_runs.line()]),
            ValueError,
            r"runs\['run 1'\] must have two numbers per point.*record",
        ),
        (
            lambda: played(GRID, [jax.tree.map(lambda r: r[None], _runs.rose())]),
            ValueError,
            "must be one run.*Pick one lane",
        ),
        (lambda: played(GRID, {}), ValueError, "there must be a descent, got none"),
        (
            lambda: played(GRID, [PATH], num_frames=1),
            ValueError,
            "num_frames must be at least 2, got 1",
        ),
        (lambda: played(GRID, [PATH], num_frames=9.5), TypeError, "num_frames must be an int"),
        (lambda: chained(_runs.solution()), TypeError, "trace must be a Trace"),
        (
            lambda: chained(_runs.trace(), _runs.trace()),
            TypeError,
            "correction must be a Correction",
        ),
        (
            lambda: chained(_runs.trace(), names="xa"),
            ValueError,
            "expected 3 names, one per value, got 2",
        ),
        (
            lambda: chained(_runs.trace(), chains.correct([jnp.square], 2.0, 1.0)),
            ValueError,
            r"expected 3 correction\.deltas",
        ),
        (lambda: filmed(GRID, {}), ValueError, "there must be a descent, got none"),
        (lambda: filmed(LINE, [PATH]), ValueError, "surface must have two coordinates"),
        (lambda: filmed(GRID, 3), TypeError, "runs must be a mapping, list or tuple, got 3"),
        (lambda: filmed(GRID, [PATH], num_frames=0), ValueError, "num_frames must be at least 2"),
    ],
)
def test_what_cannot_be_turned_or_played_is_refused_by_name(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_without_plotly_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ModuleNotFoundError) as error:
        turned(GRID)
    said = "plots.interactive_surface: plotly is not installed. "
    assert str(error.value) == said + 'Run: pip install -e ".[interactive]".'
    assert error.value.name == "plotly"


def spread(values):
    values = np.asarray(values, float)
    return np.nanmax(values) - np.nanmin(values)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("height", "bend"), [(1e6, 0.01), (1.0, 1e-8), (-3e9, 1.0), (2.0, 1e-3), (0.0, 1e-30)]
)
def test_a_small_spread_at_a_great_height_is_not_drawn_flat(height, bend):
    axis = jnp.linspace(-1, 1, 9)
    surface = surfaces.sweep(lambda a, b: height + bend * (a**2 + b**2), axis, axis)
    truth = np.asarray(surface.values).T - height
    figure = turned(surface, {"run": (np.zeros((2, 2)), [height, height + bend])})
    for trace in figure.data[:2]:
        # Browsers draw three dimensions in single precision.
        seen = np.asarray(trace.z, np.float32 if trace.type == "surface" else float)
        np.testing.assert_allclose(seen - seen.min(), truth, atol=2e-3 * 2 * bend)
    path = next(trace for trace in figure.data if trace.type == "scatter3d")
    np.testing.assert_allclose(spread(np.asarray(path.z, np.float32)), bend, rtol=2e-3)
    ends = figure.layout.scene.zaxis.range
    assert ends[1] - ends[0] < 4 * bend
    labels = figure.layout.coloraxis.colorbar.ticktext
    assert len(set(labels)) == len(labels) >= 3
    played_values = played(surface, {"run": (np.zeros((2, 2)), [height, height])}).data[0].z
    np.testing.assert_allclose(spread(played_values), 2 * bend, rtol=2e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("middle", "half"), [(1.0, 1e-9), (2.0, 1e-7), (1e6, 1e-3)])
def test_an_axis_of_a_small_spread_keeps_its_points(middle, half):
    axis = middle + half * jnp.linspace(-1, 1, 9)
    surface = surfaces.sweep(lambda a, b: ((a - middle) / half) ** 2 + b, axis, jnp.arange(3.0))
    path = np.stack([np.asarray(axis), np.ones(9)], 1), np.ones(9)
    figure = turned(surface, {"run": path})
    for trace in figure.data:
        x = np.asarray(trace.x, np.float32 if trace.type in {"surface", "scatter3d"} else float)
        assert np.unique(x).size == 9
        np.testing.assert_allclose(np.diff(x), half / 4, rtol=0.2 if middle == 1e6 else 1e-5)
    labels = figure.layout.scene.xaxis.ticktext
    assert len(set(labels)) == len(labels) >= 3
    np.testing.assert_allclose(np.asarray(figure.data[0].customdata)[0, :, 0], axis)


def test_one_far_value_does_not_take_the_digits_of_the_others():
    values = 1e6 + 0.01 * np.add.outer(np.arange(21.0) ** 2, np.arange(21.0)) / 400
    values[3, 4] = 2e6
    z = np.asarray(turned(surface_of((np.arange(21.0),) * 2, values)).data[1].customdata)
    np.testing.assert_array_equal(z, values.T)


def test_an_axis_of_equal_ratios_is_logarithmic_and_paths_follow_it():
    rates = jnp.geomspace(1e-4, 1.0, 9)
    surface = surfaces.sweep(lambda rate, b: jnp.log(rate) ** 2 + b, rates, jnp.arange(5.0))
    figure = turned(surface, {"run": (np.array([[1e-3, 1.0], [1e-2, 2.0]]), np.ones(2))})
    for axis in (figure.layout.xaxis, figure.layout.scene.xaxis):
        assert axis.type == "log"
        np.testing.assert_allclose(axis.range, (-4, 0), atol=1e-6)
    assert figure.layout.yaxis.type == "linear"
    assert played(surface, {"run": (np.ones((2, 2)), np.ones(2))}).layout.xaxis.type == "log"


def test_equal_aspect_gives_both_axes_one_unit():
    figure = turned(GRID, aspect="equal")
    assert figure.layout.yaxis.scaleanchor == "x"
    ratio = figure.layout.scene.aspectratio
    assert ratio.x / ratio.y == pytest.approx(0.5)
    assert played(GRID, {"r": PATH}, aspect="equal").layout.yaxis.scaleanchor == "x"


@pytest.mark.parametrize("losses", [(0.9, 0.6, 0.53), (9.5, 3.0, 2.1), (3.0, 0.2, 0.1)])
def test_the_losses_of_a_run_have_ticks_however_little_they_fall(losses):
    axis = played(GRID, {"run": (POINTS, np.array(losses))}).layout.yaxis2
    assert axis.type == "log"
    marks = np.array([0.1, 0.2, 0.5, 1, 2] if axis.dtick == "D2" else axis.tickvals)
    assert sum((min(losses) <= marks) & (marks <= max(losses))) >= 3


def test_ticks_of_logarithmic_colours_differ():
    wide = GRID._replace(values=10.0 ** np.linspace(0, 9, 24).reshape(4, 6))
    near = GRID._replace(values=np.linspace(100, 104, 24).reshape(4, 6))
    for surface in (wide, near, GRID):
        bar = turned(surface, log=True).layout.coloraxis2.colorbar
        assert len(set(bar.ticktext)) == len(bar.ticktext) >= 3
        assert not any("e" in text for text in bar.ticktext)


def test_playing_sliding_and_looking_from_elsewhere_keep_the_contours(browser, tmp_path):
    page = browser.new_page(viewport={"width": 1000, "height": 640})
    page.set_default_timeout(120_000)  # milliseconds, for a machine with much to do
    played(GRID, {"up": PATH}).write_html(tmp_path / "x.html", auto_play=False)
    page.goto((tmp_path / "x.html").as_uri())
    page.wait_for_selector(".contourlayer path", state="attached")

    def contours():
        return page.evaluate("document.querySelectorAll('.contourlayer path').length")

    def do(action):
        page.evaluate(
            f"async () => {{ const gd = document.querySelector('.js-plotly-plot'); {action} }}"
        )
        return contours()

    whole = contours()
    assert whole > 10
    button, step = (
        f"gd.layout.{part}.args" for part in ("updatemenus[0].buttons[0]", "sliders[0].steps[1]")
    )
    assert do(f"await Plotly.animate(gd, ...{button});") == whole
    assert do(f"await Plotly.animate(gd, ...{step});") == whole
    assert do("await Plotly.relayout(gd, {width: 700});") == whole
    assert do("await Plotly.relayout(gd, {'xaxis.range': [-0.1, 1.1]});") == whole
