"""Any program: restrict raises only where plain evaluation does, and equals it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.ad_checkpoint import checkpoint_name

from jaxgd import planes

# Every step takes z of shape (4, 3), the params p and the data d, and returns another z.
STEPS = {}


def step(fn):
    STEPS[fn.__name__.strip("_")] = fn
    return fn


def steps(**fns):
    STEPS.update(fns)


def like(z, array):
    return jnp.asarray(array, z.dtype)


ROWS, COLUMNS = np.array([2, 0, 3], np.int32), np.array([1, 1, 0], np.int32)

steps(
    negative=lambda z, p, d: -z,
    sine=lambda z, p, d: jnp.sin(z),
    hyperbolic_tangent=lambda z, p, d: jnp.tanh(z),
    exponential=lambda z, p, d: jnp.exp(jnp.minimum(z, 2)),
    logarithm=lambda z, p, d: jnp.log1p(jnp.abs(z)),
    error_function=lambda z, p, d: jax.scipy.special.erf(z),
    floor=lambda z, p, d: jnp.floor(3 * z) / 3,
    rounded=lambda z, p, d: jnp.round(z, 1),
    sign=lambda z, p, d: jnp.sign(z) * d["y"],
    relu=lambda z, p, d: jax.nn.relu(z),
    gelu=lambda z, p, d: jax.nn.gelu(z),
    softplus=lambda z, p, d: jax.nn.softplus(z),
    clipped=lambda z, p, d: jnp.clip(z, -1, 1.5),
    remainder=lambda z, p, d: jnp.remainder(z, 1.7),
    angle=lambda z, p, d: jnp.arctan2(z, 1 + d["y"] ** 2),
    square=lambda z, p, d: z**2 / 3,
    cube=lambda z, p, d: z**3 / 9,
    power_of_two=lambda z, p, d: jnp.power(z, 2.0) / 2,
    real_power=lambda z, p, d: jnp.power(jnp.abs(z) + 0.1, 1.5),
    inverse_root=lambda z, p, d: jax.lax.rsqrt(1 + jnp.square(z)),
    by_itself=lambda z, p, d: z * z / 4,
    by_its_mirror=lambda z, p, d: z * z[::-1] / 4,
    by_its_own_sum_of_squares=lambda z, p, d: z * jnp.vdot(z, z) / 20,
    over_its_own_sum_of_squares=lambda z, p, d: d["y"] / (1 + jnp.sum(z**2)),
    squares_and_itself=lambda z, p, d: z**2 / 4 + z,
    squares_and_more_squares=lambda z, p, d: z**2 / 4 + (z - d["y"]) ** 2 / 3 - 1,
    sum_of_squares_spread=lambda z, p, d: jnp.sum(z**2) / 9 + d["y"],
    row_squares=lambda z, p, d: d["y"] * jnp.einsum("ij,ij->i", z, z)[:, None] / 5,
    weighted_squares=lambda z, p, d: z - jnp.sum(d["y"] * z**2) / 20,
    scaled=lambda z, p, d: z * d["y"],
    scaled_by_a_param=lambda z, p, d: z * p["s"],
    divided=lambda z, p, d: z / (1 + d["y"] ** 2),
    constant_over_itself=lambda z, p, d: d["y"] / (2 + jnp.abs(z)),
    residual=lambda z, p, d: d["y"] - z,
    bias=lambda z, p, d: z + p["b"][None],
    product=lambda z, p, d: z @ p["u"],
    constant_product=lambda z, p, d: z @ d["y"][:3],
    product_from_the_left=lambda z, p, d: d["x"] @ d["x"].T @ z / 4,
    highest_precision=lambda z, p, d: jnp.matmul(z, d["y"][:3], precision="highest"),
    named_algorithm=lambda z, p, d: jax.lax.dot(
        z, d["y"][:3], precision=jax.lax.DotAlgorithmPreset.F32_F32_F32
    ).astype(z.dtype),
    wide_accumulation=lambda z, p, d: jnp.matmul(
        z, d["y"][:3], preferred_element_type=jnp.result_type(float)
    ).astype(z.dtype),
    masked=lambda z, p, d: jnp.where(d["mask"], z, 0.3),
    positive_part_by_choice=lambda z, p, d: jnp.where(z > 0.1, z, -0.2 * z),
    masked_by_infinity=lambda z, p, d: jnp.maximum(jnp.where(d["mask"], z, -jnp.inf), -2),
    sums=lambda z, p, d: jnp.cumsum(z, axis=0) / 2,
    products=lambda z, p, d: jnp.cumprod(jnp.tanh(z), axis=1),
    largest_so_far=lambda z, p, d: jax.lax.cummax(z),
    ordered=lambda z, p, d: jnp.sort(z, axis=0),
    gathered=lambda z, p, d: z[jnp.array([3, 0, 0, 1])],
    gathered_out_of_bounds=lambda z, p, d: jnp.nan_to_num(
        z.at[jnp.array([9, 0, 2, 1])].get(mode="fill")
    ),
    gathered_at_a_moving_place=lambda z, p, d: (
        jnp.take_along_axis(z, z.argmax(0)[None], 0) + d["y"]
    ),
    one_hot=lambda z, p, d: jax.nn.one_hot(z.argmax(1), 3, dtype=z.dtype) + z,
    top=lambda z, p, d: z - jax.lax.top_k(z, 1)[0],
    turned=lambda z, p, d: jnp.roll(z, 1, axis=0)[:, ::-1],
    reshaped=lambda z, p, d: z.T.reshape(4, 3),
    split_and_joined=lambda z, p, d: jnp.concatenate(jnp.split(z, 2)[::-1]),
    padded=lambda z, p, d: jnp.pad(z, ((1, 0), (0, 2)), constant_values=0.7)[:4, :3],
    sliced=lambda z, p, d: jnp.tile(jax.lax.dynamic_slice(z, (d["i"], 0), (2, 3)), (2, 1)),
    updated=lambda z, p, d: jax.lax.dynamic_update_slice(z, p["u"][:1] + z[:1], (d["i"], 0)),
    updated_data=lambda z, p, d: jax.lax.dynamic_update_slice(d["y"], z[1:3], (d["i"], 0)),
    set_entries=lambda z, p, d: z.at[ROWS, COLUMNS].set(z[0]),
    set_entries_of_data=lambda z, p, d: d["y"].at[ROWS].set(z[:3], mode="drop"),
    added_entries=lambda z, p, d: z.at[ROWS, COLUMNS].add(p["b"]),
    multiplied_entries=lambda z, p, d: z.at[ROWS].multiply(0.5),
    lowered_entries=lambda z, p, d: z.at[ROWS, COLUMNS].min(0.2),
    narrow=lambda z, p, d: (z.astype(jnp.bfloat16) * 2).astype(z.dtype) / 2,
    half=lambda z, p, d: z.astype(jnp.float16).astype(z.dtype),
    whole=lambda z, p, d: (4 * z).astype(int).astype(z.dtype) / 4,
    reduced=lambda z, p, d: jax.lax.reduce_precision(z, 8, 10),
    normalized=lambda z, p, d: jax.nn.standardize(z, axis=0, epsilon=like(z, 0.1)),
    softmax=lambda z, p, d: jax.nn.softmax(z, axis=-1),
    pooled=lambda z, p, d: jax.lax.reduce_window(z, 0.0, jax.lax.add, (2, 1), (1, 1), "SAME"),
    max_pooled=lambda z, p, d: jax.lax.reduce_window(
        z, -jnp.inf, jax.lax.max, (2, 2), (1, 1), "SAME"
    ),
    convolved=lambda z, p, d: jax.lax.conv(z[None, None], p["k"], (1, 1), "SAME")[0, 0],
    convolved_in_groups=lambda z, p, d: (
        jax.lax.conv_general_dilated(z.T[None], d["k"], (1,), "SAME", feature_group_count=3)[0].T
    ),
    transformed=lambda z, p, d: jnp.abs(jnp.fft.fft(z, axis=0)) / 2,
    complex_product=lambda z, p, d: jnp.real(jax.lax.complex(z, d["y"]) ** 2) / 3,
    solved=lambda z, p, d: jnp.linalg.solve(d["x"] @ d["x"].T + 2 * jnp.eye(4, dtype=z.dtype), z),
    factored=lambda z, p, d: z * jnp.linalg.slogdet(z.T @ z + jnp.eye(3, dtype=z.dtype))[1] / 3,
    dropped=lambda z, p, d: jnp.where(jax.random.bernoulli(jax.random.key(3), 0.6, z.shape), z, 0),
    stopped=lambda z, p, d: jax.lax.stop_gradient(z) + 0.1 * z,
    named=lambda z, p, d: checkpoint_name(z, "z"),
    nested=lambda z, p, d: jax.jit(lambda z: z @ d["y"][:3] + p["b"][None])(z),
    rematerialized=lambda z, p, d: jax.checkpoint(lambda z: jnp.sin(z @ p["u"]))(z),
    mapped=lambda z, p, d: jax.vmap(lambda row, y: row * jnp.vdot(row - y, row - y))(z, d["y"]) / 5,
    looped=lambda z, p, d: jax.lax.fori_loop(0, 2, lambda _, z: jnp.sin(z) @ p["u"], z),
    branched=lambda z, p, d: jax.lax.cond(z.sum() > 0, lambda z: z / 2, jnp.cos, z),
    branched_on_data=lambda z, p, d: jax.lax.cond(d["i"] > 0, lambda z: z / 2, jnp.cos, z),
)


@step
def scanned(z, p, d):
    def cell(state, row):
        state = jnp.tanh(row + state @ p["u"])
        return state, state

    return jax.lax.scan(cell, d["y"][0], z)[1]


@step
def applied_entries(z, p, d):
    """A scatter by a function, which JAX cannot differentiate."""
    return z.at[ROWS].apply(jnp.sin)


@step
def own_derivative(z, p, d):
    @jax.custom_jvp
    def rounded(z):
        return jnp.round(z)

    rounded.defjvp(lambda primals, tangents: (rounded(primals[0]), tangents[0]))
    return rounded(2 * z) / 2


@step
def own_reverse_derivative(z, p, d):
    @jax.custom_vjp
    def doubled(z):
        return 2 * z

    doubled.defvjp(lambda z: (doubled(z), None), lambda _, g: (-g,))
    return doubled(z) / 2


WITHOUT_GRADIENT = {"applied_entries"}


def params_and_data(dtype):
    rng = np.random.default_rng(7)
    shapes = {"w": (2, 3), "b": (3,), "u": (3, 3), "s": (), "k": (1, 1, 2, 1)}

    def draw():
        return {
            k: jax.device_put(np.asarray(0.5 * rng.normal(size=s), dtype))
            for k, s in shapes.items()
        }

    plane = planes.Plane(draw(), (draw(), {**draw(), "u": np.zeros((3, 3), dtype)}))
    data = {
        "x": jax.device_put(rng.normal(size=(4, 2)).astype(dtype)),
        "y": jax.device_put(rng.normal(size=(4, 3)).astype(dtype)),
        "k": jax.device_put(rng.normal(size=(3, 1, 2)).astype(dtype)),
        "mask": jax.device_put(rng.integers(0, 2, size=(4, 3)).astype(bool)),
        "i": jax.device_put(np.asarray(1)),
    }
    return plane, data


def composed(names):
    """A loss with several outputs: some read the last z, some one in the middle."""

    def loss_fn(p, d):
        z = middle = d["x"] @ p["w"]
        for place, name in enumerate(names):
            z = STEPS[name](z, p, d)
            middle = z if place == len(names) // 2 else middle
        return {
            "risk": jnp.mean(jnp.square(z - d["y"])),
            "norm": jnp.sqrt(jnp.sum(d["y"] ** 2 * middle**2) + 1),
            "mean": jnp.sum(z * d["y"]),
            "hits": jnp.mean(z.argmax(axis=1) == d["y"].argmax(axis=1)),
        }

    return loss_fn


POINT = (0.375, -0.8125)


def both(loss_fn, plane, data, with_gradient):
    """Values and gradients at a point, restricted and plain."""
    phi = planes.restrict(loss_fn, plane, data)

    def plain(*coordinates):
        return loss_fn(planes.point(plane, *coordinates), data)

    def looked_at(fn):
        def total(*coordinates):
            values = fn(*coordinates)
            return values["risk"] + 2 * values["norm"] - 3 * values["mean"], values

        coordinates = [jnp.asarray(c, plane.origin["s"].dtype) for c in POINT]
        if not with_gradient:
            return fn(*coordinates), ()
        gradient, values = jax.grad(total, (0, 1), has_aux=True)(*coordinates)
        return values, gradient

    return jax.jit(lambda phi: (looked_at(phi), looked_at(plain)))(phi)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_any_step_is_restricted_rightly_alone_and_between_others(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        plane, data = params_and_data(dtype)

        @settings(max_examples=2, deadline=None, derandomize=True, database=None)
        @given(st.lists(st.sampled_from(sorted(STEPS)), min_size=12, max_size=20))
        @example(["applied_entries"])
        @example(["square", "squares_and_itself", "sum_of_squares_spread"])
        def check(names):
            with_gradient = dtype == jnp.float64 and not WITHOUT_GRADIENT & set(names)
            found, plain = both(composed(names), plane, data, with_gradient)

            chex.assert_trees_all_equal_shapes_and_dtypes(found, plain)
            tolerance = 1e-3 if dtype == jnp.float32 else 1e-8
            scale = 1 + max(abs(float(leaf)) for leaf in jax.tree.leaves(plain))
            chex.assert_trees_all_close(found, plain, rtol=tolerance, atol=tolerance * scale)

        check()
