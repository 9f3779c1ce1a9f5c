"""What is drawn is what was computed."""

import inspect
import subprocess
import sys
from typing import Any

import _runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxgd import chains, neurons, planes, plots, surfaces

surface_of: Any = surfaces.Surface

HALVES = np.linspace(0.5, 4, 7, dtype=np.float32)
LINE = surface_of(coordinates=(HALVES,), values=HALVES**2)
AXES = np.linspace(0, 1, 4, dtype=np.float32), np.linspace(0, 2, 6, dtype=np.float32)
GRID = surface_of(AXES, 1 + AXES[0][:, None] ** 2 + 10 * AXES[1])
CURVES = LINE._replace(values={"one": LINE.values, "two": 2 * LINE.values})
NEURON = neurons.Neuron(
    weights=jax.device_put(np.array([2.0, -1.0], np.float32)), bias=jax.device_put(np.float32(0.5))
)


@pytest.fixture
def ax() -> Any:
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@pytest.fixture
def solid() -> Any:
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot(projection="3d")


def drawn(ax):
    """Renders: what cannot be drawn fails here."""
    ax.figure.canvas.draw()
    return ax


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_neuron_diagram_writes_out_every_number(ax):
    plots.neuron_diagram(ax, NEURON, [3.0, 1.0], activation=jax.nn.sigmoid)
    shown = texts(drawn(ax))
    assert {"3", "1", "w = 2", "w = -1", "bias\nb = 0.5", "5.5", "0.996"} <= set(shown)
    assert "activation\na = sigmoid(z)" in shown


def test_a_backprop_trace_shows_values_and_adjoints(ax):
    plots.backprop_trace(ax, _runs.trace(), names=("x", "a", "b"))
    assert {"x", "2", "4", "1.386", "0.25", "1", "adjoint"} <= set(texts(drawn(ax)))


def test_a_backprop_trace_names_its_stages_and_their_derivatives(ax):
    words: Any = {"stage_names": ["a = x²", "b = ln a"], "derivatives": ["4", "1/4"]}
    plots.backprop_trace(ax, _runs.trace(), **words)
    assert {"a = x²", "b = ln a", "4", "1/4"} <= set(texts(drawn(ax)))
    for name in words:
        with pytest.raises(ValueError, match=rf"expected 2 {name}, one per stage, got 1"):
            plots.backprop_trace(ax, _runs.trace(), **{name: ["one"]})
    with pytest.raises(ValueError, match=r"plots\.backprop_trace: expected 3 names"):
        plots.backprop_trace(ax, _runs.trace(), names=["x", "a"])


def test_a_correction_shows_deltas_and_a_network_its_branches(ax):
    plots.backprop_trace(ax, chains.correct([jnp.square, jnp.log], 2.0, 1.0))
    assert "delta" in texts(ax)
    layer = neurons.init(jax.random.key(0), 3, 2)
    stages = [neurons.weighted_sum, lambda _, z: jnp.sum(z)]
    plots.backprop_trace(ax, chains.backprop(stages, jnp.ones((5, 3)), params=[layer, ()]))
    shown = texts(drawn(ax))
    assert "params" in shown
    assert any(text.startswith("3×2, 2\nmax |.|") for text in shown)


def test_curves_are_drawn_one_line_for_each_name(ax):
    for draw in (plots.activation_curves, plots.loss_functions):
        lines = draw(ax, CURVES)
        assert [line.get_label() for line in lines] == ["one", "two"]
        np.testing.assert_allclose(np.asarray(lines[1].get_ydata()), 2 * np.asarray(LINE.values))
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    drawn(ax)


def test_a_newton_path_marks_every_iterate(ax):
    curve, marks = plots.newton_path(ax, LINE, _runs.solution(), 4.0)
    np.testing.assert_allclose(np.asarray(curve.get_xdata()), np.asarray(LINE.coordinates[0]))
    assert np.size(marks.get_xdata()) == int(_runs.solution().num_steps) + 1
    drawn(ax)


def test_a_residual_curve_ends_with_the_last_step(ax):
    (line,) = plots.residual_curve(ax, _runs.solution())
    steps = int(_runs.solution().num_steps)
    residuals = np.abs(np.asarray(_runs.solution().residuals[: steps + 1]))
    shown = np.asarray(line.get_ydata())
    np.testing.assert_allclose(shown[residuals > 0], residuals[residuals > 0])
    assert np.isnan(shown[residuals == 0]).all()
    assert drawn(ax).get_yscale() == "log"


