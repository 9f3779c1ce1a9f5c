"""Curves between minima: barriers, Bezier curves, and units matched."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgd import curves, neurons


def ring(x):
    return (jnp.sum(x**2) - 1) ** 2


# Networks, each with the shapes of its params and its inputs.


def mlp(params, x):
    return neurons.apply_network(params, x, activation=jnp.tanh)


def mlp_params(rng):
    widths = (3, 6, 5, 2)
    return tuple(
        neurons.Neuron(rng.normal(size=(i, o)).astype("f"), rng.normal(size=o).astype("f"))
        for i, o in itertools.pairwise(widths)
    )


def cnn(params, x):
    """Two convolutions with a pooling between them, flattened into a dense layer."""
    for kernel, bias in zip(params["kernels"], params["biases"], strict=True):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.max, (1, 2, 1, 1), (1, 2, 1, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ params["head"]


def cnn_params(rng):
    kernels = [(3, 3, 1, 4), (3, 3, 4, 5)]
    return {
        "kernels": [rng.normal(size=shape).astype("f") for shape in kernels],
        "biases": [rng.normal(size=shape[-1]).astype("f") for shape in kernels],
        "head": rng.normal(size=(2 * 3 * 5, 3)).astype("f"),
    }


def residual(params, x):
    """A stream of seven units, normalized, with two blocks that add to it."""
    x = x @ params["stem"]
    for into, out in params["blocks"]:
        normal = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)
        x = x + jax.nn.gelu(normal @ into) @ out
    return jax.nn.log_softmax(x @ params["head"])


def residual_params(rng):
    shapes = {"stem": (3, 7), "blocks": [((7, 5), (5, 7)), ((7, 6), (6, 7))], "head": (7, 2)}
    is_shape = lambda node: isinstance(node, tuple) and isinstance(node[0], int)  # noqa: E731
    return jax.tree.map(lambda s: rng.normal(size=s).astype("f"), shapes, is_leaf=is_shape)


NETWORKS = {
    "mlp": (mlp, mlp_params, (4, 3)),
    "cnn": (cnn, cnn_params, (2, 8, 3, 1)),
    "residual": (residual, residual_params, (4, 3)),
}
MLP_GROUPS = [
    [("0/weights", 1), ("0/bias", 0), ("1/weights", 0)],
    [("1/weights", 1), ("1/bias", 0), ("2/weights", 0)],
]
GROUPS = {
    "mlp": MLP_GROUPS,
    "cnn": [
        [("biases/0", 0), ("kernels/0", 3), ("kernels/1", 2)],
        [("biases/1", 0), ("head", 0, (6, 1)), ("kernels/1", 3)],
    ],
    "residual": [
        [
            ("blocks/0/0", 0),
            ("blocks/0/1", 1),
            ("blocks/1/0", 0),
            ("blocks/1/1", 1),
            ("head", 0),
            ("stem", 1),
        ],
        [("blocks/0/0", 1), ("blocks/0/1", 0)],
        [("blocks/1/0", 1), ("blocks/1/1", 0)],
    ],
}
by_network = pytest.mark.parametrize("name", NETWORKS)


def shuffled(rng, params, groups):
    """The same network with its units in a random order, by NumPy alone."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    arrays = {jax.tree_util.keystr(p, simple=True, separator="/"): np.array(a) for p, a in leaves}
    for group in groups:
        order = None
        for path, axis, *blocks in group:
            before, after = blocks[0] if blocks else (1, 1)
            length = arrays[path].shape[axis]
            order = rng.permutation(length // (before * after)) if order is None else order
            places = np.arange(length).reshape(before, -1, after)[:, order].ravel()
            arrays[path] = np.take(arrays[path], places, axis)
    return jax.tree.unflatten(structure, list(arrays.values()))


@by_network
def test_the_groups_of_a_network_are_read_off_its_program(name):
    predict, draw, shape = NETWORKS[name]

    groups = curves.groups_of(predict, draw(np.random.default_rng(0)), np.ones(shape, np.float32))

    assert sorted(map(sorted, groups)) == sorted(map(sorted, GROUPS[name]))


def distance(params, reference):
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True)
    return sum(float(np.sum((np.asarray(p) - r) ** 2)) for p, r in pairs)


