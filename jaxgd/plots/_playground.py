"""A page in which the reader's own function is descended, live. ``plots`` is the way in.

The function, its gradient, the update rules and the verdict on a run are compiled to JavaScript
(``_playground_compiler``); the files beside this one hold what a page has in common with others.
"""

import functools
import html
import importlib.resources
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import _checks, _iteration
from jaxgd.plots import _playground_compiler as compiler
from jaxgd.plots import _playground_inputs as inputs
from jaxgd.types import Array, ArrayLike, LossFn, Params, PyTree

WHERE = "plots.playground"
DIVERGENCE_FACTOR = 1e6
MOMENTUM = 0.9

OPTIMIZERS: dict[str, Callable[[Any, Any], optax.GradientTransformation]] = {
    "gradient_descent": lambda rate, _: optax.sgd(rate),
    "momentum": optax.sgd,
    "nesterov": lambda rate, momentum: optax.sgd(rate, momentum, nesterov=True),
    "adam": lambda rate, _: optax.adam(rate),
    "rmsprop": lambda rate, _: optax.rmsprop(rate),
}
"""The rules of the page, made of a rate and a momentum."""


def playground(
    loss_fn: LossFn,
    start: Params,
    *data: PyTree,
    learning_rate: ArrayLike,
    axis_names: Sequence[str] | None = None,
    domains: Sequence[tuple[float, float]] | None = None,
    predict_fn: Callable[[Params, Array], Array] | None = None,
    title: str = "",
) -> str:
    """Writes a page in which a function of one or two numbers is descended by hand, live.

    The function and its ``jax.grad`` are traced in float64 and compiled to JavaScript, and so are
    the steps of gradient descent, momentum, Nesterov, Adam and RMSProp, from Optax. In the page
    one drops starts, turns the rate and watches. It is whole in itself: it asks no network for
    anything.

    The page offers ``window.jaxgd.run({rule, rate, momentum, start, steps})``, which returns
    ``{path, losses, grad_norms, num_steps, status}`` as ``descent`` does. Its ``start`` is a
    number, an array or an object; the rows of ``path`` have the same form. The rules are
    "gradient_descent", "momentum", "nesterov", "adam" and "rmsprop"; ``momentum`` is for the second
    and third, and Adam and RMSProp keep Optax's defaults.

    Args:
      loss_fn: ``loss_fn(start, *data) -> scalar``, any function that JAX traces. The arrays that
        it holds are written into the page, as far as the page needs them. Draw random data
        outside of it: in float64, ``jax.random`` draws other numbers.
      start: the first start: a pytree of one or two floating-point numbers in all, as
        ``{"w": 1.0, "b": 0.0}`` or an array of two.
      *data: passed on to ``loss_fn``. They do not move, which the page says of single numbers:
        two numbers that move are a start of two, as ``(1.0, 2.0)``.
      learning_rate: the rate with which the page opens, above 0.
      axis_names: what the numbers are called; by default their paths in ``start``, or x and y.
      domains: ``(low, high)`` for each number: the part of the plane that the page opens with. By
        default it is chosen around the path of the first descent.
      predict_fn: ``predict_fn(start, x) -> y``, from shape (N,) to (N,), where the data are
        ``x, y`` of that shape: the page then shows the points, and the line through them that each
        run has found. If the loss is a mean over the rows, readers can paste rows of their own.
      title: what stands above the page.

    Returns:
      The page, as HTML. ``pathlib.Path("page.html").write_text(page, encoding="utf-8")`` keeps it.

    Raises:
      TypeError: if a function is not callable or not traceable by JAX, ``start`` or the loss is not
        floating-point, the title or a name is no text, or an argument is traced or a PRNG key.
      ValueError: if ``start`` does not hold one or two finite numbers, the loss is no scalar, the
        rate is not above 0, ``axis_names`` or ``domains`` do not fit, or the function or its
        gradient holds an operation that cannot be compiled: the message names it, and those that
        can.

    Example:
      >>> from jaxgd import plots
      >>> page = plots.playground(lambda x: (x**2 - 1) ** 2, 1.5, learning_rate=0.1)
      >>> page.startswith("<!doctype html>"), len(page) < 1e6
      (True, True)
    """
    _checks.function(WHERE, "loss_fn", loss_fn)
    _refuse_traced(WHERE, "start, data and learning_rate", start, data, learning_rate)
    inputs.refuse_keys("start", start)
    inputs.refuse_keys("data", data)
    with jax.enable_x64(True):
        rate = float(_checks.scalar(WHERE, "learning_rate", learning_rate))
        start = jax.tree_util.tree_map_with_path(inputs.float64, start)
        params = _checks.params(WHERE, "start", start)
        leaves, structure = jax.tree.flatten(params)
        numbers = np.concatenate([np.ravel(leaf) for leaf in leaves])
    _checks.that(WHERE, 0 < rate < math.inf, "learning_rate must be above 0 and finite", str(rate))
    num_params = numbers.size
    _checks.that(WHERE, num_params in (1, 2), "start must hold one or two numbers", str(num_params))
    _checks.that(WHERE, bool(np.isfinite(numbers).all()), "start must be finite", str(numbers))

    axis_names = inputs.names_of(params) if axis_names is None else axis_names
    inputs.refuse_texts(axis_names, num_params, title)
    intervals = None if domains is None else inputs.intervals_of(domains, num_params)

    def params_of(scalars: Sequence[Array]) -> Params:
        places = iter(scalars)
        filled = [
            jnp.stack([next(places) for _ in range(leaf.size)]).reshape(leaf.shape)
            if leaf.shape
            else next(places)
            for leaf in leaves
        ]
        return jax.tree.unflatten(structure, filled)

    traced_loss = _checks.trainable(WHERE, "loss_fn", loss_fn)

    def loss(*arguments: PyTree) -> Array:
        with _checks.compilable(WHERE, "loss_fn"):
            return traced_loss(*arguments)

    def loss_of(*scalars: Array) -> Array:
        return loss(params_of(scalars), *data)

    def loss_of_row(*scalars: Array) -> Array:
        *params, x, y = scalars
        return loss(params_of(params), x[None], y[None])

    def predict_of(*scalars: Array) -> Array:
        *params, x = scalars
        return inputs.predicted(predict_fn, params_of(params), x[None])[0] if predict_fn else x

    rows = None
    if predict_fn is not None:
        _checks.function(WHERE, "predict_fn", predict_fn)
        rows = inputs.rows_of(data)
    model = {
        "data": rows,
        "held": [f"{float(each):.6g}" for each in data if _checks.is_known(each)],
        "start": [*map(float, numbers)],
        "isNumber": structure == jax.tree.structure(0) and leaves[0].shape == (),
        "rate": rate,
        "momentum": MOMENTUM,
        "axisNames": [*axis_names],
        "title": title,
        "language": "en",
        "texts": {language: json.loads(_file(f"{language}.json")) for language in ("en", "zh")},
        "domains": intervals,
    }
    scalars = [np.float64(x) for x in numbers]
    pool: dict[str, str] = {}
    programs = _derivatives(loss_of, scalars, len(scalars), pool) | _verdicts()
    programs["rules"] = _object({name: _rule(name, num_params) for name in OPTIMIZERS})
    programs["ofRow"] = "null"
    if rows is not None:
        programs["predict"] = compiler.function(predict_of, *scalars, np.float64(0), pool=pool)
        if _is_mean(loss_of, loss_of_row, scalars, rows):
            row = [np.float64(0)] * 2
            of_row = _derivatives(loss_of_row, [*scalars, *row], len(scalars), pool)
            programs["ofRow"] = _object(of_row)
    engine = [
        _file("math.js"),
        _script("MODEL", model),
        *compiler.constants(pool),
        f"const PROGRAMS = {_object(programs)};",
        _file("descent.js"),
    ]
    parts = {
        "title": html.escape(title or "jaxgd"),
        "language": "en",
        "style": _file("css"),
        "engine": "\n".join(engine),
        "page": "\n".join(_file(f"{name}.js") for name in ("view", "page", "charts", "draw")),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("html"))


