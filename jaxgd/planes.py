"""Where we look: lines and planes through the space of params.

A plane with k directions is the set of points ``origin + c_1 d_1 + ... + c_k d_k``. One
direction makes a line, two a plane in the strict sense.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgd import _affine, _checks
from jaxgd.types import Array, ArrayLike, LossFn, Params


class Plane(NamedTuple):
    """An affine subspace of the space of params.

    Attributes:
      origin: the params at coordinates (0, ..., 0).
      directions: k pytrees shaped like ``origin``; ``directions[i]`` belongs to the i-th
        coordinate. They need be neither orthogonal nor of length 1.
    """

    origin: Params
    directions: tuple[Params, ...]


def point(plane: Plane, *coordinates: ArrayLike) -> Params:
    """Computes the params ``origin + c_1 d_1 + ... + c_k d_k``.

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
    origin, directions = _checked(where, plane)
    _checks.length(where, "coordinates", coordinates, len(directions), "one per direction")
    for index, coordinate in enumerate(coordinates):
        cure = "For a grid of them use surfaces.sweep."
        coordinate = _checks.scalar(where, f"coordinate {index}", coordinate, cure)
        origin = jax.tree.map(
            lambda o, d, c=coordinate: (o + c * d).astype(o.dtype), origin, directions[index]
        )
    return origin


