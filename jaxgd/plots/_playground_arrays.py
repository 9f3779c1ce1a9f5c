"""Rules of what moves entries, in whole arrays or out of and into windows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from jaxgd._jaxprs import Eqn
from jaxgd.plots import _playground_numpy as by_numpy
from jaxgd.plots._playground_writer import Rule, Value, Writer, number, rounded

# What moves entries: the map of the indices is found by moving the indices.


def _moved(eqn: Eqn, *indices: np.ndarray) -> Any:
    if eqn.primitive in by_numpy.MOVES:
        return by_numpy.MOVES[eqn.primitive](*indices, **eqn.params)
    return eqn.primitive.bind(*indices, **eqn.params)


def moved(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """One operand whose entries are moved or copied."""
    [operand] = operands
    indices = np.arange(operand.size, dtype=np.int64).reshape(operand.shape)
    moved = _moved(eqn, indices)
    results = moved if eqn.primitive.multiple_results else [moved]
    return [w.pulled(v.aval, operand, np.asarray(m))
            for v, m in zip(eqn.outvars, results, strict=True)]  # fmt: skip


def joined(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """Several operands side by side."""
    if len(operands) == 1:
        return [w.pulled(eqn.outvars[0].aval, operands[0], np.arange(operands[0].size))]
    starts = np.cumsum([0, *(o.size for o in operands)])
    labels = [np.arange(start, start + o.size, dtype=np.int64).reshape(o.shape)
              for start, o in zip(starts, operands, strict=False)]  # fmt: skip
    joined = np.asarray(_moved(eqn, *labels)).ravel()
    places, name = np.argsort(joined), w.buffer(joined.size)
    for start, operand in zip(starts, operands, strict=False):
        target = places[start : start + operand.size].reshape(operand.shape)
        with w.loop(operand.shape, target) as (i, [j]):
            w.line(f"{name}[{j}] = {operand.at(i)};")
    return [w.buffered(eqn.outvars[0].aval, name)]


def padded(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    operand, padding = operands
    indices = np.arange(operand.size, dtype=np.int64).reshape(operand.shape)
    source = by_numpy.padded(indices, -1, **eqn.params)
    aval = eqn.outvars[0].aval
    if operand.size == 0 or (source >= 0).sum() < operand.size:
        return [w.pulled(aval, operand, source, w.stored(padding).at("0"))]
    target = np.argsort(source.ravel())[-operand.size :].reshape(operand.shape)

    def fill(name: str) -> None:
        with w.loop(operand.shape, target) as (i, [j]):
            w.line(f"{name}[{j}] = {operand.at(i)};")

    return [w.filled(aval, w.stored(padding), fill)]


def split(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    return moved(w, eqn, [w.stored(operands[0])])


# Gathers and scatters: a place within a window, and where the window starts.


def _window(
    shape: Sequence[int], starts_shape: Sequence[int], sizes: Sequence[int], dims: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Of each entry of the windows: its index when all windows start at 0, and its window."""
    indices = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    zeros = np.zeros(starts_shape, np.int32)
    at_zero = np.asarray(lax.gather(indices, zeros, dims, tuple(sizes), mode="clip"))
    kept = [k for k in range(at_zero.ndim) if k not in dims.offset_dims]
    lengths = [at_zero.shape[k] for k in kept]
    windows = np.arange(math.prod(lengths)).reshape(lengths)
    return at_zero, np.broadcast_to(np.expand_dims(windows, dims.offset_dims), at_zero.shape)


def _starts(
    w: Writer, starts: Value, row: str, shape: Sequence[int], sizes: Sequence[int],
    operand_dims: Sequence[int], clip: bool,
) -> str:  # fmt: skip
    """Writes how far a window has moved; the name of it, NaN where it leaves the array."""
    terms = []
    for k, dim in enumerate(operand_dims):
        start = w.fresh("s")
        place = starts.at(f"({row}) * {len(operand_dims)} + {k}")
        most, stride = shape[dim] - sizes[dim], math.prod(shape[dim + 1 :])
        w.line(f"const {start} = {'clipped' if clip else 'within'}({place}, {most});")
        terms.append(f"{stride} * {start}")
    name = w.fresh("m")
    w.line(f"const {name} = {' + '.join(terms) or '0'};")
    return name


