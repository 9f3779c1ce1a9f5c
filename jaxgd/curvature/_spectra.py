"""Eigenvalues of the Hessian, by Lanczos iteration."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd.curvature import _lanczos, _products, _vectors
from jaxgd.curvature._products import Block, Where
from jaxgd.types import Array, LossFn, Params, PRNGKey


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


def top_eigenpairs(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    num_pairs: int,
    num_iterations: int,
    where: Where = None,
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
    num_pairs = _checks.count(caller, "num_pairs", num_pairs, least=1)
    ritz = _ritz_of(caller, key, loss_fn, params, data, num_iterations, where)
    num_values = ritz.values.size
    wanted = f"num_pairs must be at most {num_values}, the iterations or the number of params"
    _checks.that(caller, num_pairs <= num_values, wanted, str(num_pairs))
    order = jnp.argsort(-jnp.abs(ritz.values))[:num_pairs]
    values, coefficients = ritz.values[order], ritz.coefficients[:, order].T
    wide = [jnp.tensordot(coefficients, rows, 1, precision="highest") for rows in ritz.basis]
    vectors = _products.narrowed(wide, ritz.block)

    def residual(pair: tuple[Array, list[Array]]) -> Array:
        value, vector = pair[0], _vectors.widened(pair[1])
        image = ritz.product(vector)
        rest = [h - value * v for h, v in zip(image, vector, strict=True)]
        return _vectors.norm(rest) / _vectors.norm(vector)

    coarsest = max(jnp.finfo(leaf.dtype).eps for leaf in ritz.block.leaves)
    largest = jnp.abs(ritz.values).max()
    smallest_known = jnp.maximum(float(coarsest) * largest, jnp.finfo(largest.dtype).tiny)
    floor = jnp.where(largest == 0, 0, smallest_known)
    return EigenPairs(
        values=values,
        vectors=jax.vmap(ritz.block.embed)(vectors),
        residuals=jax.lax.map(residual, (values, vectors)) + floor,
    )


class _Ritz(NamedTuple):
    """Eigenvalues of the Hessian on the space that Lanczos iteration spans, ascending.

    The eigenvectors are ``coefficients.T @ basis``.
    """

    values: Array
    coefficients: Array
    basis: _vectors.Vector
    product: _lanczos.Product
    block: Block


def _ritz_of(
    caller: str,
    key: Any,
    loss_fn: Any,
    params: Params,
    data: tuple[Any, ...],
    num_iterations: int,
    where: Where,
) -> _Ritz:
    _checks.key(caller, "key", key)
    num_iterations = _checks.count(caller, "num_iterations", num_iterations, least=1)
    product, block = _products.hessian(caller, loss_fn, params, data, where)
    like = _vectors.widened(block.leaves)
    num_iterations = min(num_iterations, sum(leaf.size for leaf in like))
    key_first, key_fresh = jax.random.split(key)
    first = _vectors.normal(key_first, like)
    tridiagonal = _lanczos.tridiagonalize(key_fresh, product, first, num_iterations)
    values, coefficients = _lanczos.eigen(tridiagonal)
    return _Ritz(values, coefficients, tridiagonal.basis, product, block)


def sharpness(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    num_iterations: int,
    where: Where = None,
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
    return _ritz_of(caller, key, loss_fn, params, data, num_iterations, where).values.max()


class Stability(NamedTuple):
    """Which learning rates a loss allows near some params.

    Attributes:
      sharpness: shape (): the largest eigenvalue of the Hessian.
      stable_rate: shape (): ``2 / sharpness``, above which gradient descent on a quadratic
        diverges; inf where nothing bends upwards.
      condition: shape (): the largest magnitude of an eigenvalue over the smallest. At any
        stable rate the flattest direction takes about that many steps.
    """

    sharpness: Array
    stable_rate: Array
    condition: Array


def stability(
    key: PRNGKey,
    loss_fn: LossFn,
    params: Params,
    *data: Any,
    num_iterations: int,
    where: Where = None,
) -> Stability:
    """Says why a descent diverges or crawls: the largest stable rate, and the condition.

    Near a minimum, gradient descent at the rate eta multiplies the distance along an
    eigenvector of the Hessian by ``1 - eta lambda`` at each step: the sharpest direction
    bounds the rate, and the flattest then sets the number of steps. Inputs of one size, with
    their mean taken away, bring the two together.

    Args:
      key: a PRNG key, for the first vector.
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of n numbers in floating-point arrays.
      *data: passed on to ``loss_fn``.
      num_iterations: products with the Hessian, static; see ``top_eigenpairs``. With n of them
        all is exact to rounding; with fewer the sharpness and the condition come from below.
      where: ``(path, leaf) -> bool``: the block to look at; see ``top_eigenpairs``.

    Returns:
      Stability, in float32 or better. A condition near 1 / eps of the arithmetic says only that
      the smallest eigenvalue is lost in rounding.

    Raises:
      TypeError: if ``key`` is no key, ``loss_fn`` or ``where`` not callable, the params or the
        loss not floating-point, or ``num_iterations`` no static int.
      ValueError: if there are no params, the loss is no scalar, or ``num_iterations`` is
        below 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> bowl = curvature.stability(
      ...     jax.random.key(0), lambda x: 2 * x[0] ** 2 + x[1] ** 2 / 2, jnp.ones(2),
      ...     num_iterations=2,
      ... )
      >>> print(*[round(float(value), 3) for value in bowl])
      4.0 0.5 4.0

    Source:
      LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, Sec. 5.
    """
    caller = "curvature.stability"
    values = _ritz_of(caller, key, loss_fn, params, data, num_iterations, where).values
    sharpest, magnitudes = values.max(), jnp.abs(values)
    return Stability(
        sharpness=sharpest,
        stable_rate=2 / jnp.maximum(sharpest, 0),
        condition=magnitudes.max() / magnitudes.min(),
    )
