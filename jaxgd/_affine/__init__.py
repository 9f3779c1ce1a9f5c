"""The transformation behind ``planes.restrict``: compute once what all points share.

A function of k coordinates is traced to a program, the program is divided by the rules into what
is computed once and what is left at each point, and what is left becomes the new function. Three
rules keep it right. A value of less than 32 bits is never affine: its rounding shows. A call with
a derivative of its own (custom_jvp, custom_vjp) stays whole, and so keeps it. And where what is
computed once does not stand for the program at all points, as where it overflows, the whole
program is evaluated plainly instead.

  program  the equations of a function, flat, numbered, and comparable
  ranges   between which numbers the entries of arrays lie
  squares  what is done to sums of squares, and how they are kept
  rules    what is known of each primitive
  plan     what is computed once, and what is left
  leaves   computing it once, and reading it at a point
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd._affine import leaves as _leaves
from jaxgd._affine import plan as _plan
from jaxgd._affine import program as _program
from jaxgd._affine import rules as _rules
from jaxgd.types import Array, ArrayLike, PyTree

_Way = Literal["leaves", "arrays", "either"]
Origin: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
"""What makes a function again, and on what: see ``hoist``."""


class Evaluation:
    """A program in the way that it is evaluated at a point: the static part of a function.

    Two that are equal compute the same from the same arrays, so that what was compiled for one
    serves the other.
    """

    def __init__(
        self,
        program: _program.Program,
        way: _Way,
        structure: PyTree,
        dtype: DTypeLike,
        origin: Origin | None,
    ) -> None:
        """Takes a program, how it is evaluated, the structure of its outputs, and its origin."""
        self.program, self.way, self.structure, self.dtype = program, way, structure, dtype
        self.num_coordinates = len(program.coordinates)
        self._origin = origin

    def _key(self) -> Any:
        return self.program, self.way, self.structure, self.dtype

    def __repr__(self) -> str:
        size = len(self.program.equations)
        return f"Evaluation({size} operations, {self.num_coordinates} coordinates)"

    def __hash__(self) -> int:
        return hash((self.program, self.way))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluation) and self._key() == other._key()

    def __reduce__(self) -> Any:
        """A program cannot be pickled; where it comes from can be, and is traced again."""
        return _traced_again, (self._origin, self.way, self.dtype, self.program.text())

    def __call__(self, *args: PyTree) -> PyTree:
        """The outputs, from what is held and the coordinates."""
        held, coordinates = args[: -self.num_coordinates], args[-self.num_coordinates :]
        return _evaluated(self)(held, [c.astype(self.dtype) for c in coordinates])


def hoist(
    fn: Callable[..., PyTree],
    num_coordinates: int,
    dtype: DTypeLike,
    watched: Sequence[tuple[Array, frozenset[int]]] = (),
    origin: Origin | None = None,
    is_near: ArrayLike = True,
    otherwise: Callable[[], jax.tree_util.Partial] | None = None,
) -> jax.tree_util.Partial:
    """Makes a function that skips at each point what can be computed once for all.

    Args:
      fn: k scalars -> a pytree of scalars; it may close over traced arrays.
      num_coordinates: k.
      dtype: that of the coordinates.
      watched: arrays that ``fn`` closes over, with the positions of the coordinates that make
        them NaN where these are not finite, though ``fn`` does not say so.
      origin: (function, arguments) that return ``fn`` and ``watched`` again, for other arrays
        of the same shapes, so that the result can be pickled.
      is_near: whether coordinates of zero are near the points that are looked at.
      otherwise: what to return where ``fn`` looks for NaN in an array that is watched.

    Returns:
      ``fn`` for k scalars, as a Partial of an Evaluation, whose arrays are leaves.
    """
    program, arrays, structure = _program.trace(
        fn, num_coordinates, dtype, watched, _rules.is_repeatable
    )

    def evaluation(way: _Way, *held: PyTree) -> jax.tree_util.Partial:
        return jax.tree_util.Partial(Evaluation(program, way, structure, dtype, origin), *held)

    if otherwise is not None and _plan.looks_for_nan(_plan.divide(program)):
        return otherwise()
    if not _plan.is_worthwhile(_plan.divide(program)):
        return evaluation("arrays", arrays)
    # What is known is computed now, even where a caller is traced. Elsewhere that context would
    # do no more than compile each constant alone.
    is_early = _checks.is_traced(jnp.zeros(())) and not _checks.is_traced(arrays)
    now = jax.ensure_compile_time_eval() if is_early else contextlib.nullcontext()
    with jax.debug_nans(False), now:  # what is not finite here may never be used
        leaves, is_right = _computed_once(program, dtype)(arrays, is_near)
    if not isinstance(is_right, jax.core.Tracer):
        return evaluation("leaves", leaves) if bool(is_right) else evaluation("arrays", arrays)
    if any(equation.source.effects for equation in program.equations):
        return evaluation("arrays", arrays)  # an effect cannot be in a branch
    return evaluation("either", is_right, leaves, arrays)


def _traced_again(origin: Any, way: _Way, dtype: DTypeLike, text: str) -> Evaluation:
    """The program of a function that was pickled."""
    where, cure = "planes.restrict", "Pickle loss_fn, plane and data, and restrict again."
    _checks.that(where, origin is not None, "phi must be pickled on its own", "a part of it", cure)
    remake, args = origin
    fn, num_coordinates, watched = remake(*args)
    program, _, structure = _program.trace(
        fn, num_coordinates, dtype, watched, _rules.is_repeatable
    )
    wanted = "loss_fn must be the program that phi was pickled with"
    _checks.that(where, program.text() == text, wanted, "another", cure)
    return Evaluation(program, way, structure, dtype, origin)


@functools.lru_cache(maxsize=128)
def _computed_once(program: _program.Program, dtype: DTypeLike) -> Callable[..., PyTree]:
    """The compiled program of what is computed once."""
    divided = _plan.divide(program)
    return jax.jit(lambda arrays, is_near: _leaves.compute(divided, dtype, arrays, is_near))


@functools.lru_cache(maxsize=128)
def _evaluated(evaluation: Evaluation) -> Callable[..., PyTree]:
    """The compiled program of what is done at a point."""
    program, divided = evaluation.program, _plan.divide(evaluation.program)

    def outputs(equations: Any, known: dict[int, Any], coordinates: Sequence[Array]) -> PyTree:
        known |= zip(program.coordinates, coordinates, strict=True)
        computed = _program.run(equations, known)
        return [_program.read(computed, atom) for atom in program.outputs]

    def from_arrays(arrays: PyTree, coordinates: Sequence[Array]) -> PyTree:
        known = dict(zip(program.arrays, arrays, strict=True))
        return outputs(program.equations, known, coordinates)

    def from_leaves(leaves: PyTree, coordinates: Sequence[Array]) -> PyTree:
        known = {
            number: _leaves.at_point(
                divided.values[number], leaf, program.avals[number], coordinates
            )
            for number, leaf in zip(divided.leaves, leaves, strict=True)
        }
        return outputs(divided.rest, known, coordinates)

    def outputs_of(held: PyTree, coordinates: Sequence[Array]) -> list[Array]:
        if evaluation.way == "leaves":
            return from_leaves(held[0], coordinates)
        if evaluation.way == "arrays":
            return from_arrays(held[0], coordinates)
        is_right, leaves, arrays = held
        return jax.lax.cond(
            is_right,
            lambda: from_leaves(leaves, coordinates),
            lambda: from_arrays(arrays, coordinates),
        )

    def evaluate(held: PyTree, coordinates: Sequence[Array]) -> PyTree:
        spoiled_by = [_plan.spoiled_by(divided, atom) for atom in program.outputs]
        values = [
            _spoil(value, [coordinates[index] for index in indices])
            for value, indices in zip(outputs_of(held, coordinates), spoiled_by, strict=True)
        ]
        return jax.tree.unflatten(evaluation.structure, values)

    return jax.jit(evaluate, inline=True)


def _spoil(value: Any, coordinates: Sequence[Array]) -> Array:
    """NaN where a coordinate is not finite that makes NaN of an array which it does not move."""
    value = jnp.asarray(value)
    for coordinate in coordinates:
        value = jnp.where(jnp.isfinite(coordinate), value, jnp.nan)
    return value


def explain(fn: Callable[..., PyTree], num_coordinates: int, dtype: DTypeLike) -> str:
    """Says what ``hoist`` computes once, what is left at each point, and what that saves."""
    program, _, _ = _program.trace(fn, num_coordinates, dtype, (), _rules.is_repeatable)
    divided = _plan.divide(program)
    num_operations = len(program.equations)
    if not _plan.is_worthwhile(divided):
        return (
            f"Nothing is worth computing once: all {num_operations} operations are done at each "
            "point, and the restricted loss is the loss itself."
        )
    lines = ["Computed once, and read at each point:"]
    lines += [f"  {count} x {what}" for what, count in _counted(_plan.leaf_names(divided))]
    lines.append(f"Left at each point, {len(divided.rest)} of {num_operations} operations:")
    names = (equation.source.primitive.name for equation in divided.rest)
    lines.append("  " + (", ".join(f"{n} x {name}" for name, n in _counted(names)) or "none"))
    lines.append(f"By estimate, a point takes {divided.share:.1%} of the work of the loss.")
    return "\n".join(lines)


def _counted(names: Iterable[str]) -> list[tuple[str, int]]:
    """Names with how often they occur, the commonest first."""
    return collections.Counter(names).most_common()
