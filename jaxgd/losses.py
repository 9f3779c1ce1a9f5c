"""What we minimize: losses per example, margins, and the mean that makes a loss function.

Predictions come before targets, shapes must be equal, and nothing is reduced: the mean is
taken by ``empirical_risk`` or by whoever wants one. At a kink the derivative is the one of
the flat side, 0; ``absolute_error``, which has no flat side, takes 0 as well. A label that
names no class gives NaN, under jit too, never a plausible number.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd import _checks, _jaxprs
from jaxgd.types import Array, ArrayLike, LossFn, Params, PyTree

__all__ = [
    "absolute_error",
    "binary_margin",
    "empirical_risk",
    "half_squared_error",
    "hinge",
    "multiclass_margin",
    "ramp",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "squared_hinge",
    "true_class_score",
]


_SWAPPED = "Swapped? Write losses.empirical_risk(predict_fn, loss)."


def _difference(where: str, predictions: ArrayLike, targets: ArrayLike) -> Array:
    predictions = _checks.floating(where, "predictions", predictions)
    targets = _checks.real(where, "targets", targets)
    _checks.same_shape(where, predictions=predictions, targets=targets)
    return predictions - targets


def squared_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``(z - y)^2``.

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in squared units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.squared_error(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([0., 1., 4.], dtype=float32)
    """
    return jnp.square(_difference("losses.squared_error", predictions, targets))


def half_squared_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``(z - y)^2 / 2``, whose derivative is the residual ``z - y``.

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in squared units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax
      >>> from jaxgd import losses
      >>> jax.grad(losses.half_squared_error)(5.0, 3.0)
      Array(2., dtype=float32, weak_type=True)
    """
    return 0.5 * jnp.square(_difference("losses.half_squared_error", predictions, targets))


def absolute_error(predictions: ArrayLike, targets: ArrayLike) -> Array:
    """Computes ``|z - y|``, with derivative 0 where they are equal.

    (``jax.numpy.abs`` has the derivative 1 there.)

    Args:
      predictions: shape (...), floating-point, in the units of the targets.
      targets: shape (...), equal to that of ``predictions``.

    Returns:
      Shape (...): in the units of the targets.

    Raises:
      TypeError: if ``predictions`` are not floating-point, or ``targets`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.absolute_error(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 1.0, 1.0]))
      Array([0., 1., 2.], dtype=float32)
    """
    difference = _difference("losses.absolute_error", predictions, targets)
    return difference * jnp.sign(difference)


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Computes the cross-entropy of binary labels under sigmoid probabilities.

    For a label y and a logit z with ``p = sigmoid(z)``, the loss is
    ``-y log p - (1 - y) log(1 - p)``, computed as ``y softplus(-z) + (1 - y) softplus(z)``,
    which neither overflows nor loses the small losses of large ``|z|``.

    Args:
      logits: shape (...), floating-point: log-odds of label 1, any finite number.
      labels: shape (...), equal to that of ``logits``: 0 or 1, or a probability. Anything
        outside [0, 1], such as a label of -1, gives NaN.

    Returns:
      Shape (...): in nats.

    Raises:
      TypeError: if ``logits`` are not floating-point, or ``labels`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> logits, labels = jnp.array([0.0, 4.0]), jnp.array([1.0, 1.0])
      >>> losses.sigmoid_binary_cross_entropy(logits, labels).round(3)
      Array([0.693, 0.018], dtype=float32)

    Source:
      Bishop, Pattern Recognition and Machine Learning, 2006, Sec. 4.3.2.
    """
    where = "losses.sigmoid_binary_cross_entropy"
    logits = _checks.floating(where, "logits", logits)
    labels = _checks.real(where, "labels", labels).astype(logits.dtype)
    _checks.same_shape(where, logits=logits, labels=labels)
    loss = labels * jax.nn.softplus(-logits) + (1 - labels) * jax.nn.softplus(logits)
    return jnp.where((labels >= 0) & (labels <= 1), loss, jnp.nan)


def _class_labels(where: str, name: str, scores: Array, labels: Any) -> Array:
    """Integer labels for scores whose last axis holds the classes."""
    _checks.that(
        where,
        scores.ndim > 0 and scores.shape[-1] > 0,
        f"{name} must have a last axis of classes",
        f"shape {scores.shape}",
    )
    labels = _checks.array(where, "labels", labels)
    shape = scores.shape[:-1]
    cure = ""
    if labels.shape == scores.shape:
        cure = "One-hot labels become integers by labels.argmax(axis=-1)."
    elif labels.shape == (*shape, 1):
        cure = "Write labels[..., 0]."
    wanted = f"labels must have the shape of {name} without its last axis, {shape}"
    _checks.that(where, labels.shape == shape, wanted, str(labels.shape), cure)
    labels = _checks.integers(where, "labels", labels, "Write labels.astype(int).")
    # In a narrow dtype the number of classes itself may not exist: 256 is 0 in uint8.
    return labels.astype(jnp.int32) if jnp.iinfo(labels.dtype).bits < 32 else labels


def _entry_of_label(scores: Array, labels: Array) -> Array:
    """``scores[..., labels]``, or NaN where a label is not in [0, C)."""
    known = (labels >= 0) & (labels < scores.shape[-1])
    index = jnp.where(known, labels, 0)
    entry = jnp.take_along_axis(scores, index[..., None], axis=-1)[..., 0]
    return jnp.where(known, entry, jnp.nan)


def softmax_cross_entropy_with_integer_labels(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Computes the cross-entropy of class labels under softmax probabilities.

    For logits h and the true class y the loss is ``-log(exp(h_y) / sum_j exp(h_j))``,
    computed with the largest logit subtracted first. It is the loss of one example: a mean
    over N examples has the factor 1/N, never 1/C.

    Args:
      logits: shape (..., C), floating-point.
      labels: shape (...), integers from 0 to C - 1. Any other label gives NaN.

    Returns:
      Shape (...): in nats.

    Raises:
      TypeError: if ``logits`` are not floating-point, or ``labels`` not integers.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> logits, labels = jnp.array([[2.0, 5.0, 1.0]]), jnp.array([1])
      >>> losses.softmax_cross_entropy_with_integer_labels(logits, labels).round(4)
      Array([0.0659], dtype=float32)

    Source:
      Bishop, Pattern Recognition and Machine Learning, 2006, Sec. 4.3.4.
    """
    where = "losses.softmax_cross_entropy_with_integer_labels"
    logits = _checks.floating(where, "logits", logits)
    labels = _class_labels(where, "logits", logits, labels)
    return -_entry_of_label(jax.nn.log_softmax(logits), labels)


