"""How a function of a point is computed at a batch of points: in one vmap, unless that is slow.

Under vmap a convolution whose kernel and whose input both depend on the point becomes a grouped
convolution, which is up to ten times slower than one convolution after the other. A function
that holds one is computed a point at a time, at no loss: its arrays are large enough to keep a
device busy.
"""

from collections.abc import Callable, Sequence

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

from jaxgd import _jaxprs
from jaxgd._jaxprs import Jaxpr
from jaxgd.types import Array, PyTree


def mapped(fn: Callable[..., PyTree], points: Sequence[Array]) -> PyTree:
    """Computes a function of k scalars at many points.

    Args:
      fn: k scalars -> a pytree of arrays.
      points: k arrays of shape (n,).

    Returns:
      The values, each with a leading axis n.
    """
    scalars = [jax.ShapeDtypeStruct((), along.dtype) for along in points]
    program, output = jax.make_jaxpr(fn, return_shape=True)(*scalars)
    evaluate = jex.jaxpr_as_fun(program)
    num_groups = _num_groups(program)
    # A convolution whose kernel alone, or whose input alone, depends on the point keeps its groups.
    if num_groups and _num_groups(jax.make_jaxpr(jax.vmap(evaluate))(*points)) > num_groups:
        values = jax.lax.map(lambda point: evaluate(*point), tuple(points))
    else:
        values = jax.vmap(evaluate)(*points)
    return jax.tree.unflatten(jax.tree.structure(output), values)


def _num_groups(program: Jaxpr) -> int:
    """The groups of all convolutions of a program."""
    return sum(
        eqn.params["feature_group_count"] * eqn.params["batch_group_count"]
        for eqn in _jaxprs.equations(program)
        if eqn.primitive is primitives.conv_general_dilated_p
    )
