"""What is asked of pytrees, of the axes of a surface, and of batches."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath, SequenceKey

from jaxgd._checks._values import array, array_cure, floating, instance, real
from jaxgd._checks._words import LEAVE_OUT, expression, kind, place, say, that
from jaxgd.types import Array, Params, PyTree


def params(where: str, name: str, tree: PyTree) -> Params:
    """A pytree of at least one array, all floating-point; returned as strongly typed arrays."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:
        raise ValueError(say(where, f"{name} must hold at least one array", kind(tree)))

    def leaf_array(path: KeyPath, leaf: object) -> Array:
        full_name = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            cure = array_cure(full_name, leaf) or f"Keep functions and settings out: {LEAVE_OUT}"
            if not path and inspect.isroutine(leaf):
                cure = "The function comes first, then its params."
            raise TypeError(say(where, f"{full_name} must be an array", kind(leaf), cure))
        cure = _beside_params_cure(full_name, leaf) if path else ""
        leaf = floating(where, full_name, leaf, cure)
        return jax.lax.convert_element_type(leaf, leaf.dtype)  # drops a weak type

    return jax.tree.unflatten(structure, [leaf_array(path, leaf) for path, leaf in leaves])


def trained(where: str, name: str, tree: PyTree) -> Params:
    """Params, among which are no running averages: a model keeps these beside what it trains."""
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_batch_stat)
    own = [name + jax.tree_util.keystr(path) for path, node in nodes if _is_batch_stat(node)]
    cure = "Leave them out: graph, params, averages = flax.nnx.split(model, flax.nnx.Param, ...)."
    is_linen = isinstance(tree, Mapping) and {"params", "batch_stats"} <= tree.keys()
    if is_linen and jax.tree.leaves(tree["batch_stats"]):
        own = [f"{name}['batch_stats']"]
        cure = f"Pass {expression(name)}['params'], and the others as data."
    got = f"running averages of a batch norm ({', '.join(own)})"
    that(where, not own, f"{name} must hold what is trained alone", got, cure, error=TypeError)
    return params(where, name, tree)


def _is_batch_stat(node: object) -> bool:
    """Whether a node of a pytree is what Flax NNX marks as the running average of a batch norm."""
    kinds = type(node).__mro__
    return any(k.__name__ == "BatchStat" and f"{k.__module__}".startswith("flax.") for k in kinds)


def _beside_params_cure(name: str, leaf: object) -> str:
    """What helps for whole numbers in a pytree of params: seldom a cast."""
    if type(leaf) is int:
        return f"Write {leaf}.0 if it is trained, else leave it out: {LEAVE_OUT}"
    if getattr(leaf, "dtype", bool) in (jnp.bool_, jnp.uint8, jnp.uint16, jnp.uint32, jnp.uint64):
        return f"Leave counters, masks and PRNG keys out: {LEAVE_OUT}"
    return (
        f"Write {expression(name)}.astype(float) if it is trained, else leave it out: {LEAVE_OUT}"
    )


def like(
    where: str, name: str, tree: PyTree, other_name: str, other: PyTree, cure: str = ""
) -> None:
    """A pytree with the structure and the leaf shapes of another one."""
    structure, wanted = jax.tree.structure(tree), jax.tree.structure(other)
    if structure != wanted:
        wanted = f"{name} must have the structure of {other_name}, {wanted}"
        raise ValueError(say(where, wanted, str(structure), cure))
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True)
    for (path, leaf), other_leaf in pairs:
        if jnp.shape(leaf) != jnp.shape(other_leaf):
            at = jax.tree_util.keystr(path)
            wanted_shape = f"{name}{at} must have the shape of {other_name}{at}"
            got = f"{jnp.shape(leaf)} against {jnp.shape(other_leaf)}"
            raise ValueError(say(where, wanted_shape, got, cure))


def is_numbers(node: object) -> bool:
    """Whether a node of a pytree is a plain list of numbers, which is to be one array."""
    if not isinstance(node, (list, tuple)) or hasattr(node, "_fields"):
        return False
    leaves = jax.tree.leaves(node)
    return bool(leaves) and all(isinstance(leaf, (bool, int, float)) for leaf in leaves)


def stack_cure(name: str, value: Any) -> str:
    """How a list of slices becomes arrays with a leading axis; nothing for any other pytree."""
    if type(value) not in (list, tuple) or len(value) < 2:
        return ""
    structures = {jax.tree.structure(entry) for entry in value}
    shapes = {tuple(map(jnp.shape, jax.tree.leaves(entry))) for entry in value}
    if len(structures) > 1 or len(shapes) > 1:
        return ""
    if all(hasattr(entry, "shape") for entry in value):
        return f"Write jnp.stack({name})."
    return f"Write jax.tree.map(lambda *slices: jnp.stack(slices), *{name})."


_NO_RETURN = "Its last line is to be: return ..."


def scalar_output(
    where: str, name: str, value: object, cure: str = "Return the loss alone."
) -> Array:
    """What a function to be minimized returned: one floating-point number."""
    if value is None or isinstance(value, (tuple, list, dict)):
        cure = _NO_RETURN if value is None else cure
        raise TypeError(say(where, f"{name} must return a scalar", kind(value), cure))
    value = array(where, f"the output of {name}", value)
    if value.shape != ():
        cure = "Take the mean of the losses of the examples: jnp.mean."
        raise ValueError(say(where, f"{name} must return a scalar", f"shape {value.shape}", cure))
    return floating(where, f"the output of {name}", value)


