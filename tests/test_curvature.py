"""How the loss bends, against dense Hessians."""

import functools
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import matfree.decomp
import numpy as np
import optax
import pytest
from jax.experimental.ode import odeint
from jax.flatten_util import ravel_pytree

from jaxgd import curvature

KEY = jax.random.wrap_key_data(jax.device_put(np.array([0, 3], np.uint32)))
NOT_A_FUNCTION: Any = 3
NOT_A_KEY: Any = 0
PARAMS = {
    "w": np.array([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.7]], np.float32),
    "b": np.array([0.1, -0.3], np.float32),
}
X, Y = np.split(np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32), [3], axis=1)


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def params_of(row):
    """The pytree like ``PARAMS`` whose entries stand in a row."""
    return {"b": row[:2], "w": row[2:].reshape(3, 2)}


hessian_at = jax.jit(jax.hessian(lambda v: loss(params_of(v), X, Y)))


def flattened(tree):
    """The entries of a pytree in one row, by NumPy."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def dense_hessian(params):
    return np.asarray(hessian_at(flattened(params)))


def quadratic(x, matrix):
    return x @ matrix @ x / 2


def symmetric(values, seed=0):
    values = np.asarray(values, float)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(values.size, values.size)))
    return np.asarray(q @ np.diag(values) @ q.T, jnp.result_type(float))


def test_hvp_is_the_dense_hessian_times_a_vector():
    vector = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size, dtype="f")), PARAMS)
    vector = jax.tree.map(lambda v, leaf: v.reshape(leaf.shape), vector, PARAMS)
    image = jax.jit(lambda params, v: curvature.hvp(loss, params, X, Y)(v))(PARAMS, vector)
    wanted = dense_hessian(PARAMS) @ flattened(vector)
    np.testing.assert_allclose(flattened(image), wanted, rtol=1e-4)


@pytest.fixture(scope="module")
def all_pairs():
    def find():
        return curvature.top_eigenpairs(KEY, loss, PARAMS, X, Y, num_pairs=8, num_iterations=8)

    return jax.jit(find)()


def test_with_as_many_iterations_as_params_all_eigenvalues_are_exact(all_pairs):
    pairs = all_pairs
    wanted = np.linalg.eigvalsh(dense_hessian(PARAMS))
    wanted = wanted[np.argsort(-np.abs(wanted))]
    chex.assert_trees_all_close(pairs.values, jnp.asarray(wanted), atol=2e-6)
    assert (pairs.residuals < 2e-6).all()


def test_eigenvectors_are_orthonormal_and_shaped_like_the_params(all_pairs):
    pairs = jax.device_get(all_pairs)
    chex.assert_trees_all_equal_shapes(jax.tree.map(lambda v: v[0], pairs.vectors), PARAMS)
    rows = np.stack([flattened(jax.tree.map(lambda v, i=i: v[i], pairs.vectors)) for i in range(8)])
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(
        dense_hessian(PARAMS) @ rows.T, rows.T * np.asarray(pairs.values), atol=3e-6
    )


@jax.jit
def six_pairs(matrix):
    return curvature.top_eigenpairs(
        KEY, quadratic, jnp.zeros(6), matrix, num_pairs=6, num_iterations=6
    )


@jax.jit
def six_sharpness(matrix):
    return curvature.sharpness(KEY, quadratic, jnp.zeros(6), matrix, num_iterations=6)


def test_the_largest_magnitude_comes_first_and_keeps_its_sign():
    values = [-9, 5, 1, 0.5, -0.1, 0.01]
    matrix = symmetric(values)
    np.testing.assert_allclose(six_pairs(matrix).values, values, atol=1e-5)
    np.testing.assert_allclose(float(six_sharpness(matrix)), 5, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_residual_bounds_the_distance_to_an_eigenvalue():
    exact = np.linspace(1, 30, 30)

    @jax.jit
    def find(matrix):
        key = jax.random.key(0)
        return curvature.top_eigenpairs(
            key, quadratic, jnp.zeros(30), matrix, num_pairs=4, num_iterations=9
        )

    pairs = jax.device_get(find(symmetric(exact)))
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(exact - value).min() <= residual + 1e-12
    assert pairs.residuals.max() > 1e-3  # nine iterations are not exact, and say so


def test_the_iteration_outlives_an_invariant_space():
    # From any start the Krylov space of this Hessian has two dimensions.
    pairs = jax.device_get(six_pairs(symmetric([4, 4, 4, 4, -7, -7])))
    np.testing.assert_allclose(np.sort(pairs.values), [-7, -7, 4, 4, 4, 4], rtol=1e-5)
    assert (pairs.residuals < 1e-4).all()


def test_a_basis_is_orthogonal_where_a_random_vector_all_but_lies_in_it():
    # Two numbers and 2000 keys: the vector drawn is at times within 1 / 1000 of the first one.
    def vectors(key):
        return curvature.top_eigenpairs(
            key, lambda x: x @ x / 2, jnp.zeros(2), num_pairs=2, num_iterations=2
        ).vectors

    pairs = np.asarray(jax.jit(jax.vmap(vectors))(jax.random.split(KEY, 2000)), float)

    products = pairs @ pairs.transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(2), products.shape), atol=1e-6)


def test_the_first_vectors_of_many_keys_have_no_pattern():
    # After one iteration the vector found is the first one.
    def first(key):
        start = {"a": jnp.zeros(17), "b": jnp.zeros((2, 9)), "c": jnp.zeros(17)}
        return curvature.top_eigenpairs(
            key, lambda x: jnp.sum(x["a"] ** 2), start, num_pairs=1, num_iterations=1
        ).vectors

    found = jax.jit(jax.vmap(first))(jax.random.split(KEY, 900))
    rows = np.concatenate([np.reshape(leaf, (900, -1)) for leaf in found.values()], axis=1)

    # Entries are as independent as 900 draws can show, of each other and from key to key.
    np.testing.assert_allclose(rows.mean(axis=0) * 52**0.5, np.zeros(52), atol=5 / 30)
    np.testing.assert_allclose(rows.T @ rows / 900 * 52, np.eye(52), atol=5 / 30)
    cosines = rows @ rows.T - np.eye(900)
    assert np.abs(cosines).max() < 6 / 52**0.5
    assert cosines.std() == pytest.approx(1 / 52**0.5, rel=0.05)


def test_a_flat_loss_has_no_curvature():
    np.testing.assert_array_equal(six_pairs(np.zeros((6, 6), np.float32)).values, np.zeros(6))


# Every scale and precision.


def diagonal(values):
    return lambda x: x @ (jnp.asarray(values, x.dtype) * x) / 2


@jax.jit
def three_pairs_and_trace(values):
    loss_fn, start = diagonal(values), jnp.zeros(3)
    pairs = curvature.top_eigenpairs(KEY, loss_fn, start, num_pairs=3, num_iterations=3)
    return pairs, curvature.hessian_trace(KEY, loss_fn, start, num_samples=2)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e-12, 1e12, 1e19, 6e37])
def test_no_scale_of_the_hessian_is_too_small_or_too_large(scale):
    values = (scale * np.array([1, -5, 3])).astype(np.float32)

    pairs, trace = jax.device_get(three_pairs_and_trace(values))

    np.testing.assert_allclose(pairs.values / scale, [-5, 3, 1], rtol=2e-6)
    assert (pairs.residuals > 0).all()  # below the arithmetic's floor nothing is claimed
    assert (pairs.residuals < 1e-5 * scale + 2e-38).all()
    assert float(trace.value) / scale == pytest.approx(-1, rel=1e-5)


def test_a_hessian_near_the_largest_number_has_a_sharpness_by_hand():
    loss_fn = diagonal(np.array([5e37, 3e38, -1e38], np.float32))

    sharpness = curvature.sharpness(KEY, loss_fn, jnp.zeros(3), num_iterations=3)

    assert float(sharpness) == pytest.approx(3e38, rel=1e-5)


LOW_PRECISIONS = ["bfloat16", "float16"]


@pytest.fixture(scope="module")
def in_low_precision():
    """Two pairs and the trace of a diagonal, in each precision: one program."""

    @jax.jit
    def find(starts):
        loss_fn = diagonal([1, -5, 3, 2, 8])
        return [
            (
                curvature.top_eigenpairs(KEY, loss_fn, start, num_pairs=2, num_iterations=5),
                curvature.hessian_trace(KEY, loss_fn, start, num_samples=2),
            )
            for start in starts
        ]

    starts = [np.ones(5, jnp.dtype(dtype)) for dtype in LOW_PRECISIONS]
    return dict(zip(LOW_PRECISIONS, find(starts), strict=True))


@pytest.mark.parametrize("dtype", LOW_PRECISIONS)
def test_params_of_low_precision_have_a_curvature_in_float32(in_low_precision, dtype):
    pairs, trace = in_low_precision[dtype]
    eps = float(jnp.finfo(dtype).eps)

    assert pairs.values.dtype == trace.value.dtype == jnp.float32
    assert pairs.vectors.dtype == dtype
    np.testing.assert_allclose(pairs.values, [8, -5], rtol=eps)
    assert (np.abs(pairs.values - np.array([8, -5])) < np.asarray(pairs.residuals)).all()
    assert (np.asarray(pairs.residuals) >= 8 * eps).all()
    assert (float(trace.value), float(trace.standard_error)) == (9, 0)


def test_a_trace_of_many_small_entries_is_not_lost_in_low_precision():
    # In bfloat16 a sum of ones stops at 256.
    loss_fn = diagonal(np.ones(5000))
    trace = jax.jit(
        lambda: curvature.hessian_trace(KEY, loss_fn, jnp.zeros(5000, "bfloat16"), num_samples=2)
    )()
    assert float(trace.value) == 5000


def test_arrays_keep_their_own_dtypes_under_strict_promotion():
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2), "bfloat16")}

    def mixed(p):
        return 2 * jnp.sum(p["a"] ** 2) + jnp.sum(p["b"].astype("float32") ** 4) / 12

    with jax.numpy_dtype_promotion("strict"):
        pairs = jax.jit(
            lambda: curvature.top_eigenpairs(KEY, mixed, params, num_pairs=2, num_iterations=7)
        )()

    assert [leaf.dtype for leaf in jax.tree.leaves(pairs.vectors)] == ["float32", "bfloat16"]
    np.testing.assert_allclose(pairs.values, [4, 4], rtol=2e-2)


def test_nothing_is_not_a_number_on_the_way():
    with jax.debug_nans(True):
        sharpness = curvature.sharpness(KEY, lambda x: 3 * x**2, 1.0, num_iterations=1)
        flat = curvature.top_eigenpairs(KEY, jnp.sum, jnp.ones(3), num_pairs=3, num_iterations=3)
        pairs = curvature.top_eigenpairs(
            KEY, diagonal([1, -5, 3]), jnp.zeros(3), num_pairs=3, num_iterations=3
        )

    assert float(sharpness) == 6
    np.testing.assert_array_equal(flat.residuals, np.zeros(3))
    np.testing.assert_allclose(pairs.values, [-5, 3, 1], rtol=1e-6)


def test_a_nan_in_the_loss_is_a_nan_in_the_curvature():
    sharpness = six_sharpness(np.full((6, 6), np.nan, np.float32))
    assert np.isnan(sharpness)


def test_an_array_without_entries_changes_nothing():
    params = {"a": np.ones(3, np.float32), "empty": np.ones((0, 2), np.float32)}

    @jax.jit
    def find(p):
        return curvature.top_eigenpairs(
            KEY, lambda p: jnp.sum(p["a"] ** 2), p, num_pairs=1, num_iterations=9
        )

    pairs = find(params)
    np.testing.assert_allclose(pairs.values, [2], rtol=1e-6)
    assert pairs.vectors["empty"].shape == (1, 0, 2)


@pytest.fixture(scope="module")
def nine_pairs():
    @jax.jit
    def find(matrix):
        return curvature.top_eigenpairs(
            KEY, quadratic, jnp.ones(40), matrix, num_pairs=9, num_iterations=9
        )

    return find


@pytest.mark.parametrize("num_used", [1, 2, 3])
def test_no_eigenvalue_is_found_again_as_a_ghost(nine_pairs, num_used):
    # The loss knows a few of its params, so that the Krylov space ends early, and the
    # rounding of every image lies within it.
    matrix = np.zeros((40, 40), np.float32)
    matrix[:num_used, :num_used] = symmetric([5, -3, 2][:num_used], seed=num_used)

    pairs = jax.device_get(nine_pairs(matrix))

    wanted = np.zeros(9)
    wanted[:num_used] = [5, -3, 2][:num_used]
    np.testing.assert_allclose(pairs.values, wanted, atol=1e-5)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(9), atol=1e-5)


# Losses whose gradients have no plain forward mode.


@jax.custom_vjp
def square_root(a):
    return jax.lax.while_loop(lambda x: jnp.abs(x * x - a) > 1e-6 * a, lambda x: (x + a / x) / 2, a)


def root_forwards(a):
    root = square_root(a)
    return root, root


square_root.defvjp(root_forwards, lambda root, cotangent: (cotangent / (2 * root),))


def decayed(rate):
    times = jnp.array([0.0, 1.0])
    return odeint(lambda y, _, rate: -rate * y, jnp.ones(()), times, rate)[-1] ** 2


@pytest.mark.parametrize(
    ("loss_fn", "at", "wanted"),
    [(square_root, 2.0, -(2**-1.5) / 4), (decayed, 0.3, 4 * np.exp(-0.6))],
    ids=["while_loop", "odeint"],
)
def test_a_gradient_without_forward_mode_has_a_hessian(loss_fn, at, wanted):
    sharpness = jax.jit(lambda at: curvature.sharpness(KEY, loss_fn, at, num_iterations=1))(at)

    assert float(sharpness) == pytest.approx(wanted, rel=1e-4)


def called_back(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@jax.custom_vjp
def sine(x):
    return called_back(x)


sine.defvjp(lambda x: (called_back(x), x), lambda x, cotangent: (cotangent * jnp.cos(x),))


def test_a_gradient_that_cannot_be_differentiated_is_refused_with_the_reason():
    says = r"^curvature.hvp: the gradient of loss_fn must be differentiable, got .*callbacks"
    with pytest.raises(TypeError, match=says):
        curvature.hvp(sine, 1.0)


def test_what_is_wrong_with_the_loss_itself_is_said_as_it_is():
    with pytest.raises(TypeError, match="incompatible shapes"):
        curvature.hvp(lambda x: jnp.sum(x + jnp.ones(2)), jnp.ones(3))


# Blocks.


def test_a_block_is_that_of_the_dense_hessian():
    hessian = dense_hessian(PARAMS)[2:, 2:]  # b comes first

    def is_weight(path, leaf):
        return path == "w" and leaf.ndim == 2

    @jax.jit
    def find(ones):
        return (
            curvature.top_eigenpairs(
                KEY, loss, PARAMS, X, Y, num_pairs=6, num_iterations=9, where=is_weight
            ),
            curvature.sharpness(KEY, loss, PARAMS, X, Y, num_iterations=6, where=is_weight),
            curvature.hvp(loss, PARAMS, X, Y, where=is_weight)(ones),
        )

    pairs, sharpness, product = jax.device_get(find(jax.tree.map(np.ones_like, PARAMS)))

    wanted = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(np.sort(pairs.values), wanted, atol=2e-6)
    assert float(sharpness) == pytest.approx(wanted[-1], rel=1e-5)
    np.testing.assert_array_equal(pairs.vectors["b"], np.zeros((6, 2)))
    np.testing.assert_allclose(product["w"].ravel(), hessian.sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(product["b"], np.zeros(2))


def test_the_trace_of_a_block_is_that_of_its_entries():
    def bowls(params):
        return jnp.sum(params[0]["w"] ** 4) + 3 * params[1] ** 2

    @jax.jit
    def traces(params):
        return [
            curvature.hessian_trace(KEY, bowls, params, num_samples=2, where=where).value
            for where in (lambda path, _: path == "0/w", lambda path, _: path == "1")
        ]

    params = [{"w": np.array([[1.0, 2.0, -1.0]], np.float32)}, np.float32(0.5)]
    assert [float(trace) for trace in traces(params)] == [72, 6]


# Two models whose Hessians are known in closed form, at three params each: labels y are 1 or -1.


def blended_risk(w, x, y, is_logistic):
    linear = jnp.mean((x @ w - y) ** 2) / 2
    return jnp.where(is_logistic, jnp.mean(jax.nn.softplus(-y * (x @ w))), linear)


def linear_hessian(_, x):
    return x.T @ x / len(x)


def logistic_hessian(w, x):
    p = 1 / (1 + np.exp(-x @ w))
    return x.T @ ((p * (1 - p))[:, None] * x) / len(x)


@pytest.fixture(params=["linear", "logistic"])
def regression(request):
    """Params w of shape (3, 4), the data and which risk, the Hessian at each w; in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, w = rng.normal(size=(40, 4)), rng.normal(size=(3, 4))
        hessian = {"linear": linear_hessian, "logistic": logistic_hessian}[request.param]
        data = x, np.sign(x[:, 0]), request.param == "logistic"
        yield w, data, np.stack([hessian(row, x) for row in w])


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def of_regression(w, data):
    """Products with five vectors, all eigenpairs, the sharpness and the trace."""
    vectors = np.random.default_rng(1).normal(size=(5, 4))
    return (
        jax.vmap(curvature.hvp(blended_risk, w, *data))(vectors),
        curvature.top_eigenpairs(KEY, blended_risk, w, *data, num_pairs=4, num_iterations=4),
        curvature.sharpness(KEY, blended_risk, w, *data, num_iterations=4),
        curvature.hessian_trace(KEY, blended_risk, w, *data, num_samples=200),
    )


