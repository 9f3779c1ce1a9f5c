"""Where a surface lies while it grows: in memory, or in a Zarr group on disk.

On disk it is written block by block. A block's file appears by renaming, whole or not at all, so
that a killed process leaves nothing half written, and a block is finished once all its files are
there. The last of them belongs to ``computed``, which says of every point whether it is computed;
a NaN in ``values`` is a value, not a hole.
"""

import contextlib
import errno
import importlib
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgd import _checks
from jaxgd.sweeps import _fingerprint, _grid, _names
from jaxgd.sweeps._names import COMPUTED

READ_CURE = "Give the folder that sweeps.run was given."
_ANY = "any"  # as the fingerprint of a program: its user says that it is the same
_DIFFERENCES = {
    "program": "its function",
    "constants": "its constants (data or params that the function holds)",
    "coordinates": "its coordinates",
    "values": "what its function returns",
    "data": "its data",
    "processes": "the number of its processes, among which its data are divided",
}


class Sweep(NamedTuple):
    """What a store is to hold.

    Attributes:
      coordinates: the axes by name.
      values: what is computed at each point, by name, as a dtype.
      fingerprint: digests of what determines the values, by name.
      notes: further attributes of the group.
    """

    coordinates: Mapping[str, np.ndarray]
    values: Mapping[str, np.dtype]
    fingerprint: Mapping[str, str]
    notes: Mapping[str, Any]


class Target(NamedTuple):
    """Where the values go.

    Attributes:
      grid: of the sweep.
      path: the folder; None for memory alone.
      arrays: on disk, those of the values and that of ``computed``; none for memory.
      attributes: of the group on disk.
    """

    grid: _grid.Grid
    path: pathlib.Path | None = None
    arrays: Sequence[Any] = ()
    attributes: Mapping[str, Any] = {}


def path_of(where: str, store: Any) -> pathlib.Path:
    """The folder that is meant, whatever links lead there."""
    cure = "Give the path of a folder on this machine; a finished store can be copied anywhere."
    _checks.instance(where, "store", store, (str, os.PathLike), cure)
    name = os.fspath(store)
    _checks.instance(where, "store", name, str, cure)
    is_url = "://" in name or re.match(r"[A-Za-z][\w+.-]+:[/\\]", name) is not None
    _checks.that(where, not is_url, "store must be a folder, not a URL", repr(name), cure)
    expanded = os.path.expanduser(name)
    is_path = bool(name.strip()) and "\0" not in name and not expanded.startswith("~")
    _checks.that(where, is_path, "store must be the path of a folder", repr(name), cure)
    return pathlib.Path(os.path.realpath(expanded))


def open_or_create(
    where: str,
    path: pathlib.Path | None,
    sweep: Sweep | None,
    cut: Callable[[int | None], _grid.Grid],
    batch_size: int | None,
    names: Sequence[str] | None,
) -> Target:
    """Opens the store of this very sweep, and makes it if there is none yet.

    Args:
      where: who asks.
      path: its folder; None for memory.
      sweep: what it is to hold; None for memory.
      cut: cuts the grid into batches of a size, or for None of one that fits.
      batch_size: what was asked for; None takes the store's own.
      names: of the axes, if asked for; None takes the store's own.
    """
    if path is None or sweep is None:
        return Target(cut(batch_size))
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not (path.exists() and any(path.iterdir())):
            _create(where, path, sweep, cut(batch_size))
    except OSError as error:
        raise OSError(f"{where}: the store {path} cannot be made: {error}.") from error
    target = open_store(where, path)
    size = None if batch_size is None else cut(batch_size).batch_size
    _check_same(where, target, sweep, size, names)
    _mend(where, target, sweep)
    return target


def open_store(where: str, path: pathlib.Path, *, is_to_be_read: bool = False) -> Target:
    """Opens a store, of a sweep that goes on or, to be read, of any."""
    zarr = _zarr(where)
    try:
        target = _opened(zarr, path)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        kind = "a folder of this sweep" if is_to_be_read else "a folder of this sweep, or none yet"
        got = f"a folder or file of something else ({problem})"
        cure = READ_CURE if is_to_be_read else "Name another folder, or delete it."
        _checks.that(where, False, f"store must be {kind}: {path}", got, cure)
        raise
    return target


