"""Programs as data: the equations of a traced function, flat, numbered, and comparable.

Two traces of one function on arrays of the same shapes are equal programs, whatever the numbers
in the arrays. So a compiled program serves them all.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives
from jax.typing import DTypeLike

from jaxgd._jaxprs import Atom, Aval, Eqn, Jaxpr
from jaxgd.types import Array, PyTree

# Calls that are entered. (remat changes how a gradient is computed, not what it is.)
_CALLS = {primitives.jit_p, primitives.remat_p}

# Calls with a derivative of their own stay whole, and so keep it. Their params hold functions
# that are made anew at each trace: what such a function does is compared instead.
_SMALL = 256  # entries
_CUSTOM_FUNCTIONS = {"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees"}

Operand: TypeAlias = Any
"""What an equation is applied to: an array, or a value that stands for one, as ``Affine`` does."""


class Equation(NamedTuple):
    """One operation on numbered values.

    Attributes:
      source: JAX's own equation: primitive, params, context, shapes and dtypes.
      inputs: the number of each operand, or a literal.
      outputs: the number of each result.
    """

    source: Eqn
    inputs: tuple[PyTree, ...]
    outputs: tuple[int, ...]


class Program:
    """The equations of a function of some arrays and k scalars; equal to any that does the same.

    Attributes:
      avals: the shape and dtype of each value, by number.
      arrays: the numbers of the arrays it works on.
      coordinates: the numbers of the scalars.
      equations: what it does, in order; no call is nested in it.
      outputs: the number of each output, or a literal.
      watched: by number, the coordinates that make a NaN of an array which they do not move.
    """

    def __init__(
        self,
        avals: Sequence[Aval],
        arrays: Sequence[int],
        coordinates: Sequence[int],
        equations: Sequence[Equation],
        outputs: Sequence[Atom],
        watched: Mapping[int, frozenset[int]],
    ) -> None:
        """Numbers what it is equal by, once."""
        self.avals, self.arrays, self.coordinates = avals, arrays, coordinates
        self.equations, self.outputs, self.watched = equations, outputs, watched
        self._key = (
            tuple(avals),
            tuple(arrays),
            tuple(coordinates),
            tuple(_key_of(equation.source, equation.inputs, ()) for equation in equations),
            tuple(_key_of_atom(atom) for atom in outputs),
            tuple(sorted(watched.items())),
        )
        self._hash = hash(self._key)

    def text(self) -> str:
        """What it does, in words that are the same in every process."""
        plain = (int, float, str, tuple, np.dtype, type(None))
        equations = [
            f"{e.source.primitive} {e.inputs} {e.outputs} "
            + str(
                {k: v for k, v in e.source.params.items() if isinstance(v, plain) or k == "_prim"}
            )
            for e in self.equations
        ]
        words = "; ".join([*map(str, self.avals), *equations, str(self.arrays)])
        return re.sub("0x[0-9a-f]+", "", words)  # of objects, whose addresses change

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self._key == other._key)


def trace(
    fn: Callable[..., PyTree],
    num_coordinates: int,
    dtype: DTypeLike,
    watched: Sequence[tuple[Array, frozenset[int]]],
    is_repeatable: Callable[[Eqn], bool],
) -> tuple[Program, list[Array], PyTree]:
    """Traces a function of k scalars.

    Args:
      fn: k scalars -> a pytree of scalars.
      num_coordinates: k.
      dtype: that of the scalars.
      watched: arrays that ``fn`` may close over, with the coordinates that make NaN of them.
      is_repeatable: whether an equation, met again with the same operands, is done once.

    Returns:
      The program, the arrays it works on, and the structure of its outputs.
    """
    scalars = [jax.ShapeDtypeStruct((), dtype)] * num_coordinates
    closed, output = jax.make_jaxpr(fn, return_shape=True)(*scalars)
    avals: list[Aval] = []
    arrays: dict[int, int] = {}  # number -> position among the arrays, by their identity
    held: list[Array] = []
    equations: list[Equation] = []
    known: dict[Hashable, tuple[int, ...]] = {}

    def numbered(aval: Aval) -> int:
        avals.append(aval)
        return len(avals) - 1

    def number_of_array(variable: Atom, array: Array) -> int:
        if id(array) not in arrays:
            arrays[id(array)] = numbered(variable.aval)
            held.append(array)
        return arrays[id(array)]

    def inlined(jaxpr: Jaxpr, atoms: Sequence[Atom]) -> list[Array]:
        opened = getattr(jaxpr, "jaxpr", jaxpr)
        consts = getattr(jaxpr, "consts", ())
        numbers = dict(zip(opened.invars, atoms, strict=True))
        for variable, array in zip(opened.constvars, consts, strict=True):
            numbers[variable] = number_of_array(variable, array)

        def atom_of(v: Atom) -> PyTree:
            return v if isinstance(v, jex.Literal) else numbers[v]

        for eqn in opened.eqns:
            inputs = tuple(atom_of(v) for v in eqn.invars)
            if eqn.primitive in _CALLS:
                outputs = tuple(inlined(eqn.params["jaxpr"], inputs))
            else:
                key = _key_of(eqn, inputs, ()) if is_repeatable(eqn) else None
                outputs = known.get(key) if key is not None else None
                if outputs is None:
                    outputs = tuple(numbered(v.aval) for v in eqn.outvars)
                    equations.append(Equation(eqn, inputs, outputs))
                    if key is not None:
                        known[key] = outputs
            numbers.update(zip(eqn.outvars, outputs, strict=True))
        return [atom_of(v) for v in opened.outvars]

    coordinates = [numbered(variable.aval) for variable in closed.jaxpr.invars]
    outputs = inlined(closed, coordinates)
    by_number = {arrays[id(a)]: moved for a, moved in watched if id(a) in arrays}
    program = Program(avals, list(arrays.values()), coordinates, equations, outputs, by_number)
    return program, held, jax.tree.structure(output)


def run(
    equations: Iterable[Equation],
    values: dict[int, Operand],
    rule: Callable[[Equation, Sequence[Operand]], Sequence[Operand]] | None = None,
) -> dict[int, Operand]:
    """The values by number after some equations, each done by a rule: ``bind`` if None."""
    values = dict(values)
    for equation in equations:
        operands = [read(values, atom) for atom in equation.inputs]
        results = bind(equation, operands) if rule is None else rule(equation, operands)
        values.update(zip(equation.outputs, results, strict=True))
    return values


def bind(equation: Equation, operands: Sequence[Operand], **changed: Any) -> Sequence[Operand]:
    """Does an operation, with some of its params changed."""
    eqn = equation.source
    params = {**eqn.params, **changed}
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    return results if eqn.primitive.multiple_results else [results]


def read(values: Mapping[int, Operand], atom: Atom) -> PyTree:
    """The value of an operand."""
    return atom.val if isinstance(atom, jex.Literal) else values[atom]


# What makes two programs equal.


def _key_of(eqn: Eqn, inputs: Sequence[Atom], within: tuple[Hashable, ...]) -> Hashable:
    """What an equation does, and to what. Two that are equal do the same."""
    params = {k: v for k, v in eqn.params.items() if k not in _CUSTOM_FUNCTIONS}
    key = (
        eqn.primitive,
        _key_of_param(params, within),
        tuple(v.aval for v in eqn.outvars),
        str(eqn.ctx),
    )
    if len(params) < len(eqn.params):
        key = (*key, ("its own",) if key in within else _derivative(eqn, (*within, key)))
    return key, tuple(_key_of_atom(atom) for atom in inputs)


def _key_of_atom(atom: Atom) -> Hashable:
    if isinstance(atom, jex.Literal):
        return atom.aval, np.asarray(atom.val).tobytes()
    return atom


def _derivative(eqn: Eqn, within: tuple[Hashable, ...]) -> Hashable:
    """The program of the derivative that a call brings along."""
    avals = [v.aval for v in eqn.invars]
    fixed = {i: np.zeros(a.shape, a.dtype) for i, a in enumerate(avals) if not _is_real(a)}
    moving = [aval for aval in avals if _is_real(aval)]
    is_pushed = eqn.primitive is primitives.custom_jvp_call_p
    # Tangents, or cotangents: arrays of their own, as x dy + 0 dx is another slope than y dx.
    results = [v.aval for v in eqn.outvars]
    slopes = moving if is_pushed else [aval for aval in results if _is_real(aval)]

    def called(*arrays: PyTree) -> PyTree:
        remaining = iter(arrays)
        operands = [fixed[i] if i in fixed else next(remaining) for i in range(len(avals))]
        return eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))

    def derived(arrays: list[PyTree], slopes: list[PyTree]) -> PyTree:
        if is_pushed:
            return jax.jvp(called, arrays, slopes)
        outputs, pull = jax.vjp(called, *arrays)
        remaining = iter(slopes)
        cotangents = [
            next(remaining) if _is_real(aval) else np.zeros(aval.shape, jax.dtypes.float0)
            for aval in results
        ]
        return outputs, pull(cotangents)

    try:
        return _key_of_param(jax.make_jaxpr(derived)(moving, slopes), within)
    except Exception:  # a derivative that cannot be had is compared by identity
        return _Identity(eqn)


def _is_real(aval: Any) -> bool:
    """Whether there is a derivative with respect to it."""
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _key_of_param(value: Any, within: tuple[Hashable, ...]) -> Hashable:
    if hasattr(value, "eqns"):
        opened = getattr(value, "jaxpr", value)
        numbers: dict[Any, int] = {}
        for variable in (*opened.constvars, *opened.invars):
            numbers[variable] = len(numbers)
        keys = []
        for eqn in opened.eqns:
            inputs = [v if isinstance(v, jex.Literal) else numbers[v] for v in eqn.invars]
            keys.append(_key_of(eqn, inputs, within))
            for variable in eqn.outvars:
                numbers[variable] = len(numbers)
        outputs = [v if isinstance(v, jex.Literal) else numbers[v] for v in opened.outvars]
        avals = tuple(v.aval for v in (*opened.constvars, *opened.invars))
        consts = tuple(map(_key_of_const, getattr(value, "consts", ())))
        return avals, consts, tuple(keys), tuple(map(_key_of_atom, outputs))
    if isinstance(value, Mapping):
        return tuple((key, _key_of_param(value[key], within)) for key in sorted(value, key=str))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_key_of_param(item, within) for item in value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, float):
        return float, repr(value)
    return _key_of_const(value)


def _key_of_const(value: Any) -> Hashable:
    """Small arrays are compared by what they hold, others by identity."""
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        if value.size <= _SMALL and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
            return _key_of_param(np.asarray(value), ())
    elif not isinstance(value, jax.core.Tracer):
        try:
            hash(value)
        except TypeError:
            return _Identity(value)
        return type(value), value
    return _Identity(value)


class _Identity:
    """Equal to itself only; it keeps its value, so that no other takes its place."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value
