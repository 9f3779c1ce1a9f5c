"""What minibatches see of a loss: its curvature along their gradients, and their noise."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.curvature import _loader, _products, _vectors
from jaxgd.curvature._products import Block, Where
from jaxgd.curvature._traces import standard_error_of
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, LossFn, Params, PyTree


class Estimate(NamedTuple):
    """A figure from a sample of batches, and how far to trust it.

    Attributes:
      value: shape ().
      standard_error: shape (): the spread to expect of ``value`` from sample to sample, if the
        batches are drawn independently.
    """

    value: Array
    standard_error: Array

    __repr__ = short_repr


def batch_sharpness(
    loss_fn: LossFn, params: Params, *data: PyTree, per_step: PyTree, where: Where = None
) -> Estimate:
    """Estimates the curvature that a step on a batch meets on that batch.

    ``mean over t of g_t . H_t g_t / g_t . g_t``, g_t and H_t being the gradient and the Hessian
    of batch t. With small batches it settles at 2 / learning rate, while the sharpness of the
    whole loss stays below. The batches come one after another; each costs three gradients.

    Args:
      loss_fn: ``loss_fn(params, *data, slice) -> scalar``, the loss on a batch.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      per_step: a pytree whose arrays share a leading axis, of at least 2: slice t is the last
        argument of ``loss_fn``: rows as of ``descent.minibatches``, batches, or keys.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays make the block whose
        gradient and Hessian are taken.

    Returns:
      An Estimate, in float32 or better. The standard error is the standard deviation of the
      ratios over the square root of their number.

    Raises:
      TypeError: if ``loss_fn`` or ``where`` is not callable, the params or the loss not
        floating-point, or ``per_step`` holds a list of numbers.
      ValueError: if there are no params, the loss is no scalar, or ``per_step`` has no leading
        axis of at least 2 that all its arrays share.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 1.0, 0.0])
      >>> estimate = curvature.batch_sharpness(
      ...     lambda w, x, y, rows: jnp.mean((w * x[rows] - y[rows]) ** 2), 0.5, x, y,
      ...     per_step=jnp.array([[0, 1], [0, 2], [1, 2]]),
      ... )
      >>> print(*[round(float(figure), 3) for figure in estimate])
      9.333 2.333

    Source:
      Andreyev and Beneventano, Edge of stochastic stability: revisiting the edge of stability
      for SGD, 2024.
    """
    caller = "curvature.batch_sharpness"
    _checks.function(caller, "loss_fn", loss_fn)
    _check_slices(caller, per_step, least=2)
    block = _products.block_of(caller, _checks.params(caller, "params", params), where)

    data = _on_device(data)

    def ratio(inputs: PyTree) -> Array:
        with _suspecting_list(caller, loss_fn, params, data, per_step):
            gradient, product = _products.linearized_gradient(
                caller, loss_fn, block, (*data, inputs), what=_what(data)
            )
        direction = _vectors.unit(_vectors.widened(gradient))
        image = product(_products.narrowed(direction, block))
        return _vectors.dot(direction, _vectors.widened(image))

    ratios = jax.lax.map(ratio, per_step)
    return _loader.compiled(_mean_of)(ratios)


def _mean_of(ratios: Array) -> Estimate:
    return Estimate(value=ratios.mean(), standard_error=standard_error_of(ratios))


def gradient_noise_scale(
    loss_fn: LossFn, params: Params, *data: PyTree, per_step: PyTree, where: Where = None
) -> Estimate:
    """Estimates how noisy the gradients of batches are, relative to the gradient they share.

    ``tr Sigma / |G|^2``, Sigma being the covariance of the gradients g_t of the batches and G
    their mean. With batches of B rows drawn at random, B times this figure is the noise scale
    of one row: batches far smaller than that waste no row, far larger ones gain little.

    With T batches, ``tr Sigma`` is estimated by ``sum |g_t - g|^2 / (T - 1)``, g being the mean
    of the g_t, and ``|G|^2`` by ``|g|^2 - tr Sigma / T``; neither is biased. Where the noise
    drowns the gradient the second may be zero or negative, and so the figure infinite or
    negative: more batches help. Each batch costs two gradients; as memory, the params twice.

    Args:
      loss_fn: ``loss_fn(params, *data, slice) -> scalar``, the loss on a batch.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      per_step: a pytree whose arrays share a leading axis, of at least 3: slice t is the last
        argument of ``loss_fn``: rows as of ``descent.minibatches``, batches, or keys.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays make the block whose
        gradient is taken.

    Returns:
      An Estimate, in float32 or better. The standard error is that of the jackknife: from the
      spread of the figures without one batch each.

    Raises:
      TypeError: if ``loss_fn`` or ``where`` is not callable, the params or the loss not
        floating-point, or ``per_step`` holds a list of numbers.
      ValueError: if there are no params, the loss is no scalar, or ``per_step`` has no leading
        axis of at least 3 that all its arrays share.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 1.0, 0.0])
      >>> estimate = curvature.gradient_noise_scale(
      ...     lambda w, x, y, row: (w * x[row] - y[row]) ** 2, 1.0, x, y,
      ...     per_step=jnp.arange(3),
      ... )
      >>> print(round(float(estimate.value), 3))
      11.286

    Source:
      McCandlish, Kaplan, Amodei et al., An empirical model of large-batch training, 2018,
      Sec. 2.2; Efron and Stein, The jackknife estimate of variance, 1981.
    """
    caller = "curvature.gradient_noise_scale"
    _checks.function(caller, "loss_fn", loss_fn)
    _check_slices(caller, per_step, least=3)
    block = _products.block_of(caller, _checks.params(caller, "params", params), where)

    data = _on_device(data)

    def gradient_of(inputs: PyTree) -> Vector:
        gradient = _products.gradient_of(caller, loss_fn, block, (*data, inputs), what=_what(data))
        with _suspecting_list(caller, loss_fn, params, data, per_step):
            return _vectors.widened(gradient(block.leaves))

    scale, mean = _mean_and_scale(gradient_of, block, per_step)
    near_one = _vectors.divided(mean, scale)

    def deviation(inputs: PyTree) -> tuple[Array, Array]:
        gradient = _vectors.divided(gradient_of(inputs), scale)
        rest = [g - m for g, m in zip(gradient, near_one, strict=True)]
        return _vectors.dot(rest, rest), _vectors.dot(rest, near_one)

    squares, along = jax.lax.map(deviation, per_step)
    return _loader.compiled(_noise_estimate)(squares, along, near_one)


def _noise_estimate(squares: Array, along: Array, near_one: Vector) -> Estimate:
    """The figure and its error, of what each slice's gradient adds to each sum."""
    total, mean_square = squares.sum(), _vectors.dot(near_one, near_one)
    num_slices, others = len(squares), len(squares) - 1
    # The same figure without slice t, from what slice t adds to each sum.
    without = _noise_scale(
        total - squares * num_slices / others,
        mean_square - 2 * along / others + squares / others**2,
        others,
    )
    return Estimate(
        value=_noise_scale(total, mean_square, num_slices),
        standard_error=without.std() * others**0.5,
    )


