"""How two minima are joined: by a line, by a curve, and after their units are matched.

Between two trained networks a line mostly crosses a barrier. Some of it is there only because
their hidden units stand in another order: ``align`` reorders them. What is left a curve may
go around: ``connect`` finds one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import primitives

from jaxgd import _checks, descent, planes
from jaxgd.types import Array, ArrayLike, LossFn, Params, PRNGKey

__all__ = [
    "Barrier",
    "Connection",
    "Curve",
    "align",
    "barrier",
    "connect",
    "groups_of",
    "point",
]

_NUM_RANDOM_STARTS = 2  # of align, beside the order given and the one of sorted weights


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


class Curve(NamedTuple):
    """A Bezier curve through the space of params.

    Attributes:
      controls: params with a leading axis: the control points, the ends included.
    """

    controls: Params


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


def barrier(
    loss_fn: LossFn, first: Params, last: Params, *data: Any, num_points: int = 25
) -> Barrier:
    """Computes the losses along the line between two points, and how high they rise.

    The height is the largest ``L((1 - t) a + t b) - ((1 - t) L(a) + t L(b))`` over the points
    t of the line, a being the first end and b the last. It misses a peak between two points.

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
    first, last = _ends(where, loss_fn, first, last)
    num_points = _checks.count(where, "num_points", num_points, least=2)
    checked = _checks.trainable(where, "loss_fn", loss_fn)
    along = planes.restrict(checked, planes.through(first, last), *data)
    coordinates = jnp.linspace(0, 1, num_points, dtype=_wide(first))
    losses = jax.lax.map(along, coordinates)
    straight = (1 - coordinates) * losses[0] + coordinates * losses[-1]
    return Barrier(coordinates, losses, jnp.max(losses - straight))


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


def _bezier(controls: Params, t: Array) -> Params:
    degree = jax.tree.leaves(controls)[0].shape[0] - 1
    weights = [math.comb(degree, k) * (1 - t) ** (degree - k) * t**k for k in range(degree + 1)]

    def mixed(rows: Array) -> Array:
        wide = jnp.result_type(jnp.float32, rows)
        terms = [weight.astype(wide) * rows[k] for k, weight in enumerate(weights)]
        return jnp.sum(jnp.stack(terms), axis=0).astype(rows.dtype)

    return jax.tree.map(mixed, controls)


