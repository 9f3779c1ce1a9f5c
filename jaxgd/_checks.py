"""The porter: the one place that raises.

Each check names the function, the argument, what was wanted and what came, in that
order, and says the cure when the mistake is a common one. Checks look at types,
shapes, structures and static values only, so they run while tracing and cost nothing
in compiled code. A check that returns something returns the argument, made an array.
"""

import importlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd.types import Array, Params


class DtypeError(TypeError, ValueError):
    """A wrong dtype is a wrong type to some callers and a wrong value to others."""


def _say(where: str, wanted: str, got: str, cure: str = "") -> str:
    return f"{where}: {wanted}, got {got}." + (f" {cure}" if cure else "")


def _kind(value: Any) -> str:
    """What came, in a few words: its shape for an array, its type for anything else."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    return f"a {type(value).__name__}"


def array(where: str, name: str, value: Any) -> Array:
    """An array, or a scalar that can be one."""
    if isinstance(value, (list, tuple)):
        cure = f"Write jnp.array({name})."
        raise TypeError(_say(where, f"{name} must be an array", _kind(value), cure))
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        raise TypeError(_say(where, f"{name} must be an array", _kind(value)))
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufcV":
        raise DtypeError(_say(where, f"{name} must be an array of numbers", f"dtype {value.dtype}"))
    return jnp.asarray(value)


def real(where: str, name: str, value: Any) -> Array:
    """An array of real numbers: floating-point, integer or boolean."""
    value = array(where, name, value)
    if jnp.issubdtype(value.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(value.dtype, jnp.number) or value.dtype == jnp.bool_
    ):
        raise DtypeError(_say(where, f"{name} must be real", f"dtype {value.dtype}"))
    return value


def floating(where: str, name: str, value: Any) -> Array:
    """An array of floating-point numbers."""
    value = array(where, name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        cure = f"Write {name}.astype(float), or 1.0 where you wrote 1."
        raise DtypeError(
            _say(where, f"{name} must be floating-point", f"dtype {value.dtype}", cure)
        )
    return value


def integers(where: str, name: str, value: Any, cure: str = "") -> Array:
    """An array of integers."""
    value = array(where, name, value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise DtypeError(_say(where, f"{name} must be integers", f"dtype {value.dtype}", cure))
    return value


def scalar(where: str, name: str, value: Any, cure: str = "") -> Array:
    """One real number; it may be traced."""
    value = real(where, name, value)
    if value.shape != ():
        raise ValueError(_say(where, f"{name} must be a scalar", f"shape {value.shape}", cure))
    return value


def above(where: str, name: str, value: Any, bound: float) -> None:
    """A number that, where its value is known, is at least a bound."""
    if _known_number(value) and not value >= bound:
        raise ValueError(_say(where, f"{name} must be at least {bound:g}", str(value)))


def below(where: str, name: str, value: Any, bound: float) -> None:
    """A number that, where its value is known, is strictly below a bound."""
    if _known_number(value) and not value < bound:
        raise ValueError(_say(where, f"{name} must be below {bound:g}", str(value)))


def _known_number(value: Any) -> bool:
    """Whether a value is one real number, and not a traced one."""
    if isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.shape == () and value.dtype.kind in "iuf"
    return isinstance(value, (int, float))


def count(where: str, name: str, value: Any, least: int = 0) -> int:
    """A static whole number."""
    if isinstance(value, jax.core.Tracer):
        cure = (
            f"{name} sets the length of arrays: mark it static (jax.jit(..., static_argnames=...))."
        )
        raise TypeError(_say(where, f"{name} must be a static int", "a traced value", cure))
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        cure = f"Write int({name})." if isinstance(value, float) else ""
        raise TypeError(_say(where, f"{name} must be an int", _kind(value), cure))
    if whole < least:
        raise ValueError(_say(where, f"{name} must be at least {least}", str(whole)))
    return whole


def function(where: str, name: str, value: Any, cure: str = "") -> None:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(_say(where, f"{name} must be callable", _kind(value), cure))


def functions(where: str, name: str, values: Any) -> None:
    """A sequence of at least one callable."""
    if callable(values) or not isinstance(values, Sequence):
        cure = f"Write [{name}] for a single one." if callable(values) else ""
        wanted = f"{name} must be a sequence of functions"
        raise TypeError(_say(where, wanted, _kind(values), cure))
    if not values:
        raise ValueError(_say(where, f"{name} must hold at least one function", "none"))
    for index, value in enumerate(values):
        function(where, f"{name}[{index}]", value)


def optimizer(where: str, name: str, value: Any) -> None:
    """An Optax gradient transformation."""
    if not isinstance(value, optax.GradientTransformation):
        cure = "Call it: optax.sgd(0.1), not optax.sgd." if callable(value) else ""
        if isinstance(value, optax.MultiSteps):
            cure = "Write .gradient_transformation() after it."
        wanted = f"{name} must be an optax.GradientTransformation"
        raise TypeError(_say(where, wanted, _kind(value), cure))


def key(where: str, value: Any) -> None:
    """A PRNG key, new style or old."""
    if isinstance(value, (jax.Array, np.ndarray)):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        if (typed and value.shape == ()) or (value.dtype == jnp.uint32 and value.ndim == 1):
            return
    cure = "Write jax.random.key(seed)."
    raise TypeError(_say(where, "key must be one PRNG key", _kind(value), cure))


def same_shape(where: str, **values: Any) -> None:
    """Arrays of equal shapes: nothing here broadcasts."""
    shapes = {name: jnp.shape(value) for name, value in values.items()}
    if len(set(shapes.values())) > 1:
        wanted = f"{' and '.join(shapes)} must have equal shapes"
        got = " and ".join(str(shape) for shape in shapes.values())
        cure = ""
        for name, shape in shapes.items():
            if shape[-1:] == (1,) and shape[:-1] in shapes.values():
                cure = f"Write {name}[..., 0], so that no (N, N) array appears."
        raise ValueError(_say(where, wanted, got, cure))


def class_labels(where: str, name: str, scores: Array, labels: Any) -> Array:
    """Integer labels for scores whose last axis holds the classes."""
    if scores.ndim == 0 or scores.shape[-1] < 1:
        wanted = f"{name} must have a last axis of classes"
        raise ValueError(_say(where, wanted, f"shape {scores.shape}"))
    labels = array(where, "labels", labels)
    if labels.shape != scores.shape[:-1]:
        cure = ""
        if labels.shape == scores.shape:
            cure = "One-hot labels become integers by labels.argmax(axis=-1)."
        elif labels.shape == (*scores.shape[:-1], 1):
            cure = "Write labels[..., 0]."
        wanted = f"labels must have the shape of {name} without its last axis, {scores.shape[:-1]}"
        raise ValueError(_say(where, wanted, str(labels.shape), cure))
    return integers(where, "labels", labels, "Write labels.astype(int).")


def params(where: str, name: str, tree: Any) -> Params:
    """A pytree of at least one array, all floating-point; returned as strongly typed arrays."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:
        raise ValueError(_say(where, f"{name} must hold at least one array", _kind(tree)))

    def leaf_array(path: Any, leaf: Any) -> Array:
        full_name = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            cure = "Keep functions and settings out of it: equinox.partition, flax.nnx.split."
            raise TypeError(_say(where, f"{full_name} must be an array", _kind(leaf), cure))
        leaf = floating(where, full_name, leaf)
        return jax.lax.convert_element_type(leaf, leaf.dtype)  # drops a weak type

    return jax.tree.unflatten(structure, [leaf_array(path, leaf) for path, leaf in leaves])


