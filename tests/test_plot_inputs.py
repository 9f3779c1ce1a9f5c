"""What a picture is made from: refused by name where it cannot be drawn, never drawn wrongly."""

import functools
import inspect
import re
from typing import Any

import _runs
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxgd import curves, descent, neurons, planes, plots, surfaces

surface_of: Any = surfaces.Surface
connection_of: Any = curves.Connection
painted: Any = plots  # wrong types are what is tested here

AXES = np.linspace(0, 1, 4, dtype=np.float32), np.linspace(0, 2, 6, dtype=np.float32)
GRID = surface_of(AXES, 1 + AXES[0][:, None] ** 2 + 10 * AXES[1])
HALVES = np.linspace(0.5, 4, 7, dtype=np.float32)
LINE = surface_of(coordinates=(HALVES,), values=HALVES**2)
CURVES = LINE._replace(values={"one": LINE.values, "two": 2 * LINE.values})
NEURON = neurons.Neuron(
    weights=jax.device_put(np.array([2.0], np.float32)), bias=jax.device_put(np.float32(0.5))
)


def bowl(p: Any) -> Any:
    return p["w"] ** 2 + 3 * p["b"] ** 2


@functools.cache
def run() -> descent.Trajectory:
    """A descent whose path is a dict of two scalars: b sorts before w."""
    return jax.jit(
        lambda start: descent.gradient_descent(bowl, start, learning_rate=0.1, num_steps=5)
    )({"w": 1.0, "b": -0.5})


WAY = np.stack([0.8 ** np.arange(6), -0.5 * 0.4 ** np.arange(6)], axis=1)
"""Its points (w, b), by the closed form."""


@functools.cache
def lanes() -> descent.Trajectory:
    """A descent at each of three rates."""
    return jax.jit(
        jax.vmap(
            lambda rate: descent.gradient_descent(
                lambda p: jnp.sum(p**2), jnp.ones(2), learning_rate=rate, num_steps=5
            )
        )
    )(np.array([0.1, 0.2, 0.3], np.float32))


