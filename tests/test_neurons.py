"""What jaxgd.neurons promises."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import neurons


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def neuron_of(weights: Any, bias: Any) -> neurons.Neuron:
    """A neuron of NumPy's numbers, which compile nothing."""
    arrays: Any = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    return neurons.Neuron(*arrays)


def layer_of(rng, num_inputs, *num_outputs):
    return neuron_of(rng.normal(size=(num_inputs, *num_outputs)), rng.normal(size=num_outputs))


# One program each, where what is called is not what is tested.
weighted_sum = jax.jit(neurons.weighted_sum)


def applied(layer, x, **activations):
    return jax.jit(functools.partial(neurons.apply, **activations))(layer, x)


def test_a_weighted_sum_of_one_neuron_is_the_sum_over_its_inputs(rng):
    neuron, x = layer_of(rng, 3), rng.normal(size=(5, 4, 3)).astype(np.float32)

    z = weighted_sum(neuron, x)

    expected = np.zeros((5, 4))
    for i in range(3):
        expected += x[..., i].astype(float) * float(neuron.weights[i])
    expected += float(neuron.bias)
    chex.assert_shape(z, (5, 4))
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)


def test_a_weighted_sum_of_a_layer_is_that_of_each_of_its_neurons(rng):
    layer, x = layer_of(rng, 3, 2), rng.normal(size=(5, 3)).astype(np.float32)

    z = weighted_sum(layer, x)

    chex.assert_shape(z, (5, 2))
    for j in range(2):
        one = neurons.Neuron(weights=layer.weights[:, j], bias=layer.bias[j])
        np.testing.assert_allclose(z[:, j], weighted_sum(one, x), rtol=1e-6, atol=1e-6)


def test_for_one_neuron_row_times_column_is_column_times_row(rng):
    neuron, x = layer_of(rng, 3), rng.normal(size=3).astype(np.float32)

    z = weighted_sum(neuron, x)

    np.testing.assert_allclose(z, neuron.weights @ x + neuron.bias, rtol=1e-6)


