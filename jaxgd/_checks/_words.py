"""How a refusal reads: the function, the argument, what was wanted, what came, the cure."""

import ast

import jax
import jax.core
import numpy as np
from jax.tree_util import KeyPath

# How other libraries part the arrays that are trained from all else that a model holds.
LEAVE_OUT = (
    "flax.nnx.split(model, flax.nnx.Param, ...), "
    "equinox.partition(model, equinox.is_inexact_array)."
)


def say(where: str, wanted: str, got: str, cure: str = "") -> str:
    return f"{where}: {wanted}, got {got}." + (f" {cure}" if cure else "")


def kind(value: object) -> str:
    """What came, in a few words: its shape for an array, its type for anything else."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    return with_article(type(value).__name__)


def place(path: KeyPath) -> str:
    """Where an array lies within a pytree, as ``0/weights``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def entry(name: str, path: KeyPath) -> str:
    """What an array of a pytree is called: the name of the whole, and where it lies."""
    return "/".join(filter(None, [name, place(path)]))


def with_article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def expression(name: str, otherwise: str = "...") -> str:
    """How a cure writes an argument: by its name where that is Python, and no path."""
    if "/" in name:
        return otherwise
    try:
        ast.parse(name, mode="eval")
    except SyntaxError:
        return otherwise
    return name


def type_name(kind: type) -> str:
    """A type as a user knows it: Optax's with its address, Python's own protocols in words."""
    if kind.__module__ == "collections.abc":
        return kind.__name__.lower()
    return f"optax.{kind.__name__}" if kind.__module__.startswith("optax.") else kind.__name__


def that(
    where: str,
    condition: bool,
    wanted: str,
    got: str,
    cure: str = "",
    *,
    error: type[Exception] = ValueError,
) -> None:
    """Anything that only one room asks for."""
    if not condition:
        raise error(say(where, wanted, got, cure))
