"""Lanczos iteration on any symmetric product: what a matrix is on a space of few dimensions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd.curvature import _loader, _vectors
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array

Product = Callable[[Vector], Vector]


class Ritz(NamedTuple):
    """Eigenvalues of a matrix on the Krylov space of a vector; K is its dimension.

    Attributes:
      values: shape (K,), ascending.
      coefficients: shape (K, K): the eigenvectors as columns, in the orthonormal basis.
      basis: arrays with a leading axis K; no array where none was kept.
    """

    values: Array
    coefficients: Array
    basis: Vector


def ritz(product: Product, first: Vector, num_iterations: int, reorthogonalize: bool) -> Ritz:
    """Spans a space by a vector and its images, as many as there are numbers at most."""
    num_iterations = min(num_iterations, sum(leaf.size for leaf in first))
    first = _loader.compiled(_unit)(first)
    if reorthogonalize:
        diagonal, off_diagonal, basis = _with_basis(product, first, num_iterations)
    else:
        diagonal, off_diagonal, basis = _without_basis(product, first, num_iterations)
    eigh = _loader.compiled(_tridiagonal_eigh)
    values, coefficients = eigh(diagonal, off_diagonal)
    return Ritz(values, coefficients, basis)


def _unit(first: Vector) -> Vector:
    """A vector of length 1, of one whose entries are at most 1."""
    return _vectors.divided(first, jnp.sqrt(_vectors.dot(first, first)))


def _tridiagonal_eigh(diagonal: Array, off_diagonal: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors; the last entry beside the diagonal leads out of the space."""
    scale = _vectors.scale_of([diagonal, off_diagonal])
    off = jnp.diag(off_diagonal[:-1] / scale, 1)
    values, coefficients = jnp.linalg.eigh(jnp.diag(diagonal / scale) + off + off.T)
    return values * scale, coefficients


def _with_basis(
    product: Product, first: Vector, num_iterations: int
) -> tuple[Array, Array, Vector]:
    """The diagonal and off-diagonal of the matrix in a basis that is kept, and the basis.

    Each new vector is made orthogonal to all before it, twice. Where the second pass takes away
    most of what the first has left, that was rounding: the space is invariant, and the
    iteration goes on with an irregular vector, in two passes more. ``num_iterations + 3`` vectors
    are kept: one program makes all passes, so that each overwrites what the last one has left.
    """
    start = _loader.compiled(_first_row, static=1)(first, num_iterations)
    indices = jnp.arange(num_iterations)
    rows, (diagonal, off_diagonal) = _loader.along(
        product, _row_of, _orthogonal_step, start, indices
    )
    return diagonal, off_diagonal, rows


def _first_row(first: Vector, num_iterations: int) -> Vector:
    """Room for a basis; made of its first vector, so that it lies over the devices as that does."""
    rows = [jax.lax.broadcast(0 * leaf, (num_iterations,)) for leaf in first]
    return _with_row(rows, first, 0)


def _row_of(rows: Vector, j: Array) -> Vector:
    return [jax.lax.dynamic_index_in_dim(row, j, keepdims=False) for row in rows]


def _orthogonal_step(
    rows: Vector, j: Array, _: Vector, image: Vector
) -> tuple[Vector, tuple[Array, Array]]:
    """Makes the image of the last row the next one; returns it with what joins the two."""
    num_iterations = len(rows[0])
    image, scale = _near_one(image)
    numbers = [(1 + j * len(rows) + i).astype(jnp.uint32) for i in range(len(rows))]

    def clear(rest: _Rest, number: Array) -> tuple[_Rest, None]:
        is_kept, is_lost = (number > 1) & rest.is_new, (number == 2) & ~rest.is_new
        vector = [
            jax.lax.cond(is_lost, lambda v=v, n=n: _vectors.noise(n, v), lambda v=v: v)
            for n, v in zip(numbers, rest.vector, strict=True)
        ]
        along = jax.lax.cond(is_kept, lambda: rest.along, lambda: _along(vector, rows))
        # One array after the other: a single branch would hold them all twice.
        vector = [
            jax.lax.cond(is_kept, lambda v=v: v, lambda v=v, r=r: _without(v, along, r))
            for v, r in zip(vector, rows, strict=True)
        ]
        length = jax.lax.cond(is_kept, lambda: rest.length, lambda: _vectors.norm(vector))
        is_new = jnp.where(number == 1, length > 0.5 * rest.length, rest.is_new)
        own = jnp.where(number == 0, along[j], rest.own)
        return _Rest(vector, length, is_new, along, own), None

    nothing = 0 * scale
    everywhere = jax.lax.broadcast(nothing, (num_iterations,))
    start = _Rest(image, nothing, jnp.array(False), everywhere, nothing)
    rest = jax.lax.scan(clear, start, jnp.arange(4))[0]
    # Whatever reads the rows comes before they are written: it is done in place. At the end
    # the last row is written once more.
    following = jax.lax.cond(
        j == num_iterations - 1,
        lambda: _row_of(rows, j),
        lambda: _vectors.divided(rest.vector, jnp.where(rest.length == 0, 1, rest.length)),
    )
    rows = _with_row(rows, following, jnp.minimum(j + 1, num_iterations - 1))
    off_diagonal = jnp.where(rest.is_new, rest.length, 0)
    return rows, (rest.own * scale, off_diagonal * scale)


