"""Bezier curves through the space of params, and how one of low loss is found."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from jaxgd import _checks, descent
from jaxgd._repr import short_repr
from jaxgd.curves import _params
from jaxgd.planes import _numbers
from jaxgd.types import Array, ArrayLike, LossFn, Params, PRNGKey, PyTree


class Curve(NamedTuple):
    """A Bezier curve through the space of params.

    Attributes:
      controls: params with a leading axis: the control points, the ends included.
    """

    controls: Params

    __repr__ = short_repr


class Connection(NamedTuple):
    """A curve between two points, and how it was found.

    Attributes:
      curve: a Curve from the first point to the last.
      trajectory: the Trajectory of the control points between the ends. Row s of its ``losses``
        is the loss at one random point of the curve, and noisy. Its ``path`` has two rows: the
        start and the end.
    """

    curve: Curve
    trajectory: descent.Trajectory

    __repr__ = short_repr


def point(curve: Curve, t: ArrayLike) -> Params:
    """Computes a point of a Bezier curve.

    For control points c_0, ..., c_n it is ``sum_k C(n, k) (1 - t)^(n - k) t^k c_k``, formed in
    float32 or wider and rounded once.

    Args:
      curve: a Curve.
      t: a scalar: 0 at the first control point, 1 at the last. It may be traced.

    Returns:
      Params shaped like one control point.

    Raises:
      TypeError: if ``curve`` is not a Curve of floating-point params, or ``t`` is not real.
      ValueError: if the arrays share no leading axis of at least 2, or ``t`` is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves
      >>> arch = curves.Curve(jnp.array([[-1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]))
      >>> curves.point(arch, 0.5)
      Array([0., 1.], dtype=float32)

    Source:
      Garipov et al., Loss surfaces, mode connectivity, and fast ensembling of DNNs, 2018,
      Sec. 3.
    """
    where = "curves.point"
    _checks.instance(where, "curve", curve, Curve)
    controls = _checks.params(where, "curve.controls", curve.controls)
    shapes = [leaf.shape for leaf in jax.tree.leaves(controls)]
    _checks.that(
        where,
        len({shape[:1] for shape in shapes}) == 1 and shapes[0][:1] >= (2,),
        "the arrays of curve.controls must share a leading axis of at least 2",
        f"shapes {', '.join(map(str, shapes))}",
        "Stack the control points: jax.tree.map(lambda *c: jnp.stack(c), first, *others, last).",
    )
    t = _checks.scalar(where, "t", t, "For many points: jax.vmap(curves.point, (None, 0)).")
    return _bezier(controls, t)


@partial(jax.jit, inline=True)
def _bezier(controls: Params, t: Array) -> Params:
    degree = jax.tree.leaves(controls)[0].shape[0] - 1
    with jax.numpy_dtype_promotion("standard"):
        t = t.astype(jnp.result_type(jnp.float32, t))
    # Degree by degree, as de Casteljau does: a binomial coefficient may be too large a number.
    weights = jnp.zeros(degree + 1, t.dtype).at[0].set(1)
    weights, _ = jax.lax.scan(
        lambda weights, _: ((1 - t) * weights + t * jnp.pad(weights[:-1], (1, 0)), None),
        weights,
        length=degree,
        unroll=min(degree, 8),
    )

    def mixed(rows: Array) -> Array:
        wide = np.promote_types(rows.dtype, np.float32)
        column = weights.astype(wide).reshape(-1, *[1] * (rows.ndim - 1))
        return jnp.sum(column * rows.astype(wide), axis=0).astype(rows.dtype)

    return jax.tree.map(mixed, controls)


def connect(
    loss_fn: LossFn,
    first: Params,
    last: Params,
    *data: PyTree,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    key: PRNGKey,
    num_controls: int = 1,
) -> Connection:
    """Finds a Bezier curve of low loss between two points, which stay where they are.

    The control points between the ends minimize the mean of ``loss_fn(point(curve, t))`` over
    t uniform in [0, 1]. Each step takes one t. The first is drawn by the key, and each further
    one lies the golden section beyond the one before it (mod 1): each alone is uniform, and
    together they fill the interval evenly. The control points start on the line between the
    ends, moved a little by the key, since a curve could never leave a line of symmetry.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``; static. Where it normalizes by statistics of a
        batch, they are computed anew at each point.
      first: the params at t = 0, a pytree of floating-point arrays.
      last: the params at t = 1, shaped like ``first``.
      *data: passed on to ``loss_fn``, the same at every step.
      optimizer: an ``optax.GradientTransformation``. The gradient is noisy, so that a curve to
        many digits needs a learning rate that falls to 0.
      num_steps: the number of steps, static, at least 1.
      key: a PRNG key.
      num_controls: how many control points lie between the ends, static, at least 1.

    Returns:
      A Connection.

    Raises:
      TypeError: if ``loss_fn`` is not callable, ``key`` is no key, the params are not
        floating-point, ``optimizer`` is not one, or a count is no static int.
      ValueError: if the two ends do not fit each other, a count is below 1, or the loss is no
        scalar.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxgd import curves
      >>> ring = lambda x: (jnp.sum(x**2) - 1) ** 2
      >>> first, last = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
      >>> found = curves.connect(
      ...     ring, first, last, optimizer=optax.adam(0.05), num_steps=300, key=jax.random.key(0)
      ... )
      >>> bool(ring(first + last) == 1.0), bool(ring(curves.point(found.curve, 0.5)) < 0.1)
      (True, True)

    Source:
      Garipov et al., Loss surfaces, mode connectivity, and fast ensembling of DNNs, 2018,
      Sec. 3; Roberts, The unreasonable effectiveness of quasirandom sequences, 2018.
    """
    where = "curves.connect"
    first, last = _params.ends(where, loss_fn, first, last)
    cure = "Call it: optax.sgd(0.1), not optax.sgd." if callable(optimizer) else ""
    _checks.instance(where, "optimizer", optimizer, optax.GradientTransformation, cure)
    num_steps = _checks.count(where, "num_steps", num_steps, least=1)
    _checks.key(where, "key", key)
    num_controls = _checks.count(where, "num_controls", num_controls, least=1)
    value = _checks.trainable(where, "loss_fn", loss_fn)

    def loss(controls: Params, first: Params, last: Params, *data_and_t: Any) -> Array:
        *own, t = data_and_t
        return value(_bezier(_with_ends(first, controls, last), t), *own)

    start, ts = _beginning(key, first, last, num_controls, num_steps)
    with _checks.named("descent.optimize", where):
        trajectory = descent.optimize(
            loss,
            start,
            first,
            last,
            *data,
            optimizer=optimizer,
            num_steps=num_steps,
            per_step=ts,
            record=lambda _: None,
        )
    # A loop that keeps the start and the end would take longer to compile.
    path, controls = _end(start, trajectory.params, first, last)
    return Connection(Curve(controls), trajectory._replace(path=path))


@partial(jax.jit, static_argnums=(3, 4), inline=True)
def _beginning(
    key: PRNGKey, first: Params, last: Params, num_controls: int, num_steps: int
) -> tuple[Params, Array]:
    """The control points to begin with, and the place of each step on the curve."""
    key_of_ts, key_of_controls = jax.random.split(key)
    start = _near_the_line(key_of_controls, first, last, num_controls)
    return start, _golden_sequence(key_of_ts, num_steps, _numbers.wide(first))


@partial(jax.jit, inline=True)
def _end(start: Params, found: Params, first: Params, last: Params) -> tuple[Params, Params]:
    """The first and the last control points as rows, and all of the curve's."""
    path = jax.tree.map(lambda *points: jnp.stack(points), start, found)
    return path, _with_ends(first, found, last)


def _near_the_line(key: PRNGKey, first: Params, last: Params, num_controls: int) -> Params:
    """Control points on the line, each entry moved by a hundredth of the way, at random."""
    leaves, structure = jax.tree.flatten(first)
    # One draw for all arrays: a compiled generator for each would take longer than all else.
    shapes = [(num_controls, *leaf.shape) for leaf in leaves]
    borders = np.cumsum(np.array([math.prod(shape) for shape in shapes]))
    drawn = jax.random.normal(key, (int(borders[-1]),), _numbers.wide(first))
    noise = jax.tree.unflatten(
        structure,
        [
            part.reshape(shape).astype(_numbers.wide(leaf))
            for part, shape, leaf in zip(
                jnp.split(drawn, borders[:-1]), shapes, leaves, strict=True
            )
        ],
    )

    def started(first: Array, last: Array, noise: Array) -> Array:
        shares = jnp.arange(1, num_controls + 1, dtype=noise.dtype) / (num_controls + 1)
        shares = shares.reshape(-1, *(1,) * first.ndim)
        way = last.astype(noise.dtype) - first.astype(noise.dtype)
        size = jnp.mean(jnp.abs(way)) if way.size else 0.0
        return (first[None] + shares * way[None] + 0.01 * size * noise).astype(first.dtype)

    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(started, first, last, noise)


def _golden_sequence(key: PRNGKey, length: int, dtype: DTypeLike) -> Array:
    """Numbers in [0, 1): each uniform, and evenly spread together."""
    # In whole numbers modulo 2^32, which lose nothing however long the sequence is.
    start = jax.random.bits(key, (), jnp.uint32)
    bits = start + jnp.arange(length, dtype=jnp.uint32) * jnp.uint32(2654435769)
    return (bits >> 8).astype(dtype) / 2**24


def _with_ends(first: Params, controls: Params, last: Params) -> Params:
    return jax.tree.map(
        lambda f, c, g: jnp.concatenate([f[None], c, g[None]]), first, controls, last
    )
