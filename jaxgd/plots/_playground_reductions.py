"""Rules of what combines entries, along axes or in windows, and of what takes whole matrices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import primitives

from jaxgd._jaxprs import Eqn
from jaxgd.plots import _playground_numpy as by_numpy
from jaxgd.plots._playground_writer import Rule, Value, Writer, rounded


def _kept(shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Of each entry, the index of the result that it goes into when axes are reduced."""
    lengths = [length for axis, length in enumerate(shape) if axis not in axes]
    indices = np.arange(math.prod(lengths)).reshape(lengths)
    return np.broadcast_to(np.expand_dims(indices, tuple(axes)), shape)


def reduced(start: str, combine: str) -> Rule:
    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        [operand], aval = operands, eqn.outvars[0].aval
        first = start
        if "Infinity" in start and aval.dtype.kind in "iu":
            info = np.iinfo(aval.dtype)
            first = f"({info.min})" if start.startswith("-") else str(info.max)
        if operand.size == math.prod(aval.shape):
            return [operand._replace(shape=tuple(aval.shape))]
        if math.prod(aval.shape) == 1:
            total, i = w.fresh("v"), w.fresh("i")
            w.line(f"let {total} = {first};")
            new = combine.format(total, operand.at(i))
            w.line(f"for (let {i} = 0; {i} < {operand.size}; {i}++) {total} = {new};")
            return [w.scalar(aval, rounded(aval.dtype, total))]
        name = w.buffer(math.prod(aval.shape))
        w.line(f"{name}.fill({first});")
        with w.loop(operand.shape, _kept(operand.shape, eqn.params["axes"])) as (i, [j]):
            new = combine.format(f"{name}[{j}]", operand.at(i))
            w.line(f"{name}[{j}] = {rounded(aval.dtype, new)};")
        return [w.buffered(aval, name)]

    return rule


def extreme(sign: str) -> Rule:
    """The index of the first largest or smallest entry; the first NaN, if there is one."""

    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        [operand], aval = operands, eqn.outvars[0].aval
        [axis] = eqn.params["axes"]
        operand = w.stored(operand)
        size, length = math.prod(aval.shape), operand.shape[axis]
        best, name = w.buffer(size), w.buffer(size)
        kept = np.moveaxis(_kept(operand.shape, [axis]), axis, 0)
        indices = np.moveaxis(np.arange(operand.size).reshape(operand.shape), axis, 0)
        place = np.broadcast_to(np.arange(length).reshape(-1, *[1] * (kept.ndim - 1)), kept.shape)
        with w.loop(kept.shape, indices, kept, place) as (_, [i, j, k]):
            x = operand.at(i)
            is_better = (
                f"{k} == 0 || {x} {sign} {best}[{j}] || ({x} != {x} && {best}[{j}] == {best}[{j}])"
            )
            w.line(f"if ({is_better}) {{ {best}[{j}] = {x}; {name}[{j}] = {k}; }}")
        return [w.buffered(aval, name)]

    return rule


def running(combine: str) -> Rule:
    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        [operand], aval = operands, eqn.outvars[0].aval
        if operand.size == 1:
            return [operand]
        axis, name = eqn.params["axis"], w.buffer(operand.size)
        indices = np.arange(operand.size).reshape(operand.shape)
        ordered = np.flip(indices, axis) if eqn.params["reverse"] else indices
        ordered = np.moveaxis(ordered, axis, 0)
        before = np.concatenate([np.full_like(ordered[:1], -1), ordered[:-1]])
        operand = w.stored(operand)
        with w.loop(ordered.shape, ordered, before) as (_, [i, j]):
            new = rounded(aval.dtype, combine.format(f"{name}[{j}]", operand.at(i)))
            w.line(f"{name}[{i}] = {j} < 0 ? {operand.at(i)} : {new};")
        return [w.buffered(aval, name)]

    return rule


