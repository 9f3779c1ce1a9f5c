"""Sweeps that are killed, short of disk, or shared by several processes and devices."""

import dataclasses
import os
import pathlib
import signal
import socket
import time

import _sweep_process as sweeping
import numpy as np
import pytest
from _sweep_process import NUM_BLOCKS, PAUSE, Trial

from jaxgd import sweeps


@pytest.fixture(scope="module")
def launcher(pytestconfig):
    launcher = sweeping.Launcher(pytestconfig.getoption("--optimized"))  # as this process compiles
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def uninterrupted(launcher, tmp_path_factory):
    """The values of the usual function, and the seconds that they took with a store."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trial = Trial(str(folder / "out"), store=str(folder / "store"), pause=PAUSE)
    pid = launcher.start(trial)
    start = time.monotonic()
    assert launcher.wait(pid) == 0, said(trial)
    return values_of(trial), time.monotonic() - start


def values_of(trial):
    with np.load(trial.out) as leaves:
        return list(leaves.values())


def said(trial):
    return pathlib.Path(f"{trial.out}.said").read_text()


def assert_equal(values, wanted):
    assert [v.dtype for v in values] == [w.dtype for w in wanted]
    assert [v.tobytes() for v in values] == [w.tobytes() for w in wanted]


def written(store):
    """The finished blocks, each with what changes when its file is written anew."""
    files = pathlib.Path(store).glob("computed/c/*/*")
    finished = [file for file in files if file.suffix != ".partial"]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in finished}


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def job(folder, size, store, **options):
    """The trials of the processes of a job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        Trial(str(folder / f"{size}-{rank}"), store=store, job=(address, size, rank), **options)
        for rank in range(size)
    ]


def finish(launcher, trials):
    pids = [launcher.start(trial) for trial in trials]
    codes = [launcher.wait(pid) for pid in pids]
    assert codes == [0] * len(trials), [said(trial) for trial in trials]
    return [values_of(trial) for trial in trials]


def test_a_sweep_killed_at_random_moments_computes_each_block_once(
    launcher, uninterrupted, tmp_path
):
    wanted, seconds = uninterrupted
    rng = np.random.default_rng(0)
    num_stores, num_kills, num_midway = 0, 0, 0
    trial = Trial(str(tmp_path / "out"), store=str(tmp_path / "0.zarr"), pause=PAUSE)
    before = {}
    while num_kills < 7 or num_midway < 4 or before:
        pid = launcher.start(trial)
        if num_kills < 7 or num_midway < 4:
            time.sleep(rng.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        code = launcher.wait(pid)
        after = written(trial.store)
        num_kills += code != 0
        num_midway += len(before) < len(after) < NUM_BLOCKS
        assert {file: after[file] for file in before} == before
        before = after
        if code == 0:
            assert len(after) == NUM_BLOCKS
            assert_equal(values_of(trial), wanted)
            num_stores += 1
            store = str(tmp_path / f"{num_stores}.zarr")
            trial = Trial(str(tmp_path / "out"), store=store, pause=PAUSE)
            before = {}
        assert num_kills < 50  # of which fewer than four would have struck a sweep midway
    assert num_stores >= 1


# What restrict computes once is part of what is recognized.
@pytest.mark.parametrize("name", ["restricted", "keyed"])
def test_another_process_recognizes_the_function_and_goes_on(launcher, tmp_path, name):
    store = tmp_path / "store"
    fn = sweeping.MAKERS[name]()
    here = sweeps.run(
        fn, *sweeping.AXES, batch_size=sweeping.BATCH_SIZE, store=store, progress=False
    )
    there = written(store)
    lost = sorted(there)[5]
    lost.unlink()

    trial = Trial(str(tmp_path / "out"), fn=name, store=str(store))
    assert launcher.wait(launcher.start(trial)) == 0, said(trial)

    assert_equal(values_of(trial), [np.asarray(here.values)])
    again = written(store)
    assert {file for file in there if again[file] != there[file]} == {lost}


def test_ctrl_c_says_what_is_done_and_where(launcher, tmp_path):
    trial = Trial(str(tmp_path / "out"), store=str(tmp_path / "store"), pause=4 * PAUSE)
    pid = launcher.start(trial)
    wait_until(lambda: len(written(trial.store)) > 3)
    os.kill(pid, signal.SIGINT)
    assert launcher.wait(pid) == 1

    num_blocks = len(written(trial.store))
    assert 3 < num_blocks < NUM_BLOCKS
    assert said(trial).startswith("KeyboardInterrupt")
    note = f"sweeps.run: stopped. {num_blocks} of {NUM_BLOCKS} blocks are in {trial.store}; the"
    assert note in said(trial)


def test_a_full_disk_is_said_and_what_was_written_is_not_lost(launcher, uninterrupted, tmp_path):
    store = str(tmp_path / "store")
    unmade = Trial(str(tmp_path / "out"), store=store, file_limit=200)
    assert launcher.wait(launcher.start(unmade)) == 1
    assert said(unmade).startswith(f"OSError: sweeps.run: the store {store} cannot be made: ")
    assert "File too large" in said(unmade)
    assert not list(tmp_path.glob("*store*"))

    begun = Trial(str(tmp_path / "out"), store=store, pause=4 * PAUSE)
    pid = launcher.start(begun)
    wait_until(lambda: len(written(store)) > 3)
    os.kill(pid, signal.SIGKILL)
    launcher.wait(pid)
    before = written(store)
    full = dataclasses.replace(begun, file_limit=10, pause=0.0)
    assert launcher.wait(launcher.start(full)) == 1
    assert "cannot be written to" in said(full)
    assert "What was written before is there" in said(full)
    assert written(store) == before

    (values,) = finish(launcher, [dataclasses.replace(begun, pause=0.0)])
    assert_equal(values, uninterrupted[0])
    after = written(store)
    assert {file: after[file] for file in before} == before


def test_the_number_of_devices_does_not_change_the_values(launcher, uninterrupted, tmp_path):
    wanted, _ = uninterrupted
    for count in (1, 3, 8):
        trial = Trial(str(tmp_path / "out"), num_devices=(8, count))
        assert launcher.wait(launcher.start(trial)) == 0, said(trial)
        assert_equal(values_of(trial), wanted)


@pytest.mark.parametrize(("size", "stored"), [(1, True), (2, True), (3, False)])
def test_every_process_of_a_job_gets_the_whole_surface(
    launcher, uninterrupted, tmp_path, size, stored
):
    store = str(tmp_path / "store") if stored else None

    for values in finish(launcher, job(tmp_path, size, store)):
        assert_equal(values, uninterrupted[0])

    assert len(written(tmp_path / "store")) == (NUM_BLOCKS if stored else 0)


@pytest.fixture(scope="module")
def mean_of_all(launcher, tmp_path_factory):
    """The means over all data, of one process."""
    trial = Trial(str(tmp_path_factory.mktemp("mean") / "out"), "mean")
    return finish(launcher, [trial])[0]


def test_a_sweep_over_data_killed_after_some_batches_goes_on_with_the_next(
    launcher, mean_of_all, tmp_path
):
    trial = Trial(str(tmp_path / "out"), "mean", str(tmp_path / "store"), pause=4 * PAUSE)
    for num_kills in range(2):
        before = [file.stat().st_ino for file in tmp_path.glob("store/.sums*.npz")]
        pid = launcher.start(trial)
        wait_until(
            lambda before=before: [
                file.stat().st_ino for file in tmp_path.glob("store/.sums*.npz")
            ] not in (before, [])
        )  # fmt: skip
        os.kill(pid, signal.SIGKILL)
        assert launcher.wait(pid) == -signal.SIGKILL, num_kills

    (values,) = finish(launcher, [dataclasses.replace(trial, pause=0.0)])

    assert_equal(values, mean_of_all)


@pytest.mark.parametrize("stored", [True, False])
def test_processes_that_read_a_share_of_the_data_each_get_the_mean_of_all(
    launcher, mean_of_all, tmp_path, stored
):
    store = str(tmp_path / "store") if stored else None

    for values in finish(launcher, job(tmp_path, 2, store, fn="mean")):
        for leaf, wanted in zip(values, mean_of_all, strict=True):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-6)


