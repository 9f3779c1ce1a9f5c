"""The points of the note's two regressions."""

from typing import NamedTuple

import numpy as np


class Points(NamedTuple):
    """Points in the plane.

    Attributes:
      x: shape (N,).
      y: shape (N,).
    """

    x: np.ndarray
    y: np.ndarray


# The note prints these.
TWENTY = Points(
    x=np.arange(1.0, 21.0),
    y=np.array([3, 4, 5, 5, 2, 4, 7, 8, 11, 8, 12, 11, 13, 13, 16, 17, 18, 17, 19, 21], float),
)


def _fifty() -> Points:
    x = np.linspace(0, 1, 50)
    residuals = -0.0887 + 0.1363 * x + 0.4377 * np.sin(2.5 * np.arange(50) + 0.3)
    return Points(x, 2 * x + 3 + residuals)


# The note's own points near y = 2x + 3 were random and are lost. These are a stand-in, made by a
# formula, from which all 40 losses come out that the note's source published.
FIFTY = _fifty()
