"""Processes that sweep, quickly started: one that has imported jax forks a child for each.

Forking is safe until jax has opened a device, which is left to the children.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import zarr

from jaxgd import losses, neurons, planes, sweeps

AXES = np.linspace(-1, 1, 24, dtype=np.float32), np.linspace(0, 2, 20, dtype=np.float32)
BATCH_SIZE = 4
NUM_BLOCKS = 24  # a row each
PAUSE = 0.005  # seconds: a sweep then takes a third of a second longer


def looped(w, b):
    """A loop of sines, and holes of NaN."""

    def step(_, x):
        return jnp.sin(x) + w

    return {"x": jax.lax.fori_loop(0, 50, step, b), "log": jnp.log(w)}


def quick(w, b):
    return jnp.sin(3 * w) * b


def restricted():
    """A function that holds arrays, through a relu, which has a derivative of its own."""
    rng = np.random.default_rng(3)
    shapes = {"weights": (3, 4), "bias": (4,)}, {"weights": (4, 2), "bias": (2,)}
    params, *directions = (
        [
            neurons.Neuron(**{n: rng.normal(size=s).astype(np.float32) for n, s in layer.items()})
            for layer in shapes
        ]
        for _ in range(3)
    )
    risk = losses.empirical_risk(
        lambda params, x: neurons.apply_network(params, x, activation=jax.nn.relu),
        losses.softmax_cross_entropy_with_integer_labels,
    )
    x, plane = rng.normal(size=(7, 3)).astype(np.float32), planes.Plane(params, tuple(directions))
    return jax.jit(planes.restrict, static_argnums=0)(risk, plane, x, np.arange(7) % 2)


def keyed():
    key = jax.random.key(5)
    return lambda a, b: a * jax.random.normal(key) + b


def looped_mean(w, b, x):
    """Like ``looped``, of a batch."""
    return jnp.mean(looped(w, b)["x"] * x)


WIDTH = 4096


def sharded():
    """A function whose params lie in shards on all devices."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    origin, first, second = (
        jax.device_put(jnp.sin(jnp.arange(i, i + WIDTH) / 50), place) for i in range(3)
    )
    return lambda a, b, x: jnp.mean(jnp.tanh(x @ (origin + a * first + b * second) / WIDTH))


def unseen_params():
    """Batches, between which no device holds more than its shard of anything as large as params."""
    for i in range(3):
        large = [array for array in jax.live_arrays() if array.size >= WIDTH]
        assert large
        for array in large:
            assert array.addressable_shards[0].data.size * jax.device_count() == array.size
        yield (np.cos(np.arange(5 * WIDTH, dtype=np.float32) * (i + 1)).reshape(5, WIDTH),)


def batches(rank, size, pause):
    """What a process reads of twelve batches, the last one ragged."""
    rows = np.linspace(-1, 2, 35, dtype=np.float32)
    for i in list(range(0, 35, 3))[rank::size]:
        time.sleep(pause)
        yield (rows[i : i + 3],)


def write_slowly(pause: float, write: Callable[..., None]) -> Callable[..., None]:
    """Writes after a pause."""

    def paused(*arguments: Any) -> None:
        time.sleep(pause)
        write(*arguments)

    return paused


MAKERS = {
    "looped": lambda: looped,
    "quick": lambda: quick,
    "restricted": restricted,
    "keyed": keyed,
    "mean": lambda: looped_mean,
    "sharded": sharded,
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a child is to do.

    Attributes:
      out: where the values go, and what is said.
      fn: which function, by name.
      store: of the sweep.
      num_devices: simulated, and how many of them to use.
      job: address, number of processes and rank.
      patience: seconds without a sign of life after which a process of the job counts as dead.
      pause: seconds before each array of a block is written, and before each batch of data is
        read: moments for a signal to strike.
      file_limit: bytes that a file may have, as if the disk were full.
    """

    out: str
    fn: str = "looped"
    store: str | None = None
    num_devices: tuple[int, int] | None = None
    job: tuple[str, int, int] | None = None
    patience: int = 10
    pause: float = 0.0
    file_limit: int | None = None


def run(trial: Trial) -> None:
    """Sweeps, and writes the values or what went wrong."""
    if trial.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trial.file_limit, resource.RLIM_INFINITY))
    if trial.num_devices is not None:
        count = trial.num_devices[0]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        os.environ["XLA_FLAGS"] = flags
    if trial.job is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(*trial.job, heartbeat_timeout_seconds=trial.patience)
    _, size, rank = trial.job or ("", 1, 0)
    data = None
    if trial.fn in ("mean", "sharded"):
        data = batches(rank, size, trial.pause) if trial.fn == "mean" else unseen_params()
    axes = jax.device_put(AXES if data is None else (AXES[0][:5], AXES[1][:3]))  # compiles nothing
    devices = None
    if trial.num_devices is not None and trial.fn != "sharded":
        devices = jax.devices()[: trial.num_devices[1]]
    if trial.fn == "approximated":
        result = sweeps.approximate(quick, *2 * [(-1, 1)], tolerance=1e-3, progress=False)
        return write(trial, [result.coefficients, result.errors, result.num_points])
    slow_write = write_slowly(trial.pause, zarr.Array.__setitem__)
    with (
        mock.patch.object(sweeps, "_NUM_BLOCKS", NUM_BLOCKS),
        mock.patch.object(zarr.Array, "__setitem__", slow_write),
    ):
        surface = sweeps.run(
            MAKERS[trial.fn](), *axes, data=data, batch_size=BATCH_SIZE, store=trial.store,
            devices=devices, progress=False,
        )  # fmt: skip
    return write(trial, jax.tree.leaves(surface.values))


def write(trial: Trial, leaves: list[jax.Array]) -> None:
    """Puts values where the test looks for them."""
    with pathlib.Path(trial.out).open("wb") as file:
        np.savez(file, *[np.asarray(leaf) for leaf in leaves])


def _child(trial: Trial) -> None:
    """Never returns: the parent's exit handlers are not the child's."""
    said = os.open(f"{trial.out}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    code = 1
    try:
        run(trial)
        code = 0
    except BaseException as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()), flush=True)
    if code == 0 and trial.job is not None:
        jax.distributed.shutdown()
    os._exit(code)


def main() -> None:
    """Reads trials, a line each, and forks; or process numbers, and waits."""
    for line in sys.stdin:
        told = json.loads(line)
        if isinstance(told, int):
            with contextlib.suppress(ChildProcessError):
                print(os.waitstatus_to_exitcode(os.waitpid(told, 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(Trial(**told))
        print(pid, flush=True)


class Launcher:
    """The same from outside: starts children and waits for them."""

    def __init__(self, is_optimized: bool) -> None:
        here = pathlib.Path(__file__)
        hurry = "0" if is_optimized else "1"
        paths = os.pathsep.join([str(here.parent.parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(here)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "1",
                 "JAX_DISABLE_MOST_OPTIMIZATIONS": hurry},
        )  # fmt: skip

    def _ask(self, told: object) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(told), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, trial: Trial) -> int:
        """Starts a child; its process number."""
        return self._ask(dataclasses.asdict(trial))

    def wait(self, pid: int) -> int:
        """Waits for a child; its exit code, or minus the signal that ended it."""
        return self._ask(pid)

    def close(self) -> None:
        with self.process:
            pass  # closes its pipes, on which it ends, and waits for it


if __name__ == "__main__":
    main()