def hinge(margins: ArrayLike) -> Array:
    """Computes ``max(0, 1 - m)``, with derivative 0 at the kink ``m = 1``.

    (``optax.losses.hinge_loss`` has -1/2 there, scikit-learn -1.) The margin is whatever
    the definition at hand says: ``binary_margin``, ``multiclass_margin``, or the
    ``true_class_score`` of the note, which ignores all other classes.

    Args:
      margins: shape (...), floating-point; above 0 where the example is right.

    Returns:
      Shape (...), at least 0.

    Raises:
      TypeError: if ``margins`` are not floating-point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.hinge(jnp.array([2.0, 0.5, -1.0]))
      Array([0. , 0.5, 2. ], dtype=float32)

    Source:
      Cortes and Vapnik, Support-vector networks, 1995.
    """
    return jax.nn.relu(1 - _checks.floating("losses.hinge", "margins", margins))


def squared_hinge(margins: ArrayLike) -> Array:
    """Computes ``max(0, 1 - m)^2``, which is differentiable at ``m = 1`` too.

    Args:
      margins: shape (...), floating-point; above 0 where the example is right.

    Returns:
      Shape (...), at least 0.

    Raises:
      TypeError: if ``margins`` are not floating-point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.squared_hinge(jnp.array([2.0, 0.5, -1.0]))
      Array([0.  , 0.25, 4.  ], dtype=float32)
    """
    return jnp.square(jax.nn.relu(1 - _checks.floating("losses.squared_hinge", "margins", margins)))


