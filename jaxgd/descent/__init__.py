"""How parameters move: gradient descent, by hand and with Optax, with its whole trace.

The rule is ``params - learning_rate * grads``. The loop around it looks at each point (loss,
gradient), judges it, records it, and steps. A run that has ended stands still while others,
under ``jax.vmap``, go on.
"""

from jaxgd.descent._judging import DIVERGENCE_FACTOR
from jaxgd.descent._minibatches import minibatches
from jaxgd.descent._results import Trajectory, status_name, trim
from jaxgd.descent._rules import gradient_descent, optimize, step
from jaxgd.types import Status

__all__ = [
    "DIVERGENCE_FACTOR",
    "Status",
    "Trajectory",
    "gradient_descent",
    "minibatches",
    "optimize",
    "status_name",
    "step",
    "trim",
]
