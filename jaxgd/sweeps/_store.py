"""Where a surface lies while it grows: a Zarr group on disk, written block by block.

The grid is cut into blocks of consecutive points. A block's file appears by renaming, whole or
not at all, so that a killed process leaves nothing half written, and a block is finished once
all its files are there. The last of them belongs to ``computed``, which says of every point
whether it is computed; a NaN in ``values`` is a value, not a hole.
"""

import hashlib
import importlib
import json
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgd import _checks

COMPUTED = "computed"


class Sweep(NamedTuple):
    """What a store is to hold.

    Attributes:
      coordinates: the axes by name.
      values: what is computed at each point, by name, as a dtype.
      batch_size: how many points are computed at once.
      fingerprint: digests of what determines the values, by name.
      notes: further attributes of the group.
    """

    coordinates: Mapping[str, np.ndarray]
    values: Mapping[str, np.dtype]
    batch_size: int
    fingerprint: Mapping[str, str]
    notes: Mapping[str, Any]


class Store(NamedTuple):
    """A store, opened.

    Attributes:
      path: its folder.
      batch_size: how many points were computed at once when it was made.
      shape: of the grid.
      block_shape: of a block.
      arrays: those of the values, and that of ``computed``.
    """

    path: pathlib.Path
    batch_size: int
    shape: tuple[int, ...]
    block_shape: tuple[int, ...]
    arrays: Sequence[Any]


def digest(*arrays: np.ndarray) -> str:
    """A fingerprint of arrays: their dtypes, shapes and bytes."""
    sha = hashlib.sha256()
    for a in arrays:
        sha.update(f"{a.dtype} {a.shape};".encode())
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


def block_shape(shape: Sequence[int], num_points: int) -> tuple[int, ...]:
    """The shape of blocks of about so many points, each consecutive in the flattened grid."""
    block: list[int] = []
    for size in reversed(shape):
        num_pieces = -(-size // max(num_points, 1))
        block.insert(0, -(-size // num_pieces))  # the pieces about equal
        num_points //= size
    return tuple(block)


def create(path: pathlib.Path, sweep: Sweep, block: tuple[int, ...]) -> None:
    """Makes a store, unless there is one: whole, under another name, then renamed."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        return
    unfinished = path.with_name(f".{path.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name, content in _empty(sweep, block).items():
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _empty(sweep: Sweep, block: tuple[int, ...]) -> dict[str, bytes]:
    """The files of a store in which nothing is computed yet.

    Made in memory: Zarr writes files in threads of its own, some of them after an error.
    """
    zarr, buffers = _zarr(), {}
    memory = zarr.storage.MemoryStore(buffers)
    group = zarr.create_group(memory)
    names = list(sweep.coordinates)
    for name, axis in sweep.coordinates.items():
        array = group.create_array(name, shape=axis.shape, dtype=axis.dtype, dimension_names=[name])
        array[:] = axis
    checksum = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]
    for name, dtype in {**sweep.values, COMPUTED: np.dtype(bool)}.items():
        group.create_array(
            name,
            shape=tuple(axis.size for axis in sweep.coordinates.values()),
            chunks=block,
            dtype=dtype,
            fill_value=np.nan if dtype.kind == "f" else np.zeros((), dtype).item(),
            compressors=checksum,
            dimension_names=names,
        )
    group.attrs.update(
        {
            **sweep.notes,
            "batch_size": sweep.batch_size,
            "values": list(sweep.values),
            "fingerprint": dict(sweep.fingerprint),
        }
    )
    with warnings.catch_warnings():
        # Format 3 does not name it yet; without it, xarray warns at every reading.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(memory)
    return {name: buffer.to_bytes() for name, buffer in buffers.items()}


def open_store(path: pathlib.Path) -> tuple[Store, Mapping[str, Any]] | None:
    """Opens a store, with its attributes; None if the folder holds no store of a sweep."""
    try:
        zarr = _zarr()
        group = zarr.open_group(path, mode="r+")
        attributes = group.attrs.asdict()
        # A block of zeros, or of NaN, is a block like any other: it gets its file.
        with zarr.config.set({"array.write_empty_chunks": True}):
            arrays = [group[name] for name in (*attributes["values"], COMPUTED)]
    except (FileNotFoundError, KeyError, ValueError, json.JSONDecodeError):
        return None
    mask = arrays[-1]
    return Store(path, attributes["batch_size"], mask.shape, mask.chunks, arrays), attributes


def num_blocks(store: Store) -> int:
    """How many blocks the grid is cut into."""
    return math.prod(_blocks_per_axis(store))


def points_of(store: Store, block: int) -> slice:
    """Where a block lies in the flattened grid."""
    starts = [s.start for s in _region(store, block)]
    stops = [s.stop for s in _region(store, block)]
    shape = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    first = int(np.ravel_multi_index(starts, store.shape))
    return slice(first, first + math.prod(shape))


def finished(store: Store) -> np.ndarray:
    """Which blocks are on disk, in all their files."""
    files = [_files(store, block) for block in range(num_blocks(store))]
    return np.array([all(file.exists() for file in of_block) for of_block in files])


def write(store: Store, block: int, values: Sequence[np.ndarray]) -> None:
    """Puts a block on disk, and then says that it is computed."""
    region = _region(store, block)
    shape = tuple(s.stop - s.start for s in region)
    mask = np.ones(math.prod(shape), bool)
    for array, flat in zip(store.arrays, [*values, mask], strict=True):
        array[region] = flat.reshape(shape)


def read(store: Store, block: int) -> list[np.ndarray]:
    """A block's values, flat."""
    region = _region(store, block)
    *values, _ = [np.asarray(array[region]).ravel() for array in store.arrays]
    return values


def damage(store: Store, block: int) -> str:
    """The first file of a block that cannot be read, by name."""
    for array, file in zip(store.arrays, _files(store, block), strict=True):
        try:
            array[_region(store, block)]
        except Exception:
            return os.fspath(file)
    return os.fspath(_files(store, block)[0].parent)


def _blocks_per_axis(store: Store) -> tuple[int, ...]:
    pairs = zip(store.shape, store.block_shape, strict=True)
    return tuple(-(-size // block) for size, block in pairs)


def _region(store: Store, block: int) -> tuple[slice, ...]:
    """Where a block lies in the grid."""
    index = np.unravel_index(block, _blocks_per_axis(store))
    triples = zip(index, store.block_shape, store.shape, strict=True)
    return tuple(slice(int(i) * b, min((int(i) + 1) * b, size)) for i, b, size in triples)


def _files(store: Store, block: int) -> list[pathlib.Path]:
    index = [str(i) for i in np.unravel_index(block, _blocks_per_axis(store))]
    return [store.path.joinpath(array.basename, "c", *index) for array in store.arrays]


def _zarr() -> Any:
    _checks.extra("sweeps.run", "zarr", "store")
    return importlib.import_module("zarr")
