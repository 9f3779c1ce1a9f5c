"""How a result or an argument shows itself: arrays by their type, numbers by their value."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxgd.types import Status

_LONGEST = 100  # characters of a pytree; a longer one is counted


def short_repr(self: Any) -> str:
    """The fields of a NamedTuple, ``Surface(coordinates=(float32[3], float32[5]), values=...)``."""
    fields = [f"{name}={shown(value, name)}" for name, value in self._asdict().items()]
    return f"{type(self).__name__}({', '.join(fields)})"


def shown(value: Any, name: str = "") -> str:
    """A pytree in one line, ``{'w': float32[3, 2]}``; the name of a field may say what it means."""
    if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype"):
        return _array(name, value)
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        return repr(value)
    is_result = type(value).__repr__ is short_repr
    text = short_repr(value) if is_result else _nested(value)
    return text if is_result or len(text) <= _LONGEST else _counted(value)


def _nested(tree: Any) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {shown(each)}" for key, each in tree.items()) + "}"
    if hasattr(tree, "_fields") and not isinstance(tree, type):
        return short_repr(tree)
    if not isinstance(tree, (list, tuple)):
        return _counted(tree)
    entries = ", ".join(shown(each) for each in tree)
    if isinstance(tree, list):
        return f"[{entries}]"
    return f"({entries},)" if len(tree) == 1 else f"({entries})"


def _counted(tree: Any) -> str:
    """A pytree by its number of arrays, and of entries."""
    leaves = jax.tree.leaves(tree)
    size = sum(int(np.size(leaf)) for leaf in leaves)
    return f"<{type(tree).__name__}: {len(leaves)} arrays, {size:,} numbers>"


def _array(name: str, leaf: Any) -> str:
    """A number by its value where it is known, and any other array by its dtype and shape."""
    number = _number(leaf) if leaf.shape == () else None
    if number is None:
        return f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]"
    if name == "status" and number in list(Status):
        return Status(number).name
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _number(leaf: Any) -> Any:
    """The number that an array of shape () holds; None for a traced, deleted or distant one."""
    is_array = isinstance(leaf, (np.ndarray, np.generic, jax.Array))
    if not is_array or isinstance(leaf, jax.core.Tracer):
        return None
    if isinstance(leaf, jax.Array) and (leaf.is_deleted() or not leaf.is_fully_addressable):
        return None
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return None if is_key else np.asarray(leaf).item()
