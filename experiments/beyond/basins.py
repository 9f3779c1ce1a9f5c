"""Which minima does a surface have, and how high are the passes between their basins?

Himmelblau's function has four minima of value 0. Expect all nine of its level points to come from
a Chebyshev series by its derivatives, to six digits; and expect the flooding of a grid of its
values to find the same passes: as the water rises, each basin but one ends at the saddle over
which it runs into another one, within what the grid misses of that saddle. One saddle is left
over: there the water meets itself, round the maximum. And expect ripples on the function to make
more minima, of which four alone last.

Source: Himmelblau, Applied nonlinear programming, 1972; Edelsbrunner and Harer, Computational
topology: an introduction, 2010, Ch. VII.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import plots, surfaces, sweeps
from jaxgd.types import Array

FIGURE_SIZE = (14, 4.8)
SECONDS = 8
RESOLUTION, REACH = 200, 5.0
RIPPLE, WAVE_NUMBER = 4.0, 6.0  # of the ripples: their height and how many radians per unit
LASTING = 4 * RIPPLE  # a minimum that lives through more than that is no ripple
# The saddles over which the basins join, as the literature has them.
PASSES = (13.311926, 67.719150, 104.015163)
STYLES = {"minimum": ("o", 0), "saddle": ("X", 1), "maximum": ("^", 2)}


class Results(NamedTuple):
    """What was computed.

    Attributes:
      surface: Himmelblau's function over its grid.
      points: its level points.
      basins: its minima and where their basins end.
      rippled: those of the function with ripples.
    """

    surface: surfaces.Surface
    points: surfaces.CriticalPoints
    basins: surfaces.Persistence
    rippled: surfaces.Persistence


def himmelblau(x: Array, y: Array) -> Array:
    """Four minima of value 0, four saddles, one maximum."""
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def rippled(x: Array, y: Array) -> Array:
    """The same with ripples on it."""
    return himmelblau(x, y) + RIPPLE * jnp.sin(WAVE_NUMBER * x) * jnp.sin(WAVE_NUMBER * y)


def compute(seed: int = 0) -> Results:
    """Finds the level points by a series, and the basins by a grid."""
    del seed  # nothing here is random
    axis = jnp.linspace(-REACH, REACH, RESOLUTION)
    plain, waved = (
        jax.jit(lambda fn=fn: surfaces.sweep(fn, axis, axis))() for fn in (himmelblau, rippled)
    )
    series = sweeps.approximate(
        himmelblau, (-REACH, REACH), (-REACH, REACH), tolerance=1e-10, progress=False
    )
    return Results(
        surface=plain,
        points=surfaces.critical_points(series),
        basins=surfaces.persistence(plain),
        rippled=surfaces.persistence(waved),
    )


def tables(results: Results) -> list[Table]:
    """The level points, and the basins."""
    points = [
        (str(kind), *(f"{c:.6f}" for c in place), f"{value:.6f}")
        for kind, place, value in zip(
            results.points.kinds, results.points.places, results.points.values, strict=True
        )
    ]
    basins = [
        (*(f"{c:.3f}" for c in place), f"{birth:.4f}", f"{death:.4f}")
        for birth, death, place in zip(*results.basins, strict=True)
    ]
    return [
        Table("Level points, by the derivatives of a series", ("kind", "x", "y", "value"), points),
        Table(
            f"Basins, by the flooding of {RESOLUTION} x {RESOLUTION} values",
            ("x", "y", "value of the minimum", "ends at"),
            basins,
        ),
    ]


def _num_lasting(basins: surfaces.Persistence) -> int:
    return int(np.sum(np.asarray(basins.deaths - basins.births) > LASTING))


def expectations(results: Results) -> list[Expectation]:
    """The level points are those known, and the basins end at their saddles."""
    kinds = results.points.kinds.tolist()
    counts = [kinds.count(kind) for kind in STYLES]
    saddles = np.asarray(results.points.values)[results.points.kinds == "saddle"]
    off = np.abs(saddles[:3] - PASSES).max()
    ends = np.sort(np.asarray(results.basins.deaths))[:-1]
    missed = np.abs(ends - saddles[:3]).max()
    num_minima = len(results.rippled.births)
    return [
        Expectation(
            "there are four minima, four saddles and one maximum",
            f"{counts[0]}, {counts[1]} and {counts[2]}",
            counts == [4, 4, 1],
        ),
        Expectation(
            "three of the saddles are as high as the literature says",
            f"to {off:.0e}",
            bool(off < 1e-6),
        ),
        Expectation(
            "the basins end at these, within what the grid misses",
            f"to {missed:.3f}",
            bool(missed < 0.1),
        ),
        Expectation(
            "with ripples there are more than ten minima, and four that last",
            f"{num_minima} minima, {_num_lasting(results.rippled)} of which last",
            num_minima > 10 and _num_lasting(results.rippled) == 4,
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The function with its level points, its basins, and those of the rippled one."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    plots.surface_contour(
        left, results.surface, axis_names=("x", "y"), value_name="value", log=True, aspect="equal"
    )
    for kind, (marker, colour) in STYLES.items():
        places = np.asarray(results.points.places)[results.points.kinds == kind]
        look: Any = {"ls": "none", "ms": 9, "mec": "black", "color": plots.COLOURS[colour]}
        left.plot(*places.T, marker, label=f"{kind} ({len(places)})", **look)
    left.legend(fontsize=8, loc="upper right")
    left.set_title(f"Himmelblau's function: {len(results.points.kinds)} level points")
    plots.persistence_diagram(middle, results.basins)
    middle.set_title(f"{len(results.basins.births)} basins, and where they end")
    plots.persistence_diagram(right, results.rippled)
    right.set_title(
        f"With ripples: {len(results.rippled.births)} minima, {_num_lasting(results.rippled)} last"
    )
    panels.letters(left, middle, right)