def _opened(zarr: Any, path: pathlib.Path) -> Target:
    group = zarr.open_group(path, mode="r+")
    attributes = group.attrs.asdict()
    # A block of zeros, or of NaN, is a block like any other: it gets its file.
    with zarr.config.set({"array.write_empty_chunks": True}):
        arrays = [group[name] for name in (*attributes["values"], COMPUTED)]
    mask = arrays[-1]
    grid = _grid.Grid(mask.shape, attributes["batch_size"], mask.chunks)
    axes = [group[name] for name in mask.metadata.dimension_names]
    if (
        not isinstance(grid.batch_size, int)
        or grid.batch_size < 1
        or mask.dtype != bool
        or [axis.shape for axis in axes] != [(size,) for size in grid.shape]
        or any((a.shape, a.chunks) != (grid.shape, grid.block_shape) for a in arrays)
        or not {"structure", "jax"} <= set(attributes)
        or not _names.fits(attributes["structure"], len(attributes["values"]))
        or not isinstance(attributes["fingerprint"], dict)
        or "coordinates" not in attributes["fingerprint"]
    ):
        raise ValueError("its metadata were changed")
    return Target(grid, path, arrays, attributes)


def finished(target: Target) -> np.ndarray:
    """Which blocks are on disk, in all their files."""
    blocks = range(_grid.num_blocks(target.grid))
    if target.path is None:
        return np.zeros(len(blocks), bool)
    return np.array([all(f.exists() for f in _files(target, block)) for block in blocks])


def load(
    where: str, target: Target, dtypes: Sequence[np.dtype], finished: np.ndarray
) -> list[np.ndarray]:
    """The values, flat: those of the finished blocks, and room for the others."""
    values = [_grid.room(target.grid, dtype) for dtype in dtypes]
    if finished.any() and not _are_read(target, values):
        for number in np.flatnonzero(finished).tolist():
            block = read(where, target, number)
            for room, new in zip(values, block.values, strict=True):
                room[block.place] = new
    return values


def _are_read(target: Target, values: Sequence[np.ndarray]) -> bool:
    """Reads all blocks at once, in a fraction of the time, unless one of them is damaged."""
    *arrays, mask = target.arrays
    buffers = importlib.import_module("zarr.buffer").cpu
    try:
        mask[...]  # first, so that its memory is free again when the values come
        for array, room in zip(arrays, values, strict=True):
            if array.dtype != room.dtype:
                return False
            out = buffers.NDBuffer.from_numpy_array(room.reshape(target.grid.shape))
            array.get_basic_selection(..., out=out)
    except Exception:  # of whatever decodes the files
        return False
    return True


def axis_names(target: Target) -> tuple[str, ...]:
    """What a store calls its axes."""
    return target.arrays[-1].metadata.dimension_names


def coordinates(where: str, target: Target) -> list[np.ndarray]:
    """The axes of a store, if they are those it was made with."""
    group = _zarr(where).open_group(target.path, mode="r")
    try:
        axes = [np.asarray(group[name][:]) for name in axis_names(target)]
    except Exception:  # of whatever decodes the files
        axes = []
    if _fingerprint.digest(*axes) != target.attributes["fingerprint"]["coordinates"]:
        cure = "Call sweeps.run with this store again: it restores them."
        raise OSError(f"{where}: the coordinates in {target.path} are lost or damaged. {cure}")
    return axes


