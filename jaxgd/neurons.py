"""What we train: one neuron, a layer of them, a network of layers.

A neuron has five parts: the input x, the weights w, the bias b, the weighted sum
``z = x @ w + b`` and the activation ``a(z)``. An input is a row, so a batch of inputs is
a matrix whose rows are examples, and a layer is a neuron with one column of weights per
output.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike, PRNGKey, PyTree

__all__ = [
    "Neuron",
    "apply",
    "apply_network",
    "init",
    "init_network",
    "step",
    "weighted_sum",
]


class Neuron(NamedTuple):
    """The parameters of one neuron, or of a layer of n neurons that share their input.

    Attributes:
      weights: shape (m,) for one neuron, (m, n) for a layer; ``weights[i, j]`` joins
        input i to neuron j.
      bias: shape () for one neuron, (n,) for a layer. It is minus the threshold of the
        weighted input at which a step neuron begins to fire.
    """

    weights: Array
    bias: Array


def init(key: PRNGKey, num_inputs: int, num_outputs: int | None = None) -> Neuron:
    """Draws a neuron, or a layer, with weights from N(0, 1 / m) and a bias of zero.

    With that variance, inputs of unit variance give a weighted sum of unit variance.

    Args:
      key: a PRNG key.
      num_inputs: m, static.
      num_outputs: n, static; None for a single neuron.

    Returns:
      A Neuron with weights of shape (m,) or (m, n).

    Raises:
      TypeError: if ``key`` is no key or a number is not an int.
      ValueError: if a number is below 1.

    Example:
      >>> import jax
      >>> from jaxgd import neurons
      >>> neurons.init(jax.random.key(0), 3, 2).weights.shape
      (3, 2)

    Source:
      LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, Sec. 4.6.
    """
    _checks.key("neurons.init", "key", key)
    num_inputs = _checks.count("neurons.init", "num_inputs", num_inputs, least=1)
    outputs = ()
    if num_outputs is not None:
        outputs = (_checks.count("neurons.init", "num_outputs", num_outputs, least=1),)
    weights = jax.random.normal(key, (num_inputs, *outputs)) / jnp.sqrt(num_inputs)
    return Neuron(weights=weights, bias=jnp.zeros(outputs, weights.dtype))


def weighted_sum(neuron: Neuron, x: ArrayLike) -> Array:
    """Computes ``z = x @ w + b``.

    Args:
      neuron: weights (m,) or (m, n), bias () or (n,).
      x: shape (..., m); leading axes are a batch.

    Returns:
      Shape (...) for one neuron, (..., n) for a layer.

    Raises:
      TypeError: if ``neuron`` is not a Neuron or ``x`` is not an array.
      ValueError: if the last axis of ``x`` is not m, or the bias does not fit the weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import neurons
      >>> neuron = neurons.Neuron(weights=jnp.array([2.0, 1.0, 0.5]), bias=jnp.array(-4.0))
      >>> neurons.weighted_sum(neuron, jnp.array([1.0, 2.0, 4.0]))
      Array(2., dtype=float32)
    """
    return _weighted_sum("neurons.weighted_sum", neuron, x)


def _weighted_sum(where: str, neuron: Neuron, x: ArrayLike) -> Array:
    _checks.instance(
        where, "neuron", neuron, Neuron, "Write neurons.Neuron(weights=..., bias=...)."
    )
    weights = _checks.floating(where, "neuron.weights", neuron.weights)
    bias = _checks.floating(where, "neuron.bias", neuron.bias)
    _checks.that(
        where,
        weights.ndim in (1, 2) and bias.shape == weights.shape[1:],
        "weights and bias must have shapes (m,) and (), or (m, n) and (n,)",
        f"{weights.shape} and {bias.shape}",
    )
    x = _checks.real(where, "x", x)
    size = weights.shape[0]
    _checks.that(
        where,
        x.shape[-1:] == (size,),
        f"x must have a last axis of {size}, one entry per weight",
        f"shape {x.shape}",
        "Write x.T." if x.ndim == 2 and x.shape[0] == size else "",
    )
    products = x @ weights
    return products + jnp.broadcast_to(bias, products.shape)


def apply(
    neuron: Neuron, x: ArrayLike, *, activation: Callable[[Array], Array] = jax.nn.sigmoid
) -> Array:
    """Computes the output ``a(x @ w + b)`` of a neuron or a layer.

    Args:
      neuron: weights (m,) or (m, n), bias () or (n,).
      x: shape (..., m).
      activation: applied to the whole weighted sum, so that it may be a softmax; static.

    Returns:
      Shape (...) for one neuron, (..., n) for a layer.

    Raises:
      TypeError: if ``neuron`` is not a Neuron, ``x`` not an array, ``activation`` not callable.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import neurons
      >>> neuron = neurons.Neuron(weights=jnp.array([1.0, -1.0]), bias=jnp.array(0.0))
      >>> x = jnp.array([2.0, 2.0])
      >>> neurons.apply(neuron, x)
      Array(0.5, dtype=float32)
      >>> jax.grad(neurons.apply)(neuron, x).weights
      Array([0.5, 0.5], dtype=float32)
    """
    _checks.function("neurons.apply", "activation", activation)
    return _activated("neurons.apply", "activation", activation, neuron, x)


def _activated(
    where: str, name: str, activation: Callable[[Array], Array], neuron: Neuron, x: ArrayLike
) -> Array:
    weighted = _weighted_sum(where, neuron, x)
    with _checks.calling(where, name, activation, (weighted,), "the weighted sum"):
        output = activation(weighted)
    return _checks.array(where, f"the output of {name}", output)


def step(z: ArrayLike) -> Array:
    """Fires or not: 1 where ``z >= 0``, else 0, and NaN where z is NaN.

    With ``b = -t``, a neuron with this activation fires exactly when its weighted input
    ``x @ w`` reaches the threshold t. Its derivative is 0 wherever it has one, so nothing
    can be learned through it: use a sigmoid.

    Args:
      z: shape (...), real.

    Returns:
      Shape (...), floating-point.

    Raises:
      TypeError: if ``z`` is not an array of real numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import neurons
      >>> neurons.step(jnp.array([-0.1, 0.0, 0.1]))
      Array([0., 1., 1.], dtype=float32)

    Source:
      McCulloch and Pitts, A logical calculus of the ideas immanent in nervous activity, 1943.
    """
    return jnp.heaviside(_checks.real("neurons.step", "z", z), 1.0)


def init_network(key: PRNGKey, sizes: Sequence[int]) -> tuple[Neuron, ...]:
    """Draws one layer for each pair of neighbouring sizes.

    Args:
      key: a PRNG key.
      sizes: widths from the input to the output, static: (3, 4, 2) has two layers.

    Returns:
      ``len(sizes) - 1`` layers; layer l has weights of shape ``(sizes[l], sizes[l + 1])``.

    Raises:
      TypeError: if ``key`` is no key or a size is not an int.
      ValueError: if there are fewer than two sizes, or one is below 1.

    Example:
      >>> import jax
      >>> from jaxgd import neurons
      >>> network = neurons.init_network(jax.random.key(0), (3, 4, 2))
      >>> [layer.weights.shape for layer in network]
      [(3, 4), (4, 2)]
    """
    where = "neurons.init_network"
    _checks.key(where, "key", key)
    _checks.instance(where, "sizes", sizes, Sequence)
    _checks.that(where, len(sizes) >= 2, "expected at least two sizes", str(len(sizes)))
    sizes = [_checks.count(where, f"sizes[{i}]", size, least=1) for i, size in enumerate(sizes)]
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(init(k, m, n) for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True))


def apply_network(
    network: Sequence[Neuron],
    x: ArrayLike,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    output_activation: Callable[[Array], Array] | None = None,
) -> Array:
    """Applies the layers one after another.

    Without activations the layers would collapse into a single one, since
    ``(x @ W1 + B1) @ W2 + B2 = x @ (W1 @ W2) + (B1 @ W2 + B2)``.

    Args:
      network: the layers, from the input to the output.
      x: shape (..., m), m being the number of inputs of the first layer.
      activation: between the layers; static.
      output_activation: after the last layer; None leaves the weighted sum, the logits
        of a classifier or the prediction of a regression; static.

    Returns:
      Shape (..., n), n being the number of outputs of the last layer.

    Raises:
      TypeError: if a layer is not a Neuron, ``x`` not an array, an activation not callable.
      ValueError: if there is no layer, or the shapes do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import neurons
      >>> network = neurons.init_network(jax.random.key(0), (3, 4, 2))
      >>> neurons.apply_network(network, jnp.ones((5, 3))).shape
      (5, 2)
    """
    where = "neurons.apply_network"
    _checks.instance(where, "network", network, Sequence)
    # A Neuron is itself a tuple, of two arrays, which must not pass for two layers.
    layers: tuple[PyTree, ...] = () if isinstance(network, Neuron) else tuple(network)
    got, cure = ("a Neuron", "Write (layer,) for one layer.") if network else ("none", "")
    _checks.that(where, len(layers) > 0, "network must be a tuple of layers", got, cure)
    _checks.function(where, "activation", activation)
    if output_activation is not None:
        _checks.function(where, "output_activation", output_activation)
    for layer in layers[:-1]:
        x = _activated(where, "activation", activation, layer, x)
    if output_activation is None:
        return _weighted_sum(where, layers[-1], x)
    return _activated(where, "output_activation", output_activation, layers[-1], x)
