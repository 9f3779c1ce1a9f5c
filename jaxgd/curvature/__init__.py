"""How the loss bends: the Hessian, seen through its products with vectors.

The Hessian H of a loss at some params is never formed. One product ``H v`` costs about as
much as two gradients; from a few dozen of them come the outermost eigenvalues and the trace.
"""

from jaxgd.curvature._products import hvp
from jaxgd.curvature._spectra import EigenPairs, sharpness, top_eigenpairs
from jaxgd.curvature._traces import TraceEstimate, hessian_trace

__all__ = [
    "EigenPairs",
    "TraceEstimate",
    "hessian_trace",
    "hvp",
    "sharpness",
    "top_eigenpairs",
]
