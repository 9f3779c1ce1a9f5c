"""Sums of squares of affine values, kept as the rows whose squares they are.

A sum of squares is ``sum_j s_j (o_j + c_1 t_1j + ... + c_k t_kj)^2`` with signs s_j: what a
function of squares does to it, it does to the rows. Once summed up to a scalar, a matrix with
k + 1 rows stands for all of them. (The weights of squares are kept beside them until then: a
product with a root would be rounded.)
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import custom_batching
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd._affine import program
from jaxgd._affine.program import Operand
from jaxgd.types import Array, PyTree


class Affine(NamedTuple):
    """An affine function of the coordinates, ``origin + c_1 t_1 + ... + c_k t_k``.

    Attributes:
      origin: its value at coordinates 0.
      tangents: by the position of each coordinate that moves it, an array like ``origin``.
    """

    origin: Array
    tangents: dict[int, Array]


def smallest(dtype: DTypeLike) -> float:
    """A number below which a dtype may be short of digits."""
    info = jnp.finfo(dtype)
    return float(info.tiny) / float(info.eps)


class Weighted(NamedTuple):
    """Squares of affine values, each times the square of a root.

    Attributes:
      affine: arrays of shape (n, *s); their squares, weighted, sum up to values of shape s.
      root: like ``affine.origin``.
    """

    affine: Affine
    root: Array


class Compressed(NamedTuple):
    """A sum of squares of affine values, as few of them.

    Attributes:
      rows: affine in the coordinates less ``shift``; their squares add up to it.
      shift: by position, the coordinates at which the sum is about least.
      remainders: what the rows lost when they were rounded.
    """

    rows: Affine
    shift: dict[int, Array]
    remainders: Affine


class Leaf(NamedTuple):
    """A sum of squares as it is kept.

    Attributes:
      by_sign: the squares that count with a plus, and those with a minus.
      grows: by coordinate, whether an infinite one makes the sum infinite; it is NaN otherwise.
    """

    by_sign: dict[int, Compressed]
    grows: dict[int, Array]


Rows = dict[int, list[Weighted]]
"""Squares of shape s, by the sign with which they count: a weight may have any sign, even one
that is not known yet."""


# One function per operation on squares: (equation, operands) -> Rows.


def squared(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """The squares of an affine value."""
    del equation
    affine = jax.tree.map(lambda x: x[None], operands[0])
    return {1: [Weighted(affine, jnp.ones_like(affine.origin))]}


def sum_of_products(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares, weighted or not, summed by a matrix product."""
    (axes, _), _ = equation.source.params["dimension_numbers"]
    if isinstance(operands[0], Affine):
        return _summed(squared(equation, operands), axes)
    return _summed(_weighted(*_rows_first(operands)), axes)


