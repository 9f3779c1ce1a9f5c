"""How the loss bends: its Hessian and kin, seen through their products with vectors.

No matrix is formed. One product ``H v`` costs about as much as two gradients; from a few dozen
come the outermost eigenvalues, the density of all, the trace and the diagonal. ``where`` looks
at a block: some of the arrays alone.
"""

from jaxgd.curvature._batches import Estimate, batch_sharpness, gradient_noise_scale
from jaxgd.curvature._products import gnvp, hvp
from jaxgd.curvature._rates import (
    Stability,
    adam_preconditioner,
    critical_sharpness,
    preconditioned_sharpness,
    stability,
)
from jaxgd.curvature._spectra import (
    EigenPairs,
    SpectralDensity,
    sharpness,
    spectral_density,
    top_eigenpairs,
)
from jaxgd.curvature._traces import (
    DiagonalEstimate,
    TraceEstimate,
    hessian_diagonal,
    hessian_trace,
)

__all__ = [
    "DiagonalEstimate",
    "EigenPairs",
    "Estimate",
    "SpectralDensity",
    "Stability",
    "TraceEstimate",
    "adam_preconditioner",
    "batch_sharpness",
    "critical_sharpness",
    "gnvp",
    "gradient_noise_scale",
    "hessian_diagonal",
    "hessian_trace",
    "hvp",
    "preconditioned_sharpness",
    "sharpness",
    "spectral_density",
    "stability",
    "top_eigenpairs",
]
