"""What a sweep computes: the function, traced once, and the compiled program that evaluates it.

The compiled program takes the numbers of points, a few batches of them for every device, and
gives the values there. It is the same for all parts of a sweep, whatever is still to be computed.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgd import _batches, _checks
from jaxgd._affine import hoist
from jaxgd._jaxprs import Jaxpr
from jaxgd.sweeps import _grid
from jaxgd.types import Array, ArrayLike, PyTree

NUM_PARTS = 64  # of a sweep, at least: the bar moves and a killed run loses by these
_MOST_POINTS = 2**20  # of a part, on a device
_EVERYWHERE, _APART = PartitionSpec(), PartitionSpec("points")


class Program(NamedTuple):
    """The function, traced once.

    Attributes:
      closed: the function of a point, and of a batch of data if there are any, as a program.
      outputs: shapes and dtypes of the values, a pytree.
      dtypes: of the values.
      axes: the coordinates, on the devices.
      shape: of the grid.
      mesh: the devices, in a row, each of which computes other points; None if the arrays of the
        function lie in shards on several devices, which then compute each point together.
      batch: shapes and dtypes of the first batch of data; empty without data.
      bind: a batch of data -> the function of a point: a pytree, on the devices.
      num_parts: in how many parts a sweep comes, at least.
      compiled: (function of a point, batch_size) -> the program that evaluates it at many points.
    """

    closed: Jaxpr
    outputs: PyTree
    dtypes: Sequence[np.dtype]
    axes: tuple[Array, ...]
    shape: tuple[int, ...]
    mesh: Mesh | None
    batch: Sequence[PyTree]
    bind: Callable[[Sequence[Any]], Any]
    num_parts: int
    compiled: Callable[[Any, int], "_Compiled"]


class _Compiled(NamedTuple):
    """A compiled program.

    Attributes:
      compute: (function of a point, points, counts) -> values: for each device up to
        ``num_slots`` batches.
      num_slots: how many batches a device gets at most.
      num_bytes: what it needs beside its arguments and results.
      num_seconds: how long it took to compile.
    """

    compute: Callable[[Any, np.ndarray, np.ndarray], list[Array]]
    num_slots: int
    num_bytes: int
    num_seconds: float


_WITHOUT_DATA = (
    "Leave data out where fn holds them, as planes.restrict(loss_fn, plane, *data) does, or write "
    "lambda a, b, *batch: loss_fn(planes.point(plane, a, b), *batch)."
)


def trace(
    where: str,
    fn: Callable[..., PyTree],
    axes: tuple[Array, ...],
    devices: Sequence[Any] | None,
    batch: Sequence[PyTree] = (),
    *,
    num_parts: int = 1,
    most_points: int = _MOST_POINTS,
) -> Program:
    """Traces a function of the coordinates, and of a batch of data if there is one.

    Args:
      where: who asks.
      fn: the function.
      axes: of the grid.
      devices: to use.
      batch: what a batch is like.
      num_parts: in how many parts a sweep of the whole grid comes, at least.
      most_points: of a part, on a device.
    """
    point = [jax.ShapeDtypeStruct((), axis.dtype) for axis in axes]

    what = "one per coordinate" + ", and the arrays of a batch" * bool(batch)

    def value(*args: PyTree) -> PyTree:
        def takes_no_batch() -> None:
            inspect.signature(fn).bind(*args)  # so that it is not the signature that says it
            jax.eval_shape(fn, *point)

        wanted = "with data, fn must take the coordinates and the arrays of a batch"
        cure = _WITHOUT_DATA if batch else ""
        calling = _checks.calling(where, "fn", fn, args, what, cure)
        got = "a function of the coordinates alone"
        with _checks.suspecting(where, takes_no_batch, wanted, got, cure), calling:
            values = fn(*args)
        _check_outputs(where, values, is_mean=bool(batch))
        return jax.tree.map(jnp.asarray, values)

    def traced(batch: Sequence[PyTree]) -> PyTree:
        specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, _dtype(leaf)), batch)
        return jax.make_jaxpr(value, return_shape=True)(*point, *specs)

    closed, outputs = traced(batch)
    check_known(where, "the arrays of fn", closed.consts)
    held = [*closed.consts, *jax.tree.leaves(batch)]
    mesh = _mesh(where, devices, held)
    placed = functools.partial(_placed, mesh, _shards(held))
    constants = {id(const): placed(const) for const in closed.consts}
    axes = placed(axes)

    def arrays_of(closed: Jaxpr) -> list[Array]:
        return [constants[id(c)] if id(c) in constants else placed(c) for c in closed.consts]

    @functools.cache
    def preparing(*signature: Any) -> Callable[[Sequence[Any]], Any]:
        """For batches of one kind: what all points share is computed once for each batch."""
        structure, kinds = signature
        specs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]
        closed, _ = traced(jax.tree.unflatten(structure, specs))
        arrays = arrays_of(closed)
        evaluate = functools.partial(_evaluated, closed)
        dtypes = {axis.dtype for axis in axes}
        is_hoisted = len(dtypes) == 1 and jnp.issubdtype(axes[0].dtype, jnp.floating)

        def prepare(arrays: Sequence[Array], batch: Sequence[PyTree]) -> PyTree:
            if not is_hoisted:
                return jax.tree_util.Partial(evaluate, arrays, batch)
            along = functools.partial(evaluate, arrays, batch)
            return hoist(along, len(axes), axes[0].dtype)

        where_to = None if mesh is None else NamedSharding(mesh, _EVERYWHERE)
        prepared = jax.jit(prepare, out_shardings=where_to)
        return lambda batch: prepared(arrays, placed(batch))

    def bind(batch: Sequence[PyTree]) -> PyTree:
        leaves, structure = jax.tree.flatten(tuple(batch))
        kinds = tuple((leaf.shape, _dtype(leaf)) for leaf in leaves)
        return preparing(structure, kinds)(leaves)

    programs: dict[Any, _Compiled] = {}

    def compiled(bound: PyTree, batch_size: int) -> _Compiled:
        leaves, structure = jax.tree.flatten(bound)
        key = structure, tuple((a.shape, a.dtype) for a in leaves), batch_size
        if key not in programs:
            programs[key] = _compile(bound, axes, mesh, batch_size, num_parts, most_points)
        return programs[key]

    bound = jax.tree_util.Partial(functools.partial(_evaluated, closed), arrays_of(closed), [])
    return Program(
        closed=closed,
        outputs=outputs,
        dtypes=[np.dtype(leaf.dtype) for leaf in jax.tree.leaves(outputs)],
        axes=axes,
        shape=tuple(axis.size for axis in axes),
        mesh=mesh,
        batch=batch,
        bind=bind if batch else lambda _: bound,
        num_parts=num_parts,
        compiled=compiled,
    )


def _evaluated(
    closed: Jaxpr, arrays: Sequence[Array], batch: Sequence[PyTree], *point: Array
) -> list[Array]:
    """A traced program, with the arrays that it closes over and the batch as arguments."""
    return jex.jaxpr_as_fun(closed.replace(consts=list(arrays)))(*point, *batch)


def _dtype(leaf: Array) -> np.dtype:
    """The dtype that an array of any library has in JAX."""
    return jax.dtypes.canonicalize_dtype(leaf.dtype)


def check_known(where: str, name: str, arrays: Sequence[ArrayLike]) -> None:
    """Refuses traced values: what drives programs from the host cannot be traced itself."""
    cure = "It drives programs from the host: inside jax.jit use surfaces.sweep."
    is_traced = _checks.is_traced(arrays)
    _checks.that(where, not is_traced, f"{name} must be known", "traced values", cure)


def _check_outputs(where: str, values: PyTree, is_mean: bool) -> None:
    _checks.scalar_outputs(where, "fn", values)
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        dtype = jnp.asarray(leaf).dtype
        at = _checks.place(path)
        at = f" (at {at})" if at else ""
        wanted = f"with data, fn must return means over the rows, floating-point{at}"
        cure = "Take jnp.mean over the rows of the batch."
        fine = not is_mean or jnp.issubdtype(dtype, jnp.inexact)
        _checks.that(where, fine, wanted, f"dtype {dtype}", cure)


def _shards(arrays: Sequence[Array]) -> NamedSharding | None:
    """How to copy an array to all devices that hold shards of the given ones, if any do."""
    for array in arrays:
        sharding = getattr(array, "sharding", None)
        if isinstance(sharding, NamedSharding) and not sharding.is_fully_replicated:
            return NamedSharding(sharding.mesh, _EVERYWHERE)
    return None


def _is_sharded(array: Any) -> bool:
    sharding = getattr(array, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


def _mesh(where: str, devices: Sequence[Any] | None, arrays: Sequence[Array]) -> Mesh | None:
    """The devices of this process, in a row, unless the arrays lie in shards on several."""
    if any(_is_sharded(array) for array in arrays):
        got = "arrays of fn in shards, whose devices compute each point together"
        _checks.that(where, devices is None, "devices must be None", got)
        is_local = all(a.sharding.is_fully_addressable for a in arrays if _is_sharded(a))
        wanted = "the arrays of fn must lie on devices of this process"
        _checks.that(where, is_local, wanted, "shards in other processes")
        return None
    local = jax.local_devices()
    chosen = local if devices is None else devices
    if not isinstance(chosen, Sequence):
        _checks.instance(where, "devices", chosen, list, "Write devices=[device].")
    known = [device in local for device in chosen]
    cure = "Take them from jax.local_devices()."
    wanted = "devices must be some of this process's, each once"
    fine = bool(known) and all(known) and len(set(chosen)) == len(chosen)
    _checks.that(where, fine, wanted, str(list(chosen)), cure)
    return Mesh(np.array(chosen), ("points",))


def _placed(mesh: Mesh | None, shards: NamedSharding | None, arrays: PyTree) -> PyTree:
    """Arrays on the devices: a copy on each, but for those that lie in shards."""
    copied = shards if mesh is None else NamedSharding(mesh, _EVERYWHERE)
    if copied is None:
        return arrays
    return jax.tree.map(lambda a: a if _is_sharded(a) else jax.device_put(a, copied), arrays)


def _apart(mesh: Mesh | None, arrays: PyTree) -> PyTree:
    """Arrays with a row for each device, which gets it."""
    return arrays if mesh is None else jax.device_put(arrays, NamedSharding(mesh, _APART))


def _compile(
    bound: PyTree,
    axes: tuple[Array, ...],
    mesh: Mesh | None,
    batch_size: int,
    num_parts: int,
    most_points: int,
) -> _Compiled:
    """The program of a part: up to ``num_slots`` batches per device, of the given points."""
    num_devices = 1 if mesh is None else mesh.size
    shape = [axis.size for axis in axes]
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    num_batches = -(-math.prod(shape) // batch_size)
    # A loop over one slot is no loop to a compiler, which may then round otherwise.
    num_slots = max(2, -(-num_batches // (num_parts * num_devices)))
    num_slots = min(num_slots, max(2, most_points // batch_size))
    outputs = jax.eval_shape(bound, *(jax.ShapeDtypeStruct((), axis.dtype) for axis in axes))

    def of_device(bound: PyTree, axes: Any, points: Array, count: Array) -> list[Array]:
        def one_batch(slot: Array, values: list[Array]) -> list[Array]:
            triples = zip(axes, strides, shape, strict=True)
            flat = points[0, slot]
            point = tuple(axis[flat // stride % size] for axis, stride, size in triples)
            new = _batches.mapped(bound, point)
            return [rows.at[0, slot].set(row) for rows, row in zip(values, new, strict=True)]

        size = (1, num_slots, batch_size)
        empty = [jnp.zeros(size, leaf.dtype) for leaf in outputs]
        return jax.lax.fori_loop(0, count[0], one_batch, empty)

    if mesh is None:
        part = jax.jit(of_device)
    else:
        specs = (_EVERYWHERE, _EVERYWHERE, _APART, _APART)
        part = jax.jit(
            jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=_APART, check_vma=False)
        )
    points = np.zeros((num_devices, num_slots, batch_size), np.int32)
    numbers = _apart(mesh, (points, points[:, 0, 0]))
    start = time.perf_counter()
    compiled = part.lower(bound, axes, *numbers).compile()
    num_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()

    def compute(bound: PyTree, points: np.ndarray, counts: np.ndarray) -> list[Array]:
        return compiled(bound, axes, *_apart(mesh, (points, counts)))

    num_bytes = getattr(memory, "temp_size_in_bytes", 0)
    return _Compiled(compute, num_slots, num_bytes, num_seconds)


def compute(
    program: Program, bound: PyTree, grid: _grid.Grid, blocks: np.ndarray, bar: Any
) -> Iterator[_grid.Block]:
    """Computes blocks of the given numbers, in order; the bar moves by the points of each."""
    points = np.empty(0, np.int32)
    values = [np.empty(0, dtype) for dtype in program.dtypes]
    waiting = [(block, _grid.place(grid, block)) for block in reversed(blocks.tolist())]
    for new_points, new_values in _parts(program, bound, _grid.batches(grid, blocks)):
        points = np.concatenate([points, new_points])
        values = [np.concatenate(pair) for pair in zip(values, new_values, strict=True)]
        while waiting and waiting[-1][1].stop <= points[-1] + 1:
            block, place = waiting.pop()
            start = int(np.searchsorted(points, place.start))
            stop = start + place.stop - place.start
            yield _grid.Block(block, place, [rows[start:stop] for rows in values])
            bar.update(stop - start)
        rest = int(np.searchsorted(points, waiting[-1][1].start)) if waiting else points.size
        points, values = points[rest:], [rows[rest:] for rows in values]


def values(program: Program, bound: PyTree, batches: np.ndarray) -> list[np.ndarray]:
    """The values at batches of points, flat."""
    new = [values for _, values in _parts(program, bound, batches)]
    empty = [np.empty(0, dtype) for dtype in program.dtypes]
    return [np.concatenate(leaves) for leaves in zip(empty, *new, strict=True)]


def _parts(
    program: Program, bound: PyTree, batches: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The points of batches and their values, part by part, the next one under way."""
    num_batches, size = batches.shape
    if num_batches == 0:
        return
    compiled = program.compiled(bound, size)
    num_devices = 1 if program.mesh is None else program.mesh.size
    # As many parts as the batches allow, so that all devices have something to do.
    per_part = max(-(-num_batches // program.num_parts), num_devices)
    per_part = min(per_part, compiled.num_slots * num_devices)
    under_way = None
    for start in range(0, num_batches, per_part):
        part = batches[start : start + per_part]
        shares = np.array_split(part, num_devices)
        counts = np.array([share.shape[0] for share in shares], np.int32)
        padded = np.zeros((num_devices, compiled.num_slots, size), np.int32)
        for row, share in zip(padded, shares, strict=True):
            row[: share.shape[0]] = share
        begun = part, counts, compiled.compute(bound, padded, counts)
        if under_way is not None:
            yield _fetched(*under_way)
        under_way = begun
    if under_way is not None:
        yield _fetched(*under_way)


def _fetched(
    part: np.ndarray, counts: np.ndarray, values: list[Array]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The points of a part and their values, on the host."""
    is_used = np.arange(values[0].shape[1]) < counts[:, None]
    return part.ravel(), [np.asarray(leaf)[is_used].ravel() for leaf in values]
