"""jaxgd: gradient descent that can be seen. Each module is a room that answers one question.

``jaxgd.plots``, which needs Matplotlib, is imported by whoever draws.
"""

from jaxgd import (
    chains,
    curvature,
    curves,
    descent,
    losses,
    neurons,
    planes,
    surfaces,
    sweeps,
    types,
)

__version__ = "0.1.0"

__all__ = [
    "chains",
    "curvature",
    "curves",
    "descent",
    "losses",
    "neurons",
    "planes",
    "surfaces",
    "sweeps",
    "types",
]
