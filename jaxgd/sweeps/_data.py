"""Means over data that are read once, a batch after the other, whatever the number of points."""

import contextlib
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgd import _checks
from jaxgd.sweeps import _fingerprint, _grid, _job, _program
from jaxgd.types import PyTree

_END = object()


class Source(NamedTuple):
    """Data to be read.

    Attributes:
      specs: shapes and dtypes of the first batch.
      digest: a fingerprint of the first batch.
      batches: all of them, once.
    """

    specs: tuple[PyTree, ...]
    digest: str
    batches: Iterator[tuple[PyTree, ...]]


class Sums(NamedTuple):
    """What is known after some batches.

    Attributes:
      num_batches: how many they are.
      num_rows: how many rows they have.
      digest: a fingerprint of them all, one after the other; empty unless it is kept.
      values: for each output, the sum over the rows at each point, in double precision.
    """

    num_batches: int
    num_rows: int
    digest: str
    values: list[np.ndarray]


def _batches(where: str, data: Any) -> Iterator[tuple[PyTree, ...]]:
    """The batches, as arrays, alike but for their number of rows; holds none but the next."""
    iterator, number, first = iter(data), 0, None
    while (raw := next(iterator, _END)) is not _END:
        name = f"batch {number} of data"
        batch = _checks.batch(where, name, raw)
        del raw
        first = _checks.alike(where, name, batch, first)
        number += 1
        yield batch
        del batch
    cure = "A generator can be read only once: pass a list or a loader." if number == 0 else ""
    _checks.that(where, number > 0, "data must hold at least one batch", "none", cure)
    with contextlib.suppress(TypeError):  # a source that does not know its length
        length = len(data)
        got = f"{number}: it ended early"
        _checks.that(where, number >= length, f"data must give its {length} batches", got)


def opened(where: str, data: Any) -> Source:
    """The data, looked into."""
    _checks.batches(where, "data", data)
    iterator = _batches(where, data)
    pending = [next(iterator)]
    specs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
        ),
        pending[0],
    )
    digest = _fingerprint.digest(*jax.tree.leaves(pending[0]))

    def all_batches() -> Iterator[tuple[PyTree, ...]]:
        yield pending.pop()  # and keep it no longer
        yield from iterator

    return Source(specs, digest, all_batches())


def compute(
    where: str,
    program: _program.Program,
    grid: _grid.Grid,
    share: np.ndarray,
    source: Source,
    store: pathlib.Path | None,
    bar: Any,
    is_whole: bool,
) -> Iterator[_grid.Block]:
    """Computes blocks of means over all rows of the data.

    The sums stay in the store, with the fingerprint of the batches that are in them: where blocks
    are finished (``is_whole``), these batches and no others are read again and compared.
    """
    points = _grid.batches(grid, np.arange(_grid.num_blocks(grid)))
    sums = _empty(program, points)
    kept = None
    if store is not None:
        name = f".sums-{jax.process_index()}-of-{jax.process_count()}.npz"
        kept = Kept(store / name)
        wanted = "a store with finished points must hold the sums over its data, to know them again"
        is_there = kept.path.exists() or not is_whole
        _checks.that(where, is_there, wanted, f"none in {kept.path}", "Name another store.")
        sums = kept.read(where, sums)
        bar.update(sums.num_batches)
    sums = _added_up(where, program, points, source.batches, sums, bar, kept, is_whole)
    values = _divided(where, program, sums)
    for number in share.tolist():
        place = _grid.place(grid, number)
        yield _grid.Block(number, place, [leaf[place] for leaf in values])


def means(
    where: str, program: _program.Program, points: np.ndarray, source: Source
) -> list[np.ndarray]:
    """The means over all rows at batches of points, flat."""
    sums = _empty(program, points)
    return _divided(where, program, _added_up(where, program, points, source.batches, sums))


def readable_again(where: str, data: Any) -> PyTree:
    """Data that are read several times: no iterator, which can be read once."""
    _checks.batches(where, "data", data)
    cure = "Pass a list or a loader."
    is_iterator = isinstance(data, Iterator)
    _checks.that(where, not is_iterator, "data must be readable again", "an iterator", cure)
    return data


