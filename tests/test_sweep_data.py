"""A surface over data that are read once, batch by batch, is the surface over all of them."""

import importlib.util
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from jaxgd import sweeps
from jaxgd.sweeps import _program

AXES = jax.device_put((np.linspace(-1, 1, 7, dtype="f"), np.linspace(0, 2, 5, dtype="f")))
NUM_ROWS = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUM_ROWS, 4)).astype(np.float32)
Y = RNG.normal(size=NUM_ROWS).astype(np.float32)
DIRECTION = np.arange(4, dtype=np.float32)


def means(a, b, x, y):
    scores = x @ (a * DIRECTION + b)
    return {"loss": jnp.mean((jnp.tanh(scores) - y) ** 2), "right": jnp.mean(scores > 0)}


def in_batches(size=5, rows=NUM_ROWS):
    return [(X[i : i + size], Y[i : i + size]) for i in range(0, rows, size)]


def over_all_rows():
    """In double precision, with NumPy."""
    a, b = (np.asarray(axis, np.float64) for axis in AXES)
    params = a[:, None, None] * np.arange(4.0) + b[:, None]
    scores = params @ X.astype(np.float64).T
    return {"loss": ((np.tanh(scores) - Y) ** 2).mean(-1), "right": (scores > 0).mean(-1)}


def run(data, fn=means, **options):
    return sweeps.run(fn, *AXES, data=data, **{"batch_size": 4, "progress": False, **options})


@pytest.fixture(autouse=True, scope="module")
def _a_row_is_a_block():
    """Writing a block takes a millisecond for each value: the stores of these tests have few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "_NUM_BLOCKS", AXES[0].size)
        yield


@pytest.fixture(scope="module")
def whole():
    """The surface over all batches, in one go."""
    return run(in_batches())


def torch_loader():
    torch = importlib.import_module("torch")
    tensors = torch.from_numpy(X), torch.from_numpy(Y).requires_grad_()
    dataset = torch.utils.data.TensorDataset(*tensors)
    return torch.utils.data.DataLoader(dataset, batch_size=5)


def grain_loader():
    grain = importlib.import_module("grain.python")
    return grain.MapDataset.source(list(zip(X, Y, strict=True))).batch(5).to_iter_dataset()


class Convertible:
    """All that is asked of a tensor, such as those of tf.data: that NumPy can convert it."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype, copy=copy)


def installed(loader, library):
    reason = f"{library} is not installed"
    missing = importlib.util.find_spec(library) is None
    return pytest.param(loader, marks=pytest.mark.skipif(missing, reason=reason), id=library)


@pytest.mark.parametrize(
    "source",
    [
        in_batches,
        lambda: (list(batch) for batch in in_batches(NUM_ROWS)),
        lambda: iter(jax.tree.map(jnp.asarray, in_batches(12))),
        lambda: [*in_batches(5, rows=15), *in_batches(1)[15:18], (X[18:], Y[18:])],
        lambda: (tuple(map(Convertible, batch)) for batch in in_batches()),
        installed(torch_loader, "torch"),
        installed(grain_loader, "grain"),
    ],
)  # fmt: skip
def test_the_surface_over_batches_is_that_over_all_rows(source):
    surface = run(source())

    chex.assert_trees_all_equal_shapes_and_dtypes(
        surface.values, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), over_all_rows())
    )
    chex.assert_trees_all_close(surface.values, over_all_rows(), rtol=2e-6)
    chex.assert_trees_all_equal(surface.coordinates, AXES)


def test_a_batch_may_hold_pytrees_of_rows():
    def fn(a, b, inputs, y):
        return means(a, b, inputs["x"], y)

    data = [({"x": x}, y.astype(np.float64)) for x, y in in_batches(NUM_ROWS)]
    chex.assert_trees_all_close(run(data, fn).values, over_all_rows(), rtol=2e-6)


def test_axes_of_several_dtypes_reach_the_function_as_they_are():
    def fn(n, b, x, y):
        assert n.dtype == jnp.int32
        return jnp.mean(x[:, 0] * n + b * y)

    axes = jnp.arange(3), AXES[1]
    values = sweeps.run(fn, *axes, data=in_batches(NUM_ROWS), progress=False).values

    wanted = X[:, 0].mean() * np.arange(3)[:, None] + np.asarray(AXES[1]) * Y.mean()
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6)


