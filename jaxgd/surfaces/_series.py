"""A smooth function as a Chebyshev series."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.types import Array, ArrayLike, PyTree


class Approximation(NamedTuple):
    """A smooth function of k coordinates as a Chebyshev series.

    With ``x = (2 t - low - high) / (high - low)`` on each axis, its value at ``(t_1, ..., t_k)`` is
    the sum of ``coefficients[j_1, ..., j_k] T_{j_1}(x_1) ... T_{j_k}(x_k)``.

    Attributes:
      domains: shape (k, 2): the lowest and highest coordinate of each axis.
      coefficients: arrays of shape (n_1, ..., n_k), shaped like the function's output.
      errors: scalars: how far the series may be off, in the unit of the values: twice the largest
        deviation seen at points that the fit did not use, three times it where the status is
        MAX_STEPS; NaN where it is NON_FINITE.
      num_points: int32, shape (): how many evaluations of the function it took.
      status: int32, shape (), a ``types.Status``: CONVERGED; MAX_STEPS if the tolerance was not
        reached; NON_FINITE if a value was not finite.
    """

    domains: Array
    coefficients: PyTree
    errors: PyTree
    num_points: Array
    status: Array

    __repr__ = short_repr


def evaluate(approximation: Approximation, *coordinates: ArrayLike) -> PyTree:
    """Computes a Chebyshev series at a point of its domains.

    Like a function of k scalars it goes into ``surfaces.sweep`` at any resolution, and into
    ``jax.grad`` and ``jax.hessian``: slopes and curvature of the surface, up to its borders.

    Args:
      approximation: what ``sweeps.approximate`` returned.
      *coordinates: k scalars.

    Returns:
      Scalars, shaped like the function's output; NaN outside of the domains, where a series says
      nothing.

    Raises:
      TypeError: if ``approximation`` is not an Approximation or a coordinate is no number.
      ValueError: if there are not k coordinates or one is not a scalar.

    Example:
      >>> import jax
      >>> from jaxgd import surfaces, sweeps
      >>> square = sweeps.approximate(lambda t: t**2, (-1.0, 3.0), tolerance=1e-3, progress=False)
      >>> surfaces.evaluate(square, 2.0).round(3)
      Array(4., dtype=float32)
      >>> jax.grad(lambda t: surfaces.evaluate(square, t))(2.0).round(3)
      Array(4., dtype=float32, weak_type=True)

    Source:
      Trefethen, Approximation Theory and Approximation Practice, 2019, Ch. 3.
    """
    where = "surfaces.evaluate"
    _checks.instance(where, "approximation", approximation, Approximation)
    domains = approximation.domains
    reason = "one per axis"
    _checks.length(where, "coordinates", coordinates, domains.shape[0], reason)
    cure = "For a grid of them use surfaces.sweep."
    point = [_checks.scalar(where, f"coordinate {i}", c, cure) for i, c in enumerate(coordinates)]
    low, high = domains[:, 0], domains[:, 1]
    with jax.numpy_dtype_promotion("standard"):  # twice an int may overflow
        place = jnp.stack(point).astype(jnp.result_type(domains, *point))
    scaled = (2 * place - low - high) / (high - low)
    rounding = 8 * jnp.finfo(scaled.dtype).eps * (jnp.abs(low) + jnp.abs(high)) / (high - low)
    is_inside = jnp.all(jnp.abs(scaled) <= 1 + rounding)

    def value(coefficients: Array) -> Array:
        for x, length in zip(scaled, coefficients.shape, strict=True):
            coefficients = jnp.tensordot(_chebyshev(x, length), coefficients, 1)
        return jnp.where(is_inside, coefficients, jnp.nan)

    return jax.tree.map(value, approximation.coefficients)


def _chebyshev(x: Array, length: int) -> Array:
    """The polynomials ``T_0(x), ..., T_{length - 1}(x)``.

    By ``T_{j+1} = 2 x T_j - T_{j-1}``: polynomials have their slopes at the borders, where an arc
    cosine has none.
    """

    def next_one(pair: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        previous, last = pair
        return (last, 2 * x * last - previous), previous

    return jax.lax.scan(next_one, (jnp.ones_like(x), x), length=length)[1]
