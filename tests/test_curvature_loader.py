"""Curvature over data in batches, read anew for every product, is that of all data at once."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import curvature

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(23, 4)).astype(np.float32), rng.normal(size=(23, 2)).astype(np.float32)
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 23, 6)]  # the last one has 5 rows
NET = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 3), (3, 2))]
KEY = jax.random.key(1)
V = jax.tree.map(np.ones_like, NET)


class Loader:
    """Makes its batches anew for each pass, as a DataLoader does; ``change`` may alter one."""

    def __init__(self, change: Callable[[int, list[Any]], list[Any]] = lambda _, batches: batches):
        self.change, self.num_passes = change, 0

    def __iter__(self):
        self.num_passes += 1
        yield from self.change(self.num_passes, [[x.copy(), y.copy()] for x, y in BATCHES])


def risk(net, x, y):
    return jnp.mean(jnp.sum((jnp.tanh(x @ net[0]) @ net[1] - y) ** 2, axis=-1))


def first(path, _):
    return path == "0"


WAYS: dict[str, Any] = {
    "hvp": lambda *x, **o: curvature.hvp(risk, NET, *x, **o)(V),
    "a block": lambda *x, **o: curvature.hvp(risk, NET, *x, where=first, **o)(V),
    "eigenpairs": lambda *x, **o: curvature.top_eigenpairs(
        KEY, risk, NET, *x, num_pairs=5, num_iterations=5, **o
    ),
    "sharpness": lambda *x, **o: curvature.sharpness(KEY, risk, NET, *x, num_iterations=5, **o),
    "no basis": lambda *x, **o: curvature.sharpness(
        KEY, risk, NET, *x, num_iterations=5, reorthogonalize=False, **o
    ),
    "density": lambda *x, **o: curvature.spectral_density(
        KEY, risk, NET, *x, num_iterations=4, num_samples=2, **o
    ),
    "stability": lambda *x, **o: curvature.stability(KEY, risk, NET, *x, num_iterations=5, **o),
    "preconditioned": lambda *x, **o: curvature.preconditioned_sharpness(
        KEY, risk, NET, jax.tree.map(lambda leaf: 1 + leaf**2, NET), *x, num_iterations=4, **o
    ),
    "trace": lambda *x, **o: curvature.hessian_trace(KEY, risk, NET, *x, num_samples=3, **o),
    "diagonal": lambda *x, **o: curvature.hessian_diagonal(
        KEY, risk, NET, *x, num_samples=3, **o
    ),
}  # fmt: skip


PASSES = {
    "hvp": 1,
    "a block": 1,
    "eigenpairs": 5 + 5,
    "sharpness": 5,
    "no basis": 5,
    "density": 2 * 4,
    "stability": 5,
    "preconditioned": 4,
    "trace": 3,
    "diagonal": 3,
}


# Batches of other sizes compile other programs: these ways read the ragged one, too.
WITH_RAGGED_BATCH = ("hvp", "a block", "trace")


@pytest.fixture(scope="module")
def at_once():
    """What all data give that the loader gives; five iterations are read off their eigenvalues."""
    rows = {name: slice(23 if name in WITH_RAGGED_BATCH else 18) for name in WAYS}
    computed = [name for name in WAYS if name not in ("sharpness", "no basis", "stability")]
    known = jax.jit(lambda: {name: WAYS[name](X[rows[name]], Y[rows[name]]) for name in computed})()
    values = np.asarray(known["eigenpairs"].values)
    largest, magnitudes = values.max(), np.abs(values)
    condition = magnitudes.max() / magnitudes.min()
    return known | {
        "sharpness": largest,
        "no basis": largest,
        "stability": curvature.Stability(largest, 2 / largest, condition),
    }


@pytest.mark.parametrize("name", WAYS)
def test_a_loader_gives_what_all_data_at_once_give_and_is_read_once_for_each_product(name, at_once):
    loader = Loader() if name in WITH_RAGGED_BATCH else Loader(lambda _, batches: batches[:3])

    chex.assert_trees_all_close(WAYS[name](batches=loader), at_once[name], rtol=1e-4, atol=1e-5)
    assert loader.num_passes == PASSES[name]


def test_rows_of_other_libraries_and_strict_promotion_are_no_hindrance(at_once):
    batches = [(jax.device_put(x), y) for x, y in BATCHES]

    with jax.numpy_dtype_promotion("strict"):
        image = curvature.hvp(risk, NET, batches=batches)(V)

    chex.assert_trees_all_close(image, at_once["hvp"], rtol=1e-4, atol=1e-5)


SHORTER = Loader(lambda number, batches: batches[: 5 - number])
OTHERS = Loader(lambda number, batches: batches[::-1] if number == 3 else batches)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((batch for batch in BATCHES), "readable more than once, got a generator.*a list or a"),
        (iter(BATCHES), "readable more than once, got a list_iterator"),
        ((X, Y), r"an iterable of batches.*got one batch.*batches=\[\(x, y\)\]"),
        (X, "an iterable of batches.*got an array"),
        (3, "an iterable of batches.*got 3"),
        ([], "at least one batch, got none"),
        ([X], "batch 0 of batches must be a tuple or list"),
        ([(X, Y[:3])], r"batch 0 of batches must have equally many rows.*\[3, 23\]"),
        ([(X, np.ones((), np.float32))], "must have rows, got shape"),
        ([(X, Y), (X, Y[:, :1])], r"batch 1 of batches must be like the first.*rows, 1\]"),
        ([(X, Y), (X, Y, Y)], r"batch 1 of batches must be like the first.*2: float32"),
        ([(X, Y), (X, Y > 0)], r"batch 1 of batches must be like the first.*1: bool"),
        (SHORTER, "the same in every pass, got 23 rows, then 18 rows.*shuffles"),
        (OTHERS, "the same in every pass, got 23 rows, then 23 rows with other numbers"),
    ],
)
def test_batches_that_cannot_be_read_again_are_refused_by_name(batches, message):
    with pytest.raises((TypeError, ValueError), match=r"curvature\.hessian_trace: .*" + message):
        curvature.hessian_trace(KEY, risk, NET, num_samples=4, batches=batches)


def test_a_loader_is_not_read_while_tracing():
    with pytest.raises(TypeError, match=r"must be known, got a traced array.*outside jit"):
        jax.jit(
            lambda net: curvature.hessian_trace(KEY, risk, net, num_samples=2, batches=[(X, Y)])
        )(NET)
    with pytest.raises(TypeError, match=r"must be known, got a traced array"):
        jax.jit(lambda key: curvature.stability(key, risk, NET, num_iterations=2, batches=BATCHES))(
            KEY
        )
    with pytest.raises(TypeError, match=r"curvature\.hvp: .*must be known, got a traced array"):
        jax.jit(curvature.hvp(risk, NET, batches=BATCHES))(V)
