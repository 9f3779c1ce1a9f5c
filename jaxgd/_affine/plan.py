"""How a program is divided: what is computed once, and what is left at each point.

Each value is of one of four kinds:

  CONSTANT  the same at every point: computed once;
  AFFINE    ``origin + c_1 t_1 + ... + c_k t_k``: computed once, as its value at the origin and
            one tangent for each coordinate that moves it;
  SQUARES   sums of squares of affine values, weighted by constants: once summed up to a scalar,
            the R factor of the matrix [tangents, origin] holds all of it in k + 1 rows;
  VARYING   everything else: left to the rest of the program, which runs at each point.

Kinds flow forward, from operands to results, by the rules. Costs flow along: a value can be had
at a point by reading it (its origin and tangents), or by computing it from its operands, and the
cheaper way is taken. So a product with a matrix is read, and a bias is read before it is
broadcast. What the rest of the program needs is then found backward from the outputs; nothing
else is computed once.
"""

import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.extend.core as jex

from jaxgd._affine import rules
from jaxgd._affine.program import Equation, Program
from jaxgd._jaxprs import Atom, Aval


class Kind(enum.IntEnum):
    """How a value depends on the coordinates."""

    CONSTANT = 0
    AFFINE = 1
    SQUARES = 2
    VARYING = 3


class Value(NamedTuple):
    """What is known of a value.

    Attributes:
      kind: how it depends on the coordinates.
      moved_by: the positions of the coordinates it depends on.
      spoiled_by: the positions of those that make it NaN where they are not finite, though they
        do not move it.
      mixed_by: the positions of those that move several terms of a sum in it: where one is
        infinite, terms of both signs make NaN, and zeros do, though their sum read off a tangent
        is infinite.
      cost: of having it at a point, in entries read.
      is_read: whether it is read there, rather than computed from its operands.
    """

    kind: Kind
    moved_by: frozenset[int]
    spoiled_by: frozenset[int]
    mixed_by: frozenset[int]
    cost: float
    is_read: bool


class Plan(NamedTuple):
    """A program and how it is divided.

    Attributes:
      program: the whole.
      values: what is known of each value, by number.
      once: the equations that compute the leaves.
      leaves: the values that are read at a point.
      rest: the equations that compute the outputs from the leaves and the coordinates.
      share: of the work of the whole, what is left at a point, by estimate.
    """

    program: Program
    values: dict[int, Value]
    once: Sequence[Equation]
    leaves: Sequence[int]
    rest: Sequence[Equation]
    share: float


# Reading is shared by the points of a batch, and its price is an estimate: it must be clearly the
# cheaper way, and a plan must clearly save something.
_MARGIN = 1.2
_WORTHWHILE = 0.95

_NONE: frozenset[int] = frozenset()
_LITERAL = Value(Kind.CONSTANT, _NONE, _NONE, _NONE, cost=0, is_read=False)


@functools.lru_cache(maxsize=128)
def divide(program: Program) -> Plan:
    """Finds what each value is, and where it is had."""
    values: dict[int, Value] = {}
    for number in program.arrays:
        spoiled_by = program.watched.get(number, _NONE)
        cost = rules.size(program.avals[number])
        values[number] = Value(Kind.CONSTANT, _NONE, spoiled_by, _NONE, cost, is_read=True)
    for index, number in enumerate(program.coordinates):
        own = frozenset({index})
        values[number] = Value(Kind.AFFINE, own, _NONE, _NONE, cost=0, is_read=False)
    for equation in program.equations:
        operands = [
            _LITERAL if isinstance(atom, jex.Literal) else values[atom] for atom in equation.inputs
        ]
        kind = _kind(equation, operands)
        moved_by = _NONE.union(*(operand.moved_by for operand in operands))
        spoiled_by = _NONE.union(*(operand.spoiled_by for operand in operands))
        mixed_by = _NONE.union(*(operand.mixed_by for operand in operands))
        if rules.sums_terms(equation):
            mixed_by |= moved_by
        if rules.sign_of_sum(equation):
            mixed_by |= operands[0].moved_by & operands[1].moved_by
        computing = rules.rule_of(equation).price(equation) + sum(o.cost for o in operands)
        for number in equation.outputs:
            aval = program.avals[number]
            reading = _reading(kind, aval, len(moved_by))
            margin = _MARGIN if kind == Kind.AFFINE else 1
            is_read = margin * reading <= computing and reading < math.inf
            values[number] = Value(
                kind,
                moved_by,
                spoiled_by if rules.may_be_nan(aval) else _NONE,
                mixed_by,
                reading if is_read else computing,
                is_read,
            )

    outputs = [atom for atom in program.outputs if not isinstance(atom, jex.Literal)]
    rest, needed = _needed_for(outputs, program.equations, lambda n: not values[n].is_read)
    leaves = [number for number in values if number in needed and values[number].is_read]
    steady = [equation for equation in program.equations if _is_steady(equation, values)]
    once, _ = _needed_for(leaves, steady, lambda _: True)
    whole = sum(map(rules.work, program.equations))
    whole += sum(rules.size(program.avals[number]) for number in program.arrays)
    left = sum(map(rules.work, rest)) + sum(values[number].cost for number in leaves)
    return Plan(program, values, once, leaves, rest, left / max(whole, 1))


