"""Arithmetic that neither overflows nor loses digits where its result is a number."""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxgd.types import Array, Params, PyTree


def wide(*trees: PyTree) -> DTypeLike:
    """The dtype to compute with: float32, or the widest of the arrays where that is wider."""
    is_double = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(trees))
    return np.dtype(np.float64 if is_double else np.float32)


def scale_of(*arrays: Array, axis: tuple[int, ...] | None = None) -> Array:
    """A power of two near the largest magnitude, so that squares stay within range.

    Dividing by it rounds nothing. It is 1 for zeros and for what is not finite.
    """
    dtype = wide(arrays)
    keepdims = axis is not None
    largest = [
        jnp.max(jnp.abs(jax.lax.stop_gradient(array)), axis=axis, initial=0, keepdims=keepdims)
        for array in arrays
    ]
    magnitude = functools.reduce(jnp.maximum, largest).astype(dtype)
    usual = jnp.isfinite(magnitude) & (magnitude > 0)
    info = jnp.finfo(dtype)
    power = jax.lax.reduce_precision(jnp.where(usual, magnitude, 1), info.nexp, mantissa_bits=0)
    return jnp.clip(power, 2.0**info.minexp, 2.0**-info.minexp)


def norm(*arrays: Array, axis: tuple[int, ...] | None = None) -> Array:
    """The Euclidean length of arrays taken together, over all axes or over some, kept.

    It neither overflows nor underflows where it is itself a number, and its slope at 0 is 0.
    """
    scale = scale_of(*arrays, axis=axis)
    squares = total(
        jnp.sum(jnp.square(array / scale), axis=axis, keepdims=axis is not None) for array in arrays
    )
    above = squares != 0
    return jnp.where(above, scale * jnp.sqrt(jnp.where(above, squares, 1)), 0)


def dot(a: Array, b: Array) -> Array:
    """A product at full precision, which accelerators do not take by themselves."""
    return jnp.matmul(a, b, precision="highest")


def inner(a: Params, b: Params) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return total(dot(x.ravel(), y.ravel()) for x, y in pairs)


def total(arrays: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, arrays)


def on_any_mesh(
    fn: Callable[..., PyTree], *args: PyTree, like: Callable[[], PyTree] | None = None
) -> PyTree:
    """``fn(*args)``, where what an array is joined with may lie in other shards, or in none.

    On a mesh of explicit axes JAX asks each operation of ``fn`` where its result is to lie. It is
    told of the results alone: as the arrays of ``like()`` do, or on every device without it.
    """
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(args)]
    explicit = [mesh for mesh in meshes if mesh.explicit_axes]
    if not explicit:
        return fn(*args)
    everywhere = NamedSharding(explicit[0], PartitionSpec())

    def place_of(leaf: Array) -> NamedSharding:
        place = jax.typeof(leaf).sharding
        return place if place.mesh.explicit_axes else everywhere

    places = everywhere if like is None else jax.tree.map(place_of, like())
    return jax.sharding.auto_axes(fn, out_sharding=places)(*args)
