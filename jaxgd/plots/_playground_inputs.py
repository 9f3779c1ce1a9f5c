"""What a page is made of: each argument of ``playground``, refused by name or made numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from jaxgd import _checks
from jaxgd.plots._playground_writer import WHERE
from jaxgd.types import Array, Params, PyTree


def float64(path: KeyPath, leaf: Any) -> Array:
    """A leaf of floating-point numbers in float64; any other is refused by name."""
    return _checks.floating(WHERE, f"start{jax.tree_util.keystr(path)}", leaf).astype(jnp.float64)


def refuse_texts(axis_names: Any, num_params: int, title: Any) -> None:
    """The names and the title are to be texts."""
    names = ("x", "y")[:num_params]
    cure = f"Write axis_names={names}."
    _checks.instance(WHERE, "axis_names", axis_names, (list, tuple), cure)
    _checks.length(WHERE, "axis_names", axis_names, num_params, "one per number of start")
    for index, name in enumerate(axis_names):
        _checks.instance(WHERE, f"axis_names[{index}]", name, str)
    _checks.instance(WHERE, "title", title, str)


def refuse_keys(name: str, tree: PyTree) -> None:
    """A page draws nothing."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        is_prng_key = jnp.issubdtype(getattr(leaf, "dtype", bool), jax.dtypes.prng_key)
        wanted = f"{name}{jax.tree_util.keystr(path)} must hold numbers"
        cure = "The page draws nothing: pass what was drawn with the key."
        _checks.that(WHERE, not is_prng_key, wanted, "a PRNG key", cure, error=TypeError)


def rows_of(data: tuple[PyTree, ...]) -> list[list[float]]:
    """Pairs of an input and a target."""
    shapes = [np.shape(array) for array in data]
    is_line = len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 1
    wanted = "with predict_fn, data must be x and y of one shape (N,)"
    _checks.that(WHERE, is_line, wanted, str(shapes))
    for index, array in enumerate(map(np.asarray, data)):
        wanted, got = f"data[{index}] must be real numbers", f"dtype {array.dtype}"
        is_real = jnp.issubdtype(array.dtype, jnp.floating) or array.dtype.kind in "biu"
        _checks.that(WHERE, is_real, wanted, got, error=TypeError)
    return np.stack([np.asarray(array, np.float64) for array in data], axis=1).tolist()


def intervals_of(domains: Any, num_params: int) -> list[list[float]]:
    """A pair (low, high) for each number of the start."""
    cure = f"Write domains=({', '.join(['(-1.0, 1.0)'] * num_params)}{',' * (num_params == 1)})."
    wanted = "domains must be a sequence of pairs (low, high), one per number of start"
    is_sequence = isinstance(domains, (list, tuple)) or getattr(domains, "ndim", 0) > 0
    _checks.that(WHERE, is_sequence, wanted, _checks.kind(domains), cure, error=TypeError)
    pairs = []
    for index, domain in enumerate(domains):
        try:
            pair = np.asarray(domain, np.float64)
        except (TypeError, ValueError):  # what is no number, or ragged
            pair = np.array(np.nan)
        is_pair = pair.shape == (2,) and bool(np.isfinite(pair).all()) and pair[0] < pair[1]
        wanted = f"domains[{index}] must be (low, high), low below high"
        _checks.that(WHERE, bool(is_pair), wanted, str(domain), cure)
        pairs.append(pair.tolist())
    _checks.length(WHERE, "domains", pairs, num_params, "one per number of start")
    return pairs


def predicted(predict_fn: Callable[[Params, Array], Array], params: Params, x: Array) -> Array:
    """What a model makes of its inputs: as many numbers."""
    called = _checks.calling(WHERE, "predict_fn", predict_fn, (params, x), "start, x")
    with _checks.compilable(WHERE, "predict_fn"), called:
        predictions = predict_fn(params, x)
    predictions = _checks.real(WHERE, "the output of predict_fn", predictions)
    wanted = "predict_fn must return as many numbers as x holds"
    got = f"shape {predictions.shape} for {x.shape}"
    _checks.that(WHERE, predictions.shape == x.shape, wanted, got)
    return predictions


def names_of(params: Params) -> list[str]:
    """What the numbers are called: by their paths, or x and y."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        word = _checks.place(path)
        for index in np.ndindex(np.shape(leaf)):
            names.append("/".join([word, *map(str, index)]) if word else "")
    are_words = all(names) and not any(name.replace("/", "").isdigit() for name in names)
    return names if are_words else ["x", "y"][: len(names)]
