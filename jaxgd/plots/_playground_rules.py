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

from jaxgd._jaxprs import Eqn, Jaxpr
from jaxgd.plots import _playground_arrays as arrays
from jaxgd.plots import _playground_entries as entries
from jaxgd.plots import _playground_numpy as by_numpy
from jaxgd.plots import _playground_reductions as reductions
from jaxgd.plots._playground_writer import Rule, Value, Writer
from jaxgd.types import PyTree

# Programs within the program.


def _entered(name: str) -> Rule:
    """A call: its program is written in its place."""

    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
        inner = eqn.params[name]
        return w.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)

    return rule


def _passed_on(_: Writer, __: Any, operands: Sequence[Value]) -> list[Value]:
    return [*operands]


def _empty(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    del operands
    aval = eqn.outvars[0].aval
    return [w.known(np.zeros(aval.shape, aval.dtype))]


def _closed(w: Writer, program: Jaxpr, operands: Sequence[Value]) -> list[Value]:
    return w.run(program.jaxpr, program.consts, operands)


def _branches(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
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


def _while(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
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


def _scan(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
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


def _needs_unrolling(w: Writer, program: Jaxpr) -> bool:
    """Whether a body holds what only JAX can do, such as splitting a key."""
    for eqn in program.eqns:
        if eqn.primitive not in w.rules:
            return True
        for inner in jex.jaxprs_in_params(eqn.params):
            if _needs_unrolling(w, inner):
                return True
    return False


def _unrolled(w: Writer, eqn: Eqn, operands: Sequence[Sequence[Value]]) -> list[Value]:
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


def _solved(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
    """A linear system: by the program that came with it."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start, num_consts = lengths.matvec + lengths.vecmat, sum(lengths)
    consts = operands[start : start + lengths.solve]
    return _closed(w, programs.solve, [*consts, *operands[num_consts:]])


def _primitive(fn: Callable[..., PyTree], *args: PyTree) -> Any:
    """The primitive of a function of one operation: for those without a public name."""
    return jax.make_jaxpr(fn)(*args).eqns[0].primitive


_ONE = np.ones(1, np.float32)
_with_a_batching_rule = jax.custom_batching.custom_vmap(lambda x: x)
_with_a_batching_rule.def_vmap(lambda _, in_batched, x: (x, in_batched[0]))
_SCATTERED = (
    np.zeros((1, 1), np.int32), _ONE, lax.ScatterDimensionNumbers((), (0,), (0,))
)  # fmt: skip

RULES: dict[Any, Rule] = {
    primitives.add_p: entries.between("+"),
    primitives.add_jaxvals_p: entries.between("+"),
    primitives.sub_p: entries.between("-"),
    primitives.mul_p: entries.template("({} * {})", "product({}, {})"),
    primitives.div_p: entries.template("({} / {})", "quotient({}, {})"),
    primitives.rem_p: entries.between("%"),
    primitives.neg_p: entries.template("(-{})"),
    primitives.abs_p: entries.call("Math.abs"),
    primitives.sign_p: entries.call("Math.sign"),
    primitives.max_p: entries.call("Math.max"),
    primitives.min_p: entries.call("Math.min"),
    primitives.clamp_p: entries.template("Math.min(Math.max({1}, {0}), {2})"),
    primitives.floor_p: entries.call("Math.floor"),
    primitives.ceil_p: entries.call("Math.ceil"),
    primitives.round_p: entries.each_entry(entries.rounds),
    primitives.is_finite_p: entries.call("Number.isFinite"),
    primitives.square_p: entries.call("square", "squareOfInteger"),
    primitives.integer_pow_p: entries.each_entry(lambda p, _, x: f"power({x}, {p['y']})"),
    primitives.pow_p: entries.call("pow"),
    primitives.sqrt_p: entries.call("Math.sqrt"),
    primitives.rsqrt_p: entries.template("(1 / Math.sqrt({}))"),
    primitives.cbrt_p: entries.call("Math.cbrt"),
    primitives.exp_p: entries.call("Math.exp"),
    primitives.exp2_p: entries.template("Math.pow(2, {})"),
    primitives.expm1_p: entries.call("Math.expm1"),
    primitives.log_p: entries.call("Math.log"),
    primitives.log1p_p: entries.call("Math.log1p"),
    primitives.logistic_p: entries.call("logistic"),
    primitives.sin_p: entries.call("Math.sin"),
    primitives.cos_p: entries.call("Math.cos"),
    primitives.tan_p: entries.call("Math.tan"),
    primitives.asin_p: entries.call("Math.asin"),
    primitives.acos_p: entries.call("Math.acos"),
    primitives.atan_p: entries.call("Math.atan"),
    primitives.atan2_p: entries.call("Math.atan2"),
    primitives.sinh_p: entries.call("Math.sinh"),
    primitives.cosh_p: entries.call("Math.cosh"),
    primitives.tanh_p: entries.call("Math.tanh"),
    primitives.asinh_p: entries.call("Math.asinh"),
    primitives.acosh_p: entries.call("Math.acosh"),
    primitives.atanh_p: entries.call("Math.atanh"),
    primitives.erf_p: entries.call("erf"),
    primitives.erfc_p: entries.call("erfc"),
    primitives.erf_inv_p: entries.call("erfInverse"),
    primitives.lgamma_p: entries.call("logGamma"),
    primitives.digamma_p: entries.call("digamma"),
    primitives.polygamma_p: entries.call("polygamma"),
    primitives.zeta_p: entries.call("zeta"),
    primitives.bessel_i0e_p: entries.template("besselI({}, 0)"),
    primitives.bessel_i1e_p: entries.template("besselI({}, 1)"),
    primitives.eq_p: entries.between("=="),
    primitives.ne_p: entries.between("!="),
    primitives.lt_p: entries.between("<"),
    primitives.le_p: entries.between("<="),
    primitives.gt_p: entries.between(">"),
    primitives.ge_p: entries.between(">="),
    primitives.eq_to_p: entries.call("isSameInOrder"),
    primitives.lt_to_p: entries.call("isBeforeInOrder"),
    primitives.le_to_p: entries.call("isNotAfterInOrder"),
    primitives.and_p: entries.logical("&"),
    primitives.or_p: entries.logical("|"),
    primitives.xor_p: entries.logical("^"),
    primitives.not_p: entries.each_entry(entries.inverted),
    primitives.shift_left_p: entries.shifted("shiftedLeft({}, {})", "shiftedLong({}, {}, 1)"),
    primitives.shift_right_logical_p: entries.shifted(
        "shiftedRight({}, {})", "shiftedLong({}, {}, -1)"
    ),
    primitives.shift_right_arithmetic_p: entries.shifted(
        "({0} >> Math.min({1}, 31))", "shiftedLong({}, {}, 0)"
    ),
    primitives.bitcast_convert_type_p: entries.each_entry(entries.bits),
    primitives.select_n_p: entries.each_entry(entries.selected),
    primitives.convert_element_type_p: entries.each_entry(entries.converted),
    primitives.reduce_precision_p: entries.each_entry(entries.reduced_precision),
    primitives.stop_gradient_p: _passed_on,
    primitives.copy_p: _passed_on,
    primitives.name_p: _passed_on,
    primitives.device_put_p: _passed_on,
    _primitive(lax.optimization_barrier, _ONE): _passed_on,
    primitives.empty2_p: _empty,
    primitives.reshape_p: arrays.moved,
    primitives.squeeze_p: arrays.moved,
    primitives.transpose_p: arrays.moved,
    primitives.broadcast_in_dim_p: arrays.moved,
    primitives.rev_p: arrays.moved,
    primitives.slice_p: arrays.moved,
    by_numpy.SPLIT: arrays.split,
    primitives.concatenate_p: arrays.joined,
    _primitive(lambda x: jnp.stack([x, x]), 1.0): arrays.joined,
    _primitive(lambda x: lax.tile(x, [2]), _ONE): arrays.moved,
    _primitive(jnp.unstack, _ONE): arrays.split,
    primitives.pad_p: arrays.padded,
    primitives.gather_p: arrays.gather,
    primitives.scatter_p: arrays.scatter("{1}"),
    primitives.scatter_add_p: arrays.scatter("{0} + {1}"),
    _primitive(lambda x: lax.scatter_sub(x, *_SCATTERED), _ONE): arrays.scatter("{0} - {1}"),
    primitives.scatter_mul_p: arrays.scatter("{0} * {1}"),
    primitives.scatter_max_p: arrays.scatter("Math.max({0}, {1})"),
    primitives.scatter_min_p: arrays.scatter("Math.min({0}, {1})"),
    primitives.dynamic_slice_p: arrays.sliced,
    primitives.dynamic_update_slice_p: arrays.updated,
    primitives.reduce_sum_p: reductions.reduced("0", "{} + {}"),
    primitives.reduce_prod_p: reductions.reduced("1", "{} * {}"),
    primitives.reduce_max_p: reductions.reduced("-Infinity", "Math.max({}, {})"),
    primitives.reduce_min_p: reductions.reduced("Infinity", "Math.min({}, {})"),
    primitives.reduce_and_p: reductions.reduced("1", "{} & {}"),
    primitives.reduce_or_p: reductions.reduced("0", "{} | {}"),
    primitives.argmax_p: reductions.extreme(">"),
    primitives.argmin_p: reductions.extreme("<"),
    primitives.cumsum_p: reductions.running("{} + {}"),
    primitives.cumprod_p: reductions.running("{} * {}"),
    primitives.cummax_p: reductions.running("Math.max({}, {})"),
    primitives.cummin_p: reductions.running("Math.min({}, {})"),
    primitives.cumlogsumexp_p: reductions.running("logAddExp({}, {})"),
    primitives.dot_general_p: reductions.product,
    primitives.conv_general_dilated_p: reductions.convolved,
    primitives.sort_p: reductions.sort,
    primitives.top_k_p: reductions.highest,
    primitives.reduce_window_sum_p: reductions.window_reduced("0", "{} + {}"),
    primitives.reduce_window_max_p: reductions.window_reduced("-Infinity", "Math.max({}, {})"),
    primitives.reduce_window_min_p: reductions.window_reduced("Infinity", "Math.min({}, {})"),
    primitives.select_and_scatter_add_p: reductions.selected_and_scattered,
    primitives.triangular_solve_p: reductions.solved_triangle,
    primitives.lu_p: reductions.factored,
    primitives.cholesky_p: reductions.cholesky,
    _primitive(
        lambda p: lax.linalg.lu_pivots_to_permutation(p, 1), np.zeros(1, np.int32)
    ): reductions.permutation,
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
    "log2_p": entries.call("Math.log2"),
    "one_minus_square_p": entries.call("oneMinusSquare"),
    "polynomial_p": entries.each_entry(entries.polynomial),
}
RULES |= {
    getattr(primitives, name): rule for name, rule in _NEWER.items() if hasattr(primitives, name)
}
