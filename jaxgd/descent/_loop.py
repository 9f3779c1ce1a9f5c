"""The loop around a rule: what it is given, what it looks at, what it records."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from jaxgd import _checks, _iteration
from jaxgd.descent import _judging, _optimizers
from jaxgd.descent._results import Trajectory
from jaxgd.types import Array, ArrayLike, LossFn, Params, PyTree

_Loss: TypeAlias = LossFn | Callable[..., tuple[Array, PyTree]]  # the second with has_aux

_FEW_STEPS = 64  # up to these, looking back at all points takes longer to compile than it saves


class Options(NamedTuple):
    """What a descent takes beside its loss, params and rule, as the caller gave it."""

    num_steps: int
    tolerance: ArrayLike | None
    per_step: PyTree
    record: Callable[[Params], PyTree] | None
    record_every: int
    has_aux: bool


def descend(
    where: str,
    loss_fn: _Loss,
    params: Params,
    data: tuple[PyTree, ...],
    advance: Callable[..., tuple[Params, _optimizers.State]],
    state: _optimizers.State,
    options: Options,
) -> Trajectory:
    """The loop around a rule: ``advance(params, grads, loss, state, value) -> (params, state)``."""
    num_steps = _checks.count(where, "num_steps", options.num_steps)
    keep_every = _record_every(where, options.record_every, num_steps)
    pieces = () if options.per_step is None else (_per_step(where, options.per_step, num_steps),)
    tolerance, record = options.tolerance, options.record
    if tolerance is not None:
        _checks.at_least(where, "tolerance", tolerance, 0)
        tolerance = _checks.scalar(where, "tolerance", tolerance)
    if record is not None:
        _checks.function(where, "record", record)
    data = jax.tree_util.tree_map_with_path(partial(_indexable, where), data)
    loss_and_aux = _loss_and_aux(where, loss_fn, data, options.has_aux)

    def pieces_at(t: ArrayLike) -> tuple[PyTree, ...]:
        index = jnp.minimum(t, num_steps - 1)
        return jax.tree.map(lambda leaf: leaf[index], pieces)

    def look(params: Params, *piece: PyTree) -> tuple[_judging.Row, Params]:
        with _checks.differentiable(where, "loss_fn"):
            (loss, aux), grads = jax.value_and_grad(loss_and_aux, has_aux=True)(params, *piece)
        return _judging.Row(loss, _iteration.largest(grads), aux), grads

    def move(
        params: Params,
        state: _optimizers.State,
        loss: Array,
        grads: Params,
        t: ArrayLike,
        *piece: PyTree,
    ) -> tuple[Params, _optimizers.State, ArrayLike]:
        value = lambda params: loss_and_aux(params, *piece)[0]  # noqa: E731
        return *advance(params, grads, loss, state, value), t

    if tolerance is None:
        piece = jax.eval_shape(lambda: pieces_at(0))
        row, grads = jax.eval_shape(look, params, *piece)
        look = _iteration.constant_where_not_finite(
            look, lambda seen: (seen[0].loss, seen[0].grad_norm), params, *piece
        )
        # A step from the last point is computed and not taken: it is a constant, too.
        move = _iteration.constant_where_not_finite(
            move,
            lambda moved: (moved[0], jnp.where(moved[2] < num_steps, 0, jnp.nan)),
            *(params, state, row.loss, grads, jax.ShapeDtypeStruct((), jnp.int32), *piece),
        )

    def keep(params: Params) -> PyTree:
        if record is None:
            return params
        with _checks.calling(where, "record", record, (params,), "params"):
            recorded = record(params)
        return _arrays(where, "record", recorded)

    rule = _iteration.Rule(
        look=lambda params, _, t: look(params, *pieces_at(t)),
        judge=_judging.judge_of(tolerance, forgives=_optimizers.forgives(state)),
        keep=keep,
        move=lambda params, state, row, grads, t: move(
            params, state, row.loss, grads, t, *pieces_at(t)
        )[:2],
    )
    keeps_all = record is None and keep_every == 1 and not jax.tree.leaves(state)
    if tolerance is None and keeps_all and num_steps > _FEW_STEPS:
        run, rows = _iteration.iterate_and_judge_later(rule, params, state, num_steps=num_steps)
    else:
        run, rows = _iteration.iterate(
            rule,
            params,
            state,
            num_steps=num_steps,
            keep_every=keep_every,
            ends_early=tolerance is not None,
            ends_when_unchanged=tolerance is not None and not pieces,
        )
    trajectory = Trajectory(
        params=run.position,
        path=rows.kept,
        losses=rows.each.loss,
        grad_norms=rows.each.grad_norm,
        num_steps=run.num_steps,
        status=_judging.status_of(
            run, tolerance, num_steps, noisy_losses=rows.each.loss if pieces else None
        ),
        aux=rows.each.aux,
        state=run.memory,
    )
    if tolerance is None:
        return trajectory
    return _iteration.forward_only(
        trajectory,
        where,
        "tolerance must be None in reverse mode",
        "a number",
        "Leave it out, or use forward mode, jax.jvp.",
    )


def _loss_and_aux(
    where: str, loss_fn: _Loss, data: tuple[PyTree, ...], has_aux: bool
) -> Callable[..., tuple[Array, PyTree]]:
    """``loss_and_aux(params, *piece)``, its outputs checked while it is traced."""

    def loss_and_aux(params: Params, *piece: PyTree) -> tuple[Array, PyTree]:
        output = _called(where, loss_fn, params, data, piece)
        if not has_aux:
            cure = "Return the loss alone, or pass has_aux=True for (loss, aux)."
            return _checks.scalar_output(where, "loss_fn", output, cure), None
        is_pair = isinstance(output, tuple) and len(output) == 2
        wanted = "loss_fn must return (loss, aux) with has_aux=True"
        _checks.that(where, is_pair, wanted, _checks.kind(output), error=TypeError)
        loss, aux = output
        return _checks.scalar_output(where, "loss_fn", loss), _arrays(where, "aux", aux)

    return loss_and_aux


def _called(
    where: str, loss_fn: _Loss, params: Params, data: tuple[PyTree, ...], piece: tuple[PyTree, ...]
) -> PyTree:
    """The loss of its arguments; one that does not take them is refused by what they are."""
    kinds = ["params", *(f"data ({_checks.kind(leaf)})" for leaf in data)]
    kinds += [f"the slice of per_step ({_checks.kind(leaf)})" for leaf in piece]
    arguments = (params, *data, *piece)
    names = ["params", *(f"data[{i}]" for i in range(len(data))), *["per_step"] * len(piece)]
    has_key = any(map(_checks.is_key, data))
    cure = (
        "A PRNG key for each step goes into per_step: jax.random.split(key, num_steps)."
        if has_key
        else ""
    )
    described = ", ".join(kinds)
    is_taking = _checks.taking(where, "loss_fn", loss_fn, arguments, described, names, cure)

    def is_cut_key() -> Any:
        return jax.eval_shape(loss_fn, params, *data, *jax.tree.map(_whole_key, piece))

    wanted = "per_step must hold a PRNG key for each step"
    cure = "Write jax.random.split(key, num_steps)."
    is_key_for_all = _checks.suspecting(where, is_cut_key, wanted, "the two words of one", cure)
    with is_key_for_all, _checks.traceable(where, "loss_fn"), is_taking:
        return loss_fn(*arguments)


def _whole_key(leaf: Array) -> PyTree:
    """An old-style key in the place of one of its words."""
    is_word = leaf.dtype == jnp.uint32 and leaf.shape == ()
    return jax.random.PRNGKey(0) if is_word else leaf


def _arrays(where: str, name: str, tree: PyTree) -> PyTree:
    """A pytree of arrays of numbers, or of nothing."""

    def number_array(path: KeyPath, leaf: Array) -> Array:
        full_name = _checks.entry(name, path)
        leaf = _checks.array(where, full_name, leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        cure = "Write jax.random.key_data(key)."
        wanted = f"{full_name} must be numbers"
        _checks.that(where, not is_key, wanted, "a PRNG key", cure, error=TypeError)
        return leaf

    return jax.tree_util.tree_map_with_path(number_array, tree)


def _indexable(where: str, path: KeyPath, leaf: Any) -> PyTree:
    """Data whose rows a traced array can pick, which NumPy's own do not allow."""
    is_numeric = isinstance(leaf, np.ndarray) and leaf.ndim > 0 and leaf.dtype.kind in "biuf"
    return _checks.array(where, "data" + jax.tree_util.keystr(path), leaf) if is_numeric else leaf