class _Rest(NamedTuple):
    """What the passes leave of a vector.

    Attributes:
      vector: what is left so far.
      length: its length.
      is_new: whether the second pass left most of it.
      along: its coefficients along the rows that the last pass took away.
      own: what the first pass took away along the last row.
    """

    vector: Vector
    length: Array
    is_new: Array
    along: Array
    own: Array


class _Last(NamedTuple):
    """The last two vectors, what joins them, and whether the space still grows."""

    vector: Vector
    previous: Vector
    off_diagonal: Array
    is_growing: Array


def _without_basis(
    product: Product, first: Vector, num_iterations: int
) -> tuple[Array, Array, Vector]:
    """The same by the recurrence of three vectors alone, which loses orthogonality.

    Eigenvalues that have been found come again as ghosts. In an invariant space the iteration
    ends: the rest of the diagonal repeats its first entry, which lies among the eigenvalues,
    and is joined to nothing.
    """
    zeros = [0 * leaf for leaf in first]  # which lie over the devices as it does
    nothing = jnp.zeros((), first[0].dtype)
    last = _Last(first, zeros, nothing, jnp.array(True))
    diagonal, off_diagonal, is_own = _loader.along(
        product, _vector_of, _short_step, last, jnp.arange(num_iterations)
    )[1]
    return jnp.where(is_own, diagonal, diagonal[0]), off_diagonal, []


def _vector_of(last: _Last, _: Array) -> Vector:
    return last.vector


def _short_step(
    last: _Last, _: Array, __: Vector, image: Vector
) -> tuple[_Last, tuple[Array, Array, Array]]:
    """Makes the image of the last vector the next one, by the two before it."""
    image, scale = _near_one(image)
    along = _vectors.dot(last.vector, image)
    rest = [
        h - along * v - last.off_diagonal / scale * u
        for h, v, u in zip(image, last.vector, last.previous, strict=True)
    ]
    length = _vectors.norm(rest)
    eps = jnp.finfo(length.dtype).eps
    is_growing = last.is_growing & (length > 10 * eps * _vectors.norm(image))
    length = jnp.where(is_growing, length, 0)
    following = _vectors.divided(rest, jnp.where(is_growing, length, jnp.inf))
    own = (along * scale, length * scale, last.is_growing)
    return _Last(following, last.vector, length * scale, is_growing), own


def _near_one(vector: Vector) -> tuple[Vector, Array]:
    """A vector without its scale, and the scale."""
    scale = _vectors.scale_of(vector)
    return _vectors.divided(vector, scale), scale


def _with_row(rows: Vector, vector: Vector, index: Array | int) -> Vector:
    pairs = zip(rows, vector, strict=True)
    return [jax.lax.dynamic_update_index_in_dim(row, leaf, index, 0) for row, leaf in pairs]


def _along(vector: Vector, rows: Vector) -> Array:
    """A vector's coefficients along the rows of a basis."""
    pairs = zip(rows, vector, strict=True)
    return _vectors.sum_of([_vectors.contracted(row, leaf) for row, leaf in pairs])


def _without(leaf: Array, along: Array, rows: Array) -> Array:
    """An array without what the coefficients make of its rows."""
    return leaf - jnp.tensordot(along, rows, 1, precision="highest")
