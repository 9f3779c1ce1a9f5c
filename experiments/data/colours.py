"""Real data that every Matplotlib brings along: the 148 named colours of CSS, by hue.

A colour is warm when its hue lies within 90 degrees of orange (30 degrees) on the colour
circle, cool when it lies on the other half. Greys have no hue. Some colours have two names
(grey and gray, aqua and cyan, fuchsia and magenta): each colour counts once, so that none
is in the training and in the test set.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.colors import CSS4_COLORS, rgb_to_hsv, to_rgb

ORANGE_HUE = 30.0


class Colours(NamedTuple):
    """Named colours.

    Attributes:
      names: N words.
      rgb: shape (N, 3), from 0 to 1.
      hues: shape (N,), in degrees; NaN for greys.
      warm: shape (N,), 1.0 for warm, 0.0 for cool colours; NaN for greys.
    """

    names: list[str]
    rgb: np.ndarray
    hues: np.ndarray
    warm: np.ndarray


def load() -> Colours:
    """Loads every distinct named colour."""
    names = list({value: name for name, value in reversed(CSS4_COLORS.items())}.values())
    rgb = np.array([to_rgb(name) for name in names])
    hue, saturation, _ = rgb_to_hsv(rgb).T
    hues = np.where(saturation > 0, 360 * hue, np.nan)
    distance = np.abs((hues - ORANGE_HUE + 180) % 360 - 180)
    warm = np.where(np.isnan(hues), np.nan, (distance < 90).astype(float))
    return Colours(names=names, rgb=rgb, hues=hues, warm=warm)


def split(colours: Colours, seed: int, test_share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """The indices of a training and of a test set, of colours that have a hue."""
    known = np.flatnonzero(~np.isnan(colours.warm))
    shuffled = np.random.default_rng(seed).permutation(known)
    num_test = round(test_share * known.size)
    return shuffled[num_test:], shuffled[:num_test]
