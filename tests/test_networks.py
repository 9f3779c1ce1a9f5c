"""The networks that several experiments train are what they say they are."""

import jax
import numpy as np

from experiments.data import residual


def test_the_residual_network_is_its_convolutions_and_one_addition_in_each_block():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(residual.init, jax.random.key(0))
    params = jax.tree.map(lambda s: 0.3 * rng.normal(size=s.shape).astype(np.float32), shapes)
    x = rng.normal(size=(5, 8, 8, 1)).astype(np.float32)

    @jax.jit
    def convolved(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def normalized(x):
        x = np.asarray(x, float)
        return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)

    predict = jax.jit(residual.predict)
    for has_skips in (False, True):
        h = np.maximum(normalized(convolved(x, params["first"])), 0)
        for i, (first, second) in enumerate(params["blocks"]):
            z = np.maximum(normalized(convolved(np.float32(h), first)), 0)
            z = normalized(convolved(np.float32(z), second))
            h = np.maximum(z + has_skips * h, 0)
            if i == 3:
                h = h.reshape(5, 4, 2, 4, 2, 8).mean((2, 4))
        wanted = h.mean((1, 2)) @ np.asarray(params["output"])
        logits = predict(params, x, has_skips=has_skips)
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
