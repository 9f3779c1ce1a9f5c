"""Hidden units of one network reordered to match those of another."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import _checks
from jaxgd.planes import _numbers
from jaxgd.types import Array, Params

_NUM_PRICE_ROUNDS = 32  # of _assigned; more make the next assignment hardly faster
_NUM_IRREGULAR_STARTS = 1  # of align, beside the order given and the one of sorted weights


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


_Groups: TypeAlias = tuple[tuple[_Place, ...], ...]


class _Match(NamedTuple):
    """What the matching carries from group to group.

    Attributes:
      orders: shape (groups, largest size): the order of each group's units; what lies beyond its
        size stands for itself.
      prices: like ``orders``: of the units, from the last assignment; see ``_assigned``.
      similarity: the sum of products under these orders.
      is_settled: shape (groups,): whether a group's order is the best, given all others.
    """

    orders: Array
    prices: Array
    similarity: Array
    is_settled: Array


def align(params: Params, reference: Params, groups: Sequence[Sequence[Any]]) -> Params:
    """Reorders hidden units to match those of a reference: the function stays the same.

    Maximizes the sum of products ``<aligned, reference>`` over all arrays, which minimizes
    their distance, by one group after the other: given the orders of all others, the best
    order of one group is a linear assignment. A group's new order is kept only where the sum
    rises, until none does; so the sum never falls. That finds a local maximum: three starts
    (units as they stand; matched by their sorted weights, which finds a mere reordering at
    once; a random order, always the same) are tried and the best is kept. Nearly all of the
    time goes into the assignments: some ten to thirty of each group.

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
    if not places:
        return params
    leaves, structure = jax.tree.flatten(params)
    aligned = partial(_aligned, places, sizes)
    return structure.unflatten(
        _numbers.on_any_mesh(aligned, leaves, jax.tree.leaves(reference), like=lambda: leaves)
    )


@partial(jax.jit, static_argnums=(0, 1))
def _aligned(
    places: _Groups, sizes: tuple[int, ...], leaves: list[Array], wanted: list[Array]
) -> list[Array]:
    with jax.numpy_dtype_promotion("standard"):
        orders = _matched(_scaled(leaves), _scaled(wanted), places, sizes)
    return _reordered(leaves, places, orders)


def _scaled(leaves: list[Array]) -> list[Array]:
    """All arrays over one power of two, so that their products neither overflow nor vanish."""
    dtype = _numbers.wide(leaves)
    wide = [leaf.astype(dtype) for leaf in jax.lax.stop_gradient(leaves)]
    scale = _numbers.scale_of(*(jnp.where(jnp.isfinite(leaf), leaf, 0) for leaf in wide))
    return [leaf / scale for leaf in wide]


def _matched(
    leaves: list[Array], wanted: list[Array], places: _Groups, sizes: tuple[int, ...]
) -> list[Array]:
    """The best order of each group's units, over several starts.

    All groups take their turns in one compiled assignment, that of the largest.
    """
    touched = sorted({place.leaf for group in places for place in group})
    # A group is to be solved again where a group rose that stands in one of its arrays.
    is_neighbour = jnp.array(
        [
            [any(p != q and p.leaf == q.leaf for p in group for q in other) for other in places]
            for group in places
        ]
    )

    def cut(orders: Array) -> list[Array]:
        return [order[:size] for order, size in zip(orders, sizes, strict=True)]

    def similarity_of(orders: Array) -> Array:
        now = _reordered(leaves, places, cut(orders))
        return sum(
            (jnp.vdot(now[i], wanted[i], precision="highest") for i in touched), jnp.zeros(())
        )

    def gains_of(index: int, orders: Array) -> Array:
        gains = jnp.zeros((sizes[index],) * 2)
        for place in places[index]:
            # All other axes as they stand now, those of the same group included.
            others = tuple(tuple(p for p in g if p != place) for g in places)
            now = _reordered([leaves[place.leaf]], _of_leaf(others, place.leaf), cut(orders))[0]
            rows = [_rows(leaf, place) for leaf in (wanted[place.leaf], now)]
            gains += jnp.matmul(rows[0], rows[1].T, precision="highest")
        return _padded(gains, max(sizes))

    def solved(index: Array, match: _Match) -> _Match:
        branches = [partial(gains_of, i) for i in range(len(places))]
        gains = jax.lax.switch(index, branches, match.orders)
        order, prices = _assigned(gains, match.prices[index])
        tried = match.orders.at[index].set(order)
        reached = similarity_of(tried)
        rises = reached > match.similarity
        return _Match(
            orders=jnp.where(rises, tried, match.orders),
            prices=match.prices.at[index].set(prices),
            similarity=jnp.where(rises, reached, match.similarity),
            is_settled=match.is_settled.at[index].set(True) & ~(rises & is_neighbour[index]),
        )

    def sweep(match: _Match) -> _Match:
        def visited(index: Array, match: _Match) -> _Match:
            is_settled = match.is_settled[index]
            return jax.lax.cond(is_settled, lambda match: match, partial(solved, index), match)

        return jax.lax.fori_loop(0, len(places), visited, match)

    def climbed(start: tuple[Array, Array]) -> _Match:
        orders, prices = start
        match = _Match(orders, prices, similarity_of(orders), jnp.zeros(len(places), bool))
        return jax.lax.while_loop(lambda match: ~jnp.all(match.is_settled), sweep, match)

    shape = (len(places), max(sizes))
    units = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    free = jnp.zeros(shape)
    gains = [
        _padded(_sum_of_sorted(leaves, wanted, group, places, size), shape[1])
        for group, size in zip(places, sizes, strict=True)
    ]
    sorted_orders, prices = jax.lax.map(lambda pair: _assigned(*pair), (jnp.stack(gains), free))
    starts = [(units, free), (sorted_orders.astype(units.dtype), prices)]
    for number in range(_NUM_IRREGULAR_STARTS):
        drawn = [_irregular(number, size, shape[1]) for size in sizes]
        starts.append((jnp.asarray(np.stack(drawn), units.dtype), free))
    found = jax.lax.map(climbed, jax.tree.map(lambda *rows: jnp.stack(rows), *starts))
    best = jnp.argmax(jnp.where(jnp.isnan(found.similarity), -jnp.inf, found.similarity))
    return cut(found.orders[best])


