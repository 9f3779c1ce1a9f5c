"""Every refusal: what is wrong is said by name, while tracing, before anything is computed."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgd
from jaxgd import chains, curvature, curves, descent, losses, neurons, planes, surfaces, sweeps


def known(values: Any, dtype: Any = np.float32) -> jax.Array:
    """The same as jnp.array, for which JAX compiles a program: the table is made on import."""
    return jax.device_put(np.asarray(values, dtype))


def ones(*shape: int) -> jax.Array:
    return known(np.ones(shape))


ONES = ones(3)
INTS = known([0, 1, 2], np.int32)
COMPLEX = known([1, 1, 1], np.complex64)
SCORES = ones(3, 4)
KEY = jax.random.wrap_key_data(known([0, 0], np.uint32))
NEURON = neurons.Neuron(weights=ONES, bias=ones())
LAYER = neurons.Neuron(weights=ones(3, 2), bias=ones(2))
PLANE = planes.Plane(origin={"w": ONES}, directions=({"w": ONES}, {"w": known([0, 1, 2])}))
SGD = optax.sgd(0.1)
TREE = {"w": ones(2, 3), "b": ones()}
BATCHES = [(np.ones((2, 3)), np.ones(2))]
SETTINGS: Any = {"optimizer": SGD, "num_steps": 2}
connection_of: Any = curves.Connection
CONNECTION = connection_of(curve=curves.Curve(ones(2, 3)), trajectory=None)


def square(x):
    return x**2


def total(x):
    return jnp.sum(x**2)


def joint(x, y):
    return x + y


class Model:
    """A module of Flax, which holds no params and can be called only where it is bound to them."""

    scope = None

    def init(self, key, x):
        return {}

    def apply(self, params, x):
        return x

    def __call__(self, x):
        return x


class Case(NamedTuple):
    """A call that must be refused, and what the refusal says after the function's name."""

    function: Callable[..., Any]
    call: Callable[[Any], Any]  # given the function
    error: type[Exception]
    says: str  # a regular expression


CASES: list[Case] = []


def refuse(function: Any, call: Any, error: type[Exception], says: str) -> None:
    CASES.append(Case(function, call, error, says))


def public_functions():
    for room in jaxgd.__all__:
        module = getattr(jaxgd, room)
        for name, value in vars(module).items():
            own = (getattr(value, "__module__", None) or "").startswith(module.__name__)
            if own and inspect.isfunction(value) and not name.startswith("_"):
                yield value


def without_its_key(f: Any) -> Any:
    """A call in which the key is forgotten, so that the loss stands in its place."""
    empty = inspect.Parameter.empty
    _, *others = (p for p in inspect.signature(f).parameters.values() if p.default is empty)
    given = [ONES for p in others if p.kind is p.POSITIONAL_OR_KEYWORD]
    return f(total, *given, **{p.name: 2 for p in others if p.kind is p.KEYWORD_ONLY})


for function in public_functions():
    if next(iter(inspect.signature(function).parameters), "") == "key":
        refuse(
            function,
            without_its_key,
            TypeError,
            r"key must be one PRNG key, got a function\. Write jax\.random\.key\(seed\)\.",
        )

# neurons

refuse(neurons.init, lambda f: f(0, 3), TypeError, r"key .*got 0\. Write jax\.random\.key")
refuse(neurons.init, lambda f: f(jax.random.split(KEY), 3), TypeError, r"key must be one PRNG key")
refuse(neurons.init, lambda f: f(ONES, 3), TypeError, r"key must be one PRNG key")
refuse(neurons.init, lambda f: f(None, 3), TypeError, r"key .*got None")
refuse(neurons.init, lambda f: f(KEY, 0), ValueError, r"num_inputs must be at least 1, got 0")
refuse(neurons.init, lambda f: f(KEY, 2.0), TypeError, r"num_inputs must be an int.*Write int\(")
refuse(neurons.init, lambda f: f(KEY, True), TypeError, r"num_inputs must be an int, got True")
refuse(neurons.init, lambda f: f(KEY, 3, -2), ValueError, r"num_outputs must be at least 1")
refuse(neurons.init, lambda f: jax.jit(f)(KEY, 3), TypeError, r"num_inputs must be a static int")
for function in (neurons.weighted_sum, neurons.apply):
    refuse(function, lambda f: f((ONES, 0.0), ONES), TypeError, r"neuron must be a Neuron, got a t")
    refuse(function, lambda f: f(NEURON, [1, 2, 3]), TypeError, r"x must be an array.*jnp\.array")
    refuse(function, lambda f: f(NEURON, "abc"), TypeError, r"x must be an array, got 'abc'")
    refuse(function, lambda f: f(NEURON, COMPLEX), TypeError, r"x must be real, got dtype complex")
    refuse(function, lambda f: f(NEURON, ones(4)), ValueError, r"x .*last axis of 3.*\(4,\)")
    refuse(function, lambda f: f(NEURON, 1.0), ValueError, r"x .*last axis of 3.*shape \(\)")
    refuse(function, lambda f: f(NEURON, ones(3, 5)), ValueError, r"x .*Write x\.T")
    refuse(
        function,
        lambda f: f(NEURON._replace(weights=INTS), ONES),
        TypeError,
        r"neuron\.weights must be floating-point, got dtype int",
    )
    refuse(
        function,
        lambda f: f(NEURON._replace(bias=0), ONES),
        TypeError,
        r"neuron\.bias must be floating-point",
    )
    refuse(
        function,
        lambda f: f(NEURON._replace(bias=known(np.zeros(1))), ONES),
        ValueError,
        r"weights and bias must have shapes.*got \(3,\) and \(1,\)",
    )
    refuse(
        function,
        lambda f: f(LAYER._replace(bias=known(np.zeros(3))), ONES),
        ValueError,
        r"weights and bias must have shapes.*got \(3, 2\) and \(3,\)",
    )
    refuse(
        function,
        lambda f: f(LAYER._replace(weights=ones(3, 2, 1), bias=ones(2, 1)), ONES),
        ValueError,
        r"weights and bias must have shapes",
    )
refuse(
    neurons.apply,
    lambda f: f(NEURON, ONES, activation="tanh"),
    TypeError,
    r"activation must be callable, got 'tanh'",
)
for activation, says in (
    (
        lambda z, t: z + t,
        r"activation must take 1 argument \(the weighted sum\), got a function of",
    ),
    (lambda z: None, r"the output of activation must be an array, got None"),
):
    for function, neuron in ((neurons.apply, NEURON), (neurons.apply_network, (LAYER, LAYER))):
        refuse(
            function,
            lambda f, model=neuron, a=activation: f(model, ONES, activation=a),
            TypeError,
            says,
        )
refuse(neurons.step, lambda f: f([0.0]), TypeError, r"z must be an array")
refuse(neurons.step, lambda f: f(1j), TypeError, r"z must be real")
refuse(neurons.init_network, lambda f: f(0, (3, 2)), TypeError, r"key must be one PRNG key")
refuse(neurons.init_network, lambda f: f(KEY, 3), TypeError, r"sizes must be a sequence")
refuse(neurons.init_network, lambda f: f(KEY, (3,)), ValueError, r"expected at least two sizes")
refuse(neurons.init_network, lambda f: f(KEY, (3, 0)), ValueError, r"sizes\[1\] .*at least 1")
refuse(neurons.init_network, lambda f: f(KEY, (3.0, 2)), TypeError, r"sizes\[0\] must be an int")
refuse(neurons.init_network, lambda f: f(KEY, "32"), TypeError, r"sizes\[0\] must be an int")
refuse(neurons.apply_network, lambda f: f((), ONES), ValueError, r"network .*layers, got none")
refuse(
    neurons.apply_network,
    lambda f: f(NEURON, ONES),
    ValueError,
    r"network must be a tuple of layers, got a Neuron\. Write \(layer,\)",
)
refuse(neurons.apply_network, lambda f: f(3, ONES), TypeError, r"network must be a sequence")
refuse(neurons.apply_network, lambda f: f((ONES,), ONES), TypeError, r"neuron must be a Neuron")
refuse(
    neurons.apply_network,
    lambda f: f((LAYER, LAYER), ONES),
    ValueError,
    r"x .*last axis of 3.*shape \(2,\)",
)
refuse(
    neurons.apply_network,
    lambda f: f((LAYER,), ONES, activation=None),
    TypeError,
    r"activation must be callable, got None",
)
refuse(
    neurons.apply_network,
    lambda f: f((LAYER,), ONES, output_activation=1.0),
    TypeError,
    r"output_activation must be callable",
)

# losses

for function in (losses.squared_error, losses.half_squared_error, losses.absolute_error):
    refuse(function, lambda f: f(ONES, ones(4)), ValueError, r"predictions and targets must ha")
    refuse(
        function,
        lambda f: f(ONES[:, None], ONES),
        ValueError,
        r"predictions and targets .*\(3, 1\) and \(3,\)\. Write predictions\[\.\.\., 0\]",
    )
    refuse(function, lambda f: f(ONES, ONES[:, None]), ValueError, r".*Write targets\[\.\.\., 0\]")
    refuse(function, lambda f: f(ONES, 1.0), ValueError, r"predictions and targets .*and \(\)")
    refuse(function, lambda f: f(INTS, ONES), TypeError, r"predictions must be floating-point")
    refuse(function, lambda f: f([1.0], ONES), TypeError, r"predictions must be an array")
    refuse(function, lambda f: f(ONES, [1, 2, 3]), TypeError, r"targets must be an array, got a li")
    refuse(function, lambda f: f(ONES, COMPLEX), TypeError, r"targets must be real")
    refuse(function, lambda f: f(COMPLEX, ONES), TypeError, r"predictions must be floating-point")
    refuse(function, lambda f: f(ONES, None), TypeError, r"targets must be an array, got None")
refuse(
    losses.squared_error,
    lambda f: f(ONES, np.array(["a", "b", "c"])),
    TypeError,
    r"targets must be an array of numbers, got dtype <U1\. Write targets\.astype\(float\)",
)
refuse(
    losses.squared_error,
    lambda f: f(ONES, np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])),
    TypeError,
    r"targets must have no mask, got a masked array\. Write targets\.filled\(jnp\.nan\)",
)
refuse(
    losses.squared_error,
    lambda f: jax.jit(f)(ONES[:, None], ONES),
    ValueError,
    r"predictions and targets",
)
for function, name in (
    (losses.sigmoid_binary_cross_entropy, "logits"),
    (losses.binary_margin, "scores"),
):
    refuse(function, lambda f: f(ONES[:, None], ONES), ValueError, rf"{name} and labels .*equal")
    refuse(function, lambda f: f(ONES, ones(3, 2)), ValueError, rf"{name} and labels")
    refuse(function, lambda f: f(INTS, ONES), TypeError, rf"{name} must be floating-point")
    refuse(function, lambda f: f(ONES, COMPLEX), TypeError, r"labels must be real")
    refuse(function, lambda f: f(ONES, "abc"), TypeError, r"labels must be an array")
for function, name in (
    (losses.softmax_cross_entropy_with_integer_labels, "logits"),
    (losses.true_class_score, "scores"),
    (losses.multiclass_margin, "scores"),
):
    refuse(function, lambda f: f(SCORES, ONES), TypeError, r"labels must be integers.*astype\(int")
    refuse(function, lambda f: f(SCORES, ONES > 0), TypeError, r"labels must be integers, got dtyp")
    refuse(
        function,
        lambda f: f(SCORES, known(np.ones((3, 4)), np.int32)),
        ValueError,
        r"labels .*argmax",
    )
    refuse(
        function,
        lambda f: f(SCORES, known(np.ones((3, 1)), np.int32)),
        ValueError,
        rf"labels must have the shape of {name} .*\(3,\), got \(3, 1\)\. Write labels\[\.\.\., 0\]",
    )
    refuse(
        function,
        lambda f: f(SCORES, known(np.ones(4), np.int32)),
        ValueError,
        r"labels must have the sha",
    )
    refuse(function, lambda f: f(SCORES, 1), ValueError, r"labels must have the shape .*got \(\)")
    refuse(function, lambda f: f(SCORES, [0, 1, 2]), TypeError, r"labels must be an array")
    refuse(function, lambda f: f(1.0, 1), ValueError, rf"{name} must have a last axis of classes")
    refuse(function, lambda f: f(ones(3, 0), INTS), ValueError, rf"{name} must have a last")
    refuse(
        function,
        lambda f: f(known(np.ones((3, 4)), np.int32), INTS),
        TypeError,
        rf"{name} must be float",
    )
