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
import numpy as np
from jax import custom_batching
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd._affine import program, ranges
from jaxgd._affine.program import Operand
from jaxgd.types import Array, ArrayLike, PyTree


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


_ONE = np.float64(1)


class Weighted(NamedTuple):
    """Squares of affine values, each times a weight.

    Attributes:
      affine: arrays of shape (n, *s); their squares, weighted, sum up to values of shape s.
      root: the roots of the weights, with the signs of these: an array like ``affine.origin``, or
        one number that is known before anything is computed.
    """

    affine: Affine
    root: Array | np.float64


class Compressed(NamedTuple):
    """A sum of squares of affine values, as few of them.

    Attributes:
      rows: shape (k + 1, k + 1): a row holds the tangents and then the origin of a value that is
        affine in the coordinates less ``shift``; the squares of these values add up to it.
      shift: shape (k,): the coordinates at which the sum is about least.
      remainders: like ``rows``: what these lost when they were rounded.
    """

    rows: Array
    shift: Array
    remainders: Array


class Leaf(NamedTuple):
    """A sum of squares as it is kept.

    Attributes:
      by_sign: the squares that count with a plus, and those with a minus.
      grows: shape (k,): whether an infinite coordinate makes the sum infinite; it is NaN otherwise.
    """

    by_sign: dict[int, Compressed]
    grows: Array


Rows = list[Weighted]
"""Squares of shape s, to be added up."""


# One function per operation on squares: (equation, operands) -> Rows.


