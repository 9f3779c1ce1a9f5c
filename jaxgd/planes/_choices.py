"""How a plane is chosen: by entries, at random, through points, along vectors, by a path."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import _checks
from jaxgd.planes import _numbers, _points, _vectors
from jaxgd.planes._points import Plane
from jaxgd.types import Array, Params, PRNGKey, PyTree

# Arrays with at most so many entries are copied into one, so that fewer programs are compiled.
_SMALL = 2**16


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
    _checks.that(where, len(entries) > 0, "expected at least one entry, a key path", "none")
    leaves = jax.tree_util.tree_leaves_with_path(origin)
    arrays = {tuple(_key(key) for key in path): leaf for path, leaf in leaves}
    places = [_place(where, f"entry {i}", entry, arrays) for i, entry in enumerate(entries)]
    _checks.that(where, len(set(places)) == len(places), "entries must differ", str(entries))

    positions = tuple(list(arrays).index(path) for path, _ in places)
    zeros = jax.tree.map(jnp.zeros_like, origin)  # made here: on the devices of the params
    along = functools.partial(_along_entries, positions)
    indices = [index for _, index in places]
    like = lambda: Plane(origin=origin, directions=(origin,) * len(places))  # noqa: E731
    return _numbers.on_any_mesh(along, indices, origin, zeros, like=like)


@functools.partial(jax.jit, static_argnums=0)
def _along_entries(
    positions: tuple[int, ...], indices: list[tuple[int, ...]], origin: Params, zeros: Params
) -> Plane:
    """The plane along entries of given leaves, whose coordinates are their values."""
    leaves, structure = jax.tree.flatten(origin)
    entries = list(zip(positions, indices, strict=True))

    def with_entry(entry: tuple[int, tuple[int, ...]], leaves: list[Array], value: float) -> Any:
        position, index = entry
        changed = leaves[position].at[index].set(value)
        return [*leaves[:position], changed, *leaves[position + 1 :]]

    directions = [with_entry(entry, jax.tree.leaves(zeros), 1) for entry in entries]
    for entry in entries:
        leaves = with_entry(entry, leaves, 0)
    return Plane(
        origin=structure.unflatten(leaves),
        directions=tuple(map(structure.unflatten, directions)),
    )


def random(key: PRNGKey, params: Params, *, num_directions: int = 2) -> Plane:
    """Makes a plane through some params with Gaussian directions.

    In many dimensions such directions are all but orthogonal; ``geometry`` says how nearly.
    Entries of a direction are drawn from N(0, 1) whatever the size of the params: see
    ``filter_normalize`` before comparing two networks.

    Args:
      key: a PRNG key.
      params: the origin, a pytree of floating-point arrays.
      num_directions: k, static, at least 1.

    Returns:
      A Plane with k directions.

    Raises:
      TypeError: if ``key`` is no key, the params are not floating-point, or
        ``num_directions`` is no static int.
      ValueError: if there are no params, or ``num_directions`` is below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> plane = planes.random(jax.random.key(0), {"w": jnp.ones((3, 4))})
      >>> [direction["w"].shape for direction in plane.directions]
      [(3, 4), (3, 4)]

    Source:
      Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets,
      2018, Sec. 4.
    """
    where = "planes.random"
    _checks.key(where, "key", key)
    origin = _checks.trained(where, "params", params)
    num_directions = _checks.count(where, "num_directions", num_directions, least=1)
    keys = jax.random.split(key, num_directions)
    return Plane(
        origin=origin,
        directions=tuple(optax.tree.random_like(k, origin, jax.random.normal) for k in keys),
    )


def through(*points: Params) -> Plane:
    """Makes the line or plane through given points.

    The first is the origin; point i has the i-th coordinate 1 and all others 0. Through two
    points goes the line of linear interpolation, ``(1 - a) first + a second``.

    Args:
      *points: k + 1 pytrees of floating-point arrays, of one structure. No two may be equal; of
        traced arrays that is not known, and two equal points make a direction of zeros, or two
        equal ones.

    Returns:
      A Plane with k directions, in float32 or wider.

    Raises:
      TypeError: if a point is not floating-point.
      ValueError: if there are fewer than two points, they do not fit each other, or two are
        equal.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.through(jnp.array([0.0, 0.0]), jnp.array([2.0, 4.0]))
      >>> planes.point(line, 0.5)
      Array([1., 2.], dtype=float32)

    Source:
      Goodfellow, Vinyals and Saxe, Qualitatively characterizing neural network optimization
      problems, 2015.
    """
    where = "planes.through"
    _checks.that(where, len(points) >= 2, "expected at least two points", str(len(points)))
    origin, *others = [_checks.params(where, f"point {i}", p) for i, p in enumerate(points)]
    for index, other in enumerate(others, start=1):
        _checks.like(where, f"point {index}", other, "point 0", origin)
    for (i, one), (j, other) in itertools.combinations(enumerate((origin, *others)), 2):
        cure = f"Leave point {j} out: {len(points)} points span {len(points) - 1} directions."
        wanted = "the points must differ"
        _checks.that(where, not _are_equal(one, other), wanted, f"point {i} twice ({j})", cure)
    return Plane(
        origin=origin,
        directions=tuple(_difference(other, origin) for other in others),
    )


def _are_equal(params: Params, others: Params) -> bool:
    """Whether two points are known to be the same."""
    return all(
        not _checks.is_traced(p, o)
        and getattr(p, "is_fully_addressable", True)
        and np.array_equal(p, o)
        for p, o in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True)
    )


@jax.jit
def _difference(params: Params, origin: Params) -> Params:
    """``params - origin`` in float32 or wider: exact for neighbours in half precision."""
    dtype = _numbers.wide(origin, params)
    return jax.tree.map(lambda p, o: p.astype(dtype) - o.astype(dtype), params, origin)


def along(params: Params, vectors: Params) -> Plane:
    """Makes the plane through some params along given vectors, such as eigenvectors.

    Args:
      params: the origin, a pytree of floating-point arrays.
      vectors: shaped like ``params`` with a leading axis k, as ``EigenPairs.vectors`` are.

    Returns:
      A Plane whose direction i is row i of the vectors.

    Raises:
      TypeError: if the params or the vectors are not floating-point.
      ValueError: if the vectors do not fit the params, or have no common leading axis.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature, planes
      >>> params = jnp.array([1.0, 2.0])
      >>> pairs = curvature.top_eigenpairs(
      ...     jax.random.key(0), lambda p: p[0] ** 2 - p[1], params, num_pairs=1, num_iterations=2
      ... )
      >>> jnp.abs(planes.along(params, pairs.vectors).directions[0]).round(3)
      Array([1., 0.], dtype=float32)
    """
    where = "planes.along"
    params = _checks.params(where, "params", params)
    vectors = _checks.params(where, "vectors", vectors)
    num_directions = _points.num_rows_of(where, "vectors", vectors, "Stack them: jnp.stack.")
    directions = tuple(
        jax.tree.map(lambda rows, i=i: rows[i], vectors) for i in range(num_directions)
    )
    _checks.that(where, num_directions > 0, "expected at least one vector", "none")
    _checks.like(where, "a row of vectors", directions[0], "params", params)
    return Plane(origin=params, directions=directions)


def principal(path: Params, *, num_directions: int = 2) -> Plane:
    """Makes the plane that a trajectory runs along: its principal components.

    The components are those about the trajectory's mean; the origin is its last point. One
    comes after the other: the longest direction of what is left, from its matrix of inner
    products (T x T, or n x n for n params if that is smaller), and then without it. So a
    direction is right however much shorter it is than the first, and the memory is that of
    three paths in float32 or wider. The plane shows the trajectory as flat as it can be
    shown: what it hides is ``params - point(plane, *project(plane, params))``, and the loss on
    the plane is not the loss of the trajectory.

    Args:
      path: params with a leading axis T, as in ``Trajectory.path``; or a Trajectory, whose path
        it is. All rows count: of a run that ended early, cut off those that repeat the last
        point, as ``descent.trim`` does.
      num_directions: k, static, at least 1 and at most T - 1.

    Returns:
      A Plane with k orthonormal directions in float32 or wider, the one of the largest
      variance first. The point that lies farthest from the mean along a direction has the
      larger coordinate there. A direction is NaN where the path has no such dimension, or
      leaves the others by less than the rounding of its own numbers.

    Raises:
      TypeError: if the path is not floating-point, or ``num_directions`` is no static int.
      ValueError: if the leaves have no common leading axis, it is too short, or the path is a list
        of checkpoints that could be read as one.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> path = jnp.array([[0.0, 3.0], [4.0, 3.0], [1.0, 3.0]])
      >>> line = planes.principal(path, num_directions=1)
      >>> line.origin, line.directions[0].round(3)
      (Array([1., 3.], dtype=float32), Array([1., 0.], dtype=float32))

    Source:
      Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets,
      2018, Sec. 7.
    """
    where = "planes.principal"
    num_directions = _checks.count(where, "num_directions", num_directions, least=1)
    _points.refuse_checkpoints(where, path, num_directions)
    path, length = _points.checked_path(where, path)
    wanted = f"path must have more points than directions, {num_directions}"
    _checks.that(where, length > num_directions, wanted, str(length))

    leaves, structure = jax.tree.flatten(path)

    def like() -> tuple[list[Array], list[list[Array]]]:
        last = [leaf[-1] for leaf in leaves]
        return last, [last] * num_directions

    components = functools.partial(_principal, num_directions)
    origin, directions = _numbers.on_any_mesh(components, leaves, like=like)
    return Plane(
        origin=structure.unflatten(origin), directions=tuple(map(structure.unflatten, directions))
    )


@functools.partial(jax.jit, static_argnums=0)
def _principal(num_directions: int, leaves: list[Array]) -> tuple[list[Array], list[list[Array]]]:
    """The last point of a path and its principal components, whatever the structure."""
    dtype = _numbers.wide(leaves)
    length = leaves[0].shape[0]
    groups = _grouped(leaves, length)
    matrices = [
        jnp.concatenate([leaves[place].reshape(length, -1) for place in group], axis=1)
        for group in groups
    ]
    scale = _numbers.scale_of(*matrices)
    rows = [matrix.astype(dtype) / scale for matrix in matrices]
    rounding = _numbers.norm(
        *(
            float(jnp.finfo(old.dtype).eps) * _numbers.norm(new)
            for old, new in zip(matrices, rows, strict=True)
        )
    )
    # Twice, since the first mean is rounded to the size of the params, not of the way.
    rows = [_vectors.centred(_vectors.centred(matrix)) for matrix in rows]
    directions: list[list[Array]] = []
    for _ in range(num_directions):
        direction = _vectors.longest_direction(rows, directions)
        scores = _vectors.scores_of(rows, direction)
        rows = _vectors.without(rows, scores, direction)
        sign = jnp.sign(scores[jnp.abs(scores).argmax()])
        factor = jnp.where(_numbers.norm(scores) > 4 * rounding, sign, jnp.nan)
        directions.append([factor * d for d in direction])

    def split(direction: list[Array]) -> list[Array]:
        parts: dict[int, Array] = {}
        for group, flat in zip(groups, direction, strict=True):
            ends = np.cumsum([leaves[place].size // length for place in group])
            parts |= zip(group, jnp.split(flat, ends[:-1]), strict=True)
        shapes = [leaf.shape[1:] for leaf in leaves]
        return [parts[i].reshape(shape) for i, shape in enumerate(shapes)]

    return [points[-1] for points in leaves], [split(direction) for direction in directions]


def _grouped(leaves: Sequence[Array], length: int) -> list[list[int]]:
    """The places of arrays to be handled as one: small ones of a dtype, which saves compiling."""
    groups: dict[Any, list[int]] = {}
    for place, leaf in enumerate(leaves):
        is_small = leaf.size <= length * _SMALL
        groups.setdefault(leaf.dtype if is_small else place, []).append(place)
    return list(groups.values())


def _key(key: Any) -> Any:
    """A key of a tree path as a user writes it: a dict key, a position or a field name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _place(
    where: str, name: str, entry: Any, arrays: dict[Any, Array]
) -> tuple[tuple[PyTree, ...], tuple[int, ...]]:
    """The path of the array that an entry leads to, and its index in it."""
    cure = f"Write ({entry!r},)." if isinstance(entry, (str, int)) else ""
    _checks.that(
        where, isinstance(entry, (tuple, list)), f"{name} must be a key path", repr(entry), cure
    )
    keys = tuple(entry) if isinstance(entry, (tuple, list)) else ()
    found = [path for path in arrays if keys[: len(path)] == path]
    known = ", ".join(f"{path} of shape {leaf.shape}" for path, leaf in arrays.items())
    _checks.that(
        where,
        bool(found),
        f"{name} must lead to an array of the params",
        repr(entry),
        f"Known: {known}.",
    )
    path = found[0]
    index, shape = keys[len(path) :], arrays[path].shape
    fits = len(index) == len(shape) and all(
        isinstance(i, (int, np.integer)) and -size <= i < size
        for i, size in zip(index, shape, strict=True)
    )
    indices = "index" if len(shape) == 1 else "indices"
    cure = f"Its array has the shape {shape}: end with {len(shape)} {indices} within it."
    if not shape:
        cure = f"Its array is a scalar: write {path!r}, without an index."
    _checks.that(where, fits, f"{name} must end at a scalar", repr(entry), cure)
    return path, tuple(int(i) % size for i, size in zip(index, shape, strict=True))
