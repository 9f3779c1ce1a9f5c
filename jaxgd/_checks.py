"""The porter: the one place that raises.

Each check names the function, the argument, what was wanted and what came, in that
order, and says the cure when the mistake is a common one. Checks look at types,
shapes, structures and static values only, so they run while tracing and cost nothing
in compiled code. A check that returns something returns the argument, made an array.

Arguments come in one order: where (the public function), the argument's name and value,
what is asked of it, the cure. What only one room asks for is asked there, through ``that``.
"""

import ast
import contextlib
import importlib
import inspect
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath
from jax.typing import DTypeLike

from jaxgd.types import Array, Params, PyTree

# How other libraries part the arrays that are trained from all else that a model holds.
_LEAVE_OUT = (
    "flax.nnx.split(model, flax.nnx.Param, ...), "
    "equinox.partition(model, equinox.is_inexact_array)."
)


def _say(where: str, wanted: str, got: str, cure: str = "") -> str:
    return f"{where}: {wanted}, got {got}." + (f" {cure}" if cure else "")


def kind(value: object) -> str:
    """What came, in a few words: its shape for an array, its type for anything else."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    return _with_article(type(value).__name__)


def place(path: KeyPath) -> str:
    """Where an array lies within a pytree, as ``0/weights``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def entry(name: str, path: KeyPath) -> str:
    """What an array of a pytree is called: the name of the whole, and where it lies."""
    return "/".join(filter(None, [name, place(path)]))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def _expression(name: str, otherwise: str = "...") -> str:
    """How a cure writes an argument: by its name where that is Python."""
    try:
        ast.parse(name, mode="eval")
    except SyntaxError:
        return otherwise
    return name


def _array_cure(name: str, value: object) -> str:
    """How something that holds numbers but is no array becomes one."""
    if isinstance(value, (list, tuple, range)):
        return f"Write jnp.array({_expression(name)})."
    if hasattr(value, "to_numpy"):  # a table of pandas or polars
        return f"Write {_expression(name, 'table')}.to_numpy()."
    if getattr(value, "requires_grad", False):  # torch gives such a tensor to nobody
        return f"Write jnp.asarray({_expression(name, 'tensor')}.detach())."
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        return f"Write jnp.asarray({_expression(name)})."
    return ""


def array(where: str, name: str, value: object, noun: str = "an array") -> Array:
    """An array, or a scalar that can be one."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        cure = _array_cure(name, value)
        raise TypeError(_say(where, f"{name} must be {noun}", kind(value), cure))
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufcV":
        raise TypeError(_say(where, f"{name} must be an array of numbers", f"dtype {value.dtype}"))
    try:
        return jnp.asarray(value)
    except OverflowError:
        got = f"one of {len(str(value))} digits"
    raise ValueError(_say(where, f"{name} must fit an int", got, "Write it as a float."))


def real(where: str, name: str, value: object, noun: str = "an array") -> Array:
    """An array of real numbers: floating-point, integer or boolean."""
    value = array(where, name, value, noun)
    if jnp.issubdtype(value.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(value.dtype, jnp.number) or value.dtype == jnp.bool_
    ):
        cure = _no_number_cure(name, value.dtype)
        raise TypeError(_say(where, f"{name} must be real", f"dtype {value.dtype}", cure))
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
            or f"Write {_expression(name, 'x')}.astype(float), or 1.0 where you wrote 1."
        )
        wanted = f"{name} must be floating-point"
        raise TypeError(_say(where, wanted, f"dtype {value.dtype}", cure))
    return value


def _no_number_cure(name: str, dtype: DTypeLike) -> str:
    """What helps where no cast does: complex numbers and PRNG keys."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        name = _expression(name, "x")
        return f"Give {name}.real and {name}.imag apart, and join them inside by jax.lax.complex."
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return f"A PRNG key is nothing to be moved or measured. Leave it out: {_LEAVE_OUT}"
    return ""