refuse(
    losses.multiclass_margin,
    lambda f: f(ones(3, 1), INTS),
    ValueError,
    r"scores must have at least two classes, got shape \(3, 1\)",
)
for function in (losses.hinge, losses.squared_hinge):
    refuse(function, lambda f: f(INTS), TypeError, r"margins must be floating-point")
    refuse(function, lambda f: f([1.0]), TypeError, r"margins must be an array")
refuse(losses.ramp, lambda f: f(INTS, 0.0), TypeError, r"margins must be floating-point")
refuse(losses.ramp, lambda f: f(ONES, 1.0), ValueError, r"cut must be below 1, got 1\.0")
refuse(losses.ramp, lambda f: f(ONES, 2), ValueError, r"cut must be below 1, got 2")
refuse(losses.ramp, lambda f: f(ONES, np.nan), ValueError, r"cut must be below 1, got nan")
refuse(
    losses.ramp, lambda f: f(ONES, known(np.zeros(3))), ValueError, r"cut must be a scalar, got sha"
)
refuse(losses.ramp, lambda f: f(ONES, "low"), TypeError, r"cut must be a number, got 'low'")
refuse(losses.empirical_risk, lambda f: f(1, losses.hinge), TypeError, r"predict_fn must be calla")
refuse(losses.empirical_risk, lambda f: f(square, "mse"), TypeError, r"loss must be callable")

refuse(
    losses.empirical_risk,
    lambda f: f(square, square, batch_size=0),
    ValueError,
    r"batch_size must be at least 1, got 0",
)


def risk_of(loss: Any, targets: Any, num_columns: int = 1, **options: Any) -> Any:
    def call(f: Any) -> Any:
        inputs = ones(5, num_columns)
        with jax.numpy_rank_promotion("allow"):
            if f is curvature.gnvp:
                return f(lambda p, x: p * x, loss, 2.0, inputs, targets)
            return f(lambda p, x: p * x, loss, **options)(2.0, inputs, targets)

    return call


for loss, targets, says in (
    (lambda p, t: (p - t) ** 2, ones(5), r"got shape \(5, 5\)\. Give predictions and targets"),
    (optax.huber_loss, ones(5), r"of shape \(5,\), got shape \(5, 5\)\. Give predictions"),
    (lambda p, t: p[:4, 0], ones(5), r"got shape \(4,\)"),
    (lambda p, t: jnp.mean(p), ones(5), r"got shape \(\)\. The mean is taken here"),
    (lambda p, t: ones(5, 5), {"a": ones(5), "b": ones(5, 2)}, r"got shape \(5, 5"),
):
    says = rf"loss must return one value per example .*{says}"
    refuse(losses.empirical_risk, risk_of(loss, targets), ValueError, says)
OUTER = "loss must compare each prediction with its own target, got predictions of shape "
for loss, targets in (
    (lambda p, t: ((p - t) ** 2).mean(-1), ones(5)),
    (lambda p, t: ((p - t) ** 2).mean(0), ones(5)),
    (lambda p, t: optax.huber_loss(p, t).sum(1), ones(5)),
    (jax.jit(lambda p, t: ((p - t) ** 2).mean(-1)), ones(5)),
    (lambda p, t: ((p - t["y"]) ** 2).mean(-1), {"y": ones(5)}),
    (lambda p, t: ((p - t["y"]) ** 2).mean(-1) * t["w"], {"w": ones(5), "y": ones(5)}),
):
    refuse(losses.empirical_risk, risk_of(loss, targets), ValueError, OUTER)
refuse(
    losses.empirical_risk,
    risk_of(lambda p, t: ((p - t) ** 2).max(-1), ones(5), num_columns=5),
    ValueError,
    re.escape(OUTER + "(5, 5) broadcast against targets of shape (5,). Give predictions and"),
)
refuse(
    losses.empirical_risk,
    risk_of(optax.huber_loss, ones(4), batch_size=2),
    ValueError,
    r"with a batch_size, the first axes .* must have one length, got shapes \(5, 1\), \(4,\)",
)
refuse(
    losses.empirical_risk,
    risk_of(optax.huber_loss, ones(5), batch_size=2),
    ValueError,
    r"loss must return one value per example of targets of shape \(2,\), got shape \(2, 2\)",
)

# chains

refuse(chains.compose, lambda f: f(), ValueError, r"stages must hold at least one function")
refuse(chains.compose, lambda f: f(square, 3.0), TypeError, r"stages\[1\] must be callable, got 3")
refuse(chains.compose, lambda f: f([square]), TypeError, r"stages\[0\] must be callable")
for function, rest in (
    (chains.backprop, ()),
    (chains.local_derivatives, ()),
    (chains.correct, (1.0,)),
    (chains.solve, (1.0,)),
):

    def given(f: Any, stages: Any, x: Any, rest: Any = rest) -> Any:
        options = {"tolerance": 0.1, "max_steps": 2} if f is chains.solve else {}
        return f(stages, x, *rest, **options)

    refuse(function, lambda f, g=given: g(f, [], 1.0), ValueError, r"stages must hold at least one")
    refuse(
        function,
        lambda f, g=given: g(f, square, 1.0),
        TypeError,
        r"stages must be a sequence of functions, got a function\. Write \[stages\]",
    )
    refuse(function, lambda f, g=given: g(f, None, 1.0), TypeError, r"stages must be a sequence")
    refuse(function, lambda f, g=given: g(f, [1], 1.0), TypeError, r"stages\[0\] must be callable")
    refuse(function, lambda f, g=given: g(f, [square], 1), TypeError, r"x must be floating-point")
    refuse(function, lambda f, g=given: g(f, [square], ()), ValueError, r"x must hold at least one")
    refuse(function, lambda f, g=given: g(f, [square], 1j), TypeError, r"x must be floating-point")
    refuse(function, lambda f, g=given: g(f, [square], "a"), TypeError, r"x must be an array")
    if function is not chains.local_derivatives:
        refuse(
            function,
            lambda f, g=given: g(f, [square], ONES),
            ValueError,
            r"the last stage must return a scalar, got shape \(3,\)",
        )
        refuse(
            function,
            lambda f, g=given: g(f, [lambda x: (x, x)], 1.0),
            TypeError,
            r"the last stage must return a scalar, got a tuple",
        )
refuse(
    chains.backprop,
    lambda f: f([lambda x: jnp.int32(1)], 1.0),
    TypeError,
    r"the output of the last stage must be floating-point",
)
refuse(
    chains.backprop,
    lambda f: f([lambda p, x: p * x], 1.0, params=(1.0, 2.0)),
    ValueError,
    r"expected 1 param, one per stage, got 2",
)
refuse(
    chains.backprop,
    lambda f: f([lambda p, x: p * x], 1.0, params=()),
    ValueError,
    r"expected 1 param, one per stage, got 0",
)
refuse(
    chains.backprop,
    lambda f: f([lambda p, x: p * x], 1.0, params=(2,)),
    TypeError,
    r"params\[0\] must be floating-point",
)
refuse(
    chains.backprop,
    lambda f: f([lambda p, x: p["a"] * x], 1.0, params=({"a": square},)),
    TypeError,
    r"params\[0\]\['a'\] must be an array",
)
refuse(
    chains.backprop,
    lambda f: f([lambda p, x: p * x], 1.0, params=2.0),
    TypeError,
    r"params must be a sequence, got 2\.0",
)
refuse(chains.correct, lambda f: f([square], 1.0, ONES), ValueError, r"target must be a scalar")
refuse(chains.correct, lambda f: f([square], 1.0, "a"), TypeError, r"target must be a number")


def solved(**options: Any) -> Any:
    call = {"target": 2.0, "tolerance": 0.1, "max_steps": 2} | options
    return lambda f: f([square], 1.0, **call)


refuse(chains.solve, solved(target=ONES), ValueError, r"target must be a scalar, got shape \(3,\)")
refuse(chains.solve, solved(target=1j), TypeError, r"target must be real")
refuse(chains.solve, solved(tolerance=-1e-9), ValueError, r"tolerance must be at least 0, got -1")
refuse(chains.solve, solved(tolerance=ONES), ValueError, r"tolerance must be a scalar")
refuse(chains.solve, solved(tolerance="small"), TypeError, r"tolerance must be a number")
refuse(chains.solve, solved(tolerance=np.nan), ValueError, r"tolerance must be at least 0, got nan")
refuse(chains.solve, solved(max_steps=-1), ValueError, r"max_steps must be at least 0, got -1")
refuse(chains.solve, solved(max_steps=2.0), TypeError, r"max_steps must be an int, got 2\.0")
refuse(chains.solve, solved(max_steps=True), TypeError, r"max_steps must be an int, got True")
refuse(chains.solve, solved(max_steps="2"), TypeError, r"max_steps must be an int, got '2'")
refuse(
    chains.solve,
    lambda f: jax.jit(lambda n: solved(max_steps=n)(f))(2),
    TypeError,
    r"max_steps must be a static int, got a traced value\. max_steps sets",
)
refuse(chains.solve, solved(project=1.1), TypeError, r"project must be callable, got 1\.1")
refuse(
    chains.solve,
    solved(project=lambda x: x[None]),
    ValueError,
    r"the output of project must have the shape of x, got \(1,\) against \(\)",
)
refuse(
    chains.solve,
    solved(project=lambda x: (x,)),
    ValueError,
    r"the output of project must have the structure of x",
)

# descent

refuse(descent.step, lambda f: f(INTS, ONES, 0.1), TypeError, r"params must be floating-point")
refuse(descent.step, lambda f: f({}, {}, 0.1), ValueError, r"params must hold at least one array")
refuse(
    descent.step,
    lambda f: f(TREE, {"w": TREE["w"]}, 0.1),
    ValueError,
    r"grads must have the structure of params",
)
refuse(
    descent.step,
    lambda f: f(TREE, TREE | {"w": ones(3, 2)}, 0.1),
    ValueError,
    r"grads\['w'\] must have the shape of params\['w'\], got \(3, 2\) against \(2, 3\)",
)
refuse(
    descent.step,
    lambda f: f(ONES, ONES, ones(3)),
    ValueError,
    r"learning_rate must be a scalar, got shape \(3,\)\. For several rates use jax\.vmap",
)
refuse(
    descent.step,
    lambda f: f(ONES, ONES, optax.constant_schedule(0.1)),
    ValueError,
    r"learning_rate must be a scalar, got a function\. A schedule goes into an optimizer",
)
refuse(descent.step, lambda f: f(ONES, ONES, "0.1"), TypeError, r"learning_rate must be a number")


def descended(loss_fn: Any = total, params: Any = ONES, *data: Any, **options: Any) -> Any:
    def call(f: Any) -> Any:
        own = {"learning_rate": 0.1} if f is descent.gradient_descent else {"optimizer": SGD}
        return f(loss_fn, params, *data, **(own | {"num_steps": 2} | options))

    return call