def test_the_products_of_a_regression_are_those_of_its_analytic_hessian(regression):
    w, data, hessians = regression
    vectors = np.random.default_rng(1).normal(size=(5, 4))

    products = of_regression(w, data)[0]

    wanted = np.einsum("nij,vj->nvi", hessians, vectors)
    np.testing.assert_allclose(products, wanted, rtol=1e-11, atol=1e-13)


def test_the_eigenpairs_of_a_regression_are_those_of_its_analytic_hessian(regression):
    w, data, hessians = regression

    pairs = of_regression(w, data)[1]

    values, vectors = np.linalg.eigh(hessians)
    np.testing.assert_allclose(pairs.values, values[:, ::-1], rtol=1e-11)
    cosines = np.einsum("nki,nik->nk", pairs.vectors, vectors[:, :, ::-1])
    np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-11)  # the sign is free


def test_the_sharpness_of_a_regression_is_that_of_its_analytic_hessian(regression):
    w, data, hessians = regression

    wanted = np.linalg.eigvalsh(hessians)[:, -1]
    np.testing.assert_allclose(of_regression(w, data)[2], wanted, rtol=1e-12)


# The trace.


def test_the_trace_of_a_regression_is_within_its_standard_error(regression):
    w, data, hessians = regression

    value, error = of_regression(w, data)[3]

    wanted = np.trace(hessians, axis1=1, axis2=2)
    assert (np.abs(value - wanted) < 4 * np.asarray(error)).all()
    assert (np.asarray(error) < 0.1 * wanted).all()


