"""Two experiments at the limit of the learning rate: what they compute, held against witnesses."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.beyond import edge_of_stability as edge
from experiments.beyond import trainability
from jaxgd import surfaces

pytestmark = pytest.mark.usefixtures("x64")


# The edge of stability


def descended_in_numpy(params, x, y, rate, num_steps):
    """Gradient descent on the 1-100-1 network, its gradient written out; keeps every point."""
    (weights, bias), output = jax.tree.map(np.asarray, params)
    weights = weights[0]
    points, losses = [], []
    for _ in range(num_steps + 1):
        hidden = np.tanh(np.outer(x[:, 0], weights) + bias)
        error = hidden @ output - y
        points.append((weights, bias, output))
        losses.append(np.mean(error**2) / 2)
        back = np.outer(error, output) * (1 - hidden**2) / len(y)
        output = output - rate * hidden.T @ error / len(y)
        weights, bias = weights - rate * x[:, 0] @ back, bias - rate * back.sum(axis=0)
    return points, np.array(losses)


@pytest.fixture(scope="module")
def courses():
    """4,000 steps from one start: of degree 4 at rate 0.3 and, as a control, at 0.03."""
    with jax.enable_x64(True):
        x, y = (jnp.asarray(part) for part in edge.examples(4))
        start = jax.jit(edge.init)(jax.random.key(1))
        rates = np.array([edge.EDGES[0].rate, edge.CONTROLS[0].rate])
        run = jax.vmap(lambda rate: edge.follow(start, x, y, rate, num_steps=4000))
        return start, x, y, jax.jit(run)(rates)


def test_the_course_is_plain_gradient_descent_looked_at_every_stride(courses):
    start, x, y, course = courses
    steps = 2 * edge.STRIDE
    for lane, rate in enumerate((0.3, 0.03)):
        points, losses = descended_in_numpy(start, np.asarray(x), np.asarray(y), rate, steps)
        np.testing.assert_allclose(course.losses[lane, : steps + 1], losses, rtol=1e-9)
        (weights, bias), output = jax.tree.map(
            lambda leaf, lane=lane: np.asarray(leaf)[lane], course.params
        )
        for row, wanted in enumerate(points[:: edge.STRIDE]):
            got = (weights[row, 0], bias[row], output[row])
            for ours, theirs in zip(got, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_sharpness_rises_to_2_over_the_rate_and_stays_and_is_that_of_the_whole_hessian(courses):
    _, x, y, course = courses
    rows, bound = [0, -4, -3, -2, -1], 2 / edge.EDGES[0].rate
    points = jax.tree.map(lambda leaf: np.asarray(leaf)[0][rows], course.params)

    sharpness = jax.jit(edge.sharpness_along)(points, x, y)

    hessians = jax.jit(jax.vmap(lambda point: edge.hessian(point, x, y)))(points)
    assert hessians.shape == (5, 300, 300)
    np.testing.assert_allclose(sharpness, np.linalg.eigvalsh(hessians)[:, -1], rtol=1e-9)
    assert sharpness[0] < 0.6 * bound
    np.testing.assert_allclose(sharpness[1:], bound, rtol=0.1)


def test_the_loss_jumps_at_the_edge_and_falls_all_the_same_but_never_jumps_at_a_tenth(courses):
    losses = np.asarray(courses[-1].losses)
    assert edge.rising(losses[0, 2000:]) > 0.2
    assert np.median(losses[0, -400:]) < 0.6 * losses[0, 0]
    assert edge.rising(losses[1]) == 0


def test_the_network_has_300_parameters_xavier_weights_and_no_bias_at_the_start():
    hidden, output = jax.jit(jax.vmap(edge.init))(jax.random.split(jax.random.key(0), 200))

    assert hidden.weights[0].size + hidden.bias[0].size + output[0].size == 300
    assert (hidden.bias == 0).all()
    # A standard deviation from 20,000 numbers is off by half a percent.
    np.testing.assert_allclose(np.std(hidden.weights), 1.9 * np.sqrt(2 / 101), rtol=0.02)
    np.testing.assert_allclose(np.std(output), np.sqrt(2 / 101), rtol=0.02)


def test_the_labels_are_chebyshev_polynomials_at_20_even_points():
    x, cubic = edge.examples(3)
    assert x.shape == (20, 1)
    np.testing.assert_allclose(np.diff(x[:, 0]), 2 / 19)
    np.testing.assert_allclose(cubic, 4 * x[:, 0] ** 3 - 3 * x[:, 0], atol=1e-14)
    np.testing.assert_allclose(
        edge.examples(4)[1], 8 * x[:, 0] ** 4 - 8 * x[:, 0] ** 2 + 1, atol=1e-14
    )


# The trainability map


def drawn(key, shapes):
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def outcome_in_numpy(key, width, num_steps, log_rate_1, log_rate_2):
    """One network of the map, its gradient written out, every loss kept."""
    n, m = width, width * width + width
    shapes = ((n, n), (n,), (m, n), (m,))
    first, second, inputs, targets = map(np.asarray, drawn(key, shapes))
    losses = []
    with np.errstate(all="ignore"):
        for _ in range(num_steps):
            hidden = np.tanh(np.sqrt(2) * inputs @ first / np.sqrt(n))
            error = hidden @ second / np.sqrt(n) / np.sqrt(n) - targets
            losses.append(np.mean(error**2))
            back = np.outer(2 * error / m, second / n) * (1 - hidden**2)
            second = second - 10**log_rate_2 * (hidden.T @ (2 * error / m)) / n
            first = first - 10**log_rate_1 * np.sqrt(2 / n) * inputs.T @ back
        v = np.array(losses) / losses[0]
        v = np.where(np.isfinite(v), v, 1e6).clip(max=1e6)
    return -v.sum() if v[-20:].mean() < 1 else (1 / v).sum()


RATES = [(-3, -3), (-1, 0.5), (1, 0), (0.5, 1), (-2, 2.5), (1, 3), (6, 6), (-3, 6), (150, 150)]


@pytest.fixture(scope="module")
def outcomes():
    with jax.enable_x64(True):
        fn = jax.vmap(trainability.outcome_of(jax.random.key(2), width=3, num_steps=23))
        return np.asarray(jax.jit(fn)(*jnp.array(RATES, float).T))


@pytest.mark.parametrize("lane", range(len(RATES)), ids=str)
def test_the_value_is_that_of_a_plain_loop_that_keeps_every_loss(outcomes, lane):
    wanted = outcome_in_numpy(jax.random.key(2), 3, 23, *RATES[lane])
    np.testing.assert_allclose(outcomes[lane], wanted, rtol=1e-9)


def test_small_rates_converge_and_large_ones_diverge(outcomes):
    value = dict(zip(RATES, outcomes, strict=True))
    assert value[-1, 0.5] < 0
    assert value[-3, -3] < 0
    assert value[-2, 2.5] > 0
    assert value[6, 6] > 0


@cache
def compiled(num_steps):
    """16 runs, in two programs that differ in their number of steps."""
    fn = jax.vmap(trainability.outcome_of(jax.random.key(0), width=3, num_steps=num_steps))
    return jax.jit(fn).lower(jnp.zeros(16), jnp.zeros(16)).compile()


def test_a_run_that_stands_still_has_not_converged_and_a_burst_is_clipped():
    log_rates = np.repeat([-300.0, 200.0], 8)
    ends = compiled(50)(log_rates, log_rates)
    assert (ends[:8] == 50).all()  # every loss is the first
    np.testing.assert_allclose(ends[8:], 1 + 49e-6)  # overflows at once


def test_the_map_has_the_first_rate_along_its_first_axis():
    fn = trainability.outcome_of(jax.random.key(0), width=3, num_steps=12)
    first, second = np.array([-2.0, 0.3]), np.array([-1.0, 0.5, 0.9])

    surface = jax.jit(lambda *axes: surfaces.sweep(fn, *axes, batch_size=4))(first, second)

    key = jax.random.key(0)
    looped = np.array([[outcome_in_numpy(key, 3, 12, a, b) for b in second] for a in first])
    np.testing.assert_allclose(surface.values, looped, rtol=1e-9)
    assert len(np.unique(looped)) == 6


def test_memory_grows_by_two_numbers_a_step_and_run():
    def bytes_used(num_steps):
        usage = compiled(num_steps).memory_analysis()
        assert usage is not None
        return usage.temp_size_in_bytes

    losses_and_norms = 2 * 16 * (5000 - 50) * np.dtype(np.float64).itemsize
    assert bytes_used(5000) - bytes_used(50) <= losses_and_norms


def test_the_border_is_where_the_next_cell_has_the_other_sign():
    values = np.array([[-1, -2, -3, 4], [-1, -1, 5, 6], [-1, -1, -1, -1]])
    wanted = np.array([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(trainability.border(values), wanted)


def cantor_product(levels):
    cells = np.ones((1, 1), bool)
    for _ in range(levels):
        cells = np.kron(cells, np.outer([1, 0, 1], [1, 0, 1])).astype(bool)
    return cells


def koch_curve(levels, resolution):
    points: Any = np.array([0, 1 + 0j])
    turn = np.exp(1j * np.pi / 3)
    for _ in range(levels):
        third = np.diff(points) / 3
        start = points[:-1]
        pieces = [start, start + third, start + third * (1 + turn), start + 2 * third]
        points = np.append(np.stack(pieces, axis=1).ravel(), 1)
    cells = np.zeros((resolution, resolution), bool)
    scale = resolution - 1
    cells[(np.real(points) * scale).astype(int), (np.imag(points) * scale).astype(int)] = True
    return cells


POWERS = [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("cells", "sizes", "dimension"),
    [
        (np.eye(96, dtype=bool), POWERS, 1),
        (np.arange(96)[:, None] == np.full(96, 40), POWERS, 1),
        (np.ones((64, 96), bool), POWERS, 2),
        (cantor_product(5), [1, 3, 9, 27], np.log(4) / np.log(3)),
    ],
    ids=["diagonal", "line", "square", "Cantor product"],
)
def test_sets_of_known_dimension_are_measured_exactly(cells, sizes, dimension):
    estimate, error = trainability.dimension_of(cells, sizes)
    assert estimate == pytest.approx(dimension, abs=1e-12)
    assert error < 1e-12


def test_the_koch_curve_is_measured_within_a_few_percent():
    estimate, error = trainability.dimension_of(koch_curve(8, 512), [2, 4, 8, 16, 32, 64])
    assert estimate == pytest.approx(np.log(4) / np.log(3), abs=0.06)
    assert 0 < error < 0.06


def test_the_standard_error_is_that_of_a_regression():
    from scipy import stats  # half a second

    cells, sizes = np.random.default_rng(0).random((50, 70)) < 0.1, [1, 2, 3, 5, 8]
    counts = [
        sum(cells[i : i + s, j : j + s].any() for i in range(0, 50, s) for j in range(0, 70, s))
        for s in sizes
    ]
    assert [trainability.count_boxes(cells, size) for size in sizes] == counts

    fit: Any = stats.linregress(-np.log(np.array(sizes)), np.log(np.array(counts, float)))
    measured = trainability.dimension_of(cells, sizes)
    np.testing.assert_allclose(measured, (fit.slope, fit.stderr), rtol=1e-9)


def test_a_map_without_border_has_no_dimension():
    assert np.isnan(trainability.dimension_of(np.zeros((16, 16), bool), [1, 2, 4])).all()


def test_the_zoom_goes_where_a_quarter_of_the_cells_are_border():
    values = -np.ones((40, 32))
    values[20:25, 8:12] = 1 - 2 * (np.arange(5)[:, None] % 2 == np.full(4, 0))  # too fine
    values[5, 14:16] = values[7, 14:16] = 1  # two short dashes
    first, second = jnp.linspace(0, 39, 40), jnp.linspace(100, 131, 32)

    (left, right), (low, high) = trainability.window(surfaces.Surface((first, second), values))

    side = 40 // trainability.ZOOM
    assert (right - left, high - low) == (side - 1, side - 1)
    cells = trainability.border(values)
    inside = cells[int(left) : int(right) + 1, int(low) - 100 : int(high) - 99].mean()
    shares = [
        cells[i : i + side, j : j + side].mean() for i in range(41 - side) for j in range(33 - side)
    ]
    assert abs(inside - 0.25) == min(abs(share - 0.25) for share in shares)
    assert max(shares) > 0.5


def test_colours_follow_the_rank_on_either_side():
    values = np.array([[-300.0, -2.0], [1.0, 50.0], [-40.0, 7.0]])
    coloured = trainability.ranks(values)
    np.testing.assert_array_equal(np.sign(coloured), np.sign(values))
    np.testing.assert_array_equal(coloured.ravel().argsort(), [0, 4, 1, 2, 5, 3])
