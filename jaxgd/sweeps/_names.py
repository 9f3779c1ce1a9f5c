"""What the axes and values of a sweep are called, and how named values make up its results."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxgd import _checks
from jaxgd.types import PyTree

COMPUTED = "computed"  # the array of a store that says which points are computed


def axes(
    where: str, fn: Callable[..., PyTree], num_axes: int, given: Sequence[str] | None
) -> list[str]:
    """The names of the axes: those given, or the names of the function's parameters."""
    if given is None:
        return _parameters(fn, num_axes) or [f"coordinate_{i}" for i in range(num_axes)]
    cure = "Write a name for each coordinate: axis_names=('alpha', 'beta')."
    _checks.instance(where, "axis_names", given, (list, tuple), cure)
    for i, name in enumerate(given):
        _checks.instance(where, f"axis_names[{i}]", name, str)
        _check_name(where, f"axis_names[{i}]", name)
    wanted = f"axis_names must be {num_axes} different names, one per coordinate"
    fine = len(given) == num_axes and _are_different(given)
    _checks.that(where, fine, wanted, repr(tuple(given)))
    return list(given)


def values(where: str, outputs: PyTree, axis_names: Sequence[str]) -> list[str]:
    """The keys that lead to each value, as one name of its own."""
    names: list[str] = []
    for path, _ in jax.tree_util.tree_leaves_with_path(outputs):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        at = jax.tree_util.keystr(path)
        if path:
            _check_name(where, f"the output fn(...){at}", name.replace("/", "_"))
        name = f"values_{name}" if name.isdigit() else name.replace("/", "_") or "values"
        while not _are_different([name, *axis_names, *names]):
            name += "_value"
        names.append(name)
    return names


def function(fn: Callable[..., PyTree]) -> str:
    """What a function is called, for a reader: without addresses and places of definition."""
    inner = getattr(fn, "func", None)  # of a partial
    if callable(inner):
        return function(inner)
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return name.replace("<locals>.", "")


def structure(outputs: PyTree) -> PyTree:
    """How a list of values makes up a pytree of dicts, lists and tuples, for a JSON file."""
    numbers = itertools.count()

    def of(tree: PyTree) -> PyTree:
        if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
            return {"dict": {key: of(tree[key]) for key in sorted(tree)}}
        fields = getattr(tree, "_fields", None)
        if fields is not None:
            return {"dict": {name: of(getattr(tree, name)) for name in fields}}
        if isinstance(tree, (list, tuple)):
            return {type(tree).__name__: [of(entry) for entry in tree]}
        if tree is None:
            return None
        return next(numbers) if jax.tree_util.all_leaves([tree]) else {"unknown": ""}

    return of(outputs)


def fits(structure: PyTree, num_values: int) -> bool:
    """Whether this is a structure of so many values, as ``structure`` writes it."""
    numbers: list[int] = []

    def is_one(tree: PyTree) -> bool:
        if tree is None or tree == {"unknown": ""}:
            return True
        if type(tree) is int:
            numbers.append(tree)
            return True
        if not isinstance(tree, dict) or len(tree) != 1:
            return False
        ((kind, content),) = tree.items()
        entries = content.values() if isinstance(content, dict) else content
        is_of_kind = isinstance(content, dict if kind == "dict" else list)
        return kind in ("dict", "list", "tuple") and is_of_kind and all(map(is_one, entries))

    found = is_one(structure)
    return found and ("unknown" in str(structure) or sorted(numbers) == list(range(num_values)))


def restored(structure: PyTree, values: dict[str, Any]) -> PyTree:
    """The pytree again, from its values by name; a dict of them if it had other nodes."""
    flat = list(values.values())

    def of(tree: PyTree) -> PyTree:
        if not isinstance(tree, dict):
            return tree if tree is None else flat[tree]
        ((kind, content),) = tree.items()
        if kind == "dict":
            return {key: of(entry) for key, entry in content.items()}
        return {"list": list, "tuple": tuple}[kind](of(entry) for entry in content)

    return values if "unknown" in str(structure) else of(structure)


def _parameters(fn: Callable[..., PyTree], num_axes: int) -> list[str]:
    """The names of the function's first parameters, where each axis has one."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = names[:num_axes]
    return names if len(names) == num_axes and _are_different(names) else []


def _check_name(where: str, what: str, name: str) -> None:
    """Refuses what cannot be the name of a folder beside a store's own files."""
    fine = 0 < len(name.encode()) <= 200 and not name.startswith((".", "__"))
    fine = fine and name.isprintable() and not set(name) & set("/\\:") and name != "zarr.json"
    cure = "It becomes the name of a folder in the store."
    _checks.that(where, fine, f"{what} must have a name that a folder can have", repr(name), cure)


def _are_different(names: Sequence[str]) -> bool:
    """Whether names are different, from each other and from the store's own, on any disk."""
    folded = [name.casefold() for name in (COMPUTED, *names)]
    return len(set(folded)) == len(folded)