def _added_up(
    where: str,
    program: _program.Program,
    points: np.ndarray,
    batches: Iterator[tuple[PyTree, ...]],
    sums: Sums,
    bar: Any = None,
    kept: "Kept | None" = None,
    is_whole: bool = False,
) -> Sums:
    """Adds to the sums at some points what the batches give that are not in them yet.

    Args:
      where: who asks.
      program: of the point and the batch.
      points: rows of numbers of points, each computed at once; the sums are in their order.
      batches: the data.
      sums: what is known already.
      bar: moves with every batch.
      kept: where to keep the sums after each batch.
      is_whole: whether the sums are over all batches, so that more are refused.
    """
    done = sums.num_batches
    number, digest = 0, ""
    for batch in batches:
        number += 1
        if kept is not None:
            told = _fingerprint.digest(*jax.tree.leaves(batch))
            digest = hashlib.sha256((digest + told).encode()).hexdigest()
        if number == done:
            cure = "Switch shuffling off or fix its seed, or name another store."
            wanted = f"the first {done} batches of data must be those that are in the store"
            _checks.that(where, digest == sums.digest, wanted, "others", cure)
        if number > done:
            cure = "Name another store."
            wanted = f"data must be the {done} batches that are in the store"
            _checks.that(where, not is_whole, wanted, "more", cure)
            rows = jax.tree.leaves(batch)[0].shape[0]
            new = _program.values(program, program.bind(batch), points)
            totals = [
                total + rows * leaf.astype(total.dtype)
                for total, leaf in zip(sums.values, new, strict=True)
            ]
            sums = Sums(number, sums.num_rows + rows, digest, totals)
            if kept is not None:
                kept.write(where, sums)
            if bar is not None:
                bar.update(1)
        del batch  # before the next one comes
    wanted = f"data must give at least the {done} batches that are in the store"
    _checks.that(where, number >= done, wanted, f"{number}: it ended early")
    return sums


def _empty(program: _program.Program, points: np.ndarray) -> Sums:
    """The sums over no batch."""
    wide = [np.complex128 if d.kind == "c" else np.float64 for d in program.dtypes]
    return Sums(0, 0, "", [np.zeros(points.size, dtype) for dtype in wide])


def _divided(where: str, program: _program.Program, sums: Sums) -> list[np.ndarray]:
    """The means over all rows, those of other processes included."""
    rows = sum(_job.gather_all(where, np.array([sums.num_rows], np.int64)))
    totals = [sum(_job.gather_all(where, total)) for total in sums.values]
    pairs = zip(totals, program.dtypes, strict=True)
    return [np.asarray(total / rows).astype(dtype) for total, dtype in pairs]


class Kept(NamedTuple):
    """The file of a store in which a process keeps its sums."""

    path: pathlib.Path

    def read(self, where: str, start: Sums) -> Sums:
        """The sums of the file, or those to start with."""
        if not self.path.exists():
            return start
        try:
            with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                values = [file[f"values_{i}"] for i in range(len(start.values))]
                num_batches, num_rows = file["counts"].tolist()
                sums = Sums(num_batches, num_rows, str(file["digest"]), values)
        except Exception as error:
            raise OSError(
                f"{where}: the sums in the store are damaged: {self.path}. Delete this file: "
                "sweeps.run then starts with the first batch."
            ) from error
        return sums

    def write(self, where: str, sums: Sums) -> None:
        """Puts the sums into the file: all or, if this is killed, none."""
        arrays: dict[str, Any] = {f"values_{i}": leaf for i, leaf in enumerate(sums.values)}
        arrays["counts"] = np.array([sums.num_batches, sums.num_rows])
        arrays["digest"] = np.array(sums.digest)
        try:
            with tempfile.NamedTemporaryFile(
                dir=self.path.parent, prefix=f"{self.path.name}.", suffix=".partial", delete=False
            ) as file:
                try:
                    np.savez(file, **arrays)
                    file.close()
                    os.replace(file.name, self.path)
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            raise OSError(
                f"{where}: the sums cannot be written to {self.path}: {error}. What was written "
                "before is there: mend this, and the same call goes on from there."
            ) from error
