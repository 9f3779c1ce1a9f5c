"""Hessian products and Lanczos iteration, raced: by hand in JAX, matfree's, and in PyTorch."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.bench import networks, torch_ways
from experiments.bench.models import Model, perceptron
from experiments.bench.race import race, table
from experiments.shell.report import Table
from jaxgd import curvature, losses

NUM_ITERATIONS, NUM_SAMPLES, KEY = 20, 2, jax.random.key(2)


def curvatures() -> tuple[Table, Table]:
    """The products, and the largest eigenvalue and the density by as many iterations."""
    model = perceptron()
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    products = race(_products(model), rounds=10)
    spectra = race(_spectra(model) | _torch_spectra(model), rounds=3)
    name = f"784-256-256-10, {size} params, 1,797 rows"
    return (
        table(f"Curvature: one product, {name}", products, "curvature.hvp"),
        table(f"Curvature: {NUM_ITERATIONS} iterations, {name}", spectra, "curvature.sharpness"),
    )


def _products(model: Model) -> dict[str, Callable[[], Any]]:
    """The Hessian's and the Gauss-Newton matrix's, each beside the same by hand."""
    params, (x, labels) = model.params, model.data
    vector = jax.tree.map(jnp.cos, params)

    def logits_of(p: Any, x: Any) -> Any:
        for layer in range(3):
            x = x @ p[f"{layer}/kernel"] + p[f"{layer}/bias"]
            x = jax.nn.relu(x) if layer < 2 else x
        return x

    def entropy(logits: Any, labels: Any) -> Any:
        return losses.softmax_cross_entropy_with_integer_labels(logits, labels)

    def hvp(p: Any, v: Any, *data: Any) -> Any:
        return curvature.hvp(model.loss_fn, p, *data)(v)

    def hvp_by_hand(p: Any, v: Any, *data: Any) -> Any:
        return jax.jvp(lambda p: jax.grad(model.loss_fn)(p, *data), (p,), (v,))[1]

    def gnvp(p: Any, v: Any, x: Any, labels: Any) -> Any:
        return curvature.gnvp(logits_of, entropy, p, x, labels)(v)

    def gnvp_by_hand(p: Any, v: Any, x: Any, labels: Any) -> Any:
        logits, tangent = jax.jvp(lambda p: logits_of(p, x), (p,), (v,))
        slope = jax.grad(lambda z: entropy(z, labels).mean())
        image = jax.jvp(slope, (logits,), (tangent,))[1]
        return jax.vjp(lambda p: logits_of(p, x), p)[1](image)[0]

    ways = {
        "curvature.hvp": hvp,
        "jax.jvp of jax.grad": hvp_by_hand,
        "curvature.gnvp": gnvp,
        "jvp, jvp of grad, vjp": gnvp_by_hand,
    }
    arguments = params, vector, x, labels
    jitted = {name: jax.jit(way) for name, way in ways.items()}
    return {name: lambda way=way: way(*arguments) for name, way in jitted.items()}


def _spectra(model: Model) -> dict[str, Callable[[], Any]]:
    """Ours with a basis and without, and matfree's."""

    def sharpness(p: Any, *data: Any) -> Any:
        return curvature.sharpness(KEY, model.loss_fn, p, *data, num_iterations=NUM_ITERATIONS)

    def density(p: Any, *data: Any) -> Any:
        return curvature.spectral_density(
            KEY, model.loss_fn, p, *data, num_iterations=NUM_ITERATIONS, num_samples=NUM_SAMPLES
        )

    ways: dict[str, Callable[..., Any]] = {
        "curvature.sharpness": sharpness,
        f"curvature.spectral_density, {NUM_SAMPLES} probes": density,
    }
    if importlib.util.find_spec("matfree") is not None:
        decomp = importlib.import_module("matfree.decomp")
        tridiagonalize = decomp.tridiag_sym(NUM_ITERATIONS)

        def eigenvalues(p: Any, data: Any, key: Any) -> Any:
            flat, unravel = ravel_pytree(p)
            gradient = jax.grad(lambda v: model.loss_fn(unravel(v), *data))
            start = jax.random.rademacher(key, flat.shape, flat.dtype)
            found = tridiagonalize(
                lambda v: jax.jvp(gradient, (flat,), (v,))[1], start / jnp.linalg.norm(start)
            )
            return jnp.linalg.eigh(found.J_small)

        def matfree_density(p: Any, *data: Any) -> Any:
            keys = jax.random.split(KEY, NUM_SAMPLES)
            return jax.lax.map(lambda key: eigenvalues(p, data, key), keys)

        ways["matfree.decomp.tridiag_sym"] = lambda p, *data: eigenvalues(p, data, KEY)
        ways[f"matfree.decomp.tridiag_sym, {NUM_SAMPLES} probes"] = matfree_density
    jitted = {name: jax.jit(way) for name, way in ways.items()}
    return {name: lambda way=way: way(model.params, *model.data) for name, way in jitted.items()}


def _torch_spectra(model: Model) -> dict[str, Callable[[], Any]]:
    """Lanczos by curvlinops, and power iteration by PyHessian, whose Lanczos fails."""
    if not torch_ways.is_there():
        return {}
    torch = importlib.import_module("torch")
    module = torch_ways.module(networks.FORWARD["MLP"], torch_ways.tensors(model.params))
    inputs, labels = (torch.tensor(np.array(leaf)) for leaf in model.data)
    criterion, batch = torch.nn.CrossEntropyLoss(), (inputs, labels.long())
    ways: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("curvlinops") is not None:
        curvlinops = importlib.import_module("curvlinops")
        spectrum = importlib.import_module("curvlinops.papyan2020traces.spectrum")
        params = list(module.parameters())
        operator = curvlinops.HessianLinearOperator(
            module, criterion, params, [batch], check_deterministic=False
        )
        ways["curvlinops, fast_lanczos without a basis"] = lambda: list(
            spectrum.fast_lanczos(operator, NUM_ITERATIONS)
        )
    if importlib.util.find_spec("pyhessian") is not None:
        pyhessian = importlib.import_module("pyhessian")
        hessian = pyhessian.hessian(module, criterion, data=batch, cuda=False)
        ways["PyHessian, power iteration"] = lambda: [
            hessian.eigenvalues(maxIter=NUM_ITERATIONS, tol=0)[0]
        ]
    return ways
