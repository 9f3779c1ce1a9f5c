"""The minima of a surface in numbers: how deep each lies, and where it joins a deeper one."""

import importlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.surfaces._grids import Surface, check_known
from jaxgd.types import Array


class Persistence(NamedTuple):
    """The minima of a surface, the one that lasts longest first.

    Attributes:
      births: shape (P,): the value at each minimum.
      deaths: shape (P,): the lowest height to climb over to reach a lower minimum; inf where there
        is none to reach.
      places: shape (P, 2): the coordinates of each minimum.
    """

    births: Array
    deaths: Array
    places: Array

    __repr__ = short_repr


def persistence(surface: Surface) -> Persistence:
    """Computes which minima a surface over two coordinates has, and how deep its basins are.

    As the water rises, each minimum begins a basin at its own value, its birth; where two basins
    meet, the one with the higher minimum ends: its death. The difference says how much of a basin
    it is: small for a ripple. This is persistent homology of dimension 0 of the sublevel sets,
    each point of the grid being joined to its eight neighbours. Births and deaths are values of
    the surface, each off a minimum or a saddle by less than the surface changes from one point of
    the grid to the next. Among neighbours of one value, one stands for all.

    A value of NaN or inf is a wall: no basin reaches it, and one behind it never ends.

    It runs on the host, by GUDHI, of the extra ``topology``: not inside of ``jax.jit``.

    Args:
      surface: a Surface over two coordinates, whose values are one array.

    Returns:
      A Persistence, by ``deaths - births`` from the largest to the smallest. The lowest minimum
      is first and its death is inf. Without a finite value its arrays are empty.

    Raises:
      ModuleNotFoundError: if GUDHI is not installed.
      TypeError: if ``surface`` is not a Surface of real numbers, or it is traced.
      ValueError: if it has several outputs, or not two coordinates with a value at every point, or
        a coordinate whose points are not in order.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import surfaces
      >>> axis = jnp.linspace(-2, 2, 41)
      >>> wells = surfaces.sweep(lambda x, y: (x**2 - 1) ** 2 + 0.2 * x + y**2, axis, axis)
      >>> found = surfaces.persistence(wells)
      >>> [(f"{b:.2f}", f"{d:.2f}") for b, d in zip(found.births, found.deaths)]
      [('-0.20', 'inf'), ('0.20', '1.00')]

    Source:
      Edelsbrunner and Harer, Computational topology: an introduction, 2010, Ch. VII; Wagner,
      Chen and Vucini, Efficient computation of persistent homology for cubical data, 2012.
    """
    where = "surfaces.persistence"
    coordinates, values = _grid_of(where, surface)
    _checks.extra(where, "gudhi", "topology")
    heights = np.where(np.isnan(values), np.inf, values)
    cells = importlib.import_module("gudhi").CubicalComplex(top_dimensional_cells=heights)
    cells.compute_persistence()
    # Points of the grid, not their heights: these keep their own dtype.
    joined, lasting = (found[0] if found else [] for found in cells.cofaces_of_persistence_pairs())
    joined = np.asarray(joined, int).reshape(-1, 2)
    lasting = np.asarray(lasting, int)
    minima = np.concatenate([lasting, joined[:, 0]])
    heights = heights.ravel(order="F")  # as GUDHI counts them
    births = heights[minima]
    deaths = np.concatenate([np.full(len(lasting), np.inf, heights.dtype), heights[joined[:, 1]]])
    with np.errstate(invalid="ignore"):  # a wall from which nothing is reached: inf - inf
        order = np.lexsort((-deaths, births, births - deaths))
    order = order[births[order] < np.inf]
    rows, columns = np.unravel_index(minima[order], values.shape, order="F")
    places = [coordinates[0][rows], coordinates[1][columns]]
    if coordinates[0].dtype != coordinates[1].dtype:  # NumPy shares none of integers and bfloat16
        places = [place.astype(float) for place in places]
    return Persistence(
        births=jnp.asarray(births[order]),
        deaths=jnp.asarray(deaths[order]),
        places=jnp.asarray(np.stack(places, axis=1)),
    )


def _grid_of(where: str, surface: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """The axes and the values of a surface over two coordinates, known numbers."""
    _checks.instance(where, "surface", surface, Surface)
    given = len(surface.coordinates)
    _checks.that(where, given == 2, "surface must have two coordinates", str(given))
    is_single = hasattr(surface.values, "shape")
    cure = "Pick one: surfaces.select(surface, name)."
    wanted = "surface must have one array of values"
    _checks.that(where, is_single, wanted, _checks.kind(surface.values), cure)
    check_known(where, "surface", surface)
    axes = [np.asarray(axis) for axis in _checks.axes(where, surface.coordinates)]
    for index, axis in enumerate(axes):
        _checks.in_order(where, f"coordinate {index}", axis.astype(float))
    values = _checks.real(where, "surface.values", surface.values)
    shape = tuple(axis.size for axis in axes)
    cure = "Write surface._replace(values=surface.values.T)." * (values.shape == shape[::-1])
    wanted = f"surface.values must have one value per point of its coordinates, shape {shape}"
    _checks.that(where, values.shape == shape, wanted, str(values.shape), cure)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(float)
    return axes, np.asarray(values)