def project(plane: Plane, params: Params) -> Array:
    """Computes the coordinates of the point of a plane that is nearest to some params.

    On the plane itself it inverts ``point``. Off it, what is lost is
    ``params - point(plane, *project(plane, params))``.

    Args:
      plane: a Plane with k linearly independent directions.
      params: a pytree shaped like ``plane.origin``.

    Returns:
      Shape (k,). Not finite where the directions are linearly dependent.

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
    origin, directions = _checked(where, plane)
    params = _checks.params(where, "params", params)
    _checks.like(where, "params", params, "plane.origin", origin)
    offset = ravel_pytree(jax.tree.map(jnp.subtract, params, origin))[0]
    columns = jnp.stack([ravel_pytree(direction)[0] for direction in directions], axis=1)
    q, r = jnp.linalg.qr(columns.astype(offset.dtype))
    return jax.scipy.linalg.solve_triangular(r, q.T @ offset)


def coordinate(params: Params, *entries: Sequence[Any]) -> Plane:
    """Makes the plane in which chosen entries of the params vary and all others stay.

    Its coordinates are the values of those entries themselves: ``point(plane, w, b)`` has
    the entries w and b, wherever the params stood.

    Args:
      params: a pytree of floating-point arrays.
      *entries: one key path per direction, that ends at a scalar: the keys, field names or
        positions that lead to an array, then its indices, as in ``("layers", 0, "w", 2, 1)``.

    Returns:
      A Plane with one direction per entry: 1 at that entry, 0 elsewhere.

    Raises:
      TypeError: if the params are not floating-point, or an entry is no sequence of keys.
      ValueError: if there is no entry, one leads to no array or to more than a scalar, or
        two are the same.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import neurons, planes
      >>> neuron = neurons.Neuron(weights=jnp.array([2.0]), bias=jnp.array(3.0))
      >>> plane = planes.coordinate(neuron, ("weights", 0), ("bias",))
      >>> planes.point(plane, 5.0, 7.0)
      Neuron(weights=Array([5.], dtype=float32), bias=Array(7., dtype=float32))
    """
    where = "planes.coordinate"
    origin = _checks.params(where, "params", params)
    _checks.that(len(entries) > 0, where, "entries must be at least one key path", "none")
    leaves, structure = jax.tree_util.tree_flatten_with_path(origin)
    arrays = {tuple(_key(key) for key in path): leaf for path, leaf in leaves}
    places = [_place(where, f"entry {i}", entry, arrays) for i, entry in enumerate(entries)]
    _checks.that(len(set(places)) == len(places), where, "entries must differ", str(entries))

    def with_entry(place: tuple[Any, Any], values: dict[Any, Array], value: float) -> Any:
        path, index = place
        return values | {path: values[path].at[index].set(value)}

    zeros = {path: jnp.zeros_like(leaf) for path, leaf in arrays.items()}
    directions = [with_entry(place, zeros, 1) for place in places]
    for place in places:
        arrays = with_entry(place, arrays, 0)
    return Plane(
        origin=jax.tree.unflatten(structure, arrays.values()),
        directions=tuple(jax.tree.unflatten(structure, d.values()) for d in directions),
    )


def restrict(loss_fn: LossFn, plane: Plane, *data: Any) -> Callable[..., Any]:
    """Makes a loss a function of the coordinates of a plane, cheap to evaluate many times.

    ``phi(c_1, ..., c_k)`` is ``loss_fn(point(plane, c_1, ..., c_k), *data)`` up to rounding.
    What the loss does alike at all points of the plane is done once: whatever depends on no
    moved array is kept, whatever is affine in the coordinates is kept as its value at the
    origin and one tangent per direction, and only the rest runs at a point. For a network
    whose layers all move that spares the first product,
    ``X W = X W_0 + c_1 X D_1 + c_2 X D_2``; for arrays whose directions are all zero it spares
    everything before the first layer that moves. Where an affine residual is squared and
    summed, an R factor (QR) of k + 1 rows stands for all samples.

    Call it once and phi often: it compiles what it does once, at each call. To restrict to
    many planes, jit a function of plane and data that restricts and sweeps.

    phi is differentiable in its coordinates, to any order, with the derivatives of the loss;
    with respect to plane and data, differentiate the loss itself.

    Args:
      loss_fn: (params, *data) -> a scalar, or a pytree of scalars (a loss and an accuracy).
      plane: a Plane with k directions.
      *data: further arguments of ``loss_fn``.

    Returns:
      phi: k scalars -> what ``loss_fn`` returns. A ``jax.tree_util.Partial`` whose arrays are
      leaves: pass it to jitted functions as an argument and they are not compiled in.

    Raises:
      TypeError: if ``loss_fn`` is not callable, or ``plane`` not a Plane of floating-point
        params.
      ValueError: if a direction does not fit the origin, or ``loss_fn`` returns anything but
        scalars; from phi, if it is not called with k scalars.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.ones(2),))
      >>> phi = planes.restrict(lambda w, x: jnp.sum((x @ w) ** 2), line, jnp.eye(2))
      >>> phi(3.0).round(3)
      Array(18., dtype=float32)

    Source:
      Golub and Van Loan, Matrix Computations, 2013, Sec. 5.3 (least squares by QR).
    """
    where = "planes.restrict"
    _checks.function(where, "loss_fn", loss_fn)
    origin, directions = _checked(where, plane)
    num_directions = len(directions)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(origin))

    def along(*coordinates: Array) -> Any:
        def moved(leaf: Array, *steps: Array) -> Array:
            for coordinate, step in zip(coordinates, steps, strict=True):
                if not _is_zero(step):
                    leaf = (leaf + coordinate * step).astype(leaf.dtype)
            return leaf

        values = loss_fn(jax.tree.map(moved, origin, *directions), *data)
        _checks.scalar_outputs(where, "loss_fn", values)
        return values

    def phi(hoisted: Callable[..., Any], *coordinates: ArrayLike) -> Any:
        _checks.length(where, "coordinates", coordinates, num_directions, "one per direction")
        cure = "For a grid of them use surfaces.sweep."
        scalars = [
            _checks.scalar(where, f"coordinate {i}", c, cure) for i, c in enumerate(coordinates)
        ]
        return hoisted(*(scalar.astype(dtype) for scalar in scalars))

    return jax.tree_util.Partial(phi, _affine.hoist(along, num_directions, dtype))


def _is_zero(direction: Array) -> bool:
    """Whether a direction is known to move nothing."""
    return not (isinstance(direction, jax.core.Tracer) or np.any(np.asarray(direction)))


def _key(key: Any) -> Any:
    """A key of a tree path as a user writes it: a dict key, a position or a field name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _place(
    where: str, name: str, entry: Any, arrays: dict[Any, Array]
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The path of the array that an entry leads to, and its index in it."""
    cure = f"Write ({entry!r},)." if isinstance(entry, (str, int)) else ""
    _checks.that(
        isinstance(entry, (tuple, list)), where, f"{name} must be a key path", repr(entry), cure
    )
    keys = tuple(entry) if isinstance(entry, (tuple, list)) else ()
    found = [path for path in arrays if keys[: len(path)] == path]
    known = ", ".join(f"{path} of shape {leaf.shape}" for path, leaf in arrays.items())
    _checks.that(
        bool(found),
        where,
        f"{name} must lead to an array of the params",
        repr(entry),
        f"Known: {known}.",
    )
    path = found[0]
    index, shape = keys[len(path) :], arrays[path].shape
    fits = len(index) == len(shape) and all(
        isinstance(i, int) and -size <= i < size for i, size in zip(index, shape, strict=True)
    )
    cure = f"Its array has the shape {shape}: end with {len(shape)} indices within it."
    _checks.that(fits, where, f"{name} must end at a scalar", repr(entry), cure)
    return path, tuple(i % size for i, size in zip(index, shape, strict=True))


def _checked(where: str, plane: Plane) -> tuple[Params, list[Params]]:
    _checks.instance(where, "plane", plane, Plane)
    origin = _checks.params(where, "plane.origin", plane.origin)
    _checks.that(len(plane.directions) > 0, where, "plane must have a direction", "none")
    directions = []
    for index, direction in enumerate(plane.directions):
        name = f"plane.directions[{index}]"
        direction = _checks.params(where, name, direction)
        _checks.like(where, name, direction, "plane.origin", origin)
        directions.append(direction)
    return origin, directions
