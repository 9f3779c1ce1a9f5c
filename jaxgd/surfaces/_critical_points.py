"""Where a smooth surface is level: its minima, saddles and maxima."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.surfaces._grids import check_known
from jaxgd.surfaces._series import Approximation
from jaxgd.types import Array

_NUM_STEPS = 60  # of Newton's method; where a Hessian is singular each goes but a part of the way
_CHUNK = 1024  # how many points are looked at together
# Lengths, half of each axis of the domain being 1:
_SAME = 1e-5  # points nearer than this are one
_THINNED = 0.05  # and degenerate ones nearer than this, which may lie on a line of them
# Shares of the largest size that the terms of the series, or of a derivative, could give:
_REACHED = 1e-14  # a slope at which Newton's method stops
_LEVEL = 1e-10  # a slope that counts as 0
_STRAIGHT = 1e-7  # a curvature that counts as 0
_ROUNDING = 1e-12  # derivatives smaller than this share of the values are rounding


class CriticalPoints(NamedTuple):
    """The points at which a function is level, the lowest first.

    Attributes:
      places: shape (P, k).
      values: shape (P,): the function there.
      kinds: shape (P,), a NumPy array of words: "minimum", "saddle", "maximum", or "degenerate"
        where an eigenvalue of the Hessian is 0, up to rounding.
      eigenvalues: shape (P, k): those of the Hessian, increasing.
    """

    places: Array
    values: Array
    kinds: np.ndarray
    eigenvalues: Array

    __repr__ = short_repr


def critical_points(approximation: Approximation) -> CriticalPoints:
    """Finds where a Chebyshev series is level: its minima, saddles and maxima.

    A grid of cells, two per degree and axis, is looked at: a cell stays where the slopes at its
    middle could fall to 0 within two cells, by the Hessian there. From each of these Newton's
    method goes to where all slopes are 0. What it reaches inside the domain counts, once. The
    kind is that of the eigenvalues of the Hessian: all positive at a minimum, all negative at a
    maximum, some of each at a saddle.

    They are the points of the series. Those of the function differ by what its ``errors`` leave
    open: where the values of two points are nearer than that, neither has to be there. The
    lowest point of the domain may lie on its border, where it needs no level slope.

    It runs on the host, in float64: not inside of ``jax.jit``.

    Args:
      approximation: an Approximation over k coordinates, of one output. k is small: the work grows
        as the number of coefficients times 2^k.

    Returns:
      CriticalPoints, by their values; empty if there are none, or a coefficient is not finite. Of
      points that form a line there are some; they are degenerate.

    Raises:
      TypeError: if ``approximation`` is not an Approximation of real numbers, or it is traced.
      ValueError: if it has several outputs.

    Example:
      >>> from jaxgd import surfaces, sweeps
      >>> wells = sweeps.approximate(
      ...     lambda x, y: (x**2 - 1) ** 2 + y**2, (-2, 2), (-1, 1), tolerance=1e-3, progress=False
      ... )
      >>> found = surfaces.critical_points(wells)
      >>> [str(kind) for kind in found.kinds], found.values.round(2) + 0.0
      (['minimum', 'minimum', 'saddle'], Array([0., 0., 1.], dtype=float32))

    Source:
      Trefethen, Approximation Theory and Approximation Practice, 2019, Ch. 18; Nocedal and
      Wright, Numerical Optimization, 2006, Sec. 11.1.
    """
    where = "surfaces.critical_points"
    domains, coefficients, dtype = _series_of(where, approximation)
    half = np.diff(domains, axis=1)[:, 0] / 2
    series = _with_derivatives(coefficients)
    points = _level_points(series)
    kinds = _kinds(series, points)
    is_degenerate = kinds == "degenerate"
    points = np.concatenate(
        [_apart(points[~is_degenerate], _SAME), _apart(points[is_degenerate], _THINNED)]
    )
    values, _, hessians = _looked_at(series, points)
    order = np.argsort(values)
    eigenvalues = np.linalg.eigvalsh(hessians / (half[:, None] * half))
    return CriticalPoints(
        places=jnp.asarray(domains.mean(axis=1) + half * points[order], dtype),
        values=jnp.asarray(values[order], dtype),
        kinds=_kinds(series, points[order]),
        eigenvalues=jnp.asarray(eigenvalues[order], dtype),
    )


def _series_of(where: str, approximation: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """The domains and the coefficients in float64, and the dtype that they came in."""
    _checks.instance(where, "approximation", approximation, Approximation)
    coefficients = approximation.coefficients
    cure = "Pick one: coefficients[name] with its errors[name], by _replace."
    wanted = "approximation must have one array of coefficients"
    got = _checks.kind(coefficients)
    _checks.that(where, hasattr(coefficients, "shape"), wanted, got, cure)
    check_known(where, "approximation", approximation)
    domains = _checks.real(where, "approximation.domains", approximation.domains)
    coefficients = _checks.floating(where, "approximation.coefficients", coefficients)
    wanted = "approximation.domains must have a row for each axis of the coefficients"
    fits = domains.shape == (max(coefficients.ndim, 1), 2)
    _checks.that(where, fits, wanted, f"{domains.shape} and {coefficients.shape}")
    return np.asarray(domains, float), np.asarray(coefficients, float), coefficients.dtype


def _with_derivatives(coefficients: np.ndarray) -> np.ndarray:
    """The series, its k slopes and its k^2 second derivatives, side by side on a last axis."""

    def derived(series: np.ndarray, axis: int) -> np.ndarray:
        room = [(0, int(i == axis and series.shape[i] > 1)) for i in range(series.ndim)]
        return np.pad(chebyshev.chebder(series, axis=axis), room)

    axes = range(coefficients.ndim)
    slopes = [derived(coefficients, axis) for axis in axes]
    bends = [derived(slope, axis) for slope in slopes for axis in axes]
    return np.stack([coefficients, *slopes, *bends], axis=-1)


def _bounds(series: np.ndarray) -> tuple[np.ndarray, float]:
    """The largest size that each slope can have, and the largest of all second derivatives."""
    num_axes = series.ndim - 1
    sums = np.abs(series).sum(axis=tuple(range(num_axes)))
    rounding = max(_ROUNDING * sums[0], np.finfo(float).tiny)
    slopes = np.maximum(sums[1 : 1 + num_axes], rounding / _LEVEL)
    return slopes, max(sums[1 + num_axes :].max(), rounding / _STRAIGHT)


def _looked_at(series: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values (P,), slopes (P, k) and Hessians (P, k, k) at points of the unit cube."""
    num_axes = points.shape[1]
    found = np.zeros((len(points), series.shape[-1]))
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK]
        terms = [
            chebyshev.chebvander(x, n - 1) for x, n in zip(chunk.T, series.shape, strict=False)
        ]
        left = terms[0] @ series.reshape(len(series), -1)
        for own in terms[1:]:
            left = (own[:, None, :] @ left.reshape(*own.shape, -1))[:, 0]
        found[start : start + _CHUNK] = left
    hessians = found[:, 1 + num_axes :].reshape(-1, num_axes, num_axes)
    return found[:, 0], found[:, 1 : 1 + num_axes], hessians