@pytest.mark.parametrize("num_samples", [2, 5])
def test_the_trace_of_a_diagonal_hessian_is_exact(num_samples):
    def diagonal(params):
        return jnp.sum(params["w"] ** 4) + 3 * params["b"] ** 2

    params = {"w": np.array([[1.0, 2.0, -1.0]], np.float32), "b": np.float32(0.5)}
    value, error = jax.jit(
        lambda params: curvature.hessian_trace(KEY, diagonal, params, num_samples=num_samples)
    )(params)

    assert (float(value), float(error)) == (12 * (1 + 4 + 1) + 6, 0)


@pytest.fixture(scope="module")
def traces():
    """Estimates of a network's trace, each from another key: 600 of 30 probes, 2000 of two."""

    def estimates(num_samples, keys):
        return jax.vmap(
            lambda key: curvature.hessian_trace(key, loss, PARAMS, X, Y, num_samples=num_samples)
        )(keys)

    keys = jax.random.split(KEY, 2000)
    return jax.jit(lambda keys: (estimates(30, keys[:600]), estimates(2, keys)))(keys)


def test_the_trace_of_a_network_is_that_of_its_dense_hessian(traces):
    wanted, traces = np.trace(dense_hessian(PARAMS)), traces[0]

    assert (np.abs(traces.value - wanted) < 4 * np.asarray(traces.standard_error)).mean() > 0.99
    # The mean of all is as good as 18,000 probes.
    error = float(traces.standard_error.mean()) / np.sqrt(600)
    assert abs(float(traces.value.mean()) - wanted) < 4 * error