def _irregular(number: int, size: int, length: int) -> np.ndarray:
    """An order without a pattern, other ones for every number, of so many units; others stay."""
    places = np.arange(1, size + 1, dtype=float)
    return np.r_[np.argsort(np.sin(1000 * (1 + number) * places**2)), np.arange(size, length)]


def _padded(gains: Array, size: int) -> Array:
    """Gains of more units, each of which takes its own place."""
    num_added = size - len(gains)
    added = jnp.where(jnp.eye(num_added, dtype=bool), 0.0, -jnp.inf)
    padded = jnp.pad(gains, (0, num_added), constant_values=-jnp.inf)
    return padded.at[len(gains) :, len(gains) :].set(added)


def _sum_of_sorted(
    leaves: list[Array],
    wanted: list[Array],
    group: tuple[_Place, ...],
    places: _Groups,
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


def _assigned(gains: Array, prices: Array) -> tuple[Array, Array]:
    """For each unit of the reference the unit that takes its place: the largest sum of gains.

    A price per unit changes no order, for each unit is taken once. At the right prices each unit
    of the reference takes what is best for itself, and all take different ones: with those of a
    like problem the Hungarian algorithm has little left to do.

    Args:
      gains: shape (units, units): of each unit of the reference, by each unit.
      prices: shape (units,).

    Returns:
      The units in order, and prices at which each is the best for its place, or nearly so.
    """
    costs = prices[None, :] - gains
    rows, columns = optax.assignment.hungarian_algorithm(
        costs - jnp.min(costs, axis=1, keepdims=True)
    )
    order = jnp.zeros_like(columns).at[rows].set(columns)
    # How much less each unit gains than the unit taken: shortest ways through these are prices.
    losses = jnp.take_along_axis(gains, order[:, None], axis=1) - gains

    def shortened(_: int, ways: Array) -> Array:
        return jnp.minimum(ways, jnp.min(losses + ways[order][:, None], axis=0))

    return order, -jax.lax.fori_loop(0, _NUM_PRICE_ROUNDS, shortened, jnp.zeros(len(gains)))


def _of_leaf(places: _Groups, leaf: int) -> _Groups:
    """The places in one array, which then stands alone."""
    return tuple(tuple(p._replace(leaf=0) for p in group if p.leaf == leaf) for group in places)


def _split(shape: tuple[int, ...], place: _Place) -> tuple[int, int, int]:
    """A shape as (all before, units, all after)."""
    units = shape[place.axis] // (place.before * place.after)
    before = math.prod(shape[: place.axis]) * place.before
    return before, units, math.prod(shape[place.axis + 1 :]) * place.after


def _rows(leaf: Array, place: _Place) -> Array:
    """One row per unit."""
    split = leaf.reshape(_split(leaf.shape, place))
    return jnp.moveaxis(split, 1, 0).reshape(split.shape[1], -1)


def _reordered(leaves: Sequence[Array], places: _Groups, orders: Sequence[Array]) -> list[Array]:
    leaves = list(leaves)
    for group, order in zip(places, orders, strict=True):
        for place in group:
            leaf = leaves[place.leaf]
            split = leaf.reshape(_split(leaf.shape, place))
            leaves[place.leaf] = jnp.take(split, order, axis=1).reshape(leaf.shape)
    return leaves


def _places(
    where: str, params: Params, groups: Sequence[Sequence[Any]]
) -> tuple[_Groups, tuple[int, ...]]:
    """The groups as places, and how many units each has."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [_checks.place(path) for path, _ in leaves]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    wanted, cure = "the paths of params must differ", "Leave '/' out of the keys."
    _checks.that(where, not twice, wanted, ", ".join(map(repr, twice)), cure)
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
        places.append(tuple(own))
        sizes.append(units[0])
    return tuple(places), tuple(sizes)
