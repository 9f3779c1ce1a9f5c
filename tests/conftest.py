"""What holds for every test: no silent broadcasting, the same inputs at every run, no leaks."""

from collections.abc import Iterator

import hypothesis
import jax
import jax.numpy as jnp
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("jaxgd", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("jaxgd")


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test: ``@pytest.mark.usefixtures("x64")``."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    yield
    assert jnp.result_type(float) == jnp.float32