def test_a_fitted_line_goes_through_its_neuron(ax):
    neuron = neurons.Neuron(weights=jnp.array([2.0]), bias=jnp.array(-1.0))
    line: Any = plots.fitted_line(ax, neuron, [1.0, 3.0], [1.0, 5.0])[1]
    x, y = map(np.asarray, line.get_data())
    np.testing.assert_allclose(y, 2 * x - 1, rtol=1e-6)
    assert line.get_label() == "z = 2.0000 x - 1.0000"
    drawn(ax)


def test_a_loss_curve_ends_with_the_last_step(ax):
    (line,) = plots.loss_curve(ax, _runs.line()._replace(num_steps=jnp.int32(3)))
    np.testing.assert_allclose(np.asarray(line.get_ydata()), _runs.line().losses[:4])
    drawn(ax)


def test_a_descent_path_keeps_its_look_and_takes_another(ax):
    (line,) = plots.descent_path(ax, [[0.0, 1.0], [2.0, 3.0]], ms=9, lw=1)
    assert line.get_markersize() == 9
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[0, 1], [2, 3]])
    drawn(ax)


def test_a_loss_line_is_drawn_over_its_own_coordinate(ax):
    (line,) = plots.loss_line(ax, LINE, axis_name="w")
    np.testing.assert_allclose(np.asarray(line.get_xdata()), np.asarray(LINE.coordinates[0]))
    assert drawn(ax).get_xlabel() == "w"


@pytest.mark.parametrize("log", [False, True])
def test_a_contour_has_the_first_coordinate_to_the_right(ax, log):
    contours: Any = plots.surface_contour(ax, GRID, axis_names=("w", "b"), log=log)
    drawn(ax)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 2))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("w", "b")
    assert contours.levels[0] <= 1 + 1e-6
    assert contours.levels[-1] >= 22 - 1e-4


def pixels(ax):
    """What is seen inside the axes, colour by colour."""
    drawn(ax)
    seen, box = np.asarray(ax.figure.canvas.buffer_rgba()), ax.get_window_extent()
    rows = slice(len(seen) - int(box.y1) + 3, len(seen) - int(box.y0) - 3)
    return seen[rows, int(box.x0) + 3 : int(box.x1) - 3, :3]


SLOPE = np.linspace(-1, 1, 17)[:, None] + np.zeros((17, 9))


