"""How much curvature keeps: vectors of the size of the params, rows of data, shares of devices."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import curvature, losses

KEY = jax.random.key(3)


def loss(params, x):
    return jnp.mean((jnp.tanh(x @ params[0]) @ params[1]) ** 2)


@pytest.mark.parametrize(
    ("function", "options", "num_vectors"),
    [
        (curvature.top_eigenpairs, {"num_pairs": 5, "num_iterations": 20}, 23),
        (curvature.sharpness, {"num_iterations": 20}, 23),
        (curvature.spectral_density, {"num_iterations": 20, "num_samples": 7}, 23),
        # Four are carried along; the others come and go.
        (curvature.sharpness, {"num_iterations": 20, "reorthogonalize": False}, 6),
        (curvature.hessian_diagonal, {"num_samples": 7}, 4),
    ],
)
def test_no_more_vectors_are_kept_than_promised(function, options, num_vectors):
    def call(params, x):
        return function(KEY, loss, params, x, **options)

    num_params, shapes = 400 * (50 + 60), ((50, 400), (400, 60))
    arguments = [np.ones(shape, np.float32) for shape in shapes], np.ones((3, 50), np.float32)
    memory = jax.jit(call).lower(*arguments).compile().memory_analysis()

    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * num_vectors * num_params


def test_products_over_batches_of_rows_hold_one_batch_at_a_time():
    params = np.ones((3, 50), np.float32), np.ones((50, 2), np.float32)
    x = np.cos(np.arange(6e4, dtype=np.float32)).reshape(20_000, 3)
    memory, images = [], []
    for batch_size in (None, 100):
        risk = losses.empirical_risk(
            lambda p, x: jnp.tanh(x @ p[0]) @ p[1],
            lambda z, y: jnp.sum((z - y) ** 2, axis=1),
            batch_size=batch_size,
        )
        product = jax.jit(lambda p, x, y, f=risk: curvature.hvp(f, p, x, y)(p))
        program = product.lower(params, x, x[:, :2]).compile()
        memory.append(program.memory_analysis())
        images.append(program(params, x, x[:, :2]))

    chex.assert_trees_all_close(images[1], images[0], rtol=1e-3, atol=1e-4)
    assert memory[1].temp_size_in_bytes < 0.2 * memory[0].temp_size_in_bytes


SHARDED = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxgd import curvature

jax.config.update("jax_disable_most_optimizations", True)  # to save time
mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec(None, "x")), NamedSharding(mesh, PartitionSpec("x"))
ones = np.ones((48, 640), np.float32), np.ones((640, 56), np.float32)
params = jax.device_put(ones, sharding)

def loss_fn(params, x):
    return jnp.mean((jnp.tanh(x @ params[0]) @ params[1]) ** 2)

def find(params, x):
    key = jax.random.key(0)
    return curvature.top_eigenpairs(key, loss_fn, params, x, num_pairs=2, num_iterations=9)

program = jax.jit(find).lower(params, np.ones((3, 48), np.float32)).compile()
share = 4 * 640 * (48 + 56) / 8
print(program.memory_analysis().temp_size_in_bytes / share, "all-gather" in program.as_text())

explicit = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
by_rows = NamedSharding(explicit, PartitionSpec("x", None))
rows = jax.device_put(np.eye(64, 48, dtype=np.float32), by_rows)
x = np.sin(np.arange(144, dtype=np.float32)).reshape(3, 48)

def of_rows(rows, x):
    return jnp.mean(jnp.sum(jnp.tanh(x @ rows.T) ** 2, axis=-1))

def pairs_and_density(rows, x):
    key = jax.random.key(0)
    pairs = curvature.top_eigenpairs(key, of_rows, rows, x, num_pairs=2, num_iterations=5)
    # What differs from it: the probe of signs, and no basis.
    options = {"num_iterations": 3, "num_samples": 2, "reorthogonalize": False}
    return pairs, curvature.spectral_density(key, of_rows, rows, x, **options)

program = jax.jit(pairs_and_density).lower(rows, x).compile()
found, alone = program(rows, x), jax.jit(pairs_and_density)(jax.device_get(rows), x)
for one, other in zip(*jax.device_get((found, alone))):
    print(np.allclose(one[0], other[0], rtol=1e-4, atol=1e-5))
print("all-gather" in program.as_text(), found[0].vectors.sharding.spec[1])
"""


def test_sharded_params_are_never_gathered():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )

    assert done.returncode == 0, done.stderr
    num_vectors, gathers, *explicit = done.stdout.split()
    assert gathers == "False"
    assert explicit == ["True", "True", "False", "x"]
    assert float(num_vectors) < 1.3 * 12  # of each device's share


def test_a_trace_holds_one_probe_at_a_time():
    num_params, num_samples = 10_000, 100

    def estimate(params):
        return curvature.hessian_trace(
            KEY, lambda w: jnp.sum(jnp.cosh(w)), params, num_samples=num_samples
        )

    memory = jax.jit(estimate).lower(jnp.ones(num_params)).compile().memory_analysis()

    assert memory is not None
    assert memory.temp_size_in_bytes < 10 * 4 * num_params  # not 100 of them
