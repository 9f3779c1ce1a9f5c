"""Results of any room, shown: short, whatever the arrays hold."""

import importlib
import pickle
import pkgutil
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgd
from jaxgd import curvature, curves, descent, neurons, planes

ROOMS = [
    importlib.import_module(f"jaxgd.{module.name}")
    for module in pkgutil.iter_modules(jaxgd.__path__)
    if not module.name.startswith("_")
]
RESULTS = {
    f"{room.__name__}.{name}": value
    for room in ROOMS
    for name in room.__all__
    if isinstance(value := getattr(room, name), type) and hasattr(value, "_fields")
    if value is not neurons.Neuron  # params, not a result: its arrays are to be read
}


@pytest.mark.parametrize("result_type", RESULTS.values(), ids=RESULTS)
def test_a_result_is_shown_by_its_types_and_goes_where_a_tuple_goes(result_type):
    arrays = [np.zeros((100 + i, 3), np.float32) for i in range(len(result_type._fields))]
    result = result_type(*arrays)

    fields = [f"{name}=float32[{100 + i}, 3]" for i, name in enumerate(result_type._fields)]
    assert repr(result) == f"{result_type.__name__}({', '.join(fields)})"
    pickled = pickle.loads(pickle.dumps(result))
    assert type(pickled) is type(jax.tree.map(np.asarray, result)) is result_type
    assert repr(pickled) == repr(result) == f"{result}"
    assert repr(result._replace(**{result_type._fields[0]: None})).startswith(
        f"{result_type.__name__}({result_type._fields[0]}=None"
    )


def test_a_key_and_what_is_no_array_are_shown_by_their_kind():
    fields: Any = [None] * 6
    run = descent.Trajectory(*fields)

    assert "params=key<fry>[]" in repr(run._replace(params=jax.random.key(0)))
    assert "aux=<type" in repr(run._replace(aux=descent.Trajectory))


def test_numbers_are_shown_by_value_and_a_status_by_name():
    numbers: Any = (jnp.float32(0.12345678), np.float64(2))
    assert repr(curvature.Estimate(*numbers)) == "Estimate(value=0.123457, standard_error=2)"
    fields: Any = {
        "params": {"w": np.ones((3, 2)), "b": np.float32(0.5)},
        "path": (np.zeros((5, 3), np.int8),),
        "losses": np.zeros(5, np.float32),
        "grad_norms": [np.zeros(5, np.float16), None],
        "num_steps": np.int32(4),
        "status": np.int32(descent.Status.DIVERGED),
        "aux": "text",
        "state": [np.zeros((2, 50))] * 30,
    }
    run = descent.Trajectory(**fields)

    assert repr(run) == (
        "Trajectory(params={'w': float64[3, 2], 'b': 0.5}, path=(int8[5, 3],), "
        "losses=float32[5], grad_norms=[float16[5], None], num_steps=4, status=DIVERGED, "
        "aux='text', state=<list: 30 arrays, 3,000 numbers>)"
    )
    assert "status=7" in repr(run._replace(status=np.int32(7)))
    assert "status=int32[2]" in repr(run._replace(status=np.zeros(2, np.int32)))
    curve = curves.Curve(controls=np.ones(3))
    nested = curves.Connection(curve=curve, trajectory=run)
    assert repr(nested) == f"Connection(curve=Curve(controls=float64[3]), trajectory={run!r})"


def test_what_has_no_value_to_show_is_shown_by_its_type():
    deleted = jnp.zeros(())
    deleted.delete()
    shown = []

    def show(x):
        shown.append(repr(planes.Plane(origin=x, directions=(deleted, jax.random.key(0)))))
        return x

    jax.eval_shape(show, jax.ShapeDtypeStruct((), np.float32))

    assert shown == ["Plane(origin=float32[], directions=(float32[], key<fry>[]))"]


def test_a_restricted_loss_is_shown_in_a_line_and_goes_where_a_partial_goes():
    plane = planes.Plane(jnp.ones(3), (jnp.arange(3.0), jnp.ones(3)))
    phi: Any = planes.restrict(lambda w, x: jnp.sum(jnp.tanh(x @ w)), plane, np.ones((50, 3)))

    shown = repr(phi)
    assert re.fullmatch(
        r"<planes.restrict: a loss of 2 coordinates; \d arrays, \d+ numbers>", shown
    )
    rebuilt = jax.tree.map(lambda leaf: leaf, phi)
    assert type(rebuilt) is type(phi)
    assert isinstance(phi, jax.tree_util.Partial)
    assert repr(jax.jit(lambda phi: phi)(phi)) == shown
    assert repr(phi.args[0].func).startswith("Evaluation(")
    assert repr(pickle.loads(pickle.dumps(planes.restrict(_sum_of_squares, plane)))).startswith(
        "<pl"
    )


def _sum_of_squares(w):
    return jnp.sum(w**2)
