"""Where we look: lines and planes through the space of params.

A plane with k directions is the set of points ``origin + c_1 d_1 + ... + c_k d_k``. One
direction makes a line, two a plane in the strict sense.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jaxgd import _affine, _checks
from jaxgd.types import Array, ArrayLike, Params, PRNGKey

__all__ = [
    "FilterAxis",
    "Plane",
    "PlaneGeometry",
    "Projection",
    "along",
    "coordinate",
    "explain",
    "explain_filters",
    "filter_normalize",
    "geometry",
    "orthonormalize",
    "point",
    "principal",
    "project",
    "project_path",
    "random",
    "restrict",
    "through",
]


FilterAxis: TypeAlias = int | tuple[int, ...] | None
"""Which axes of an array count its filters."""


_STACK = "Stack a list of checkpoints: jax.tree.map(lambda *p: jnp.stack(p), *path)."

# An origin that is more times larger than what is left of it at a point loses digits.
_FAR = 32


class Plane(NamedTuple):
    """An affine subspace of the space of params.

    Attributes:
      origin: the params at coordinates (0, ..., 0).
      directions: k pytrees shaped like ``origin``; ``directions[i]`` belongs to the i-th
        coordinate. They need be neither orthogonal nor of length 1.
    """

    origin: Params
    directions: tuple[Params, ...]


class PlaneGeometry(NamedTuple):
    """How the directions of a plane lie to each other.

    Attributes:
      norms: shape (k,), float32 or wider: the Euclidean length of each direction.
      cosines: shape (k, k): of the angles between them, from -1 to 1; exactly 1 on the
        diagonal. NaN for a direction of length 0.
    """

    norms: Array
    cosines: Array


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
    origin, directions = _checked(where, plane)
    scalars = _scalars(where, coordinates, len(directions))

    def moved(leaf: Array, *steps: Array) -> Array:
        # In float32 at least, and rounded once: a bfloat16 sum would lose every small step.
        dtype = _wide(leaf)
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
    origin, directions = _checked(where, plane)
    params = _checks.params(where, "params", params)
    _checks.like(where, "params", params, "plane.origin", origin)
    return _nearest(origin, directions, params)[0]


def _nearest(origin: Params, directions: list[Params], params: Params) -> tuple[Array, Array]:
    """The coordinates of the nearest point of a plane, and the share that the plane hides."""
    dtype = _wide(origin, directions, params)

    def column(tree: Params) -> tuple[Array, Array]:
        flat = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(dtype), tree))[0]
        scale = _scale(flat)
        return flat / scale, scale

    offset, offset_scale = column(
        jax.tree.map(lambda p, o: p.astype(dtype) - o.astype(dtype), params, origin)
    )
    columns, scales = map(jnp.stack, zip(*map(column, directions), strict=True))
    distance = _norm(offset)
    if columns.shape[1] < columns.shape[0]:
        nowhere = jnp.full(len(directions), jnp.nan, dtype)
        return nowhere, distance * nowhere[0]
    q, r = jnp.linalg.qr(columns.T)
    # What a direction adds to those before it stands on the diagonal: rounding, or more.
    norms = jnp.linalg.norm(columns, axis=1)
    independent = jnp.abs(jnp.diag(r)) > 16 * jnp.finfo(dtype).eps * norms
    coordinates = jax.scipy.linalg.solve_triangular(r, _dot(q.T, offset))
    coordinates = jnp.where(independent.all(), coordinates, jnp.nan)
    away = _norm(offset - _dot(coordinates, columns))
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
    origin, directions = _checked(where, plane)
    path, _ = _checked_path(where, path)
    first = jax.tree.map(lambda rows: rows[0], path)
    _checks.like(where, "a point of path", first, "plane.origin", origin)
    coordinates, residuals = jax.vmap(lambda params: _nearest(origin, directions, params))(path)
    return Projection(coordinates=coordinates, residuals=residuals)


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
    leaves, structure = jax.tree_util.tree_flatten_with_path(origin)
    arrays = {tuple(_key(key) for key in path): leaf for path, leaf in leaves}
    places = [_place(where, f"entry {i}", entry, arrays) for i, entry in enumerate(entries)]
    _checks.that(where, len(set(places)) == len(places), "entries must differ", str(entries))

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
    origin = _checks.params(where, "params", params)
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
      *points: k + 1 pytrees of floating-point arrays, of one structure.

    Returns:
      A Plane with k directions, in float32 or wider.

    Raises:
      TypeError: if a point is not floating-point.
      ValueError: if there are fewer than two points, or they do not fit each other.

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
    return Plane(
        origin=origin,
        directions=tuple(_difference(other, origin) for other in others),
    )


def _difference(params: Params, origin: Params) -> Params:
    """``params - origin`` in float32 or wider: exact for neighbours in half precision."""
    dtype = _wide(origin, params)
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
    num_directions = _num_rows(where, "vectors", vectors, "Stack them: jnp.stack.")
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
        it is.
      num_directions: k, static, at least 1 and at most T - 1.

    Returns:
      A Plane with k orthonormal directions in float32 or wider, the one of the largest
      variance first. The point that lies farthest from the mean along a direction has the
      larger coordinate there. A direction is NaN where the path has no such dimension, or
      leaves the others by less than the rounding of its own numbers.

    Raises:
      TypeError: if the path is not floating-point, or ``num_directions`` is no static int.
      ValueError: if the leaves have no common leading axis, or it is too short.

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
    _refuse_checkpoints(where, path, num_directions)
    path, length = _checked_path(where, path)
    wanted = f"path must have more points than directions, {num_directions}"
    _checks.that(where, length > num_directions, wanted, str(length))

    dtype = _wide(path)
    leaves, structure = jax.tree.flatten(path)
    scale = _scale(*leaves)
    rows = [leaf.reshape(length, -1).astype(dtype) / scale for leaf in leaves]
    rounding = _norm(
        *(
            float(jnp.finfo(old.dtype).eps) * _norm(new)
            for old, new in zip(leaves, rows, strict=True)
        )
    )
    # Twice, since the first mean is rounded to the size of the params, not of the way.
    rows = [_centred(_centred(matrix)) for matrix in rows]
    directions: list[list[Array]] = []
    for _ in range(num_directions):
        direction = _longest_direction(rows, directions)
        scores = _scores(rows, direction)
        rows = _without(rows, scores, direction)
        sign = jnp.sign(scores[jnp.abs(scores).argmax()])
        factor = jnp.where(_norm(scores) > 4 * rounding, sign, jnp.nan)
        directions.append([factor * d for d in direction])
    return Plane(
        origin=jax.tree.map(lambda points: points[-1], path),
        directions=tuple(
            structure.unflatten(
                d.reshape(leaf.shape[1:]) for d, leaf in zip(direction, leaves, strict=True)
            )
            for direction in directions
        ),
    )


def _centred(rows: Array) -> Array:
    return rows - rows.mean(axis=0, keepdims=True)


def _longest_direction(rows: list[Array], earlier: list[list[Array]]) -> list[Array]:
    """The unit vector along which rows spread most, orthogonal to earlier ones.

    It is in parts, one for each matrix of rows, as the rows themselves are.
    """
    sizes = [matrix.shape[1] for matrix in rows]
    if rows[0].shape[0] <= sum(sizes):
        weights = _top_eigenvector(_sum(_dot(m, m.T) for m in rows))
        direction = [_dot(weights, matrix) for matrix in rows]
    else:
        joined = jnp.concatenate(rows, axis=1)
        flat = _top_eigenvector(_dot(joined.T, joined))
        direction = jnp.split(flat, np.cumsum(sizes)[:-1])
    direction, _ = _orthogonal(direction, earlier)
    # A step of the power method, as a correction: it takes off the rounding of the small
    # matrix and of its sums, since what the direction leaves is small itself.
    scores = _scores(rows, direction)
    square = jnp.sum(jnp.square(scores))
    square = jnp.where(square > 0, square, 1)
    rest = _without(rows, scores, direction)
    steps = [_dot(scores, matrix) / square for matrix in rest]
    return _orthogonal([d + s for d, s in zip(direction, steps, strict=True)], earlier)[0]


def _orthogonal(direction: list[Array], earlier: list[list[Array]]) -> tuple[list[Array], Array]:
    """A direction without its share in earlier ones, of length 1, and how much that left.

    Gram and Schmidt, twice: the first time leaves rounding.
    """
    direction = _unit(direction)
    left = jnp.ones((), direction[0].dtype)
    for other in [*earlier, *earlier]:
        overlap = _sum(_dot(d, o) for d, o in zip(direction, other, strict=True))
        rest = [d - overlap * o for d, o in zip(direction, other, strict=True)]
        left = left * _norm(*rest)
        direction = _unit(rest)
    return direction, left


def _without(rows: list[Array], scores: Array, direction: list[Array]) -> list[Array]:
    """What rows leave beside a direction."""
    return [matrix - jnp.outer(scores, d) for matrix, d in zip(rows, direction, strict=True)]


def _scores(rows: list[Array], direction: list[Array]) -> Array:
    """The coordinate of each row along a direction."""
    return _sum(_dot(matrix, d) for matrix, d in zip(rows, direction, strict=True))


def _unit(parts: list[Array]) -> list[Array]:
    length = _norm(*parts)
    return [part / jnp.where(length > 0, length, 1) for part in parts]


@jax.custom_jvp
def _top_eigenvector(matrix: Array) -> Array:
    """The eigenvector of a symmetric matrix that belongs to its largest eigenvalue.

    Its derivative looks at the gaps to that eigenvalue alone: others may coincide.
    """
    return jnp.linalg.eigh(matrix)[1][:, -1]


@_top_eigenvector.defjvp
def _top_eigenvector_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(primals[0])
    top, others = vectors[:, -1], vectors[:, :-1]
    turns = _dot(others.T, _dot(tangents[0], top)) / (values[-1] - values[:-1])
    return top, _dot(others, turns)


def filter_normalize(
    plane: Plane,
    *,
    filter_axis: FilterAxis | Any,
    vectors: Literal["zero", "match", "keep"] = "zero",
    is_vector: Callable[[str, Array], bool] | None = None,
) -> Plane:
    """Rescales each filter of each direction to the length of that filter in the origin.

    A filter is what feeds one output unit. Without this the plot of a network changes with
    the scale of its weights, which its function does not. Directions that were orthogonal
    are so no longer; ``geometry`` says how much. ``explain_filters`` says, array by array,
    what is taken for a filter: read it before believing the plot.

    Args:
      plane: a Plane through a network's params, as ``random`` makes it.
      filter_axis: the axis that counts the output units: -1 for Flax, Haiku and plain
        ``x @ w``, 0 for Equinox and PyTorch. Several axes count one filter per combination:
        (-2, -1) for an attention kernel (inputs, heads, features), (0, -1) for a kernel stacked
        over scanned layers. None takes a whole array as one filter. One for all arrays, a
        pytree of them shaped like the origin, or a function of an array's path, such as
        "encoder/attention/query/kernel", and the array itself.
      vectors: what becomes of a direction in biases, norm scales and other vectors: "zero"
        makes it 0, as Li et al. do; "match" gives it the length of the vector; "keep" leaves
        it.
      is_vector: a function of path and array that says which arrays ``vectors`` is for. None:
        those of fewer than two axes, and those called a bias ("bias", "bias_hh"; "b" or "beta"
        with one axis longer than 1), as convolutions and attention have them. With "match",
        ``filter_axis`` says which axes of a vector count vectors: 0 for a norm scale stacked
        over layers. If that leaves a bias one number, it is one vector.

    Returns:
      A Plane with the same origin.

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params, an axis is no int, or
        ``is_vector`` is not callable.
      ValueError: if an array has no such axis, the pytree of axes does not fit, ``vectors``
        is none of the three, or a direction does not fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> origin = jnp.array([[3.0, 0.0], [4.0, 1.0]])
      >>> direction = jnp.array([[1.0, 1.0], [0.0, 0.0]])
      >>> line = planes.Plane(origin=origin, directions=(direction,))
      >>> planes.filter_normalize(line, filter_axis=-1).directions[0]
      Array([[5., 1.],
             [0., 0.]], dtype=float32)

    Source:
      Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets,
      2018, Sec. 4.
    """
    where = "planes.filter_normalize"
    origin, directions = _checked(where, plane)
    rules = _filter_rules(where, origin, filter_axis, vectors, is_vector)
    dtype = _wide(origin, directions)

    def normalize(theta: Array, d: Array, rule: _FilterRule) -> Array:
        if rule.is_vector and vectors != "match":
            return jnp.zeros_like(d) if vectors == "zero" else d
        others = tuple(i for i in range(theta.ndim) if i not in rule.counted)
        length = _norm(d.astype(dtype), axis=others)
        wanted = _norm(theta.astype(dtype), axis=others)
        return (d.astype(dtype) / jnp.where(length > 0, length, 1) * wanted).astype(d.dtype)

    leaves, structure = jax.tree.flatten(origin)
    normalized = [
        structure.unflatten(map(normalize, leaves, jax.tree.leaves(direction), rules))
        for direction in directions
    ]
    return Plane(origin=origin, directions=tuple(normalized))


def explain_filters(
    params: Params,
    *,
    filter_axis: FilterAxis | Any,
    vectors: Literal["zero", "match", "keep"] = "zero",
    is_vector: Callable[[str, Array], bool] | None = None,
) -> str:
    """Says, array by array, what ``filter_normalize`` takes for a filter.

    Args:
      params: the origin of the plane, a pytree of floating-point arrays.
      filter_axis: as for ``filter_normalize``.
      vectors: as for ``filter_normalize``.
      is_vector: as for ``filter_normalize``.

    Returns:
      A text of one line per array: its path, its shape, how many filters of how many numbers
      it has and which axes count them, or what becomes of a vector. An array of three axes or
      more of which one counts is marked: that is right for a convolution, and wrong for an
      attention kernel or stacked layers.

    Raises:
      TypeError: if the params are not floating-point, an axis is no int, or ``is_vector`` is
        not callable.
      ValueError: if there are no params, an array has no such axis, the pytree of axes does not
        fit, or ``vectors`` is none of the three.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> params = {"query": {"kernel": jnp.ones((6, 2, 4)), "bias": jnp.ones((2, 4))}}
      >>> print(planes.explain_filters(params, filter_axis=-1))
      query/bias    (2, 4)     a vector: its direction is 0
      query/kernel  (6, 2, 4)  4 filters of 12 numbers, counted by axis 2  <- one of 3 axes: sure?
    """
    where = "planes.explain_filters"
    params = _checks.params(where, "params", params)
    rules = _filter_rules(where, params, filter_axis, vectors, is_vector)

    def what(leaf: Array, rule: _FilterRule) -> str:
        if rule.is_vector and vectors != "match":
            becomes = "its direction is 0" if vectors == "zero" else "its direction is kept"
            return f"a vector: {becomes}"
        noun = "vector" if rule.is_vector else "filter"
        count = math.prod(leaf.shape[i] for i in rule.counted)
        numbers = leaf.size // max(count, 1)
        filters = f"{count} {noun}{'s' * (count != 1)} of {numbers} number{'s' * (numbers != 1)}"
        if not rule.counted:
            return filters
        axes = ", ".join(map(str, rule.counted))
        doubt = f"  <- one of {leaf.ndim} axes: sure?" * (len(rule.counted) == 1 < leaf.ndim - 1)
        return f"{filters}, counted by ax{'es' if len(rule.counted) > 1 else 'is'} {axes}{doubt}"

    rows = [
        (_path(path) or "params", str(leaf.shape), what(leaf, rule))
        for (path, leaf), rule in zip(
            jax.tree_util.tree_leaves_with_path(params), rules, strict=True
        )
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {text}" for path, shape, text in rows
    )


class _FilterRule(NamedTuple):
    """How one array is normalized: whether it is a vector, and which axes count filters."""

    is_vector: bool
    counted: tuple[int, ...]


def _filter_rules(
    where: str, params: Params, filter_axis: Any, vectors: str, is_vector: Any
) -> list[_FilterRule]:
    """One rule for each array of the params."""
    wanted = "vectors must be 'zero', 'match' or 'keep'"
    _checks.that(where, vectors in ("zero", "match", "keep"), wanted, repr(vectors))
    if is_vector is not None:
        _checks.function(where, "is_vector", is_vector)
    axes = _axis_per_leaf(where, filter_axis, params)
    rules = []
    for axis, (key_path, leaf) in zip(
        axes, jax.tree_util.tree_leaves_with_path(params), strict=True
    ):
        path = _path(key_path)
        # Flax nnx holds the array of a bias as "bias/value", Haiku calls it "b".
        name = path.removesuffix("/value").split("/")[-1].lower()
        is_row = max(leaf.shape, default=1) == leaf.size
        vector = leaf.ndim < 2 or "bias" in name or (name in ("b", "beta") and is_row)
        if is_vector is not None:
            with _checks.calling(where, "is_vector", is_vector, (path, leaf), "path, array"):
                vector = bool(is_vector(path, leaf))
        counted = _counted(where, f"filter_axis of {path or 'params'}", axis, leaf)
        if vector:
            numbers = [size for i, size in enumerate(leaf.shape) if i not in counted]
            is_number = math.prod(numbers) == 1 if is_vector is None else not numbers
            counted = () if is_number else counted
        rules.append(_FilterRule(vector, counted))
    return rules


def _axis_per_leaf(where: str, filter_axis: Any, params: Params) -> list[Any]:
    """What filter_axis says of each leaf: as one for all, a pytree, or a function."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    if filter_axis is None or isinstance(filter_axis, (int, float)):
        return [filter_axis] * len(leaves)
    try:  # first, since a pytree may be callable, as Equinox modules are
        axes = structure.flatten_up_to(filter_axis)
    except (TypeError, ValueError):
        axes = [filter_axis]
    if callable(filter_axis) and axes == [filter_axis]:
        answers = []
        for path, leaf in leaves:
            arguments = (_path(path), leaf)
            with _checks.calling(where, "filter_axis", filter_axis, arguments, "path, array"):
                answers.append(filter_axis(*arguments))
        return answers
    wanted = "filter_axis must be an int, a function, or have the structure of the params"
    cure = "For several axes in each array write filter_axis=lambda path, leaf: (-2, -1)."
    _checks.that(where, len(axes) == len(leaves), f"{wanted}, {structure}", repr(filter_axis), cure)
    return axes


