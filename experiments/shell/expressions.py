"""Formulas as text, such as ``x**2 + sin(y)**2``: read with Python's grammar, never run as code.

Only what stands in the tables below has a meaning; everything else is refused by name.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import special

LONGEST = 1000  # characters
LARGEST_POWER = 64  # of a whole exponent, which is multiplied out

CONSTANTS = {"pi": jnp.pi, "e": jnp.e}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(jnp, name)
    for name in (
        "abs", "sign", "floor", "ceil", "round", "sqrt", "cbrt", "square", "exp", "exp2", "expm1",
        "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan",
        "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "hypot", "minimum",
        "maximum", "clip", "where", "sinc", "logaddexp",
    )
} | {
    "min": jnp.minimum,
    "max": jnp.maximum,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "erf": special.erf,
    "gammaln": special.gammaln,
}  # fmt: skip
ARITIES = {"where": 3, "clip": 3} | dict.fromkeys(
    ("arctan2", "hypot", "minimum", "maximum", "min", "max", "logaddexp"), 2
)  # of the others, 1
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: jnp.mod,
    ast.FloorDiv: jnp.floor_divide,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: jnp.logical_not,
    ast.And: jnp.logical_and,
    ast.Or: jnp.logical_or,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_Values = Mapping[str, Any]
_Meaning = Callable[[_Values], Any]


class Expression(NamedTuple):
    """What a text means.

    Attributes:
      variables: the names in it that are no function and no constant, in alphabetical order.
      function: from a mapping of these names to numbers, to a number.
    """

    variables: tuple[str, ...]
    function: _Meaning


def parse(text: str) -> Expression:
    """Reads an expression.

    Args:
      text: numbers, names, ``+ - * / // % **``, comparisons, ``and``, ``or``, ``not``,
        ``a if b else c``, and calls of ``FUNCTIONS``.

    Returns:
      Its variables and its function.

    Raises:
      ValueError: for anything else, by name.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"the expression must be of at most {LONGEST} characters, got {len(text)}."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
        variables: set[str] = set()
        meaning = _meaning(tree.body, variables)
    except SyntaxError as error:
        raise ValueError(f"the expression must be written as in Python, got {text!r}.") from error
    except RecursionError:
        raise ValueError("the expression must not be nested so deeply.") from None
    return Expression(tuple(sorted(variables)), meaning)


def _meaning(node: ast.AST, variables: set[str]) -> _Meaning:  # noqa: PLR0911
    match node:
        case ast.Constant(value=bool() | complex() | str() | bytes() | None):
            raise _refusal(node)
        case ast.Constant(value=int() | float() as value):
            return lambda _: jnp.asarray(float(value))
        case ast.Name(id=name) if name in CONSTANTS:
            return lambda _: jnp.asarray(CONSTANTS[name])
        case ast.Name(id=name) if name not in FUNCTIONS:
            variables.add(name)
            return lambda values: values[name]
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_meaning(left, variables), right, variables)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _applied(_OPERATORS[type(op)], [left, right], variables)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _applied(_OPERATORS[type(op)], [operand], variables)
        case ast.BoolOp(op=op, values=operands):
            return _folded(_OPERATORS[type(op)], [_meaning(v, variables) for v in operands])
        case ast.Compare(left=left, ops=ops, comparators=others) if {*map(type, ops)} <= {
            *_OPERATORS
        }:
            operands = [left, *others]
            parts = [
                _applied(_OPERATORS[type(op)], operands[k : k + 2], variables)
                for k, op in enumerate(ops)
            ]
            return _folded(jnp.logical_and, parts)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _applied(jnp.where, [test, body, orelse], variables)
        case ast.Call(func=ast.Name(id=name), args=operands, keywords=[]) if name in FUNCTIONS:
            wanted = ARITIES.get(name, 1)
            if len(operands) != wanted and not any(isinstance(x, ast.Starred) for x in operands):
                got = f"got {len(operands)}: {ast.unparse(node)!r}."
                raise ValueError(f"{name} takes {wanted} number{'s' * (wanted > 1)}, {got}")
            return _applied(FUNCTIONS[name], operands, variables)
    raise _refusal(node)


def _applied(fn: Callable[..., Any], nodes: list[Any], variables: set[str]) -> _Meaning:
    operands = [_meaning(node, variables) for node in nodes]
    return lambda values: fn(*(operand(values) for operand in operands))


def _folded(combine: Callable[..., Any], parts: list[_Meaning]) -> _Meaning:
    def meaning(values: _Values) -> Any:
        result = parts[0](values)
        for part in parts[1:]:
            result = combine(result, part(values))
        return result

    return meaning


def _power(base: _Meaning, exponent: ast.expr, variables: set[str]) -> _Meaning:
    """A power; a small whole exponent is a product, which has a derivative below 0, too."""
    try:
        whole = ast.literal_eval(exponent)
    except ValueError:
        whole = None
    if isinstance(whole, int) and not isinstance(whole, bool) and abs(whole) <= LARGEST_POWER:
        return lambda values: base(values) ** whole
    power = _meaning(exponent, variables)
    return lambda values: jnp.power(base(values), power(values))


def _refusal(node: ast.AST) -> ValueError:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
        return ValueError(f"a power must be written with **, got {ast.unparse(node)!r}.")
    known = ", ".join([*CONSTANTS, *sorted(FUNCTIONS)])
    return ValueError(
        "the expression may hold numbers, variables, + - * / // % **, comparisons, and, or, not, "
        f"a if b else c, and {known}; got {ast.unparse(node)!r} ({type(node).__name__})."
    )