def test_each_batch_is_asked_for_once_and_let_go_before_the_next():
    alive, asked = [], []

    def source():
        for i, (x, y) in enumerate(in_batches(rows=20)):
            assert not any(reference() is not None for reference in alive)
            asked.append(i)
            x, y = x.copy(), y.copy()
            alive.extend([weakref.ref(x), weakref.ref(y)])
            yield x, y
            del x, y

    run(source())
    assert asked == [0, 1, 2, 3]


def test_what_a_batch_shares_over_all_points_is_computed_once_for_it():
    inner = RNG.normal(size=(4, 6)).astype(np.float32)

    def fn(a, b, x, y):
        return jnp.mean(jnp.tanh(a + b * jnp.tanh(x @ inner))) + jnp.mean(y)

    specs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (X, Y))
    program = _program.trace("sweeps.run", fn, AXES, None, specs)

    held = jax.tree.leaves(program.bind((X, Y)))

    shared = [leaf for leaf in held if leaf.shape == (NUM_ROWS, 6)]
    assert any(np.allclose(leaf, np.tanh(X @ inner), atol=1e-6) for leaf in shared)


def test_the_number_of_batches_compiles_nothing_anew():
    compiled, counts = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        for num_batches in (1, 4):
            compiled.clear()
            run(in_batches(5, rows=5 * num_batches))
            counts.append(len(compiled))
    finally:
        jax.monitoring.clear_event_listeners()
    assert counts[1] <= counts[0]


@pytest.mark.parametrize("num_read", [1, 5])
def test_a_run_that_ends_early_goes_on_with_the_next_batch(whole, tmp_path, monkeypatch, num_read):
    def interrupted():
        yield from in_batches()[:num_read]
        raise KeyboardInterrupt

    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run(interrupted(), store=store)
    assert "The sums over the batches that were read are in" in interrupt.value.__notes__[0]
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(sweeps.load(store).values))

    computed = []
    values = _program.values
    monkeypatch.setattr(_program, "values", lambda *args: computed.append(1) or values(*args))
    surface = run(iter(in_batches()), store=store)

    assert len(computed) == 5 - num_read
    chex.assert_trees_all_equal(surface, whole)
    chex.assert_trees_all_equal(sweeps.load(store), surface)
    assert len(zarr.open_group(store)) == 5


def begun(store, num_read=3):
    """A store with the sums over some batches."""

    def interrupted():
        yield from in_batches()[:num_read]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted(), store=store)


def test_data_in_another_order_do_not_go_on(tmp_path):
    begun(tmp_path / "store")
    one, two, three, *others = in_batches(rows=20)
    with pytest.raises(ValueError, match=r"the first 3 batches of data must be those .*shuffling"):
        run([one, three, two, *others], store=tmp_path / "store")
    with pytest.raises(ValueError, match="different are its data"):
        run([two, one, three, *others], store=tmp_path / "store")
    with pytest.raises(ValueError, match=r"at least the 3 batches .* got 2: it ended early"):
        run([one, two], store=tmp_path / "store")
    with pytest.raises(
        ValueError, match=r"its data \(.*: float32\[5, 4\], .* there, float32\[6, 4\]"
    ):
        run(in_batches(6), store=tmp_path / "store")
    run(in_batches(rows=20), store=tmp_path / "store")
    with pytest.raises(ValueError, match="different are its data"):
        run([two, one, three, *others], store=tmp_path / "store")


def test_a_finished_store_tells_other_data_from_its_own(tmp_path, monkeypatch):
    surface = run(in_batches(rows=20), store=tmp_path / "store")
    first, second, *others, last = in_batches(rows=20)
    with pytest.raises(
        ValueError, match=r"must be the 4 batches .* store, got more\. Name another"
    ):
        run([first, second, *others, last, last], store=tmp_path / "store")
    with pytest.raises(ValueError, match=r"at least the 4 batches .* got 3: it ended early"):
        run([first, second, *others], store=tmp_path / "store")
    with pytest.raises(ValueError, match=r"the first 4 batches of data must be those .* others"):
        run([first, second, *others, jax.tree.map(jnp.negative, last)], store=tmp_path / "store")
    monkeypatch.setattr(_program, "values", None)
    chex.assert_trees_all_equal(run(iter(in_batches(rows=20)), store=tmp_path / "store"), surface)
    (file,) = (tmp_path / "store").glob(".sums*")
    file.unlink()
    with pytest.raises(ValueError, match=r"must hold the sums over its data, .* got none in"):
        run(in_batches(rows=20), store=tmp_path / "store")


