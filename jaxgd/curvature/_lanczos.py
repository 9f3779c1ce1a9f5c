"""Lanczos iteration on any symmetric product: what a matrix is on a space of few dimensions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd.curvature import _loader, _vectors
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, PRNGKey

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


def ritz(
    key: PRNGKey, product: Product, first: Vector, num_iterations: int, reorthogonalize: bool
) -> Ritz:
    """Spans a space by a vector and its images, as many as there are numbers at most."""
    num_iterations = min(num_iterations, sum(leaf.size for leaf in first))
    first = _vectors.normalized(first)
    if reorthogonalize:
        diagonal, off_diagonal, basis = _with_basis(key, product, first, num_iterations)
    else:
        diagonal, off_diagonal, basis = _without_basis(product, first, num_iterations)
    scale = _vectors.scale_of([diagonal, off_diagonal])
    off = jnp.diag(off_diagonal[:-1] / scale, 1)
    values, coefficients = jnp.linalg.eigh(jnp.diag(diagonal / scale) + off + off.T)
    return Ritz(values * scale, coefficients, basis)


def _with_basis(
    key: PRNGKey, product: Product, first: Vector, num_iterations: int
) -> tuple[Array, Array, Vector]:
    """The diagonal and off-diagonal of the matrix in a basis that is kept, and the basis.

    Each new vector is made orthogonal to all before it, twice. Where the second pass takes away
    most of what the first has left, that was rounding: the space is invariant, and the
    iteration goes on with a random vector. ``num_iterations + 3`` vectors are kept.
    """

    def row_of(rows: Vector, j: Array) -> Vector:
        return [jax.lax.dynamic_index_in_dim(row, j, keepdims=False) for row in rows]

    def step(
        rows: Vector, j: Array, _: Vector, image: Vector
    ) -> tuple[Vector, tuple[Array, Array]]:
        image, scale = _near_one(image)
        along = _along(image, rows)
        once = _without(image, along, rows)
        twice = _without(once, _along(once, rows), rows)
        length = _vectors.norm(twice)
        is_new = length > 0.5 * _vectors.norm(once)

        def fresh() -> Vector:
            vector = _vectors.noise(jax.random.fold_in(key, j), twice)
            vector = _without(vector, _along(vector, rows), rows)
            return _without(vector, _along(vector, rows), rows)

        # Whatever reads the rows comes before they are written: it is done in place. At the end
        # the last row is written once more.
        is_last = j == num_iterations - 1
        choice = jnp.where(is_last, 2, is_new.astype(int))
        following = _vectors.normalized(
            jax.lax.switch(choice, [fresh, lambda: twice, lambda: row_of(rows, j)])
        )
        rows = _with_row(rows, following, jnp.minimum(j + 1, num_iterations - 1))
        return rows, (along[j] * scale, jnp.where(is_new, length, 0) * scale)

    # Made of the vector, so that the rows lie over the devices as it does.
    rows = [jax.lax.broadcast(0 * leaf, (num_iterations,)) for leaf in first]
    rows = _with_row(rows, first, 0)
    indices = jnp.arange(num_iterations)
    rows, (diagonal, off_diagonal) = _loader.along(product, row_of, step, rows, indices)
    return diagonal, off_diagonal, rows


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

    def step(
        last: _Last, _: Array, __: Vector, image: Vector
    ) -> tuple[_Last, tuple[Array, Array, Array]]:
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

    zeros = [jnp.zeros_like(leaf) for leaf in first]
    nothing = jnp.zeros((), first[0].dtype)
    last = _Last(first, zeros, nothing, jnp.array(True))
    diagonal, off_diagonal, is_own = _loader.along(
        product, lambda last, _: last.vector, step, last, jnp.arange(num_iterations)
    )[1]
    return jnp.where(is_own, diagonal, diagonal[0]), off_diagonal, []


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


def _without(vector: Vector, along: Array, rows: Vector) -> Vector:
    """A vector without what the coefficients make of the rows."""
    pairs = zip(rows, vector, strict=True)
    return [v - jnp.tensordot(along, r, 1, precision="highest") for r, v in pairs]
