"""How a large surface is computed: in chunks, over devices and processes, resumably.

``surfaces.sweep`` is one program for one device that is done or not. ``run`` computes the same
surface, up to rounding, from the host: it compiles one program, which computes a few batches of
points on every device, and calls it until all batches are done, while a bar shows how long is
left and finished blocks go to disk. In a job of several processes each computes its share.
``approximate`` looks at a smooth surface at a few points only.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jaxgd import _checks
from jaxgd.surfaces import Approximation, Surface, evaluate
from jaxgd.sweeps import (
    _batch_size,
    _chebyshev,
    _data,
    _fingerprint,
    _grid,
    _job,
    _names,
    _program,
    _store,
)
from jaxgd.types import Array, ArrayLike, PyTree, Status

__all__ = ["approximate", "load", "run"]

_FEW_POINTS = 8  # to be computed at once, where there are few
_MOST_POINTS = 2**12  # of a part, likewise
_NUM_BLOCKS = 64  # at least, and more for each process of a large job


def run(
    fn: Callable[..., PyTree],
    *coordinates: ArrayLike,
    data: Iterable[Sequence[PyTree]] | None = None,
    axis_names: Sequence[str] | None = None,
    batch_size: int | None = None,
    devices: Sequence[Any] | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Surface:
    """Computes a function of k scalars at every point of a grid, however long it takes.

    The result is that of ``surfaces.sweep``, up to rounding: both evaluate the same operations
    at the same points, but a compiler may fuse and sum them in another order, here and there, so
    that a sum of n terms differs by at most ``n eps`` times the sum of their absolute values.
    Calls of ``run`` with the same ``batch_size`` agree to the last bit, whatever the number of
    devices and processes, with a store or without, whole or resumed.

    One program is compiled, whatever the size of the grid, and memory holds a few batches and
    the values. Not to be jitted: it is a driver that runs on the host. A function that holds
    arrays, like that of ``planes.restrict``, may be passed as it is: its arrays are arguments of
    the program, not constants in it.

    With a ``store``, a folder in the Zarr format, each finished block of points is on disk, and
    the same call goes on where an earlier one was killed. While it runs and later, ``load`` and
    ``xarray.open_zarr(store)`` read it: the values with the coordinates as labelled axes, and
    ``computed``, which says of each point whether it is. The values are named after the keys of
    what ``fn`` returns. Attributes that you add to the group stay. Once the call ends well, the
    store is complete.

    With ``data``, an iterable of batches, ``fn(*coordinates, *batch)`` returns means over the
    rows of a batch, and the surface is their mean over all rows, summed in double precision; a
    last batch of fewer rows counts less. The data are read once, whatever the number of points,
    and memory holds one batch. What a batch shares over all points is computed once for each
    batch, as ``planes.restrict`` does it. With a store the sums over the batches so far are in
    it; the same call reads past these and goes on, so that the data must come in the same order.
    Called again on a finished store it reads them once more, to see that they are the same.
    In a job each process is given its own share of the data and computes all points on it.
    Params that lie in shards on several devices stay there.

    In a job of several processes (``jax.distributed.initialize``) all make the same call, and
    each computes its share on its own devices. With a store that all can reach, any of them may
    die, and the job be started again with another number of processes. What the others then see
    is up to JAX: those that wait for the dead one here raise RuntimeError, once its heartbeat is
    missed; but JAX may end them before, with SIGABRT and a trace of its own, always if the dead
    one is the first, which coordinates them. What is in the store stays in either case.

    Args:
      fn: k scalars -> a scalar, or a pytree of scalars. With a store it must not call back into
        Python (``jax.pure_callback``): what that computes is not part of the program by which
        the store knows its function.
      *coordinates: k axes, each 1-D and not empty.
      data: an iterable of batches: a list, a generator, a torch DataLoader, a grain loader. Each
        batch is a tuple or list of arrays (NumPy, JAX, torch, or what becomes one by
        ``numpy.asarray``), or of pytrees of them, whose first axes are its rows.
      axis_names: what a store calls the axes; None takes the names of the parameters of ``fn``,
        if it has them.
      batch_size: how many points (not rows) a device computes at once, at least 1. None takes,
        with a store that is there, the size it was made with. Otherwise it starts from a size
        whose memory, according to the compiled program, fits the cache of a CPU or a quarter of
        an accelerator's memory. A sweep in one process that will take more than two seconds then
        tries smaller sizes at some of its points and keeps the fastest. The trials take at most
        a tenth of the time of the whole sweep, by estimate. Which size is the fastest may differ
        from call to call, and the last bits of the values with it: give a ``batch_size`` where
        these matter.
      devices: the devices of this process to use; None takes all of them.
      store: where to keep what is done: the path of a folder on this machine. None keeps nothing.
      progress: whether to show a bar, with points per second and the time left.

    Returns:
      A Surface. In a job of several processes each gets the whole of it.

    Raises:
      TypeError: if ``fn`` is not callable or an argument is of the wrong type.
      ValueError: if an axis is not 1-D or is empty, if ``fn`` returns anything but scalars, if
        ``data`` are empty, end early, change their shapes but for the rows, or are others than
        those in the store, if ``batch_size`` is below 1, if ``devices`` are none or not this
        process's, if ``axis_names`` are not k different names, if ``store`` is a URL or cannot
        hold this sweep, or if it was made for another one; it says in what they differ.
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
    where = "sweeps.run"
    axes = _axes(where, fn, coordinates)
    names = _names.axes(where, fn, len(axes), axis_names)
    if batch_size is not None:
        batch_size = _checks.count(where, "batch_size", batch_size, least=1)
    path = None if store is None else _store.path_of(where, store)
    source = None if data is None else _data.opened(where, data)
    batch, num_parts = ((), _program.NUM_PARTS) if source is None else (source.specs, 1)
    program = _program.trace(where, fn, axes, devices, batch, num_parts=num_parts)
    sweep = None if path is None else _described(where, fn, names, program, source)

    def cut(batch_size: int | None) -> _grid.Grid:
        size = batch_size or _batch_size.fastest(program)
        return _grid.of(program.shape, size, max(_NUM_BLOCKS, 4 * jax.process_count()))

    def opened() -> _store.Target:
        return _store.open_or_create(where, path, sweep, cut, batch_size, axis_names)

    target = _job.in_turn(where, opened)
    finished = _job.agreed(where, _store.finished(target))
    values = _store.load(where, target, program.dtypes, finished)
    share = _job.share(np.flatnonzero(~finished))
    bar = _bar(target.grid, share, data, progress)
    with bar, _store.saying_what_is_kept(where, target, source is not None):
        if source is not None:
            is_whole = bool(finished.any())
            blocks = _data.compute(where, program, target.grid, share, source, path, bar, is_whole)
        elif finished.all():
            blocks = ()
        else:
            blocks = _program.compute(program, program.bind(()), target.grid, share, bar)
        for block in blocks:
            for all_values, new in zip(values, block.values, strict=True):
                all_values[block.place] = new
            _store.write(where, target, block)
    values = _job.complete(where, target.grid, finished, values)
    return Surface(axes, _unflatten(program, target.grid, values))


