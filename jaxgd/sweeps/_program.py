"""What a sweep computes: the function, traced once, and the compiled program that evaluates it.

The compiled program takes the numbers of points, a few batches of them for every device, and
gives the values there. It is the same for all parts of a sweep, whatever is still to be computed.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgd import _checks
from jaxgd.sweeps import _grid
from jaxgd.types import Array

_NUM_PARTS = 64  # of a sweep, at least: the bar moves and a killed run loses by these
_MOST_POINTS = 2**20  # of a part, on a device
_FIRST_BATCH = 1024  # tried where none is given, and kept if it fits
_CACHE = 2**24  # bytes for the values of one batch on a CPU: more do not make it faster
_SHARE = 0.25  # of an accelerator's memory, for the same
_EVERYWHERE, _APART = PartitionSpec(), PartitionSpec("points")


class Program(NamedTuple):
    """The function, traced once.

    Attributes:
      closed: the function as a closed program.
      outputs: shapes and dtypes of the values, a pytree.
      dtypes: of the values.
      axes: the coordinates, on the devices.
      shape: of the grid.
      mesh: the devices, in a row, each of which computes other points; None if the arrays of the
        function lie in shards on several devices, which then compute each point together.
      bound: the function of a point -> the values, as a flat list; a pytree on the devices.
      compiled: batch_size -> the program that evaluates ``bound`` at many points.
    """

    closed: Any
    outputs: Any
    dtypes: Sequence[np.dtype]
    axes: tuple[Array, ...]
    shape: tuple[int, ...]
    mesh: Mesh | None
    bound: Any
    compiled: Callable[[int], "_Compiled"]


class _Compiled(NamedTuple):
    """A compiled program.

    Attributes:
      compute: (points, counts) -> values: for each device up to ``num_slots`` batches.
      num_slots: how many batches a device gets at most.
      num_bytes: what it needs beside its arguments and results.
    """

    compute: Callable[[np.ndarray, np.ndarray], list[Array]]
    num_slots: int
    num_bytes: int


def trace(
    where: str,
    fn: Callable[..., Any],
    axes: tuple[Array, ...],
    devices: Sequence[Any] | None,
) -> Program:
    """Traces a function of the coordinates."""

    def value(*point: Array) -> Any:
        with _checks.traceable(where, "fn"):
            values = fn(*point)
        _check_outputs(where, values)
        return jax.tree.map(jnp.asarray, values)

    point = [jax.ShapeDtypeStruct((), axis.dtype) for axis in axes]
    closed, outputs = jax.make_jaxpr(value, return_shape=True)(*point)
    check_known(where, "the arrays of fn", closed.consts)
    mesh = _mesh(where, devices, closed.consts)
    constants = _placed(mesh, closed.consts)

    def evaluate(constants: Any, *point: Array) -> list[Array]:
        return jex.jaxpr_as_fun(closed.replace(consts=list(constants)))(*point)

    bound = jax.tree_util.Partial(evaluate, constants)
    axes = _placed(mesh, axes)

    @functools.cache
    def compiled(batch_size: int) -> _Compiled:
        return _compile(bound, axes, mesh, batch_size)

    return Program(
        closed=closed,
        outputs=outputs,
        dtypes=[np.dtype(leaf.dtype) for leaf in jax.tree.leaves(outputs)],
        axes=axes,
        shape=tuple(axis.size for axis in axes),
        mesh=mesh,
        bound=bound,
        compiled=compiled,
    )


def check_known(where: str, name: str, arrays: Sequence[Any]) -> None:
    """Refuses traced values: what drives programs from the host cannot be traced itself."""
    cure = "It drives programs from the host: inside jax.jit use surfaces.sweep."
    is_traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    _checks.that(where, not is_traced, f"{name} must be known", "traced values", cure)


def _check_outputs(where: str, values: Any) -> None:
    _checks.scalar_outputs(where, "fn", values)
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        is_key = jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
        at = jax.tree_util.keystr(path, simple=True, separator="/")
        wanted = "fn must return numbers" + (f" (at {at})" if at else "")
        _checks.that(where, not is_key, wanted, "a PRNG key", "Return what is drawn with it.")


def _mesh(where: str, devices: Sequence[Any] | None, arrays: Sequence[Any]) -> Mesh | None:
    """The devices of this process, in a row, unless the arrays lie in shards on several."""
    if any(not array.sharding.is_fully_replicated for array in arrays):
        got = "arrays of fn in shards, whose devices compute each point together"
        _checks.that(where, devices is None, "devices must be None", got)
        is_local = all(array.is_fully_addressable for array in arrays)
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


def _placed(mesh: Mesh | None, arrays: Any, spec: PartitionSpec = _EVERYWHERE) -> Any:
    """Arrays on the devices: a copy on each, unless the spec says otherwise."""
    if mesh is None:
        return arrays
    return jax.device_put(arrays, NamedSharding(mesh, spec))


def _compile(bound: Any, axes: tuple[Array, ...], mesh: Mesh | None, batch_size: int) -> _Compiled:
    """The program of a part: up to ``num_slots`` batches per device, of the given points."""
    num_devices = 1 if mesh is None else mesh.size
    shape = [axis.size for axis in axes]
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    num_batches = -(-math.prod(shape) // batch_size)
    # A loop over one slot is no loop to a compiler, which may then round otherwise.
    num_slots = max(2, -(-num_batches // (_NUM_PARTS * num_devices)))
    num_slots = min(num_slots, max(2, _MOST_POINTS // batch_size))
    outputs = jax.eval_shape(bound, *(axis[0] for axis in axes))

    def of_device(bound: Any, axes: Any, points: Array, count: Array) -> list[Array]:
        def one_batch(slot: Array, values: list[Array]) -> list[Array]:
            triples = zip(axes, strides, shape, strict=True)
            flat = points[0, slot]
            point = tuple(axis[flat // stride % size] for axis, stride, size in triples)
            new = jax.vmap(lambda point: bound(*point))(point)
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
    numbers = _placed(mesh, (points, points[:, 0, 0]), _APART)
    compiled = part.lower(bound, axes, *numbers).compile()
    memory = compiled.memory_analysis()

    def compute(points: np.ndarray, counts: np.ndarray) -> list[Array]:
        return compiled(bound, axes, *_placed(mesh, (points, counts), _APART))

    return _Compiled(compute, num_slots, getattr(memory, "temp_size_in_bytes", 0))


def batch_size(program: Program) -> int:
    """A batch whose values fit into fast memory, by what the compiled program says it needs."""
    num_points = math.prod(program.shape)
    # Not so large that a small grid of dear points is done, or lost, all at once.
    first = min(_FIRST_BATCH, max(1, num_points // _NUM_PARTS))
    needed = program.compiled(first).num_bytes
    device = next(iter(program.axes[0].devices()))
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    budget = _CACHE if limit is None else int(_SHARE * limit)
    if needed <= budget:
        return first
    fitting = max(1, budget * first // needed)
    return 2 ** (fitting.bit_length() - 1)


def compute(program: Program, grid: _grid.Grid, blocks: np.ndarray) -> Iterator[_grid.Block]:
    """Computes blocks of the given numbers, in order."""
    points = np.empty(0, np.int32)
    values = [np.empty(0, dtype) for dtype in program.dtypes]
    waiting = [(block, _grid.place(grid, block)) for block in reversed(blocks.tolist())]
    for new_points, new_values in _parts(program, _grid.batches(grid, blocks)):
        points = np.concatenate([points, new_points])
        values = [np.concatenate(pair) for pair in zip(values, new_values, strict=True)]
        while waiting and waiting[-1][1].stop <= points[-1] + 1:
            block, place = waiting.pop()
            start = int(np.searchsorted(points, place.start))
            stop = start + place.stop - place.start
            yield _grid.Block(block, place, [rows[start:stop] for rows in values])
        rest = int(np.searchsorted(points, waiting[-1][1].start)) if waiting else points.size
        points, values = points[rest:], [rows[rest:] for rows in values]


def _parts(program: Program, batches: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The points of batches and their values, part by part, the next one under way."""
    num_batches, size = batches.shape
    if num_batches == 0:
        return
    compiled = program.compiled(size)
    num_devices = 1 if program.mesh is None else program.mesh.size
    # As many parts as the batches allow, so that all devices have something to do.
    per_part = min(
        max(-(-num_batches // _NUM_PARTS), num_devices), compiled.num_slots * num_devices
    )
    under_way = None
    for start in range(0, num_batches, per_part):
        part = batches[start : start + per_part]
        shares = np.array_split(part, num_devices)
        counts = np.array([share.shape[0] for share in shares], np.int32)
        padded = np.zeros((num_devices, compiled.num_slots, size), np.int32)
        for row, share in zip(padded, shares, strict=True):
            row[: share.shape[0]] = share
        begun = part, counts, compiled.compute(padded, counts)
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
