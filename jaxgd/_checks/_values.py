"""What is asked of one value: an array, a number, a count, a key, a function."""

import contextlib
import importlib
import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgd._checks._words import LEAVE_OUT, expression, kind, say, that, type_name, with_article
from jaxgd.types import Array, PyTree


def array_cure(name: str, value: object) -> str:
    """How something that holds numbers but is no array becomes one."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # of a text that is no number
            return f"Write {float(value)}."
    if isinstance(value, (list, tuple, range)):
        return f"Write jnp.array({expression(name)})."
    if hasattr(value, "to_numpy"):  # a table of pandas or polars
        return f"Write {expression(name, 'table')}.to_numpy()."
    if getattr(value, "requires_grad", False):  # torch gives such a tensor to nobody
        return f"Write jnp.asarray({expression(name, 'tensor')}.detach())."
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        return f"Write jnp.asarray({expression(name)})."
    return ""


def array(where: str, name: str, value: object, noun: str = "an array") -> Array:
    """An array, or a scalar that can be one."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        cure = array_cure(name, value)
        raise TypeError(say(where, f"{name} must be {noun}", kind(value), cure))
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufcV":
        has_numbers = value.dtype.kind in "OSTU"  # objects and texts may be some
        cure = f"Write {expression(name, 'x')}.astype(float)." if has_numbers else ""
        wanted = f"{name} must be an array of numbers"
        raise TypeError(say(where, wanted, f"dtype {value.dtype}", cure))
    if isinstance(value, np.ma.MaskedArray):
        cure = f"Write {expression(name, 'x')}.filled(jnp.nan)."
        raise TypeError(say(where, f"{name} must have no mask", "a masked array", cure))
    try:
        return jnp.asarray(value)
    except OverflowError:
        got = f"one of {len(str(value))} digits"
    raise ValueError(say(where, f"{name} must fit an int", got, "Write it as a float."))


def real(where: str, name: str, value: object, noun: str = "an array") -> Array:
    """An array of real numbers: floating-point, integer or boolean."""
    value = array(where, name, value, noun)
    if jnp.issubdtype(value.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(value.dtype, jnp.number) or value.dtype == jnp.bool_
    ):
        cure = _no_number_cure(name, value.dtype)
        raise TypeError(say(where, f"{name} must be real", f"dtype {value.dtype}", cure))
    return value


