"""A sweep in chunks is the sweep: the same values, on disk or not, whole or resumed."""

import contextlib
import functools
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from jaxgd import planes, surfaces, sweeps
from jaxgd.sweeps import _batch_size, _fingerprint, _grid, _program, _store

W, B = np.linspace(-1, 1, 7, dtype=np.float32), np.linspace(0, 2, 5, dtype=np.float32)
HOLES = ("loss", "half", "count", "right")


def several(w, b):
    """Values of four dtypes; NaN, zero and false where w is below 0.1."""
    loss = jnp.log(w - 0.1) * b
    return {
        "loss": loss,
        "half": jnp.maximum(w - 0.1, 0).astype(jnp.float16),
        "count": jnp.int32(100 * jnp.maximum(w - 0.1, 0)),
        "right": w > 0.1,
    }


def swept(fn, *axes, batch_size):
    return jax.jit(lambda *axes: surfaces.sweep(fn, *axes, batch_size=batch_size))(*axes)


def assert_equal(surface, wanted):
    """To the last bit, NaN included."""
    assert jax.tree.structure(surface) == jax.tree.structure(wanted)
    for leaf, other in zip(jax.tree.leaves(surface), jax.tree.leaves(wanted), strict=True):
        assert leaf.dtype == other.dtype
        assert leaf.shape == other.shape
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


def run(fn=several, *axes, **options):
    options = {"batch_size": 5, "progress": False, **options}
    return sweeps.run(fn, *(axes or (W, B)), **options)


def opened(store):
    """By xarray, whose import takes half a second."""
    import xarray

    return xarray.open_zarr(store)


def written(store):
    """The files of all blocks, each with what changes when it is written anew."""
    files = [file for file in pathlib.Path(store).glob("*/c/*/*") if file.suffix != ".partial"]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture(autouse=True, scope="module")
def _a_row_is_a_block():
    """Writing a block takes a millisecond for each value: the stores of these tests have few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "_NUM_BLOCKS", W.size)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished store and its surface; tests work on copies of it."""
    store = tmp_path_factory.mktemp("made") / "store"
    return store, run(store=store)


@pytest.fixture
def copied(made, tmp_path):
    """A finished store of the test's own, and its surface."""
    store, surface = made
    shutil.copytree(store, tmp_path / "store")
    return surface