def _counted(where: str, name: str, axis: Any, leaf: Array) -> tuple[int, ...]:
    """The axes that count filters, none of them negative; nothing counts in a small array."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for each in axes:
        is_int = isinstance(each, (int, np.integer)) and not isinstance(each, bool)
        wanted = f"{name} must be an int, a tuple of ints or None"
        _checks.that(where, is_int, wanted, _checks.kind(each), error=TypeError)
        wanted = f"{name} must be an axis of an array of shape {leaf.shape}"
        is_axis = leaf.ndim < 2 or bool(-leaf.ndim <= each < leaf.ndim)
        _checks.that(where, is_axis, wanted, str(each))
    return () if leaf.ndim < 2 else tuple(sorted({int(each) % leaf.ndim for each in axes}))


def _path(key_path: Any) -> str:
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def orthonormalize(plane: Plane) -> Plane:
    """Makes the directions of a plane orthogonal, and each of length 1.

    The plane stays the same set of points: direction i becomes what it adds to those before
    it (Gram and Schmidt). After ``filter_normalize`` this undoes it: do one or the other.

    Args:
      plane: a Plane with k linearly independent directions.

    Returns:
      A Plane with the same origin and k orthonormal directions in float32 or wider. One that
      is zero or depends on those before it, to rounding, becomes NaN.

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params.
      ValueError: if a direction does not fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> plane = planes.Plane(jnp.zeros(2), (jnp.array([2.0, 0.0]), jnp.array([3.0, 5.0])))
      >>> planes.orthonormalize(plane).directions
      (Array([1., 0.], dtype=float32), Array([0., 1.], dtype=float32))

    Source:
      Golub and Van Loan, Matrix Computations, 2013, Sec. 5.2.
    """
    origin, directions = _checked("planes.orthonormalize", plane)
    dtype = _wide(origin, directions)
    leaves, structure = jax.tree.flatten(origin)
    found: list[list[Array]] = []
    for direction in directions:
        parts = [part.ravel().astype(dtype) for part in jax.tree.leaves(direction)]
        new, left = _orthogonal(parts, found)
        is_new = (left > 16 * jnp.finfo(dtype).eps) & (_norm(*parts) > 0)
        factor = jnp.where(is_new, 1, jnp.nan)
        found.append([factor * part for part in new])
    return Plane(
        origin=origin,
        directions=tuple(
            structure.unflatten(p.reshape(o.shape) for p, o in zip(parts, leaves, strict=True))
            for parts in found
        ),
    )


def geometry(plane: Plane) -> PlaneGeometry:
    """Measures the directions of a plane: their lengths and the angles between them.

    Args:
      plane: a Plane with k directions.

    Returns:
      A PlaneGeometry: norms (k,) and cosines (k, k).

    Raises:
      TypeError: if ``plane`` is not a Plane of floating-point params.
      ValueError: if a direction does not fit the origin.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> plane = planes.Plane(jnp.zeros(2), (jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])))
      >>> shape = planes.geometry(plane)
      >>> shape.norms, shape.cosines[0, 1].round(3)
      (Array([5., 2.], dtype=float32), Array(0.6, dtype=float32))
    """
    origin, directions = _checked("planes.geometry", plane)
    dtype = _wide(origin, directions)
    scales = jnp.stack([_scale(*jax.tree.leaves(d)) for d in directions])
    scaled = [
        jax.tree.map(lambda leaf, s=s: leaf.astype(dtype) / s, d)
        for d, s in zip(directions, scales, strict=True)
    ]
    # Not of what is scaled: two divisions in a row become one, by what may be out of range.
    norms = jnp.stack(
        [_norm(*(leaf.astype(dtype) for leaf in jax.tree.leaves(d))) for d in directions]
    )
    lengths = norms / scales
    products = jnp.array([[_inner(d, e) for e in scaled] for d in scaled])
    cosines = jnp.clip(products / jnp.outer(lengths, lengths), -1, 1)
    own = jnp.where(lengths > 0, 1, jnp.nan)
    cosines = jnp.where(jnp.eye(len(directions), dtype=bool), own, cosines)
    return PlaneGeometry(norms=norms, cosines=cosines)


def restrict(loss_fn: Callable[..., Any], plane: Plane, *data: Any) -> Callable[..., Any]:
    """Makes a loss a function of the coordinates of a plane, cheap to evaluate many times.

    ``phi(c_1, ..., c_k)`` is ``loss_fn(point(plane, c_1, ..., c_k), *data)`` up to rounding.
    What the loss does alike at all points of the plane is done once: whatever depends on no
    moved array is kept, whatever is affine in the coordinates is kept as its value at the
    origin and one tangent per direction, and only the rest runs at a point. For a network
    whose layers all move that spares the first product,
    ``X W = X W_0 + c_1 X D_1 + c_2 X D_2``; for arrays whose directions are all zero it spares
    everything before the first layer that moves. Where an affine residual is squared and
    summed, an R factor (QR) of k + 1 rows stands for all samples.

    Its error is at most about that of the loss itself, wherever the origin of the plane is: sums
    of squares are kept about the point where they are least, computed in float64; where the
    origin is more than 32 times farther from zero than an end of a direction, all else is left
    to the loss. Where what is computed once does not stand for the loss (it overflows, or holds
    NaN), phi is the loss.

    Call it once and phi often. What it does once is compiled at the first call; another plane, or
    other data of the same shapes, use the same compiled program. In a jitted function of plane and
    data that restricts and sweeps, give the sweep a ``batch_size``: the program then holds the
    plain way too.
    Points computed one at a time (``batch_size=1``) share no reads: a small first layer (8 inputs
    into 128 units) then takes up to 1.2 times the plain way; from 2 points on it is the faster.

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
        scalars; from phi, if it is not called with k scalars; if sums of squares in it are
        differentiated with respect to plane or data.

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
    still, is_near = _still(origin, directions), _is_near(origin, directions)
    shapes = jax.tree.map(_shape_of, (origin, directions, data))

    def hoisted(still: list[frozenset[int]], otherwise: Any = None) -> jax.tree_util.Partial:
        along, num_directions, watched = _along(where, loss_fn, origin, directions, still, data)
        remake = (_along_zeros, (where, loss_fn, still, *shapes))
        dtype = _wide(origin)
        return _affine.hoist(along, num_directions, dtype, watched, remake, is_near, otherwise)

    # A coordinate of inf makes NaN of all arrays: a loss may look whether there are any.
    moving = functools.partial(hoisted, [frozenset()] * len(still))
    return jax.tree_util.Partial(_restricted, hoisted(still, moving))


