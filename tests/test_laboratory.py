"""The descent laboratory measures what theory says, and finds what it says it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import momentum_map, stability
from jaxgd import descent, surfaces

pytestmark = pytest.mark.usefixtures("x64")


def spectral_radius(companion):
    return np.abs(np.linalg.eigvals(np.array(companion, float))).max()


def test_the_rate_of_the_heavy_ball_is_that_of_the_closed_form_and_of_the_companion_matrix():
    alphas, betas = np.linspace(0.001, 0.039, 20), np.linspace(0, 0.95, 21)

    measured = jax.jit(momentum_map.sweep_rates)(alphas, betas).values

    closed = surfaces.sweep(momentum_map.closed_form_rate, alphas, betas).values
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
        jnp.linspace(0.02, 0.039, 12), jnp.linspace(0.5, 0.8, 13)
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
    x, y = np.arange(1.0, 21.0), stability.gradient_descent.Y

    found = jax.jit(stability.bounds_of_points, static_argnums=0)("heavy ball", x[:, None], y)

    hessian = np.array([[np.mean(x**2), np.mean(x)], [np.mean(x), 1]])
    bounds = (2 + 2 * np.array(stability.MOMENTA)) / np.linalg.eigvalsh(hessian)[-1]
    np.testing.assert_allclose(found, bounds, rtol=2e-3)
