"""What jaxgd.planes promises."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from jaxgd import curvature, descent, neurons, planes, surfaces

# Structures of params. The i-th array of any has the i-th shape, so that many share a program.
SHAPES = [(3, 2), (), (2, 1, 3)]
TREES = st.recursive(
    st.just(None),
    lambda children: (
        st.lists(children, min_size=1, max_size=3)
        | st.tuples(children, children)
        | st.dictionaries(st.sampled_from("abc"), children, min_size=1)
    ),
    max_leaves=len(SHAPES),
)


def drawn(rng, structure):
    leaves = [rng.normal(size=shape) for shape in SHAPES[: structure.num_leaves]]
    return jax.tree.unflatten(structure, leaves)


def flat(tree):
    """All entries as one float64 vector, in NumPy."""
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(tree)])


@st.composite
def planes_and_coordinates(draw):
    tree, seed = draw(TREES), draw(st.integers(0, 2**32 - 1))
    structure = jax.tree.structure(tree, is_leaf=lambda node: node is None)
    rng = np.random.default_rng(seed)
    origin = drawn(rng, structure)
    size = flat(origin).size
    k = draw(st.integers(1, min(3, size)))
    plane = planes.Plane(origin=origin, directions=tuple(drawn(rng, structure) for _ in range(k)))
    numbers = st.floats(-100, 100)
    return plane, draw(st.lists(numbers, min_size=k, max_size=k)), drawn(rng, structure)


@given(planes_and_coordinates())
@settings(max_examples=25)
def test_a_point_has_its_coordinates_and_what_a_projection_loses_is_orthogonal(drawn_values):
    plane, coordinates, beside = drawn_values
    with jax.enable_x64(True):
        params = planes.point(plane, *coordinates)
        recovered = planes.project(plane, params)
        nearest = planes.project(plane, beside)
        lost = flat(beside) - flat(planes.point(plane, *map(float, nearest)))

    columns = np.stack([flat(d) for d in plane.directions], axis=1)
    # How far rounding can be amplified by directions that nearly agree.
    condition = np.linalg.cond(columns)
    chex.assert_trees_all_equal_structs(params, plane.origin)
    expected = flat(plane.origin) + columns @ coordinates
    np.testing.assert_allclose(flat(params), expected, rtol=1e-12, atol=1e-12)
    chex.assert_shape(recovered, (len(coordinates),))
    np.testing.assert_allclose(recovered, coordinates, rtol=0, atol=1e-11 * condition)
    np.testing.assert_allclose(columns.T @ lost, 0, atol=1e-10 * condition)
    witness, *_ = np.linalg.lstsq(columns, flat(beside) - flat(plane.origin), rcond=None)
    np.testing.assert_allclose(nearest, witness, rtol=0, atol=1e-10 * condition)


def test_a_point_keeps_the_dtype_of_each_array():
    origin = {"half": jnp.ones(2, jnp.float16), "full": jnp.ones(3)}
    plane = planes.Plane(origin=origin, directions=(origin, jax.tree.map(jnp.float32, origin)))

    params = planes.point(plane, 1.0, jnp.float32(2.0))

    chex.assert_trees_all_equal_dtypes(params, origin)
    chex.assert_trees_all_equal(params, jax.tree.map(lambda p: 4 * p, origin))


@pytest.mark.parametrize("num_entries", [1, 3])
def test_dependent_directions_have_no_coordinates(num_entries):
    direction = np.ones(num_entries, np.float32)
    plane = planes.Plane(origin=0 * direction, directions=(direction, direction))

    coordinates = planes.project(plane, direction)

    chex.assert_shape(coordinates, (2,))
    assert not np.isfinite(coordinates).all()


# Axis-parallel planes.


def params():
    return {
        "layers": [
            neurons.Neuron(
                weights=jnp.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
                bias=jnp.array([7.0, 8.0, 9.0]),
            ),
            neurons.Neuron(weights=jnp.array([10.0, 11.0, 12.0]), bias=jnp.array(13.0)),
        ],
        "scale": jnp.array(14.0),
    }


@pytest.mark.parametrize(
    "entry",
    [
        ("layers", 0, "weights", 1, 2),
        ("layers", 0, "bias", 1),
        ("layers", 1, "weights", 0),
        ("layers", 1, "weights", -1),
        ["layers", 1, "bias"],
        ("scale",),
    ],
)
def test_a_coordinate_is_the_value_of_its_entry_and_all_others_stay(entry):
    plane = planes.coordinate(params(), entry)

    moved = planes.point(plane, -5.0)

    def at(tree: Any) -> Any:
        for key in entry:
            tree = getattr(tree, key) if isinstance(tree, neurons.Neuron) else tree[key]
        return tree

    assert at(moved) == -5.0
    before, after = flat(params()), flat(moved)
    assert (before != after).sum() == 1
    np.testing.assert_array_equal(flat(plane.directions[0]), (before != after).astype(float))
    np.testing.assert_array_equal(planes.project(plane, params()), [at(params())])
    chex.assert_trees_all_equal(planes.point(plane, at(params())), params())


def test_coordinates_come_in_the_order_of_their_entries():
    plane = planes.coordinate(params(), ("scale",), ("layers", 0, "weights", 1, 0))

    moved = planes.point(plane, 100.0, 200.0)

    assert moved["scale"] == 100.0
    assert moved["layers"][0].weights[1, 0] == 200.0
    np.testing.assert_array_equal(planes.project(plane, params()), [14.0, 3.0])
    assert len(plane.directions) == 2


def test_params_may_be_a_single_array_or_a_single_number():
    np.testing.assert_array_equal(
        planes.point(planes.coordinate(jnp.arange(3.0), (1,)), 9.0), [0, 9, 2]
    )
    assert planes.point(planes.coordinate(4.0, ()), 9.0) == 9.0


def test_a_loss_is_seen_against_weight_and_bias():
    x, y = np.array([0.0, 0.5, 1.0], np.float32), np.array([3.1, 3.9, 5.2], np.float32)
    neuron = neurons.Neuron(weights=jnp.array([2.0]), bias=jnp.array(3.0))
    plane = planes.coordinate(neuron, ("weights", 0), ("bias",))

    def loss(w, b):
        z = neurons.weighted_sum(planes.point(plane, w, b), x[:, None])
        return jnp.mean((z - y) ** 2) / 2

    w, b = np.array([1.0, 2.0, 3.0, 4.0], np.float32), np.array([2.0, 3.0, 4.0], np.float32)
    surface = surfaces.sweep(loss, w, b)

    looped = [[((wi * x + bj - y) ** 2).sum() / 3 / 2 for bj in b] for wi in w]
    np.testing.assert_allclose(surface.values, looped, rtol=1e-5)


def test_planes_pass_through_jit_and_vmap():
    plane = planes.coordinate(params(), ("scale",), ("layers", 1, "bias"))
    a, b = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0])

    moved = jax.jit(jax.vmap(planes.point, in_axes=(None, 0, 0)))(plane, a, b)
    back = jax.jit(jax.vmap(planes.project, in_axes=(None, 0)))(plane, moved)

    np.testing.assert_allclose(back, np.stack([a, b], axis=1), rtol=1e-6)
    assert ravel_pytree(moved)[0].size == 3 * ravel_pytree(params())[0].size


# Planes by chance, through points, and along a trajectory.

PATH = {
    "w": np.random.default_rng(1).normal(size=(9, 2, 3)).astype(np.float32),
    "b": np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32),
}


def rows(path):
    return np.concatenate(
        [np.reshape(leaf, (leaf.shape[0], -1)) for leaf in jax.tree.leaves(path)], axis=1
    ).astype(np.float64)


def test_random_directions_are_gaussian_and_all_but_orthogonal():
    origin = {"w": jnp.zeros((100, 90)), "b": jnp.ones(70)}

    plane = planes.random(jax.random.key(0), origin, num_directions=3)

    chex.assert_trees_all_equal(plane.origin, origin)
    for direction in plane.directions:
        entries = flat(direction)
        assert abs(entries.mean()) < 0.05  # a uniform direction on [0, 1] would have 0.5
        assert abs(entries.std() - 1) < 0.05
        assert (entries < 0).any()
    cosines = np.asarray(planes.geometry(plane).cosines)
    assert (np.abs(cosines[~np.eye(3, dtype=bool)]) < 0.05).all()


def test_another_key_gives_another_plane_and_the_same_key_the_same():
    origin = jnp.zeros(5)
    first, again, other = (planes.random(jax.random.key(k), origin) for k in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first.directions[0], other.directions[0])


def test_a_plane_through_points_has_them_at_its_unit_coordinates():
    points = [jax.tree.map(lambda leaf, i=i: leaf[i], PATH) for i in range(3)]

    plane = planes.through(*points)

    for coordinates, wanted in zip([(0, 0), (1, 0), (0, 1)], points, strict=True):
        chex.assert_trees_all_close(planes.point(plane, *coordinates), wanted, atol=1e-6)


def test_the_principal_plane_is_that_of_a_singular_value_decomposition():
    plane = planes.principal(PATH, num_directions=3)

    centred = rows(PATH) - rows(PATH).mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    for direction, component in zip(plane.directions, components, strict=False):
        np.testing.assert_allclose(abs(flat(direction) @ component), 1, rtol=1e-4)
    chex.assert_trees_all_equal(plane.origin, jax.tree.map(lambda leaf: leaf[-1], PATH))
    geometry = planes.geometry(plane)
    np.testing.assert_allclose(geometry.norms, np.ones(3), rtol=1e-4)
    np.testing.assert_allclose(geometry.cosines, np.eye(3), atol=1e-4)


def test_the_sign_of_a_principal_direction_is_fixed():
    for direction in planes.principal(PATH, num_directions=3).directions:
        scores = (rows(PATH) - rows(PATH).mean(axis=0)) @ flat(direction)
        assert scores[np.abs(scores).argmax()] > 0


def test_a_path_within_a_plane_is_hidden_by_nothing_and_one_across_it_by_all():
    rng = np.random.default_rng(3)
    drawn = [jax.tree.map(lambda leaf: rng.normal(size=leaf.shape[1:]), PATH) for _ in range(4)]
    origin, *directions = jax.tree.map(np.float32, drawn)
    plane = planes.Plane(origin, tuple(directions))
    coordinates = rng.normal(size=(9, 3)).astype(np.float32)
    within = jax.jit(jax.vmap(lambda c: planes.point(plane, *c)))(coordinates)

    projection = planes.project_path(plane, within)

    np.testing.assert_allclose(projection.coordinates, coordinates, atol=1e-5)
    assert projection.residuals.max() < 1e-4
    line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.array([1.0, 0.0]),))
    across = planes.project_path(line, jnp.array([[0.0, 0.0], [0.0, 5.0], [3.0, 4.0]]))
    np.testing.assert_allclose(across.residuals, [0.0, 1.0, 0.8], rtol=1e-6)


# Filter normalization.


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_every_filter_of_a_direction_gets_the_length_of_the_params(axis):
    rng = np.random.default_rng(5)
    draw = lambda: {"kernel": rng.normal(size=(2, 3, 4)), "bias": rng.uniform(1, 2, 5)}  # noqa: E731
    origin, *directions = jax.tree.map(np.float32, [draw() for _ in range(3)])
    plane = planes.Plane(origin, tuple(directions))

    normalized = planes.filter_normalize(plane, filter_axis=axis)

    chex.assert_trees_all_equal(normalized.origin, origin)
    for before, after in zip(plane.directions, normalized.directions, strict=True):
        theta, old, new = (
            np.moveaxis(np.asarray(tree["kernel"]), axis, 0).reshape(
                origin["kernel"].shape[axis], -1
            )
            for tree in (origin, before, after)
        )
        for filter_theta, filter_old, filter_new in zip(theta, old, new, strict=True):
            wanted = filter_old * np.linalg.norm(filter_theta) / np.linalg.norm(filter_old)
            np.testing.assert_allclose(filter_new, wanted, rtol=1e-5)
        assert not np.any(after["bias"])


def test_directions_of_vectors_are_kept_or_matched_when_asked():
    origin = {"kernel": jnp.ones((2, 3)), "bias": jnp.array([3.0, 4.0])}
    plane = planes.random(jax.random.key(6), origin)
    old = plane.directions[0]["bias"]
    keep, match = (
        planes.filter_normalize(plane, filter_axis=-1, vectors=vectors).directions[0]["bias"]
        for vectors in ("keep", "match")
    )
    chex.assert_trees_all_equal(keep, old)
    np.testing.assert_allclose(match, old * 5 / np.linalg.norm(old), rtol=1e-5)


def test_each_array_may_have_a_filter_axis_of_its_own_or_be_one_filter():
    origin = {"a": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.arange(1.0, 7.0).reshape(2, 3)}
    plane = planes.random(jax.random.key(6), origin)
    direction = planes.filter_normalize(plane, filter_axis={"a": 0, "b": None}).directions[0]
    norms = functools.partial(np.linalg.norm, axis=1)
    np.testing.assert_allclose(norms(direction["a"]), norms(origin["a"]), rtol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(direction["b"]), np.linalg.norm(origin["b"]), rtol=1e-5
    )


def test_a_filter_of_zeros_stays_where_it_is():
    origin = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    plane = planes.Plane(origin, (jnp.array([[1.0, 0.0], [1.0, 0.0]]),))
    normalized = planes.filter_normalize(plane, filter_axis=-1)
    chex.assert_trees_all_equal(normalized.directions[0], jnp.zeros((2, 2)))


def test_the_geometry_of_a_plane_tells_lengths_and_angles():
    directions = (jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]), jnp.array([0.0, -3.0]))
    geometry = planes.geometry(planes.Plane(jnp.zeros(2), directions))
    np.testing.assert_allclose(geometry.norms, [2, 2**0.5, 3], rtol=1e-6)
    half = 0.5**0.5
    wanted = [[1, half, 0], [half, 1, -half], [0, -half, 1]]
    np.testing.assert_allclose(geometry.cosines, wanted, atol=1e-6)


def test_a_caller_keeps_its_arrays():
    origin = {"w": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}
    plane = planes.filter_normalize(planes.random(jax.random.key(0), origin), filter_axis=0)
    planes.restrict(lambda p: p["w"].sum() + p["b"].sum(), plane)(1.0, 2.0)
    planes.project(plane, origin)
    chex.assert_trees_all_equal(origin, {"w": np.ones((2, 3)), "b": np.ones(4)})


# Numbers that are hard for float32, and harder for less.


def spread_along(amplitude, num_entries, seed=0):
    """A path that bends by an amplitude, in float32, and its singular vectors in float64."""
    t = np.linspace(0, 1, 50)[:, None]
    ways = np.concatenate([t, amplitude * np.sin(6 * t)], axis=1)
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(num_entries, 2)))
    path = (ways @ turned.T if num_entries > 2 else ways).astype(np.float32)
    _, lengths, vectors = np.linalg.svd(path - path.mean(axis=0, dtype=float), full_matrices=False)
    return path, lengths, vectors


def matrix_of(plane):
    return np.stack([flat(direction) for direction in plane.directions])


@pytest.mark.parametrize("num_entries", [2, 7, 90])  # fewer and more than the points
@pytest.mark.parametrize("amplitude", [1e-2, 1e-4, 1e-5])
def test_a_path_that_hardly_bends_has_its_principal_plane_all_the_same(amplitude, num_entries):
    path, lengths, vectors = spread_along(amplitude, num_entries)

    found = matrix_of(planes.principal(jnp.array(path)))

    np.testing.assert_allclose(found @ found.T, np.eye(2), atol=3e-7)
    angles = np.abs((found * vectors[:2]).sum(axis=1))
    # Rounding at the size of the first, seen from the second.
    error = 1e-6 + (1e-7 * lengths[0] / lengths[1]) ** 2
    np.testing.assert_allclose(angles, 1, atol=error)


@pytest.mark.parametrize("num_entries", [7, 90])  # fewer and more than the points
def test_a_short_path_far_from_zero_has_its_principal_plane_all_the_same(num_entries):
    # The first mean is rounded to 1/8, the size of a unit here; the steps are exact.
    units = np.random.default_rng(2).integers(-30, 30, size=(50, num_entries))
    path = (2.0**20 + units / 8).astype(np.float32)
    _, _, vectors = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)

    found = matrix_of(planes.principal(jnp.array(path)))

    found *= np.sign((found * vectors[:2]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, vectors[:2], atol=2e-6)


@pytest.mark.parametrize("factor", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("num_steps", [50, 100])
def test_what_a_path_has_below_its_own_rounding_is_no_direction(factor, num_steps):
    way = np.arange(1, 8, dtype=np.float32)
    start = np.float32(factor) * way
    shrinking = np.float32(0.8) ** np.arange(num_steps, dtype=np.float32)
    straight = np.outer(shrinking, start)

    first, second = planes.principal(straight).directions

    np.testing.assert_allclose(np.abs(first), way / np.linalg.norm(way), rtol=1e-6)
    assert np.isnan(second).all()
    assert np.isnan(
        matrix_of(planes.principal(np.ones((50, 7), np.float32)))
    ).all()  # no way at all


def test_a_principal_plane_of_many_small_arrays_takes_few_operations():
    def num_operations(num_arrays):
        path = {str(i): np.zeros((5, 2 + i), np.float32) for i in range(num_arrays)}
        return len(jax.make_jaxpr(planes.principal)(path).eqns)

    assert num_operations(9) - num_operations(2) < 10 * (9 - 2)


def test_a_principal_plane_needs_the_memory_of_a_few_paths():
    for shape in [(40, 3000), (3000, 40)]:
        path = jax.ShapeDtypeStruct(shape, jnp.float32)
        compiled = jax.jit(planes.principal).lower(path).compile()
        figures = compiled.memory_analysis()
        assert figures is not None
        assert figures.temp_size_in_bytes < 4.5 * 4 * 40 * 3000


def test_a_run_may_stand_for_its_path():
    @jax.jit
    def descended(start):
        loss_fn = lambda p: jnp.sum(p["w"] ** 4) + jnp.sum(p["b"] ** 2)  # noqa: E731
        return descent.gradient_descent(loss_fn, start, learning_rate=0.1, num_steps=8)

    run = descended(jax.tree.map(lambda leaf: leaf[0], PATH))
    plane = planes.principal(run, num_directions=3)

    chex.assert_trees_all_equal(plane, planes.principal(run.path, num_directions=3))
    projection = planes.project_path(plane, run.path)
    chex.assert_trees_all_equal(planes.project_path(plane, run), projection)


def test_eigenvectors_span_a_plane():
    params = {"w": jnp.array([0.3, 0.1]), "b": jnp.array(0.2)}

    @jax.jit
    def eigenpairs(key, params):
        loss_fn = lambda p: 3 * jnp.sum(p["w"] ** 2) - 5 * p["b"] ** 2  # noqa: E731
        return curvature.top_eigenpairs(key, loss_fn, params, num_pairs=2, num_iterations=3)

    pairs = eigenpairs(jax.random.key(0), params)

    plane = planes.along(params, pairs.vectors)

    chex.assert_trees_all_equal(plane.origin, params)
    first, second = plane.directions
    np.testing.assert_allclose(np.abs(flat(first)), [1, 0, 0], atol=1e-5)  # b, of -10
    np.testing.assert_allclose(flat(second)[0], 0, atol=1e-5)  # w, of 6
    np.testing.assert_allclose(planes.geometry(plane).cosines, np.eye(2), atol=1e-5)


def test_planes_of_low_precision_stand_strict_promotion():
    params = {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.zeros(2, jnp.bfloat16)}
    path = jax.tree.map(lambda p: jnp.stack([p, p + 1, 2 * p, p - 2]), params)

    def directions():
        plane = planes.random(jax.random.key(1), params)
        normalized = planes.filter_normalize(plane, filter_axis=-1, vectors="match")
        return planes.orthonormalize(normalized).directions, planes.principal(path).directions

    with jax.numpy_dtype_promotion("strict"):
        strict = jax.make_jaxpr(directions)()
    with jax.numpy_dtype_promotion("standard"):
        standard = jax.make_jaxpr(directions)()
    assert str(strict) == str(standard)


HALVES = [jnp.float16, jnp.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
def test_lengths_and_angles_in_half_precision_are_those_in_double(dtype):
    origin, *directions = np.random.default_rng(0).normal(size=(3, 300, 300))
    origin[:] = 300
    plane = planes.Plane(
        *jax.tree.map(lambda a: jnp.asarray(a, dtype), (origin, tuple(directions)))
    )

    geometry = planes.geometry(planes.filter_normalize(plane, filter_axis=-1))
    widened = planes.Plane(
        np.asarray(plane.origin, np.float32),
        tuple(np.asarray(d, np.float32) for d in plane.directions),
    )
    witness = matrix_of(planes.filter_normalize(widened, filter_axis=-1))

    norms = np.linalg.norm(witness, axis=1)
    np.testing.assert_allclose(norms, 300 * 300, rtol=1e-5)
    np.testing.assert_allclose(geometry.norms, norms, rtol=1e-2)
    assert geometry.norms.dtype == jnp.float32
    cosine = witness[0] @ witness[1] / norms.prod()
    np.testing.assert_allclose(geometry.cosines, [[1, cosine], [cosine, 1]], atol=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_projections_in_half_precision_are_those_in_double(dtype):
    rng = np.random.default_rng(0)
    origin, *directions = (jnp.array(rng.normal(size=500), dtype) for _ in range(3))
    plane = planes.Plane(origin, tuple(directions))
    path = jnp.array(np.asarray(origin, float) + rng.normal(size=(4, 500)), dtype)

    projection = planes.project_path(plane, path)

    columns = matrix_of(plane).T
    offsets = np.asarray(path, float) - flat(origin)
    witness, *_ = np.linalg.lstsq(columns, offsets.T, rcond=None)
    away = np.linalg.norm(offsets - witness.T @ columns.T, axis=1)
    np.testing.assert_allclose(projection.coordinates, witness.T, atol=1e-4)
    residuals = away / np.linalg.norm(offsets, axis=1)
    np.testing.assert_allclose(projection.residuals, residuals, rtol=1e-4)
    np.testing.assert_allclose(planes.project(plane, path[1]), witness.T[1], atol=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
def test_planes_from_points_in_half_precision_are_made_in_single(dtype):
    first, second = jnp.array([1.0, 3.0], dtype), jnp.array([1.0078125, -2.0], dtype)

    line = planes.through(first, second)
    path = jnp.asarray(np.stack([first, second, 2 * np.asarray(first)]))
    principal = matrix_of(planes.principal(path))

    np.testing.assert_allclose(flat(line.directions[0]), flat(second) - flat(first), rtol=1e-7)
    chex.assert_trees_all_equal(planes.point(line, 1.0), second)
    np.testing.assert_allclose(principal @ principal.T, np.eye(2), atol=1e-6)


def test_a_point_in_half_precision_is_rounded_once():
    step = jnp.array([1.0], jnp.bfloat16)
    plane = planes.Plane(origin=step, directions=(step, step))

    # 1 + 0.003 and 1 + 0.003 + 0.003: the neighbours of 1 are 1.0078 and 0.9961.
    assert planes.point(plane, 0.003, 0.003) == jnp.bfloat16(1.0078125)
    assert planes.point(plane, 0.003, 0.0) == 1.0


@pytest.mark.parametrize("factor", [1e-25, 1e25, 5e37])
def test_sizes_whose_squares_leave_float32_are_no_trouble(factor):
    factor = np.float32(factor)
    line = planes.Plane(
        origin=np.zeros(2, np.float32), directions=(factor * np.eye(1, 2, dtype=np.float32)[0] * 2,)
    )
    path = factor * np.array([[3, 4], [0, 0], [5, 0]], np.float32)

    projection = planes.project_path(line, path)
    geometry = planes.geometry(
        planes.Plane(path[0], (path[0], factor * np.array([4, 3], np.float32)))
    )
    normalized = planes.filter_normalize(
        planes.Plane(factor * np.array([[3], [4]], np.float32), (np.ones((2, 1), np.float32),)),
        filter_axis=-1,
    )

    np.testing.assert_allclose(projection.coordinates[:, 0], [1.5, 0, 2.5], rtol=1e-6)
    np.testing.assert_allclose(projection.residuals, [0.8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(geometry.norms, np.full(2, 5 * factor), rtol=1e-6)
    np.testing.assert_allclose(geometry.cosines, [[1, 0.96], [0.96, 1]], rtol=1e-6)
    np.testing.assert_allclose(
        normalized.directions[0], np.full((2, 1), 5 * factor / 2**0.5), rtol=1e-6
    )


@pytest.mark.parametrize("lost", [jnp.nan, jnp.inf])
def test_a_point_that_is_not_finite_is_on_no_plane(lost):
    line = planes.Plane(origin=jnp.zeros(2), directions=(jnp.array([1.0, 0.0]),))

    residuals = planes.project_path(line, jnp.array([[3.0, lost], [3.0, 4.0]])).residuals

    assert np.isnan(residuals[0])
    np.testing.assert_allclose(residuals[1], 0.8, rtol=1e-6)


def test_a_direction_has_the_cosine_1_with_itself_and_no_more_with_another():
    rng = np.random.default_rng(1)
    for _ in range(20):
        direction = jnp.array(rng.normal(size=9), jnp.bfloat16)
        plane = planes.Plane(direction, (direction, direction, -direction))
        cosines = np.asarray(planes.geometry(plane).cosines)
        np.testing.assert_array_equal(np.diag(cosines), 1)
        assert (np.abs(cosines) <= 1).all()
        np.testing.assert_allclose(cosines[0], [1, 1, -1], rtol=1e-6)


@pytest.mark.parametrize(("ulps", "independent"), [(3, False), (1000, True)])
def test_directions_that_differ_by_rounding_have_no_coordinates(ulps, independent):
    first, second = np.ones((2, 4), np.float32)
    second[0] += ulps * np.finfo(np.float32).eps

    coordinates = planes.project(planes.Plane(np.zeros_like(first), (first, second)), first)

    assert bool(np.isfinite(coordinates).all()) == independent


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,)])
def test_a_vector_of_any_size_is_matched_as_one_filter(shape):
    origin = {"kernel": jnp.ones((2, 3)), "bias": jnp.full(shape, -3.0)}
    plane = planes.random(jax.random.key(6), origin)

    matched = planes.filter_normalize(plane, filter_axis=-1, vectors="match").directions[0]["bias"]

    np.testing.assert_allclose(np.linalg.norm(flat(matched)), 3 * max(1, *shape, 1) ** 0.5)
    old = plane.directions[0]["bias"]
    np.testing.assert_allclose(np.sign(matched), np.sign(old))
