"""Which learning rates hold: curvature as a step along a direction, or a rescaled one, meets it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.curvature import _loader, _products, _vectors
from jaxgd.curvature._products import Where
from jaxgd.curvature._spectra import ritz_of
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, ArrayLike, LossFn, Params, PRNGKey, PyTree


class Stability(NamedTuple):
    """Which learning rates a loss allows near some params.

    Attributes:
      sharpness: shape (): the largest eigenvalue of the Hessian.
      stable_rate: shape (): ``2 / sharpness``, above which gradient descent on a quadratic
        diverges; inf where nothing bends upwards.
      condition: shape (): the largest magnitude of an eigenvalue over the smallest. At any
        stable rate the flattest direction takes about that many steps.
    """

    sharpness: Array
    stable_rate: Array
    condition: Array

    __repr__ = short_repr


def stability(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_iterations: int,
    where: Where = None,
    batches: Any = None,
) -> Stability:
    """Says why a descent diverges or crawls: the largest stable rate, and the condition.

    Near a minimum, gradient descent at the rate eta multiplies the distance along an
    eigenvector of the Hessian by ``1 - eta lambda`` at each step: the sharpest direction
    bounds the rate, and the flattest then sets the number of steps. Inputs of one size, with
    their mean taken away, bring the two together.

    Args:
      key: a PRNG key, for the first vector.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of n numbers in floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_iterations: products with the Hessian, static; see ``top_eigenpairs``. With n of them
        all is exact to rounding; with fewer the sharpness and the condition come from below.
      where: ``(path, leaf) -> bool``: the block to look at; see ``top_eigenpairs``.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      Stability, in float32 or better. A condition near 1 / eps of the arithmetic says only that
      the smallest eigenvalue is lost in rounding.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or ``num_iterations`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_iterations`` is
        below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> bowl = curvature.stability(
      ...     jax.random.key(0), lambda x: 2 * x[0] ** 2 + x[1] ** 2 / 2, jnp.ones(2),
      ...     num_iterations=2,
      ... )
      >>> print(*[round(float(value), 3) for value in bowl])
      4.0 0.5 4.0

    Source:
      LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, Sec. 5.
    """
    caller = "curvature.stability"
    _checks.key(caller, "key", key)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    values = ritz_of(caller, key, product, block, num_iterations).values
    sharpest, magnitudes = values.max(), jnp.abs(values)
    return Stability(
        sharpness=sharpest,
        stable_rate=2 / jnp.maximum(sharpest, 0),
        condition=magnitudes.max() / magnitudes.min(),
    )


def preconditioned_sharpness(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    preconditioner: Params,
    *data: PyTree,
    num_iterations: int,
    where: Where = None,
    reorthogonalize: bool = True,
    batches: Any = None,
) -> Array:
    """Estimates the largest eigenvalue of ``P^-1/2 H P^-1/2``, P being diagonal.

    It is to a rescaled step ``-eta P^-1 g`` what the sharpness is to a plain one: without
    momentum stable below the rate 2 / value; with Adam, the gradients averaged by beta1, below
    ``(2 + 2 beta1) / ((1 - beta1) value)``, which is 38 / value at 0.9.

    Args:
      key: a PRNG key, for the first vector.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      preconditioner: shaped like ``params``: the positive diagonal of P, as
        ``adam_preconditioner`` reads it off a state. Arrays that ``optax.masked`` has left out
        stay out of the block.
      *data: passed on to ``loss_fn``.
      num_iterations: products with the Hessian, static; see ``top_eigenpairs``.
      where: ``(path, leaf) -> bool``: the block to look at; see ``top_eigenpairs``.
      reorthogonalize: static; see ``sharpness``. The roots of P are kept, too.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      A scalar, in float32 or better, from below.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params, the
        preconditioner or the loss not floating-point, or ``num_iterations`` no static int.
      ValueError: if there are no params, the loss is no scalar, the preconditioner does not fit
        the params, or ``num_iterations`` is below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> value = curvature.preconditioned_sharpness(
      ...     jax.random.key(0), lambda x: 4 * x[0] ** 2 + x[1] ** 2, jnp.zeros(2),
      ...     jnp.array([8.0, 1.0]), num_iterations=2,
      ... )
      >>> print(round(float(value), 3))
      2.0

    Source:
      Cohen, Ghorbani, Krishnan et al., Adaptive gradient methods at the edge of stability,
      2022, Sec. 2.
    """
    caller = "curvature.preconditioned_sharpness"
    _checks.key(caller, "key", key)
    _checks.function(caller, "loss_fn", loss_fn)
    params = _checks.params(caller, "params", params)
    preconditioner, where = _filled(caller, params, preconditioner, where)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    roots = [jnp.sqrt(leaf) for leaf in _vectors.widened(block.select(preconditioner))]

    def rescaled(vector: Vector) -> Vector:
        image = product([v / root for v, root in zip(vector, roots, strict=True)])
        return [h / root for h, root in zip(image, roots, strict=True)]

    whole = _loader.around(product, rescaled)
    return ritz_of(caller, key, whole, block, num_iterations, reorthogonalize).values.max()


def _filled(
    caller: str, params: Params, preconditioner: Params, where: Where
) -> tuple[Params, Where]:
    """The preconditioner with ones for what ``optax.masked`` left out, and a block without it."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    structure, wanted = (
        jax.tree.structure(preconditioner, is_leaf=is_masked),
        jax.tree.structure(params),
    )
    wanted = f"preconditioner must have the structure of params, {wanted}"
    _checks.that(caller, structure == jax.tree.structure(params), wanted, str(structure))
    masked_out = {
        _checks.place(path)
        for path, entry in jax.tree.leaves_with_path(preconditioner, is_leaf=is_masked)
        if is_masked(entry)
    }
    filled = jax.tree.map(
        lambda leaf, entry: jnp.ones_like(leaf) if is_masked(entry) else entry,
        params,
        preconditioner,
    )
    filled = _checks.params(caller, "preconditioner", filled)
    _checks.like(caller, "preconditioner", filled, "params", params)
    if not masked_out:
        return filled, where

    def is_moved(path: str, leaf: Array) -> bool:
        return path not in masked_out and (where is None or where(path, leaf))

    return filled, is_moved


def adam_preconditioner(
    state: PyTree, *, b2: ArrayLike | None = None, eps: ArrayLike | None = None
) -> Params:
    """Reads off Adam's state by what it divides each entry of a step: ``sqrt(v_hat) + eps``.

    ``v_hat = nu / (1 - b2^count)`` is the mean of the squared gradients, corrected for its
    start at zero.

    Args:
      state: a state of ``optax.adam``, ``adamw`` or ``nadam``, or of a chain, a masked or an
        injected transformation that holds one. Those of ``optax.yogi`` and ``optax.radam`` look
        alike: give their figures with them.
      b2: how slowly the mean forgets; None for the injected figure, or else Optax's 0.999.
      eps: what keeps the divisor from zero; None for the injected figure, or else Optax's 1e-8.

    Returns:
      A pytree shaped like the params. Arrays that ``optax.masked`` has left out are
      ``optax.MaskedNode()``, as in the state.

    Raises:
      ValueError: if ``state`` holds no ``optax.ScaleByAdamState``, or several, or those of
        several runs.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxgd import curvature
      >>> optimizer = optax.adam(0.1)
      >>> params = jnp.array([1.0, 1.0])
      >>> state = optimizer.init(params)
      >>> _, state = optimizer.update(jnp.array([3.0, -0.5]), state, params)
      >>> curvature.adam_preconditioner(state).round(4)
      Array([3. , 0.5], dtype=float32)

    Source:
      Kingma and Ba, Adam: a method for stochastic optimization, 2015.
    """
    caller = "curvature.adam_preconditioner"
    adams = _nodes(state, lambda node: isinstance(node, optax.ScaleByAdamState))
    cure = "Pass the state of optax.adam or optax.adamw: Trajectory.state." if not adams else ""
    wanted = "state must hold one optax.ScaleByAdamState"
    _checks.that(caller, len(adams) == 1, wanted, str(len(adams)), cure)
    options = {"b2": 0.999, "eps": 1e-8}
    for injected in _nodes(state, lambda node: hasattr(node, "hyperparams")):
        options |= {name: v for name, v in injected.hyperparams.items() if name in options}
    options |= {name: v for name, v in (("b2", b2), ("eps", eps)) if v is not None}
    (adam,) = adams
    cure = "Of several runs: jax.vmap(curvature.adam_preconditioner)(state)."
    wanted = "state must be that of one run, its count a scalar"
    _checks.that(caller, jnp.ndim(adam.count) == 0, wanted, f"shape {jnp.shape(adam.count)}", cure)
    correction = 1 - jnp.asarray(options["b2"], jnp.float32) ** adam.count
    correction = jnp.where(adam.count == 0, 1, correction)

    def divisor(nu: Array) -> Array:
        wide = _vectors.widened([nu])[0]
        return (jnp.sqrt(wide / correction.astype(wide.dtype)) + options["eps"]).astype(nu.dtype)

    return jax.tree.map(divisor, adam.nu)


def _nodes(tree: PyTree, is_wanted: Callable[[Any], bool]) -> list[Any]:
    """The nodes of a pytree for which something holds."""
    return [node for node in jax.tree.leaves(tree, is_leaf=is_wanted) if is_wanted(node)]


def critical_sharpness(
    loss_fn: LossFn, params: Params, direction: Params, *data: PyTree, where: Where = None
) -> Array:
    """Computes ``2 / eta``, eta being the smallest step along -direction that raises the loss.

    For a quadratic and a direction d of descent it is ``d . H d / g . d``: the learning rate of
    the optimizer whose update is ``-eta d`` is too large once it exceeds eta. The step is
    doubled from a small one until the loss exceeds its start, then the bracket is narrowed. A
    handful of losses, about a dozen, and one gradient, whatever the size of the model.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      direction: shaped like ``params``: the gradient, or what an optimizer makes of it.
      *data: passed on to ``loss_fn``.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays move.

    Returns:
      A scalar, in float32 or better: inf where the loss rises at once, 0 where no step raises
      it. A narrow rise within a step of the doubling is not seen.

    Raises:
      TypeError: if ``loss_fn`` or ``where`` is not callable, or the params, the direction or
        the loss not floating-point.
      ValueError: if there are no params, the loss is no scalar, or the direction does not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> bowl = lambda x: 3 * x[0] ** 2 + x[1] ** 2
      >>> start = jnp.array([1.0, 1.0])
      >>> value = curvature.critical_sharpness(bowl, start, jax.grad(bowl)(start))
      >>> print(round(float(value), 4))  # (6 * 6**2 + 2 * 2**2) / (6**2 + 2**2)
      5.6

    Source:
      Kalra, Gagnon-Audet, Gromov et al., A scalable measure of loss landscape curvature for
      analyzing the training dynamics of LLMs, 2026.
    """
    caller = "curvature.critical_sharpness"
    _checks.function(caller, "loss_fn", loss_fn)
    loss = _checks.trainable(caller, "loss_fn", loss_fn)
    params = _checks.params(caller, "params", params)
    direction = _checks.params(caller, "direction", direction)
    _checks.like(caller, "direction", direction, "params", params)
    block = _products.block_of(caller, params, where)
    origin, along = _vectors.widened(block.leaves), _vectors.widened(block.select(direction))
    dtype = _vectors.wide_dtype(block.leaves)

    def loss_after(step: Array) -> Array:
        moved = [p - step * d for p, d in zip(origin, along, strict=True)]
        return loss(block.merge(_products.narrowed(moved, block)), *data).astype(dtype)

    with _checks.differentiable(caller, "loss_fn"):
        start, slope = jax.value_and_grad(loss_after)(jnp.zeros((), dtype))

    first = _loader.compiled(_first_step)(origin, along, start, slope)
    smallest, largest = _step_range(dtype)

    def measured(step: Array) -> _Step:
        # In units of the first step: the rise over a step of 1e20 would underflow.
        return _Step(step, (loss_after(step) - start) / (step / first))

    # Only what falls or stays counts as no rise: NaN and inf are rises, too.
    doubled = jax.lax.while_loop(
        lambda last: (last.slope <= 0) & (last.step < largest),
        lambda last: measured(2 * last.step),
        measured(first),
    )
    halved = jax.lax.while_loop(
        lambda pair: ~(pair[0].slope <= 0) & (pair[0].step > smallest),
        lambda pair: (measured(pair[0].step / 2), pair[0]),
        (doubled, doubled),
    )
    step = _crossing(measured, *halved)
    return _loader.compiled(_sharpness_of)(step, start, slope, doubled.step, halved[0].step)


def _step_range(dtype: DTypeLike) -> tuple[Any, Any]:
    """The smallest and the largest step that is tried."""
    return jnp.finfo(dtype).tiny * 4, jnp.finfo(dtype).max / 4


def _first_step(origin: Vector, along: Vector, start: Array, slope: Array) -> Array:
    """Small beside the params, yet large enough that the loss falls by more than its rounding."""
    small = 2.0**-10 * _vectors.scale_of(origin) / _vectors.scale_of(along)
    visible = 64 * jnp.finfo(start.dtype).eps * jnp.abs(start) / jnp.where(slope < 0, -slope, 1)
    return jnp.clip(jnp.maximum(small, jnp.where(slope < 0, visible, 0)), *_step_range(start.dtype))


def _sharpness_of(step: Array, start: Array, slope: Array, doubled: Array, halved: Array) -> Array:
    """``2 / step``, or what is to be said where the steps found no parabola."""
    smallest, largest = _step_range(start.dtype)
    value = jnp.where(doubled >= largest, 0, 2 / step)
    value = jnp.where((halved <= smallest) | (slope > 0), jnp.inf, value)
    return jnp.where(jnp.isnan(start), jnp.nan, value)


class _Step(NamedTuple):
    """A step, and the rise of the loss over it: on a parabola a line in the step."""

    step: Array
    slope: Array


class _Bracket(NamedTuple):
    """A step that does not raise the loss, one that does, and how the search goes."""

    low: _Step
    high: _Step
    best: Array
    was_low: Array
    is_met: Array
    num_rounds: Array


def _crossing(measured: Callable[[Array], _Step], low: _Step, high: _Step) -> Array:
    """Where the rise changes its sign: at once on a parabola, where its slope is a line.

    The Illinois method: the secant of the slopes, an end that stays twice losing half of its
    weight; or the middle, where the secant leads nowhere. Where the first bracket begins with a
    step that leaves the loss as it is, that is the crossing, or the loss is flat: a step a little
    longer tells.
    """
    eps = jnp.finfo(low.step.dtype).eps

    def narrower(bracket: _Bracket) -> _Bracket:
        low, high = bracket.low, bracket.high
        width = high.step - low.step
        secant = low.step - low.slope * width / (high.slope - low.slope)
        is_inside = (secant > low.step) & (secant < high.step)
        is_beside = (low.slope == 0) & (bracket.num_rounds == 0)
        longer = low.step + jnp.where(is_beside, 64 * eps * low.step, width / 2)
        found = measured(jnp.where(is_inside, secant, longer))
        is_low = found.slope <= 0
        is_crossing = is_beside & ~is_low
        is_repeated = is_low == bracket.was_low
        weight = jnp.where(is_repeated, 0.5, 1).astype(eps.dtype)
        kept_low, kept_high = (
            low._replace(slope=weight * low.slope),
            high._replace(slope=weight * high.slope),
        )
        return _Bracket(
            low=jax.tree.map(lambda a, b: jnp.where(is_low, a, b), found, kept_low),
            high=jax.tree.map(lambda a, b: jnp.where(is_low, a, b), kept_high, found),
            best=jnp.where(is_crossing, low.step, found.step),
            was_low=is_low,
            is_met=is_crossing | (is_inside & (found.slope == 0)),
            num_rounds=bracket.num_rounds + 1,
        )

    def goes_on(bracket: _Bracket) -> Array:
        is_wide = bracket.high.step - bracket.low.step > 4 * eps * bracket.high.step
        return is_wide & ~bracket.is_met & (bracket.num_rounds < 60)

    middle, no = low.step + (high.step - low.step) / 2, jnp.array(False)
    start = _Bracket(low, high, middle, no, no, num_rounds=jnp.zeros((), int))
    return jax.lax.while_loop(goes_on, narrower, start).best
