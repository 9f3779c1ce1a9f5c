"""Losses of scores that are to name a class: cross-entropies, margins, and losses of margins."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgd import _checks
from jaxgd.types import Array, ArrayLike


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
