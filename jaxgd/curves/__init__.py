"""How two minima are joined, and what lies around one.

Between two trained networks a line mostly crosses a barrier. Some of it is there only because
their hidden units stand in another order: ``align`` reorders them. What is left a curve may
go around: ``connect`` finds one. ``basin_profile`` says how the loss rises around a point.
"""

from jaxgd.curves._alignment import align
from jaxgd.curves._barriers import Barrier, barrier
from jaxgd.curves._basins import BasinProfile, basin_profile
from jaxgd.curves._bezier import Connection, Curve, connect, point
from jaxgd.curves._units import groups_of

__all__ = [
    "Barrier",
    "BasinProfile",
    "Connection",
    "Curve",
    "align",
    "barrier",
    "basin_profile",
    "connect",
    "groups_of",
    "point",
]