def integers(where: str, name: str, value: object, cure: str = "") -> Array:
    """An array of integers."""
    value = array(where, name, value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(_say(where, f"{name} must be integers", f"dtype {value.dtype}", cure))
    return value


def scalar(where: str, name: str, value: object, cure: str = "") -> Array:
    """One real number; it may be traced."""
    value = real(where, name, value, "a number")
    if value.shape != ():
        raise ValueError(_say(where, f"{name} must be a scalar", f"shape {value.shape}", cure))
    return value


def at_least(where: str, name: str, value: object, bound: float) -> None:
    """A number that, where its value is known, is at least a bound."""
    if is_known(value) and not value >= bound:
        raise ValueError(_say(where, f"{name} must be at least {bound:g}", str(value)))


def is_known(value: object) -> TypeGuard[float]:
    """Whether a value is one real number, and not a traced one."""
    if isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return value.shape == () and value.dtype.kind in "iuf"
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
        raise TypeError(_say(where, f"{name} must be a static int", "a traced value", cure))
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        cure = f"Write int({name})." if isinstance(value, float) else ""
        raise TypeError(_say(where, f"{name} must be an int", kind(value), cure))
    if whole < least:
        raise ValueError(_say(where, f"{name} must be at least {least}", str(whole)))
    if whole >= 2**31:
        raise ValueError(_say(where, f"{name} must be below 2**31", str(whole)))
    return whole


def function(where: str, name: str, value: object, cure: str = "") -> None:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(_say(where, f"{name} must be callable", kind(value), cure))


def key(where: str, name: str, value: object) -> None:
    """A PRNG key, new style or old."""
    if not is_key(value):
        cure = "Write jax.random.key(seed)."
        raise TypeError(_say(where, f"{name} must be one PRNG key", kind(value), cure))


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
        raise ValueError(_say(where, wanted, got, cure))


def params(where: str, name: str, tree: PyTree) -> Params:
    """A pytree of at least one array, all floating-point; returned as strongly typed arrays."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:
        raise ValueError(_say(where, f"{name} must hold at least one array", kind(tree)))

    def leaf_array(path: KeyPath, leaf: object) -> Array:
        full_name = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            cure = _array_cure(full_name, leaf) or f"Keep functions and settings out: {_LEAVE_OUT}"
            raise TypeError(_say(where, f"{full_name} must be an array", kind(leaf), cure))
        cure = _beside_params_cure(full_name, leaf) if path else ""
        leaf = floating(where, full_name, leaf, cure)
        return jax.lax.convert_element_type(leaf, leaf.dtype)  # drops a weak type

    return jax.tree.unflatten(structure, [leaf_array(path, leaf) for path, leaf in leaves])


def _beside_params_cure(name: str, leaf: object) -> str:
    """What helps for whole numbers in a pytree of params: seldom a cast."""
    if type(leaf) is int:
        return f"Write {leaf}.0 if it is trained, else leave it out: {_LEAVE_OUT}"
    if getattr(leaf, "dtype", bool) in (jnp.bool_, jnp.uint8, jnp.uint16, jnp.uint32, jnp.uint64):
        return f"Leave counters, masks and PRNG keys out: {_LEAVE_OUT}"
    return (
        f"Write {_expression(name)}.astype(float) if it is trained, else leave it out: {_LEAVE_OUT}"
    )


def like(
    where: str, name: str, tree: PyTree, other_name: str, other: PyTree, cure: str = ""
) -> None:
    """A pytree with the structure and the leaf shapes of another one."""
    structure, wanted = jax.tree.structure(tree), jax.tree.structure(other)
    if structure != wanted:
        wanted = f"{name} must have the structure of {other_name}, {wanted}"
        raise ValueError(_say(where, wanted, str(structure), cure))
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True)
    for (path, leaf), other_leaf in pairs:
        if jnp.shape(leaf) != jnp.shape(other_leaf):
            at = jax.tree_util.keystr(path)
            wanted_shape = f"{name}{at} must have the shape of {other_name}{at}"
            got = f"{jnp.shape(leaf)} against {jnp.shape(other_leaf)}"
            raise ValueError(_say(where, wanted_shape, got, cure))


def scalar_output(
    where: str, name: str, value: object, cure: str = "Return the loss alone."
) -> Array:
    """What a function to be minimized returned: one floating-point number."""
    if isinstance(value, (tuple, list, dict)):
        raise TypeError(_say(where, f"{name} must return a scalar", kind(value), cure))
    value = array(where, f"the output of {name}", value)
    if value.shape != ():
        cure = "Take the mean of the losses of the examples: jnp.mean."
        raise ValueError(_say(where, f"{name} must return a scalar", f"shape {value.shape}", cure))
    return floating(where, f"the output of {name}", value)


def scalar_outputs(where: str, name: str, tree: PyTree) -> None:
    """What a function of scalars returned: a scalar, or a pytree of scalars."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        wanted = f"{name} must return a scalar or a pytree of scalars"
        raise ValueError(_say(where, wanted, kind(tree)))
    for path, leaf in leaves:
        leaf = array(where, f"the output{jax.tree_util.keystr(path)} of {name}", leaf)
        if leaf.shape != ():
            at = jax.tree_util.keystr(path)
            wanted = f"{name} must return scalars" + (f" (at {at})" if at else "")
            raise ValueError(_say(where, wanted, f"shape {leaf.shape}", "Take the mean: jnp.mean."))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            at = place(path)
            wanted = f"{name} must return numbers" + (f" (at {at})" if at else "")
            raise ValueError(_say(where, wanted, "a PRNG key", "Return what is drawn with it."))


def axes(where: str, coordinates: Sequence[object]) -> tuple[Array, ...]:
    """The axes of a grid: at least one, each 1-D and not empty, of real numbers."""
    if not coordinates:
        raise ValueError(f"{where}: expected at least one coordinate, a 1-D array, got none.")
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
        that(where, bool(shape and shape[0]), f"{own} must have rows", f"shape {shape}")
        return leaf

    made = jax.tree_util.tree_map_with_path(converted, tuple(value))
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
        names = [_type_name(k) for k in (kinds if isinstance(kinds, tuple) else (kinds,))]
        *others, last = names
        alternatives = " or ".join(([", ".join(others)] if others else []) + [last])
        wanted = f"{name} must be {_with_article(alternatives)}"
        raise TypeError(_say(where, wanted, kind(value), cure))


def _type_name(kind: type) -> str:
    """A type as a user knows it: Optax's with its address, Python's own protocols in words."""
    if kind.__module__ == "collections.abc":
        return kind.__name__.lower()
    return f"optax.{kind.__name__}" if kind.__module__.startswith("optax.") else kind.__name__


def extra(where: str, module: str, name: str) -> None:
    """A package that only some functions need."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        message = f'{where}: {module} is not installed. Run: pip install -e ".[{name}]".'
        raise ModuleNotFoundError(message, name=module) from None


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
        raise error(_say(where, wanted, got, cure))


def trainable(
    where: str, name: str, fn: Callable[..., PyTree], cure: str = ""
) -> Callable[..., Array]:
    """``fn`` with its output held to be one floating-point number, while it is traced."""

    def checked(*args: PyTree) -> Array:
        with calling(where, name, fn, args, "params and data", cure):
            output = fn(*args)
        return scalar_output(where, name, output)

    return checked


@contextlib.contextmanager
def calling(
    where: str,
    name: str,
    fn: Callable[..., PyTree],
    arguments: Sequence[PyTree],
    what: str,
    cure: str = "",
) -> Iterator[None]:
    """A call of a user's function while tracing, which is to take so many arguments."""
    count = len(arguments)
    described = f"{count} argument{'s' * (count != 1)} ({what})"
    names = what.split(", ")
    if len(names) < 2 or len(names) != count:
        names = []
    if what == "params and data":
        names = ["params", *(f"data[{i}]" for i in range(count - 1))]
    with traceable(where, name), taking(where, name, fn, arguments, described, names, cure):
        yield


@contextlib.contextmanager
def traceable(where: str, name: str) -> Iterator[None]:
    """A call of a user's function while tracing: JAX's own error, and the cure as its note."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        error.add_note(
            f"{where}: {name} must be traceable by JAX. Write jnp.sin for math.sin and np.sin, "
            "and jnp.where for an if on a value."
        )
        raise


@contextlib.contextmanager
def differentiable(where: str, name: str) -> Iterator[None]:
    """A gradient of a user's function, which a loop of unknown length has not got."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Reverse-mode differentiation does not work"):
            raise
        wanted = f"{name} must be differentiable in reverse mode"
        cure = "Write jax.lax.scan, or a fori_loop between fixed bounds."
        raise ValueError(_say(where, wanted, "a loop of unknown length", cure)) from error


@contextlib.contextmanager
def taking(
    where: str,
    name: str,
    fn: Callable[..., PyTree],
    arguments: Sequence[PyTree],
    described: str,
    names: Sequence[str] = (),
    cure: str = "",
) -> Iterator[None]:
    """A call of a user's function that may not take so many arguments, or none of their types.

    Names belong to the arguments; one that is no array is refused by its own. The cure is for
    too many arguments.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        if _is_refusal(error):
            raise
        if isinstance(error, TypeError):
            _refuse_signature(where, name, fn, arguments, described, names, cure)
        _refuse_no_arrays(where, fn, arguments, names)
        if names and not any(map(_is_refusal, getattr(error, "__notes__", []))):
            got = ", ".join(f"{own}: {kind(x)}" for own, x in zip(names, arguments, strict=True))
            error.add_note(f"{where}: {name} raised this, called with {got}.")
        raise


def _refuse_signature(
    where: str,
    name: str,
    fn: Callable[..., PyTree],
    arguments: Sequence[PyTree],
    described: str,
    names: Sequence[str],
    cure: str,
) -> None:
    """Refuses a function that does not take so many arguments."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # a function that does not tell
    try:
        signature.bind(*arguments)
    except TypeError:
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        lacks_some = len([p for p in needed if p.kind in plain]) > len(arguments)
        takes_data = all(own.startswith(("params", "data", "per_step")) for own in names)
        if names and takes_data and lacks_some:
            cure = "Pass the data that the loss takes after the params."
        got = f"a function of {signature}"
        raise TypeError(_say(where, f"{name} must take {described}", got, cure)) from None


def _refuse_no_arrays(
    where: str, fn: Callable[..., PyTree], arguments: Sequence[PyTree], names: Sequence[str]
) -> None:
    """Refuses what made a call fail: arrays of no numbers, lists that should be arrays."""
    made = list(arguments)
    for i, (name, argument) in enumerate(zip(names, arguments, strict=False)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufcV":
                array(where, name + jax.tree_util.keystr(path), leaf)
        made[i] = _made_vector(argument) if name == "params" else _made_array(argument)
    changed = [i for i, each in enumerate(made) if each is not arguments[i]]
    if changed and _returns(fn, made):
        name, argument = names[changed[0]], arguments[changed[0]]
        cure = _array_cure(name, argument)
        raise TypeError(_say(where, f"{name} must be an array", kind(argument), cure)) from None


def _made_array(value: object) -> Any:
    """What holds numbers but is no array as an array; all else as it is."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)) or hasattr(value, "_fields"):
        return value
    if not (isinstance(value, (list, tuple, range)) or hasattr(value, "__array__")):
        return value
    try:
        made = np.asarray(value)
    except Exception:  # ragged, traced, of another device
        return value
    return made if made.dtype.kind in "biuf" else value


def _made_vector(params: Any) -> Any:
    """Params that are a plain list of numbers as one array; all else as it is."""
    if type(params) not in (list, tuple) or not params:
        return params
    are_numbers = all(hasattr(x, "shape") and x.shape == () for x in params)
    return jnp.stack(params) if are_numbers else params


def _returns(fn: Callable[..., PyTree], arguments: Sequence[PyTree]) -> bool:
    """Whether a function takes these arguments."""
    try:
        fn(*arguments)
    except Exception:  # whatever it says
        return False
    return True


@contextlib.contextmanager
def suspecting(
    where: str, is_reason: Callable[[], Any], wanted: str, got: str, cure: str
) -> Iterator[None]:
    """A call whose failure may have a reason that is known: it is asked for once it fails."""
    try:
        yield
    except (AttributeError, TypeError, ValueError):
        if not _returns(is_reason, ()):
            raise
        raise ValueError(_say(where, wanted, got, cure)) from None


@contextlib.contextmanager
def failing(where: str, wanted: str, cure: str) -> Iterator[None]:
    """A call of another library that fails where it was made of the wrong things."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if _is_refusal(error) or isinstance(error, jax.errors.JAXTypeError):
            raise
        got = f"{_with_article(type(error).__name__)} ({str(error).splitlines()[0].rstrip('.')})"
        raise TypeError(_say(where, wanted, got, cure)) from None


@contextlib.contextmanager
def named(where: str, caller: str) -> Iterator[None]:
    """A public function called by another, whose name the refusals bear."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not str(error).startswith(f"{where}: "):
            raise
        raise type(error)(str(error).replace(where, caller, 1)) from None


def _is_refusal(error: Exception | str) -> bool:
    """Whether an error says by name what is wrong."""
    return re.match(r"[a-z]+\.[a-z_0-9]+: ", str(error)) is not None
