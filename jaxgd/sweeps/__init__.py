"""How a large surface is computed: in chunks, over devices and processes, resumably.

``surfaces.sweep`` is one program for one device that is done or not. ``run`` computes the same
surface from the host: it compiles one program, which computes a few batches of points on every
device, and calls it until all batches are done, while a bar shows how long is left and finished
blocks go to disk. In a job of several processes each computes its share. The batches are those
of ``surfaces.sweep``, point for point, so that the values are its values to the last bit.
"""

import inspect
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple, cast

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # no public address for its barrier
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgd import _checks
from jaxgd.surfaces import Surface
from jaxgd.sweeps import _store
from jaxgd.types import Array, ArrayLike

_WHERE = "sweeps.run"
_NUM_PARTS = 64  # of a sweep, at least: the bar moves and a killed run loses by these
_MOST_POINTS = 2**20  # of a part
_FIRST_BATCH = 1024  # tried where none is given, and kept if it fits
_CACHE = 2**24  # bytes for the values of one batch on a CPU: more do not make it faster
_ALIGNMENT = 64  # bytes
_SHARE = 0.25  # of an accelerator's memory, for the same
_LONGEST_WAIT = 7 * 24 * 60 * 60 * 1000  # milliseconds, of one process for another
_MEETINGS = itertools.count()  # of the processes of a job: each has a name of its own


class _Program(NamedTuple):
    """The function, traced once, apart from the arrays it holds.

    Attributes:
      evaluate: (arrays, point) -> the values, as a flat list.
      arrays: what the function closes over.
      outputs: shapes and dtypes of the values, a pytree.
      text: the program as the compiler gets it.
    """

    evaluate: Callable[[Any, Any], list[Array]]
    arrays: Sequence[Any]
    outputs: Any
    text: Callable[[], str]


class _Grid(NamedTuple):
    """The points, in batches."""

    axes: tuple[Array, ...]
    shape: tuple[int, ...]
    num_points: int
    batch_size: int
    num_batches: int