def add(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """The sum of squares and squares, or of squares and a constant."""
    aval = equation.source.outvars[0].aval
    terms = []
    for operand in operands:
        if isinstance(operand, dict):
            terms.append(operand)
        else:
            one = jnp.ones((1, *aval.shape), operand.dtype)
            terms.append(_weighted({1: [Weighted(Affine(one, {}), one)]}, operand))
    return {sign: [row for rows in terms for row in rows.get(sign, [])] for sign in (1, -1)}


def total(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares summed over axes."""
    return _summed(operands[0], equation.source.params["axes"])


def rearrange(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares moved or copied."""
    moved = jax.vmap(lambda row: program.bind(equation, [row])[0])
    return _each(operands[0], moved)


def multiply(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares times a constant, or an affine value times itself."""
    if isinstance(operands[0], Affine):
        return squared(equation, operands)
    return _weighted(*_rows_first(operands))


def divide(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares over a constant."""
    del equation
    rows, divisor = operands
    return _weighted(rows, 1 / divisor)


def _rows_first(operands: Sequence[Operand]) -> Sequence[Operand]:
    return operands if isinstance(operands[0], dict) else operands[::-1]


def _each(rows: Rows, fn: Callable[[Array], Array]) -> Rows:
    return {sign: jax.tree.map(fn, weighted) for sign, weighted in rows.items()}


def _summed(rows: Rows, axes: Sequence[int]) -> Rows:
    """Sums squares over some axes: these are counted among the rows."""

    def flat(array: Array) -> Array:
        array = jnp.moveaxis(array, [axis + 1 for axis in axes], range(len(axes)))
        summed, kept = array.shape[: len(axes) + 1], array.shape[len(axes) + 1 :]
        return array.reshape(math.prod(summed), *kept)

    return _each(rows, flat)


def _weighted(rows: Rows, weight: Array) -> Rows:
    """Multiplies squares by a weight: by its positive and by its negative part."""
    result: Rows = {1: [], -1: []}
    for part in (1, -1):
        root = jnp.sqrt(jnp.maximum(part * weight, 0))
        for sign, squares in rows.items():
            result[part * sign] += [
                square._replace(root=square.root * jnp.broadcast_to(root, square.root.shape))
                for square in squares
            ]
    return result


# A scalar sum of squares.


def compress(
    rows: Rows, mixed: dict[int, Array], dtype: DTypeLike, shift_dtype: DTypeLike
) -> tuple[Leaf, Array]:
    """Finds a few rows that stand for all, by sign, and whether they fit into a dtype.

    ``mixed`` says by coordinate whether an infinite one makes NaN of a row.
    """
    leaf, verdicts, moved_by = {}, [], sorted(mixed)
    for sign, squares in rows.items():
        if squares:
            wide = _compressed(squares, tuple(moved_by), shift_dtype)
            narrow = jax.tree.map(lambda x: x.astype(dtype), wide.rows)
            remainders = jax.tree.map(
                lambda x, kept: (x - kept.astype(x.dtype)).astype(dtype), wide.rows, narrow
            )
            leaf[sign] = Compressed(narrow, wide.shift, remainders)
            verdicts.append(jnp.isfinite(narrow.origin).all())
            pairs = zip(wide.rows.tangents.values(), narrow.tangents.values(), strict=True)
            verdicts += [_fits(exact, kept) for exact, kept in pairs]
    grows = {index: _grows(rows, index) & ~is_mixed for index, is_mixed in mixed.items()}
    return Leaf(leaf, grows), jnp.array(verdicts, bool).all()


def _grows(rows: Rows, index: int) -> Array:
    """Whether a coordinate moves all squares that count, and these count with a plus."""
    verdicts, counts = [], []
    for sign, squares in rows.items():
        for square in squares:
            tangent = square.affine.tangents.get(index, jnp.zeros(()))
            counts.append(jnp.any(square.root != 0))
            is_moved = (square.root != 0).all() & (tangent != 0).all()
            verdicts.append(~counts[-1] | (is_moved & (sign == 1)))
    return jnp.array(verdicts).all() & jnp.array(counts).any()


def _fits(exact: Array, kept: Array) -> Array:
    """Whether a tangent overflows nowhere, and does not underflow as a whole."""
    largest = jnp.abs(exact).max()
    return jnp.isfinite(kept).all() & ((largest == 0) | (largest >= smallest(kept.dtype)))


class _Wide(NamedTuple):
    rows: Affine
    shift: dict[int, Array]


def _compressed(
    squares: list[Weighted], moved_by: tuple[int, ...], shift_dtype: DTypeLike
) -> _Wide:
    """The R factor of the matrix [tangents, origin], about the least point.

    The origin of the plane may be far away from where the sum is small: there an R factor would
    be as inexact as the sum is large. So the rows are moved to the least point first. Its
    coordinates are rounded to half their digits, so that their differences to the coordinates
    of other points are exact.
    """

    def column(arrays: Sequence[Array]) -> Array:
        return jnp.concatenate([jnp.ravel(array) for array in arrays])

    def tangent(affine: Affine, index: int) -> PyTree:
        return affine.tangents.get(index, jnp.zeros_like(affine.origin))

    origin = column([square.affine.origin for square in squares])
    root = column([square.root for square in squares])
    columns = [column([tangent(square.affine, i) for square in squares]) for i in moved_by]
    tangents = jnp.stack(columns, axis=1)
    num_moved = len(moved_by)
    weighted = root[:, None] * tangents
    r = _r_factor(weighted, root * origin)[:num_moved]
    info = jnp.finfo(shift_dtype)
    # Where directions are nearly parallel the least point may be so far away that the steps to it
    # have no digits for other points: it is then looked for along what they have in common.
    lengths = jnp.linalg.norm(r[:, :num_moved], axis=0, keepdims=True)
    lengths = jnp.where(lengths == 0, 1, lengths)
    units, cut = r[:, :num_moved] / lengths, float(info.eps) ** 0.5
    least = -jnp.linalg.lstsq(units, r[:, num_moved], rcond=cut)[0] / lengths[0]
    least = jax.lax.reduce_precision(least, info.nexp, info.nmant // 2)
    least = jnp.where(jnp.isfinite(least), least, 0)
    r = _r_factor(weighted, root * (origin + tangents @ least))
    shift = dict(zip(moved_by, least.astype(shift_dtype), strict=True))
    return _Wide(Affine(r[:, num_moved], dict(zip(moved_by, r.T, strict=False))), shift)


def _r_factor(tangents: Array, origin: Array) -> Array:
    matrix = jnp.concatenate([tangents, origin[:, None]], axis=1)
    missing = max(0, matrix.shape[1] - matrix.shape[0])
    return jnp.linalg.qr(jnp.pad(matrix, ((0, missing), (0, 0))), mode="r")


def in_float64(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function that sums up squares, with float64 at hand whatever the settings.

    What is squared is a small difference of large numbers where the origin of the plane is far
    away. A vmap would trace the function again, so it is told how to; a derivative is refused.
    """
    wide = custom_batching.custom_vmap(lambda *args: _with_float64(fn, *args))

    @wide.def_vmap
    def batched(axis_size: int, in_batched: Sequence[bool], *args: PyTree) -> PyTree:
        axes = tuple(0 if is_batched else None for is_batched in in_batched)
        outputs = in_float64(jax.vmap(fn, in_axes=axes, axis_size=axis_size))(*args)
        return outputs, jax.tree.map(lambda _: True, outputs)

    refusing = jax.custom_jvp(wide)
    refusing.defjvp(_refused)
    return refusing


def _with_float64(fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    with jax.enable_x64(True):
        return fn(*args)


def _refused(*_: Any) -> PyTree:
    _checks.that(
        "planes.restrict",
        False,
        "phi must be differentiated in its coordinates only where it sums up squares",
        "a derivative in the plane or the data",
        "Differentiate the loss itself: jax.grad(loss_fn).",
    )


def at_point(leaf: Leaf, coordinates: Sequence[Array]) -> Array:
    """The sum of squares at the given coordinates.

    Row by row, and there are few: that is scalar arithmetic, which a vmap makes fast. Where the
    origin of the plane is far away its directions are nearly parallel, and a row is a small
    difference of large products: what these lose by rounding is summed up beside them.
    """
    squares = []
    for sign, (rows, shift, remainders) in leaf.by_sign.items():
        steps = {
            index: (coordinates[index] - shift[index]).astype(rows.origin.dtype)
            for index in rows.tangents
        }
        for row in range(rows.origin.size):
            value, lost = rows.origin[row], remainders.origin[row]
            for index, tangents in rows.tangents.items():
                product, lost_by_product = _product(steps[index], tangents[row])
                value, lost_by_sum = _sum(value, product)
                small = _finite(steps[index] * remainders.tangents[index][row])
                lost = lost + (small + lost_by_product + lost_by_sum)
            squares.append(sign * jnp.square(value + lost))
    total = functools.reduce(jnp.add, squares)
    for index, grows in leaf.grows.items():
        others = [jnp.isfinite(coordinates[other]) for other in leaf.grows if other != index]
        is_infinite = functools.reduce(jnp.logical_and, others, jnp.isinf(coordinates[index]))
        total = jnp.where(grows & is_infinite, jnp.inf, total)
    return total


def _sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum, and what it lost by rounding (Knuth's TwoSum)."""
    total = a + b
    a, b, fixed = jax.lax.stop_gradient((a, b, total))
    part = fixed - a
    return total, _finite((a - (fixed - part)) + (b - part))


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """A product, and what it lost by rounding (Dekker), whose halves multiply exactly."""
    product = a * b
    a, b, fixed = jax.lax.stop_gradient((a, b, product))
    info = jnp.finfo(product.dtype)
    high_a, high_b = (jax.lax.reduce_precision(x, info.nexp, info.nmant // 2) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    lost = ((high_a * high_b - fixed) + high_a * low_b + low_a * high_b) + low_a * low_b
    return product, _finite(lost)


def _finite(lost: Array) -> Array:
    """Nothing is lost where a value overflows."""
    return jnp.where(jnp.isfinite(lost), lost, 0)
