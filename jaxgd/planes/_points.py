"""A plane, its points, and the nearest ones to points beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.planes import _numbers
from jaxgd.types import Array, ArrayLike, Params

_STACK = "Stack a list of checkpoints: jax.tree.map(lambda *p: jnp.stack(p), *path)."


class Plane(NamedTuple):
    """An affine subspace of the space of params.

    Attributes:
      origin: the params at coordinates (0, ..., 0).
      directions: k pytrees shaped like ``origin``; ``directions[i]`` belongs to the i-th
        coordinate. They need be neither orthogonal nor of length 1.
    """

    origin: Params
    directions: tuple[Params, ...]

    __repr__ = short_repr


class Projection(NamedTuple):
    """A trajectory's shadow on a plane, T being its number of points.

    Attributes:
      coordinates: shape (T, k): of the point of the plane nearest to each.
      residuals: shape (T,): how far each is from the plane, relative to its distance from
        the origin of the plane: 0 for a point on it, 1 for one that the plane does not show
        at all; 0 for the origin, NaN for a point that is not finite.
    """

    coordinates: Array
    residuals: Array

    __repr__ = short_repr


def point(plane: Plane, *coordinates: ArrayLike) -> Params:
    """Computes the params ``origin + c_1 d_1 + ... + c_k d_k``.

    The sum is formed in float32 or wider and rounded once, to the dtype of the origin. A
    bfloat16 origin still makes a staircase of the plane, since it has no number between 1 and
    1.0078: widen it first where the model takes float32,
    ``jax.tree.map(lambda p: p.astype(jnp.float32), params)``.

    Args:
      plane: a Plane with k directions.
      *coordinates: k scalars; they may be traced.

    Returns:
      Params with the structure, shapes and dtypes of ``plane.origin``.

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params.
      ValueError: if there are not k coordinates, one is no scalar, or a direction does not
        fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.Plane(origin={"w": jnp.zeros(2)}, directions=({"w": jnp.ones(2)},))
      >>> planes.point(line, 0.5)
      {'w': Array([0.5, 0.5], dtype=float32)}
    """
    where = "planes.point"
    origin, directions = checked(where, plane)
    scalars = scalars_of(where, coordinates, len(directions))

    return _moved(origin, directions, scalars)


@partial(jax.jit, inline=True)
def _moved(origin: Params, directions: list[Params], scalars: list[Array]) -> Params:
    def moved(leaf: Array, *steps: Array) -> Array:
        # In float32 at least, and rounded once: a bfloat16 sum would lose every small step.
        dtype = _numbers.wide(leaf)
        total = leaf.astype(dtype)
        for scalar, step in zip(scalars, steps, strict=True):
            total = total + scalar.astype(dtype) * step.astype(dtype)
        return total.astype(leaf.dtype)

    return jax.tree.map(moved, origin, *directions)


def project(plane: Plane, params: Params) -> Array:
    """Computes the coordinates of the point of a plane that is nearest to some params.

    On the plane itself it inverts ``point``. Off it, what is lost is
    ``params - point(plane, *project(plane, params))``.

    Args:
      plane: a Plane with k linearly independent directions.
      params: a pytree shaped like ``plane.origin``.

    Returns:
      Shape (k,). NaN where the directions are linearly dependent, to rounding.

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params.
      ValueError: if ``params`` or a direction does not fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.array([2.0, 0.0]),))
      >>> planes.project(line, jnp.array([2.0, 7.0])).round(3)
      Array([1.], dtype=float32)

    Source:
      Golub and Van Loan, Matrix Computations, 2013, Sec. 5.3 (least squares by QR).
    """
    where = "planes.project"
    origin, directions = checked(where, plane)
    params = _checks.params(where, "params", params)
    _checks.like(where, "params", params, "plane.origin", origin)
    leaves = list(map(jax.tree.leaves, directions))
    given = jax.tree.leaves(origin), leaves, jax.tree.leaves(params)
    return _numbers.on_any_mesh(_coordinates, *given)


@jax.jit
def _coordinates(origin: list[Array], directions: list[list[Array]], params: list[Array]) -> Array:
    """Those of the nearest point alone: what the plane hides is not compiled."""
    return _nearest(origin, directions, params)[0]


@partial(jax.jit, inline=True)
def _nearest(
    origin: list[Array], directions: list[list[Array]], params: list[Array]
) -> tuple[Array, Array]:
    """The coordinates of the nearest point of a plane, and the share that the plane hides."""
    dtype = _numbers.wide(origin, directions, params)

    def column(leaves: list[Array]) -> tuple[Array, Array]:
        flat = ravel_pytree([leaf.astype(dtype) for leaf in leaves])[0]
        scale = _numbers.scale_of(flat)
        return flat / scale, scale

    offset, offset_scale = column(
        [p.astype(dtype) - o.astype(dtype) for p, o in zip(params, origin, strict=True)]
    )
    columns, scales = map(jnp.stack, zip(*map(column, directions), strict=True))
    distance = _numbers.norm(offset)
    if columns.shape[1] < columns.shape[0]:
        nowhere = jnp.full(len(directions), jnp.nan, dtype)
        return nowhere, distance * nowhere[0]
    q, r = jnp.linalg.qr(columns.T)
    # What a direction adds to those before it stands on the diagonal: rounding, or more.
    norms = jnp.linalg.norm(columns, axis=1)
    independent = jnp.abs(jnp.diag(r)) > 16 * jnp.finfo(dtype).eps * norms
    coordinates = jax.scipy.linalg.solve_triangular(r, _numbers.dot(q.T, offset))
    coordinates = jnp.where(independent.all(), coordinates, jnp.nan)
    away = _numbers.norm(offset - _numbers.dot(coordinates, columns))
    hidden = jnp.where(distance == 0, 0, away / jnp.where(distance == 0, 1, distance))
    return coordinates * (offset_scale / scales), hidden


def project_path(plane: Plane, path: Params) -> Projection:
    """Projects a trajectory on a plane, and measures what the projection hides.

    The loss at a projected point is not the loss of the trajectory; where the residuals are
    large the two have little to do with each other.

    Args:
      plane: a Plane with k linearly independent directions.
      path: params shaped like ``plane.origin`` with a leading axis T, as in
        ``Trajectory.path``; or a Trajectory, whose path it is.

    Returns:
      A Projection: coordinates (T, k) and residuals (T,).

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params.
      ValueError: if ``path`` or a direction does not fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.array([1.0, 0.0]),))
      >>> planes.project_path(line, jnp.array([[3.0, 4.0], [2.0, 0.0]])).residuals
      Array([0.8, 0. ], dtype=float32)
    """
    where = "planes.project_path"
    origin, directions = checked(where, plane)
    path, length = checked_path(where, path)
    _checks.that(where, length > 0, "path must have at least one point", "none")
    first = jax.tree.map(lambda rows: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype), path)
    _checks.like(where, "a point of path", first, "plane.origin", origin)
    given = jax.tree.leaves(origin), list(map(jax.tree.leaves, directions)), jax.tree.leaves(path)
    nearest = jax.vmap(_nearest, in_axes=(None, None, 0))
    coordinates, residuals = _numbers.on_any_mesh(nearest, *given)
    return Projection(coordinates=coordinates, residuals=residuals)


def scalars_of(where: str, coordinates: Sequence[ArrayLike], num_directions: int) -> list[Array]:
    """The coordinates of one point, as many as there are directions."""
    is_packed = len(coordinates) == 1 and np.shape(coordinates[0]) == (num_directions,)
    wanted = "coordinates must be numbers, one per direction"
    got, cure = "all of them as one", "Write *coordinates."
    _checks.that(where, num_directions == 1 or not is_packed, wanted, got, cure)
    _checks.length(where, "coordinates", coordinates, num_directions, "one per direction")
    cure = "For a grid of them use surfaces.sweep."
    return [_checks.scalar(where, f"coordinate {i}", c, cure) for i, c in enumerate(coordinates)]


def checked(where: str, plane: Plane) -> tuple[Params, list[Params]]:
    _checks.instance(where, "plane", plane, Plane)
    origin = _checks.params(where, "plane.origin", plane.origin)
    cure = "Of vectors with a leading axis, such as EigenPairs.vectors, planes.along makes a Plane."
    _checks.instance(where, "plane.directions", plane.directions, Sequence, cure)
    _checks.that(where, len(plane.directions) > 0, "plane must have at least one direction", "none")
    directions = []
    for index, direction in enumerate(plane.directions):
        name = f"plane.directions[{index}]"
        direction = _checks.params(where, name, direction)
        _checks.like(where, name, direction, "plane.origin", origin)
        directions.append(direction)
    return origin, directions


def checked_path(where: str, path: Any) -> tuple[Params, int]:
    """Params with a leading axis, and its length; a Trajectory gives its path."""
    cure = "Pass Trajectory.path, the params at each step."
    if isinstance(path, tuple) and {"path", "losses"} <= set(getattr(path, "_fields", ())):
        path = getattr(path, "path")  # noqa: B009 (its type is not known here)
    elif isinstance(path, (list, tuple)) and len(path) > 1:
        checkpoints = [jax.tree.map(jnp.shape, checkpoint) for checkpoint in path]
        if all(shapes == checkpoints[0] for shapes in checkpoints):
            cure = _STACK
    keeps_some = bool(jax.tree.leaves(path))
    kept_nothing = (
        "It was run with record=lambda params: None: leave record out, to keep the params."
    )
    wanted = "path must hold the params at each step"
    _checks.that(where, keeps_some, wanted, _checks.kind(path), kept_nothing)
    path = _checks.params(where, "path", path)
    return path, num_rows_of(where, "path", path, cure)


def refuse_checkpoints(where: str, path: Any, num_directions: int) -> None:
    """A list of checkpoints whose arrays have one length could be read as a path of a list."""
    if type(path) is not list or len(path) < 2:
        return
    are_dicts = all(isinstance(checkpoint, Mapping) for checkpoint in path)
    are_points = all(hasattr(point, "shape") for point in path) and len(path) > num_directions
    shapes = [jax.tree.map(jnp.shape, checkpoint) for checkpoint in path]
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(path)}
    is_both = all(each == shapes[0] for each in shapes) and len(lengths) == 1 and () not in lengths
    _checks.that(
        where,
        not ((are_dicts or are_points) and is_both),
        "path must have a leading axis, the steps",
        f"a list of {len(path)} {'dicts' if are_dicts else 'arrays'} of equal shapes",
        f"{_STACK} If the params are such a list, pass the Trajectory that holds the path.",
    )


def num_rows_of(where: str, name: str, tree: Params, cure: str) -> int:
    """The length of the leading axis that all arrays share."""
    leaves = jax.tree.leaves(tree)
    _checks.that(
        where,
        len({leaf.shape[:1] for leaf in leaves}) == 1 and leaves[0].ndim > 0,
        f"the leaves of {name} must share a leading axis",
        f"shapes {', '.join(str(leaf.shape) for leaf in leaves)}",
        cure,
    )
    return leaves[0].shape[0]
