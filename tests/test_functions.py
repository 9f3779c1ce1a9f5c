"""One row per public function: jit changes nothing, vmap equals a loop, grad equals differences."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgd
from jaxgd import chains, curvature, curves, descent, losses, neurons, planes, surfaces


@dataclasses.dataclass(frozen=True)
class Row:
    """A public function as a function of arrays.

    Attributes:
      function: the public function that the row stands for.
      call: calls it on the arguments, so that all of them are pytrees of arrays.
      draw: draws the arguments from a NumPy generator.
      moves: which arguments are differentiated.
      no_grad: why the row's gradient is not compared with differences, if so.
      family: rows that do much the same, which one program computes: it compiles that once.
    """

    function: Callable[..., Any]
    call: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    moves: tuple[int, ...] = (0,)
    no_grad: str = ""
    family: str = ""


def normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def labelled(rng):
    return rng.normal(size=(2, 5)), rng.integers(5, size=2)


def neuron(rng, num_inputs, *num_outputs):
    return neurons.Neuron(*normal((num_inputs, *num_outputs), num_outputs)(rng))


def layer_and_inputs(rng):
    return neuron(rng, 3, 2), rng.normal(size=(4, 3))


def network_and_inputs(rng):
    return (neuron(rng, 3, 4), neuron(rng, 4, 2)), rng.normal(size=(5, 3))


def plane_of_two(rng):
    trees = [{"w": rng.normal(size=(2, 3)), "b": rng.normal(size=())} for _ in range(3)]
    return planes.Plane(origin=trees[0], directions=(trees[1], trees[2]))


STAGES = (jnp.square, jnp.log, jnp.sqrt)
AFFINE = (lambda p, x: p[0] * x + p[1], lambda p, x: jnp.sin(p * x))


def scalar_above(least):
    return lambda rng: (least + rng.random(()),)


def valley(params, center):
    return jnp.sum((params["w"] - center) ** 2) + jnp.sum(jnp.cosh(params["b"]))


def valley_start(rng):
    return {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}, rng.normal(size=3)


def by_hand(params, center, rate):
    return descent.gradient_descent(
        lambda p, c: valley(p, jnp.broadcast_to(c, (2, 3))),
        params,
        center,
        learning_rate=rate,
        num_steps=3,
    )


def with_optax(params, center, rate):
    return descent.optimize(
        lambda p, c: valley(p, jnp.broadcast_to(c, (2, 3))),
        params,
        center,
        optimizer=optax.sgd(rate, momentum=0.5),
        num_steps=3,
    )


def bent(x):
    """A function of three numbers whose Hessian is full and changes from point to point."""
    return (x @ x) ** 2 + (x @ np.array([0.5, 0.7, -0.3])) ** 3


def bent_aside(x, shift):
    return bent(x + shift) + jnp.sum(x * shift)


def curved(params, x):
    return jnp.tanh(x @ params)


def tilted(params, x):
    return jnp.mean(jnp.sin(x @ params["w"]) + params["b"] ** 2)


def without_squares(params, x):
    """What restrict has a derivative of in plane and data: it refuses that of squares."""
    return jnp.mean(jnp.sin(x @ params["w"]) + jnp.sin(params["b"]))


# What returns words, and what runs on the host: drivers that compile for themselves, and what looks
# at one result.
DRIVERS = {
    "curves.groups_of",
    "planes.explain",
    "planes.explain_filters",
    "surfaces.critical_points",
    "surfaces.persistence",
    "sweeps.approximate",
    "sweeps.load",
    "sweeps.run",
    "descent.status_name",
    "descent.trim",
}

KEYED = "what it draws is a function of a key, which has no derivative"
ROWS = [
    Row(
        neurons.init,
        lambda key: neurons.init(key, 3, 2),
        lambda rng: (jax.random.key(rng.integers(9)),),
        no_grad=KEYED,
    ),
    Row(neurons.weighted_sum, neurons.weighted_sum, layer_and_inputs, (0, 1)),
    Row(neurons.apply, neurons.apply, layer_and_inputs, (0, 1)),
    Row(neurons.step, neurons.step, normal((4,))),
    Row(
        neurons.init_network,
        lambda key: neurons.init_network(key, (3, 4, 2)),
        lambda rng: (jax.random.key(rng.integers(9)),),
        no_grad=KEYED,
    ),
    Row(neurons.apply_network, neurons.apply_network, network_and_inputs, (0, 1)),
    Row(losses.squared_error, losses.squared_error, normal((2, 3), (2, 3)), (0, 1)),
    Row(losses.half_squared_error, losses.half_squared_error, normal((2, 3), (2, 3)), (0, 1)),
    Row(losses.absolute_error, losses.absolute_error, normal((2, 3), (2, 3)), (0, 1)),
    Row(
        losses.sigmoid_binary_cross_entropy,
        losses.sigmoid_binary_cross_entropy,
        lambda rng: (rng.normal(size=4), rng.uniform(0.1, 0.9, size=4)),
        (0, 1),
    ),
    Row(
        losses.softmax_cross_entropy_with_integer_labels,
        losses.softmax_cross_entropy_with_integer_labels,
        labelled,
    ),
    Row(losses.hinge, losses.hinge, normal((2, 3))),
    Row(losses.squared_hinge, losses.squared_hinge, normal((2, 3))),
    Row(losses.ramp, losses.ramp, lambda rng: (2 * rng.normal(size=7), rng.random(())), (0, 1)),
    Row(losses.true_class_score, losses.true_class_score, labelled),
    Row(
        losses.binary_margin,
        losses.binary_margin,
        lambda rng: (rng.normal(size=4), rng.choice([-1, 1], size=4)),
    ),
    Row(losses.multiclass_margin, losses.multiclass_margin, labelled),
    Row(
        losses.empirical_risk,
        losses.empirical_risk(neurons.weighted_sum, losses.squared_error),
        lambda rng: (neuron(rng, 3), *normal((4, 3), (4,))(rng)),
        (0, 1, 2),
    ),
    Row(chains.compose, chains.compose(*STAGES), scalar_above(2)),
    Row(
        chains.backprop,
        lambda x, p: chains.backprop(AFFINE, x, params=p),
        lambda rng: (rng.normal(), (normal((), ())(rng), rng.normal(size=()))),
        (0, 1),
    ),
    Row(
        chains.local_derivatives,
        lambda x: chains.local_derivatives(STAGES, x),
        scalar_above(2),
    ),
    Row(
        chains.correct,
        lambda x, target: chains.correct(STAGES, x, target),
        lambda rng: (2 + rng.random(()), rng.random(())),
        (0, 1),
    ),
    Row(
        chains.solve,
        lambda x, target: chains.solve(STAGES, x, target, tolerance=1e-9, max_steps=3),
        lambda rng: (2 + rng.random(()), 1.2 + rng.random(())),
        no_grad="a while loop has no reverse mode; differentiate the equation instead",
    ),
    Row(
        descent.step,
        descent.step,
        lambda rng: (*(valley_start(rng)[0] for _ in range(2)), rng.random(())),
        (0, 1, 2),
    ),
    Row(
        descent.gradient_descent,
        by_hand,
        lambda rng: (*valley_start(rng), 0.1 * rng.random(())),
        (0, 1, 2),
    ),
    Row(
        descent.optimize,
        with_optax,
        lambda rng: (*valley_start(rng), 0.1 * rng.random(())),
        (0, 1, 2),
    ),
    Row(
        descent.minibatches,
        lambda key: descent.minibatches(key, 7, batch_size=2, num_steps=5),
        lambda rng: (jax.random.key(rng.integers(9)),),
        no_grad=KEYED,
    ),
    Row(
        planes.point,
        planes.point,
        lambda rng: (plane_of_two(rng), rng.normal(size=()), rng.normal(size=())),
        (0, 1, 2),
    ),
    Row(
        planes.project,
        planes.project,
        lambda rng: (plane_of_two(rng), plane_of_two(rng).origin),
        (0, 1),
    ),
    Row(
        planes.project_path,
        lambda plane, w, b: planes.project_path(plane, {"w": w, "b": b}),
        lambda rng: (plane_of_two(rng), *normal((4, 2, 3), (4,))(rng)),
        (0, 1, 2),
    ),
    Row(
        planes.restrict,
        lambda plane, x, a, b: planes.restrict(without_squares, plane, x)(a, b),
        lambda rng: (plane_of_two(rng), *normal((5, 2), (), ())(rng)),
        (0, 1, 2, 3),
    ),
    Row(
        planes.coordinate,
        lambda params: planes.coordinate(params, ("w", 1, 2), ("b",)),
        lambda rng: (plane_of_two(rng).origin,),
    ),
    Row(
        planes.random,
        lambda key, params: planes.random(key, params, num_directions=1),
        lambda rng: (jax.random.key(rng.integers(9)), plane_of_two(rng).origin),
        (1,),
    ),
    Row(
        planes.through,
        planes.through,
        lambda rng: tuple(plane_of_two(rng).origin for _ in range(3)),
        (0, 1, 2),
    ),
    Row(
        planes.along,
        lambda params, w, b: planes.along(params, {"w": w, "b": b}),
        lambda rng: (plane_of_two(rng).origin, *normal((2, 2, 3), (2,))(rng)),
        (0, 1, 2),
    ),
    Row(planes.principal, planes.principal, lambda rng: ({"w": rng.normal(size=(5, 2, 3))},)),
    Row(
        planes.filter_normalize,
        lambda plane: planes.filter_normalize(plane, filter_axis=-1, vectors="match"),
        lambda rng: (plane_of_two(rng),),
    ),
    Row(
        planes.orthonormalize,
        planes.orthonormalize,
        lambda rng: (plane_of_two(rng),),
    ),
    Row(planes.geometry, planes.geometry, lambda rng: (plane_of_two(rng),)),
    Row(
        curves.barrier,
        lambda a, b, x: curves.barrier(tilted, a, b, x, num_points=4),
        lambda rng: (*(plane_of_two(rng).origin for _ in range(2)), rng.normal(size=(5, 2))),
        (0, 1, 2),
    ),
    Row(
        curves.point,
        lambda w, b, t: curves.point(curves.Curve({"w": w, "b": b}), t),
        normal((4, 2, 3), (4,), ()),
        (0, 1, 2),
    ),
    Row(
        curves.connect,
        lambda key, a, b, x: curves.connect(
            tilted, a, b, x, optimizer=optax.sgd(0.1), num_steps=3, key=key, num_controls=2
        ),
        lambda rng: (
            jax.random.key(rng.integers(9)),
            *(plane_of_two(rng).origin for _ in range(2)),
            rng.normal(size=(5, 2)),
        ),
        (1, 2, 3),
    ),
    Row(
        curves.basin_profile,
        jax.jit(  # compiled once for all calls
            lambda key, params, x: curves.basin_profile(
                key,
                lambda params, x: jnp.mean(jnp.sin(x @ params)),
                params,
                x,
                radii=jnp.ones(1),
                num_directions=2,
                num_iterations=1,
            )
        ),
        lambda rng: (jax.random.key(rng.integers(9)), *normal((2, 3), (5, 2))(rng)),
        no_grad="a quantile and the worst go from one direction to another, with a kink",
    ),
    Row(
        curves.align,
        lambda params, reference: curves.align(
            params, reference, [[("0/weights", 1), ("0/bias", 0), ("1/weights", 0)]]
        ),
        lambda rng: tuple(network_and_inputs(rng)[0] for _ in range(2)),
    ),
    Row(
        curvature.hvp,
        lambda params, vector: curvature.hvp(bent, params)(vector),
        normal((3,), (3,)),
        (0, 1),
    ),
    Row(
        curvature.top_eigenpairs,
        lambda key, params: (
            curvature.top_eigenpairs(key, bent, params, num_pairs=2, num_iterations=3).values
        ),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
        family="Lanczos",
    ),
    Row(
        curvature.sharpness,
        lambda key, params: curvature.sharpness(key, bent, params, num_iterations=3),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
        family="Lanczos",
    ),
    Row(
        curvature.hessian_trace,
        lambda key, params: curvature.hessian_trace(key, bent, params, num_samples=6),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
    ),
    Row(
        surfaces.select,
        lambda a, x: surfaces.select(surfaces.Surface((a,), {"loss": x, "other": -x}), "loss"),
        normal((3,), (3,)),
        (0, 1),
    ),
    Row(
        curvature.batch_sharpness,
        lambda params, shifts: curvature.batch_sharpness(bent_aside, params, per_step=shifts),
        normal((3,), (4, 3)),
        (0, 1),
    ),
    Row(
        curvature.gradient_noise_scale,
        lambda params, shifts: curvature.gradient_noise_scale(bent_aside, params, per_step=shifts),
        normal((3,), (4, 3)),
        (0, 1),
    ),
    Row(
        curvature.stability,
        lambda key, params: curvature.stability(key, bent, params, num_iterations=3),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
        family="Lanczos",
    ),
    Row(
        curvature.gnvp,
        lambda params, vector, x, y: curvature.gnvp(curved, losses.squared_error, params, x, y)(
            vector
        ),
        normal((3,), (3,), (4, 3), (4,)),
        (0, 1, 2, 3),
    ),
    Row(
        curvature.spectral_density,
        lambda key, params: curvature.spectral_density(
            key, bent, params, num_iterations=2, num_samples=1
        ),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
        family="Lanczos",
    ),
    Row(
        curvature.hessian_diagonal,
        lambda key, params: curvature.hessian_diagonal(key, bent, params, num_samples=6),
        lambda rng: (jax.random.key(rng.integers(9)), rng.normal(size=3)),
        (1,),
    ),
    Row(
        curvature.critical_sharpness,
        lambda params: curvature.critical_sharpness(bent, params, jax.grad(bent)(params)),
        normal((3,)),
        no_grad="a while loop has no reverse mode; differentiate the equation instead",
    ),
    Row(
        curvature.preconditioned_sharpness,
        lambda key, params, roots: curvature.preconditioned_sharpness(
            key, bent, params, 1 + roots**2, num_iterations=3
        ),
        lambda rng: (jax.random.key(rng.integers(9)), *normal((3,), (3,))(rng)),
        (1, 2),
        family="Lanczos",
    ),
    Row(
        curvature.adam_preconditioner,
        lambda params, squares: curvature.adam_preconditioner(
            optax.ScaleByAdamState(count=jnp.array(3), mu=params, nu={"w": 1 + squares**2})
        ),
        normal((3,), (2, 4)),
        (1,),
    ),
    Row(
        surfaces.evaluate,
        lambda c, a, b: surfaces.evaluate(
            surfaces.Approximation(
                jnp.array([[-3.0, 2.0], [-1.0, 4.0]]),
                {"x": c},
                {"x": 0.0},
                jnp.int32(1),
                jnp.int32(0),
            ),
            jnp.tanh(a),
            jnp.tanh(b),
        ),
        normal((4, 3), (), ()),
        (0, 1, 2),
    ),
    Row(
        surfaces.sweep,
        lambda a, b: surfaces.sweep(lambda a, b: {"x": jnp.sin(a) * b, "y": a}, a, b, batch_size=4),
        normal((3,), (5,)),
        (0, 1),
    ),
]


def address(function):
    return f"{function.__module__.split('.')[1]}.{function.__name__}"


rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: address(row.function))


def assert_close(actual, expected):
    """Equal structures and dtypes, and values equal up to the rounding of float64."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.result_type(a) == jnp.result_type(e)
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-12)


