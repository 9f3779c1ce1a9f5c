"""What a traced program computes, as text that another process, or another JAX, writes alike.

The text has the operations with their shapes, dtypes and parameters, and nothing of how they are
compiled: no names, no layouts, no addresses. Nested calls are written where they are called.
"""

import enum
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxgd import _jaxprs
from jaxgd._jaxprs import Atom, Aval, Jaxpr
from jaxgd.types import PyTree

# How a program is called, placed, differentiated and scheduled, not what it computes. Which of a
# scan's operands are constants, carry and rows follows from its body's shapes, which are written;
# jax 0.12 says it in other words (ft_in, ft_out) than 0.10.
_IRRELEVANT = frozenset({
    "_split_transpose", "bwd", "compiler_options_kvs", "ctx_mesh", "donated_invars", "ft_in",
    "ft_out", "fwd", "fwd_jaxpr_thunk", "in_layouts", "in_shardings", "inline", "jvp_jaxpr_fun",
    "keep_unused", "layout", "name", "num_carry", "num_consts", "out_layouts", "out_sharding",
    "out_shardings", "out_trees", "policy", "prevent_cse", "sharding", "symbolic_zeros", "unroll",
})  # fmt: skip
_CALLS = frozenset({"closed_call", "core_call", "jit", "pjit"})
_SETTINGS = ("jax_threefry_partitionable",)  # that change the values of a program
_NO_VALUES = frozenset({"debug_callback", "debug_print"})


def digest(*arrays: PyTree) -> str:
    """A fingerprint of arrays: their dtypes, shapes and bytes."""
    sha = hashlib.sha256()
    for array in arrays:
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.asarray(array)
        sha.update(f"{array.dtype} {array.shape};".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def of(closed: Jaxpr) -> str:
    """The fingerprint of a traced program, without the arrays that it closes over."""
    settings = [getattr(jax.config, name) for name in _SETTINGS]
    return hashlib.sha256(f"{settings}\n{_whole(closed.jaxpr)}".encode()).hexdigest()


def has_callback(closed: Jaxpr) -> bool:
    """Whether a program calls back into Python for a value."""
    return any(
        "callback" in eqn.primitive.name and eqn.primitive.name not in _NO_VALUES
        for eqn in _jaxprs.equations(closed)
    )


def _lines(
    jaxpr: Jaxpr, operands: Sequence[str], numbers: Iterator[int]
) -> tuple[list[str], list[str]]:
    """A program on named operands, an operation a line, and what its results are called."""
    names = dict(zip([*jaxpr.constvars, *jaxpr.invars], operands, strict=True))
    lines: list[str] = []

    def name_of(atom: Atom) -> str:
        if isinstance(atom, jex.Literal):
            return f"{_aval(atom.aval)}({_text(atom.val)})"
        return names[atom]

    for eqn in jaxpr.eqns:
        given = [name_of(atom) for atom in eqn.invars]
        composed = _jaxprs.expanded(eqn)
        if composed is not None or eqn.primitive.name in _CALLS:
            inner = composed or eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            consts = [_text(const) for const in getattr(inner, "consts", ())]
            inner = inner.jaxpr if _jaxprs.is_closed(inner) else inner
            called, results = _lines(inner, [*consts, *given], numbers)
            lines += called
        elif eqn.primitive.name in _NO_VALUES:
            continue
        else:
            results = [f"v{next(numbers)}" for _ in eqn.outvars]
            avals = [_aval(variable.aval) for variable in eqn.outvars]
            params = [
                f"{key}={_text(value)}"
                for key, value in sorted(eqn.params.items())
                if value is not None and key not in _IRRELEVANT and not callable(value)
            ]
            lines.append(" ".join([*results, *avals, eqn.primitive.name, *given, *params]))
        names.update(zip(eqn.outvars, results, strict=True))
    return lines, [name_of(atom) for atom in jaxpr.outvars]


def _whole(jaxpr: Jaxpr) -> str:
    """A program with its operands and results."""
    numbers = itertools.count()
    variables = [*jaxpr.constvars, *jaxpr.invars]
    operands = [f"v{next(numbers)}" for _ in variables]
    lines, results = _lines(jaxpr, operands, numbers)
    avals = [_aval(variable.aval) for variable in variables]
    return "\n".join([" ".join(avals), *lines, " ".join(results)])


def _text(value: Any) -> str:
    """A parameter."""
    if _jaxprs.is_closed(value):
        arrays = f" with {digest(*value.consts)}" if value.consts else ""
        return f"{{{_whole(value.jaxpr)}{arrays}}}"
    if isinstance(value, jex.Jaxpr):
        return f"{{{_whole(value)}}}"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        value = sorted((str(key), _text(entry)) for key, entry in value.items())
    elif isinstance(value, (set, frozenset)):
        value = sorted(_text(entry) for entry in value)
    if isinstance(value, (list, tuple)):
        return f"({','.join(_text(entry) for entry in value)})"
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return digest(value)
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _aval(aval: Aval) -> str:
    return f"{getattr(aval, 'dtype', aval)}{list(getattr(aval, 'shape', ()))}"
