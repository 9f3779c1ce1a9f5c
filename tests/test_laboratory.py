"""The descent laboratory measures what theory says, and finds what it says it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import momentum_map
from jaxgd import surfaces

pytestmark = pytest.mark.usefixtures("x64")


def spectral_radius(companion):
    return np.abs(np.linalg.eigvals(np.array(companion, float))).max()


def test_the_rate_of_the_heavy_ball_is_that_of_the_closed_form_and_of_the_companion_matrix():
    alphas, betas = jnp.linspace(0.001, 0.039, 20), jnp.linspace(0, 0.95, 21)

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
