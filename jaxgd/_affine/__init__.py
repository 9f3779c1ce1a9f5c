"""The transformation behind ``planes.restrict``: compute once what all points share.

A function of k coordinates is traced to a program, and each value in it is one of four kinds:

  CONSTANT  the same at every point: computed once;
  AFFINE    ``origin + c_1 t_1 + ... + c_k t_k``: computed once, as its value at the origin and
            one tangent for each coordinate that moves it;
  SQUARES   sums of squares of affine values, weighted by constants: once summed up to a scalar,
            the R factor of the matrix [tangents, origin] holds all of it in k + 1 rows;
  VARYING   everything else: left to the rest of the program, which runs at each point.

Kinds flow forward, from operands to results, by the tables below. What is in no table is
VARYING, so that an unknown operation is evaluated plainly rather than wrongly. Costs flow
along: a value can be had at a point by reading it (its origin and tangents), or by computing
it from its operands, and the cheaper way is taken. So a product with a matrix is read, and a
bias is read before it is broadcast. What the rest of the program needs is then found backward
from the outputs; nothing else is computed once.

Three rules keep it right. A value of less than 32 bits is never AFFINE: its rounding shows. A
call with a derivative of its own (custom_jvp, custom_vjp) stays whole, and so keeps it. And
where a tangent is not finite (an infinite factor, a division by zero), affine arithmetic would
make NaN of 0 * inf, so the whole program is evaluated plainly instead.
"""

import enum
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxgd.types import Array

# Calls that are entered. (remat changes how a gradient is computed, not what it is.)
_CALLS = {"jit", "remat2"}

# Operations that move or copy the entries of one operand.
_LAYOUT = {"broadcast_in_dim", "copy", "name", "reshape", "rev", "slice", "squeeze", "transpose"}

# The operands in which an operation is linear while all others are constant.
_LINEAR = (
    dict.fromkeys(_LAYOUT | {"add", "add_any", "concatenate", "cumsum", "neg"}, slice(None))
    | dict.fromkeys({"pad", "reduce_sum", "reduce_window_sum", "split", "sub"}, slice(None))
    | dict.fromkeys({"convert_element_type", "div", "dynamic_slice", "gather"}, slice(1))
    | dict.fromkeys({"scatter", "scatter-add"}, slice(0, 3, 2))
    | {"dynamic_update_slice": slice(2), "select_n": slice(1, None)}
)

# A matrix product by a named algorithm may round its operands.
_ALGORITHMS = (jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset)

# Linear in each of two operands, hence affine while one of them is constant.
_BILINEAR = {"conv_general_dilated", "dot_general", "mul"}

# What a compiler fuses into its consumer: for nothing, or for a fraction of a read per entry.
_FREE = _LAYOUT | {"convert_element_type", "iota", "split"}
_CHEAP = {"add", "add_any", "concatenate", "div", "eq", "integer_pow", "mul", "neg", "pad", "pow"}
_CHEAP |= {"select_n", "square", "sub"}


# An array whose last axis is shorter than this is read as a flat one: a compiler fills its vector
# lanes along the last axis alone (an array of (20,000, 4) is read in half the time).
_LANES = 32

_Rows = dict[int, list[Array]]
"""Affine arrays whose squares count positively (1) or negatively (-1)."""


class _Kind(enum.IntEnum):
    CONSTANT = 0
    AFFINE = 1
    SQUARES = 2
    VARYING = 3


class _Value(NamedTuple):
    """What is known of a variable.

    Attributes:
      kind: how it depends on the coordinates.
      moved_by: the positions of the coordinates it depends on.
      cost: of having it at a point, in entries read.
      read: whether it is read there, rather than computed from its operands.
    """

    kind: _Kind
    moved_by: frozenset[int]
    cost: float
    read: bool


class _Plan(NamedTuple):
    """A program and how it is divided.

    Attributes:
      arrays: the variables for the arrays it works on.
      coordinates: the variables for the coordinates.
      outputs: the variables or literals that it returns.
      values: what is known of each variable.
      whole: all equations.
      once: those that compute the leaves.
      leaves: the variables that are read at a point.
      rest: the equations that compute the outputs from the leaves and the coordinates.
    """

    arrays: Sequence[Any]
    coordinates: Sequence[Any]
    outputs: Sequence[Any]
    values: dict[Any, _Value]
    whole: Sequence[Any]
    once: Sequence[Any]
    leaves: Sequence[Any]
    rest: Sequence[Any]