for function in (descent.gradient_descent, descent.optimize):
    for loss_fn, error, says in (
        (3.0, TypeError, r"loss_fn must be callable, got 3\.0"),
        (None, TypeError, r"loss_fn must be callable, got None"),
        (np.ones(()), TypeError, r"loss_fn must be callable, got an array.*the function itself"),
        (square, ValueError, r"loss_fn must return a scalar, got shape \(3,\)\. .*jnp\.mean"),
        (lambda x: total(x)[None], ValueError, r"loss_fn must return a scalar, got shape \(1,\)"),
        (lambda x: (total(x), x), TypeError, r"loss_fn must return a scalar, got a tuple"),
        (lambda x: {"loss": total(x)}, TypeError, r"loss_fn must return a scalar, got a dict"),
        (lambda x: None, TypeError, r"loss_fn must return a scalar, got None\. .*return"),
        (lambda x: jnp.int32(1), TypeError, r"the output of loss_fn must be floating-point"),
        (lambda x: total(x) + 1j, TypeError, r"the output of loss_fn must be floating-point"),
    ):
        refuse(function, descended(loss_fn), error, says)
    for params, error, says in (
        (INTS, TypeError, r"params must be floating-point, got dtype int32\. .*astype\(float\)"),
        (1, TypeError, r"params must be floating-point"),
        ({"a": {"b": INTS}}, TypeError, r"params\['a'\]\['b'\] must be floating-point"),
        (np.ones(3, bool), TypeError, r"params must be floating-point, got dtype bool"),
        (COMPLEX, TypeError, r"params must be floating-point, got dtype complex64"),
        ((), ValueError, r"params must hold at least one array, got a tuple"),
        (None, ValueError, r"params must hold at least one array, got None"),
        ({"w": ONES, "act": jnp.tanh}, TypeError, r"params\['act'\] must be an array.*equinox\.pa"),
        ({"w": ONES, "name": "x"}, TypeError, r"params\['name'\] must be an array, got 'x'\. Keep"),
        ("2", TypeError, r"params must be an array, got '2'\. Write 2\.0\."),
    ):
        refuse(function, descended(total, params), error, says)
    refuse(
        function,
        descended(lambda x, y: x * y, (1.0, 1.0)),
        TypeError,
        r"loss_fn must take params, got a function .*: lambda params: loss_fn\(\*params\)\.",
    )
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    refuse(function, descended(total, ONES, masked), TypeError, r"data\[0\] must have no mask")
    for num_steps, error, says in (
        (-1, ValueError, r"num_steps must be at least 0, got -1"),
        (2.0, TypeError, r"num_steps must be an int, got 2\.0\. Write int\(num_steps\)"),
        (True, TypeError, r"num_steps must be an int, got True"),
        (None, TypeError, r"num_steps must be an int, got None"),
    ):
        refuse(function, descended(num_steps=num_steps), error, says)
    refuse(
        function,
        lambda f: jax.jit(lambda n: descended(num_steps=n)(f))(2),
        TypeError,
        r"num_steps must be a static int, got a traced value.*static_argnames",
    )
    for tolerance, error, says in (
        (-0.1, ValueError, r"tolerance must be at least 0, got -0\.1"),
        (ONES, ValueError, r"tolerance must be a scalar, got shape \(3,\)"),
        ("tight", TypeError, r"tolerance must be a number, got 'tight'"),
        (1j, TypeError, r"tolerance must be real"),
    ):
        refuse(function, descended(tolerance=tolerance), error, says)
    refuse(function, descended(record="path"), TypeError, r"record must be callable, got 'path'")

for rate, error, says in (
    (np.array([0.1, 0.2]), ValueError, r"learning_rate must be a scalar.*use jax\.vmap"),
    (optax.constant_schedule(0.1), ValueError, r"learning_rate must be a scalar, got a function"),
    (None, TypeError, r"learning_rate must be a number, got None"),
    ("fast", TypeError, r"learning_rate must be a number, got 'fast'\.$"),
    ("0.1", TypeError, r"learning_rate must be a number, got '0\.1'\. Write 0\.1\."),
    (True, TypeError, r"learning_rate must be a number, got True"),
    (1j, TypeError, r"learning_rate must be real"),
):
    refuse(descent.gradient_descent, descended(learning_rate=rate), error, says)
for optimizer, says in (
    (optax.sgd, r"optimizer must be an optax\.GradientTransformation.*Call it: optax\.sgd\(0\.1\)"),
    (0.1, r"optimizer must be an optax\.GradientTransformation, got 0\.1"),
    ("adam", r"optimizer must be an optax\.GradientTransformation, got 'adam'"),
    (None, r"optimizer must be an optax\.GradientTransformation, got None"),
    ((SGD.init, SGD.update), r"optimizer must be an optax\.GradientTransformation, got a tuple"),
):
    refuse(descent.optimize, descended(optimizer=optimizer), TypeError, says)


def stepped(loss_fn: Any = None, per_step: Any = None, **options: Any) -> Any:
    """A descent whose loss takes the slice of a step."""
    return descended(loss_fn or (lambda x, piece: total(x)), per_step=per_step, **options)


for function in (descent.gradient_descent, descent.optimize):
    for per_step, says in (
        (
            ones(3, 4),
            r"per_step must have a leading axis of num_steps = 2, got shape \(3, 4\)",
        ),
        ({"rows": (ONES,)}, r"per_step/rows/0 must have a leading axis of num_steps = 2, got .*3"),
        (1.0, r"per_step must have a leading axis of num_steps = 2, got shape \(\)\."),
        (
            KEY,
            r"per_step must have .*got shape \(\)\. For one key per step.*split\(key, num_steps\)",
        ),
        ((), r"per_step must hold at least one array, got none"),
    ):
        refuse(function, stepped(per_step=per_step), ValueError, says)
    refuse(function, stepped(per_step=["x"]), TypeError, r"per_step/0 must be an array, got 'x'")
    refuse(
        function,
        stepped(per_step=ones(0, 3), num_steps=0),
        ValueError,
        r"num_steps must be at least 1 with per_step, got 0",
    )
    refuse(
        function,
        descended(total, per_step=ones(2, 4)),
        TypeError,
        r"loss_fn must take params, the slice of per_step \(an array of dtype float32 and shape "
        r"\(4,\)\), got a function of \(x\)",
    )
    refuse(
        function,
        descended(lambda x, y, rows: total(x)),
        TypeError,
        r"loss_fn must take params, got a function of \(x, y, rows\)",
    )
    for every, error, says in (
        (3, ValueError, r"record_every must divide num_steps = 4, got 3"),
        (0, ValueError, r"record_every must be at least 1, got 0"),
        (2.0, TypeError, r"record_every must be an int, got 2\.0"),
    ):
        refuse(function, descended(num_steps=4, record_every=every), error, says)
    for loss_fn, error, says in (
        (total, TypeError, r"loss_fn must return \(loss, aux\) with has_aux=True, got an array"),
        (lambda x: (x, 1.0), ValueError, r"loss_fn must return a scalar, got shape \(3,\)"),
        (lambda x: (total(x), "name"), TypeError, r"aux must be an array, got 'name'"),
        (lambda x: (total(x), {"k": KEY}), TypeError, r"aux/k must be numbers.*key_data"),
    ):
        refuse(function, descended(loss_fn, has_aux=True), error, says)
    refuse(
        function,
        descended(lambda x: (total(x), x)),
        TypeError,
        r"loss_fn must return a scalar, got a tuple\. .*has_aux=True",
    )
    refuse(
        function,
        descended(record=lambda x: {"key": KEY}),
        TypeError,
        r"record/key must be numbers, got a PRNG key",
    )


def state_of(optimizer: Any, params: Any) -> Any:
    """The state with which an optimizer starts, whose numbers are of no account here."""
    shapes = jax.eval_shape(optimizer.init, params)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


ADAM_STATE = state_of(optax.adam(0.1), ONES)
for state, says in (
    (ADAM_STATE, r"state must have the structure of optimizer\.init\(params\).*Trajectory\.state"),
    (state_of(optax.sgd(0.1, momentum=0.9), ones(4)), r"state must have the structure"),
):
    refuse(descent.optimize, descended(state=state), ValueError, says)
for state, says in (
    (state_of(optax.adam(0.1), ones(4)), r"state\[0\]\.mu must have the shape of optimizer\.init"),
    (
        state_of(optax.adam(0.1, mu_dtype=jnp.bfloat16), ONES),
        r"state/0/mu must have the dtype of optimizer\.init\(params\), float32, got bfloat16",
    ),
):
    refuse(descent.optimize, descended(optimizer=optax.adam(0.1), state=state), ValueError, says)
refuse(
    descent.optimize,
    descended(optimizer=optax.contrib.differentially_private_aggregate(1.0, 1.0, key=KEY)),
    ValueError,
    r"optimizer must work on the gradient of loss_fn, .*per example.*noisy_sgd",
)
refuse(
    descent.optimize,
    descended(optimizer=optax.lookahead(SGD, 5, 0.5)),
    ValueError,
    r"params must be optax\.LookaheadParams.*init_synced\(params\)",
)
for arguments, error, says in (
    ((0, 5, 2, 3), TypeError, r"key must be one PRNG key"),
    ((KEY, 5, 6, 3), ValueError, r"batch_size must be at most num_examples = 5, got 6"),
    ((KEY, 5, 0, 3), ValueError, r"batch_size must be at least 1, got 0"),
    ((KEY, 0, 1, 3), ValueError, r"num_examples must be at least 1, got 0"),
    ((KEY, 5, 2, -1), ValueError, r"num_steps must be at least 0, got -1"),
    ((KEY, 5.0, 2, 3), TypeError, r"num_examples must be an int, got 5\.0"),
):
    refuse(
        descent.minibatches,
        lambda f, a=arguments: f(a[0], a[1], batch_size=a[2], num_steps=a[3]),
        error,
        says,
    )
for status, error, says in (
    (np.array([0, 1]), ValueError, r"status must be of one run, got shape \(2,\)\. For several"),
    (5, ValueError, r"status must be one of 0, 1, 2, 3, 4, got 5"),
    (1.0, TypeError, r"status must be an integer, got 1\.0"),
):
    refuse(descent.status_name, lambda f, s=status: f(s), error, says)
refuse(descent.status_name, lambda f: jax.jit(f)(0), TypeError, r"status must be known, got a tra")
RUN = descent.Trajectory(ONES, ONES, ONES, ONES, known(2, np.int32), known(1, np.int32))
refuse(
    descent.status_name, lambda f: f(RUN), TypeError, r".*got a Trajectory\. Write run\.status\.$"
)
refuse(descent.trim, lambda f: f(ONES), TypeError, r"trajectory must be a Trajectory")
refuse(
    descent.trim,
    lambda f: f(RUN._replace(num_steps=np.array([1, 2]), status=np.array([1, 1]))),
    ValueError,
    r"trajectory\.num_steps must be of one run, got shape \(2,\)\. .*leaf\[i\]",
)
refuse(
    descent.trim,
    lambda f: jax.jit(f)(RUN),
    TypeError,
    r"trajectory\.num_steps must be known, got a traced value\. Call it outside jit",
)

# planes

for function, rest in ((planes.point, (1.0, 2.0)), (planes.project, ({"w": ONES},))):
    refuse(function, lambda f, r=rest: f(PLANE.origin, *r), TypeError, r"plane must be a Plane, go")
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(directions=()), *r),
        ValueError,
        r"plane must have at least one direction, got none",
    )
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(directions=3), *r),
        TypeError,
        r"plane\.directions must be",
    )
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(origin={"w": INTS}), *r),
        TypeError,
        r"plane\.origin\['w'\] must be floating-point",
    )
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(directions=({"w": ONES}, {"w": INTS})), *r),
        TypeError,
        r"plane\.directions\[1\]\['w'\] must be floating-point",
    )
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(directions=({"w": ONES}, {"v": ONES})), *r),
        ValueError,
        r"plane\.directions\[1\] must have the structure of plane\.origin",
    )
    refuse(
        function,
        lambda f, r=rest: f(PLANE._replace(directions=({"w": ONES}, {"w": ones(4)})), *r),
        ValueError,
        r"plane\.directions\[1\]\['w'\] must have the shape of plane\.origin\['w'\]",
    )