def test_the_standard_error_is_the_spread_of_the_estimates(traces):
    traces = traces[0]
    spread = np.std(traces.value, ddof=1)

    assert spread / float(traces.standard_error.mean()) == pytest.approx(1, abs=0.1)


def test_the_standard_error_of_two_probes_is_right_on_average(traces):
    pairs = traces[1]

    # Its square is an unbiased estimate of the variance; with n for n - 1 it would be half.
    ratio = np.mean(np.square(pairs.standard_error)) / np.var(pairs.value, ddof=1)
    assert ratio == pytest.approx(1, abs=0.15)


def test_the_sharpness_of_a_network_jits_and_vmaps():
    @jax.jit
    def sharpness(scale):
        scaled = jax.tree.map(lambda leaf: scale * leaf, PARAMS)
        return curvature.sharpness(KEY, loss, scaled, X, Y, num_iterations=8)

    scales = jnp.array([0.5, 1.0, 2.0])
    batched = jax.jit(jax.vmap(sharpness))(scales)
    wanted = [
        np.linalg.eigvalsh(dense_hessian(jax.tree.map(lambda leaf, s=s: s * leaf, PARAMS)))[-1]
        for s in scales
    ]
    np.testing.assert_allclose(np.asarray(batched), wanted, rtol=1e-4)


# What batches see: the line of the note's 20 points, theta0 + theta1 x, and all its batches of 3.

LINE_X = np.arange(1.0, 21.0)
LINE_Y = np.array([3, 4, 5, 5, 2, 4, 7, 8, 11, 8, 12, 11, 13, 13, 16, 17, 18, 17, 19, 21], float)
THETA = np.array([0.7, 0.6])
BATCHES = np.array(list(itertools.combinations(range(20), 3)))


def half_mean_square(theta, x, y, rows):
    return jnp.mean((theta[0] + theta[1] * x[rows] - y[rows]) ** 2) / 2


def gradients_and_hessians(batches):
    """Of each batch, in closed form."""
    design = np.stack([np.ones_like(LINE_X), LINE_X], axis=1)
    rows = design[batches]
    gradients = np.einsum("tbi,tb->ti", rows, rows @ THETA - LINE_Y[batches]) / batches.shape[1]
    return gradients, np.einsum("tbi,tbj->tij", rows, rows) / batches.shape[1]


def noise_scale(gradients):
    trace = np.trace(np.cov(gradients.T))
    return trace / (np.square(gradients.mean(axis=0)).sum() - trace / len(gradients))