def test_every_public_function_has_one_row():
    public = {
        address(value)
        for room in jaxgd.__all__
        for name, value in vars(getattr(jaxgd, room)).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__module__.split(".")[:2] == ["jaxgd", room]
    }

    assert sorted(address(row.function) for row in ROWS) == sorted(public - DRIVERS)


def summed(outputs, xp=jnp):
    """One number that depends on every floating-point output, each in its own way."""
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if jnp.result_type(leaf) == jnp.float64]
    values = xp.concatenate([xp.ravel(leaf) for leaf in leaves])
    return xp.sum(values * np.cos(np.arange(1, values.size + 1)))


def stack(trees):
    def stacked(*leaves):
        are_keys = jnp.issubdtype(jnp.result_type(leaves[0]), jax.dtypes.prng_key)
        return (jnp if are_keys else np).stack(leaves)

    return jax.tree.map(stacked, *trees)


def take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], jax.device_get(tree))


def lanes_of(row):
    return [row.draw(np.random.default_rng(seed)) for seed in range(2)]


def outputs_and_gradient(row, args):
    """What the call gives, and the gradient of its sum."""

    def value(*args):
        outputs = row.call(*args)
        return summed(outputs), outputs

    if row.no_grad:
        return row.call(*args), None
    gradient, outputs = jax.grad(value, row.moves, has_aux=True)(*args)
    return outputs, gradient