def squared(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """The squares of an affine value."""
    del equation
    affine = jax.tree.map(lambda x: x[None], operands[0])
    return [Weighted(affine, _ONE)]


def sum_of_products(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """Squares, weighted or not, summed by a matrix product."""
    (axes, _), _ = equation.source.params["dimension_numbers"]
    if isinstance(operands[0], Affine):
        return _summed(squared(equation, operands), axes)
    return _summed(_weighted(*_rows_first(operands)), axes)


def add(equation: program.Equation, operands: Sequence[Operand]) -> Rows:
    """The sum of squares and squares, or of squares and a constant."""
    aval = equation.source.outvars[0].aval
    terms: Rows = []
    for operand in operands:
        if isinstance(operand, list):
            terms += operand
        else:
            one = Affine(jnp.ones((1, *aval.shape), operand.dtype), {})
            terms += _weighted([Weighted(one, _ONE)], operand)
    return terms


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
    with np.errstate(all="ignore"):
        return _weighted(rows, 1 / divisor)


def _rows_first(operands: Sequence[Operand]) -> Sequence[Operand]:
    return operands if isinstance(operands[0], list) else operands[::-1]


def _each(rows: Rows, fn: Callable[[Array], Array]) -> Rows:
    def moved(array: ArrayLike) -> ArrayLike:
        return fn(array) if isinstance(array, jax.Array) else array

    return jax.tree.map(moved, rows)


def _summed(rows: Rows, axes: Sequence[int]) -> Rows:
    """Sums squares over some axes: these are counted among the rows."""

    def flat(array: Array) -> Array:
        array = jnp.moveaxis(array, [axis + 1 for axis in axes], range(len(axes)))
        summed, kept = array.shape[: len(axes) + 1], array.shape[len(axes) + 1 :]
        return array.reshape(math.prod(summed), *kept)

    return _each(rows, flat)


def _weighted(rows: Rows, weight: Array | np.float64) -> Rows:
    """Multiplies squares by a weight of any sign."""
    if isinstance(weight, np.float64):
        root = np.copysign(np.sqrt(np.abs(weight)), weight)
        return [square._replace(root=square.root * root) for square in rows]
    root = jnp.copysign(jnp.sqrt(jnp.abs(weight)), weight)
    roots = [square.root * jnp.broadcast_to(root, square.affine.origin.shape) for square in rows]
    return [square._replace(root=root) for square, root in zip(rows, roots, strict=True)]


# A scalar sum of squares.


def compress(
    rows: Rows, mixed: dict[int, Array], dtype: DTypeLike, shift_dtype: DTypeLike
) -> tuple[Leaf, Array]:
    """Finds a few rows that stand for all, by sign, and whether they fit into a dtype.

    ``mixed`` says by coordinate whether an infinite one makes NaN of a row.
    """
    by_sign, is_good, moved_by = {}, jnp.array(True), sorted(mixed)
    for sign in (1, -1):
        counted = [square for square in rows if _may_count(square.root, sign)]
        if counted:
            wide, shift = _compressed(counted, sign, moved_by, shift_dtype)
            narrow = wide.astype(dtype)
            remainders = (wide - narrow.astype(wide.dtype)).astype(dtype)
            by_sign[sign] = Compressed(narrow, shift, remainders)
            is_good &= _fits(wide, narrow)
    is_mixed = jnp.stack([mixed[index] for index in moved_by])
    return Leaf(by_sign, _grows(rows, moved_by) & ~is_mixed), is_good


def _may_count(root: ArrayLike, sign: int) -> bool:
    """Whether there may be weights of a sign; a known 0 counts with a plus."""
    is_known = isinstance(root, np.float64)
    return not is_known or not (root < 0 if sign == 1 else root >= 0)


def _grows(rows: Rows, moved_by: Sequence[int]) -> Array:
    """Whether a coordinate moves all squares that count, and these count with a plus."""
    grows, counts = jnp.ones(len(moved_by), bool), jnp.array(False)
    for square in rows:
        (root,) = ranges.of(square.root)
        tangents = {i: ranges.of(jnp.abs(t))[0] for i, t in square.affine.tangents.items()}
        is_moved = [tangents[i].low > 0 if i in tangents else jnp.array(False) for i in moved_by]
        grows &= (root.low >= 0) & ((root.high == 0) | ((root.low > 0) & jnp.stack(is_moved)))
        counts |= ~ranges.is_zero(root)
    return grows & counts


def _fits(wide: Array, narrow: Array) -> Array:
    """Whether nothing overflows, and no tangent underflows as a whole."""
    largest = jnp.abs(wide[:, :-1]).max(axis=0)
    is_kept = (largest == 0) | (largest >= smallest(narrow.dtype))
    return jnp.isfinite(narrow).all() & is_kept.all()


def _compressed(
    rows: Rows, sign: int, moved_by: Sequence[int], shift_dtype: DTypeLike
) -> tuple[Array, Array]:
    """The R factor of the matrix [tangents, origin], about the least point; and that point.

    Only what is weighted with the given sign is looked at.

    The origin of the plane may be far away from where the sum is small: there an R factor would
    be as inexact as the sum is large. So the rows are moved to the least point first. Its
    coordinates are rounded to half their digits, so that their differences to the coordinates
    of other points are exact.
    """

    def column(arrays: Sequence[Array]) -> Array:
        return jnp.concatenate([jnp.ravel(_everywhere(array)) for array in arrays])

    def tangent(affine: Affine, index: int) -> PyTree:
        return affine.tangents.get(index, jnp.zeros_like(affine.origin))

    origin = column([square.affine.origin for square in rows])
    root = column([jnp.broadcast_to(s.root, s.affine.origin.shape) for s in rows])
    root = jnp.maximum(sign * root, 0)
    columns = [column([tangent(square.affine, i) for square in rows]) for i in moved_by]
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
    return r, least.astype(shift_dtype)


def _everywhere(array: Array) -> Array:
    """The array on every device: JAX factors no shards, and on explicit meshes says so."""
    mesh = jax.typeof(array).sharding.mesh
    if not mesh.explicit_axes:
        return array
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec()))


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
    """The sum of squares at the coordinates that move it.

    Row by row, and there are few: that is scalar arithmetic, which a vmap makes fast. Where the
    origin of the plane is far away its directions are nearly parallel, and a row is a small
    difference of large products: what these lose by rounding is summed up beside them.
    """
    squares = []
    for sign, (rows, shift, remainders) in leaf.by_sign.items():
        steps = [(c - shift[i]).astype(rows.dtype) for i, c in enumerate(coordinates)]
        for (*tangents, value), (*small_tangents, lost) in zip(rows, remainders, strict=True):
            for step, tangent, small_tangent in zip(steps, tangents, small_tangents, strict=True):
                product, lost_by_product = _product(step, tangent)
                value, lost_by_sum = _sum(value, product)
                lost_here = step * small_tangent + lost_by_product + lost_by_sum
                # Nothing is lost where a value overflows.
                lost = lost + jnp.where(jnp.isfinite(lost_here), lost_here, 0)
            squares.append(sign * jnp.square(value + lost))
    total = functools.reduce(jnp.add, squares)
    for index, coordinate in enumerate(coordinates):
        others = [jnp.isfinite(c) for other, c in enumerate(coordinates) if other != index]
        is_infinite = functools.reduce(jnp.logical_and, others, jnp.isinf(coordinate))
        total = jnp.where(leaf.grows[index] & is_infinite, jnp.inf, total)
    return total


def _sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum, and what it lost by rounding (Knuth's TwoSum)."""
    total = a + b
    a, b, fixed = jax.lax.stop_gradient((a, b, total))
    part = fixed - a
    return total, (a - (fixed - part)) + (b - part)


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """A product, and what it lost by rounding (Dekker), whose halves multiply exactly."""
    product = a * b
    a, b, fixed = jax.lax.stop_gradient((a, b, product))
    info = jnp.finfo(product.dtype)
    high_a, high_b = (jax.lax.reduce_precision(x, info.nexp, info.nmant // 2) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    lost = ((high_a * high_b - fixed) + high_a * low_b + low_a * high_b) + low_a * low_b
    return product, lost