def on_batches(function, batches, scale=1.0):
    def risk(*args):
        return scale * half_mean_square(*args)

    call = jax.jit(lambda theta, per_step: function(risk, theta, LINE_X, LINE_Y, per_step=per_step))
    return call(THETA, batches)


@pytest.mark.usefixtures("x64")
def test_the_batch_sharpness_of_a_line_is_that_of_all_its_batches():
    estimate = on_batches(curvature.batch_sharpness, BATCHES)

    g, h = gradients_and_hessians(BATCHES)
    ratios = np.einsum("ti,tij,tj->t", g, h, g) / np.square(g).sum(axis=1)
    assert float(estimate.value) == pytest.approx(ratios.mean(), rel=1e-12)
    assert float(estimate.standard_error) == pytest.approx(
        ratios.std(ddof=1) / np.sqrt(len(BATCHES)), rel=1e-10
    )


@pytest.mark.usefixtures("x64")
def test_the_noise_scale_of_a_line_is_that_of_all_its_batches():
    estimate = on_batches(curvature.gradient_noise_scale, BATCHES)

    gradients = gradients_and_hessians(BATCHES)[0]
    assert float(estimate.value) == pytest.approx(noise_scale(gradients), rel=1e-12)
    # With as many batches as this the estimate from a sample is close to the enumeration.
    everything = gradients.var(axis=0).sum() / np.square(gradients.mean(axis=0)).sum()
    assert float(estimate.value) == pytest.approx(everything, rel=2e-3)
    without = [noise_scale(np.delete(gradients, t, axis=0)) for t in range(len(gradients))]
    jackknife = np.std(without) * np.sqrt(len(without) - 1)
    assert float(estimate.standard_error) == pytest.approx(jackknife, rel=1e-8)


@pytest.mark.parametrize("scale", [1e-22, 1e22])
@pytest.mark.parametrize("function", [curvature.batch_sharpness, curvature.gradient_noise_scale])
def test_gradients_of_any_size_have_their_noise_and_curvature(function, scale):
    batches = BATCHES[::100]
    power = {curvature.batch_sharpness: 1, curvature.gradient_noise_scale: 0}[function]

    plain, figure = on_batches(function, batches), on_batches(function, batches, scale)

    np.testing.assert_allclose(np.array(figure) / scale**power, np.array(plain), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_the_standard_errors_of_batches_are_the_spread_of_the_estimates():
    batches = np.random.default_rng(0).integers(20, size=(300, 40, 3))
    for function in (curvature.batch_sharpness, curvature.gradient_noise_scale):
        estimates = jax.jit(
            jax.vmap(
                lambda rows, f=function: f(half_mean_square, THETA, LINE_X, LINE_Y, per_step=rows)
            )
        )(batches)
        spread = np.std(estimates.value, ddof=1)
        assert np.mean(estimates.standard_error) / spread == pytest.approx(1, abs=0.25)


def test_a_block_of_the_gradient_has_its_own_noise():
    def risk(params, *data):
        return half_mean_square([params["bias"], params["slope"]], *data)

    estimate = jax.jit(
        lambda params: curvature.gradient_noise_scale(
            risk,
            params,
            LINE_X,
            LINE_Y,
            per_step=BATCHES[::100],
            where=lambda path, _: path == "slope",
        )
    )({"bias": 0.7, "slope": 0.6})

    gradients = gradients_and_hessians(BATCHES[::100])[0][:, 1:]
    trace = gradients.var(ddof=1)
    wanted = trace / (gradients.mean() ** 2 - trace / len(gradients))
    assert float(estimate.value) == pytest.approx(wanted, rel=1e-5)


def test_a_slice_may_be_a_key_beside_rows():
    def noisy(w, slice_):
        return w * jax.random.normal(slice_["key"]) + w**2 * slice_["weight"]

    keys = jax.random.split(KEY, 5)
    per_step = {"key": keys, "weight": np.arange(1, 6, dtype=np.float32)}

    estimate = jax.jit(lambda w: curvature.batch_sharpness(noisy, w, per_step=per_step))(1.0)

    assert float(estimate.value) == 6  # in one dimension it is the mean of the second derivatives


# Why a descent diverges.


def test_the_stability_of_a_line_is_that_of_its_hessian():
    # Raw columns: a constant and numbers up to 3000.
    x = np.linspace(500, 3000, 9)
    y = 3 * x + 1

    def risk(theta, x, y):
        return jnp.mean((theta[0] + theta[1] * x - y) ** 2)

    @jax.jit
    def find(x, y):
        return curvature.stability(KEY, risk, jnp.zeros(2), x, y, num_iterations=2)

    found = find(x, y)

    design = np.stack([np.ones(9), x], axis=1)
    low, high = np.linalg.eigvalsh(2 * design.T @ design / 9)
    assert float(found.sharpness) == pytest.approx(high, rel=1e-5)
    assert float(found.stable_rate) == pytest.approx(2 / high, rel=1e-5)
    assert float(found.condition) > 1e6  # the smallest is lost in float32: 2.9e7 in float64
    with jax.enable_x64(True):
        found = find(x, y)
    assert float(found.condition) == pytest.approx(high / low, rel=1e-6)


@pytest.mark.parametrize("values", [[-1, -2, -4], [0, 0, 0]])
def test_where_nothing_bends_upwards_no_rate_is_too_large(values):
    found = curvature.stability(KEY, diagonal(values), jnp.zeros(3), num_iterations=3)
    assert np.isposinf(found.stable_rate)


# The density of all eigenvalues, against matfree's, dense eigenvalues and closed forms.


def probe_of(key, leaves) -> list[Any]:
    """The signs that an estimator draws for a list of arrays, as its docstring says."""
    return jax.tree.leaves(optax.tree.random_like(key, leaves, jax.random.rademacher))


def wide_loss(params, x, y):
    hidden = jnp.tanh(x @ params["first"])
    return jnp.mean((hidden @ params["second"] - y) ** 2)


@pytest.fixture(scope="module")
def wide():
    """A network of 182 params, its data, its Hessian as a matrix."""
    rng = np.random.default_rng(5)
    shapes = ((5, 13), (13, 9), (31, 5), (31, 9))
    first, second, *data = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    params = {"first": first, "second": second}
    flat, unravel = ravel_pytree(params)
    matrix = jax.jit(jax.hessian(lambda v: wide_loss(unravel(v), *data)))(flat)
    return params, data, np.asarray(matrix, float)


@pytest.mark.parametrize("reorthogonalize", [True, False])
def test_a_density_of_all_nodes_is_the_spectrum_seen_by_its_probe(reorthogonalize):
    values = np.array([-5.0, 1, 3, 7])
    density = jax.jit(
        lambda start: curvature.spectral_density(
            KEY, diagonal(values), start, num_iterations=9, num_samples=2,
            reorthogonalize=reorthogonalize,
        )
    )(np.zeros(4, np.float32))  # fmt: skip

    np.testing.assert_allclose(density.nodes, np.stack([values] * 2), rtol=1e-5)
    np.testing.assert_allclose(density.weights, np.full((2, 4), 0.25), rtol=1e-4)


@pytest.fixture(scope="module")
def estimates(wide):
    """What is estimated of its Hessian; one program compiles once what they have in common."""
    params, data, _ = wide

    @jax.jit
    def find(params, preconditioner, *data):
        of_loss = KEY, wide_loss, params
        return {
            "density": curvature.spectral_density(
                *of_loss, *data, num_iterations=12, num_samples=40
            ),
            "density without a basis": curvature.spectral_density(
                *of_loss, *data, num_iterations=12, num_samples=40, reorthogonalize=False
            ),
            "sharpness without a basis": curvature.sharpness(
                *of_loss, *data, num_iterations=40, reorthogonalize=False
            ),
            "diagonal": curvature.hessian_diagonal(*of_loss, *data, num_samples=60),
            "preconditioned sharpness": curvature.preconditioned_sharpness(
                *of_loss, preconditioner, *data, num_iterations=40
            ),
        }

    return jax.device_get(find(params, preconditioner_of(params), *data))


def preconditioner_of(params):
    return jax.tree.map(lambda leaf: 0.1 + leaf**2, params)


@pytest.mark.parametrize("name", ["density", "density without a basis"])
def test_the_moments_of_a_density_are_those_of_the_dense_hessian(wide, estimates, name):
    matrix, density = wide[2], estimates[name]

    chex.assert_shape(density, (40, 12))
    assert (np.diff(density.nodes) >= 0).all()
    assert (density.weights >= 0).all()
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=1e-6)
    for power, wanted in ((1, np.trace(matrix)), (2, np.square(matrix).sum())):
        moments = (density.weights * density.nodes**power).sum(axis=1)
        error = float(moments.std(ddof=1)) / np.sqrt(40)
        assert abs(float(moments.mean()) - wanted / len(matrix)) < 3 * error