def hoist(fn: Callable[..., Any], num_coordinates: int, dtype: Any) -> jax.tree_util.Partial:
    """Makes a function that skips at each point what can be computed once for all.

    Args:
      fn: k scalars -> a pytree of scalars; it may close over traced arrays.
      num_coordinates: k.
      dtype: that of the coordinates.

    Returns:
      ``fn`` for k scalars of that dtype, as a Partial whose arrays are leaves.
    """
    coordinates = [jax.ShapeDtypeStruct((), dtype)] * num_coordinates
    traced, output = jax.make_jaxpr(fn, return_shape=True)(*coordinates)
    flat = jax.make_jaxpr(lambda *args: _inlined(traced, args, {}))(*traced.consts, *coordinates)
    arrays = [*flat.consts, *traced.consts]
    plan = _plan(flat.jaxpr, num_coordinates)
    structure = jax.tree.structure(output)

    def outputs(eqns: Any, variables: Any, known: Any, coordinates: Any) -> Any:
        names = [*variables, *plan.coordinates]
        env = _run(eqns, dict(zip(names, [*known, *coordinates], strict=True)))
        values = [jax.lax.convert_element_type(_read(env, v), v.aval.dtype) for v in plan.outputs]
        return jax.tree.unflatten(structure, values)

    def from_arrays(arrays: Any, *coordinates: Array) -> Any:
        return outputs(plan.whole, plan.arrays, arrays, coordinates)

    def from_leaves(leaves: Any, *coordinates: Array) -> Any:
        pairs = zip(plan.leaves, leaves, strict=True)
        known = [
            _at_point(plan.values[v], leaf, coordinates).reshape(v.aval.shape) for v, leaf in pairs
        ]
        return outputs(plan.rest, plan.leaves, known, coordinates)

    def from_either(finite: Array, leaves: Any, arrays: Any, *coordinates: Array) -> Any:
        return jax.lax.cond(
            finite,
            lambda: from_leaves(leaves, *coordinates),
            lambda: from_arrays(arrays, *coordinates),
        )

    leaves, finite = jax.jit(lambda arrays: _compute_once(plan, dtype, arrays))(arrays)
    if isinstance(finite, jax.core.Tracer):
        return jax.tree_util.Partial(from_either, finite, leaves, arrays)
    if finite:
        return jax.tree_util.Partial(from_leaves, leaves)
    return jax.tree_util.Partial(from_arrays, arrays)


# Running programs, whole or in part.


def _run(eqns: Iterable[Any], env: dict[Any, Any], rule: Any = None) -> dict[Any, Any]:
    """Runs equations in an environment of values, each by a rule: ``_bind`` unless given."""
    for eqn in eqns:
        results = (rule or _bind)(eqn, [_read(env, v) for v in eqn.invars])
        env.update(zip(eqn.outvars, results, strict=True))
    return env


def _bind(eqn: Any, operands: Sequence[Any]) -> Sequence[Any]:
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return results if eqn.primitive.multiple_results else [results]


