"""How many points a device computes at once, where nobody says so: what fits, or what is fastest.

What fits follows from the compiled program. What is fastest is found by a clock, on the program
and the points of the sweep itself, and only where the search costs a small part of what it may
save: a quarter of the size that fits is compiled and timed, then a quarter of that, for as long
as each is faster than the one before. (Where one point alone fills fast memory, two are tried.)
"""

import math
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxgd.sweeps import _program
from jaxgd.types import PyTree

_FIRST = 1024  # tried where none is given, and kept if it fits
_CACHE = 2**24  # bytes for the values of one batch on a CPU: more do not make it faster
_SHARE = 0.25  # of an accelerator's memory, for the same
_LEAST_SECONDS = 2.0  # of a sweep that is worth a search
_SEARCH = 0.1  # of the time of a sweep: what the search may take
_GAIN = 0.95  # of the time per point: more is no gain
_TIMED_SECONDS = 0.05  # of computing, for each size


def fitting(program: _program.Program, most: int = _FIRST) -> int:
    """The largest size, a power of two or the first one tried, whose values fit fast memory."""
    return _fitting(program, program.bind(_zeros(program)), most)


def _fitting(program: _program.Program, bound: PyTree, most: int) -> int:
    num_points = math.prod(program.shape)
    # Not so large that a small grid of dear points is done, or lost, all at once.
    first = min(most, max(1, num_points // _program.NUM_PARTS))
    needed = program.compiled(bound, first).num_bytes
    device = next(iter(program.axes[0].devices()))
    limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    budget = _CACHE if limit is None else int(_SHARE * limit)
    if needed <= budget:
        return first
    return 2 ** (max(1, budget * first // needed).bit_length() - 1)


def fastest(program: _program.Program) -> int:
    """The size that fits, or another one that a clock has found faster."""
    bound = program.bind(_zeros(program))
    size, num_points = _fitting(program, bound, _FIRST), math.prod(program.shape)
    # The clocks of several processes need not agree; and an effect is to happen once for a point.
    if num_points < 2 * _program.NUM_PARTS or jax.process_count() > 1 or program.closed.effects:
        return size
    measured = {size: _seconds_per_point(program, bound, size)}
    whole = measured[size] * num_points
    compiling, start = program.compiled(bound, size).num_seconds, time.perf_counter()
    while True:
        left = _SEARCH * whole - (time.perf_counter() - start)
        size = next_size(measured, compiling, left) if whole >= _LEAST_SECONDS else None
        if size is None:
            return min(measured, key=measured.__getitem__)
        measured[size] = _seconds_per_point(program, bound, size)


def next_size(measured: Mapping[int, float], compiling: float, left: float) -> int | None:
    """The size to be timed next, or None.

    Args:
      measured: seconds per point by size, in the order of the search.
      compiling: seconds that it takes to compile a program.
      left: seconds that the search may still take.
    """
    *before, (size, seconds) = measured.items()
    is_better = not before or seconds < _GAIN * before[-1][1]
    new = max(1, size // 4) if before or size > 1 else 2
    timing = 2 * max(_TIMED_SECONDS, new * seconds)
    is_affordable = compiling + timing <= left
    return new if is_better and is_affordable and new not in measured else None


def _seconds_per_point(program: _program.Program, bound: PyTree, size: int) -> float:
    """The time of a point, of some that are spread over the grid."""
    compiled = program.compiled(bound, size)
    num_devices = 1 if program.mesh is None else program.mesh.size
    shape = num_devices, compiled.num_slots, size
    numbers = np.linspace(0, math.prod(program.shape) - 1, math.prod(shape)).astype(np.int32)
    numbers = np.random.default_rng(0).permutation(numbers).reshape(shape)

    def seconds(num_batches: int) -> float:
        counts = np.full(num_devices, num_batches, np.int32)
        start = time.perf_counter()
        jax.block_until_ready(compiled.compute(bound, numbers, counts))
        return time.perf_counter() - start

    once = seconds(1)
    if once < _TIMED_SECONDS:
        once = min(once, seconds(1))  # the first call of a program takes longer
    num_batches = min(compiled.num_slots, int(_TIMED_SECONDS / max(once, 1e-9)))
    if num_batches > 1:
        once = min(once, seconds(num_batches) / num_batches)
    return once / (size * num_devices)


def _zeros(program: _program.Program) -> PyTree:
    """A batch of data like those to come; empty without data."""
    return jax.tree.map(
        lambda leaf: jnp.zeros(
            leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype), device=leaf.sharding
        ),
        program.batch,
    )