def run(
    fn: Callable[..., Any],
    *coordinates: ArrayLike,
    batch_size: int | None = None,
    devices: Sequence[Any] | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Surface:
    """Computes a function of k scalars at every point of a grid, however long it takes.

    The result is that of ``surfaces.sweep`` with the same ``batch_size``, bit for bit, whatever
    the number of devices and processes. One program is compiled, whatever the size of the grid,
    and memory holds a few batches and the values. Not to be jitted: it is a driver that runs on
    the host. A function that holds arrays, like that of ``planes.restrict``, may be passed as
    it is: its arrays are arguments of the program, not constants in it.

    With a ``store``, a folder in the Zarr format, each finished block of points is on disk, and
    the same call goes on where an earlier one was killed. While it runs and later,
    ``xarray.open_zarr(store)`` reads it: the values with the coordinates as labelled axes, and
    ``computed``, which says of each point whether it is. The axes are named after the
    parameters of ``fn``, the values after the keys of what it returns. Once the call ends well,
    the store is complete.

    In a job of several processes (``jax.distributed.initialize``) all make the same call, and
    each computes its share on its own devices. With a store that all can reach, any of them may
    die, and the job be started again with another number of processes.

    Args:
      fn: k scalars -> a scalar, or a pytree of scalars.
      *coordinates: k axes, each 1-D and not empty.
      batch_size: how many points a device computes at once, at least 1. None takes a size whose
        memory, according to the compiled program, fits the cache of a CPU or a quarter of an
        accelerator's memory; with a store, the size it was made with.
      devices: the devices of this process to use; None takes all of them.
      store: where to keep what is done; None keeps nothing.
      progress: whether to show a bar, with points per second and the time left.

    Returns:
      A Surface. In a job of several processes each gets the whole of it.

    Raises:
      TypeError: if ``fn`` is not callable or an argument is of the wrong type.
      ValueError: if an axis is not 1-D or is empty, if ``fn`` returns anything but scalars, if
        ``batch_size`` is below 1, if ``devices`` are none or not this process's, or if
        ``store`` was made for another sweep; it says in what they differ.
      OSError: if the store cannot be written, or a block in it not be read.
      RuntimeError: if another process of the job is gone.
      ModuleNotFoundError: if a store is asked for without zarr.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import sweeps
      >>> surface = sweeps.run(
      ...     lambda a, b: 10 * a + b, jnp.arange(3.0), jnp.arange(2.0), progress=False
      ... )
      >>> surface.values
      Array([[ 0.,  1.],
             [10., 11.],
             [20., 21.]], dtype=float32)
    """
    _checks.function(_WHERE, "fn", fn)
    axes = _checks.axes(_WHERE, coordinates)
    _check_known("coordinates", axes)
    if batch_size is not None:
        batch_size = _checks.count(_WHERE, "batch_size", batch_size, least=1)
    mesh = _mesh(devices)
    shape = tuple(axis.size for axis in axes)
    wanted = "the grid must have fewer than 2**30 points"
    got = f"{' x '.join(map(str, shape))}"
    _checks.that(_WHERE, math.prod(shape) < 2**30, wanted, got, "Sweep an axis in parts.")
    program = _trace(fn, axes)
    _check_known("the arrays of fn", program.arrays)
    path = None if store is None else _path(store)

    opened = None
    if path is not None:
        opened = _open(path, fn, axes, program, batch_size, mesh)
        batch_size = batch_size or opened.batch_size
    grid = _grid(axes, batch_size or _agreed(_batch_size(program, axes, mesh)))

    flat = [_empty(grid.num_points, leaf.dtype) for leaf in jax.tree.leaves(program.outputs)]
    if opened is None:
        _compute_all(program, grid, mesh, flat, progress)
    else:
        _compute_missing(program, grid, mesh, flat, progress, opened)
    leaves = [jax.device_put(values.reshape(grid.shape)) for values in flat]
    return Surface(axes, jax.tree.unflatten(jax.tree.structure(program.outputs), leaves))


def _check_known(name: str, arrays: Sequence[Any]) -> None:
    cure = "It drives programs from the host: inside jax.jit use surfaces.sweep."
    is_traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    _checks.that(_WHERE, not is_traced, f"{name} must be known", "traced values", cure)


def _mesh(devices: Sequence[Any] | None) -> Mesh:
    """The devices of this process, in a row."""
    local = jax.local_devices()
    chosen = local if devices is None else devices
    if not isinstance(chosen, Sequence):
        _checks.instance(_WHERE, "devices", chosen, list, "Write devices=[device].")
    known = [device in local for device in chosen]
    cure = "Take them from jax.local_devices()."
    wanted = "devices must be some of this process's, each once"
    fine = bool(known) and all(known) and len(set(chosen)) == len(chosen)
    _checks.that(_WHERE, fine, wanted, str(list(chosen)), cure)
    return Mesh(np.array(chosen), ("points",))


def _path(store: Any) -> pathlib.Path:
    _checks.instance(_WHERE, "store", store, (str, os.PathLike), "Give the name of a folder.")
    return pathlib.Path(store).absolute()


def _grid(axes: tuple[Array, ...], batch_size: int) -> _Grid:
    shape = tuple(axis.size for axis in axes)
    num_points = math.prod(shape)
    batch_size = min(batch_size, num_points)
    return _Grid(axes, shape, num_points, batch_size, -(-num_points // batch_size))


def _empty(size: int, dtype: np.dtype) -> np.ndarray:
    """Room on the host, aligned so that a CPU's array can be that room and need not copy it."""
    num_bytes = size * np.dtype(dtype).itemsize
    room = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + num_bytes].view(dtype)


# The program.


def _trace(fn: Callable[..., Any], axes: tuple[Array, ...]) -> _Program:
    def value(*point: Array) -> Any:
        values = fn(*point)
        _checks.scalar_outputs(_WHERE, "fn", values)
        return jax.tree.map(jnp.asarray, values)

    point = tuple(jax.ShapeDtypeStruct((), axis.dtype) for axis in axes)
    closed, outputs = jax.make_jaxpr(value, return_shape=True)(*point)
    arrays = closed.consts

    def evaluate(arrays: Any, point: Any) -> list[Array]:
        return jex.jaxpr_as_fun(closed.replace(consts=list(arrays)))(*point)

    return _Program(
        evaluate, arrays, outputs, lambda: jax.jit(evaluate).lower(arrays, point).as_text()
    )


def _compile(program: _Program, grid: _Grid, mesh: Mesh, num_slots: int) -> Any:
    """The program of a part: up to ``num_slots`` batches per device, of the given numbers."""
    strides = [math.prod(grid.shape[i + 1 :]) for i in range(len(grid.shape))]

    def of_device(arrays: Any, axes: Any, batches: Array, count: Array) -> list[Array]:
        def one_batch(slot: Array, values: list[Array]) -> list[Array]:
            flat = batches[0, slot] * grid.batch_size + jnp.arange(grid.batch_size, dtype=jnp.int32)
            flat = jnp.minimum(flat, grid.num_points - 1)  # the last batch repeats the last point
            triples = zip(axes, strides, grid.shape, strict=True)
            point = tuple(axis[flat // stride % size] for axis, stride, size in triples)
            new = jax.vmap(lambda point: program.evaluate(arrays, point))(point)
            return [rows.at[0, slot].set(row) for rows, row in zip(values, new, strict=True)]

        size = (1, num_slots, grid.batch_size)
        empty = [jnp.zeros(size, leaf.dtype) for leaf in jax.tree.leaves(program.outputs)]
        return jax.lax.fori_loop(0, count[0], one_batch, empty)

    everywhere, apart = PartitionSpec(), PartitionSpec("points")
    sharded = jax.jit(
        jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(everywhere, everywhere, apart, apart),
            out_specs=apart,
            check_vma=False,
        )
    )
    batches = np.zeros((mesh.size, num_slots), np.int32)
    arguments = (program.arrays, grid.axes, batches, batches[:, 0])
    specs = (everywhere, everywhere, apart, apart)
    placed = [
        jax.device_put(argument, NamedSharding(mesh, spec))
        for argument, spec in zip(arguments, specs, strict=True)
    ]
    compiled = sharded.lower(*placed).compile()
    arrays, axes, *_ = placed

    def compute(batches: np.ndarray, count: np.ndarray) -> list[Array]:
        where = NamedSharding(mesh, apart)
        return compiled(arrays, axes, *jax.device_put((batches, count), where))

    return compute, compiled.memory_analysis()


def _batch_size(program: _Program, axes: tuple[Array, ...], mesh: Mesh) -> int:
    """A batch whose values fit into fast memory, by what the compiled program says it needs."""
    num_points = math.prod(axis.size for axis in axes)
    # Not so large that a small grid of dear points is done, or lost, all at once.
    grid = _grid(axes, min(_FIRST_BATCH, max(1, num_points // _NUM_PARTS)))
    _, memory = _compile(program, grid, mesh, 1)
    device = mesh.devices.flat[0]
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    budget = _CACHE if limit is None else int(_SHARE * limit)
    needed = getattr(memory, "temp_size_in_bytes", 0)
    if needed <= budget:
        return grid.batch_size
    fitting = max(1, budget * grid.batch_size // needed)
    return 2 ** (fitting.bit_length() - 1)


# The driver.


def _compute_all(
    program: _Program, grid: _Grid, mesh: Mesh, flat: list[np.ndarray], progress: bool
) -> None:
    """Computes every point: each process its share of the batches, exchanged at the end."""
    shares = np.array_split(np.arange(grid.num_batches), jax.process_count())
    share = shares[jax.process_index()]
    place = _place_of(grid, share)
    with _bar(place.stop - place.start, 0, progress) as bar:
        for batches, values in _batches(program, grid, mesh, share):
            bar.update(_put(grid, flat, batches, values))
    if len(shares) > 1:
        _exchange(grid, shares, flat)


def _compute_missing(
    program: _Program,
    grid: _Grid,
    mesh: Mesh,
    flat: list[np.ndarray],
    progress: bool,
    store: _store.Store,
) -> None:
    """Computes the blocks that are not in the store, each process its share of them."""
    there = _agreed(_store.finished(store))
    for block in np.flatnonzero(there).tolist():
        _take(store, block, flat)
    share = np.array_split(np.flatnonzero(~there), jax.process_count())[
        jax.process_index()
    ].tolist()
    places = [_store.points_of(store, block) for block in share]
    mine = np.zeros(grid.num_points, bool)
    for place in places:
        mine[place] = True
    batches = _batches_of(grid, places)
    done = grid.num_points - int(mine.sum()) if jax.process_count() == 1 else 0
    num_written = 0
    try:
        with _bar(done + int(mine.sum()), done, progress) as bar:
            for numbers, values in _batches(program, grid, mesh, batches):
                _put(grid, flat, numbers, values, mine)
                reached = (int(numbers[-1]) + 1) * grid.batch_size
                while num_written < len(share) and places[num_written].stop <= reached:
                    place = places[num_written]
                    _keep(store, share[num_written], [values[place] for values in flat])
                    bar.update(place.stop - place.start)
                    num_written += 1
    except KeyboardInterrupt as interrupt:
        num_there = int(_store.finished(store).sum())
        interrupt.add_note(
            f"{_WHERE}: stopped. {num_there} of {there.size} blocks are in {store.path}; "
            "the same call goes on from there."
        )
        raise
    if jax.process_count() > 1:
        _together(lambda: None, store)  # until every process has written its share
        for block in np.setdiff1d(np.flatnonzero(~there), share).tolist():
            _take(store, block, flat)


def _batches_of(grid: _Grid, places: Sequence[slice]) -> np.ndarray:
    """The numbers of the batches that compute the points of some places, in order."""
    size = grid.batch_size
    numbers = [np.arange(p.start // size, (p.stop - 1) // size + 1) for p in places]
    return np.unique(np.concatenate(numbers)) if numbers else np.empty(0, int)


def _batches(
    program: _Program, grid: _Grid, mesh: Mesh, numbers: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The values of the batches of the given numbers, part by part, the next one under way."""
    if numbers.size == 0:
        return
    most = max(1, _MOST_POINTS // grid.batch_size)
    per_part = min(max(-(-numbers.size // _NUM_PARTS), mesh.size), most * mesh.size)
    # A loop over one slot is no loop to a compiler, which may then round otherwise.
    num_slots = max(-(-per_part // mesh.size), min(grid.num_batches, 2))
    compute, _ = _compile(program, grid, mesh, num_slots)
    under_way = None
    for start in range(0, numbers.size, per_part):
        part = np.array_split(numbers[start : start + per_part], mesh.size)
        count = np.array([batches.size for batches in part], np.int32)
        padded = np.zeros((mesh.size, num_slots), np.int32)
        for row, batches in zip(padded, part, strict=True):
            row[: batches.size] = batches
        begun = part, count, compute(padded, count)
        if under_way is not None:
            yield _fetched(*under_way)
        under_way = begun
    if under_way is not None:
        yield _fetched(*under_way)


def _fetched(
    part: list[np.ndarray], count: np.ndarray, values: list[Array]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A part's batches and their values, (number of batches, batch_size), on the host."""
    used = np.arange(values[0].shape[1]) < count[:, None]
    return np.concatenate(part), [np.asarray(leaf)[used] for leaf in values]


def _put(
    grid: _Grid,
    flat: list[np.ndarray],
    batches: np.ndarray,
    values: list[np.ndarray],
    mine: np.ndarray | None = None,
) -> int:
    """Puts the values of batches where they belong; how many points these are."""
    points = (batches[:, None] * grid.batch_size + np.arange(grid.batch_size)).ravel()
    wanted = points < grid.num_points
    if mine is not None:
        wanted[wanted] = mine[points[wanted]]
    points = points[wanted]
    for place, rows in zip(flat, values, strict=True):
        place[points] = rows.ravel()[wanted]
    return points.size


def _place_of(grid: _Grid, share: np.ndarray) -> slice:
    """Where consecutive batches, of the given numbers, lie in the flattened grid."""
    if not share.size:
        return slice(0, 0)
    first, last = int(share[0]), int(share[-1])
    return slice(first * grid.batch_size, min((last + 1) * grid.batch_size, grid.num_points))


def _bar(total: int, done: int, progress: bool) -> Any:
    """A bar on the terminal or in the notebook, of the first process of a job."""
    from tqdm.auto import tqdm  # noqa: PLC0415

    hidden = not progress or jax.process_index() > 0
    return tqdm(total=total, initial=done, unit=" points", unit_scale=True, disable=hidden)


# The store.


def _open(
    path: pathlib.Path,
    fn: Callable[..., Any],
    axes: tuple[Array, ...],
    program: _Program,
    batch_size: int | None,
    mesh: Mesh,
) -> _store.Store:
    """Opens the store of this very sweep; the first process makes it if there is none."""
    fingerprint = _fingerprint(program, axes)

    def make() -> None:
        if _store.open_store(path) is None and jax.process_index() == 0:
            size = batch_size or _batch_size(program, axes, mesh)
            sweep = _described(fn, axes, program, _grid(axes, size).batch_size, fingerprint)
            shape = tuple(axis.size for axis in axes)
            num_parts = max(_NUM_PARTS, 4 * jax.process_count())
            num_points = min(max(1, math.prod(shape) // num_parts), _MOST_POINTS)
            _store.create(path, sweep, _store.block_shape(shape, num_points))

    problem = _problem_of(make)
    if not _agreed(problem is None) or problem is not None:
        reason = problem or "see what the first process says"
        raise OSError(f"{_WHERE}: the store {path} cannot be made: {reason}.") from problem
    opened = _store.open_store(path)
    wanted = f"store must be a folder of this sweep, or none yet: {path}"
    cure = "Name another folder, or delete it."
    _checks.that(_WHERE, opened is not None, wanted, "a folder or file of something else", cure)
    store, attributes = cast(tuple[_store.Store, Mapping[str, Any]], opened)
    size = store.batch_size if batch_size is None else _grid(axes, batch_size).batch_size
    _check_same(path, attributes, {**fingerprint, "batch_size": size})
    return store


def _problem_of(action: Callable[[], None]) -> OSError | None:
    """What the disk has against an action, so that the other processes can be told."""
    try:
        action()
    except OSError as problem:
        return problem
    return None


def _fingerprint(program: _Program, axes: tuple[Array, ...]) -> dict[str, str]:
    """What determines the values, the same in every process."""
    return {
        "program": _store.digest(np.frombuffer(program.text().encode(), np.uint8)),
        "constants": _store.digest(*(_bits(array) for array in program.arrays)),
        "coordinates": _store.digest(*(np.asarray(axis) for axis in axes)),
        "values": str(jax.tree.map(lambda leaf: str(leaf.dtype), program.outputs)),
    }


def _check_same(
    path: pathlib.Path, attributes: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuses the store of another sweep, and says in what they differ."""
    known = {**attributes.get("fingerprint", {}), "batch_size": attributes.get("batch_size")}
    told = {
        "program": "its function",
        "constants": "its constants (data or params that the function holds)",
        "coordinates": "its coordinates",
        "values": "what its function returns",
        "batch_size": f"its batch_size, {known['batch_size']}",
    }
    different = [told[name] for name in wanted if known.get(name) != wanted[name]]
    versions = ""
    if attributes.get("jax") != jax.__version__:
        versions = f"It was made with jax {attributes.get('jax')}, and this is {jax.__version__}. "
    _checks.that(
        _WHERE,
        not different,
        "store must belong to this sweep",
        f"{path} of another one: different are {', '.join(different)}",
        f"{versions}Name another folder, or delete it.",
    )


def _described(
    fn: Callable[..., Any],
    axes: tuple[Array, ...],
    program: _Program,
    batch_size: int,
    fingerprint: dict[str, str],
) -> _store.Sweep:
    """What a new store is to hold, and to say of itself."""
    names = _axis_names(fn, len(axes))
    value_names = _value_names(program.outputs, [*names, _store.COMPUTED])
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(program.outputs)]
    values = dict(zip(value_names, dtypes, strict=True))
    for name, dtype in values.items():
        wanted = f"the output {name} of fn must be of a dtype that a store can hold"
        cure = "Return it as float32: x.astype(jnp.float32)."
        _checks.that(_WHERE, np.dtype(dtype).kind in "biufc", wanted, str(dtype), cure)
    return _store.Sweep(
        coordinates={name: np.asarray(axis) for name, axis in zip(names, axes, strict=True)},
        values=values,
        batch_size=batch_size,
        fingerprint=fingerprint,
        notes={
            "function": getattr(fn, "__qualname__", None) or repr(getattr(fn, "func", fn)),
            "jaxgd": metadata.version("jaxgd"),
            "jax": jax.__version__,
            "dtype": sorted({str(dtype) for dtype in values.values()}),
        },
    )


def _axis_names(fn: Callable[..., Any], num_axes: int) -> list[str]:
    """The names of the function's parameters, where each axis has one."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) >= num_axes and _store.COMPUTED not in positional:
        return positional[:num_axes]
    return [f"coordinate_{i}" for i in range(num_axes)]


def _value_names(outputs: Any, taken: Sequence[str]) -> list[str]:
    """The keys that lead to each value, as one name of its own."""
    names: list[str] = []
    for key_path, _ in jax.tree_util.tree_leaves_with_path(outputs):
        name = jax.tree_util.keystr(key_path, simple=True, separator=".") or "values"
        name = f"values_{name}" if name.isdigit() else name.replace("/", "_")
        while name in (*taken, *names):
            name += "_value"
        names.append(name)
    return names


def _bits(array: Any) -> np.ndarray:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)


def _take(store: _store.Store, block: int, flat: list[np.ndarray]) -> None:
    """Puts a block of the store where it belongs."""
    try:
        values = _store.read(store, block)
    except Exception as error:
        raise OSError(
            f"{_WHERE}: a block of the store is damaged: {_store.damage(store, block)}. Delete "
            "this file: the same call computes the block again, and nothing else."
        ) from error
    place = _store.points_of(store, block)
    for all_values, of_block in zip(flat, values, strict=True):
        all_values[place] = of_block


def _keep(store: _store.Store, block: int, values: list[np.ndarray]) -> None:
    """Puts a block into the store."""
    try:
        _store.write(store, block, values)
    except OSError as error:
        raise OSError(
            f"{_WHERE}: block {block} cannot be written to {store.path}: {error}. What was "
            "written before is there: mend this, and the same call goes on from there."
        ) from error


# The job.


def _agreed(value: Any) -> Any:
    """The first process's value, in all processes."""
    if jax.process_count() == 1:
        return value
    agreed = _together(lambda: multihost_utils.broadcast_one_to_all(np.asarray(value)))
    return agreed.astype(np.asarray(value).dtype) if np.ndim(value) else agreed.item()


def _exchange(grid: _Grid, shares: list[np.ndarray], flat: list[np.ndarray]) -> None:
    """Gives every process the values of all."""
    longest = max(share.size for share in shares) * grid.batch_size
    places = [_place_of(grid, share) for share in shares]
    for values in flat:
        own = values[places[jax.process_index()]]
        padded = np.zeros(longest, values.dtype)
        padded[: own.size] = own
        gathered = _together(lambda padded=padded: multihost_utils.process_allgather(padded))
        for place, rows in zip(places, gathered, strict=True):
            values[place] = rows[: place.stop - place.start]


def _together(action: Callable[[], Any], store: _store.Store | None = None) -> Any:
    """Does what all processes do together, once all are there."""
    client = distributed.global_state.client
    try:
        if client is not None:
            # Collectives give up on a process that comes half a minute late. This does not, and
            # ends if one dies: its heartbeat is missed.
            client.wait_at_barrier(f"{_WHERE} {next(_MEETINGS)}", _LONGEST_WAIT)
        return action()
    except jax.errors.JaxRuntimeError as error:
        kept = "" if store is None else f" What is done is in {store.path}."
        raise RuntimeError(
            f"{_WHERE}: another process of the job is gone.{kept} Start the job again, with as "
            "many processes as you like."
        ) from error
