"""What we minimize: losses per example, margins, and the mean that makes a loss function.

Predictions come before targets, shapes must be equal, and nothing is reduced: the mean is
taken by ``empirical_risk`` or by whoever wants one. At a kink the derivative is the one of
the flat side, 0; ``absolute_error``, which has no flat side, takes 0 as well. A label that
names no class gives NaN, under jit too, never a plausible number.
"""

from jaxgd.losses._classification import (
    binary_margin,
    hinge,
    multiclass_margin,
    ramp,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    squared_hinge,
    true_class_score,
)
from jaxgd.losses._regression import (
    absolute_error,
    half_squared_error,
    squared_error,
)
from jaxgd.losses._risk import (
    empirical_risk,
)

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
