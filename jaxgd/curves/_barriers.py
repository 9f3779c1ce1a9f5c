"""How high the loss rises on the straight line between two points."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks, planes
from jaxgd._repr import short_repr
from jaxgd.curves import _params
from jaxgd.planes import _numbers
from jaxgd.types import Array, LossFn, Params, PyTree


class Barrier(NamedTuple):
    """The losses along a line from one point to another, and how high they rise.

    Attributes:
      coordinates: shape (N,): t from 0, the first point, to 1, the last.
      losses: shape (N,).
      height: shape (): the largest rise of the losses above the straight line between the two
        ends; 0 where there is none.
    """

    coordinates: Array
    losses: Array
    height: Array

    __repr__ = short_repr


def barrier(
    loss_fn: LossFn, first: Params, last: Params, *data: PyTree, num_points: int = 25
) -> Barrier:
    """Computes the losses along the line between two points, and how high they rise.

    The height is the largest ``L((1 - t) a + t b) - ((1 - t) L(a) + t L(b))`` over the points
    t of the line, a being the first end and b the last. It misses a peak between two points.

    Called on numbers, it restricts the loss to the line (``planes.restrict``): what all points
    share is computed once. Within ``jax.jit``, ``jax.vmap`` or ``jax.grad`` it evaluates the loss
    at each point, and is differentiable in the two ends.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``. Where it normalizes by statistics of a batch,
        as in the training mode of batch normalization, they are computed anew at each point.
      first: the params a at t = 0, a pytree of floating-point arrays.
      last: the params b at t = 1, shaped like ``first``.
      *data: passed on to ``loss_fn``.
      num_points: N, static, at least 2: evenly spaced, both ends included.

    Returns:
      A Barrier.

    Raises:
      TypeError: if ``loss_fn`` is not callable, the params are not floating-point, or
        ``num_points`` is no static int.
      ValueError: if the two ends do not fit each other, ``num_points`` is below 2, or the loss is
        no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves
      >>> wells = lambda x: (x**2 - 1) ** 2
      >>> curves.barrier(wells, jnp.array(-1.0), jnp.array(1.0), num_points=3).losses.round(3)
      Array([0., 1., 0.], dtype=float32)

    Source:
      Frankle, Dziugaite, Roy and Carbin, Linear mode connectivity and the lottery ticket
      hypothesis, 2020; Entezari et al., The role of permutation invariance in linear mode
      connectivity of neural networks, 2022.
    """
    where = "curves.barrier"
    first, last = _params.ends(where, loss_fn, first, last)
    num_points = _checks.count(where, "num_points", num_points, least=2)
    checked = _checks.trainable(where, "loss_fn", loss_fn)
    dtype = _numbers.wide((first, last))
    way = jax.tree.map(lambda a, b: b.astype(dtype) - a.astype(dtype), first, last)
    line = planes.Plane(origin=first, directions=(way,))  # the two ends may be equal
    coordinates = jnp.linspace(0, 1, num_points, dtype=_numbers.wide(first))
    losses = jax.lax.map(_along(checked, line, data), coordinates)
    with jax.numpy_dtype_promotion("standard"):
        straight = (1 - coordinates) * losses[0] + coordinates * losses[-1]
        return Barrier(coordinates, losses, jnp.max(losses - straight))


def _along(
    loss_fn: LossFn, line: planes.Plane, data: tuple[PyTree, ...]
) -> Callable[[Array], Array]:
    """The loss along a line: restricted to it where all numbers are known, plain where some are
    traced, since what ``planes.restrict`` keeps of squares has no derivative in the two ends.
    """
    program = jax.make_jaxpr(lambda params: loss_fn(params, *data))(line.origin)
    if _checks.is_traced(line, program.consts):
        return lambda t: loss_fn(planes.point(line, t), *data)
    return planes.restrict(loss_fn, line, *data)
