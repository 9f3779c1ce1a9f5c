"""What a filter is, in the params of other libraries: stacked or not, a network is one network."""

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox
import flax.nnx
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haiku.experimental import layer_stack

from jaxgd import planes, surfaces

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
NUM_LAYERS = 2


def random_plane(params, seed=1):
    """The same as planes.random, drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return planes.Plane(params, tuple(jax.tree.map(draw, params) for _ in range(2)))


class Twins(NamedTuple):
    """One network written twice: its layers stacked in each array, and apart.

    Attributes:
      stacked: the params whose arrays have a leading axis of layers.
      layers: the params of each layer.
      run_stacked: (stacked params, x) -> what the last layer gives.
      run_layer: (params of a layer, x) -> what it gives.
      axis: what counts the output units in the kernel of one layer.
      axis_of_stacked: (path, leaf) -> the same for the stacked params.
    """

    stacked: Any
    layers: list[Any]
    run_stacked: Callable[[Any, Any], Any]
    run_layer: Callable[[Any, Any], Any]
    axis: int
    axis_of_stacked: Callable[[str, Any], Any]


def drawn(shapes):
    """Params of these shapes, drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def rows(tree):
    return [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], tree) for i in range(NUM_LAYERS)]


def scanned(run_layer):
    return lambda params, x: jax.lax.scan(lambda x, p: (run_layer(p, x), None), x, params)[0]


def last_of_kernels(path, leaf):
    return (0, -1) if "kernel" in path or path.endswith("/w") else 0


def nnx_layers():
    class Layer(flax.nnx.Module):
        def __init__(self, rngs):
            self.norm = flax.nnx.LayerNorm(4, rngs=rngs)
            self.linear = flax.nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.linear(self.norm(x)))

    @flax.nnx.split_rngs(splits=NUM_LAYERS)
    @flax.nnx.vmap
    def make(rngs):
        return Layer(rngs)

    graph, shapes = flax.nnx.split(flax.nnx.eval_shape(lambda: make(flax.nnx.Rngs(0))))
    stacked = drawn(shapes)

    def run_layer(params, x):
        return flax.nnx.merge(graph, params)(x)

    return Twins(stacked, rows(stacked), scanned(run_layer), run_layer, -1, last_of_kernels)


def haiku_stack():
    def layer(x):
        return jnp.tanh(haiku.Linear(4)(x))

    one = haiku.without_apply_rng(haiku.transform(layer))
    all_ = haiku.without_apply_rng(
        haiku.transform(lambda x: layer_stack(NUM_LAYERS)(layer)(x))  # noqa: PLW0108
    )
    stacked = drawn(jax.eval_shape(all_.init, jax.random.key(0), X))
    (arrays,) = stacked.values()
    name = next(iter(jax.eval_shape(one.init, jax.random.key(0), X)))
    layers = [{name: row} for row in rows(arrays)]
    return Twins(stacked, layers, all_.apply, one.apply, -1, last_of_kernels)


def equinox_vmapped():
    def make(key):
        keys = jax.random.split(key, NUM_LAYERS)
        return equinox.filter_vmap(lambda key: equinox.nn.Linear(4, 4, key=key))(keys)

    stacked = drawn(jax.eval_shape(make, jax.random.key(0)))

    def run_layer(layer, x):
        return jnp.tanh(jax.vmap(layer)(x))

    def axis(path, leaf):
        return (0, 1) if leaf.ndim == 3 else 0

    return Twins(stacked, rows(stacked), scanned(run_layer), run_layer, 0, axis)