@by_network
def test_a_planted_order_is_undone_and_any_other_brought_nearer_with_the_same_outputs(name):
    predict, draw, shape = NETWORKS[name]
    aligned = jax.jit(lambda params, reference: curves.align(params, reference, GROUPS[name]))
    rng = np.random.default_rng(9)
    x = rng.normal(size=shape).astype("f")

    for _ in range(12):
        reference = draw(rng)
        other = shuffled(rng, reference, GROUPS[name])
        assert distance(other, reference) > 0
        jax.tree.map(np.testing.assert_array_equal, aligned(other, reference), reference)

    params, reference = draw(rng), draw(rng)
    nearer = jax.device_get(aligned(params, reference))
    compiled = jax.jit(predict)
    with jax.enable_x64(True):
        wide = [jax.tree.map(lambda a: np.asarray(a, float), tree) for tree in (nearer, params)]
        outputs = [compiled(tree, x.astype(float)) for tree in wide]
        np.testing.assert_allclose(*outputs, rtol=1e-6, atol=1e-6)
    assert distance(nearer, reference) < distance(params, reference)
    again = aligned(nearer, reference)
    assert distance(again, reference) <= distance(nearer, reference) * (1 + 1e-6)


align_layer = jax.jit(lambda params, ref: curves.align(params, ref, [[("0", 1), ("1", -2)]]))


def test_one_hidden_layer_is_matched_as_by_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(2)
    (a, b), (c, d) = ((rng.normal(size=(3, 8)), rng.normal(size=(8, 2))) for _ in range(2))

    _, order = optimize.linear_sum_assignment(c.T @ a + d @ b.T, maximize=True)
    for scale in (1, 1e20, 1e-25):  # products over- and underflow
        aligned = align_layer((scale * a, scale * b), (scale * c, scale * d))
        np.testing.assert_allclose(aligned[0], scale * a[:, order], rtol=1e-6)
        np.testing.assert_allclose(aligned[1], scale * b[order], rtol=1e-6)


def test_no_group_can_be_bettered_alone_and_one_on_both_axes_of_an_array_never_ends_farther():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    shapes = {"0": (3, 5), "1": (5, 7), "2": (7, 2), "both": (6, 6)}
    groups = [[("0", 1), ("1", 0)], [("1", 1), ("2", 0)], [("both", 0), ("both", 1)]]
    align = jax.jit(lambda params, reference: curves.align(params, reference, groups))

    for _ in range(20):
        params, reference = (
            {name: rng.normal(size=shape).astype("f") for name, shape in shapes.items()}
            for _ in range(2)
        )
        aligned = {name: np.asarray(array) for name, array in align(params, reference).items()}

        for inner, outer in itertools.pairwise("012"):
            gains = reference[inner].T @ aligned[inner] + reference[outer] @ aligned[outer].T
            best = gains[optimize.linear_sum_assignment(gains, maximize=True)].sum()
            np.testing.assert_allclose(np.trace(gains), best, rtol=1e-5)
        before, after = (np.vdot(p["both"], reference["both"]) for p in (params, aligned))
        assert after >= before - 1e-5


def test_params_that_are_not_finite_do_not_hold_the_matching_up():
    params = (np.full((3, 8), np.nan, np.float32), np.ones((8, 2), np.float32))

    assert np.isnan(align_layer(params, params)[0]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_weight_that_is_not_finite_loses_no_unit(bad):
    rng = np.random.default_rng(4)
    first, last = rng.normal(size=(3, 8)).astype("f"), rng.normal(size=(8, 2)).astype("f")
    first[1, 2] = bad

    aligned = align_layer((first, last), (first[:, ::-1], last[::-1]))

    order = [int(np.flatnonzero((last == row).all(axis=1))[0]) for row in np.asarray(aligned[1])]
    assert sorted(order) == list(range(8))
    np.testing.assert_array_equal(aligned[0], first[:, order])


def test_nothing_is_reordered_without_groups():
    params = {"w": np.arange(3, dtype=np.float32)}

    np.testing.assert_array_equal(curves.align(params, params, [])["w"], params["w"])


def test_axes_of_inputs_and_outputs_are_in_no_group():
    w, x = np.ones((3, 4), np.float32), np.ones((2, 3), np.float32)

    assert curves.groups_of(lambda w, x: x @ w, w, x) == []
    assert curves.groups_of(lambda w, x: (x @ w)[:, 0], w, x) == []


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda h: jnp.sort(h, axis=-1), "sort"),
        (lambda h: jnp.cumsum(h, axis=-1), "cumsum"),
        (lambda h: jnp.concatenate([h, h], axis=-1), "concatenate"),
        (lambda h: h[:, ::2], "slice"),
        (lambda h: h.reshape(8, 2), "reshape"),
        (lambda h: jax.lax.scan(lambda c, _: (c, c), h, None, 2)[0], "scan"),
    ],
)
def test_units_whose_order_is_lost_on_the_way_are_refused_by_name(operation, name):
    def predict(params, x):
        hidden = operation(jnp.tanh(x @ params[0]))
        return hidden @ jnp.ones((hidden.shape[-1], 3))

    with pytest.raises(ValueError, match=rf"curves\.groups_of: hidden units .* got {name} after"):
        curves.groups_of(predict, (np.ones((3, 8), np.float32),), np.ones((2, 3), np.float32))


