"""How a run ends: a table of constructed cases, each alone and all beside one another."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import _iteration, descent
from jaxgd.descent import Status, _judging

CONVERGED, MAX_STEPS, NON_FINITE, DIVERGED, STALLED = Status
NUM_STEPS = 40
INTEGERS = np.arange(1, 6)


# The losses, of params with two leaves, x and y.


def bowl(x, y):
    """Curvature 1 everywhere: descent is stable below the rate 2."""
    return (x**2 + y**2) / 2


def valley(x, y):
    """Curvatures 1 and 100: descent is stable below the rate 0.02."""
    return x**2 / 2 + 50 * y**2


def saddle(x, y):
    return (x**2 - y**2) / 2


def plateau(x, y):
    """Flat below 1 in both directions."""
    return jax.nn.relu(x - 1) + jax.nn.relu(y - 1)


def stairs(x, y):
    """No gradient anywhere."""
    return jnp.round(x) + jnp.round(y)


def slope(x, y):
    """Falls for ever."""
    return x + y


def hill(x, y):
    """Falls faster and faster for ever."""
    return -(x**2) - y**2


def needle(x, y):
    """Its loss at x = 0 is finite; its gradient there is 0 / 0."""
    return jnp.sqrt(x * x) + y**2 / 2


def root(x, y):
    """Its loss at x = 0 is finite; its gradient there is infinite."""
    return jnp.sqrt(x) + y**2 / 2


def barrier(x, y):
    """NaN where x is negative, infinite at 0."""
    return x - jnp.log(x) + y**2 / 2


def quartic(x, y):
    """Its minimum, the cube root of 2, is no floating-point number."""
    return x**4 / 4 - 2 * x + y**2 / 2


def one_of_two(x, y):
    """Does not depend on y."""
    return x**2 / 2 + 0 * jnp.nan_to_num(y)


def line_through_integers(x, y):
    return jnp.mean((x * INTEGERS + y - 2 * INTEGERS) ** 2) / 2


def island(x, y):
    """Finite at (1, 1) only; its gradient there is (1, 1)."""
    return jnp.where((x == 1) & (y == 1), x + y, jnp.nan)


# The ways down. Each optimizer is a function of its rate.

BACKTRACKING = functools.partial(optax.scale_by_backtracking_linesearch, max_backtracking_steps=6)
OPTIMIZERS = {
    "sgd": optax.sgd,
    "heavy ball": lambda rate: optax.sgd(rate, momentum=0.5),
    "Nesterov": lambda rate: optax.sgd(rate, momentum=0.5, nesterov=True),
    "Adam": optax.adam,
    "RMSProp": optax.rmsprop,
    "L-BFGS": optax.lbfgs,  # with its zoom line search
    "backtracking": lambda rate: optax.chain(optax.sgd(rate), BACKTRACKING()),
    "every 4th step": lambda rate: optax.MultiSteps(
        optax.sgd(rate), every_k_schedule=4
    ).gradient_transformation(),
    "warm-up from 0": lambda rate: optax.sgd(lambda t: jnp.where(jnp.less(t, 5), 0, rate)),
    "runs dry": lambda rate: optax.sgd(lambda t: jnp.where(jnp.less(t, 5), rate, 0)),
}


class Case(NamedTuple):
    """A run and how it ends."""

    name: str
    loss: Any
    start: tuple[float, float]
    rate: float
    tolerance: float | None
    status: Status
    how: str = "by hand"  # "by hand, keeping nothing", "by hand, no steps", or an optimizer
    dtype: type = np.float32


TINY = 1e-3  # the usual tolerance
HELD = "by hand, keeping nothing"
inf, nan = np.inf, np.nan

CASES = [
    # It arrives, or is there at the start.
    Case("arrives", bowl, (1, -2), 0.5, TINY, CONVERGED),
    Case("arrives in one step", bowl, (1, -2), 1.0, TINY, CONVERGED),
    Case("starts at the minimum", bowl, (0, 0), 0.5, TINY, CONVERGED),
    Case("starts with a gradient equal to the tolerance", bowl, (0.5, 0), 0.1, 0.5, CONVERGED),
    Case("starts on a saddle", saddle, (0, 0), 0.5, TINY, CONVERGED),
    Case("reaches a saddle along its ridge", saddle, (1, 0), 0.5, TINY, CONVERGED),
    Case("starts on a plateau", plateau, (0, 0), 0.5, TINY, CONVERGED),
    Case("falls onto a plateau", plateau, (3, 2), 0.5, TINY, CONVERGED),
    Case("starts on stairs", stairs, (3, 2), 0.5, TINY, CONVERGED),
    Case("starts on a plateau with tolerance 0", plateau, (0, 0), 0.5, 0, CONVERGED),
    Case("starts on a plateau with a rate of nan", plateau, (0, 0), nan, TINY, CONVERGED),
    Case("fits integers", line_through_integers, (2, 1e-4), 0.1, TINY, CONVERGED),
    # It is still on its way, or has nowhere to arrive.
    Case("is slow", bowl, (1, 1), 1e-3, TINY, MAX_STEPS),
    Case("bounces for ever at the edge of stability", bowl, (1, 1), 2.0, TINY, MAX_STEPS),
    Case("is just below the edge", bowl, (1, 1), 1.99, TINY, MAX_STEPS),
    Case("bounces across the narrow valley", valley, (0, 1), 0.02, TINY, MAX_STEPS),
    Case("slides for ever", slope, (1, 1), 0.5, TINY, MAX_STEPS),
    Case("slides for ever and far", slope, (1, 1), 1e6, TINY, MAX_STEPS),
    Case("leaves a saddle", saddle, (1, 0.01), 0.1, TINY, MAX_STEPS),
    Case("jumps over a kink for ever", needle, (1, 1), 0.3, TINY, MAX_STEPS),
    # It diverges: at once, or slowly and finite to the end.
    Case("is just above the edge", bowl, (1, 1), 2.01, TINY, DIVERGED),
    Case("is just above the edge of the narrow valley", valley, (1, 1), 0.0201, TINY, DIVERGED),
    Case("diverges fast", bowl, (1, 1), 10.0, TINY, DIVERGED),
    Case("diverges from afar", bowl, (1e6, 1), 10.0, TINY, DIVERGED),
    Case("climbs", bowl, (1, 1), -0.01, TINY, DIVERGED),
    Case("diverges on integers", line_through_integers, (1, 1), 0.5, TINY, DIVERGED),
    Case("leaps to a finite loss of 1e36", bowl, (1, 1), 1e18, TINY, DIVERGED),
    # Something becomes infinite or NaN.
    Case("overflows in one step", bowl, (1, 1), 1e38, TINY, NON_FINITE),
    Case("falls to minus infinity", hill, (1, 1), 1e3, TINY, NON_FINITE),
    Case("starts at nan", bowl, (nan, nan), 0.5, TINY, NON_FINITE),
    Case("starts with one bad leaf", bowl, (1, nan), 0.5, TINY, NON_FINITE),
    Case("starts with a bad leaf that the loss ignores", one_of_two, (1, nan), 0.5, 9, NON_FINITE),
    Case("starts at infinity", bowl, (inf, 1), 0.5, TINY, NON_FINITE),
    Case("starts with an infinite loss", bowl, (1e30, 1), 0.5, TINY, NON_FINITE),
    Case("starts with a loss of nan", barrier, (-1, 1), 0.5, TINY, NON_FINITE),
    Case("starts with a gradient of nan", needle, (0, 1), 0.5, TINY, NON_FINITE),
    Case("starts with an infinite gradient", root, (0, 1), 0.5, TINY, NON_FINITE),
    Case("steps over a barrier", barrier, (0.1, 1), -0.5, TINY, NON_FINITE),
    Case("has a rate of nan", bowl, (1, 1), nan, TINY, NON_FINITE),
    Case("has an infinite rate", bowl, (1, 1), inf, TINY, NON_FINITE),
    # It stands still, though not at rest.
    Case("has a rate of zero", bowl, (1, 1), 0.0, TINY, STALLED),
    Case("loses its steps to rounding", bowl, (1, 1), 1e-12, TINY, STALLED),
    Case("loses its steps to large params", bowl, (1e8, 1e8), 1e-9, TINY, STALLED),
    Case("ends above a tolerance below rounding", quartic, (2, 0), 0.2, 1e-12, STALLED),
    Case("ends above a tolerance of zero", quartic, (2, 0), 0.2, 0, STALLED),
    # Without a tolerance nothing converges, and a small gradient at rest is no stall.
    Case("without: arrives", bowl, (1, -2), 0.5, None, MAX_STEPS),
    Case("without: starts at the minimum", bowl, (0, 0), 0.5, None, MAX_STEPS),
    Case("without: starts on a saddle", saddle, (0, 0), 0.5, None, MAX_STEPS),
    Case("without: starts on a plateau", plateau, (0, 0), 0.5, None, MAX_STEPS),
    Case("without: the edge", bowl, (1, 1), 2.0, None, MAX_STEPS),
    Case("without: just above the edge", bowl, (1, 1), 2.01, None, DIVERGED),
    Case("without: diverges fast", bowl, (1, 1), 10.0, None, DIVERGED),
    Case("without: overflows in one step", bowl, (1, 1), 1e38, None, NON_FINITE),
    Case("without: starts with a loss of nan", barrier, (-1, 1), 0.5, None, NON_FINITE),
    Case("without: starts with a gradient of nan", needle, (0, 1), 0.5, None, NON_FINITE),
    Case("without: starts with one bad leaf", bowl, (1, nan), 0.5, None, NON_FINITE),
    Case("without: loses its steps to rounding", bowl, (1, 1), 1e-12, None, STALLED),
    Case("without: rests at the rounding floor", quartic, (2, 0), 0.2, None, MAX_STEPS),
    # The same when nothing is kept.
    *(
        Case(f"keeps nothing: {name}", loss, start, rate, tolerance, status, HELD)
        for name, loss, start, rate, tolerance, status in (
            ("arrives", bowl, (1, -2), 0.5, TINY, CONVERGED),
            ("the edge", bowl, (1, 1), 2.0, TINY, MAX_STEPS),
            ("just above the edge", bowl, (1, 1), 2.01, TINY, DIVERGED),
            ("starts with one bad leaf", bowl, (1, nan), 0.5, TINY, NON_FINITE),
            ("loses its steps", bowl, (1, 1), 1e-12, TINY, STALLED),
            ("without: arrives", bowl, (1, -2), 0.5, None, MAX_STEPS),
            ("without: diverges fast", bowl, (1, 1), 10.0, None, DIVERGED),
            ("without: just above the edge", bowl, (1, 1), 2.01, None, DIVERGED),
            ("without: overflows", bowl, (1, 1), 1e38, None, NON_FINITE),
            ("without: loses its steps", bowl, (1, 1), 1e-12, None, STALLED),
        )
    ),
    # No steps at all: only what the start tells.
    Case("no steps", bowl, (1, 1), 0.5, TINY, MAX_STEPS, "by hand, no steps"),
    Case("no steps needed", bowl, (0, 0), 0.5, TINY, CONVERGED, "by hand, no steps"),
    Case("no steps from nan", bowl, (nan, 0), 0.5, TINY, NON_FINITE, "by hand, no steps"),
    # float64 reaches where float32 cannot.
    Case("float64: moves large params", bowl, (1e8, 1e8), 1e-9, TINY, MAX_STEPS, dtype=np.float64),
    Case("float64: reaches 1e-12", quartic, (2, 0), 0.2, 1e-12, CONVERGED, dtype=np.float64),
    Case("float64: loses its steps", bowl, (1, 1), 1e-17, TINY, STALLED, dtype=np.float64),
    Case("float64: has room for 1e30", bowl, (1e30, 1), 1.0, TINY, CONVERGED, dtype=np.float64),
    Case("float64: diverges", bowl, (1, 1), 2.01, TINY, DIVERGED, dtype=np.float64),
    Case("float64: overflows", bowl, (1, 1), 1e300, TINY, NON_FINITE, dtype=np.float64),
    # Optax.
    Case("sgd arrives", bowl, (1, -2), 0.5, TINY, CONVERGED, "sgd"),
    Case("sgd bounces at the edge", bowl, (1, 1), 2.0, TINY, MAX_STEPS, "sgd"),
    Case("sgd loses its steps", bowl, (1, 1), 1e-12, TINY, STALLED, "sgd"),
    Case("a heavy ball arrives", bowl, (1, 1), 0.5, TINY, CONVERGED, "heavy ball"),
    Case("a heavy ball arrives below 3", bowl, (1, 1), 2.9, TINY, CONVERGED, "heavy ball"),
    Case("a heavy ball diverges above 3", bowl, (1, 1), 3.1, TINY, DIVERGED, "heavy ball"),
    Case("a heavy ball of nan", bowl, (1, nan), 0.5, TINY, NON_FINITE, "heavy ball"),
    Case("Nesterov arrives", bowl, (1, 1), 0.5, TINY, CONVERGED, "Nesterov"),
    Case("Nesterov is stable below 1.5", bowl, (1, 1), 1.49, TINY, MAX_STEPS, "Nesterov"),
    Case("Nesterov diverges above 1.5", bowl, (1, 1), 1.52, TINY, DIVERGED, "Nesterov"),
    Case("Adam starts at the minimum", bowl, (0, 0), 0.1, TINY, CONVERGED, "Adam"),
    Case("Adam is on its way", bowl, (9, -9), 0.1, TINY, MAX_STEPS, "Adam"),
    Case("Adam leaps", bowl, (1, 1), 1e9, TINY, DIVERGED, "Adam"),
    Case("Adam leaps to infinity", bowl, (1, 1), inf, TINY, NON_FINITE, "Adam"),
    Case("Adam stands still", bowl, (1, 1), 0.0, TINY, STALLED, "Adam"),
    Case("RMSProp starts on a plateau", plateau, (0, 0), 0.1, TINY, CONVERGED, "RMSProp"),
    Case("RMSProp is on its way", bowl, (9, -9), 0.01, TINY, MAX_STEPS, "RMSProp"),
    Case("RMSProp at a gradient of nan", needle, (0, 1), 0.1, TINY, NON_FINITE, "RMSProp"),
    Case("L-BFGS arrives", valley, (3, 1), 1.0, TINY, CONVERGED, "L-BFGS"),
    Case("L-BFGS starts on a saddle", saddle, (0, 0), 1.0, TINY, CONVERGED, "L-BFGS"),
    Case("L-BFGS starts at nan", valley, (nan, 1), 1.0, TINY, NON_FINITE, "L-BFGS"),
    Case("L-BFGS finds no step", island, (1, 1), 1.0, TINY, STALLED, "L-BFGS"),
    Case("backtracking arrives", bowl, (1, -2), 4.0, TINY, CONVERGED, "backtracking"),
    Case("backtracking is frozen", island, (1, 1), 1.0, TINY, STALLED, "backtracking"),
    Case("backtracking at nan", bowl, (nan, 1), 1.0, TINY, NON_FINITE, "backtracking"),
    Case("waits for 4 gradients and arrives", bowl, (1, 1), 0.7, TINY, CONVERGED, "every 4th step"),
    Case("waits and is slow", bowl, (1, 1), 0.1, TINY, MAX_STEPS, "every 4th step"),
    Case("waits and diverges", bowl, (1, 1), 2.1, TINY, DIVERGED, "every 4th step"),
    Case("waits for nothing", bowl, (1, 1), 0.0, TINY, STALLED, "every 4th step"),
    Case("warms up and arrives", bowl, (1, 1), 0.5, TINY, CONVERGED, "warm-up from 0"),
    Case("warms up and is slow", bowl, (1, 1), 0.01, TINY, MAX_STEPS, "warm-up from 0"),
    Case("warms up and diverges", bowl, (1, 1), 2.1, TINY, DIVERGED, "warm-up from 0"),
    Case("runs dry", bowl, (1, 1), 0.1, TINY, STALLED, "runs dry"),
    Case("runs dry after arriving", bowl, (1, 1), 1.0, TINY, CONVERGED, "runs dry"),
    Case("runs dry, without", bowl, (1, 1), 0.1, None, STALLED, "runs dry"),
    Case("runs dry at the minimum, without", bowl, (1, 1), 1.0, None, MAX_STEPS, "runs dry"),
]


class Group(NamedTuple):
    """What cases must share to run in one batch."""

    how: str
    with_tolerance: bool
    dtype: type


def group_of(case):
    return Group(case.how, case.tolerance is not None, case.dtype)


GROUPS = sorted({group_of(case) for case in CASES}, key=str)


def members(group):
    return [index for index, case in enumerate(CASES) if group_of(case) == group]


def losses_of(group):
    return list(dict.fromkeys(CASES[index].loss for index in members(group)))


def descend(group, which, start, rate, tolerance):
    """A run down one of the losses of its group, which an integer chooses."""

    def loss_fn(params, which):
        return jax.lax.switch(which, losses_of(group), params["x"], params["y"])

    how = group.how
    options: Any = {"num_steps": NUM_STEPS, "tolerance": tolerance}
    if how in OPTIMIZERS:
        return descent.optimize(loss_fn, start, which, optimizer=OPTIMIZERS[how](rate), **options)
    if how == HELD:
        options["record"] = lambda params: None
    elif how == "by hand, no steps":
        options["num_steps"] = 0
    with pytest.MonkeyPatch.context() as patch:
        if how == "by hand":  # without a tolerance judged as long runs are, afterwards
            patch.setattr("jaxgd.descent._loop._FEW_STEPS", 0)
        return descent.gradient_descent(loss_fn, start, which, learning_rate=rate, **options)


def arguments(case):
    """What ``descend`` takes of a case after its group."""
    tolerance = None if case.tolerance is None else case.dtype(case.tolerance)
    start = {"x": case.dtype(case.start[0]), "y": case.dtype(case.start[1])}
    which = np.int32(losses_of(group_of(case)).index(case.loss))
    return which, start, case.dtype(case.rate), tolerance


@functools.cache
def jitted(group):
    return jax.jit(functools.partial(descend, group))


@functools.cache
def alone(index):
    """The run of one case, by itself."""
    with jax.enable_x64(CASES[index].dtype == np.float64):
        return jax.device_get(jitted(group_of(CASES[index]))(*arguments(CASES[index])))


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.name for case in CASES])
def test_a_run_ends_as_the_table_says(index):
    assert Status(int(alone(index).status)) == CASES[index].status


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.how}, {group.with_tolerance}")
def test_a_run_in_a_mixed_batch_is_the_run_alone(group):
    cases = members(group)
    with jax.enable_x64(group.dtype == np.float64):
        lanes = jax.tree.map(
            lambda *leaves: np.stack(leaves), *(arguments(CASES[i]) for i in cases)
        )
        together = jax.device_get(jax.jit(jax.vmap(functools.partial(descend, group)))(*lanes))

    for lane, index in enumerate(cases):
        mine, lone, name = (
            jax.tree.map(lambda x, i=lane: x[i], together),
            alone(index),
            CASES[index].name,
        )
        assert (mine.status, mine.num_steps) == (lone.status, lone.num_steps), name
        for in_batch, by_itself in zip(jax.tree.leaves(mine), jax.tree.leaves(lone), strict=True):
            np.testing.assert_allclose(in_batch, by_itself, rtol=1e-5, atol=1e-6, err_msg=name)


# Rounding is no excuse for a loss that has multiplied.


@pytest.mark.parametrize("tolerance", [None, 1e-9])
@pytest.mark.parametrize(
    ("params_dtype", "loss_dtype", "num_steps"),
    [
        (jnp.float32, jnp.bfloat16, 1000),
        (jnp.float32, jnp.bfloat16, 400),
        (jnp.float32, jnp.float16, 3000),
        (jnp.bfloat16, jnp.bfloat16, 120),
        (jnp.float16, jnp.float16, 900),
        (jnp.float32, jnp.float32, 5000),
    ],
    ids=str,
)
def test_a_loss_that_has_risen_severalfold_has_diverged_in_every_precision(
    params_dtype, loss_dtype, num_steps, tolerance
):
    # Climbing at x + rate: steps that no format rounds away, to 2 to 20 times the first loss.
    rate = params_dtype(2.0 / 256) if params_dtype == jnp.bfloat16 else 1e-3

    run = jax.jit(
        lambda start: descent.gradient_descent(
            lambda x: x.astype(loss_dtype), start, learning_rate=-rate, num_steps=num_steps,
            tolerance=tolerance,
        )
    )(np.asarray(1, params_dtype))  # fmt: skip

    assert np.asarray(run.losses)[-1] > 1.3
    assert run.status == DIVERGED


def test_a_doubling_in_ten_million_steps_is_no_rounding():
    def row(loss):
        return _judging.Row(jnp.float32(loss), jnp.float32(1), None)

    @jax.jit
    def status(last_loss):  # of a run that took all its steps
        steps, status = jnp.int32(10**7), jnp.int32(MAX_STEPS)
        moves = jnp.bool_(False)
        run = _iteration.Run(jnp.float32(0), (), steps, moves, row(1.0), row(last_loss), status)
        return _judging.status_of(run, None, 10**7, None)

    assert 10**7 * np.finfo(np.float32).eps > 1  # what N roundings could amount to
    assert (status(2.0), status(1.2), status(1.05)) == (DIVERGED, DIVERGED, MAX_STEPS)


@pytest.mark.parametrize(("ulps", "status"), [(1, MAX_STEPS), (2, DIVERGED)])
def test_a_rise_by_one_rounding_per_step_has_not_diverged(ulps, status):
    run = jax.jit(
        lambda x: descent.gradient_descent(
            lambda x: x, x, learning_rate=-ulps * 1e-7, num_steps=NUM_STEPS
        )
    )(1.0)

    assert run.losses[-1] - 1 == ulps * NUM_STEPS * np.finfo(np.float32).eps
    assert run.status == status


@pytest.mark.parametrize(("tolerance", "status"), [(None, MAX_STEPS), (0.0, CONVERGED)])
@pytest.mark.parametrize("record", [None, jnp.negative])
def test_params_without_entries_are_where_they_should_be(tolerance, status, record):
    run = jax.jit(
        lambda x: descent.gradient_descent(
            jnp.sum, x, learning_rate=0.1, num_steps=3, tolerance=tolerance, record=record
        )
    )(np.zeros((0, 3), np.float32))

    assert (run.status, run.losses[0], run.grad_norms[0]) == (status, 0, 0)


def test_the_table_is_wide_and_each_batch_is_mixed():
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    assert {case.status for case in CASES} == set(Status)
    assert {case.how for case in CASES} >= set(OPTIMIZERS)
    for group in GROUPS:
        assert len({CASES[index].status for index in members(group)}) > 1, group


def test_a_run_that_comes_to_rest_by_rounding_near_a_minimum_has_not_stalled():
    def loss_fn(x):
        return (x - 100) ** 2

    run = jax.jit(lambda x: descent.gradient_descent(loss_fn, x, learning_rate=0.1, num_steps=300))(
        101.0
    )

    assert 0 < run.grad_norms[-1] < 1e-4
    assert run.status == MAX_STEPS


def test_a_state_that_holds_nan_and_stays_ends_a_run_that_stands_still():
    still = optax.GradientTransformation(
        lambda params: jnp.array([jnp.nan, 1.0]),
        lambda updates, state, params=None: (jax.tree.map(jnp.zeros_like, updates), state),
    )

    run = jax.jit(
        lambda x: descent.optimize(
            lambda x: x**2, x, optimizer=still, num_steps=NUM_STEPS, tolerance=1e-3
        )
    )(3.0)

    assert (run.num_steps, run.status) == (1, STALLED)
