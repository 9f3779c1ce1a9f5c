"""Sums and entries of the Hessian, estimated by random probes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.curvature import _loader, _products, _vectors
from jaxgd.curvature._products import Where
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, LossFn, Params, PRNGKey, PyTree


class TraceEstimate(NamedTuple):
    """A random estimate of a Hessian's trace, and how far to trust it.

    Attributes:
      value: shape (): the mean over the probes; right on average.
      standard_error: shape (): the spread to expect of ``value`` from key to key.
    """

    value: Array
    standard_error: Array

    __repr__ = short_repr


def hessian_trace(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_samples: int,
    where: Where = None,
    batches: Any = None,
) -> TraceEstimate:
    """Estimates the trace of the Hessian, the sum of all its eigenvalues.

    For a probe v of random signs, ``v . H v`` is the trace on average: the entries off the
    diagonal cancel. Where there are none, one probe is exact. The probes run one after
    another, so that the memory is that of one product with the Hessian.

    Args:
      key: a PRNG key, for the probes.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_samples: how many probes, static, at least 2; four times as many halve the error.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays make the block of the
        Hessian whose trace is taken.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      A TraceEstimate, in float32 or better. Its standard error is the standard deviation of the
      probes' values over the square root of ``num_samples``; itself an estimate, rough from few
      probes.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or ``num_samples`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_samples`` is
        below 2.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> trace = curvature.hessian_trace(
      ...     jax.random.key(0), lambda x: x @ (jnp.array([1.0, -5.0, 3.0]) * x) / 2,
      ...     jnp.zeros(3), num_samples=2,
      ... )
      >>> float(trace.value), float(trace.standard_error)
      (-1.0, 0.0)

    Source:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    caller = "curvature.hessian_trace"
    _checks.key(caller, "key", key)
    num_samples = _checks.count(caller, "num_samples", num_samples, least=2)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    like = _vectors.widened(block.leaves)

    def sample(key: PRNGKey) -> Array:
        probe = _loader.compiled(_vectors.signs)(key, like)
        return _loader.compiled(_vectors.dot)(probe, product(probe))

    samples = _loader.each(product, sample, jax.random.split(key, num_samples))
    error = _loader.compiled(standard_error_of)(samples)
    return TraceEstimate(value=samples.mean(), standard_error=error)


class DiagonalEstimate(NamedTuple):
    """A random estimate of a Hessian's diagonal, and how far to trust each entry.

    Attributes:
      value: shaped like the params: the mean over the probes; zero outside the block asked for.
      standard_error: shaped like the params: the spread to expect of each entry from key to key.
    """

    value: Params
    standard_error: Params

    __repr__ = short_repr


def hessian_diagonal(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_samples: int,
    where: Where = None,
    batches: Any = None,
) -> DiagonalEstimate:
    """Estimates the diagonal of the Hessian, the second derivative in each number alone.

    For a probe v of random signs, ``v * H v`` is the diagonal on average, and where H has no
    other entries exactly. The variance of an entry is the sum of the squares of all others in
    its row, over the number of probes. The probes run one after another; the mean and the sum
    of squares are carried along, so that four vectors of the params' size are kept.

    Args:
      key: a PRNG key, for the probes.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_samples: how many probes, static, at least 2; four times as many halve the error.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays make the block of the
        Hessian whose diagonal is taken.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      A DiagonalEstimate, in the dtypes of the params; summed in float32 or better.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or ``num_samples`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_samples`` is
        below 2.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> diagonal = curvature.hessian_diagonal(
      ...     jax.random.key(0), lambda x: x[0] ** 3 + 2 * x[1] ** 2, jnp.array([1.0, 5.0]),
      ...     num_samples=2,
      ... )
      >>> diagonal.value, diagonal.standard_error
      (Array([6., 4.], dtype=float32), Array([0., 0.], dtype=float32))

    Source:
      Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007.
    """
    caller = "curvature.hessian_diagonal"
    _checks.key(caller, "key", key)
    num_samples = _checks.count(caller, "num_samples", num_samples, least=2)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    like = _vectors.widened(block.leaves)

    zeros = [jnp.zeros_like(leaf) for leaf in like]
    counts = jnp.arange(1, num_samples + 1, dtype=_vectors.wide_dtype(like))
    keys = jax.random.split(key, num_samples)
    start = _Moments(zeros, zeros, jnp.zeros((), counts.dtype))
    sums = _loader.along(product, _probe, _with_probe, start, (counts, keys))[0]
    degrees = num_samples * (num_samples - 1)
    errors = [sums.scale * jnp.sqrt(leaf / degrees) for leaf in sums.squares]
    return DiagonalEstimate(
        value=block.embed(_products.narrowed(sums.mean, block)),
        standard_error=block.embed(_products.narrowed(errors, block)),
    )


class _Moments(NamedTuple):
    """A running mean, and the squared deviations from it over the square of a scale."""

    mean: Vector
    squares: Vector
    scale: Array


def _probe(sums: _Moments, inputs: tuple[Array, PRNGKey]) -> Vector:
    return _vectors.signs(inputs[1], sums.mean)


def _with_probe(
    sums: _Moments, inputs: tuple[Array, PRNGKey], probe: Vector, image: Vector
) -> tuple[_Moments, None]:
    num_seen, _ = inputs
    entries = [v * h for v, h in zip(probe, image, strict=True)]
    before = [e - m for e, m in zip(entries, sums.mean, strict=True)]
    mean = [m + d / num_seen for m, d in zip(sums.mean, before, strict=True)]
    scale = jnp.maximum(sums.scale, _vectors.scale_of(entries))
    squares = [
        q * (sums.scale / scale) ** 2 + (d / scale) * ((e - m) / scale)
        for q, d, e, m in zip(sums.squares, before, entries, mean, strict=True)
    ]
    return _Moments(mean, squares, scale), None


def standard_error_of(samples: Array) -> Array:
    """The spread to expect of the samples' mean; without over- or underflow."""
    scale = _vectors.scale_of([samples])
    return (samples / scale).std(ddof=1) / len(samples) ** 0.5 * scale
