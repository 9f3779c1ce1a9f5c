"""Rules of what is done entry by entry: each writes the expression of one entry."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxgd import _checks
from jaxgd._jaxprs import Eqn
from jaxgd.plots._playground_writer import WHERE, Rule, Value, Writer


def each_entry(write: Callable[..., str]) -> Rule:
    """An operation on entries: ``write(params, dtype of the operands, *expressions)``."""

    def rule(w: Writer, eqn: Eqn, operands: Sequence[Value]) -> list[Value]:
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


def template(text: str, integers: str | None = None) -> Rule:
    """An operation written as a template, with another one for integers where they differ."""

    def write(_: Any, dtype: np.dtype, *operands: str) -> str:
        is_float = np.issubdtype(dtype, np.floating)
        return (text if is_float or integers is None else integers).format(*operands)

    return each_entry(write)


def call(name: str, integers: str | None = None) -> Rule:
    return each_entry(lambda _, dtype, *operands: (
        f"{name if integers is None or np.issubdtype(dtype, np.floating) else integers}"
        f"({', '.join(operands)})"))  # fmt: skip


def between(sign: str) -> Rule:
    return template(f"({{0}} {sign} {{1}})")


def converted(params: Any, dtype: np.dtype, x: str) -> str:
    new = params["new_dtype"]
    if new == np.bool_:
        return f"({x} != 0)"
    if np.issubdtype(new, np.integer) and np.issubdtype(dtype, np.floating):
        info = np.iinfo(new)
        return f"saturated({x}, {info.min}, {info.max})"
    return f"(+{x})" if dtype == np.bool_ else x


def logical(sign: str) -> Rule:
    def write(_: Any, dtype: np.dtype, *operands: str) -> str:
        if dtype.itemsize == 8:
            combine = f"(a, b) => a {sign} b"
            return f"combinedBits({', '.join(operands)}, {combine})"
        return f"({f' {sign} '.join(operands)})"

    return each_entry(write)


def inverted(_: Any, dtype: np.dtype, x: str) -> str:
    return f"(!{x})" if dtype == np.bool_ else f"(-1 - {x})" if dtype.kind == "i" else f"(~{x})"


def shifted(write: str, long: str) -> Rule:
    """A shift of at most 32 bits as JavaScript does it; one of 64 bits by a function."""

    def rule(_: Any, dtype: np.dtype, *operands: str) -> str:
        return (write if dtype.itemsize <= 4 else long).format(*operands)

    return each_entry(rule)


def bits(params: Any, dtype: np.dtype, x: str) -> str:
    new = np.dtype(params["new_dtype"])
    is_same_size = new.itemsize == dtype.itemsize and new.itemsize in (4, 8)
    wanted = "a bitcast must be between dtypes of 32 or of 64 bits"
    _checks.that(WHERE, is_same_size, wanted, f"{dtype} to {new}")
    return f'bitsAs({x}, "{dtype.name}", "{new.name}")'


def rounds(params: Any, _: Any, x: str) -> str:
    is_even = params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN
    return f"{'roundedToEven' if is_even else 'roundedAway'}({x})"


def selected(_: Any, __: Any, which: str, *cases: str) -> str:
    expression = cases[-1]
    for k in reversed(range(len(cases) - 1)):
        which_k = f"!{which}" if len(cases) == 2 else f"{which} == {k}"
        expression = f"({which_k} ? {cases[k]} : {expression})"
    return expression


def reduced_precision(params: Any, _: Any, x: str) -> str:
    bits = params["exponent_bits"], params["mantissa_bits"]
    _checks.that(
        WHERE, bits in {(8, 23), (11, 52)}, "precision must be float32 or float64's", str(bits)
    )
    return f"Math.fround({x})" if bits == (8, 23) else x


def polynomial(_: Any, __: Any, x: str, *coefficients: str) -> str:
    return f"polynomial({x}, [{', '.join(coefficients)}])"
