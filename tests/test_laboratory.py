"""The descent laboratory measures what theory says, and finds what it says it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from experiments.beyond import batch_noise, momentum_map, optimizers, robust_or_not, stability
from experiments.data import points
from jaxgd import descent, neurons, surfaces

pytestmark = pytest.mark.usefixtures("x64")


def spectral_radius(companion):
    return np.abs(np.linalg.eigvals(np.array(companion, float))).max()


def test_the_rate_of_the_heavy_ball_is_that_of_the_closed_form_and_of_the_companion_matrix():
    alphas, betas = np.linspace(0.001, 0.039, 20), np.linspace(0, 0.95, 21)

    measured = jax.jit(momentum_map.sweep_rates)(alphas, betas).values

    sweep = jax.jit(lambda *axes: surfaces.sweep(momentum_map.closed_form_rate, *axes))
    closed = sweep(alphas, betas).values
    companion = [
        [
            max(
                spectral_radius([[1 + b - a * value, -b], [1, 0]])
                for value in momentum_map.EIGENVALUES
            )
            for b in betas
        ]
        for a in alphas
    ]
    np.testing.assert_allclose(closed, companion, rtol=1e-6)  # double roots hold half the digits
    shrinks, grows = closed < 1 - 1e-9, closed > 1 + 1e-9
    assert min(shrinks.sum(), grows.sum()) > 100
    assert np.isnan(measured[grows]).all()
    np.testing.assert_allclose(measured[shrinks], closed[shrinks], rtol=2e-3)


def test_the_search_for_the_fastest_descent_ends_where_goh_puts_it():
    coarse = jax.jit(momentum_map.sweep_rates)(
        np.linspace(0.02, 0.039, 20), np.linspace(0.5, 0.8, 21)
    )

    best = jax.jit(momentum_map.fastest)(coarse)

    np.testing.assert_allclose(best, (0.0330579, 0.669421, 0.818182), rtol=5e-3)


def companion_of(method, scaled_rate, beta):
    """What multiplies (x_t, x_{t-1}) per step, on x^2 / 2 times a curvature."""
    slope = 1 - scaled_rate
    return {
        "gradient descent": [[slope, 0], [1, 0]],
        "heavy ball": [[slope + beta, -beta], [1, 0]],
        "Nesterov": [[(1 + beta) * slope, -beta * slope], [1, 0]],
    }[method]


@pytest.mark.parametrize("method", stability.METHODS)
def test_the_largest_step_is_where_theory_and_the_companion_matrix_put_it(method):
    found = np.asarray(jax.jit(stability.bounds_of_parabolas, static_argnums=0)(method))

    bounds = [float(stability.BOUNDS[method](beta)) for beta in stability.MOMENTA]
    for curvature, row in zip(stability.CURVATURES, found, strict=True):
        np.testing.assert_allclose(curvature * row, bounds, rtol=2e-3)
    for beta, bound in zip(stability.MOMENTA, bounds, strict=True):
        assert spectral_radius(companion_of(method, 0.999 * bound, beta)) < 1
        assert spectral_radius(companion_of(method, 1.001 * bound, beta)) > 1


@pytest.mark.parametrize("method", ["heavy ball", "Nesterov"])
def test_a_descent_runs_away_beyond_the_bound_and_only_there(method):
    rates, betas = np.linspace(0.1, 4.15, 28), np.linspace(0, 0.9, 7)

    sweep = jax.jit(
        lambda: surfaces.sweep(lambda *at: stability.outcome(method, *at), rates, betas)
    )

    status = np.asarray(sweep().values["status"])
    radius = np.array(
        [[spectral_radius(companion_of(method, rate, b)) for b in betas] for rate in rates]
    )
    diverged = np.isin(status, [descent.Status.DIVERGED, descent.Status.NON_FINITE])
    assert (diverged == (radius > 1))[abs(radius - 1) > 5e-3].all()
    assert (status == descent.Status.CONVERGED)[radius < 0.9].all()
    assert 20 < diverged.sum() < diverged.size - 20


def test_the_largest_eigenvalue_rules_the_step_on_the_points_of_the_note():
    x, y = np.arange(1.0, 21.0), points.TWENTY.y

    found = jax.jit(stability.bounds_of_points, static_argnums=0)("heavy ball", x[:, None], y)

    hessian = np.array([[np.mean(x**2), np.mean(x)], [np.mean(x), 1]])
    bounds = (2 + 2 * np.array(stability.MOMENTA)) / np.linalg.eigvalsh(hessian)[-1]
    np.testing.assert_allclose(found, bounds, rtol=2e-3)


PLAIN = {
    "quadratic": lambda x, y: (
        (np.cos(np.pi / 6) * x + np.sin(np.pi / 6) * y) ** 2 / 2
        + 50 * (np.cos(np.pi / 6) * y - np.sin(np.pi / 6) * x) ** 2
    ),
    "Rosenbrock": lambda x, y: scipy.optimize.rosen([x, y]),
    "Himmelblau": lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
    "Beale": lambda x, y: (
        (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    ),
}


@pytest.mark.parametrize("name", optimizers.LANDSCAPES)
def test_a_landscape_has_its_published_formula_and_the_minima_that_scipy_finds(name):
    landscape = optimizers.LANDSCAPES[name]
    terms = optimizers.coefficients(landscape)
    points = np.random.default_rng(0).normal(size=(5, 2))
    losses = jax.jit(jax.vmap(optimizers.loss, in_axes=(0, None)))(points, terms)
    for point, loss in zip(points, losses, strict=True):
        np.testing.assert_allclose(loss, PLAIN[name](*point), rtol=1e-12)
    for minimum in optimizers.minima()[name]:
        found = scipy.optimize.minimize(
            lambda x: PLAIN[name](*x), minimum + np.array([0.2, -0.3]), method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 2000},
        )  # fmt: skip
        np.testing.assert_allclose(found.x, minimum, atol=1e-6)


def descents_of(key, name, *, count):
    landscape = optimizers.LANDSCAPES[name]
    axes = tuple(jnp.linspace(*span, count + i) for i, span in enumerate(landscape.window))
    terms, start = optimizers.coefficients(landscape), jnp.array(landscape.start)
    rate = landscape.rates.get(key, 0.0)
    return jax.jit(optimizers.descents, static_argnums=0)(key, terms, axes, start, rate)


@pytest.mark.parametrize(("key", "name"), [("L-BFGS", "Rosenbrock"), ("Adam", "Himmelblau")])
def test_descents_from_many_starts_end_at_known_minima_or_say_that_they_did_not(key, name):
    run, ends = descents_of(key, name, count=4)

    known = optimizers.minima()[name]
    basins = optimizers.arrivals(ends, known)
    assert basins.shape == (4, 5)
    assert set(basins.ravel()) == set(range(len(known)))
    for basin, x, y in zip(
        basins.ravel(), ends.values["x"].ravel(), ends.values["y"].ravel(), strict=True
    ):
        np.testing.assert_allclose((x, y), known[basin], atol=1e-4)
    np.testing.assert_allclose(run.path[0], optimizers.LANDSCAPES[name].start)
    np.testing.assert_allclose(run.losses[0], PLAIN[name](*run.path[0]))


def test_an_end_away_from_every_minimum_is_no_arrival():
    status = np.array([[0, 0, 1]])
    values = {"x": np.array([[1.0, 1.5, 1.0]]), "y": np.ones((1, 3)), "status": status}
    ends = surfaces.Surface((jnp.zeros(1), jnp.zeros(3)), values)

    assert optimizers.arrivals(ends, np.ones((1, 2))).tolist() == [[0, -1, -1]]


def test_rmsprop_passes_by_a_minimum_and_leaves_again():
    terms = optimizers.coefficients(optimizers.LANDSCAPES["Himmelblau"])

    run = jax.jit(
        lambda x: descent.optimize(
            optimizers.loss, x, terms, optimizer=optax.rmsprop(0.01), num_steps=1000
        )
    )(jnp.array([4.0, 2.3]))

    passing = int(jnp.argmin(run.grad_norms))
    assert run.grad_norms[passing] <= optimizers.TOLERANCE
    assert run.grad_norms[passing:].max() > 0.1


@pytest.fixture(name="clean")
def _clean(x64):
    return robust_or_not.sample(jax.random.key(3))


with_outliers = jax.jit(robust_or_not.with_outliers)


def hinge_by_linear_programming(data):
    """The least hinge risk: minimize weights @ slack with slack >= 0 and >= 1 - y (w x + b)."""
    x, y, weights = np.asarray(data.inputs)[:, 0], np.asarray(data.labels), np.asarray(data.weights)
    slack = -np.eye(len(x))
    found = scipy.optimize.linprog(
        np.concatenate([[0, 0], weights / weights.sum()]),
        A_ub=np.column_stack([-y * x, -y, slack]),
        b_ub=-np.ones(len(x)),
        bounds=[(None, None)] * 2 + [(0, None)] * len(x),
    )
    return found.fun, found.x[:2]


def test_the_exact_search_agrees_with_linear_programming_and_with_descent(clean):
    distances = np.array([3.0, 12.0, 60.0])
    rows = np.array([(at, 1, 0, 0) for at in distances])

    run = jax.vmap(lambda row: robust_or_not.end_of(clean, robust_or_not.LOSSES["hinge"], *row))
    ends = jax.jit(run)(rows)

    for distance, reached in zip(distances, ends.losses[:, -1], strict=True):
        data = with_outliers(clean, distance, 1.0)
        least, _ = hinge_by_linear_programming(data)
        np.testing.assert_allclose(robust_or_not.exact_minimum(data, "hinge")[0], least, rtol=1e-9)
        np.testing.assert_allclose(reached, least, rtol=1e-3)
        assert reached >= least


def test_the_hinge_gives_up_at_the_distance_of_the_formula(clean):
    limit = robust_or_not.giving_up(clean)

    for distance, flat in ((0.99 * limit, False), (1.01 * limit, True)):
        data = with_outliers(clean, distance, 1.0)
        weight, _ = hinge_by_linear_programming(data)[1]
        assert (abs(weight) < 1e-9) == flat


def test_the_exact_ramp_is_below_every_point_of_a_fine_grid_and_does_not_move(clean):
    def exact(distance):
        data = with_outliers(clean, distance, 1.0)
        return data, *robust_or_not.exact_minimum(data, "ramp")

    data, least, at = exact(6.0)
    sweep = jax.jit(
        lambda *axes: surfaces.sweep(
            lambda w, b: robust_or_not.risk(
                neurons.Neuron(weights=w[None], bias=b), data, robust_or_not.LOSSES["ramp"]
            ),
            *axes,
        )
    )
    around = sweep(at[0] + np.linspace(-5, 5, 41), at[1] + np.linspace(-5, 5, 43)).values
    assert around.min() >= least - 1e-12
    np.testing.assert_allclose(around[20, 21], least, rtol=1e-9)
    np.testing.assert_allclose(exact(60.0)[2], at)


def test_a_convex_descent_converges_below_the_bound_only_and_to_the_minimum_of_scipy(clean):
    data = with_outliers(clean, 6.0, 1.0)

    curvature, runs = jax.jit(robust_or_not.convex_descents, static_argnums=1)(
        data, robust_or_not.LOSSES["logistic"]
    )

    x, y, weights = np.asarray(data.inputs)[:, 0], np.asarray(data.labels), np.asarray(data.weights)

    def cost(p):
        return np.average(np.logaddexp(0, -y * (p[0] * x + p[1])), weights=weights)

    found = scipy.optimize.minimize(cost, np.zeros(2), tol=1e-10)
    p = 1 / (1 + np.exp(-(found.x[0] * x + found.x[1])))
    design = np.stack([x, np.ones_like(x)], axis=1)
    hessian = design.T @ (design * (weights * p * (1 - p) / weights.sum())[:, None])
    np.testing.assert_allclose(curvature, np.linalg.eigvalsh(hessian)[-1], rtol=1e-4)
    ended = np.asarray(runs.status) == descent.Status.CONVERGED
    assert ended.tolist() == [fraction < 1 for fraction in robust_or_not.FRACTIONS]
    np.testing.assert_allclose(runs.params[ended], [found.x] * ended.sum(), atol=1e-4)


def test_the_accuracy_in_closed_form_is_that_of_a_large_sample():
    neuron = neurons.Neuron(weights=jnp.array([-0.7]), bias=jnp.array(0.4))
    labels = np.repeat([-1, 1], 200_000)
    noise = robust_or_not.SPREAD * np.random.default_rng(0).normal(size=labels.size)

    right = np.mean(np.sign(-0.7 * (labels + noise) + 0.4) == labels)

    np.testing.assert_allclose(robust_or_not.accuracy(neuron), right, atol=3e-3)


def test_the_noise_of_batches_lifts_a_descent_by_the_excess_of_the_exact_recursion():
    rate, size = 0.3, 2
    rates = jnp.full(1000, rate)
    best = batch_noise.least_squares()

    _, costs = jax.jit(
        jax.vmap(lambda key: batch_noise.chain(key, best, rates, size))
    )(jax.random.split(jax.random.key(5), 200))  # fmt: skip

    excess = np.asarray(costs[:, 200:].mean(1)) - float(costs[0, 0])
    error = excess.std(ddof=1) / np.sqrt(excess.size)
    exact = batch_noise.exact_excess(rate, size)
    assert error < exact / 50
    assert abs(excess.mean() - exact) < 4 * error


def test_the_exact_excess_of_batches_of_one_is_where_the_second_moments_come_to_rest():
    a, rate = np.stack([np.ones(20), batch_noise.X], axis=1), 0.1
    residuals = a @ np.linalg.solve(a.T @ a, a.T @ batch_noise.Y) - batch_noise.Y
    moments = np.zeros((2, 2))
    for _ in range(500):
        kept = [np.eye(2) - rate * np.outer(row, row) for row in a]
        moments = np.mean(
            [
                k @ moments @ k.T + rate**2 * r**2 * np.outer(row, row)
                for k, r, row in zip(kept, residuals, a, strict=True)
            ],
            axis=0,
        )

    excess = np.trace(a.T @ a / 20 @ moments) / 2
    np.testing.assert_allclose(batch_noise.exact_excess(rate, 1), excess, rtol=1e-9)


def test_a_decaying_rate_passes_the_level_at_which_a_constant_one_hovers():
    steps = np.arange(1000, dtype=np.float32)
    keys = jax.random.split(jax.random.key(1), 20)
    best = batch_noise.least_squares()
    far = jax.tree.map(np.zeros_like, best)

    @jax.jit
    def costs_of(start, rates):
        return jax.vmap(lambda key: batch_noise.chain(key, start, rates, 1)[1])(keys)

    constant, decaying = (
        np.mean(costs_of(far, rates)[:, -50:])
        for rates in (np.full_like(steps, 0.1), np.float32(0.1) / (1 + steps / 100))
    )
    least = costs_of(best, 0 * steps)[0, 0]
    assert decaying - least < (constant - least) / 4