FUNCTIONS = {
    "a line": (lambda a: jnp.exp(jnp.sin(a)), (np.linspace(0, 3, 50, dtype=np.float32),)),
    "a pytree": (several, (W, B)),
    "a tuple": (lambda a, b: (a * b, [a, jnp.tanh(b)]), (W, B)),
    "three axes": (lambda a, b, c: jnp.tanh(a * b) + c, (W, B, np.arange(4, dtype=np.int32))),
    "a number": (lambda a: 1.0, (W,)),
    "one point": (jnp.exp, (W[:1],)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("batch_size", "stored"), [(1, False), (1000, False), (6, True)])
def test_a_run_equals_a_sweep_up_to_rounding(tmp_path, name, batch_size, stored):
    fn, axes = FUNCTIONS[name]
    store = tmp_path / "store" if stored else None

    surface = run(fn, *axes, batch_size=batch_size, store=store)

    wanted = jax.tree.map(jnp.asarray, swept(fn, *axes, batch_size=batch_size))
    chex.assert_trees_all_equal_shapes_and_dtypes(surface, wanted)
    chex.assert_trees_all_close(surface, wanted, rtol=1e-6)
    if store is not None:
        assert_equal(sweeps.load(store), surface)


@pytest.mark.parametrize("shape", [(1,), (50,), (4, 10), (7, 5, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("num_blocks", [1, 2, 9, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_blocks_are_consecutive_and_cut_the_grid_and_batches_hold_its_points_alone(
    shape, num_blocks, batch_size
):
    points = np.arange(np.prod(shape)).reshape(shape)

    grid = _grid.of(shape, batch_size, num_blocks)

    blocks = range(_grid.num_blocks(grid))
    boxes = [points[_grid.region(grid, block)].ravel() for block in blocks]
    for block, box in zip(blocks, boxes, strict=True):
        np.testing.assert_array_equal(box, np.r_[_grid.place(grid, block)])
    np.testing.assert_array_equal(np.sort(np.concatenate(boxes)), points.ravel())
    assert len(blocks) >= min(num_blocks, points.size)
    batches = _grid.batches(grid, np.arange(len(blocks)))
    assert batches.shape[1] == min(batch_size, points.size)
    np.testing.assert_array_equal(np.unique(batches), points.ravel())


def of_many_terms(a, b):
    """A sum whose last bits show in what order it is summed."""
    return jnp.tanh(jnp.arange(20) * a + b).sum()


@pytest.mark.parametrize("batch_size", [8, 221])
def test_runs_agree_to_the_last_bit_and_with_a_sweep_to_eps_times_the_terms(
    tmp_path, monkeypatch, batch_size
):
    monkeypatch.setattr(sweeps, "_NUM_BLOCKS", 30)
    axes = jnp.linspace(-1, 1, 17), jnp.linspace(-2, 2, 13)
    options = {"batch_size": batch_size}

    surface = run(of_many_terms, *axes, **options)
    assert_equal(run(of_many_terms, *axes, store=tmp_path / "store", **options), surface)
    lost = sorted((tmp_path / "store" / "computed" / "c").glob("*/*"))[10::7]
    for file in lost:
        file.unlink()
    assert_equal(run(of_many_terms, *axes, store=tmp_path / "store", **options), surface)

    wanted = swept(of_many_terms, *axes, batch_size=batch_size)
    a, b = np.meshgrid(*axes, indexing="ij")
    terms = np.abs(np.tanh(np.arange(20) * a[..., None] + b[..., None])).sum(-1)
    error = np.abs(np.asarray(surface.values) - np.asarray(wanted.values))
    assert (error <= 20 * np.finfo(np.float32).eps * terms).all()


def test_one_program_is_compiled_however_large_the_grid():
    compiled = []
    axes = [jax.device_put(np.linspace(0, 1, size, dtype=np.float32)) for size in (40, 4000)]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    counts = []
    try:
        for axis in axes:
            run(lambda a: jnp.sin(3 * a), axis)
            counts.append(len(compiled))
    finally:
        jax.monitoring.clear_event_listeners()
    assert 1 <= counts[1] - counts[0] <= counts[0]


def test_the_batch_size_follows_from_the_memory_of_the_program(tmp_path, monkeypatch):
    def heavy(a):
        return jnp.sort(jnp.sin(a * jnp.arange(2.0**22)))[3]

    def interrupt(*_):
        raise KeyboardInterrupt  # the store is made, and that is enough

    # Nothing takes any time: nothing is searched.
    monkeypatch.setattr(_batch_size, "_seconds_per_point", lambda *_: 0.0)
    sizes = []
    many = jnp.linspace(0, 1, 2**16)
    for name, fn, axis in (
        ("heavy", heavy, many[:256]),
        ("few", jnp.sin, many[:256]),
        ("light", jnp.sin, many),
    ):
        store = tmp_path / name
        with contextlib.suppress(KeyboardInterrupt), monkeypatch.context() as patch:
            patch.setattr(_program, "compute", interrupt)
            run(fn, axis, batch_size=None, store=store)
        sizes.append(opened(store).attrs["batch_size"])

    heavy_size, few, light = sizes
    assert heavy_size == 1
    assert few == 4
    assert light == 1024


SECONDS_PER_POINT = {  # by size
    "falls": (lambda size: size, [1024, 256, 64, 16, 4, 1], 1),
    "has a valley": (lambda size: 1 + abs(np.log2(size / 64)), [1024, 256, 64, 16], 64),
    "is flat": (lambda size: 1.0 + 1e-3 * size / 1024, [1024, 256], 256),
    "rises": (lambda size: 1 / size, [1024, 256], 1024),
}


@pytest.mark.parametrize("name", SECONDS_PER_POINT)
def test_without_a_batch_size_smaller_ones_are_timed_as_long_as_they_are_faster(
    tmp_path, monkeypatch, name
):
    seconds_of, wanted, best = SECONDS_PER_POINT[name]
    timed = []

    def seconds_per_point(program, bound, size):
        timed.append(size)
        return seconds_of(size)

    monkeypatch.setattr(_batch_size, "_seconds_per_point", seconds_per_point)
    axis, store = jnp.linspace(0, 1, 2**16), tmp_path / "store"

    surface = run(jnp.sin, axis, batch_size=None, store=store)

    assert timed == wanted
    assert opened(store).attrs["batch_size"] == best
    assert_equal(run(jnp.sin, axis, batch_size=best), surface)
    timed.clear()
    run(jnp.sin, axis, batch_size=None, store=store)
    assert not timed  # the store has its size


def test_no_size_is_tried_that_would_cost_more_than_a_tenth_of_the_sweep():
    first = {64: 0.01}  # seconds per point
    assert _batch_size.next_size(first, compiling=3.0, left=3.4) == 16
    assert _batch_size.next_size(first, compiling=3.0, left=3.2) is None
    assert _batch_size.next_size(first | {16: 0.009}, compiling=3.0, left=3.2) == 4
    assert _batch_size.next_size(first | {16: 0.0099}, compiling=3.0, left=9.0) is None
    assert _batch_size.next_size({1: 0.01}, compiling=3.0, left=3.4) == 2
    assert _batch_size.next_size({1: 0.01, 2: 0.001}, compiling=0.0, left=9.0) is None
    assert _batch_size.next_size({2: 0.01, 1: 0.001}, compiling=0.0, left=9.0) is None


def test_what_a_function_prints_it_prints_once_for_a_point():
    seen = []

    def fn(a):
        jax.debug.callback(lambda value: seen.append(float(value)), a)
        return a

    axis = jnp.linspace(0, 1, 200)
    run(fn, axis, batch_size=None)
    jax.effects_barrier()
    points, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(points, np.float32(axis))
    assert (counts[:-1] == 1).all()  # the last point fills up the last batch


def test_the_clock_times_the_program_at_points_of_the_grid():
    axes = jnp.linspace(1, 2, 50), jnp.linspace(1, 2, 20)
    program = _program.trace("sweeps.run", lambda a, b: a * b, axes, None)
    real, seen = program.compiled(program.bind(()), 4), []

    def compute(bound, points, counts):
        seen.append(points)
        return real.compute(bound, points, counts)

    watched = program._replace(compiled=lambda *_: real._replace(compute=compute))
    assert _batch_size._seconds_per_point(watched, program.bind(()), 4) > 0
    assert seen[0].shape == (1, 250, 4)
    np.testing.assert_array_equal(np.sort(seen[0].ravel()), np.arange(1000))


def test_a_bar_tells_points_per_second_and_the_time_left_unless_it_shall_not(capsys):
    run(progress=False)
    assert capsys.readouterr() == ("", "")
    run(progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "35.0/35.0" in err
    assert "points/s" in err
    assert "<" in err  # between the time gone and the time left


def test_xarray_reads_what_is_done_while_it_grows(tmp_path, monkeypatch):
    store = tmp_path / "surface.zarr"
    seen = []
    keep = _store.write

    def look_first(*arguments):
        if len(written(store)) % 10 == 0:
            with opened(store) as dataset:
                seen.append(dataset.load())
        keep(*arguments)

    monkeypatch.setattr(_store, "write", look_first)
    surface = run(store=store)

    wanted = {name: np.asarray(values) for name, values in surface.values.items()}
    assert len(seen) >= 4
    done = [int(dataset.computed.sum()) for dataset in seen]
    assert done[0] == 0
    assert all(fewer < more for fewer, more in itertools.pairwise(done))
    for dataset in seen:
        at = dataset.computed.values
        for name in HOLES:
            assert np.array_equal(dataset[name].values[at], wanted[name][at], equal_nan=True)
        assert np.isnan(dataset.loss.values[~at]).all()


def test_a_store_says_what_it_holds(tmp_path):
    surface = run(store=tmp_path / "surface.zarr")

    dataset = opened(tmp_path / "surface.zarr")
    assert dict(dataset.sizes) == {"w": 7, "b": 5}
    assert dataset.computed.all()
    assert dataset.w.values.tobytes() == np.asarray(W).tobytes()
    for name, values in surface.values.items():
        assert dataset[name].dims == ("w", "b")
        assert dataset[name].dtype == values.dtype
    nearest = dataset.loss.sel(w=0.6, b=1.0, method="nearest")
    assert float(nearest) == float(surface.values["loss"][5, 2])
    assert dataset.attrs["function"] == "several"
    assert dataset.attrs["jax"] == jax.__version__
    assert {"jaxgd", "dtype", "batch_size", "fingerprint"} <= set(dataset.attrs)


@pytest.mark.parametrize(
    ("fn", "names"),
    [
        (lambda computed, loss: {"loss": computed, "x": loss}, {"loss", "x"}),
        (lambda a, b: {"a": b, "x": a}, {"a_value", "x"}),
        (lambda *c: (c[0], (c[1], 1)), {"values_0", "1.0", "1.1"}),
        (lambda a, b: {"x": {"y": a}, "x.y": b, "x/y": a}, {"x.y", "x.y_value", "x_y"}),
        (lambda a, b: a, {"values"}),
    ],
)
def test_names_in_a_store_never_collide(tmp_path, fn, names):
    surface = run(fn, store=tmp_path / "store")
    dataset = opened(tmp_path / "store")

    assert len(dataset.dims) == 2
    assert names <= set(dataset.data_vars)
    assert dataset.sizes != {}
    again = run(fn, store=tmp_path / "store")
    assert_equal(again, surface)


def test_a_dtype_that_no_store_can_hold_is_refused_before_anything_is_made(tmp_path):
    def fn(w, b):
        return {"x": w.astype(jnp.bfloat16), "y": b}

    assert run(fn).values["x"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"the output x of fn must be of a dtype .*got bfloat16"):
        run(fn, store=tmp_path / "store")
    assert not list(tmp_path.iterdir())


def test_a_finished_sweep_computes_nothing_and_nan_and_zero_are_values(copied, tmp_path):
    surface = copied
    before = written(tmp_path / "store")

    assert_equal(run(store=tmp_path / "store"), surface)

    assert written(tmp_path / "store") == before
    num_blocks = len(list((tmp_path / "store" / "computed" / "c").glob("*/*")))
    assert len(before) == 5 * num_blocks


@pytest.mark.parametrize("array", ["computed", "loss", "right"])
def test_only_what_is_missing_is_computed(copied, tmp_path, array):
    surface = copied
    before = written(tmp_path / "store")
    lost = sorted((tmp_path / "store" / array / "c").glob("*/*"))[1::3]
    for file in lost:
        file.unlink()

    assert_equal(run(store=tmp_path / "store"), surface)

    after = written(tmp_path / "store")
    blocks = {file.relative_to(file.parents[2]) for file in lost}
    changed = {file for file in before if after[file] != before[file]}
    assert {file.relative_to(file.parents[2]) for file in changed} == blocks


def test_what_a_killed_process_leaves_behind_is_no_obstacle(tmp_path):
    whole = run(store=tmp_path / "whole")
    # Killed while the store was made, and while a block was written.
    shutil.copytree(tmp_path / "whole", tmp_path / ".store.new")
    (tmp_path / ".store.new" / "zarr.json").write_text("{")
    before = sorted(tmp_path.rglob(".store*/**"))
    assert_equal(run(store=tmp_path / "store"), whole)
    assert sorted(tmp_path.rglob(".store*/**")) == before  # it may be somebody's
    file = min((tmp_path / "store" / "loss" / "c").glob("*/*"))
    file.rename(file.with_suffix(".123.partial"))
    assert_equal(run(store=tmp_path / "store"), whole)


@pytest.mark.parametrize(
    ("array", "harm"),
    [("loss", "a flipped bit"), ("loss", "cut short"), ("loss", "empty"), ("computed", "empty")],
)
def test_a_damaged_block_is_named_and_deleting_it_is_the_cure(copied, tmp_path, harm, array):
    surface = copied
    file = sorted((tmp_path / "store" / array / "c").glob("*/*"))[4]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 8
    changed = {"a flipped bit": content, "cut short": content[:5], "empty": b""}
    file.write_bytes(changed[harm])
    before = written(tmp_path / "store")

    with pytest.raises(
        OSError, match=r"^sweeps\.run: a block of the store is damaged: "
    ) as refusal:
        run(store=tmp_path / "store")
    assert str(file) in str(refusal.value)
    assert written(tmp_path / "store") == before

    file.unlink()
    assert_equal(run(store=tmp_path / "store"), surface)


def test_a_damaged_block_that_is_not_finished_is_computed_again(copied, tmp_path):
    store = tmp_path / "store"
    (store / "loss" / "c" / "4" / "0").write_bytes(b"nothing")
    (store / "right" / "c" / "4" / "0").unlink()

    loaded = sweeps.load(store).values["loss"]

    wanted = np.where(np.arange(7)[:, None] == 4, np.nan, copied.values["loss"])
    np.testing.assert_array_equal(loaded, wanted)
    assert_equal(run(store=store), copied)


@pytest.mark.parametrize("name", ["file", "file/store"])
def test_a_store_that_cannot_be_made_is_said(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=rf"^sweeps\.run: the store .*{name} cannot be made: "):
        run(store=tmp_path / name)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("content", ["a folder", "a damaged store"])
def test_nothing_else_is_overwritten_by_a_store(tmp_path, content):
    path = tmp_path / "here"
    if content == "a folder":
        path.mkdir()
        (path / "file").write_text("mine")
    else:
        run(store=path)
        (path / "zarr.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(
        ValueError, match=r"store must be a folder of this sweep, or none yet.*here"
    ):
        run(store=path)

    assert sorted(tmp_path.rglob("*")) == before


def linked(folder, *, is_there):
    """A link to an empty folder, or to nothing."""
    if is_there:
        (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder / "elsewhere")
    return folder / "link"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_store_lies_where_a_link_leads(tmp_path, is_there):
    link = linked(tmp_path, is_there=is_there)
    surface = run(store=link)

    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "elsewhere", link]
    assert_equal(run(store=tmp_path / "elsewhere"), surface)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    surface = run(store="~/deep/store")
    assert_equal(sweeps.load(pathlib.Path("~/deep/store")), surface)
    assert (tmp_path / "deep" / "store" / "zarr.json").exists()


@pytest.mark.parametrize(
    "store",
    ["s3://bucket/x.zarr", "file:///tmp/x", "gs://b", pathlib.Path("s3://bucket/x"), "memory://x",
     "zip::https://host/x", "~nobody-of-this-name/x", "", " ", "a\0b"],
)  # fmt: skip
@pytest.mark.parametrize("call", [run, sweeps.load])
def test_a_store_that_is_no_folder_of_this_machine_is_refused(tmp_path, monkeypatch, store, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^sweeps\.\w+: store must be (a folder, not a URL|the p)"
    ):
        call(store=store)
    assert not list(tmp_path.iterdir())


class Bytes:
    """A path of bytes."""

    def __fspath__(self):
        return b"store"


@pytest.mark.parametrize("store", [Bytes(), b"store", 3])
def test_a_store_must_be_named_in_words(store):
    with pytest.raises(TypeError, match=r"^sweeps\.run: store must be a str"):
        run(store=store)


def test_a_program_that_calls_back_into_python_has_no_store(tmp_path):
    def fn(w, b):
        shape = jax.ShapeDtypeStruct((), w.dtype)
        inner = jax.jit(lambda w: jax.pure_callback(np.sin, shape, w, vmap_method="expand_dims"))
        return jax.lax.cond(b > 1, inner, lambda w: w, w)

    def printing(w, b):
        jax.debug.callback(lambda w: None, w)
        return w

    assert run(fn).values.shape == (7, 5)
    with pytest.raises(ValueError, match=r"^sweeps\.run: with a store, fn must be a program .*Py"):
        run(fn, store=tmp_path / "store")
    assert not list(tmp_path.iterdir())
    assert run(printing, store=tmp_path / "store").values.shape == (7, 5)  # it gives no value


@pytest.mark.parametrize(
    "name", [".", "..", "zarr.json", ".zattrs", "__x", "a\\b", "n\n", 300 * "x"]
)
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"the output fn\(\.\.\.\)\[.* must have a name that a folde"
    ):
        run(lambda w, b: {name: w, "y": b}, store=tmp_path / "store")
    with pytest.raises(ValueError, match=r"axis_names\[1\] must have a name that a folder can hav"):
        run(store=tmp_path / "store", axis_names=("w", name))
    assert not list(tmp_path.iterdir())


def test_a_key_is_no_value():
    keys = jax.random.split(jax.random.key(0), 7)
    with pytest.raises(ValueError, match=r"fn must return numbers \(at x\), got a PRNG key\. Ret"):
        run(lambda w, b: {"x": keys[0], "y": w})


def test_an_axis_that_no_store_can_hold_is_refused(tmp_path):
    axes = W.astype(jnp.bfloat16), B
    assert run(several, *axes).values["loss"].shape == (7, 5)
    with pytest.raises(ValueError, match=r"coordinate 0 must be of a dtype .*got bfloat16\. Make"):
        run(several, *axes, store=tmp_path / "store")


@pytest.mark.parametrize("harm", ["lost", "damaged", "another"])
def test_a_lost_or_damaged_axis_is_restored(copied, tmp_path, harm):
    surface = copied
    chunk = tmp_path / "store" / "w" / "c"
    if harm == "lost":
        shutil.rmtree(chunk)
    elif harm == "damaged":
        (chunk / "0").write_bytes(b"nothing")
    else:
        zarr.open_array(tmp_path / "store" / "w")[:] = 0

    with pytest.raises(
        OSError, match=r"^sweeps\.load: the coordinates in .* are lost or damaged\."
    ):
        sweeps.load(tmp_path / "store")
    assert_equal(run(store=tmp_path / "store"), surface)

    with opened(tmp_path / "store") as dataset:
        np.testing.assert_array_equal(dataset.w.values, W)


def edited(store, change):
    """Changes the metadata of a store."""
    file = store / "zarr.json"
    told = json.loads(file.read_text())
    change(told["attributes"])
    file.write_text(json.dumps(told))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("batch_size"),
        lambda a: a.pop("fingerprint"),
        lambda a: a.pop("values"),
        lambda a: a.pop("jax"),
        lambda a: a.update(batch_size="5"),
        lambda a: a.update(batch_size=0),
        lambda a: a.update(fingerprint=3),
        lambda a: a.update(values=["loss", "w"]),
        lambda a: a.update(values=7),
        lambda a: a.update(structure=[0, 1]),
        lambda a: a.update(structure={"dict": {"loss": 0, "w": 7}}),
        lambda a: a.update(structure={"set": [0, 1]}),
        lambda a: a["fingerprint"].pop("coordinates"),
        lambda a: a.clear(),
    ],
)
def test_edited_metadata_are_refused_by_name(copied, tmp_path, change):
    edited(tmp_path / "store", change)

    for call in (run, sweeps.load):
        with pytest.raises(ValueError, match=r"^sweeps\.\w+: store must be a folder of this sweep"):
            call(store=tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("loss", "chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [7, 1]}}),
        ("half", "shape", [7, 6]),
        ("computed", "data_type", "uint8"),
    ],
)
def test_an_edited_array_is_refused_by_name(copied, tmp_path, name, field, value):
    file = tmp_path / "store" / "zarr.json"
    told = json.loads(file.read_text())
    array = told["consolidated_metadata"]["metadata"][name]
    assert array[field] != value
    array[field] = value
    if field == "data_type":
        array["fill_value"] = 0
    file.write_text(json.dumps(told))

    for call in (run, sweeps.load):
        with pytest.raises(ValueError, match=r"store must be .* got .*its metadata were changed"):
            call(store=tmp_path / "store")


def test_a_store_names_every_jax_that_has_computed_a_block(copied, tmp_path):
    store = tmp_path / "store"
    edited(store, lambda a: a.update(jax="0.1.0", mine="kept"))

    run(store=store)
    assert zarr.open_group(store).attrs["jax"] == "0.1.0"  # nothing was computed
    shutil.rmtree(store / "loss" / "c" / "3")
    for _ in range(2):
        run(store=store)
        assert zarr.open_group(store).attrs["jax"] == f"0.1.0, {jax.__version__}"
    assert opened(store).attrs["mine"] == "kept"


def test_axes_are_named_as_asked_for(tmp_path):
    store = tmp_path / "store"
    surface = run(store=store, axis_names=("alpha", "beta"))

    assert dict(opened(store).sizes) == {"alpha": 7, "beta": 5}
    assert_equal(run(store=store), surface)
    assert_equal(run(axis_names=["alpha", "beta"]), surface)
    with pytest.raises(ValueError, match=r"different are its axis_names, \('alpha', 'beta'\)\."):
        run(store=store, axis_names=("beta", "alpha"))


@pytest.mark.parametrize("names", [("a",), ("a", "A"), ("a", "computed"), ("a", "b", "c"), ()])
def test_axis_names_are_as_many_as_axes_and_different(names):
    with pytest.raises(ValueError, match=r"^sweeps\.run: axis_names must be 2 different names"):
        run(axis_names=names)


def test_a_store_says_which_function_it_holds_without_addresses(tmp_path):
    ones, slope = np.ones(2, np.float32), np.arange(2, dtype=np.float32)
    restrict = jax.jit(planes.restrict, static_argnums=0)
    named = {
        "plane": restrict(lambda p: p @ p, planes.Plane(ones, (ones, slope))),
        "partial": functools.partial(several, b=1.0),
        "jit": jax.jit(of_many_terms),
    }
    told = {}
    for name, fn in named.items():
        axes = (W,) if name == "partial" else (W, B)
        run(fn, *axes, store=tmp_path / name)
        told[name] = zarr.open_group(tmp_path / name).attrs["function"]

    assert told["plane"] == "_restricted"
    assert told["partial"] == "several"
    assert told["jit"] == "of_many_terms"


class Pair(NamedTuple):
    """A node of a pytree that has a name for each entry."""

    first: Any
    second: Any


@pytest.mark.parametrize(
    ("fn", "as_loaded"),
    [
        (lambda w, b: w + b, lambda values: values),
        (lambda w, b: {"y": w, "x": [b, (w,)], "n": None}, lambda values: values),
        (lambda w, b: Pair(w, (b, w > 0)), lambda values: values._asdict()),
        (lambda w, b: {1: w, 2: b}, lambda values: {"values_1": values[1], "values_2": values[2]}),
    ],
)
def test_loading_gives_what_was_run(tmp_path, fn, as_loaded):
    surface = run(fn, store=tmp_path / "store")

    loaded = sweeps.load(tmp_path / "store")

    assert_equal(loaded, surface._replace(values=as_loaded(surface.values)))


def test_loading_gives_nan_where_a_point_is_not_computed_yet(copied, tmp_path):
    store = tmp_path / "store"
    wanted = copied.values
    for row in range(3):
        shutil.rmtree(store / "computed" / "c" / str(row))

    values = sweeps.load(str(store)).values

    for name, leaf in values.items():
        assert leaf.dtype == (jnp.float16 if name == "half" else jnp.float32)
        assert np.isnan(leaf[:3]).all()
        np.testing.assert_array_equal(leaf[3:], wanted[name][3:])
    assert sweeps.load(str(store)).coordinates[0].shape == (7,)


def test_loading_what_is_no_store_is_refused(tmp_path):
    for name, says in (("nothing", "got no such store"), (".", r"got .*something else \(")):
        says = (
            rf"^sweeps\.load: store must be a folder of .*{says}.* Give the folder that sweeps\.run"
        )
        with pytest.raises(ValueError, match=says):
            sweeps.load(tmp_path / name)
    assert not list(tmp_path.iterdir())


def scaled(factor):
    array = jax.device_put(np.arange(3, dtype=np.float32) * factor)
    return lambda w, b: w * array.sum() + b


SCALED = scaled(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: run(lambda w, b: w + b, store=s), "different are its function, its constants"),
        (lambda s: run(scaled(2), store=s), "are its constants \\(data or params"),
        (lambda s: run(SCALED, W + 1, B, store=s), "different are its coordinates\\. Name"),
        (lambda s: run(SCALED, W, B[:4], store=s), "different are its coordinates\\. Name"),
        (lambda s: run(SCALED, store=s, batch_size=6), "different are its batch_size, 5\\. N"),
        (
            lambda s: run(lambda w, b: {"x": SCALED(w, b)}, store=s),
            "different are what its function returns\\. Name another folder, or delete it\\.$",
        ),
        (
            lambda s: run(lambda w, b: SCALED(w, b).astype(jnp.float16), store=s),
            "different are its function, what its function returns",
        ),
    ],
)
def test_the_store_of_another_sweep_is_refused_and_the_difference_named(tmp_path, change, says):
    run(SCALED, store=tmp_path / "store")
    before = written(tmp_path / "store")

    with pytest.raises(ValueError, match=rf"^sweeps\.run: store must belong to this.*{says}"):
        change(tmp_path / "store")

    assert written(tmp_path / "store") == before
    run(SCALED, store=tmp_path / "store", batch_size=None)  # the store's own


def test_a_store_of_another_jax_says_so_and_how_to_go_on(tmp_path):
    store = tmp_path / "store"
    surface = run(SCALED, store=store)
    edited(store, lambda a: a.update(jax="0.1.0"))

    run(SCALED, store=store)  # the same program is the same program
    with pytest.raises(ValueError, match=rf"made with jax 0\.1\.0, and this is {jax.__version__}"):
        run(scaled(2), store=store)

    shutil.rmtree(store / "computed" / "c" / "3")
    fingerprint = zarr.open_group(store).attrs["fingerprint"]
    edited(store, lambda a: a["fingerprint"].update(program="as another jax wrote it"))
    with pytest.raises(
        ValueError, match=r"different are its function\. .* the same functio"
    ) as told:
        run(SCALED, store=store)
    line = str(told.value).split("the same call goes on: ")[1].removesuffix(".")
    exec(line)
    assert_equal(run(SCALED, store=store), surface)
    assert zarr.open_group(store).attrs["fingerprint"] == fingerprint  # from now on known
    with pytest.raises(ValueError, match="different are its constants"):
        run(scaled(2), store=store)


def traced(fn, *args):
    return _fingerprint.of(jax.make_jaxpr(fn)(*args))


def test_a_fingerprint_is_that_of_the_operations_alone():
    def fn(a, b):
        y = jax.lax.scan(lambda c, x: (c * a, x + c), b, jnp.arange(3.0))[1]
        return jax.nn.relu(y).sum() + jax.lax.cond(a > 0, jnp.sin, jnp.cos, b)

    def other_names(first, second):
        return jax.jit(jax.jit(fn))(first, second)

    wanted = traced(fn, 1.0, 2.0)
    assert traced(other_names, 1.0, 2.0) == wanted
    assert traced(lambda a, b: jax.lax.fori_loop(0, 9, lambda _, x: x * a, b), 1.0, 2.0) != wanted
    others = [
        traced(lambda a, b: a + b, 1.0, 2.0),
        traced(lambda a, b: b + a, 1.0, 2.0),
        traced(lambda a, b: a - b, 1.0, 2.0),
        traced(lambda a, b: a + b, 1.0, 2),
        traced(lambda a, b: a + b + 1.0, 1.0, 2.0),
        traced(lambda a, b: a + b + 1.0000001, 1.0, 2.0),
        traced(lambda a, b: jax.lax.scan(lambda c, _: (c * a, None), b, length=3)[0], 1.0, 2.0),
        traced(lambda a, b: jax.lax.scan(lambda c, _: (c * a, None), b, length=4)[0], 1.0, 2.0),
        traced(lambda a, b: jax.lax.scan(lambda c, _: (c + a, None), b, length=4)[0], 1.0, 2.0),
        traced(lambda a, b: jnp.stack([a, b])[::-1].cumsum()[0], 1.0, 2.0),
        traced(lambda a, b: jnp.stack([a, b])[::1].cumsum(0)[0], 1.0, 2.0),
        traced(lambda a, b: jnp.stack([a, b]).cumsum(0)[1], 1.0, 2.0),
        traced(lambda a, b: jnp.searchsorted(jnp.arange(3.0) * b, a, side="left"), 1.0, 2.0),
        traced(lambda a, b: jnp.searchsorted(jnp.arange(3.0) * b, a, side="right"), 1.0, 2.0),
    ]
    assert len(set(others)) == len(others)


def test_every_jax_gives_the_same_program_the_same_fingerprint():
    # A store outlives the jax that made it: this is the one number that must never change.
    def fn(a, b):
        pair, image = jnp.stack([a, b]), jnp.ones((1, 3, 8, 8)) * a
        query = jnp.ones((1, 4, 2, 3))
        looped = jax.lax.fori_loop(0, 3, lambda _, x: jax.nn.relu(x * a), b)
        last, rows = jax.lax.scan(lambda c, row: (c + row * a, c), looped, jnp.arange(4.0))
        return (
            jnp.tanh(jnp.arange(4.0) @ rows * last) + jnp.float32(0.1),
            jax.lax.while_loop(lambda c: c < 3, lambda c: c * a + 1, b),
            jax.lax.switch(a.astype(int), [jnp.sin, jnp.cos, jnp.tanh], b),
            jax.random.normal(jax.random.key(0), (3,)),
            jax.lax.conv_general_dilated(image, jnp.ones((2, 3, 3, 3)), (1, 1), "SAME"),
            jnp.zeros(5).at[jnp.array([1, 2])].add(a)[jnp.array([0, 1])],
            jnp.sort(pair) + jnp.argmax(pair),
            jax.checkpoint(lambda x: jnp.sin(jnp.cos(x)))(a) + jax.nn.softplus(b),
            jax.scipy.special.logsumexp(pair),
            jax.nn.dot_product_attention(query * a, query, query),
            jnp.linalg.cholesky(jnp.eye(3) * a),
        )

    assert traced(fn, jnp.float32(1), jnp.float32(2))[:16] == "08aae56a1072f07c"


def test_without_zarr_a_store_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    message = r'^sweeps\.run: zarr is not installed\. Run: pip install -e "\.\[store\]"\.$'
    with pytest.raises(ModuleNotFoundError, match=message):
        run(store=tmp_path / "store")
    assert run().values["loss"].shape == (7, 5)


@pytest.mark.usefixtures("x64")
def test_double_precision_stays_double(tmp_path):
    axes = jnp.linspace(-1, 1, 7), jnp.linspace(0, 2, 5)
    surface = run(several, *axes, store=tmp_path / "store")

    assert surface.values["loss"].dtype == jnp.float64
    assert_equal(surface, swept(several, *axes, batch_size=5))
    assert opened(tmp_path / "store").loss.dtype == np.float64


MEMORY = """
import resource, sys
import jax.numpy as jnp
from jaxgd import sweeps

for side in (316, 3162):
    axis, store = jnp.linspace(-1, 1, side), f"{sys.argv[1]}/{side}"
    sweeps.run(lambda a, b: jnp.tanh(a * b), axis, axis, store=store, progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_holds_the_values_and_a_few_batches(tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        check=True, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent.parent,
    ).stdout  # fmt: skip
    few, many = map(int, told.split())

    assert many <= 1.3 * few
