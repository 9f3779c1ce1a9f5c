"""How parameters move: gradient descent, by hand and with Optax, with its whole trace.

The rule is ``params - learning_rate * grads``. The loop around it looks at each point (loss,
gradient), judges it, records it, and steps. A run that has ended stands still while others,
under ``jax.vmap``, go on.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.tree_util import KeyPath

from jaxgd import _checks, _iteration
from jaxgd._repr import short_repr
from jaxgd.types import Array, ArrayLike, LossFn, Params, PRNGKey, PyTree, Status

__all__ = [
    "DIVERGENCE_FACTOR",
    "Status",
    "Trajectory",
    "gradient_descent",
    "minibatches",
    "optimize",
    "status_name",
    "step",
    "trim",
]

DIVERGENCE_FACTOR = 1e6
"""A run is DIVERGED once its loss has risen by this multiple of its start (at least of 1)."""
_OPTIMIZER_CURE = "Make it of numbers: optax.adam(0.1), and not of texts or lists."
_ROUNDING_FACTOR = 0.1  # no rise beyond this multiple of its start is taken for rounding

_State: TypeAlias = PyTree  # of an optimizer
_Loss: TypeAlias = LossFn | Callable[..., tuple[Array, PyTree]]  # the second with has_aux


class Trajectory(NamedTuple):
    """A descent, point by point, N being its ``num_steps`` argument.

    Row t of ``losses``, ``grad_norms`` and ``aux`` belongs to the same point: row 0 to the start,
    row t to the params after t steps. So does row t of ``path``, or row t / k with
    ``record_every=k``. Rows past the last step taken repeat it.

    Attributes:
      params: the params after the last step taken.
      path: ``record(params)`` at each point recorded, leading axis N / k + 1; the params by
        default.
      losses: shape (N + 1,).
      grad_norms: shape (N + 1,): the largest absolute entry of the gradient.
      num_steps: int32 (): the number of steps taken.
      status: int32 (), a ``Status``: how the run ended.
      aux: what the loss returns beside its value, leading axis N + 1; None without ``has_aux``.
      state: the optimizer's state after the last step taken; () by hand.
    """

    params: Params
    path: PyTree
    losses: Array
    grad_norms: Array
    num_steps: Array
    status: Array
    aux: PyTree = None
    state: _State = ()

    __repr__ = short_repr


class _Row(NamedTuple):
    """What is recorded of each point."""

    loss: Array
    grad_norm: Array
    aux: PyTree


class _Options(NamedTuple):
    """What a descent takes beside its loss, params and rule, as the caller gave it."""

    num_steps: int
    tolerance: ArrayLike | None
    per_step: PyTree
    record: Callable[[Params], PyTree] | None
    record_every: int
    has_aux: bool


def step(params: Params, grads: Params, learning_rate: ArrayLike) -> Params:
    """Takes one step of gradient descent: ``params - learning_rate * grads``.

    Args:
      params: a pytree of floating-point arrays.
      grads: the gradient, of the same structure and shapes.
      learning_rate: a scalar; under ``jax.vmap``, one per run.

    Returns:
      The new params, with the dtypes of the old ones.

    Raises:
      TypeError: if ``params`` are not floating-point arrays, or ``grads`` not real.
      ValueError: if ``grads`` do not fit ``params`` or ``learning_rate`` is no scalar.

    Example:
      >>> from jaxgd import descent
      >>> descent.step({"w": 3.0}, {"w": 2.0}, learning_rate=0.5)
      {'w': Array(2., dtype=float32)}

    Source:
      Cauchy, Méthode générale pour la résolution des systèmes d'équations simultanées, 1847.
    """
    params = _checks.params("descent.step", "params", params)
    _checks.like("descent.step", "grads", grads, "params", params)
    for path, leaf in jax.tree.leaves_with_path(grads):
        _checks.real("descent.step", _full_name("grads", path), leaf)
    learning_rate = _learning_rate("descent.step", learning_rate)
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda p, g: (p - learning_rate * g).astype(p.dtype), params, grads)


def gradient_descent(
    loss_fn: _Loss,
    params: Params,
    *data: PyTree,
    learning_rate: ArrayLike,
    num_steps: int,
    tolerance: ArrayLike | None = None,
    per_step: PyTree = None,
    record: Callable[[Params], PyTree] | None = None,
    record_every: int = 1,
    has_aux: bool = False,
) -> Trajectory:
    """Descends by hand: ``params - learning_rate * grads`` at every step.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``; ``loss_fn(params, *data, piece)`` with
        ``per_step``; static.
      params: the start, a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``, the same at every step: a PRNG key here draws the same
        numbers at each. What changes from step to step goes into ``per_step``.
      learning_rate: a scalar, may be traced: ``jax.vmap`` over it runs many descents.
      num_steps: N, the largest number of steps, static.
      tolerance: stop when every ``|gradient entry| <= tolerance``; a scalar, may be traced.
        None takes all N steps, unless the run ends as NON_FINITE or DIVERGED; then the
        result can be differentiated in reverse mode, too. (What is not finite counts as a
        constant there: its derivative is 0.)
      per_step: a pytree of arrays with a leading axis N; its slice t is the last argument of
        ``loss_fn`` at step t: the rows of a minibatch (``minibatches``), a PRNG key for dropout
        (``jax.random.split(key, N)``), a batch of data, or a tuple of these. Row N of
        ``losses``, ``grad_norms`` and ``aux`` is seen with the last slice.
      record: what to keep of the params at each point, a pytree of arrays; None keeps the
        params. ``lambda params: None`` keeps nothing; static.
      record_every: k, a divisor of N, static: the path has the rows 0, k, 2k, ..., N.
      has_aux: whether ``loss_fn`` returns ``(loss, aux)``, aux being a pytree of arrays; static.

    Returns:
      A Trajectory with N + 1 rows. Its status, per run under vmap, is the first to apply of

      * NON_FINITE: the loss, the gradient or the params became infinite or NaN;
      * DIVERGED: the loss rose by more than ``DIVERGENCE_FACTOR`` times its start, or ended
        above it at the last step by more than rounding, which is ``N * epsilon`` of the
        coarsest dtype of params and loss, at most a tenth of the start;
      * CONVERGED: the gradient is within ``tolerance``;
      * STALLED: a step changed nothing, and none to come can, although the gradient is
        above the tolerance; or nothing moved during the second half of the run. (Without a
        tolerance, a gradient below sqrt(epsilon) of the first counts as small.)
      * MAX_STEPS: all N steps were taken.

      With ``per_step`` each loss is that of its own slice, and noisy. A tolerance then stops at
      the first slice whose gradient is small, be the others' as they may; a run counts as
      DIVERGED at the end if all losses of its last quarter lie above all of its first; and only
      standing still for the second half is STALLED.

    Raises:
      TypeError: if ``loss_fn`` or ``record`` is not callable or does not take its arguments, the
        params or the loss are not floating-point, or a count is no static int.
      ValueError: if there are no params, the loss, ``learning_rate`` or ``tolerance`` is no
        scalar, a number is negative, ``per_step`` has another leading axis than N,
        ``record_every`` does not divide N, or the result of a run with a ``tolerance`` is
        differentiated in reverse mode.

    Example:
      >>> from jaxgd import descent
      >>> trajectory = descent.gradient_descent(
      ...     lambda x: x**2, 1.2, learning_rate=0.3, num_steps=4
      ... )
      >>> [round(float(x), 4) for x in trajectory.path]
      [1.2, 0.48, 0.192, 0.0768, 0.0307]
      >>> descent.status_name(trajectory.status)
      'MAX_STEPS'

    Source:
      Nocedal and Wright, Numerical Optimization, 2006, Sec. 2.2.
    """
    where = "descent.gradient_descent"
    learning_rate = _learning_rate(where, learning_rate)
    options = _Options(num_steps, tolerance, per_step, record, record_every, has_aux)

    def advance(
        params: Params, grads: Params, loss: Array, state: PyTree, value: Any
    ) -> tuple[Params, Any]:
        del loss, value
        return step(params, grads, learning_rate), state  # params - learning_rate * grads

    params = _checks.params(where, "params", params)
    return _descend(where, loss_fn, params, data, advance, (), options)


def optimize(
    loss_fn: _Loss,
    params: Params,
    *data: PyTree,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    tolerance: ArrayLike | None = None,
    per_step: PyTree = None,
    record: Callable[[Params], PyTree] | None = None,
    record_every: int = 1,
    has_aux: bool = False,
    state: _State = None,
) -> Trajectory:
    """Descends with any Optax optimizer, line searches included.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``; ``loss_fn(params, *data, piece)`` with
        ``per_step``; static.
      params: the start, a pytree of floating-point arrays. For ``optax.lookahead`` it is
        ``optax.LookaheadParams.init_synced(params)``, and ``loss_fn`` reads its ``fast``.
      *data: passed on to ``loss_fn``, the same at every step: a PRNG key here draws the same
        numbers at each. What changes from step to step goes into ``per_step``.
      optimizer: an ``optax.GradientTransformation``. It may be made of traced numbers, as in
        ``jax.vmap(lambda rate: optimize(..., optimizer=optax.sgd(rate)))``. Its state keeps the
        dtypes that it starts with. It is given what it asks for: ``value``, ``grad`` and
        ``value_fn``; SAM its ``grad_fn``, Sophia its ``obj_fn``. After ``optax.apply_if_finite``
        a loss or a gradient that is not finite does not end a run. Gradients of single examples
        (``optax.contrib.dpsgd``) are refused.
      num_steps: N, the largest number of steps, static.
      tolerance: stop when every ``|gradient entry| <= tolerance``; None takes all N steps.
      per_step: a pytree of arrays with a leading axis N; its slice t is the last argument of
        ``loss_fn`` at step t, as in ``gradient_descent``.
      record: what to keep of the params at each point; None keeps the params; static.
      record_every: k, a divisor of N, static: the path has the rows 0, k, 2k, ..., N.
      has_aux: whether ``loss_fn`` returns ``(loss, aux)``, aux being a pytree of arrays; static.
      state: the ``state`` of a Trajectory, to go on where it ended, with its ``params``: two
        halves equal the whole, bit for bit. None starts anew. It also answers what Optax asks
        of states: ``optax.contrib.schedule_free_eval_params(run.state, run.params)``.

    Returns:
      A Trajectory with N + 1 rows; its status as in ``gradient_descent``. A line search that
      has set its own step to 0 is STALLED.

    Raises:
      TypeError: if ``loss_fn`` or ``record`` is not callable or does not take its arguments,
        ``optimizer`` is not one, the params or the loss are not floating-point, or a count is no
        static int.
      ValueError: if there are no params, the loss or ``tolerance`` is no scalar, a number is
        negative, ``per_step`` has another leading axis than N, ``record_every`` does not
        divide N, ``state`` is that of another optimizer, the optimizer asks for what is not
        there, or the result of a run with a ``tolerance`` is differentiated in reverse mode.

    Example:
      >>> import optax
      >>> from jaxgd import descent
      >>> trajectory = descent.optimize(
      ...     lambda x: x**2, 1.2, optimizer=optax.sgd(0.3), num_steps=100, tolerance=1e-3
      ... )
      >>> int(trajectory.num_steps), descent.status_name(trajectory.status)
      (9, 'CONVERGED')
    """
    where = "descent.optimize"
    cure = "Call it: optax.sgd(0.1), not optax.sgd." if callable(optimizer) else ""
    if isinstance(optimizer, optax.MultiSteps):
        cure = "Write .gradient_transformation() after it."
    _checks.instance(where, "optimizer", optimizer, optax.GradientTransformation, cure)
    update = optax.with_extra_args_support(optimizer).update
    has_fast = isinstance(params, optax.LookaheadParams)

    def advance(
        params: Params, grads: Params, loss: Array, state: _State, value: Any
    ) -> tuple[Params, _State]:
        extra = _extra_arguments(update, state, loss, grads, value)
        own_grads = grads.fast if has_fast else grads
        updating = _checks.failing(where, "optimizer must compute an update", _OPTIMIZER_CURE)
        with jax.numpy_dtype_promotion("standard"), updating:
            updates, new_state = update(own_grads, state, params, **extra)
            new_params = optax.apply_updates(params, updates)
        return new_params, _as_before(where, new_state, state)

    params = _checks.params(where, "params", params)
    state = _optimizer_state(where, optimizer, params, state)
    options = _Options(num_steps, tolerance, per_step, record, record_every, has_aux)
    return _descend(where, loss_fn, params, data, advance, state, options)


def _extra_arguments(
    update: Callable[..., PyTree],
    state: _State,
    loss: Array,
    grads: Params,
    value: Callable[[Params], Array],
) -> dict[str, Any]:
    """What an optimizer is told beside the gradient. Optax's own refuse what they do not know."""
    if _holds(state, optax.contrib.SAMState):
        return {"grad_fn": lambda params, _: jax.grad(value)(params)}
    if _holds(state, (optax.contrib.HutchinsonState, optax.contrib.SophiaState)):
        return {"obj_fn": value}
    offered = {"value": loss, "grad": grads, "value_fn": value}
    parameters = inspect.signature(update).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return offered
    return {name: argument for name, argument in offered.items() if name in parameters}


