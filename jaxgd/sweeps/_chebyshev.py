"""Chebyshev series of several coordinates, on grids whose points are reused by finer ones.

All points are those of one lattice: on each axis ``cos(pi i / m)`` for i = 0, ..., m with m a power
of two. The Lobatto grid of degree n, a smaller power of two, is every (m / n)-th of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_NUM_CHECKS = 24  # per coordinate, half of them where the error is likely to be large
_NUM_ANYWHERE = 4  # per coordinate, besides
_NUM_CANDIDATES = 4096
_NUM_STEEPEST = 8  # beside a jump a series is steepest
_FIRST_DEGREES = (8, 4, 4)  # for one coordinate, two, and more
_FINENESS = (64, 16, 4)  # of the lattice, in parts of the finest grid's distances, likewise
_SAFETY = 2.0  # times the largest deviation seen, which seldom is the largest there is
_ROUGH_SAFETY = 3.0  # of what did not converge: a jump or a cusp deviates most in a small place
_NUM_CLIMBS = 3  # of the worst points, whose neighbours are looked at, too


class Lattice(NamedTuple):
    """Points by number, row by row.

    Attributes:
      num_axes: k.
      size: m: each axis has m + 1 points.
      most: the degree of the finest grid.
    """

    num_axes: int
    size: int
    most: int


class Known(NamedTuple):
    """Values at points of a lattice.

    Attributes:
      points: their numbers, increasing.
      values: for each output, one value per point.
    """

    points: np.ndarray
    values: list[np.ndarray]


def lattice(num_axes: int, max_degree: int) -> Lattice:
    """A lattice for grids of degrees up to the largest power of two that is allowed."""
    most = 2 ** (max_degree.bit_length() - 1)
    return Lattice(num_axes, _FINENESS[min(num_axes, 3) - 1] * most, most)


def axes(lattice: Lattice, domains: np.ndarray) -> list[np.ndarray]:
    """The points of each axis, from the lowest coordinate to the highest."""
    standard = -np.cos(np.pi * np.arange(lattice.size + 1) / lattice.size)
    return [(low + high) / 2 + (high - low) / 2 * standard for low, high in domains]


def coordinates(lattice: Lattice, axes: Sequence[Any], points: np.ndarray) -> list[np.ndarray]:
    """The coordinates of points, an array for each axis."""
    return [np.asarray(axis)[i] for axis, i in zip(axes, _indices(lattice, points).T, strict=True)]


def grid(lattice: Lattice, degrees: Sequence[int]) -> np.ndarray:
    """The numbers of the points of a grid, in its shape."""
    steps = [np.arange(0, lattice.size + 1, lattice.size // degree) for degree in degrees]
    return _numbers(lattice, np.stack(np.meshgrid(*steps, indexing="ij"), -1))


def at(known: Known, points: np.ndarray) -> list[np.ndarray]:
    """The values at known points."""
    rows = np.searchsorted(known.points, points)
    return [leaf[rows] for leaf in known.values]


def fit(lattice: Lattice, known: Known, degrees: Sequence[int]) -> list[np.ndarray]:
    """The coefficients of the series that take the known values on a grid."""
    coefficients = at(known, grid(lattice, degrees))
    for i, n in enumerate(degrees):
        weights = np.where(np.arange(n + 1) % n == 0, 0.5, 1.0)
        # The points run from -1 to 1: T_j(-cos t) = (-1)^j cos(j t).
        cosines = np.cos(np.pi * np.outer(np.arange(n + 1), np.arange(n + 1)) / n)
        signs = (-1.0) ** np.arange(n + 1)
        matrix = 2 / n * (signs * weights)[:, None] * cosines * weights
        coefficients = [
            np.moveaxis(np.tensordot(matrix, leaf, (1, i)), 0, i) for leaf in coefficients
        ]
    return coefficients


def evaluate(lattice: Lattice, coefficients: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A series at points of the lattice, in double precision."""
    angles = np.pi * _indices(lattice, points) / lattice.size
    values = None
    for i, length in enumerate(coefficients.shape):
        orders = np.arange(length)
        basis = (-1.0) ** orders * np.cos(angles[:, i, None] * orders)
        if values is None:
            values = np.tensordot(basis, coefficients, 1)
        else:
            values = np.einsum("pj,pj...->p...", basis, values)
    assert values is not None
    return values