def scalar_outputs(where: str, name: str, tree: PyTree) -> None:
    """What a function of scalars returned: a scalar, or a pytree of scalars."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        wanted = f"{name} must return a scalar or a pytree of scalars"
        cure = _NO_RETURN if tree is None else ""
        raise ValueError(say(where, wanted, kind(tree), cure))
    for path, leaf in leaves:
        leaf = array(where, f"the output{jax.tree_util.keystr(path)} of {name}", leaf)
        if leaf.shape != ():
            at = jax.tree_util.keystr(path)
            wanted = f"{name} must return scalars" + (f" (at {at})" if at else "")
            raise ValueError(say(where, wanted, f"shape {leaf.shape}", "Take the mean: jnp.mean."))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            at = place(path)
            wanted = f"{name} must return numbers" + (f" (at {at})" if at else "")
            raise ValueError(say(where, wanted, "a PRNG key", "Return what is drawn with it."))


def axes(
    where: str, coordinates: Sequence[object], names: Sequence[str] | None = None
) -> tuple[Array, ...]:
    """The axes of a grid: at least one, each 1-D and not empty, of real numbers."""
    if not coordinates:
        raise ValueError(f"{where}: expected at least one coordinate, a 1-D array, got none.")
    checked = []
    for index, axis in enumerate(coordinates):
        name = names[index] if names else f"coordinate {index}"
        if not names:
            no_batches(where, name, axis)
        axis = real(where, name, axis)
        if axis.ndim != 1:
            cure = "Pass the axes, not a meshgrid of them." if axis.ndim > 1 else ""
            raise ValueError(say(where, f"{name} must be 1-D", f"shape {axis.shape}", cure))
        if axis.size == 0:
            raise ValueError(say(where, f"{name} must not be empty", "shape (0,)"))
        checked.append(axis)
    return tuple(checked)


def no_batches(where: str, name: str, value: Any, noun: str = "an array") -> None:
    """Refuses data among coordinates: a loader, a generator, a batch, a list of batches."""
    is_known = isinstance(value, (str, bytes, Mapping, range)) or hasattr(value, "__array__")
    if isinstance(value, (list, tuple)):
        is_known = all(getattr(leaf, "ndim", 0) == 0 for leaf in jax.tree.leaves(value))
    has_batches = isinstance(value, Iterable) and not is_known
    cure = "Batches of data go into sweeps.run by name: data=..."
    if isinstance(value, (list, tuple)) and all(getattr(v, "ndim", 0) == 1 for v in value):
        cure = "Several axes are arguments of their own: write *axes."
    that(where, not has_batches, f"{name} must be {noun}", kind(value), cure, error=TypeError)


def batches(where: str, name: str, value: object) -> None:
    """An iterable of batches of data, and not one batch."""
    cure = f"Write {name}=[(x, y)] for a single batch."
    is_batch = isinstance(value, tuple) and any(hasattr(entry, "shape") for entry in value)
    is_single = is_batch or isinstance(value, (str, bytes, Mapping)) or hasattr(value, "shape")
    is_iterable = isinstance(value, Iterable) or hasattr(value, "__getitem__")
    wanted = f"{name} must be an iterable of batches, each a tuple or list of arrays"
    got = "one batch" if is_batch else kind(value)
    that(where, is_iterable and not is_single, wanted, got, cure, error=TypeError)


def batch(where: str, name: str, value: Any) -> tuple[PyTree, ...]:
    """A batch of data, its arrays of whatever library made NumPy's or JAX's."""
    instance(where, name, value, (tuple, list), "Write ((x, y) for ... in loader) around it.")

    def converted(path: KeyPath, leaf: Any) -> Any:
        if hasattr(leaf, "detach"):
            leaf = leaf.detach().cpu()  # a tensor of torch
        if not isinstance(leaf, (jax.Array, np.ndarray)) and hasattr(leaf, "__array__"):
            leaf = np.asarray(leaf)
        own = f"array {place(path)} of {name}"
        shape = array(where, own, leaf).shape
        cure = "" if shape else "Its first axis counts the rows: write jnp.array([...])."
        that(where, bool(shape and shape[0]), f"{own} must have rows", f"shape {shape}", cure)
        return leaf

    made = tuple(
        jax.tree_util.tree_map_with_path(
            lambda path, leaf, key=key: converted((key, *path), leaf), entry, is_leaf=is_numbers
        )
        for key, entry in zip(map(SequenceKey, range(len(value))), value, strict=True)
    )
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(made)}
    wanted = f"the arrays of {name} must have equally many rows, at least one array"
    that(where, len(rows) == 1, wanted, str(sorted(rows)))
    return made


def alike(where: str, name: str, value: tuple[PyTree, ...], first: str | None) -> str:
    """A batch like the first one, but for its number of rows; says what they have in common."""
    kinds = [
        f"{place(path)}: "
        f"{jax.dtypes.canonicalize_dtype(leaf.dtype)}[rows, {', '.join(map(str, leaf.shape[1:]))}]"
        for path, leaf in jax.tree_util.tree_leaves_with_path(value)
    ]
    own = "; ".join(kinds)
    wanted = f"{name} must be like the first, but for its number of rows: {first}"
    that(where, first is None or own == first, wanted, own)
    return own
