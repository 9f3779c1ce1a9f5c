"""A sweep in chunks is the sweep: the same values, on disk or not, whole or resumed."""

import contextlib
import itertools
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from jaxgd import surfaces, sweeps
from jaxgd.sweeps import _store

W, B = jnp.linspace(-1, 1, 7), jnp.linspace(0, 2, 5)
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


def written(store):
    """The files of all blocks, each with what changes when it is written anew."""
    files = [file for file in pathlib.Path(store).glob("*/c/*/*") if file.suffix != ".partial"]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


FUNCTIONS = {
    "a line": (lambda a: jnp.exp(jnp.sin(a)), (jnp.linspace(0, 3, 50),)),
    "a pytree": (several, (W, B)),
    "a tuple": (lambda a, b: (a * b, [a, jnp.tanh(b)]), (W, B)),
    "three axes": (lambda a, b, c: jnp.tanh(a * b) + c, (W, B, jnp.arange(4))),
    "a number": (lambda a: 1.0, (W,)),
    "one point": (jnp.exp, (W[:1],)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("batch_size", "stored"), [(1, False), (1000, False), (6, False), (6, True)]
)
def test_a_run_equals_a_sweep_bit_for_bit(tmp_path, name, batch_size, stored):
    fn, axes = FUNCTIONS[name]
    store = tmp_path / "store" if stored else None

    surface = run(fn, *axes, batch_size=batch_size, store=store)

    wanted = swept(fn, *axes, batch_size=batch_size)
    assert_equal(surface, jax.tree.map(jnp.asarray, wanted))


def test_one_program_is_compiled_however_large_the_grid():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    counts = []
    try:
        for size in (40, 4000):
            run(lambda a: jnp.sin(3 * a), jnp.linspace(0, 1, size))
            counts.append(len(compiled))
    finally:
        jax.monitoring.clear_event_listeners()
    # What else is compiled builds the axis.
    assert 1 <= counts[1] - counts[0] <= counts[0]


def test_the_batch_size_follows_from_the_memory_of_the_program(tmp_path, monkeypatch):
    def heavy(a):
        return jnp.sort(jnp.sin(a * jnp.arange(2.0**22)))[3]

    def interrupt(*_):
        raise KeyboardInterrupt  # the store is made, and that is enough

    sizes = []
    many = jnp.linspace(0, 1, 2**16)
    for name, fn, axis in (
        ("heavy", heavy, many[:256]),
        ("few", jnp.sin, many[:256]),
        ("light", jnp.sin, many),
    ):
        store = tmp_path / name
        with contextlib.suppress(KeyboardInterrupt), monkeypatch.context() as patch:
            patch.setattr(sweeps, "_batches", interrupt)
            run(fn, axis, batch_size=None, store=store)
        sizes.append(xarray.open_zarr(store).attrs["batch_size"])

    heavy_size, few, light = sizes
    assert heavy_size == 1
    assert few == 4
    assert light == 1024


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
        if len(written(store)) % 35 == 0:
            with xarray.open_zarr(store) as dataset:
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

    dataset = xarray.open_zarr(tmp_path / "surface.zarr")
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
    dataset = xarray.open_zarr(tmp_path / "store")

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


def test_a_finished_sweep_computes_nothing_and_nan_and_zero_are_values(tmp_path):
    surface = run(store=tmp_path / "store")
    before = written(tmp_path / "store")

    assert_equal(run(store=tmp_path / "store"), surface)

    assert written(tmp_path / "store") == before
    num_blocks = len(list((tmp_path / "store" / "computed" / "c").glob("*/*")))
    assert len(before) == 5 * num_blocks


@pytest.mark.parametrize("array", ["computed", "loss", "right"])
def test_only_what_is_missing_is_computed(tmp_path, array):
    surface = run(store=tmp_path / "store")
    before = written(tmp_path / "store")
    lost = sorted((tmp_path / "store" / array / "c").glob("*/*"))[4::15]
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
    assert_equal(run(store=tmp_path / "store"), whole)
    assert not (tmp_path / ".store.new").exists()
    file = min((tmp_path / "store" / "loss" / "c").glob("*/*"))
    file.rename(file.with_suffix(".123.partial"))
    assert_equal(run(store=tmp_path / "store"), whole)


@pytest.mark.parametrize(
    ("array", "harm"),
    [("loss", "a flipped bit"), ("loss", "cut short"), ("loss", "empty"), ("computed", "empty")],
)
def test_a_damaged_block_is_named_and_deleting_it_is_the_cure(tmp_path, harm, array):
    surface = run(store=tmp_path / "store")
    file = sorted((tmp_path / "store" / array / "c").glob("*/*"))[7]
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


def scaled(factor):
    array = jnp.arange(3.0) * factor
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


def test_a_store_of_another_jax_says_so(tmp_path):
    run(SCALED, store=tmp_path / "store")
    file = tmp_path / "store" / "zarr.json"
    told = json.loads(file.read_text())
    told["attributes"]["jax"] = "0.1.0"
    file.write_text(json.dumps(told))

    run(SCALED, store=tmp_path / "store")  # the same program is the same program
    with pytest.raises(ValueError, match=rf"made with jax 0\.1\.0, and this is {jax.__version__}"):
        run(scaled(2), store=tmp_path / "store")


def test_without_zarr_a_store_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    message = (
        r'^sweeps\.run: zarr must be installed, got none\. Run: pip install "jaxgd\[store\]"\.$'
    )
    with pytest.raises(ModuleNotFoundError, match=message):
        run(store=tmp_path / "store")
    assert run().values["loss"].shape == (7, 5)


@pytest.mark.usefixtures("x64")
def test_double_precision_stays_double(tmp_path):
    axes = jnp.linspace(-1, 1, 7), jnp.linspace(0, 2, 5)
    surface = run(several, *axes, store=tmp_path / "store")

    assert surface.values["loss"].dtype == jnp.float64
    assert_equal(surface, swept(several, *axes, batch_size=5))
    assert xarray.open_zarr(tmp_path / "store").loss.dtype == np.float64


MEMORY = """
import resource, sys
import jax.numpy as jnp
from jaxgd import sweeps

side = int(sys.argv[1])
axis = jnp.linspace(-1, 1, side)
sweeps.run(lambda a, b: jnp.tanh(a * b), axis, axis, store=sys.argv[2], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_holds_the_values_and_a_few_batches(tmp_path):
    few, many = (
        int(subprocess.run(
            [sys.executable, "-c", MEMORY, str(side), str(tmp_path / str(side))],
            check=True, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent.parent,
        ).stdout)
        for side in (316, 3162)
    )  # fmt: skip

    assert many <= 1.3 * few
