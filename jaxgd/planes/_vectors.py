"""Vectors shaped like the params: orthogonal to others, longest among the rows of a path."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.planes import _numbers
from jaxgd.types import Array


def centred(rows: Array) -> Array:
    return rows - rows.mean(axis=0, keepdims=True)


def longest_direction(rows: list[Array], earlier: list[list[Array]]) -> list[Array]:
    """The unit vector along which rows spread most, orthogonal to earlier ones.

    It is in parts, one for each matrix of rows, as the rows themselves are.
    """
    sizes = [matrix.shape[1] for matrix in rows]
    if rows[0].shape[0] <= sum(sizes):
        weights = _top_eigenvector(_numbers.total(_numbers.dot(m, m.T) for m in rows))
        direction = [_numbers.dot(weights, matrix) for matrix in rows]
    else:
        joined = jnp.concatenate(rows, axis=1)
        flat = _top_eigenvector(_numbers.dot(joined.T, joined))
        direction = jnp.split(flat, np.cumsum(sizes)[:-1])
    direction, _ = orthogonal(direction, earlier)
    # A step of the power method, as a correction: it takes off the rounding of the small
    # matrix and of its sums, since what the direction leaves is small itself.
    scores = scores_of(rows, direction)
    square = jnp.sum(jnp.square(scores))
    square = jnp.where(square > 0, square, 1)
    rest = without(rows, scores, direction)
    steps = [_numbers.dot(scores, matrix) / square for matrix in rest]
    return orthogonal([d + s for d, s in zip(direction, steps, strict=True)], earlier)[0]


def orthogonal(direction: list[Array], earlier: list[list[Array]]) -> tuple[list[Array], Array]:
    """A direction without its share in earlier ones, of length 1, and how much that left.

    Gram and Schmidt, twice: the first time leaves rounding.
    """
    direction = _unit(direction)
    left = jnp.ones((), direction[0].dtype)
    for other in [*earlier, *earlier]:
        overlap = _numbers.total(_numbers.dot(d, o) for d, o in zip(direction, other, strict=True))
        rest = [d - overlap * o for d, o in zip(direction, other, strict=True)]
        left = left * _numbers.norm(*rest)
        direction = _unit(rest)
    return direction, left


def without(rows: list[Array], scores: Array, direction: list[Array]) -> list[Array]:
    """What rows leave beside a direction."""
    return [matrix - jnp.outer(scores, d) for matrix, d in zip(rows, direction, strict=True)]


def scores_of(rows: list[Array], direction: list[Array]) -> Array:
    """The coordinate of each row along a direction."""
    return _numbers.total(
        _numbers.dot(matrix, d) for matrix, d in zip(rows, direction, strict=True)
    )


def _unit(parts: list[Array]) -> list[Array]:
    length = _numbers.norm(*parts)
    return [part / jnp.where(length > 0, length, 1) for part in parts]


@jax.custom_jvp
def _top_eigenvector(matrix: Array) -> Array:
    """The eigenvector of a symmetric matrix that belongs to its largest eigenvalue.

    Its derivative looks at the gaps to that eigenvalue alone: others may coincide.
    """
    return jnp.linalg.eigh(matrix)[1][:, -1]


@_top_eigenvector.defjvp
def _top_eigenvector_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(primals[0])
    top, others = vectors[:, -1], vectors[:, :-1]
    turns = _numbers.dot(others.T, _numbers.dot(tangents[0], top)) / (values[-1] - values[:-1])
    return top, _numbers.dot(others, turns)
