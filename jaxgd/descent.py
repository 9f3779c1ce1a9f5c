"""How parameters move: gradient descent, by hand and with Optax, with its whole trace.

The rule is ``params - learning_rate * grads``; around it stands one loop, which looks at
each point (loss, gradient), records it, judges it, and steps. A run that has ended stands
still while others, under ``jax.vmap``, go on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import custom_vmap

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike, LossFn, Params, Status

DIVERGENCE_FACTOR = 1e6
"""A run is DIVERGED once its loss has risen by this multiple of its start (at least of 1)."""


class Trajectory(NamedTuple):
    """A descent, point by point, N being its ``num_steps`` argument.

    Row t of ``path``, ``losses`` and ``grad_norms`` belongs to the same point: row 0 to the
    start, row t to the params after t steps. Rows past the last step taken repeat it.

    Attributes:
      params: the params after the last step taken.
      path: ``record(params)`` at each point, leading axis N + 1; the params by default.
      losses: shape (N + 1,).
      grad_norms: shape (N + 1,): the largest absolute entry of the gradient.
      num_steps: int32 (): the number of steps taken.
      status: int32 (), a ``Status``: how the run ended.
    """

    params: Params
    path: Any
    losses: Array
    grad_norms: Array
    num_steps: Array
    status: Array


class _Row(NamedTuple):
    """What is recorded of one point."""

    kept: Any
    loss: Array
    grad_norm: Array


class _Run(NamedTuple):
    """Where a run stands. Its status is MAX_STEPS until it ends before that.

    It carries all that its status depends on. So the rows of a run with a ``record`` or a
    tolerance are read by nobody but its caller, and what the caller drops is not kept.
    """

    params: Params
    state: Any
    num_steps: Array
    still: Array  # how many steps in a row have changed nothing
    first: _Row  # the start's row, kept aside
    last: _Row  # the row of the last point seen
    status: Array


def step(params: Params, grads: Params, learning_rate: ArrayLike) -> Params:
    """Takes one step of gradient descent: ``params - learning_rate * grads``.

    Args:
      params: a pytree of floating-point arrays.
      grads: the gradient, of the same structure and shapes.
      learning_rate: a scalar; under ``jax.vmap``, one per run.

    Returns:
      The new params, with the dtypes of the old ones.

    Raises:
      TypeError: if ``params`` are not floating-point arrays.
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
    learning_rate = _learning_rate("descent.step", learning_rate)
    return jax.tree.map(lambda p, g: (p - learning_rate * g).astype(p.dtype), params, grads)


def gradient_descent(
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    learning_rate: ArrayLike,
    num_steps: int,
    tolerance: ArrayLike | None = None,
    record: Callable[[Params], Any] | None = None,
) -> Trajectory:
    """Descends by hand: ``params - learning_rate * grads`` at every step.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``; static.
      params: the start, a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      learning_rate: a scalar, may be traced: ``jax.vmap`` over it runs many descents.
      num_steps: N, the largest number of steps, static.
      tolerance: stop when every ``|gradient entry| <= tolerance``; a scalar, may be traced.
        None takes all N steps, unless the run ends as NON_FINITE or DIVERGED; then the
        result can be differentiated in reverse mode, too.
      record: what to keep of the params at each point, a pytree of arrays; None keeps the
        params. ``lambda params: None`` keeps nothing; static.

    Returns:
      A Trajectory with N + 1 rows. Its status, per run under vmap, is the first to apply of

      * NON_FINITE: the loss, the gradient or the params became infinite or NaN;
      * DIVERGED: the loss rose by more than ``DIVERGENCE_FACTOR`` times its start, or ended
        above it, by more than rounding, at the last step;
      * CONVERGED: the gradient is within ``tolerance``;
      * STALLED: a step changed nothing, and none to come can, although the gradient is
        above the tolerance; or nothing moved during the second half of the run. (Without a
        tolerance, a gradient below sqrt(epsilon) of the first counts as small.)
      * MAX_STEPS: all N steps were taken.

    Raises:
      TypeError: if ``loss_fn`` or ``record`` is not callable, the params or the loss are not
        floating-point, or ``num_steps`` is no static int.
      ValueError: if there are no params, the loss, ``learning_rate`` or ``tolerance`` is no
        scalar, or ``num_steps`` or ``tolerance`` is negative.

    Example:
      >>> from jaxgd import descent
      >>> trajectory = descent.gradient_descent(
      ...     lambda x: x**2, 1.2, learning_rate=0.3, num_steps=4
      ... )
      >>> [round(float(x), 4) for x in trajectory.path]
      [1.2, 0.48, 0.192, 0.0768, 0.0307]
      >>> descent.Status(int(trajectory.status)).name
      'MAX_STEPS'

    Source:
      Nocedal and Wright, Numerical Optimization, 2006, Sec. 2.2.
    """
    where = "descent.gradient_descent"
    learning_rate = _learning_rate(where, learning_rate)

    def advance(params: Params, grads: Params, _: Array, state: Any) -> tuple[Params, Any]:
        return step(params, grads, learning_rate), state  # params - learning_rate * grads

    params = _checks.params(where, "params", params)
    return _descend(where, loss_fn, params, data, advance, (), num_steps, tolerance, record)