@contextlib.contextmanager
def saying_what_is_kept(where: str, target: Target, has_data: bool) -> Iterator[None]:
    """Tells whoever interrupts a sweep what is done and where it lies."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if target.path is not None:
            is_finished = finished(target)
            done = f"{is_finished.sum()} of {is_finished.size} blocks are"
            if has_data and not is_finished.any():
                done = "The sums over the batches that were read are"
            interrupt.add_note(
                f"{where}: stopped. {done} in {target.path}; the same call goes on from there."
            )
        raise


def read(where: str, target: Target, block: int) -> _grid.Block:
    """A finished block."""
    region = _grid.region(target.grid, block)
    values = []
    for array, file in zip(target.arrays, _files(target, block), strict=True):
        try:
            values.append(np.asarray(array[region]).ravel())
        except Exception as error:
            raise OSError(
                f"{where}: a block of the store is damaged: {file}. Delete this file: "
                "sweeps.run then computes the block again, and nothing else."
            ) from error
    return _grid.Block(block, _grid.place(target.grid, block), values[:-1])


def write(where: str, target: Target, block: _grid.Block) -> None:
    """Puts a block on disk, and then says that it is computed; in memory there is nothing to do."""
    if target.path is None:
        return
    region = _grid.region(target.grid, block.number)
    shape = tuple(s.stop - s.start for s in region)
    try:
        for array, flat in zip(target.arrays, block.values, strict=False):
            array[region] = flat.reshape(shape)
        target.arrays[-1][region] = np.ones(shape, bool)
    except OSError as error:
        raise OSError(
            f"{where}: block {block.number} cannot be written to {target.path}: {error}. What was "
            "written before is there: mend this, and the same call goes on from there."
        ) from error


def _create(where: str, path: pathlib.Path, sweep: Sweep, grid: _grid.Grid) -> None:
    """Makes a store: whole, in a folder of its own, then renamed."""
    files = _empty(where, sweep, grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:99]}.", dir=path.parent) as own:
        unfinished = pathlib.Path(own, "store")
        for name, content in files.items():
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        try:
            unfinished.rename(path)
        except OSError as error:
            # Another process has made it in the meantime.
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise


def _empty(where: str, sweep: Sweep, grid: _grid.Grid) -> dict[str, bytes]:
    """The files of a store in which nothing is computed yet.

    Made in memory: Zarr writes files in threads of its own, some of them after an error.
    """
    zarr, buffers = _zarr(where), {}
    memory = zarr.storage.MemoryStore(buffers)
    group = zarr.create_group(memory)
    for name, axis in sweep.coordinates.items():
        array = group.create_array(name, shape=axis.shape, dtype=axis.dtype, dimension_names=[name])
        array[:] = axis
    checksum = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]
    for name, dtype in {**sweep.values, COMPUTED: np.dtype(bool)}.items():
        group.create_array(
            name,
            shape=grid.shape,
            chunks=grid.block_shape,
            dtype=dtype,
            fill_value=np.nan if dtype.kind == "f" else np.zeros((), dtype).item(),
            compressors=checksum,
            dimension_names=list(sweep.coordinates),
        )
    group.attrs.update(
        {
            **sweep.notes,
            "jax": jax.__version__,
            "batch_size": grid.batch_size,
            "values": list(sweep.values),
            "fingerprint": dict(sweep.fingerprint),
        }
    )
    with warnings.catch_warnings():
        # Format 3 does not name it yet; without it, xarray warns at every reading.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(memory)
    return {name: buffer.to_bytes() for name, buffer in buffers.items()}


def _check_same(
    where: str,
    target: Target,
    sweep: Sweep,
    batch_size: int | None,
    names: Sequence[str] | None,
) -> None:
    """Refuses the store of another sweep, and says in what they differ."""
    known = target.attributes["fingerprint"]
    names_of_different = [
        name for name, wanted in sweep.fingerprint.items() if known.get(name) not in (wanted, _ANY)
    ]
    shapes = [notes.get("batches") for notes in (target.attributes, sweep.notes)]
    differences = _DIFFERENCES
    if "data" in names_of_different and None not in shapes and shapes[0] != shapes[1]:
        # The program is that of batches of one size: whether its function is the same is unknown.
        names_of_different = [name for name in names_of_different if name != "program"]
        sizes = f"its data (the first batch: {shapes[0]} there, {shapes[1]} here)"
        differences = _DIFFERENCES | {"data": sizes}
    different = [differences[name] for name in names_of_different]
    if batch_size not in (None, target.grid.batch_size):
        different.append(f"its batch_size, {target.grid.batch_size}")
    if names is not None and tuple(names) != axis_names(target):
        different.append(f"its axis_names, {axis_names(target)}")
    cure = "Name another folder, or delete it."
    versions = str(target.attributes["jax"])
    if jax.__version__ not in versions.split(", "):
        cure = f"It was made with jax {versions}, and this is {jax.__version__}. {cure}"
        if different == [_DIFFERENCES["program"]]:
            cure += (
                " Or is it the same function, which another jax writes in other operations? Then "
                f"say so, and the same call goes on: {_says_same(target)}"
            )
    got = f"{target.path} of another one: different are {', '.join(different)}"
    _checks.that(where, not different, "store must belong to this sweep", got, cure)


def _says_same(target: Target) -> str:
    """A line of Python that lets any program go on in a store."""
    fingerprint = {**target.attributes["fingerprint"], "program": _ANY}
    return (
        f"import zarr; zarr.open_group({str(target.path)!r}).attrs['fingerprint'] = {fingerprint}."
    )


def _mend(where: str, target: Target, sweep: Sweep) -> None:
    """Restores lost or damaged axes, and notes under which versions of jax the blocks were made."""
    group = _zarr(where).open_group(target.path, mode="r+")
    for name, axis in zip(axis_names(target), sweep.coordinates.values(), strict=True):
        if not _holds(group[name], axis):
            group[name][:] = axis
    versions = str(target.attributes["jax"])
    if not finished(target).all() and jax.__version__ not in versions.split(", "):
        group.attrs["jax"] = f"{versions}, {jax.__version__}"
    if target.attributes["fingerprint"] != sweep.fingerprint:
        group.attrs["fingerprint"] = dict(sweep.fingerprint)


def _holds(array: Any, wanted: np.ndarray) -> bool:
    try:
        return np.asarray(array[:]).tobytes() == wanted.tobytes()
    except Exception:
        return False


def _files(target: Target, block: int) -> list[pathlib.Path]:
    index = [str(i) for i in _grid.position(target.grid, block)]
    path = pathlib.Path(target.path or "")
    return [path.joinpath(array.basename, "c", *index) for array in target.arrays]


def _zarr(where: str) -> Any:
    _checks.extra(where, "zarr", "store")
    return importlib.import_module("zarr")