def ramp(margins: ArrayLike, cut: ArrayLike) -> Array:
    """Computes ``max(0, 1 - m) - max(0, s - m)``: the hinge, cut off at ``1 - s``.

    Past the cut s an example costs no more however wrong it is, so a wrong label cannot
    pull the boundary any further. The price: the loss is not convex, and beyond the cut
    its derivative is 0, so an example that starts there is never learned. At both kinks,
    ``m = s`` and ``m = 1``, the derivative is that of the flat side, 0.

    Args:
      margins: shape (...), floating-point; above 0 where the example is right.
      cut: s, a scalar below 1; -1 / (C - 1) is usual for C classes.

    Returns:
      Shape (...), from 0 to ``1 - cut``.

    Raises:
      TypeError: if ``margins`` are not floating-point.
      ValueError: if ``cut`` is no scalar, or is known to be 1 or more.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.ramp(jnp.array([2.0, 0.5, -1.0, -10.0]), cut=-0.5)
      Array([0. , 0.5, 1.5, 1.5], dtype=float32)

    Source:
      Collobert, Sinz, Weston and Bottou, Trading convexity for scalability, 2006.
    """
    where = "losses.ramp"
    margins = _checks.floating(where, "margins", margins)
    is_below = not _checks.is_known(cut) or bool(cut < 1)
    _checks.that(where, is_below, "cut must be below 1", str(cut))
    cut = _checks.scalar(where, "cut", cut).astype(margins.dtype)
    return jnp.where(margins <= cut, 1 - cut, jax.nn.relu(1 - margins))


