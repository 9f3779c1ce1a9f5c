"""What a descent leaves: its trace, and what is read from it."""

from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.descent import _optimizers
from jaxgd.types import Array, ArrayLike, Params, PyTree, Status


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
    state: _optimizers.State = ()

    __repr__ = short_repr


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