def explain(loss_fn: Callable[..., Any], plane: Plane, *data: Any) -> str:
    """Says what ``restrict`` computes once, what is left at each point, and what that saves.

    Args:
      loss_fn: (params, *data) -> a scalar, or a pytree of scalars.
      plane: a Plane with k directions.
      *data: further arguments of ``loss_fn``.

    Returns:
      A few lines of text.

    Raises:
      TypeError: if ``loss_fn`` is not callable, or ``plane`` not a Plane of floating-point
        params.
      ValueError: if a direction does not fit the origin, or ``loss_fn`` returns anything but
        scalars.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import planes
      >>> line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.ones(2),))
      >>> loss = lambda w, x: jnp.sum((x @ w) ** 2)
      >>> print(planes.explain(loss, line, jnp.ones((50, 2))))  # doctest: +ELLIPSIS
      Computed once, and read at each point:
        1 x a sum of squares, as an R factor
      Left at each point, 0 of ... operations:
        none
      By estimate, a point takes ...% of the work of the loss.
    """
    where = "planes.explain"
    _checks.function(where, "loss_fn", loss_fn)
    origin, directions = _checked(where, plane)
    still = _still(origin, directions)
    along, num_directions, _ = _along(where, loss_fn, origin, directions, still, data)
    return _affine.explain(along, num_directions, _wide(origin))