@pytest.mark.parametrize("num_points", [2, 25])
def test_a_barrier_equals_a_loop_over_the_line(num_points):
    rng = np.random.default_rng(3)
    a, b = ({"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)} for _ in range(2))
    x = rng.normal(size=(7, 3))

    def loss(params, x):
        return jnp.mean(jnp.tanh(x @ params["w"] + params["b"][None]) ** 2)

    with jax.enable_x64(True):
        found = jax.jit(lambda a, b, x: curves.barrier(loss, a, b, x, num_points=num_points))(
            a, b, x
        )

    ts = np.linspace(0, 1, num_points)
    lost = []
    for t in ts:
        w, bias = ((1 - t) * a[k] + t * b[k] for k in ("w", "b"))
        lost.append(np.mean(np.tanh(x @ w + bias) ** 2))
    rises = [loss - (1 - t) * lost[0] - t * lost[-1] for t, loss in zip(ts, lost, strict=True)]
    np.testing.assert_allclose(found.coordinates, ts)
    np.testing.assert_allclose(found.losses, lost, rtol=1e-10)
    np.testing.assert_allclose(found.height, max(rises), rtol=1e-9, atol=1e-12)


def test_a_bowl_has_no_barrier_and_a_ring_one_of_height_one():
    left, right = np.array([-1, 0], np.float32), np.array([1, 0], np.float32)

    bowl, over_ring = jax.jit(
        lambda a, b: (curves.barrier(lambda x: jnp.sum(x**2), a, 3 * b), curves.barrier(ring, a, b))
    )(left, right)

    assert bowl.height == 0
    np.testing.assert_allclose(over_ring.height, 1, rtol=1e-6)


def test_a_barrier_has_a_derivative_in_what_its_loss_closes_over():
    x = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], np.float32)
    a, b = np.array([1.0, 0.5], np.float32), np.array([-1.0, 2.0], np.float32)

    def height(scale):
        return curves.barrier(lambda w: -jnp.sum((scale * (x @ w)) ** 2), a, b, num_points=5).height

    largest = 9 * np.sum((x @ (a - b)) ** 2) / 4  # scale^2 t (1 - t) |x (a - b)|^2 at t = 1/2
    np.testing.assert_allclose([height(3.0), jax.jit(height)(3.0)], largest, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(height))(3.0), 2 * largest / 3, rtol=1e-5)


@pytest.mark.parametrize("num_controls", [2, 3, 60])
def test_a_point_of_a_curve_is_that_of_de_casteljau(num_controls):
    rng = np.random.default_rng(num_controls)
    controls = {"w": rng.normal(size=(num_controls, 2, 3)), "b": rng.normal(size=num_controls)}

    point = jax.jit(curves.point)
    for t in (0.0, 0.3, 1.0):
        found = point(curves.Curve(controls), t)
        for name, rows in controls.items():
            while len(rows) > 1:
                rows = (1 - t) * rows[:-1] + t * rows[1:]
            np.testing.assert_allclose(found[name], rows[0], rtol=1e-5, atol=1e-6)


def test_a_point_asked_for_again_compiles_nothing(caplog):
    curve = curves.Curve({"w": jnp.ones((4, 2))})
    curves.point(curve, 0.3)

    with jax.log_compiles():
        curves.point(curve, 0.4)
        assert "Compiling" not in caplog.text
        jax.jit(lambda w: w + 1)(curve.controls["w"])
        assert "Compiling" in caplog.text  # so that it would be seen