def test_a_density_equals_that_of_matfree_at_equal_probes(wide, estimates):
    params, data, _ = wide
    flat, unravel = ravel_pytree(params)
    tridiagonalize = matfree.decomp.tridiag_sym(12)

    @jax.jit
    def density(flat, key):
        gradient = jax.grad(lambda v: wide_loss(unravel(v), *data))
        start = jnp.concatenate([v.ravel() for v in probe_of(key, jax.tree.leaves(params))])
        product = lambda v: jax.jvp(gradient, (flat,), (v,))[1]  # noqa: E731
        return tridiagonalize(product, start / jnp.linalg.norm(start)).J_small

    with jax.numpy_rank_promotion("allow"):
        matrices = [density(flat, key) for key in jax.random.split(KEY, 40)[:3]]

    values, vectors = np.linalg.eigh(np.asarray(matrices))
    np.testing.assert_allclose(estimates["density"].nodes[:3], values, atol=1e-5)
    np.testing.assert_allclose(estimates["density"].weights[:3], vectors[:, 0] ** 2, atol=1e-5)


def test_a_sharpness_needs_no_basis(wide, estimates):
    largest = np.linalg.eigvalsh(wide[2])[-1]
    assert float(estimates["sharpness without a basis"]) == pytest.approx(largest, rel=1e-4)


def test_without_a_basis_an_invariant_space_adds_no_eigenvalue():
    @jax.jit
    def find(matrix):
        sharpness = curvature.sharpness(
            KEY, diagonal([-2, -2, -2]), jnp.ones(3), num_iterations=3, reorthogonalize=False
        )
        density = curvature.spectral_density(
            KEY, quadratic, jnp.zeros(6), matrix, num_iterations=6, num_samples=1,
            reorthogonalize=False,
        )  # fmt: skip
        return sharpness, density

    sharpness, density = find(symmetric([4, 4, 4, 4, -7, -7]))
    # Of rank one, and negative: a zero that is not there would be the largest.
    assert float(sharpness) == pytest.approx(-2, rel=1e-5)

    # Of rank two: what rounding leaves is not taken for a third vector.
    nodes, weights = np.ravel(density.nodes), np.ravel(density.weights)
    first = nodes @ weights / weights.sum()  # the first entry of the diagonal, repeated
    np.testing.assert_allclose(np.sort(nodes), [-7, first, first, first, first, 4], rtol=1e-5)


# The diagonal.


def test_the_diagonal_of_a_network_is_that_of_its_dense_hessian(wide, estimates):
    params, _, matrix = wide
    found = estimates["diagonal"]

    chex.assert_trees_all_equal_shapes(found.value, params)
    value, error = map(flattened, found)
    deviations = (value - np.diag(matrix)) / error
    assert np.abs(deviations).max() < 5
    assert np.square(deviations).mean() == pytest.approx(1, abs=0.4)
    # The variance of one probe is the sum of the squares beside the diagonal.
    beside = np.sqrt((np.square(matrix).sum(axis=1) - np.diag(matrix) ** 2) / 60)
    np.testing.assert_allclose(np.median(error / beside), 1, rtol=0.1)


