"""Loss surfaces timed: the note's grid, a linear neuron with many samples, two networks."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import torch_ways
from experiments.bench.race import race, table
from experiments.note import loss_surface
from experiments.shell.report import Table
from jaxgd import losses, neurons, planes, surfaces

CHUNKS = (1, 2, 4, 8, 16, 64, 256)
NETWORKS = {"784-128-10": (784, 128, 10), "64-32-10": (64, 32, 10)}
NUM_SAMPLES, RESOLUTION, NUM_TIMED_POINTS = 1797, 51, 102


def grid() -> Table:
    """The note's 200 x 200 losses of 50 samples."""
    w = jnp.arange(200) * loss_surface.WIDE_STEP - 8
    b = jnp.arange(200) * loss_surface.WIDE_STEP - 7
    x, y = jnp.asarray(loss_surface.X), jnp.asarray(loss_surface.Y)
    neuron = neurons.Neuron(weights=jnp.zeros(1), bias=jnp.zeros(()))
    plane = planes.coordinate(neuron, ("weights", 0), ("bias",))
    phi = planes.restrict(loss_surface.COST, plane, x[:, None], y)
    formula = jax.jit(
        lambda x, y, w, b: surfaces.sweep(
            lambda w, b: jnp.mean(losses.squared_error(w * x + b, y)) / 2, w, b
        )
    )
    restricted = jax.jit(surfaces.sweep)  # phi is a pytree: an argument like any other
    wide = np.asarray(w, float), np.asarray(b, float)
    seconds = race(
        {
            "restrict + sweep": lambda: restricted(phi, w, b),
            "sweep of the formula": lambda: formula(x, y, w, b),
            "the note's double loop, NumPy": lambda: loss_surface.double_loop(*wide),
        }
    )
    return table("The note's grid: 200 x 200 points, 50 samples", seconds, "restrict + sweep")


def linear_neuron() -> Table:
    """A linear neuron under squared error, 10,000 samples, a million points."""
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (10_000, 1))
    y = 2 * x[:, 0] + 3 + jax.random.normal(key_y, (10_000,))
    neuron = neurons.Neuron(weights=jnp.zeros(1), bias=jnp.zeros(()))
    plane = planes.coordinate(neuron, ("weights", 0), ("bias",))
    axis = jnp.linspace(-5, 5, 1000)
    part = axis[:20]  # the plain way takes long: time a part of it

    def plain(chunk: int) -> Callable[[], Any]:
        sweep = jax.jit(
            lambda x, y: surfaces.sweep(
                lambda w, b: jnp.mean(losses.squared_error(w * x[:, 0] + b, y)) / 2,
                part, axis, batch_size=chunk,
            )
        )  # fmt: skip
        return lambda: sweep(x, y)

    def both(plane: planes.Plane, x: Any, y: Any) -> Any:
        phi = planes.restrict(loss_surface.COST, plane, x, y)
        return surfaces.sweep(phi, axis, axis, batch_size=1000)

    phi = planes.restrict(loss_surface.COST, plane, x, y)
    restricted, restricting = jax.jit(lambda phi: surfaces.sweep(phi, axis, axis)), jax.jit(both)
    ours = "restrict + sweep, one jit"
    ways: dict[str, Callable[[], Any]] = {f"plain, chunk {c}": plain(c) for c in (16, 100, 1000)}
    ways[ours] = lambda: restricting(plane, x, y)
    ways["sweep alone"] = lambda: restricted(phi)
    ways["restrict alone, not jitted"] = lambda: planes.restrict(loss_surface.COST, plane, x, y)
    seconds = race(ways)
    found = {name: seconds[name] for name in list(ways)[3:]}
    best = min(list(ways)[:3], key=seconds.__getitem__)
    found[f"{best} (from 20 of 1,000 rows)"] = seconds[best] * axis.size / part.size
    title = "A linear neuron, squared error, 10,000 samples, 1000 x 1000 points"
    return table(title, found, ours)


