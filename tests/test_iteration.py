"""The loop behind descents and solves: how a status is decided, and what may pass through it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import _iteration, chains, descent
from jaxgd.descent import Status


def test_the_status_is_the_first_that_applies():
    facts = ("is_finite", "has_diverged", "has_converged", "is_stalled")
    for truth in itertools.product((True, False), repeat=4):
        is_finite, has_diverged, has_converged, is_stalled = truth
        if not is_finite:
            expected = Status.NON_FINITE
        elif has_diverged:
            expected = Status.DIVERGED
        elif has_converged:
            expected = Status.CONVERGED
        elif is_stalled:
            expected = Status.STALLED
        else:
            expected = Status.MAX_STEPS
        status = _iteration.decide(**dict(zip(facts, truth, strict=True)))
        assert (status, status.dtype) == (expected, jnp.int32), truth


def test_a_status_is_decided_elementwise():
    statuses = _iteration.decide(
        is_finite=jnp.array([True, False]), is_stalled=jnp.array([True, True])
    )

    np.testing.assert_array_equal(statuses, [Status.STALLED, Status.NON_FINITE])


@pytest.mark.parametrize("tree", [{"a": np.zeros((0, 2))}, {"a": np.zeros(0), "b": np.zeros(3)}])
def test_the_largest_of_no_entries_is_zero(tree):
    assert _iteration.largest(tree) == 0


def test_the_largest_entry_is_absolute_and_nan_where_there_is_one():
    largest = jax.jit(_iteration.largest)

    assert largest({"a": np.array([1, -3], np.float32), "b": np.float16(2)}) == 3
    assert np.isnan(largest({"a": np.array([1, np.nan], np.float32), "b": np.float32(9)}))


@pytest.fixture
def judged_later(monkeypatch):
    """Runs that keep their path are judged as long ones are, afterwards."""
    monkeypatch.setattr("jaxgd.descent._loop._FEW_STEPS", 0)


# What is not finite, in reverse mode.


def steep(x):
    return jnp.sum(jnp.exp(x**2))


@pytest.mark.usefixtures("judged_later")
@pytest.mark.parametrize("record", [None, lambda x: x], ids=["path", "record"])
def test_a_run_that_is_not_finite_leaves_the_gradient_of_its_finite_losses(record):
    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def slopes(start, rate):
        run = descent.gradient_descent(steep, start, learning_rate=rate, num_steps=4, record=record)
        return run.losses[0], run.status

    for rate in (0.1, 1e38, np.inf):
        (slope, by_rate), status = slopes(2.0, rate)

        assert status == Status.NON_FINITE
        np.testing.assert_allclose(slope, 4 * np.exp(4), rtol=1e-5)
        assert by_rate == 0


@pytest.mark.usefixtures("judged_later")
def test_a_point_before_the_one_that_is_not_finite_keeps_its_derivative_by_the_rate():
    def second_point(rate):
        run = descent.gradient_descent(steep, 2.0, learning_rate=rate, num_steps=5)
        return run.path[1], run.losses

    slope, losses = jax.jit(jax.grad(second_point, has_aux=True))(0.1)

    assert jnp.isinf(losses[1])
    np.testing.assert_allclose(slope, -4 * np.exp(4), rtol=1e-5)  # minus the first gradient


@pytest.mark.usefixtures("judged_later")
@pytest.mark.parametrize("record", [None, lambda x: x], ids=["path", "record"])
def test_a_step_that_is_not_taken_leaves_gradients_alone(record):
    def last_loss(start, largest):
        optimizer = optax.chain(optax.clip_by_global_norm(largest), optax.sgd(1.0))
        half_square = lambda x: 0.5 * jnp.sum(x**2)  # noqa: E731
        return descent.optimize(
            half_square, start, optimizer=optimizer, num_steps=1, record=record
        ).losses[-1]

    # The one step ends at the minimum, where the length of the gradient has no slope.
    slopes = jax.jit(jax.grad(last_loss, (0, 1)))(np.array([1, 0], np.float32), 10.0)

    np.testing.assert_array_equal(slopes[0], [0, 0])
    assert slopes[1] == 0


@pytest.mark.usefixtures("judged_later")
def test_one_lane_that_is_not_finite_does_not_spoil_the_gradient_of_another():
    @jax.jit
    @jax.grad
    def slopes_of(rates):
        runs = jax.vmap(
            lambda rate: descent.gradient_descent(
                lambda x: jnp.exp(x**2), 1.0, learning_rate=rate, num_steps=3
            )
        )(rates)
        return jnp.sum(jnp.where(jnp.isfinite(runs.losses), runs.losses, 0))

    slopes = slopes_of(np.array([0.01, 30.0], np.float32))

    among_good = slopes_of(np.array([0.01, 0.01], np.float32))
    assert np.isfinite(among_good).all()
    np.testing.assert_allclose(slopes[0], among_good[0], rtol=1e-5)
    assert np.isfinite(slopes[1])


@pytest.mark.usefixtures("x64")
def test_what_the_loss_closes_over_is_differentiated_to_second_order():
    def final_loss(center):
        return descent.gradient_descent(
            lambda x: jnp.sum((x - center) ** 2), jnp.zeros(2), learning_rate=0.1, num_steps=3
        ).losses[-1]

    @jax.jit
    def derivatives(center):
        along = jax.jvp(final_loss, (center,), (center,))[1]
        return jax.grad(final_loss)(center), jax.hessian(final_loss)(center), along

    center = np.array([1.0, -2.0])
    slope, hessian, along = derivatives(center)
    np.testing.assert_allclose(slope, 2 * center * 0.8**6)
    np.testing.assert_allclose(hessian, 2 * 0.8**6 * np.eye(2), atol=1e-12)
    np.testing.assert_allclose(along, 2 * 5 * 0.8**6, rtol=1e-12)


def test_a_loss_with_a_callback_may_run_without_a_tolerance():
    seen = []

    def watched(x):
        jax.debug.callback(lambda x: seen.append(float(x)), x)
        return x**2

    slope = jax.jit(
        jax.grad(
            lambda x: descent.gradient_descent(watched, x, learning_rate=0.25, num_steps=1).losses[
                1
            ]
        )
    )(1.0)
    jax.effects_barrier()

    assert slope == 0.5
    assert 0.5 in seen


# Forward mode goes where reverse mode is refused.


@pytest.mark.usefixtures("x64")
def test_forward_mode_goes_through_a_tolerance_and_a_solve_under_vmap_too():
    def end(start):
        return descent.gradient_descent(
            lambda x: x**2, start, learning_rate=0.25, num_steps=40, tolerance=1e-3
        ).params

    def root(target):
        return chains.solve([jnp.square], 1.0, target, tolerance=1e-12, max_steps=20).path[-1]

    ones, targets = np.ones(2), np.array([2.0, 9.0])
    _, slopes = jax.jit(jax.vmap(lambda start: jax.jvp(end, (start,), (1.0,))))(ones)
    np.testing.assert_allclose(slopes, 0.5**11, rtol=1e-9)  # 2 * 0.5^11 is below the tolerance
    _, slopes = jax.jit(jax.vmap(lambda target: jax.jvp(root, (target,), (1.0,))))(targets)
    np.testing.assert_allclose(slopes, 0.5 / np.sqrt(targets), rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap])
def test_reverse_mode_through_a_tolerance_is_refused_under_every_transformation(transform):
    def end(start):
        return descent.gradient_descent(
            lambda x: x**2, start, learning_rate=0.25, num_steps=4, tolerance=1e-3
        ).params

    start = jnp.ones(2) if transform is jax.vmap else 1.0
    with pytest.raises(
        ValueError, match=r"descent\.gradient_descent: tolerance must be None in rev"
    ):
        transform(jax.grad(end))(start)


def test_reverse_mode_through_a_solve_is_refused_with_its_cure():
    def root(x):
        return chains.solve([jnp.square], x, 2.0, tolerance=0.1, max_steps=3).path[-1]

    with pytest.raises(ValueError, match=r"chains\.solve: x, target .*Differentiate the equation"):
        jax.grad(root)(1.0)


# Settings of JAX that change what a line of code means.


@pytest.mark.usefixtures("judged_later")
@pytest.mark.parametrize(("tolerance", "dtype"), [(None, jnp.bfloat16), (1e-3, jnp.float32)])
def test_descents_run_under_strict_promotion(tolerance, dtype):
    start = {"half": np.ones(3, jnp.bfloat16), "full": np.ones(2, np.float32)}

    def loss(params):
        squares = jnp.sum(params["half"].astype(jnp.float32) ** 2) + jnp.sum(params["full"] ** 2)
        return squares.astype(dtype)

    def program():
        return jax.jit(
            lambda start: descent.gradient_descent(
                loss, start, learning_rate=np.float32(0.25), num_steps=3, tolerance=tolerance
            )
        ).lower(start)

    with jax.numpy_dtype_promotion("strict"):
        strict = program()

    assert strict.as_text() == program().as_text()


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_loss_that_donates_its_arguments_may_be_used_eagerly(tolerance):
    donating = jax.jit(lambda x, y: jnp.sum((x - y) ** 2), donate_argnums=(0, 1))
    start, center = jnp.zeros(3), jnp.ones(3)

    run = descent.gradient_descent(
        donating, start, center, learning_rate=0.25, num_steps=2, tolerance=tolerance
    )

    np.testing.assert_allclose(run.losses, [3, 0.75, 0.1875])
    np.testing.assert_array_equal(start + center, 1)  # both are still there


@pytest.mark.usefixtures("judged_later")
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_nothing_is_nan_within_a_run_that_is_not(tolerance):
    with jax.debug_nans(True):
        run = descent.gradient_descent(
            lambda x: jnp.sum(x**2), jnp.ones(3), learning_rate=0.25, num_steps=3,
            tolerance=tolerance,
        )  # fmt: skip

    assert run.status == Status.MAX_STEPS


# What a loop must not do at its last point, and what it remembers of a point.


def test_no_derivative_of_a_step_that_is_not_taken_comes_back():
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(0.5))

    def summed_losses(start):  # 1 and 0: at the minimum the norm has no derivative
        return descent.optimize(
            lambda x: x**2, start, optimizer=optimizer, num_steps=1, record=lambda _: None
        ).losses.sum()

    assert jax.jit(jax.grad(summed_losses))(1.0) == 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_mark_tells_points_apart_that_differ_in_signs_places_or_opposite_steps(dtype):
    point = np.arange(1, 9, dtype=dtype)
    signs = point * (1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)).astype(dtype)
    places = np.array([np.roll(point, shift) for shift in range(1, 8)])
    step = np.finfo(dtype).eps
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    opposite = np.array([point * (1 + step * (np.eye(8)[i] - np.eye(8)[j])) for i, j in pairs])
    scales = point * np.array([[2.0], [4.0], [0.5]])
    points = np.concatenate([signs, places, opposite, scales]).astype(dtype)

    marks = jax.jit(jax.vmap(_iteration._mark))({"a": points[:, :5], "b": points[:, 5:, None]})

    assert len(np.unique(points, axis=0)) == len(points) == 322
    assert len(np.unique(marks)) == len(points)


@pytest.mark.parametrize(("num_steps", "num_params"), [(12, 300), (1, 300), (12, 3)])
def test_a_run_stalls_where_no_step_of_the_second_half_moves_it(num_steps, num_params):
    def status(rate, is_moving):
        optimizer = optax.sgd(lambda t: jnp.where(is_moving[t], rate, 0.0), momentum=0.0)
        return descent.optimize(
            lambda x: jnp.sum(x**2), jnp.ones(num_params), optimizer=optimizer,
            num_steps=num_steps, record=lambda _: None,
        ).status  # fmt: skip

    step, half = np.arange(num_steps + 1), num_steps // 2
    is_moving = np.array([step < half, step == num_steps, step <= half, step >= 0, step >= 0])
    rates = np.array([0.1, 0.1, 0.1, 0.1, 1.0], np.float32)  # 1 changes the signs, nothing else
    found = jax.jit(jax.vmap(status))(rates, is_moving)

    assert found.tolist() == [Status.STALLED] * 2 + [Status.MAX_STEPS] * 3
