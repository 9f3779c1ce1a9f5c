"""The four models of the races over deep networks: (loss, params, data) each, at random params."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgd import losses
from jaxgd.types import Array, PRNGKey


class Model(NamedTuple):
    """What is raced.

    Attributes:
      loss_fn: (params, *data) -> the mean loss.
      params: a pytree.
      data: the further arguments of the loss.
      last: which arrays are the last block, by their path.
    """

    loss_fn: Callable[..., Array]
    params: Any
    data: Sequence[Array]
    last: Callable[[str], bool]


def _drawn(key: PRNGKey, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays whose products keep the scale of what they are applied to."""
    keys = jax.random.split(key, len(shapes))

    def one(key: PRNGKey, name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("scale"):
            return jnp.ones(shape)
        if len(shape) == 1:
            return jnp.zeros(shape)
        fan_in = jnp.prod(jnp.array(shape[:-1]))
        return jax.random.normal(key, shape) * jnp.sqrt(2 / fan_in)

    return {n: one(k, n, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def _entropy(logits: Array, labels: Array) -> Array:
    return losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _convolved(x: Array, kernel: Array, stride: int = 1) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pooled(x: Array) -> Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")


def perceptron() -> Model:
    """784-256-256-10 with relu on 1,797 examples."""
    sizes = (784, 256, 256, 10)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(3):
        shapes |= {
            f"{layer}/kernel": sizes[layer : layer + 2],
            f"{layer}/bias": (sizes[layer + 1],),
        }

    def loss_fn(p: Any, x: Array, labels: Array) -> Array:
        for layer in range(3):
            x = x @ p[f"{layer}/kernel"] + p[f"{layer}/bias"]
            x = jax.nn.relu(x) if layer < 2 else x
        return _entropy(x, labels)

    x = jax.random.normal(jax.random.key(1), (1797, 784))
    params = _drawn(jax.random.key(0), shapes)
    return Model(loss_fn, params, (x, jnp.arange(1797) % 10), lambda path: path.startswith("2/"))


def convolutions() -> Model:
    """Two convolutions, 3-16-32 channels, each with relu and max pooling, on 256 images."""
    shapes = {
        "0/kernel": (3, 3, 3, 16),
        "0/bias": (16,),
        "1/kernel": (3, 3, 16, 32),
        "1/bias": (32,),
        "2/kernel": (8 * 8 * 32, 10),
        "2/bias": (10,),
    }

    def loss_fn(p: Any, x: Array, labels: Array) -> Array:
        for layer in range(2):
            x = _convolved(x, p[f"{layer}/kernel"]) + p[f"{layer}/bias"]
            x = _pooled(jax.nn.relu(x))
        return _entropy(x.reshape(x.shape[0], -1) @ p["2/kernel"] + p["2/bias"], labels)

    x = jax.random.normal(jax.random.key(1), (256, 32, 32, 3))
    params = _drawn(jax.random.key(0), shapes)
    return Model(loss_fn, params, (x, jnp.arange(256) % 10), lambda path: path.startswith("2/"))


def residual() -> Model:
    """ResNet-20 with the statistics of the batch, on 64 images of 32 x 32."""
    widths = [16] * 3 + [32] * 3 + [64] * 3
    shapes: dict[str, tuple[int, ...]] = {"in/kernel": (3, 3, 3, 16), "in/scale": (16,)}
    before = 16
    for block, width in enumerate(widths):
        shapes |= {
            f"{block}/a/kernel": (3, 3, before, width),
            f"{block}/a/scale": (width,),
            f"{block}/b/kernel": (3, 3, width, width),
            f"{block}/b/scale": (width,),
        }
        if width != before:
            shapes[f"{block}/skip/kernel"] = (1, 1, before, width)
        before = width
    shapes |= {"out/kernel": (64, 10), "out/bias": (10,)}

    def normalized(x: Array, scale: Array) -> Array:
        return jax.nn.standardize(x, axis=(0, 1, 2), epsilon=1e-5) * scale

    def loss_fn(p: Any, x: Array, labels: Array) -> Array:
        x = jax.nn.relu(normalized(_convolved(x, p["in/kernel"]), p["in/scale"]))
        for block in range(9):
            skip = p.get(f"{block}/skip/kernel")
            stride = 1 if skip is None else 2
            z = _convolved(x, p[f"{block}/a/kernel"], stride)
            z = jax.nn.relu(normalized(z, p[f"{block}/a/scale"]))
            z = normalized(_convolved(z, p[f"{block}/b/kernel"]), p[f"{block}/b/scale"])
            x = jax.nn.relu(z + (x if skip is None else _convolved(x, skip, 2)))
        return _entropy(x.mean(axis=(1, 2)) @ p["out/kernel"] + p["out/bias"], labels)

    x = jax.random.normal(jax.random.key(1), (64, 32, 32, 3))
    params = _drawn(jax.random.key(0), shapes)
    is_last = lambda path: path.startswith(("8/", "out/"))  # noqa: E731
    return Model(loss_fn, params, (x, jnp.arange(64) % 10), is_last)


def transformer() -> Model:
    """A small GPT: 2 blocks of width 128 with 4 heads, on 16 texts of 64 characters."""
    width, heads, length, vocabulary = 128, 4, 64, 96
    shapes: dict[str, tuple[int, ...]] = {
        "in/token": (vocabulary, width),
        "in/place": (length, width),
    }
    for block in range(2):
        shapes |= {
            f"{block}/a/scale": (width,),
            f"{block}/a/kernel": (width, 3 * width),
            f"{block}/a/out": (width, width),
            f"{block}/b/scale": (width,),
            f"{block}/b/kernel": (width, 4 * width),
            f"{block}/b/out": (4 * width, width),
        }
    shapes |= {"out/scale": (width,), "out/kernel": (width, vocabulary)}

    def normalized(x: Array, scale: Array) -> Array:
        return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * scale

    def attention(x: Array, kernel: Array, out: Array) -> Array:
        qkv = (x @ kernel).reshape(*x.shape[:2], 3, heads, width // heads)
        scores = jnp.einsum("nqhd,nkhd->nhqk", qkv[:, :, 0], qkv[:, :, 1]) / (width / heads) ** 0.5
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e9)
        z = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), qkv[:, :, 2])
        return z.reshape(x.shape) @ out

    def loss_fn(p: Any, tokens: Array, targets: Array) -> Array:
        x = p["in/token"][tokens] + p["in/place"]
        for block in range(2):
            z = normalized(x, p[f"{block}/a/scale"])
            x = x + attention(z, p[f"{block}/a/kernel"], p[f"{block}/a/out"])
            z = normalized(x, p[f"{block}/b/scale"])
            x = x + jax.nn.gelu(z @ p[f"{block}/b/kernel"]) @ p[f"{block}/b/out"]
        return _entropy(normalized(x, p["out/scale"]) @ p["out/kernel"], targets)

    tokens = jax.random.randint(jax.random.key(1), (16, length + 1), 0, vocabulary)
    params = _drawn(jax.random.key(0), shapes)
    is_last = lambda path: path.startswith(("1/", "out/"))  # noqa: E731
    return Model(loss_fn, params, (tokens[:, :-1], tokens[:, 1:]), is_last)


MODELS = {
    "MLP": perceptron,
    "CNN": convolutions,
    "ResNet-20": residual,
    "GPT": transformer,
}