def gather(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    operand, starts = w.stored(operands[0]), operands[1]
    dims, sizes, mode = (eqn.params[k] for k in ("dimension_numbers", "slice_sizes", "mode"))
    aval, fills = eqn.outvars[0].aval, mode == lax.GatherScatterMode.FILL_OR_DROP
    fill = eqn.params["fill_value"]
    if fill is None:
        kind = aval.dtype.kind
        fill = {"f": np.nan, "b": True}.get(kind, 0 if kind not in "iu" else
                np.iinfo(aval.dtype).min if kind == "i" else np.iinfo(aval.dtype).max)  # fmt: skip
    missing = number(np.asarray(fill, aval.dtype))
    if starts.known is not None:
        indices = np.arange(operand.size, dtype=np.int64).reshape(operand.shape)
        source = lax.gather(indices, starts.known, dims, sizes, mode=mode,
                            fill_value=-1 if fills else None)  # fmt: skip
        return [w.pulled(aval, operand, np.asarray(source), missing)]
    at_zero, windows = _window(operand.shape, starts.shape, sizes, dims)
    starts, name = w.stored(starts), w.buffer(math.prod(aval.shape))
    with w.loop(aval.shape, at_zero, windows) as (i, [j, row]):
        moved = _starts(w, starts, row, operand.shape, sizes, dims.start_index_map, not fills)
        value = operand.at(f"{j} + {moved}")
        w.line(f"{name}[{i}] = {moved} == {moved} ? {value} : {missing};")
    return [w.buffered(aval, name)]


def scatter(combine: str) -> Rule:
    """Updates written into a copy of the operand: ``combine`` is what stands before the ``=``."""

    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        operand, starts, updates = operands
        numbers, clip = eqn.params["dimension_numbers"], (
            eqn.params["mode"] == lax.GatherScatterMode.CLIP)  # fmt: skip
        dims = lax.GatherDimensionNumbers(
            numbers.update_window_dims, numbers.inserted_window_dims,
            numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims,
            numbers.scatter_indices_batching_dims,
        )  # fmt: skip
        fixed = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        lengths = iter(updates.shape[k] for k in numbers.update_window_dims)
        sizes = [1 if k in fixed else next(lengths) for k in range(len(operand.shape))]
        at_zero, windows = _window(operand.shape, starts.shape, sizes, dims)
        starts, updates = w.stored(starts), w.stored(updates)
        moves = numbers.scatter_dims_to_operand_dims

        def fill(name: str) -> None:
            with w.loop(updates.shape, at_zero, windows) as (i, [j, row]):
                moved = _starts(w, starts, row, operand.shape, sizes, moves, clip)
                place, new = f"{name}[{j} + {moved}]", updates.at(i)
                new = combine.format(place, new)
                w.line(f"if ({moved} == {moved}) {place} = {rounded(operand.dtype, new)};")

        return [w.filled(eqn.outvars[0].aval, w.stored(operand), fill)]

    return rule


def sliced(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """A window that starts where numbers say: dynamic_slice."""
    operand, *starts = operands
    sizes, aval = eqn.params["slice_sizes"], eqn.outvars[0].aval
    indices = np.arange(operand.size).reshape(operand.shape)
    at_zero = indices[tuple(slice(size) for size in sizes)]
    operand, name = w.stored(operand), w.buffer(at_zero.size)
    moved = _moved_to(w, starts, operand.shape, sizes)
    with w.loop(aval.shape, at_zero) as (i, [j]):
        w.line(f"{name}[{i}] = {operand.at(f'{j} + {moved}')};")
    return [w.buffered(aval, name)]


def updated(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """A window overwritten where numbers say: dynamic_update_slice."""
    operand, update, *starts = operands
    indices = np.arange(operand.size).reshape(operand.shape)
    at_zero = indices[tuple(slice(size) for size in update.shape)]
    update, moved = w.stored(update), _moved_to(w, starts, operand.shape, update.shape)

    def fill(name: str) -> None:
        with w.loop(update.shape, at_zero) as (i, [j]):
            w.line(f"{name}[{j} + {moved}] = {update.at(i)};")

    return [w.filled(eqn.outvars[0].aval, w.stored(operand), fill)]


def _moved_to(w: Writer, starts: Sequence[Value], shape: Any, sizes: Any) -> str:
    terms = []
    for k, (start, length, size) in enumerate(zip(starts, shape, sizes, strict=True)):
        stride = math.prod(shape[k + 1 :])
        terms.append(f"{stride} * clipped({w.stored(start).at('0')}, {length - size})")
    name = w.fresh("m")
    w.line(f"const {name} = {' + '.join(terms) or '0'};")
    return name