def _read(env: dict[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, jex.Literal) else env[atom]


def _inlined(closed: Any, args: Sequence[Any], seen: dict[Any, Any]) -> list[Any]:
    """The outputs of a program; tracing this makes a program without nested calls.

    The same affine operation on the same operands is done once, so that a square is seen in
    ``(f(x) - y) * (f(x) - y)``. What was done is in ``seen``, with its operands, which keeps
    their ids theirs.
    """

    def same(atom: Any, operand: Any) -> Any:
        if isinstance(atom, jex.Literal):
            return str(atom.aval), np.asarray(operand).tobytes()
        return id(operand)

    def enter(eqn: Any, operands: Sequence[Any]) -> Sequence[Any]:
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params["jaxpr"]
            return _inlined(inner, [*getattr(inner, "consts", ()), *operands], seen)
        if name not in _LINEAR and name not in _BILINEAR:
            return _bind(eqn, operands)
        key = (name, *map(same, eqn.invars, operands), *eqn.params.items())
        if key not in seen:
            seen[key] = operands, _bind(eqn, operands)
        return seen[key][1]

    program = closed.jaxpr if hasattr(closed, "consts") else closed  # closed, or open already
    names = [*program.constvars, *program.invars]
    env = _run(program.eqns, dict(zip(names, args, strict=True)), enter)
    return [_read(env, v) for v in program.outvars]


# What each variable is, and where it is had.


def _plan(program: Any, num_coordinates: int) -> _Plan:
    inputs = [*program.constvars, *program.invars]
    arrays, coordinates = inputs[:-num_coordinates], inputs[-num_coordinates:]
    values = {v: _Value(_Kind.CONSTANT, frozenset(), cost=_size(v), read=True) for v in arrays}
    for index, v in enumerate(coordinates):
        values[v] = _Value(_Kind.AFFINE, frozenset({index}), cost=0, read=False)
    literal = _Value(_Kind.CONSTANT, frozenset(), cost=0, read=False)
    for eqn in program.eqns:
        operands = [literal if isinstance(v, jex.Literal) else values[v] for v in eqn.invars]
        kind = _kind(eqn, operands)
        moved_by = frozenset[int]().union(*(operand.moved_by for operand in operands))
        computing = _price(eqn) + sum(operand.cost for operand in operands)
        for v in eqn.outvars:
            reading = _reading(kind, v, len(moved_by))
            read = reading <= computing and reading < math.inf
            values[v] = _Value(kind, moved_by, min(reading, computing), read)

    needed = {v for v in program.outvars if not isinstance(v, jex.Literal)}
    rest = _slice(program.eqns, needed, lambda v: not values[v].read)
    leaves = [v for v in values if v in needed and values[v].read]
    steady = [eqn for eqn in program.eqns if _is_steady(eqn, values)]
    once = _slice(steady, set(leaves), lambda _: True)
    return _Plan(arrays, coordinates, program.outvars, values, program.eqns, once, leaves, rest)


def _slice(eqns: Sequence[Any], needed: set[Any], computed: Callable[[Any], bool]) -> list[Any]:
    """The equations that compute what is needed. What they need themselves joins ``needed``."""
    chosen = []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in needed and computed(v) for v in eqn.outvars):
            chosen.append(eqn)
            needed.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
    return chosen[::-1]


def _kind(eqn: Any, operands: Sequence[_Value]) -> _Kind:
    """The kind of an equation's results."""
    name, kinds = eqn.primitive.name, [operand.kind for operand in operands]
    kind = max(kinds, default=_Kind.CONSTANT)
    if eqn.effects or not (kind == _Kind.CONSTANT or _is_precise(eqn, kinds)):
        return _Kind.VARYING
    moved = {position for position, kind in enumerate(kinds) if kind != _Kind.CONSTANT}
    if kind == _Kind.AFFINE:
        if _is_square(eqn):
            return _Kind.SQUARES
        linear = set(range(len(kinds))[_LINEAR.get(name, slice(0))])
        if not (moved <= linear or (name in _BILINEAR and len(moved) == 1)):
            return _Kind.VARYING
    if kind == _Kind.SQUARES and not _keeps_squares(eqn, moved, kinds):
        return _Kind.VARYING
    return kind


def _is_precise(eqn: Any, kinds: Sequence[_Kind]) -> bool:
    """Whether everything that moves is in float32 or float64, and not narrowed."""
    moved = [v.aval for v, kind in zip(eqn.invars, kinds, strict=True) if kind]
    results = [v.aval for v in eqn.outvars]
    return (
        all(getattr(aval, "dtype", None) in (np.float32, np.float64) for aval in moved + results)
        and max(aval.dtype.itemsize for aval in moved) <= results[0].dtype.itemsize
        and not isinstance(eqn.params.get("precision"), _ALGORITHMS)
    )


def _is_square(eqn: Any) -> bool:
    """Whether an equation squares its only operand, or sums its squares."""
    same = len(eqn.invars) == 2 and eqn.invars[0] is eqn.invars[1]
    match eqn.primitive.name:
        case "square":
            return True
        case "integer_pow":
            return eqn.params["y"] == 2
        case "pow":
            return isinstance(eqn.invars[1], jex.Literal) and eqn.invars[1].val == 2
        case "mul":
            return same
        case "dot_general":
            return same and _is_sum_of_products(eqn)
    return False


