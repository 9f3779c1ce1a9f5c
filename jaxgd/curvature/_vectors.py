"""Arithmetic on vectors: lists of arrays, in float32 or better, that are never joined.

Each array stays as it is, so that one that is sharded stays sharded. Squares are taken of what
has been brought near 1, so that no norm over- or underflows.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxgd.types import Array, PRNGKey

Vector: TypeAlias = list[Array]


def wide_dtype(leaves: Sequence[Array]) -> jnp.dtype:
    """float64 where an array has it, float32 otherwise: what sums are taken in."""
    is_double = any(leaf.dtype == jnp.float64 for leaf in leaves)
    return jnp.dtype(jnp.float64 if is_double else jnp.float32)


def widened(leaves: Sequence[Array]) -> Vector:
    dtype = wide_dtype(leaves)
    return [leaf.astype(dtype) for leaf in leaves]


def dot(first: Vector, second: Vector) -> Array:
    """The sum of all products; no array is reshaped, which would gather one that is sharded."""
    return sum_of([jnp.sum(a * b) for a, b in zip(first, second, strict=True)])


def sum_of(terms: Sequence[Array]) -> Array:
    return jnp.stack(terms).sum(axis=0)


def contracted(rows: Array, leaf: Array) -> Array:
    """Each row's product with an array, summed; on explicit meshes every device gets the sums."""
    sharding = jax.typeof(leaf).sharding
    everywhere = None if sharding.mesh.empty else NamedSharding(sharding.mesh, PartitionSpec(None))
    return jnp.tensordot(rows, leaf, leaf.ndim, precision="highest", out_sharding=everywhere)


def scale_of(vector: Vector) -> Array:
    """The power of two near the largest magnitude; 1 for what is zero, inf or NaN."""
    maxima = [jnp.max(jnp.abs(leaf), initial=0) for leaf in vector]
    largest = jax.lax.stop_gradient(jnp.stack(maxima).max())
    # The bits without those of the mantissa: frexp and ldexp are many operations each.
    info = jnp.finfo(largest.dtype)
    bits = jax.lax.bitcast_convert_type(largest, f"uint{8 * largest.dtype.itemsize}")
    power = jax.lax.bitcast_convert_type(bits >> info.nmant << info.nmant, largest.dtype)
    # Not so large that its inverse, with which XLA may multiply, is flushed to zero.
    scale = jnp.clip(power, 2.0**info.minexp, 2.0**-info.minexp)
    return jnp.where((largest > 0) & jnp.isfinite(largest), scale, 1)


def scaled(vector: Vector, factor: Array) -> Vector:
    return [factor * leaf for leaf in vector]


def divided(vector: Vector, divisor: Array) -> Vector:
    return [leaf / divisor for leaf in vector]


def norm(vector: Vector) -> Array:
    """The Euclidean length, without over- or underflow; its gradient at zero is zero."""
    scale = scale_of(vector)
    near_one = divided(vector, scale)
    square = dot(near_one, near_one)
    is_zero = square == 0
    return jnp.where(is_zero, 0, scale * jnp.sqrt(jnp.where(is_zero, 1, square)))


def unit(vector: Vector) -> Vector:
    """A vector of length 1; one of zeros has no direction and becomes NaN."""
    return divided(vector, norm(vector))


def irregular(key: PRNGKey, like: Vector) -> Vector:
    """A vector without a pattern, another one for every key: entries between -1 and 1."""
    seed = jnp.zeros((), jnp.uint32)
    for word in jax.random.key_data(key).ravel():
        seed = _mixed(seed ^ word)
    return [noise(_mixed(seed + place), leaf) for place, leaf in enumerate(like)]


def noise(number: Array, like: Array) -> Array:
    """Irregular entries between -1 and 1, never 0, other ones for every number, a uint32.

    They are made in place, in one kernel, and wherever the array lies: a PRNG takes several arrays
    to draw one, and ten kernels.
    """
    zeros = 0 * like.astype(jnp.uint32)  # which lie over the devices as it does
    positions = zeros + jax.lax.iota(jnp.uint32, like.size).reshape(like.shape)
    bits = _mixed(_mixed(positions) ^ number)
    return ((bits >> 9).astype(like.dtype) + 0.5) / 2**22 - 1


def _mixed(words: Array) -> Array:
    """Numbers of 32 bits, each bit of which depends on all of what was given (lowbias32)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def signs(key: PRNGKey, like: Vector) -> Vector:
    """Entries of 1 and -1, each with probability a half.

    Drawn in a branch that is always taken: out of it XLA takes no counters of the PRNG, which it
    would keep throughout a loop over probes.
    """

    def draw() -> Vector:
        return jax.tree.leaves(optax.tree.random_like(key, like, jax.random.rademacher))

    first_word = jax.random.key_data(key).ravel()[0]
    return jax.lax.cond((first_word | 1) != 0, draw, lambda: like)
