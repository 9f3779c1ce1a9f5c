"""Small runs that several files draw, each computed once, when a test first asks for it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxgd import chains, descent


@functools.cache
def solution() -> Any:
    """The square root of 4, from 1."""
    solve = lambda x: chains.solve([lambda x: x**2], x, 4.0, tolerance=1e-5, max_steps=9)  # noqa: E731
    return jax.jit(solve)(1.0)


@functools.cache
def trace() -> chains.Trace:
    """The logarithm of a square, at 2."""
    return jax.jit(lambda x: chains.backprop([jnp.square, jnp.log], x))(2.0)


@functools.cache
def line() -> descent.Trajectory:
    """A descent of one number."""
    return jax.jit(
        lambda x: descent.gradient_descent(jnp.square, x, learning_rate=0.3, num_steps=5)
    )(1.0)


@functools.cache
def rose() -> descent.Trajectory:
    """A descent whose params are a pytree of two scalars."""
    return jax.jit(
        lambda start: descent.gradient_descent(
            lambda p: 10 * p["a"] ** 2 + p["b"] ** 2, start, learning_rate=0.04, num_steps=6
        )
    )({"a": 1.0, "b": -2.0})
