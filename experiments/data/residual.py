"""A deep convolutional network on the digits, with skip connections or without, and its training.

Seventeen convolutions of 3 x 3 with eight channels: one, then eight blocks of two; after four of
them the image is halved. Every channel is normalized by mean and variance over the images at hand
(batch normalization with the statistics of the batch, recomputed wherever the network is
evaluated). Without skips it is the same network, but for the one addition in each block.

Source: He et al., Deep residual learning for image recognition, 2016.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgd import descent, losses
from jaxgd.types import Array, Params, PRNGKey

NUM_BLOCKS, NUM_CHANNELS = 8, 8
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 250, 64, 0.01


def images(digits: np.ndarray) -> Array:
    """Digits as rows, (m, 64), to images: (m, 8, 8, 1)."""
    return jnp.asarray(digits.reshape(-1, 8, 8, 1).astype(np.float32))


def init(key: PRNGKey) -> Params:
    """Draws kernels (3, 3, in, out), those of the blocks stacked: (blocks, 2, 3, 3, in, out)."""
    first, blocks, output = jax.random.split(key, 3)

    def draw(key: PRNGKey, *shape: int, fan_in: int) -> Array:
        scale = np.sqrt(2 / fan_in, dtype=np.float32)
        return jax.random.normal(key, shape, jnp.float32) * scale

    c = NUM_CHANNELS
    return {
        "first": draw(first, 3, 3, 1, c, fan_in=9),
        "blocks": draw(blocks, NUM_BLOCKS, 2, 3, 3, c, c, fan_in=9 * c),
        "output": draw(output, c, 10, fan_in=c),
    }


def filter_axis(path: str, _leaf: Array) -> int | tuple[int, ...]:
    """A filter is one output channel: of one convolution, where several are stacked."""
    return (0, 1, -1) if path == "blocks" else -1


def _convolved(x: Array, kernel: Array) -> Array:
    """A 3 x 3 convolution, as one product with the nine shifted images.

    Its gradient is a product, too, ten times faster on a CPU than that of a convolution.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _normalized(x: Array) -> Array:
    return jax.nn.standardize(x, axis=(0, 1, 2), epsilon=1e-3)


def predict(params: Params, x: Array, *, has_skips: Array | bool) -> Array:
    """Images (m, 8, 8, 1) to logits (m, 10). One program serves with skips and without."""

    def block(x: Array, kernels: Array) -> tuple[Array, None]:
        z = jax.nn.relu(_normalized(_convolved(x, kernels[0])))
        z = _normalized(_convolved(z, kernels[1]))
        return jax.nn.relu(jnp.where(has_skips, x + z, z)), None

    x = jax.nn.relu(_normalized(_convolved(x, params["first"])))
    half = NUM_BLOCKS // 2
    x, _ = jax.lax.scan(block, x, params["blocks"][:half])
    x = x.reshape(x.shape[0], 4, 2, 4, 2, NUM_CHANNELS).mean(axis=(2, 4))
    x, _ = jax.lax.scan(block, x, params["blocks"][half:])
    return x.mean(axis=(1, 2)) @ params["output"]


def risk(params: Params, x: Array, y: Array, has_skips: Array) -> Array:
    """The mean cross-entropy of the network on images, in nats."""
    logits = predict(params, x, has_skips=has_skips)
    return jnp.mean(losses.softmax_cross_entropy_with_integer_labels(logits, y))


@jax.jit
def train(key: PRNGKey, x: Array, y: Array, has_skips: Array) -> descent.Trajectory:
    """Trains by Adam on minibatches, with a learning rate that falls to zero: no path is kept."""
    first, second = jax.random.split(key)
    rows = descent.minibatches(second, len(x), batch_size=BATCH_SIZE, num_steps=NUM_STEPS)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, NUM_STEPS))
    return descent.optimize(
        lambda params, x, y, has_skips, rows: risk(params, x[rows], y[rows], has_skips),
        init(first), x, y, has_skips,
        optimizer=optimizer, num_steps=NUM_STEPS, per_step=rows, record=lambda _: None,
    )  # fmt: skip