refuse(planes.point, lambda f: f(PLANE, 1.0), ValueError, r"expected 2 coordinates, one per direct")
refuse(
    planes.point,
    lambda f: f(PLANE, [1.0, 2.0]),
    ValueError,
    r"coordinates must be .* as one\. Write",
)
refuse(
    surfaces.sweep,
    lambda f: f(square, (ONES, ONES)),
    TypeError,
    r"coordinate 0 .*got a tuple\. .*write \*axes",
)
refuse(planes.point, lambda f: f(PLANE), ValueError, r"expected 2 coordinates, .*got 0")
refuse(planes.point, lambda f: f(PLANE, 1.0, 2.0, 3.0), ValueError, r"expected 2 coordinates, .*3")
refuse(planes.point, lambda f: f(PLANE, 1.0, ONES), ValueError, r"coordinate 1 must be a scalar.*s")
refuse(planes.point, lambda f: f(PLANE, "a", 1.0), TypeError, r"coordinate 0 must be a number")
refuse(planes.project, lambda f: f(PLANE, {"w": INTS}), TypeError, r"params\['w'\] must be floati")
refuse(planes.project, lambda f: f(PLANE, ONES), ValueError, r"params must have the structure of p")
refuse(
    planes.project,
    lambda f: f(PLANE, {"w": ones(4)}),
    ValueError,
    r"params\['w'\] must have the shape of plane\.origin\['w'\], got \(4,\) against \(3,\)",
)
for entries, says in (
    ((), r"expected at least one entry, a key path, got none"),
    (("b",), r"entry 0 must be a key path, got 'b'\. Write \('b',\)"),
    ((("b",), 0), r"entry 1 must be a key path, got 0\. Write \(0,\)"),
    ((("c",),), r"entry 0 must lead to an array .*\('c',\)\. Known: .*\('w',\) of shape \(2, 3\)"),
    (((),), r"entry 0 must lead to an array of the params"),
    ((("w",),), r"entry 0 must end at a scalar, .*shape \(2, 3\): end with 2 indices"),
    ((("w", 0),), r"entry 0 must end at a scalar"),
    ((("b",), ("w", 0, 1, 2)), r"entry 1 must end at a scalar"),
    ((("b", 0),), r"entry 0 must end at a scalar"),
    ((("w", 2, 0),), r"entry 0 must end at a scalar"),
    ((("w", 0, 3),), r"entry 0 must end at a scalar"),
    ((("w", 0, -4),), r"entry 0 must end at a scalar"),
    ((("w", 0.0, 1),), r"entry 0 must end at a scalar"),
    ((("w", slice(2), 1),), r"entry 0 must end at a scalar"),
    ((("b",), ("b",)), r"entries must differ"),
    ((("w", 0, 1), ("b",), ("w", -2, -2)), r"entries must differ"),
):
    refuse(planes.coordinate, lambda f, e=entries: f(TREE, *e), ValueError, says)
refuse(planes.coordinate, lambda f: f({}, ("b",)), ValueError, r"params must hold at least one ar")
refuse(planes.coordinate, lambda f: f({"b": 1}, ("b",)), TypeError, r"params\['b'\] must be float")

refuse(planes.project_path, lambda f: f(ONES, {"w": SCORES}), TypeError, r"plane must be a Plane")
refuse(
    planes.project_path, lambda f: f(PLANE, {"w": SCORES}), ValueError, r"a point of path\['w'\]"
)
refuse(planes.restrict, lambda f: f(3.0, PLANE), TypeError, r"loss_fn must be callable")
refuse(planes.restrict, lambda f: f(total, ONES), TypeError, r"plane must be a Plane")
refuse(planes.explain, lambda f: f(3.0, PLANE), TypeError, r"loss_fn must be callable")
refuse(planes.explain, lambda f: f(total, ONES), TypeError, r"plane must be a Plane")
refuse(
    planes.explain, lambda f: f(lambda p: p["w"], PLANE), ValueError, r"loss_fn must return scalars"
)
refuse(
    planes.restrict,
    lambda f: f(lambda p: p["w"], PLANE),
    ValueError,
    r"loss_fn must return scalars",
)
refuse(planes.random, lambda f: f(0, TREE), TypeError, r"key must be one PRNG key, got 0")
refuse(planes.random, lambda f: f(KEY, INTS), TypeError, r"params must be floating-point")
refuse(planes.random, lambda f: f(KEY, ()), ValueError, r"params must hold at least one array")
refuse(
    planes.random,
    lambda f: f(KEY, TREE, num_directions=0),
    ValueError,
    r"num_directions must be at least 1, got 0",
)
refuse(
    planes.random,
    lambda f: f(KEY, TREE, num_directions=2.0),
    TypeError,
    r"num_directions must be an int",
)
refuse(planes.through, lambda f: f(TREE), ValueError, r"expected at least two points, got 1")
refuse(planes.through, lambda f: f(ONES, INTS), TypeError, r"point 1 must be floating-point")
refuse(planes.through, lambda f: f(ONES, SCORES), ValueError, r"point 1 must have the shape of po")
refuse(planes.through, lambda f: f(TREE, ONES), ValueError, r"point 1 must have the structure of p")
refuse(planes.along, lambda f: f(INTS, ONES), TypeError, r"params must be floating-point")
refuse(planes.along, lambda f: f(ONES, INTS), TypeError, r"vectors must be floating-point")
refuse(
    planes.along, lambda f: f(TREE, TREE), ValueError, r"the leaves of vectors must share a lead"
)
refuse(planes.along, lambda f: f(ONES, ones(2, 4)), ValueError, r"a row of vectors must have t")
refuse(planes.along, lambda f: f(ONES, ones(0, 3)), ValueError, r"expected at least one vector")
refuse(
    planes.geometry,
    lambda f: f(PLANE._replace(directions={"w": ones(2, 3)})),
    TypeError,
    r"plane\.directions must be a sequence, got a dict\. .*planes\.along",
)
refuse(planes.principal, lambda f: f(INTS), TypeError, r"path must be floating-point")
refuse(planes.principal, lambda f: f(ones(2, 5)), ValueError, r"path must have more points")
refuse(
    planes.principal,
    lambda f: f([{"w": ones(2, 3), "b": ones(4)}] * 5),
    ValueError,
    r"the leaves of path must share a leading axis, .*Stack a list of checkpoints: jax\.tree\.map",
)
refuse(
    planes.principal,
    lambda f: f([{"w": ONES, "b": ONES}] * 2),
    ValueError,
    r"path must have a leading axis, the steps, got a list of 2 dicts of equal shapes\. Stack a l",
)
refuse(
    planes.principal,
    lambda f: f([ONES, 2 * ONES, jnp.arange(3.0)]),
    ValueError,
    r"path must have a leading axis, the steps, got a list of 3 arrays of equal shapes\. Stack a ",
)
refuse(planes.principal, lambda f: f(TREE), ValueError, r"the leaves of path must share a leading")
refuse(
    planes.principal,
    lambda f: f(SCORES, num_directions=-1),
    ValueError,
    r"num_directions must be at least 1",
)
refuse(
    planes.filter_normalize,
    lambda f: f(TREE, filter_axis=0),
    TypeError,
    r"plane must be a Plane",
)
refuse(
    planes.filter_normalize,
    lambda f: f(PLANE, filter_axis=-1, vectors="drop"),
    ValueError,
    r"vectors must be 'zero', 'match' or 'keep', got 'drop'",
)
refuse(
    planes.filter_normalize,
    lambda f: f(PLANE, filter_axis=-1),
    ValueError,
    r"plane must have an array with filters, got vectors alone.*Write vectors=\"match\"",
)
refuse(
    planes.filter_normalize,
    lambda f: f(planes.along(SCORES, SCORES[None]), filter_axis=2),
    ValueError,
    r"filter_axis",
)
refuse(
    planes.filter_normalize,
    lambda f: f(planes.along(SCORES, SCORES[None]), filter_axis=1.0),
    TypeError,
    r"filter_axis",
)
PAIRS = planes.Plane((SCORES, SCORES), ((SCORES, SCORES),))
for axes, error, says in (
    ((1.5, 0), TypeError, r"filter_axis of 0 must be an int, a tuple of ints or None, got 1\.5"),
    ((True, 0), TypeError, r"filter_axis of 0 must be an int, a tuple of ints or None, got True"),
    (
        ((0, 2), 0),
        ValueError,
        r"filter_axis of 0 must be an axis of .* shape \(3, 4\), got 2",
    ),
    (
        {"w": 0},
        ValueError,
        r"filter_axis must be an int, a function, or have.*lambda path, l",
    ),
    (lambda path, leaf: int(path) + 1, ValueError, r"filter_axis of 1 must be an axis .*got 2"),
):
    refuse(
        planes.filter_normalize,
        lambda f, axes=axes: f(PAIRS, filter_axis=axes),
        error,
        says,
    )
    refuse(
        planes.explain_filters,
        lambda f, axes=axes: f((SCORES, SCORES), filter_axis=axes),
        error,
        says,
    )
refuse(
    planes.filter_normalize,
    lambda f: f(PLANE, filter_axis=0, is_vector="bias"),
    TypeError,
    r"is_vector must be callable, got 'bias'",
)
refuse(planes.orthonormalize, lambda f: f(ONES), TypeError, r"plane must be a Plane")
refuse(
    planes.orthonormalize,
    lambda f: f(PLANE._replace(directions=(TREE,))),
    ValueError,
    r"plane\.directions\[0\] must have the structure",
)
refuse(planes.geometry, lambda f: f(ONES), TypeError, r"plane must be a Plane")
refuse(
    planes.geometry,
    lambda f: f(PLANE._replace(directions=(TREE,))),
    ValueError,
    r"plane\.directions\[0\] must have the structure",
)

# curvature


def per_batch(f, loss, params):
    loss_fn = (lambda params, row: loss(params)) if callable(loss) else loss
    return f(loss_fn, params, per_step=ONES)


for per_step, says in (
    ({"rows": INTS, "keys": ones(4)}, r"the arrays of per_step must share a leading axis"),
    ({}, r"the arrays of per_step must share a leading axis, got none"),
    (3.0, r"the arrays of per_step must share a leading axis, got shapes \(\)\.$"),
    (KEY, r"the arrays of per_step .* For one key per slice write jax\.random\.split\(key, num_sl"),
    (ones(1), r"per_step must hold at least [23] slices, got 1"),
):
    for function in (curvature.batch_sharpness, curvature.gradient_noise_scale):
        refuse(function, lambda f, p=per_step: f(total, ONES, per_step=p), ValueError, says)

for function, call in (
    (curvature.hvp, lambda f, loss, params: f(loss, params)),
    (
        curvature.top_eigenpairs,
        lambda f, loss, params: f(KEY, loss, params, num_pairs=1, num_iterations=2),
    ),
    (curvature.sharpness, lambda f, loss, params: f(KEY, loss, params, num_iterations=2)),
    (curvature.hessian_trace, lambda f, loss, params: f(KEY, loss, params, num_samples=2)),
    (curvature.stability, lambda f, loss, params: f(KEY, loss, params, num_iterations=2)),
    (
        curvature.spectral_density,
        lambda f, loss, params: f(KEY, loss, params, num_iterations=2, num_samples=1),
    ),
    (curvature.hessian_diagonal, lambda f, loss, params: f(KEY, loss, params, num_samples=2)),
    (
        curvature.preconditioned_sharpness,
        lambda f, loss, params: f(KEY, loss, params, params, num_iterations=2),
    ),
    (curvature.critical_sharpness, lambda f, loss, params: f(loss, params, params)),
    (curvature.batch_sharpness, per_batch),
    (curvature.gradient_noise_scale, per_batch),
):
    refuse(function, lambda f, c=call: c(f, 3.0, ONES), TypeError, r"loss_fn must be callable")
    refuse(function, lambda f, c=call: c(f, total, INTS), TypeError, r"params must be floating-poi")
    refuse(function, lambda f, c=call: c(f, total, {}), ValueError, r"params must hold at least on")
    refuse(function, lambda f, c=call: c(f, square, ONES), ValueError, r"loss_fn must return a sca")
    refuse(function, lambda f, c=call: c(f, total, ones(0, 2)), ValueError, r"params .*number")
