"""Descents by the thousand: swept over whatever makes them, and holding no more than asked."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import descent, neurons, surfaces

X = np.linspace(-1, 1, 7, dtype=np.float32)[:, None]


def bowl(x):
    return jnp.sum(x**2) / 2


def net_loss(network):
    return jnp.mean((neurons.apply_network(network, X) - jnp.sin(2 * X)) ** 2)


def with_momentum(rate, momentum, num_steps=300):
    return descent.optimize(
        bowl,
        jnp.ones(2),
        optimizer=optax.sgd(rate, momentum=momentum),
        num_steps=num_steps,
        tolerance=1e-3,
        record=lambda params: None,
    )


# Sweeps by plain vmap.


def test_a_sweep_over_momenta_equals_a_loop():
    momenta = jnp.array([0.0, 0.5, 0.9, 1.1])

    together = jax.jit(jax.vmap(with_momentum, in_axes=(None, 0)))(0.5, momenta)

    run = jax.jit(with_momentum)
    alone = [run(0.5, momentum) for momentum in momenta]
    chex.assert_trees_all_close(
        together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=1e-4, atol=1e-5
    )
    assert len({int(each.num_steps) for each in alone}) == 4


def test_a_sweep_over_seeds_and_rates_equals_a_loop():
    def train(start, rate):
        return descent.gradient_descent(net_loss, start, learning_rate=rate, num_steps=20).losses

    keys, rates = jax.random.split(jax.random.key(0), 3), np.array([0.05, 0.2], np.float32)
    drawn = jax.jit(jax.vmap(lambda key: neurons.init_network(key, (1, 4, 1))))(keys)
    starts = jax.device_get(drawn)
    over_rates = jax.vmap(train, in_axes=(None, 0))

    losses = jax.device_get(jax.jit(jax.vmap(over_rates, in_axes=(0, None)))(starts, rates))

    alone, each = (
        jax.jit(train),
        [jax.tree.map(lambda leaf, i=i: leaf[i], starts) for i in range(3)],
    )
    expected = [[alone(start, rate) for rate in rates] for start in each]
    chex.assert_shape(losses, (3, 2, 21))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert np.unique(losses[:, 0, 0]).size == 3  # three seeds, three starts
    assert (losses[..., -1] < losses[..., 0]).all()


def test_a_map_of_every_outcome_over_two_hyper_parameters():
    rates, momenta = jnp.array([0.5, 1.9, 2.1, 2.7, 3.1]), jnp.array([0.0, 0.2, 0.5])

    def outcomes(rate, momentum):
        run = with_momentum(rate, momentum)
        return {"status": run.status, "steps": run.num_steps, "loss": bowl(run.params)}

    surface = jax.jit(lambda *axes: surfaces.sweep(outcomes, *axes))(rates, momenta)

    stable = np.asarray(rates)[:, None] < 2 + 2 * np.asarray(momenta)  # the curvature is 1
    expected = np.where(stable, descent.Status.CONVERGED, descent.Status.DIVERGED)
    np.testing.assert_array_equal(surface.values["status"], expected)
    np.testing.assert_array_equal(surface.values["loss"] <= 1e-6, stable)
    assert (surface.values["steps"] < 300).all()


# What is held. A model of a million params, and the memory of its compiled descent in models.

SHAPE, STEPS = (1000, 1000), 1000
WAYS = {
    "by hand": (
        lambda loss_fn, w, **options: descent.gradient_descent(
            loss_fn, w, learning_rate=0.1, **options
        ),
        3.3,  # with a bit, kept in a byte, for each entry that is finite
    ),
    "Adam": (
        lambda loss_fn, w, **options: descent.optimize(
            loss_fn, w, optimizer=optax.adam(0.1), **options
        ),
        8.3,  # with its two means
    ),
}


def models_held(descend, **options):
    lowered = jax.jit(
        lambda w: descend(lambda w: jnp.mean(jnp.tanh(w @ jnp.ones(1000)) ** 2), w, **options)
    ).lower(jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    memory = lowered.compile().memory_analysis()
    assert memory is not None
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / (4 * 1000 * 1000)


def nothing(w):
    del w


def two_numbers(w):
    return {"corner": w[0, 0], "length": jnp.linalg.norm(w)}


@pytest.mark.parametrize("tolerance", [None, 1e-3])
@pytest.mark.parametrize(
    ("way", "record"), [("by hand", nothing), ("by hand", two_numbers), ("Adam", two_numbers)]
)
def test_a_descent_that_keeps_little_holds_a_few_models_whatever_its_steps(way, tolerance, record):
    descend, few = WAYS[way]

    assert models_held(descend, num_steps=STEPS, tolerance=tolerance, record=record) < few


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_descent_that_keeps_its_path_holds_a_model_per_step(tolerance):
    held = models_held(WAYS["by hand"][0], num_steps=20, tolerance=tolerance)

    assert held > 20  # the bounds above are those of the record


def test_a_descent_that_keeps_nothing_stops_at_its_own_step():
    looked = []

    def watched(x):
        jax.debug.callback(lambda: looked.append(1))
        return bowl(x)

    trajectory = descent.gradient_descent(
        watched,
        jnp.ones(2),
        learning_rate=0.5,
        num_steps=1000,
        tolerance=1e-3,
        record=lambda x: None,
    )
    jax.effects_barrier()

    assert trajectory.path is None
    assert trajectory.status == descent.Status.CONVERGED
    assert len(looked) == trajectory.num_steps + 1 == 11  # 0.5^10 is below the tolerance


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_trace_that_the_caller_drops_is_not_kept(tolerance):
    def outcome(rate):
        run = descent.gradient_descent(
            bowl,
            jnp.ones(2),
            learning_rate=rate,
            num_steps=STEPS,
            tolerance=tolerance,
            record=lambda x: None,
        )
        return run.params, run.status, run.num_steps

    rates = jnp.linspace(0.1, 1, 100)
    memory = jax.jit(jax.vmap(outcome)).lower(rates).compile().memory_analysis()

    one_trace = 4 * STEPS * rates.size
    assert memory is not None
    assert memory.temp_size_in_bytes < one_trace / 10