def test_a_curve_in_half_precision_is_rounded_once():
    controls = np.array([1.0, 1.5, 2.0], jnp.bfloat16)
    point = jax.jit(curves.point)

    found = point(curves.Curve(controls), 0.3)

    assert found.dtype == jnp.bfloat16
    assert found == jnp.bfloat16(1.3)
    rng = np.random.default_rng(0)
    rows = rng.uniform(1, 2, size=(4, 50)).astype(jnp.bfloat16)
    exact = np.asarray(rows, float)
    while len(exact) > 1:
        exact = 0.7 * exact[:-1] + 0.3 * exact[1:]
    away = np.asarray(point(curves.Curve(rows), 0.3), float) - exact[0]
    assert np.abs(away).max() < 1.001 * 2**-8  # half of the distance between two such numbers
    place = jnp.bfloat16(0.3)
    found = point(curves.Curve(controls.astype(np.float32)), place)
    assert float(found) == pytest.approx(1 + float(place), rel=1e-6)


def test_the_best_curve_between_two_points_of_a_ring_is_found():
    with jax.enable_x64(True):
        first, last = np.array([-1.0, 0.0]), np.array([1.0, 0.0])
        num_steps = 20_000
        rate = lambda s: 0.5 / (1 + s / 40)  # noqa: E731
        ts = np.linspace(0, 1, 4001)
        nodes, weights = np.polynomial.legendre.leggauss(9)

        @jax.jit
        def connect(key):
            found = curves.connect(
                ring, first, last, optimizer=optax.sgd(rate), num_steps=num_steps, key=key
            )
            losses_at = jax.vmap(lambda t: ring(curves.point(found.curve, t)))
            return found, losses_at(ts), losses_at((nodes + 1) / 2)

        found, lost, at_nodes = jax.device_get(connect(jax.random.key(0)))
        controls = found.curve.controls

        np.testing.assert_array_equal(controls[0], first)
        np.testing.assert_array_equal(controls[2], last)
        np.testing.assert_allclose(np.abs(controls[1]), [0, 3 / np.sqrt(2)], atol=1e-4)
        np.testing.assert_allclose(at_nodes @ weights / 2, 2 / 105, atol=1e-4)
        np.testing.assert_allclose(lost.max(), 4 / 81, atol=1e-4)
        assert found.trajectory.losses.shape == (num_steps + 1,)


def test_several_control_points_are_trained_and_the_ends_stay():
    ends = np.array([[-1, 0], [1, 0]], np.float32)

    @jax.jit
    def connect(key):
        found = curves.connect(
            lambda p, scale: scale * ring(p["x"]),
            {"x": ends[0]},
            {"x": ends[1]},
            1.0,
            optimizer=optax.adam(0.05),
            num_steps=400,
            key=key,
            num_controls=3,
        )
        losses_at = jax.vmap(lambda t: ring(curves.point(found.curve, t)["x"]))
        return found.curve.controls["x"], losses_at(jnp.linspace(0, 1, 21))

    controls, lost = jax.device_get(connect(jax.random.key(1)))
    assert controls.shape == (5, 2)
    np.testing.assert_array_equal(controls[[0, -1]], ends)
    assert lost.max() < 0.05


def test_on_a_quadratic_the_mean_goes_with_the_trace_and_the_worst_with_the_sharpness():
    matrix = np.random.default_rng(5).normal(size=(6, 6))
    hessian = matrix @ matrix.T
    radii = np.array([0.5, 2.0, 1e-3])

    def bowl(params, hessian):
        x = jnp.concatenate([params["a"].ravel(), params["b"]])
        return 7 + x @ hessian @ x / 2

    with jax.enable_x64(True):
        profile = jax.jit(
            lambda hessian: curves.basin_profile(
                jax.random.key(0),
                bowl,
                {"a": np.zeros((2, 2)), "b": np.zeros(2)},
                hessian,
                radii=radii,
                num_directions=500,
                num_iterations=60,
                batch_size=250,
            )
        )(hessian)
    profile = jax.tree.map(np.asarray, profile)

    np.testing.assert_allclose(profile.center, 7)
    rise = radii**2 * np.trace(hessian) / 12
    np.testing.assert_allclose(profile.mean - 7, rise, rtol=0.1)
    np.testing.assert_allclose(
        profile.worst - 7, radii**2 * np.linalg.eigvalsh(hessian)[-1] / 2, rtol=1e-6
    )