@pytest.mark.parametrize("make", [nnx_layers, haiku_stack, equinox_vmapped])
def test_a_network_gives_one_plane_whether_its_layers_are_stacked_or_not(make):
    # Flax broadcasts its biases over the batch, which is rank promotion.
    with jax.numpy_rank_promotion("allow"):
        twins = make()
        plane = random_plane(twins.stacked)
        # Module names may differ, the order of the arrays does not.
        structure = jax.tree.structure(planes.Plane(twins.layers, (twins.layers, twins.layers)))
        together = planes.Plane(rows(plane.origin), tuple(rows(d) for d in plane.directions))
        apart = jax.tree.unflatten(structure, jax.tree.leaves(together))
        axes = np.array([-0.5, 1], np.float32), np.array([0, 0.3, 0.7], np.float32)

        def seen(plane, run, options):
            """Directions and geometry, for each way with vectors, and a surface."""
            ways = [
                planes.filter_normalize(plane, vectors=vectors, **options)
                for vectors in ("zero", "match")
            ]
            values = surfaces.sweep(
                lambda a, b: jnp.mean(run(planes.point(ways[1], a, b), X) ** 2), *axes
            ).values
            return [way.directions for way in ways], list(map(planes.geometry, ways)), values

        def run_layers(layers, x):
            return functools.reduce(lambda x, p: twins.run_layer(p, x), layers, x)

        options = {
            "filter_axis": twins.axis_of_stacked,
            "is_vector": lambda path, leaf: leaf.ndim < 3,
        }

        @jax.jit
        def both(plane, apart):
            layered = seen(apart, run_layers, {"filter_axis": twins.axis})
            return seen(plane, twins.run_stacked, options), layered

        stacked, layered = both(plane, apart)

        for ways, layered_ways in zip(stacked[0], layered[0], strict=True):
            for direction, layers in zip(ways, layered_ways, strict=True):
                wanted = [jax.tree.leaves(row) for row in rows(direction)]
                found = [jax.tree.leaves(layer) for layer in layers]
                chex.assert_trees_all_close(found, wanted, atol=1e-6)
        chex.assert_trees_all_close(stacked[1], layered[1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stacked[2], layered[2], rtol=1e-5, atol=1e-6)
        assert np.ptp(stacked[2]) > 1e-3


def attention_axis(path, leaf):
    """The filter axes of an nnx transformer: its heads stand beside their features."""
    return (-2, -1) if path.startswith(("query", "key", "value")) else -1


def test_each_head_of_an_attention_kernel_has_filters_of_its_own():
    def make():
        rngs = flax.nnx.Rngs(0)
        return flax.nnx.MultiHeadAttention(num_heads=2, in_features=6, qkv_features=8, rngs=rngs)

    params = drawn(flax.nnx.state(flax.nnx.eval_shape(make), flax.nnx.Param))
    plane = random_plane(params)

    direction = planes.filter_normalize(plane, filter_axis=attention_axis).directions[0]

    for name, inputs in (("query", 6), ("key", 6), ("value", 6), ("out", 8)):
        theta, d = (
            np.asarray(tree[name]["kernel"][...]).reshape(inputs, -1)
            for tree in (params, direction)
        )
        np.testing.assert_allclose(
            np.linalg.norm(d, axis=0), np.linalg.norm(theta, axis=0), rtol=1e-5
        )
        assert not np.any(direction[name]["bias"][...])
    report = planes.explain_filters(params, filter_axis=attention_axis)
    assert "8 filters of 6 numbers, counted by axes 1, 2\n" in report
    assert "query/bias" in report
    marked = planes.explain_filters(params, filter_axis=-1).splitlines()
    assert [line.split()[0] for line in marked if "sure?" in line] == [
        "key/kernel/value",
        "out/kernel/value",
        "query/kernel/value",
        "value/kernel/value",
    ]


@pytest.mark.parametrize("name", ["b", "beta", "Bias", "bias_hh"])
def test_a_bias_of_two_axes_is_known_by_its_name(name):
    params = {"layer": {name: np.ones((1, 4), np.float32), "kernel": np.ones((3, 4), np.float32)}}
    plane = random_plane(params)

    direction = planes.filter_normalize(plane, filter_axis=-1).directions[0]["layer"]

    assert not np.any(direction[name])
    assert np.all(direction["kernel"])


@pytest.mark.parametrize("vectors", ["zero", "match"])
def test_a_bias_with_the_axes_of_a_picture_is_a_vector(vectors):
    layer = equinox.nn.Conv2d(2, 3, kernel_size=2, key=jax.random.key(0))
    plane = random_plane(layer)

    normalized = planes.filter_normalize(plane, filter_axis=0, vectors=vectors).directions[0]

    kernel, bias = np.asarray(normalized.weight), np.asarray(normalized.bias)
    theta = np.asarray(layer.weight)
    lengths = np.linalg.norm(theta.reshape(3, -1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(kernel.reshape(3, -1), axis=1), lengths, rtol=1e-5)
    assert bias.shape == (3, 1, 1)
    assert layer.bias is not None
    wanted = np.linalg.norm(layer.bias) if vectors == "match" else 0
    np.testing.assert_allclose(np.linalg.norm(bias), wanted, rtol=1e-5)
    old = np.asarray(plane.directions[0].bias)  # one filter, whatever its axes: it does not turn
    np.testing.assert_allclose(bias, old * wanted / np.linalg.norm(old), rtol=1e-5)


def test_axes_may_be_a_pytree_or_a_module_of_ints_or_several():
    layer = equinox.nn.Linear(3, 4, key=jax.random.key(0))
    plane = random_plane(layer)
    by_int = planes.filter_normalize(plane, filter_axis=0)

    by_module = planes.filter_normalize(plane, filter_axis=jax.tree.map(lambda _: 0, layer))
    chex.assert_trees_all_equal(by_module, by_int)
    pair = (np.ones((2, 3), np.float32), np.ones((3, 2, 4), np.float32))
    by_tuple = planes.filter_normalize(random_plane(pair), filter_axis=(0, (1, 2)))
    first, second = by_tuple.directions[0]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.full(2, 3**0.5), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(second, axis=0), np.full((2, 4), 3**0.5), rtol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
def test_a_keras_model_has_filters_too():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = importlib.import_module("keras")

    assert keras.backend.backend() == "jax"
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)]
    )
    params = [jnp.asarray(variable.value) for variable in model.trainable_variables]
    with jax.numpy_rank_promotion("allow"):
        plane = planes.filter_normalize(random_plane(params), filter_axis=-1)
        phi = planes.restrict(lambda p: jnp.mean(model.stateless_call(p, [], X)[0] ** 2), plane)

        for kernel, bias in ((0, 1), (2, 3)):
            lengths = np.linalg.norm(params[kernel], axis=0)
            found = np.linalg.norm(plane.directions[0][kernel], axis=0)
            np.testing.assert_allclose(found, lengths, rtol=1e-5)
            assert not np.any(plane.directions[0][bias])
        np.testing.assert_allclose(phi(0.0, 0.0), np.mean(model(X) ** 2), rtol=1e-5)


