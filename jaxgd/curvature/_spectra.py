"""Eigenvalues of the Hessian, by Lanczos iteration: the outermost ones, and the density of all."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd._repr import short_repr
from jaxgd.curvature import _lanczos, _loader, _products, _vectors
from jaxgd.curvature._lanczos import Product, Ritz
from jaxgd.curvature._products import Block, Where
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, LossFn, Params, PRNGKey, PyTree


class EigenPairs(NamedTuple):
    """Eigenvalues of a Hessian with their eigenvectors, the largest magnitude first.

    Attributes:
      values: shape (num_pairs,).
      vectors: shaped like the params with a leading axis num_pairs; orthonormal, zero outside
        the block that was asked for.
      residuals: shape (num_pairs,): ``||H v - lambda v||`` of the vectors returned, plus what
        the arithmetic may hide, eps times the largest value. Some eigenvalue of H lies within
        this distance of ``values[i]``.
    """

    values: Array
    vectors: Params
    residuals: Array

    __repr__ = short_repr


def top_eigenpairs(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_pairs: int,
    num_iterations: int,
    where: Where = None,
    batches: Any = None,
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
        more are not taken. That many vectors of length n, and three, are kept, in float32 or
        better, beside the vectors returned.
      where: ``(path, leaf) -> bool``, path as "0/weights": which arrays make the block of the
        Hessian that is looked at.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      EigenPairs; vectors in the dtypes of the params, values and residuals in float32 or
      better. An eigenvalue that the Hessian has several times may be found fewer times.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or a number no static int.
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
    caller = "curvature.top_eigenpairs"
    _checks.key(caller, "key", key)
    num_pairs = _checks.count(caller, "num_pairs", num_pairs, least=1)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    num_iterations = _checks.count(caller, "num_iterations", num_iterations, least=1)
    num_values = min(num_iterations, sum(leaf.size for leaf in block.leaves))
    wanted = f"num_pairs must be at most {num_values}, the iterations or the number of params"
    _checks.that(caller, num_pairs <= num_values, wanted, str(num_pairs))
    ritz = ritz_of(caller, key, product, block, num_iterations)
    values, wide = _loader.compiled(_largest, static=1)(ritz, num_pairs)
    vectors = _products.narrowed(wide, block)

    def residual(pair: tuple[Array, list[Array]]) -> Array:
        vector = _vectors.widened(pair[1])
        distance = _loader.compiled(_residual)
        return distance(pair[0], vector, product(vector))

    residuals = _loader.each(product, residual, (values, vectors))
    with_floor = _loader.compiled(_with_floor)
    coarsest = max(jnp.finfo(leaf.dtype).eps for leaf in block.leaves)
    return EigenPairs(
        values=values,
        vectors=jax.vmap(block.embed)(vectors),
        residuals=with_floor(residuals, ritz.values, float(coarsest)),
    )


def _largest(ritz: Ritz, num_pairs: int) -> tuple[Array, Vector]:
    """The eigenvalues of largest magnitude and their vectors."""
    order = jax.lax.top_k(jnp.abs(ritz.values), num_pairs)[1]
    coefficients = ritz.coefficients[:, order].T
    vectors = [jnp.tensordot(coefficients, rows, 1, precision="highest") for rows in ritz.basis]
    return ritz.values[order], vectors


def _residual(value: Array, vector: Vector, image: Vector) -> Array:
    """How far a vector is from an eigenvector."""
    rest = [h - value * v for h, v in zip(image, vector, strict=True)]
    return _vectors.norm(rest) / _vectors.norm(vector)


def _with_floor(residuals: Array, values: Array, eps: float) -> Array:
    """Residuals with what the arithmetic may hide."""
    largest = jnp.abs(values).max()
    smallest_known = jnp.maximum(eps * largest, jnp.finfo(largest.dtype).tiny)
    return residuals + jnp.where(largest == 0, 0, smallest_known)


def ritz_of(
    caller: str,
    key: PRNGKey,
    product: Product,
    block: Block,
    num_iterations: int,
    reorthogonalize: bool = True,
) -> Ritz:
    """Eigenvalues of a matrix on the space that it spans from a random vector."""
    num_iterations = _checks.count(caller, "num_iterations", num_iterations, least=1)
    draw = _loader.compiled(_vectors.irregular)
    first = draw(key, _vectors.widened(block.leaves))
    return _lanczos.ritz(product, first, num_iterations, reorthogonalize)


def sharpness(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_iterations: int,
    where: Where = None,
    reorthogonalize: bool = True,
    batches: Any = None,
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
      where: ``(path, leaf) -> bool``: the block to look at; see ``top_eigenpairs``.
      reorthogonalize: static. False keeps four vectors instead of ``num_iterations + 3``, for
        models of 10^8 params: the estimate still comes from below, but later, since what has
        been found is found again.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      A scalar, in float32 or better: the largest eigenvalue, whatever the magnitude of a
      negative one.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or ``num_iterations`` no static int.
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
    caller = "curvature.sharpness"
    _checks.key(caller, "key", key)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    return ritz_of(caller, key, product, block, num_iterations, reorthogonalize).values.max()


class SpectralDensity(NamedTuple):
    """The eigenvalues of a Hessian as a distribution: a weighted set of points per probe.

    The mean over the probes of ``sum_k weights[s, k] f(nodes[s, k])`` estimates the mean of f
    over the n eigenvalues, exactly for polynomials up to degree ``2 K - 1`` but for the noise
    of the probes.

    Attributes:
      nodes: shape (num_samples, K), ascending.
      weights: shape (num_samples, K); each row is positive and sums to 1.
    """

    nodes: Array
    weights: Array

    __repr__ = short_repr


def spectral_density(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: PyTree,
    num_iterations: int,
    num_samples: int,
    where: Where = None,
    reorthogonalize: bool = True,
    batches: Any = None,
) -> SpectralDensity:
    """Estimates the density of all eigenvalues, by stochastic Lanczos quadrature.

    From each probe of random signs Lanczos iteration makes a tridiagonal matrix: its
    eigenvalues are the nodes, the squared first entries of its eigenvectors the weights. The
    first moment of the density is the trace of H over n, the second its squared Frobenius norm
    over n.

    Args:
      key: a PRNG key. Probe s is ``optax.tree.random_like(jax.random.split(key,
        num_samples)[s], leaves, jax.random.rademacher)`` for the list of the block's arrays.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of n numbers in floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_iterations: products with the Hessian per probe, static; K is the smaller of it and n.
      num_samples: how many probes, static, at least 1; they run one after another.
      where: ``(path, leaf) -> bool``: the block to look at; see ``top_eigenpairs``.
      reorthogonalize: static; see ``sharpness``. Without it an eigenvalue far out may appear
        several times, its weight shared out among its copies; the density stays what it is.
      batches: an iterable of batches of data that do not fit; see ``hvp``.

    Returns:
      A SpectralDensity, in float32 or better.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or a number no static int.
      ValueError: if there are no params, the loss is no scalar, or a number is below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> density = curvature.spectral_density(
      ...     jax.random.key(0), lambda x: x @ (jnp.array([1.0, -5.0, 3.0]) * x) / 2,
      ...     jnp.zeros(3), num_iterations=3, num_samples=1,
      ... )
      >>> jnp.abs(density.nodes - jnp.array([[-5.0, 1.0, 3.0]])).max() < 1e-5
      Array(True, dtype=bool)
      >>> density.weights.round(3)
      Array([[0.333, 0.333, 0.333]], dtype=float32)

    Source:
      Ghorbani, Krishnan and Xiao, An investigation into neural net optimization via Hessian
      eigenvalue density, 2019; Papyan, The full spectrum of deepnet Hessians at scale, 2018.
    """
    caller = "curvature.spectral_density"
    _checks.key(caller, "key", key)
    num_samples = _checks.count(caller, "num_samples", num_samples, least=1)
    product, block = _products.hessian(caller, loss_fn, params, data, where, batches)
    num_iterations = _checks.count(caller, "num_iterations", num_iterations, least=1)
    like = _vectors.widened(block.leaves)

    def sample(key: PRNGKey) -> tuple[Array, Array]:
        probe = _loader.compiled(_vectors.signs)(key, like)
        ritz = _lanczos.ritz(product, probe, num_iterations, reorthogonalize)
        return ritz.values, jnp.square(ritz.coefficients[0])

    nodes, weights = _loader.each(product, sample, jax.random.split(key, num_samples))
    return SpectralDensity(nodes=nodes, weights=weights)
