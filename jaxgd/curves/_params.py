"""What the functions of this folder ask of params."""

from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd.types import Params, PyTree


def wide_dtype(tree: PyTree) -> DTypeLike:
    """The dtype to compute with: float32, or the widest of the arrays where that is wider."""
    return np.result_type(np.float32, *(leaf.dtype for leaf in jax.tree.leaves(tree)))


def ends(where: str, loss_fn: Any, first: Params, last: Params) -> tuple[Params, Params]:
    _checks.function(where, "loss_fn", loss_fn)
    first = _checks.params(where, "first", first)
    last = _checks.params(where, "last", last)
    _checks.like(where, "last", last, "first", first)
    return first, last
