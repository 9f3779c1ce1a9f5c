"""What the pictures of all experiments share: letters for their panels, marks on their paths."""

import string
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgd import plots

START, END = "#FFFFFF", "#F0E442"
"""The fillings of the marks at the two ends of a path; both have a black edge."""


def letters(*axes: Axes) -> None:
    """Writes a, b, c, ... above the panels, in the order in which they are read."""
    for letter, ax in zip(string.ascii_lowercase, axes, strict=False):
        place: Any = {"xytext": (-26, 7), "textcoords": "offset points", "annotation_clip": False}
        ax.annotate(letter, (0, 1), xycoords="axes fraction", fontweight="bold", **place)


def ends(ax: Axes, points: Any, **labels: str) -> None:
    """Marks where a path starts and where it ends: labels are ``start`` and ``end``."""
    points = np.asarray(points)
    mark: Any = {"mec": "black", "ls": "none", "zorder": 5}
    ax.plot(*points[0], "s", color=START, ms=7, label=labels.get("start"), **mark)
    ax.plot(*points[-1], "*", color=END, ms=13, label=labels.get("end"), **mark)


def colour_of_rule(name: str) -> str:
    """One colour for one way of descending in every picture: that of its place among the runs."""
    names = ("SGD", "momentum", "Adam", "Nesterov", "RMSProp", "L-BFGS")
    return plots.PATH_COLOURS[names.index(name)]


def colour_of_loss(name: str) -> str:
    """One colour for one loss function in every picture."""
    names = ("hinge", "squared hinge", "logistic", "ramp")
    return next(plots.COLOURS[i] for i, known in enumerate(names) if name.startswith(known))
