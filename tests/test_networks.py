"""The networks that several experiments train are what they say they are."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import residual


def test_the_residual_network_is_its_convolutions_and_one_addition_in_each_block():
    params = residual.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))

    def convolved(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def normalized(x):
        x = np.asarray(x, float)
        return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)

    for has_skips in (False, True):
        h = np.maximum(normalized(convolved(x, params["first"])), 0)
        for i, (first, second) in enumerate(params["blocks"]):
            z = np.maximum(normalized(convolved(jnp.float32(h), first)), 0)
            z = normalized(convolved(jnp.float32(z), second))
            h = np.maximum(z + has_skips * h, 0)
            if i == 3:
                h = h.reshape(5, 4, 2, 4, 2, 8).mean((2, 4))
        wanted = h.mean((1, 2)) @ np.asarray(params["output"])
        logits = residual.predict(params, x, has_skips=has_skips)
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
