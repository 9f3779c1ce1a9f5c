"""How a point of a descent is judged, and how the whole run ended."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxgd import _iteration
from jaxgd.types import Array, ArrayLike, Params, PyTree, Status

DIVERGENCE_FACTOR = 1e6
"""A run is DIVERGED once its loss has risen by this multiple of its start (at least of 1)."""
_ROUNDING_FACTOR = 0.1  # no rise beyond this multiple of its start is taken for rounding


class Row(NamedTuple):
    """What is recorded of each point."""

    loss: Array
    grad_norm: Array
    aux: PyTree


def judge_of(tolerance: Array | None, *, forgives: bool) -> Callable[..., Array]:
    """How a point is judged: by its row, the first row and the params; elementwise in the row."""

    def judge(first: Row, row: Row, _: PyTree, params: Params) -> Array:
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


def status_of(
    run: _iteration.Run, tolerance: Array | None, num_steps: int, noisy_losses: Array | None
) -> Array:
    """How a run ended, told by its last point where no point before has ended it."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves((run.position, run.last.loss))]
    epsilon = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    rounding = min(num_steps * epsilon, _ROUNDING_FACTOR)
    first, last = run.first._replace(aux=None), run.last._replace(aux=None)
    is_still = run.is_still if num_steps > 0 else jnp.bool_(False)
    run = run._replace(position=None, memory=None, first=first, last=last, is_still=is_still)
    return _status_of(run, tolerance, rounding, epsilon**0.5, noisy_losses)


@functools.partial(jax.jit, inline=True)
def _status_of(
    run: _iteration.Run,
    tolerance: Array | None,
    rounding: ArrayLike,
    floor: ArrayLike,
    noisy_losses: Array | None,
) -> Array:
    """The same by what it depends on: one program where a descent is not jitted."""
    first, last = run.first, run.last
    if noisy_losses is None:
        before, after = first.loss, last.loss
    else:
        quarter = max(1, noisy_losses.size // 4)
        before, after = noisy_losses[:quarter].max(), noisy_losses[-quarter:].min()
    rise = _wide(after) - _wide(before)
    with jax.numpy_dtype_promotion("standard"):
        is_at_rest = last.grad_norm <= (floor * first.grad_norm if tolerance is None else tolerance)
    status = _iteration.decide(
        is_finite=jnp.isfinite(last.loss) & jnp.isfinite(last.grad_norm),
        has_diverged=rise > rounding * jnp.abs(_wide(first.loss)),
        is_stalled=run.is_still & ~is_at_rest,
    )
    return jnp.where(run.status == Status.MAX_STEPS, status, run.status)


def _wide(loss: Array) -> Array:
    """A loss in float32 or better."""
    return loss.astype(np.promote_types(loss.dtype, np.float32))
