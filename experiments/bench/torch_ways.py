"""PyTorch's ways over a plane: a loop in place, a vmap over points, and loss-landscapes.

Torch is an extra and slow to import, so that it is imported where it is needed.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bench.race import race

LOOP, BATCHED, PACKAGE = (
    "torch, a loop in place",
    "torch, functional_call + vmap",
    "loss-landscapes",
)


def is_there() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def ways(
    model: Any,
    directions: Sequence[Sequence[Any]],
    inputs: Any,
    labels: Any,
    points: Sequence[tuple[float, float]],
    chunks: Sequence[int],
) -> dict[str, Callable[[], Any]]:
    """The ways of computing the cross-entropy at some points of a plane.

    Args:
      model: a module; what it holds is the origin.
      directions: two lists of tensors like its parameters.
      inputs: what the model takes.
      labels: the classes, one for each row of logits.
      points: pairs of coordinates.
      chunks: of how many points a vmap computes at once.
    """
    torch = importlib.import_module("torch")
    criterion = torch.nn.functional.cross_entropy
    origin = [parameter.detach().clone() for parameter in model.parameters()]

    def move(a: float, b: float) -> None:
        for p, o, d, e in zip(model.parameters(), origin, *directions, strict=True):
            torch.add(o, d, alpha=a, out=p.data)
            p.data.add_(e, alpha=b)

    @torch.inference_mode()
    def loop() -> list[float]:
        values = []
        for a, b in points:
            move(a, b)
            values.append(criterion(model(inputs), labels).item())
        move(0.0, 0.0)
        return values

    names = [name for name, _ in model.named_parameters()]

    def batched(chunk: int) -> Callable[[], list[Any]]:
        def one(a: Any, b: Any) -> Any:
            rows = zip(names, origin, *directions, strict=True)
            moved = {name: o + a * d + b * e for name, o, d, e in rows}
            return criterion(torch.func.functional_call(model, moved, (inputs,)), labels)

        many = torch.func.vmap(one, chunk_size=chunk)
        grid = torch.tensor(points)

        @torch.inference_mode()
        def run() -> list[Any]:
            return [many(grid[:, 0], grid[:, 1])]

        return run

    found: dict[str, Callable[[], Any]] = {LOOP: loop}
    found |= {f"{BATCHED}, chunk {c}": batched(c) for c in chunks}
    if importlib.util.find_spec("loss_landscapes") is not None:
        loss_landscapes = importlib.import_module("loss_landscapes")
        metrics = importlib.import_module("loss_landscapes.metrics")
        metric = metrics.Loss(torch.nn.CrossEntropyLoss(), inputs, labels)
        steps = package_steps(points)

        def landscapes() -> Any:  # its normalization divides by the length of a bias, which is 0
            return loss_landscapes.random_plane(
                model, metric, steps=steps, normalization=None, deepcopy_model=True
            )

        found[PACKAGE] = landscapes
    return found


def package_steps(points: Sequence[Any]) -> int:
    """loss-landscapes knows square grids only: the side of one with about as many points."""
    return max(2, round(math.sqrt(len(points))))


def timed(
    found: dict[str, Callable[[], Any]], points: Sequence[Any], rounds: int = 1
) -> dict[tuple[str, int], float]:
    """Seconds per point, by way and number of threads: one, and as many as torch would take."""
    torch = importlib.import_module("torch")
    seconds = {}
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, each in race(found, rounds=rounds).items():
            num_points = package_steps(points) ** 2 if name == PACKAGE else len(points)
            seconds[name, threads] = each / num_points
    return seconds


def module(forward: Callable[[Any, Any, Any], Any], arrays: Any) -> Any:
    """A module whose parameters are the given tensors, by name, and (torch, p, x) -> logits."""
    torch = importlib.import_module("torch")

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.arrays = torch.nn.ParameterDict(
                {name: torch.nn.Parameter(leaf) for name, leaf in arrays.items()}
            )

        def forward(self, x: Any) -> Any:
            return forward(torch, self.arrays, x)

    return Module()


def tensors(params: dict[str, jax.Array]) -> dict[str, Any]:
    """Arrays as torch has them: outputs first, and no slash in a name."""
    torch = importlib.import_module("torch")
    places = {2: (1, 0), 4: (3, 2, 0, 1)}

    def one(name: str, leaf: np.ndarray) -> Any:
        is_matrix = name.endswith(("kernel", "out"))
        turned = leaf.transpose(places[leaf.ndim]) if is_matrix else leaf
        return torch.tensor(np.ascontiguousarray(turned))

    found = {n.replace("/", "_"): one(n, np.asarray(leaf)) for n, leaf in params.items()}
    return dict(sorted(found.items()))  # as a ParameterDict has them
