"""The rules by which params move: gradient descent by hand, and any optimizer of Optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import optax
import optax.contrib

from jaxgd import _checks
from jaxgd.descent import _loop, _optimizers
from jaxgd.descent._results import Trajectory
from jaxgd.types import Array, ArrayLike, Params, PyTree


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
        _checks.real("descent.step", _checks.entry("grads", path), leaf)
    learning_rate = _learning_rate("descent.step", learning_rate)
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda p, g: (p - learning_rate * g).astype(p.dtype), params, grads)


def gradient_descent(
    loss_fn: _loop._Loss,
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
        params or the loss are not floating-point, the params hold running averages of a batch norm,
        or a count is no static int.
      ValueError: if there are no params, the loss, ``learning_rate`` or ``tolerance`` is no
        scalar, a count or ``tolerance`` is negative, ``per_step`` has another leading axis than N,
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
    options = _loop.Options(num_steps, tolerance, per_step, record, record_every, has_aux)

    def advance(
        params: Params, grads: Params, loss: Array, state: PyTree, value: Any
    ) -> tuple[Params, Any]:
        del loss, value
        return step(params, grads, learning_rate), state  # params - learning_rate * grads

    _checks.function(where, "loss_fn", loss_fn)
    params = _checks.trained(where, "params", params)
    return _loop.descend(where, loss_fn, params, data, advance, (), options)


def optimize(
    loss_fn: _loop._Loss,
    params: Params,
    *data: PyTree,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    tolerance: ArrayLike | None = None,
    per_step: PyTree = None,
    record: Callable[[Params], PyTree] | None = None,
    record_every: int = 1,
    has_aux: bool = False,
    state: _optimizers.State = None,
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
        ``optimizer`` is not one, the params or the loss are not floating-point, the params hold
        running averages of a batch norm, or a count is no static int.
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
        params: Params, grads: Params, loss: Array, state: _optimizers.State, value: Any
    ) -> tuple[Params, _optimizers.State]:
        extra = _optimizers.extra_arguments(update, state, loss, grads, value)
        own_grads = grads.fast if has_fast else grads
        updating = _checks.failing(where, "optimizer must compute an update", _optimizers.CURE)
        with jax.numpy_dtype_promotion("standard"), updating:
            updates, new_state = update(own_grads, state, params, **extra)
            new_params = optax.apply_updates(params, updates)
        return new_params, _optimizers.as_before(where, new_state, state)

    _checks.function(where, "loss_fn", loss_fn)
    params = _checks.trained(where, "params", params)
    state = _optimizers.initial_state(where, optimizer, params, state)
    options = _loop.Options(num_steps, tolerance, per_step, record, record_every, has_aux)
    return _loop.descend(where, loss_fn, params, data, advance, state, options)


def _learning_rate(where: str, value: Any) -> Array:
    if callable(value):
        cure = "A schedule goes into an optimizer: descent.optimize, optax.sgd(schedule)."
    else:
        cure = "For several rates use jax.vmap."
    _checks.that(where, not callable(value), "learning_rate must be a scalar", "a function", cure)
    is_switch = isinstance(value, bool)
    _checks.that(
        where, not is_switch, "learning_rate must be a number", str(value), error=TypeError
    )
    return _checks.scalar(where, "learning_rate", value, cure)
