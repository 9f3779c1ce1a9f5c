"""Equal programs compile once, whatever the numbers in the plane and the data."""

import contextlib
import pickle
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import losses, planes, surfaces

_COMPILED: list[str] = []


def _noted(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if "backend_compile" in event:
        _COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_noted)


@contextlib.contextmanager
def compilations():
    """The programs compiled within."""
    before, found = len(_COMPILED), []
    yield found
    found += _COMPILED[before:]


def plane_and_data(seed, moves_last=True):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jax.device_put(np.float32(rng.normal(size=shape)))  # noqa: E731
    shapes = {"w": (3, 5), "b": (5,), "v": (5, 4)}
    origin, first, second = ({k: draw(*s) for k, s in shapes.items()} for _ in range(3))
    second["v"] = second["v"] if moves_last else np.zeros((5, 4), np.float32)
    return planes.Plane(origin, (first, second)), (
        draw(7, 3),
        jax.device_put(rng.integers(4, size=7, dtype=np.int32)),
    )


def custom():
    """A function with derivatives of its own, made anew at each call."""

    @jax.custom_vjp
    def doubled(z):
        return 2 * z

    doubled.defvjp(lambda z: (doubled(z), None), lambda _, g: (3 * g,))

    @jax.custom_jvp
    def rounded(z):
        return jnp.round(z)

    rounded.defjvp(lambda primals, tangents: (rounded(primals[0]), tangents[0]))
    return lambda z: doubled(rounded(z))


def dense(p, x, labels):
    z = jax.nn.relu(x @ p["w"] + p["b"][None]) @ p["v"]
    return losses.softmax_cross_entropy_with_integer_labels(z, labels).mean()


def with_custom_functions(p, x, labels):
    del labels
    return jnp.mean(custom()(x @ p["w"]) ** 2) + jnp.logaddexp(p["b"], 0.5).sum()


def recurrent(p, x, labels):
    del labels
    cell = lambda state, row: (jax.nn.silu(state + row @ p["w"]), None)  # noqa: E731
    return jnp.sum(jax.lax.scan(cell, p["b"], x)[0])


def squares(p, x, labels):
    return jnp.mean((x @ p["w"] - labels[:, None]) ** 2) + 0.1 * jnp.sum(p["v"] ** 2)


@pytest.mark.parametrize("loss_fn", [dense, with_custom_functions, recurrent, squares])
def test_restrict_compiles_one_program_and_none_for_another_plane_and_other_data(loss_fn):
    sweep = jax.jit(surfaces.sweep)
    axis = np.linspace(-1, 1, 3, dtype=np.float32)
    jnp.zeros(())  # what restrict may compile beside the program

    def swept(seed):
        plane, data = plane_and_data(seed)
        with compilations() as compiled:
            phi = planes.restrict(lambda p, *d: 2 * loss_fn(p, *d) / 2, plane, *data)
        value = phi(0.5, -0.25)
        return plane, data, value, sweep(phi, axis, axis).values, compiled

    *_, compiled_once = swept(1)
    with compilations() as compiled:
        plane, data, value, values, _ = swept(2)

    assert len(compiled_once) == 1
    assert not compiled
    plain = jax.jit(lambda a, b: loss_fn(planes.point(plane, a, b), *data))
    np.testing.assert_allclose(value, plain(0.5, -0.25), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[0, 2], plain(-1.0, 1.0), rtol=1e-4, atol=1e-5)


def slope(loss_fn):
    plane, data = plane_and_data(3)
    return jax.grad(planes.restrict(loss_fn, plane, *data))(0.5, -0.25)


def with_slope(slope):
    """The identity, with a derivative of its own."""

    @jax.custom_jvp
    def identity(z):
        return z

    identity.defjvp(lambda primals, tangents: (primals[0], slope * tangents[0]))
    return lambda p, x, labels: jnp.sum(jnp.sin(identity(x @ p["w"])))


def product_with_slope(crossed, is_pushed):
    """A product, with a derivative of its own that has the same operations one way or the other."""
    product: Any
    if is_pushed:
        product = jax.custom_jvp(lambda x, y: x * y)
        product.defjvp(
            lambda primals, tangents: (
                primals[0] * primals[1],
                primals[crossed] * tangents[1 - crossed],
            )
        )
    else:
        product = jax.custom_vjp(lambda x, y: (x * y, x * y + 1))
        product.defvjp(
            lambda x, y: ((x * y, x * y + 1), (x, y)),
            lambda kept, slopes: (slopes[crossed] * kept[1], slopes[1 - crossed] * kept[0]),
        )

    def loss_fn(p, x, labels):
        result = product(jnp.sin(x @ p["w"]).sum(), p["b"][0])
        return jnp.exp(result if is_pushed else result[0])

    return loss_fn


@pytest.mark.parametrize("is_pushed", [True, False])
def test_derivatives_that_differ_in_what_meets_what_do_not_share(is_pushed):
    plane, data = plane_and_data(3)
    slope = jax.jit(jax.grad(lambda phi, a: phi(a, -0.25), argnums=1))
    fns = [product_with_slope(crossed, is_pushed) for crossed in (0, 1)]
    found = [slope(planes.restrict(fn, plane, *data), 0.5) for fn in fns]

    @jax.jit
    def plain(a):
        along = [lambda a, fn=fn: fn(planes.point(plane, a, -0.25), *data) for fn in fns]
        return [jax.grad(fn)(a) for fn in along]

    np.testing.assert_allclose(found, plain(0.5), rtol=1e-4)


