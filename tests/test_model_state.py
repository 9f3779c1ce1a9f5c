"""Models with a state of their own: batch statistics and dropout train through descent.optimize."""

from typing import Any

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgd import descent, planes

N, RATE = 5, 0.1
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.sin(X[:, 0]).astype(np.float32)
ROWS = np.stack([np.random.default_rng(t).permutation(12)[:4] for t in range(N)]).astype(np.int32)
KEYS = jax.random.wrap_key_data(jax.device_put(np.arange(2 * N, dtype=np.uint32).reshape(N, 2)))


def drawn(shapes):
    """Positive arrays of these shapes, drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(2)

    def draw(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.device_put(rng.uniform(0.2, 1, leaf.shape).astype(leaf.dtype))

    return jax.tree.map(draw, shapes)


def flax_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.output = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 1, rngs=rngs)
            self.norm = nnx.BatchNorm(5, momentum=0.5, rngs=rngs)
            self.dropout = nnx.Dropout(0.25)

        def __call__(self, x, rngs):
            return self.output(self.dropout(nnx.tanh(self.norm(self.hidden(x))), rngs=rngs))

    net = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    graph, params, statistics, rest = nnx.split(net, nnx.Param, nnx.BatchStat, ...)
    params, statistics = drawn((params, statistics))

    def apply(params, statistics, x, key):
        net = nnx.merge(graph, params, statistics, rest, copy=True)
        output = net(x, nnx.Rngs(key))
        return output[:, 0], nnx.state(net, nnx.BatchStat)

    return params, statistics, apply


@pytest.mark.parametrize(
    "call",
    [
        lambda params: descent.gradient_descent(jnp.sum, params, learning_rate=RATE, num_steps=1),
        lambda params: planes.random(KEYS[0], params),
    ],
)
def test_a_model_is_not_trained_or_drawn_together_with_its_running_averages(call):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.norm = nnx.Linear(3, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)

    net = Net(nnx.Rngs(0))
    says = r"running averages of a batch norm \(params.*mean.*, params.*var.*\)\. Leave them out"
    with pytest.raises(TypeError, match=says):
        call(net)
    with pytest.raises(TypeError, match=says):
        call(nnx.state(net))
    with pytest.raises(TypeError, match=r"\(params\['batch_stats'\]\)\. Pass params\['params'\]"):
        call({"params": jnp.ones(2), "batch_stats": jnp.ones(2)})


def flax_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False, momentum=0.5)(nn.Dense(5)(x))
            return nn.Dense(1)(nn.Dropout(0.25, deterministic=False)(nn.tanh(x)))

    net = Net()
    keys = {"params": jax.random.key(2), "dropout": jax.random.key(3)}
    variables = drawn(jax.eval_shape(net.init, keys, X[:4]))

    def apply(params, statistics, x, key):
        variables = {"params": params, "batch_stats": statistics}
        output, updated = net.apply(variables, x, mutable=["batch_stats"], rngs={"dropout": key})
        return output[:, 0], updated["batch_stats"]

    return variables["params"], variables["batch_stats"], apply


def equinox():
    class Net(eqx.Module):
        hidden: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        output: eqx.nn.Linear

        def __init__(self, key):
            first, second = jax.random.split(key)
            self.hidden = eqx.nn.Linear(3, 5, key=first)
            self.norm = eqx.nn.BatchNorm(5, axis_name="batch", momentum=0.5, mode="batch")
            self.dropout = eqx.nn.Dropout(0.25)
            self.output = eqx.nn.Linear(5, "scalar", key=second)

        def __call__(self, x, state, key):
            x, state = self.norm(self.hidden(x), state)
            return self.output(self.dropout(jnp.tanh(x), key=key)), state

    make = eqx.nn.make_with_state(Net)
    net, statistics = drawn(eqx.filter_eval_shape(make, jax.random.key(4)))
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def apply(params, statistics, x, key):
        net = jax.vmap(
            eqx.combine(params, static), axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None)
        )
        return net(x, statistics, jax.random.split(key, len(x)))

    return params, statistics, apply


@pytest.mark.parametrize("make", [flax_nnx, flax_linen, equinox])
def test_a_model_with_batch_statistics_and_dropout_trains_as_in_its_own_loop(make):
    params, statistics, apply = make()

    def loss(params, x, y, step):  # the running averages enter neither loss nor gradient
        rows, key = step
        prediction, _ = apply(params, statistics, x[rows], key)
        return jnp.mean((prediction - y[rows]) ** 2)

    run = jax.jit(
        lambda params: descent.optimize(
            loss, params, X, Y, optimizer=optax.sgd(RATE), num_steps=N, per_step=(ROWS, KEYS)
        )
    )(params)

    @jax.jit
    def own_step(params, statistics, rows, key):
        def own_loss(params):
            prediction, updated = apply(params, statistics, jnp.asarray(X)[rows], key)
            return jnp.mean((prediction - jnp.asarray(Y)[rows]) ** 2), updated

        grads, updated = jax.grad(own_loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), updated

    own_params, own_statistics = params, statistics
    for rows, key in zip(ROWS, KEYS, strict=True):
        own_params, own_statistics = own_step(own_params, own_statistics, rows, key)
    chex.assert_trees_all_close(run.params, own_params, rtol=1e-4, atol=1e-6)

    # The same running averages, from the path: each step updates them at its own params.
    def update(statistics: Any, step: Any) -> tuple[Any, None]:
        params, rows, key = step
        return apply(params, statistics, jnp.asarray(X)[rows], key)[1], None

    path = jax.tree.map(lambda rows: rows[:-1], run.path)
    updated, _ = jax.jit(lambda: jax.lax.scan(update, statistics, (path, ROWS, KEYS)))()
    chex.assert_trees_all_close(updated, own_statistics, rtol=1e-4, atol=1e-6)
    moved = jax.tree.map(lambda a, b: np.any(np.asarray(a) != np.asarray(b)), updated, statistics)
    assert any(jax.tree.leaves(moved))