def approximate(
    fn: Callable[..., PyTree],
    *domains: tuple[float, float],
    tolerance: float,
    max_degree: int = 128,
    data: Iterable[Sequence[PyTree]] | None = None,
    batch_size: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool = True,
) -> Approximation:
    """Computes a smooth function of k scalars as a Chebyshev series, from few evaluations.

    The function is evaluated on Chebyshev-Lobatto grids of degrees 4, 8, 16, ..., doubled axis by
    axis where the series needs it; a finer grid has the points of the coarser one, whose values
    are used again. It ends when twice the largest deviation from the function, at points that are
    not on the grid (some of them random, the same in every call, some where the error is likely
    to be large), is within the tolerance. A smooth surface takes a few hundred evaluations, and
    ``surfaces.evaluate`` then draws it at any resolution. A kink costs more, and a jump, an
    accuracy or a fractal border does not converge: the status and the errors say so. A peak
    narrower than the gaps between all these points is missed, as by any sampling.

    Args:
      fn: k scalars -> a scalar, or a pytree of scalars; all of them are to converge.
      *domains: k pairs (low, high) of coordinates.
      tolerance: the largest error, relative to the range of the values.
      max_degree: the highest degree along an axis, at least 2; of the powers of two up to it.
      data: an iterable of batches, as in ``run``. It is read several times, once for each grid and
        twice for each check, so that a generator is refused.
      batch_size: how many points a device computes at once. None takes 8 or what fits.
      devices: the devices of this process to use; None takes all of them.
      progress: whether to show a bar, which counts the points.

    Returns:
      An Approximation. In a job of several processes, which all make the same call, each gets it.

    Raises:
      TypeError: if ``fn`` is not callable or an argument is of the wrong type.
      ValueError: if a domain is not a pair of finite numbers, low < high, if ``fn`` returns
        anything but real scalars, if ``tolerance`` is below 0, ``max_degree`` below 2 or
        ``batch_size`` below 1, or if ``data`` or ``devices`` are not as in ``run``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import surfaces, sweeps
      >>> wave = sweeps.approximate(
      ...     lambda a, b: jnp.sin(3 * a) * b, (-1, 1), (0, 2), tolerance=1e-3, progress=False
      ... )
      >>> int(wave.num_points) < 400
      True
      >>> axes = jnp.linspace(-1, 1, 201), jnp.linspace(0, 2, 201)
      >>> surface = surfaces.sweep(lambda a, b: surfaces.evaluate(wave, a, b), *axes)
      >>> surface.values.shape
      (201, 201)

    Source:
      Trefethen, Approximation Theory and Approximation Practice, 2019, Ch. 3, 4 and 8.
    """
    where = "sweeps.approximate"
    _checks.function(where, "fn", fn)
    intervals = _intervals(where, domains)
    _program.check_known(where, "tolerance", [tolerance])
    _checks.at_least(where, "tolerance", _checks.scalar(where, "tolerance", tolerance), 0)
    max_degree = _checks.count(where, "max_degree", max_degree, least=2)
    if batch_size is not None:
        batch_size = _checks.count(where, "batch_size", batch_size, least=1)
    lattice = _chebyshev.lattice(len(domains), max_degree)
    axes = _axes(where, fn, list(map(jax.device_put, _chebyshev.axes(lattice, intervals))))
    batch = () if data is None else _data.opened(where, _data.readable_again(where, data)).specs
    program = _program.trace(where, fn, axes, devices, batch, most_points=_MOST_POINTS)
    is_real = all(dtype.kind not in "c" for dtype in program.dtypes)
    _checks.that(where, is_real, "fn must return real numbers", "complex ones")
    size = batch_size or _batch_size.fitting(program, most=_FEW_POINTS)

    def values_at(points: np.ndarray) -> list[np.ndarray]:
        if data is None:
            own = _job.share(points)
            rows = _program.values(program, program.bind(()), _grid.in_batches(own, size))
            values = [_job.joined(where, leaf[: own.size], points.size) for leaf in rows]
        else:
            source = _data.opened(where, data)
            values = _data.means(where, program, _grid.in_batches(points, size), source)
        bar.update(points.size)
        return [leaf[: points.size].astype(np.float64) for leaf in values]

    hidden = not progress or jax.process_index() > 0
    with tqdm(unit=" points", disable=hidden) as bar:
        fit = _chebyshev.refined(values_at, lattice, float(tolerance))
    return _approximation(program, intervals, lattice, fit)


