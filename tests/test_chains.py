"""What jaxgd.chains promises.

The two chains of the study note serve throughout: z = x y with x = 2 w + 3 b and
y = 2 b + 1, and c = sqrt(ln x^2). The digits are those its original programs print.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxgd import chains, descent, neurons

Status = descent.Status

# One program each: operation by operation they would compile dozens.
backprop, correct, local_derivatives = (
    jax.jit(fn, static_argnums=0)
    for fn in (chains.backprop, chains.correct, chains.local_derivatives)
)
solve = jax.jit(chains.solve, static_argnums=0, static_argnames=("max_steps", "refresh", "project"))
NONLINEAR = (jnp.square, jnp.log, jnp.sqrt)


def two_numbers(wb):
    w, b = wb
    return 2 * w + 3 * b, 2 * b + 1


def product(xy):
    return xy[0] * xy[1]


def with_b(w):
    return lambda b: (2 * w + 3 * b, 2 * b + 1)


def with_w(b):
    return lambda w: (2 * w + 3 * b, 2 * b + 1)


LINEAR = (two_numbers, product)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# compose


def test_the_first_stage_is_applied_first():
    composed = chains.compose(lambda x: x + 1, lambda x: 10 * x, lambda x: x - 2)

    assert composed(3.0) == 38.0
    assert chains.compose(jnp.exp)(0.0) == 1.0


def test_a_composition_is_a_stage():
    inner = chains.compose(jnp.square, jnp.log)

    whole = chains.compose(inner, jnp.sqrt)(3.0)

    np.testing.assert_allclose(whole, np.sqrt(np.log(9.0)), rtol=1e-6)


# backprop


def test_a_trace_of_the_linear_chain_holds_its_values_and_its_partial_derivatives():
    trace = backprop(LINEAR, (3.0, 4.0))

    assert trace.param_adjoints is None
    assert jax.tree.map(float, trace.primals) == ((3, 4), (18, 9), 162)
    assert jax.tree.map(float, trace.adjoints) == ((18, 63), (9, 18), 1)


def test_a_trace_of_the_nonlinear_chain_has_the_closed_form_adjoints():
    x, b = 2.0, np.log(4.0)
    trace = backprop(NONLINEAR, x)

    np.testing.assert_allclose(trace.primals, [2, 4, b, np.sqrt(b)], rtol=1e-6)
    slope = 1 / (2 * np.sqrt(b))
    np.testing.assert_allclose(trace.adjoints, [slope / 4 * 2 * x, slope / 4, slope, 1], rtol=1e-6)


def test_what_leaves_a_trace_of_pytrees_is_the_gradient(rng):
    x = {"a": rng.normal(size=3).astype(np.float32), "b": (np.float32(0.5),)}

    def first(x):
        return [jnp.sin(x["a"]) * x["b"][0], jnp.outer(x["a"], x["a"][:2])]

    def second(x):
        return {"s": x[0].sum(), "m": x[1] ** 2}

    def third(x):
        return x["s"] * x["m"].mean()

    trace = backprop((first, second, third), x)

    rest = [(first, second, third), (second, third), (third,)]
    for primal, adjoint, stages in zip(trace.primals[:-1], trace.adjoints, rest, strict=False):
        grads = jax.jit(jax.grad(chains.compose(*stages)))(primal)
        chex.assert_trees_all_close(adjoint, grads, rtol=1e-5)
        chex.assert_trees_all_equal_shapes(adjoint, primal)
    assert trace.adjoints[-1] == 1.0
    assert len(trace.primals) == len(trace.adjoints) == 4


def network_stages(y):
    return (
        lambda layer, a: jnp.tanh(neurons.weighted_sum(layer, a)),
        neurons.weighted_sum,
        lambda _, z: jnp.mean((z - y) ** 2),
    )


def test_trunk_and_branches_of_a_network_equal_its_gradients(rng):
    network = tuple(
        neurons.Neuron(
            *(jnp.asarray(rng.normal(size=size), jnp.float32) for size in (shape, shape[1:]))
        )
        for shape in ((3, 4), (4, 2))
    )
    x, y = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)

    trace = backprop(network_stages(y), x, params=(*network, ()))

    def loss(network, x):
        return jnp.mean((neurons.apply_network(network, x) - y) ** 2)

    value, (branches, trunk) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(network, x)
    assert trace.param_adjoints is not None
    chex.assert_trees_all_close(trace.param_adjoints[:2], branches, rtol=1e-4, atol=1e-6)
    assert trace.param_adjoints[2] == ()
    chex.assert_trees_all_close(trace.adjoints[0], trunk, rtol=1e-4, atol=1e-6)
    assert [a.shape for a in trace.adjoints] == [(5, 3), (5, 4), (5, 2), ()]
    chex.assert_trees_all_close(trace.primals[-1], value, rtol=1e-5)


def test_a_trace_can_be_jitted_and_mapped_over_examples(rng):
    x = 2 + rng.random(6).astype(np.float32)

    traces = jax.jit(jax.vmap(lambda x: chains.backprop(NONLINEAR, x)))(x)

    np.testing.assert_allclose(traces.adjoints[0], 1 / (x * np.sqrt(2 * np.log(x))), rtol=1e-5)


def test_a_stage_may_return_a_python_number():
    trace = chains.backprop([lambda x: 2.0], 1.0)
    solution = solve((lambda x: 2.0,), 1.0, 2.0, tolerance=0.0, max_steps=1)

    assert float(trace.adjoints[0]) == 0
    assert solution.status == Status.CONVERGED


# local_derivatives


def test_local_derivatives_are_taken_at_each_stage_s_own_input():
    derivatives = local_derivatives(NONLINEAR, 2.0)

    b = np.log(4.0)
    np.testing.assert_allclose(derivatives, [4, 1 / 4, 1 / (2 * np.sqrt(b))], rtol=1e-6)
    slope = jax.jit(jax.grad(chains.compose(*NONLINEAR)))(2.0)
    np.testing.assert_allclose(np.prod(derivatives), slope, rtol=1e-6)


def test_local_jacobians_of_pytrees_hold_every_pair():
    first, second = local_derivatives(LINEAR, (3.0, 4.0))

    assert jax.tree.map(float, first) == ((2, 3), (0, 2))
    assert jax.tree.map(float, second) == (9, 18)


def test_the_product_of_local_jacobians_is_the_jacobian_of_the_chain(rng):
    a, b = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
    stages = (lambda x: jnp.sin(a @ x), lambda x: b @ x)
    x = rng.normal(size=3).astype(np.float32)

    first, second = local_derivatives(stages, x)

    chex.assert_shape((first, second), [(4, 3), (2, 4)])
    product = np.asarray(second) @ np.asarray(first)
    np.testing.assert_allclose(product, b @ (np.cos(a @ x)[:, None] * a), rtol=1e-4)


# correct


@pytest.mark.usefixtures("x64")
def test_a_correction_repeats_the_backward_table_of_the_note():
    x = 2.0
    printed = [
        (2.000000, 4.000000, 1.386294, 1.177410, -0.952590, -2.243178, -8.972712, -2.243178),
        (4.243178, 18.004559, 2.890625, 1.700184, -0.429816, -1.461533, -26.314258, -3.100772),
        (7.343950, 53.933607, 3.987754, 1.996936, -0.133064, -0.531440, -28.662487, -1.951435),
        (9.295386, 86.404194, 4.459036, 2.111643, -0.018357, -0.077527, -6.698641, -0.360321),
    ]
    for row in printed:
        correction = correct(NONLINEAR, x, 2.13)
        values = *correction.primals, *reversed(correction.deltas)
        np.testing.assert_allclose(values, row, atol=5.1e-7)
        x = x - float(correction.deltas[0])
    np.testing.assert_allclose(x, 9.655706, atol=5e-7)


def test_on_a_scalar_chain_each_delta_is_the_next_over_a_local_derivative():
    correction = correct(NONLINEAR, 3.0, 1.0)
    derivatives = local_derivatives(NONLINEAR, 3.0)

    deltas = correction.deltas
    np.testing.assert_allclose(deltas[-1], float(correction.primals[-1]) - 1, rtol=1e-6)
    for index, derivative in enumerate(map(float, derivatives)):
        np.testing.assert_allclose(deltas[index], float(deltas[index + 1]) / derivative, rtol=1e-5)


def test_each_entry_repairs_an_equal_share_of_the_error():
    deltas = correct(LINEAR, (3.0, 4.0), 150.0).deltas

    np.testing.assert_allclose(deltas[0], (12 / 2 / 18, 12 / 2 / 63), rtol=1e-6)
    np.testing.assert_allclose(deltas[1], (12 / 2 / 9, 12 / 2 / 18), rtol=1e-6)
    assert float(deltas[2]) == 12


def test_the_entries_of_all_arrays_of_a_pytree_are_counted(rng):
    slopes = {"u": rng.normal(size=(2, 3)).astype(np.float32), "v": np.array([3.0], np.float32)}
    x = jax.tree.map(np.ones_like, slopes)

    def affine(x):
        return jnp.vdot(slopes["u"], x["u"]) + jnp.vdot(slopes["v"], x["v"])

    correction = correct((affine,), x, 5.0)

    error = float(correction.primals[-1]) - 5
    expected = jax.tree.map(lambda s: error / (7 * s), slopes)
    chex.assert_trees_all_close(correction.deltas[0], expected, rtol=1e-5)
    corrected = jax.tree.map(lambda x, d: x - np.asarray(d), x, correction.deltas[0])
    found = sum(np.vdot(slopes[name], corrected[name]) for name in slopes)
    np.testing.assert_allclose(found, 5.0, rtol=1e-5)


def test_where_nothing_depends_on_a_value_its_delta_is_infinite():
    assert np.isinf(correct((lambda x: 0 * x,), 2.0, 1.0).deltas[0])


# solve: the printed runs


def linear_run(mode):
    """The stages, the start and, in that order, what each run varies."""
    return {
        "b": ((with_b(3.0), product), 4.0),
        "w": ((with_w(4.0), product), 3.0),
        "both": (LINEAR, (3.0, 4.0)),
    }[mode]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("mode", "refresh", "iterates", "outputs"),
    [
        ("w", True, [3, 7 / 3], [162, 150]),
        (
            "b",
            False,
            [4.0, 3.809524, 3.806068, 3.805942, 3.805937, 3.805937],
            [162, 150.217687, 150.007970, 150.000294, 150.000011, 150.000000],
        ),
        (
            "b",
            True,
            [4.0, 3.809524, 3.805938, 3.805937],
            [162, 150.217687, 150.000077, 150.000000],
        ),
        (
            "both",
            False,
            [
                (3.0, 2.666667, 2.661628, 2.661474, 2.661469),
                (4.0, 3.904762, 3.903322, 3.903278, 3.903277),
            ],
            [162, 150.181406, 150.005526, 150.000170, 150.000005],
        ),
        (
            "both",
            True,
            [(3.0, 2.666667, 2.661519, 2.661517), (4.0, 3.904762, 3.903263, 3.903263)],
            [162, 150.181406, 150.000044, 150.000000],
        ),
    ],
    ids=["w", "b-fixed", "b-recomputed", "both-fixed", "both-recomputed"],
)
def test_a_solve_repeats_the_printed_runs_of_the_linear_chain(mode, refresh, iterates, outputs):
    stages, start = linear_run(mode)

    solution = solve(stages, start, 150.0, tolerance=1e-5, max_steps=9, refresh=refresh)

    steps = len(outputs) - 1
    solution = jax.tree.map(np.asarray, solution)
    assert solution.num_steps == steps
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(solution.outputs[: steps + 1], outputs, atol=5.1e-7)
    np.testing.assert_allclose(np.array(solution.path)[..., : steps + 1], iterates, atol=5.1e-7)
    np.testing.assert_array_equal(solution.residuals, solution.outputs - 150.0)


@pytest.mark.usefixtures("x64")
def test_a_solve_finds_the_exact_root_of_the_linear_chain():
    stages, start = linear_run("b")

    solution = solve(stages, start, 150.0, tolerance=1e-12, max_steps=9)

    root = (-15 + np.sqrt(3681)) / 12
    path = np.asarray(solution.path)
    np.testing.assert_allclose(path[solution.num_steps], root, rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("start", "target", "printed"),
    [
        (2.0, 2.13, [2.0, 4.243178, 7.343950, 9.295386, 9.655706]),
        (1.3, 1.8, [1.3, 2.312906, 3.825499, 4.840043, 5.047130]),
    ],
)
def test_a_solve_repeats_the_printed_runs_of_the_nonlinear_chain(start, target, printed):
    solution = solve(NONLINEAR, start, target, tolerance=1e-3, max_steps=6)
    solution = jax.tree.map(np.asarray, solution)

    assert (solution.num_steps, solution.status) == (4, Status.CONVERGED)
    np.testing.assert_allclose(solution.path[:5], printed, atol=5.1e-7)
    np.testing.assert_array_equal(solution.path[5:], np.full(2, solution.path[4]))
    np.testing.assert_array_equal(solution.outputs[5:], np.full(2, solution.outputs[4]))


@pytest.mark.usefixtures("x64")
def test_a_solve_is_the_newton_method_of_scipy():
    def f(x):
        return np.sqrt(np.log(x**2)) - 2.13

    def slope(x):
        return 1 / (x * np.sqrt(np.log(x**2)))

    solution = solve(NONLINEAR, 2.0, 2.13, tolerance=1e-14, max_steps=7)
    solution = jax.tree.map(np.asarray, solution)

    root = scipy.optimize.newton(f, 2.0, fprime=slope, tol=1e-13)
    np.testing.assert_allclose(solution.path[-1], root, rtol=1e-13)
    np.testing.assert_allclose(root, np.exp(2.13**2 / 2), rtol=1e-13)
    for k in range(int(solution.num_steps)):
        # One iteration of SciPy from the same point.
        _, report = scipy.optimize.newton(
            f, float(solution.path[k]), fprime=slope, maxiter=1, full_output=True, disp=False
        )
        np.testing.assert_allclose(solution.path[k + 1], report.root, rtol=1e-13)


# solve: how it ends


@jax.jit
def solve_nonlinear(start, target, tolerance):
    return chains.solve(NONLINEAR, start, target, tolerance=tolerance, max_steps=5)


STARTS = {
    "converges": (2.0, 2.13, 1e-3, Status.CONVERGED, 4),
    "is there already": (2.0, np.sqrt(np.log(4.0)), 1e-3, Status.CONVERGED, 0),
    "runs out of steps": (1.01, 2.13, 1e-3, Status.MAX_STEPS, 5),
    "has an infinite slope": (1.0, 2.13, 1e-3, Status.NON_FINITE, 0),
    "has an infinite slope at its target": (1.0, 0.0, 1e-3, Status.NON_FINITE, 0),
    "is out of the domain": (0.5, 2.13, 1e-3, Status.NON_FINITE, 0),
    "is at the pole": (0.0, 2.13, 1e-3, Status.NON_FINITE, 0),
    "is nan": (np.nan, 2.13, 1e-3, Status.NON_FINITE, 0),
    "is infinite": (np.inf, 2.13, 1e-3, Status.NON_FINITE, 0),
    "leaves the domain": (2.0, 0.4, 1e-3, Status.NON_FINITE, 1),
    "tolerates everything": (2.0, 2.13, np.inf, Status.CONVERGED, 0),
}


@pytest.mark.parametrize("case", STARTS)
def test_a_solve_says_how_it_ended(case):
    start, target, tolerance, status, num_steps = STARTS[case]

    solution = solve_nonlinear(start, target, tolerance)

    assert Status(int(solution.status)) == status
    assert solution.num_steps == num_steps
    assert solution.status.dtype == solution.num_steps.dtype == jnp.int32


def test_mapped_solves_end_each_by_itself():
    starts, targets, tolerances = (
        np.array([case[i] for case in STARTS.values()], np.float32) for i in range(3)
    )

    together = jax.tree.map(np.asarray, jax.vmap(solve_nonlinear)(starts, targets, tolerances))

    for lane, case in enumerate(STARTS.values()):
        alone = solve_nonlinear(*case[:3])
        mine = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together)
        chex.assert_trees_all_close(mine, alone, rtol=1e-6)
        assert mine.status == case[3]


def test_a_residual_equal_to_the_tolerance_has_converged():
    solution = solve((lambda x: x,), 3.0, 1.0, tolerance=2.0, max_steps=5)

    assert (solution.num_steps, solution.status) == (0, Status.CONVERGED)


@pytest.mark.parametrize("refresh", [True, False])
def test_a_step_lost_to_rounding_has_stalled(refresh):
    solution = solve(
        (lambda x: 1e10 * (x - 1),), 1.0, 1.0, tolerance=1e-3, max_steps=5, refresh=refresh
    )

    assert solution.status == Status.STALLED
    assert solution.num_steps < 5
    np.testing.assert_array_equal(solution.path, np.ones(6, np.float32))


def test_a_zero_slope_is_not_finite_in_one_step():
    solution = solve((lambda x: x**2,), 0.0, 1.0, tolerance=1e-3, max_steps=5)

    assert (solution.num_steps, solution.status) == (1, Status.NON_FINITE)


def test_no_steps_give_the_start_alone():
    solution = solve(NONLINEAR, 2.0, 2.13, tolerance=1e-3, max_steps=0)

    chex.assert_shape((solution.path, solution.outputs, solution.residuals), (1,))
    assert (solution.num_steps, solution.status) == (0, Status.MAX_STEPS)


# solve: project, shapes, dtypes


def clamp(x):
    return jnp.where(x < 1, 1.1, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("target", "num_steps"), [(0.5, 3), (1.8, 4)])
def test_a_projection_brings_iterates_back_into_the_domain(target, num_steps):
    solution = solve(NONLINEAR, 10.0, target, tolerance=1e-3, max_steps=20, project=clamp)

    assert (solution.num_steps, solution.status) == (num_steps, Status.CONVERGED)
    x, iterates = 10.0, [10.0]
    for _ in range(num_steps):
        c = np.sqrt(np.log(x**2))
        x = x - (c - target) * c * x
        x = 1.1 if x < 1 else x
        iterates.append(x)
    np.testing.assert_allclose(np.asarray(solution.path)[: num_steps + 1], iterates, rtol=1e-12)


def test_without_its_projection_that_run_leaves_the_domain():
    solution = solve(NONLINEAR, 10.0, 0.5, tolerance=1e-3, max_steps=20)

    np.testing.assert_allclose(np.asarray(solution.path)[1], -25.3, atol=0.05)
    assert solution.status != Status.MAX_STEPS


def test_a_projection_onto_one_point_stalls():
    solution = solve(
        (lambda x: x,), 1.0, 5.0, tolerance=1e-3, max_steps=9, project=lambda x: jnp.minimum(x, 2.0)
    )

    assert (np.asarray(solution.path)[-1], solution.status) == (2.0, Status.STALLED)
    assert solution.num_steps < 9


def test_a_pytree_of_unknowns_is_solved_for():
    start = {"a": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array([[4.0, 5.0]])}

    solution = solve(
        (lambda x: x["a"].sum() + x["b"].sum(),), start, 25.0, tolerance=1e-4, max_steps=2
    )

    path = jax.tree.map(np.asarray, solution.path)
    chex.assert_shape((path["a"], path["b"]), [(3, 3), (3, 1, 2)])
    np.testing.assert_allclose(path["a"][1], [3, 4, 5], rtol=1e-6)
    np.testing.assert_allclose(path["b"][1], [[6, 7]], rtol=1e-6)
    assert (solution.num_steps, solution.status) == (1, Status.CONVERGED)


@pytest.mark.usefixtures("x64")
def test_a_float32_start_stays_float32_beside_float64_numbers():
    solution = solve(
        NONLINEAR, jnp.float32(2), jnp.float64(2.13), tolerance=jnp.float64(1e-3), max_steps=5
    )

    assert solution.path.dtype == jnp.float32
    assert solution.status == Status.CONVERGED