def _noise_scale(sum_of_squares: Array, mean_square: Array, num_slices: int) -> Array:
    trace = sum_of_squares / (num_slices - 1)
    return trace / (mean_square - trace / num_slices)


def _mean_and_scale(
    gradient_of: Callable[[Any], Vector], block: Block, per_step: PyTree
) -> tuple[Array, Vector]:
    """The mean gradient, and a power of two near the largest entry of all gradients."""

    def add(carry: _Mean, inputs: PyTree) -> tuple[_Mean, None]:
        gradient = gradient_of(inputs)
        num_seen = carry.num_seen + 1
        mean = [m + (g - m) / num_seen for m, g in zip(carry.mean, gradient, strict=True)]
        return _Mean(num_seen, jnp.maximum(carry.scale, _vectors.scale_of(gradient)), mean), None

    zeros = [jnp.zeros_like(leaf) for leaf in _vectors.widened(block.leaves)]
    nothing = jnp.zeros((), _vectors.wide_dtype(block.leaves))
    (_, scale, mean), _ = jax.lax.scan(add, _Mean(nothing, nothing, zeros), per_step)
    return scale, mean


class _Mean(NamedTuple):
    """A running mean of gradients."""

    num_seen: Array
    scale: Array
    mean: Vector


def _on_device(data: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    """The data with NumPy's arrays made JAX's, which take the traced rows of a batch."""

    def moved(leaf: Array) -> PyTree:
        is_numbers = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf"
        return jnp.asarray(leaf) if is_numbers else leaf

    return jax.tree.map(moved, data)


def _what(data: tuple[PyTree, ...]) -> str:
    """What a loss of a batch takes, in words."""
    return f"params{', data' * bool(data)} and the slice of per_step"


@contextlib.contextmanager
def _suspecting_list(
    caller: str, loss_fn: LossFn, params: Params, data: tuple[PyTree, ...], per_step: PyTree
) -> Iterator[None]:
    """A call of a loss that fails where per_step is a list of slices, and not arrays of them."""
    cure = _checks.stack_cure("per_step", per_step)
    if not cure:
        yield
        return

    def takes(*entries: PyTree) -> PyTree:
        return jax.eval_shape(loss_fn, params, *data, *entries)

    wanted, got = "per_step must be arrays with a leading axis", "a list of slices"
    of_batch = f"{cure} The loss is then lambda params, batch: loss_fn(params, *batch)."
    with (
        _checks.suspecting(caller, lambda: takes(per_step[0]), wanted, got, cure),
        _checks.suspecting(caller, lambda: takes(*per_step[0]), wanted, got, of_batch),
    ):
        yield


def _check_slices(caller: str, per_step: PyTree, least: int) -> None:
    """Refuses arrays without a leading axis that all share, or with too few slices."""
    leaves = jax.tree.leaves_with_path(per_step, is_leaf=_checks.is_numbers)
    shapes = [
        _checks.array(caller, f"per_step{jax.tree_util.keystr(path)}", leaf).shape
        for path, leaf in leaves
    ]
    lengths = {shape[:1] for shape in shapes}
    wanted = "the arrays of per_step must share a leading axis"
    got = f"shapes {', '.join(map(str, dict.fromkeys(shapes)))}" if shapes else "none"
    cure = _checks.stack_cure("per_step", per_step)
    is_one_key = shapes == [()] and _checks.is_key(leaves[0][1])
    cure = "For one key per slice write jax.random.split(key, num_slices)." if is_one_key else cure
    _checks.that(caller, len(lengths) == 1 and lengths != {()}, wanted, got, cure)
    num_slices = shapes[0][0]
    wanted = f"per_step must hold at least {least} slices"
    _checks.that(caller, num_slices >= least, wanted, str(num_slices), cure)
