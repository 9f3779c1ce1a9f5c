"""The nouns that every room uses."""

import enum
from collections.abc import Callable
from typing import Any, TypeAlias

import chex
import jax
import jax.typing

__all__ = [
    "Array",
    "ArrayLike",
    "LossFn",
    "PRNGKey",
    "Params",
    "PyTree",
    "Stage",
    "Status",
]


Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.typing.ArrayLike
PRNGKey: TypeAlias = chex.PRNGKey
Params: TypeAlias = Any
"""Any pytree of floating-point arrays: tuples, dicts, Flax, Haiku or Equinox params."""
PyTree: TypeAlias = Any
"""Nested containers of arrays: what a loss is computed from, what a function returns."""
LossFn: TypeAlias = Callable[..., Array]
"""``loss_fn(params, *data)``, a scalar to be minimized over params."""
Stage: TypeAlias = Callable[..., PyTree]
"""A function from one pytree to the next: ``stage(x)``, or ``stage(params, x)``."""


class Status(enum.IntEnum):
    """How an iteration ended; carried through jit and vmap as an int32 per run.

    Attributes:
      CONVERGED: the gradient (of a solve: the residual) is within the tolerance.
      MAX_STEPS: all steps were taken. Without a tolerance that is the normal end.
      NON_FINITE: a loss, a gradient or a parameter became infinite or NaN.
      DIVERGED: the loss rose by 10^6 times its start, or ended above its start.
      STALLED: a step changed nothing, although the gradient is above the tolerance.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    DIVERGED = 3
    STALLED = 4