def _take_all_steps(start: _Run, look: Any, move: Any, num_steps: int) -> tuple[_Run, _Row]:
    """Takes every step in a scan, which reverse mode can differentiate; the rows hold the params.

    Most runs end well, so the rows are judged once, after the loop, which costs a few percent
    where judging each point costs a third. Where a run went bad, its rows are set back to the
    point where it did.
    """

    def one_step(run: _Run, _: None) -> tuple[_Run, _Row]:
        grads, row = look(run.params)
        return move(run, grads, row.loss), row

    run, rows = jax.lax.scan(one_step, start, length=num_steps)
    _, row = look(run.params)
    rows = jax.tree.map(lambda rs, r: jnp.concatenate([rs, r[None]]), rows, row)

    indices = jnp.arange(num_steps + 1, dtype=jnp.int32)

    def set_back(rows: _Row) -> tuple[Array, Array, _Row]:
        sizes = jax.vmap(_size)(rows.kept)
        statuses = _judge(rows.loss, rows.grad_norm, sizes, rows.loss[0])
        end = jnp.min(jnp.where(statuses == Status.MAX_STEPS, indices[-1], indices))
        return statuses[end], end, jax.tree.map(lambda rs: rs[jnp.minimum(indices, end)], rows)

    # Params that have overflown do not come back: the last ones tell.
    statuses = _judge(rows.loss, rows.grad_norm, _size(run.params), rows.loss[0])
    went_bad = jnp.any(statuses != Status.MAX_STEPS)
    status, end, rows = jax.lax.cond(
        went_bad, set_back, lambda rows: (run.status, indices[-1], rows), rows
    )
    same = jax.vmap(_same, in_axes=(0, None))(rows.kept, run.params)
    still = num_steps - 1 - jnp.max(jnp.where(same, -1, indices))
    last = jax.tree.map(lambda rs: rs[end], rows)
    first = jax.tree.map(lambda rs: rs[0], rows)
    run = run._replace(num_steps=end, still=still, first=first, last=last, status=status)
    return run._replace(params=last.kept), rows


def optimize(
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    tolerance: ArrayLike | None = None,
    record: Callable[[Params], Any] | None = None,
) -> Trajectory:
    """Descends with any Optax optimizer, line searches included.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``; static.
      params: the start, a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      optimizer: an ``optax.GradientTransformation``. It may be made of traced numbers, as in
        ``jax.vmap(lambda rate: optimize(..., optimizer=optax.sgd(rate)))``.
      num_steps: N, the largest number of steps, static.
      tolerance: stop when every ``|gradient entry| <= tolerance``; None takes all N steps.
      record: what to keep of the params at each point; None keeps the params; static.

    Returns:
      A Trajectory with N + 1 rows; its status as in ``gradient_descent``. A line search that
      has set its own step to 0 is STALLED.

    Raises:
      TypeError: if ``loss_fn`` or ``record`` is not callable, ``optimizer`` is not one, the
        params or the loss are not floating-point, or ``num_steps`` is no static int.
      ValueError: if there are no params, the loss or ``tolerance`` is no scalar, or
        ``num_steps`` or ``tolerance`` is negative.

    Example:
      >>> import optax
      >>> from jaxgd import descent
      >>> trajectory = descent.optimize(
      ...     lambda x: x**2, 1.2, optimizer=optax.sgd(0.3), num_steps=100, tolerance=1e-3
      ... )
      >>> int(trajectory.num_steps), descent.Status(int(trajectory.status)).name
      (9, 'CONVERGED')
    """
    where = "descent.optimize"
    cure = "Call it: optax.sgd(0.1), not optax.sgd." if callable(optimizer) else ""
    if isinstance(optimizer, optax.MultiSteps):
        cure = "Write .gradient_transformation() after it."
    _checks.instance(where, "optimizer", optimizer, optax.GradientTransformation, cure)
    update = optax.with_extra_args_support(optimizer).update

    def advance(params: Params, grads: Params, loss: Array, state: Any) -> tuple[Params, Any]:
        updates, state = update(
            grads, state, params, value=loss, grad=grads, value_fn=lambda p: loss_fn(p, *data)
        )
        return optax.apply_updates(params, updates), state

    params = _checks.params(where, "params", params)
    state = optimizer.init(params)
    return _descend(where, loss_fn, params, data, advance, state, num_steps, tolerance, record)