def floating(where: str, name: str, value: object, cure: str = "") -> Array:
    """An array of floating-point numbers."""
    if type(value) is int:
        cure = cure or f"Write {value}.0."
    value = array(where, name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        cure = (
            _no_number_cure(name, value.dtype)
            or cure
            or f"Write {expression(name, 'x')}.astype(float), or 1.0 where you wrote 1."
        )
        wanted = f"{name} must be floating-point"
        raise TypeError(say(where, wanted, f"dtype {value.dtype}", cure))
    return value


def _no_number_cure(name: str, dtype: DTypeLike) -> str:
    """What helps where no cast does: complex numbers and PRNG keys."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        name = expression(name, "x")
        return f"Give {name}.real and {name}.imag apart, and join them inside by jax.lax.complex."
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        way = f": {LEAVE_OUT}" if "[" in name else "."  # one of many arrays, or alone
        return f"A PRNG key is nothing to be moved or measured. Leave it out{way}"
    return ""


def integers(where: str, name: str, value: object, cure: str = "") -> Array:
    """An array of integers."""
    value = array(where, name, value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(say(where, f"{name} must be integers", f"dtype {value.dtype}", cure))
    return value


def scalar(where: str, name: str, value: object, cure: str = "") -> Array:
    """One real number; it may be traced."""
    value = real(where, name, value, "a number")
    if value.shape != ():
        raise ValueError(say(where, f"{name} must be a scalar", f"shape {value.shape}", cure))
    return value


def at_least(where: str, name: str, value: object, bound: float) -> None:
    """A number that, where its value is known, is at least a bound."""
    if is_known(value) and not value >= bound:
        raise ValueError(say(where, f"{name} must be at least {bound:g}", str(value)))


def is_known(value: object) -> TypeGuard[float]:
    """Whether a value is one real number, and not a traced one."""
    if isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        has_numbers = isinstance(value.dtype, np.dtype)  # and not PRNG keys
        return has_numbers and value.shape == () and value.dtype.kind in "iuf"
    return isinstance(value, (int, float))


def is_traced(*trees: PyTree) -> bool:
    """Whether an array among these is a traced one."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def count(where: str, name: str, value: Any, least: int = 0) -> int:
    """A static whole number."""
    if isinstance(value, jax.core.Tracer):
        cure = (
            f"{name} sets the length of arrays: mark it static (jax.jit(..., static_argnames=...))."
        )
        raise TypeError(say(where, f"{name} must be a static int", "a traced value", cure))
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        cure = f"Write int({name})." if isinstance(value, float) else ""
        raise TypeError(say(where, f"{name} must be an int", kind(value), cure))
    if whole < least:
        raise ValueError(say(where, f"{name} must be at least {least}", str(whole)))
    if whole >= 2**31:
        raise ValueError(say(where, f"{name} must be below 2**31", str(whole)))
    return whole


def function(where: str, name: str, value: object, cure: str = "") -> None:
    """Something that can be called, and not a model whose function is its ``apply``."""
    is_model = hasattr(value, "init") and hasattr(value, "apply")
    is_bound = getattr(value, "scope", None) is not None  # to variables of its own
    if is_model and not (callable(value) and is_bound):
        wanted = f"{name} must be a function of arrays"
        raise TypeError(
            say(where, wanted, kind(value), "Write model.apply, which takes the params first.")
        )
    if not callable(value):
        is_prng_key = is_key(value)
        cure = cure or "Leave the key out, or pass it where the signature has one." * is_prng_key
        if not is_prng_key and hasattr(value, "shape"):
            cure = cure or "Pass the function itself, not its value."
        got = "a PRNG key" if is_prng_key else kind(value)
        raise TypeError(say(where, f"{name} must be callable", got, cure))


def key(where: str, name: str, value: object) -> None:
    """A PRNG key, new style or old."""
    if not is_key(value):
        cure = "Write jax.random.key(seed)."
        raise TypeError(say(where, f"{name} must be one PRNG key", kind(value), cure))


def is_key(value: object) -> bool:
    """Whether this is one PRNG key, new style or old."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        return False
    is_typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return (is_typed and value.shape == ()) or (value.dtype == jnp.uint32 and value.ndim == 1)


def same_shape(where: str, **values: PyTree) -> None:
    """Arrays of equal shapes: nothing here broadcasts."""
    shapes = {name: jnp.shape(value) for name, value in values.items()}
    if len(set(shapes.values())) > 1:
        wanted = f"{' and '.join(shapes)} must have equal shapes"
        got = " and ".join(str(shape) for shape in shapes.values())
        cure = ""
        for name, shape in shapes.items():
            if shape[-1:] == (1,) and shape[:-1] in shapes.values():
                cure = f"Write {name}[..., 0], so that no (N, N) array appears."
        raise ValueError(say(where, wanted, got, cure))


def in_order(where: str, name: str, axis: np.ndarray) -> None:
    """An axis of known numbers that increases or decreases from point to point."""
    gaps = np.diff(axis)
    that(
        where,
        bool((gaps > 0).all() or (gaps < 0).all()),
        f"{name} must increase or decrease from point to point",
        "points out of order" if (gaps != 0).all() else "equal points",
        "Sweep over the sorted axis: jnp.unique(axis).",
    )


def length(where: str, name: str, values: Sequence[object], wanted: int, reason: str) -> None:
    """A sequence with as many entries as something else has; its name is a plural."""
    if len(values) != wanted:
        name = name if wanted != 1 else name.removesuffix("s")
        raise ValueError(f"{where}: expected {wanted} {name}, {reason}, got {len(values)}.")


def instance(
    where: str, name: str, value: object, kinds: type | tuple[type, ...], cure: str = ""
) -> None:
    """A value of one of some types."""
    if not isinstance(value, kinds):
        names = [type_name(k) for k in (kinds if isinstance(kinds, tuple) else (kinds,))]
        *others, last = names
        alternatives = " or ".join(([", ".join(others)] if others else []) + [last])
        wanted = f"{name} must be {with_article(alternatives)}"
        raise TypeError(say(where, wanted, kind(value), _part_cure(value, kinds) or cure))


def _part_cure(value: object, kinds: type | tuple[type, ...]) -> str:
    """How the part that is wanted is read off a result that holds one."""
    for field in getattr(value, "_fields", ()):
        part = getattr(value, field)
        if hasattr(part, "_fields") and isinstance(part, kinds):
            return f"Write {type(value).__name__.lower()}.{field}."
    return ""


def extra(where: str, module: str, name: str) -> None:
    """A package that only some functions need."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        message = f'{where}: {module} is not installed. Run: pip install -e ".[{name}]".'
        raise ModuleNotFoundError(message, name=module) from None
