"""What jaxgd.surfaces promises."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import descent, planes, surfaces

BATCH_SIZES = [None, 1, 4, 15, 100]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_value_stands_at_the_indices_of_its_coordinates(batch_size):
    alphas, betas = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.float32)

    surface = surfaces.sweep(lambda a, b: 10 * a + b, alphas, betas, batch_size=batch_size)

    chex.assert_shape(surface.values, (3, 5))
    values = np.asarray(surface.values)
    for i in range(3):
        for j in range(5):
            assert values[i, j] == 10 * i + j
    chex.assert_trees_all_equal(surface.coordinates, (alphas, betas))


@pytest.mark.parametrize("batch_size", [None, 7])
def test_one_coordinate_gives_a_line_and_three_a_block(batch_size):
    ends = (-1, 1, 2), (0, 2, 3), (3, 4, 5)
    x, y, z = (np.linspace(*numbers, dtype=np.float32) for numbers in ends)

    line = surfaces.sweep(jnp.square, z, batch_size=batch_size)
    block = surfaces.sweep(lambda x, y, z: x - y * z**2, x, y, z, batch_size=batch_size)

    np.testing.assert_array_equal(line.values, z**2)
    looped = np.array([[[a - b * c**2 for c in z] for b in y] for a in x])
    chex.assert_shape(block.values, (2, 3, 5))
    np.testing.assert_allclose(block.values, looped, rtol=1e-5)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_size_of_a_batch_changes_no_value(batch_size):
    def fn(a, b):
        return jnp.sin(3 * a) * jnp.exp(b)

    a, b = np.linspace(-2, 1, 3, dtype=np.float32), np.linspace(0, 1, 5, dtype=np.float32)

    values = surfaces.sweep(fn, a, b, batch_size=batch_size).values

    np.testing.assert_array_equal(values, surfaces.sweep(fn, a, b).values)
    np.testing.assert_allclose(values, np.sin(3 * a)[:, None] * np.exp(b)[None], rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_function_may_return_a_pytree_of_scalars(batch_size):
    surface = surfaces.sweep(
        lambda a, b: {"loss": a * b, "more": (a > b, 7, [a])},
        jnp.arange(3.0),
        jnp.arange(5.0),
        batch_size=batch_size,
    )

    a, b = np.arange(3.0)[:, None], np.arange(5.0)[None]
    np.testing.assert_array_equal(surface.values["loss"], a * b)
    greater, seven, (first,) = surface.values["more"]
    np.testing.assert_array_equal(greater, a > b)
    np.testing.assert_array_equal(seven, np.full((3, 5), 7))
    np.testing.assert_array_equal(first, a + 0 * b)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_nan_and_infinity_are_kept_where_they_are(batch_size):
    x = jnp.array([-1.0, 0.0, 1.0])

    values = surfaces.sweep(jnp.log, x, batch_size=batch_size).values

    np.testing.assert_array_equal(values, np.array([np.nan, -np.inf, 0.0]))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_coordinates_keep_their_dtypes_and_reach_the_function_in_them(batch_size):
    surface = surfaces.sweep(
        lambda n, x: {"n": n, "x": x},
        np.arange(3),
        np.array([0.5, 1.5], np.float32),
        batch_size=batch_size,
    )

    assert surface.values["n"].dtype == surface.coordinates[0].dtype == jnp.int32
    assert surface.values["x"].dtype == surface.coordinates[1].dtype == jnp.float32
    np.testing.assert_array_equal(surface.values["n"], [[0, 0], [1, 1], [2, 2]])


def test_the_points_that_fill_up_the_last_batch_are_points_of_the_grid():
    seen = []

    def fn(x):
        jax.debug.callback(lambda x: seen.append(float(x)), x)
        return x

    surface = surfaces.sweep(fn, jnp.array([1.0, 2.0, 3.0]), batch_size=2)
    jax.block_until_ready(surface)
    jax.effects_barrier()

    np.testing.assert_array_equal(surface.values, np.array([1, 2, 3], np.float32))
    assert set(seen) == {1.0, 2.0, 3.0}


def test_a_batch_never_holds_more_points_than_asked_for():
    sizes = []

    @jax.custom_batching.custom_vmap
    def fn(x):
        return x

    @fn.def_vmap
    def _(axis_size, in_batched, x):
        sizes.append(axis_size)
        return x, in_batched[0]

    surfaces.sweep(fn, jnp.arange(7.0), batch_size=3)
    surfaces.sweep(fn, jnp.arange(7.0), batch_size=100)

    assert sizes[0] == 3
    assert sizes[-1] == 7


def test_a_grid_of_one_point_is_a_grid():
    surface = surfaces.sweep(jnp.add, jnp.ones(1), jnp.ones(1), batch_size=3)

    np.testing.assert_array_equal(surface.values, [[2.0]])


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_sweep_can_be_jitted(batch_size):
    @jax.jit
    def jitted(scale, a, b):
        return surfaces.sweep(lambda a, b: scale * a - b, a, b, batch_size=batch_size)

    a, b = jnp.arange(3.0), jnp.arange(5.0)

    chex.assert_trees_all_close(
        jitted(2.0, a, b), surfaces.sweep(lambda a, b: 2 * a - b, a, b, batch_size=batch_size)
    )


def test_a_whole_descent_can_be_a_function_of_its_rates():
    def final_loss(first, second):
        rates = jnp.array([first, second])
        return descent.gradient_descent(
            lambda p: jnp.sum(p**2), 1 / rates, learning_rate=0.1, num_steps=3
        ).losses[-1]

    first, second = np.array([1, 2, 4], np.float32), np.array([0.5, 1], np.float32)

    values = jax.jit(lambda a, b: surfaces.sweep(final_loss, a, b).values)(first, second)

    expected = 0.8**6 * (first[:, None] ** -2 + second[None] ** -2)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_sweep_holds_the_params_of_one_batch_of_points_only():
    num_params, points, batch_size = 10_000, 50, 4
    plane = planes.random(jax.random.key(0), jnp.zeros(num_params))

    def sweep(plane, x, a, b):
        def loss(*point):
            return jnp.tanh(x @ planes.point(plane, *point))

        return surfaces.sweep(loss, a, b, batch_size=batch_size)

    axis = jnp.linspace(-1, 1, points)
    arguments = plane, jnp.ones(num_params), axis, axis
    memory = jax.jit(sweep).lower(*arguments).compile().memory_analysis()

    all_at_once = 4 * num_params * points**2
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * 4 * num_params * batch_size < all_at_once / 100


class Both(NamedTuple):
    """Two outputs of one function."""

    loss: Any
    accuracy: Any


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        (lambda a: {"loss": a**2, "accuracy": -a}, "accuracy"),
        (lambda a: {1: a**2, 2: -a}, 2),
        (lambda a: (a**2, -a), 1),
        (lambda a: Both(loss=a**2, accuracy=-a), "accuracy"),
        (lambda a: {"train": {"loss": a**2}, "test": -a}, "test"),
    ],
)
def test_one_output_of_several_is_selected_by_its_name(outputs, name):
    axis = jnp.arange(3.0)

    selected = surfaces.select(surfaces.sweep(outputs, axis), name)

    chex.assert_trees_all_equal(selected, surfaces.Surface((axis,), -axis))


def test_an_output_of_several_arrays_is_selected_as_a_whole():
    axis = jnp.arange(3.0)
    surface = surfaces.sweep(lambda a: {"train": {"loss": a, "error": -a}, "test": a}, axis)

    selected = surfaces.select(surface, "train")

    chex.assert_trees_all_equal(selected.values, {"loss": axis, "error": -axis})
