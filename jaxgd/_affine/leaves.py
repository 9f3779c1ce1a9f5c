"""What is computed once, and how it is read at a point.

Where an affine value cannot be trusted, the whole program has to be evaluated plainly: where a
tangent is not finite (an infinite factor, a division by zero), affine arithmetic would make NaN
of 0 * inf; where the origin overflows, other points need not; and where a tangent underflows, a
coordinate may be large enough to show it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxgd._affine import plan, program, rules, squares
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
    return [leaves[number] for number in divided.leaves], jnp.all(jnp.array(verdicts, bool))


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
    return squares.at_point(leaf, coordinates)


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
        if isinstance(operand, dict):
            return operand
        if isinstance(atom, jex.Literal):
            operand = jnp.asarray(operand, aval.dtype)
        is_wide = aval.dtype == jnp.float32 and (rule.widens or not is_affine)
        to = jnp.dtype(jnp.float64) if is_wide else aval.dtype
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
    sign = rules.sign_of_sum(equation)
    factors = [x for x in operands if not isinstance(x, Affine)]
    has_squares = any(isinstance(x, dict) for x in operands)
    earlier = [mixed.get(atom, {}) for atom in equation.inputs if not isinstance(atom, jex.Literal)]

    def makes_nan(index: int) -> Array:
        tangents = [
            x.tangents[index] for x in operands if isinstance(x, Affine) and index in x.tangents
        ]
        verdicts = [flags[index] for flags in earlier if index in flags]
        if rules.sums_terms(equation) and not has_squares:
            has_signs = jnp.array([_has_one_sign(x) for x in (*tangents, *factors)]).all()
            verdicts.append(~has_signs | rules.pads_terms(equation))
        if sign and len(tangents) == 2:
            verdicts.append(~(sign * tangents[0] * tangents[1] > 0).all())
        return jnp.array(verdicts, bool).any()

    moved_by = {i for x in operands if isinstance(x, Affine) for i in x.tangents}
    moved_by.update(*earlier)
    return {index: makes_nan(index) for index in sorted(moved_by)}


def _has_one_sign(array: Operand) -> Array:
    return jnp.all(array > 0) | jnp.all(array < 0)


# Whether affine values can be trusted.


def _is_kept(operands: Sequence[Operand], result: Affine) -> Array:
    """Whether a product loses no tangent to underflow: one is small only if a factor is zero."""
    constants = [x for x in operands if not isinstance(x, Affine)]
    (moving,) = [x for x in operands if isinstance(x, Affine)]
    is_zero = jnp.array([_is_all_zero(x) for x in constants], bool).any()
    kept = [
        (jnp.abs(tangent).max(initial=0) >= squares.smallest(tangent.dtype))
        | _is_all_zero(moving.tangents[index])
        for index, tangent in result.tangents.items()
    ]
    return is_zero | jnp.array(kept, bool).all()


def _is_all_zero(array: Array) -> Array:
    return jnp.logical_not(jnp.any(array))


def _is_readable(leaf: Affine) -> Array:
    """Whether the tangents are finite, and the origin is, wherever it moves."""
    tangents = list(leaf.tangents.values())
    is_finite = jnp.array([jnp.isfinite(t).all() for t in tangents], bool).all()
    is_still = jnp.array([t == 0 for t in tangents]).all(axis=0)
    return is_finite & (jnp.isfinite(leaf.origin) | is_still).all()
