"""The dimension of a set of cells in the plane, by counting the boxes that hold one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Dimension(NamedTuple):
    """A box-counting dimension and the standard error of its fit.

    The error is that of a straight line through the counts. It does not know of what a grid
    leaves unresolved, nor that the counts at two sizes are of the same cells.
    """

    estimate: float
    standard_error: float


def count(cells: np.ndarray, size: int) -> int:
    """Counts the boxes of ``size`` by ``size`` cells in which a cell is marked."""
    rows, columns = (-(-length // size) for length in cells.shape)
    padding = [(0, -length % size) for length in cells.shape]
    return int(np.pad(cells, padding).reshape(rows, size, columns, size).any(axis=(1, 3)).sum())


def dimension(cells: np.ndarray, sizes: Sequence[int]) -> Dimension:
    """Fits a line to log N(size) against log(1 / size): its slope is the dimension.

    Args:
      cells: a two-dimensional array, True where the set is.
      sizes: of the boxes, in cells; at least three.

    Returns:
      The slope with its standard error; NaN for a set without cells.
    """
    counts = np.array([count(cells, size) for size in sizes], float)
    if not counts.all():
        return Dimension(np.nan, np.nan)
    x, y = -np.log(np.asarray(sizes, float)), np.log(counts)
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    variance = np.sum((y - slope * x) ** 2) / (len(sizes) - 2)
    return Dimension(float(slope), float(np.sqrt(variance / (x @ x))))


def sizes_for(resolution: int) -> list[int]:
    """Powers of two, from one cell to an eighth of the map."""
    return [2**i for i in range((resolution // 8).bit_length())]