@functools.cache
def program(rows):
    """Of rows, outputs and gradients over two lanes, as one program; and arguments for each."""

    def all_outputs_and_gradients(arguments):
        return [outputs_and_gradient(*pair) for pair in zip(rows, arguments, strict=True)]

    return jax.jit(jax.vmap(all_outputs_and_gradients)), [stack(lanes_of(row)) for row in rows]


def compiled(row):
    """Over two lanes, the outputs of the call and the gradient of their sum."""
    rows = tuple(r for r in ROWS if r is row or (row.family and r.family == row.family))
    call, arguments = program(rows)
    place = rows.index(row)
    return lambda *args: call([*arguments[:place], args, *arguments[place + 1 :]])[place]


@rows
def test_jit_and_vmap_change_nothing(row):
    with jax.enable_x64(True):
        lanes = lanes_of(row)
        outputs, _ = compiled(row)(*stack(lanes))

        # Each lane by itself, from one program; and the call as it is, op by op.
        looped = [take(compiled(row)(*stack([lane, lane]))[0], 0) for lane in lanes]
        assert_close(outputs, stack(looped))
        assert_close(take(outputs, 0), row.call(*lanes[0]))


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not row.no_grad], ids=lambda row: address(row.function)
)
def test_grad_equals_finite_differences(row):
    with jax.enable_x64(True):
        lane = lanes_of(row)[1]
        _, gradients = compiled(row)(*stack([lane, lane]))
        moving, treedef = jax.tree.flatten([lane[index] for index in row.moves])

        def shifted(index, step):
            leaves = [leaf + step if i == index else leaf for i, leaf in enumerate(moving)]
            moved = dict(zip(row.moves, jax.tree.unflatten(treedef, leaves), strict=True))
            return tuple(moved.get(i, arg) for i, arg in enumerate(lane))

        def difference(index, step):
            both = stack([shifted(index, step), shifted(index, -step)])
            outputs = jax.tree.map(np.asarray, compiled(row)(*both)[0])
            after = summed(jax.tree.map(lambda leaf: leaf[0], outputs), np)
            return after - summed(jax.tree.map(lambda leaf: leaf[1], outputs), np)

        for index, (leaf, gradient) in enumerate(
            zip(moving, jax.tree.leaves(gradients), strict=True)
        ):
            steps = 1e-6 * np.eye(np.size(leaf)).reshape(-1, *np.shape(leaf))
            differences = [difference(index, step) for step in steps]
            np.testing.assert_allclose(
                gradient[0].ravel(), np.array(differences) / 2e-6, rtol=1e-6, atol=1e-7
            )
