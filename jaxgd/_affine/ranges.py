"""Between which numbers the entries of arrays lie: all that is asked of them, in one pass."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgd.types import Array, ArrayLike


class Range(NamedTuple):
    """The least and the largest entry of an array: both NaN if one is, both 0 if it has none."""

    low: Array
    high: Array


def of(*arrays: ArrayLike) -> list[Range]:
    """The ranges of some arrays of one shape, found by reading each of them once."""
    values = [jax.lax.stop_gradient(jnp.asarray(array)) for array in arrays]
    shape = jnp.shape(arrays[0]) if arrays else ()
    if not shape:
        return [Range(value, value) for value in values]
    if math.prod(shape) == 0:
        zeros = [jnp.zeros((), value.dtype) for value in values]
        return [Range(zero, zero) for zero in zeros]
    twice = [value for value in values for _ in Range._fields]
    initial = [bound for value in values for bound in _bounds(value.dtype)]
    ends = jax.lax.reduce(twice, initial, _wider, tuple(range(len(shape))))
    return [Range(*pair) for pair in zip(ends[::2], ends[1::2], strict=True)]


def is_zero(found: Range) -> Array:
    """Whether all entries are zero."""
    return (found.low == 0) & (found.high == 0)


def is_finite(found: Range) -> Array:
    """Whether all entries are finite."""
    return jnp.isfinite(found.low) & jnp.isfinite(found.high)


def has_one_sign(found: Range) -> Array:
    """Whether all entries are positive, or all are negative."""
    return (found.low > 0) | (found.high < 0)


def largest(found: Range) -> Array:
    """The largest absolute value."""
    return jnp.maximum(-found.low, found.high)


def _wider(left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    ends = zip(left, right, strict=True)
    return [(jnp.maximum if i % 2 else jnp.minimum)(*pair) for i, pair in enumerate(ends)]


def _bounds(dtype: DTypeLike) -> tuple[np.ndarray, np.ndarray]:
    """What is above, and what is below, every number of a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.array(np.inf, dtype), np.array(-np.inf, dtype)
    info = jnp.iinfo(dtype)
    return np.array(info.max, dtype), np.array(info.min, dtype)