def _still(origin: Params, directions: Sequence[Params]) -> list[frozenset[int]]:
    """For each array of the params, the coordinates that are known not to move it."""
    columns = [jax.tree.leaves(direction) for direction in directions]
    return [
        frozenset(index for index, steps in enumerate(columns) if _is_zero(steps[place]))
        for place in range(len(jax.tree.leaves(origin)))
    ]


def _is_near(origin: Params, directions: Sequence[Params]) -> ArrayLike:
    """Whether the origin is about as small as the points that people look at.

    These are the ends of the directions, and, where it takes many steps along them to cancel
    the origin, where that is. What is kept of an origin far away has no digits for them.
    """
    trees = [jax.tree.leaves(tree) for tree in (origin, *directions)]
    is_known = not any(isinstance(leaf, jax.core.Tracer) for leaves in trees for leaf in leaves)
    xp, dtype = (np, np.float64) if is_known else (jnp, _wide(*trees))
    with np.errstate(all="ignore"):
        gram = xp.zeros((len(trees), len(trees)), dtype)
        for leaves in zip(*trees, strict=True):
            rows = [xp.asarray(leaf).astype(dtype) for leaf in leaves]
            products = xp.stack([xp.stack([xp.sum(a * b) for b in rows]) for a in rows])
            gram = gram + xp.where(xp.any(xp.diag(products)[1:] > 0), products, 0)
        far = gram[0, 0] / _FAR**2
        lengths = xp.diag(gram)[1:]
        ends = gram[0, 0] + 2 * gram[0, 1:] + lengths
        is_seen = xp.any((ends > 0) & (ends < far))
        are_short = xp.all(lengths < far)
        for i in range(1, len(trees)):  # Gram-Schmidt: what no direction cancels is left
            pivot = gram[i, i]
            is_new = pivot > 1e-9 * lengths[i - 1]
            gram = gram - xp.outer(gram[:, i], gram[i]) / xp.where(is_new, pivot, xp.inf)
        return ~(is_seen | (are_short & (gram[0, 0] < far)))