def test_the_errors_of_a_diagonal_are_those_of_its_probes():
    matrix = symmetric([1, -5, 3, 2])
    keys = jax.random.split(KEY, 3)
    probes = jnp.stack([probe_of(key, [jnp.zeros(4)])[0] for key in keys])
    samples = np.asarray(probes * (probes @ matrix), float)

    @jax.jit
    def find(scale):
        return curvature.hessian_diagonal(
            KEY, lambda x: scale * quadratic(x, matrix), jnp.zeros(4), num_samples=3
        )

    for scale in (1.0, 1e-25, 1e25):
        found = jax.device_get(find(scale))
        np.testing.assert_allclose(found.value / scale, samples.mean(axis=0), rtol=1e-4)
        errors = samples.std(axis=0, ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(found.standard_error / scale, errors, rtol=1e-4)


def test_a_diagonal_keeps_the_dtypes_and_stays_in_its_block():

    @jax.jit
    def find():
        params = {"a": jnp.ones(3, "bfloat16"), "b": jnp.ones((2, 2))}
        return curvature.hessian_diagonal(
            KEY,
            lambda p: jnp.sum(p["a"] ** 3) + jnp.sum(p["b"] ** 3),
            params,
            num_samples=2,
            where=lambda path, _: path == "a",
        ).value

    found = find()
    assert [leaf.dtype for leaf in found.values()] == ["bfloat16", "float32"]
    np.testing.assert_array_equal(np.asarray(found["a"], float), np.full(3, 6))
    np.testing.assert_array_equal(found["b"], np.zeros((2, 2)))


# The Gauss-Newton matrix.


def predict(params, x):
    return (
        jnp.tanh(x @ params["w"] + params["b"][None])
        @ jnp.ones((2, 3))
        * jnp.arange(1.0, 4.0)[None]
    )


def cross_entropy(logits, labels):
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]