def product(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = (w.stored(o) for o in operands)
    aval = eqn.outvars[0].aval
    places = []
    for value, summed, batch in ((left, left_sum, left_batch), (right, right_sum, right_batch)):
        free = [k for k in range(len(value.shape)) if k not in {*summed, *batch}]
        indices = np.arange(value.size).reshape(value.shape)
        lengths = [math.prod(value.shape[k] for k in group) for group in (batch, free, summed)]
        places.append(indices.transpose([*batch, *free, *summed]).reshape(lengths))
    shape = (places[0].shape[0], places[0].shape[1], places[1].shape[1], places[0].shape[2])
    left_at = np.broadcast_to(places[0][:, :, None, :], shape)
    right_at = np.broadcast_to(places[1][:, None, :, :], shape)
    target = np.broadcast_to(np.arange(math.prod(shape[:3])).reshape(*shape[:3], 1), shape)
    size = math.prod(aval.shape)
    if size == 1:
        total = w.fresh("v")
        w.line(f"let {total} = 0;")
        with w.loop(shape, left_at, right_at) as (_, [i, j]):
            w.line(f"{total} += {left.at(i)} * {right.at(j)};")
        return [w.scalar(aval, rounded(aval.dtype, total))]
    name = w.buffer(size)
    w.line(f"{name}.fill(0);")
    with w.loop(shape, left_at, right_at, target) as (_, [i, j, k]):
        w.line(f"{name}[{k}] += {left.at(i)} * {right.at(j)};")
    if aval.dtype != np.float64:
        i = w.fresh("i")
        new = rounded(aval.dtype, f"{name}[{i}]")
        w.line(f"for (let {i} = 0; {i} < {size}; {i}++) {name}[{i}] = {new};")
    return [w.buffered(aval, name)]


def _matrices(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> tuple[list[str], list[str]]:
    """Of a rule that calls a function on whole arrays: the operands' names, buffers for results."""
    names = [w.whole(operand) for operand in operands]
    return names, [w.buffer(math.prod(v.aval.shape)) for v in eqn.outvars]


def sort(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    axis, num_keys = eqn.params["dimension"], eqn.params["num_keys"]
    names, outs = _matrices(w, eqn, operands)
    shape = operands[0].shape
    stride, length = math.prod(shape[axis + 1 :]), shape[axis]
    arrays = f"[{', '.join(names)}], [{', '.join(outs)}]"
    w.line(f"sortLines({arrays}, {length}, {stride}, {num_keys});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]


def solved_triangle(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    p, (names, [out]) = eqn.params, _matrices(w, eqn, operands)
    n, m = operands[1].shape[-2:]
    flags = ", ".join(str(bool(p[k])).lower()
                      for k in ("left_side", "lower", "transpose_a", "unit_diagonal"))  # fmt: skip
    w.line(f"solveTriangle({names[0]}, {names[1]}, {out}, {n}, {m}, {flags});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def factored(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    names, outs = _matrices(w, eqn, operands)
    n, m = operands[0].shape[-2:]
    w.line(f"factor({names[0]}, {', '.join(outs)}, {n}, {m});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]


def cholesky(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    names, [out] = _matrices(w, eqn, operands)
    w.line(f"cholesky({names[0]}, {out}, {operands[0].shape[-1]});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def permutation(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    names, [out] = _matrices(w, eqn, operands)
    lengths = f"{operands[0].shape[-1]}, {eqn.outvars[0].aval.shape[-1]}"
    w.line(f"permutation({names[0]}, {out}, {lengths});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def convolved(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """Products summed over a window, one entry of the kernel after the other."""
    p, [left, right] = eqn.params, [w.stored(o) for o in operands]
    lhs_spec, rhs_spec, out_spec = p["dimension_numbers"]
    padding = [(0, 0, 0), (0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in
               zip(p["padding"], p["lhs_dilation"], strict=True))]  # fmt: skip
    indices = np.arange(left.size).reshape(left.shape).transpose(lhs_spec)
    source = by_numpy.padded(indices, -1, padding_config=padding)
    kernel = np.arange(right.size).reshape(right.shape).transpose(rhs_spec)
    aval = eqn.outvars[0].aval
    target = np.arange(math.prod(aval.shape)).reshape(aval.shape).transpose(out_spec)
    groups, batches = p["feature_group_count"], p["batch_group_count"]
    num_out, num_in, *window = kernel.shape
    name = w.buffer(target.size)
    w.line(f"{name}.fill(0);")
    batch = source.shape[0] // batches
    out = np.arange(num_out)
    features = (out // (num_out // groups))[:, None] * num_in + np.arange(num_in)
    rows = (out // (num_out // batches))[:, None] * batch + np.arange(batch)
    for at in np.ndindex(*window):
        spans = [
            start * dilation + stride * np.arange(length)
            for start, dilation, stride, length in zip(
                at, p["rhs_dilation"], p["window_strides"], target.shape[2:], strict=True
            )
        ]
        grid = np.ix_(*spans) if spans else ()
        picked = source[rows[:, :, None], features[:, None, :]][(..., *grid)]
        space = [1] * len(spans)
        shape = (num_out, batch, num_in, *target.shape[2:])
        weights = np.broadcast_to(
            kernel[(slice(None), slice(None), *at)].reshape(num_out, 1, num_in, *space), shape
        )
        places = np.broadcast_to(
            np.moveaxis(target, 1, 0).reshape(num_out, batch, 1, *target.shape[2:]), shape
        )
        with w.loop(shape, picked, weights, places) as (_, [i, j, k]):
            term = f"{name}[{k}] += {left.at(i)} * {right.at(j)};"
            w.line(term if picked.min() >= 0 else f"if ({i} >= 0) {term}")
    return [w.buffered(aval, name)]


def _windows(params: Any, shape: Sequence[int]) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Of each place in a window: the index it has in each window, -1 in the padding."""
    ones = (1,) * len(shape)
    base = params.get("base_dilation", ones)
    dilation = params.get("window_dilation", ones)
    padding = [(lo, hi, d - 1) for (lo, hi), d in zip(params["padding"], base, strict=True)]
    indices = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    padded = by_numpy.padded(indices, -1, padding_config=padding)
    window, strides = params["window_dimensions"], params["window_strides"]
    spans = [(n - 1) * d for n, d in zip(window, dilation, strict=True)]
    places = [
        padded[tuple(
            slice(k * d, length - span + k * d, stride)
            for k, d, length, span, stride in zip(
                at, dilation, padded.shape, spans, strides, strict=True))]
        for at in np.ndindex(*window)
    ]  # fmt: skip
    return places, places[0].shape


def window_reduced(start: str, combine: str) -> Rule:
    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        operand, aval = w.stored(operands[0]), eqn.outvars[0].aval
        places, shape = _windows(eqn.params, operand.shape)
        name = w.buffer(math.prod(shape))
        w.line(f"{name}.fill({start});")
        for source in places:
            with w.loop(shape, source) as (i, [j]):
                test = f"if ({j} >= 0) " if source.min() < 0 else ""
                new = rounded(aval.dtype, combine.format(f"{name}[{i}]", operand.at(j)))
                w.line(f"{test}{name}[{i}] = {new};")
        return [w.buffered(aval, name)]

    return rule


def selected_and_scattered(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """Each window's source is added where the window is largest, or smallest."""
    source, operand = w.stored(operands[0]), w.stored(operands[1])
    sign = ">=" if eqn.params["select_prim"] is primitives.ge_p else "<="
    places, shape = _windows(eqn.params, operand.shape)
    chosen, name = w.buffer(math.prod(shape)), w.buffer(operand.size)
    w.line(f"{chosen}.fill(-1); {name}.fill(0);")
    for place in places:
        with w.loop(shape, place) as (i, [j]):
            best = operand.at(f"{chosen}[{i}]")
            is_better = f"{chosen}[{i}] < 0 || !({best} {sign} {operand.at(j)})"
            w.line(f"if ({j} >= 0 && ({is_better})) {chosen}[{i}] = {j};")
    with w.loop(shape) as (i, []):
        w.line(f"{name}[{chosen}[{i}]] += {source.at(i)};")
    return [w.buffered(eqn.outvars[0].aval, name)]


def highest(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """The k largest entries along an axis and where they stand."""
    shape = operands[0].shape
    axis = eqn.params.get("axis", -1) % len(shape)
    names, outs = _matrices(w, eqn, operands)
    stride = math.prod(shape[axis + 1 :])
    w.line(f"highest({names[0]}, {', '.join(outs)}, {shape[axis]}, {stride}, {eqn.params['k']});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]