def _along(
    where: str,
    loss_fn: Callable[..., Any],
    origin: Params,
    directions: Sequence[Params],
    still: Sequence[frozenset[int]],
    data: Sequence[Any],
) -> tuple[Callable[..., Any], int, list[tuple[Array, frozenset[int]]]]:
    """The loss as a function of the coordinates; their number; what they do not move."""
    leaves, structure = jax.tree.flatten(origin)
    steps = [jax.tree.leaves(direction) for direction in directions]

    def along(*coordinates: Array) -> Any:
        moved = []
        for place, leaf in enumerate(leaves):
            moving = [index for index in range(len(steps)) if index not in still[place]]
            own = Plane(leaf, tuple(steps[index][place] for index in moving))
            moved.append(point(own, *(coordinates[i] for i in moving)) if moving else leaf)
        arguments = (jax.tree.unflatten(structure, moved), *data)
        with _checks.calling(where, "loss_fn", loss_fn, arguments, "params and data"):
            values = loss_fn(*arguments)
        _checks.scalar_outputs(where, "loss_fn", values)
        return values

    return along, len(steps), list(zip(leaves, still, strict=True))


def _along_zeros(
    where: str,
    loss_fn: Callable[..., Any],
    still: Sequence[frozenset[int]],
    origin: Params,
    directions: Sequence[Params],
    data: Sequence[Any],
) -> tuple[Callable[..., Any], int, list[tuple[Array, frozenset[int]]]]:
    """The same of arrays of which nothing is known but their shapes and dtypes."""

    def zeros(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if leaf.weak_type:
            return jnp.broadcast_to(0.0 if leaf.dtype.kind == "f" else 0, leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    origin, directions, data = jax.tree.map(zeros, (origin, directions, data))
    return _along(where, loss_fn, origin, directions, still, data)


def _shape_of(leaf: Any) -> Any:
    if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.dtype == object:
        return leaf
    is_weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=is_weak)


def _restricted(hoisted: Any, *coordinates: ArrayLike) -> Any:
    """A restricted loss at a point, once its coordinates are found to be right."""
    return hoisted(*_scalars("planes.restrict", coordinates, hoisted.func.num_coordinates))


def _scalars(where: str, coordinates: Sequence[ArrayLike], num_directions: int) -> list[Array]:
    """The coordinates of one point, as many as there are directions."""
    _checks.length(where, "coordinates", coordinates, num_directions, "one per direction")
    cure = "For a grid of them use surfaces.sweep."
    return [_checks.scalar(where, f"coordinate {i}", c, cure) for i, c in enumerate(coordinates)]


def _wide(*trees: Any) -> Any:
    """The dtype to compute with: float32, or the widest of the arrays where that is wider."""
    is_double = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(trees))
    return np.dtype(np.float64 if is_double else np.float32)


