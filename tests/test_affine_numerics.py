"""What planes.restrict promises of numbers: how exact it is, and what it does at the limits."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jaxgd import losses, neurons, planes, surfaces
from jaxgd.neurons import Neuron

RISK = losses.empirical_risk(neurons.weighted_sum, losses.squared_error)


def plainly(loss_fn, plane, *coordinates):
    """The loss itself at a point, as one program."""
    return jax.jit(loss_fn)(planes.point(plane, *coordinates))


def line_of_fit(origin, plane_of, x, y):
    """A plane of (weight, bias), and the exact mean squared error of each, in float64."""

    def exact(weight, bias):
        residuals = np.float64(x) * np.float64(weight) + np.float64(bias) - np.float64(y)
        return np.mean(residuals**2)

    neuron = Neuron(jnp.array([origin[0]], jnp.float32), jnp.array(origin[1], jnp.float32))
    return plane_of(neuron), exact


def by_coordinate(neuron):
    return planes.coordinate(neuron, ("weights", 0), ("bias",))


def by_steps(neuron):
    """The same directions from an origin that is not set to zero."""
    zero, one = jnp.asarray([0.0]), jnp.asarray([1.0])
    flat_zero, flat_one = jnp.asarray(0.0), jnp.asarray(1.0)
    return planes.Plane(neuron, (Neuron(one, flat_zero), Neuron(zero, flat_one)))


def fit(name):
    x = np.arange(10_000.0 if name == "ten thousand" else 7.0)
    noise = np.random.default_rng(1).normal(size=x.size)
    match name:
        case "a few":
            return (0.0, 0.0), by_coordinate, x, 1e6 + x, (1.0, 1e6)
        case "ten thousand":
            return (0.0, 0.0), by_coordinate, x, 2020 * x + 2020, (2020.0, 2020.0)
        case "an origin far away":
            return (3e5, -2e5), by_steps, x, 3 * x - 2 + noise, (3 - 3e5, -2 + 2e5)
        case "noise far away":
            return (0.0, 0.0), by_coordinate, x, 3e5 + x + noise, (1.0, 3e5)
    return (0.1, 0.2), by_steps, x, 2 * x + noise, (1.9, -0.2)


def restricted(plane, data, points):
    """The values of the restricted risk at some points."""
    return jax.vmap(planes.restrict(RISK, plane, *data))(*points.T)


@pytest.mark.parametrize(
    ("name", "is_traced"),
    [
        ("a few", False),
        ("a few", True),
        ("ten thousand", False),
        ("an origin far away", True),
        ("noise far away", False),
        ("nothing far away", True),
    ],
)
def test_squares_are_as_exact_as_the_loss_wherever_the_origin_is(name, is_traced):
    origin, plane_of, x, y, least = fit(name)
    x, y = x.astype(np.float32), y.astype(np.float32)
    plane, exact = line_of_fit(origin, plane_of, x, y)
    data = x[:, None], y
    offsets = np.array([(0, 0), (0, 1), (0.5, 0), (-1, 20), (100, -100)])
    points = (np.array(least) + offsets).astype(np.float32)

    values = (jax.jit(restricted) if is_traced else restricted)(plane, data, points)

    plain = [jax.jit(RISK)(planes.point(plane, *map(float, point)), *data) for point in points]
    shift = np.array(origin) if plane_of is by_steps else np.zeros(2)
    right = np.array([exact(*row) for row in shift + points.astype(float)])
    # A little of the largest residual's rounding: the loss itself may be exact by luck.
    slack = 2 * np.max(np.abs(np.array(plain) - right)) + 1e-3 * right
    assert np.all(np.abs(np.array(values) - right) <= slack)


STILL = np.full(4, 1e9, np.float32)
FAR_PARTS = {
    "squares": lambda xp, r: {"squares": xp.mean(r**2)},
    "others": lambda xp, r: {
        "distances": xp.mean(abs(r)),
        "saturated": xp.mean(xp.tanh(r)) + 2,
        "convolved": xp.mean(xp.convolve(r, r[:3])),
    },
}


@functools.cache
def far_loss(name):
    return lambda params, x, y: FAR_PARTS[name](jnp, x @ params["w"] - y)


@pytest.mark.parametrize("way", ["ends", "steps"])
@pytest.mark.parametrize("name", FAR_PARTS)
def test_a_loss_is_as_exact_as_without_restrict_where_the_origin_is_far_from_all_that_is_seen(
    name, way
):
    rng = np.random.default_rng(0)
    x, least = rng.normal(size=(50, 3)).astype(np.float32), np.array([1, 2, 3], np.float32)
    y = (x @ least + 0.01 * rng.normal(size=50)).astype(np.float32)
    way_between = np.array([1, -1, 0.5], np.float32)
    first, last = least.copy(), least + way_between
    if way == "ends":  # where all coordinates are 0 or 1, plain evaluation is exact
        origin = least + np.float32(1e7) * np.array([1, -3, 0.2], np.float32)
        ends, points = (origin, first, last), [(1, 0), (0, 1)]
        plane = planes.through(*({"w": jnp.array(end), "still": STILL} for end in ends))
    else:
        away, other = np.array([[1, -2, 0], [0, 0, 0.5]], np.float32)
        steps = ({"w": d, "still": 0 * STILL} for d in (away, other))
        plane = planes.Plane({"w": least + 65536 * away, "still": STILL}, tuple(steps))
        points = [(-65536, 0), (-65535, 1)]

    loss_fn = far_loss(name)
    phi = planes.restrict(loss_fn, plane, x, y)
    values = jax.vmap(phi)(*np.array(points, np.float32).T)

    assert ("dot_general" in str(jax.make_jaxpr(phi)(0.5, 0.5))) == (name == "others")
    plain_loss = jax.jit(loss_fn)
    for place, point in enumerate(points):
        params = planes.point(plane, *map(float, point))
        plain = plain_loss(params, x, y)
        residuals = np.dot(np.float64(x), np.float64(params["w"])) - np.float64(y)
        for part, right in FAR_PARTS[name](np, residuals).items():
            slack = 2 * abs(float(plain[part]) - right) + 1e-3 * abs(right)
            assert abs(float(np.asarray(values[part])[place]) - right) <= slack


def test_directions_that_are_nearly_parallel_lose_no_digits():
    rng = np.random.default_rng(1)
    x = np.append(rng.normal(size=(50, 3)), np.ones((50, 1)), axis=1).astype(np.float32)
    y = (1e4 + rng.normal(size=50)).astype(np.float32)
    step = np.array([0.3, -0.2, 0.1, 1], np.float32)
    other = step + np.float32(1e-6) * np.array([1, 0.5, -1, 0], np.float32)
    plane = planes.Plane(np.zeros(4, np.float32), (step, other))

    phi = planes.restrict(lambda w, x, y: jnp.mean((x @ w - y) ** 2), plane, x, y)

    for a, b in ((1e4, 1.0), (5e3, 5e3), (2e4, -1e4)):
        exact = np.mean((x @ (a * np.float64(step) + b * np.float64(other)) - y) ** 2)
        np.testing.assert_allclose(phi(a, b), exact, rtol=1e-4)


@pytest.mark.parametrize("is_traced", [False, True])
def test_half_a_million_rows_lose_nothing(is_traced):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(500_000, 1)).astype(np.float32)
    y = (3 * x[:, 0] + 1 + 0.01 * rng.normal(size=500_000)).astype(np.float32)
    plane, exact = line_of_fit((0.0, 0.0), by_coordinate, x[:, 0], y)

    point = np.array([[3.1, 0.9]], np.float32)
    values = (jax.jit(restricted) if is_traced else restricted)(plane, (x, y), point)

    np.testing.assert_allclose(values, exact(*point.T), rtol=1e-5)


def test_the_square_of_a_mean_far_away_is_as_exact_as_a_mean_of_squares():
    x = np.random.default_rng(5).normal(size=200).astype(np.float32)
    y = np.float32(1e6) + 3 * x
    plane = by_coordinate(Neuron(jnp.zeros(1), jnp.array(0.0)))

    def squared_bias(neuron, x, y):
        return jnp.square(jnp.mean(neurons.weighted_sum(neuron, x) - y))

    value = planes.restrict(squared_bias, plane, x[:, None], y)(2.0, 1e6 + 1)

    exact = np.mean(2 * np.float64(x) + 1e6 + 1 - np.float64(y)) ** 2
    np.testing.assert_allclose(value, exact, rtol=1e-3)


# Ranges.

LARGE, SMALL = np.full((5, 3), 1e30, np.float32), np.full((5, 3), 1e-30, np.float32)
SMALL[0] = 0  # not all is zero where some is


def line(origin, direction):
    return planes.Plane(np.full(3, origin, np.float32), (np.full(3, direction, np.float32),))


RANGES = {
    "an origin that overflows": (
        lambda p: jnp.mean(jnp.tanh(LARGE @ p / 1e37)),
        line(1e9, -1e7),
        99.5,
    ),
    "a residual that overflows": (lambda p: jnp.mean((LARGE @ p / 1e37) ** 2), line(1e9, -1e7), 99),
    "an origin at the end of the range": (
        lambda p: jnp.mean(jnp.tanh(p @ jnp.ones(3) / 1e30)),
        line(3e38, -1e38),
        2.99999,
    ),
    "an origin that overflows, though it is near": (
        lambda p: jnp.mean(jnp.log1p((LARGE @ p + 3e38) / 1e37)),
        line(3e7, -3e7),
        0.75,
    ),
    "a tangent that overflows": (
        lambda p: jnp.mean(jnp.tanh(LARGE @ p / 1e31)),
        line(1.0, 1e9),
        1e-9,
    ),
    "a tangent that underflows": (
        lambda p: jnp.mean(jnp.tanh(SMALL @ p * 1e24)),
        line(0.0, -1e-20),
        1e24,
    ),
    "a tangent that underflows, squared": (
        lambda p: jnp.mean((SMALL @ p * 1e24) ** 2),
        line(0.0, -1e-20),
        1e24,
    ),
    "a row that underflows": (lambda p: jnp.mean((SMALL @ p) ** 2), line(0.0, -1e-14), 1e38),
    "a divisor that is large": (
        lambda p: jnp.sum(jnp.tanh(p / 1e30 * 1e20)),
        line(1.0, -1e-15),
        1e25,
    ),
    "a row that overflows": (
        lambda p: jnp.sum((jnp.full((5, 3), 0.5) @ p) ** 2) + 1,
        line(1.0, 1.0),
        3e38,
    ),
    "a tangent of zero": (
        lambda p: jnp.sum(jnp.tanh((0 * SMALL) @ p + p[0])),
        line(1.0, -2.0),
        0.25,
    ),
}


@pytest.mark.parametrize("name", RANGES)
def test_what_overflows_or_underflows_at_the_origin_need_not_at_a_point(name):
    loss_fn, plane, coordinate = RANGES[name]

    value = planes.restrict(loss_fn, plane)(coordinate)

    plain = plainly(loss_fn, plane, coordinate)
    assert float(plain) != 0
    np.testing.assert_allclose(value, plain, rtol=1e-5)


def moved_and_still(p):
    return {
        "both": jnp.tanh(p["moved"]).sum() + p["still"].sum(),
        "moved": jnp.tanh(p["moved"]).sum(),
        "still": jnp.tanh(p["still"]).sum(),
        "count": (p["still"] > 0).sum(),
    }


@pytest.mark.parametrize("coordinate", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_coordinate_that_is_not_finite_spoils_arrays_that_it_does_not_move(coordinate):
    params = {"moved": np.ones(3, np.float32), "still": np.ones(2, np.float32)}
    step = {"moved": np.ones(3, np.float32), "still": np.zeros(2, np.float32)}
    plane = planes.Plane(params, (step,))

    phi = planes.restrict(moved_and_still, plane)

    found, plain = phi(coordinate), plainly(moved_and_still, plane, coordinate)
    for name in ("both", "moved", "still"):
        np.testing.assert_array_equal(found[name], plain[name])
    chex.assert_trees_all_close(phi(0.5), plainly(moved_and_still, plane, 0.5), rtol=1e-6)


FAR_X = np.random.default_rng(4).normal(size=(9, 4)).astype(np.float32)


def two_layers(p):
    return {"w": jnp.tanh(FAR_X @ p["w"]).mean(), "v": jnp.tanh(FAR_X @ p["v"]).mean()}


@pytest.mark.parametrize("coordinate", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_network_far_out_is_nan_where_sums_of_both_signs_overflow(coordinate):
    w, v, d, e = np.random.default_rng(5).normal(size=(4, 4, 3))
    plane = planes.Plane({"w": w, "v": v}, ({"w": d, "v": 0 * v}, {"w": 0 * w, "v": e}))

    found = planes.restrict(two_layers, plane)(coordinate, 0.3)

    plain = plainly(two_layers, plane, coordinate, 0.3)
    assert np.isnan(plain["w"])
    chex.assert_trees_all_close(found, plain, rtol=1e-5)


ONE_SIGN = np.random.default_rng(5).uniform(1, 2, size=(9, 4)).astype(np.float32)


def sums_of_one_sign_and_of_both(p):
    x = ONE_SIGN
    return {
        "up": jax.nn.softplus(x @ p["up"]).mean(),
        "down": jax.nn.relu(-x @ p["up"]).mean(),
        "zero": jnp.tanh(jnp.sum(p["zero"])),
        "both": jnp.tanh(x @ p["both"]).mean(),
        "running": jnp.tanh(jnp.cumsum(p["up"])).sum(),
        "two": jnp.tanh(x @ p["up"] + x @ p["both"]).mean(),
        "added": jnp.tanh(p["up"][0] + p["zero"][0]),
        "opposed": jnp.tanh(p["up"][0] + p["both"][2]),
        "subtracted": jnp.tanh(3 * p["up"][0] - p["zero"][0]),
        "squares": jnp.mean((x @ p["up"] - 1) ** 2),
        "weighted": jnp.mean(jnp.array([1.0, 2, 3, 0]) * (p["up"] - 1) ** 2),
        "less": jnp.sum(jnp.square(x @ p["up"])) - jnp.sum(jnp.square(p["up"])),
        "mixed squares": jnp.mean((x @ p["both"] - 1) ** 2),
    }


@pytest.mark.parametrize("coordinate", [jnp.inf, -jnp.inf])
def test_a_sum_is_infinite_where_all_its_terms_are_of_one_sign_and_nan_elsewhere(coordinate):
    w = np.random.default_rng(6).normal(size=4)
    step = {"up": np.ones(4), "zero": np.array([1.0, 1, 0, 1]), "both": np.array([1.0, 3, -1, 2])}
    plane = planes.Plane(dict.fromkeys(step, w), (step,))

    found = planes.restrict(sums_of_one_sign_and_of_both, plane)(coordinate)
    plain = plainly(sums_of_one_sign_and_of_both, plane, coordinate)

    nan = {name for name, value in plain.items() if np.isnan(value)}
    of_squares = {"weighted", "less", "mixed squares"}
    assert nan == {"zero", "both", "two", "opposed", "subtracted", *of_squares}
    chex.assert_trees_all_equal(found, plain)


@functools.cache
def asking(asks):
    def loss_fn(p):
        finite = jnp.sum(jnp.exp(-jnp.abs(jnp.ones((9, 4)) @ p["moved"])))
        return jnp.where(asks(p["still"]).any(), 7.0, finite)

    return loss_fn


@pytest.mark.parametrize("coordinate", [jnp.inf, jnp.nan])
@pytest.mark.parametrize(
    "asks", [jnp.isnan, lambda x: ~jnp.isfinite(x), lambda x: jnp.nan_to_num(x, nan=9.0) == 9]
)
def test_a_loss_may_ask_for_nan_in_arrays_that_a_coordinate_does_not_move(asks, coordinate):
    params = {"moved": np.ones((4, 3), np.float32), "still": np.ones(2, np.float32)}
    step = {"moved": np.ones((4, 3), np.float32), "still": np.zeros(2, np.float32)}
    plane, loss_fn = planes.Plane(params, (step,)), asking(asks)

    phi = planes.restrict(loss_fn, plane)

    np.testing.assert_allclose(phi(0.5), plainly(loss_fn, plane, 0.5), rtol=1e-6)
    assert float(phi(coordinate)) == float(plainly(loss_fn, plane, coordinate)) == 7


def test_a_loss_that_asks_for_nan_in_what_moves_has_its_still_part_computed_once():
    params = {"moved": np.ones((4, 3), np.float32), "still": np.ones((5, 4), np.float32)}
    step = {"moved": np.ones((4, 3), np.float32), "still": np.zeros((5, 4), np.float32)}

    def loss_fn(p):  # logsumexp asks whether the largest entry is finite
        return jax.nn.logsumexp(jnp.tanh(p["still"]) @ p["moved"], axis=-1).sum()

    assert "tanh" not in left(loss_fn, planes.Plane(params, (step,)))


# Operations by their params, and what only looks like a sum of squares.

W, D = np.array([[1, 2, 3], [0.5, -1, 0.25]], np.float32)
X = jax.device_put(np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32))
PLACE = np.array([1], np.int32)


def squares_of(w):
    return jnp.sum((X @ w) ** 2)


LOOKALIKES = {
    "a gather that fills": lambda w: jnp.sum(
        jnp.take(2 * w, jnp.array([9, 1]), mode="fill", fill_value=7.0)
    ),
    "a scatter by a function": lambda w: jnp.sum((2 * w).at[PLACE].apply(jnp.sin)),
    "a scatter that multiplies": lambda w: jnp.sum((2 * w).at[PLACE].multiply(w[0])),
    "a scatter of what moves into data": lambda w: jnp.sum(jnp.sin(X[0].at[PLACE].set(w[2]))),
    "a slice of data updated": lambda w: jnp.sum(
        jnp.sin(jax.lax.dynamic_update_slice(X[0], w[:2], (1,)))
    ),
    "one over squares": lambda w: 1 / squares_of(w),
    "squares over squares": lambda w: squares_of(w) / jnp.sum(w**2),
    "squares times squares": lambda w: squares_of(w) * jnp.sum(w**2),
    "a sum broadcast over a sum": lambda w: jnp.sum(squares_of(w) + jnp.arange(3.0)),
    "a sum broadcast over a product": lambda w: jnp.sum(squares_of(w) * jnp.arange(3.0)),
    "a sum broadcast over a quotient": lambda w: jnp.sum(squares_of(w) / jnp.arange(1.0, 3.0)),
    "squares and what moves": lambda w: jnp.sum((X @ w) ** 2 + X @ w),
    "squares and a constant": lambda w: jnp.sum((X @ w) ** 2 + X[:, 0] - 2),
    "squares less squares": lambda w: jnp.sum((X @ w) ** 2 - (X[:, 0] - w[0]) ** 2),
    "products of rows": lambda w: jnp.sum(
        jnp.sin(jnp.einsum("ij,kj->ik", X * w[None], X * w[None]))
    ),
    "products over part of a batch": lambda w: jnp.sum(
        jax.lax.dot_general(X * w[None], X * w[None], (((0,), (0,)), ((), ())))
    ),
    "a matrix of squares by rows": lambda w: jnp.sum(
        jax.lax.dot_general((X * w[None]) ** 2, X, (((0,), (0,)), ((), ())))
    ),
    "squares by a matrix": lambda w: jnp.sum((X @ w) ** 2 @ X),
    "a matrix by squares": lambda w: jnp.sum(X.T @ (X @ w) ** 2),
}


# What is left of these at a point is most of their work, so that nothing is computed once.
LEFT = {"products of rows", "products over part of a batch", "a matrix of squares by rows"}


@pytest.mark.parametrize(
    ("names", "way"), [(sorted(LOOKALIKES.keys() - LEFT), "leaves"), (sorted(LEFT), "arrays")]
)
def test_an_operation_is_known_by_its_params_and_by_what_moves(names, way):
    def loss_fn(w):
        return {name: LOOKALIKES[name](w) for name in names}

    phi: Any = planes.restrict(loss_fn, planes.Plane(W, (D,)))

    assert phi.args[0].func.way == way
    plain = jax.jit(loss_fn)(W + np.float32(0.75) * D)
    chex.assert_trees_all_close(phi(0.75), plain, rtol=1e-5)


def left(loss_fn, plane):
    """The operations left at each point, as text."""
    phi = planes.restrict(loss_fn, plane)
    return str(jax.make_jaxpr(phi)(*(0.5 for _ in plane.directions)))


def planned(loss_fn, plane):
    """The operations that are to be left at each point, as text; nothing is compiled."""
    _, found, text = planes.explain(loss_fn, plane).partition("Left at each point")
    assert found, "nothing is computed once"
    return text


def test_a_product_by_a_named_algorithm_may_round_and_is_left_at_each_point():
    algorithm = jax.lax.DotAlgorithmPreset.BF16_BF16_F32
    rounded = functools.partial(jax.lax.dot, precision=algorithm)

    assert "dot_general" in left(lambda w: jnp.sum(jnp.sin(rounded(X, w))), planes.Plane(W, (D,)))
    assert "dot_general" not in planned(lambda w: jnp.sum(jnp.sin(X @ w)), planes.Plane(W, (D,)))


def test_what_is_narrowed_is_left_at_each_point():
    with jax.enable_x64(True):
        # In float32 the next number above 1e8 is 1e8 + 8: 3 is lost, 3 + 3 is not.
        origin, step, x = np.zeros(20), np.zeros(20), np.ones((9, 20))
        origin[:2], step[0], x[:, 1] = (1e8 + 3, 1e8), 3, 0
        plane = planes.Plane(origin, (step,))

        def loss_fn(w):
            return jnp.sin(jnp.mean((x @ w).astype(jnp.float32) - 1e8))

        assert "dot_general" not in left(loss_fn, plane)
        np.testing.assert_allclose(planes.restrict(loss_fn, plane)(1.0), np.sin(8), rtol=1e-6)


def test_a_matrix_product_is_read_where_it_is_dear_and_computed_where_it_is_cheap():
    def loss_fn(w):
        return jnp.sum(jnp.sin(jnp.ones((50, w.shape[0])) @ w))

    wide, narrow = np.ones((64, 5), np.float32), np.ones((2, 5), np.float32)
    flat = np.ones((16, 200), np.float32)

    assert "dot_general" not in planned(loss_fn, planes.Plane(wide, (wide, wide)))
    assert "dot_general" in left(loss_fn, planes.Plane(narrow, (narrow,) * 12))
    # Towards zero what is left of the origin is small, yet it has all its digits.
    assert "dot_general" not in left(loss_fn, planes.Plane(wide, (-wide, wide / 2)))
    # Here the sums of the product decide, and not what it reads and writes.
    tall = np.ones((1000, 16), np.float32)
    assert "dot_general" not in planned(
        lambda w: jnp.sum(jnp.sin(tall @ w)), planes.Plane(flat, (flat,))
    )


def test_what_is_put_into_a_slice_may_move():
    rows = np.ones((40, 3), np.float32)

    def loss_fn(w):
        updated = jax.lax.dynamic_update_slice(rows, X @ jnp.diag(w), (1, 0))
        return jnp.sum(jnp.sin(updated @ rows.T))

    assert "dynamic_update_slice" not in planned(loss_fn, planes.Plane(W, (D,)))


# Among other settings of JAX.


def test_a_derivative_in_the_data_through_squares_is_refused_by_name():
    def weighted(weights):
        loss_fn = lambda w: jnp.sum(weights * (X @ w) ** 2)  # noqa: E731
        return planes.restrict(loss_fn, planes.Plane(W, (D,)))(0.75)

    message = r"^planes.restrict: phi must .* Differentiate the loss itself: jax.grad\(loss_fn\)"
    with pytest.raises(ValueError, match=message):
        jax.grad(weighted)(np.arange(5, dtype=np.float32))


def test_an_unordered_effect_happens_at_every_point_of_a_jitted_restriction():
    seen = []

    def loss_fn(w):
        io_callback(lambda total: seen.append(float(total)), None, jnp.sum(w))
        return jnp.sum(jnp.sin(w))

    @jax.jit
    def swept(w):
        return surfaces.sweep(
            planes.restrict(loss_fn, planes.Plane(w, (D,))), np.arange(3, dtype=np.float32)
        )

    values = jax.block_until_ready(swept(W).values)
    jax.effects_barrier()

    np.testing.assert_allclose(values, [np.sin(W + c * D).sum() for c in range(3)], rtol=1e-5)
    np.testing.assert_allclose(sorted(seen), sorted(6 - 0.25 * c for c in range(3)), rtol=1e-6)


LABELS = np.arange(5, dtype=np.int32) % 3


def several_losses(w):
    z = X * w[None]
    entropy = losses.softmax_cross_entropy_with_integer_labels(z, LABELS)
    binary = losses.sigmoid_binary_cross_entropy(z, jnp.zeros_like(z))
    masked = jnp.where(z > 0, z, -jnp.inf).max()
    return {
        "entropy": entropy.mean() + binary.mean() + masked,
        "squares": jnp.sum(-0.5 * z**2) + jnp.sum(w**2) / 3,
    }


def test_restrict_works_where_jax_looks_for_nan_and_is_strict_about_dtypes():
    plane = planes.Plane(W, (D,))

    with jax.debug_nans(True), jax.numpy_dtype_promotion("strict"):
        values = planes.restrict(several_losses, plane)(0.75)

    plain = jax.jit(several_losses)(W + np.float32(0.75) * D)
    chex.assert_trees_all_close(values, plain, rtol=1e-5)