def javascript(fn: Callable[..., PyTree], *args: PyTree) -> str:
    """Writes a function of numbers in JavaScript, for a page of one's own.

    It is traced in float64, as ``playground`` does it.

    Args:
      fn: takes pytrees of numbers and returns one, any function that JAX traces.
      *args: examples of its arguments: numbers, or pytrees of them.

    Returns:
      An expression of JavaScript, whole in itself: a function that takes one number per leaf of
      ``args`` and returns an array of numbers, one per leaf of the result.

    Raises:
      TypeError: if ``fn`` is not callable or does not take its arguments, or one is traced.
      ValueError: if the function holds an operation that cannot be compiled, or an argument or
        a result is no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import plots
      >>> "Math.sin(" in plots.javascript(lambda x: x * jnp.sin(x), 1.0)
      True
    """
    where = "plots.javascript"
    _checks.function(where, "fn", fn)
    for leaf in jax.tree.leaves(args):
        _checks.scalar(where, "an argument", leaf)
    _refuse_traced(where, "arguments", args)
    with _checks.named(WHERE, where):
        source = compiler.function(fn, *jax.tree.map(np.float64, args))
    return f"(() => {{\n{_file('math.js')}\nreturn {source};\n}})()"


def _refuse_traced(where: str, name: str, *trees: Any) -> None:
    """A page is text, so that what goes into it must be known."""
    wanted, cure = f"{name} must be known", "Call it outside jax.jit."
    is_traced = _checks.is_traced(*trees)
    _checks.that(where, not is_traced, wanted, "a traced array", cure, error=TypeError)