def _scale(*arrays: Array, axis: tuple[int, ...] | None = None) -> Array:
    """A power of two near the largest magnitude, so that squares stay within range.

    Dividing by it rounds nothing. It is 1 for zeros and for what is not finite.
    """
    dtype = _wide(arrays)
    keepdims = axis is not None
    largest = [
        jnp.max(jnp.abs(jax.lax.stop_gradient(array)), axis=axis, initial=0, keepdims=keepdims)
        for array in arrays
    ]
    magnitude = functools.reduce(jnp.maximum, largest).astype(dtype)
    usual = jnp.isfinite(magnitude) & (magnitude > 0)
    _, exponent = jnp.frexp(jnp.where(usual, magnitude, 1))
    least = jnp.finfo(dtype).minexp
    return jnp.ldexp(jnp.ones_like(magnitude), jnp.clip(exponent - 1, least, -least))


def _norm(*arrays: Array, axis: tuple[int, ...] | None = None) -> Array:
    """The Euclidean length of arrays taken together, over all axes or over some, kept.

    It neither overflows nor underflows where it is itself a number, and its slope at 0 is 0.
    """
    scale = _scale(*arrays, axis=axis)
    squares = _sum(
        jnp.sum(jnp.square(array / scale), axis=axis, keepdims=axis is not None) for array in arrays
    )
    above = squares != 0
    return jnp.where(above, scale * jnp.sqrt(jnp.where(above, squares, 1)), 0)


