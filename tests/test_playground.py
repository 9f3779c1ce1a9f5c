"""What runs in the browser is what JAX computes: values, gradients, paths, statuses."""

import functools
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jax import lax
from py_mini_racer import JSEvalException, MiniRacer

from jaxgd import descent, neurons, plots
from jaxgd.plots import _playground_compiler as compiler

RNG = np.random.default_rng(3)
X, NOISE = RNG.normal(size=50), RNG.normal(size=50)
Y = np.tanh(1.3 * X - 0.4) + 0.1 * NOISE
LABELS = (X + NOISE > 0.3).astype(float)
ROWS = RNG.normal(size=(7, 2))
KEY = jax.random.key(5)


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def beale(x, y):
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def recurrent(x, y):
    weights = jnp.array([[x, 0.3], [-0.2, y]])

    def step(state, row):
        state = jnp.tanh(weights @ state + row)
        return state, state.sum()

    return jnp.mean(lax.scan(step, jnp.ones(2), ROWS)[1] ** 2) + 0.1 * (x**2 + y**2)


def attention(x, y):
    scores = (x * ROWS) @ (y * ROWS).T
    return jnp.mean((jax.nn.softmax(scores) @ ROWS) ** 2) + 0.05 * (x**2 + y**2)


def noisy(x, y):
    """Keys are split inside the loop: what is random in it does not depend on the params."""

    def add(carry, _):
        key, total = carry
        key, subkey = jax.random.split(key)
        return (key, total + (x - y * jax.random.normal(subkey)) ** 2), None

    return lax.scan(add, (KEY, 0.0), length=3)[0][1]


@jax.custom_vjp
def halved_gradient(x):
    return x**2


halved_gradient.defvjp(lambda x: (x**2, x), lambda x, cotangent: (cotangent * x,))

MEASURED = np.array([[-2, -1, 0, 1, 2], [4, 1, 0, 1, 4]], np.float32)