def test_orthonormal_directions_span_the_same_plane():
    rng = np.random.default_rng(0)
    trees = [
        {"w": rng.normal(size=(2, 3)).astype(np.float32), "b": np.float32(rng.normal())}
        for _ in range(4)
    ]
    tiny = jax.tree.map(lambda leaf: 1e-20 * leaf, trees[3])
    plane = planes.Plane(trees[0], (trees[1], trees[2], tiny))

    orthonormal = planes.orthonormalize(plane)

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(float)

    old, new = (np.stack([flat(d) for d in p.directions]) for p in (plane, orthonormal))
    np.testing.assert_allclose(new @ new.T, np.eye(3), atol=1e-6)
    q, r = np.linalg.qr(old.T)
    np.testing.assert_allclose(new.T, q * np.sign(np.diag(r)), atol=1e-5)
    chex.assert_trees_all_equal(orthonormal.origin, plane.origin)
    again = planes.Plane(trees[0], (trees[1], trees[1], trees[1]))
    zeros = jax.tree.map(lambda leaf: np.zeros((3, *leaf.shape), np.float32), trees[0])
    first, *others = planes.orthonormalize(again).directions
    assert np.isfinite(flat(first)).all()
    assert np.isnan(flat(others)).all()
    nowhere = planes.orthonormalize(planes.along(trees[0], zeros)).directions
    assert np.isnan(flat(nowhere)).all()


@pytest.mark.parametrize("angle", [1e-2, 1e-4])
def test_directions_that_are_all_but_parallel_become_orthogonal_to_rounding(angle):
    first, away = np.random.default_rng(1).normal(size=(2, 9)).astype(np.float32)
    plane = planes.Plane(jnp.zeros(9), (first, first + np.float32(angle) * away))

    new = np.stack(planes.orthonormalize(plane).directions).astype(float)

    np.testing.assert_allclose(new @ new.T, np.eye(2), atol=3e-7)


def test_a_matrix_called_b_is_a_matrix_and_a_row_called_b_a_bias():
    text = planes.explain_filters(
        {"b": jnp.ones((4, 3)), "c": {"b": jnp.ones((1, 3))}}, filter_axis=1
    )
    matrix, row = text.splitlines()
    assert "3 filters of 4 numbers" in matrix
    assert "a vector" in row