def like(where: str, name: str, tree: Any, other_name: str, other: Any) -> None:
    """A pytree with the structure and the leaf shapes of another one."""
    structure, wanted = jax.tree.structure(tree), jax.tree.structure(other)
    if structure != wanted:
        raise ValueError(
            _say(where, f"{name} must have the structure of {other_name}, {wanted}", str(structure))
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True)
    for (path, leaf), other_leaf in pairs:
        if jnp.shape(leaf) != jnp.shape(other_leaf):
            at = jax.tree_util.keystr(path)
            wanted_shape = f"{name}{at} must have the shape of {other_name}{at}"
            got = f"{jnp.shape(leaf)} against {jnp.shape(other_leaf)}"
            raise ValueError(_say(where, wanted_shape, got))


def leading_axis(where: str, name: str, tree: Params) -> int:
    """The length of the first axis, which all leaves share."""
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(tree)}
    if len(lengths) != 1 or lengths == {()}:
        got = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(tree))
        cure = "Pass Trajectory.path, the params at each step."
        wanted = f"the leaves of {name} must share a leading axis"
        raise ValueError(_say(where, wanted, f"shapes {got}", cure))
    return lengths.pop()[0]


def axis_per_leaf(where: str, name: str, axes: Any, tree: Params) -> list[int | None]:
    """One axis for each leaf, from one for all or from a pytree of them."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if axes is None or isinstance(axes, int):
        each = [axes] * len(leaves)
    else:
        each, given = jax.tree.flatten(axes, is_leaf=lambda axis: axis is None)
        if given != structure:
            wanted = f"{name} must be an int or have the structure of the params, {structure}"
            raise ValueError(_say(where, wanted, str(given)))
    for axis, (path, leaf) in zip(each, leaves, strict=True):
        at = jax.tree_util.keystr(path)
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise TypeError(_say(where, f"{name}{at} must be an int", _kind(axis)))
        if axis is not None and leaf.ndim >= 2 and not -leaf.ndim <= axis < leaf.ndim:
            wanted = f"{name} must be an axis of the array {at or 'of params'}, shape {leaf.shape}"
            raise ValueError(_say(where, wanted, str(axis)))
    return each


def scalar_output(where: str, name: str, value: Any) -> Array:
    """What a function to be minimized returned: one floating-point number."""
    if isinstance(value, (tuple, list, dict)):
        cure = "Return the loss alone; what else you need, compute from the recorded path."
        raise TypeError(_say(where, f"{name} must return a scalar", _kind(value), cure))
    value = array(where, f"the output of {name}", value)
    if value.shape != ():
        cure = "Take the mean of the losses of the examples: jnp.mean."
        raise ValueError(_say(where, f"{name} must return a scalar", f"shape {value.shape}", cure))
    return floating(where, f"the output of {name}", value)


def scalar_outputs(where: str, name: str, tree: Any) -> None:
    """What a function of scalars returned: a scalar, or a pytree of scalars."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        wanted = f"{name} must return a scalar or a pytree of scalars"
        raise ValueError(_say(where, wanted, _kind(tree)))
    for path, leaf in leaves:
        leaf = array(where, f"the output{jax.tree_util.keystr(path)} of {name}", leaf)
        if leaf.shape != ():
            at = jax.tree_util.keystr(path)
            wanted = f"{name} must return scalars" + (f" (at {at})" if at else "")
            raise ValueError(_say(where, wanted, f"shape {leaf.shape}", "Take the mean: jnp.mean."))