def test_processes_approximate_together_what_one_does_alone(launcher, tmp_path):
    (alone,) = finish(launcher, [Trial(str(tmp_path / "alone"), "approximated")])

    for values in finish(launcher, job(tmp_path, 2, None, fn="approximated")):
        for leaf, wanted in zip(values, alone, strict=True):
            np.testing.assert_allclose(leaf, wanted, atol=1e-6)


def test_shares_of_the_data_keep_their_number_of_processes(launcher, tmp_path):
    store = str(tmp_path / "store")
    finish(launcher, job(tmp_path, 2, store, fn="mean"))
    alone = Trial(str(tmp_path / "out"), "mean", store)
    assert launcher.wait(launcher.start(alone)) == 1
    assert "different are the number of its processes, among which its data" in said(alone)


def test_params_in_shards_on_several_devices_stay_there(launcher, tmp_path):
    trial = Trial(str(tmp_path / "out"), "sharded", num_devices=(4, 4))

    (values,) = finish(launcher, [trial])

    i = np.arange(sweeping.WIDTH)
    origin, first, second = (np.sin((i + shift) / 50) for shift in range(3))
    a, b = (axis.astype(float) for axis in (sweeping.AXES[0][:5], sweeping.AXES[1][:3]))
    params = origin + a[:, None, None] * first + b[:, None] * second
    x = np.cos(np.arange(5 * i.size, dtype=np.float32) * np.arange(1, 4, dtype=np.float32)[:, None])
    scores = params @ x.astype(float).reshape(15, -1).T / i.size
    np.testing.assert_allclose(values[0], np.tanh(scores).mean(-1), rtol=1e-4, atol=1e-7)


def test_processes_that_start_one_new_store_at_once_all_get_its_values(launcher, tmp_path):
    for attempt in range(2):
        store = str(tmp_path / f"{attempt}.zarr")
        trials = [Trial(str(tmp_path / f"{attempt}-{i}"), "quick", store) for i in range(3)]
        first, *others = finish(launcher, trials)
        for values in others:
            assert_equal(values, first)
        assert len(list(tmp_path.glob("*zarr*"))) == attempt + 1  # and nothing is left over


def test_when_a_process_dies_the_job_says_so_and_another_one_goes_on(
    launcher, uninterrupted, tmp_path
):
    store = str(tmp_path / "store")
    trials = job(tmp_path, 2, store, patience=3, pause=8 * PAUSE)
    survivor, victim = (launcher.start(trial) for trial in trials)
    wait_until(lambda: len(written(store)) > 10)
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    assert launcher.wait(victim) == -signal.SIGKILL
    assert launcher.wait(survivor) != 0
    assert time.monotonic() - start < 25
    assert "sweeps.run: another process of the job is gone. Start the job again" in said(trials[0])
    before = written(store)
    assert 10 < len(before) < NUM_BLOCKS

    for size in (1, 3):  # the first of them completes it
        for values in finish(launcher, job(tmp_path, size, store)):
            assert_equal(values, uninterrupted[0])
    after = written(store)
    assert len(after) == NUM_BLOCKS
    assert {file: after[file] for file in before} == before