def _optimizer_state(
    where: str, optimizer: optax.GradientTransformation, params: Params, state: _State
) -> _State:
    """The state to start from, as strongly typed arrays: a new one, or the one given."""
    if state is None:
        with _checks.failing(where, "optimizer must make a state of params", _OPTIMIZER_CURE):
            state = optimizer.init(params)
        is_lookahead = _holds(state, optax.LookaheadState)
        _checks.that(
            where,
            isinstance(params, optax.LookaheadParams) or not is_lookahead,
            "params must be optax.LookaheadParams for this optimizer",
            _checks.kind(params),
            "Pass optax.LookaheadParams.init_synced(params), and let loss_fn read params.fast.",
        )
    else:
        fresh = jax.eval_shape(optimizer.init, params)
        cure = "Pass Trajectory.state of a run of this optimizer, or None to start anew."
        _checks.like(where, "state", state, "optimizer.init(params)", fresh, cure)
        _same_dtypes(where, state, fresh, cure)
    _checks.that(
        where,
        not _holds(state, optax.contrib.DifferentiallyPrivateAggregateState),
        "optimizer must work on the gradient of loss_fn",
        "one that asks for a gradient per example, as optax.contrib.dpsgd does",
        "Write that loop by hand, with jax.vmap(jax.grad(loss)), or take optax.noisy_sgd.",
    )

    def strong(leaf: Array) -> Array:
        leaf = jnp.asarray(leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, state)


