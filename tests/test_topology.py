"""The shape of a surface in numbers: the persistence of its minima, and its critical points."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

from jaxgd import surfaces
from jaxgd.types import Status

# Himmelblau's function, by the facts of the literature: to six digits.
SADDLES = {
    13.311926: (3.385154, 0.073852),
    67.719150: (0.086678, 2.884255),
    104.015163: (-3.073026, -0.081353),
    178.337239: (-0.127961, -1.953715),
}
MINIMA = [(3, 2), (-2.805118, 3.131313), (-3.779310, -3.283186), (3.584428, -1.848127)]
MAXIMUM = (-0.270845, -0.923039)


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def series(fn, domains, degrees):
    """A Chebyshev series through a function's values at Chebyshev points, by NumPy alone."""
    low, high = np.array(domains, float).T
    nodes = [chebyshev.chebpts1(degree + 1) for degree in degrees]
    points = [(a + b) / 2 + (b - a) / 2 * x for a, b, x in zip(low, high, nodes, strict=True)]
    coefficients = fn(*np.meshgrid(*points, indexing="ij")) * np.ones([d + 1 for d in degrees])
    for axis, x in enumerate(nodes):
        inverse = np.linalg.inv(chebyshev.chebvander(x, len(x) - 1))
        coefficients = np.moveaxis(np.tensordot(inverse, coefficients, (1, axis)), 0, axis)
    return surfaces.Approximation(
        domains=jnp.array(domains, float),
        coefficients=jnp.asarray(coefficients),
        errors=jnp.array(0.0),
        num_points=jnp.array(coefficients.size, jnp.int32),
        status=jnp.array(Status.CONVERGED, jnp.int32),
    )