def connect(
    loss_fn: LossFn,
    first: Params,
    last: Params,
    *data: Any,
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
    first, last = _ends(where, loss_fn, first, last)
    cure = "Call it: optax.sgd(0.1), not optax.sgd." if callable(optimizer) else ""
    _checks.instance(where, "optimizer", optimizer, optax.GradientTransformation, cure)
    num_steps = _checks.count(where, "num_steps", num_steps, least=1)
    _checks.key(where, "key", key)
    num_controls = _checks.count(where, "num_controls", num_controls, least=1)
    value = _checks.trainable(where, "loss_fn", loss_fn)
    key_of_ts, key_of_controls = jax.random.split(key)

    def loss(controls: Params, first: Params, last: Params, *data_and_t: Any) -> Array:
        *own, t = data_and_t
        return value(_bezier(_with_ends(first, controls, last), t), *own)

    trajectory = descent.optimize(
        loss,
        _near_the_line(key_of_controls, first, last, num_controls),
        first,
        last,
        *data,
        optimizer=optimizer,
        num_steps=num_steps,
        per_step=_golden_sequence(key_of_ts, num_steps, _wide(first)),
        record_every=num_steps,
    )
    return Connection(Curve(_with_ends(first, trajectory.params, last)), trajectory)


def _near_the_line(key: PRNGKey, first: Params, last: Params, num_controls: int) -> Params:
    """Control points on the line, each entry moved by a hundredth of the way, at random."""
    noise = optax.tree.random_like(
        key,
        jax.tree.map(lambda f: jnp.zeros((num_controls, *f.shape), _wide(f)), first),
        jax.random.normal,
    )

    def started(first: Array, last: Array, noise: Array) -> Array:
        shares = jnp.arange(1, num_controls + 1, dtype=noise.dtype) / (num_controls + 1)
        shares = shares.reshape(-1, *(1,) * first.ndim)
        way = last.astype(noise.dtype) - first.astype(noise.dtype)
        size = jnp.mean(jnp.abs(way)) if way.size else 0.0
        return (first[None] + shares * way[None] + 0.01 * size * noise).astype(first.dtype)

    return jax.tree.map(started, first, last, noise)


def _golden_sequence(key: PRNGKey, length: int, dtype: Any) -> Array:
    """Numbers in [0, 1): each uniform, and evenly spread together."""
    # In whole numbers modulo 2^32, which lose nothing however long the sequence is.
    start = jax.random.bits(key, (), jnp.uint32)
    bits = start + jnp.arange(length, dtype=jnp.uint32) * jnp.uint32(2654435769)
    return (bits >> 8).astype(dtype) / 2**24


def _with_ends(first: Params, controls: Params, last: Params) -> Params:
    return jax.tree.map(
        lambda f, c, g: jnp.concatenate([f[None], c, g[None]]), first, controls, last
    )


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
    rises, until none does; so the sum never falls. That finds a local maximum: four starts
    (units as they stand; matched by their sorted weights, which finds a mere reordering at
    once; two random ones, always the same) are tried and the best is kept.

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
    wide = [leaf.astype(_wide(leaves)) for leaf in jax.lax.stop_gradient(leaves)]
    wanted = [
        leaf.astype(_wide(leaves)) for leaf in jax.lax.stop_gradient(jax.tree.leaves(reference))
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
    paths = [_path(path) for path, _ in leaves]
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


def groups_of(
    predict_fn: Callable[..., Any], params: Params, x: Any
) -> list[list[tuple[Any, ...]]]:
    """Reads off a network which axes of its arrays count the same hidden units.

    The function is traced, and each axis of each array followed through it: axes that are
    added, multiplied or contracted with each other belong together. Those that meet an axis of
    the input or of the output stay as they are, and are in no group. It is read from
    elementwise operations, products, convolutions, reductions, pooling, transpositions and
    flattening: dense, convolutional and residual networks, normalization and softmax.

    Args:
      predict_fn: ``predict_fn(params, x)``, an array or a pytree of arrays.
      params: a pytree of floating-point arrays.
      x: an array or a pytree of arrays: inputs, of which only shapes and dtypes count.

    Returns:
      The groups, as ``align`` takes them: lists of ``(path, axis)``, and of
      ``(path, axis, (before, after))`` for an axis over flattened units.

    Raises:
      TypeError: if ``predict_fn`` is not callable, or the params are not floating-point.
      ValueError: if there are no params, or hidden units go through an operation of which it
        is not known what becomes of their order.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curves, neurons
      >>> layers = neurons.init_network(jax.random.key(0), (2, 5, 1))
      >>> curves.groups_of(neurons.apply_network, layers, jnp.ones((3, 2)))
      [[('0/weights', 1), ('0/bias', 0), ('1/weights', 0)]]

    Source:
      Ainsworth, Hayase and Srinivasa, Git Re-Basin: merging models modulo permutation
      symmetries, 2023, Sec. 3.2 and App. A.
    """
    where = "curves.groups_of"
    _checks.function(where, "predict_fn", predict_fn)
    params = _checks.params(where, "params", params)
    with _checks.traceable(where, "predict_fn"):
        closed = jax.make_jaxpr(predict_fn)(params, x)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    marks = [_fresh(leaf.shape) for _, leaf in leaves]
    inputs = [_fixed(var.aval) for var in closed.jaxpr.invars[len(leaves) :]]
    for axes in _read(closed, [*marks, *inputs]):
        for axis in axes:
            _fix(axis)
    found: dict[int, list[tuple[Any, ...]]] = {}

    for (path, leaf), axes in zip(leaves, marks, strict=True):
        for axis, mark in enumerate(axes):
            after = leaf.shape[axis]
            before = 1
            for part in mark.parts():
                after //= part.size
                blocks = () if before == after == 1 else ((before, after),)
                before *= part.size
                if part.is_fixed or part.size == 1:
                    continue
                _checks.that(
                    where,
                    not part.unread,
                    "hidden units must go through operations whose effect on their order is known",
                    f"{part.unread} after axis {axis} of {_path(path)!r}",
                    "Write the groups by hand: see curves.align.",
                )
                found.setdefault(id(part), []).append((_path(path), axis, *blocks))
    return list(found.values())


class _Axis:
    """What is known of an axis: with which others it belongs, and whether it must stay.

    Attributes:
      size: its length.
      same: the axis that stands for it since they were joined, if any.
      factors: the axes that it was flattened from, if it was.
      is_fixed: whether its order has a meaning: it is one of the input or of the output.
      unread: the name of an operation of which it is not known what it does to the order.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.same: _Axis | None = None
        self.factors: list[_Axis] | None = None
        self.is_fixed = False
        self.unread = ""

    def parts(self) -> list["_Axis"]:
        """The axes that stand for it, none of them flattened."""
        if self.same is not None:
            return self.same.parts()
        if self.factors is not None:
            return [part for factor in self.factors for part in factor.parts()]
        return [self]


_Axes = list[_Axis]  # of one array


def _fresh(shape: Sequence[int]) -> _Axes:
    return [_Axis(size) for size in shape]


def _fixed(aval: Any) -> _Axes:
    axes = _fresh(aval.shape)
    for axis in axes:
        axis.is_fixed = True
    return axes


def _fix(axis: _Axis) -> None:
    for part in axis.parts():
        part.is_fixed = True


def _leave_unread(axis: _Axis, name: str) -> None:
    for part in axis.parts():
        part.unread = part.unread or name


def _join(a: _Axis, b: _Axis, name: str) -> None:
    """Makes two axes of one length one: what orders the one orders the other."""
    left, right = [a], [b]
    while True:
        # Anew each time: an axis may come twice, and have been joined by now.
        left, right = (
            [p for x in axes for p in x.parts() if p.size != 1] for axes in (left, right)
        )
        if not (left and right):
            return
        if left[0] is right[0]:
            left, right = left[1:], right[1:]
        elif left[0].size == right[0].size:
            left[0].same = right[0]
            right[0].is_fixed |= left[0].is_fixed
            right[0].unread = right[0].unread or left[0].unread
            left, right = left[1:], right[1:]
        else:
            if left[0].size < right[0].size:
                left, right = right, left
            coarse, fine = left[0], right
            size, count = 1, 0
            while count < len(fine) and size < coarse.size:
                size *= fine[count].size
                count += 1
            if size != coarse.size:
                for axis in (*left, *right):
                    _leave_unread(axis, name)
                return
            for factor in fine[:count]:
                factor.is_fixed |= coarse.is_fixed
                factor.unread = factor.unread or coarse.unread
            coarse.factors = fine[:count]
            left, right = left[1:], right[count:]


def _read(closed: Any, arguments: list[_Axes]) -> list[_Axes]:
    """Follows the axes of the arguments through a program, to those of its outputs."""
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    known: dict[Any, _Axes] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {var: _fixed(var.aval) for var in jaxpr.constvars}

    def axes_of(atom: Any) -> _Axes:
        return _fixed(atom.aval) if isinstance(atom, jex.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [axes_of(atom) for atom in eqn.invars]
        inner = [eqn.params[name] for name in ("jaxpr", "call_jaxpr") if name in eqn.params]
        if eqn.primitive in _CALLS and inner:
            outputs = _read(inner[0], operands)
        else:
            shapes = [var.aval.shape for var in eqn.outvars]
            outputs = [_fresh(shape) for shape in shapes]
            _RULES.get(eqn.primitive, _unknown)(eqn, operands, outputs)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [axes_of(atom) for atom in jaxpr.outvars]


def _unknown(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    _lose([a for axes in operands for a in axes], [a for axes in outputs for a in axes], eqn)


def _lose(before: _Axes, after: _Axes, eqn: Any) -> None:
    """Gives up following axes; where none of them could be reordered, that loses nothing."""
    if all(part.is_fixed for axis in before for part in axis.parts() if part.size != 1):
        for axis in after:
            _fix(axis)
    else:
        for axis in (*before, *after):
            _leave_unread(axis, eqn.primitive.name)


def _elementwise(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    for axes in operands:
        if axes:
            _join_all(eqn, axes, outputs[0])


def _join_all(eqn: Any, axes: _Axes, others: _Axes) -> None:
    for axis, other in zip(axes, others, strict=True):
        _join(axis, other, eqn.primitive.name)


def _broadcast(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    for axis, place in zip(operands[0], eqn.params["broadcast_dimensions"], strict=True):
        if axis.size == outputs[0][place].size:
            _join(axis, outputs[0][place], eqn.primitive.name)


def _transposed(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    _join_all(eqn, [operands[0][place] for place in eqn.params["permutation"]], outputs[0])


def _squeezed(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    gone = eqn.params["dimensions"]
    _join_all(eqn, [a for place, a in enumerate(operands[0]) if place not in gone], outputs[0])


def _reshaped(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    # Both are one flat array, read as these axes or as those.
    whole = [_Axis(math.prod(axis.size for axis in axes)) for axes in (operands[0], outputs[0])]
    for flat, axes in zip(whole, (operands[0], outputs[0]), strict=True):
        flat.factors = list(axes)
    if whole[0].size:
        _join(whole[0], whole[1], eqn.primitive.name)


def _reduced(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    gone = eqn.params["axes"]
    _join_all(eqn, [a for place, a in enumerate(operands[0]) if place not in gone], outputs[0])


def _argument_reduced(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    _reduced(eqn, operands, outputs)
    for place in eqn.params["axes"]:
        _leave_unread(operands[0][place], eqn.primitive.name)


def _multiplied(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    (summed, batched) = eqn.params["dimension_numbers"]
    left, right = operands
    for one, other in (*zip(*summed, strict=True), *zip(*batched, strict=True)):
        _join(left[one], right[other], eqn.primitive.name)
    kept = [left[place] for place in batched[0]]
    for axes, used in ((left, (*summed[0], *batched[0])), (right, (*summed[1], *batched[1]))):
        kept += [axis for place, axis in enumerate(axes) if place not in used]
    _join_all(eqn, kept, outputs[0])


def _convolved(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    if eqn.params["feature_group_count"] != 1 or eqn.params["batch_group_count"] != 1:
        _unknown(eqn, operands, outputs)
        return
    numbers = eqn.params["dimension_numbers"]
    inputs, kernel = operands
    batch, channels, *space = numbers.lhs_spec
    made, taken, *window = numbers.rhs_spec
    _join(inputs[batch], outputs[0][numbers.out_spec[0]], eqn.primitive.name)
    _join(inputs[channels], kernel[taken], eqn.primitive.name)
    _join(kernel[made], outputs[0][numbers.out_spec[1]], eqn.primitive.name)
    ordered = [inputs[p] for p in space] + [kernel[p] for p in window]
    for axis in (*ordered, *(outputs[0][p] for p in numbers.out_spec[2:])):
        _fix(axis)


def _pooled(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    windows = eqn.params["window_dimensions"]
    for before, after, window in zip(operands[0], outputs[0], windows, strict=True):
        _join_if(window == 1 and before.size == after.size, before, after, eqn)


def _sliced(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    for before, after in zip(operands[0], outputs[0], strict=True):
        if after.size == 1:  # one place of it is looked at
            _fix(before)
        else:
            _join_if(before.size == after.size, before, after, eqn)


def _padded(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    paddings = eqn.params["padding_config"]
    for before, after, padding in zip(operands[0], outputs[0], paddings, strict=True):
        _join_if(not any(padding), before, after, eqn)


def _join_if(is_kept: bool, before: _Axis, after: _Axis, eqn: Any) -> None:
    """Joins an axis with what became of it, if it has kept its order."""
    if is_kept:
        _join(before, after, eqn.primitive.name)
    else:
        _lose([before], [after], eqn)


def _concatenated(eqn: Any, operands: list[_Axes], outputs: list[_Axes]) -> None:
    joint = eqn.params["dimension"]
    for axes in operands:
        for place, (axis, other) in enumerate(zip(axes, outputs[0], strict=True)):
            _join_if(place != joint, axis, other, eqn)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _wide(tree: Any) -> Any:
    """The dtype to compute with: float32, or the widest of the arrays where that is wider."""
    return jnp.result_type(jnp.float32, *jax.tree.leaves(tree))


def _ends(where: str, loss_fn: Any, first: Params, last: Params) -> tuple[Params, Params]:
    _checks.function(where, "loss_fn", loss_fn)
    first = _checks.params(where, "first", first)
    last = _checks.params(where, "last", last)
    _checks.like(where, "last", last, "first", first)
    return first, last


_Rule = Callable[[Any, list[_Axes], list[_Axes]], None]

_CALLS = {
    primitives.call_p,
    primitives.closed_call_p,
    primitives.custom_jvp_call_p,
    primitives.custom_vjp_call_p,
    primitives.jit_p,
    primitives.remat_p,
}
_ELEMENTWISE = [
    "abs",
    "acos",
    "acosh",
    "add_jaxvals",
    "add",
    "and",
    "asin",
    "asinh",
    "atan2",
    "atan",
    "atanh",
    "cbrt",
    "ceil",
    "clamp",
    "complex",
    "conj",
    "convert_element_type",
    "copy",
    "cos",
    "cosh",
    "digamma",
    "div",
    "eq",
    "erf_inv",
    "erf",
    "erfc",
    "exp2",
    "exp",
    "expm1",
    "floor",
    "ge",
    "gt",
    "imag",
    "integer_pow",
    "is_finite",
    "le",
    "lgamma",
    "log1p",
    "log",
    "logistic",
    "lt",
    "max",
    "min",
    "mul",
    "name",
    "ne",
    "neg",
    "nextafter",
    "not",
    "or",
    "pow",
    "real",
    "reduce_precision",
    "rem",
    "round",
    "rsqrt",
    "select_n",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "sub",
    "tan",
    "tanh",
    "xor",
]
_RULES: dict[Any, _Rule] = {
    **{getattr(primitives, f"{name}_p"): _elementwise for name in _ELEMENTWISE},
    **{
        getattr(primitives, f"reduce_{name}_p"): _reduced
        for name in ("sum", "max", "min", "prod", "and", "or")
    },
    primitives.argmax_p: _argument_reduced,
    primitives.argmin_p: _argument_reduced,
    primitives.broadcast_in_dim_p: _broadcast,
    primitives.concatenate_p: _concatenated,
    primitives.conv_general_dilated_p: _convolved,
    primitives.dot_general_p: _multiplied,
    primitives.reduce_window_max_p: _pooled,
    primitives.reduce_window_p: _pooled,
    primitives.reduce_window_min_p: _pooled,
    primitives.reduce_window_sum_p: _pooled,
    primitives.pad_p: _padded,
    primitives.reshape_p: _reshaped,
    primitives.slice_p: _sliced,
    primitives.squeeze_p: _squeezed,
    primitives.transpose_p: _transposed,
}
