"""What is computed once, and how it is read at a point.

Where an affine value cannot be trusted, the whole program has to be evaluated plainly: where a
tangent is not finite (an infinite factor, a division by zero), affine arithmetic would make NaN
of 0 * inf; where the origin overflows, other points need not; and where a tangent underflows, a
coordinate may be large enough to show it.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgd._affine import plan, program, ranges, rules, squares
from jaxgd._affine.plan import Kind, Plan, Value
from jaxgd._affine.program import Equation, Operand
from jaxgd._affine.squares import Affine
from jaxgd._jaxprs import Atom, Aval
from jaxgd.types import Array, ArrayLike, PyTree

# An array whose last axis is shorter than this is read as a flat one: a compiler fills its vector
# lanes along the last axis alone (an array of (20,000, 4) is read in half the time).
_LANES = 32


def compute(
    divided: Plan, dtype: DTypeLike, arrays: Sequence[Array], is_near: ArrayLike
) -> tuple[list[Any], Array]:
    """Computes the leaves, and whether they stand for the program wherever it is evaluated.

    Where the origin is not near, what is left of it at a point is a small difference of large
    numbers, and only squares are computed with digits enough.
    """
    values = divided.values
    constant = [e for e in divided.once if values[e.outputs[0]].kind == Kind.CONSTANT]
    moving = [e for e in divided.once if values[e.outputs[0]].kind != Kind.CONSTANT]
    known = program.run(constant, dict(zip(divided.program.arrays, arrays, strict=True)))
    by_kind = {kind: [n for n in divided.leaves if values[n].kind == kind] for kind in Kind}
    leaves = {number: known[number] for number in by_kind[Kind.CONSTANT]}
    has_digits = all(rules.rule_of(e).widens for e in moving) and not by_kind[Kind.AFFINE]
    verdicts = [] if has_digits else [jnp.asarray(is_near)]

    mixed: dict[int, dict[int, Array]] = {}  # by value and coordinate, whether it makes NaN

    def affine(equation: Equation, operands: Sequence[Operand]) -> Sequence[Operand]:
        results = _moved(equation, operands)
        mixed.update(dict.fromkeys(equation.outputs, _mixed(equation, operands, mixed)))
        if rules.multiplies(equation):
            verdicts.append(_is_kept(operands, results[0]))
        return results

    equations = plan.needed_for(by_kind[Kind.AFFINE], moving)
    computed = program.run(equations, {**known, **_coordinates(divided, dtype)}, affine)
    for number in by_kind[Kind.AFFINE]:
        leaf = computed[number]
        verdicts.append(_is_readable(leaf))
        is_narrow = divided.program.avals[number].shape[-1:] < (_LANES,)
        leaf = jax.tree.map(jnp.ravel, leaf) if is_narrow else leaf
        leaves[number] = leaf, {i: mixed[number][i] for i in sorted(values[number].mixed_by)}

    if by_kind[Kind.SQUARES]:
        equations = plan.needed_for(by_kind[Kind.SQUARES], moving)
        needed = {atom for e in equations for atom in e.inputs if not isinstance(atom, jex.Literal)}
        constants = sorted(needed & known.keys())

        def squared(*operands: Array) -> PyTree:
            start = dict(zip(constants, operands, strict=True))
            start |= _coordinates(divided, jnp.float64)
            mixed: dict[int, dict[int, Array]] = {}

            def widened(equation: Equation, operands: Sequence[Operand]) -> Sequence[Operand]:
                mixed.update(dict.fromkeys(equation.outputs, _mixed(equation, operands, mixed)))
                return _widened(equation, operands, values)

            computed = program.run(equations, start, widened)
            return [
                squares.compress(
                    computed[number],
                    mixed[number],
                    divided.program.avals[number].dtype,
                    dtype,
                )
                for number in by_kind[Kind.SQUARES]
            ]

        compressed = squares.in_float64(squared)(*(known[number] for number in constants))
        for number, (leaf, is_good) in zip(by_kind[Kind.SQUARES], compressed, strict=True):
            leaves[number] = leaf
            verdicts.append(is_good)
    return [leaves[number] for number in divided.leaves], _all(verdicts)


def at_point(value: Value, leaf: Any, aval: Aval, coordinates: Sequence[Array]) -> Array:
    """The value of a leaf at the given coordinates."""
    match value.kind:
        case Kind.CONSTANT:
            return leaf
        case Kind.AFFINE:
            (origin, tangents), is_mixed = leaf
            for index, tangent in tangents.items():
                coordinate = coordinates[index].astype(tangent.dtype)
                if index in value.mixed_by:
                    is_number = jnp.isfinite(coordinate) | ~is_mixed[index]
                    coordinate = jnp.where(is_number, coordinate, jnp.nan)
                origin = origin + coordinate * tangent
            return origin.reshape(aval.shape)
    return squares.at_point(leaf, [coordinates[index] for index in sorted(value.moved_by)])


def _coordinates(divided: Plan, dtype: DTypeLike) -> dict[int, Affine]:
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    numbers = enumerate(divided.program.coordinates)
    return {number: Affine(zero, {index: one}) for index, number in numbers}


def _moved(equation: Equation, operands: Sequence[Operand], **changed: Any) -> Sequence[Operand]:
    """An affine operation on the origins, and its linear part on each tangent."""
    linear_in = range(len(operands))[rules.rule_of(equation).linear_in]

    def tangent_of(position: int, operand: Operand, index: int) -> PyTree:
        if isinstance(operand, Affine):
            return operand.tangents.get(index, jnp.zeros_like(operand.origin))
        return jnp.zeros_like(operand) if position in linear_in else operand

    origins = [x.origin if isinstance(x, Affine) else x for x in operands]
    moved_by = sorted({i for x in operands if isinstance(x, Affine) for i in x.tangents})
    results = program.bind(equation, origins, **changed)
    tangents = {
        index: program.bind(
            equation, [tangent_of(p, x, index) for p, x in enumerate(operands)], **changed
        )
        for index in moved_by
    }
    return [
        Affine(result, {index: tangents[index][place] for index in moved_by})
        for place, result in enumerate(results)
    ]


def _widened(
    equation: Equation, operands: Sequence[Operand], values: dict[int, Value]
) -> Sequence[Operand]:
    """An operation on affine values or on squares, in float64."""
    source, rule = equation.source, rules.rule_of(equation)
    is_affine = values[equation.outputs[0]].kind == Kind.AFFINE

    def cast(operand: Operand, atom: Atom, aval: Aval) -> PyTree:
        if isinstance(operand, list):
            return operand
        is_wide = aval.dtype == jnp.float32 and (rule.widens or not is_affine)
        to = jnp.dtype(jnp.float64) if is_wide else aval.dtype
        if isinstance(atom, jex.Literal):  # known now, and with it the sign of a weight
            return np.asarray(operand, aval.dtype).astype(to)[()]
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, to), operand)

    triples = zip(operands, equation.inputs, [v.aval for v in source.invars], strict=True)
    operands = [cast(*triple) for triple in triples]
    if not is_affine:
        return [rule.rows(equation, operands)]
    changed = {
        name: jnp.dtype(jnp.float64)
        for name in ("new_dtype", "preferred_element_type", "out_dtype")
        if rule.widens and source.params.get(name) == jnp.float32
    }
    return _moved(equation, operands, **changed)


def _mixed(
    equation: Equation, operands: Sequence[Operand], mixed: dict[int, dict[int, Array]]
) -> dict[int, Array]:
    """By coordinate, whether an infinite one may make NaN of a sum that its tangent does not show.

    It does not where all terms have one sign, and none is zero.
    """
    moving = [x for x in operands if isinstance(x, Affine)]
    earlier = [mixed.get(atom, {}) for atom in equation.inputs if not isinstance(atom, jex.Literal)]
    moved_by = sorted({i for flags in (*earlier, *(x.tangents for x in moving)) for i in flags})
    verdicts = {i: [flags[i] for flags in earlier if i in flags] for i in moved_by}
    has_squares = any(isinstance(x, list) for x in operands)
    if rules.sums_terms(equation) and not has_squares:
        if rules.pads_terms(equation):
            return dict.fromkeys(moved_by, jnp.array(True))
        factors = [x for x in operands if not isinstance(x, Affine)]
        signs = [ranges.has_one_sign(found) for x in factors for found in ranges.of(x)]
        for index in moved_by:
            verdicts[index] += [~has_sign for has_sign in signs]
        for x in moving:
            for index, tangent in x.tangents.items():
                verdicts[index] += [~ranges.has_one_sign(found) for found in ranges.of(tangent)]
    sign = rules.sign_of_sum(equation)
    if sign and len(moving) == 2:
        left, right = (x.tangents for x in moving)
        both = sorted(left.keys() & right.keys())
        products = ranges.of(*(sign * left[index] * right[index] for index in both))
        for index, product in zip(both, products, strict=True):
            verdicts[index].append(~(product.low > 0))
    return {index: _any(verdicts[index]) for index in moved_by}


# Whether affine values can be trusted.


def _is_kept(operands: Sequence[Operand], result: Affine) -> Array:
    """Whether a product loses no tangent to underflow: one is small only if a factor is zero."""
    (moving,) = [x for x in operands if isinstance(x, Affine)]
    factors = [found for x in operands if not isinstance(x, Affine) for found in ranges.of(x)]
    least = squares.smallest(result.origin.dtype)
    kept = [
        (ranges.largest(ranges.of(after)[0]) >= least)
        | ranges.is_zero(ranges.of(moving.tangents[index])[0])
        for index, after in result.tangents.items()
    ]
    return _any(map(ranges.is_zero, factors)) | _all(kept)


def _is_readable(leaf: Affine) -> Array:
    """Whether the tangents are finite, and the origin is, wherever it moves."""
    tangents = list(leaf.tangents.values())
    is_still = functools.reduce(jnp.logical_and, [tangent == 0 for tangent in tangents])
    finite = [is_still | jnp.isfinite(leaf.origin), *map(jnp.isfinite, tangents)]
    # One reduction of all: a program is as long to compile as it has different ones.
    return functools.reduce(jnp.logical_and, finite).all()


def _all(verdicts: Iterable[Array]) -> Array:
    return functools.reduce(jnp.logical_and, verdicts, jnp.array(True))


def _any(verdicts: Iterable[Array]) -> Array:
    return functools.reduce(jnp.logical_or, verdicts, jnp.array(False))
