"""How gradients flow: a chain of functions, run forwards and then backwards.

A chain is a sequence of stages; stage l maps x_l to x_{l+1}, and the last output x_L is a
scalar. Backwards flow the adjoints ``d x_L / d x_l``, the trunk; where a stage has
parameters, ``d x_L / d p_l`` branches off. Dividing an error of x_L by an adjoint says how
far x_l is off, to first order: repeated, that is Newton's method.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks, _iteration
from jaxgd._repr import short_repr
from jaxgd.types import Array, ArrayLike, PyTree, Stage

__all__ = [
    "Correction",
    "Solution",
    "Trace",
    "backprop",
    "compose",
    "correct",
    "local_derivatives",
    "solve",
]


class Trace(NamedTuple):
    """What a chain computed on its way forwards and backwards.

    Attributes:
      primals: ``(x_0, ..., x_L)``; x_L is a scalar.
      adjoints: ``d x_L / d x_l``, shaped like ``primals[l]``: the trunk. The last is 1.
      param_adjoints: ``d x_L / d p_l``, shaped like ``params[l]``: the branches; None for
        stages without parameters.
    """

    primals: tuple[PyTree, ...]
    adjoints: tuple[PyTree, ...]
    param_adjoints: tuple[PyTree, ...] | None

    __repr__ = short_repr


class Correction(NamedTuple):
    """How far each value of a chain is off, to first order.

    Attributes:
      primals: ``(x_0, ..., x_L)``; x_L is a scalar.
      deltas: ``(x_L - target) / (n_l * d x_L / d x_l)``, shaped like ``primals[l]``, with
        n_l the number of entries of x_l. To be subtracted.
    """

    primals: tuple[PyTree, ...]
    deltas: tuple[PyTree, ...]

    __repr__ = short_repr


class Solution(NamedTuple):
    """The iterates of a solve, N being its ``max_steps``.

    Attributes:
      path: the iterates of x, leading axis N + 1, the start first, frozen after the last step.
      outputs: shape (N + 1,): ``outputs[t]`` is x_L at ``path[t]``.
      residuals: shape (N + 1,): ``outputs - target``.
      num_steps: int32 (): the number of steps taken; ``path[num_steps]`` is the last iterate.
      status: int32 (), a ``descent.Status`` value.
    """

    path: PyTree
    outputs: Array
    residuals: Array
    num_steps: Array
    status: Array

    __repr__ = short_repr


def compose(*stages: Stage) -> Stage:
    """Makes one stage of several, the first applied first.

    Args:
      *stages: functions, each from one pytree to the next.

    Returns:
      The function ``x -> stages[-1](... stages[0](x))``.

    Raises:
      TypeError: if a stage is not callable.
      ValueError: if there is none.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import chains
      >>> chains.compose(jnp.square, jnp.log, jnp.sqrt)(2.0).round(3)
      Array(1.177, dtype=float32, weak_type=True)
    """
    _check_stages("chains.compose", stages)

    return lambda x: _composed("chains.compose", stages, x)


def _composed(where: str, stages: Sequence[Stage], x: PyTree) -> PyTree:
    for index, stage in enumerate(stages):
        with _checks.calling(where, f"stages[{index}]", stage, (x,), "a value"):
            x = stage(x)
    return x


def backprop(
    stages: Sequence[Stage], x: PyTree, *, params: Sequence[PyTree] | None = None
) -> Trace:
    """Runs a chain forwards, then its adjoints backwards, and keeps everything.

    The backward rule is ``adjoint_l = adjoint_{l+1} * d x_{l+1} / d x_l``. What leaves at
    ``adjoints[0]`` is ``jax.grad`` of the composed chain.

    Args:
      stages: L functions; ``stage(x)``, or ``stage(p_l, x)`` when ``params`` are given.
        The last one returns a scalar.
      x: the input x_0, a pytree of floating-point arrays.
      params: one pytree of floating-point arrays per stage, () for a stage without any.

    Returns:
      A Trace with L + 1 primals, L + 1 adjoints and, with ``params``, L param_adjoints.

    Raises:
      TypeError: if a stage is not callable, or ``x`` or ``params`` are not floating-point.
      ValueError: if there is no stage, ``params`` has another length, or x_L is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import chains
      >>> trace = chains.backprop([lambda x: x**2, lambda a: 3 * a], 2.0)
      >>> [float(primal) for primal in trace.primals]
      [2.0, 4.0, 12.0]
      >>> [float(adjoint) for adjoint in trace.adjoints]
      [12.0, 3.0, 1.0]

    Source:
      Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, 1986.
    """
    return _backprop("chains.backprop", stages, x, params)


def _backprop(
    where: str, stages: Sequence[Stage], x: PyTree, params: Sequence[PyTree] | None
) -> Trace:
    _check_stages(where, stages)
    primals = [_checks.params(where, "x", x)]
    pullbacks = []
    if params is None:
        for index, stage in enumerate(stages):
            with _checks.calling(where, f"stages[{index}]", stage, (x,), "a value, no params"):
                primal, pullback = jax.vjp(stage, primals[-1])
            primals.append(primal)
            pullbacks.append(pullback)
    else:
        _checks.instance(where, "params", params, Sequence)
        _checks.length(where, "params", params, len(stages), "one per stage")
        for index, (stage, p) in enumerate(zip(stages, params, strict=True)):
            if jax.tree.leaves(p):
                p = _checks.params(where, f"params[{index}]", p)
            with _checks.calling(where, f"stages[{index}]", stage, (p, x), "params and a value"):
                primal, pullback = jax.vjp(stage, p, primals[-1])
            primals.append(primal)
            pullbacks.append(pullback)
    primals[-1] = output = _checks.scalar_output(where, "the last stage", primals[-1])

    adjoints, param_adjoints = [jnp.ones_like(output)], []
    for index, pullback in reversed(list(enumerate(pullbacks))):
        with _checks.differentiable(where, f"stages[{index}]"):
            *param_adjoint, adjoint = pullback(adjoints[0])
        adjoints.insert(0, adjoint)
        param_adjoints[:0] = param_adjoint
    return Trace(
        primals=tuple(primals),
        adjoints=tuple(adjoints),
        param_adjoints=None if params is None else tuple(param_adjoints),
    )


def local_derivatives(stages: Sequence[Stage], x: PyTree) -> tuple[PyTree, ...]:
    """Computes the derivative of each stage at its own input.

    Their product, taken from the last to the first, is the derivative of the chain.

    Args:
      stages: L functions from one pytree to the next; the last output may be of any shape.
      x: the input x_0, a pytree of floating-point arrays.

    Returns:
      L Jacobians ``d x_{l+1} / d x_l``, as by ``jax.jacobian``: shape
      ``shape(x_{l+1}) + shape(x_l)`` for arrays, a pytree of such for pytrees.

    Raises:
      TypeError: if a stage is not callable, or ``x`` is not floating-point.
      ValueError: if there is no stage.

    Example:
      >>> from jaxgd import chains
      >>> [float(d) for d in chains.local_derivatives([lambda x: x**2, lambda a: 3 * a], 2.0)]
      [4.0, 3.0]
    """
    where = "chains.local_derivatives"
    _check_stages(where, stages)
    x = _checks.params(where, "x", x)
    jacobians = []
    for index, stage in enumerate(stages):
        with _checks.calling(where, f"stages[{index}]", stage, (x,), "a value"):
            jacobians.append(jax.jacrev(stage)(x))
            x = stage(x)
    return tuple(jacobians)


def correct(stages: Sequence[Stage], x: PyTree, target: ArrayLike) -> Correction:
    """Sends the error of a chain's output back to each of its values.

    To first order, subtracting ``deltas[l]`` from x_l brings x_L to the target: each of
    the n_l entries of x_l repairs an equal share of the error. On a chain of scalars that is
    ``deltas[l] = deltas[l + 1] / (d x_{l+1} / d x_l)``, an error divided by one local
    derivative per stage. An adjoint of 0 gives an infinite delta.

    Args:
      stages: functions from one pytree to the next; the last one returns a scalar. To hold
        an input fixed, close over it.
      x: the input x_0, a pytree of floating-point arrays.
      target: what x_L should be, a scalar.

    Returns:
      A Correction with L + 1 primals and L + 1 deltas; the last delta is ``x_L - target``.

    Raises:
      TypeError: if a stage is not callable, or ``x`` is not floating-point.
      ValueError: if there is no stage, or x_L or ``target`` is no scalar.

    Example:
      >>> from jaxgd import chains
      >>> correction = chains.correct([lambda x: x**2, lambda a: 3 * a], 2.0, 15.0)
      >>> [float(delta) for delta in correction.deltas]
      [-0.25, -1.0, -3.0]
    """
    where = "chains.correct"
    target = _checks.scalar(where, "target", target)
    trace = _backprop(where, stages, x, None)
    residual = trace.primals[-1] - target
    deltas = [_share(residual, adjoint) for adjoint in trace.adjoints]
    return Correction(primals=trace.primals, deltas=tuple(deltas))


def _share(residual: Array, adjoint: PyTree) -> PyTree:
    """The change of each entry that repairs an equal share of the residual."""
    size = sum(leaf.size for leaf in jax.tree.leaves(adjoint))
    return jax.tree.map(lambda leaf: (residual / (size * leaf)).astype(leaf.dtype), adjoint)


def solve(
    stages: Sequence[Stage],
    x: PyTree,
    target: ArrayLike,
    *,
    tolerance: ArrayLike,
    max_steps: int,
    refresh: bool = True,
    project: Callable[[PyTree], PyTree] | None = None,
) -> Solution:
    """Finds an input for which a chain's output is the target.

    Each step subtracts the first delta of ``correct``. For a scalar x that is Newton's
    method, ``x - (f(x) - target) / f'(x)``; for several unknowns every entry repairs an
    equal share of the error, which leads to one of the many solutions, not to the nearest.

    Args:
      stages: functions from one pytree to the next; the last one returns a scalar. To hold
        an input fixed, close over it.
      x: the start, a pytree of floating-point arrays.
      target: the wanted output, a scalar.
      tolerance: stop when ``|f(x) - target| <= tolerance``, at least 0.
      max_steps: N, the largest number of steps, static.
      refresh: whether to compute the derivatives anew at each iterate; with False those
        of the start serve throughout (the chord method); static.
      project: maps an iterate back into the domain after each step; static.

    Returns:
      A Solution. Its status is CONVERGED, MAX_STEPS, NON_FINITE (an output, an iterate or a
      derivative in use is infinite or NaN, which beats CONVERGED) or STALLED (a step
      changed nothing although the residual is above the tolerance).

    Raises:
      TypeError: if a stage or ``project`` is not callable, ``x`` is not floating-point, or
        ``max_steps`` is no static int.
      ValueError: if there is no stage, x_L, ``target`` or ``tolerance`` is no scalar, a
        number is negative, ``project`` changes a shape, or the solution is differentiated in
        reverse mode.

    Example:
      >>> from jaxgd import chains
      >>> solution = chains.solve([lambda x: x**2], 1.0, 2.0, tolerance=1e-6, max_steps=20)
      >>> solution.path[solution.num_steps].round(4), int(solution.status)
      (Array(1.4142, dtype=float32), 0)

    Source:
      Ortega and Rheinboldt, Iterative Solution of Nonlinear Equations, 1970, Sec. 7.1.
    """
    where = "chains.solve"
    _check_stages(where, stages)
    start = _checks.params(where, "x", x)
    target = _checks.scalar(where, "target", target)
    _checks.at_least(where, "tolerance", tolerance, 0)
    tolerance = _checks.scalar(where, "tolerance", tolerance)
    max_steps = _checks.count(where, "max_steps", max_steps)
    if project is not None:
        _checks.function(where, "project", project)

    def derivative(x: PyTree) -> tuple[Array, PyTree]:
        trace = _backprop(where, stages, x, None)
        return trace.primals[-1], trace.adjoints[0]

    first_adjoint = None if refresh else derivative(start)[1]

    def look(x: PyTree, *_: PyTree) -> tuple[Array, PyTree]:
        if refresh:
            return derivative(x)
        return jnp.asarray(_composed(where, stages, x)), first_adjoint

    def judge(_: Array, output: Array, adjoint: PyTree, x: PyTree) -> Array:
        return _iteration.decide(
            is_finite=_all_finite((x, output, adjoint)),
            has_converged=jnp.abs(output - target) <= tolerance,
        )

    def advance(
        x: PyTree, memory: PyTree, output: Array, adjoint: PyTree, _: Array
    ) -> tuple[PyTree, PyTree]:
        moved = jax.tree.map(jnp.subtract, x, _share(output - target, adjoint))
        if project is None:
            return moved, memory
        projected = project(moved)
        _checks.like(where, "the output of project", projected, "x", x)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), projected, x), memory

    rule = _iteration.Rule(look=look, judge=judge, keep=lambda x: x, move=advance)
    run, rows = _iteration.iterate(
        rule, start, (), num_steps=max_steps, ends_early=True, ends_when_unchanged=True
    )
    solution = Solution(
        path=rows.kept,
        outputs=rows.each,
        residuals=rows.each - target,
        num_steps=run.num_steps,
        status=run.status,
    )
    return _iteration.forward_only(
        solution,
        where,
        "x, target and what the stages hold must not be differentiated in reverse mode",
        "jax.grad or jax.vjp",
        "Differentiate the equation f(x) = target instead, or use forward mode, jax.jvp.",
    )


def _all_finite(tree: PyTree) -> Array:
    finite = jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)
    return jax.tree.reduce(jnp.logical_and, finite)


def _check_stages(where: str, stages: Sequence[Stage]) -> None:
    """A sequence of at least one function."""
    is_function = callable(stages)
    is_sequence = isinstance(stages, Sequence) and not is_function
    cure = "Write [stages] for a single one." if is_function else ""
    wanted = "stages must be a sequence of functions"
    _checks.that(where, is_sequence, wanted, _checks.kind(stages), cure, error=TypeError)
    _checks.that(where, len(stages) > 0, "stages must hold at least one function", "none")
    for index, stage in enumerate(stages):
        _checks.function(where, f"stages[{index}]", stage)