def test_a_bias_is_one_more_weight_whose_input_is_one(rng):
    layer, x = layer_of(rng, 3, 2), rng.normal(size=(5, 3)).astype(np.float32)
    longer = neuron_of(np.concatenate([layer.bias[None], layer.weights]), np.zeros(2))

    with_one = np.concatenate([np.ones((5, 1), np.float32), x], axis=1)

    np.testing.assert_allclose(
        weighted_sum(longer, with_one),
        weighted_sum(layer, x),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_inputs_may_be_whole_numbers(dtype):
    neuron = neuron_of([2.0, 1.0, 0.5], -4.0)

    assert float(weighted_sum(neuron, np.array([1, 0, 1], dtype))) == -1.5


def test_a_neuron_applies_the_sigmoid_unless_told_otherwise(rng):
    neuron, x = layer_of(rng, 3), rng.normal(size=(5, 3)).astype(np.float32)
    z = np.asarray(weighted_sum(neuron, x), float)

    np.testing.assert_allclose(applied(neuron, x), 1 / (1 + np.exp(-z)), rtol=1e-6)
    np.testing.assert_allclose(
        applied(neuron, x, activation=jnp.tanh), np.tanh(z), rtol=1e-5, atol=1e-6
    )


def test_the_slope_of_a_sigmoid_neuron_is_a_times_one_minus_a(rng):
    neuron, x = layer_of(rng, 3), rng.normal(size=3).astype(np.float32)

    output, grads = jax.jit(jax.value_and_grad(neurons.apply))(neuron, x)

    slope = np.asarray(output) * (1 - np.asarray(output))
    np.testing.assert_allclose(grads.bias, slope, rtol=1e-5)
    np.testing.assert_allclose(grads.weights, slope * x, rtol=1e-5)


def test_an_activation_sees_the_whole_weighted_sum(rng):
    layer, x = layer_of(rng, 3, 4), rng.normal(size=(5, 3)).astype(np.float32)

    p = applied(layer, x, activation=jax.nn.softmax)

    np.testing.assert_allclose(np.asarray(p).sum(axis=-1), np.ones(5), rtol=1e-6)


def test_a_step_neuron_fires_exactly_when_its_input_reaches_the_threshold():
    threshold = 2.0
    neuron = neuron_of([1.0, 0.5], -threshold)
    inputs = np.array([[1, 1], [1, 1.9], [1, 2], [1, 2.1], [3, 0]], np.float32)

    fires = applied(neuron, inputs, activation=neurons.step)

    np.testing.assert_array_equal(fires, np.array([0.0, 0.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_a_step_is_one_from_zero_on_and_floating_point(dtype):
    fires = jax.jit(neurons.step)(np.array([-3, -1, 0, 1, 7], dtype))

    np.testing.assert_array_equal(fires, np.array([0.0, 0.0, 1.0, 1.0, 1.0]))
    assert jnp.issubdtype(fires.dtype, jnp.floating)


def test_a_step_keeps_nan():
    assert np.isnan(jax.jit(neurons.step)(np.nan))


@pytest.mark.parametrize("z", [-1.0, 0.0, 1.0])
def test_nothing_can_be_learned_through_a_step(z):
    assert float(jax.jit(jax.grad(neurons.step))(z)) == 0.0


def test_a_drawn_neuron_has_one_weight_per_input_and_no_bias():
    @jax.jit
    def drawn(key):
        return neurons.init(key, 3), neurons.init(key, 3, 2)

    neuron, layer = drawn(jax.random.key(0))

    chex.assert_shape((neuron.weights, neuron.bias), [(3,), ()])
    chex.assert_shape((layer.weights, layer.bias), [(3, 2), (2,)])
    assert not np.asarray(neuron.bias).any()
    assert not np.asarray(layer.bias).any()


def test_a_layer_of_one_neuron_is_still_a_layer():
    layer = jax.eval_shape(lambda key: neurons.init(key, 3, 1), jax.random.key(0))

    chex.assert_shape((layer.weights, layer.bias), [(3, 1), (1,)])


def test_drawn_weights_have_mean_zero_and_variance_one_over_the_number_of_inputs():
    init = jax.jit(lambda key: neurons.init(key, 400, 100))
    weights = np.asarray(init(jax.random.key(0)).weights, float)

    # 40,000 draws: the standard error of the mean is 1/200, that of the variance sqrt(2)/200.
    standard = weights * np.sqrt(400)
    assert abs(standard.mean()) < 4 / 200
    assert abs(standard.var() - 1) < 4 * np.sqrt(2) / 200


def test_the_same_key_draws_the_same_and_another_key_something_else():
    init = jax.jit(lambda key: neurons.init(key, 3, 2))

    def draw(seed):
        return init(jax.random.key(seed)).weights

    np.testing.assert_array_equal(draw(0), draw(0))
    assert np.all(np.asarray(draw(0)) != np.asarray(draw(1)))


def test_old_style_keys_serve_too():
    init = jax.jit(lambda *keys: [neurons.init(key, 3) for key in keys])
    chex.assert_trees_all_equal(*init(jax.random.PRNGKey(5), jax.random.key(5)))


def test_a_network_has_a_layer_between_neighbouring_sizes():
    draw = lambda key: neurons.init_network(key, (3, 5, 4, 2))  # noqa: E731
    network = jax.eval_shape(draw, jax.random.key(0))

    assert isinstance(network, tuple)
    assert [layer.weights.shape for layer in network] == [(3, 5), (5, 4), (4, 2)]
    assert [layer.bias.shape for layer in network] == [(5,), (4,), (2,)]


def test_the_layers_of_a_network_are_drawn_independently():
    draw = jax.jit(lambda key: neurons.init_network(key, [3, 3, 3]))
    first, second = draw(jax.random.key(0))

    assert np.all(np.asarray(first.weights) != np.asarray(second.weights))


def test_a_network_applies_its_layers_one_after_another(rng):
    network = (layer_of(rng, 3, 5), layer_of(rng, 5, 4), layer_of(rng, 4, 2))
    x = rng.normal(size=(7, 3)).astype(np.float32)

    @jax.jit
    def applied(network, x):
        plain = neurons.apply_network(network, x)
        activations = {"activation": jnp.sin, "output_activation": jax.nn.sigmoid}
        return plain, neurons.apply_network(network, x, **activations)

    plain, squashed = applied(network, x)

    def by_hand(a, activation):
        for index, layer in enumerate(network):
            a = a @ np.asarray(layer.weights, float) + np.asarray(layer.bias, float)
            a = activation(a) if index < 2 else a
        return a

    np.testing.assert_allclose(plain, by_hand(x, np.tanh), rtol=1e-4, atol=1e-5)
    expected = 1 / (1 + np.exp(-by_hand(x, np.sin)))
    np.testing.assert_allclose(squashed, expected, rtol=1e-4, atol=1e-5)


def test_without_activations_two_layers_collapse_into_one(rng):
    first, second = layer_of(rng, 3, 4), layer_of(rng, 4, 2)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    one = neurons.Neuron(
        weights=first.weights @ second.weights, bias=first.bias @ second.weights + second.bias
    )

    network = jax.jit(functools.partial(neurons.apply_network, activation=lambda z: z))
    np.testing.assert_allclose(
        network((first, second), x), weighted_sum(one, x), rtol=1e-5, atol=1e-5
    )


def test_a_network_may_end_in_a_single_neuron_or_consist_of_one(rng):
    hidden, last = layer_of(rng, 3, 4), layer_of(rng, 4)
    x = rng.normal(size=(5, 3)).astype(np.float32)

    chex.assert_shape(jax.eval_shape(neurons.apply_network, [hidden, last], x), (5,))
    np.testing.assert_array_equal(
        jax.jit(neurons.apply_network)((hidden,), x), weighted_sum(hidden, x)
    )
