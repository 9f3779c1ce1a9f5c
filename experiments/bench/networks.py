"""Surfaces of four networks that people train, raced: exact, approximated, and in PyTorch."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import torch_ways
from experiments.bench.models import MODELS, Model
from experiments.bench.race import race
from experiments.shell.report import Table
from jaxgd import planes, surfaces, sweeps

SIDE, RESOLUTION, TOLERANCE = 3, 201, 1e-3
BATCH_SIZES = {"MLP": (1, 2, 4, 8), "GPT": (1, 2, 4, 8), "CNN": (1, 4), "ResNet-20": (1, 4)}
SLICE = {"MLP": 200, "GPT": 2, "CNN": 32, "ResNet-20": 8}  # rows on which evaluations are counted


def network(name: str) -> Table:
    """A network over a filter-normalized random plane: 3 x 3 points, and what 201 x 201 take."""
    model = MODELS[name]()
    plane = planes.filter_normalize(
        planes.random(jax.random.key(3), model.params), filter_axis=-1, vectors="match"
    )
    axis = jnp.linspace(-1, 1, SIDE)
    points = [(float(a), float(b)) for a in axis for b in axis]
    ways, values = _jax_ways(name, model, plane, axis)
    found = {way: seconds / len(points) for way, seconds in race(ways, rounds=3).items()}
    ours, plain = (
        min((way for way in found if way.startswith(start)), key=found.__getitem__)
        for start in ("restrict", "plain")
    )
    found = {way: found[way] for way in (ours, plain, SEPARATE)}
    if torch_ways.is_there():
        found |= _torch_seconds(name, model, plane, points, values)
    count = _num_evaluations(name, model, plane)
    rows = [
        (way, f"{1e3 * each:.2f}", f"{each / found[ours]:.2f}", f"{each * RESOLUTION**2:.0f}")
        for way, each in found.items()
    ]
    approximated = found[ours] * count
    rows.insert(
        1, (f"approximated to {TOLERANCE:g}: {count} points", "", "", f"{approximated:.0f}")
    )
    header = ("way", "milliseconds per point", f"times '{ours}'",
              f"seconds for {RESOLUTION} x {RESOLUTION}")  # fmt: skip
    note = f"evaluations counted on {SLICE[name]} rows"
    return Table(
        f"{name}: {SIDE} x {SIDE} points, the last column extrapolated; {note}", header, rows
    )


SEPARATE = "one jitted loss, called for each point"


def _jax_ways(
    name: str, model: Model, plane: planes.Plane, axis: Any
) -> tuple[dict[str, Callable[[], Any]], np.ndarray]:
    """Ours and plain JAX at several batch sizes, and the values that all must give."""
    phi = planes.restrict(model.loss_fn, plane, *model.data)
    a, b = (side.ravel() for side in jnp.meshgrid(axis, axis, indexing="ij"))

    def at(plane: Any, data: Any, a: Any, b: Any) -> Any:
        return model.loss_fn(planes.point(plane, a, b), *data)

    one = jax.jit(at)
    ways: dict[str, Callable[[], Any]] = {
        SEPARATE: lambda: [one(plane, model.data, *point) for point in zip(a, b, strict=True)]
    }
    for size in BATCH_SIZES[name]:
        ours = jax.jit(lambda phi, size=size: surfaces.sweep(phi, axis, axis, batch_size=size))
        plain = jax.jit(
            lambda plane, data, size=size: jax.lax.map(
                lambda point: at(plane, data, *point), (a, b), batch_size=size
            )
        )
        ways[f"restrict + sweep, batch {size}"] = lambda ours=ours: ours(phi)
        ways[f"plain lax.map, batch {size}"] = lambda plain=plain: plain(plane, model.data)
    return ways, np.array(ways[SEPARATE]())


def _num_evaluations(name: str, model: Model, plane: planes.Plane) -> int:
    """How many evaluations an approximation takes, counted on few rows of the data."""
    data = [leaf[: SLICE[name]] for leaf in model.data]
    phi = planes.restrict(model.loss_fn, plane, *data)
    series = sweeps.approximate(
        phi, (-1, 1), (-1, 1), tolerance=TOLERANCE, max_degree=64, progress=False
    )
    return int(series.num_points)


def _torch_seconds(
    name: str, model: Model, plane: planes.Plane, points: Sequence[Any], values: np.ndarray
) -> dict[str, float]:
    """The same points in PyTorch: seconds per point of each way, and of one thread or more."""
    torch = importlib.import_module("torch")
    module = torch_ways.module(FORWARD[name], torch_ways.tensors(model.params))
    directions = [list(torch_ways.tensors(d).values()) for d in plane.directions]
    inputs, labels = (torch.tensor(np.asarray(leaf)) for leaf in model.data)
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2).contiguous()
    labels = labels.reshape(-1).long()
    ways = torch_ways.ways(module, directions, inputs, labels, points, chunks=(4,))
    np.testing.assert_allclose(ways[torch_ways.LOOP](), values, rtol=1e-3)
    return {
        f"{way}, {threads} thread{'s' * (threads > 1)}": seconds
        for (way, threads), seconds in torch_ways.timed(ways, points, rounds=3).items()
    }


def _perceptron(torch: Any, p: Any, x: Any) -> Any:
    f = torch.nn.functional
    for layer in range(3):
        x = f.linear(x, p[f"{layer}_kernel"], p[f"{layer}_bias"])
        x = f.relu(x) if layer < 2 else x
    return x


def _convolutions(torch: Any, p: Any, x: Any) -> Any:
    f = torch.nn.functional
    for layer in range(2):
        x = f.conv2d(x, p[f"{layer}_kernel"], p[f"{layer}_bias"], padding=1)
        x = f.max_pool2d(f.relu(x), 2)
    return f.linear(x.permute(0, 2, 3, 1).flatten(1), p["2_kernel"], p["2_bias"])


def _residual(torch: Any, p: Any, x: Any) -> Any:
    f = torch.nn.functional

    def normalized(x: Any, scale: Any) -> Any:
        return f.batch_norm(x, None, None, weight=scale, training=True, eps=1e-5)

    x = f.relu(normalized(f.conv2d(x, p["in_kernel"], padding=1), p["in_scale"]))
    for block in range(9):
        is_halved = f"{block}_skip_kernel" in p
        kernel, scale = p[f"{block}_a_kernel"], p[f"{block}_a_scale"]
        if is_halved:
            z = f.conv2d(f.pad(x, (0, 1, 0, 1)), kernel, stride=2)
        else:
            z = f.conv2d(x, kernel, padding=1)
        z = f.conv2d(f.relu(normalized(z, scale)), p[f"{block}_b_kernel"], padding=1)
        skip = f.conv2d(x, p[f"{block}_skip_kernel"], stride=2) if is_halved else x
        x = f.relu(normalized(z, p[f"{block}_b_scale"]) + skip)
    return f.linear(x.mean(dim=(2, 3)), p["out_kernel"], p["out_bias"])


def _transformer(torch: Any, p: Any, x: Any) -> Any:
    f = torch.nn.functional

    def normalized(x: Any, scale: Any) -> Any:
        return f.layer_norm(x, scale.shape, weight=scale, eps=1e-5)

    x = p["in_token"][x] + p["in_place"]
    num_rows, length, width = x.shape
    for block in range(2):
        z = f.linear(normalized(x, p[f"{block}_a_scale"]), p[f"{block}_a_kernel"])
        qkv = z.reshape(num_rows, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        z = f.scaled_dot_product_attention(*qkv, is_causal=True)
        x = x + f.linear(z.transpose(1, 2).reshape(x.shape), p[f"{block}_a_out"])
        z = f.linear(normalized(x, p[f"{block}_b_scale"]), p[f"{block}_b_kernel"])
        x = x + f.linear(f.gelu(z, approximate="tanh"), p[f"{block}_b_out"])
    return f.linear(normalized(x, p["out_scale"]), p["out_kernel"]).reshape(num_rows * length, -1)


FORWARD = {
    "MLP": _perceptron,
    "CNN": _convolutions,
    "ResNet-20": _residual,
    "GPT": _transformer,
}
