"""The points of a grid: numbered row by row, cut into batches and into blocks.

A batch is what a device computes at once: ``batch_size`` points with consecutive numbers. A block
is what is finished at once: a box of the grid whose points have consecutive numbers, too. Both cut
the whole grid, so that neither depends on what is still to be computed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MOST_POINTS = 2**20  # of a block
_ALIGNMENT = 64  # bytes


class Grid(NamedTuple):
    """The points and how they are cut.

    Attributes:
      shape: the number of points along each axis.
      batch_size: how many points are computed at once.
      block_shape: the number of points of a block along each axis.
    """

    shape: tuple[int, ...]
    batch_size: int
    block_shape: tuple[int, ...]


class Block(NamedTuple):
    """A finished block: its number, where its points lie in the flattened grid, their values."""

    number: int
    place: slice
    values: Sequence[np.ndarray]


def of(shape: tuple[int, ...], batch_size: int, num_blocks: int) -> Grid:
    """A grid in at least so many blocks, as far as there are points."""
    num_points = math.prod(shape)
    most = min(max(1, num_points // num_blocks), _MOST_POINTS)
    return Grid(shape, min(batch_size, num_points), _block_shape(shape, most))


def _block_shape(shape: Sequence[int], num_points: int) -> tuple[int, ...]:
    """The shape of blocks of about so many points, each consecutive in the flattened grid."""
    block: list[int] = []
    for size in reversed(shape):
        num_pieces = -(-size // max(num_points, 1))
        block.insert(0, -(-size // num_pieces))  # the pieces about equal
        num_points //= size
    return tuple(block)


def num_blocks(grid: Grid) -> int:
    """How many blocks the grid is cut into."""
    return math.prod(_blocks_per_axis(grid))


def position(grid: Grid, block: int) -> tuple[int, ...]:
    """The position of a block among the blocks, along each axis."""
    return tuple(int(i) for i in np.unravel_index(block, _blocks_per_axis(grid)))


def region(grid: Grid, block: int) -> tuple[slice, ...]:
    """Where a block lies in the grid."""
    triples = zip(position(grid, block), grid.block_shape, grid.shape, strict=True)
    return tuple(slice(i * b, min((i + 1) * b, size)) for i, b, size in triples)


def place(grid: Grid, block: int) -> slice:
    """Where a block lies in the flattened grid."""
    box = region(grid, block)
    first = int(np.ravel_multi_index([s.start for s in box], grid.shape))
    return slice(first, first + math.prod(s.stop - s.start for s in box))


def batches(grid: Grid, blocks: np.ndarray) -> np.ndarray:
    """The batches that compute the points of some blocks: rows of numbers of points."""
    size, num_points = grid.batch_size, math.prod(grid.shape)
    places = [place(grid, block) for block in blocks.tolist()]
    numbers = [np.arange(p.start // size, (p.stop - 1) // size + 1) for p in places]
    starts = np.unique(np.concatenate([*numbers, np.empty(0, int)])).astype(np.int32) * size
    # The last batch repeats the last point.
    return np.minimum(starts[:, None] + np.arange(size, dtype=np.int32), num_points - 1)


def in_batches(points: np.ndarray, batch_size: int) -> np.ndarray:
    """Any points as rows of one length; the last point fills up the last row."""
    num_batches = -(-points.size // batch_size)
    padding = num_batches * batch_size - points.size
    filled = np.concatenate([points, np.repeat(points[-1:], padding)])
    return filled.astype(np.int32).reshape(num_batches, batch_size)


def room(grid: Grid, dtype: np.dtype) -> np.ndarray:
    """Room for all values, aligned so that a CPU's array can be that room and need not copy it."""
    num_bytes = math.prod(grid.shape) * np.dtype(dtype).itemsize
    bare = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -bare.ctypes.data % _ALIGNMENT
    return bare[start : start + num_bytes].view(dtype)


def _blocks_per_axis(grid: Grid) -> tuple[int, ...]:
    pairs = zip(grid.shape, grid.block_shape, strict=True)
    return tuple(-(-size // block) for size, block in pairs)
