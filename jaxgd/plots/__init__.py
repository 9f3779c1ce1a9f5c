"""How it is drawn: each function takes an Axes and a result, and returns what it drew.

What is turned or played (``interactive_...``, ``animate_...``) takes a result and returns a
figure of its own. Nothing here shows or saves a figure. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart, and viridis and cividis where colour is a number.
Pictures side by side need room for their labels:
``figure, axes = plt.subplots(1, 2, layout="constrained")``.
"""

from jaxgd.plots._chains import backprop_trace, newton_path, residual_curve
from jaxgd.plots._curvature import sharpness_curve, spectrum
from jaxgd.plots._curves import barrier, basin_profile, curve_path, persistence_diagram
from jaxgd.plots._descents import descent_path, loss_band, loss_curve, projected_paths
from jaxgd.plots._films import animate_descent
from jaxgd.plots._interactive import interactive_backprop, interactive_descent, interactive_surface
from jaxgd.plots._neurons import activation_curves, fitted_line, loss_functions, neuron_diagram
from jaxgd.plots._playground import javascript, playground
from jaxgd.plots._runs import Run, Runs
from jaxgd.plots._style import COLOURS, PATH_COLOURS
from jaxgd.plots._surfaces import (
    common_levels,
    level_sets,
    loss_line,
    surface_3d,
    surface_cells,
    surface_contour,
)

__all__ = [
    "COLOURS",
    "PATH_COLOURS",
    "Run",
    "Runs",
    "activation_curves",
    "animate_descent",
    "backprop_trace",
    "barrier",
    "basin_profile",
    "common_levels",
    "curve_path",
    "descent_path",
    "fitted_line",
    "interactive_backprop",
    "interactive_descent",
    "interactive_surface",
    "javascript",
    "level_sets",
    "loss_band",
    "loss_curve",
    "loss_functions",
    "loss_line",
    "neuron_diagram",
    "newton_path",
    "persistence_diagram",
    "playground",
    "projected_paths",
    "residual_curve",
    "sharpness_curve",
    "spectrum",
    "surface_3d",
    "surface_cells",
    "surface_contour",
]
