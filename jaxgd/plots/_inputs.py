"""What can be drawn: surfaces are checked, named where they are refused, and made plain NumPy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.core
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.polynomial import chebyshev

from jaxgd import _checks
from jaxgd.plots import _words
from jaxgd.surfaces import Approximation, Surface

PICK_A_LANE = "Pick one lane: jax.tree.map(lambda rows: rows[0], {})."
SEVERAL = "Several are given by name: {'before': ..., 'after': ...}."
PICK_AN_OUTPUT = "Pick one: surfaces.select(surface, name)."


class Grid(NamedTuple):
    """A surface in plain arrays, each axis increasing."""

    axes: tuple[np.ndarray, ...]
    values: np.ndarray
    scales: tuple[str, ...]  # "linear", or "log" for an axis spaced in equal ratios
    error: float | None = None  # how far off the values may be; None where they are exact


def grid(
    where: str,
    surface: Surface | Approximation,
    num_axes: int,
    *,
    log: bool = False,
    resolution: int = 201,
) -> Grid:
    """A surface over so many coordinates, some value of which can be drawn."""
    flags(where, log=log)
    if isinstance(surface, Approximation):
        return _grid_of_series(where, surface, num_axes, log, resolution)
    _checks.instance(where, "surface", surface, (Surface, Approximation))
    _num_axes(where, len(surface.coordinates), num_axes)
    _one_array(where, surface.values, "values", PICK_AN_OUTPUT)
    axes = [axis(where, i, values) for i, values in enumerate(surface.coordinates)]
    values = numbers(where, "surface.values", surface.values)
    wanted = tuple(len(a) for a in axes)
    cure = ""
    if values.shape == wanted[::-1]:
        cure = "Write surface._replace(values=surface.values.T)."
    _checks.that(
        where,
        values.shape == wanted,
        f"surface.values must have one value per point of its coordinates, shape {wanted}",
        str(values.shape),
        cure,
    )
    some_value(where, values, log)
    return _increasing(axes, values)


def flat_axes(where: str, ax: object) -> None:
    """Where to draw: one of Matplotlib's axes."""
    cure = "Make one: figure, ax = plt.subplots()."
    if isinstance(ax, np.ndarray):
        cure = "Pick one of them: axes[0] of a row, axes[0, 0] of a grid."
    _checks.instance(where, "ax", ax, Axes, cure)


def a_look(where: str, aspect: object, cmap: object = "viridis") -> None:
    """How a picture is to look: words that are known."""
    wanted = "aspect must be 'auto' or 'equal'"
    _checks.that(where, aspect in ("auto", "equal"), wanted, repr(aspect))
    is_known = isinstance(cmap, Colormap) or cmap in matplotlib.colormaps
    wanted = "cmap must be the name of a colour map of Matplotlib"
    _checks.that(where, is_known, wanted, repr(cmap), "Known: list(matplotlib.colormaps).")


def words(where: str, axis_names: object, value_name: object = "loss") -> None:
    """What two coordinates are called, and what the values are."""
    some_names(where, "axis_names", axis_names, 2, "one per coordinate")
    _checks.instance(where, "value_name", value_name, str)


def some_names(where: str, name: str, given: Any, number: int, reason: str) -> None:
    """So many names: a text is not one for each of its letters."""
    cure = f"Write {name}=('a', 'b')." if number != 1 else f"Write {name}=('a',)."
    _checks.instance(where, name, given, (list, tuple), cure)
    for i, each in enumerate(given):
        _checks.instance(where, f"{name}[{i}]", each, str)
    _checks.length(where, name, given, number, reason)


def flags(where: str, **flags: object) -> None:
    """What is on or off."""
    for name, flag in flags.items():
        is_flag = isinstance(flag, (bool, np.bool_))
        wanted = f"{name} must be True or False"
        _checks.that(where, is_flag, wanted, _checks.kind(flag), error=TypeError)


def captioned(grid: Grid, value_name: str) -> str:
    """What the values are, and how far off they may be."""
    if grid.error is None:
        return value_name
    return f"{value_name} (±{_words.number(grid.error, 2)})"


def _num_axes(where: str, given: int, wanted: int) -> None:
    count = "one coordinate" if wanted == 1 else "two coordinates"
    _checks.that(where, given == wanted, f"surface must have {count}", str(given))


def _one_array(where: str, values: object, what: str, cure: str) -> None:
    single = hasattr(values, "shape")
    wanted = f"surface must have one array of {what}"
    _checks.that(where, single, wanted, _checks.kind(values), cure)


def _grid_of_series(
    where: str, series: Approximation, num_axes: int, log: bool, resolution: Any
) -> Grid:
    """A Chebyshev series at equally spaced points of its domain."""
    resolution = _checks.count(where, "resolution", resolution, least=2)
    domains = numbers(where, "surface.domains", series.domains)
    _num_axes(where, len(domains), num_axes)
    cure = "Pick one: coefficients[name] with its errors[name], by _replace."
    _one_array(where, series.coefficients, "coefficients", cure)
    coefficients = numbers(where, "surface.coefficients", series.coefficients)
    axes = [np.linspace(low, high, resolution) for low, high in domains]
    unit = np.linspace(-1, 1, resolution)
    values = chebyshev.chebval(unit, coefficients)
    if num_axes == 2:
        values = chebyshev.chebgrid2d(unit, unit, coefficients)
    some_value(where, values, log)
    error = float(np.max(np.asarray(series.errors, float)))
    return _increasing(axes, values)._replace(error=error)


