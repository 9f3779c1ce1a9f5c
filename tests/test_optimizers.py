"""Optimizers through descent.optimize, against closed forms, NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from jaxgd import descent

pytestmark = pytest.mark.usefixtures("x64")

NUM_STEPS = 25
CURVATURES = np.array([0.5, 2.0, 7.0])
START = np.array([3.0, -2.0, 1.0])


def quadratic(x):
    return jnp.sum(CURVATURES * x**2) / 2


def run(optimizer, num_steps=NUM_STEPS):
    return jax.jit(
        lambda start: (
            descent.optimize(quadratic, start, optimizer=optimizer, num_steps=num_steps).path
        )
    )(START)


def test_descent_on_a_quadratic_shrinks_each_eigenvector_by_its_own_factor():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    hessian, rate = q @ np.diag(CURVATURES) @ q.T, 0.25

    trajectory = jax.jit(
        lambda start: descent.gradient_descent(
            lambda x: x @ hessian @ x / 2, start, learning_rate=rate, num_steps=NUM_STEPS
        )
    )(START)

    factors = (1 - rate * CURVATURES) ** np.arange(NUM_STEPS + 1)[:, None]
    np.testing.assert_allclose(trajectory.path, (factors * (START @ q)) @ q.T, atol=1e-12)


# With momentum each coordinate obeys x[t+1] = p x[t] + q x[t-1]: powers of one 2 x 2 matrix.


def heavy_ball(curvature, rate, momentum):
    """The coefficients p and q, and x[-1] as a multiple of x[0]."""
    return 1 - rate * curvature + momentum, -momentum, 1.0


def nesterov(curvature, rate, momentum):
    shrink = 1 - rate * curvature
    return (1 + momentum) * shrink, -momentum * shrink, 1 / shrink


@pytest.mark.parametrize("rule", [heavy_ball, nesterov])
@pytest.mark.parametrize(("rate", "momentum"), [(0.1, 0.9), (0.15, 0.5), (0.05, 0.0)])
def test_momentum_on_a_quadratic_is_a_power_of_its_companion_matrix(rule, rate, momentum):
    path = run(optax.sgd(rate, momentum=momentum, nesterov=rule is nesterov))

    for column, curvature, start in zip(np.asarray(path).T, CURVATURES, START, strict=True):
        p, q, before = rule(curvature, rate, momentum)
        companion = np.array([[p, q], [1, 0]])
        powers = [np.linalg.matrix_power(companion, t)[0] for t in range(NUM_STEPS + 1)]
        expected = start * np.array(powers) @ [1, before]
        np.testing.assert_allclose(column, expected, rtol=1e-10, atol=1e-11)


def test_adam_is_the_adam_of_its_paper():
    rate, b1, b2, epsilon = 0.1, 0.9, 0.999, 1e-8
    x, mean, square = START, 0.0, 0.0
    expected = [x]
    for t in range(1, NUM_STEPS + 1):
        gradient = CURVATURES * x
        mean = b1 * mean + (1 - b1) * gradient
        square = b2 * square + (1 - b2) * gradient**2
        unbiased_mean, unbiased_square = mean / (1 - b1**t), square / (1 - b2**t)
        x = x - rate * unbiased_mean / (np.sqrt(unbiased_square) + epsilon)
        expected.append(x)

    np.testing.assert_allclose(run(optax.adam(rate)), expected, rtol=1e-12, atol=1e-12)


# Where L-BFGS ends, SciPy's ends, too.


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def logistic_regression(w):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4))
    y = np.sign(x @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.normal(size=50))
    return jnp.mean(jax.nn.softplus(-y * (x @ w))) + 0.01 * jnp.sum(w**2)


@pytest.mark.parametrize(
    ("loss_fn", "start"),
    [(rosenbrock, np.array([-1.2, 1.0, -0.5])), (logistic_regression, np.zeros(4))],
    ids=["Rosenbrock", "logistic regression"],
)
def test_lbfgs_ends_where_the_one_of_scipy_ends(loss_fn, start):
    trajectory = jax.jit(
        lambda start: descent.optimize(
            loss_fn, start, optimizer=optax.lbfgs(), num_steps=100, tolerance=1e-8
        )
    )(start)

    value_and_grad = jax.jit(jax.value_and_grad(loss_fn))
    options = {"gtol": 1e-10, "ftol": 0, "maxiter": 1000}
    theirs = scipy.optimize.minimize(
        value_and_grad, start, method="L-BFGS-B", jac=True, options=options
    )
    assert trajectory.status == descent.Status.CONVERGED
    np.testing.assert_allclose(trajectory.params, theirs.x, atol=1e-7)
    np.testing.assert_allclose(trajectory.losses[-1], theirs.fun, rtol=1e-12, atol=1e-14)
