"""Between which numbers the entries of arrays lie: all that is asked of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd.types import Array, ArrayLike


class Range(NamedTuple):
    """The least and the largest entry of an array: both NaN if one is, both 0 if it has none."""

    low: Array
    high: Array


def of(*arrays: ArrayLike) -> list[Range]:
    """The ranges of some arrays."""
    values = [jax.lax.stop_gradient(jnp.asarray(array)) for array in arrays]
    # Two reductions, not one of both ends at once: over shards XLA gathers what that one finds.
    return [
        Range(value.min(), value.max()) if value.size else Range(*[jnp.zeros((), value.dtype)] * 2)
        for value in values
    ]


def is_zero(found: Range) -> Array:
    """Whether all entries are zero."""
    return (found.low == 0) & (found.high == 0)


def has_one_sign(found: Range) -> Array:
    """Whether all entries are positive, or all are negative."""
    return (found.low > 0) | (found.high < 0)


def largest(found: Range) -> Array:
    """The largest absolute value."""
    return jnp.maximum(-found.low, found.high)