refuse(
    curvature.hvp,
    lambda f: f(total, TREE, where="w"),
    TypeError,
    r"where must be callable",
)
refuse(
    curvature.hvp,
    lambda f: f(total, TREE, where=lambda path, leaf: leaf.ndim),
    TypeError,
    r"where\('b', \.\.\.\) must be True or False, got 0",
)
refuse(
    curvature.hvp,
    lambda f: f(total, TREE, where=lambda path, leaf: path == "W"),
    ValueError,
    r"where must hold for one array at least of b, w, got none",
)
refuse(
    curvature.hvp,
    lambda f: f(total, ONES)(jnp.ones(3, "bfloat16")),
    TypeError,
    r"vector must have the dtype of params, float32, got bfloat16\. Write vector\.astype\(",
)
refuse(
    curvature.hvp,
    lambda f: f(total, ONES)(ones(4)),
    ValueError,
    r"vector must have the shape of params",
)
refuse(
    curvature.sharpness,
    lambda f: f(0, total, ONES, num_iterations=2),
    TypeError,
    r"key must be one PRNG key",
)
refuse(
    curvature.sharpness,
    lambda f: f(KEY, total, ONES, num_iterations=0),
    ValueError,
    r"num_iterations must be at least 1",
)
refuse(
    curvature.top_eigenpairs,
    lambda f: f(KEY, total, ONES, num_pairs=4, num_iterations=9),
    ValueError,
    r"num_pairs must be at most 3",
)
refuse(
    curvature.top_eigenpairs,
    lambda f: f(KEY, total, ONES, num_pairs=0, num_iterations=2),
    ValueError,
    r"num_pairs must be at least 1",
)
refuse(
    curvature.top_eigenpairs,
    lambda f: f(KEY, total, ONES, num_pairs=1, num_iterations=2.0),
    TypeError,
    r"num_iterations must be an int",
)
refuse(
    curvature.spectral_density,
    lambda f: f(KEY, total, ONES, num_iterations=2, num_samples=0),
    ValueError,
    r"num_samples must be at least 1, got 0",
)
refuse(
    curvature.spectral_density,
    lambda f: f(KEY, total, ONES, num_iterations=0, num_samples=1),
    ValueError,
    r"num_iterations must be at least 1, got 0",
)
refuse(
    curvature.hessian_diagonal,
    lambda f: f(KEY, total, ONES, num_samples=1),
    ValueError,
    r"num_samples must be at least 2, got 1",
)
refuse(
    curvature.preconditioned_sharpness,
    lambda f: f(KEY, total, TREE, ONES, num_iterations=2),
    ValueError,
    r"preconditioner must have the structure of params",
)
refuse(
    curvature.preconditioned_sharpness,
    lambda f: f(KEY, total, ONES, ones(4), num_iterations=2),
    ValueError,
    r"preconditioner must have the shape of params",
)
refuse(
    curvature.critical_sharpness,
    lambda f: f(total, ONES, ones(4)),
    ValueError,
    r"direction must have the shape of params",
)
refuse(
    curvature.adam_preconditioner,
    lambda f: f(SGD.init(ONES)),
    ValueError,
    r"state must hold one optax\.ScaleByAdamState, got 0\. Pass the state of optax\.adam",
)
refuse(
    curvature.adam_preconditioner,
    lambda f: f((optax.adam(0.1).init(ONES), optax.adam(0.1).init(ONES))),
    ValueError,
    r"state must hold one optax\.ScaleByAdamState, got 2",
)
refuse(
    curvature.adam_preconditioner,
    lambda f: f(jax.vmap(optax.adam(0.1).init)(ones(3, 3))),
    ValueError,
    r"state must be that of one run, .*got shape \(3,\)\. Of several runs: jax\.vmap",
)
for arguments, error, says in (
    ((3.0, jnp.square, ONES, ONES, ONES), TypeError, r"predict_fn must be callable"),
    ((jnp.multiply, 3.0, ONES, ONES, ONES), TypeError, r"loss must be callable"),
    ((jnp.multiply, jnp.subtract, INTS, ONES, ONES), TypeError, r"params must be floating-point"),
    ((jnp.multiply, jnp.subtract, {}, ONES, ONES), ValueError, r"params must hold at least one"),
):
    refuse(curvature.gnvp, lambda f, a=arguments: f(*a), error, says)
for loss, says in (
    (lambda p, t: (p - t) ** 2, "loss must return one value per example .*, got shape .5, 5"),
    (lambda p, t: ((p - t) ** 2).mean(-1), "loss must compare each prediction with its own target"),
    (lambda p, t: jnp.sum(p), r"loss must return one value per example .*, got shape \(\)"),
):
    refuse(curvature.gnvp, risk_of(loss, ones(5)), ValueError, says)
refuse(
    curvature.gnvp,
    lambda f: f(jnp.multiply, jnp.subtract, ONES, ONES, ONES)(ones(4)),
    ValueError,
    r"vector must have the shape of params",
)
refuse(
    curvature.hessian_trace,
    lambda f: f(0, total, ONES, num_samples=2),
    TypeError,
    r"key must be one PRNG key",
)
refuse(
    curvature.hessian_trace,
    lambda f: f(KEY, total, ONES, num_samples=1),
    ValueError,
    r"num_samples must be at least 2, got 1",
)
refuse(
    curvature.hessian_trace,
    lambda f: jax.jit(lambda n: f(KEY, total, ONES, num_samples=n))(2),
    TypeError,
    r"num_samples must be a static int",
)

# surfaces: what is read off them

GRID = surfaces.Surface((known([0, 1]), known([0, 1, 2])), ones(2, 3))
for surface, error, says in (
    (ONES, TypeError, r"surface must be a Surface, got an array"),
    (
        GRID._replace(coordinates=GRID[0][:1]),
        ValueError,
        r"surface must have two coordinates, got 1",
    ),
    (
        GRID._replace(values={"a": ONES}),
        ValueError,
        r".*one array of values, got a dict\. Pick one",
    ),
    (
        GRID._replace(values=ones(3, 2)),
        ValueError,
        r".*shape \(2, 3\), got \(3, 2\)\. Write .*\.T",
    ),
    (GRID._replace(values=ones(3)), ValueError, r".*one value per point .*, got \(3,\)\.$"),
    (GRID._replace(values=1j * np.ones((2, 3))), TypeError, r"surface\.values must be real"),
    (GRID._replace(coordinates=(ONES, ones(3, 1))), ValueError, r"coordinate 1 must be 1-D"),
    (
        GRID._replace(coordinates=(GRID[0][0], np.array([0.0, 2.0, 1.0]))),
        ValueError,
        r"coordinate 1 must increase or decrease from point to point, got points out of order",
    ),
):
    refuse(surfaces.persistence, lambda f, surface=surface: f(surface), error, says)
refuse(
    surfaces.persistence,
    lambda f: jax.jit(lambda values: f(GRID._replace(values=values)))(GRID.values),
    TypeError,
    r"surface must hold known numbers, got a traced array\. It runs on the host",
)
CONSTANT = surfaces.Approximation(
    ones(2, 2), ones(2, 3), ones(), known(6, np.int32), known(1, np.int32)
)
for series, error, says in (
    (GRID, TypeError, r"approximation must be an Approximation, got a Surface"),
    (
        CONSTANT._replace(coefficients={"a": ONES}),
        ValueError,
        r".*one array of coefficients, got a dict",
    ),
    (CONSTANT._replace(coefficients=INTS), TypeError, r".*coefficients must be floating-point"),
    (
        CONSTANT._replace(domains=ones(1, 2)),
        ValueError,
        r".*a row for each axis .*\(1, 2\) and \(2",
    ),
):
    refuse(surfaces.critical_points, lambda f, series=series: f(series), error, says)
refuse(
    surfaces.critical_points,
    lambda f: jax.jit(lambda c: f(CONSTANT._replace(coefficients=c)))(CONSTANT.coefficients),
    TypeError,
    r"approximation must hold known numbers, got a traced array\. It runs on the host",
)

# curves

for function, options in (
    (curves.barrier, {}),
    (curves.connect, {"optimizer": SGD, "num_steps": 2, "key": KEY}),
):
    for arguments, error, says in (
        ((3.0, ONES, ONES), TypeError, r"loss_fn must be callable, got 3\.0"),
        ((total, INTS, ONES), TypeError, r"first must be floating-point"),
        ((total, ONES, INTS), TypeError, r"last must be floating-point"),
        ((total, ONES, ones(4)), ValueError, r"last must have the shape of first.*\(4,\)"),
        ((total, ONES, (ONES,)), ValueError, r"last must have the structure of first"),
        ((square, ONES, ONES), ValueError, r"loss_fn must return a scalar, got shape \(3,\)"),
    ):
        refuse(
            function,
            lambda f, arguments=arguments, options=options: f(*arguments, **options),
            error,
            says,
        )


def joined(f, **options):
    usual = {"optimizer": SGD, "num_steps": 2, "key": KEY}
    return f(total, ONES, ONES, **(usual | options))


refuse(
    curves.barrier,
    lambda f: f(total, ONES, ONES, num_points=1),
    ValueError,
    r"num_points must be at least 2, got 1",
)
refuse(
    curves.barrier,
    lambda f: f(total, ONES, ONES, num_points=2.0),
    TypeError,
    r"num_points must be an int.*Write int\(",
)
for options, error, says in (
    ({"optimizer": optax.sgd}, TypeError, r"optimizer must be .*Call it: optax\.sgd\(0\.1\)"),
    ({"num_steps": 0}, ValueError, r"num_steps must be at least 1, got 0"),
    ({"num_controls": 0}, ValueError, r"num_controls must be at least 1, got 0"),
    ({"num_controls": 1.0}, TypeError, r"num_controls must be an int"),
    ({"key": 0}, TypeError, r"key must be one PRNG key, got 0\. Write jax\.random\.key"),
):
    refuse(curves.connect, lambda f, options=options: joined(f, **options), error, says)


def surrounded(f, **options):
    usual = {"radii": ONES, "num_directions": 2, "num_iterations": 1}
    return f(KEY, total, ONES, **(usual | options))


for options, error, says in (
    ({"radii": 1.0}, ValueError, r"radii must be 1-D"),
    ({"radii": ones(0)}, ValueError, r"radii must not be empty"),
    ({"radii": [0.1, 0.2]}, TypeError, r"radii must be an array.*Write jnp\.array\(radii\)\."),
    ({"num_directions": 0}, ValueError, r"num_directions must be at least 1, got 0"),
    ({"num_iterations": 0}, ValueError, r"num_iterations must be at least 1, got 0"),
    ({"batch_size": 1.0}, TypeError, r"batch_size must be an int"),
    ({"levels": (0.5, 95)}, ValueError, r"levels must be numbers from 0 to 1, got \(0\.5, 95\)"),
    ({"levels": ()}, ValueError, r"levels must be numbers from 0 to 1, got \(\)"),
):
    refuse(curves.basin_profile, lambda f, options=options: surrounded(f, **options), error, says)
for arguments, error, says in (
    ((0, total, ONES), TypeError, r"key must be one PRNG key"),
    ((KEY, 3.0, ONES), TypeError, r"loss_fn must be callable"),
    ((KEY, total, INTS), TypeError, r"params must be floating-point"),
    ((KEY, square, ONES), ValueError, r"loss_fn must return a scalar, got shape \(3,\)"),
):
    refuse(
        curves.basin_profile,
        lambda f, arguments=arguments: f(*arguments, radii=ONES, num_directions=2),
        error,
        says,
    )
refuse(curves.point, lambda f: f(ONES, 0.5), TypeError, r"curve must be a Curve, got an array")
refuse(
    curves.point,
    lambda f: f(curves.Curve(INTS), 0.5),
    TypeError,
    r"curve\.controls must be floating-point",
)
for controls in (ones(1), ones(), (ONES, ones(2))):
    refuse(
        curves.point,
        lambda f, controls=controls: f(curves.Curve(controls), 0.5),
        ValueError,
        r"the arrays of curve\.controls must share a leading axis of at least 2.*jnp\.stack",
    )
refuse(
    curves.point,
    lambda f: f(curves.Curve(ONES), ONES),
    ValueError,
    r"t must be a scalar, got shape \(3,\)\. For many points: jax\.vmap",
)
for groups, error, says in (
    (3, TypeError, r"groups must be a sequence, got 3"),
    ([3], TypeError, r"groups\[0\] must be a sequence, got 3"),
    ([("w", 1)], TypeError, r"groups\[0\] must hold pairs \(path, axis\), got 'w'.*list of lists"),
    ([[("w", 1.0)]], TypeError, r"the axis of 'w' in groups\[0\] must be an int, got 1\.0"),
    ([[("v", 1)]], ValueError, r"groups\[0\] must name arrays, got 'v'\. Known: b, w"),
    ([[("w", 2)]], ValueError, r"groups\[0\] must name an axis of 'w', of shape \(2, 3\), got 2"),
    (
        [[("w", 0), ("w", 1)]],
        ValueError,
        r"the axes of groups\[0\] must hold equally many.*\[2, 3\]",
    ),
    ([[("w", 1)], [("w", -1)]], ValueError, r"groups\[1\] must name an axis that is in no group"),
    ([[]], ValueError, r"the axes of groups\[0\] must hold equally many units, at least one"),
    ([[("w", 1, (2, 1))]], ValueError, r"axis 1 of 'w' must be a multiple of its blocks"),
    ([[("w", 1, 2)]], TypeError, r"the blocks of 'w' in groups\[0\] must be two whole numbers"),
):
    refuse(curves.align, lambda f, groups=groups: f(TREE, TREE, groups), error, says)
