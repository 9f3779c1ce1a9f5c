"""Products of a curvature matrix with vectors, for all params or for a block of them."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core.primitives import custom_lin_p

from jaxgd import _checks, _jaxprs
from jaxgd._jaxprs import Jaxpr
from jaxgd.curvature import _loader, _vectors
from jaxgd.curvature._vectors import Vector
from jaxgd.types import Array, LossFn, Params, PyTree

Where: TypeAlias = Callable[[str, Any], bool] | None
"""``where(path, leaf) -> bool``: whether an array belongs to the block; None for all of them."""


class Block(NamedTuple):
    """The arrays of the params that a curvature is asked for.

    Attributes:
      leaves: these arrays.
      select: takes a pytree shaped like the params to its arrays in the block.
      merge: takes new arrays of the block to the whole params, the others as they are.
      embed: takes arrays to a pytree shaped like the params, zero outside the block.
    """

    leaves: list[Array]
    select: Callable[[Params], list[Array]]
    merge: Callable[[list[Array]], Params]
    embed: Callable[[list[Array]], Params]


def block_of(caller: str, params: Params, where: Where) -> Block:
    """The arrays for which ``where`` holds; refuses a block that holds no number."""
    paths_and_leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [_checks.place(p) for p, _ in paths_and_leaves]
    leaves = [leaf for _, leaf in paths_and_leaves]
    chosen = list(range(len(leaves)))
    if where is not None:
        _checks.function(caller, "where", where)
        arguments = list(zip(paths, leaves, strict=True))
        with _checks.calling(caller, "where", where, arguments[0], "path, array"):
            answers = [where(path, leaf) for path, leaf in arguments]
        for path, answer in zip(paths, answers, strict=True):
            is_answer = isinstance(answer, (bool, np.bool_))
            wanted = f"where({path!r}, ...) must be True or False"
            _checks.that(caller, is_answer, wanted, _checks.kind(answer), error=TypeError)
        chosen = [index for index in chosen if answers[index]]
        wanted = f"where must hold for one array at least of {', '.join(paths)}"
        _checks.that(caller, bool(chosen), wanted, "none")
    num_params = sum(leaves[index].size for index in chosen)
    _checks.that(caller, num_params > 0, "params must hold at least one number", "empty arrays")

    def select(tree: Params) -> list[Array]:
        everything = jax.tree.leaves(tree)
        return [everything[index] for index in chosen]

    def replaced(others: list[Array], own: list[Array]) -> Params:
        everything = list(others)
        for index, leaf in zip(chosen, own, strict=True):
            everything[index] = leaf
        return jax.tree.unflatten(structure, everything)

    return Block(
        leaves=select(params),
        select=select,
        merge=lambda own: replaced(leaves, own),
        embed=lambda own: replaced([jnp.zeros_like(leaf) for leaf in leaves], own),
    )


def hvp(
    loss_fn: LossFn, params: Params, *data: PyTree, where: Where = None, batches: Any = None
) -> Callable[[Params], Params]:
    """Makes the function that multiplies the Hessian at some params by a vector.

    The gradient is linearized once; every product then runs its linear part alone. Where the
    gradient has no forward mode (a ``jax.custom_vjp`` within a ``jax.custom_vjp``, as in
    ``jax.experimental.ode.odeint``), the product is its reverse mode, since H is symmetric.

    Args:
      loss_fn: ``loss_fn(params, *data) -> scalar``.
      params: a pytree of floating-point arrays.
      *data: passed on to ``loss_fn``.
      where: ``(path, leaf) -> bool``, path as "0/weights": the arrays of the block wanted. The
        entries of v outside it do not count, and those of H v are zero.
      batches: an iterable of batches, say a PyTorch DataLoader, each a tuple or list of arrays
        with equally many rows, for data that do not fit. ``loss_fn(params, *data, *batch)`` is
        then a mean over the batch's rows; H is the Hessian of its mean over all rows, a ragged
        last batch included. The host reads all batches for each product, so nothing of this is
        traced by ``jax.jit``; the memory is that of one batch. Two passes must be equal.

    Returns:
      ``v -> H v`` on pytrees shaped like ``params``, with their dtypes.

    Raises:
      TypeError: if ``loss_fn`` or ``where`` is not callable, the params or the loss not
        floating-point, a dtype of a vector not that of the params, the gradient cannot be
        differentiated, or ``batches`` is no iterable that can be read again, or called with
        traced arrays.
      ValueError: if there are no params, the loss is no scalar, a vector does not fit, or the
        batches are empty, not alike but for their rows, or differ from one pass to the next.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature
      >>> product = curvature.hvp(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]))
      >>> product(jnp.array([1.0, 0.0]))
      Array([6., 2.], dtype=float32)

    Source:
      Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """
    caller = "curvature.hvp"
    _checks.function(caller, "loss_fn", loss_fn)
    params = _checks.params(caller, "params", params)
    product, block = hessian(caller, loss_fn, params, data, where, batches)

    def narrow_product(vector: list[Array]) -> list[Array]:
        return narrowed(product(_vectors.widened(vector)), block)

    return _on_params(caller, params, block, narrow_product)


def gnvp(
    predict_fn: Callable[[PyTree, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], PyTree],
    params: Params,
    inputs: PyTree,
    targets: PyTree,
    *,
    where: Where = None,
) -> Callable[[Params], Params]:
    """Makes the function that multiplies the Gauss-Newton matrix by a vector.

    ``G = J' H J``: J is the Jacobian of the predictions, H the Hessian of the mean loss in the
    predictions. G is the Hessian of ``losses.empirical_risk(predict_fn, loss)`` for a model
    made linear at the params, so it equals the Hessian where the model is linear, and it is
    positive semi-definite where the loss is convex. To see its spectrum, give the functions of
    this room that linear model: see the example. The same way leads to data in batches: give
    ``hvp`` the linear model's risk, and the batches.

    Args:
      predict_fn: ``(params, inputs) -> predictions``, for a whole batch.
      loss: ``(predictions, targets) -> losses``, one per example.
      params: a pytree of floating-point arrays.
      inputs: passed on to ``predict_fn``.
      targets: passed on to ``loss``.
      where: ``(path, leaf) -> bool``: the block wanted; see ``hvp``.

    Returns:
      ``v -> G v`` on pytrees shaped like ``params``, with their dtypes.

    Raises:
      TypeError: if ``predict_fn``, ``loss`` or ``where`` is not callable, the params or a
        vector not floating-point of equal dtypes, or the loss cannot be differentiated twice.
      ValueError: if there are no params, a vector does not fit, or ``loss`` does not return one
        value per example or compares each prediction with every target.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxgd import curvature, losses
      >>> predict = lambda w, x: jnp.tanh(w * x)
      >>> w, x, y = jnp.array(0.5), jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
      >>> product = curvature.gnvp(predict, losses.half_squared_error, w, x, y)
      >>> print(round(float(product(jnp.array(1.0))), 3))
      0.662
      >>> linear = lambda v, x: sum(jax.jvp(lambda w: predict(w, x), (w,), (v - w,)))
      >>> risk = losses.empirical_risk(linear, losses.half_squared_error)
      >>> print(round(float(curvature.hvp(risk, w, x, y)(jnp.array(1.0))), 3))
      0.662

    Source:
      Schraudolph, Fast curvature matrix-vector products for second-order gradient descent,
      2002.
    """
    caller = "curvature.gnvp"
    _checks.function(caller, "predict_fn", predict_fn)
    _checks.function(caller, "loss", loss)
    params = _checks.params(caller, "params", params)
    block = block_of(caller, params, where)

    def predict(leaves: list[Array]) -> PyTree:
        given = block.merge(leaves), inputs
        with _checks.calling(caller, "predict_fn", predict_fn, given, "params, inputs"):
            predictions = predict_fn(*given)
        return _checks.params(caller, "the output of predict_fn", predictions)

    def risk(predictions: PyTree) -> PyTree:
        given = predictions, targets
        with _checks.calling(caller, "loss", loss, given, "predictions, targets"):
            losses = _checks.floating(caller, "the output of loss", loss(*given))
        losses = _checks.one_per_example(caller, losses, targets)
        _checks.each_with_its_own(caller, loss, predictions, targets)
        return jnp.mean(losses)

    predictions, push = jax.linearize(predict, block.leaves)
    pull = jax.linear_transpose(push, block.leaves)
    if _has_reverse_mode_alone(jax.make_jaxpr(push)(block.leaves).jaxpr):
        push = _adjoint(pull, predictions)
    whole = block_of(caller, predictions, None)
    bend = linearized_gradient(caller, risk, whole, ())[1]

    def product(vector: list[Array]) -> list[Array]:
        images = bend(whole.select(push(vector)))
        with _checks.differentiable(caller, "predict_fn"):
            return pull(whole.merge(images))[0]

    return _on_params(caller, params, block, product)


def _adjoint(pull: Callable[..., PyTree], predictions: PyTree) -> Callable[[list[Any]], Any]:
    """A linear program as the reverse mode of its transpose."""
    zeros = jax.tree.map(jnp.zeros_like, predictions)
    adjoint = jax.vjp(lambda cotangents: pull(cotangents)[0], zeros)[1]
    return lambda vector: adjoint(vector)[0]


def _on_params(
    caller: str, params: Params, block: Block, product: Callable[[list[Array]], list[Array]]
) -> Callable[[Params], Params]:
    """A product of arrays in the block as one of pytrees, which are checked."""

    def checked_product(vector: Params) -> Params:
        vector = _checks.params(caller, "vector", vector)
        _checks.like(caller, "vector", vector, "params", params)
        _same_dtypes(caller, vector, params)
        return block.embed(product(block.select(vector)))

    return checked_product


def _same_dtypes(caller: str, vector: Params, params: Params) -> None:
    pairs = zip(jax.tree.leaves_with_path(vector), jax.tree.leaves(params), strict=True)
    for (path, leaf), other in pairs:
        at = jax.tree_util.keystr(path)
        wanted = f"vector{at} must have the dtype of params{at}, {other.dtype}"
        cure = f"Write vector{at}.astype(params{at}.dtype)."
        is_equal = leaf.dtype == other.dtype
        _checks.that(caller, is_equal, wanted, str(leaf.dtype), cure, error=TypeError)


def gradient_of(
    caller: str,
    loss_fn: Any,
    block: Block,
    data: tuple[PyTree, ...],
    cure: str = "",
    what: str = "params and data",
) -> Callable[[list[Array]], list[Array]]:
    """The gradient of a loss in the arrays of a block; the cure is for too many arguments."""
    _checks.function(caller, "loss_fn", loss_fn)
    loss = _checks.trainable(caller, "loss_fn", loss_fn, cure, what)

    def gradient(leaves: list[Array]) -> list[Array]:
        with _checks.differentiable(caller, "loss_fn"):
            return jax.grad(lambda leaves: loss(block.merge(leaves), *data))(leaves)

    return gradient


def linearized_gradient(
    caller: str,
    loss_fn: Any,
    block: Block,
    data: tuple[PyTree, ...],
    cure: str = "",
    what: str = "params and data",
) -> PyTree:
    """A pair: the gradient in the arrays of a block, the product of its symmetric derivative."""
    gradient = gradient_of(caller, loss_fn, block, data, cure, what)
    try:
        value, product = jax.linearize(gradient, block.leaves)
        if _has_reverse_mode_alone(jax.make_jaxpr(product)(block.leaves).jaxpr):
            transposed = jax.linear_transpose(product, block.leaves)
            jax.eval_shape(transposed, block.leaves)
            return value, lambda vector: transposed(vector)[0]
        return value, product
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = error
    jax.eval_shape(gradient, block.leaves)  # what is wrong with the loss itself is said as it is
    wanted = "the gradient of loss_fn must be differentiable"
    got = f"{type(reason).__name__}: {str(reason).splitlines()[0].rstrip('.')}"
    return _checks.that(caller, False, wanted, got, error=TypeError)


def _has_reverse_mode_alone(jaxpr: Jaxpr) -> bool:
    """Whether a linear program calls one that JAX can transpose and cannot run."""
    return any(eqn.primitive is custom_lin_p for eqn in _jaxprs.equations(jaxpr))


def hessian(
    caller: str,
    loss_fn: Any,
    params: Params,
    data: tuple[PyTree, ...],
    where: Where,
    batches: Any = None,
) -> tuple[Callable[[Vector], Vector], Block]:
    """The product on wide vectors: rounded to the params' dtypes on the way in alone."""
    _checks.function(caller, "loss_fn", loss_fn)
    params = _checks.params(caller, "params", params)
    block = block_of(caller, params, where)
    if batches is None:
        product = linearized_gradient(caller, loss_fn, block, data)[1]
        return lambda vector: _vectors.widened(product(narrowed(vector, block))), block
    _loader.check(caller, batches, params)
    cure = "With batches, leave the data out: they are given twice." if data else ""

    def batch_product(vector: Vector, batch: PyTree) -> Vector:
        product = linearized_gradient(caller, loss_fn, block, (*data, *batch), cure)[1]
        return _vectors.widened(product(narrowed(vector, block)))

    return _loader.HostProduct(caller, batches, batch_product), block


def narrowed(vector: Vector, block: Block) -> list[Array]:
    """A vector in the dtypes of the params."""
    return [v.astype(leaf.dtype) for v, leaf in zip(vector, block.leaves, strict=True)]