SHADOW = (np.array([[3.0, 0], [1, 1], [0.5, 1], [0, 0]]), np.array([0.2, 0.5, 0.9, 0.0]))
PROJECTION = planes.Projection(
    *(jax.device_put(np.zeros(shape, np.float32)) for shape in ((4, 2), 4))
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


PAINTERS: dict[str, Any] = {
    "surface_contour": plots.surface_contour,
    "surface_cells": plots.surface_cells,
    "level_sets": plots.level_sets,
    "interactive_surface": lambda _, surface: plots.interactive_surface(surface),
    "interactive_descent": lambda _, s: plots.interactive_descent(s, {"r": (WAY, np.ones(6))}),
    "animate_descent": lambda _, s: plots.animate_descent(s, {"r": (WAY, np.ones(6))}),
    "common_levels": lambda _, surface: plots.common_levels(surface),
}


def with_axis(values: Any) -> Any:
    return surface_of((values, GRID.coordinates[1]), np.ones((len(values), 6)))


@pytest.mark.parametrize("painter", PAINTERS)
@pytest.mark.parametrize(
    ("surface", "message"),
    [
        (
            with_axis(np.array([0.0, 2.0, 1.0])),
            "coordinate 0 must increase or.*points out of order",
        ),
        (with_axis(np.array([0.0, 1.0, 1.0])), "must increase or decrease.*equal points.*sorted"),
        (with_axis(np.array([0.0, np.nan, 1.0])), "coordinate 0 must be finite"),
        (with_axis(np.array([0.0, 1.0, np.inf])), "coordinate 0 must be finite"),
        (with_axis(np.array([0.0])), "coordinate 0 must have at least two points, got 1"),
        (with_axis(np.ones((2, 2))), r"coordinate 0 must be 1-D, got shape \(2, 2\)"),
        (with_axis(np.array([0.0, 1.0j])), "coordinate 0 must be real numbers, got dtype complex"),
        (GRID._replace(values=GRID.values.T), r"shape \(4, 6\), got \(6, 4\).*values=surface.v.*T"),
        (GRID._replace(values=GRID.values * 1j), "values must be real numbers.*Draw its real part"),
        (GRID._replace(values=GRID.values * jnp.nan), "values must be finite|positive values"),
        (GRID._replace(values={"loss": GRID.values}), r"surfaces\.select\(surface, name\)"),
        (LINE, "surface must have two coordinates, got 1"),
        (GRID.values, "surface must be a Surface"),
    ],
)
def test_no_painter_draws_a_surface_that_is_none(ax, painter, surface, message):
    with pytest.raises((TypeError, ValueError), match=rf"plots\.{painter}: .*({message})"):
        PAINTERS[painter](ax, surface)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: painted.loss_curve(ax, lanes()), r"trajectory must be one run.*Pick one lane"),
        (lambda ax: painted.loss_curve(ax, run().losses), "trajectory must be a Trajectory"),
        (
            lambda ax: painted.loss_curve(ax, run()._replace(losses=run().losses * jnp.nan)),
            "must have a finite loss",
        ),
        (
            lambda ax: painted.residual_curve(
                ax, jax.tree.map(lambda x: x[None], _runs.solution())
            ),
            "solution must be one run.*Pick one lane",
        ),
        (lambda ax: painted.residual_curve(ax, run()), "solution must be a Solution"),
        (lambda ax: painted.newton_path(ax, LINE, run(), 1.0), "solution must be a Solution"),
        (
            lambda ax: painted.newton_path(ax, LINE, _runs.solution(), jnp.ones(2)),
            "target must be a scalar",
        ),
        (lambda ax: plots.loss_line(ax, CURVES), r"one array of values.*surfaces\.select"),
        (
            lambda ax: plots.loss_line(ax, LINE._replace(values=LINE.values * jnp.nan)),
            "values must be finite",
        ),
        (
            lambda ax: plots.loss_line(ax, LINE._replace(coordinates=(jnp.sin(jnp.arange(7)),))),
            "coordinate 0 must increase or decrease",
        ),
        (
            lambda ax: plots.activation_curves(ax, CURVES._replace(values={"a": LINE.values[:3]})),
            r"shape \(7,\), got \(3,\)",
        ),
        (lambda ax: plots.descent_path(ax, lanes()), "path must be one run.*Pick one lane"),
        (
            lambda ax: plots.descent_path(ax, neurons.Neuron(jnp.ones((5, 2)), jnp.ones(5))),
            r"two numbers per point, shape \(T, 2\), got \(5, 2\) and \(5,\)",
        ),
        (lambda ax: plots.descent_path(ax, WAY[:0]), r"path must have two numbers per point"),
        (
            lambda ax: plots.descent_path(ax, WAY * np.nan),
            "path must have a finite point, got none",
        ),
        (lambda ax: plots.descent_path(ax, WAY * 1j), "the path of path must be real numbers"),
        (
            lambda ax: painted.surface_contour(ax, GRID, axis_names="ab"),
            r"axis_names must be a list or tuple, got 'ab'\. Write axis_names=\('a', 'b'\)",
        ),
        (
            lambda ax: painted.surface_cells(ax, GRID, axis_names=("a", 2)),
            r"axis_names\[1\] must be a str",
        ),
        (lambda ax: painted.level_sets(ax, GRID, axis_names="ab"), "axis_names must be a list or"),
        (
            lambda ax: painted.interactive_surface(GRID, axis_names="ab"),
            "axis_names must be a list",
        ),
        (lambda ax: painted.surface_cells(ax, GRID, value_name=3), "value_name must be a str, got"),
        (lambda ax: painted.loss_line(ax, LINE, axis_name=3), "axis_name must be a str, got 3"),
        (lambda ax: painted.surface_contour(ax, GRID, log="yes"), "log must be True or False, got"),
        (lambda ax: painted.common_levels(GRID, log="yes"), "log must be True or False, got 'yes'"),
        (lambda ax: painted.surface_cells(ax, GRID, colorbar="no"), "colorbar must be True or Fal"),
        (
            lambda ax: painted.projected_paths(ax, {"a": PROJECTION}, {"a": WAY}, legend="no"),
            "legend must be True or False, got 'no'",
        ),
        (
            lambda ax: painted.neuron_diagram(
                ax,
                neurons.Neuron(jnp.ones(2), NEURON.bias),
                [1.0, 1.0],
                activation=jnp.tanh,
                input_names="ab",
            ),
            "input_names must be a list or tuple, got 'ab'",
        ),
        (
            lambda ax: plots.surface_contour(
                ax, GRID._replace(values=GRID.values * jnp.nan), log=True
            ),
            "finite at some point, got NaN or inf at all of them. Sweep coordinates at which",
        ),
        (
            lambda ax: plots.level_sets(ax, GRID._replace(values=-GRID.values)),
            "positive values on a log scale, got none. Draw it on a linear one",
        ),
        (
            lambda ax: painted.barrier(ax, [GRID]),
            "barrier must be a Barrier, got a list. Several are given by name: {'before'",
        ),
        (
            lambda ax: painted.spectrum(ax, [GRID]),
            "density must be a SpectralDensity, got a list. Several are given by name",
        ),
        (
            lambda ax: painted.loss_curve(ax, connection_of(None, run())),
            "trajectory must be a Trajectory, got a Connection. Write connection.trajectory",
        ),
        (lambda ax: plots.surface_contour(ax, GRID, num_levels=0), "num_levels must be at least 2"),
        (lambda ax: plots.surface_contour(ax, GRID, num_levels=-3), "num_levels must be at least"),
        (lambda ax: plots.surface_contour(ax, GRID, num_levels=1, log=True), "at least 2, got 1"),
        (lambda ax: plots.level_sets(ax, GRID, num_levels=1), "num_levels must be at least 2"),
        (lambda ax: plots.common_levels(GRID, num_levels=1), "num_levels must be at least 2"),
        (lambda ax: plots.common_levels(), "there must be a surface, got none"),
        (lambda ax: plots.surface_contour(ax, GRID, levels=[2, 1]), "levels must be two or more"),
        (
            lambda ax: plots.surface_contour(ax, GRID, levels=[0, 1], log=True),
            "numbers that increase, above 0",
        ),
        (
            lambda ax: painted.projected_paths(ax, {"a": PROJECTION}, {"a": jnp.ones(3)}),
            r"losses\['a'\] and projections\['a'\] must have one entry per point, shape \(4,\)",
        ),
        (
            lambda ax: painted.projected_paths(ax, {"a": WAY}, {"a": jnp.ones(6)}),
            r"projections\['a'\] must be a Projection",
        ),
        (
            lambda ax: painted.neuron_diagram(ax, NEURON, [1.0], activation=3),
            "activation must be callable",
        ),
        (
            lambda ax: painted.neuron_diagram(
                ax, NEURON, [1.0], activation=jnp.tanh, input_names=["a", "b"]
            ),
            "expected 1 input_name, one per input, got 2",
        ),
        (
            lambda ax: plots.fitted_line(ax, NEURON, [[1.0], [2.0]], [1.0, 2.0]),
            r"x and y must have one shape \(N,\), got \(2, 1\) and \(2,\). Write x\[:, 0\]",
        ),
    ],
)
def test_what_no_picture_can_show_is_refused_by_name(ax, draw, message):
    with pytest.raises((TypeError, ValueError), match=r"plots\.\w+: .*" + message):
        draw(ax)