# Functions of two numbers, each with a start and a rate at which plain descent goes well.
FUNCTIONS: dict[str, tuple[Any, tuple[float, float], float]] = {
    "valley": (lambda x, y: (x**2 + 10 * y**2) / 2, (1.3, -0.7), 0.05),
    "Rosenbrock": (lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, (-1.2, 1.0), 1e-3),
    "Himmelblau": (himmelblau, (0.5, -0.4), 0.01),
    "Beale": (beale, (1.0, 0.8), 0.01),
    "a table": (lambda x, y: jnp.interp(x, *MEASURED) + y**2, (1.3, -0.7), 0.05),
    "saddle": (lambda x, y: x**2 - y**2 + y**4 / 4, (1.0, 0.1), 0.05),
    "the note's two branches": (lambda x, y: (jnp.log(x**2) - y) ** 2, (2.0, 0.5), 0.02),
    "line through data": (lambda w, b: jnp.mean((w * X + b - Y) ** 2), (0.1, -0.2), 0.1),
    "logistic on data": (
        lambda w, b: jnp.mean(jax.nn.softplus(w * X + b) - LABELS * (w * X + b)),
        (0.1, 0.2),
        0.5,
    ),
    "tanh neuron": (lambda w, b: jnp.mean((jnp.tanh(w * X + b) - Y) ** 2), (-0.6, 0.9), 0.2),
    "hinge": (
        lambda w, b: jnp.mean(jnp.maximum(0, 1 - (2 * LABELS - 1) * (w * X + b))),
        (0.1, 0.2),
        0.1,
    ),
    "layer": (
        lambda w, b: jnp.mean(
            jnp.square(
                neurons.apply(neurons.Neuron(jnp.stack([w, b]), w * b), ROWS, activation=jnp.tanh)
                - ROWS[:, 0]
            )
        ),
        (0.3, 0.5),
        0.1,
    ),
    "where": (lambda x, y: jnp.where(x > y, x**2, 2 * x**2) + y**2, (1.0, -1.3), 0.1),
    "cond": (
        lambda x, y: lax.cond(x > y, lambda: x**2 + y**2, lambda: jnp.cosh(x - y) + y**2),
        (-1, 1.5),
        0.1,
    ),
    "switch": (
        lambda x, y: (
            lax.switch(jnp.int32(jnp.floor(x)), [jnp.square, jnp.cosh, lambda x: x**4], x) + y**2
        ),
        (2.3, 1.0),
        0.01,
    ),
    "fori_loop": (
        lambda x, y: lax.fori_loop(0, 6, lambda i, s: jnp.sin(s) + x * i / 9, y) ** 2,
        (0.4, 1.1),
        0.1,
    ),
    "scan": (recurrent, (0.8, -0.5), 0.1),
    "attention": (attention, (0.9, 1.2), 0.1),
    "random numbers in a loop": (noisy, (0.7, -0.2), 0.02),
    "gather": (
        lambda x, y: jnp.sum(jnp.stack([x, y, x * y])[jnp.array([0, 2, 2, 1])] ** 2),
        (1.0, 0.7),
        0.05,
    ),
    "gather at an index that moves": (
        lambda x, y: jnp.stack([x, y])[jnp.argmax(jnp.stack([x, y]))] ** 2 + y**2,
        (0.9, 1.1),
        0.1,
    ),
    "scatter": (
        lambda x, y: jnp.sum(
            jnp.zeros(4).at[jnp.array([1, 1, 3])].add(jnp.stack([x, y, x - y])) ** 2
        ),
        (0.9, 1.1),
        0.05,
    ),
    "cumulative sum": (
        lambda x, y: jnp.mean(jnp.cumsum(x + y * ROWS[:, 0]) ** 2),
        (0.5, -1.0),
        0.01,
    ),
    "reversed and padded": (
        lambda x, y: jnp.sum(jnp.pad(jnp.stack([x, y]), (2, 1))[::-1] ** 2 * jnp.arange(5.0)),
        (0.8, 0.7),
        0.05,
    ),
    "product of matrices": (
        lambda x, y: jnp.sum((jnp.array([[2, 1], [0, 1.0]]) @ jnp.array([[x, y], [y, x]])) ** 2),
        (0.5, -0.3),
        0.02,
    ),
    "linear system": (
        lambda x, y: (
            jnp.sum(jnp.linalg.solve(jnp.array([[3 + x**2, y], [y, 2.0]]), jnp.ones(2))) ** 2 + x**2
        ),
        (0.8, 0.9),
        0.1,
    ),
    "determinant": (
        lambda x, y: -jnp.linalg.slogdet(jnp.array([[2 + x, y], [y, 3.0]]))[1] + x**2 + y**2,
        (0.7, 0.4),
        0.05,
    ),
    "convolution": (
        lambda x, y: jnp.mean(jnp.convolve(X[:9], jnp.stack([x, y, 0.5])) ** 2),
        (0.9, -0.6),
        0.05,
    ),
    "largest of several": (
        lambda x, y: jax.nn.logsumexp(jnp.stack([x + y, x - y, -x])),
        (1.0, 0.5),
        0.1,
    ),
    "sorted": (
        lambda x, y: jnp.sort(jnp.stack([x, y, x * y])) @ jnp.array([3.0, 2, 1]) + x**2 + y**2,
        (0.6, -0.8),
        0.05,
    ),
    "special functions": (
        lambda x, y: jax.scipy.special.gammaln(3 + x) + jax.scipy.special.erf(y) ** 2 + x**2,
        (1.0, 0.7),
        0.1,
    ),
    "activations": (
        lambda x, y: jax.nn.gelu(x) + jax.nn.silu(y) + jax.nn.elu(x - y) ** 2,
        (0.9, 0.2),
        0.1,
    ),
    "powers": (lambda x, y: jnp.abs(x) ** 2.5 + y**-2 + y**2, (0.9, 1.4), 0.05),
    "angles": (lambda x, y: jnp.arctan2(y, x) ** 2 + (jnp.hypot(x, y) - 1) ** 2, (0.3, 1.4), 0.1),
    "a derivative inside": (
        lambda x, y: jax.grad(lambda t: jnp.sin(x * t))(y) ** 2 + x**2,
        (0.8, 0.4),
        0.1,
    ),
    "a gradient of its own": (
        lambda x, y: halved_gradient(x - 1) + halved_gradient(y),
        (2.2, -1.1),
        0.3,
    ),
    "rematerialized": (
        lambda x, y: jax.checkpoint(lambda x: jnp.sin(x) ** 2)(x) + y**2,
        (0.8, 0.4),
        0.1,
    ),
    "average of float32": (
        lambda x, y: jnp.mean((x * jnp.arange(3, dtype=jnp.float32) + y) ** 2),
        (0.8, 0.4),
        0.05,
    ),
    "a ratio of whole numbers": (
        lambda x, y: jnp.sum((jnp.arange(7) // 2 % 3 - x) ** 2) / 7 + y**2,
        (0.8, 0.4),
        0.1,
    ),
    "vmap": (
        lambda x, y: jnp.mean(jax.vmap(lambda row: jnp.tanh(row[0] * x + row[1] * y) ** 2)(ROWS)),
        (1.2, 0.7),
        0.1,
    ),
}

RULES = {
    "gradient_descent": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.8),
    "nesterov": lambda rate: optax.sgd(rate, 0.8, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
}
NAN_SAFE = "(_, x) => typeof x == 'number' ? String(x) : x"


def files(name):
    return (pathlib.Path(plots.__file__).parent / f"_playground_{name}").read_text(encoding="utf-8")


def engine_of(page):
    """The page's engine in V8, without a page: ``ask(expression)``; numbers come exactly."""
    [script] = re.findall(r'<script class="engine">(.*?)</script>', page, re.DOTALL)
    machine = MiniRacer()
    machine.eval(script)

    def numbers(value):
        if isinstance(value, list):
            return [numbers(v) for v in value]
        if isinstance(value, dict):
            return {k: numbers(v) for k, v in value.items()}
        try:
            return float(value.replace("Infinity", "inf")) if isinstance(value, str) else value
        except ValueError:
            return value

    def ask(expression) -> Any:
        said: Any = machine.eval(f"JSON.stringify({expression}, {NAN_SAFE})")
        return numbers(json.loads(said))

    return ask


def run_of(ask, **options):
    return ask(f"jaxgd.run({json.dumps(options)})")


LOSSES = {
    name: lambda params, fn=fn: jnp.float64(fn(*params)) for name, (fn, _, _) in FUNCTIONS.items()
}


@functools.cache
def descender(rule, losses, num_steps, has_tolerance=False):
    """The run of each of several losses, by its index, in one program: that is compiled once."""

    @jax.custom_vjp
    def loss_of(params, index):
        return lax.switch(index, losses, params)

    def forwards(params, index):
        return lax.switch(index, [*map(jax.value_and_grad, losses)], params)

    def backwards(grads, cotangent):
        return jax.tree.map(lambda grad: cotangent * grad, grads), None

    loss_of.defvjp(forwards, backwards)

    @jax.jit
    def descend(index, start, rate, tolerance=None):
        options = {"num_steps": num_steps, "tolerance": tolerance if has_tolerance else None}
        if rule == "gradient_descent":
            return descent.gradient_descent(loss_of, start, index, learning_rate=rate, **options)
        return descent.optimize(loss_of, start, index, optimizer=RULES[rule](rate), **options)

    return lambda *arguments: jax.device_get(descend(*arguments))


def assert_same_run(found, trajectory):
    path = np.stack([np.asarray(leaf) for leaf in jax.tree.leaves(trajectory.path)], axis=-1)
    scale = np.abs(path[np.isfinite(path)]).max()
    np.testing.assert_allclose(found["path"], path, rtol=1e-12, atol=1e-12 * scale)
    scale = np.abs(trajectory.losses[np.isfinite(trajectory.losses)]).max()
    np.testing.assert_allclose(found["losses"], trajectory.losses, rtol=1e-12, atol=1e-12 * scale)
    assert found["status"] == descent.Status(int(trajectory.status)).name
    assert found["num_steps"] == int(trajectory.num_steps)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_descent_in_the_page_is_the_descent_of_the_library(name):
    of_numbers, start, rate = FUNCTIONS[name]
    loss_fn = lambda params: of_numbers(*params)  # noqa: E731
    start = tuple(map(float, start))
    ask = engine_of(plots.playground(loss_fn, start, learning_rate=rate))
    index, kind = divmod([*FUNCTIONS].index(name), 3)
    rule, others = [*RULES][kind], tuple([*LOSSES.values()][kind::3])

    found = run_of(ask, rule=rule, rate=rate / 4, momentum=0.8, start=start, steps=200)

    assert_same_run(found, descender(rule, others, 200)(index, start, rate / 4))


PAIR = ("Himmelblau", "tanh neuron")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PAIR)
def test_every_rule_of_the_page_is_the_optimizer_of_optax(name):
    of_numbers, start, _ = FUNCTIONS[name]
    loss_fn = lambda params: of_numbers(*params)  # noqa: E731
    ask = engine_of(plots.playground(loss_fn, start, learning_rate=0.1))
    for rule in RULES:
        found = run_of(ask, rule=rule, rate=2e-3, momentum=0.8, start=start, steps=200)
        descend = descender(rule, tuple(LOSSES[each] for each in PAIR), 200)
        assert_same_run(found, descend(PAIR.index(name), start, 2e-3))


QUARTIC = lambda x: x**4 / 4 - x**2  # noqa: E731
SLOPE = lambda x: 1e-9 * x + 1e3  # noqa: E731
OF_ONE_NUMBER = (QUARTIC, SLOPE, jnp.square, jnp.log, jnp.sqrt)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss_fn", "start", "rate", "num_steps", "tolerance", "status"),
    [
        (QUARTIC, 1.1, 0.1, 30, None, "MAX_STEPS"),
        (QUARTIC, 1.1, 0.1, 90, 1e-5, "CONVERGED"),
        (QUARTIC, 1.1, 0.1, 5, 1e-5, "MAX_STEPS"),
        (QUARTIC, 3.0, 0.5, 30, None, "DIVERGED"),  # beyond the limit
        (jnp.square, 1.0, 1.001, 30, None, "DIVERGED"),  # above its start at the end
        (jnp.square, 1.0, 1.001, 90, 1e-9, "DIVERGED"),
        (jnp.log, 0.3, 0.2, 30, None, "NON_FINITE"),
        (jnp.log, 0.3, 0.2, 90, 1e-9, "NON_FINITE"),
        (jnp.sqrt, 0.0, 0.2, 30, None, "NON_FINITE"),  # at the start: an infinite slope
        (SLOPE, 1e9, 1e-9, 30, None, "STALLED"),
        (SLOPE, 1e9, 1e-9, 90, 1e-12, "STALLED"),
        (QUARTIC, 1.1, 0.1, 0, None, "MAX_STEPS"),
        (QUARTIC, 2.0**0.5, 0.1, 30, None, "STALLED"),
    ],
)
def test_a_run_of_one_number_ends_with_the_status_of_descent(
    loss_fn, start, rate, num_steps, tolerance, status
):
    ask = engine_of(plots.playground(loss_fn, start, learning_rate=rate))

    found = run_of(ask, rate=rate, start=start, steps=num_steps, tolerance=tolerance)

    descend = descender("gradient_descent", OF_ONE_NUMBER, num_steps, tolerance is not None)
    trajectory = descend(OF_ONE_NUMBER.index(loss_fn), start, rate, tolerance)
    assert found["status"] == descent.Status(int(trajectory.status)).name == status
    np.testing.assert_allclose(found["path"], trajectory.path, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(found["losses"], trajectory.losses, rtol=1e-12, atol=1e-300)


def test_what_the_page_is_not_told_it_takes_from_the_call():
    page = plots.playground(lambda x, c: c * x**2, 0.5, 2.0, learning_rate=0.125)
    ask = engine_of(page)

    assert '"held": ["2"]' in page  # the page says that this one does not move
    assert run_of(ask, steps=2)["path"] == [0.5, 0.25, 0.125]
    assert ask("jaxgd.rules") == [*RULES]


def test_the_rate_is_not_rounded_to_float32():
    ask = engine_of(plots.playground(jnp.square, 1.0, learning_rate=0.1))

    assert run_of(ask, steps=1)["path"] == [1.0, 1 - 0.1 * 2]


@pytest.mark.parametrize(
    ("params", "start"),
    [
        ({"w": 1.5, "b": np.array([0.25])}, {"w": 1.5, "b": [0.25]}),
        (np.array([0.25, 1.5]), [0.25, 1.5]),
        (neurons.Neuron(*(jax.device_put(np.float32(n)) for n in (0.25, 1.5))), [0.25, 1.5]),
    ],
)
def test_a_path_has_the_form_of_its_start(params, start):
    def loss_fn(params):
        first, second = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])
        return first**2 + 2 * second**2

    page = plots.playground(loss_fn, params, learning_rate=0.125)
    found = engine_of(page)(f"jaxgd.run({{start: {json.dumps(start)}, steps: 1}}).path")

    moved = {0.25: 0.25 * 0.75, 1.5: 1.5 * 0.5}
    assert found == [start, jax.tree.map(moved.__getitem__, start)]


