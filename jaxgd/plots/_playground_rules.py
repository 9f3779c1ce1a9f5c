"""How each primitive of JAX is written in JavaScript: one rule per primitive, in one table.

A rule is found by the primitive itself, so that one which disappears from JAX fails at import.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import primitives

from jaxgd import _checks
from jaxgd.plots._playground_writer import WHERE, Rule, Value, Writer, number, rounded

# Entry by entry.


def _entries(write: Callable[..., str]) -> Rule:
    """An operation on entries: ``write(params, dtype of the operands, *expressions)``."""

    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
        dtype = operands[0].dtype
        operands = [_spread(w, o, eqn.outvars[0].aval.shape) for o in operands]

        def at(i: str) -> str:
            return write(eqn.params, dtype, *(o.at(i) for o in operands))

        return [w.each(eqn.outvars[0].aval, at)]

    return rule


def _spread(w: Writer, operand: Value, shape: Sequence[int]) -> Value:
    """An operand of a given shape: axes of length 1 are repeated."""
    if operand.size == 1:
        return operand if operand.known is not None else w.stored(operand)
    if operand.shape == tuple(shape):
        return operand
    if operand.known is not None:
        return w.known(np.broadcast_to(np.asarray(operand.known), shape))
    indices = np.arange(operand.size).reshape(operand.shape)
    aval = jax.ShapeDtypeStruct(tuple(shape), operand.dtype)
    return w.pulled(aval, operand, np.broadcast_to(indices, shape))


def _template(text: str, integers: str | None = None) -> Rule:
    """An operation written as a template, with another one for integers where they differ."""

    def write(_: Any, dtype: Any, *operands: str) -> str:
        is_float = np.issubdtype(dtype, np.floating)
        return (text if is_float or integers is None else integers).format(*operands)

    return _entries(write)


def _call(name: str, integers: str | None = None) -> Rule:
    return _entries(lambda _, dtype, *operands: (
        f"{name if integers is None or np.issubdtype(dtype, np.floating) else integers}"
        f"({', '.join(operands)})"))  # fmt: skip


def _between(sign: str) -> Rule:
    return _template(f"({{0}} {sign} {{1}})")


def _converted(params: Any, dtype: Any, x: str) -> str:
    new = params["new_dtype"]
    if new == np.bool_:
        return f"({x} != 0)"
    if np.issubdtype(new, np.integer) and np.issubdtype(dtype, np.floating):
        info = np.iinfo(new)
        return f"saturated({x}, {info.min}, {info.max})"
    return f"(+{x})" if dtype == np.bool_ else x


def _logical(sign: str) -> Rule:
    def write(_: Any, dtype: Any, *operands: str) -> str:
        if dtype.itemsize == 8:
            combine = f"(a, b) => a {sign} b"
            return f"combinedBits({', '.join(operands)}, {combine})"
        return f"({f' {sign} '.join(operands)})"

    return _entries(write)


def _inverted(_: Any, dtype: Any, x: str) -> str:
    return f"(!{x})" if dtype == np.bool_ else f"(-1 - {x})" if dtype.kind == "i" else f"(~{x})"


def _shifted(write: str, long: str) -> Rule:
    """A shift of at most 32 bits as JavaScript does it; one of 64 bits by a function."""

    def rule(_: Any, dtype: Any, *operands: str) -> str:
        return (write if dtype.itemsize <= 4 else long).format(*operands)

    return _entries(rule)


def _bits(params: Any, dtype: Any, x: str) -> str:
    new = np.dtype(params["new_dtype"])
    is_same_size = new.itemsize == dtype.itemsize and new.itemsize in (4, 8)
    wanted = "a bitcast must be between dtypes of 32 or of 64 bits"
    _checks.that(WHERE, is_same_size, wanted, f"{dtype} to {new}")
    return f'bitsAs({x}, "{dtype.name}", "{new.name}")'


def _rounds(params: Any, _: Any, x: str) -> str:
    is_even = params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN
    return f"{'roundedToEven' if is_even else 'roundedAway'}({x})"


def _selected(_: Any, __: Any, which: str, *cases: str) -> str:
    expression = cases[-1]
    for k in reversed(range(len(cases) - 1)):
        which_k = f"!{which}" if len(cases) == 2 else f"{which} == {k}"
        expression = f"({which_k} ? {cases[k]} : {expression})"
    return expression


def _reduced_precision(params: Any, _: Any, x: str) -> str:
    bits = params["exponent_bits"], params["mantissa_bits"]
    _checks.that(
        WHERE, bits in {(8, 23), (11, 52)}, "precision must be float32 or float64's", str(bits)
    )
    return f"Math.fround({x})" if bits == (8, 23) else x


def _polynomial(_: Any, __: Any, x: str, *coefficients: str) -> str:
    return f"polynomial({x}, [{', '.join(coefficients)}])"


# What moves entries: the map of the indices is found by moving the indices.


def _moved(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """One operand whose entries are moved or copied."""
    [operand] = operands
    indices = jnp.arange(operand.size, dtype=jnp.int64).reshape(operand.shape)
    moved = eqn.primitive.bind(indices, **eqn.params)
    results = moved if eqn.primitive.multiple_results else [moved]
    return [w.pulled(v.aval, operand, np.asarray(m))
            for v, m in zip(eqn.outvars, results, strict=True)]  # fmt: skip


def _joined(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """Several operands side by side."""
    if len(operands) == 1:
        return [w.pulled(eqn.outvars[0].aval, operands[0], np.arange(operands[0].size))]
    starts = np.cumsum([0, *(o.size for o in operands)])
    labels = [jnp.arange(start, start + o.size, dtype=jnp.int64).reshape(o.shape)
              for start, o in zip(starts, operands, strict=False)]  # fmt: skip
    joined = np.asarray(eqn.primitive.bind(*labels, **eqn.params)).ravel()
    places, name = np.argsort(joined), w.buffer(joined.size)
    for start, operand in zip(starts, operands, strict=False):
        target = places[start : start + operand.size].reshape(operand.shape)
        with w.loop(operand.shape, target) as (i, [j]):
            w.line(f"{name}[{j}] = {operand.at(i)};")
    return [w.buffered(eqn.outvars[0].aval, name)]


def _padded(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    operand, padding = operands
    indices = jnp.arange(operand.size, dtype=jnp.int64).reshape(operand.shape)
    source = np.asarray(lax.pad(indices, jnp.int64(-1), eqn.params["padding_config"]))
    aval = eqn.outvars[0].aval
    if operand.size == 0 or (source >= 0).sum() < operand.size:
        return [w.pulled(aval, operand, source, w.stored(padding).at("0"))]
    target = np.argsort(source.ravel())[-operand.size :].reshape(operand.shape)

    def fill(name: str) -> None:
        with w.loop(operand.shape, target) as (i, [j]):
            w.line(f"{name}[{j}] = {operand.at(i)};")

    return [w.filled(aval, w.stored(padding), fill)]


def _split(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    return _moved(w, eqn, [w.stored(operands[0])])


# Gathers and scatters: a place within a window, and where the window starts.


def _window(
    shape: Sequence[int], starts_shape: Sequence[int], sizes: Sequence[int], dims: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Of each entry of the windows: its index when all windows start at 0, and its window."""
    indices = jnp.arange(math.prod(shape), dtype=jnp.int64).reshape(shape)
    zeros = jnp.zeros(starts_shape, jnp.int32)
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