RUN_OF_POINTS = WAY, np.ones(6)


def played(runs: Any) -> Any:
    return plots.interactive_descent(GRID, runs)


TURN: dict[str, Any] = {
    "interactive_surface": plots.interactive_surface,
    "interactive_descent": plots.interactive_descent,
    "animate_descent": plots.animate_descent,
}


@pytest.mark.parametrize("painter", TURN)
@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (
            lambda: {"r": PROJECTION},
            "must be a Trajectory.*got a Projection.*projection.coordinates",
        ),
        (lambda: PROJECTION, "runs must be a Trajectory.*got a Projection"),
        (
            lambda: SHADOW,
            "must be a pair of points and losses, got what must be the residuals of a Proj",
        ),
        (
            lambda: {"r": SHADOW},
            "got what must be the residuals .*projection.coordinates, trajectory.los",
        ),
        (lambda: [GRID], "must be a Trajectory.*got a Surface"),
        (_runs.solution, "runs must be a Trajectory.*got a Solution"),
        (lanes, r"runs\['descent'\] must be one run.*Pick one lane"),
        (lambda: {"r": lanes()}, r"runs\['r'\] must be one run.*Pick one lane"),
        (
            lambda: {"r": (WAY, np.ones(5))},
            r"must have one loss per point, got \(5,\) for 6 points",
        ),
        (lambda: {"r": (WAY * 1j, np.ones(6))}, "must be real numbers"),
        (
            lambda: {"r": run()},
            r"which number belongs to which axis, got 'b' and 'w' for the axes 'a' and",
        ),
    ],
)
def test_no_figure_takes_for_a_run_what_is_none(painter, runs, message):
    with pytest.raises((TypeError, ValueError), match=rf"plots\.{painter}: .*{message}"):
        TURN[painter](GRID, runs())


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        (None, r"plt\.subplots\(\)"),
        (Figure(), r"plt\.subplots\(\)"),
        (Figure().subplots(1, 2), r"axes\[0\] of a row"),
    ],
    ids=["None", "figure", "several"],
)
def test_what_are_no_axes_is_refused_by_every_painter_that_takes_them(place, cure):
    paints_on_axes = {
        name: parameters
        for name in plots.__all__
        if callable(getattr(plots, name))
        and "ax" in (parameters := inspect.signature(getattr(plots, name)).parameters)
    }
    assert len(paints_on_axes) > 18
    for name, parameters in paints_on_axes.items():
        needed = [p for p in parameters if parameters[p].default is inspect.Parameter.empty]
        arguments = {p: place for p in needed if not p.endswith("kwargs")}
        with pytest.raises(TypeError, match=rf"^plots\.{name}: ax must be an Axes.*"):
            getattr(plots, name)(**arguments)
    with pytest.raises(TypeError, match=cure):
        plots.loss_curve(place, run())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"aspect": "equl"}, r"aspect must be 'auto' or 'equal', got 'equl'"),
        (
            {"cmap": "viridus"},
            r"cmap must be the name of a colour map of Matplotlib, got 'viridus'",
        ),
    ],
)
def test_a_word_that_no_picture_knows_is_refused(ax, words, message):
    for painter in (plots.surface_contour, plots.surface_cells):
        with pytest.raises(ValueError, match=message):
            painter(ax, GRID, **words)
    if "aspect" in words:
        for painter in (
            plots.interactive_surface,
            plots.interactive_descent,
            plots.animate_descent,
        ):
            with pytest.raises(ValueError, match=message):
                painter(GRID, run(), **words)


