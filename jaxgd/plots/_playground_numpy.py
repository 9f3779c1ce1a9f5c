"""What NumPy does as well as JAX, which would compile each of these operations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import primitives

SPLIT = jax.make_jaxpr(lambda x: lax.split(x, [1]))(np.ones(1, np.float32)).eqns[0].primitive
"""It has no public name."""


def _broadcast(
    x: np.ndarray, *, shape: Sequence[int], broadcast_dimensions: Sequence[int], **_: Any
) -> np.ndarray:
    lengths = [1] * len(shape)
    for axis, length in zip(broadcast_dimensions, x.shape, strict=True):
        lengths[axis] = length
    return np.broadcast_to(x.reshape(lengths), shape)


def _slice(
    x: np.ndarray, *, start_indices: Sequence[int], limit_indices: Sequence[int],
    strides: Sequence[int] | None,
) -> np.ndarray:  # fmt: skip
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _counted(*, dtype: Any, shape: Sequence[int], dimension: int, **_: Any) -> np.ndarray:
    count = np.arange(shape[dimension]).astype(dtype)
    return _broadcast(count, shape=shape, broadcast_dimensions=[dimension])


def _converted(x: np.ndarray, *, new_dtype: Any, **_: Any) -> np.ndarray:
    if x.dtype.kind in "fV" and np.dtype(new_dtype).kind not in "fV":
        # Machines do not agree on what lies beyond the integers.
        return np.asarray(lax.convert_element_type(x, new_dtype))
    return x.astype(new_dtype)


def padded(
    x: np.ndarray, value: Any, *, padding_config: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """An array with ``value`` around its entries and between them; what is cut off is left out."""
    kept, places, lengths = [], [], []
    for length, (low, high, interior) in zip(x.shape, padding_config, strict=True):
        place = low + (interior + 1) * np.arange(length)
        lengths.append(low + length + interior * max(length - 1, 0) + high)
        kept.append(np.flatnonzero((place >= 0) & (place < lengths[-1])))
        places.append(place[kept[-1]])
    result = np.full(lengths, value, x.dtype)
    result[np.ix_(*places)] = x[np.ix_(*kept)]
    return result


def _selected(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    """Of each place the case that a bool or a number chooses."""
    chosen = cases[0]
    for number, case in enumerate(cases[1:], 1):
        chosen = np.where(which >= number, case, chosen)
    return chosen


MOVES: dict[Any, Callable[..., Any]] = {
    primitives.broadcast_in_dim_p: _broadcast,
    primitives.reshape_p: lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    primitives.squeeze_p: lambda x, *, dimensions: x.squeeze(dimensions),
    primitives.transpose_p: lambda x, *, permutation: x.transpose(permutation),
    primitives.rev_p: lambda x, *, dimensions: np.flip(x, dimensions),
    primitives.slice_p: _slice,
    SPLIT: lambda x, *, sizes, axis: np.split(x, np.cumsum(sizes)[:-1], axis),
    primitives.concatenate_p: lambda *xs, dimension: np.concatenate(xs, dimension),
}
"""Entries are moved or copied, whatever they are."""

KNOWN: dict[Any, Callable[..., Any]] = {
    **MOVES,
    primitives.iota_p: _counted,
    primitives.convert_element_type_p: _converted,
    primitives.pad_p: padded,
    primitives.add_p: lambda x, y, **_: x + y,
    primitives.sub_p: lambda x, y, **_: x - y,
    primitives.mul_p: lambda x, y, **_: x * y,
    primitives.neg_p: lambda x, **_: -x,
    primitives.eq_p: lambda x, y, **_: x == y,
    primitives.ne_p: lambda x, y, **_: x != y,
    primitives.lt_p: lambda x, y, **_: x < y,
    primitives.le_p: lambda x, y, **_: x <= y,
    primitives.gt_p: lambda x, y, **_: x > y,
    primitives.ge_p: lambda x, y, **_: x >= y,
    primitives.select_n_p: _selected,
}
"""Also what every machine rounds alike, or wraps."""