def _same_dtypes(where: str, state: _State, fresh: _State, cure: str) -> None:
    def same_dtype(path: KeyPath, leaf: Array, like: Array) -> None:
        name, dtype = _full_name("state", path), jnp.asarray(leaf).dtype
        wanted = f"{name} must have the dtype of optimizer.init(params), {like.dtype}"
        _checks.that(where, dtype == like.dtype, wanted, str(dtype), cure)

    jax.tree_util.tree_map_with_path(same_dtype, state, fresh)


def _as_before(where: str, new: _State, old: _State) -> _State:
    """A state after a step, in the dtypes it had before."""
    cure = "The state must keep its structure and shapes from one step to the next."
    _checks.like(where, "the new state of optimizer", new, "the one before", old, cure)
    return jax.tree.map(lambda n, o: jnp.asarray(n).astype(o.dtype), new, old)


def _descend(
    where: str,
    loss_fn: _Loss,
    params: Params,
    data: tuple[PyTree, ...],
    advance: Callable[..., tuple[Params, _State]],
    state: _State,
    options: _Options,
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
    data = jax.tree.map(_indexable, data)
    loss_and_aux = _loss_and_aux(where, loss_fn, data, options.has_aux)

    def pieces_at(t: ArrayLike) -> tuple[PyTree, ...]:
        index = jnp.minimum(t, num_steps - 1)
        return jax.tree.map(lambda leaf: leaf[index], pieces)

    def look(params: Params, *piece: PyTree) -> tuple[_Row, Params]:
        with _checks.differentiable(where, "loss_fn"):
            (loss, aux), grads = jax.value_and_grad(loss_and_aux, has_aux=True)(params, *piece)
        return _Row(loss, _iteration.largest(grads), aux), grads

    def move(
        params: Params, state: _State, loss: Array, grads: Params, *piece: PyTree
    ) -> tuple[Params, _State]:
        return advance(params, grads, loss, state, lambda params: loss_and_aux(params, *piece)[0])

    if tolerance is None:
        row, grads = jax.eval_shape(lambda: look(params, *pieces_at(0)))
        look = _iteration.constant_where_not_finite(
            look, lambda seen: (seen[0].loss, seen[0].grad_norm), params, *pieces_at(0)
        )
        move = _iteration.constant_where_not_finite(
            move, lambda moved: moved[0], params, state, row.loss, grads, *pieces_at(0)
        )

    def keep(params: Params) -> PyTree:
        if record is None:
            return params
        return _arrays(where, "record", record(params))

    rule = _iteration.Rule(
        look=lambda params, _, t: look(params, *pieces_at(t)),
        judge=_judge_of(tolerance, forgives=_forgives(state)),
        keep=keep,
        move=lambda params, state, row, grads, t: move(
            params, state, row.loss, grads, *pieces_at(t)
        ),
    )
    if tolerance is None and record is None and keep_every == 1 and not jax.tree.leaves(state):
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
        status=_status(run, tolerance, num_steps, noisy_losses=rows.each.loss if pieces else None),
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
    _checks.function(where, "loss_fn", loss_fn)

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
        full_name = _full_name(name, path)
        leaf = _checks.array(where, full_name, leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        cure = "Write jax.random.key_data(key)."
        wanted = f"{full_name} must be numbers"
        _checks.that(where, not is_key, wanted, "a PRNG key", cure, error=TypeError)
        return leaf

    return jax.tree_util.tree_map_with_path(number_array, tree)


def _indexable(leaf: Array) -> PyTree:
    """Data whose rows a traced array can pick, which NumPy's own do not allow."""
    is_numeric = isinstance(leaf, np.ndarray) and leaf.ndim > 0 and leaf.dtype.kind in "biuf"
    return jnp.asarray(leaf) if is_numeric else leaf


def _judge_of(tolerance: Array | None, *, forgives: bool) -> Callable[..., Array]:
    """How a point is judged: by its row, the first row and the params; elementwise in the row."""

    def judge(first: _Row, row: _Row, _: PyTree, params: Params) -> Array:
        first_loss, loss = _wide(first.loss), _wide(row.loss)
        limit = first_loss + DIVERGENCE_FACTOR * jnp.maximum(jnp.abs(first_loss), 1)
        is_finite = jnp.isfinite(_iteration.largest(params))
        if not forgives:
            is_finite = is_finite & jnp.isfinite(row.loss) & jnp.isfinite(row.grad_norm)
        with jax.numpy_dtype_promotion("standard"):
            has_converged = False if tolerance is None else row.grad_norm <= tolerance
        return _iteration.decide(
            is_finite=is_finite, has_diverged=loss > limit, has_converged=has_converged
        )

    return judge


def _status(
    run: _iteration.Run, tolerance: Array | None, num_steps: int, noisy_losses: Array | None
) -> Array:
    """How a run ended, told by its last point where no point before has ended it."""
    first, last = run.first, run.last
    dtypes = [leaf.dtype for leaf in jax.tree.leaves((run.position, last.loss))]
    epsilon = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    if noisy_losses is None:
        before, after = first.loss, last.loss
    else:
        quarter = max(1, (num_steps + 1) // 4)
        before, after = noisy_losses[:quarter].max(), noisy_losses[-quarter:].min()
    rounding = min(num_steps * epsilon, _ROUNDING_FACTOR) * jnp.abs(_wide(first.loss))
    with jax.numpy_dtype_promotion("standard"):
        floor = epsilon**0.5 * first.grad_norm if tolerance is None else tolerance
        is_at_rest = last.grad_norm <= floor
    status = _iteration.decide(
        is_finite=jnp.isfinite(last.loss) & jnp.isfinite(last.grad_norm),
        has_diverged=_wide(after) - _wide(before) > rounding,
        is_stalled=run.is_still & ~is_at_rest & (num_steps > 0),
    )
    return jnp.where(run.status == Status.MAX_STEPS, status, run.status)


def _wide(loss: Array) -> Array:
    """A loss in float32 or better."""
    return loss.astype(np.promote_types(loss.dtype, np.float32))


def _forgives(state: _State) -> bool:
    """Whether an optimizer skips gradients that are not finite: a run goes on after one."""
    return _holds(state, optax.ApplyIfFiniteState)


def _holds(state: _State, kind: type | tuple[type, ...]) -> bool:
    """Whether a state has a part of some kind."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return any(isinstance(node, kind) for node in nodes)


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
        name = _full_name("per_step", path)
        leaf = _checks.array(where, name, leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == jnp.uint32
        cure = "For one key per step write jax.random.split(key, num_steps)." if is_key else ""
        wanted = f"{name} must have a leading axis of num_steps = {num_steps}"
        _checks.that(where, leaf.shape[:1] == (num_steps,), wanted, f"shape {leaf.shape}", cure)
        return leaf

    return jax.tree_util.tree_map_with_path(sliced, per_step)


def _full_name(name: str, path: KeyPath) -> str:
    return "/".join(filter(None, [name, jax.tree_util.keystr(path, simple=True, separator="/")]))


def minibatches(key: PRNGKey, num_examples: int, *, batch_size: int, num_steps: int) -> Array:
    """Draws the rows of a minibatch for each step, without replacement within an epoch.

    An epoch is a permutation of all rows, cut into ``num_examples // batch_size`` batches; the
    rows left over sit it out. Each epoch is shuffled anew. A longer run with the same key
    begins with the batches of a shorter one.

    Args:
      key: a PRNG key.
      num_examples: how many rows the data have, static.
      batch_size: rows per step, at most ``num_examples``, static.
      num_steps: N, static.

    Returns:
      int32 (N, batch_size): for ``per_step``; the loss takes ``x[rows]``.

    Raises:
      TypeError: if ``key`` is not a PRNG key or a count is no static int.
      ValueError: if a count is too small, or a batch is larger than the data.

    Example:
      >>> import jax
      >>> from jaxgd import descent
      >>> rows = descent.minibatches(jax.random.key(0), 6, batch_size=2, num_steps=4)
      >>> rows.shape, sorted(rows[:3].ravel().tolist())
      ((4, 2), [0, 1, 2, 3, 4, 5])
    """
    where = "descent.minibatches"
    _checks.key(where, "key", key)
    num_examples = _checks.count(where, "num_examples", num_examples, 1)
    batch_size = _checks.count(where, "batch_size", batch_size, 1)
    num_steps = _checks.count(where, "num_steps", num_steps)
    wanted = f"batch_size must be at most num_examples = {num_examples}"
    _checks.that(where, batch_size <= num_examples, wanted, str(batch_size))
    num_batches = num_examples // batch_size  # per epoch
    num_epochs = -(-num_steps // num_batches)

    def epoch(index: Array) -> Array:
        rows = jax.random.permutation(jax.random.fold_in(key, index), num_examples)
        return rows[: num_batches * batch_size].reshape(num_batches, batch_size)

    rows = jax.vmap(epoch)(jnp.arange(num_epochs))
    return rows.reshape(-1, batch_size)[:num_steps].astype(jnp.int32)


def trim(trajectory: Trajectory) -> Trajectory:
    """Cuts a Trajectory to the steps taken: its rows past the last one are left out.

    Args:
      trajectory: of one run, not traced: the new shapes depend on its ``num_steps``.

    Returns:
      A Trajectory whose ``losses``, ``grad_norms`` and ``aux`` have ``num_steps + 1`` rows, and
      whose ``path`` has those up to the last point.

    Raises:
      TypeError: if it is no Trajectory, or traced.
      ValueError: if it holds several runs.

    Example:
      >>> from jaxgd import descent
      >>> run = descent.gradient_descent(
      ...     lambda x: x**2, 1.0, learning_rate=0.5, num_steps=100, tolerance=1e-3
      ... )
      >>> run.losses.shape, descent.trim(run).losses
      ((101,), Array([1., 0.], dtype=float32))
    """
    where = "descent.trim"
    _checks.instance(where, "trajectory", trajectory, Trajectory)
    num_steps = _known(where, "trajectory.num_steps", trajectory.num_steps)
    num_rows = trajectory.losses.shape[0]

    def cut(tree: PyTree) -> PyTree:
        def cut_leaf(leaf: Array) -> Array:
            every = (num_rows - 1) // max(leaf.shape[0] - 1, 1)  # 1 but for a sparse path
            return leaf[: -(-num_steps // max(every, 1)) + 1]

        return jax.tree.map(cut_leaf, tree)

    return trajectory._replace(
        path=cut(trajectory.path),
        losses=cut(trajectory.losses),
        grad_norms=cut(trajectory.grad_norms),
        aux=cut(trajectory.aux),
    )


def status_name(status: ArrayLike) -> str:
    """Names a status.

    Args:
      status: of one run, a ``Status`` or an integer, not traced.

    Returns:
      "CONVERGED", "MAX_STEPS", "NON_FINITE", "DIVERGED" or "STALLED".

    Raises:
      TypeError: if it is no integer, or traced.
      ValueError: if it holds several, or no status has this number.

    Example:
      >>> from jaxgd import descent
      >>> descent.status_name(3)
      'DIVERGED'
    """
    where = "descent.status_name"
    got, cure = f"a {type(status).__name__}", "Write run.status."
    is_run = hasattr(status, "status")
    _checks.that(where, not is_run, "status must be an integer", got, cure, error=TypeError)
    number = _known(where, "status", status)
    known = {each.value: each.name for each in Status}
    wanted = f"status must be one of {', '.join(map(str, known))}"
    _checks.that(where, number in known, wanted, str(number))
    return known[number]


def _known(where: str, name: str, value: Any) -> int:
    """One whole number that is not traced."""
    cure = "For several runs pick one: jax.tree.map(lambda leaf: leaf[i], runs)."
    wanted = f"{name} must be of one run"
    is_traced = isinstance(value, jax.core.Tracer)
    got = "a traced value"
    _checks.that(
        where,
        not is_traced,
        f"{name} must be known",
        got,
        "Call it outside jit and vmap.",
        error=TypeError,
    )
    _checks.that(where, np.shape(value) == (), wanted, f"shape {np.shape(value)}", cure)
    is_whole = np.result_type(np.asarray(value)).kind in "iu"
    _checks.that(
        where, is_whole, f"{name} must be an integer", _checks.kind(value), error=TypeError
    )
    return int(value)


def _learning_rate(where: str, value: Any) -> Array:
    if callable(value):
        cure = "A schedule goes into an optimizer: descent.optimize, optax.sgd(schedule)."
    else:
        cure = "For several rates use jax.vmap."
    _checks.that(where, not callable(value), "learning_rate must be a scalar", "a function", cure)
    return _checks.scalar(where, "learning_rate", value, cure)