def _gather(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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
        indices = jnp.arange(operand.size, dtype=jnp.int64).reshape(operand.shape)
        source = lax.gather(indices, jnp.asarray(starts.known), dims, sizes, mode=mode,
                            fill_value=-1 if fills else None)  # fmt: skip
        return [w.pulled(aval, operand, np.asarray(source), missing)]
    at_zero, windows = _window(operand.shape, starts.shape, sizes, dims)
    starts, name = w.stored(starts), w.buffer(math.prod(aval.shape))
    with w.loop(aval.shape, at_zero, windows) as (i, [j, row]):
        moved = _starts(w, starts, row, operand.shape, sizes, dims.start_index_map, not fills)
        value = operand.at(f"{j} + {moved}")
        w.line(f"{name}[{i}] = {moved} == {moved} ? {value} : {missing};")
    return [w.buffered(aval, name)]


def _scatter(combine: str) -> Rule:
    """Updates written into a copy of the operand: ``combine`` is what stands before the ``=``."""

    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _sliced(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _updated(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


# What combines the entries along axes.


def _kept(shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Of each entry, the index of the result that it goes into when axes are reduced."""
    lengths = [length for axis, length in enumerate(shape) if axis not in axes]
    indices = np.arange(math.prod(lengths)).reshape(lengths)
    return np.broadcast_to(np.expand_dims(indices, tuple(axes)), shape)


def _reduced(start: str, combine: str) -> Rule:
    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _extreme(sign: str) -> Rule:
    """The index of the first largest or smallest entry; the first NaN, if there is one."""

    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _running(combine: str) -> Rule:
    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _product(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


# Programs within the program.


def _entered(name: str) -> Rule:
    """A call: its program is written in its place."""

    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
        inner = eqn.params[name]
        return w.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)

    return rule


def _passed_on(_: Writer, __: Any, operands: Sequence[Value]) -> list[Value]:
    return [*operands]


def _empty(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    del operands
    aval = eqn.outvars[0].aval
    return [w.known(np.zeros(aval.shape, aval.dtype))]


def _closed(w: Writer, program: Any, operands: Sequence[Value]) -> list[Value]:
    return w.run(program.jaxpr, program.consts, operands)


def _branches(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    which, *operands = operands
    branches = eqn.params["branches"]
    if which.known is not None:
        return _closed(w, branches[int(np.clip(int(which.known), 0, len(branches) - 1))], operands)
    operands, names = [w.stored(o) for o in operands], [w.fresh("v") for _ in eqn.outvars]
    which = w.stored(which)
    w.line(f"let {', '.join(names)};" if names else "")
    for k, branch in enumerate(branches):
        test = [f"if ({which.at('0')} <= 0)", *[f"else if ({which.at('0')} == {k})"] * (k > 0)][-1]
        with w.block(test if k < len(branches) - 1 or k == 0 else "else"):
            for name, result in zip(names, _closed(w, branch, operands), strict=True):
                w.line(f"{name} = {w.stored(result).name};")
    return [w.array(v.aval, name) for v, name in zip(eqn.outvars, names, strict=True)]


def _carried(w: Writer, starts: Sequence[Value]) -> list[Value]:
    """The variables that a loop changes, with their first values."""
    carried = []
    for start in starts:
        name = w.fresh("w")
        w.line(f"let {name} = {w.stored(start).name};")
        carried.append(w.array(start, name))
    return carried


def _carry_on(w: Writer, carried: Sequence[Value], results: Sequence[Value]) -> None:
    """The carry after a round. Arrays are copied: the next round writes where this one wrote."""
    copies = []
    for result in results:
        stored, name = w.stored(result), w.fresh("n")
        w.line(f"const {name} = {stored.name}{'.slice()' if stored.size != 1 else ''};")
        copies.append(name)
    for variable, name in zip(carried, copies, strict=True):
        w.line(f"{variable.name} = {name};")


def _while(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    num_test, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    operands = [o if o.known is not None else w.stored(o) for o in operands]
    for_test, for_body = operands[:num_test], operands[num_test : num_test + num_body]
    carried = _carried(w, operands[num_test + num_body :])
    with w.block("while (true)"):
        [goes_on] = _closed(w, test, [*for_test, *carried])
        w.line(f"if (!{goes_on.at('0')}) break;")
        _carry_on(w, carried, _closed(w, body, [*for_body, *carried]))
    return carried


def _has_its_rank(outer: Any, inner: Any) -> bool:
    """Whether a scan hands a value on whole, rather than row by row."""
    return outer.aval.ndim == inner.aval.ndim


def _scan(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    body, length = eqn.params["jaxpr"], eqn.params["length"]
    num_carry = sum(
        _has_its_rank(*pair) for pair in zip(eqn.outvars, body.jaxpr.outvars, strict=True)
    )
    num_fixed = sum(
        _has_its_rank(*pair) for pair in zip(eqn.invars, body.jaxpr.invars, strict=True)
    )
    num_consts = num_fixed - num_carry
    operands = [o if o.known is not None else w.stored(o) for o in operands]
    consts, starts = operands[:num_consts], operands[num_consts : num_consts + num_carry]
    rows = operands[num_consts + num_carry :]
    if _needs_unrolling(w, body.jaxpr):
        return _unrolled(w, eqn, [consts, starts, rows])
    rows = [w.stored(row) for row in rows]
    out_avals = [v.aval for v in eqn.outvars[num_carry:]]
    outs = [w.buffer(math.prod(aval.shape)) for aval in out_avals]
    carried, i = _carried(w, starts), w.fresh("i")
    backwards = f"for (let {i} = {length - 1}; {i} >= 0; {i}--)"
    forwards = f"for (let {i} = 0; {i} < {length}; {i}++)"
    with w.block(backwards if eqn.params["reverse"] else forwards):
        slices = []
        for row in rows:
            size, aval = row.size // max(length, 1), row._replace(shape=row.shape[1:])
            if size == 1:
                slices.append(w.scalar(aval, row.at(i)))
            else:
                name = w.fresh("x")
                w.line(f"const {name} = {row.name}.subarray({i} * {size}, ({i} + 1) * {size});")
                slices.append(w.array(aval, name))
        results = _closed(w, body, [*consts, *carried, *slices])
        for out, result in zip(outs, results[num_carry:], strict=True):
            stored = w.stored(result)
            size = stored.size
            w.line(f"{out}[{i}] = {stored.name};" if size == 1 else
                   f"{out}.set({stored.name}, {i} * {size});")  # fmt: skip
        _carry_on(w, carried, results[:num_carry])
    stacked = [w.buffered(aval, out) for aval, out in zip(out_avals, outs, strict=True)]
    return [*carried, *stacked]


def _needs_unrolling(w: Writer, program: Any) -> bool:
    """Whether a body holds what only JAX can do, such as splitting a key."""
    for eqn in program.eqns:
        if eqn.primitive not in w.rules:
            return True
        for inner in jex.jaxprs_in_params(eqn.params):
            if _needs_unrolling(w, inner):
                return True
    return False


def _unrolled(w: Writer, eqn: Any, operands: Sequence[Sequence[Value]]) -> list[Value]:
    """A scan written round by round, so that what is known stays known."""
    consts, starts, rows = operands
    body, length, num_carry = eqn.params["jaxpr"], eqn.params["length"], len(starts)
    carry, stacks = [*starts], [[] for _ in eqn.outvars[num_carry:]]
    order = [*range(length)][:: -1 if eqn.params["reverse"] else 1]
    for i in order:
        slices = []
        for row in rows:
            aval = row._replace(shape=row.shape[1:])
            if row.known is not None:
                slices.append(w.known(row.known[i]))
            else:
                source = np.arange(row.size).reshape(row.shape)[i]
                slices.append(w.pulled(aval, w.stored(row), source))
        results = _closed(w, body, [*consts, *carry, *slices])
        carry = results[:num_carry]
        for stack, result in zip(stacks, results[num_carry:], strict=True):
            stack.append(result)
    outs = []
    for v, stack in zip(eqn.outvars[num_carry:], stacks, strict=True):
        if all(value.known is not None for value in stack):
            ordered = [value.known for _, value in sorted(zip(order, stack, strict=True))]
            outs.append(w.known(jnp.stack(ordered)))
            continue
        name = w.buffer(math.prod(v.aval.shape))
        for i, value in zip(order, stack, strict=True):
            with w.loop(value.shape) as (j, []):
                w.line(f"{name}[{i * value.size} + {j}] = {value.at(j)};")
        outs.append(w.buffered(v.aval, name))
    return [*carry, *outs]


def _matrices(w: Writer, eqn: Any, operands: Sequence[Value]) -> tuple[list[str], list[str]]:
    """Of a rule that calls a function on whole arrays: the operands' names, buffers for results."""
    names = [w.whole(operand) for operand in operands]
    return names, [w.buffer(math.prod(v.aval.shape)) for v in eqn.outvars]


def _sorted(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    axis, num_keys = eqn.params["dimension"], eqn.params["num_keys"]
    names, outs = _matrices(w, eqn, operands)
    shape = operands[0].shape
    stride, length = math.prod(shape[axis + 1 :]), shape[axis]
    arrays = f"[{', '.join(names)}], [{', '.join(outs)}]"
    w.line(f"sortLines({arrays}, {length}, {stride}, {num_keys});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]


def _solved_triangle(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    p, (names, [out]) = eqn.params, _matrices(w, eqn, operands)
    n, m = operands[1].shape[-2:]
    flags = ", ".join(str(bool(p[k])).lower()
                      for k in ("left_side", "lower", "transpose_a", "unit_diagonal"))  # fmt: skip
    w.line(f"solveTriangle({names[0]}, {names[1]}, {out}, {n}, {m}, {flags});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def _factored(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    names, outs = _matrices(w, eqn, operands)
    n, m = operands[0].shape[-2:]
    w.line(f"factor({names[0]}, {', '.join(outs)}, {n}, {m});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]


def _cholesky(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    names, [out] = _matrices(w, eqn, operands)
    w.line(f"cholesky({names[0]}, {out}, {operands[0].shape[-1]});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def _permutation(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    names, [out] = _matrices(w, eqn, operands)
    lengths = f"{operands[0].shape[-1]}, {eqn.outvars[0].aval.shape[-1]}"
    w.line(f"permutation({names[0]}, {out}, {lengths});")
    return [w.buffered(eqn.outvars[0].aval, out)]


def _solved(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """A linear system: by the program that came with it."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start, num_consts = lengths.matvec + lengths.vecmat, sum(lengths)
    consts = operands[start : start + lengths.solve]
    return _closed(w, programs.solve, [*consts, *operands[num_consts:]])


def _convolved(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """Products summed over a window, one entry of the kernel after the other."""
    p, [left, right] = eqn.params, [w.stored(o) for o in operands]
    lhs_spec, rhs_spec, out_spec = p["dimension_numbers"]
    padding = [(0, 0, 0), (0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in
               zip(p["padding"], p["lhs_dilation"], strict=True))]  # fmt: skip
    indices = np.arange(left.size).reshape(left.shape).transpose(lhs_spec)
    source = np.asarray(lax.pad(jnp.asarray(indices), jnp.asarray(-1, indices.dtype), padding))
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
    indices = jnp.arange(math.prod(shape), dtype=jnp.int64).reshape(shape)
    padded = np.asarray(lax.pad(indices, jnp.int64(-1), padding))
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


def _window_reduced(start: str, combine: str) -> Rule:
    def rule(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _selected_and_scattered(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
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


def _highest(w: Writer, eqn: Any, operands: Sequence[Value]) -> list[Value]:
    """The k largest entries along an axis and where they stand."""
    shape = operands[0].shape
    axis = eqn.params.get("axis", -1) % len(shape)
    names, outs = _matrices(w, eqn, operands)
    stride = math.prod(shape[axis + 1 :])
    w.line(f"highest({names[0]}, {', '.join(outs)}, {shape[axis]}, {stride}, {eqn.params['k']});")
    return [w.buffered(v.aval, out) for v, out in zip(eqn.outvars, outs, strict=True)]


def _primitive(fn: Callable[..., Any], *args: Any) -> Any:
    """The primitive of a function of one operation: for those without a public name."""
    return jax.make_jaxpr(fn)(*args).eqns[0].primitive


_ONE = np.ones(1, np.float32)
_with_a_batching_rule = jax.custom_batching.custom_vmap(lambda x: x)
_with_a_batching_rule.def_vmap(lambda _, in_batched, x: (x, in_batched[0]))
_SCATTERED = (
    np.zeros((1, 1), np.int32), _ONE, lax.ScatterDimensionNumbers((), (0,), (0,))
)  # fmt: skip

RULES: dict[Any, Rule] = {
    primitives.add_p: _between("+"),
    primitives.add_jaxvals_p: _between("+"),
    primitives.sub_p: _between("-"),
    primitives.mul_p: _template("({} * {})", "product({}, {})"),
    primitives.div_p: _template("({} / {})", "quotient({}, {})"),
    primitives.rem_p: _between("%"),
    primitives.neg_p: _template("(-{})"),
    primitives.abs_p: _call("Math.abs"),
    primitives.sign_p: _call("Math.sign"),
    primitives.max_p: _call("Math.max"),
    primitives.min_p: _call("Math.min"),
    primitives.clamp_p: _template("Math.min(Math.max({1}, {0}), {2})"),
    primitives.floor_p: _call("Math.floor"),
    primitives.ceil_p: _call("Math.ceil"),
    primitives.round_p: _entries(_rounds),
    primitives.is_finite_p: _call("Number.isFinite"),
    primitives.square_p: _call("square", "squareOfInteger"),
    primitives.integer_pow_p: _entries(lambda p, _, x: f"power({x}, {p['y']})"),
    primitives.pow_p: _call("pow"),
    primitives.sqrt_p: _call("Math.sqrt"),
    primitives.rsqrt_p: _template("(1 / Math.sqrt({}))"),
    primitives.cbrt_p: _call("Math.cbrt"),
    primitives.exp_p: _call("Math.exp"),
    primitives.exp2_p: _template("Math.pow(2, {})"),
    primitives.expm1_p: _call("Math.expm1"),
    primitives.log_p: _call("Math.log"),
    primitives.log1p_p: _call("Math.log1p"),
    primitives.logistic_p: _call("logistic"),
    primitives.sin_p: _call("Math.sin"),
    primitives.cos_p: _call("Math.cos"),
    primitives.tan_p: _call("Math.tan"),
    primitives.asin_p: _call("Math.asin"),
    primitives.acos_p: _call("Math.acos"),
    primitives.atan_p: _call("Math.atan"),
    primitives.atan2_p: _call("Math.atan2"),
    primitives.sinh_p: _call("Math.sinh"),
    primitives.cosh_p: _call("Math.cosh"),
    primitives.tanh_p: _call("Math.tanh"),
    primitives.asinh_p: _call("Math.asinh"),
    primitives.acosh_p: _call("Math.acosh"),
    primitives.atanh_p: _call("Math.atanh"),
    primitives.erf_p: _call("erf"),
    primitives.erfc_p: _call("erfc"),
    primitives.erf_inv_p: _call("erfInverse"),
    primitives.lgamma_p: _call("logGamma"),
    primitives.digamma_p: _call("digamma"),
    primitives.polygamma_p: _call("polygamma"),
    primitives.zeta_p: _call("zeta"),
    primitives.bessel_i0e_p: _template("besselI({}, 0)"),
    primitives.bessel_i1e_p: _template("besselI({}, 1)"),
    primitives.eq_p: _between("=="),
    primitives.ne_p: _between("!="),
    primitives.lt_p: _between("<"),
    primitives.le_p: _between("<="),
    primitives.gt_p: _between(">"),
    primitives.ge_p: _between(">="),
    primitives.eq_to_p: _call("isSameInOrder"),
    primitives.lt_to_p: _call("isBeforeInOrder"),
    primitives.le_to_p: _call("isNotAfterInOrder"),
    primitives.and_p: _logical("&"),
    primitives.or_p: _logical("|"),
    primitives.xor_p: _logical("^"),
    primitives.not_p: _entries(_inverted),
    primitives.shift_left_p: _shifted("shiftedLeft({}, {})", "shiftedLong({}, {}, 1)"),
    primitives.shift_right_logical_p: _shifted("shiftedRight({}, {})", "shiftedLong({}, {}, -1)"),
    primitives.shift_right_arithmetic_p: _shifted(
        "({0} >> Math.min({1}, 31))", "shiftedLong({}, {}, 0)"
    ),
    primitives.bitcast_convert_type_p: _entries(_bits),
    primitives.select_n_p: _entries(_selected),
    primitives.convert_element_type_p: _entries(_converted),
    primitives.reduce_precision_p: _entries(_reduced_precision),
    primitives.stop_gradient_p: _passed_on,
    primitives.copy_p: _passed_on,
    primitives.name_p: _passed_on,
    primitives.device_put_p: _passed_on,
    _primitive(lax.optimization_barrier, _ONE): _passed_on,
    primitives.empty2_p: _empty,
    primitives.reshape_p: _moved,
    primitives.squeeze_p: _moved,
    primitives.transpose_p: _moved,
    primitives.broadcast_in_dim_p: _moved,
    primitives.rev_p: _moved,
    primitives.slice_p: _moved,
    _primitive(lambda x: lax.split(x, [1]), _ONE): _split,
    primitives.concatenate_p: _joined,
    _primitive(lambda x: jnp.stack([x, x]), 1.0): _joined,
    _primitive(lambda x: lax.tile(x, [2]), _ONE): _moved,
    _primitive(jnp.unstack, _ONE): _split,
    primitives.pad_p: _padded,
    primitives.gather_p: _gather,
    primitives.scatter_p: _scatter("{1}"),
    primitives.scatter_add_p: _scatter("{0} + {1}"),
    _primitive(lambda x: lax.scatter_sub(x, *_SCATTERED), _ONE): _scatter("{0} - {1}"),
    primitives.scatter_mul_p: _scatter("{0} * {1}"),
    primitives.scatter_max_p: _scatter("Math.max({0}, {1})"),
    primitives.scatter_min_p: _scatter("Math.min({0}, {1})"),
    primitives.dynamic_slice_p: _sliced,
    primitives.dynamic_update_slice_p: _updated,
    primitives.reduce_sum_p: _reduced("0", "{} + {}"),
    primitives.reduce_prod_p: _reduced("1", "{} * {}"),
    primitives.reduce_max_p: _reduced("-Infinity", "Math.max({}, {})"),
    primitives.reduce_min_p: _reduced("Infinity", "Math.min({}, {})"),
    primitives.reduce_and_p: _reduced("1", "{} & {}"),
    primitives.reduce_or_p: _reduced("0", "{} | {}"),
    primitives.argmax_p: _extreme(">"),
    primitives.argmin_p: _extreme("<"),
    primitives.cumsum_p: _running("{} + {}"),
    primitives.cumprod_p: _running("{} * {}"),
    primitives.cummax_p: _running("Math.max({}, {})"),
    primitives.cummin_p: _running("Math.min({}, {})"),
    primitives.cumlogsumexp_p: _running("logAddExp({}, {})"),
    primitives.dot_general_p: _product,
    primitives.conv_general_dilated_p: _convolved,
    primitives.sort_p: _sorted,
    primitives.top_k_p: _highest,
    primitives.reduce_window_sum_p: _window_reduced("0", "{} + {}"),
    primitives.reduce_window_max_p: _window_reduced("-Infinity", "Math.max({}, {})"),
    primitives.reduce_window_min_p: _window_reduced("Infinity", "Math.min({}, {})"),
    primitives.select_and_scatter_add_p: _selected_and_scattered,
    primitives.triangular_solve_p: _solved_triangle,
    primitives.lu_p: _factored,
    primitives.cholesky_p: _cholesky,
    _primitive(
        lambda p: lax.linalg.lu_pivots_to_permutation(p, 1), np.zeros(1, np.int32)
    ): _permutation,
    primitives.linear_solve_p: _solved,
    primitives.jit_p: _entered("jaxpr"),
    primitives.closed_call_p: _entered("call_jaxpr"),
    primitives.call_p: _entered("call_jaxpr"),
    primitives.remat_p: _entered("jaxpr"),
    primitives.custom_jvp_call_p: _entered("call_jaxpr"),
    primitives.custom_vjp_call_p: _entered("call_jaxpr"),
    _primitive(_with_a_batching_rule, _ONE): _entered("call"),
    primitives.cond_p: _branches,
    primitives.while_p: _while,
    primitives.scan_p: _scan,
}
"""The rule of each primitive."""

_NEWER = {
    "log2_p": _call("Math.log2"),
    "one_minus_square_p": _call("oneMinusSquare"),
    "polynomial_p": _entries(_polynomial),
}
RULES |= {
    getattr(primitives, name): rule for name, rule in _NEWER.items() if hasattr(primitives, name)
}