def network(name: str) -> Table:
    """A tanh network on as many samples as the digits have, over a random plane."""
    sizes = NETWORKS[name]
    key_params, key_plane, key_x, key_y = jax.random.split(jax.random.key(0), 4)
    params = neurons.init_network(key_params, sizes)
    x = jax.random.uniform(key_x, (NUM_SAMPLES, sizes[0]))
    y = jax.random.randint(key_y, (NUM_SAMPLES,), 0, sizes[-1])
    plane = planes.filter_normalize(
        planes.random(key_plane, params), filter_axis=-1, vectors="keep"
    )
    risk = losses.empirical_risk(
        neurons.apply_network, losses.softmax_cross_entropy_with_integer_labels
    )
    axis = jnp.linspace(-1, 1, RESOLUTION)
    part = axis[:: RESOLUTION // 2][: NUM_TIMED_POINTS // RESOLUTION]
    scale = axis.size / part.size

    @jax.jit
    def plain_sweep(chunk: Any, plane: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
        size = chunk.shape[0]  # a static number, in the shape of an array
        return surfaces.sweep(
            lambda *c: risk(planes.point(plane, *c), x, y), a, b, batch_size=size
        ).values

    @jax.jit
    def phi_sweep(chunk: Any, phi: Any, a: Any, b: Any) -> Any:
        return surfaces.sweep(phi, a, b, batch_size=chunk.shape[0]).values

    phi = planes.restrict(risk, plane, x, y)
    chunk_of = {size: jnp.zeros(size) for size in CHUNKS}
    ways: dict[str, Callable[[], Any]] = {}
    for c in CHUNKS:
        size = chunk_of[c]
        ways[f"plain JAX, chunk {c}"] = lambda size=size: plain_sweep(size, plane, x, y, part, axis)
        ways[f"restrict + sweep, chunk {c}"] = lambda size=size: phi_sweep(size, phi, part, axis)
    tried = race(ways, rounds=2)
    plain, ours = (
        min((name for name in tried if name.startswith(way)), key=tried.__getitem__)
        for way in ("plain", "restrict")
    )
    our_chunk = int(ours.split()[-1])

    # The work that no way can avoid: per point, the first layer's sum from its value and two
    # tangents, its tanh, and the second layer with the loss.
    hidden = [x @ layer[0].weights for layer in (params, *plane.directions)]
    output_layers = params[1], *(direction[1] for direction in plane.directions)

    def remaining(hidden: Any, output: Any, a: Any, b: Any) -> Any:
        def value(a: Any, b: Any) -> Any:
            z = jnp.tanh(hidden[0] + a * hidden[1] + b * hidden[2])
            layer = jax.tree.map(lambda p, d, e: p + a * d + b * e, *output)
            logits = neurons.weighted_sum(layer, z)
            return losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return surfaces.sweep(value, a, b, batch_size=our_chunk).values

    remaining_sweep = jax.jit(remaining)
    alone = "the unavoidable work alone"
    found = race(
        {
            ours: lambda: phi_sweep(chunk_of[our_chunk], phi, axis, axis),
            alone: lambda: remaining_sweep(hidden, output_layers, axis, axis),
            plain: ways[plain],
        }
    )
    found[plain] *= scale
    slow = _torch_ways(params, plane, x, y, part, axis)
    found |= {way: seconds * scale for way, seconds in slow.items()}
    title = f"{name} tanh network, {NUM_SAMPLES} samples, {RESOLUTION} x {RESOLUTION} points"
    return table(title, found, ours, f" (the slow ways from {part.size} of {axis.size} rows)")


def _torch_ways(
    params: Any, plane: planes.Plane, x: Any, y: Any, part: Any, axis: Any
) -> dict[str, float]:
    """The same sweep in PyTorch, at its best number of threads."""
    if not torch_ways.is_there():
        return {}
    torch = importlib.import_module("torch")

    def tensors(tree: Any) -> list[Any]:
        leaves = [leaf for layer in tree for leaf in (layer.weights.T, layer.bias)]
        return [torch.tensor(np.array(leaf)) for leaf in leaves]

    sizes = [params[0].weights.shape[0], *(layer.bias.size for layer in params)]
    model = torch.nn.Sequential(
        torch.nn.Linear(sizes[0], sizes[1]), torch.nn.Tanh(), torch.nn.Linear(sizes[1], sizes[2])
    )
    for parameter, leaf in zip(model.parameters(), tensors(params), strict=True):
        parameter.data.copy_(leaf)
    inputs, labels = torch.tensor(np.array(x)), torch.tensor(np.array(y), dtype=torch.long)
    points = [(float(a), float(b)) for a in part for b in axis]
    directions = [tensors(direction) for direction in plane.directions]
    ways = torch_ways.ways(model, directions, inputs, labels, points, chunks=(1, 4, 16))
    found = dict.fromkeys(ways, float("inf"))
    for (name, _), seconds in torch_ways.timed(ways, points).items():
        found[name] = min(found[name], len(points) * seconds)
    return found
