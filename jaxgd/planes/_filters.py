"""How long the directions of a plane are, and at which angles: as filters, or of length one."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.planes import _numbers, _points, _vectors
from jaxgd.planes._points import Plane
from jaxgd.types import Array, Params

FilterAxis: TypeAlias = int | tuple[int, ...] | None
"""Which axes of an array count its filters."""


class PlaneGeometry(NamedTuple):
    """How the directions of a plane lie to each other.

    Attributes:
      norms: shape (k,), float32 or wider: the Euclidean length of each direction.
      cosines: shape (k, k): of the angles between them, from -1 to 1; exactly 1 on the
        diagonal. NaN for a direction of length 0.
    """

    norms: Array
    cosines: Array

    __repr__ = short_repr


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
        is none of the three, a direction does not fit the origin, or all arrays are vectors,
        whose directions would be 0.

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
    origin, directions = _points.checked(where, plane)
    rules = _filter_rules(where, origin, filter_axis, vectors, is_vector)
    _checks.that(
        where,
        vectors != "zero" or not all(rule.is_vector for rule in rules),
        "plane must have an array with filters",
        "vectors alone, so that every direction would be 0",
        'Write vectors="match", which gives a direction the length of each vector.',
    )
    leaves, structure = jax.tree.flatten(origin)
    normalized = _normalized(leaves, list(map(jax.tree.leaves, directions)), tuple(rules), vectors)
    if vectors == "zero":  # made here, where zeros lie on the devices of the direction
        normalized = [
            [jnp.zeros_like(d) if rule.is_vector else d for d, rule in zip(ds, rules, strict=True)]
            for ds in normalized
        ]
    return Plane(origin=origin, directions=tuple(map(structure.unflatten, normalized)))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _normalized(
    origin: list[Array],
    directions: list[list[Array]],
    rules: tuple["_FilterRule", ...],
    vectors: str,
) -> list[list[Array]]:
    """Directions rescaled filter by filter, whatever the structure of the params."""
    dtype = _numbers.wide(origin, directions)

    def normalize(theta: Array, d: Array, rule: _FilterRule) -> Array:
        if rule.is_vector and vectors != "match":
            return d
        others = tuple(i for i in range(theta.ndim) if i not in rule.counted)
        length = _numbers.norm(d.astype(dtype), axis=others)
        wanted = _numbers.norm(theta.astype(dtype), axis=others)
        return (d.astype(dtype) / jnp.where(length > 0, length, 1) * wanted).astype(d.dtype)

    return [list(map(normalize, origin, direction, rules)) for direction in directions]


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
        (_checks.place(path) or "params", str(leaf.shape), what(leaf, rule))
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
        path = _checks.place(key_path)
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
            arguments = (_checks.place(path), leaf)
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
    origin, directions = _points.checked("planes.orthonormalize", plane)
    orthonormal = functools.partial(_orthonormal, _numbers.wide(origin, directions))
    directions = _numbers.on_any_mesh(orthonormal, directions, like=lambda: directions)
    return Plane(origin=origin, directions=tuple(directions))


@functools.partial(jax.jit, static_argnums=0)
def _orthonormal(dtype: DTypeLike, directions: list[Params]) -> list[Params]:
    found: list[list[Array]] = []
    for direction in directions:
        parts = [part.ravel().astype(dtype) for part in jax.tree.leaves(direction)]
        new, left = _vectors.orthogonal(parts, found)
        is_new = (left > 16 * jnp.finfo(dtype).eps) & (_numbers.norm(*parts) > 0)
        factor = jnp.where(is_new, 1, jnp.nan)
        found.append([factor * part for part in new])
    leaves, structure = jax.tree.flatten(directions[0])
    return [
        structure.unflatten(p.reshape(d.shape) for p, d in zip(parts, leaves, strict=True))
        for parts in found
    ]


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
    origin, directions = _points.checked("planes.geometry", plane)
    measured = functools.partial(_measured, _numbers.wide(origin, directions))
    norms, cosines = _numbers.on_any_mesh(measured, directions)
    return PlaneGeometry(norms=norms, cosines=cosines)


@functools.partial(jax.jit, static_argnums=0)
def _measured(dtype: DTypeLike, directions: list[Params]) -> tuple[Array, Array]:
    """The lengths of directions, and the cosines of the angles between them."""
    scales = jnp.stack([_numbers.scale_of(*jax.tree.leaves(d)) for d in directions])
    scaled = [
        jax.tree.map(lambda leaf, s=s: leaf.astype(dtype) / s, d)
        for d, s in zip(directions, scales, strict=True)
    ]
    # Not of what is scaled: two divisions in a row become one, by what may be out of range.
    norms = jnp.stack(
        [_numbers.norm(*(leaf.astype(dtype) for leaf in jax.tree.leaves(d))) for d in directions]
    )
    lengths = norms / scales
    products = jnp.array([[_numbers.inner(d, e) for e in scaled] for d in scaled])
    cosines = jnp.clip(products / jnp.outer(lengths, lengths), -1, 1)
    own = jnp.where(lengths > 0, 1, jnp.nan)
    cosines = jnp.where(jnp.eye(len(directions), dtype=bool), own, cosines)
    return norms, cosines