def test_a_gauss_newton_product_is_the_dense_one():
    labels = np.array([0, 2, 1, 1, 0, 2, 2])
    vector = np.cos(np.arange(8, dtype=np.float32))

    @jax.jit
    def find(flat, vector):
        def products(where):
            product = curvature.gnvp(predict, cross_entropy, PARAMS, X, labels, where=where)
            return product(params_of(vector))

        def predicted(v):
            return predict(params_of(v), X)

        witnesses = jax.jacobian(predicted)(flat), jax.nn.softmax(predicted(flat))
        return products(None), products(lambda path, _: path == "w"), *witnesses

    found, of_weights, jacobian, p = jax.device_get(find(flattened(PARAMS), vector))

    bend = np.stack([np.diag(row) - np.outer(row, row) for row in p]) / 7
    matrix = np.einsum("noi,nop,npj->ij", jacobian, bend, jacobian)
    np.testing.assert_allclose(flattened(found), matrix @ vector, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        of_weights["w"].ravel(), matrix[2:, 2:] @ vector[2:], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(of_weights["b"], np.zeros(2))


def test_the_gauss_newton_product_of_a_linear_model_is_that_of_its_hessian():
    def linear(params, x):
        return x @ params["w"] + params["b"][None]

    def squared(predictions, targets):
        return ((predictions - targets) ** 2).sum(axis=1)

    def risk(params, x, y):
        return jnp.mean(squared(linear(params, x), y))

    @jax.jit
    def products(v):
        ours = curvature.gnvp(linear, squared, PARAMS, X, Y)(v)
        return ours, curvature.hvp(risk, PARAMS, X, Y)(v)

    vector = jax.tree.map(lambda leaf: np.sin(1 + np.asarray(leaf)), PARAMS)
    chex.assert_trees_all_close(*products(vector), rtol=1e-5)


def test_a_model_without_forward_mode_has_a_gauss_newton_product():
    def predict(rate, times):
        return odeint(lambda y, _, rate: -rate * y, jnp.ones(()), times, rate)

    times = jnp.array([0.0, 0.5, 1.0])
    product = jax.jit(
        lambda rate: curvature.gnvp(predict, lambda p, t: (p - t) ** 2, rate, times, 0 * times)(2.0)
    )(0.3)

    slopes = -times * np.exp(-0.3 * times)
    assert float(product) == pytest.approx(2 * float(2 * (slopes**2).mean()), rel=1e-4)


# Rates.


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_critical_sharpness_of_a_quadratic_is_its_curvature_along_the_direction(scale):
    matrix = symmetric([9, 5, 1, 0.5])
    point, direction = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array([0.3, 0.1, -0.2, 0.7])
    direction = direction * jnp.sign(direction @ matrix @ point)

    found = jax.jit(
        lambda s: curvature.critical_sharpness(
            lambda x: s * quadratic(x, matrix), point, direction / s
        )
    )(scale)

    wanted = direction @ matrix @ direction / (direction @ matrix @ point) / scale
    assert float(found) == pytest.approx(float(wanted), rel=2e-5)


@pytest.mark.usefixtures("x64")
def test_the_critical_sharpness_of_a_network_is_where_its_loss_crosses_the_start():
    params, *data = jax.tree.map(lambda leaf: np.asarray(leaf, float), (PARAMS, X, Y))
    gradient = jax.jit(jax.grad(loss))(params, *data)

    found = jax.jit(lambda p: curvature.critical_sharpness(loss, p, gradient, *data))(params)

    @jax.jit
    def rise(step):
        moved = jax.tree.map(lambda p, g: p - step * g, params, gradient)
        return loss(moved, *data) - loss(params, *data)

    step = 2 / float(found)
    assert rise(0.999 * step) < 0 < rise(1.001 * step)
    assert all(rise(fraction * step) < 0 for fraction in (0.1, 0.3, 0.5, 0.7, 0.9))


@pytest.mark.parametrize(
    ("loss_fn", "direction", "wanted"),
    [
        (lambda x: x**2, -1.0, np.inf),
        (lambda x: -(x**2), -1.0, 0),
        (lambda x: 3 * x, 1.0, 0),
        (lambda x: x * jnp.nan, 1.0, np.nan),
        (lambda x: jnp.where(x < 0.5, jnp.inf, x), 1.0, 4),
    ],
    ids=["uphill", "concave", "linear", "nan", "cliff"],
)
def test_the_critical_sharpness_says_what_it_found_where_there_is_no_parabola(
    loss_fn, direction, wanted
):
    found = jax.jit(lambda x: curvature.critical_sharpness(loss_fn, x, direction))(1.0)
    assert float(found) == pytest.approx(wanted, rel=1e-5, nan_ok=True)


def test_the_critical_sharpness_is_right_where_a_doubled_step_meets_it_and_at_any_scale():
    point = jnp.array([0.1, 0.2, 0.3])
    factors, scales = jnp.array([1.0, 2.0, 0.37, 3.0]), jnp.array([1e-25, 1.0, 1e25])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def found(factor, scale):
        return curvature.critical_sharpness(
            lambda x: scale * jnp.sum(x**2), point, factor * scale * point
        )

    # After a step the loss is (1 - factor scale step)^2 of what it was.
    wanted = jnp.outer(factors, scales)
    np.testing.assert_allclose(found(factors, scales), wanted, rtol=1e-5)


def test_the_critical_sharpness_takes_few_losses():
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(jnp.cosh(x) * jnp.arange(1.0, 4.0))

    @jax.jit
    def find(start):
        return curvature.critical_sharpness(counted, start, jax.grad(counted)(start))

    jax.block_until_ready(find(np.array([1.0, -0.5, 2.0], np.float32)))
    jax.effects_barrier()
    assert len(calls) < 30


def test_the_preconditioned_sharpness_is_that_of_the_dense_matrix(wide, estimates):
    params, _, matrix = wide
    roots = np.sqrt(flattened(preconditioner_of(params)).astype(float))

    wanted = np.linalg.eigvalsh(matrix / np.outer(roots, roots))[-1]
    assert float(estimates["preconditioned sharpness"]) == pytest.approx(wanted, rel=1e-4)


ADAMS = {
    "adam": optax.adam(0.1, b2=0.99, eps=0.02),
    "chain": optax.chain(optax.clip(9.0), optax.adamw(0.1, b2=0.99, eps=0.02)),
    "injected": optax.inject_hyperparams(optax.adam)(0.1, b2=0.99, eps=0.02),
    "masked": optax.masked(optax.nadam(0.1, b2=0.99, eps=0.02), {"w": True, "b2": False}),
}


@pytest.mark.parametrize("name", ADAMS)
def test_the_preconditioner_of_adam_is_the_root_of_the_mean_square(name):
    params = {"w": np.array([1, 2], np.float32), "b2": np.float32(3)}
    optimizer = ADAMS[name]
    state = jax.jit(optimizer.init)(params)
    update = jax.jit(optimizer.update)
    squares = np.zeros(2)
    for t in range(3):
        gradient = jax.tree.map(lambda leaf, t=t: np.cos(leaf + t), params)
        _, state = update(gradient, state, params)
        squares = 0.99 * squares + 0.01 * np.square(gradient["w"])

    options = {} if name == "injected" else {"b2": 0.99, "eps": 0.02}
    found = jax.jit(lambda state: curvature.adam_preconditioner(state, **options))(state)

    np.testing.assert_allclose(found["w"], np.sqrt(squares / (1 - 0.99**3)) + 0.02, rtol=1e-5)
    assert isinstance(found["b2"], optax.MaskedNode) == (name == "masked")


def test_what_adam_does_not_move_is_left_out_of_its_sharpness():
    params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}

    @jax.jit
    def find(params):
        return curvature.preconditioned_sharpness(
            KEY,
            lambda p: 50 * p["b"] ** 2 + jnp.sum(p["w"] ** 2),
            params,
            {"w": jnp.array([1.0, 4.0]), "b": optax.MaskedNode()},
            num_iterations=3,
        )

    found = find(params)
    assert float(found) == pytest.approx(2, rel=1e-5)


def test_a_fresh_state_of_adam_divides_by_eps():
    found = curvature.adam_preconditioner(optax.adam(0.1).init(jnp.ones(3)))
    np.testing.assert_allclose(found, 1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: curvature.hvp(NOT_A_FUNCTION, PARAMS),
            "curvature.hvp: loss_fn must be callable, got 3",
        ),
        (lambda: curvature.hvp(loss, {}), "params must hold at least one array"),
        (
            lambda: curvature.hvp(loss, PARAMS, X, Y)(PARAMS["w"]),
            "vector must have the structure of params",
        ),
        (
            lambda: curvature.hvp(lambda p: p, jnp.ones(3)),
            r"loss_fn must return a scalar, got shape \(3,\)",
        ),
        (
            lambda: curvature.top_eigenpairs(
                KEY, loss, PARAMS, X, Y, num_pairs=3, num_iterations=2
            ),
            "curvature.top_eigenpairs: num_pairs must be at most 2",
        ),
        (
            lambda: curvature.top_eigenpairs(
                KEY, loss, PARAMS, X, Y, num_pairs=9, num_iterations=20
            ),
            "num_pairs must be at most 8",
        ),
        (
            lambda: curvature.sharpness(NOT_A_KEY, loss, PARAMS, X, Y, num_iterations=2),
            r"curvature.sharpness: key must be one PRNG key, got 0. Write jax.random.key\(seed\)",
        ),
        (
            lambda: curvature.sharpness(KEY, loss, PARAMS, X, Y, num_iterations=0),
            "num_iterations must be at least 1, got 0",
        ),
        (
            lambda: curvature.hessian_trace(KEY, loss, PARAMS, X, Y, num_samples=1),
            "curvature.hessian_trace: num_samples must be at least 2, got 1",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
