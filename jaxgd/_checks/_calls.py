"""What is asked of the functions that users pass, while they are called."""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxgd._checks._trees import scalar_output
from jaxgd._checks._values import array, array_cure, is_key
from jaxgd._checks._words import kind, say, with_article
from jaxgd._repr import shown
from jaxgd.types import Array, PyTree


def trainable(
    where: str,
    name: str,
    fn: Callable[..., PyTree],
    cure: str = "",
    what: str = "params and data",
) -> Callable[..., Array]:
    """``fn`` with its output held to be one floating-point number, while it is traced."""

    def checked(*args: PyTree) -> Array:
        with calling(where, name, fn, args, what, cure):
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
    if what == "params and data" and count == 1:
        described = "params"
    names = what.split(", ")
    if len(names) < 2 or len(names) != count:
        names = []
    if what.startswith("params") and what.endswith("data"):
        names = ["params", *(f"data[{i}]" for i in range(count - 1))]
    if what.endswith("the slice of per_step"):
        names = ["params", *(f"data[{i}]" for i in range(count - 2)), "per_step"]
    with traceable(where, name), taking(where, name, fn, arguments, described, names, cure):
        yield


_TRACEABLE = "Write jnp.sin for math.sin and np.sin, and jnp.where for an if on a value."


@contextlib.contextmanager
def traceable(where: str, name: str) -> Iterator[None]:
    """A call of a user's function while tracing: JAX's own error, and the cure as its note."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        error.add_note(f"{where}: {name} must be traceable by JAX. {_TRACEABLE}")
        raise


@contextlib.contextmanager
def compilable(where: str, name: str) -> Iterator[None]:
    """The same where JAX's own error would name files of this package: refused, at its place."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        got = "one that asks for the value of a number"
        refusal = TypeError(say(where, f"{name} must be traceable by JAX", got, _TRACEABLE))
        raise refusal.with_traceback(error.__traceback__) from None


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
        raise ValueError(say(where, wanted, "a loop of unknown length", cure)) from error


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
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if _is_refusal(error):
            raise
        if isinstance(error, TypeError):
            _refuse_signature(where, name, fn, arguments, described, names, cure)
        if not isinstance(error, LookupError):
            _refuse_no_arrays(where, fn, arguments, names)
        if names and not any(map(_is_refusal, getattr(error, "__notes__", []))):
            got = ", ".join(f"{own}: {_told(x)}" for own, x in zip(names, arguments, strict=True))
            error.add_note(f"{where}: {name} raised this, called with {got}.")
        raise


def _told(argument: PyTree) -> str:
    """An argument in a few words, of which none may hide what a function raised."""
    try:
        return shown(argument)[:_LONGEST_TOLD]
    except Exception:  # a class that is shown in its own way
        return type(argument).__name__


_LONGEST_TOLD = 200  # characters


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
    if not _binds(signature, arguments):
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        lacks_some = len([p for p in needed if p.kind in plain]) > len(arguments)
        takes_data = all(own.startswith(("params", "data", "per_step")) for own in names)
        has_slice = "per_step" in names
        if names and takes_data and lacks_some:
            cure = "Pass the data that the loss takes after the params."
            are_numbers = type(arguments[0]) in (list, tuple) and all(
                jnp.shape(leaf) == () for leaf in jax.tree.leaves(arguments[0])
            )
            if are_numbers and _binds(signature, _spread(arguments)):
                data = ", *data" * (len(arguments) > 1)
                cure = f"The params are one argument: lambda params{data}: {name}(*params{data})."
            elif _binds(signature, _unpacked(names, arguments)):
                cure = "Unpack the data: write *data, not data."
            elif has_slice:
                cure = (
                    "Pass the data before per_step; its slice is one argument: "
                    "lambda params, batch: loss_fn(params, *batch)."
                )
        elif has_slice:
            cure = cure or (
                "The slice comes last: lambda p, x, y, rows: loss_fn(p, x[rows], y[rows])."
            )
        elif takes_data and any(map(is_key, arguments[1:])):
            cure = cure or "Leave the PRNG key out."
        holds_params = any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(fn))
        if holds_params and _binds(signature, arguments[1:]):
            cure = (
                "The model holds its params. Write lambda params, x: "
                "flax.nnx.merge(graph, params)(x), or equinox.combine(params, static)(x)."
            )
        got = f"a function of {signature}"
        raise TypeError(say(where, f"{name} must take {described}", got, cure)) from None


def _binds(signature: inspect.Signature, arguments: Sequence[PyTree]) -> bool:
    """Whether a function takes so many arguments."""
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _spread(arguments: Sequence[PyTree]) -> list[PyTree]:
    """The arguments, with the entries of the first one in its place."""
    return [*arguments[0], *arguments[1:]]


def _unpacked(names: Sequence[str], arguments: Sequence[PyTree]) -> list[PyTree]:
    """The arguments, with the entries of data that are a tuple or a list in its place."""
    entries: list[PyTree] = []
    for name, argument in zip(names, arguments, strict=True):
        is_packed = name.startswith("data") and isinstance(argument, (tuple, list))
        entries += argument if is_packed else [argument]
    return entries


def _refuse_no_arrays(
    where: str, fn: Callable[..., PyTree], arguments: Sequence[PyTree], names: Sequence[str]
) -> None:
    """Refuses what made a call fail: arrays of no numbers, lists that should be arrays."""
    made = list(arguments)
    for i, (name, argument) in enumerate(zip(names, arguments, strict=False)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            is_masked = isinstance(leaf, np.ma.MaskedArray)
            if is_masked or (isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufcV"):
                array(where, name + jax.tree_util.keystr(path), leaf)
        made[i] = _made_vector(argument) if name == "params" else _made_array(argument)
    changed = [i for i, each in enumerate(made) if each is not arguments[i]]
    if changed and _returns(fn, made):
        name, argument = names[changed[0]], arguments[changed[0]]
        cure = array_cure(name, argument)
        raise TypeError(say(where, f"{name} must be an array", kind(argument), cure)) from None


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
        raise ValueError(say(where, wanted, got, cure)) from None


@contextlib.contextmanager
def failing(where: str, wanted: str, cure: str) -> Iterator[None]:
    """A call of another library that fails where it was made of the wrong things."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if _is_refusal(error) or isinstance(error, jax.errors.JAXTypeError):
            raise
        got = f"{with_article(type(error).__name__)} ({str(error).splitlines()[0].rstrip('.')})"
        raise TypeError(say(where, wanted, got, cure)) from None


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
    try:
        text = str(error)
    except Exception:  # of a user's own class
        return False
    return re.match(r"[a-z]+\.[a-z_0-9]+: ", text) is not None
