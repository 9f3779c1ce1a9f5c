"""A smooth surface from a few hundred evaluations, with an error that can be believed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

from jaxgd import planes, surfaces, sweeps
from jaxgd.sweeps import _chebyshev, _program
from jaxgd.types import Status

UNIT = (-1.0, 1.0)


def approximate(fn, *domains, tolerance=1e-3, **options):
    return sweeps.approximate(fn, *domains, tolerance=tolerance, progress=False, **options)


def network(seed, activation):
    """The mean squared error of a small network on a random plane, in NumPy."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=30)
    first, last = rng.normal(size=(3, 5, 12)) / 2.2, rng.normal(size=(3, 12)) / 3.5

    def loss(a, b):
        a, b = a[..., None, None], b[..., None, None]
        hidden = activation(x @ (first[0] + a * first[1] + b * first[2]))
        scores = hidden @ (last[0] + a[..., 0] * last[1] + b[..., 0] * last[2])[..., None]
        return ((scores[..., 0] - y) ** 2).mean(-1)

    return loss


def relu(z):
    return np.maximum(z, 0)


# Smooth ones, peaks, kinks, jumps, in one, two and three coordinates; what tolerance and degree.
CASES = {
    "exp": (lambda a: np.exp(5 * a), 1e-4, 128),
    "runge": (lambda a: 1 / (1 + 25 * a**2), 1e-3, 128),
    "waves": (lambda a: np.sin(40 * a), 1e-3, 128),
    "small waves": (lambda a: np.sin(a) + 1e-4 * np.sin(300 * a), 1e-4, 128),
    "a Chebyshev polynomial": (lambda a: np.cos(128 * np.arccos(a)), 1e-3, 128),
    "one of too high a degree": (lambda a: np.cos(64 * np.arccos(a)), 1e-3, 32),
    "spike": (lambda a: np.exp(-2000 * (a - 0.123) ** 2), 1e-3, 128),
    "kink": (lambda a: np.abs(a - 0.3), 1e-2, 64),
    "two kinks": (lambda a: np.maximum(a, 0.1) + np.maximum(-a, 0.5), 1e-4, 64),
    "root": (lambda a: np.sqrt(a + 1), 1e-2, 64),
    "step": (lambda a: 1.0 * (a > 0.2), 1e-2, 64),
    "another step": (lambda a: 1.0 * (a > -0.71), 1e-2, 32),
    "cusp": (lambda a: np.sqrt(np.abs(a - 0.72)), 1e-2, 32),
    "quadratic": (lambda a, b: a**2 + 3 * b**2 + a * b, 1e-3, 32),
    "one axis": (lambda a, b: np.sin(9 * a) + 0.1 * b, 1e-3, 32),
    "ridge": (lambda a, b: np.tanh(4 * (a - b)), 1e-3, 32),
    "bowl": (lambda a, b: np.log(0.05 + a**2 + 2 * b**2), 1e-2, 32),
    "oblique kink": (lambda a, b: np.abs(a - 0.3 + 0.2 * b), 1e-3, 32),
    "oblique step": (lambda a, b: 1.0 * (a + 0.5 * b > -0.7), 1e-2, 32),
    "steep oblique step": (lambda a, b: 1.0 * (a - 0.9 * b > 0.31), 1e-2, 32),
    "flat oblique step": (lambda a, b: 1.0 * (0.14 * a + b > -0.2), 1e-2, 32),
    "sharp oblique cusp": (lambda a, b: np.abs(a + 0.6 * b - 0.2) ** 0.3, 1e-2, 32),
    "sharp cusp in a point": (lambda a, b: np.hypot(a - 0.3, b + 0.21) ** 0.3, 1e-2, 32),
    "two oblique kinks": (lambda a, b: relu(a + 0.7 * b) + relu(b - a - 0.4), 1e-2, 32),
    "oblique ridge": (lambda a, b: np.exp(-60 * (a + 0.4 * b) ** 2), 1e-2, 32),
    "round step": (lambda a, b: 1.0 * (a**2 + b**2 > 0.3), 1e-2, 32),
    "tanh network": (network(0, np.tanh), 1e-3, 32),
    "relu network": (network(1, relu), 1e-2, 32),
    "another relu network": (network(2, relu), 1e-2, 32),
    "three coordinates": (lambda a, b, c: np.exp(a * b - c), 1e-3, 16),
    "step of three": (lambda a, b, c: 1.0 * (a + 0.5 * b - 0.3 * c > 0.1), 1e-2, 8),
    "cusp of three": (lambda a, b, c: np.hypot(np.hypot(a, b), c - 0.1) ** 0.5, 1e-2, 8),
    "three unlike ones": (lambda a, b, c: np.sin(5 * a) * b + c, 1e-3, 16),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_between_half_and_ten_times_the_true_one(name):
    fn, tolerance, max_degree = CASES[name]
    num_axes = fn.__code__.co_argcount
    lattice = _chebyshev.lattice(num_axes, max_degree)
    axes = _chebyshev.axes(lattice, np.array([UNIT] * num_axes))

    fit = _chebyshev.refined(
        lambda points: [fn(*_chebyshev.coordinates(lattice, axes, points))], lattice, tolerance
    )

    points = np.linspace(-1, 1, {1: 2001, 2: 151, 3: 31}[num_axes])
    dense = fn(*np.meshgrid(*[points] * num_axes, indexing="ij"))
    series = fit.coefficients[0]
    for length in series.shape:
        basis = chebyshev.chebvander(points, length - 1)
        series = np.moveaxis(np.tensordot(basis, series, (1, 0)), 0, -1)
    true = np.abs(series - dense).max()
    off_grid = _chebyshev.off_grid(lattice, fit.known, fit.degrees)
    deviation = _chebyshev.evaluate(lattice, fit.coefficients[0], off_grid)
    told = _chebyshev.safety(fit) * np.abs(deviation - _chebyshev.at(fit.known, off_grid)[0]).max()
    if true > 1e-12 * np.abs(dense).max():
        assert true / 2 <= told <= 10 * true
    assert fit.is_within == (told <= tolerance * np.ptp(fit.known.values[0]) + 1e-12)
    assert true <= tolerance * np.ptp(dense) or not fit.is_within


def wave(a, b):
    return {"sine": jnp.sin(3 * a) * b, "square": a**2 + b}


@pytest.fixture(scope="module")
def waves():
    return approximate(wave, UNIT, (0, 2.0))


def test_a_smooth_surface_takes_a_few_hundred_evaluations(waves):
    a, b = np.linspace(-1, 1, 41), np.linspace(0, 2, 31)
    surface = jax.jit(
        lambda a, b: surfaces.sweep(lambda a, b: surfaces.evaluate(waves, a, b), a, b)
    )(a, b)

    assert waves.status == Status.CONVERGED
    assert waves.num_points < 250
    np.testing.assert_array_equal(waves.domains, [[-1, 1], [0, 2]])
    wanted = {"sine": np.sin(3 * a)[:, None] * b, "square": a[:, None] ** 2 + b}
    for name, values in wanted.items():
        true = np.abs(surface.values[name] - values).max()
        assert true <= min(1e-3 * np.ptp(values), 2 * waves.errors[name])
        assert waves.coefficients[name].shape == waves.coefficients["sine"].shape


def test_an_evaluation_is_that_of_numpy_up_to_the_borders_slopes_included(waves):
    series = np.asarray(waves.coefficients["sine"], np.float64)

    def sine(a, b):
        return surfaces.evaluate(waves, a, b)["sine"]

    @jax.jit
    def looked_at(a, b):
        return sine(a, b), jax.grad(sine, (0, 1))(a, b), jax.hessian(sine)(a, b)

    for a, b in [(-1.0, 0.0), (1.0, 2.0), (1.0, 0.0), (0.3, 1.7), (-0.77, 0.01)]:
        found = looked_at(a, b)
        value = chebyshev.chebval2d(a, b - 1, series)
        ders = [chebyshev.chebder(series, axis=i) for i in (0, 1)]
        slopes = np.array([chebyshev.chebval2d(a, b - 1, der) for der in ders])
        bend = chebyshev.chebval2d(a, b - 1, chebyshev.chebder(series, 2, axis=0))
        np.testing.assert_allclose(found[0], value, atol=1e-5)
        np.testing.assert_allclose(found[1], slopes, atol=1e-3)
        np.testing.assert_allclose(found[2], bend, atol=1e-1)
        # and those are what they are of the function itself
        true = np.array([3 * np.cos(3 * a) * b, np.sin(3 * a)])
        np.testing.assert_allclose(slopes, true, atol=0.05)


def test_outside_of_its_domains_a_series_says_nothing(waves):
    evaluate = jax.jit(lambda a, b: surfaces.evaluate(waves, a, b))

    assert np.isnan(evaluate(1.01, 1.0)["sine"])
    assert np.isnan(evaluate(0.0, -0.01)["square"])
    assert np.isfinite(evaluate(float(np.nextafter(np.float32(1), np.float32(2))), 2.0)["sine"])


def test_a_place_may_be_an_integer_of_few_bits():
    square = surfaces.Approximation(  # 100^2 (1 + x)^2, x from -1 to 1
        jnp.array([[0.0, 200.0]]), jnp.array([15e3, 2e4, 5e3]), 0.0, jnp.int32(3), jnp.int32(0)
    )
    places = np.int8(100), np.uint8(200), np.int32(7), True

    found = jax.jit(lambda places: [surfaces.evaluate(square, place) for place in places])(places)

    np.testing.assert_allclose(found, [int(place) ** 2 for place in places], atol=0.01)


def test_every_point_is_computed_once(monkeypatch):
    looked_at = []
    values = _program.values

    def spy(program, bound, batches):
        looked_at.extend(np.unique(batches).tolist())
        return values(program, bound, batches)

    monkeypatch.setattr(_program, "values", spy)
    result = approximate(lambda a, b: jnp.exp(a - 2 * b), UNIT, UNIT, tolerance=1e-4)

    assert result.num_points == len(looked_at) == len(set(looked_at))
    assert result.coefficients.shape[1] >= 9  # the grid was refined


def test_axes_are_refined_apart():
    result = approximate(lambda a, b, c: jnp.sin(9 * a) + 0.1 * b + c, UNIT, UNIT, UNIT)
    assert result.status == Status.CONVERGED
    assert result.coefficients.shape[0] >= 17
    assert result.coefficients.shape[1:] == (5, 5)


@pytest.mark.parametrize(
    ("fn", "options", "status"),
    [
        (lambda a: jnp.float32(a > 0.2), {}, Status.MAX_STEPS),
        (jnp.abs, {"tolerance": 1e-5, "max_degree": 20}, Status.MAX_STEPS),
        (lambda a: {"x": jnp.log(a), "y": a}, {}, Status.NON_FINITE),
        (lambda a: 1 / (a - 0.25) * jnp.where(a == 0.25, 0, 1) * jnp.inf, {}, Status.NON_FINITE),
        (lambda a: 3.0, {"tolerance": 0}, Status.CONVERGED),
        (lambda a: 3 * a, {"max_degree": 2}, Status.CONVERGED),
    ],
)  # fmt: skip
def test_the_status_says_how_it_ended(fn, options, status):
    result = approximate(fn, UNIT, **options)

    assert result.status == status
    assert result.num_points.dtype == jnp.int32
    degree = max(jax.tree.leaves(result.coefficients)[0].shape) - 1
    assert degree <= options.get("max_degree", 128)
    for error in jax.tree.leaves(result.errors):
        assert np.isnan(error) == (status == Status.NON_FINITE)
    if status == Status.MAX_STEPS:
        deviation = jax.jit(jax.vmap(lambda x: surfaces.evaluate(result, x) - fn(x)))
        true = np.abs(deviation(np.linspace(-1, 1, 501, dtype=np.float32))).max()
        assert true / 2 <= result.errors <= 10 * true
        assert result.errors > 1e-2


def test_with_data_it_is_the_mean_over_all_rows_that_is_approximated():
    rows = np.linspace(-1, 2, 23, dtype=np.float32)
    batches = [(rows[i : i + 5],) for i in range(0, 23, 5)]

    def fn(a, b, x):
        return jnp.mean(jnp.sin(a * x) + b * x**2)

    result = approximate(fn, UNIT, (0.0, 2.0), data=batches)
    whole = approximate(lambda a, b: fn(a, b, rows), UNIT, (0.0, 2.0))

    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.coefficients, whole.coefficients, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"data must be readable again, got an iterator\. Pass a l"
    ):
        approximate(fn, UNIT, UNIT, data=iter(batches))


def test_a_restricted_loss_is_approximated_on_its_plane():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    plane = planes.random(jax.random.key(0), jnp.ones((3, 2)))
    phi = planes.restrict(lambda p: jnp.mean(jnp.tanh(x @ p) ** 2), plane)

    result = approximate(phi, UNIT, UNIT, devices=jax.local_devices()[:1], batch_size=3)

    deviation = jax.jit(lambda a, b: surfaces.evaluate(result, a, b) - phi(a, b))
    for point in ((1.0, -1.0), (0.2, 0.7)):
        assert abs(deviation(*point)) <= float(result.errors)


def test_a_bar_counts_the_points(capsys):
    result = sweeps.approximate(jnp.exp, UNIT, tolerance=1e-3)
    out, err = capsys.readouterr()
    assert not out
    assert f"{result.num_points} points" in err
