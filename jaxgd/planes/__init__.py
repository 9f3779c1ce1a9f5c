"""Where we look: lines and planes through the space of params.

A plane with k directions is the set of points ``origin + c_1 d_1 + ... + c_k d_k``. One
direction makes a line, two a plane in the strict sense.
"""

from jaxgd.planes._choices import along, coordinate, principal, random, through
from jaxgd.planes._filters import (
    FilterAxis,
    PlaneGeometry,
    explain_filters,
    filter_normalize,
    geometry,
    orthonormalize,
)
from jaxgd.planes._points import Plane, Projection, point, project, project_path
from jaxgd.planes._restrict import explain, restrict

__all__ = [
    "FilterAxis",
    "Plane",
    "PlaneGeometry",
    "Projection",
    "along",
    "coordinate",
    "explain",
    "explain_filters",
    "filter_normalize",
    "geometry",
    "orthonormalize",
    "point",
    "principal",
    "project",
    "project_path",
    "random",
    "restrict",
    "through",
]