def true_class_score(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Picks ``h_y``, the score of the true class.

    The note plugs it into the hinge and the ramp. As a margin it has two faults: it
    ignores the other classes, so equal scores for all classes can have zero loss, and
    adding a constant to all scores changes it. See ``multiclass_margin``.

    Args:
      scores: shape (..., C), floating-point.
      labels: shape (...), integers from 0 to C - 1. Any other label gives NaN.

    Returns:
      Shape (...).

    Raises:
      TypeError: if ``scores`` are not floating-point, or ``labels`` not integers.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.true_class_score(jnp.array([[2.0, 5.0, 1.0]]), jnp.array([1]))
      Array([5.], dtype=float32)
    """
    where = "losses.true_class_score"
    scores = _checks.floating(where, "scores", scores)
    return _entry_of_label(scores, _class_labels(where, "scores", scores, labels))


def binary_margin(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Computes ``y f(x)`` for labels of -1 and +1.

    Args:
      scores: shape (...), floating-point: f(x), above 0 for the class +1.
      labels: shape (...), equal to that of ``scores``: -1 or +1. Any other label gives
        NaN; labels of 0 and 1 become these by ``2 * labels - 1``.

    Returns:
      Shape (...): above 0 where the example is right.

    Raises:
      TypeError: if ``scores`` are not floating-point, or ``labels`` not real.
      ValueError: if the two shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.binary_margin(jnp.array([2.0, 3.0]), jnp.array([1, -1]))
      Array([ 2., -3.], dtype=float32)
    """
    where = "losses.binary_margin"
    scores = _checks.floating(where, "scores", scores)
    labels = _checks.real(where, "labels", labels).astype(scores.dtype)
    _checks.same_shape(where, scores=scores, labels=labels)
    return jnp.where(jnp.abs(labels) == 1, labels * scores, jnp.nan)


def multiclass_margin(scores: ArrayLike, labels: ArrayLike) -> Array:
    """Computes ``h_y - max_{j != y} h_j``: how far the true class leads the others.

    Where several other classes share the maximum, they share its derivative equally.

    Args:
      scores: shape (..., C) with C at least 2, floating-point.
      labels: shape (...), integers from 0 to C - 1. Any other label gives NaN.

    Returns:
      Shape (...): above 0 where the true class has the largest score.

    Raises:
      TypeError: if ``scores`` are not floating-point, or ``labels`` not integers.
      ValueError: if the shapes do not fit, or there is a single class.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses
      >>> losses.multiclass_margin(jnp.array([[2.0, 5.0, 1.0]]), jnp.array([1]))
      Array([3.], dtype=float32)

    Source:
      Crammer and Singer, On the algorithmic implementation of multiclass kernel-based
      vector machines, 2001.
    """
    where = "losses.multiclass_margin"
    scores = _checks.floating(where, "scores", scores)
    labels = _class_labels(where, "scores", scores, labels)
    num_classes = scores.shape[-1]
    _checks.that(
        where, num_classes >= 2, "scores must have at least two classes", f"shape {scores.shape}"
    )
    others = jnp.where(jax.nn.one_hot(labels, num_classes, dtype=bool), -jnp.inf, scores)
    return _entry_of_label(scores, labels) - jnp.max(others, axis=-1)


def empirical_risk(
    predict_fn: Callable[[Params, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], Array],
    *,
    batch_size: int | None = None,
) -> LossFn:
    """Makes the mean loss of a model over a data set: what descent minimizes.

    ``risk(params, inputs, targets) = mean(loss(predict_fn(params, inputs), targets))``

    With a ``batch_size`` the same mean is computed over so many rows at a time, one batch after
    the other, a shorter last one included. A derivative computes the predictions of a batch
    again instead of keeping them, so that values, gradients and Hessian products hold the
    activations of one batch, for about one more forward pass.

    Args:
      predict_fn: ``(params, inputs) -> predictions``, for a whole batch.
      loss: ``(predictions, targets) -> losses``, one per example: its shape is that of the
        targets, or their first axes.
      batch_size: how many rows are computed at once, static, at least 1; None computes all.

    Returns:
      A function ``(params, inputs, targets) -> scalar``. Inputs and targets are arrays, or
      pytrees of arrays, whose first axis counts the examples.

    Raises:
      TypeError: if one of the two is not callable, or ``batch_size`` is no static int.
      ValueError: if ``batch_size`` is below 1; from the function, if ``loss`` does not return
        one value per example, compares each prediction with every target, or, with a
        ``batch_size``, the arrays have different numbers of rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import losses, neurons
      >>> risk = losses.empirical_risk(neurons.weighted_sum, losses.half_squared_error)
      >>> neuron = neurons.Neuron(weights=jnp.array([2.0]), bias=jnp.array(0.0))
      >>> risk(neuron, jnp.array([[1.0], [2.0]]), jnp.array([3.0, 4.0]))
      Array(0.25, dtype=float32)
    """
    where = "losses.empirical_risk"
    _checks.function(where, "predict_fn", predict_fn)
    _checks.function(where, "loss", loss)
    room = str(getattr(predict_fn, "__module__", ""))
    got = f"the loss {getattr(predict_fn, '__name__', '')}"
    is_loss = room.startswith((__name__, "optax.losses"))
    wanted = "predict_fn must make predictions of params and inputs"
    _checks.that(where, not is_loss, wanted, got, _SWAPPED)
    if batch_size is not None:
        batch_size = _checks.count(where, "batch_size", batch_size, least=1)

    return functools.partial(_risk, predict_fn, loss, batch_size)


def _risk(
    predict_fn: Callable[[Params, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], Array],
    batch_size: int | None,
    params: Params,
    inputs: PyTree,
    targets: PyTree,
) -> Array:
    """A function of a module, so that a risk can be pickled where its functions can."""
    where = "losses.empirical_risk"

    def is_swapped() -> Any:
        values = jax.eval_shape(lambda p: predict_fn(loss(p, inputs), targets), params)
        return _one_per_example(where, jnp.zeros(values.shape), targets)

    def calling(name: str, fn: Any, arguments: tuple[Any, Any], what: str) -> PyTree:
        wanted = "predict_fn must make predictions of params and inputs"
        with (
            _checks.suspecting(where, is_swapped, wanted, "one that compares", _SWAPPED),
            _checks.calling(where, name, fn, arguments, what),
        ):
            return fn(*arguments)

    def per_example(params: Params, inputs: PyTree, targets: PyTree) -> Array:
        predictions = calling("predict_fn", predict_fn, (params, inputs), "params, inputs")
        values = calling("loss", loss, (predictions, targets), "predictions, targets")
        values = _one_per_example(where, values, targets)
        _each_with_its_own(where, loss, predictions, targets)
        return values

    if batch_size is None:
        return jnp.mean(per_example(params, inputs, targets))
    num_rows = _num_rows(where, {"inputs": inputs, "targets": targets})
    if num_rows <= batch_size:
        return jnp.mean(per_example(params, inputs, targets))
    return _mean_over_batches(per_example, params, (inputs, targets), num_rows, batch_size)


def _one_per_example(where: str, values: PyTree, targets: PyTree) -> Array:
    """Losses whose shape is that of the targets, or their first axes."""
    values = _checks.array(where, "the output of loss", values)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(targets)] or [values.shape]
    fits = any(
        values.shape == shape[: values.ndim] and (values.ndim > 0 or shape == ())
        for shape in shapes
    )
    cure = "Give predictions and targets one shape, so that nothing broadcasts."
    if values.ndim == 0:
        cure = "The mean is taken here: return the losses of the examples."
    wanted = f"loss must return one value per example of targets of shape {shapes[0]}"
    _checks.that(where, fits, wanted, f"shape {values.shape}", cure)
    return values