def _descend(
    where: str,
    loss_fn: LossFn,
    params: Params,
    data: tuple[Any, ...],
    advance: Callable[[Params, Params, Array, Any], tuple[Params, Any]],
    state: Any,
    num_steps: int,
    tolerance: ArrayLike | None,
    record: Callable[[Params], Any] | None,
) -> Trajectory:
    """The loop around a rule: ``advance(params, grads, loss, state) -> (params, state)``."""
    _checks.function(where, "loss_fn", loss_fn)
    num_steps = _checks.count(where, "num_steps", num_steps)
    if record is not None:
        _checks.function(where, "record", record)
    value_and_grad = jax.value_and_grad(_checks.trainable(where, "loss_fn", loss_fn))

    def look(params: Params) -> tuple[Params, _Row]:
        loss, grads = value_and_grad(params, *data)
        kept = params if record is None else jax.tree.map(jnp.asarray, record(params))
        return grads, _Row(kept, loss, optax.tree.norm(grads, ord="inf"))

    def move(run: _Run, grads: Params, loss: Array) -> _Run:
        params, state = advance(run.params, grads, loss, run.state)
        still = jnp.where(_same(params, run.params), run.still + 1, 0)
        return run._replace(params=params, state=state, num_steps=run.num_steps + 1, still=still)

    zero, going = jnp.int32(0), jnp.int32(Status.MAX_STEPS)
    shapes = jax.eval_shape(lambda params: look(params)[1], params)
    unseen = jax.tree.map(lambda row: jnp.zeros(row.shape, row.dtype), shapes._replace(kept=None))
    start = _Run(params, state, num_steps=zero, still=zero, first=unseen, last=unseen, status=going)
    if tolerance is not None:
        _checks.at_least(where, "tolerance", tolerance, 0)
        tolerance = _checks.scalar(where, "tolerance", tolerance)
        run, rows = _stop_at_tolerance(start, look, move, num_steps, tolerance)
    elif record is not None:
        run, rows = _take_all_steps_holding(start, look, move, num_steps)
    else:
        run, rows = _take_all_steps(start, look, move, num_steps)

    first, last = run.first, run.last
    epsilon = jnp.finfo(last.loss.dtype).eps
    floor = jnp.sqrt(epsilon) * first.grad_norm if tolerance is None else tolerance
    stood = (2 * run.still >= num_steps) & (last.grad_norm > floor) & (num_steps > 0)
    above = last.loss - first.loss > num_steps * epsilon * jnp.abs(first.loss)
    at_last = jnp.where(above, Status.DIVERGED, jnp.where(stood, Status.STALLED, run.status))
    return Trajectory(
        params=run.params,
        path=rows.kept,
        losses=rows.loss,
        grad_norms=rows.grad_norm,
        num_steps=run.num_steps,
        status=jnp.where(run.status == Status.MAX_STEPS, at_last, run.status).astype(jnp.int32),
    )


def _take_all_steps_holding(start: _Run, look: Any, move: Any, num_steps: int) -> tuple[_Run, _Row]:
    """Takes every step in a scan, holding a run that went bad: its rows may not hold the params."""

    def visit(run: _Run, t: Array) -> tuple[_Run, _Row]:
        return _visit(run, look, move, None, t < num_steps)

    return jax.lax.scan(visit, start, jnp.arange(num_steps + 1))


