"""How the loss bends: the Hessian, seen through its products with vectors.

The Hessian H of a loss at some params is never formed. One product ``H v`` costs about as
much as two gradients; from a few dozen of them come the outermost eigenvalues and the trace.
"""

from jaxgd.curvature._batches import Estimate, batch_sharpness, gradient_noise_scale
from jaxgd.curvature._products import hvp
from jaxgd.curvature._spectra import EigenPairs, Stability, sharpness, stability, top_eigenpairs
from jaxgd.curvature._traces import TraceEstimate, hessian_trace

__all__ = [
    "EigenPairs",
    "Estimate",
    "Stability",
    "TraceEstimate",
    "batch_sharpness",
    "gradient_noise_scale",
    "hessian_trace",
    "hvp",
    "sharpness",
    "stability",
    "top_eigenpairs",
]
