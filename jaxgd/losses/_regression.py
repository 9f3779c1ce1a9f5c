"""Losses of numbers that are to be near others: errors squared, halved, absolute."""

import jax.numpy as jnp

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike


def _difference(where: str, predictions: ArrayLike, targets: ArrayLike) -> Array:
    predictions = _checks.floating(where, "predictions", predictions)
    targets = _checks.real(where, "targets", targets)
    _checks.same_shape(where, predictions=predictions, targets=targets)
    return predictions - targets


def squared_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``(z - y)^2``.

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in squared units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.squared_error(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([0., 1., 4.], dtype=float32)
    """
    return jnp.square(_difference("losses.squared_error", predictions, targets))


def half_squared_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``(z - y)^2 / 2``, whose derivative is the residual ``z - y``.

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in squared units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax
      >>> from jaxgd import losses
      >>> jax.grad(losses.half_squared_error)(5.0, 3.0)
      Array(2., dtype=float32, weak_type=True)
    """
    return 0.5 * jnp.square(_difference("losses.half_squared_error", predictions, targets))


def absolute_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``|z - y|``, with derivative 0 where they are equal.

    (``jax.numpy.abs`` has the derivative 1 there.)

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in the units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.absolute_error(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([0., 1., 2.], dtype=float32)
    """
    difference = _difference("losses.absolute_error", predictions, targets)
    return difference * jnp.sign(difference)
