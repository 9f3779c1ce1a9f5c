"""What planes.restrict promises: the loss itself, with what all points share computed once."""

import functools
import re
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import losses, neurons, planes, surfaces

# Sizes are pairwise different, so that a transposed axis cannot hide.
SIZES = {
    "w": (6, 5),
    "b": (5,),
    "v": (5, 4),
    "c": (4,),
    "u": (5, 5),
    "s": (),
    "t": (7, 6),
    "k": (3, 2, 2, 3),
}


def drawn(seed, dtype: Any = float, scale=1.0) -> Any:
    rng, dtype = np.random.default_rng(seed), jnp.result_type(dtype)
    draw = {n: np.asarray(scale * rng.normal(size=shape)) for n, shape in SIZES.items()}
    return {name: jax.device_put(leaf.astype(dtype)) for name, leaf in draw.items()}


def drawn_plane(num_directions=2, moved=tuple(SIZES), dtype: Any = float):
    def direction(seed):
        step = drawn(seed, dtype, 0.5)
        return {k: leaf if k in moved else 0 * np.asarray(leaf) for k, leaf in step.items()}

    return planes.Plane(
        origin=drawn(0, dtype), directions=tuple(direction(i + 1) for i in range(num_directions))
    )


def drawn_data(dtype: Any = float):
    rng, dtype, whole = np.random.default_rng(9), jnp.result_type(dtype), jnp.result_type(int)
    draw = {
        "x": rng.normal(size=(9, 6)).astype(dtype),
        "y": rng.normal(size=(9, 5)).astype(dtype),
        "labels": rng.integers(0, 4, size=9).astype(whole),
        "tokens": rng.integers(0, 7, size=(3, 8)).astype(whole),
        "images": rng.normal(size=(4, 8, 7, 2)).astype(dtype),
        "weights": rng.uniform(size=(9, 5)).astype(dtype),
        "mask": rng.integers(0, 2, size=(9, 5)).astype(bool),
        "big": rng.normal(size=(60, 6)).astype(dtype),
    }
    return {name: jax.device_put(leaf) for name, leaf in draw.items()}


# The programs. Each has params p and data d.

PROGRAMS = {}


def program(fn):
    PROGRAMS[fn.__name__] = fn
    return fn


def hidden(p, d):
    return d["x"] @ p["w"] + p["b"][None]


def logits(p, d):
    return jnp.tanh(hidden(p, d)) @ p["v"] + p["c"][None]


def residual(p, d):
    return hidden(p, d) - d["y"]


@program
def dense(p, d):
    loss = losses.softmax_cross_entropy_with_integer_labels(logits(p, d), d["labels"])
    return loss.mean()


@program
def loss_and_accuracy(p, d):
    z = logits(p, d)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(z, d["labels"]).mean()
    return {"loss": loss, "accuracy": jnp.mean(z.argmax(axis=-1) == d["labels"])}


@program
def linear_logits_accuracy(p, d):
    return jnp.sum(hidden(p, d).argmax(axis=-1)), jnp.max(hidden(p, d))


@program
def network_of_neurons(p, d):
    network = (neurons.Neuron(p["w"], p["b"]), neurons.Neuron(p["v"], p["c"]))
    z = neurons.apply_network(network, d["x"], activation=jax.nn.relu)
    return losses.multiclass_margin(z, d["labels"]).mean()


@program
def relu_of_affine(p, d):
    return jnp.sum(jax.nn.relu(hidden(p, d)))


@program
def gelu_and_silu(p, d):
    z = hidden(p, d)
    return jnp.mean(jax.nn.gelu(z) * jax.nn.silu(z))