refuse(curves.align, lambda f: f(INTS, INTS, []), TypeError, r"params must be floating-point")
refuse(
    curves.align,
    lambda f: f(TREE, {"w": ONES}, []),
    ValueError,
    r"reference must have the structure of params",
)
refuse(curves.groups_of, lambda f: f(1, ONES, ONES), TypeError, r"predict_fn must be callable")
refuse(curves.groups_of, lambda f: f(square, INTS, ONES), TypeError, r"params must be floating")
refuse(
    curves.groups_of,
    lambda f: f(lambda w, x: jnp.sort(x @ w).sum(), ones(3, 4), ONES),
    ValueError,
    r"hidden units must go through operations .*got sort after axis 1 of ''.*by hand",
)

# functions that do not take their arguments

for function, call, says in (
    (surfaces.sweep, lambda f: f(joint, ONES), r"fn must take 1 argument \(one per coordinate\)"),
    (surfaces.sweep, lambda f: f(jnp.sin, ONES, ONES), r"fn must take 2 arguments"),
    (sweeps.run, lambda f: f(lambda a: a, ONES, ONES), r"fn must take 2 .*got a function of \(a\)"),
    (
        sweeps.run,
        lambda f: f(lambda a: a, ONES, data=[(np.ones(2),)]),
        r"fn must take 2 arguments \(one per coordinate, and the arrays of a batch\)",
    ),
    (sweeps.approximate, lambda f: f(joint, (0, 1), tolerance=0.1), r"fn must take 1 argument"),
    (planes.restrict, lambda f: f(total, PLANE, ONES), r"loss_fn must take 2 arguments \(params a"),
    (
        planes.explain,
        lambda f: f(lambda p, x: x, PLANE),
        r"loss_fn must take params, got a function of \(p, x\)\. Pass the data that the loss takes",
    ),
    (
        planes.restrict,
        lambda f: f(lambda p, x, y: x, PLANE, (ONES, ONES)),
        r"loss_fn must take 2 arg.* \(p, x, y\)\. Unpack the data: write \*data, not data\.",
    ),
    (
        descent.optimize,
        lambda f: f(lambda p, x, y, rows: x, ONES, [ONES, 1.0], **SETTINGS, per_step=ones(2)),
        r"loss_fn must take params, .*\(p, x, y, rows\)\. Unpack the data: write \*data, not data",
    ),
    (
        planes.restrict,
        lambda f: f(lambda p, x, y, z: x, PLANE, (ONES, ONES)),
        r"loss_fn must take 2 arg.* \(p, x, y, z\)\. Pass the data that the loss takes",
    ),
    (
        losses.empirical_risk,
        lambda f: f(Model(), total),
        r"predict_fn .*a Model\. Write model\.apply",
    ),
    (
        losses.empirical_risk,
        lambda f: f(jax.tree_util.Partial(lambda w, x: w, ONES), total)(ONES, ONES, ONES),
        r"predict_fn must take 2 arg.*The model holds its params\. Write lambda params, x: flax",
    ),
    (curves.groups_of, lambda f: f(Model(), TREE, ONES), r"predict_fn .*Write model\.apply"),
    (
        surfaces.sweep,
        lambda f: f(joint, ONES, BATCHES),
        r"coordinate 1 .*a list\. Batches of data go",
    ),
    (sweeps.run, lambda f: f(joint, ONES, BATCHES), r"coordinate 1 .*go into sweeps\.run .*data="),
    (sweeps.run, lambda f: f(joint, ONES, BATCHES[0]), r"coordinate 1 .*a tuple\. Batches of data"),
    (sweeps.run, lambda f: f(joint, ONES, iter(BATCHES)), r"coordinate 1 .*iterator\. Batches of"),
    (
        sweeps.approximate,
        lambda f: f(joint, (0, 1), BATCHES, tolerance=0.1),
        r"domain 1 must be a pair \(low, high\), got a list\. Batches of data go into sweeps\.run",
    ),
    (
        curves.point,
        lambda f: f(CONNECTION, 0.5),
        r"curve must be a Curve.*Write connection\.curve\.",
    ),
    (curvature.hvp, lambda f: f(total, ONES, ONES), r"loss_fn must take 2 arguments"),
    (
        curvature.batch_sharpness,
        lambda f: f(total, ONES, per_step=ONES),
        r"loss_fn must take 2 arguments \(params and the slice of per_step\)",
    ),
    (chains.compose, lambda f: f(joint)(1.0), r"stages\[0\] must take 1 argument \(a value\)"),
    (chains.backprop, lambda f: f([joint], 1.0), r"stages\[0\] must take 1 .*no params"),
    (chains.backprop, lambda f: f([jnp.sin], 1.0, params=[1.0]), r"stages\[0\] must take 2 arg"),
    (
        planes.filter_normalize,
        lambda f: f(PLANE, filter_axis=lambda path: -1),
        r"filter_axis must take 2 arguments \(path, array\), got a function of \(path\)",
    ),
    (
        planes.filter_normalize,
        lambda f: f(PLANE, filter_axis=-1, is_vector=lambda path: True),
        r"is_vector must take 2 arguments",
    ),
    (
        curvature.hvp,
        lambda f: f(total, ONES, where=lambda path: True),
        r"where must take 2 arguments",
    ),
    (losses.empirical_risk, lambda f: f(total, jnp.subtract)(ONES, ONES, ONES), r"predict_fn must"),
    (losses.empirical_risk, lambda f: f(joint, total)(ONES, ONES, ONES), r"loss must take 2 arg"),
):
    refuse(function, call, TypeError, says)
refuse(
    sweeps.run,
    lambda f: f(planes.restrict(lambda p: p["w"][0] ** 3, PLANE), ONES, ONES, data=BATCHES),
    ValueError,
    r"with data, fn must take the coordinates and the arrays of a batch, got a function of the "
    r"coordinates alone\. Leave data out .*planes\.point\(plane, a, b\), \*batch\)\.",
)

# surfaces

for coordinates, error, says in (
    ((), ValueError, r"expected at least one coordinate, a 1-D array, got none"),
    ((ones(),), ValueError, r"coordinate 0 must be 1-D, got shape \(\)\."),
    ((2.0,), ValueError, r"coordinate 0 must be 1-D, got shape \(\)"),
    (
        (ONES, ones(3, 1)),
        ValueError,
        r"coordinate 1 must be 1-D, .*Pass the axes, not a mesh",
    ),
    ((ones(0), ONES), ValueError, r"coordinate 0 must not be empty, got shape \(0,\)"),
    (([0.0, 1.0],), TypeError, r"coordinate 0 must be an array, .*jnp\.array\("),
    ((ONES, range(3)), TypeError, r"coordinate 1 must be an array, got a range"),
    (("abc",), TypeError, r"coordinate 0 must be an array, got 'abc'"),
    ((COMPLEX,), TypeError, r"coordinate 0 must be real, got dtype complex64"),
):
    refuse(surfaces.sweep, lambda f, c=coordinates: f(jnp.add, *c), error, says)
refuse(surfaces.sweep, lambda f: f(ONES, ONES), TypeError, r"fn must be callable, got an array")
for batch_size in (None, 2):
    for fn, error, says in (
        (
            lambda a: jnp.stack([a, a]),
            ValueError,
            r"fn must return scalars, got shape \(2,\).*mean",
        ),
        (lambda a: {"x": a[None]}, ValueError, r"fn must return scalars \(at \['x'\]\), got shape"),
        (
            lambda a: {"x": KEY},
            ValueError,
            r"fn must return numbers \(at x\), got a PRNG key\. Ret",
        ),
        (lambda a: None, ValueError, r"fn must return a scalar or a pytree of scalars, got None"),
        (lambda a: (), ValueError, r"fn must return a scalar or a pytree of scalars, got a tuple"),
        (lambda a: "high", TypeError, r"the output of fn must be an array, got 'high'"),
    ):
        refuse(
            surfaces.sweep,
            lambda f, fn=fn, size=batch_size: f(fn, ONES, batch_size=size),
            error,
            says,
        )
for batch_size, error, says in (
    (0, ValueError, r"batch_size must be at least 1, got 0"),
    (-4, ValueError, r"batch_size must be at least 1, got -4"),
    (4.0, TypeError, r"batch_size must be an int, got 4\.0"),
    (True, TypeError, r"batch_size must be an int, got True"),
):
    refuse(
        surfaces.sweep,
        lambda f, size=batch_size: f(square, ONES, batch_size=size),
        error,
        says,
    )
refuse(
    surfaces.sweep,
    lambda f: jax.jit(lambda n: f(square, ONES, batch_size=n).values)(2),
    TypeError,
    r"batch_size must be a static int, got a traced value",
)
TWO = surfaces.Surface((ONES,), {"loss": ONES, "accuracy": ONES})
refuse(
    surfaces.select, lambda f: f(ONES, "loss"), TypeError, r"surface must be a Surface, got an ar"
)
refuse(
    surfaces.select,
    lambda f: f(TWO, 1),
    ValueError,
    r"name must be one of 'accuracy', 'loss', got 1\.",
)
refuse(surfaces.select, lambda f: f(TWO, ["loss"]), ValueError, r"name must be one of .*\['loss'\]")
refuse(
    surfaces.select,
    lambda f: f(surfaces.Approximation(ONES, {"loss": ONES}, {"loss": 0.0}, ONES, ONES), "loss"),
    TypeError,
    r"surface must be a Surface, .*coefficients\[name\] with its errors\[name\], by _replace",
)
refuse(
    surfaces.select,
    lambda f: f(TWO._replace(values=ONES), "loss"),
    ValueError,
    r"surface must have several outputs, got an array .*\. Use it as it is\.",
)

# sweeps

for args, options, error, says in (
    ((3, ONES), {}, TypeError, r"fn must be callable, got 3"),
    ((square,), {}, ValueError, r"expected at least one coordinate, a 1-D array, got none"),
    ((square, ones(2, 2)), {}, ValueError, r"coordinate 0 must be 1-D.*not a meshgrid"),
    ((square, ones(0)), {}, ValueError, r"coordinate 0 must not be empty"),
    ((square, [1.0]), {}, TypeError, r"coordinate 0 must be an array.*jnp\.array"),
    ((lambda a: a[None], ONES), {}, ValueError, r"fn must return scalars, got shape \(1,\)"),
    ((lambda a: None, ONES), {}, ValueError, r"fn must return a scalar or a pytree.*got None"),
    ((square, ONES), {"batch_size": 0}, ValueError, r"batch_size must be at least 1, got 0"),
    ((square, ONES), {"batch_size": 2.0}, TypeError, r"batch_size must be an int, got 2\.0"),
    ((square, ONES), {"devices": []}, ValueError, r"devices must be some of this process's"),
    ((square, ONES), {"devices": [1]}, ValueError, r"devices must be .*jax\.local_devices\(\)"),
    (
        (square, ONES),
        {"devices": 2 * jax.local_devices()},
        ValueError,
        r"devices must be some of this process's, each once",
    ),
    (
        (square, ONES),
        {"devices": jax.local_devices()[0]},
        TypeError,
        r"devices must be a list.*Write devices=\[device\]",
    ),
    ((square, ONES), {"store": 3}, TypeError, r"store must be a str or PathLike, got 3"),
    ((square, ONES), {"store": "s3://b/x"}, ValueError, r"store must be a folder, not a URL, got"),
    ((square, ONES), {"axis_names": "a"}, TypeError, r"axis_names must be a list or tuple, got"),
    ((square, ONES), {"axis_names": (3,)}, TypeError, r"axis_names\[0\] must be a str, got 3"),
    ((square, ONES), {"axis_names": ("a", "b")}, ValueError, r"axis_names must be 1 diff.*'b'\)"),
    (
        (lambda a, b: a, *2 * [np.broadcast_to(np.float32(0), 2**16)]),
        {},
        ValueError,
        r"the grid must have fewer than 2\*\*30 points, got 65536 x 65536",
    ),
):
    refuse(
        sweeps.run,
        lambda f, args=args, options=options: f(*args, **options, progress=False),
        error,
        says,
    )