def tails(coefficients: np.ndarray) -> np.ndarray:
    """For each axis, how much of the series is in its last two orders."""
    squares = coefficients**2
    return np.array(
        [
            2 * np.sqrt(np.take(squares, range(n - 2, n), i).sum())
            for i, n in enumerate(coefficients.shape)
        ]
    )


def checks(
    lattice: Lattice, degrees: Sequence[int], coefficients: Sequence[np.ndarray]
) -> np.ndarray:
    """Points that a grid does not have: anywhere, where the last orders are large, on steep slopes.

    Most are those of the next grid, which it uses again. But an oscillation may look alike on
    both (so does a Chebyshev polynomial of their degree): a few are any of the lattice.
    """
    rng = np.random.default_rng(0)
    strides = [lattice.size // (2 * degree) for degree in degrees]
    steps = [rng.integers(0, 2 * degree + 1, _NUM_CANDIDATES) for degree in degrees]
    indices = np.stack([step * stride for step, stride in zip(steps, strides, strict=True)], -1)
    is_new = np.any([step % 2 == 1 for step in steps], axis=0)
    points = np.unique(_numbers(lattice, indices[is_new]))
    num_checks = min(_NUM_CHECKS * lattice.num_axes // 2, points.size)
    everywhere = rng.integers(0, lattice.size + 1, (_NUM_ANYWHERE * len(degrees), len(degrees)))
    on_grid = [i % (lattice.size // n) == 0 for i, n in zip(everywhere.T, degrees, strict=True)]
    chosen = [
        rng.choice(points, num_checks, replace=False),
        _numbers(lattice, everywhere[~np.all(on_grid, axis=0)]),
    ]
    for leaf in coefficients:
        last_orders = leaf.copy()
        last_orders[tuple(slice(n // 2 + 1) for n in leaf.shape)] = 0
        sizes = np.abs(evaluate(lattice, last_orders, points))
        *_, share = np.array_split(points[np.argsort(sizes)], 2)
        num_largest = -(-num_checks // (2 * len(coefficients)))
        chosen += [share[-num_largest:], rng.choice(share[-8 * num_largest :], num_largest)]
        some = rng.permutation(points)[: _NUM_CANDIDATES // 4]
        slopes = _slopes(lattice, degrees, leaf, some)
        num_steepest = -(-_NUM_STEEPEST // len(coefficients))
        chosen.append(some[np.argsort(slopes)[-num_steepest:]])
    return np.unique(np.concatenate(chosen))


def _slopes(
    lattice: Lattice, degrees: Sequence[int], coefficients: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """How steep a series is at points, by its change from one half step of its grid to another."""
    total = np.zeros(points.size)
    for axis, degree in enumerate(degrees):
        half = np.zeros(len(degrees), int)
        half[axis] = lattice.size // (2 * degree)
        sides = [np.clip(_indices(lattice, points) + half * s, 0, lattice.size) for s in (1, -1)]
        above, below = (evaluate(lattice, coefficients, _numbers(lattice, side)) for side in sides)
        total += (above - below) ** 2
    return total


def neighbours(
    lattice: Lattice,
    degrees: Sequence[int],
    points: np.ndarray,
    deviations: Sequence[np.ndarray],
    part: int,
) -> np.ndarray:
    """Points beside those where a fit is worst, at a part of its grid's distances; none of it."""
    worst = np.concatenate([points[np.argsort(leaf)[-_NUM_CLIMBS:]] for leaf in deviations])
    strides = np.array([lattice.size // (part * degree) for degree in degrees])
    # A jump has the largest error beside it, not where a check may see it first.
    sides = range(-3, 4) if lattice.num_axes == 1 else range(-1, 2)
    sides = np.stack(np.meshgrid(*[sides] * lattice.num_axes, indexing="ij"), -1)
    beside = (
        _indices(lattice, np.unique(worst))[:, None] + sides.reshape(-1, len(degrees)) * strides
    )
    beside = np.clip(beside.reshape(-1, len(degrees)), 0, lattice.size)
    on_grid = [i % (lattice.size // n) == 0 for i, n in zip(beside.T, degrees, strict=True)]
    return np.unique(_numbers(lattice, beside[~np.all(on_grid, axis=0)]))


def _numbers(lattice: Lattice, indices: np.ndarray) -> np.ndarray:
    """The numbers of points, from their indices along the axes (the last axis of the array)."""
    shape = (lattice.size + 1,) * lattice.num_axes
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), shape))


def _indices(lattice: Lattice, points: np.ndarray) -> np.ndarray:
    shape = (lattice.size + 1,) * lattice.num_axes
    return np.stack(np.unravel_index(points, shape), -1)


class Fit(NamedTuple):
    """A series, and what is known of its error.

    Attributes:
      coefficients: for each output, in double precision.
      known: all values.
      degrees: of the grid that it takes the values of.
      is_finite: whether all values are.
      is_within: whether the deviations at all other points are within the tolerance.
    """

    coefficients: list[np.ndarray]
    known: Known
    degrees: list[int]
    is_finite: bool
    is_within: bool


def refined(
    values_at: Callable[[np.ndarray], list[np.ndarray]], lattice: Lattice, tolerance: float
) -> Fit:
    """Doubles the degrees, axis by axis, until the error is within the tolerance."""
    most = lattice.most
    degrees = [min(most, _FIRST_DEGREES[min(lattice.num_axes, 3) - 1])] * lattice.num_axes
    known = Known(np.empty(0, int), [])
    while True:
        known = _extended(known, values_at, grid(lattice, degrees).ravel())
        with np.errstate(invalid="ignore"):
            coefficients = fit(lattice, known, degrees)
        if not _is_finite(known):
            return Fit(coefficients, known, degrees, is_finite=False, is_within=False)
        allowed = [_allowed(leaf, tolerance) for leaf in known.values]
        needs = np.max([tails(c) / a for c, a in zip(coefficients, allowed, strict=True)], axis=0)
        is_within = bool((needs <= 1).all())
        if is_within or degrees[int(needs.argmax())] == most:
            known = _extended(known, values_at, checks(lattice, degrees, coefficients))
            points = off_grid(lattice, known, degrees)
            deviations = _deviations(lattice, known, coefficients, points)
            part, seen = 4, [0.0 for _ in deviations]
            # At a kink or a jump the error is largest in a small place: it is looked for.
            least_gain = 1.1 if is_within else 1.0
            while part * max(degrees) <= lattice.size and any(
                leaf.max() >= least_gain * before
                for leaf, before in zip(deviations, seen, strict=True)
            ):
                seen = [leaf.max() for leaf in deviations]
                beside = neighbours(lattice, degrees, points, deviations, part)
                known = _extended(known, values_at, beside)
                points = off_grid(lattice, known, degrees)
                deviations = _deviations(lattice, known, coefficients, points)
                part *= 2
            if not _is_finite(known):
                return Fit(coefficients, known, degrees, is_finite=False, is_within=False)
            pairs = zip(deviations, allowed, strict=True)
            is_within = all(_SAFETY * leaf.max() <= a for leaf, a in pairs)
            if is_within or degrees[int(needs.argmax())] == most:
                return Fit(coefficients, known, degrees, is_finite=True, is_within=is_within)
        grows = (needs >= needs.max() / 2) & (np.array(degrees) < most)
        degrees = [2 * n if grow else n for n, grow in zip(degrees, grows, strict=True)]


def safety(fit: Fit) -> float:
    """How many times the largest deviation seen the error is said to be."""
    return _SAFETY if fit.is_within else _ROUGH_SAFETY


def off_grid(lattice: Lattice, known: Known, degrees: Sequence[int]) -> np.ndarray:
    """The known points that the grid does not have."""
    return np.setdiff1d(known.points, grid(lattice, degrees))


def _extended(
    known: Known, values_at: Callable[[np.ndarray], list[np.ndarray]], points: np.ndarray
) -> Known:
    """What is known, and the values at further points."""
    new = np.setdiff1d(points, known.points)
    if not new.size:
        return known
    values = values_at(new)
    every = np.concatenate([known.points, new])
    order = np.argsort(every)
    old = known.values or [leaf[:0] for leaf in values]
    joined = [np.concatenate(pair)[order] for pair in zip(old, values, strict=True)]
    return Known(every[order], joined)


def _is_finite(known: Known) -> bool:
    return all(np.isfinite(leaf).all() for leaf in known.values)


def _allowed(values: np.ndarray, tolerance: float) -> float:
    """The error that the tolerance allows, or what double precision leaves of a constant."""
    return tolerance * np.ptp(values) + 1e-13 * np.abs(values).max() + np.finfo(float).tiny


def _deviations(
    lattice: Lattice, known: Known, coefficients: Sequence[np.ndarray], points: np.ndarray
) -> list[np.ndarray]:
    """How far a fit is from the known values at some points."""
    pairs = zip(coefficients, at(known, points), strict=True)
    return [np.abs(evaluate(lattice, c, points) - wanted) for c, wanted in pairs]