def load(store: str | os.PathLike[str]) -> Surface:
    """Reads the surface that a store holds, finished or not.

    Args:
      store: the folder that ``run`` was given.

    Returns:
      A Surface, with NaN where a point is not computed yet: there integers and booleans become
      floating-point. Dicts, lists and tuples come back as what the function returned; of any
      other pytree a dict of its values by their names in the store.

    Raises:
      TypeError: if ``store`` is no path.
      ValueError: if ``store`` is not the folder of a sweep.
      OSError: if a block of it or its coordinates cannot be read.
      ModuleNotFoundError: if zarr is not installed.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> from jaxgd import sweeps
      >>> with tempfile.TemporaryDirectory() as store:
      ...     _ = sweeps.run(jnp.square, jnp.arange(3.0), store=store, progress=False)
      ...     surface = sweeps.load(store)
      >>> surface.values
      Array([0., 1., 4.], dtype=float32)
    """
    where = "sweeps.load"
    path = _store.path_of(where, store)
    wanted = f"store must be a folder of a sweep: {path}"
    _checks.that(where, path.exists(), wanted, "no such store", _store.READ_CURE)
    target = _store.open_store(where, path, is_to_be_read=True)
    finished = _store.finished(target)
    dtypes = [array.dtype for array in target.arrays[:-1]]
    values = _store.load(where, target, dtypes, finished)
    if not finished.all():
        values = [
            leaf if leaf.dtype.kind in "fc" else leaf.astype(np.result_type(leaf, np.float32))
            for leaf in values
        ]
        for block in np.flatnonzero(~finished).tolist():
            for leaf in values:
                leaf[_grid.place(target.grid, block)] = np.nan
    leaves = [jax.device_put(leaf.reshape(target.grid.shape)) for leaf in values]
    named = dict(zip(target.attributes["values"], leaves, strict=True))
    axes = tuple(map(jax.device_put, _store.coordinates(where, target)))
    return Surface(axes, _names.restored(target.attributes["structure"], named))


