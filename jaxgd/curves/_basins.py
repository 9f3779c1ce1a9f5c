"""How the loss rises around a point: for most directions, and for the worst."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import _checks, planes
from jaxgd._repr import short_repr
from jaxgd.planes import _numbers
from jaxgd.types import Array, ArrayLike, LossFn, Params, PRNGKey, PyTree


class _Climb(NamedTuple):
    """An ascent on a sphere: where it stands, and the best it has seen."""

    direction: Params
    best: Params
    highest: Array


class BasinProfile(NamedTuple):
    """The loss by its distance from a point, over random directions and in the worst.

    Attributes:
      radii: shape (R,): the distances from the params.
      center: shape (): the loss at the params.
      levels: shape (Q,): which quantiles.
      quantiles: shape (Q, R): of the loss over the random directions: a share ``levels[q]`` of
        them is at most as high.
      mean: shape (R,): over the random directions.
      worst: shape (R,): the highest loss that was found at the distance. It is one that is
        reached; there may be a higher.
    """

    radii: Array
    center: Array
    levels: Array
    quantiles: Array
    mean: Array
    worst: Array

    __repr__ = short_repr


def basin_profile(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    radii: ArrayLike,
    num_directions: int,
    num_iterations: int = 20,
    levels: Sequence[float] = (0.05, 0.5, 0.95),
    batch_size: int = 1,
) -> BasinProfile:
    """Computes how the loss rises around a point, for most directions and for the worst.

    Random directions are uniform on the unit sphere; along each the loss is restricted to its
    line. The worst is found by ascent on the sphere of each radius, ``d <- r g / |g|`` with the
    gradient g at d, from the worst random direction or from the one found at the radius before;
    where the loss is convex no step of it falls. On a quadratic with the Hessian H of n params
    the mean rises by ``r^2 tr H / (2 n)`` and the worst by ``r^2 lambda_max / 2``.

    Distances are those of the params as they are: a network with relu units can be rescaled to
    any profile without a change of its function. Compare networks of like scale.

    Args:
      key: a PRNG key: it draws the directions.
      loss_fn: ``loss_fn(params, *data) -> scalar``; static.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      radii: shape (R,): distances, at least 0. Where they increase, each ascent helps the next.
      num_directions: D, static, at least 1.
      num_iterations: points of the ascent at each radius, static, at least 1: a gradient each.
      levels: Q numbers from 0 to 1, static: which quantiles.
      batch_size: how many directions, each of the size of the params, are looked along at once,
        static, at least 1. On a CPU 1 suits all but tiny models; an accelerator likes more.

    Returns:
      A BasinProfile. A loss of NaN on the way shows in the quantiles and the mean.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` is not callable, the params are not
        floating-point, or a count is no static int.
      ValueError: if ``radii`` is not 1-D or is empty, a count is too small, a level is not from 0
        to 1, or the loss is no scalar.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves
      >>> bowl = lambda x: jnp.sum(jnp.array([1.0, 2.0, 9.0]) * x**2) / 2
      >>> profile = curves.basin_profile(
      ...     jax.random.key(0), bowl, jnp.zeros(3), radii=jnp.array([1.0, 2.0]), num_directions=500
      ... )
      >>> print(profile.mean.round(1), profile.worst.round(1))
      [2. 8.] [ 4.5 18. ]

    Source:
      Chen, Dong, Wei and others, Unveiling the basin-like loss landscape in large language
      models, 2025; Journee, Nesterov, Richtarik and Sepulchre, Generalized power method for
      sparse principal component analysis, 2010.
    """
    where = "curves.basin_profile"
    _checks.key(where, "key", key)
    _checks.function(where, "loss_fn", loss_fn)
    params = _checks.params(where, "params", params)
    (radii,) = _checks.axes(where, [radii], ["radii"])
    num_directions = _checks.count(where, "num_directions", num_directions, least=1)
    num_iterations = _checks.count(where, "num_iterations", num_iterations, least=1)
    batch_size = _checks.count(where, "batch_size", batch_size, least=1)
    shares = np.asarray(levels)
    are_shares = shares.ndim == 1 and shares.size > 0 and shares.dtype.kind in "iuf"
    are_shares = are_shares and bool(((shares >= 0) & (shares <= 1)).all())
    cure = "Write (0.5,) for one level." if shares.ndim == 0 else ""
    _checks.that(where, are_shares, "levels must be numbers from 0 to 1", str(levels), cure)
    loss = _checks.trainable(where, "loss_fn", loss_fn)
    radii = radii.astype(_numbers.wide(params))
    keys = jax.random.split(key, num_directions)

    def losses_along(key: PRNGKey) -> Array:
        line = planes.Plane(origin=params, directions=(_unit_direction(key, params),))
        return jax.lax.map(planes.restrict(loss, line, *data), radii)

    num_at_once = None if batch_size == 1 else min(batch_size, num_directions)
    losses = jax.lax.map(losses_along, keys, batch_size=num_at_once)
    steepest, heights = _highest(keys, losses)

    def at(direction: Params, radius: Array) -> Array:
        point = jax.tree.map(lambda p, d: (p + radius * d).astype(p.dtype), params, direction)
        return loss(point, *data)

    def climbed(earlier: _Climb, sphere: tuple[Array, PRNGKey, Array]) -> tuple[_Climb, Array]:
        radius, key, height = sphere
        is_better = (earlier.highest > -jnp.inf) & (at(earlier.best, radius) > height)
        start = _either(is_better, earlier.best, _unit_direction(key, params))

        def step(climb: _Climb, _: None) -> tuple[_Climb, None]:
            value, grads = jax.value_and_grad(at)(climb.direction, radius)
            return _Climb(
                direction=_unit(grads, climb.direction),
                best=_either(value > climb.highest, climb.direction, climb.best),
                highest=jnp.fmax(value, climb.highest),
            ), None

        climb, _ = jax.lax.scan(step, _Climb(start, start, height), length=num_iterations)
        return climb, climb.highest

    nowhere = _Climb(_zeros(params), _zeros(params), jnp.full((), -jnp.inf, heights.dtype))
    _, worst = jax.lax.scan(climbed, nowhere, (radii, steepest, heights))
    quantiles, mean, worst = _summary(losses, jnp.asarray(levels, losses.dtype), worst)
    return BasinProfile(
        radii=radii,
        center=loss(params, *data),
        levels=jnp.asarray(levels, radii.dtype),
        quantiles=quantiles,
        mean=mean,
        worst=worst,
    )


@partial(jax.jit, inline=True)
def _highest(keys: Array, losses: Array) -> tuple[Array, Array]:
    """At each radius, the key of the direction of the highest loss, and that loss."""
    heights = jnp.where(jnp.isnan(losses), -jnp.inf, losses)
    return keys[jnp.argmax(heights, axis=0)], heights.max(axis=0)


@partial(jax.jit, inline=True)
def _summary(losses: Array, levels: Array, worst: Array) -> tuple[Array, Array, Array]:
    """Quantiles and mean over the directions, and the worst, NaN where none was found."""
    # Losses that were met: between a finite one and inf there is none.
    quantiles = jnp.quantile(losses, levels, axis=0, method="higher")
    return quantiles, losses.mean(axis=0), jnp.where(worst > -jnp.inf, worst, jnp.nan)


def _zeros(params: Params) -> Params:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, _numbers.wide(p)), params)


def _unit_direction(key: PRNGKey, params: Params) -> Params:
    """A direction uniform on the unit sphere, in float32 or wider."""
    drawn = optax.tree.random_like(key, _zeros(params), jax.random.normal)
    return _unit(drawn, drawn)


def _unit(tree: Params, otherwise: Params) -> Params:
    """A tree scaled to length 1; another one where it has no finite direction."""
    tree = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), tree, otherwise)
    tops = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    top = jnp.max(jnp.stack([top.astype(_numbers.wide(tree)) for top in tops]))
    is_way = (top > 0) & jnp.isfinite(top)
    near_one = jax.tree.map(lambda leaf: leaf / jnp.where(is_way, top, 1).astype(leaf.dtype), tree)
    length = jnp.asarray(optax.tree.norm(near_one))
    units = jax.tree.map(lambda n: n / jnp.where(is_way, length, 1).astype(n.dtype), near_one)
    return _either(is_way, units, otherwise)


def _either(condition: Array, one: Params, other: Params) -> Params:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