def _kinds(series: np.ndarray, points: np.ndarray) -> np.ndarray:
    eigenvalues = np.linalg.eigvalsh(_looked_at(series, points)[2])
    bound = _STRAIGHT * _bounds(series)[1]
    is_up, is_down = eigenvalues > bound, eigenvalues < -bound
    return np.select(
        [is_up.all(axis=1), is_down.all(axis=1), (is_up | is_down).all(axis=1)],
        ["minimum", "maximum", "saddle"],
        "degenerate",
    )


def _level_points(series: np.ndarray) -> np.ndarray:
    """Points in the unit cube at which all slopes are 0, most of them several times: (P, k)."""
    num_axes = series.ndim - 1
    if not np.isfinite(series).all():
        return np.zeros((0, num_axes))
    points, reach = _starts(series)
    is_moving = np.ones(len(points), bool)
    for _ in range(_NUM_STEPS):
        points[is_moving], sizes = _step(series, points[is_moving], reach[is_moving])
        is_moving[is_moving] = sizes > _REACHED
    points, _ = _step(series, points, reach)  # the last digits
    sizes = np.abs(_looked_at(series, points)[1]) / _bounds(series)[0]
    is_inside = np.all(np.abs(points) <= 1 + 1e-9, axis=1)
    is_found = np.all(sizes <= _LEVEL, axis=1) & is_inside
    order = np.argsort(sizes.max(axis=1, initial=0))
    return np.clip(points[order[is_found[order]]], -1, 1)


def _step(
    series: np.ndarray, points: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A step of Newton's method from each point, and how steep it was before, relatively."""
    _, slopes, hessians = _looked_at(series, points)
    inverses = np.linalg.pinv(hessians, rcond=1e-12, hermitian=True)
    steps = np.einsum("pij,pj->pi", inverses, slopes)
    steps /= np.maximum(1, np.abs(steps / reach).max(axis=1, keepdims=True, initial=0))
    sizes = (np.abs(slopes) / _bounds(series)[0]).max(axis=1, initial=0)
    return np.clip(points - steps, -1.1, 1.1), sizes


def _apart(points: np.ndarray, distance: float) -> np.ndarray:
    """The first of all points that are nearer to each other than a distance, on every axis."""
    _, first = np.unique(np.round(points / distance), axis=0, return_index=True)
    points, kept = points[np.sort(first)], []
    while len(points):
        kept.append(points[0])
        points = points[np.any(np.abs(points - points[0]) > distance, axis=1)]
    return np.array(kept).reshape(-1, points.shape[1])


def _starts(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles of cells that may hold a level point, and how far one step may go from there."""
    edges = [np.cos(np.linspace(np.pi, 0, 2 * length + 1)) for length in series.shape[:-1]]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    widths = [np.diff(edge) for edge in edges]
    points, reach = (
        np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)
        for axes in (middles, [2 * width for width in widths])
    )
    _, slopes, hessians = _looked_at(series, points)
    changes = np.einsum("pij,pj->pi", np.abs(hessians), reach)
    may_hold = (np.abs(slopes) <= changes).all(axis=1)
    return points[may_hold], reach[may_hold]