def _axes(where: str, fn: Any, coordinates: Sequence[Any]) -> tuple[Array, ...]:
    """The axes of a grid that can be numbered."""
    _checks.function(where, "fn", fn)
    axes = _checks.axes(where, coordinates)
    _program.check_known(where, "coordinates", axes)
    shape = [axis.size for axis in axes]
    wanted = "the grid must have fewer than 2**30 points"
    got = " x ".join(map(str, shape))
    _checks.that(where, math.prod(shape) < 2**30, wanted, got, "Sweep an axis in parts.")
    return axes


def _intervals(where: str, domains: Sequence[Any]) -> np.ndarray:
    """The domains, shape (k, 2)."""
    _checks.that(where, bool(domains), "domains must be at least one pair (low, high)", "none")
    pairs = []
    for i, domain in enumerate(domains):
        name = f"domain {i}"
        _checks.no_batches(where, name, domain, "a pair (low, high)")
        _program.check_known(where, name, jax.tree.leaves(domain))
        cure = "Write a pair (low, high) for each coordinate."
        _checks.instance(where, name, domain, (tuple, list, np.ndarray, jax.Array), cure)
        cure = "It chooses its points itself: for an axis write (axis[0], axis[-1])."
        wanted = f"{name} must be (low, high)"
        _checks.that(where, np.shape(domain) == (2,), wanted, f"{np.size(domain)} numbers", cure)
        pair = np.array([float(_checks.scalar(where, f"an end of {name}", t)) for t in domain])
        fine = np.isfinite(pair).all() and pair[0] < pair[1]
        _checks.that(where, bool(fine), f"{wanted}, finite, low < high", repr(domain))
        pairs.append(pair)
    return np.array(pairs)


def _approximation(
    program: _program.Program,
    intervals: np.ndarray,
    lattice: _chebyshev.Lattice,
    fit: _chebyshev.Fit,
) -> Approximation:
    """A fit as what users get, its errors measured as they evaluate it."""
    structure = jax.tree.structure(program.outputs)
    leaves = [
        jax.device_put(leaf.astype(jnp.promote_types(dtype, jnp.float32)))
        for leaf, dtype in zip(fit.coefficients, program.dtypes, strict=True)
    ]
    status = Status.CONVERGED if fit.is_within else Status.MAX_STEPS
    approximation = Approximation(
        domains=jax.device_put(intervals.astype(program.axes[0].dtype)),
        coefficients=jax.tree.unflatten(structure, leaves),
        errors=None,
        num_points=jax.device_put(np.int32(fit.known.points.size)),
        status=jax.device_put(np.int32(status if fit.is_finite else Status.NON_FINITE)),
    )
    if not fit.is_finite:
        return approximation._replace(
            errors=jax.tree.map(lambda _: jax.device_put(np.float64(np.nan)), program.outputs)
        )
    points = _chebyshev.off_grid(lattice, fit.known, fit.degrees)
    coordinates = _chebyshev.coordinates(lattice, program.axes, points)
    at_points = jax.jit(jax.vmap(lambda *point: evaluate(approximation, *point)))
    found = jax.tree.leaves(at_points(*coordinates))
    errors = [
        jax.device_put(_chebyshev.safety(fit) * np.abs(np.asarray(leaf) - wanted).max())
        for leaf, wanted in zip(found, _chebyshev.at(fit.known, points), strict=True)
    ]
    return approximation._replace(errors=jax.tree.unflatten(structure, errors))


