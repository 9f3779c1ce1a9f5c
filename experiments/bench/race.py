"""How ways of doing the same are timed against each other."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from experiments.shell.report import Table


def race(ways: Mapping[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """The least seconds of each way, after one call that is not counted; they take turns."""
    for way in ways.values():
        jax.block_until_ready(way())
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(way())
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def table(title: str, seconds: Mapping[str, float], reference: str, note: str = "") -> Table:
    """The ways of one race, with how many times the time of the reference each takes."""
    rows = [
        (name, f"{1e3 * each:.3f}", f"{each / seconds[reference]:.2f}")
        for name, each in seconds.items()
    ]
    return Table(title + note, ("way", "milliseconds", f"times '{reference}'"), rows)


def seconds_of(way: Callable[[], Any]) -> float:
    """The least seconds of one way."""
    return next(iter(race({"way": way}, rounds=2).values()))