def test_damaged_sums_are_named_and_deleting_them_is_the_cure(whole, tmp_path):
    begun(tmp_path / "store")
    (file,) = (tmp_path / "store").glob(".sums*")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(OSError, match=rf"sums in the store are damaged: {file}\. Delete this"):
        run(in_batches(), store=tmp_path / "store")
    file.unlink()
    chex.assert_trees_all_equal(run(in_batches(), store=tmp_path / "store"), whole)


class Announced(list):
    """Data that say that they hold more batches than they do."""

    def __len__(self):
        return 9


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ((X, Y), TypeError, r"data must be an iterable of batches, .*got one batch\. Write data="),
        (X, TypeError, r"data must be an iterable of batches, .*got an array"),
        ({"x": X}, TypeError, r"data must be an iterable of batches, .*got a dict"),
        (3, TypeError, r"data must be an iterable of batches, .*got 3"),
        ([X], TypeError, r"batch 0 of data must be a tuple or list, got an array"),
        ([(X, Y), {"x": X}], TypeError, r"batch 1 of data must be a tuple or list, got a dict"),
        ([(X, "y")], TypeError, r"array 1 of batch 0 of data must be an array, got 'y'"),
        ([], ValueError, r"data must hold at least one batch, got none\. A generator can be read"),
        (iter(()), ValueError, r"data must hold at least one batch"),
        ([()], ValueError, r"the arrays of batch 0 of data must have equally many rows, at least"),
        ([(X, Y[1:])], ValueError, r"the arrays of batch 0 .* equally many rows.* got \[22, 23\]"),
        ([(X, Y[0])], ValueError, r"array 1 of batch 0 of data must have rows, got shape \(\)"),
        ([(X, Y), (X[:0], Y[:0])], ValueError, r"array 0 of batch 1 of data must have rows"),
        ([(X, Y), (X[:, :3], Y)], ValueError, r"batch 1 of data must be like the first, but for"),
        ([(X, Y), (X, Y, Y)], ValueError, r"batch 1 of data must be like the first"),
        ([(X, Y), (X, Y.astype(int))], ValueError, r"batch 1 .* got .*1: int32\[rows, \]"),
        (Announced([(X, Y)]), ValueError, r"data must give its 9 batches, got 1: it ended early"),
    ],
)  # fmt: skip
def test_data_that_are_no_batches_alike_are_refused(data, error, says):
    with pytest.raises(error, match=rf"^sweeps\.run: {says}"):
        run(data, lambda a, b, x, y: a * jnp.mean(y) + b * jnp.mean(x))


def test_a_function_of_data_returns_floating_point_means():
    with pytest.raises(
        ValueError, match=r"fn must return means .*\(at n\), got dtype int32\. Take"
    ):
        run(in_batches(), lambda a, b, x, y: {"n": jnp.sum(y > 0), "m": jnp.mean(y) + a})
    with pytest.raises(ValueError, match=r"fn must return scalars, got shape \(5,\)"):
        run(in_batches(), lambda a, b, x, y: y)


@pytest.mark.parametrize(
    ("source", "says"),
    [(lambda: in_batches(rows=10), "2/2"), (lambda: iter(in_batches(rows=10)), "2 b")],
)
def test_a_bar_counts_the_batches(capsys, source, says):
    run(source(), progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert says in err
    assert "batch" in err


def test_sums_are_as_precise_as_one_mean():
    rows = 1e4 + np.arange(3000, dtype=np.float32)
    surface = run([(row,) for row in rows.reshape(-1, 3)], lambda a, b, x: jnp.mean(x) + 0 * a * b)
    np.testing.assert_array_equal(
        surface.values, np.full((7, 5), np.float32(rows.mean(dtype=float)))
    )
