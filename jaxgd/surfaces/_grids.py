"""A function's values over a grid."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _batches, _checks
from jaxgd._repr import short_repr
from jaxgd.types import Array, ArrayLike, PyTree


class Surface(NamedTuple):
    """A function's values over a grid.

    ``values[i, j]`` is the value at ``(coordinates[0][i], coordinates[1][j])``.

    Attributes:
      coordinates: one 1-D array per axis, the very numbers the values were computed at.
      values: shape ``tuple(len(c) for c in coordinates)``, or a pytree of such arrays.
    """

    coordinates: tuple[Array, ...]
    values: PyTree

    __repr__ = short_repr


def select(surface: Surface, name: Hashable) -> Surface:
    """Picks one output of a surface that has several.

    Args:
      surface: a Surface whose values are a pytree, such as ``{"loss": ..., "accuracy": ...}``.
      name: which output: a key of a dict, a field of a NamedTuple, a position of a tuple.

    Returns:
      A Surface on the same coordinates whose values are that output alone.

    Raises:
      TypeError: if ``surface`` is not a Surface.
      ValueError: if it has a single output, or none of that name.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import surfaces
      >>> both = surfaces.sweep(lambda a: {"loss": a**2, "slope": 2 * a}, jnp.arange(3.0))
      >>> surfaces.select(both, "slope").values
      Array([0., 2., 4.], dtype=float32)
    """
    where = "surfaces.select"
    cure = "Of an Approximation pick coefficients[name] with its errors[name], by _replace."
    _checks.instance(where, "surface", surface, Surface, cure * hasattr(surface, "coefficients"))
    values = surface.values
    children, _ = jax.tree_util.tree_flatten_with_path(values, lambda node: node is not values)
    outputs = {_name(path[0]): child for path, child in children if path}
    wanted = "surface must have several outputs"
    _checks.that(where, bool(outputs), wanted, _checks.kind(values), "Use it as it is.")
    names = ", ".join(map(repr, outputs))
    is_known = isinstance(name, Hashable) and name in outputs
    _checks.that(where, is_known, f"name must be one of {names}", repr(name))
    return surface._replace(values=outputs[name])


def _name(key: Any) -> Hashable:
    """A key of a tree path as a user writes it: a dict key, a position or a field name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def sweep(
    fn: Callable[..., PyTree], *coordinates: ArrayLike, batch_size: int | None = None
) -> Surface:
    """Computes a function of k scalars at every point of a grid, in one vmap.

    A function with a convolution whose kernel and input both depend on the point is computed one
    point at a time within a batch: a batch of kernels makes a grouped convolution, which is slow.

    The function may be anything that JAX can trace: a loss restricted to a plane, a cost of
    (w, b), the final loss of a descent as a function of its learning rate. Under ``jax.jit``
    the whole grid is one compiled program; without, each operation is dispatched by itself.
    A Python function is static there: ``jax.jit(surfaces.sweep, static_argnums=0)``; a
    ``planes.restrict`` is a pytree and needs no word.

    Args:
      fn: k scalars -> a scalar, or a pytree of scalars (a loss and an accuracy, say).
      *coordinates: k axes, each 1-D and not empty; k = 1 gives a line, 2 a surface.
      batch_size: how many points are computed at once, static, at least 1; bounds the
        memory. None computes all of them at once, which suits a formula. For a network on a
        CPU 1 is safe: wide ones and transformers are fastest at 1 or 2, small ones at 8 to 16.

    Returns:
      A Surface whose values have the shape ``(len(coordinates[0]), ...)``.

    Raises:
      TypeError: if ``fn`` is not callable or ``batch_size`` is no static int.
      ValueError: if an axis is not 1-D or is empty, if there is none, if ``fn`` returns
        anything but scalars, or if ``batch_size`` is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import surfaces
      >>> surface = surfaces.sweep(lambda a, b: 10 * a + b, jnp.arange(3.0), jnp.arange(2.0))
      >>> surface.values
      Array([[ 0.,  1.],
             [10., 11.],
             [20., 21.]], dtype=float32)
    """
    where = "surfaces.sweep"
    _checks.function(where, "fn", fn)
    axes = _checks.axes(where, coordinates)

    def value(*point: Array) -> PyTree:
        with _checks.calling(where, "fn", fn, point, "one per coordinate"):
            values = fn(*point)
        _checks.scalar_outputs(where, "fn", values)
        return values

    shape = tuple(axis.size for axis in axes)
    points = tuple(grid.ravel() for grid in jnp.meshgrid(*axes, indexing="ij"))
    if batch_size is None:
        values = _batches.mapped(value, points)
    else:
        batch_size = _checks.count(where, "batch_size", batch_size, least=1)
        values = _in_batches(value, points, batch_size)
    return Surface(coordinates=axes, values=jax.tree.map(lambda rows: rows.reshape(shape), values))


def _in_batches(fn: Callable[..., PyTree], points: tuple[Array, ...], batch_size: int) -> PyTree:
    """Maps over batches of one size, so that one program serves all; the last is padded."""
    num_points = points[0].size
    batch_size = min(batch_size, num_points)
    num_batches = -(-num_points // batch_size)
    padding = (0, num_batches * batch_size - num_points)
    batches = [jnp.pad(p, padding, mode="edge").reshape(num_batches, -1) for p in points]
    values = jax.lax.map(lambda batch: _batches.mapped(fn, batch), tuple(batches))
    return jax.tree.map(lambda rows: rows.reshape(-1)[:num_points], values)


def check_known(where: str, name: str, result: PyTree) -> None:
    """Refuses traced arrays: what runs on the host cannot be traced."""
    cure = "It runs on the host: call it on what jax.jit returns, not inside of it."
    wanted = f"{name} must hold known numbers"
    is_traced = _checks.is_traced(result)
    _checks.that(where, not is_traced, wanted, "a traced array", cure, error=TypeError)
