"""Lanczos iteration on any symmetric product: the matrix as a tridiagonal one, and the basis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd.curvature import _vectors
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, PRNGKey

Product = Callable[[Vector], Vector]


class Tridiagonal(NamedTuple):
    """A symmetric matrix in the orthonormal basis of a Krylov space.

    Attributes:
      diagonal: shape (k,).
      off_diagonal: shape (k - 1,).
      basis: arrays with a leading axis k; no array where none was kept.
    """

    diagonal: Array
    off_diagonal: Array
    basis: Vector


class _Carry(NamedTuple):
    basis: Vector
    vector: Vector


def tridiagonalize(
    key: PRNGKey, product: Product, first: Vector, num_iterations: int
) -> Tridiagonal:
    """Spans a space by a vector and its images; keeps ``num_iterations + 3`` vectors.

    Each new vector is made orthogonal to all before it, twice. Where the second pass takes away
    most of what the first has left, that was rounding: the space is invariant, and the
    iteration goes on with a random vector.
    """

    def step(carry: _Carry, j: Array) -> tuple[_Carry, tuple[Array, Array]]:
        image = product(carry.vector)
        scale = _vectors.scale_of(image)
        image = _vectors.divided(image, scale)
        along = _vectors.dot(carry.vector, image)
        basis = [
            jax.lax.dynamic_update_index_in_dim(rows, leaf, j, 0)
            for rows, leaf in zip(carry.basis, carry.vector, strict=True)
        ]
        once = _orthogonal(image, basis)
        twice = _orthogonal(once, basis)
        length = _vectors.norm(twice)
        is_new = length > 0.5 * _vectors.norm(once)

        def fresh() -> Vector:
            vector = _vectors.normal(jax.random.fold_in(key, j), twice)
            return _orthogonal(_orthogonal(vector, basis), basis)

        following = _vectors.normalized(jax.lax.cond(is_new, lambda: twice, fresh))
        return _Carry(basis, following), (along * scale, jnp.where(is_new, length, 0) * scale)

    basis = [jnp.zeros((num_iterations, *leaf.shape), leaf.dtype) for leaf in first]
    carry = _Carry(basis, _vectors.normalized(first))
    carry, (diagonal, off_diagonal) = jax.lax.scan(step, carry, jnp.arange(num_iterations))
    return Tridiagonal(diagonal, off_diagonal[:-1], carry.basis)


def _orthogonal(vector: Vector, basis: Vector) -> Vector:
    """What is left of a vector without its part in the span of the basis."""
    pairs = list(zip(basis, vector, strict=True))
    highest: Any = jax.lax.Precision.HIGHEST
    along = _vectors.sum_of(
        [jnp.tensordot(rows, leaf, leaf.ndim, precision=highest) for rows, leaf in pairs]
    )
    return [leaf - jnp.tensordot(along, rows, 1, precision=highest) for rows, leaf in pairs]


def eigen(tridiagonal: Tridiagonal) -> tuple[Array, Array]:
    """The eigenvalues of the tridiagonal matrix, ascending, and its eigenvectors as columns."""
    scale = _vectors.scale_of([tridiagonal.diagonal, tridiagonal.off_diagonal])
    off = jnp.diag(tridiagonal.off_diagonal / scale, 1)
    values, vectors = jnp.linalg.eigh(jnp.diag(tridiagonal.diagonal / scale) + off + off.T)
    return values * scale, vectors