def _is_sum_of_products(eqn: Any) -> bool:
    """Whether a dot_general sums an elementwise product over some axes, as reduce_sum does."""
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    operand, result = eqn.invars[0].aval, eqn.outvars[0].aval
    kept = tuple(axis for axis in range(operand.ndim) if axis not in left)
    return left == right and left_batch == right_batch == kept and operand.dtype == result.dtype


def _keeps_squares(eqn: Any, moved: set[int], kinds: Sequence[_Kind]) -> bool:
    """Whether weighted squares stay weighted squares."""
    shapes = {v.aval.shape for i, v in enumerate(eqn.invars) if i in moved}
    match eqn.primitive.name:
        case "add":
            return _Kind.AFFINE not in kinds and shapes == {eqn.outvars[0].aval.shape}
        case "mul":
            return len(moved) == 1 and shapes == {eqn.outvars[0].aval.shape}
        case "div":
            return moved == {0} and shapes == {eqn.outvars[0].aval.shape}
        case "dot_general":
            return len(moved) == 1 and _is_sum_of_products(eqn)
        case name:
            return name in _LAYOUT | {"reduce_sum"}


def _is_steady(eqn: Any, values: dict[Any, _Value]) -> bool:
    return not eqn.effects and all(values[v].kind != _Kind.VARYING for v in eqn.outvars)


def _size(v: Any) -> int:
    return math.prod(getattr(v.aval, "shape", ()))


def _price(eqn: Any) -> float:
    """The cost of computing an equation at a point, in entries read; infinite if not known.

    Measured on a CPU: a product is written and read again, and 8 multiplications of a matrix
    product, or 32 of a convolution, take as long as one more read.
    """
    name, size = eqn.primitive.name, sum(_size(v) for v in eqn.outvars)
    match name:
        case "gather":
            return size
        case "reduce_sum":
            return _size(eqn.invars[0])
        case "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            return size * (2 + math.prod(shape[axis] for axis in contracted) / 8)
        case "conv_general_dilated":
            _, *window = eqn.params["dimension_numbers"].rhs_spec
            shape = eqn.invars[1].aval.shape
            return size * (1.5 + math.prod(shape[axis] for axis in window) / 32)
    return 0 if name in _FREE else size / 4 if name in _CHEAP else math.inf


def _reading(kind: _Kind, v: Any, num_tangents: int) -> float:
    """The cost of reading a value at a point; squares are read as scalars only."""
    if kind == _Kind.VARYING or (kind == _Kind.SQUARES and v.aval.shape != ()):
        return math.inf
    rows = num_tangents + 1 if kind == _Kind.SQUARES else 1
    return _size(v) * rows * (num_tangents + 1 if kind else 1)


# What is computed once, and how it is read at a point.


def _compute_once(plan: _Plan, dtype: Any, arrays: Sequence[Array]) -> tuple[list[Any], Array]:
    """The leaves, each as its origin and its tangents, and whether all tangents are finite."""
    values = plan.values

    def rule(eqn: Any, operands: Sequence[Any]) -> Sequence[Any]:
        if values[eqn.outvars[0]].kind != _Kind.SQUARES:
            return _bind(eqn, operands)
        return [_rows(eqn, operands)]

    def at(*coordinates: Array) -> list[Any]:
        names = [*plan.arrays, *plan.coordinates]
        env = _run(plan.once, dict(zip(names, [*arrays, *coordinates], strict=True)), rule)
        return [env[v] for v in plan.leaves]

    basis = jnp.eye(len(plan.coordinates), dtype=dtype)
    origins, push = jax.linearize(at, *jnp.zeros_like(basis[0]))
    pushed = [push(*row) for row in basis]
    leaves, checked = [], []
    for index, (v, origin) in enumerate(zip(plan.leaves, origins, strict=True)):
        kind, tangents = values[v].kind, [pushed[i][index] for i in sorted(values[v].moved_by)]
        if kind == _Kind.SQUARES:
            leaf = {sign: _compressed(*(t[sign] for t in [*tangents, origin])) for sign in origin}
        elif kind == _Kind.AFFINE and v.aval.shape[-1:] < (_LANES,):
            leaf = (origin.ravel(), [tangent.ravel() for tangent in tangents])
        else:
            leaf = (origin, tangents)
        leaves.append(leaf)
        checked += jax.tree.leaves(leaf if kind == _Kind.SQUARES else tangents)
    return leaves, jnp.all(jnp.array([jnp.isfinite(x).all() for x in checked], bool))


