"""Hidden units of one network reordered to match those of another."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import _checks
from jaxgd.curves import _params
from jaxgd.types import Array, Params

_NUM_RANDOM_STARTS = 1  # of align, beside the order given and the one of sorted weights


class _Place(NamedTuple):
    """Where units stand in one array: its axis, read as (before, units, after).

    Attributes:
      leaf: the position of the array among the leaves.
      axis: the axis.
      before: how many blocks of units follow each other along it.
      after: how many neighbours along it belong to one unit.
    """

    leaf: int
    axis: int
    before: int
    after: int


class _Match(NamedTuple):
    """What the matching carries from sweep to sweep."""

    orders: tuple[Array, ...]
    similarity: Array
    is_better: Array


def align(params: Params, reference: Params, groups: Sequence[Sequence[Any]]) -> Params:
    """Reorders hidden units to match those of a reference: the function stays the same.

    Maximizes the sum of products ``<aligned, reference>`` over all arrays, which minimizes
    their distance, by one group after the other: given the orders of all others, the best
    order of one group is a linear assignment. A group's new order is kept only where the sum
    rises, until none does; so the sum never falls. That finds a local maximum: three starts
    (units as they stand; matched by their sorted weights, which finds a mere reordering at
    once; a random order, always the same) are tried and the best is kept. Nearly all of the
    time goes into the assignments: some twenty to fifty of each group.

    Args:
      params: a pytree of floating-point arrays.
      reference: shaped like ``params``.
      groups: each a sequence of the axes that share one order of units, as ``(path, axis)``,
        the path as in ``jax.tree_util.keystr(path, simple=True, separator="/")``:
        ``[[("0/weights", 1), ("0/bias", 0), ("1/weights", 0)]]``. An axis that was flattened is
        ``(path, axis, (before, after))``, its length being ``before * units * after``. See
        ``groups_of``; what is not in a group stays.

    Returns:
      Params shaped like ``params``: the same units in another order.

    Raises:
      TypeError: if the params are not floating-point, or a group is no sequence of paths and axes.
      ValueError: if ``reference`` does not fit, a path or axis is not there or comes twice, or the
        axes of a group do not hold equally many units.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves
      >>> params = {"in": jnp.array([[1.0, 5.0, 3.0]]), "out": jnp.array([[2.0], [4.0], [6.0]])}
      >>> reference = {"in": jnp.array([[5.0, 3.0, 1.0]]), "out": jnp.array([[4.0], [6.0], [2.0]])}
      >>> curves.align(params, reference, [[("in", 1), ("out", 0)]])["in"]
      Array([[5., 3., 1.]], dtype=float32)

    Source:
      Ainsworth, Hayase and Srinivasa, Git Re-Basin: merging models modulo permutation
      symmetries, 2023, Sec. 3.2.
    """
    where = "curves.align"
    params = _checks.params(where, "params", params)
    reference = _checks.params(where, "reference", reference)
    _checks.like(where, "reference", reference, "params", params)
    places, sizes = _places(where, params, groups)
    leaves, structure = jax.tree.flatten(params)
    if not places:
        return params
    wide = [leaf.astype(_params.wide_dtype(leaves)) for leaf in jax.lax.stop_gradient(leaves)]
    wanted = [
        leaf.astype(_params.wide_dtype(leaves))
        for leaf in jax.lax.stop_gradient(jax.tree.leaves(reference))
    ]
    with jax.numpy_dtype_promotion("standard"):
        orders = _matched(wide, wanted, places, sizes)
    return jax.tree.unflatten(structure, _reordered(leaves, places, orders))


def _matched(
    leaves: list[Array], wanted: list[Array], places: list[list[_Place]], sizes: list[int]
) -> tuple[Array, ...]:
    """The best order of each group's units, over several starts."""
    touched = sorted({place.leaf for group in places for place in group})

    def similarity_of(orders: Sequence[Array]) -> Array:
        now = _reordered(leaves, places, orders)
        return sum(
            (jnp.vdot(now[i], wanted[i], precision="highest") for i in touched), jnp.zeros(())
        )

    def sweep(match: _Match) -> _Match:
        orders, similarity = match.orders, match.similarity
        is_better = jnp.array(False)
        for index, group in enumerate(places):
            gains = jnp.zeros((sizes[index],) * 2)
            for place in group:
                # All other axes as they stand now, those of the same group included.
                others = [[p for p in g if p != place] for g in places]
                now = _reordered([leaves[place.leaf]], _of_leaf(others, place.leaf), orders)[0]
                rows = [_rows(leaf, place) for leaf in (wanted[place.leaf], now)]
                gains += jnp.matmul(rows[0], rows[1].T, precision="highest")
            tried = (*orders[:index], _assigned(gains), *orders[index + 1 :])
            reached = similarity_of(tried)
            rises = reached > similarity
            orders = tuple(jnp.where(rises, t, o) for t, o in zip(tried, orders, strict=True))
            similarity = jnp.where(rises, reached, similarity)
            is_better |= rises
        return _Match(orders, similarity, is_better)

    def climbed(start: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        match = _Match(start, similarity_of(start), jnp.array(True))
        match = jax.lax.while_loop(lambda match: match.is_better, sweep, match)
        return match.orders, match.similarity

    starts = [tuple(jnp.arange(size) for size in sizes)]
    starts.append(
        tuple(
            _assigned(_sum_of_sorted(leaves, wanted, group, places, size))
            for group, size in zip(places, sizes, strict=True)
        )
    )
    for seed in range(_NUM_RANDOM_STARTS):
        keys = jax.random.split(jax.random.key(seed), len(sizes))
        starts.append(
            tuple(jax.random.permutation(k, size) for k, size in zip(keys, sizes, strict=True))
        )
    orders, similarities = jax.lax.map(climbed, jax.tree.map(lambda *o: jnp.stack(o), *starts))
    best = jnp.argmax(jnp.where(jnp.isnan(similarities), -jnp.inf, similarities))
    return tuple(order[best] for order in orders)


def _sum_of_sorted(
    leaves: list[Array],
    wanted: list[Array],
    group: list[_Place],
    places: list[list[_Place]],
    size: int,
) -> Array:
    """Minus the squared distances between units by their weights, in an order of no meaning.

    Axes that no group reorders keep theirs, where all of the others are not reordered either.
    """
    gains = jnp.zeros((size, size))
    for place in group:
        alone = sum(p.leaf == place.leaf for g in places for p in g) == 1
        rows = [_rows(leaf[place.leaf], place) for leaf in (wanted, leaves)]
        if not alone:
            rows = [jnp.sort(r, axis=1) for r in rows]
        inner = jnp.matmul(rows[0], rows[1].T, precision="highest")
        squares = [jnp.sum(jnp.square(r), axis=1) for r in rows]
        gains += 2 * inner - squares[0][:, None] - squares[1][None, :]
    return gains


def _assigned(gains: Array) -> Array:
    """For each unit of the reference the unit that takes its place: the largest sum of gains."""
    # A cost that is not finite would let the assignment run forever.
    costs = jnp.where(jnp.isfinite(gains), -gains, 0)
    rows, columns = optax.assignment.hungarian_algorithm(costs)
    return jnp.zeros_like(columns).at[rows].set(columns)


def _of_leaf(places: list[list[_Place]], leaf: int) -> list[list[_Place]]:
    """The places in one array, which then stands alone."""
    return [[p._replace(leaf=0) for p in group if p.leaf == leaf] for group in places]


def _split(shape: tuple[int, ...], place: _Place) -> tuple[int, int, int]:
    """A shape as (all before, units, all after)."""
    units = shape[place.axis] // (place.before * place.after)
    before = math.prod(shape[: place.axis]) * place.before
    return before, units, math.prod(shape[place.axis + 1 :]) * place.after


def _rows(leaf: Array, place: _Place) -> Array:
    """One row per unit."""
    split = leaf.reshape(_split(leaf.shape, place))
    return jnp.moveaxis(split, 1, 0).reshape(split.shape[1], -1)


def _reordered(
    leaves: Sequence[Array], places: list[list[_Place]], orders: Sequence[Array]
) -> list[Array]:
    leaves = list(leaves)
    for group, order in zip(places, orders, strict=True):
        for place in group:
            leaf = leaves[place.leaf]
            split = leaf.reshape(_split(leaf.shape, place))
            leaves[place.leaf] = jnp.take(split, order, axis=1).reshape(leaf.shape)
    return leaves


def _places(
    where: str, params: Params, groups: Sequence[Sequence[Any]]
) -> tuple[list[list[_Place]], list[int]]:
    """The groups as places, and how many units each has."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [_params.path_name(path) for path, _ in leaves]
    cure = 'Write [[("0/weights", 1), ("0/bias", 0), ("1/weights", 0)]]: a list of lists.'
    _checks.instance(where, "groups", groups, Sequence, cure)
    places, sizes, seen = [], [], set()
    for index, group in enumerate(groups):
        name = f"groups[{index}]"
        _checks.instance(where, name, group, Sequence, cure)
        own, units = [], []
        for entry in group:
            is_entry = isinstance(entry, (tuple, list)) and len(entry) in (2, 3)
            is_entry = is_entry and isinstance(entry[0], str)
            wanted = f"{name} must hold pairs (path, axis)"
            _checks.that(where, is_entry, wanted, repr(entry), cure, error=TypeError)
            path, axis, *blocks = entry
            known = f"Known: {', '.join(paths)}."
            _checks.that(where, path in paths, f"{name} must name arrays", repr(path), known)
            shape = leaves[paths.index(path)][1].shape
            is_int = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)
            wanted = f"the axis of {path!r} in {name} must be an int"
            _checks.that(where, is_int, wanted, repr(axis), error=TypeError)
            wanted = f"{name} must name an axis of {path!r}, of shape {shape}"
            is_there = -len(shape) <= int(axis) < len(shape)
            _checks.that(where, is_there, wanted, str(axis))
            axis = int(axis) % len(shape)
            blocks = blocks[0] if blocks else (1, 1)
            is_pair = isinstance(blocks, (tuple, list)) and len(blocks) == 2
            is_pair = is_pair and all(isinstance(b, int) and b > 0 for b in blocks)
            wanted = f"the blocks of {path!r} in {name} must be two whole numbers above 0"
            _checks.that(where, is_pair, wanted, repr(blocks), error=TypeError)
            before, after = blocks
            wanted = f"axis {axis} of {path!r} must be a multiple of its blocks"
            got = f"{shape[axis]} and ({before}, {after})"
            _checks.that(where, shape[axis] % (before * after) == 0, wanted, got)
            place = _Place(paths.index(path), axis, before, after)
            wanted = f"{name} must name an axis that is in no group yet"
            _checks.that(where, place not in seen, wanted, f"{(path, axis)} again")
            seen.add(place)
            own.append(place)
            units.append(shape[axis] // (before * after))
        wanted = f"the axes of {name} must hold equally many units, at least one"
        _checks.that(where, len(set(units)) == 1, wanted, f"{units}")
        places.append(own)
        sizes.append(units[0])
    return places, sizes
