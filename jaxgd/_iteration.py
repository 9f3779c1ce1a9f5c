"""The one loop behind descents and solves: look, judge, record, move.

A run stands at a position and has a memory. At each visit it is looked at, judged, recorded
and moved. One that has ended stays where it is, while others go on under ``jax.vmap``.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike, PyTree, Status

_FEW_ENTRIES = 256  # of a position: comparing them costs less than a branch


class Rule(NamedTuple):
    """What a room brings to the loop.

    Attributes:
      look: ``look(position, memory, t) -> (row, seen)``: what is recorded of the point in every
        row, and what else is seen there.
      judge: ``judge(first_row, row, seen, position) -> status``, MAX_STEPS for a run that may
        go on.
      keep: ``keep(position)``: what is recorded in every ``keep_every``-th row.
      move: ``move(position, memory, row, seen, t) -> (position, memory)``.
    """

    look: Callable[[PyTree, PyTree, Array], tuple[PyTree, PyTree]]
    judge: Callable[[PyTree, PyTree, PyTree, PyTree], Array]
    keep: Callable[[PyTree], PyTree]
    move: Callable[[PyTree, PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]


class Run(NamedTuple):
    """Where a run stands. Its status is MAX_STEPS until it ends before that.

    It carries all that its status depends on, so that rows which the caller drops are not kept.
    """

    position: PyTree
    memory: PyTree
    num_steps: Array
    is_still: Array  # whether no step of the second half has changed the position
    first: PyTree  # the row of the start
    last: PyTree  # the row of the last point seen
    status: Array


class Rows(NamedTuple):
    """What is recorded: ``each`` has a row per point, ``kept`` one per ``keep_every`` steps."""

    each: PyTree
    kept: PyTree


class _Carry(NamedTuple):
    t: Array
    run: Run
    rows: Rows
    mark: Array  # of the position, from the middle of the run on


def decide(
    *,
    is_finite: ArrayLike = True,
    has_diverged: ArrayLike = False,
    has_converged: ArrayLike = False,
    is_stalled: ArrayLike = False,
) -> Array:
    """The status of a run by what is true of it, the first that applies; elementwise."""
    status = jnp.where(is_stalled, Status.STALLED, Status.MAX_STEPS)
    status = jnp.where(has_converged, Status.CONVERGED, status)
    status = jnp.where(has_diverged, Status.DIVERGED, status)
    return jnp.where(is_finite, status, Status.NON_FINITE).astype(jnp.int32)


def iterate(
    rule: Rule,
    position: PyTree,
    memory: PyTree,
    *,
    num_steps: int,
    keep_every: int = 1,
    ends_early: bool,
    ends_when_unchanged: bool = False,
) -> tuple[Run, Rows]:
    """Visits N + 1 points, judging each.

    Args:
      rule: what to do at each.
      position: the start.
      memory: what the rule carries beside the position.
      num_steps: N.
      keep_every: how many steps lie between two rows of ``kept``; a divisor of N.
      ends_early: whether to stop with the last run to end, so that the cost follows the steps
        taken; there is no reverse mode then.
      ends_when_unchanged: whether a step that changes neither position nor memory ends a run.
    """
    middle = num_steps // 2
    num_entries = sum(leaf.size for leaf in jax.tree.leaves(position))
    compares = ends_when_unchanged or num_entries <= _FEW_ENTRIES

    def visit(carry: _Carry) -> _Carry:
        t, run, rows, mark = carry
        row, seen = rule.look(run.position, run.memory, t)
        is_going = run.status == Status.MAX_STEPS
        row = _where(is_going, row, run.last)
        first = _where(t == 0, row, run.first)
        judged = rule.judge(first, row, seen, run.position)
        status = jnp.where(is_going, judged, run.status)
        moves = (status == Status.MAX_STEPS) & (t < num_steps)

        # Selecting costs less than a branch, for which XLA would copy all that is carried.
        gate = functools.partial(_constant_unless, moves)
        position, memory = rule.move(gate(run.position), gate(run.memory), gate(row), gate(seen), t)
        held = run._replace(first=first, last=row, status=status)
        moved = held._replace(position=position, memory=memory, num_steps=run.num_steps + 1)
        is_unchanged = same(position, run.position) if compares else jnp.bool_(False)
        if ends_when_unchanged:
            is_stalled = is_unchanged & same(memory, run.memory)
            moved = moved._replace(status=jnp.where(is_stalled, jnp.int32(Status.STALLED), status))
        moved = _where(moves, moved, held)
        is_still = moved.is_still & (moved.status == Status.MAX_STEPS)
        if not compares:  # that would take a copy; a run that moves is marked twice
            is_marked = _in_any_lane(is_still & (t + 1 >= middle))
            last_mark, no_mark = mark, jnp.uint32(0)
            mark = jax.lax.cond(is_marked, _mark, lambda _: no_mark, moved.position)
            is_unchanged = mark == last_mark
        moved = moved._replace(is_still=is_still & ((t < middle) | ~moves | is_unchanged))
        is_last = ends_early and ~_in_any_lane(moved.status == Status.MAX_STEPS)
        rows = _recorded(rows, rule, run.position, row, t, is_last, keep_every)
        return _Carry(t + 1, moved, rows, mark)

    start = _start(rule, position, memory, num_steps, keep_every)
    if not ends_early:
        carry, _ = jax.lax.scan(lambda carry, _: (visit(carry), None), start, length=num_steps + 1)
        return carry.run, carry.rows

    def is_unfinished(carry: _Carry) -> Array:
        return (carry.t <= num_steps) & _in_any_lane(carry.run.status == Status.MAX_STEPS)

    t, run, rows, _ = jax.lax.while_loop(is_unfinished, visit, start)
    return run, _with_the_last_repeated(rows, t, keep_every)


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _with_the_last_repeated(rows: Rows, num_visits: Array, keep_every: int) -> Rows:
    """The rows of a run that ended, its last one in all rows that were not visited, too."""
    last = num_visits - 1

    def repeat(leaf: Array, last: Array) -> Array:
        return leaf[jnp.minimum(jnp.arange(leaf.shape[0]), last)]

    return Rows(
        jax.tree.map(lambda leaf: repeat(leaf, last), rows.each),
        jax.tree.map(lambda leaf: repeat(leaf, _kept_row(last, keep_every)), rows.kept),
    )


def iterate_and_judge_later(
    rule: Rule, position: PyTree, memory: PyTree, *, num_steps: int
) -> tuple[Run, Rows]:
    """Visits N + 1 points, all of them kept, and judges them afterwards. The memory holds no array.

    For long runs: judging all rows at once costs a few percent where judging each point costs up
    to a third, but 20 microseconds, and as much to compile as the loop. Most runs end well.
    Where one went bad, its rows are set back to the point where it did.
    """

    def visit(carry: _Carry, _: None) -> tuple[_Carry, None]:
        t, run, rows, mark = carry
        row, seen = rule.look(run.position, memory, t)
        moved, _ = rule.move(run.position, memory, row, seen, t)
        rows = _recorded(rows, rule, run.position, row, t, False, 1)
        run = run._replace(position=_where(t < num_steps, moved, run.position))
        return _Carry(t + 1, run, rows, mark), None

    def travel(start: _Carry) -> tuple[Run, Rows]:
        (_, run, rows, _), _ = jax.lax.scan(visit, start, length=num_steps + 1)

        indices = jnp.arange(num_steps + 1, dtype=jnp.int32)
        first = jax.tree.map(lambda leaf: leaf[0], rows.each)

        def set_back(rows: Rows) -> tuple[Array, Array, Rows]:
            judge = jax.vmap(lambda row, kept: rule.judge(first, row, None, kept))
            statuses = judge(rows.each, rows.kept)
            end = jnp.min(jnp.where(statuses == Status.MAX_STEPS, num_steps, indices))
            rows = jax.tree.map(lambda leaf: leaf[jnp.minimum(indices, end)], rows)
            return statuses[end], end, rows

        # A position that has overflown does not come back: the last one tells.
        statuses = jax.vmap(lambda row: rule.judge(first, row, None, run.position))(rows.each)
        went_bad = _in_any_lane(jnp.any(statuses != Status.MAX_STEPS))
        status, end, rows = jax.lax.cond(
            went_bad, set_back, lambda rows: (run.status, jnp.int32(num_steps), rows), rows
        )
        last, end_position = jax.tree.map(lambda leaf: leaf[end], (rows.each, rows.kept))

        def is_at_end(kept: PyTree) -> Array:
            late = jax.tree.map(lambda leaf: leaf[num_steps // 2 :], kept)
            return jax.vmap(same, in_axes=(0, None))(late, end_position).all()

        before_last = jax.tree.map(lambda leaf: leaf[max(num_steps - 1, 0)], rows.kept)
        is_still = jax.lax.cond(
            _in_any_lane(same(before_last, end_position)),
            is_at_end,
            lambda _: jnp.bool_(False),
            jax.lax.stop_gradient(rows.kept),
        )
        return Run(end_position, memory, end, is_still, first, last, status), rows

    # Looking back takes many operations: one program where no caller jits them.
    start = _start(rule, position, memory, num_steps, 1)
    return jax.jit(travel, inline=True)(start)


def _start(rule: Rule, position: PyTree, memory: PyTree, num_steps: int, keep_every: int) -> _Carry:
    """The carry of the first visit, with rows of zeros that are still to be written."""

    def record(position: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        return rule.look(position, memory, jnp.int32(0))[0], rule.keep(position)

    row, kept = jax.eval_shape(record, position, memory)

    def blank(tree: PyTree, *num_rows: int) -> PyTree:
        return jax.tree.map(lambda leaf: _zeros(leaf, *num_rows), tree)

    zero, is_still, status, no_mark = _untraveled()
    unseen = blank(row)
    run = Run(position, memory, zero, is_still, unseen, unseen, status)
    rows = Rows(blank(row, num_steps + 1), blank(kept, num_steps // keep_every + 1))
    mark = _mark(position) if num_steps == 1 else no_mark
    return _Carry(zero, run, rows, mark)


@functools.partial(jax.jit, inline=True)
def _untraveled() -> tuple[Array, Array, Array, Array]:
    """No steps, standing still, a run that may go on, no mark."""
    return jnp.int32(0), jnp.bool_(True), jnp.int32(Status.MAX_STEPS), jnp.uint32(0)


def _zeros(leaf: jax.ShapeDtypeStruct, *num_rows: int) -> Array:
    """Rows of zeros, laid out over the devices as the leaf is where that is part of its type."""
    zeros = jnp.zeros((*num_rows, *leaf.shape), leaf.dtype)
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return zeros
    spec = PartitionSpec(*(None for _ in num_rows), *sharding.spec)
    return jax.sharding.reshard(zeros, NamedSharding(sharding.mesh, spec))


def _recorded(
    rows: Rows,
    rule: Rule,
    position: PyTree,
    row: PyTree,
    t: Array,
    is_last: ArrayLike,
    keep_every: int,
) -> Rows:
    """The rows with those of visit t. Between two kept points a row is still to be overwritten."""

    def put(rows: PyTree, row: PyTree, index: Array) -> PyTree:
        write = jax.lax.dynamic_update_index_in_dim
        return jax.tree.map(lambda leaf, new: write(leaf, new, index, 0), rows, row)

    if keep_every == 1:
        kept = rule.keep(position)
    else:
        like = jax.eval_shape(rule.keep, position)  # the rows themselves, sliced, lose their mesh
        kept = jax.lax.cond(
            (t % keep_every == 0) | is_last,
            rule.keep,
            lambda _: jax.tree.map(_zeros, like),
            position,
        )
    return Rows(put(rows.each, row, t), put(rows.kept, kept, _kept_row(t, keep_every)))


def _kept_row(t: Array, keep_every: int) -> Array:
    return t if keep_every == 1 else (t + keep_every - 1) // keep_every


def _where(condition: ArrayLike, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), new, old)


def _constant_unless(condition: Array, tree: PyTree) -> PyTree:
    """The tree itself, a constant in reverse mode where the condition does not hold."""
    return _where(condition, tree, jax.lax.stop_gradient(tree))


def same(new: PyTree, old: PyTree) -> Array:
    """Whether two trees of arrays are equal; NaN equals NaN."""

    def equal(a: Array, b: Array) -> Array:
        return jnp.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact))

    return jax.tree.reduce(jnp.logical_and, jax.tree.map(equal, new, old), jnp.bool_(True))


def _mark(tree: PyTree) -> Array:
    """A hash of the entries: after a change, of signs or places alone too, another number.

    Its bits are mixed by MurmurHash3, so that two changes cancel by chance only, 1 time in 2^32.
    """
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(jax.lax.stop_gradient(tree)):
        bits = _bits(leaf)
        if leaf.dtype.itemsize == 8:
            bits = bits ^ (bits >> 32) * 0x9E3779B1
        index = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
        mixed = bits.astype(jnp.uint32) + jnp.uint32(0x9E3779B1) * index
        mixed = (mixed ^ mixed >> 16) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ mixed >> 13) * jnp.uint32(0xC2B2AE35)
        mixed = mixed ^ mixed >> 16
        total = jnp.uint32(31) * total + jnp.sum(mixed, dtype=jnp.uint32)
    return total


@jax.custom_jvp
def largest(tree: PyTree) -> Array:
    """The largest absolute entry; NaN if there is one, 0 if there is no entry."""
    return _largest(tree, _largest_entry)


@largest.defjvp
def _push_largest(primals: tuple[PyTree], tangents: tuple[PyTree]) -> tuple[Array, Array]:
    return jax.jvp(lambda tree: _largest(tree, lambda x: jnp.max(jnp.abs(x))), primals, tangents)


def _largest(tree: PyTree, largest_entry: Callable[[Array], Array]) -> Array:
    leaves = jax.tree.leaves(tree)
    entries = [largest_entry(leaf) for leaf in leaves if leaf.size]
    if not entries:
        return jnp.zeros((), leaves[0].dtype)
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.maximum, entries)


def _largest_entry(leaf: Array) -> Array:
    """The largest absolute entry, found among the bits of the entries.

    Without their sign, floating-point numbers are ordered as their bits are, read as integers,
    infinity next to last and NaN last. Compilers compare integers many at a time, but not
    numbers that may be NaN.
    """
    return jax.lax.bitcast_convert_type(jnp.max(_bits(jnp.abs(leaf))), leaf.dtype)


def _bits(leaf: Array) -> Array:
    return jax.lax.bitcast_convert_type(leaf, f"int{8 * leaf.dtype.itemsize}")


def constant_where_not_finite(
    fn: Callable[..., PyTree], judged: Callable[[PyTree], PyTree], *example: PyTree
) -> Callable[..., PyTree]:
    """``fn``, whose output counts as a constant where what is judged is infinite or NaN.

    In reverse mode, what a bad point passes back is NaN even where nothing depends on it,
    since 0 times infinity is NaN: selecting the good rows afterwards comes too late.

    Args:
      fn: a function of pytrees of arrays. What it closes over is differentiated, too.
      judged: ``judged(output)``, arrays, all of which have to be finite.
      *example: arguments of the shapes and dtypes to come.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*example)
    structure = jax.tree.structure(shapes)

    def evaluate(consts: PyTree, args: PyTree) -> PyTree:
        outputs = jax.core.eval_jaxpr(closed.jaxpr, consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(structure, outputs)

    @jax.custom_jvp
    def shielded(consts: PyTree, args: PyTree) -> PyTree:
        return evaluate(consts, args)

    @shielded.defjvp
    def push_forward(primals: PyTree, tangents: PyTree) -> tuple[PyTree, PyTree]:
        output, push = jax.linearize(evaluate, *primals)
        is_finite = jnp.bool_(True)
        for leaf in jax.tree.leaves(judged(output)):
            is_finite = is_finite & jnp.isfinite(leaf).all()

        def masked(tangent: Array) -> PyTree:
            if tangent.dtype == jax.dtypes.float0:
                return tangent
            return jnp.where(is_finite, tangent, jnp.zeros_like(tangent))

        return output, push(*jax.tree.map(masked, tangents))

    if closed.effects:  # a custom derivative may have none
        return lambda *args: evaluate(closed.consts, args)
    return lambda *args: shielded(closed.consts, args)


def _any_lane(_: int, in_batched: list[bool], flags: Array) -> tuple[Array, bool]:
    """The batching rule of ``_in_any_lane``."""
    return _in_any_lane(jnp.any(flags, axis=0) if in_batched[0] else flags), False


_in_any_lane = custom_vmap(lambda flag: flag)
"""The flag itself; under vmap, whether it is set in any lane, one answer for all lanes.

A loop whose condition differs by lane is batched by selecting its whole carry, all recorded
rows included, at every step. One condition for all avoids that.
"""
_in_any_lane.def_vmap(_any_lane)


def forward_only(tree: PyTree, where: str, wanted: str, got: str, cure: str) -> PyTree:
    """The tree itself. Reverse mode through it is refused by name."""

    def mark(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return _forward_only_p.bind(leaf, where=where, wanted=wanted, got=got, cure=cure)

    return jax.tree.map(mark, tree)


def _refuse_transpose(*_: Any, where: str, wanted: str, got: str, cure: str) -> PyTree:
    _checks.that(where, False, wanted, got, cure)


_forward_only_p = Primitive("forward_only")
_forward_only_p.def_impl(lambda leaf, **_: leaf)
_forward_only_p.def_abstract_eval(lambda leaf, **_: leaf)
ad.deflinear2(_forward_only_p, _refuse_transpose)
batching.defvectorized(_forward_only_p)
mlir.register_lowering(_forward_only_p, lambda _, leaf, **__: [leaf])
