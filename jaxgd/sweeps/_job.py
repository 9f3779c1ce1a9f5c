"""The processes of a job: what is whose, and how all get what each has computed."""

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxgd.sweeps import _grid

_T = TypeVar("_T")
_LONGEST_WAIT = 7 * 24 * 60 * 60 * 1000  # milliseconds, of one process for another
_MEETINGS = itertools.count()  # of the processes of a job: each has a name of its own


def share(numbers: np.ndarray) -> np.ndarray:
    """The share of this process: consecutive numbers, about as many as the others have."""
    return np.array_split(numbers, jax.process_count())[jax.process_index()]


def in_turn(where: str, action: Callable[[], _T]) -> _T:
    """Does something in the first process, and then, if it went well there, in the others."""
    if jax.process_count() == 1:
        return action()
    result, problem = None, None
    if jax.process_index() == 0:
        try:
            result = action()
        except Exception as error:
            problem = error
    (has_failed,) = agreed(where, np.array([problem is not None])).tolist()
    if problem is not None:
        raise problem
    if has_failed:
        raise RuntimeError(f"{where}: the first process of the job says what is wrong.")
    return action() if result is None else result


def joined(where: str, values: np.ndarray, num_values: int) -> np.ndarray:
    """So many values, in all processes, each of which has computed its share of them."""
    shares = np.array_split(np.arange(num_values), jax.process_count())
    return np.concatenate(gather(where, values, [share.size for share in shares]))


def agreed(where: str, values: np.ndarray) -> np.ndarray:
    """The first process's values, in all processes."""
    return gather_all(where, values)[0].reshape(values.shape)


def agreed_text(where: str, text: str) -> str:
    """The first process's text, of one length in all processes, in all of them."""
    return agreed(where, np.frombuffer(text.encode(), np.uint8)).tobytes().decode()


def complete(
    where: str, grid: _grid.Grid, finished: np.ndarray, values: list[np.ndarray]
) -> list[np.ndarray]:
    """All values, in all processes, once each has computed its share of the unfinished blocks."""
    if jax.process_count() == 1:
        return values
    shares = np.array_split(np.flatnonzero(~finished), jax.process_count())
    places = [[_grid.place(grid, block) for block in share.tolist()] for share in shares]
    sizes = [sum(place.stop - place.start for place in share) for share in places]
    for leaf in values:
        own = [leaf[place] for place in places[jax.process_index()]]
        rows = gather(where, np.concatenate([*own, leaf[:0]]), sizes)
        for place, row in zip(itertools.chain(*places), _pieces(rows, places), strict=True):
            leaf[place] = row
    return values


def _pieces(rows: list[np.ndarray], places: list[list[slice]]) -> Iterator[np.ndarray]:
    """The values of each block, from those of each process."""
    for row, share in zip(rows, places, strict=True):
        ends = np.cumsum([place.stop - place.start for place in share])
        yield from np.split(row, ends[:-1]) if share else ()


def gather(where: str, values: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The flat values of every process, of which there are so many; to the last bit."""
    if jax.process_count() == 1:
        return [values.ravel()]
    flat = np.ascontiguousarray(values).ravel()
    if max(sizes) == 0:
        return [flat] * len(sizes)
    room = np.zeros(max(sizes), flat.dtype)  # collectives need equal sizes
    room[: flat.size] = flat
    _meet(where)
    rows = np.asarray(multihost_utils.process_allgather(room.view(np.uint8)))
    return [row.view(flat.dtype)[:size] for row, size in zip(rows, sizes, strict=True)]


def gather_all(where: str, values: np.ndarray) -> list[np.ndarray]:
    """The values of every process, of one size in all of them."""
    return gather(where, values, [values.size] * jax.process_count())


def _meet(where: str) -> None:
    """Waits until all processes are there.

    Collectives give up on a process that comes half a minute late. This does not, and ends if one
    dies: its heartbeat is missed.
    """
    client = _client()
    if client is None:
        return
    try:
        client.wait_at_barrier(f"{where} {next(_MEETINGS)}", _LONGEST_WAIT)
    except jax.errors.JaxRuntimeError as error:
        raise RuntimeError(
            f"{where}: another process of the job is gone. Start the job again, with as many "
            "processes as you like; what is in a store is not computed again."
        ) from error


def _client() -> Any:
    """JAX's connection to the other processes, which has no public address; None without one."""
    return importlib.import_module("jax._src.distributed").global_state.client
