"""What jaxgd.descent promises."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import descent

# Runs are equal to the last bit where they are compiled as users compile them.
pytestmark = pytest.mark.usefixtures("optimized")

Status = descent.Status

X = np.arange(1.0, 21.0)
Y = np.array([3, 4, 5, 5, 2, 4, 7, 8, 11, 8, 12, 11, 13, 13, 16, 17, 18, 17, 19, 21], float)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def square(x):
    return x**2


def half_mean_square(theta, x, y):
    """The cost of the note: theta0 + theta1 x fitted to 20 points."""
    return jnp.mean((theta[0] + theta[1] * x - y) ** 2) / 2


def bowl(params):
    """Two arrays of different shapes, curved differently along each entry."""
    w, b = params["w"], params["b"]
    return jnp.sum(jnp.arange(1.0, 7.0, dtype=w.dtype).reshape(2, 3) * w**2) + jnp.sum((b - 2) ** 2)


def bowl_start(dtype=jnp.float32):
    return {"w": np.array([[1.0, -2.0, 3.0], [0.5, 1.0, -1.0]], dtype), "b": np.array(5.0, dtype)}


def loop(gradient, params, advance, num_steps):
    """The path of a rule, as a NumPy loop: ``advance(params, grads, t) -> params``."""
    path = [params]
    for t in range(num_steps):
        params = advance(params, gradient(params), t)
        path.append(params)
    return np.array(path)


# Most runs below are jitted: one program compiles faster than its operations one by one.
descend = jax.jit(descent.gradient_descent, static_argnames=("loss_fn", "num_steps", "record"))
optimize = jax.jit(
    descent.optimize, static_argnames=("loss_fn", "optimizer", "num_steps", "record")
)


def ends(trajectory):
    return int(trajectory.num_steps), Status(int(trajectory.status))


# The rule.


def test_a_step_subtracts_the_rate_times_the_gradient(rng):
    params = {"w": rng.normal(size=(2, 3)).astype(np.float32), "b": (np.float32(0.5),)}
    grads = jax.tree.map(lambda p: p + 1, params)

    moved = descent.step(params, grads, 0.25)

    chex.assert_trees_all_close(moved, jax.tree.map(lambda p: p - 0.25 * (p + 1), params))


def test_a_step_keeps_the_dtype_of_each_array():
    params = {"half": np.ones(2, np.float16), "full": np.ones(3, np.float32)}

    moved = jax.jit(descent.step)(params, params, np.float32(0.5))

    chex.assert_trees_all_equal_dtypes(moved, params)
    chex.assert_trees_all_equal(moved, jax.tree.map(lambda p: p / 2, params))


def test_one_rate_per_run_under_vmap():
    rates = jnp.array([0.0, 0.5, 1.0])

    moved = jax.vmap(descent.step, in_axes=(None, None, 0))(3.0, 2.0, rates)

    np.testing.assert_array_equal(moved, np.array([3, 2, 1], np.float32))


# By hand against NumPy and the published run.


@functools.partial(jax.jit, static_argnames=("num_steps", "how"))
def fit(start, x, y, learning_rate, tolerance, num_steps, how):
    if how == "by hand":
        return descent.gradient_descent(
            half_mean_square,
            start,
            x,
            y,
            learning_rate=learning_rate,
            num_steps=num_steps,
            tolerance=tolerance,
        )
    return descent.optimize(
        half_mean_square,
        start,
        x,
        y,
        optimizer=optax.sgd(learning_rate),
        num_steps=num_steps,
        tolerance=tolerance,
    )


def fit_in_numpy(theta, learning_rate, tolerance):
    theta, rows = np.array(theta, float), []
    while True:
        difference = theta[0] + theta[1] * X - Y
        gradient = np.array([difference.mean(), (difference * X).mean()])
        rows.append((*theta, (difference**2).mean() / 2, np.abs(gradient).max()))
        if (np.abs(gradient) <= tolerance).all():
            return np.array(rows)
        theta = theta - learning_rate * gradient


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", ["by hand", "optax"])
@pytest.mark.parametrize(("start", "updates"), [((1.0, 1.0), 4035), ((0.0, 0.0), 4001)])
def test_the_published_descent_takes_its_published_number_of_updates(how, start, updates):
    trajectory = fit(jnp.array(start), X, Y, 0.01, 1e-5, num_steps=4100, how=how)

    assert ends(trajectory) == (updates, Status.CONVERGED)
    rows = fit_in_numpy(start, 0.01, 1e-5)
    assert len(rows) == updates + 1
    np.testing.assert_allclose(trajectory.path[: updates + 1], rows[:, :2], rtol=1e-11)
    np.testing.assert_allclose(trajectory.losses[: updates + 1], rows[:, 2], rtol=1e-11)
    np.testing.assert_allclose(trajectory.grad_norms[: updates + 1], rows[:, 3], rtol=1e-8)
    if start == (1.0, 1.0):
        np.testing.assert_allclose(trajectory.params, [0.51583286, 0.96992163], atol=5e-9)
        np.testing.assert_allclose(trajectory.losses[-1], 1.014962406233101, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_the_rate_at_which_the_fit_becomes_unstable_is_two_over_the_largest_curvature():
    design = np.stack([np.ones(20), X], axis=1)
    bound = 2 / np.linalg.eigvalsh(design.T @ design / 20).max()

    for factor, status in [(0.995, Status.CONVERGED), (1.005, Status.DIVERGED)]:
        rate = factor * bound
        trajectory = fit(jnp.ones(2), X, Y, rate, 1e-5, num_steps=4100, how="by hand")
        assert trajectory.status == status


@pytest.mark.usefixtures("x64")
def test_by_hand_equals_a_numpy_loop():
    start = bowl_start(jnp.float64)

    trajectory = descend(bowl, start, learning_rate=0.07, num_steps=9)

    curvatures = 2 * np.arange(1.0, 7.0).reshape(2, 3)
    w = loop(lambda w: curvatures * w, np.asarray(start["w"]), lambda w, g, _: w - 0.07 * g, 9)
    b = loop(lambda b: 2 * (b - 2), np.asarray(start["b"]), lambda b, g, _: b - 0.07 * g, 9)
    np.testing.assert_allclose(trajectory.path["w"], w, rtol=1e-12)
    np.testing.assert_allclose(trajectory.path["b"], b, rtol=1e-12)
    losses = (curvatures / 2 * w**2).sum(axis=(1, 2)) + (b - 2) ** 2
    np.testing.assert_allclose(trajectory.losses, losses, rtol=1e-12)
    norms = np.maximum(np.abs(curvatures * w).max(axis=(1, 2)), np.abs(2 * (b - 2)))
    np.testing.assert_allclose(trajectory.grad_norms, norms, rtol=1e-12)
    chex.assert_trees_all_equal(trajectory.params, jax.tree.map(lambda p: p[-1], trajectory.path))


def test_two_variables_descend_as_in_the_printed_table():
    trajectory = descend(
        lambda p: p[0] ** 2 + jnp.sin(p[1]) ** 2,
        jnp.array([3.0, 1.0]),
        learning_rate=0.1,
        num_steps=16,
    )

    rows = {0: (3, 1, 9.708073), 1: (2.4, 0.909070, 6.382415), 2: (1.92, 0.812114, 4.213103)}
    rows |= {15: (0.105553, 0.063481, 0.015166), 16: (0.084442, 0.050819, 0.009711)}
    for t, (x, y, loss) in rows.items():
        np.testing.assert_allclose(trajectory.path[t], (x, y), atol=2e-6)
        np.testing.assert_allclose(trajectory.losses[t], loss, atol=2e-6)


# Optax.


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_optax_sgd_equals_descent_by_hand(tolerance):
    start = bowl_start()

    hand = descend(bowl, start, learning_rate=0.07, num_steps=60, tolerance=tolerance)
    optaxed = optimize(bowl, start, optimizer=optax.sgd(0.07), num_steps=60, tolerance=tolerance)

    assert hand.status == (Status.MAX_STEPS if tolerance is None else Status.CONVERGED)
    chex.assert_trees_all_close(hand, optaxed._replace(state=()), rtol=1e-5, atol=1e-6)


def momentum_rule(rate, decay):
    velocity = 0.0

    def advance(x, gradient, _):
        nonlocal velocity
        velocity = gradient + decay * velocity
        return x - rate * velocity

    return advance


def adam_rule(rate, b1=0.9, b2=0.999, epsilon=1e-8):
    mean = square = 0.0

    def advance(x, gradient, t):
        nonlocal mean, square
        mean = b1 * mean + (1 - b1) * gradient
        square = b2 * square + (1 - b2) * gradient**2
        corrected = np.sqrt(square / (1 - b2 ** (t + 1))) + epsilon
        return x - rate * mean / (1 - b1 ** (t + 1)) / corrected

    return advance


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tolerance", [None, 1e-9])
@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        (optax.sgd(0.03, momentum=0.8), lambda: momentum_rule(0.03, 0.8)),
        (optax.adam(0.1), lambda: adam_rule(0.1)),
    ],
    ids=["momentum", "adam"],
)
def test_optimizers_with_memory_equal_numpy_loops(optimizer, rule, tolerance):
    curvatures = np.array([1.0, 4.0, 9.0])
    start = np.array([3.0, -2.0, 1.0])

    trajectory = optimize(
        lambda x: jnp.sum(curvatures * x**2) / 2,
        start,
        optimizer=optimizer,
        num_steps=11,
        tolerance=tolerance,
    )

    path = loop(lambda x: curvatures * x, start, rule(), 11)
    np.testing.assert_allclose(trajectory.path, path, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(trajectory.losses, (curvatures * path**2).sum(1) / 2, rtol=1e-8)


def search(max_steps=20):
    return optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=max_steps)
    )


@pytest.mark.parametrize(
    ("optimizer", "num_steps"), [(optax.lbfgs(), 12), (search(), 90)], ids=["lbfgs", "backtracking"]
)
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_line_searches_run_and_arrive(optimizer, num_steps, tolerance):
    trajectory = optimize(
        bowl, bowl_start(), optimizer=optimizer, num_steps=num_steps, tolerance=tolerance
    )

    chex.assert_trees_all_close(
        trajectory.params, {"w": jnp.zeros((2, 3)), "b": jnp.array(2.0)}, atol=1e-2
    )
    assert (np.diff(trajectory.losses) <= 1e-5).all()
    if tolerance is not None:
        assert trajectory.status == Status.CONVERGED
        assert trajectory.grad_norms[-1] <= tolerance


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_an_optimizer_that_draws_noise_runs(tolerance):
    optimizer = optax.noisy_sgd(0.1, key=jax.random.key(0))

    trajectory = optimize(square, 1.0, optimizer=optimizer, num_steps=3, tolerance=tolerance)

    assert trajectory.status == Status.MAX_STEPS


# Rows.


def rows_of(tolerance, record=None):
    return descend(square, 1.0, learning_rate=0.3, num_steps=12, tolerance=tolerance, record=record)


@pytest.mark.parametrize(("tolerance", "steps"), [(None, 12), (1e-3, 9)])
def test_each_row_belongs_to_one_point_and_the_start_comes_first(tolerance, steps):
    trajectory = rows_of(tolerance)

    expected = 0.4 ** np.minimum(np.arange(13), steps)
    assert trajectory.num_steps == steps
    np.testing.assert_allclose(trajectory.path, expected, rtol=1e-5)
    np.testing.assert_allclose(trajectory.losses, expected**2, rtol=1e-5)
    np.testing.assert_allclose(trajectory.grad_norms, 2 * expected, rtol=1e-5)
    np.testing.assert_array_equal(trajectory.path[steps], trajectory.params)
    np.testing.assert_array_equal(trajectory.path[steps:], np.full(13 - steps, trajectory.params))


@pytest.mark.parametrize(("tolerance", "steps"), [(None, 12), (1e-3, 9)])
def test_a_record_is_kept_at_each_point_instead_of_the_params(tolerance, steps):
    trajectory = rows_of(tolerance, record=lambda x: {"double": 2 * x, "sign": x > 0, "n": 7})

    plain = rows_of(tolerance)
    chex.assert_trees_all_close(trajectory._replace(path=plain.path), plain, rtol=1e-6)
    chex.assert_trees_all_close(trajectory.path["double"], 2 * plain.path, rtol=1e-6)
    assert trajectory.path["sign"].dtype == bool
    np.testing.assert_array_equal(trajectory.path["n"], np.full(13, 7))


def test_a_record_of_nothing_keeps_nothing():
    trajectory = rows_of(None, record=lambda x: None)

    assert trajectory.path is None
    np.testing.assert_allclose(trajectory.losses, rows_of(None).losses, rtol=1e-6)


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_no_steps_give_the_start_alone(tolerance):
    trajectory = descend(bowl, bowl_start(), learning_rate=0.1, num_steps=0, tolerance=tolerance)

    assert ends(trajectory) == (0, Status.MAX_STEPS)
    chex.assert_shape((trajectory.losses, trajectory.grad_norms), (1,))
    chex.assert_trees_all_equal(trajectory.params, bowl_start())
    chex.assert_trees_all_equal(trajectory.path, jax.tree.map(lambda p: p[None], bowl_start()))


def test_params_of_plain_numbers_become_arrays():
    trajectory = descent.gradient_descent(
        lambda p: p["a"][0] ** 2, {"a": [1.0]}, learning_rate=0.25, num_steps=1
    )

    assert trajectory.params == {"a": [0.5]}
    chex.assert_shape(trajectory.path["a"][0], (2,))


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_loss_is_evaluated_once_per_point(tolerance):
    seen = []

    def watched(x):
        jax.debug.callback(lambda x: seen.append(float(x)), x)
        return x**2

    trajectory = descend(watched, 1.0, learning_rate=0.3, num_steps=40, tolerance=tolerance)
    jax.block_until_ready(trajectory)
    jax.effects_barrier()

    # A descent that stops at its tolerance costs what its steps cost.
    assert len(seen) == trajectory.num_steps + 1 == (41 if tolerance is None else 10)


def test_a_gradient_equal_to_the_tolerance_has_converged():
    trajectory = descend(square, 0.5, learning_rate=0.1, num_steps=3, tolerance=1.0)

    assert ends(trajectory) == (0, Status.CONVERGED)


def test_a_tolerance_holds_for_every_entry_of_the_gradient():
    trajectory = descend(bowl, bowl_start(), learning_rate=0.05, num_steps=200, tolerance=1e-2)

    steps = int(trajectory.num_steps)
    assert trajectory.status == Status.CONVERGED
    grads = jax.device_get(jax.jit(jax.vmap(jax.grad(bowl)))(trajectory.path))
    largest = np.maximum(np.abs(grads["w"]).max(axis=(1, 2)), np.abs(grads["b"]))
    np.testing.assert_allclose(trajectory.grad_norms, largest, rtol=1e-5)
    assert (largest[:steps] > 1e-2).all()
    assert largest[steps] <= 1e-2


# How a run ends: alone, and beside others.

N = 30
# start, rate, then (num_steps, status) with the tolerance 1e-3 and without one.
LANES = {
    "at the minimum": (0.0, 0.1, (0, Status.CONVERGED), (N, Status.MAX_STEPS)),
    "arrives": (1.0, 0.3, (9, Status.CONVERGED), (N, Status.MAX_STEPS)),
    "arrives in one step": (1.0, 0.5, (1, Status.CONVERGED), (N, Status.MAX_STEPS)),
    "is slow": (1.0, 1e-3, (N, Status.MAX_STEPS), (N, Status.MAX_STEPS)),
    "bounces at the edge of stability": (1.0, 1.0, (N, Status.MAX_STEPS), (N, Status.MAX_STEPS)),
    "diverges slowly": (1.0, 1.001, (N, Status.DIVERGED), (N, Status.DIVERGED)),
    "climbs": (1.0, -0.01, (N, Status.DIVERGED), (N, Status.DIVERGED)),
    "diverges fast": (1.0, 10.0, (3, Status.DIVERGED), (3, Status.DIVERGED)),
    "diverges fast from afar": (1e6, 10.0, (3, Status.DIVERGED), (3, Status.DIVERGED)),
    "overflows in one step": (1.0, 1e38, (1, Status.NON_FINITE), (1, Status.NON_FINITE)),
    "steps to infinity": (1.0, np.inf, (1, Status.NON_FINITE), (1, Status.NON_FINITE)),
    "has a rate of nan": (1.0, np.nan, (1, Status.NON_FINITE), (1, Status.NON_FINITE)),
    "starts at nan": (np.nan, 0.1, (0, Status.NON_FINITE), (0, Status.NON_FINITE)),
    "starts at infinity": (np.inf, 0.1, (0, Status.NON_FINITE), (0, Status.NON_FINITE)),
    "starts with an infinite loss": (1e30, 0.1, (0, Status.NON_FINITE), (0, Status.NON_FINITE)),
    "loses its steps to rounding": (1.0, 1e-12, (1, Status.STALLED), (N, Status.STALLED)),
    "has a rate of zero": (1.0, 0.0, (1, Status.STALLED), (N, Status.STALLED)),
}


def run_square(start, rate, tolerance, how):
    if how == "by hand":
        return descent.gradient_descent(
            square, start, learning_rate=rate, num_steps=N, tolerance=tolerance
        )
    if how == "by hand, recording":
        return descent.gradient_descent(
            square, start, learning_rate=rate, num_steps=N, tolerance=tolerance, record=jnp.abs
        )
    return descent.optimize(
        square, start, optimizer=optax.sgd(rate), num_steps=N, tolerance=tolerance
    )


HOWS = ["by hand", "by hand, recording", "optax"]


@pytest.fixture(scope="module", params=[(h, t) for h in HOWS for t in (1e-3, None)], ids=str)
def lanes(request):
    """How, with or without a tolerance: a jitted run, and all lanes at once."""
    how, tolerance = request.param
    run = jax.jit(functools.partial(run_square, tolerance=tolerance, how=how))
    starts, rates = (np.array([lane[i] for lane in LANES.values()], np.float32) for i in range(2))
    with pytest.MonkeyPatch.context() as patch:
        if how == "by hand":  # without a tolerance judged as long runs are, afterwards
            patch.setattr("jaxgd.descent._loop._FEW_STEPS", 0)
        run(1.0, 0.1)
        return tolerance, run, jax.device_get(jax.jit(jax.vmap(run))(starts, rates))


def test_a_run_says_how_it_ended_alone(lanes):
    tolerance, run, _ = lanes
    for name, (start, rate, *expected) in LANES.items():
        assert ends(run(start, rate)) == expected[tolerance is None], name


def test_a_run_says_how_it_ended_beside_others_and_none_spoils_another(lanes):
    tolerance, run, together = lanes
    for lane, (name, (start, rate, *expected)) in enumerate(LANES.items()):
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together)
        assert ends(mine) == expected[tolerance is None], name
        chex.assert_trees_all_equal(mine, run(start, rate))


def test_a_run_that_ended_is_frozen_at_its_last_point(lanes):
    _, _, together = lanes
    for lane, name in enumerate(LANES):
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together)
        steps = int(mine.num_steps)
        for rows in (mine.path, mine.losses, mine.grad_norms):
            np.testing.assert_array_equal(rows[steps:], np.full(N + 1 - steps, rows[steps]), name)
        np.testing.assert_array_equal(np.abs(mine.params), np.abs(mine.path[steps]))


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_loss_that_is_nan_from_the_first_step_ends_there(tolerance):
    trajectory = descend(
        lambda x: jnp.log(-x), 1.0, learning_rate=0.1, num_steps=4, tolerance=tolerance
    )

    assert ends(trajectory) == (0, Status.NON_FINITE)
    assert trajectory.params == 1.0


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_gradient_that_is_nan_is_not_finite_though_the_loss_is(tolerance):
    trajectory = descend(
        lambda x: jnp.sqrt(x - 1), 1.0, learning_rate=0.1, num_steps=4, tolerance=tolerance
    )

    assert trajectory.losses[0] == 0.0
    assert ends(trajectory) == (0, Status.NON_FINITE)


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_params_that_overflow_are_not_finite_though_the_loss_and_the_gradient_are(tolerance):
    trajectory = descend(
        lambda x: jnp.exp(-x), 1.0, learning_rate=np.inf, num_steps=4, tolerance=tolerance
    )

    assert ends(trajectory) == (1, Status.NON_FINITE)


def test_one_entry_out_of_many_makes_a_run_not_finite():
    start = {"w": jnp.ones((2, 3)).at[1, 2].set(jnp.nan), "b": jnp.array(1.0)}

    trajectory = descend(bowl, start, learning_rate=0.01, num_steps=2)

    assert ends(trajectory) == (0, Status.NON_FINITE)


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_loss_below_zero_that_falls_is_not_diverging(tolerance):
    trajectory = descend(lambda x: x - 5, 1.0, learning_rate=1e7, num_steps=4, tolerance=tolerance)

    assert ends(trajectory) == (4, Status.MAX_STEPS)


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_loss_that_rises_and_comes_back_has_not_diverged(tolerance):
    # Heavy momentum overshoots: 1, ..., beyond its start, and back.
    trajectory = optimize(
        square,
        1.0,
        optimizer=optax.sgd(1.5, momentum=0.7),
        num_steps=60,
        tolerance=tolerance,
    )

    assert trajectory.losses.max() > 2
    assert trajectory.status in (Status.MAX_STEPS, Status.CONVERGED)


@pytest.mark.parametrize("start", [0.5, 1.0, 3.0])
def test_divergence_is_a_rise_by_the_stated_multiple_of_the_start(start):
    trajectory = descend(square, start, learning_rate=1.6, num_steps=60)

    steps = int(trajectory.num_steps)
    rise = trajectory.losses - start**2
    limit = descent.DIVERGENCE_FACTOR * max(start**2, 1)
    assert trajectory.status == Status.DIVERGED
    assert rise[steps] > limit >= rise[steps - 1]


# STALLED, and what is not.


def only_the_start_is_finite(x):
    return jnp.where(x < 1.0, jnp.nan, x)


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_line_search_that_has_set_its_step_to_zero_has_stalled(tolerance):
    trajectory = optimize(
        only_the_start_is_finite,
        1.0,
        optimizer=search(max_steps=6),
        num_steps=20,
        tolerance=tolerance,
    )

    assert trajectory.status == Status.STALLED
    assert tolerance is None or trajectory.num_steps < 10
    np.testing.assert_array_equal(trajectory.path, np.ones(21, np.float32))


ACCUMULATE = optax.MultiSteps(optax.sgd(0.3), every_k_schedule=4).gradient_transformation()
WARM_UP = optax.sgd(optax.linear_schedule(0.0, 0.3, transition_steps=5, transition_begin=3))


@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize("optimizer", [ACCUMULATE, WARM_UP], ids=["MultiSteps", "warm-up"])
def test_an_optimizer_that_waits_has_not_stalled(optimizer, tolerance):
    trajectory = optimize(square, 1.0, optimizer=optimizer, num_steps=45, tolerance=tolerance)

    np.testing.assert_array_equal(trajectory.path[:4], np.ones(4, np.float32))
    assert abs(trajectory.params) < 1e-3
    if tolerance is None:
        assert ends(trajectory) == (45, Status.MAX_STEPS)
    else:
        assert trajectory.status == Status.CONVERGED


def test_gradients_accumulate_to_one_step_every_so_often():
    trajectory = optimize(square, 1.0, optimizer=ACCUMULATE, num_steps=9)

    expected = [1.0] * 4 + [0.4] * 4 + [0.16] * 2
    np.testing.assert_allclose(trajectory.path, expected, rtol=1e-5)


def test_a_run_at_rest_at_its_minimum_has_not_stalled():
    trajectory = descend(square, 1.0, learning_rate=0.5, num_steps=10)

    assert ends(trajectory) == (10, Status.MAX_STEPS)


RUN_DRY = optax.sgd(optax.piecewise_constant_schedule(0.1, {3: 0.0}))


@pytest.mark.parametrize(("record", "tolerance"), [(None, None), (jnp.abs, None), (jnp.abs, 1e-3)])
@pytest.mark.parametrize(("num_steps", "status"), [(5, Status.MAX_STEPS), (6, Status.STALLED)])
def test_standing_still_for_the_second_half_of_a_run_is_stalling(
    num_steps, status, record, tolerance
):
    trajectory = optimize(
        square,
        1.0,
        optimizer=RUN_DRY,
        num_steps=num_steps,
        record=record,
        tolerance=tolerance,
    )

    assert ends(trajectory) == (num_steps, status)


def test_without_a_tolerance_standing_still_at_the_rounding_floor_is_not_stalling():
    trajectory = descend(lambda x: x**4 / 4 - 2 * x, 3.0, learning_rate=0.02, num_steps=400)

    assert trajectory.path[-1] == trajectory.path[200]
    assert 0 < trajectory.grad_norms[-1] < 1e-5
    assert trajectory.status == Status.MAX_STEPS


# Many runs at once.


def test_a_sweep_over_rates_or_starts_equals_a_loop():
    rates = np.array([0.1, 0.3, 0.45], np.float32)
    starts = np.array([[1.0, 2.0], [-3.0, 0.1]], np.float32)

    @jax.jit
    def run(start, rate):
        return descent.gradient_descent(
            lambda x: jnp.sum(x**2),
            start,
            learning_rate=rate,
            num_steps=15,
            tolerance=1e-3,
        )

    over_rates = jax.vmap(run, in_axes=(None, 0))
    grid = jax.device_get(jax.jit(jax.vmap(over_rates, in_axes=(0, None)))(starts, rates))
    other = jax.device_get(
        jax.jit(jax.vmap(jax.vmap(run, in_axes=(0, None)), in_axes=(None, 0)))(starts, rates)
    )
    over_rates = jax.jit(over_rates)

    chex.assert_shape(grid.path, (2, 3, 16, 2))
    for i, start in enumerate(starts):
        by_rate = jax.device_get(over_rates(start, rates))
        for j, rate in enumerate(rates):
            alone = jax.device_get(run(start, rate))
            assert alone.num_steps < 15 or alone.status == Status.MAX_STEPS
            for lane in (
                jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], grid),
                jax.tree.map(lambda leaf, i=i, j=j: leaf[j, i], other),
                jax.tree.map(lambda leaf, j=j: leaf[j], by_rate),
            ):
                chex.assert_trees_all_close(lane, alone, rtol=1e-6)


def test_a_sweep_over_data_and_tolerances_equals_a_loop():
    centers = np.array([1.0, 5.0, 9.0, 2.0], np.float32)
    tolerances = np.array([1.0, 1e-1, 1e-3, 1e-4], np.float32)

    def run(center, tolerance):
        return descent.optimize(
            lambda x, c: (x - c) ** 2,
            0.0,
            center,
            optimizer=optax.sgd(0.2, momentum=0.5),
            num_steps=40,
            tolerance=tolerance,
        )

    together = jax.jit(jax.vmap(run))(centers, tolerances)

    jitted = jax.jit(run)
    alone = [jitted(c, t) for c, t in zip(centers, tolerances, strict=True)]
    chex.assert_trees_all_close(together, jax.tree.map(lambda *rows: np.stack(rows), *alone))
    assert len({int(run.num_steps) for run in alone}) > 2


def test_rates_of_an_optimizer_are_mapped_over():
    rates = jnp.array([0.1, 0.3])

    @jax.jit
    @jax.vmap
    def swept(rate):
        return descent.optimize(square, 1.0, optimizer=optax.sgd(rate), num_steps=3)

    np.testing.assert_allclose(swept(rates).params, (1 - 2 * rates) ** 3, rtol=1e-5)


# Derivatives through a whole descent.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", HOWS)
def test_the_final_loss_is_differentiated_by_the_rate_and_the_start(how):
    def final_loss(start, rate):
        return run_square(start, rate, tolerance=None, how=how).losses[-1]

    slopes = jax.jit(jax.grad(final_loss, argnums=(0, 1)))(1.5, 0.04)

    shrink = 1 - 2 * 0.04
    np.testing.assert_allclose(slopes[0], 2 * 1.5 * shrink ** (2 * N), rtol=1e-10)
    np.testing.assert_allclose(slopes[1], -4 * N * 1.5**2 * shrink ** (2 * N - 1), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_fit_by_its_rate_equals_finite_differences():
    @jax.jit
    def final_loss(rate):
        return fit(jnp.ones(2), X, Y, rate, None, num_steps=7, how="by hand").losses[-1]

    slope = jax.grad(final_loss)(0.004)

    difference = (final_loss(0.004 + 1e-7) - final_loss(0.004 - 1e-7)) / 2e-7
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


# Dtypes.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize("how", ["by hand", "optax"])
def test_float32_params_stay_float32_beside_a_float64_rate(how, tolerance):
    rates = jnp.array([0.1, 0.3], jnp.float64)

    trajectory = jax.eval_shape(
        jax.vmap(lambda rate: run_square(jnp.float32(1), rate, tolerance, how)), rates
    )

    assert trajectory.params.dtype == trajectory.path.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_counts_and_statuses_are_int32_under_x64_too(tolerance):
    trajectory = jax.eval_shape(lambda: run_square(1.0, 0.1, tolerance, "by hand"))

    assert trajectory.params.dtype == jnp.float64
    assert (trajectory.num_steps.dtype, trajectory.status.dtype) == (jnp.int32, jnp.int32)


def test_params_of_mixed_precision_descend():
    start = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.array(5.0)}

    trajectory = descend(bowl, start, learning_rate=0.05, num_steps=3)

    chex.assert_trees_all_equal_dtypes(trajectory.params, start)
    assert trajectory.losses[-1] < trajectory.losses[0]


def test_statuses_have_their_published_numbers():
    assert [(status.name, int(status)) for status in Status] == [
        ("CONVERGED", 0),
        ("MAX_STEPS", 1),
        ("NON_FINITE", 2),
        ("DIVERGED", 3),
        ("STALLED", 4),
    ]