SPECIAL = {
    "erf": (jax.scipy.special.erf, scipy.special.erf, np.linspace(-6, 6, 241)),
    "erfc": (jax.scipy.special.erfc, scipy.special.erfc, np.linspace(-6, 26, 321)),
    "erfinv": (
        jax.scipy.special.erfinv,
        scipy.special.erfinv,
        np.r_[-1:1:301j, 1 - 2.0 ** -np.arange(2, 53)],
    ),
    "log gamma": (jax.scipy.special.gammaln, scipy.special.gammaln, np.r_[-4.9:20:333j, 1e-9, 1e5]),
    "digamma": (jax.scipy.special.digamma, scipy.special.digamma, np.r_[-4.9:20:333j, 1e5]),
    "trigamma": (
        lambda x: jax.scipy.special.polygamma(1, x),
        lambda x: scipy.special.polygamma(1, x),
        np.r_[0.1:30:99j],
    ),
    "zeta": (
        lambda x: jax.scipy.special.zeta(x, 1.5),
        lambda x: scipy.special.zeta(x, 1.5),
        np.r_[1.1:9:99j],
    ),
    "i0e": (jax.scipy.special.i0e, scipy.special.i0e, np.r_[-30:30:99j, 5e4]),
    "i1e": (jax.scipy.special.i1e, scipy.special.i1e, np.r_[-30:30:99j, 5e4]),
    "log1p": (jnp.log1p, np.log1p, np.r_[-0.99:3:99j, 1e-12]),
    "expm1": (jnp.expm1, np.expm1, np.r_[-5:5:99j, 1e-12]),
    "sigmoid": (jax.nn.sigmoid, scipy.special.expit, np.r_[-700:700:99j]),
    "power": (lambda x: x**-3.5, lambda x: x**-3.5, np.r_[0.1:9:99j]),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_are_those_of_scipy(name):
    fn, witness, points = SPECIAL[name]
    source = compiler.function(fn, np.float64(0.5))
    machine = MiniRacer()
    values = machine.eval(
        f"(() => {{ {files('math.js')}\n const f = {source};"
        f" return JSON.stringify({json.dumps(points.tolist())}.map((x) => String(f(x)[0]))) }})()"
    )

    found = [float(value.replace("Infinity", "inf")) for value in json.loads(str(values))]
    wanted = witness(points)
    np.testing.assert_allclose(found, wanted, rtol=5e-15, atol=5e-15)


@pytest.mark.parametrize(
    ("loss_fn", "start", "options", "error", "message"),
    [
        (lambda p: jnp.linalg.eigvalsh(jnp.outer(p, p))[0], np.ones(2), {}, ValueError,
         r"got 'eigh'\. Known: abs, acos.*any other where it does not depend on the params\.$"),
        (lambda p: jnp.abs(jnp.exp(1j * p)) - 1.0, 1.0, {}, ValueError, "got 'complex'|complex128"),
        (lambda p: p.astype(jnp.bfloat16).astype(float) ** 2, 1.0, {}, ValueError, "bfloat16"),
        (3, 1.0, {}, TypeError, "loss_fn must be callable, got 3"),
        (jnp.square, 1, {}, TypeError, "start must be floating-point"),
        (jnp.sum, np.ones(3), {}, ValueError, "start must hold one or two numbers, got 3"),
        (jnp.sum, np.array([1, np.nan]), {}, ValueError, r"start must be finite, got \[ 1\. nan\]"),
        (jnp.sin, np.ones(2), {}, ValueError, r"loss_fn must return a scalar, got shape \(2,\)"),
        (jnp.square, 1.0, {"learning_rate": 0.0}, ValueError, "learning_rate must be above 0"),
        (jnp.square, 1.0, {"learning_rate": np.inf}, ValueError, "learning_rate must be above 0"),
        (jnp.square, 1.0, {"axis_names": ["a", "b"]}, ValueError,
         "expected 1 axis_name, one per number of start, got 2"),
        (jnp.square, 1.0, {"domains": [(0, 1), (2, 3)]}, ValueError, "expected 1 domain, one per"),
        (jnp.square, 1.0, {"domains": [(1, 1)]}, ValueError, r"domains\[0\] must be \(low, high\)"),
        (jnp.sum, np.ones(2), {"domains": (-1, 1)}, ValueError,
         r"domains\[0\] must .*got -1\. Write domains=\(\(-1\.0, 1\.0\), \(-1\.0, 1\.0\)\)\."),
        (jnp.square, 1.0, {"domains": [("a", "b")]}, ValueError, r"domains\[0\] must be \(low"),
        (jnp.square, 1.0, {"domains": [((0, 1), 2)]}, ValueError, r"domains\[0\] must be \(low"),
        (jnp.square, 1.0, {"domains": 3}, TypeError, r"domains must be a sequence .*got 3"),
        (jnp.sum, np.ones(2), {"axis_names": "ab"}, TypeError,
         r"axis_names must be a list or tuple, got 'ab'\. Write axis_names=\('x', 'y'\)\."),
        (jnp.square, 1.0, {"axis_names": [1]}, TypeError, r"axis_names\[0\] must be a str, got 1"),
        (jnp.square, 1.0, {"title": 3}, TypeError, "title must be a str, got 3"),
        (jnp.square, 1.0, {"learning_rate": None}, TypeError, "learning_rate must be a number"),
        (jnp.square, {"x": 2, "y": 1.0}, {}, TypeError,
         r"start\['x'\] must be floating-point, got dtype int64\. Write 2\.0\.$"),
        (jnp.square, {"x": jax.random.key(0)}, {}, TypeError, r"start\['x'\] must hold .*key"),
        (jnp.square, 1.0, {"learning_rate": jax.random.key(0)}, TypeError, r"Leave it out\.$"),
        (jnp.square, {"x": "a", "y": 1.0}, {}, TypeError, r"start\['x'\] must be an arr"),
        (np.sin, 1.0, {}, TypeError, r"loss_fn must be traceable by JAX, .*Write jnp\.sin for"),
        (lambda x: x if x > 0 else -x, 1.0, {}, TypeError, "loss_fn must be .*jnp.where for an if"),
        (jnp.square, 1.0, {"predict_fn": 3}, TypeError, "predict_fn must be callable, got 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_by_name(loss_fn, start, options, error, message):
    with pytest.raises(error, match=f"^plots.playground: .*(?:{message})"):
        plots.playground(loss_fn, start, **{"learning_rate": 0.1, **options})


def test_what_does_not_depend_on_the_params_may_hold_any_operation():
    def loss_fn(x):
        eigenvalues = jnp.linalg.eigvalsh(jnp.array([[2.0, 1], [1, 2]]))
        return jnp.sum((x - eigenvalues) ** 2)

    ask = engine_of(plots.playground(loss_fn, 0.5, learning_rate=0.1))

    assert ask("jaxgd.look(0.5).loss") == pytest.approx(0.25 + 6.25, rel=1e-14)


def test_only_what_a_page_reads_is_written_into_it():
    inputs = jnp.arange(20_000.0)

    def length_of(loss_fn):
        return len(plots.playground(loss_fn, 0.5, learning_rate=0.1))

    assert length_of(lambda x: x**2 + inputs.mean()) - length_of(lambda x: x**2 + 1.0) < 1_000
    assert length_of(lambda x: jnp.mean(x * inputs)) < 200_000


def test_a_page_leaves_the_precision_and_the_cache_of_jax_as_they_were():
    dtypes = []

    def loss_fn(x):
        dtypes.append(x.dtype)
        return x**2

    plots.playground(loss_fn, 1.0, learning_rate=0.1)

    assert set(dtypes) == {jnp.dtype("float64")}
    assert jnp.ones(()).dtype == jnp.float32
    assert jax.jit(loss_fn)(1.0).dtype == jnp.float32


@pytest.mark.parametrize(
    "name", ["Rosenbrock", "tanh neuron", "a gradient of its own", "largest of several"]
)
def test_the_second_derivatives_are_those_of_differences(name):
    of_numbers, start, _ = FUNCTIONS[name]
    ask = engine_of(plots.playground(lambda params: of_numbers(*params), start, learning_rate=0.1))
    rows = []
    for k in range(2):
        low, high = np.array([start, start], float)
        low[k], high[k] = low[k] - 1e-5, high[k] + 1e-5
        ends = [ask(f"jaxgd.look({json.dumps(end.tolist())}).grads") for end in (low, high)]
        rows.append(np.subtract(ends[1], ends[0]) / 2e-5)

    found = ask(f"jaxgd.hessian({json.dumps(start)})")

    np.testing.assert_allclose(found, rows, rtol=1e-6, atol=1e-6)


def test_where_no_second_derivative_can_be_compiled_the_page_takes_differences():
    page = plots.playground(
        lambda x: jax.scipy.special.betainc(2.0, 3.0, 0.5) * jnp.sin(x), 0.7, learning_rate=0.1
    )
    source = page.replace("hessian: (() =>", "hessian: null && (() =>")

    assert "hessian: null" in source
    found = engine_of(source)("jaxgd.hessian(0.7)")
    with jax.enable_x64(True):
        factor = float(jax.scipy.special.betainc(2.0, 3.0, 0.5))
    np.testing.assert_allclose(found, [[-factor * np.sin(0.7)]], rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{rule: 'sgd'}", "rule must be one of gradient_descent, momentum.*, got sgd"),
        ("{start: [1, 2]}", r"start must be 1 numbers, got \[1,2\]"),
        ("{start: ['1']}", "start must be 1 numbers"),
        ("{steps: 1.5}", "steps must be a whole number, at least 0, got 1.5"),
        ("{rate: '0.1'}", "rate must be a number, got 0.1"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_by_name(options, message):
    ask = engine_of(plots.playground(jnp.square, 1.0, learning_rate=0.1))

    with pytest.raises(JSEvalException, match=message):
        ask(f"jaxgd.run({options})")


def line(params, x):
    return params["w"] * x + params["b"]


def mean_error(params, x, y):
    return jnp.mean((jnp.tanh(line(params, x)) - y) ** 2)


def test_readers_rows_take_the_place_of_those_of_the_call():
    page = plots.playground(
        mean_error, {"w": 0.5, "b": 0.1}, X[:7], Y[:7], learning_rate=0.1, predict_fn=line
    )
    ask = engine_of(page)
    rows = [[0.5, 0.25], [-1.5, 0.75], [2.0, 1.0]]
    with jax.enable_x64(True):
        params = {"w": 0.7, "b": -0.3}
        x, y = np.array(rows).T
        loss, grads = jax.jit(jax.value_and_grad(mean_error))(params, x, y)
        hessian = jax.jit(jax.hessian(mean_error))(params, x, y)

    assert ask("jaxgd.engine.PROGRAMS.predict(-0.3, 0.7, 2)[0]") == pytest.approx(1.1)
    found = ask(f"(jaxgd.engine.useRows({rows}), jaxgd.look([-0.3, 0.7]))")
    assert found["loss"] == pytest.approx(float(loss), rel=1e-14)
    assert found["grads"] == pytest.approx([float(grads["b"]), float(grads["w"])], rel=1e-14)
    wanted = [[float(hessian[a][b]) for b in "bw"] for a in "bw"]
    np.testing.assert_allclose(ask("jaxgd.hessian([-0.3, 0.7])"), wanted, rtol=1e-13)


def test_a_loss_that_is_no_mean_over_its_rows_keeps_its_data():
    def total(params, x, y):
        return jnp.sum((line(params, x) - y) ** 2)

    start = {"w": 0.5, "b": 0.1}
    ask = engine_of(
        plots.playground(total, start, X[:7], Y[:7], learning_rate=0.1, predict_fn=line)
    )

    assert ask("jaxgd.engine.PROGRAMS.ofRow") is None


@pytest.mark.parametrize(
    ("predict_fn", "error", "says"),
    [
        (
            lambda p: p,
            TypeError,
            r"predict_fn must take 2 arguments \(start, x\), got a function of",
        ),
        (
            lambda p, x: p,
            ValueError,
            r"predict_fn must return as many numbers .*shape \(\) for \(1",
        ),
        (lambda p, x: "a", TypeError, "the output of predict_fn must be an arr"),
        (lambda p, x: p * np.sin(x), TypeError, r"predict_fn must be traceable by JAX, .*jnp\.sin"),
    ],
)
def test_what_is_no_line_through_data_is_refused_by_name(predict_fn, error, says):
    with pytest.raises(error, match=f"^plots.playground: {says}"):
        plots.playground(
            lambda p, x, y: p**2, 0.5, X[:3], Y[:3], learning_rate=0.1, predict_fn=predict_fn
        )


@pytest.mark.parametrize("data", [(jax.random.key(0),), ({"k": jax.random.key(0)},)])
def test_a_page_takes_no_key(data):
    with pytest.raises(
        TypeError, match=r"data\[0\].* must hold numbers, got a PRNG key\. The page"
    ):
        plots.playground(lambda p, k: p**2, 0.5, *data, learning_rate=0.1)


@pytest.mark.parametrize("data", [(X,), (X, Y[:9]), (ROWS, ROWS)])
def test_a_line_through_data_needs_two_columns(data):
    with pytest.raises(ValueError, match=r"with predict_fn, data must be x and y of one shape \(N"):
        plots.playground(
            lambda p, *_: p**2, 0.5, *data, learning_rate=0.1, predict_fn=lambda p, x: p * x
        )


def test_a_function_alone_becomes_javascript():
    source = plots.javascript(lambda p, x: {"y": p["w"] * jnp.sin(x), "z": x}, {"w": 2.0}, 0)

    found = json.loads(str(MiniRacer().eval(f"JSON.stringify(({source})(3, 0.5))")))
    assert found == pytest.approx([3 * np.sin(0.5), 0.5], rel=1e-15)


def test_what_is_traced_cannot_become_a_page():
    says = r"^plots.javascript: arguments must be known, got a traced array\. Call it outside"
    with pytest.raises(TypeError, match=says):
        jax.eval_shape(lambda x: plots.javascript(jnp.sin, x), 1.0)
    says = r"^plots.playground: start, data and learning_rate must be known"
    with pytest.raises(TypeError, match=says):
        jax.eval_shape(lambda x: plots.playground(jnp.sin, 1.0, learning_rate=x), 1.0)


@pytest.mark.parametrize(
    ("fn", "args", "error", "message"),
    [
        (3, (1.0,), TypeError, "fn must be callable"),
        (jnp.sum, (np.ones(2),), ValueError, "an argument must be a scalar"),
        (lambda x: x, (), TypeError, r"fn must take 0 arguments \(the examples\), got a function"),
        (lambda x: "a", (1.0,), TypeError, "a result of fn must be an array, got 'a'"),
        (np.sin, (1.0,), TypeError, r"fn must be traceable by JAX"),
        (lambda x: x * jnp.ones(2), (1.0,), ValueError, "the results must be numbers"),
        (lambda x: jnp.fft.fft(jnp.stack([x, x])).real[0], (1.0,), ValueError, "got 'fft'|complex"),
    ],
)
def test_what_cannot_become_javascript_is_refused_by_name(fn, args, error, message):
    with pytest.raises(error, match=f"^plots.javascript: .*({message})"):
        plots.javascript(fn, *args)


IMAGES = RNG.normal(size=(2, 5, 6, 3))
TABLE = RNG.normal(size=(6, 4))


def pooled(x, y):
    moved = jnp.tanh(x * IMAGES + y)
    highest = lax.reduce_window(moved, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    sums = lax.reduce_window(moved, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 2, 1), "SAME")
    return jnp.sum(highest**2) + jnp.sum(sums**3)


def convolved(x, y):
    names = ("NHWC", "HWIO", "NHWC")
    kernel = jnp.asarray(TABLE[:3, :2].reshape(1, 1, 3, 2).repeat(3, 0))
    plain = lax.conv_general_dilated(
        x * IMAGES, y * kernel, (2, 1), "SAME", dimension_numbers=names
    )
    grouped = lax.conv_general_dilated(
        x * IMAGES, y * jnp.ones((2, 2, 1, 6)), (1, 1), [(1, 0), (0, 1)], lhs_dilation=(2, 1),
        rhs_dilation=(1, 2), feature_group_count=3, dimension_numbers=names,
    )  # fmt: skip
    return jnp.sum(jnp.tanh(plain) ** 2) + jnp.sum(grouped**2)


def whole(value):
    return jnp.floor(value).astype(jnp.int32)


OPERATIONS = {
    "pooling": pooled,
    "convolutions": convolved,
    "slices that move": lambda x, y: (
        lax.dynamic_slice(x * TABLE, (whole(y), jnp.int32(1)), (2, 2)).sum()
        + lax.dynamic_update_slice(x * TABLE, y * jnp.ones((2, 3)), (whole(2 * x), whole(y))).sum()
    ),
    "gathers that move": lambda x, y: (
        (x * TABLE)[whole(jnp.abs(y) * jnp.arange(3)), jnp.array([1, 0, 2])].sum()
        + (y * TABLE)[:, jnp.array([0, -1])].sum()
    ),
    "scatters that move": lambda x, y: (
        (x * jnp.arange(5.0)).at[whole(jnp.abs(y) * 2)].multiply(3.0).at[jnp.array([1, 9])].set(y)
    ).sum(),
    "places": lambda x, y: (
        jnp.argmin(jnp.stack([x * TABLE[0], y * TABLE[1]]), axis=1).sum() * x
        + jnp.argmax(x * TABLE) * y
    ),
    "running": lambda x, y: (
        jnp.cumprod(1 + 0.1 * x * TABLE, axis=1).sum()
        + lax.cummax(y * X[:9]).sum()
        + lax.cumlogsumexp(x * X[:9], reverse=True).sum()
    ),
    "largest two": lambda x, y: (lax.top_k(x * TABLE + y, 2)[0] ** 3).sum(),
    "sorted columns": lambda x, y: (jnp.sort(x * TABLE + y * TABLE**2, axis=0) * TABLE).sum(),
    "bits": lambda x, y: x * ((whole(4 * y) & 3) | 1) + y * (whole(9 * x) >> 1) + x * ~whole(5 * x),
    "signs": lambda x, y: jnp.copysign(x, y) + jnp.fmod(x, 0.7) * y + jnp.rint(2.5 * x) * y,
    "a loop in a loop": lambda x, y: lax.fori_loop(
        0, 3, lambda i, c: lax.fori_loop(0, 4, lambda j, d: jnp.sin(d) * x + j * y, c), x
    ),
    "a carry that is exchanged": lambda x, y: lax.fori_loop(
        0, 5, lambda _, c: (c[1], 0.9 * c[0] + c[1]), (x * jnp.ones(3), y * jnp.arange(3.0))
    )[0].sum(),
    "rows from the last": lambda x, y: lax.scan(
        lambda c, row: (jnp.tanh(c * x + row[0]), c * row), y, TABLE, reverse=True
    )[1].sum(),
    "keys from the last": lambda x, y: lax.scan(
        lambda key, row: (jax.random.split(key)[0], jnp.tanh(row * x) * jax.random.normal(key)),
        jax.random.key(3),
        TABLE + y,
        reverse=True,
    )[1].sum(),
    "no entries": lambda x, y: jnp.sum(x * jnp.zeros((0, 3))) + x * y,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients_are_those_of_jax(name):
    value_and_grad = jax.value_and_grad(OPERATIONS[name], (0, 1))
    source = plots.javascript(value_and_grad, 0.5, 0.5)
    machine = MiniRacer()
    machine.eval(f"globalThis.f = {source}; 0")

    compiled = jax.jit(value_and_grad)
    for x, y in ((0.7, 0.3), (1.9, 0.9), (-0.4, 1.3)):
        wanted = jax.tree.leaves(compiled(x, y))
        found = json.loads(str(machine.eval(f"JSON.stringify(f({x}, {y}))")))
        np.testing.assert_allclose(found, [float(v) for v in wanted], rtol=1e-12, atol=1e-12)
