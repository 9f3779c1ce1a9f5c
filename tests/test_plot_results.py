"""Densities, barriers, bands, diagrams and approximations are drawn as they were computed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxgd import curvature, curves, descent, planes, plots, surfaces

painted: Any = plots  # wrong types are what is tested here


def known(values: Any, dtype: Any = np.float32) -> jax.Array:
    """The same as jnp.array, for which JAX compiles a program."""
    return jax.device_put(np.asarray(values, dtype))


DENSITY = curvature.SpectralDensity(
    nodes=known([[0.0, 0.5, 9.0], [0.1, 0.4, 9.2]]),
    weights=known([[0.6, 0.399, 0.001], [0.7, 0.298, 0.002]]),
)
TIMES = np.linspace(0.0, 1.0, 11)
HILL = curves.Barrier(
    coordinates=known(TIMES), losses=known(1 + TIMES + 4 * TIMES * (1 - TIMES)), height=known(1.0)
)
PAIRS = surfaces.Persistence(
    births=known([0.0, 1.0, 2.0]),
    deaths=known([np.inf, 3.0, 2.1]),
    places=known(np.zeros((3, 2))),
)
PROFILE = curves.BasinProfile(
    radii=known([0.0, 1.0, 2.0, 3.0]),
    center=known(2.0),
    levels=known([0.9, 0.1, 0.5]),
    quantiles=known([[2.0, 5.0, 7.0, 11.0], [2.0, 3.0, 3.0, 4.0], [2.0, 4.0, 5.0, 8.0]]),
    mean=known([2.0, 4.0, 5.0, 8.0]),
    worst=known([2.0, 7.0, 12.0, 20.0]),
)
SERIES = surfaces.Approximation(
    domains=known([[0.0, 2.0], [-3.0, 1.0]]),
    coefficients=known([[1.0, 0.0, 0.5], [2.0, 0.25, 0.0]]),
    errors=known(0.0125),
    num_points=known(25, np.int32),
    status=known(0, np.int32),
)
"""1 + T_2(v) / 2 + 2 u + u v / 4, where u = a - 1 and v = (b + 1) / 2."""


@functools.cache
def lanes() -> descent.Trajectory:
    """A descent at each of five rates."""
    return jax.jit(
        jax.vmap(
            lambda rate: descent.gradient_descent(jnp.square, 1.0, learning_rate=rate, num_steps=6)
        )
    )(np.linspace(0.05, 0.25, 5, dtype=np.float32))


@pytest.fixture
def ax() -> Any:
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def test_a_spectrum_is_the_weighted_mean_of_gaussians_and_says_their_width(ax):
    (line,) = plots.spectrum(ax, DENSITY, smoothing=0.2)
    ax.figure.canvas.draw()
    places, shown = (np.asarray(part, float) for part in line.get_data())
    nodes, weights = np.asarray(DENSITY.nodes), np.asarray(DENSITY.weights)
    for at in (0.0, 0.45, 9.0):
        gaussians = np.exp(-(((at - nodes) / 0.2) ** 2) / 2) / (0.2 * np.sqrt(2 * np.pi))
        truth = (weights * gaussians).sum() / 2
        np.testing.assert_allclose(shown[np.abs(places - at).argmin()], truth, rtol=0.02)
    np.testing.assert_allclose(np.trapezoid(np.nan_to_num(shown), places), 1, rtol=1e-3)
    assert ax.get_ylabel() == "density, smoothed over 0.2"
    assert ax.get_yscale() == "log"


def test_a_single_eigenvalue_far_out_is_inside_the_picture(ax):
    (line,) = plots.spectrum(ax, DENSITY)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    places, shown = (np.asarray(part, float) for part in line.get_data())
    outlier = shown[np.abs(places - 9.2).argmin()]
    assert left < 0
    assert right > 9.2
    assert bottom < outlier < top
    assert ax.get_ylabel() == "density, smoothed over 0.092"


def test_several_blocks_have_their_lines_and_their_names(ax):
    narrow = curvature.SpectralDensity(nodes=DENSITY.nodes / 10, weights=DENSITY.weights)
    lines = plots.spectrum(ax, {"whole": DENSITY, "layer 1": narrow})
    assert [line.get_label() for line in lines] == ["whole", "layer 1"]
    assert lines[0].get_color() != lines[1].get_color()
    assert len(ax.get_legend().get_texts()) == 2
    ax.figure.canvas.draw()


def test_a_barrier_says_its_height_and_marks_where_it_is(ax):
    (line,) = plots.barrier(ax, HILL)
    np.testing.assert_allclose(np.asarray(line.get_xydata()), np.stack([TIMES, HILL.losses], 1))
    assert line.get_label() == "barrier 1"
    (arrow,) = (text for text in ax.texts if text.get_text() == "")
    np.testing.assert_allclose(arrow.xy, (0.5, 2.5), rtol=1e-6)
    np.testing.assert_allclose(arrow.get_position(), (0.5, 1.5), rtol=1e-6)
    flat = curves.Barrier(coordinates=known(TIMES), losses=known(1 - TIMES), height=known(0))
    lines = plots.barrier(ax, {"before": HILL, "after": flat})
    assert [line.get_label() for line in lines] == ["before: barrier 1", "after: barrier 0"]
    ax.figure.canvas.draw()


def test_a_curve_lies_in_its_plane_with_the_straight_line_beside(ax):
    points = jnp.array([[0.0, 0.0], [0.5, 0.8], [1.0, 0.0]])
    curve, line, marks = plots.curve_path(
        ax, planes.Projection(points, jnp.zeros(3)), label="Bezier", c="black"
    )
    np.testing.assert_allclose(np.asarray(curve.get_xydata()), points)
    for drawn in (line, marks):
        np.testing.assert_allclose(np.asarray(drawn.get_xydata()), points[::2])
    assert (curve.get_label(), curve.get_color()) == ("Bezier", "black")
    ax.figure.canvas.draw()


def test_a_persistence_diagram_has_one_point_per_minimum_and_the_lowest_at_the_top(ax):
    points = plots.persistence_diagram(ax, PAIRS)
    x, y = np.asarray(points.get_offsets()).T
    np.testing.assert_allclose(x, PAIRS.births)
    np.testing.assert_allclose(y[1:], PAIRS.deaths[1:])
    assert y[0] > 3
    assert ax.get_ylim()[1] > y[0]
    assert [text.get_text() for text in ax.texts] == ["never joins"]
    ax.figure.canvas.draw()


def test_a_profile_has_a_band_of_its_levels_in_their_order_and_the_worst_above(ax):
    median, worst, band = painted.basin_profile(ax, PROFILE, lw=3)
    np.testing.assert_allclose(np.asarray(median.get_xydata()).T, [[0, 1, 2, 3], [0, 2, 3, 6]])
    np.testing.assert_allclose(np.asarray(worst.get_ydata()), [0, 5, 10, 18])
    edge = np.asarray(band.get_paths()[0].vertices)
    assert {tuple(point) for point in edge if point[0] == 3} == {(3, 2), (3, 9)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "median",
        "the worst direction",
        "10 % to 90 %",
    ]
    assert median.get_linewidth() == worst.get_linewidth() == 3
    ax.figure.canvas.draw()


def test_a_band_holds_the_quantiles_of_many_runs_around_their_median(ax):
    line, band = painted.loss_band(
        ax, lanes(), quantiles=(0.25, 0.75), color="black", label="5 rates"
    )
    losses = np.asarray(lanes().losses)
    np.testing.assert_allclose(np.asarray(line.get_ydata()), np.median(losses, axis=0), rtol=1e-6)
    box = band.get_datalim(ax.transData)
    assert box.x1 == 6
    edge = np.asarray(band.get_paths()[0].vertices)
    at_six = edge[edge[:, 0] == 6, 1]
    np.testing.assert_allclose(at_six.min(), np.quantile(losses[:, 6], 0.25), rtol=1e-5)
    np.testing.assert_allclose(at_six.max(), np.quantile(losses[:, 6], 0.75), rtol=1e-5)
    assert line.get_label() == "5 rates"


def test_runs_that_are_lost_are_left_out_of_the_band_and_counted(ax):
    losses = lanes().losses.at[2, 3:].set(jnp.nan)
    line, _ = painted.loss_band(ax, lanes()._replace(losses=losses), label="rates")
    others = np.delete(np.asarray(lanes().losses), 2, axis=0)
    np.testing.assert_allclose(
        np.asarray(line.get_ydata())[3:], np.median(others, axis=0)[3:], rtol=1e-6
    )
    assert line.get_label() == "rates (1 of 5 not finite)"


def test_an_approximation_is_drawn_at_any_resolution_with_its_error(ax):
    def truth(a, b):
        u, v = a - 1, (b + 1) / 2
        return 1 + (2 * v**2 - 1) / 2 + 2 * u + u * v / 4

    cells = plots.surface_cells(ax, SERIES, resolution=5)
    a, b = np.linspace(0, 2, 5), np.linspace(-3, 1, 5)
    np.testing.assert_allclose(np.asarray(cells.get_array()), truth(a[:, None], b).T, rtol=1e-6)
    assert ax.figure.axes[1].get_ylabel() == "loss (±0.013)"
    evaluate = jax.vmap(lambda x, y: surfaces.evaluate(SERIES, x, y))
    looped = evaluate(jnp.repeat(jnp.asarray(a), 5), jnp.tile(jnp.asarray(b), 5)).reshape(5, 5)
    np.testing.assert_allclose(np.asarray(cells.get_array()), looped.T, rtol=1e-5)
    figure: Any = plots.interactive_surface(SERIES, resolution=7)
    values = truth(np.linspace(0, 2, 7)[:, None], np.linspace(-3, 1, 7))
    np.testing.assert_allclose(figure.data[0].z, values.T, rtol=1e-5, atol=1e-12)
    assert figure.layout.scene.zaxis.title.text == "loss (±0.013)"
    assert plots.interactive_descent(SERIES, (np.zeros((2, 2)), np.ones(2))) is not None
    plots.surface_contour(ax, SERIES)
    ax.figure.canvas.draw()


def test_an_approximation_of_a_line_is_a_line(ax):
    series = SERIES._replace(
        domains=jnp.array([[1.0, 3.0]]),
        coefficients=jnp.array([0.5, 2.0, 1.0]),
        errors=jnp.array(1e-4),
    )
    (line,) = plots.loss_line(ax, series, resolution=9)
    u = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(np.asarray(line.get_xdata()), u + 2)
    np.testing.assert_allclose(np.asarray(line.get_ydata()), 0.5 + 2 * u + 2 * u**2 - 1, rtol=1e-6)
    assert ax.get_ylabel() == "loss (±0.0001)"


def test_sharpness_of_several_runs_stands_under_one_level_of_their_colour(ax):
    runs = np.array([[3.0, 7.0, 9.9, 10.1], [2.0, 6.0, np.nan, 9.8]])

    *lines, level = plots.sharpness_curve(ax, runs, 0.2, steps=[0, 5, 10, 15], label="seeds")

    for line, run in zip(lines, runs, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 5, 10, 15])
        np.testing.assert_array_equal(line.get_ydata(), run)
    np.testing.assert_allclose(np.asarray(level.get_ydata()), 10.0)
    assert len({line.get_color() for line in (*lines, level)}) == 1
    assert ax.get_legend_handles_labels()[1] == ["seeds", "2 / 0.2 = 10"]
    *_, level = plots.sharpness_curve(ax, jnp.arange(3.0), jnp.array(0.01), threshold=38)
    np.testing.assert_allclose(np.asarray(level.get_ydata()), 3800, rtol=1e-6)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: painted.spectrum(ax, HILL), "density must be a SpectralDensity"),
        (lambda ax: painted.spectrum(ax, {}), "there must be a density, got none"),
        (lambda ax: painted.spectrum(ax, {"a": HILL}), r"density\['a'\] must be a SpectralDensity"),
        (
            lambda ax: painted.spectrum(ax, curvature.SpectralDensity(jnp.ones(3), jnp.ones(3))),
            r"must have one shape \(S, K\), got \(3,\)",
        ),
        (
            lambda ax: painted.spectrum(
                ax, curvature.SpectralDensity(jnp.full((1, 3), jnp.nan), jnp.ones((1, 3)))
            ),
            "density must be finite",
        ),
        (lambda ax: painted.spectrum(ax, DENSITY, smoothing=0.0), "smoothing must be above 0"),
        (lambda ax: painted.barrier(ax, DENSITY), "barrier must be a Barrier"),
        (lambda ax: painted.barrier(ax, {}), "there must be a barrier"),
        (
            lambda ax: painted.barrier(
                ax,
                curves.Barrier(
                    coordinates=HILL.coordinates, losses=jnp.ones((3, 11)), height=jnp.ones(3)
                ),
            ),
            r"must have one shape \(N,\).*Pick one lane",
        ),
        (lambda ax: painted.curve_path(ax, jnp.ones((4, 2))), "projection must be a Projection"),
        (
            lambda ax: plots.curve_path(ax, planes.Projection(jnp.ones((4, 3)), jnp.ones(4))),
            r"must have the shape \(T, 2\)",
        ),
        (lambda ax: painted.persistence_diagram(ax, HILL), "persistence must be a Persistence"),
        (
            lambda ax: painted.persistence_diagram(ax, PAIRS._replace(births=jnp.ones(2))),
            r"must have one shape \(P,\)",
        ),
        (
            lambda ax: painted.persistence_diagram(
                ax, PAIRS._replace(births=jnp.ones(0), deaths=jnp.ones(0))
            ),
            "persistence.births must have a finite value",
        ),
        (
            lambda ax: painted.basin_profile(ax, HILL),
            "profile must be a BasinProfile, got a Barrier",
        ),
        (
            lambda ax: plots.basin_profile(ax, PROFILE._replace(worst=jnp.ones(3))),
            r"quantiles \(Q, R\), got \(3,\), \(4,\), \(3,\), \(3, 4\)\. Pick one lane",
        ),
        (
            lambda ax: plots.basin_profile(
                ax, PROFILE._replace(quantiles=jnp.full((3, 4), jnp.nan))
            ),
            "values must be finite",
        ),
        (lambda ax: painted.loss_band(ax, HILL), "trajectory must be a Trajectory"),
        (
            lambda ax: plots.loss_band(ax, jax.tree.map(lambda x: x[0], lanes())),
            "must be of several runs.*plots.loss_curve draws one run",
        ),
        (
            lambda ax: plots.loss_band(ax, lanes(), quantiles=(0.9, 0.1)),
            "quantiles must increase from 0 to 1",
        ),
        (
            lambda ax: plots.loss_band(ax, lanes()._replace(losses=lanes().losses * jnp.nan)),
            "must have a finite loss",
        ),
        (lambda ax: plots.sharpness_curve(ax, np.ones((2, 3, 4)), 0.1), r"the shape \(T,\), or"),
        (lambda ax: plots.sharpness_curve(ax, [np.nan], 0.1), "must have a finite entry"),
        (lambda ax: plots.sharpness_curve(ax, [1, 2], 0.1, steps=[1]), r"the shape \(2,\).*\(1,\)"),
        (lambda ax: plots.sharpness_curve(ax, [1, 2], 0.0), "learning_rate must be above 0, got 0"),
        (lambda ax: plots.sharpness_curve(ax, [1], 1, threshold=-2), "threshold must be above 0"),
        (lambda ax: plots.surface_contour(ax, SERIES, resolution=1), "resolution must be at least"),
        (lambda ax: plots.loss_line(ax, SERIES), "surface must have one coordinate, got 2"),
        (
            lambda ax: plots.surface_contour(ax, SERIES._replace(coefficients={"loss": 1})),
            "surface must have one array of coefficients.*Pick one",
        ),
    ],
)
def test_what_is_no_such_result_is_refused_by_name(ax, draw, message):
    with pytest.raises((TypeError, ValueError), match=r"plots\.\w+: .*" + message):
        draw(ax)