def _unflatten(program: _program.Program, grid: _grid.Grid, values: Sequence[np.ndarray]) -> PyTree:
    """The values of all points, each leaf as an array over the grid."""
    leaves = [jax.device_put(leaf.reshape(grid.shape)) for leaf in values]
    return jax.tree.unflatten(jax.tree.structure(program.outputs), leaves)


def _bar(grid: _grid.Grid, share: np.ndarray, data: Any, progress: bool) -> Any:
    """A bar on the terminal or in the notebook, of the first process of a job."""
    hidden = not progress or jax.process_index() > 0
    if data is not None:
        length = len(data) if hasattr(data, "__len__") else None
        return tqdm(total=length, unit=" batches", disable=hidden)
    places = [_grid.place(grid, block) for block in share.tolist()]
    todo = sum(place.stop - place.start for place in places)
    done = math.prod(grid.shape) - todo if jax.process_count() == 1 else 0
    total = done + todo
    return tqdm(total=total, initial=done, unit=" points", unit_scale=True, disable=hidden)


def _described(
    where: str,
    fn: Callable[..., PyTree],
    names: Sequence[str],
    program: _program.Program,
    source: _data.Source | None,
) -> _store.Sweep:
    """What a store is to hold, and to say of itself."""
    has_callback = _fingerprint.has_callback(program.closed)
    wanted = "with a store, fn must be a program as a whole"
    got = "one that calls back into Python, whose code the store could not know again"
    cure = "Write it in JAX, or sweep without a store."
    _checks.that(where, not has_callback, wanted, got, cure)
    values = dict(zip(_names.values(where, program.outputs, names), program.dtypes, strict=True))
    axes = dict(zip(names, map(np.asarray, program.axes), strict=True))
    told = [(f"the output {name} of fn", dtype) for name, dtype in values.items()]
    told += [(f"coordinate {i}", axis.dtype) for i, axis in enumerate(axes.values())]
    for what, dtype in told:
        wanted = f"{what} must be of a dtype that a store can hold"
        cure = "Make it float32: x.astype(jnp.float32)."
        _checks.that(where, dtype.kind in "biufc", wanted, str(dtype), cure)
    fingerprint = {
        "program": _fingerprint.of(program.closed),
        "constants": _fingerprint.digest(*program.closed.consts),
        "coordinates": _fingerprint.digest(*axes.values()),
        "values": str(jax.tree.map(lambda leaf: str(leaf.dtype), program.outputs)),
    }
    notes = {}
    if source is not None:
        leaves = jax.tree.leaves(source.specs)
        notes = {"batches": ", ".join(f"{leaf.dtype}{[*leaf.shape]}" for leaf in leaves)}
        fingerprint |= {"data": source.digest, "processes": str(jax.process_count())}
        # Each process has data of its own: those of the first one stand for all.
        fingerprint = json.loads(_job.agreed_text(where, json.dumps(fingerprint)))
    return _store.Sweep(
        coordinates=axes,
        values=values,
        fingerprint=fingerprint,
        notes={
            "function": _names.function(fn),
            "structure": _names.structure(program.outputs),
            "jaxgd": metadata.version("jaxgd"),
            "dtype": sorted({str(dtype) for dtype in values.values()}),
            **notes,
        },
    )