def _each_with_its_own(
    where: str, loss: Callable[..., PyTree], predictions: PyTree, targets: PyTree
) -> None:
    """Refuses a loss that compares every prediction with every target, and then sums over these.

    Its values are one per example, too. But it takes more targets than predictions, or neither
    one example more nor one column more, where there are as many columns as examples.
    """
    if not (hasattr(predictions, "shape") and hasattr(targets, "shape")):
        return
    shapes, num_rows = (predictions.shape, targets.shape), jnp.shape(targets)[:1]
    if len(shapes[0]) == len(shapes[1]) or not num_rows or predictions.shape[:1] != num_rows:
        return

    def computes(predictions: tuple[int, ...], targets: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of what is computed on the way, of operands of some shapes."""
        shapes = zip((predictions, targets), dtypes, strict=True)
        operands = [jax.ShapeDtypeStruct(*each) for each in shapes]
        try:
            program = jax.make_jaxpr(loss)(*operands)
        except Exception:  # whatever a loss says of operands that do not fit
            return []
        results = (v for eqn in _jaxprs.equations(program) for v in eqn.outvars)
        return [getattr(v.aval, "shape", ()) for v in results]

    dtypes = [jax.dtypes.canonicalize_dtype(each.dtype) for each in (predictions, targets)]
    size = num_rows[0]
    left, right = (shape[1:] for shape in shapes)
    crossed = computes((size + 2, *left), (size + 3, *right))
    broadcasts = any({size + 2, size + 3} <= set(shape) for shape in crossed)
    if size in (*left, *right):
        longer = computes((size + 1, *left), (size + 1, *right))
        wider = computes(*((size, *(n + (n == size) for n in rest)) for rest in (left, right)))
        broadcasts |= not (longer or wider)
    _checks.that(
        where,
        not broadcasts,
        "loss must compare each prediction with its own target",
        f"predictions of shape {shapes[0]} broadcast against targets of shape {shapes[1]}",
        "Give predictions and targets one shape, so that nothing broadcasts.",
    )


def _num_rows(where: str, data: dict[str, Any]) -> int:
    """The number of examples, which the first axes of all arrays count."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(data)]
    rows = {shape[0] if shape else None for shape in shapes}
    got = ", ".join(str(shape) for shape in shapes)
    wanted = "with a batch_size, the first axes of inputs and targets must have one length"
    _checks.that(where, len(rows) == 1 and None not in rows, wanted, f"shapes {got}")
    return shapes[0][0]


def _mean_over_batches(
    per_example: Callable[..., Array], params: Params, data: Any, num_rows: int, batch_size: int
) -> Array:
    """The mean of values per example, batch by batch, with the activations of one of them."""
    num_batches, num_left = divmod(num_rows, batch_size)

    @jax.checkpoint
    def total(params: Params, batch: PyTree) -> Array:
        losses = per_example(params, *batch)
        return jnp.sum(losses, dtype=np.promote_types(losses.dtype, np.float32))

    def rows(start: ArrayLike, size: int) -> PyTree:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), data)

    def add(so_far: Array, index: Array) -> tuple[Array, None]:
        return so_far + total(params, rows(index * batch_size, batch_size)), None

    data = jax.tree.map(jnp.asarray, data)
    losses = jax.eval_shape(per_example, params, *rows(0, batch_size))
    zero = jnp.zeros((), np.promote_types(losses.dtype, np.float32))
    summed, _ = jax.lax.scan(add, zero, jnp.arange(num_batches))
    if num_left:
        summed = summed + total(params, rows(num_rows - num_left, num_left))
    num_values = num_rows * (losses.size // batch_size)
    return (summed / num_values).astype(losses.dtype)