refuse(
    sweeps.run,
    lambda f: jax.jit(lambda a: f(square, a).values)(ONES),
    ValueError,
    r"coordinates must be known, got traced values.*inside jax\.jit use surfaces\.sweep",
)
refuse(
    sweeps.run,
    lambda f: jax.vmap(lambda c: f(lambda a: a * c, ONES).values)(ONES),
    ValueError,
    r"the arrays of fn must be known, got traced values",
)
SERIES = surfaces.Approximation(
    known([[0, 1]]), ones(3), ones(), known(3, np.int32), known(1, np.int32)
)
refuse(
    surfaces.evaluate,
    lambda f: f(TWO, 1.0),
    TypeError,
    r"approximation must be an Approximation, got a Surface",
)
refuse(surfaces.evaluate, lambda f: f(SERIES), ValueError, r"expected 1 coordinate, one per axi")
refuse(
    surfaces.evaluate,
    lambda f: f(SERIES, ONES),
    ValueError,
    r"coordinate 0 must be a scalar, got shape \(3,\)\. For a grid of them use surfaces\.sweep",
)
for args, options, error, says in (
    ((3, (0, 1)), {}, TypeError, r"fn must be callable, got 3"),
    ((square,), {}, ValueError, r"domains must be at least one pair \(low, high\), got none"),
    ((square, 3), {}, TypeError, r"domain 0 must be a tuple, list.*got 3\. Write a pair"),
    (
        (square, (0, 1, 2)),
        {},
        ValueError,
        r"domain 0 must be \(low, high\), got 3 numbers\..*axis\[0\]",
    ),
    ((square, (2, 1)), {}, ValueError, r"domain 0 must be \(low, high\), finite, low < high, got"),
    ((square, (1, 0)), {}, ValueError, r"domain 0 must be \(low, high\).*got \(1, 0\)"),
    ((square, (0, np.inf)), {}, ValueError, r"domain 0 must be \(low, high\), finite"),
    ((square, (0, "b")), {}, TypeError, r"an end of domain 0 must be a number, got 'b'"),
    ((square, (0, 1)), {"tolerance": -1}, ValueError, r"tolerance must be at least 0, got -1"),
    ((square, (0, 1)), {"tolerance": ONES}, ValueError, r"tolerance must be a scalar, got sh"),
    ((square, (0, 1)), {"max_degree": 1}, ValueError, r"max_degree must be at least 2, got 1"),
    ((square, (0, 1)), {"max_degree": 8.0}, TypeError, r"max_degree must be an int, got 8\.0"),
    ((square, (0, 1)), {"batch_size": 0}, ValueError, r"batch_size must be at least 1, got 0"),
    ((square, (0, 1)), {"devices": []}, ValueError, r"devices must be some of this process's"),
    ((lambda a: a + 1j, (0, 1)), {}, ValueError, r"fn must return real numbers, got complex"),
    ((lambda a: a * ONES, (0, 1)), {}, ValueError, r"fn must return scalars, got shape \(3,\)"),
    ((square, (0, 1)), {"data": iter([ONES])}, ValueError, r"data must be readable again, got an"),
    ((square, (0, 1)), {"data": (ONES, ONES)}, TypeError, r"data must be an iterable of batch"),
):
    refuse(
        sweeps.approximate,
        lambda f, args=args, options=options: f(
            *args, **{"tolerance": 1e-3, **options}, progress=False
        ),
        error,
        says,
    )
refuse(
    sweeps.approximate,
    lambda f: jax.jit(lambda t: f(square, (0, t), tolerance=1e-3).values)(1.0),
    ValueError,
    r"domain 0 must be known, got traced values",
)
refuse(sweeps.load, lambda f: f(3), TypeError, r"store must be a str or PathLike, got 3")
refuse(sweeps.load, lambda f: f("file:///x"), ValueError, r"store must be a folder, not a URL, got")


# what careless hands give: the same mistakes in the functions that call a user's own

X, Y, W = np.ones((5, 3), np.float32), np.ones(5, np.float32), np.ones(3, np.float32)
TEXTS = np.array([1.0, None, "a"], object)
LINE = planes.Plane(ONES, (ONES,))


def residuals(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


WITH_DATA: dict[Any, Callable[..., Any]] = {
    descent.gradient_descent: lambda f, *data: descended(residuals, W, *data)(f),
    descent.optimize: lambda f, *data: descended(residuals, W, *data)(f),
    curvature.hvp: lambda f, *data: f(residuals, W, *data)(W),
    curvature.sharpness: lambda f, *data: f(KEY, residuals, W, *data, num_iterations=1),
    curvature.critical_sharpness: lambda f, *data: f(residuals, W, W, *data),
    planes.restrict: lambda f, *data: f(residuals, LINE, *data),
    planes.explain: lambda f, *data: f(residuals, LINE, *data),
    curves.barrier: lambda f, *data: f(residuals, W, 2 * W, *data),
    curves.connect: lambda f, *data: f(
        residuals, W, 2 * W, *data, optimizer=SGD, num_steps=1, key=KEY
    ),
}
for function, with_data in WITH_DATA.items():
    for data, says in (
        ((TEXTS, Y), r"data\[0\] must be an array of numbers, got dtype object"),
        (
            (X.tolist(), Y),
            r"data\[0\] must be an array, got a list\. Write jnp\.array\(data\[0\]\)",
        ),
        ((), r"loss_fn must take .*Pass the data that the loss takes after the params\."),
    ):
        refuse(function, lambda f, go=with_data, data=data: go(f, *data), TypeError, says)
for function in (descent.gradient_descent, descent.optimize):
    refuse(
        function,
        descended(residuals, [0.0, 1.0, 2.0], X, Y),
        TypeError,
        r"params must be an array, got a list\. Write jnp\.array\(params\)\.",
    )
    refuse(
        function, descended(num_steps=2**31), ValueError, r"num_steps must be below 2\*\*31, got"
    )
for grads, says in (
    (1j * W, r"grads must be real, got dtype complex"),
    (TEXTS, r"grads must be an"),
):
    refuse(descent.step, lambda f, grads=grads: f(W, grads, 0.1), TypeError, says)
refuse(
    descent.optimize,
    descended(residuals, W, X, Y, KEY),
    TypeError,
    r"loss_fn must take .*A PRNG key for each step goes into per_step: jax\.random\.split\(key, n",
)
refuse(
    descent.optimize,
    descended(
        lambda w, key: jnp.sum(w) * jax.random.normal(key), W, per_step=np.zeros(2, np.uint32)
    ),
    ValueError,
    r"per_step must hold a PRNG key for each step, got the two words of one\. Write jax\.random\.s",
)
for function, call in (
    (curvature.hvp, lambda f: f(KEY, residuals, W)),
    (curvature.critical_sharpness, lambda f: f(KEY, residuals, W, W)),
    (curvature.batch_sharpness, lambda f: f(KEY, residuals, W, per_step=X)),
    (curvature.gradient_noise_scale, lambda f: f(KEY, residuals, W, per_step=X)),
    (curvature.gnvp, lambda f: f(KEY, neurons.apply, losses.squared_error, W, X)),
    (descent.gradient_descent, descended(KEY, residuals, W)),
    (descent.optimize, descended(KEY, residuals, W)),
    (planes.restrict, lambda f: f(KEY, residuals, LINE)),
    (planes.explain, lambda f: f(KEY, residuals, LINE)),
    (curves.barrier, lambda f: f(KEY, residuals, W)),
    (surfaces.sweep, lambda f: f(KEY, total, ONES)),
):
    says = r"\w+ must be callable, got a PRNG key\. Leave the key out, or pass it where"
    refuse(function, call, TypeError, says)
refuse(
    curvature.hvp,
    lambda f: f(residuals, W, X, Y, KEY),
    TypeError,
    r"loss_fn must take 4 .*got a function of \(w, x, y\)\. Leave the PRNG key out\.",
)
refuse(
    curvature.hvp,
    lambda f: f(residuals, residuals, X, Y),
    TypeError,
    r"params must be an array, got a function\. The function comes first, then its params\.",
)


def on_rows(w: Any, x: Any, y: Any, rows: Any) -> Any:
    return residuals(w, x[rows], y[rows])


PICKED = np.array([[0, 1], [2, 3], [1, 2]])
BATCHES = [(np.ones((2, 3), np.float32), np.ones(2, np.float32))] * 3


def in_steps(loss_fn: Any, per_step: Any, *data: Any) -> Any:
    """The same arguments for a figure over batches, and for a descent over three of them."""

    def call(f: Any) -> Any:
        if f in (descent.gradient_descent, descent.optimize):
            return descended(loss_fn, W, *data, per_step=per_step, num_steps=3)(f)
        return f(loss_fn, W, *data, per_step=per_step)

    return call


for function in (
    curvature.batch_sharpness,
    curvature.gradient_noise_scale,
    descent.gradient_descent,
    descent.optimize,
):
    for call, says in (
        (
            in_steps(on_rows, PICKED.tolist(), X, Y),
            r"per_step must be an array, got a list\. Write jnp\.array\(per_step\)\.$",
        ),
        (
            in_steps(lambda w, rows: total(w), {"rows": PICKED.tolist()}),
            r"per_step.*rows.* must be an array, got a list\. Write jnp\.array\(",
        ),
        (
            in_steps(residuals, PICKED, X, Y),
            r"loss_fn must take .*the slice of per_step.*got a function of \(w, x, y\)\. The slice "
            r"comes last: lambda p, x, y, rows: loss_fn\(p, x\[rows\], y\[rows\]\)\.",
        ),
        (
            in_steps(residuals, tuple(map(np.stack, zip(*BATCHES, strict=True)))),
            r"loss_fn must take .*its slice is one argument: lambda params, batch: loss_fn\(params",
        ),
    ):
        refuse(function, call, TypeError, says)
    stacked = r"Write jax\.tree\.map\(lambda \*slices: jnp\.stack\(slices\), \*per_step\)\."
    for call, says in (
        (in_steps(on_rows, list(PICKED), X, Y), r"per_step.* Write jnp\.stack\(per_step\)\."),
        (in_steps(lambda w, batch: residuals(w, *batch), BATCHES), rf"per_step.* {stacked}"),
        (in_steps(residuals, BATCHES), rf"per_step.* {stacked}"),
    ):
        refuse(function, call, ValueError, says)
refuse(
    curvature.batch_sharpness,
    in_steps(residuals, BATCHES),
    ValueError,
    r"per_step must be arrays .*got a list of slices\. .* loss is then lambda params, batch: loss",
)
refuse(
    sweeps.run,
    lambda f: f(lambda a, x: jnp.mean(a * x), ONES, data=[(X.tolist(),)], progress=False),
    TypeError,
    r"array 0 of batch 0 of data must be an array, got a list\. Write jnp\.array\(\.\.\.\)\.",
)
refuse(
    curvature.hvp,
    lambda f: f(residuals, W, batches=[(np.array(X), np.array(Y).tolist())])(W),
    TypeError,
    r"array 1 of batch 0 of batches must be an array, got a list\.",
)
refuse(
    sweeps.load,
    lambda f: f("no/such.zarr"),
    ValueError,
    r"store must be a folder of a sweep: .*such\.zarr, got no such store\. Give the folder that",
)
for function, options in ((descent.optimize, {}), (curves.connect, {"key": KEY})):
    refuse(
        function,
        lambda f, options=options: f(
            residuals,
            W,
            *[2 * W] * bool(options),
            X,
            Y,
            optimizer=optax.adam("0.1"),  # pyright: ignore
            num_steps=1,
            **options,
        ),
        TypeError,
        r"optimizer must compute an update, got a TypeError .*Make it of numbers: optax\.adam\(0",
    )
refuse(
    curvature.sharpness,
    lambda f: f(KEY, residuals, W, X, Y, num_iterations=1, batches=[(X, Y)]),
    TypeError,
    r"loss_fn must take .*With batches, leave the data out: they are given twice\.",
)
refuse(
    curves.groups_of,
    lambda f: f(losses.empirical_risk(neurons.apply, losses.squared_error), NEURON, X),
    TypeError,
    r"predict_fn must take 2 arguments \(params, x\).*Pass the function that makes the predictions",
)
refuse(
    curvature.gnvp,
    lambda f: f(residuals, losses.squared_error, W, X, Y)(W),
    TypeError,
    r"predict_fn must take 2 arguments \(params, inputs\), got a function of \(w, x, y\)",
)
for function in (curvature.batch_sharpness, curvature.gradient_noise_scale):
    refuse(
        function,
        lambda f: f(residuals, W, X, per_step=TEXTS),
        TypeError,
        r"per_step must be an array of numbers, got dtype object",
    )
for predict_fn, x, says in (
    (neurons.apply, "x", r"x must be an array, got 'x'"),
    (neurons.apply, {"a": TEXTS}, r"x\['a'\] must be an array of numbers, got dtype object"),
    (lambda w, x: "a", X, r"the output of predict_fn must be an array, got 'a'"),
):
    refuse(curves.groups_of, lambda f, fn=predict_fn, x=x: f(fn, NEURON, x), TypeError, says)
for predict_fn, loss, says in (
    (lambda w, x: "a", losses.squared_error, r"the output of predict_fn must be an array, got 'a'"),
    (lambda w, x: 1, losses.squared_error, r"the output of predict_fn must be floating-point"),
    (lambda w, x: x @ w, lambda z, y: None, r"the output of loss must be an array, got None"),
):
    refuse(
        curvature.gnvp,
        lambda f, predict_fn=predict_fn, loss=loss: f(predict_fn, loss, W, X, Y)(W),
        TypeError,
        says,
    )
for predict_fn, loss in (
    (losses.squared_error, neurons.apply),
    (optax.huber_loss, neurons.apply),
    (lambda p, y: (p - y) ** 2 / y.ndim, lambda w, x: x @ w.reshape(3)),
):
    refuse(
        losses.empirical_risk,
        lambda f, predict_fn=predict_fn, loss=loss: f(predict_fn, loss)(W, X, Y),
        ValueError,
        r"predict_fn must make predictions .*Swapped\? Write losses\.empirical_risk\(predict_fn",
    )
refuse(
    planes.restrict,
    lambda f: f(lambda w: jnp.sum(jnp.sin(w)), LINE)(a=1.0),
    TypeError,
    r"coordinates must be given in order, got the names a\. Write phi\(1\.0, 2\.0\)",
)
refuse(
    planes.through,
    lambda f: f(W, 2 * W, np.array(W)),
    ValueError,
    r"the points must differ, got point 0 twice \(2\)\. Leave point 2 out: 3 points span 2",
)
refuse(planes.coordinate, lambda f: f(W, (0, 0)), ValueError, r"entry 0 .*end with 1 index within")
refuse(
    planes.coordinate,
    lambda f: f(np.float32(1), (0,)),
    ValueError,
    r"entry 0 must end at a scalar, got \(0,\)\. Its array is a scalar: write \(\), without an",
)
refuse(planes.project_path, lambda f: f(LINE, W[None][:0]), ValueError, r"path must have at least")
for function, call in (
    (planes.principal, lambda f, run: f(run)),
    (planes.project_path, lambda f, run: f(LINE, run)),
):
    refuse(
        function,
        lambda f, call=call: call(f, descended(total, W, record=lambda p: None)(descent.optimize)),
        ValueError,
        r"path must hold the params at each step, got None\. .*leave record out, to keep the par",
    )
for leaf, says in ((1, r"Write 1\.0 if it is trained, else leave it out"), (-3, r"Write -3\.0 if")):
    says = rf"params\['a'\] must be floating-point, got dtype int\d+\. {says}"
    refuse(planes.random, lambda f, leaf=leaf: f(KEY, {"a": leaf}), TypeError, says)
refuse(planes.random, lambda f: f(KEY, 1), TypeError, r"params must be floating.*Write 1\.0\.")
refuse(planes.point, lambda f: f(LINE, 10**40), ValueError, r"coordinate 0 must fit an int, got")


def address(function: Any) -> str:
    return f"{function.__module__.split('.')[1]}.{function.__name__}"


def case_id(case: Case) -> str:
    return f"{address(case.function)}: {case.says}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_bad_input_is_refused_by_name(case):
    says = rf"(?s)^{re.escape(address(case.function))}: {case.says}"

    with pytest.raises(case.error, match=says) as refusal:
        case.call(case.function)

    message = str(refusal.value)
    assert message.endswith((".", "))")), message
    assert not refusal.value.__cause__


def test_many_bad_inputs_are_tried():
    assert len(CASES) >= 40


def test_a_docstring_has_raises_if_and_only_if_its_function_refuses():
    refusing = {address(case.function) for case in CASES}
    documented = {
        address(f): {kind for kind in ("TypeError", "ValueError") if f"\n  {kind}: " in text}
        for f in public_functions()
        if "Raises:\n" in (text := inspect.getdoc(f) or "")
    }

    assert refusing == set(documented)
    for name, kinds in documented.items():
        raised = {c.error.__name__ for c in CASES if address(c.function) == name}
        assert raised == kinds, name


def test_a_refusal_is_raised_while_tracing():
    with pytest.raises(ValueError, match=r"losses\.squared_error: predictions and targets"):
        jax.eval_shape(losses.squared_error, ones(3, 1), ONES)
    with pytest.raises(ValueError, match=r"descent\.gradient_descent: learning_rate"):
        jax.vmap(lambda r: descended(learning_rate=r)(descent.gradient_descent))(ones(2, 3))


def test_a_wrong_dtype_is_a_wrong_type_and_nothing_else():
    with pytest.raises(TypeError, match="margins must be floating-point") as refusal:
        losses.hinge(INTS)

    assert type(refusal.value) is TypeError


class Tensor:
    """What a tensor of another library shows of itself."""

    requires_grad = False

    def __array__(self, dtype=None, copy=None):
        return np.ones(3, dtype)


class Weight(Tensor):
    """A tensor that another library trains, which it gives to nobody."""

    requires_grad = True


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        (np.ones(3, np.uint32), r"must be floating-point, got dtype uint32\. Leave counters"),
        (np.ones(3, bool), r"must be floating-point, got dtype bool\. Leave counters, masks"),
        (KEY, r"must be floating-point, got dtype key<fry>\. A PRNG key .*nnx\.Param"),
        (COMPLEX, r"got dtype complex64\. Give params\['a'\]\.real and params\['a'\]\.imag apart"),
        (INTS, r"got dtype int32\. Write params\['a'\]\.astype\(float\) if it is trained, else"),
        (Tensor(), r"must be an array, got a Tensor\. Write jnp\.asarray\(params\['a'\]\)\."),
        (Weight(), r"got a Weight\. Write jnp\.asarray\(params\['a'\]\.detach\(\)\)\."),
        (np.array([1.0, None]), r"must be an array of numbers, got dtype object"),
        (np.array(["a"]), r"must be an array of numbers, got dtype <U1"),
        (jnp.tanh, r"Keep functions and settings out: .*equinox\.is_inexact_array"),
    ],
)
def test_what_is_no_param_gets_the_cure_that_helps(leaf, says):
    with pytest.raises(TypeError, match=r"planes\.random: params\['a'\] " + f".*{says}"):
        planes.random(KEY, {"a": leaf})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([0.0, 1.0], r"coordinate 0 must be an array, got a list\. Write jnp\.array\(\.\.\.\)\."),
        (Tensor(), r"coordinate 0 .*got a Tensor\. Write jnp\.asarray\(\.\.\.\)\."),
    ],
)
def test_a_cure_is_python_or_leaves_the_place_open(value, says):
    with pytest.raises(TypeError, match=says):
        surfaces.sweep(jnp.sin, value)