def joined_basins(values):
    """Births and deaths by a union-find over the points of a grid, the lowest first."""
    heights = np.where(np.isnan(values), np.inf, values)
    parent, pairs = {}, []

    def root(point):
        while parent[point] != point:
            point = parent[point]
        return point

    for point in sorted(np.ndindex(heights.shape), key=lambda point: heights[point]):
        parent[point] = point
        around = [(point[0] + i, point[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        for other in around:
            if other in parent and root(other) != root(point):
                older, younger = sorted((root(other), root(point)), key=lambda p: heights[p])
                parent[younger] = older
                pairs.append((heights[younger], heights[point]))
    lowest = {root(point) for point in parent}
    pairs += [(heights[point], np.inf) for point in lowest]
    return sorted(pair for pair in pairs if pair[0] < pair[1])


def surface_of(values):
    rows, columns = (jnp.asarray(np.linspace(-1, 2, n, dtype=np.float32)) for n in values.shape)
    return surfaces.Surface((rows, columns), jnp.asarray(values))


WALL = np.array([[1, 5, np.inf, 2], [3, 9, np.nan, 7], [2, 7, np.inf, 0]])
RIPPLES = np.random.default_rng(4).normal(size=(9, 14))


@pytest.mark.parametrize(
    "values",
    [
        RIPPLES,
        RIPPLES.round(),  # with many equal neighbours
        np.where(RIPPLES > 1, np.nan, np.where(RIPPLES < -1.5, -np.inf, RIPPLES)),
        WALL,
        np.array([[3.0, 1.0, 2.0, 0.0, 4.0]]),
        np.full((1, 1), 2.0),
        np.full((2, 3), np.nan),
        np.arange(12).reshape(3, 4) % 5,
    ],
    ids=["ripples", "ties", "holes", "wall", "line", "point", "nothing", "integers"],
)
def test_minima_are_born_and_die_as_in_a_union_find(values):
    surface = surface_of(values)

    found = surfaces.persistence(surface)

    pairs = zip(found.births.tolist(), found.deaths.tolist(), strict=True)
    wanted = np.asarray(joined_basins(values), "f").reshape(-1, 2)
    np.testing.assert_array_equal(np.array(sorted(pairs)).reshape(-1, 2), wanted)
    assert found.places.shape == (len(wanted), 2)
    assert found.births.dtype == found.deaths.dtype == jnp.float32
    mixed = (np.arange(300, 300 + values.shape[0]), surface.coordinates[1].astype(jnp.bfloat16))
    assert surfaces.persistence(surface._replace(coordinates=mixed)).places.dtype == jnp.float32
    axes, births = [np.asarray(axis) for axis in surface.coordinates], np.asarray(found.births)
    for birth, place in zip(births, np.asarray(found.places), strict=True):
        at = [int(np.argmin(np.abs(a - x))) for a, x in zip(axes, place, strict=True)]
        assert values[*at] == pytest.approx(float(birth))
    with np.errstate(invalid="ignore"):
        lifetimes = np.asarray(found.deaths) - np.asarray(found.births)
    assert (lifetimes[:-1] >= lifetimes[1:]).all()
    if len(wanted):
        assert births[0] == births.min()


def test_a_wall_of_nan_and_inf_parts_a_surface_into_two_that_never_meet():
    found = surfaces.persistence(surface_of(WALL))

    np.testing.assert_array_equal(found.births[:2], [0, 1])
    np.testing.assert_array_equal(found.deaths[:2], [np.inf, np.inf])


def test_himmelblaus_minima_die_at_its_saddles_within_the_error_of_the_grid():
    axis = np.linspace(-5, 5, 201)
    values = himmelblau(axis[:, None], axis[None])

    found = surfaces.persistence(surfaces.Surface((jnp.asarray(axis),) * 2, values))

    # Near a level point a value is off by half the curvature, at most 150, times a step squared.
    error = 150 / 2 * 2 * (0.05 / 2) ** 2
    np.testing.assert_allclose(found.births, 0, atol=error)
    assert found.deaths[0] == np.inf
    np.testing.assert_allclose(sorted(found.deaths[1:]), list(SADDLES)[:3], atol=error)
    distances = np.abs(np.asarray(found.places)[:, None] - np.array(MINIMA)[None]).max(axis=2)
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3]
    assert distances.min(axis=1).max() < 0.05


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    message = r'^surfaces\.persistence: gudhi is not .*pip install -e "\.\[topology\]"\.$'

    with pytest.raises(ModuleNotFoundError, match=message):
        surfaces.persistence(surface_of(RIPPLES))


def test_himmelblaus_nine_critical_points_are_found_to_six_digits():
    with jax.enable_x64(True):
        found = surfaces.critical_points(series(himmelblau, [(-5, 5), (-6, 5.5)], (4, 5)))
        x, y = np.asarray(found.places).T

    kinds = ["minimum"] * 4 + ["saddle"] * 4 + ["maximum"]
    assert found.kinds.tolist() == kinds
    assert found.values.dtype == jnp.float64
    # Level to 1e-6 over the smallest curvature, by the derivatives of the formula.
    slopes = (
        4 * x * (x**2 + y - 11) + 2 * (x + y**2 - 7),
        2 * (x**2 + y - 11) + 4 * y * (x + y**2 - 7),
    )
    np.testing.assert_allclose(slopes, 0, atol=1e-6)
    np.testing.assert_allclose(found.values, himmelblau(x, y), atol=1e-9)
    np.testing.assert_allclose(found.values[:4], 0, atol=1e-9)
    np.testing.assert_allclose(found.values[4:8], list(SADDLES), atol=1e-6)
    np.testing.assert_allclose(found.places[4:8], list(SADDLES.values()), atol=1e-6)
    np.testing.assert_allclose(found.places[8], MAXIMUM, atol=1e-6)
    np.testing.assert_allclose(sorted(found.places[:4].tolist()), sorted(MINIMA), atol=1e-6)
    off = 4 * x + 4 * y
    hessians = [[12 * x**2 + 4 * y - 42, off], [off, 12 * y**2 + 4 * x - 26]]
    wanted = np.linalg.eigvalsh(np.moveaxis(np.array(hessians), -1, 0))
    np.testing.assert_allclose(found.eigenvalues, wanted, rtol=1e-8)


def level(fn, domains, degrees):
    with jax.enable_x64(True):
        found = surfaces.critical_points(series(fn, domains, degrees))
    return found._replace(places=np.asarray(found.places), values=np.asarray(found.values))


def test_a_wave_over_one_axis_has_its_minima_and_maxima_in_turn():
    found = level(lambda x: np.sin(10 * x), [(0, 3)], (60,))

    order = found.places[:, 0].argsort()
    wanted = (np.arange(10) + 0.5) * np.pi / 10
    np.testing.assert_allclose(found.places[order, 0], wanted, atol=1e-9)
    assert found.kinds[order].tolist() == ["maximum", "minimum"] * 5
    np.testing.assert_allclose(found.values, np.sort(found.values))


def test_three_coordinates_and_far_from_square_domains():
    found = level(
        lambda x, y, z: np.cosh(x / 1e3) - (y - 1e-3) ** 2 * 1e6 - 2 * (z - 7) ** 2,
        [(-900, 2000), (0, 2e-3), (6, 9)],
        (12, 2, 3),
    )

    assert found.kinds.tolist() == ["saddle"]
    np.testing.assert_allclose(found.places, [[0, 1e-3, 7]], atol=1e-6)
    np.testing.assert_allclose(found.eigenvalues, [[-2e6, -4, 1e-6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "domains", "degrees", "places"),
    [
        (lambda x: x**4, [(-1, 2)], (4,), [[0]]),
        (lambda x, y: x**3 - 3 * x * y**2, [(-1, 2), (-1, 1)], (3, 2), [[0, 0]]),
    ],
)
def test_where_the_curvature_vanishes_a_point_is_degenerate(fn, domains, degrees, places):
    found = level(fn, domains, degrees)

    assert found.kinds.tolist() == ["degenerate"]
    np.testing.assert_allclose(found.places, places, atol=1e-4)


def test_a_ring_of_minima_is_reported_by_degenerate_points_on_it():
    found = level(lambda x, y: (x**2 + y**2 - 1) ** 2, [(-2, 2), (-2, 2)], (4, 4))

    assert found.kinds[-1] == "maximum"
    assert len(found.kinds) > 8
    assert set(found.kinds[:-1]) == {"degenerate"}
    radii = np.linalg.norm(np.asarray(found.places)[:-1], axis=1)
    np.testing.assert_allclose(radii, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("fn", "kinds"),
    [
        (lambda x, y: x + 2 * y, []),
        (lambda x, y: x * np.nan + y, []),
        (lambda x, y: (x - 2) ** 2 + y**2, []),  # level outside of the domain only
        (lambda x, y: (x - 1) ** 2 + y**2, ["minimum"]),  # on its border
    ],
    ids=["slope", "nan", "outside", "border"],
)
def test_only_level_points_of_the_domain_count(fn, kinds):
    assert level(fn, [(-1, 1), (-1, 1)], (2, 2)).kinds.tolist() == kinds


def test_a_constant_is_level_everywhere_and_nowhere_a_minimum():
    assert set(level(lambda x: 0 * x + 3.7, [(0, 1)], (4,)).kinds) == {"degenerate"}
