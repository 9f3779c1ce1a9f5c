"""What is known of each operation: one record per primitive, keyed by the primitive itself.

An operation that is not listed is evaluated plainly, rather than wrongly. One that JAX drops
fails when this is imported.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from jaxgd._affine import squares
from jaxgd._affine.program import Equation, Operand
from jaxgd._jaxprs import Aval, Eqn

# Prices: the cost of computing an equation at a point, in entries read. Measured on a CPU: a
# product is written and read again, and 8 multiplications of a matrix product, or 32 of a
# convolution, take as long as one more read.


def unknown(equation: Equation) -> float:
    """What is not known to be cheap is not repeated."""
    del equation
    return math.inf


def free(equation: Equation) -> float:
    """A compiler fuses it into its consumer."""
    del equation
    return 0


def cheap(equation: Equation) -> float:
    """A fraction of a read per entry."""
    return written(equation) / 4


def written(equation: Equation) -> float:
    """A read per entry of the results."""
    return sum(size(v.aval) for v in equation.source.outvars)


def summed(equation: Equation) -> float:
    """A read per entry of the operand."""
    return size(equation.source.invars[0].aval)


def matrix_product(equation: Equation) -> float:
    """By the length of the sums."""
    (contracted, _), _ = equation.source.params["dimension_numbers"]
    shape = equation.source.invars[0].aval.shape
    return written(equation) * (2 + math.prod(shape[axis] for axis in contracted) / 8)


def convolution(equation: Equation) -> float:
    """By the size of the window, all channels of its group included."""
    _, *window = equation.source.params["dimension_numbers"].rhs_spec
    shape = equation.source.invars[1].aval.shape
    return written(equation) * (1.5 + math.prod(shape[axis] for axis in window) / 32)


def size(aval: Aval) -> int:
    """The number of entries."""
    return math.prod(getattr(aval, "shape", ()))


def work(equation: Equation) -> float:
    """The price of an equation, estimated where it is not known: what must be done is done."""
    price = rule_of(equation).price(equation)
    return price if price < math.inf else _estimated(equation.source)


def _estimated(eqn: Eqn) -> float:
    """A few reads per entry; of a loop, all its rounds; of a choice, the dearest."""
    own = sum(size(v.aval) for v in eqn.outvars)
    inner = [sum(map(_estimated, jaxpr.eqns)) for jaxpr in jex.jaxprs_in_params(eqn.params)]
    if eqn.primitive is primitives.scan_p:
        return own + eqn.params["length"] * sum(inner)
    if eqn.primitive in RULES and not inner:
        known = RULES[eqn.primitive].price(Equation(eqn, (), ()))
        return known if known < math.inf else 2 * own
    return max([2 * own, *inner])


# Questions about an equation: its params, and which of its operands move.


def always(equation: Equation, moving: Sequence[bool] = ()) -> bool:
    """Whatever its params."""
    del equation, moving
    return True


def never(equation: Equation) -> bool:
    """Whatever its params."""
    del equation
    return False


def rounds_nothing(equation: Equation) -> bool:
    """Whether a product takes its operands as they are: a named algorithm may round them."""
    named = (jax.lax.DotAlgorithm, jax.lax.DotAlgorithmPreset)
    return not isinstance(equation.source.params["precision"], named)


def overwrites(equation: Equation) -> bool:
    """Whether a scatter sets entries; it may also apply any function to them."""
    return equation.source.params["update_jaxpr"] is None


def by_itself(equation: Equation) -> bool:
    """Whether both operands are one value."""
    left, right = equation.inputs
    return not isinstance(left, jex.Literal) and left == right


def is_power_of_two(equation: Equation) -> bool:
    """Whether an integer power is a square."""
    return equation.source.params["y"] == 2


def is_power_of_literal_two(equation: Equation) -> bool:
    """Whether a power is a square."""
    power = equation.inputs[1]
    return isinstance(power, jex.Literal) and bool(power.val == 2)


def keeps_shape(equation: Equation, moving: Sequence[bool]) -> bool:
    """Whether no operand that moves is broadcast."""
    source = equation.source
    moved = [v.aval.shape for v, moves in zip(source.invars, moving, strict=True) if moves]
    return all(shape == source.outvars[0].aval.shape for shape in moved)


def sums_products(equation: Equation, moving: Sequence[bool] = ()) -> bool:
    """Whether a dot_general sums an elementwise product over some axes, as reduce_sum does."""
    del moving
    (left, right), (left_batch, right_batch) = equation.source.params["dimension_numbers"]
    operand, other = (variable.aval for variable in equation.source.invars)
    result = equation.source.outvars[0].aval
    kept = tuple(axis for axis in range(operand.ndim) if axis not in left)
    is_elementwise = operand.shape == other.shape and left == right
    return is_elementwise and left_batch == right_batch == kept and operand.dtype == result.dtype


def sums_terms(equation: Equation) -> bool:
    """Whether several terms of one operand, or of its products, are added up in an entry."""
    primitive, params = equation.source.primitive, equation.source.params
    if primitive is primitives.dot_general_p:
        axes = params["dimension_numbers"][0][0]
    elif primitive is primitives.reduce_sum_p:
        axes = params["axes"]
    else:
        return pads_terms(equation) or primitive in (
            primitives.cumsum_p,
            primitives.reduce_window_sum_p,
            primitives.scatter_add_p,
        )
    return math.prod(equation.source.invars[0].aval.shape[axis] for axis in axes) > 1


def pads_terms(equation: Equation) -> bool:
    """Whether zeros that are not in an operand may be among the terms."""
    return equation.source.primitive is primitives.conv_general_dilated_p


def sign_of_sum(equation: Equation) -> int:
    """1 where two operands are added up, -1 where they are subtracted, 0 where neither."""
    is_sum = equation.source.primitive in (primitives.add_p, primitives.add_jaxvals_p)
    return int(is_sum) - int(equation.source.primitive is primitives.sub_p)


def sums_own_products(equation: Equation) -> bool:
    """Whether a dot_general sums squares of its operand."""
    return by_itself(equation) and sums_products(equation)


def fills_with_zeros(equation: Equation) -> bool:
    """Whether an index outside reads 0, NaN or the border: another number would be added up."""
    fill = equation.source.params["fill_value"]
    return fill is None or fill == 0


class Rule(NamedTuple):
    """All that is known of a primitive.

    Attributes:
      linear_in: the operands in which it is linear while all others are constant.
      bilinear: whether it is linear in either of its two operands, hence affine while the other
        is constant.
      accepts: whether that holds for an equation, by its params.
      price: the cost of computing an equation at a point, in entries read.
      widens: whether it runs as well in float64.
      is_square: whether an equation squares an affine operand.
      squares_in: the operands that may be squares while all others are constant, for the
        results to be squares again.
      keeps_squares: whether that holds for an equation, by its params and by which operands move.
      rows: what it does to the rows of sums of squares, or how it makes them.
    """

    linear_in: slice = slice(0)
    bilinear: bool = False
    accepts: Callable[[Equation], bool] = always
    price: Callable[[Equation], float] = unknown
    widens: bool = True
    is_square: Callable[[Equation], bool] = never
    squares_in: slice = slice(0)
    keeps_squares: Callable[[Equation, Sequence[bool]], bool] = always
    rows: Callable[[Equation, Sequence[Operand]], squares.Rows] = squares.squared


UNKNOWN = Rule()

_ALL = slice(None)
_FIRST = slice(1)
_LAYOUT = Rule(linear_in=_ALL, price=free, squares_in=_FIRST, rows=squares.rearrange)


def _split() -> Any:
    """The primitive of jax.lax.split, which has no public name."""
    two = jax.ShapeDtypeStruct((2,), jnp.float32)  # an array would start the backend at import
    program = jax.make_jaxpr(lambda x: jax.lax.split(x, (1, 1)))(two)
    return program.jaxpr.eqns[0].primitive


RULES = {
    primitives.broadcast_in_dim_p: _LAYOUT,
    primitives.copy_p: _LAYOUT,
    primitives.name_p: _LAYOUT,
    primitives.reshape_p: _LAYOUT,
    primitives.rev_p: _LAYOUT,
    primitives.slice_p: _LAYOUT,
    primitives.squeeze_p: _LAYOUT,
    primitives.transpose_p: _LAYOUT,
    primitives.add_p: Rule(
        linear_in=_ALL,
        price=cheap,
        squares_in=_ALL,
        keeps_squares=keeps_shape,
        rows=squares.add,
    ),
    primitives.add_jaxvals_p: Rule(linear_in=_ALL, price=cheap),
    primitives.concatenate_p: Rule(linear_in=_ALL, price=cheap),
    primitives.conv_general_dilated_p: Rule(
        bilinear=True, accepts=rounds_nothing, price=convolution, widens=False
    ),
    primitives.convert_element_type_p: Rule(linear_in=_FIRST, price=free),
    primitives.cumsum_p: Rule(linear_in=_ALL),
    primitives.div_p: Rule(
        linear_in=_FIRST,
        price=cheap,
        squares_in=_FIRST,
        keeps_squares=keeps_shape,
        rows=squares.divide,
    ),
    primitives.dot_general_p: Rule(
        bilinear=True,
        accepts=rounds_nothing,
        price=matrix_product,
        is_square=sums_own_products,
        squares_in=_ALL,
        keeps_squares=sums_products,
        rows=squares.sum_of_products,
    ),
    primitives.dynamic_slice_p: Rule(linear_in=_FIRST),
    primitives.dynamic_update_slice_p: Rule(linear_in=slice(2)),
    primitives.eq_p: Rule(price=cheap),
    primitives.gather_p: Rule(linear_in=_FIRST, accepts=fills_with_zeros, price=written),
    primitives.integer_pow_p: Rule(price=cheap, is_square=is_power_of_two),
    primitives.iota_p: Rule(price=free),
    primitives.mul_p: Rule(
        bilinear=True,
        price=cheap,
        is_square=by_itself,
        squares_in=_ALL,
        keeps_squares=keeps_shape,
        rows=squares.multiply,
    ),
    primitives.neg_p: Rule(linear_in=_ALL, price=cheap),
    primitives.pad_p: Rule(linear_in=_ALL, price=cheap),
    primitives.pow_p: Rule(price=cheap, is_square=is_power_of_literal_two),
    primitives.reduce_sum_p: Rule(
        linear_in=_ALL, price=summed, squares_in=_FIRST, rows=squares.total
    ),
    primitives.reduce_window_sum_p: Rule(linear_in=_ALL),
    primitives.scatter_add_p: Rule(linear_in=slice(0, 3, 2), widens=False),
    primitives.scatter_p: Rule(linear_in=slice(0, 3, 2), accepts=overwrites),
    primitives.select_n_p: Rule(linear_in=slice(1, None), price=cheap),
    primitives.square_p: Rule(price=cheap, is_square=always),
    primitives.sub_p: Rule(linear_in=_ALL, price=cheap),
    _split(): Rule(linear_in=_ALL, price=free),
}


def rule_of(equation: Equation) -> Rule:
    """The record of an equation's primitive; of one that is not listed, nothing is known."""
    return RULES.get(equation.source.primitive, UNKNOWN)