def test_programs_that_differ_in_a_derivative_or_in_a_number_do_not_share():
    plane, data = plane_and_data(3)

    np.testing.assert_allclose(slope(with_slope(5.0)), 5 * slope(with_slope(1.0)), rtol=1e-5)
    powers = [
        planes.restrict(lambda p, x, y, n=n: jnp.sum((x @ p["w"]) ** n), plane, *data)(0.5, -0.25)
        for n in (3, 5)
    ]
    origin, (first, second) = jax.tree.map(np.float64, plane)
    z = np.float64(data[0]) @ (origin["w"] + 0.5 * first["w"] - 0.25 * second["w"])
    np.testing.assert_allclose(powers, [np.sum(z**3), np.sum(z**5)], rtol=1e-4)


def test_a_plane_that_moves_other_arrays_is_another_program():
    first, data = plane_and_data(4)
    second, _ = plane_and_data(4, moves_last=False)

    phis = [planes.restrict(dense, plane, *data) for plane in (first, second)]

    assert jax.tree.structure(phis[0]) != jax.tree.structure(phis[1])
    for plane, phi in zip((first, second), phis, strict=True):
        plain = jax.jit(dense)(planes.point(plane, 0.5, -0.25), *data)
        np.testing.assert_allclose(phi(0.5, -0.25), plain, rtol=1e-5)


def test_the_functions_of_planes_compile_few_programs_when_called_by_hand():
    rng = np.random.default_rng(0)
    path = {"w": rng.normal(size=(9, 3, 8)), "b": rng.normal(size=(9, 8))}
    path = jax.tree.map(np.float32, path)

    with compilations() as compiled:
        plane = planes.principal(path)
        planes.project_path(plane, path)
        planes.geometry(planes.orthonormalize(planes.filter_normalize(plane, filter_axis=-1)))
        planes.project(plane, planes.point(plane, 0.5, 0.25))
        planes.coordinate(plane.origin, ("w", 1, 2), ("b", 0))
        planes.through(plane.origin, *plane.directions)

    assert len(compiled) <= 15


# What is worth computing once.


def linear(p, x):
    return x @ p["w"] @ p["v"] + p["b"].sum()


def own_error(predictions, labels):
    return jnp.square(predictions - labels[:, None]).mean(axis=1)


RISK = losses.empirical_risk(linear, own_error, batch_size=5)


@pytest.mark.parametrize("loss_fn", [dense, squares, recurrent, RISK])
def test_a_restricted_loss_can_be_pickled_if_the_loss_can(loss_fn):
    plane, data = plane_and_data(5)
    phi = planes.restrict(loss_fn, plane, *data)

    again = pickle.loads(pickle.dumps(phi))

    assert jax.tree.structure(again) == jax.tree.structure(phi)
    np.testing.assert_array_equal(again(0.5, -0.25), phi(0.5, -0.25))


_POWERS = {"of the day": 3}


def changing(p, x, labels):
    del labels
    return jnp.sum((x @ p["w"]) ** _POWERS["of the day"])


def test_a_pickled_loss_that_has_changed_since_is_refused(monkeypatch):
    plane, data = plane_and_data(5)
    pickled = pickle.dumps(planes.restrict(changing, plane, *data))
    monkeypatch.setitem(_POWERS, "of the day", 5)

    message = (
        r"^planes.restrict: loss_fn must be the program that phi was pickled with, got another"
    )
    with pytest.raises(ValueError, match=message):
        pickle.loads(pickled)


def wide(p, x):
    """Two layers, the first of which takes nearly all of the work."""
    return jnp.mean(jnp.tanh(jnp.tanh(x @ p["first"]) @ p["second"]))


def wide_plane(moves_first):
    params = {"first": jnp.ones((40, 30)), "second": jnp.ones((30, 2))}
    step = {**params, "first": params["first"] * moves_first}
    return planes.Plane(params, (step,))


def test_what_restrict_does_is_explained():
    x = jnp.ones((50, 40))

    both = planes.explain(wide, wide_plane(1.0), x)
    second = planes.explain(wide, wide_plane(0.0), x)

    assert "1 x float32[50,30] by dot_general, as origin and 1 tangent\n" in both
    assert "1 x float32[50,30] by tanh, constant\n" not in both
    assert "as origin and 1 tangent\n" in second
    assert "2 x tanh" in both
    assert "1 x tanh" in second
    share = [float(text.split("a point takes ")[1].split("%")[0]) for text in (both, second)]
    assert 0 < share[1] < share[0] < 50


def operations(jaxpr):
    """The names of a program's operations, those of jitted parts included: newer versions of JAX
    inline these only when they compile."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "jit":
            yield from operations(eqn.params["jaxpr"])
        else:
            yield eqn.primitive.name


def test_where_nothing_is_gained_a_restricted_loss_is_the_loss():
    plane = planes.Plane(jnp.ones((3, 4)), (jnp.ones((3, 4)),))
    loss_fn = lambda w, x: jnp.mean(jnp.sin(jnp.sin(w)) @ x)  # noqa: E731
    x = jnp.ones((4, 50))

    phi = planes.restrict(loss_fn, plane, x)

    assert planes.explain(loss_fn, plane, x).startswith("Nothing is worth computing once")
    plain = jax.make_jaxpr(lambda c: loss_fn(planes.point(plane, c), x))(0.5)
    assert sorted(operations(jax.make_jaxpr(phi)(0.5))) == sorted(operations(plain))
    np.testing.assert_array_equal(phi(0.5), jax.jit(loss_fn)(planes.point(plane, 0.5), x))