@pytest.mark.parametrize(
    "values",
    [
        np.maximum(5, 5 + 3.95 * SLOPE),
        np.minimum(0.3, 0.3 + 0.1 * SLOPE),
        np.full((17, 9), -7.0),
        np.full((17, 9), 1e30),
        np.zeros((17, 9)),
        np.where(SLOPE > 0, 1.0, np.nextafter(1.0, 2.0)),
        1e6 + 0.01 * SLOPE,
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_no_part_of_a_finite_surface_stays_white(ax, values, log):
    if log and values.min() <= 0:
        values = np.exp(values / 10)
    axes = np.linspace(-1, 1, 17), np.linspace(0, 1, 9)
    contours: Any = plots.surface_contour(ax, surface_of(axes, values), log=log)
    assert contours.levels[0] <= values.min()
    assert contours.levels[-1] >= values.max()
    ax.collections[-1].set_visible(contours is ax.collections[-1])  # the white lines
    assert (pixels(ax).min(axis=-1) < 250).all()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ends", [(1234.5, 1236.0), (1.0, 1 + 1e-7), (2e-5, 9e5), (0.047, 0.08)])
def test_ticks_of_a_colour_bar_are_round_and_differ(ax, ends, log):
    values = np.linspace(ends[0], ends[1], 24).reshape(4, 6)
    plots.surface_contour(ax, GRID._replace(values=values), log=log)
    drawn(ax)
    bar = ax.figure.axes[-1]
    labels = [text.get_text() for text in bar.get_yticklabels()]
    assert len(set(labels)) == len(labels) >= 3
    if ends == (0.047, 0.08):
        assert all(len(label) <= 5 for label in labels)


def test_contours_of_several_surfaces_compare_at_common_levels():
    low, high = GRID, GRID._replace(values=3 * GRID.values)
    levels = plots.common_levels(low, high)
    figure = Figure()
    FigureCanvasAgg(figure)
    drawn_sets: Any = [
        plots.surface_contour(ax, surface, levels=levels, colorbar=False, cmap="cividis")
        for ax, surface in zip(figure.subplots(1, 2), (low, high), strict=True)
    ]
    for contours in drawn_sets:
        np.testing.assert_array_equal(contours.levels, levels)
        assert contours.get_cmap().name == "cividis"
    assert drawn_sets[0].norm.vmin == drawn_sets[1].norm.vmin <= 1
    assert levels[-1] >= 66
    assert len(figure.axes) == 2
    figure.canvas.draw()


def test_equal_aspect_draws_one_unit_alike_on_both_axes(ax):
    plots.surface_contour(ax, GRID, aspect="equal")
    drawn(ax)
    box = ax.get_window_extent()
    assert box.height / box.width == pytest.approx(2, rel=0.02)
    bar = ax.child_axes[0].get_window_extent()
    assert (bar.y0, bar.height) == pytest.approx((box.y0, box.height))


@pytest.mark.parametrize("painter", [plots.surface_contour, plots.surface_cells])
def test_axes_of_equal_ratios_are_logarithmic_and_others_are_not(ax, painter):
    rates = jnp.geomspace(1e-3, 1, 7)
    painter(ax, surfaces.sweep(lambda a, b: jnp.log(a) ** 2 + b, rates, jnp.linspace(1, 2, 5)))
    assert (drawn(ax).get_xscale(), ax.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize(
    ("axis", "scale"),
    [
        ([1, 3, 10], "log"),
        ([0.1, 0.2, 0.5, 1, 2, 5, 10], "log"),
        ([5, 10, 20, 50, 100, 200], "log"),
        ([1, 2, 3], "linear"),
        ([1, 3, 5, 7, 9], "linear"),
        ([1, 4, 9, 16], "linear"),
        ([1, 1.5, 2.2], "linear"),
    ],
)
def test_the_steps_of_a_ruler_are_logarithmic_and_those_of_a_polynomial_are_not(ax, axis, scale):
    plots.surface_cells(ax, surface_of((axis, [0.0, 1.0]), np.ones((len(axis), 2))))
    assert ax.get_xscale() == scale


def test_cells_are_one_per_point_with_the_point_inside(ax):
    rates, momenta = np.geomspace(1e-3, 1, 4), np.array([0.0, 0.5, 0.9])
    values = np.arange(12.0).reshape(4, 3)
    values[1, 2] = np.nan
    cells = plots.surface_cells(ax, surface_of((rates, momenta), values))
    drawn(ax)
    shown: Any = cells.get_array()
    np.testing.assert_array_equal(np.ma.filled(shown, np.nan), values.T)
    corners: Any = cells.get_coordinates()
    x_edges, y_edges = corners[0, :, 0], corners[:, 0, 1]
    np.testing.assert_allclose(x_edges, 10 ** np.arange(-3.5, 1))
    np.testing.assert_allclose(y_edges, [-0.25, 0.25, 0.7, 1.1])


def test_every_point_of_a_solid_surface_is_drawn(solid):
    axis = np.linspace(-1, 1, 101)
    values = np.ones((101, 101))
    values[50, 37] = 0.01
    drawn_surface: Any = plots.surface_3d(solid, surface_of((axis, axis), values))
    drawn(solid)
    heights = np.asarray(drawn_surface.get_array())
    assert heights.size == 100 * 100
    assert heights.min() == pytest.approx((3 + 0.01) / 4)  # of the four corners of a cell


def test_level_sets_keep_points_near_their_levels(ax):
    fine = surfaces.sweep(lambda a, b: 1 + a + b, jnp.linspace(0, 1, 40), jnp.linspace(0, 1, 50))
    dots = plots.level_sets(ax, fine, num_levels=3)
    values = 1 + np.asarray(dots.get_offsets()).sum(axis=1)
    levels = np.geomspace(1, 3, 3)
    assert (np.abs(np.log(values[:, None] / levels)).min(axis=1) < 0.021).all()
    drawn(ax)


def test_a_solid_surface_names_its_axes(solid):
    plots.surface_3d(solid, GRID, axis_names=("w", "b"), value_name="J")
    drawn(solid)
    assert (solid.get_xlabel(), solid.get_ylabel(), solid.get_zlabel()) == ("w", "b", "J")


def test_the_colours_of_a_solid_surface_may_grow_in_equal_ratios(solid):
    drawn_surface: Any = plots.surface_3d(solid, GRID, log=True)
    drawn(solid)
    assert isinstance(drawn_surface.norm, LogNorm)
    assert solid.get_zlim()[1] >= 21  # the heights stay what they are
    with pytest.raises(ValueError, match="positive values on a log scale"):
        plots.surface_3d(solid, GRID._replace(values=-GRID.values), log=True)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: plots.loss_line(ax, GRID), "plots.loss_line: surface must have one coordinate"),
        (lambda ax: plots.surface_contour(ax, LINE), "surface must have two coordinates, got 1"),
        (lambda ax: plots.surface_contour(ax, GRID.values), "surface must be a Surface"),
        (lambda ax: plots.surface_3d(ax, GRID), 'ax must be an Axes3D.*projection="3d"'),
        (
            lambda ax: plots.surface_contour(ax, GRID._replace(values={"loss": GRID.values})),
            "one array of values, got a dict.*Pick one",
        ),
        (
            lambda ax: plots.surface_contour(ax, GRID._replace(values=-GRID.values), log=True),
            "positive values on a log scale",
        ),
        (lambda ax: plots.descent_path(ax, [1.0, 2.0]), r"path must have two numbers per point"),
        (lambda ax: plots.activation_curves(ax, LINE), "surface.values must be a mapping"),
        (
            lambda ax: plots.backprop_trace(ax, _runs.solution()),
            "result must be a Trace or Correction",
        ),
        (lambda ax: plots.fitted_line(ax, NEURON, [1.0], [1.0]), r"weights must be \(1,\)"),
        (
            lambda ax: plots.neuron_diagram(ax, NEURON, [1.0], activation=jnp.tanh),
            r"weights and x must have one shape \(m,\), got \(2,\) and \(1,\)",
        ),
        (
            lambda ax: plots.newton_path(
                ax, LINE, _runs.solution()._replace(path=jnp.ones((4, 2))), 1.0
            ),
            "solution must be of a scalar x",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(ax, draw, message):
    with pytest.raises((TypeError, ValueError), match=message):
        draw(ax)


def test_drawing_needs_no_pyplot_and_no_plotly_opens_no_window_and_knows_double_precision():
    code = """
import sys, jax
jax.config.update("jax_enable_x64", True)
import jaxgd.plots
assert "matplotlib.pyplot" not in sys.modules
assert "plotly" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_projected_paths_tell_their_true_loss_and_what_is_hidden(ax):
    projection = planes.Projection(
        coordinates=jnp.array([[0.0, 1.0], [2.0, 3.0]]), residuals=jnp.array([0.0, 0.25])
    )
    (line,) = plots.projected_paths(ax, {"SGD": projection}, {"SGD": jnp.array([2.0, 0.5])})
    assert line.get_label() == "SGD: loss 0.5, up to 25% off the plane"
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[0, 1], [2, 3]])
    drawn(ax)
    explained = [text.get_text() for text in ax.get_legend().get_texts()][1:]
    assert explained == ["start and end", "% off the plane: of the distance from (0, 0)"]
    marks = {str(own.get_marker()): own.get_xydata() for own in ax.get_lines()[1:]}
    np.testing.assert_allclose(np.concatenate([marks["s"], marks["*"]]), [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="projections and losses must have the same names"):
        plots.projected_paths(ax, {"SGD": projection}, {})


PAINTERS = [name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))]


@pytest.mark.parametrize("name", PAINTERS)
def test_every_painter_says_what_it_takes_returns_and_refuses(name):
    documentation = inspect.getdoc(getattr(plots, name)) or ""
    signature = inspect.signature(getattr(plots, name))
    assert all(f"{part}:\n" in documentation for part in ("Args", "Returns", "Raises"))
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"{parameter.name}: " in documentation, parameter.name
