"""A loss as a function of a plane's coordinates, with what all points share computed once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxgd import _affine, _checks
from jaxgd.planes import _numbers, _points
from jaxgd.planes._points import Plane, point
from jaxgd.types import Array, ArrayLike, Params, PyTree

# An origin that is more times larger than what is left of it at a point loses digits.
_FAR = 32


def restrict(loss_fn: Callable[..., PyTree], plane: Plane, *data: PyTree) -> Callable[..., PyTree]:
    """Makes a loss a function of the coordinates of a plane, cheap to evaluate many times.

    ``phi(c_1, ..., c_k)`` is ``loss_fn(point(plane, c_1, ..., c_k), *data)`` up to rounding.
    What the loss does alike at all points of the plane is done once: whatever depends on no
    moved array is kept, whatever is affine in the coordinates is kept as its value at the
    origin and one tangent per direction, and only the rest runs at a point. For a network
    whose layers all move that spares the first product,
    ``X W = X W_0 + c_1 X D_1 + c_2 X D_2``; for arrays whose directions are all zero it spares
    everything before the first layer that moves. Where an affine residual is squared and
    summed, an R factor (QR) of k + 1 rows stands for all samples.

    phi is about as exact as the loss itself, wherever the origin of the plane is: at most twice
    the error of the loss and 0.1 % more. Sums of squares are kept relative to the point where
    they are smallest, computed in float64. Where the origin is more than 32 times farther from
    zero than an end of a direction, only sums of squares are computed once. Where the part that
    is computed once overflows, or holds NaN, phi evaluates the loss as it is. At an infinite
    coordinate phi is what the loss is where all terms of each sum have one sign. Elsewhere it
    is NaN, and so it may be where two coordinates are infinite.

    Call ``restrict`` once and phi often. The part that is done once is compiled at the first call.
    Other planes and other data of the same shapes use the same compiled program. You may also
    call ``restrict`` and then sweep phi inside one jitted function of the plane and the data.
    Then give the sweep a ``batch_size``: the program also holds the loss as it is, and without
    one that would be computed for all points at once.
    With ``batch_size=1`` nothing is shared among points: a small first layer (8 inputs into 128
    units) then takes up to 1.2 times as long as without ``restrict``. From 2 points on,
    ``restrict`` is faster.

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
    origin, directions = _points.checked(where, plane)
    still, is_near = _still(origin, directions), _is_near(origin, directions)
    shapes = jax.tree.map(_shape_of, (origin, directions, data))

    def hoisted(still: list[frozenset[int]], otherwise: PyTree = None) -> jax.tree_util.Partial:
        along, num_directions, watched = _along(where, loss_fn, origin, directions, still, data)
        remake = (_along_zeros, (where, loss_fn, still, *shapes))
        dtype = _numbers.wide(origin)
        return _affine.hoist(along, num_directions, dtype, watched, remake, is_near, otherwise)

    # A coordinate of inf makes NaN of all arrays: a loss may look whether there are any.
    moving = functools.partial(hoisted, [frozenset()] * len(still))
    return _Restricted(_restricted, hoisted(still, moving))


class _Restricted(jax.tree_util.Partial):
    """A restricted loss: what ``restrict`` returns, which shows itself in a line."""

    def __repr__(self) -> str:
        hoisted, leaves = self.args[0], jax.tree.leaves(self)
        size = sum(int(np.size(leaf)) for leaf in leaves)
        num_coordinates = hoisted.func.num_coordinates
        held = f"{len(leaves)} arrays, {size:,} numbers"
        return f"<planes.restrict: a loss of {num_coordinates} coordinates; {held}>"


jax.tree_util.register_pytree_node(
    _Restricted,
    lambda phi: ((phi.args, phi.keywords), phi.func),
    lambda fn, held: _Restricted(fn, *held[0], **held[1]),
)


def explain(loss_fn: Callable[..., PyTree], plane: Plane, *data: PyTree) -> str:
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
    origin, directions = _points.checked(where, plane)
    still = _still(origin, directions)
    along, num_directions, _ = _along(where, loss_fn, origin, directions, still, data)
    return _affine.explain(along, num_directions, _numbers.wide(origin))


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
    is_traced = _checks.is_traced(trees)
    xp, dtype = (jnp, _numbers.wide(*trees)) if is_traced else (np, np.float64)
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
    loss_fn: Callable[..., PyTree],
    origin: Params,
    directions: Sequence[Params],
    still: Sequence[frozenset[int]],
    data: Sequence[PyTree],
) -> tuple[Callable[..., PyTree], int, list[tuple[Array, frozenset[int]]]]:
    """The loss as a function of the coordinates; their number; what they do not move."""
    leaves, structure = jax.tree.flatten(origin)
    steps = [jax.tree.leaves(direction) for direction in directions]

    def along(*coordinates: Array) -> PyTree:
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
    loss_fn: Callable[..., PyTree],
    still: Sequence[frozenset[int]],
    origin: Params,
    directions: Sequence[Params],
    data: Sequence[PyTree],
) -> tuple[Callable[..., PyTree], int, list[tuple[Array, frozenset[int]]]]:
    """The same of arrays of which nothing is known but their shapes and dtypes."""

    def zeros(leaf: Array) -> PyTree:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if leaf.weak_type:
            return jnp.broadcast_to(0.0 if leaf.dtype.kind == "f" else 0, leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    origin, directions, data = jax.tree.map(zeros, (origin, directions, data))
    return _along(where, loss_fn, origin, directions, still, data)


def _shape_of(leaf: Array) -> PyTree:
    if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.dtype == object:
        return leaf
    is_weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=is_weak)


def _restricted(hoisted: PyTree, *coordinates: ArrayLike, **named: Any) -> PyTree:
    """A restricted loss at a point, once its coordinates are found to be right."""
    where = "planes.restrict"
    got = f"the names {', '.join(named)}"
    _checks.that(
        where,
        not named,
        "coordinates must be given in order",
        got,
        "Write phi(1.0, 2.0).",
        error=TypeError,
    )
    return hoisted(*_points.scalars_of(where, coordinates, hoisted.func.num_coordinates))


def _is_zero(direction: Array) -> bool:
    """Whether a direction is known to move nothing."""
    return not (isinstance(direction, jax.core.Tracer) or np.any(np.asarray(direction)))