@program
def convolution(p, d):
    z = jax.lax.conv_general_dilated(
        d["images"], p["k"], (1, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.mean(jnp.tanh(z))


@program
def max_pool(p, d):
    z = jax.lax.conv_general_dilated(
        d["images"], p["k"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    pooled = jax.lax.reduce_window(z, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jnp.mean(pooled)


@program
def average_pool(p, d):
    z = d["images"] * p["s"]
    pooled = jax.lax.reduce_window(z, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")
    return jnp.mean(jnp.exp(pooled))


@program
def attention(p, d):
    x = d["x"] @ p["w"]
    q, k = x @ p["u"], x @ p["u"].T
    causal = jnp.tril(jnp.ones((9, 9), bool))
    scores = jnp.where(causal, q @ k.T / jnp.sqrt(5.0).astype(x.dtype), -jnp.inf)
    return jnp.mean(jnp.square(jax.nn.softmax(scores, axis=-1) @ x))


@program
def masked_affine_logits(p, d):
    z = jnp.where(d["mask"], hidden(p, d), -jnp.inf)
    z = z.at[:, 0].set(0.5)
    return jax.nn.logsumexp(z, axis=-1).mean()


@program
def additive_infinite_mask(p, d):
    mask = jnp.where(d["mask"], 0.0, -jnp.inf).at[:, 1].set(0.0).astype(d["x"].dtype)
    return jnp.mean(jax.nn.softmax(hidden(p, d) + mask, axis=-1)[:, 1])


@program
def layer_norm(p, d):
    z = hidden(p, d)
    mean, variance = z.mean(axis=-1, keepdims=True), z.var(axis=-1, keepdims=True)
    return jnp.mean(jnp.abs((z - mean) / jnp.sqrt(variance + 1e-3) * p["b"][None] @ p["v"]))


@program
def frozen_batch_norm(p, d):
    mean, variance = d["y"].mean(axis=0, keepdims=True), d["y"].var(axis=0, keepdims=True)
    z = (d["x"] @ p["w"] - mean) / jnp.sqrt(variance + 1e-3) * p["b"][None]
    return jnp.mean(jax.nn.sigmoid(z))


@program
def moving_batch_norm(p, d):
    z = d["x"] @ p["w"]
    z = jax.nn.standardize(z, axis=0) + p["b"][None]
    return jnp.mean(jax.nn.softplus(z))


@program
def embedding(p, d):
    z = p["t"][d["tokens"]].mean(axis=1) @ p["w"]
    return jnp.mean(jnp.tanh(z))


@program
def one_hot_embedding(p, d):
    return jnp.mean(jnp.square(jax.nn.one_hot(d["tokens"], 7, dtype=p["t"].dtype) @ p["t"]))


@program
def gather_with_moving_indices(p, d):
    indices = jnp.argsort(hidden(p, d), axis=0)
    return jnp.mean(jnp.take_along_axis(d["y"], indices, axis=0) * d["weights"])


@program
def dynamic_slice_of_params(p, d):
    return jnp.sum(jnp.exp(jax.lax.dynamic_slice(p["w"], (d["labels"][0], 1), (2, 3))))


@program
def dynamic_slice_at_moving_place(p, d):
    place = jnp.clip((3 * p["s"]).astype(int), 0, 4)
    return jax.lax.dynamic_slice(d["x"], (place, 0), (3, 6)).sum() + p["s"]


@program
def dynamic_update(p, d):
    z = jax.lax.dynamic_update_slice(d["y"], p["v"].T, (2, 0))
    return jnp.sum(jnp.sin(z))


@program
def scatter(p, d):
    z = jnp.zeros((12, 5), p["w"].dtype).at[jnp.arange(6) * 2].set(p["w"])
    return jnp.sum(jnp.cos(z.at[3].add(p["b"])))


@program
def rnn_scan(p, d):
    def cell(state, x):
        return jnp.tanh(x @ p["w"] + state @ p["u"] + p["b"]), None

    return jnp.sum(jax.lax.scan(cell, jnp.zeros(5, d["x"].dtype), d["x"])[0])


@program
def scan_over_affine_inputs(p, d):
    def cell(state, z):
        return jnp.tanh(z + state), state.sum()

    return jax.lax.scan(cell, jnp.zeros(5, d["x"].dtype), hidden(p, d))[1].mean()


@program
def while_loop(p, d):
    z = jax.lax.while_loop(lambda z: jnp.abs(z).max() > 1, lambda z: 0.7 * z, hidden(p, d))
    return z.sum()


@program
def fori_loop(p, d):
    return jax.lax.fori_loop(0, 3, lambda i, z: jnp.sin(z) @ p["u"], hidden(p, d)).mean()


@program
def cond_on_params(p, d):
    z = hidden(p, d)
    return jax.lax.cond(z.sum() > 0, lambda z: z.mean(), lambda z: (z**3).mean(), z)


@program
def cond_on_data(p, d):
    z = hidden(p, d)
    return jax.lax.cond(d["x"].sum() > 0, lambda z: z.mean(), lambda z: jnp.exp(z).mean(), z)


@program
def rematerialized(p, d):
    layer = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))
    return jnp.mean(layer(layer(d["x"], p["w"]), p["v"]))


@program
def nested_jit(p, d):
    inner = jax.jit(lambda x, w: x @ w)
    outer = jax.jit(lambda x: inner(inner(x, p["w"]), p["u"]) + inner(x, p["w"]))
    return jnp.mean(jnp.sin(outer(d["x"])))


@program
def closed_over_jit(p, d):
    layer = jax.jit(lambda x: x @ p["w"] * d["weights"])
    return jnp.sin(layer(d["x"])).sum() + jnp.cos(layer(2 * d["x"])).sum()


@program
def scaled_gradient(p, d):
    """The identity, with a derivative of its own that is not the true one."""

    @jax.custom_jvp
    def identity(z):
        return z

    identity.defjvp(lambda primals, tangents: (primals[0], 3 * tangents[0]))
    return jnp.sum(identity(hidden(p, d)) * d["y"])


@program
def reversed_gradient(p, d):
    @jax.custom_vjp
    def reverse(z):
        return 2 * z

    reverse.defvjp(lambda z: (reverse(z), None), lambda _, g: (-g,))
    return jnp.sum(jnp.square(reverse(hidden(p, d)) - d["y"]))


@program
def straight_through_by_custom_jvp(p, d):
    @jax.custom_jvp
    def rounded(z):
        return jnp.round(z)

    rounded.defjvp(lambda primals, tangents: (rounded(primals[0]), tangents[0]))
    return jnp.mean(rounded(2 * hidden(p, d)) * d["y"])


@program
def straight_through_by_stop_gradient(p, d):
    z = 2 * hidden(p, d)
    return jnp.mean((z + jax.lax.stop_gradient(jnp.round(z) - z)) * d["y"])


@program
def stop_gradient(p, d):
    z = hidden(p, d)
    return jnp.mean(z * d["y"]) + jnp.sum(jax.lax.stop_gradient(z))


@program
def product_with_its_own_stop_gradient(p, d):
    r = residual(p, d)
    return jnp.sum(r * jax.lax.stop_gradient(r))


@program
def floor_ceil_sign(p, d):
    z = hidden(p, d)
    return jnp.sum(jnp.floor(3 * z) * jnp.ceil(z) + jnp.sign(z))


@program
def comparisons(p, d):
    z = hidden(p, d)
    return jnp.sum(jnp.where(z > 0.1, z, -0.5 * z)), jnp.sum(z > d["y"]), (z < 0).mean()


@program
def integer_cast(p, d):
    return (10 * hidden(p, d)).astype(int).sum(), (10 * p["b"]).astype(jnp.int8).sum()


@program
def bf16_section(p, d):
    z = hidden(p, d).astype(jnp.bfloat16)
    return jnp.sum((z * d["y"].astype(jnp.bfloat16)).astype(d["x"].dtype))


@program
def half_product(p, d):
    z = d["x"].astype(jnp.float16) @ p["w"].astype(jnp.float16)
    return jnp.mean(jnp.square(z.astype(p["w"].dtype)))


@program
def sort_and_quantile(p, d):
    z = jnp.sort(hidden(p, d), axis=0)
    return jnp.sum(z * d["weights"]), jnp.median(z)


@program
def dropout_with_a_fixed_key(p, d):
    keep = jax.random.bernoulli(jax.random.key(3), 0.6, (9, 5))
    z = jnp.where(keep, jnp.tanh(hidden(p, d)) / jnp.asarray(0.6, d["x"].dtype), 0)
    return jnp.mean(z @ p["v"])


@program
def dropout_of_inputs(p, d):
    keep = jax.random.bernoulli(jax.random.key(4), 0.6, (9, 6))
    return jnp.mean(jnp.square(jnp.where(keep, d["x"], 0) @ p["w"] - d["y"]))


@program
def cumulative(p, d):
    z = jnp.cumsum(hidden(p, d), axis=0)
    products, largest = jnp.cumprod(p["b"][:2]), jax.lax.cummax(z[:2])  # longer ones take longer
    return jnp.mean(jnp.tanh(z)), products.sum(), jnp.max(largest)


@program
def fourier(p, d):
    z = jnp.fft.rfft(hidden(p, d), axis=0)
    return jnp.sum(jnp.abs(z)), jnp.sum(z.real)


@program
def complex_intermediates(p, d):
    z = jax.lax.complex(hidden(p, d), d["y"])
    return jnp.real(jnp.vdot(z, z)), jnp.sum(jnp.imag(z * z))


@program
def layout(p, d):
    z = jnp.pad(hidden(p, d)[::-1], ((1, 0), (0, 3)), constant_values=2.0)
    z = jnp.concatenate([z.T, jnp.flip(z.T, axis=1)], axis=1).reshape(4, -1)
    first, second = jnp.split(z, 2, axis=1)
    return jnp.sum(jnp.sin(first) * second)


@program
def gates(p, d):
    i, f = jax.lax.split(hidden(p, d), (2, 3), axis=1)
    return jnp.sum(jax.nn.sigmoid(i)) + jnp.sum(f**3)


@program
def einsum(p, d):
    z = jnp.einsum("ni,ij,nj->nj", d["x"], p["w"], d["y"])
    return jnp.einsum("nj,nj,nk->", z, d["weights"], jnp.tanh(z))


@program
def where_guards_a_division(p, d):
    count = jnp.where(d["mask"], 2.0, 0.0).astype(d["x"].dtype)
    return jnp.sum(jnp.sin(jnp.where(d["mask"], hidden(p, d) / count, 0)))


@program
def solve(p, d):
    a = d["x"].T @ d["x"] + jnp.eye(6, dtype=d["x"].dtype)
    return jnp.mean(jnp.tanh(jnp.linalg.solve(a, p["w"])))


@program
def zeros_of_several_kinds(p, d):
    z = jnp.zeros((9, 5)).at[:, 1].set(-0.0), jnp.full((9, 5), -0.0), jnp.zeros((9, 5), int)
    return (
        jnp.sum(hidden(p, d) * (z[2] + 3)),
        jnp.sum(jnp.copysign(p["s"], z[0] + z[1])),
        z[2].sum(),
    )


@program
def wider_accumulation(p, d):
    r = residual(p, d).ravel()
    wide = jnp.dot(r, r, preferred_element_type=jnp.result_type(float))
    return jnp.sqrt(wide), jnp.dot(r, d["y"].ravel(), precision="highest")


@program
def params_alone(p, d):
    return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(p))


@program
def no_params_at_all(p, d):
    return d["x"].sum(), 3.0


@program
def affine_output(p, d):
    return p["s"], hidden(p, d).sum(), 2 * p["s"] + 1


# Sums of squares: affine residuals, squared and summed.
SQUARED = {}


def squared(fn):
    SQUARED[fn.__name__] = fn
    return program(fn)


@squared
def least_squares(p, d):
    return jnp.mean(jnp.square(residual(p, d)))


def mapped_over_examples(p, d):
    def loss(x, y):
        r = x @ p["w"] + p["b"] - y
        return jnp.vdot(r, r) + jnp.sum(y * r**2)

    return jax.vmap(loss)(d["x"], d["y"]).mean()


def empirical_risk(p, d):
    loss_fn = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
    return loss_fn(neurons.Neuron(p["w"], p["b"]), d["x"], d["y"])


SPELLINGS = {
    "a power of two": lambda r, p, d: (r**2).sum(axis=1).mean(),
    "a power of two as a float": lambda r, p, d: jnp.sum(r**2.0),
    "a product with itself": lambda r, p, d: (r * r).sum() / 7,
    "a product with what is computed again": lambda r, p, d: jnp.sum(r * residual(p, d)),
    "a vdot with itself": lambda r, p, d: jnp.vdot(r, r),
    "a vdot with what is computed again": lambda r, p, d: jnp.vdot(r, residual(p, d)),
    "a matrix product of a vector": lambda r, p, d: r.ravel() @ r.ravel(),
    "an einsum with itself": lambda r, p, d: jnp.einsum("ij,ij->", r, r),
    "optax": lambda r, p, d: optax.losses.squared_error(hidden(p, d), d["y"]).mean(),
    "an empirical risk": lambda r, p, d: empirical_risk(p, d),
    "one example, mapped over all": lambda r, p, d: mapped_over_examples(p, d),
    "an average": lambda r, p, d: jnp.average(r**2, weights=d["weights"]),
    "a matrix product with weights": lambda r, p, d: d["weights"].ravel() @ (r**2).ravel(),
    "a mean with axes kept": lambda r, p, d: jnp.mean(r**2, axis=0, keepdims=True).sum(axis=1)[0],
    "two squares": lambda r, p, d: jnp.sum(r**2 + (0.5 * hidden(p, d)) ** 2),
}


def every_spelling(p, d):
    """Squares by all spellings: were one of them none, the sum would not be one of squares."""
    r = residual(p, d)
    terms = [(0.7 + 0.1 * i) * spell(r, p, d) for i, spell in enumerate(SPELLINGS.values())]
    return sum(terms)


squared(every_spelling)


@squared
def root_mean_square(p, d):
    return jnp.sqrt(jnp.mean(jnp.square(residual(p, d))))


@squared
def weighted_least_squares(p, d):
    return jnp.sum(d["weights"] * residual(p, d) ** 2) / d["weights"].sum()


@squared
def weights_of_both_signs(p, d):
    return jnp.sum(d["y"] * residual(p, d) ** 2)


@squared
def divided_by_both_signs(p, d):
    return jnp.sum(residual(p, d) ** 2 / d["y"]) - 3 * jnp.sum(p["b"] ** 2) / -2.0


@squared
def negative_weight(p, d):
    return -2 * jnp.mean(residual(p, d) ** 2 * -0.5 / d["weights"].max())


@squared
def ridge(p, d):
    penalty = sum(jnp.sum(jnp.square(p[name])) for name in ("w", "c", "s"))
    return jnp.mean(jnp.square(residual(p, d))) + 0.1 * penalty


@squared
def squares_and_affine(p, d):
    return jnp.mean(residual(p, d) ** 2) + hidden(p, d).sum() - 4.0


@squared
def masked_mean_square(p, d):
    errors = jnp.where(d["mask"], residual(p, d), 0) ** 2
    return errors.sum() / d["mask"].sum()


@squared
def variance(p, d):
    return jnp.var(hidden(p, d))


@squared
def missing_targets_weigh_nothing(p, d):
    return jnp.sum(jnp.zeros((9, 5), d["x"].dtype) * residual(p, d) ** 2) + p["s"] ** 2


# What only looks like one.


@program
def cubed_residual(p, d):
    return jnp.sum(jnp.abs(residual(p, d)) ** 3), jnp.sum(residual(p, d) ** 3)


@program
def product_of_two_affines(p, d):
    return jnp.sum(residual(p, d) * hidden(p, d)), residual(p, d)[:, 0] @ hidden(p, d)[:, 1]


@program
def square_of_what_is_not_affine(p, d):
    return jnp.mean(jnp.square(logits(p, d)))


@program
def partial_sums_then_a_nonlinearity(p, d):
    return jnp.sum(jnp.sqrt(jnp.sum(residual(p, d) ** 2, axis=1) + 1))


@program
def partial_sums_of_powers(p, d):
    return jnp.sum(jnp.exp(-jnp.sum(residual(p, d) ** 2.0, axis=0))), jnp.max(p["w"] ** 2.0)


@program
def moving_weights(p, d):
    return jnp.sum(p["s"] * residual(p, d) ** 2)


@program
def squares_of_squares(p, d):
    return jnp.sum(jnp.square(jnp.square(residual(p, d)).sum(axis=0)))


@program
def matrix_of_products(p, d):
    r = residual(p, d)
    return jnp.sum(jnp.tanh(r.T @ r))


@program
def matrix_with_itself(p, d):
    return jnp.tanh(p["u"] @ p["u"]).sum() + jnp.vdot(p["u"], p["u"].T)


@program
def huber(p, d):
    return jnp.mean(optax.losses.huber_loss(hidden(p, d), d["y"]))


@program
def squared_hinge(p, d):
    return jnp.mean(losses.squared_hinge(hidden(p, d)))


def restricted_plainly(loss_fn, plane, *data):
    """What restrict must equal."""
    return lambda *coordinates: loss_fn(planes.point(plane, *coordinates), *data)


def together(names):
    """Several programs as one, so that what is compiled is compiled at once."""
    return lambda p, d: {name: PROGRAMS[name](p, d) for name in names}


# Where a tangent is not finite the whole is evaluated plainly: these have a group of their own.
PLAIN = ["additive_infinite_mask", "where_guards_a_division"]
HOISTED = [name for name in PROGRAMS if name not in PLAIN]
# What is alike is compiled together, as it has kernels in common.
GROUPS = [list(SQUARED), [name for name in HOISTED if name not in SQUARED], PLAIN]
REVERSE_ONLY = "reversed_gradient"


@pytest.mark.parametrize("names", GROUPS, ids=["squares", "others", "plain"])
def test_a_restricted_loss_and_its_gradient_are_those_of_the_loss_in_float64(names):
    with jax.enable_x64(True):
        loss_fn = together([name for name in names if name != REVERSE_ONLY])
        plane, data = drawn_plane(dtype=jnp.float64), drawn_data(jnp.float64)
        phi: Any = planes.restrict(loss_fn, plane, data)
        assert phi.args[0].func.way == ("leaves" if names != PLAIN else "arrays")

        @jax.jit
        def both(*args):
            fns = args[0], restricted_plainly(loss_fn, *args[1:])
            return [jax.jvp(fn, (0.6, -1.1), (1.0, 0.7)) for fn in fns]

        (values, slopes), (plain, plain_slopes) = both(phi, plane, data)

        chex.assert_trees_all_equal_shapes_and_dtypes(values, plain)
        chex.assert_trees_all_close(values, plain, rtol=1e-12, atol=1e-12)
        pairs = zip(jax.tree.leaves(slopes), jax.tree.leaves(plain_slopes), strict=True)
        for found, right in pairs:
            # Plainly, the gradient of a guarded division is 0 * inf.
            if right.dtype == jnp.float64 and not np.isnan(right):
                np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-10)


def test_a_reverse_derivative_of_its_own_is_kept():
    loss_fn, plane, data = PROGRAMS[REVERSE_ONLY], drawn_plane(), drawn_data()

    gradient = jax.jit(jax.grad(planes.restrict(loss_fn, plane, data), (0, 1)))(0.6, -1.1)

    plain = jax.jit(jax.grad(restricted_plainly(loss_fn, plane, data), (0, 1)))(0.6, -1.1)
    chex.assert_trees_all_close(gradient, plain, rtol=1e-4)


def test_a_restricted_loss_is_the_loss_in_float32_and_compiles_no_array_in():
    loss_fn = together(HOISTED[::9])
    plane, data = drawn_plane(), drawn_data()
    phi: Any = planes.restrict(loss_fn, plane, data)
    assert phi.args[0].func.way == "leaves"

    @jax.jit
    def both(*args):
        fns = args[0], restricted_plainly(loss_fn, *args[1:])
        return [jax.vmap(fn)(*np.array([[0, 0.6], [0, -1.1]], np.float32)) for fn in fns]

    values, plain = both(phi, plane, data)

    chex.assert_trees_all_equal_shapes_and_dtypes(values, plain)
    chex.assert_trees_all_close(values, plain, rtol=1e-5, atol=1e-5)
    assert not jax.make_jaxpr(lambda phi: phi(0.1, 0.2))(phi).consts, "an array is compiled in"


MOVED = {
    "three directions": (3, tuple(SIZES)),
    "the last layer": (1, ("v", "c")),
    "nothing": (2, ()),
}
SAMPLE = ["dense", "rnn_scan", "ridge", "weighted_least_squares"]


@pytest.mark.parametrize("moved", MOVED)
def test_any_number_of_directions_may_move_any_of_the_params(moved):
    plane, data, loss_fn = drawn_plane(*MOVED[moved]), drawn_data(), together(SAMPLE)
    point = [0.3, -1.2, 0.8][: len(plane.directions)]

    @jax.jit
    def both(phi, plane, data):
        return phi(*point), restricted_plainly(loss_fn, plane, data)(*point)

    values, plain = both(planes.restrict(loss_fn, plane, data), plane, data)
    chex.assert_trees_all_close(values, plain, rtol=1e-5, atol=1e-5)


# Values that are not finite.

NOT_FINITE = {
    "an infinite factor": lambda p, d: jnp.sum(jnp.exp(-hidden(p, d) * jnp.inf)),
    "an infinite factor, guarded": lambda p, d: jnp.sum(
        jnp.where(hidden(p, d) > 0, 1.0, jnp.tanh(hidden(p, d) * jnp.where(d["mask"], jnp.inf, 1)))
    ),
    "a division by zero": lambda p, d: jnp.sum(jnp.tanh(hidden(p, d) / (0 * d["y"]))),
    "a division by a literal zero": lambda p, d: jnp.mean(jnp.tanh(residual(p, d) / 0.0)),
    "squares divided by zero": lambda p, d: jnp.sum(residual(p, d) ** 2 / 0.0),
    "infinite inputs": lambda p, d: jnp.sum(
        jnp.tanh(d["x"].at[2, 3].set(jnp.inf) @ p["w"] + p["b"][None])
    ),
    "infinite targets": lambda p, d: jnp.mean((hidden(p, d) - d["y"].at[0, 0].set(jnp.inf)) ** 2),
    "missing inputs": lambda p, d: jnp.nanmean(
        d["x"].at[1, 1].set(jnp.nan) @ p["w"] + p["b"][None]
    ),
    "missing targets": lambda p, d: jnp.mean((hidden(p, d) - d["y"].at[0, 0].set(jnp.nan)) ** 2),
    "missing targets, left out": lambda p, d: jnp.nanmean(
        (hidden(p, d) - d["y"].at[0, 0].set(jnp.nan)) ** 2
    ),
    "an infinite weight": lambda p, d: jnp.sum(
        d["weights"].at[0, 0].set(jnp.inf) * residual(p, d) ** 2
    ),
    "a weight that is no number": lambda p, d: jnp.sum(jnp.nan * residual(p, d) ** 2),
    "an infinite literal weight": lambda p, d: jnp.sum(-jnp.inf * residual(p, d) ** 2),
    "an infinite step": lambda p, d: jnp.tanh(1e30 * (1e30 * p["s"])) + jnp.sum(p["b"]),
    "minus infinity added": lambda p, d: jax.nn.logsumexp(
        hidden(p, d) + jnp.where(d["mask"], 0.0, -jnp.inf)
    ),
}


def test_infinities_and_nans_are_those_of_the_loss():
    plane, data = drawn_plane(), drawn_data()

    @jax.jit
    def both(plane, data):
        return [
            {name: way(fn, plane, data)(0.6, -1.1) for name, fn in NOT_FINITE.items()}
            for way in (planes.restrict, restricted_plainly)
        ]

    values, plain = both(plane, data)
    chex.assert_trees_all_close(values, plain, rtol=1e-5)


# What is computed once, and what is left.


def operations(loss_fn, plane, *data):
    """How often each operation is left to be done at each point."""
    text = planes.explain(loss_fn, plane, *data)
    return {name: int(count) for count, name in re.findall(r"(\d+) x (\w+)(?:,|$)", text, re.M)}


LEFT = {
    # name: (what moves, operation, how often it is left)
    "dense": ("all", "dot_general", 1),
    "dense of the last layer": ("last", "tanh", 0),
    "linear_logits_accuracy": ("all", "dot_general", 0),
    "average_pool": ("all", "reduce_window_sum", 0),
    "attention": ("all", "dot_general", 4),
    "embedding": ("all", "gather", 0),
    "dropout_with_a_fixed_key": ("all", "random_bits", 0),
    "nested_jit": ("all", "dot_general", 1),
    "rematerialized": ("all", "dot_general", 1),
    "huber": ("all", "dot_general", 0),
    "cumulative": ("all", "cumsum", 0),
    "frozen_batch_norm": ("all", "sqrt", 0),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_all_points_share_is_not_done_at_each(name):
    moved, operation, count = LEFT[name]
    plane = drawn_plane(moved=("v", "c") if moved == "last" else tuple(SIZES))
    loss_fn = PROGRAMS[name.split(" ")[0]]

    assert operations(loss_fn, plane, drawn_data()).get(operation, 0) == count


def test_sums_of_squares_of_affine_residuals_cost_the_same_whatever_the_data():
    restrict = functools.partial(planes.restrict, together(SQUARED))

    # Of traced data all is held, too, for where what is computed once cannot be trusted.
    phi: Any = jax.eval_shape(restrict, drawn_plane(), drawn_data())
    _, computed_once, _ = phi.args[0].args

    assert max(leaf.size for leaf in jax.tree.leaves(computed_once)) <= 3 * 3


def test_a_mean_of_squares_is_kept_under_its_sign_alone():
    restrict = functools.partial(planes.restrict, PROGRAMS["least_squares"])

    phi: Any = jax.eval_shape(restrict, drawn_plane(), drawn_data())
    _, computed_once, _ = phi.args[0].args

    # Rows, what they lost by rounding, the least point, and what infinite coordinates do.
    assert sum(leaf.size for leaf in jax.tree.leaves(computed_once)) == 3 * 3 + 3 * 3 + 2 + 2


def test_arrays_that_the_loss_closes_over_are_not_compiled_in():
    data, plane = drawn_data(), drawn_plane()
    cell = jax.jit(lambda p: jnp.tanh(data["x"] @ p["w"]) * data["y"])

    phi = planes.restrict(lambda p: jnp.sum(cell(p)), plane)

    assert not jax.make_jaxpr(lambda phi, a, b: phi(a, b))(phi, 0.1, 0.2).consts
    plain = np.sum(cell(planes.point(plane, 0.1, 0.2)))
    np.testing.assert_allclose(phi(0.1, 0.2), plain, rtol=1e-5)


def test_cheap_operations_on_small_arrays_are_left_to_each_point():
    """A broadcast of a few params would take longer to read than to repeat."""
    x = np.ones((300, 5), np.float32)

    phi = planes.restrict(lambda p: jnp.sum(jnp.exp(x * p["b"][None])), drawn_plane())

    assert sum(leaf.size for leaf in jax.tree.leaves(phi)) < 2 * x.size


# phi among JAX's transformations.


@pytest.mark.parametrize(("name", "batch_size"), [("loss_and_accuracy", 4), ("ridge", None)])
def test_a_sweep_of_phi_is_a_sweep_of_the_loss(name, batch_size):
    loss_fn, plane, data = PROGRAMS[name], drawn_plane(), drawn_data()
    axes = np.linspace(-1, 1, 3, dtype=np.float32), np.linspace(0, 2, 5, dtype=np.float32)
    phi = planes.restrict(loss_fn, plane, data)

    @jax.jit
    def swept(phi):
        return surfaces.sweep(phi, *axes, batch_size=batch_size)

    surface = swept(phi)

    plain = jax.jit(lambda: surfaces.sweep(restricted_plainly(loss_fn, plane, data), *axes))()
    chex.assert_trees_all_close(surface.values, plain.values, rtol=1e-5, atol=1e-5)


def test_phi_is_a_pytree_that_passes_through_jit_vmap_and_map():
    plane, data = drawn_plane(), drawn_data()
    phi = planes.restrict(dense, plane, data)
    rows = np.array([[0.1, 0.2], [-0.7, 1.0], [0.5, -0.5]], np.float32)
    points = [planes.point(plane, *map(float, row)) for row in rows]
    expected = np.array([jax.jit(dense)(point, data) for point in points])

    jitted = jax.jit(lambda phi, row: phi(*row))
    rebuilt = jax.tree.unflatten(jax.tree.structure(phi), jax.tree.leaves(phi))
    several = {
        "jit": np.array([jitted(phi, row) for row in rows]),
        "vmap": jax.vmap(phi)(*rows.T),
        "map": jax.lax.map(lambda row: rebuilt(*row), rows),
    }

    assert isinstance(phi, jax.tree_util.Partial)
    for values in several.values():
        np.testing.assert_allclose(values, expected, rtol=1e-5)


WEIGHTS = (1.0, -0.7, 0.3, 2.1)  # of several losses in one, where a derivative of each costs more


def test_restrict_works_on_traced_planes_and_data():
    loss_fn = together(["dense", "weighted_least_squares"])
    plane, data = drawn_plane(), drawn_data()

    @jax.jit
    def gradient(plane, data):
        fns = planes.restrict(loss_fn, plane, data), restricted_plainly(loss_fn, plane, data)
        results = [jax.vjp(fn, 0.3, 0.9) for fn in fns]
        return [
            (values, pull(dict(zip(values, WEIGHTS, strict=False)))) for values, pull in results
        ]

    found, plain = gradient(plane, data)
    chex.assert_trees_all_close(found, plain, rtol=1e-4, atol=1e-5)


def test_restrict_works_on_a_batch_of_planes():
    loss_fn, data = together(["dense", "weighted_least_squares"]), drawn_data()
    origins = jax.tree.map(lambda *leaves: np.stack(leaves), drawn(5), drawn(6), drawn(7))
    directions = drawn_plane().directions

    @jax.jit
    @jax.vmap
    def values(origin):
        phi = planes.restrict(loss_fn, planes.Plane(origin, directions), data)
        return phi(0.3, 0.9)

    @jax.jit
    def plainly(origin):
        return loss_fn(planes.point(planes.Plane(origin, directions), 0.3, 0.9), data)

    batch = jax.tree.map(np.asarray, values(origins))
    for i in range(3):
        found = jax.tree.map(lambda value, i=i: value[i], batch)
        chex.assert_trees_all_close(found, plainly(drawn(5 + i)), rtol=1e-5)


def test_the_hessian_of_phi_is_that_of_the_loss():
    with jax.enable_x64(True):
        loss_fn = together(["dense", "ridge", "root_mean_square", "weights_of_both_signs"])
        plane, data = drawn_plane(dtype=jnp.float64), drawn_data(jnp.float64)

        def weighted(fn):
            return lambda a, b: sum(w * v for w, v in zip(WEIGHTS, fn(a, b).values(), strict=True))

        @jax.jit
        def both(phi, plane, data):
            fns = phi, restricted_plainly(loss_fn, plane, data)
            return [jax.hessian(weighted(fn), (0, 1))(0.3, 0.9) for fn in fns]

        hessian, plain = both(planes.restrict(loss_fn, plane, data), plane, data)

        chex.assert_trees_all_close(hessian, plain, rtol=1e-10, atol=1e-10)


def test_float32_params_are_restricted_under_x64():
    with jax.enable_x64(True):
        plane, data = drawn_plane(dtype=jnp.float32), drawn_data(jnp.float32)

        value = jax.jit(planes.restrict(dense, plane, data))(np.float64(0.3), 0.9)

        assert operations(dense, plane, data)["dot_general"] == 1
        plain = jax.jit(restricted_plainly(dense, plane, data))(0.3, 0.9)
        chex.assert_trees_all_close(value, plain, rtol=1e-5)


def test_bfloat16_params_are_rounded_at_each_point():
    plane = drawn_plane(dtype=jnp.bfloat16)
    a, b = np.float32(0.3), np.float32(0.9)
    loss_fn = lambda p: jnp.sum(p["w"].astype(float) ** 2)  # noqa: E731

    value = planes.restrict(loss_fn, plane)(a, b)

    plain = jax.jit(loss_fn)(planes.point(plane, a, b))
    np.testing.assert_allclose(value, plain, rtol=1e-5)


def test_effects_happen_at_every_point():
    seen = []

    def loss_fn(p, d):
        jax.debug.callback(lambda total: seen.append(float(total)), d["x"].sum())
        return hidden(p, d).sum()

    phi = planes.restrict(loss_fn, drawn_plane(), drawn_data())
    jax.block_until_ready([phi(0.1, 0.2), phi(0.3, 0.4)])
    jax.effects_barrier()

    assert len(seen) == 2


def test_data_may_hold_what_is_no_array():
    plane, data = drawn_plane(), drawn_data()
    loss_fn = lambda p, x, power, fn: jnp.sum(fn(x @ p["w"]) ** power)  # noqa: E731

    value = planes.restrict(loss_fn, plane, np.asarray(data["x"]), 3, jnp.tanh)(0.2, 0.4)

    plain = jax.jit(lambda p, x: loss_fn(p, x, 3, jnp.tanh))(
        planes.point(plane, 0.2, 0.4), data["x"]
    )
    chex.assert_trees_all_close(value, plain, rtol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: planes.restrict(cast(Any, 3), drawn_plane()),
            TypeError,
            "loss_fn must be callable, got 3",
        ),
        (
            lambda: planes.restrict(dense, drawn(0), drawn_data()),
            TypeError,
            "plane must be a Plane, got a dict",
        ),
        (
            lambda: planes.restrict(lambda p: p["b"], drawn_plane()),
            ValueError,
            r"loss_fn must return scalars, got shape \(5,\). Take the mean: jnp.mean.",
        ),
        (
            lambda: planes.restrict(dense, drawn_plane(), drawn_data())(0.1),
            ValueError,
            "expected 2 coordinates, one per direction, got 1",
        ),
        (
            lambda: planes.restrict(dense, drawn_plane(), drawn_data())(0.1, jnp.ones(3)),
            ValueError,
            r"coordinate 1 must be a scalar, got shape \(3,\). For a grid of them use surfaces",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=f"^planes.restrict: {message}"):
        call()