@pytest.mark.parametrize(
    ("low", "high", "log", "says"),
    [
        (-1e308, 1e308, False, "the range of the values must be a number, got one that overflows"),
        (1e308, 1.7e308, True, "the range of the values must be a number, got one that overflows"),
        (5e-324, 5e-324, True, "values on a log scale must have digits, got at most 5e-324. Scale"),
    ],
)
def test_what_arithmetic_cannot_hold_is_not_drawn(ax, low, high, log, says):
    surface = GRID._replace(values=np.where(np.arange(24).reshape(4, 6) % 2, high, low))
    for painter in (plots.surface_contour, plots.surface_cells):
        with pytest.raises(ValueError, match=rf"plots\.{painter.__name__}: {re.escape(says)}"):
            painter(ax, surface, log=log)


@pytest.mark.parametrize("painter", [name for name in PAINTERS if name != "common_levels"])
def test_two_coordinates_have_two_names(ax, painter):
    named: Any = getattr(plots, painter)
    args = (GRID, RUN_OF_POINTS) if "descent" in painter else (GRID,)
    args = args if painter in TURN else (ax, *args)
    with pytest.raises(ValueError, match=rf"plots\.{painter}: expected 2 axis_names.*got 1"):
        named(*args, axis_names=("w",))


def test_what_is_traced_cannot_be_drawn(ax):
    with pytest.raises(TypeError, match=r"plots\.surface_contour: .*traced array.*jax\.jit"):
        jax.jit(lambda values: plots.surface_contour(ax, GRID._replace(values=values)))(GRID.values)