def _record_every(where: str, value: Any, num_steps: int) -> int:
    keep_every = _checks.count(where, "record_every", value, 1)
    wanted = f"record_every must divide num_steps = {num_steps}"
    _checks.that(where, num_steps % keep_every == 0, wanted, str(keep_every))
    return keep_every


def _per_step(where: str, per_step: PyTree, num_steps: int) -> PyTree:
    """What changes from step to step, as arrays with one slice for each."""
    _checks.that(where, num_steps > 0, "num_steps must be at least 1 with per_step", "0")
    is_empty = not jax.tree.leaves(per_step)
    _checks.that(where, not is_empty, "per_step must hold at least one array", "none")

    def sliced(path: KeyPath, leaf: Array) -> Array:
        name = _checks.entry("per_step", path)
        leaf = _checks.array(where, name, leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == jnp.uint32
        cure = "For one key per step write jax.random.split(key, num_steps)." if is_key else ""
        cure = list_cure or cure
        wanted = f"{name} must have a leading axis of num_steps = {num_steps}"
        _checks.that(where, leaf.shape[:1] == (num_steps,), wanted, f"shape {leaf.shape}", cure)
        return leaf

    is_list = isinstance(per_step, (list, tuple)) and len(per_step) == num_steps
    list_cure = _checks.stack_cure("per_step", per_step) if is_list else ""
    return jax.tree_util.tree_map_with_path(sliced, per_step, is_leaf=_checks.is_numbers)
