"""How two minima are joined: by a line, by a curve, and after their units are matched.

Between two trained networks a line mostly crosses a barrier. Some of it is there only because
their hidden units stand in another order: ``align`` reorders them. What is left a curve may
go around: ``connect`` finds one.
"""

from jaxgd.curves._alignment import align
from jaxgd.curves._barriers import Barrier, barrier
from jaxgd.curves._bezier import Connection, Curve, connect, point
from jaxgd.curves._units import groups_of

__all__ = [
    "Barrier",
    "Connection",
    "Curve",
    "align",
    "barrier",
    "connect",
    "groups_of",
    "point",
]