def test_a_table_of_pandas_gets_the_cure_that_helps():
    import pandas

    says = r"planes\.random: params\['a'\] .*got a DataFrame\. Write params\['a'\]\.to_numpy\(\)\."
    with pytest.raises(TypeError, match=says):
        planes.random(KEY, {"a": pandas.DataFrame({"x": [1.0]})})
    says = r"coordinate 0 .*got a Series\. Write table\.to_numpy\(\)\."
    with pytest.raises(TypeError, match=says):
        surfaces.sweep(jnp.sin, cast("Any", pandas.Series([1.0])))


@pytest.mark.parametrize("numpy_or_math", [math.sin, np.sin])
@pytest.mark.parametrize(
    "call",
    [
        lambda fn: chains.backprop([fn], 2.0),
        lambda fn: chains.local_derivatives([fn], 2.0),
        lambda fn: jax.jit(chains.compose(fn))(2.0),
        lambda fn: surfaces.sweep(fn, ONES),
        lambda fn: jax.jit(lambda: planes.restrict(lambda p: fn(p["w"][0]), PLANE)(1.0, 2.0))(),
        lambda fn: curvature.sharpness(KEY, lambda x: fn(x[0]), ONES, num_iterations=1),
        lambda fn: descent.gradient_descent(fn, 2.0, learning_rate=0.1, num_steps=1),
    ],
)
def test_a_function_that_jax_cannot_trace_gets_its_cure_as_a_note(numpy_or_math, call):
    with pytest.raises(jax.errors.JAXTypeError, match=r"must be traceable by JAX\. Write jnp\.sin"):
        call(numpy_or_math)


def test_what_a_loss_raises_of_its_own_is_noted_with_what_it_was_called_with():
    with pytest.raises(TypeError) as error:
        curvature.hvp(residuals, W, X.T, Y)

    (note,) = [note for note in error.value.__notes__ if note.startswith("curvature.hvp: loss_fn")]
    assert "called with params: float32[3], data[0]: float32[" in note


class Odd:
    """Data that looks like a named tuple and is none."""

    _fields = ("x",)


def test_no_note_or_cure_hides_what_a_loss_raises():
    def reads_too_far(p, odd):
        return p[0] ** 2 + p[2] ** 2

    with pytest.raises(IndexError) as error:
        descent.gradient_descent(reads_too_far, [1.0, 2.0], Odd(), learning_rate=0.1, num_steps=2)
    assert any("data[0]: Odd" in note for note in error.value.__notes__)
    with pytest.raises(
        TypeError, match=r"record must take 1 argument \(params\), got a function of"
    ):
        descended(record=lambda p, loss: p)(descent.gradient_descent)


def test_params_whose_paths_read_alike_are_not_aligned():
    params = {"a/b": ONES, "a": {"b": ONES}}
    with pytest.raises(ValueError, match=r"paths of params must differ, got 'a/b'\. Leave '/' out"):
        curves.align(params, params, [[("a/b", 0)]])


def test_a_plane_of_another_model_is_seen_from_what_its_loss_raises():
    with pytest.raises(KeyError) as error:
        planes.restrict(lambda params: params["v"], PLANE)

    (note,) = [note for note in error.value.__notes__ if note.startswith("planes.restrict: loss")]
    assert "called with params: {'w': float32[3]}" in note


def loops(x):
    """A power by a loop whose length is not known while tracing."""
    start = jnp.zeros((), int), jnp.ones_like(x)
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), start)[1]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: curvature.hvp(loops, 2.0), "curvature.hvp: loss_fn"),
        (
            lambda: curvature.gnvp(lambda p, x: loops(p) * x, jnp.subtract, 2.0, ONES, ONES)(1.0),
            "curvature.gnvp: predict_fn",
        ),
        (
            lambda: curvature.critical_sharpness(loops, 2.0, 1.0),
            "curvature.critical_sharpness: loss_fn",
        ),
        (
            lambda: descent.gradient_descent(loops, 2.0, learning_rate=0.1, num_steps=1),
            "descent.gradient_descent: loss_fn",
        ),
        (lambda: chains.backprop([jnp.square, loops], 2.0), "chains.backprop: stages[1]"),
    ],
)
def test_a_function_without_a_gradient_in_reverse_is_refused_by_name(call, name):
    says = "must be differentiable in reverse mode, got a loop of unknown length. Write jax.lax."
    with pytest.raises(ValueError, match=re.escape(f"{name} {says}")):
        call()


@pytest.mark.parametrize("count", [2, np.int32(2), np.array(2)])
def test_whole_numbers_of_every_kind_are_counts(count):
    assert surfaces.sweep(square, ONES, batch_size=count).values.shape == (3,)


def test_numbers_that_are_only_known_when_run_are_not_judged():
    assert jax.jit(losses.ramp)(jnp.array(0.5), 3.0) == -2.0
    assert jax.jit(descended(tolerance=0.1), static_argnums=0)(descent.optimize).status == 1


@pytest.mark.parametrize("zero", [0, 0.0])
def test_zero_is_a_tolerance_and_a_number_of_steps(zero):
    jax.eval_shape(lambda: descended(tolerance=zero, num_steps=0)(descent.gradient_descent))
    jax.eval_shape(lambda: solved(tolerance=zero, max_steps=0)(chains.solve))