@pytest.fixture(scope="module")
def profiles():
    """Of losses of two numbers, the start and the profile; one program for all."""

    def rises_within_a_ring(x):
        return jnp.where(jnp.sum(x**2) > 4, jnp.nan, jnp.where(x[0] > 0.9, jnp.inf, x @ x))

    def falls(params):
        """Along x or y in turn, of which x is higher; farther out only x is."""
        x = params[0] / jnp.sqrt(jnp.sum(params**2) + 1e-12)
        near = jnp.where(x > 0.99, 10 + params[1], params[0])
        return jnp.where(jnp.sum(params**2) < 2, near, jnp.where(x > 0.99, 1.0, 0.0))

    rows = {
        "quadratic": (
            lambda x: (1.0 * x[0] ** 2 + 3.0 * x[1] ** 2) / 2,
            [0, 0],
            [1],
            {"num_directions": 5000, "num_iterations": 1, "levels": (0.1, 0.5, 0.8)},
        ),
        "no quadratic": (
            lambda x: jnp.sum(jnp.cosh(x) - x) + x[0] ** 3 - x[0] * x[1],
            [0.3, -0.2],
            [0.1, 0.5, 1.5],
            {"num_directions": 4, "num_iterations": 40},
        ),
        "not finite": (
            rises_within_a_ring,
            [0, 0],
            [0.5, 1, 3],
            {"num_directions": 40, "levels": (0.2, 0.95)},
        ),
        "falls": (falls, [0, 0], [1, 2], {"num_directions": 1, "num_iterations": 3}),
        "into what is not a number": (
            lambda x: jnp.where(x[0] > 0.9, jnp.nan, x[0]),
            [0, 0],
            [1],
            {"num_directions": 1, "num_iterations": 3},
        ),
    }

    @jax.jit
    def find(key):
        return {
            name: curves.basin_profile(
                key, loss, np.array(start, np.float32), radii=np.array(radii, np.float32), **options
            )
            for name, (loss, start, radii, options) in rows.items()
        }

    return jax.device_get(find(jax.random.key(0)))


def test_quantiles_are_those_of_directions_spread_evenly_over_a_circle(profiles):
    found, levels = profiles["quadratic"], np.array([0.1, 0.5, 0.8])

    # 1/2 + sin^2 of the angle: a share q of all angles has a sine of at most sin(q pi / 2).
    wanted = 0.5 + np.sin(levels * np.pi / 2) ** 2
    np.testing.assert_allclose(found.quantiles[:, 0], wanted, atol=0.03)
    np.testing.assert_allclose(found.levels, levels)


def test_the_worst_direction_of_a_loss_that_is_no_quadratic_is_found(profiles):
    found = profiles["no quadratic"]

    angles = np.linspace(0, 2 * np.pi, 20_001)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    assert found.radii.shape == (3,)
    for radius, worst in zip(found.radii, found.worst, strict=True):
        x, y = np.array([[0.3], [-0.2]]) + radius * circle
        values = np.cosh(x) - x + np.cosh(y) - y + x**3 - x * y
        np.testing.assert_allclose(worst, values.max(), rtol=1e-5)


def test_a_loss_that_is_not_finite_shows_in_the_profile_and_stops_nothing(profiles):
    found = profiles["not finite"]

    np.testing.assert_allclose(found.worst, [0.25, np.inf, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found.quantiles[0], [0.25, 1, np.nan], rtol=1e-6)
    assert np.isinf(found.quantiles[1, 1])


def test_an_ascent_that_falls_keeps_the_best_it_has_seen(profiles):
    found = profiles["falls"]

    assert (found.quantiles[:, 1] == 0).all()  # the one random direction is not near x
    np.testing.assert_allclose(found.worst, [10, 1], rtol=1e-6)


def test_an_ascent_into_what_is_not_a_number_keeps_what_it_has_seen(profiles):
    found = profiles["into what is not a number"]

    drawn = found.quantiles[0, 0]  # of the one random direction
    assert drawn <= 0.9
    assert found.worst[0] == drawn