def _stop_at_tolerance(
    start: _Run, look: Any, move: Any, num_steps: int, tolerance: Array
) -> tuple[_Run, _Row]:
    """Stops with the last run to end: the cost follows the steps taken."""
    shapes = jax.eval_shape(lambda run: look(run.params)[1], start)
    rows = jax.tree.map(lambda row: jnp.zeros((num_steps + 1, *row.shape), row.dtype), shapes)

    def unfinished(carry: tuple[Array, _Run, _Row]) -> Array:
        t, run, _ = carry
        return (t <= num_steps) & _in_any_lane(run.status == Status.MAX_STEPS)

    def one_step(carry: tuple[Array, _Run, _Row]) -> tuple[Array, _Run, _Row]:
        t, run, rows = carry
        run, row = _visit(run, look, move, tolerance, t < num_steps)
        put = jax.lax.dynamic_update_index_in_dim
        return t + 1, run, jax.tree.map(lambda rs, r: put(rs, r, t, 0), rows, row)

    carry = jax.lax.while_loop(unfinished, one_step, (jnp.int32(0), start, rows))
    t, run, rows = carry
    last = jnp.minimum(jnp.arange(num_steps + 1), t - 1)
    return run, jax.tree.map(lambda rs: rs[last], rows)


def _visit(
    run: _Run, look: Any, move: Any, tolerance: Array | None, may_move: Array
) -> tuple[_Run, _Row]:
    """Looks at a point, judges it, moves on. A run that has ended stays and repeats its row."""
    grads, row = look(run.params)
    last = row._replace(kept=None)
    first = jax.tree.map(lambda new, old: jnp.where(run.num_steps == 0, new, old), last, run.first)
    status = _judge(row.loss, row.grad_norm, _size(run.params), first.loss)
    if tolerance is not None:
        converged = (row.grad_norm <= tolerance) & (status == Status.MAX_STEPS)
        status = jnp.where(converged, Status.CONVERGED, status)
    going = run.status == Status.MAX_STEPS
    held = run._replace(first=first, last=last, status=jnp.where(going, status, run.status))
    moved = move(held, grads, row.loss)
    if tolerance is not None:
        stuck = (moved.still > 0) & _same(moved.state, run.state)
        moved = moved._replace(status=jnp.where(stuck, jnp.int32(Status.STALLED), held.status))
    moves = (held.status == Status.MAX_STEPS) & may_move
    return jax.tree.map(lambda new, old: jnp.where(moves, new, old), moved, held), row


def _judge(loss: Array, grad_norm: Array, size: Array, first_loss: Array) -> Array:
    """NON_FINITE, DIVERGED, or MAX_STEPS for a run that may go on; elementwise."""
    limit = first_loss + DIVERGENCE_FACTOR * jnp.maximum(jnp.abs(first_loss), 1)
    status = jnp.where(loss > limit, Status.DIVERGED, Status.MAX_STEPS)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(size)
    return jnp.where(finite, status, Status.NON_FINITE).astype(jnp.int32)


def _size(params: Params) -> Array:
    return optax.tree.norm(params, ord="inf")


def _any_lane(_: int, in_batched: list[bool], flags: Array) -> tuple[Array, bool]:
    """The batching rule of ``_in_any_lane``."""
    return _in_any_lane(jnp.any(flags, axis=0) if in_batched[0] else flags), False


_in_any_lane = custom_vmap(lambda flag: flag)
"""The flag itself; under vmap, whether it is set in any lane, one answer for all lanes.

A loop whose condition differs by lane is batched by selecting its whole carry, all recorded
rows included, at every step. One condition for all avoids that.
"""
_in_any_lane.def_vmap(_any_lane)


def _same(new: Any, old: Any) -> Array:
    """Whether nothing changed; NaN equals NaN."""

    def equal(a: Array, b: Array) -> Array:
        return jnp.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact))

    same = jax.tree.map(equal, new, old)
    return jax.tree.reduce(jnp.logical_and, same, jnp.bool_(True))


def _learning_rate(where: str, value: Any) -> Array:
    if callable(value):
        cure = "A schedule goes into an optimizer: descent.optimize, optax.sgd(schedule)."
    else:
        cure = "For several rates use jax.vmap."
    _checks.that(where, not callable(value), "learning_rate must be a scalar", "a function", cure)
    return _checks.scalar(where, "learning_rate", value, cure)
