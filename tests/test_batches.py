"""A batch of points is computed in one vmap, unless that makes grouped convolutions."""

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import planes, surfaces, sweeps

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
FIRST, SECOND = (
    np.random.default_rng(i).normal(size=(3, 3, 3, 3)).astype(np.float32) for i in (1, 2)
)
STEP = 0.25
LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolved(x, kernel, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups
    )


def both_move(a):
    return jnp.mean(jnp.tanh(convolved(jnp.tanh(convolved(IMAGES, a * FIRST)), SECOND + a)))


def kernel_moves(a):
    return jnp.mean(jnp.tanh(convolved(jnp.tanh(convolved(IMAGES, FIRST)), SECOND + a)))


def input_moves(a):
    return jnp.mean(jnp.tanh(convolved(jnp.tanh(a * IMAGES), SECOND)))


def in_a_loop(a):
    step = lambda _, x: jnp.tanh(convolved(x, SECOND + a))  # noqa: E731
    return jnp.mean(jax.lax.fori_loop(0, 2, step, a * IMAGES))


def slope(a):
    return jax.grad(kernel_moves)(a)


def by_depth(a):
    return jnp.mean(convolved(jnp.tanh(a * IMAGES), FIRST[:, :, :1] + a, groups=3))


def no_convolution(a):
    return {"mean": jnp.mean(jnp.tanh(a * IMAGES)), "count": jnp.sum(a * IMAGES > 0)}


def groups_of(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn.params["feature_group_count"]
            yield eqn.params["batch_group_count"]
        for inner in jex.jaxprs_in_params(eqn.params):
            yield from groups_of(inner)


@pytest.mark.parametrize(
    ("fn", "batch_size"),
    [
        (both_move, None),
        (both_move, 2),
        (kernel_moves, 2),
        (input_moves, None),
        (in_a_loop, 2),
        (slope, 2),
        (by_depth, None),
        (no_convolution, 2),
    ],
)
def test_a_sweep_never_makes_more_groups_and_equals_a_loop(fn, batch_size):
    axis = np.array([-0.5, 0.25, 1.5], np.float32)

    def swept(axis):
        return surfaces.sweep(fn, axis, batch_size=batch_size).values

    groups = list(groups_of(jax.make_jaxpr(swept)(axis)))
    assert max(groups, default=1) == (3 if fn is by_depth else 1)
    looped = jax.tree.map(lambda *values: np.array(values), *map(jax.jit(fn), axis))
    for values, expected in zip(
        jax.tree.leaves(jax.jit(swept)(axis)), jax.tree.leaves(looped), strict=True
    ):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_what_needs_no_loop_is_computed_in_one_vmap():
    def swept(fn):
        return str(
            jax.make_jaxpr(lambda axis: surfaces.sweep(fn, axis).values)(
                np.arange(3, dtype=np.float32)
            )
        )

    assert "scan" not in swept(kernel_moves)
    assert "scan" not in swept(input_moves)
    assert "scan" in swept(both_move)


def test_a_sweep_driven_from_the_host_and_a_restricted_one_are_the_same():
    plane = planes.Plane((FIRST, SECOND), ((STEP * SECOND, FIRST),))
    phi = planes.restrict(
        lambda p: jnp.mean(convolved(jnp.tanh(convolved(IMAGES, p[0])), p[1])), plane
    )
    axis = np.array([-0.5, 0.25, 1.5], np.float32)

    driven = sweeps.run(phi, axis, batch_size=2, progress=False)

    swept = surfaces.sweep(phi, axis).values
    np.testing.assert_allclose(driven.values, swept, rtol=1e-5)