def test_losses_that_are_all_lost_leave_the_path():
    lost = WAY, np.full(6, np.nan)
    assert len(played({"lost": lost}).frames) == 6
    assert len(played({"lost": lost, "found": RUN_OF_POINTS}).frames) == 6


def test_a_dict_is_drawn_in_the_order_of_the_axes_that_it_names(ax):
    figure: Any = plots.interactive_surface(GRID, run(), axis_names=("w", "b"))
    np.testing.assert_allclose(np.stack([figure.data[-1].x, figure.data[-1].y], 1), WAY, rtol=1e-5)
    with pytest.raises(ValueError, match="which number belongs"):
        plots.descent_path(ax, run())
    plots.surface_contour(ax, GRID, axis_names=("b", "w"))
    (line,) = plots.descent_path(ax, run())
    np.testing.assert_allclose(np.asarray(line.get_xydata()), WAY[:, ::-1], rtol=1e-5)


def test_a_neuron_is_drawn_in_the_order_of_its_axes_and_two_steps_are_not_transposed(ax):
    two = neurons.Neuron(weights=jnp.array([[1.0], [2.0]]), bias=jnp.array([10.0, 20.0]))
    (line,) = plots.descent_path(ax, two)
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 10], [2, 20]])
    (line,) = plots.descent_path(ax, (jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0])))
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[1, 10], [2, 20]])
    ax.set(xlabel="bias", ylabel="weight")
    (line,) = plots.descent_path(ax, two)
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[10, 1], [20, 2]])


def test_a_trajectory_is_taken_as_it_is():
    for painter in TURN.values():
        assert painter(GRID, run(), axis_names=("w", "b")) is not None
    film: Any = plots.interactive_descent(GRID, run(), axis_names=("w", "b"))
    assert film.data[1].name == "descent"
    pair: Any = plots.interactive_descent(GRID, (WAY, np.ones(6)))
    np.testing.assert_allclose(pair.data[1].x, WAY[:, 0], rtol=1e-6)


def test_names_that_read_alike_stay_two():
    figure: Any = plots.interactive_surface(
        GRID, {1: (WAY, np.ones(6)), "1": (2 * WAY, np.ones(6))}
    )
    assert [trace.name for trace in figure.data[-4::2]] == ["1", "'1'"]


def test_a_path_recorded_at_every_third_step_keeps_its_own_losses():
    rare = run()._replace(path=jnp.array(WAY)[::5])
    figure: Any = plots.interactive_descent(GRID, rare)
    assert [frame.name for frame in figure.frames] == ["0", "5"]
    np.testing.assert_allclose(figure.data[2].y, run().losses[::5])
    with pytest.raises(ValueError, match="must have one loss per recorded point, got 6 losses"):
        plots.interactive_descent(GRID, run()._replace(path=jnp.array(WAY)[:4]))


@pytest.mark.parametrize("flip", [(False, True), (True, False), (True, True)])
def test_a_decreasing_axis_changes_nothing_but_the_order(ax, flip):
    turned = [
        np.asarray(axis)[:: -1 if f else 1] for axis, f in zip(GRID.coordinates, flip, strict=True)
    ]
    values = np.asarray(GRID.values)[tuple(slice(None, None, -1 if f else 1) for f in flip)]
    surface = surface_of(tuple(turned), values)
    (there,), (here,) = (
        [plots.surface_cells(ax, s, colorbar=False).get_array()] for s in (GRID, surface)
    )
    np.testing.assert_array_equal(np.asarray(there), np.asarray(here))
    figures: Any = [plots.interactive_surface(s) for s in (GRID, surface)]
    for one, other in zip(figures[0].data, figures[1].data, strict=True):
        chex.assert_trees_all_equal((one.x, one.y, one.z), (other.x, other.y, other.z))


def test_what_is_masked_is_not_drawn(ax):
    values = np.asarray(GRID.values)
    hidden = np.ma.array(values, mask=values > 15)

    cells: Any = plots.surface_cells(ax, GRID._replace(values=hidden))

    drawn = np.ma.filled(cells.get_array().astype(float), np.nan).reshape(values.T.shape)
    np.testing.assert_allclose(drawn.T, np.where(values > 15, np.nan, values), rtol=1e-6)
