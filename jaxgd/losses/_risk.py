"""The mean of a loss over examples: a function of params and data that can be minimized."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike, LossFn, Params, PyTree

_SWAPPED = "Swapped? Write losses.empirical_risk(predict_fn, loss)."


def empirical_risk(
    predict_fn: Callable[[Params, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], Array],
    *,
    batch_size: int | None = None,
) -> LossFn:
    """Makes the mean loss of a model over a data set: what descent minimizes.

    ``risk(params, inputs, targets) = mean(loss(predict_fn(params, inputs), targets))``

    With a ``batch_size`` the same mean is computed over so many rows at a time, one batch after
    the other, a shorter last one included. A derivative computes the predictions of a batch
    again instead of keeping them, so that values, gradients and Hessian products hold the
    activations of one batch, for about one more forward pass.

    Args:
      predict_fn: ``(params, inputs) -> predictions``, for a whole batch.
      loss: ``(predictions, targets) -> losses``, one per example: its shape is that of the
        targets, or their first axes.
      batch_size: how many rows are computed at once, static, at least 1; None computes all.

    Returns:
      A function ``(params, inputs, targets) -> scalar``. Inputs and targets are arrays, or
      pytrees of arrays, whose first axis counts the examples.

    Raises:
      TypeError: if one of the two is not callable, or ``batch_size`` is no static int.
      ValueError: if ``batch_size`` is below 1; from the function, if ``loss`` does not return
        one value per example, compares each prediction with every target, or, with a
        ``batch_size``, the arrays have different numbers of rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses, neurons
      >>> risk = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
      >>> neuron = neurons.Neuron(weights=jnp.array([2.0]), bias=jnp.array(0.0))
      >>> risk(neuron, jnp.array([[1.0], [2.0]]), jnp.array([3.0, 4.0]))
      Array(0.25, dtype=float32)
    """
    where = "losses.empirical_risk"
    _checks.function(where, "predict_fn", predict_fn)
    _checks.function(where, "loss", loss)
    room = str(getattr(predict_fn, "__module__", ""))
    got = f"the loss {getattr(predict_fn, '__name__', '')}"
    is_loss = room.startswith(("jaxgd.losses", "optax.losses"))
    wanted = "predict_fn must make predictions of params and inputs"
    _checks.that(where, not is_loss, wanted, got, _SWAPPED)
    if batch_size is not None:
        batch_size = _checks.count(where, "batch_size", batch_size, least=1)

    return functools.partial(_risk, predict_fn, loss, batch_size)


def _risk(
    predict_fn: Callable[[Params, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], Array],
    batch_size: int | None,
    params: Params,
    inputs: PyTree,
    targets: PyTree,
) -> Array:
    """A function of a module, so that a risk can be pickled where its functions can."""
    where = "losses.empirical_risk"

    def is_swapped() -> Any:
        values = jax.eval_shape(lambda p: predict_fn(loss(p, inputs), targets), params)
        return _checks.one_per_example(where, jnp.zeros(values.shape), targets)

    def calling(name: str, fn: Any, arguments: tuple[Any, Any], what: str) -> PyTree:
        wanted = "predict_fn must make predictions of params and inputs"
        with (
            _checks.suspecting(where, is_swapped, wanted, "one that compares", _SWAPPED),
            _checks.calling(where, name, fn, arguments, what),
        ):
            return fn(*arguments)

    def per_example(params: Params, inputs: PyTree, targets: PyTree) -> Array:
        predictions = calling("predict_fn", predict_fn, (params, inputs), "params, inputs")
        values = calling("loss", loss, (predictions, targets), "predictions, targets")
        values = _checks.one_per_example(where, values, targets)
        _checks.each_with_its_own(where, loss, predictions, targets)
        return values

    if batch_size is None:
        return jnp.mean(per_example(params, inputs, targets))
    num_rows = _num_rows(where, {"inputs": inputs, "targets": targets})
    if num_rows <= batch_size:
        return jnp.mean(per_example(params, inputs, targets))
    return _mean_over_batches(per_example, params, (inputs, targets), num_rows, batch_size)


def _num_rows(where: str, data: dict[str, Any]) -> int:
    """The number of examples, which the first axes of all arrays count."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(data)]
    rows = {shape[0] if shape else None for shape in shapes}
    got = ", ".join(str(shape) for shape in shapes)
    wanted = "with a batch_size, the first axes of inputs and targets must have one length"
    _checks.that(where, len(rows) == 1 and None not in rows, wanted, f"shapes {got}")
    return shapes[0][0]


def _mean_over_batches(
    per_example: Callable[..., Array], params: Params, data: Any, num_rows: int, batch_size: int
) -> Array:
    """The mean of values per example, batch by batch, with the activations of one of them."""
    num_batches, num_left = divmod(num_rows, batch_size)

    @jax.checkpoint
    def total(params: Params, batch: PyTree) -> Array:
        return jnp.sum(per_example(params, *batch), dtype=wide)

    def rows(start: ArrayLike, size: int) -> PyTree:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), data)

    def add(so_far: Array, index: Array) -> tuple[Array, None]:
        return so_far + total(params, rows(index * batch_size, batch_size)), None

    data = jax.tree.map(jnp.asarray, data)
    losses = jax.eval_shape(per_example, params, *rows(0, batch_size))
    mean = jax.eval_shape(jnp.mean, losses)  # of counts and of booleans a floating-point number
    wide = np.promote_types(mean.dtype, np.float32)
    summed, _ = jax.lax.scan(add, jnp.zeros((), wide), jnp.arange(num_batches))
    if num_left:
        summed = summed + total(params, rows(num_rows - num_left, num_left))
    num_values = num_rows * (losses.size // batch_size)
    return (summed / num_values).astype(mean.dtype)