def _derivatives(
    loss_of: Callable[..., Array], numbers: list[Any], num_params: int, pool: dict[str, str]
) -> dict[str, str]:
    """The loss, with its gradient, and its second derivatives, in its first ``num_params``."""
    each = tuple(range(num_params))
    value_and_grad = jax.value_and_grad(loss_of, each)
    second = _hessian(loss_of, numbers, each, pool)
    return {
        "loss": compiler.function(loss_of, *numbers, pool=pool),
        "look": compiler.function(value_and_grad, *numbers, pool=pool),
        "hessian": second,
    }


def _is_mean(
    loss_of: Callable[..., Array],
    loss_of_row: Callable[..., Array],
    numbers: list[Any],
    rows: list[list[float]],
) -> bool:
    """Whether a loss is the mean over its rows, at the start and beside it."""
    whole_of = jax.jit(loss_of)
    each_of = jax.jit(jax.vmap(loss_of_row, (*[None] * len(numbers), 0, 0)))
    columns = np.array(rows, np.float64).T
    with jax.enable_x64(True):
        for shift in (0.0, 0.1):
            moved = [np.float64(x + shift) for x in numbers]
            whole, each = whole_of(*moved), np.asarray(each_of(*moved, *columns))
            if not math.isclose(float(whole), each.mean(), rel_tol=1e-9, abs_tol=1e-12):
                return False
    return True


@functools.cache
def _verdicts() -> dict[str, str]:
    """What decides the status of a run, at a point and at the last one."""
    zero, count = np.float64(0), np.int32(0)
    return {
        "judge": compiler.function(_judged, *[zero] * 5),
        "judgeAtLast": compiler.function(_judged_at_last, *[zero] * 4, count, count, zero),
    }


def _object(entries: dict[str, str]) -> str:
    return "{" + ",\n".join(f"{name}: {value}" for name, value in entries.items()) + "}"


def _hessian(
    loss_of: Callable[..., Array], numbers: list[Any], each: tuple[int, ...], pool: dict[str, str]
) -> str:
    """The second derivatives; null where the function has none that can be compiled."""
    for derivative in (jax.jacfwd, jax.jacrev):
        try:
            second = derivative(jax.grad(loss_of, each), each)
            return compiler.function(second, *numbers, pool=pool)
        except (TypeError, ValueError, NotImplementedError):
            continue
    return "null"


@functools.cache
def _rule(name: str, num_params: int) -> str:
    """An update rule: its first state, and its step from Optax's own ``update``."""
    make, params = OPTIMIZERS[name], (np.float64(0),) * num_params
    one = np.float64(1)

    def init(*params: Array) -> Any:
        return make(jnp.ones(()), jnp.ones(())).init(params)

    def step(rate: Array, momentum: Array, params: Any, grads: PyTree, state: PyTree) -> Any:
        updates, state = make(rate, momentum).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with jax.enable_x64(True):
        state = jax.tree.map(np.asarray, make(jnp.ones(()), jnp.ones(())).init(params))
    return _object({
        "init": compiler.function(init, *params),
        "step": compiler.function(step, one, one, params, params, state),
    })  # fmt: skip


def _judged(
    loss: Array, grad_norm: Array, size: Array, first_loss: Array, tolerance: Array
) -> Array:
    """The status of a run at a point, MAX_STEPS if it may go on; no tolerance is NaN."""
    limit = first_loss + DIVERGENCE_FACTOR * jnp.maximum(jnp.abs(first_loss), 1)
    return _iteration.decide(
        is_finite=jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(size),
        has_diverged=loss > limit,
        has_converged=grad_norm <= tolerance,
    )


def _judged_at_last(
    first_loss: Array, last_loss: Array, first_norm: Array, last_norm: Array,
    num_unchanged_steps: Array, num_steps: Array, tolerance: Array,
) -> Array:  # fmt: skip
    """The status of a run that has taken all its steps."""
    epsilon = jnp.finfo(jnp.float64).eps
    floor = jnp.where(jnp.isnan(tolerance), jnp.sqrt(epsilon) * first_norm, tolerance)
    has_stood = (2 * num_unchanged_steps >= num_steps) & (num_steps > 0)
    return _iteration.decide(
        has_diverged=last_loss - first_loss > num_steps * epsilon * jnp.abs(first_loss),
        is_stalled=has_stood & (last_norm > floor),
    )


def _script(name: str, value: Any) -> str:
    """A constant for the page's scripts; no text in it can end the script."""
    return f"const {name} = {json.dumps(value, ensure_ascii=False)};".replace("<", "\\u003c")


def _file(ending: str) -> str:
    """A file of this package: ``_playground.html``, or ``_playground_math.js``."""
    name = f"_playground.{ending}" if ending in {"html", "css"} else f"_playground_{ending}"
    return (importlib.resources.files("jaxgd.plots") / name).read_text(encoding="utf-8")
