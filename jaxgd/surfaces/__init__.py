"""What we see there: a function's values over a grid, and the shape of a surface in numbers."""

from jaxgd.surfaces._critical_points import CriticalPoints, critical_points
from jaxgd.surfaces._grids import Surface, select, sweep
from jaxgd.surfaces._persistence import Persistence, persistence
from jaxgd.surfaces._series import Approximation, evaluate

__all__ = [
    "Approximation",
    "CriticalPoints",
    "Persistence",
    "Surface",
    "critical_points",
    "evaluate",
    "persistence",
    "select",
    "sweep",
]