def _at_point(value: _Value, leaf: Any, coordinates: Sequence[Array]) -> Array:
    """The value of a leaf at the given coordinates."""

    def moved(origin: Array, tangents: Sequence[Array]) -> Array:
        for index, tangent in zip(sorted(value.moved_by), tangents, strict=True):
            origin = origin + coordinates[index].astype(tangent.dtype) * tangent
        return origin

    if value.kind != _Kind.SQUARES:
        return moved(*leaf)
    # Row by row, and there are few: that is scalar arithmetic, which a vmap makes fast.
    squares = [
        sign * jnp.square(moved(origin[row], [tangent[row] for tangent in tangents]))
        for sign, (origin, tangents) in leaf.items()
        for row in range(origin.size)
    ]
    dtype = next(iter(leaf.values()))[0].dtype
    return functools.reduce(jnp.add, squares, jnp.zeros((), dtype))


def _rows(eqn: Any, operands: Sequence[Any]) -> _Rows:
    """Squares of shape s, as affine arrays of shape (n, *s) whose squares sum up to them.

    Those that count positively and negatively are kept apart, so that a weight may have any
    sign, even one that is not known yet.
    """
    name = eqn.primitive.name
    squares = [x for x in operands if isinstance(x, dict)]
    others = [x for x in operands if not isinstance(x, dict)]
    if name == "reduce_sum":
        return _summed(squares[0], eqn.params["axes"])
    if name == "dot_general":
        (axes, _), _ = eqn.params["dimension_numbers"]
        terms = _weighted(squares[0], others[0]) if squares else {1: [others[0][None]]}
        return _summed(terms, axes)
    if not squares:
        return {1: [others[0][None]]}
    if name == "add":
        one = {1: [jnp.ones((1, *eqn.outvars[0].aval.shape), eqn.outvars[0].aval.dtype)]}
        squares += [_weighted(one, constant) for constant in others]
        signs = {sign for rows in squares for sign in rows}
        return {sign: [a for rows in squares for a in rows.get(sign, [])] for sign in signs}
    if name in _LAYOUT:
        return _each(squares[0], jax.vmap(lambda row: _bind(eqn, [row])[0]))
    return _weighted(squares[0], others[0], inverse=name == "div")


def _each(rows: _Rows, fn: Callable[[Array], Array]) -> _Rows:
    return {sign: [fn(a) for a in arrays] for sign, arrays in rows.items()}


def _summed(rows: _Rows, axes: Sequence[int]) -> _Rows:
    """Sums squares over some axes: these are counted among the rows."""

    def flat(a: Array) -> Array:
        a = jnp.moveaxis(a, [axis + 1 for axis in axes], range(len(axes)))
        summed, kept = a.shape[: len(axes) + 1], a.shape[len(axes) + 1 :]
        return a.reshape(math.prod(summed), *kept)

    return _each(rows, flat)


def _weighted(rows: _Rows, weight: Any, *, inverse: bool = False) -> _Rows:
    """Multiplies squares by a weight: by its positive and by its negative part, if unknown."""
    known = () if isinstance(weight, jax.Array) else (-1 if weight < 0 else 1,)
    result: _Rows = {}
    for part in known or (1, -1):
        factor = part / jnp.asarray(weight) if inverse else part * jnp.asarray(weight)
        root = jnp.sqrt(jnp.maximum(factor, 0))
        for sign, arrays in rows.items():
            scaled = [jax.vmap(lambda row, root=root: row * root)(a) for a in arrays]
            result[part * sign] = result.get(part * sign, []) + scaled
    return result


def _compressed(*columns: list[Array]) -> tuple[Array, list[Array]]:
    """The R factor of the matrix [tangents, origin], whose rows have the same squares in sum."""
    matrix = jnp.stack([jnp.concatenate(column) for column in columns], axis=1)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = jnp.linalg.qr(matrix, mode="r")
    *tangents, origin = matrix.T
    return origin, tangents