def axes(where: str, coordinates: Sequence[Any]) -> tuple[Array, ...]:
    """The axes of a grid: at least one, each 1-D and not empty, of real numbers."""
    if not coordinates:
        raise ValueError(_say(where, "coordinates must be at least one 1-D array", "none"))
    checked = []
    for index, axis in enumerate(coordinates):
        axis = real(where, f"coordinate {index}", axis)
        if axis.ndim != 1:
            cure = "Pass the axes, not a meshgrid of them." if axis.ndim > 1 else ""
            wanted = f"coordinate {index} must be 1-D"
            raise ValueError(_say(where, wanted, f"shape {axis.shape}", cure))
        if axis.size == 0:
            raise ValueError(_say(where, f"coordinate {index} must not be empty", "shape (0,)"))
        checked.append(axis)
    return tuple(checked)


def length(where: str, name: str, values: Sequence[Any], wanted: int, reason: str) -> None:
    """A sequence with as many entries as something else has."""
    if len(values) != wanted:
        raise ValueError(_say(where, f"{name} must be {wanted}, {reason}", str(len(values))))


def instance(
    where: str, name: str, value: Any, kind: type | tuple[type, ...], cure: str = ""
) -> None:
    """One of this library's own values."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = f"{name} must be a {' or '.join(k.__name__ for k in kinds)}"
        raise TypeError(_say(where, wanted, _kind(value), cure))


def last_axis(where: str, name: str, value: Array, size: int, reason: str) -> None:
    """An array whose last axis has a given length."""
    if value.shape[-1:] != (size,):
        cure = f"Write {name}.T." if value.ndim == 2 and value.shape[0] == size else ""
        wanted = f"{name} must have a last axis of {size}, {reason}"
        raise ValueError(_say(where, wanted, f"shape {value.shape}", cure))


def extra(where: str, module: str, name: str) -> None:
    """A package that only some functions need."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        cure = f'Run: pip install "jaxgd[{name}]".'
        says = _say(where, f"{module} must be installed", "none", cure)
        raise ModuleNotFoundError(says, name=module) from None


def that(condition: bool, where: str, wanted: str, got: str, cure: str = "") -> None:
    """Anything that only one function asks for."""
    if not condition:
        raise ValueError(_say(where, wanted, got, cure))


def trainable(where: str, name: str, fn: Callable[..., Any]) -> Callable[..., Array]:
    """``fn`` with its output held to be one floating-point number, while it is traced."""

    def checked(*args: Any) -> Array:
        return scalar_output(where, name, fn(*args))

    return checked