def is_worthwhile(divided: Plan) -> bool:
    """Whether enough is saved for what is computed once to be worth it."""
    return divided.share <= _WORTHWHILE


def needed_for(numbers: Sequence[int], equations: Sequence[Equation]) -> list[Equation]:
    """The equations that compute some values."""
    return _needed_for(numbers, equations, lambda _: True)[0]


def _needed_for(
    numbers: Sequence[int], equations: Sequence[Equation], is_computed: Callable[[int], bool]
) -> tuple[list[Equation], set[int]]:
    """The equations that compute what is needed, and all that is needed for it."""
    needed, chosen = set(numbers), []
    for equation in reversed(equations):
        is_chosen = any(n in needed and is_computed(n) for n in equation.outputs)
        if is_chosen or equation.source.effects:
            chosen.append(equation)
            needed.update(atom for atom in equation.inputs if not isinstance(atom, jex.Literal))
    return chosen[::-1], needed


def _kind(equation: Equation, operands: Sequence[Value]) -> Kind:
    """The kind of an equation's results."""
    kinds = [operand.kind for operand in operands]
    highest = max(kinds, default=Kind.CONSTANT)
    if equation.source.effects or highest == Kind.VARYING:
        return Kind.VARYING
    if highest == Kind.CONSTANT:
        return Kind.CONSTANT
    moving = [kind != Kind.CONSTANT for kind in kinds]
    rule = rules.rule_of(equation)
    if not (rules.is_precise(equation, moving) and rule.accepts(equation)):
        return Kind.VARYING
    moved = {position for position, moves in enumerate(moving) if moves}
    if highest == Kind.AFFINE and rule.is_square(equation):
        return Kind.SQUARES
    if highest == Kind.AFFINE:
        is_linear = moved <= set(range(len(kinds))[rule.linear_in])
        return Kind.AFFINE if is_linear or (rule.bilinear and len(moved) == 1) else Kind.VARYING
    keeps_squares = (
        all(kinds[position] == Kind.SQUARES for position in moved)
        and moved <= set(range(len(kinds))[rule.squares_in])
        and not (rule.bilinear and len(moved) > 1)
        and rule.keeps_squares(equation, moving)
    )
    return Kind.SQUARES if keeps_squares else Kind.VARYING


def _is_steady(equation: Equation, values: dict[int, Value]) -> bool:
    has_effects = bool(equation.source.effects)
    return not has_effects and all(values[n].kind != Kind.VARYING for n in equation.outputs)


def _reading(kind: Kind, aval: Aval, num_tangents: int) -> float:
    """The cost of reading a value at a point; squares are read as scalars only."""
    match kind:
        case Kind.CONSTANT:
            return rules.size(aval)
        case Kind.AFFINE:
            return rules.size(aval) * (num_tangents + 1)
        case Kind.SQUARES if aval.shape == ():
            return num_tangents + 1  # rows; no more than the affine value, which is less exact
    return math.inf


def spoiled_by(divided: Plan, atom: Atom) -> list[int]:
    """The positions of the coordinates that make NaN of an output, though they do not move it."""
    is_literal = isinstance(atom, jex.Literal)
    return [] if is_literal else sorted(divided.values[atom].spoiled_by)


def looks_for_nan(divided: Plan) -> bool:
    """Whether a program asks for NaN in what no coordinate moves, yet one may spoil."""
    asked = [divided.values[e.inputs[0]] for e in divided.program.equations if rules.asks(e)]
    return any(value.kind == Kind.CONSTANT and value.spoiled_by for value in asked)


def leaf_names(divided: Plan) -> list[str]:
    """What is read at a point, in words."""
    sources = {n: e.source for e in divided.program.equations for n in e.outputs}
    names = []
    for number in divided.leaves:
        aval, kind = divided.program.avals[number], divided.values[number].kind
        if number in divided.program.arrays:
            names.append("an array as it is")
        elif kind == Kind.SQUARES:
            names.append("a sum of squares, as an R factor")
        else:
            num_tangents = len(divided.values[number].moved_by)
            tangents = f"{num_tangents} tangent{'s' * (num_tangents > 1)}"
            kept = f"as origin and {tangents}" if kind == Kind.AFFINE else "constant"
            primitive = sources[number].primitive.name
            names.append(f"{aval.str_short()} by {primitive}, {kept}")
    return names
