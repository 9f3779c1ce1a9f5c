"""Models of other libraries work unchanged, filter axis included."""

import functools
from typing import Any

import chex
import equinox
import flax.linen
import flax.nnx
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import curvature, descent, losses, neurons, planes, surfaces

RNG = np.random.default_rng(1)
X = RNG.normal(size=(11, 5)).astype(np.float32)
LABELS = RNG.integers(3, size=11)


def cross_entropy(logits, labels):
    return losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def drawn(shapes, seed=2):
    """Params of these shapes, drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: 0.5 * rng.normal(size=s.shape).astype(np.float32), shapes)


def linen():
    model = flax.linen.Sequential([flax.linen.Dense(4), jnp.tanh, flax.linen.Dense(3)])
    return drawn(jax.eval_shape(model.init, jax.random.key(0), X)), model.apply, -1


def nnx():
    class Model(flax.nnx.Module):
        def __init__(self, rngs):
            self.first = flax.nnx.Linear(5, 4, rngs=rngs)
            self.second = flax.nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.second(jnp.tanh(self.first(x)))

    graph, shapes = flax.nnx.split(flax.nnx.eval_shape(lambda: Model(flax.nnx.Rngs(0))))
    return drawn(shapes), lambda params, x: flax.nnx.merge(graph, params)(x), -1


def equinox_parts():
    """The params of a model, and the rest of it."""
    key = jax.random.key(0)
    model = equinox.filter_eval_shape(equinox.nn.MLP, 5, 3, 4, 1, activation=jnp.tanh, key=key)
    shapes, static = equinox.partition(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    return drawn(shapes), static


def equinox_mlp():
    params, static = equinox_parts()
    return params, lambda params, x: jax.vmap(equinox.combine(params, static))(x), 0


def haiku_network(x):
    return haiku.nets.MLP([4, 3], activation=jnp.tanh)(x)


def haiku_mlp():
    model = haiku.without_apply_rng(haiku.transform(haiku_network))
    return drawn(jax.eval_shape(model.init, jax.random.key(0), X)), model.apply, -1


def plain():
    make = functools.partial(neurons.init_network, sizes=(5, 4, 3))
    return drawn(jax.eval_shape(make, jax.random.key(0))), neurons.apply_network, -1


MODELS = {"linen": linen, "nnx": nnx, "equinox": equinox_mlp, "haiku": haiku_mlp, "plain": plain}


@pytest.fixture(params=MODELS, scope="module")
def model(request) -> Any:
    # Flax broadcasts its biases over the batch, which is rank promotion.
    with jax.numpy_rank_promotion("allow"):
        yield MODELS[request.param]()


@pytest.fixture(scope="module")
def trained(model) -> Any:
    params, predict, _ = model
    risk = losses.empirical_risk(predict, cross_entropy)
    return jax.jit(
        lambda params, x, y: descent.optimize(
            risk, params, x, y, optimizer=optax.sgd(0.5), num_steps=8
        )
    )(params, X, LABELS)


def test_a_model_is_trained_and_its_surface_swept(model, trained):
    params, predict, axis = model
    risk = losses.empirical_risk(predict, cross_entropy)
    assert trained.losses[-1] < trained.losses[0]
    assert jax.tree.structure(trained.params) == jax.tree.structure(params)

    plane = planes.filter_normalize(
        planes.random(jax.random.key(3), trained.params), filter_axis=axis
    )
    phi = planes.restrict(risk, plane, X, LABELS)
    a, b = np.linspace(-1, 1, 3), np.linspace(-0.5, 1, 4)
    surface = jax.jit(surfaces.sweep)(phi, a, b)
    plainly = jax.jit(lambda s, t: risk(planes.point(plane, s, t), X, LABELS))
    plain = np.array([[plainly(s, t) for t in b] for s in a])
    chex.assert_trees_all_close(surface.values, plain, rtol=1e-5)
    assert a[1] == b[1] == 0
    np.testing.assert_allclose(surface.values[1, 1], trained.losses[-1], rtol=1e-5)


def test_the_directions_of_a_model_have_the_lengths_of_its_filters(model):
    params, _, axis = model
    plane = planes.filter_normalize(planes.random(jax.random.key(3), params), filter_axis=axis)
    for leaf, direction in zip(
        jax.tree.leaves(params), jax.tree.leaves(plane.directions[0]), strict=True
    ):
        if leaf.ndim < 2:
            assert not np.any(direction)
            continue
        units = np.moveaxis(np.asarray(leaf), axis, 0).reshape(leaf.shape[axis], -1)
        found = np.moveaxis(np.asarray(direction), axis, 0).reshape(leaf.shape[axis], -1)
        assert leaf.shape[axis] in (3, 4)  # the output units, whatever the library
        np.testing.assert_allclose(
            np.linalg.norm(found, axis=1), np.linalg.norm(units, axis=1), rtol=1e-5
        )


def test_a_model_has_a_principal_plane_and_a_sharpness(model, trained):
    params, predict, _ = model
    risk = losses.empirical_risk(predict, cross_entropy)
    plane = planes.principal(trained.path)
    projection = planes.project_path(plane, trained.path)
    chex.assert_shape(projection.coordinates, (9, 2))
    assert np.asarray(projection.residuals).mean() < 0.1
    sharpness = curvature.sharpness(
        jax.random.key(0), risk, params, X, LABELS, num_iterations=5, reorthogonalize=False
    )
    assert float(sharpness) > 0


def test_a_whole_equinox_model_is_refused_with_its_cure():
    model: Any = equinox.combine(*equinox_parts())
    with pytest.raises(TypeError, match=r"must be an array, got a .*equinox.partition"):
        planes.random(jax.random.key(0), model)


def test_batch_statistics_closed_over_stay_frozen():
    class Model(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            x = flax.linen.Dense(4)(x)
            x = flax.linen.BatchNorm(use_running_average=True)(x)
            return flax.linen.Dense(3)(jnp.tanh(x))

    with jax.numpy_rank_promotion("allow"):
        model = Model()
        variables = drawn(jax.eval_shape(model.init, jax.random.key(0), X))
        statistics = jax.tree.map(np.abs, variables["batch_stats"])  # a variance is not negative

        def risk(params, x, labels):
            logits = model.apply({"params": params, "batch_stats": statistics}, x)
            return cross_entropy(logits, labels).mean()

        params = variables["params"]
        plane = planes.Plane(params, (drawn(params, seed=3), drawn(params, seed=4)))
        phi = planes.restrict(risk, plane, X, LABELS)
        wanted = jax.jit(risk)(planes.point(plane, 0.3, -2.0), X, LABELS)
        chex.assert_trees_all_close(phi(0.3, -2.0), wanted, rtol=1e-5)
        assert np.isfinite(phi(5.0, 5.0))
