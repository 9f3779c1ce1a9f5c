"""How the loss bends: the Hessian, seen through its products with vectors.

The Hessian H of a loss at some params is never formed. One product ``H v`` costs about as
much as two gradients; from a few dozen of them come the outermost eigenvalues and the trace.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgd import _checks
from jaxgd.types import Array, LossFn, Params, PRNGKey


class EigenPairs(NamedTuple):
    """Eigenvalues of a Hessian with their eigenvectors, the largest magnitude first.

    Attributes:
      values: shape (num_pairs,).
      vectors: shaped like the params with a leading axis num_pairs; orthonormal.
      residuals: shape (num_pairs,): ``||H v - lambda v||``. Some eigenvalue of H lies within
        this distance of ``values[i]``.
    """

    values: Array
    vectors: Params
    residuals: Array


class TraceEstimate(NamedTuple):
    """A random estimate of a Hessian's trace, and how far to trust it.

    Attributes:
      value: shape (): the mean over the probes; right on average.
      standard_error: shape (): the spread to expect of ``value`` from key to key.
    """

    value: Array
    standard_error: Array


def hvp(loss_fn: LossFn, params: Params, *data: Any) -> Callable[[Params], Params]:
    """Makes the function that multiplies the Hessian at some params by a vector.

    The gradient is linearized once; every product then runs its linear part alone.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.

    Returns:
      ``v -> H v`` on pytrees shaped like ``params``.

    Raises:
      TypeError: if ``loss_fn`` is not callable, or the params or the loss not floating-point.
      ValueError: if there are no params, the loss is no scalar, or a vector does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> product = curvature.hvp(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]))
      >>> product(jnp.array([1.0, 0.0]))
      Array([6., 2.], dtype=float32)

    Source:
      Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """
    where = "curvature.hvp"
    params = _checks.params(where, "params", params)
    product = _hvp(where, loss_fn, params, data)

    def checked_product(vector: Params) -> Params:
        vector = _checks.params(where, "vector", vector)
        _checks.like(where, "vector", vector, "params", params)
        return product(vector)

    return checked_product


def _hvp(where: str, loss_fn: Any, params: Params, data: tuple[Any, ...]) -> Callable[[Any], Any]:
    _checks.function(where, "loss_fn", loss_fn)
    gradient = jax.grad(_checks.trainable(where, "loss_fn", loss_fn))
    return jax.linearize(lambda p: gradient(p, *data), params)[1]


def _flat_hvp(
    where: str, loss_fn: Any, params: Params, data: tuple[Any, ...]
) -> tuple[Callable[[Array], Array], Array, Callable[[Array], Params]]:
    """The same on flat vectors; the params as one, and the way back to their pytree."""
    params = _checks.params(where, "params", params)
    flat, unravel = ravel_pytree(params)
    product = _hvp(where, loss_fn, params, data)
    return lambda vector: ravel_pytree(product(unravel(vector)))[0], flat, unravel


def top_eigenpairs(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    num_pairs: int,
    num_iterations: int,
) -> EigenPairs:
    """Finds the eigenvalues of largest magnitude, with eigenvectors, by Lanczos iteration.

    Each new vector is made orthogonal to all before it, twice, so that no eigenvalue is found
    again as a ghost. More iterations make the pairs more exact; the residuals say how exact.

    Args:
      key: a PRNG key, for the first vector.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of n numbers in floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_pairs: static, from 1 to the number of iterations and to n.
      num_iterations: products with the Hessian, static; n of them are exact and enough, and
        more are not taken. As many vectors of length n are kept.

    Returns:
      EigenPairs. An eigenvalue that the Hessian has several times may be found fewer times.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` not callable, the params or the loss not
        floating-point, or a number no static int.
      ValueError: if there are no params, the loss is no scalar, or a number is out of range.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> pairs = curvature.top_eigenpairs(
      ...     jax.random.key(0), lambda x: x @ (jnp.array([1.0, -5.0, 3.0]) * x) / 2,
      ...     jnp.zeros(3), num_pairs=2, num_iterations=3,
      ... )
      >>> [round(float(value), 3) for value in pairs.values]
      [-5.0, 3.0]

    Source:
      Golub and Van Loan, Matrix Computations, 2013, Sec. 10.3; Ghorbani, Krishnan and Xiao,
      An investigation into neural net optimization via Hessian eigenvalue density, 2019.
    """
    where = "curvature.top_eigenpairs"
    num_pairs = _checks.count(where, "num_pairs", num_pairs, least=1)
    values, vectors, product, unravel = _ritz_pairs(
        where, key, loss_fn, params, data, num_iterations
    )
    wanted = f"num_pairs must be at most {values.size}, the iterations or the number of params"
    _checks.that(where, num_pairs <= values.size, wanted, str(num_pairs))
    order = jnp.argsort(-jnp.abs(values))[:num_pairs]
    values, vectors = values[order], vectors[order]
    residuals = jax.vmap(product)(vectors) - values[:, None] * vectors
    return EigenPairs(
        values=values,
        vectors=jax.vmap(unravel)(vectors),
        residuals=jnp.linalg.norm(residuals, axis=1),
    )


def sharpness(
    key: PRNGKey, loss_fn: LossFn, params: Params, *data: Any, num_iterations: int
) -> Array:
    """Estimates the largest eigenvalue of the Hessian, from below.

    Gradient descent on a quadratic is stable only below the learning rate 2 / sharpness.
    The figure belongs to the params, not to the function they compute: rescaling two layers
    against each other changes it and leaves the function as it is (Dinh et al., Sharp minima
    can generalize for deep nets, 2017).

    Args:
      key: a PRNG key, for the first vector.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_iterations: products with the Hessian, static; see ``top_eigenpairs``.

    Returns:
      A scalar; the largest eigenvalue, whatever the magnitude of a negative one.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` not callable, the params or the loss not
        floating-point, or ``num_iterations`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_iterations`` is
        below 1.

    Example:
      >>> import jax
      >>> from jaxgd import curvature
      >>> curvature.sharpness(jax.random.key(0), lambda x: 3 * x**2, 1.0, num_iterations=1)
      Array(6., dtype=float32)

    Source:
      Cohen, Kaur, Li, Kolter and Talwalkar, Gradient descent on neural networks typically
      occurs at the edge of stability, 2021.
    """
    where = "curvature.sharpness"
    return _ritz_pairs(where, key, loss_fn, params, data, num_iterations)[0].max()


def hessian_trace(
    key: PRNGKey, loss_fn: LossFn, params: Params, *data: Any, num_samples: int
) -> TraceEstimate:
    """Estimates the trace of the Hessian, the sum of all its eigenvalues.

    For a probe v of random signs, ``v . H v`` is the trace on average: the entries off the
    diagonal cancel. Where there are none, one probe is exact. The probes run one after
    another, so that the memory is that of one product with the Hessian.

    Args:
      key: a PRNG key, for the probes.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_samples: how many probes, static, at least 2; four times as many halve the error.

    Returns:
      A TraceEstimate. Its standard error is the standard deviation of the probes' values
      over the square root of ``num_samples``; itself an estimate, rough from few probes.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` not callable, the params or the loss not
        floating-point, or ``num_samples`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_samples`` is
        below 2.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> trace = curvature.hessian_trace(
      ...     jax.random.key(0), lambda x: x @ (jnp.array([1.0, -5.0, 3.0]) * x) / 2,
      ...     jnp.zeros(3), num_samples=2,
      ... )
      >>> float(trace.value), float(trace.standard_error)
      (-1.0, 0.0)

    Source:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    where = "curvature.hessian_trace"
    _checks.key(where, "key", key)
    num_samples = _checks.count(where, "num_samples", num_samples, least=2)
    product, flat, _ = _flat_hvp(where, loss_fn, params, data)

    def sample(key: PRNGKey) -> Array:
        probe = jax.random.rademacher(key, flat.shape, flat.dtype)
        return probe @ product(probe)

    samples = jax.lax.map(sample, jax.random.split(key, num_samples))
    return TraceEstimate(
        value=samples.mean(), standard_error=samples.std(ddof=1) / num_samples**0.5
    )


def _ritz_pairs(
    where: str, key: Any, loss_fn: Any, params: Params, data: tuple[Any, ...], num_iterations: int
) -> tuple[Array, Array, Callable[[Array], Array], Callable[[Array], Params]]:
    """Eigenvalues and vectors of the Hessian on the space that Lanczos iteration spans."""
    _checks.key(where, "key", key)
    num_iterations = _checks.count(where, "num_iterations", num_iterations, least=1)
    product, flat, unravel = _flat_hvp(where, loss_fn, params, data)
    diagonal, off_diagonal, basis = _lanczos(key, product, flat, min(num_iterations, flat.size))
    off = jnp.diag(off_diagonal, 1)
    values, weights = jnp.linalg.eigh(jnp.diag(diagonal) + off + off.T)
    return values, weights.T @ basis, product, unravel


def _lanczos(
    key: Any, product: Callable[[Array], Array], like: Array, num_iterations: int
) -> tuple[Array, Array, Array]:
    """The diagonal and off-diagonal of H in an orthonormal basis, and that basis as rows."""
    # Where the iteration has come upon an invariant space, it goes on with a new vector.
    starts = jax.random.normal(key, (num_iterations, like.size), like.dtype)

    def orthogonal(vector: Array, basis: Array) -> Array:
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
        return vector

    def step(carry: tuple[Array, Array, Array], j: Array) -> Any:
        basis, vector, scale = carry
        basis = basis.at[j].set(vector)
        image = product(vector)
        along = vector @ image
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        rest = orthogonal(image, basis)
        length = jnp.linalg.norm(rest)
        goes_on = length > 10 * jnp.finfo(like.dtype).eps * scale
        fresh = orthogonal(starts[j], basis)
        following = jnp.where(goes_on, rest, fresh)
        following = following / jnp.linalg.norm(following)
        return (basis, following, scale), (along, jnp.where(goes_on, length, 0))

    first = starts[-1] / jnp.linalg.norm(starts[-1])
    carry = (jnp.zeros_like(starts), first, jnp.zeros((), like.dtype))
    (basis, _, _), (diagonal, off) = jax.lax.scan(step, carry, jnp.arange(num_iterations))
    return diagonal, off[:-1], basis