def _dot(a: Array, b: Array) -> Array:
    """A product at full precision, which accelerators do not take by themselves."""
    return jnp.matmul(a, b, precision="highest")


def _inner(a: Params, b: Params) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return _sum(_dot(x.ravel(), y.ravel()) for x, y in pairs)


def _sum(arrays: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, arrays)


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
    cure = f"Its array has the shape {shape}: end with {len(shape)} indices within it."
    _checks.that(where, fits, f"{name} must end at a scalar", repr(entry), cure)
    return path, tuple(int(i) % size for i, size in zip(index, shape, strict=True))


def _checked(where: str, plane: Plane) -> tuple[Params, list[Params]]:
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


def _checked_path(where: str, path: Any) -> tuple[Params, int]:
    """Params with a leading axis, and its length; a Trajectory gives its path."""
    cure = "Pass Trajectory.path, the params at each step."
    if isinstance(path, tuple) and {"path", "losses"} <= set(getattr(path, "_fields", ())):
        path = getattr(path, "path")  # noqa: B009 (its type is not known here)
    elif isinstance(path, (list, tuple)) and len(path) > 1:
        checkpoints = [jax.tree.map(jnp.shape, checkpoint) for checkpoint in path]
        if all(shapes == checkpoints[0] for shapes in checkpoints):
            cure = _STACK
    path = _checks.params(where, "path", path)
    return path, _num_rows(where, "path", path, cure)


def _refuse_checkpoints(where: str, path: Any, num_directions: int) -> None:
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


def _num_rows(where: str, name: str, tree: Params, cure: str) -> int:
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