def is_repeatable(eqn: Eqn) -> bool:
    """Whether the same equation on the same operands is done once, so that squares are seen."""
    rule = RULES.get(eqn.primitive, UNKNOWN)
    return not eqn.effects and (rule.bilinear or rule.linear_in != slice(0))


def is_precise(equation: Equation, moving: Sequence[bool]) -> bool:
    """Whether all that moves is in float32 or float64, and not narrowed."""
    source = equation.source
    moved = [v.aval for v, moves in zip(source.invars, moving, strict=True) if moves]
    results = [v.aval for v in source.outvars]
    return all(
        getattr(aval, "dtype", None) in (np.float32, np.float64) for aval in moved + results
    ) and all(aval.dtype.itemsize <= results[0].dtype.itemsize for aval in moved)


def may_be_nan(aval: Aval) -> bool:
    """Whether values of this kind can say that an operand was NaN."""
    return jnp.issubdtype(getattr(aval, "dtype", np.int32), jnp.inexact)


def asks(equation: Equation) -> bool:
    """Whether an equation asks its operand whether it is NaN."""
    primitive = equation.source.primitive
    if primitive is primitives.is_finite_p:
        return not isinstance(equation.inputs[0], jex.Literal)
    return primitive in (primitives.ne_p, primitives.eq_p) and by_itself(equation)


def multiplies(equation: Equation) -> bool:
    """Whether an equation scales affine values by a factor of its own, however small."""
    return rule_of(equation).bilinear or equation.source.primitive is primitives.div_p
