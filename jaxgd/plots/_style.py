"""What all pictures have in common: one palette, and outlines that lift a line off a surface."""

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib import patheffects
from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart. For curves on white."""
PATH_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#E69F00", "#999999", "#0072B2")
"""For runs over a surface, and for their losses beside it: the same in pictures and on pages."""
GREY = "0.35"
FEW_POINTS = 40  # a mark for each point of a run; more would hide the line
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 3)))

Aspect = Literal["auto", "equal"]


def pick(palette: Sequence[Any], index: int) -> Any:
    """The colour of the ``index``-th thing; after the last colour comes the first again."""
    return palette[index % len(palette)]


def outline(*lines: Line2D, colour: str = "white", width: float = 1.6) -> None:
    """Draws a light edge around lines, so that they stand out on any colour of a surface."""
    for line in lines:
        edge = patheffects.withStroke(linewidth=line.get_linewidth() + width, foreground=colour)
        line.set_path_effects([edge])