def curves(where: str, surface: Surface) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """An axis, and by name the curves over it."""
    _checks.instance(where, "surface", surface, Surface)
    _num_axes(where, len(surface.coordinates), 1)
    _checks.instance(where, "surface.values", surface.values, Mapping)
    _checks.that(where, bool(surface.values), "surface.values must hold a curve", "none")
    named = zip(
        names(where, "surface.values", surface.values), surface.values.values(), strict=True
    )
    lines = {name: grid(where, surface._replace(values=values), 1) for name, values in named}
    first = next(iter(lines.values()))
    return first.axes[0], {name: line.values for name, line in lines.items()}


def axis(where: str, index: int, values: object) -> np.ndarray:
    """A coordinate of a surface: finite, and increasing or decreasing."""
    name = f"coordinate {index}"
    values = numbers(where, name, values)
    _checks.that(where, values.ndim == 1, f"{name} must be 1-D", f"shape {values.shape}")
    _checks.that(where, values.size >= 2, f"{name} must have at least two points", str(values.size))
    bad = values[~np.isfinite(values)]
    _checks.that(where, bad.size == 0, f"{name} must be finite", f"{bad[:1]} among its points")
    _checks.in_order(where, name, values)
    return values


def numbers(where: str, name: str, values: object) -> np.ndarray:
    """Real numbers as float64, NaN where they are masked; what is complex or none is refused."""
    is_traced = isinstance(values, jax.core.Tracer)
    cure = "Draw what jax.jit returns, not inside of it."
    wanted = f"{name} must be known numbers"
    _checks.that(where, not is_traced, wanted, "a traced array", cure, error=TypeError)
    is_hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else False
    values = np.asarray(values)
    real = values.dtype.kind in "biuf" or (
        values.dtype.kind == "V" and jnp.issubdtype(values.dtype, jnp.floating)
    )
    cure = "Draw its real part or its size: jnp.abs." if values.dtype.kind == "c" else ""
    wanted = f"{name} must be real numbers"
    _checks.that(where, real, wanted, f"dtype {values.dtype}", cure, error=TypeError)
    return np.where(is_hidden, np.nan, values.astype(float))


def some_value(where: str, values: np.ndarray, log: bool) -> None:
    """At least one value that can be drawn."""
    usable = np.isfinite(values) & ((values > 0) | (not log))
    wanted, got = "values must be finite at some point", "NaN or inf at all of them"
    cure = "Sweep coordinates at which the function is finite."
    if log and np.isfinite(values).any():
        wanted, got = "surface must have positive values on a log scale", "none"
        cure = "Draw it on a linear one: surface_contour(ax, surface)."
    _checks.that(where, bool(usable.any()), wanted, got, cure)
    # Pictures add up and multiply what they draw.
    limits, largest = np.finfo(float), np.abs(values[usable]).max()
    wanted = "the range of the values must be a number"
    _checks.that(
        where, bool(largest < limits.max / 100), wanted, "one that overflows", "Scale them."
    )
    wanted = "values on a log scale must have digits"
    has_digits = largest >= limits.tiny or not log
    _checks.that(where, bool(has_digits), wanted, f"at most {largest:.0e}", "Scale them.")


def _increasing(axes: Sequence[np.ndarray], values: np.ndarray) -> Grid:
    flips = tuple(slice(None, None, -1 if a[0] > a[-1] else 1) for a in axes)
    turned = tuple(a[flip] for a, flip in zip(axes, flips, strict=True))
    return Grid(turned, values[flips], tuple(scale_of(a) for a in turned))


def scale_of(increasing: np.ndarray) -> str:
    """Whether an axis is spaced in about equal ratios, as ``jnp.geomspace`` or 1, 2, 5, 10 is."""
    if len(increasing) < 3 or increasing[0] <= 0 or increasing[-1] < 2 * increasing[0]:
        return "linear"
    ratios = np.diff(np.log(increasing))
    # An axis in float32 or rounded to a few digits is still one of equal ratios.
    allowed = 0.35 if increasing[-1] >= 5 * increasing[0] else 0.05
    return "log" if np.ptp(ratios) <= allowed * ratios.mean() else "linear"


def names(where: str, name: str, named: Mapping[Any, Any]) -> list[str]:
    """The keys as texts that differ: 1 and "1" are two."""
    texts = [str(key) for key in named]
    if len(set(texts)) < len(texts):
        texts = [repr(key) for key in named]
    _checks.that(
        where, len(set(texts)) == len(texts), f"the names of {name} must differ", repr(texts)
    )
    return texts
