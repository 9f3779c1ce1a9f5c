"""Is there a way at low loss between two networks that were trained apart?

Two networks learn scikit-learn's handwritten digits from different starts, in different orders,
at three widths. Expect a barrier on the straight line between them. Some of it is there only
because their hidden units stand in another order: expect it to shrink when these are matched, and
the more the wider the networks are, to at most 5 % at the widest. And expect a curve of one
control point to lead around it at every width.

Two runs from the same start part only by the noise of their batches. At a rate at which training
is wild, expect even them to end with a barrier between them, and expect it to be gone where they
have shared enough of their first batches: training becomes stable to that noise.

Source: Frankle, Dziugaite, Roy and Carbin, Linear mode connectivity and the lottery ticket
hypothesis, 2020; Garipov et al., Loss surfaces, mode connectivity, and fast ensembling of DNNs,
2018; Ainsworth, Hayase and Srinivasa, Git Re-Basin, 2023.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import curves, descent, losses, neurons, planes, plots, surfaces
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (13.5, 9)
SECONDS = 35
WIDTHS = (16, 64, 512)
NUM_STEPS, BATCH_SIZE, RATE = 300, 128, 0.001
CURVE_STEPS, CURVE_EXAMPLES = 150, 400
DRAWN = 64  # the width whose curve is drawn over its plane
DEEP = (64, 32, 32, 32, 10)  # the networks of the shared starts
SHARED = (0, 50, 200, 400)
DEEP_STEPS, DEEP_BATCH_SIZE, DEEP_RATE, NUM_PAIRS = 600, 32, 0.12, 3
WAYS = ("as trained", "units matched", "along a curve")


class Results(NamedTuple):
    """What was computed.

    Attributes:
      barriers: by width, by WAYS: the losses from one network to the other. That of the curve
        rises above the straight line between the losses of the two ends, too.
      accuracies: by width, on unseen digits, of the two networks and of the two midpoints: of the
        line as trained, and of the line after matching.
      projection: where the points of the curve of width DRAWN lie on its plane.
      surface: the training loss over that plane.
      shared: shape (shared steps, pairs): barriers between two runs from one start.
    """

    barriers: dict[int, dict[str, curves.Barrier]]
    accuracies: dict[int, Array]
    projection: planes.Projection
    surface: surfaces.Surface
    shared: Array


def predict(network: Params, x: Array) -> Array:
    """Applies the network, with relu units: x (m, 64) to logits (m, 10)."""
    return neurons.apply_network(network, x, activation=jax.nn.relu)


RISK = losses.empirical_risk(predict, losses.softmax_cross_entropy_with_integer_labels)


def on_rows(params: Params, x: Array, y: Array, rows: Array) -> Array:
    """The loss on some rows."""
    return RISK(params, x[rows], y[rows])


def starts_of(rng: np.random.Generator, sizes: tuple[int, ...], num: int) -> Params:
    """Networks in float32 along a leading axis, initialized by Glorot's rule."""

    def layer(m: int, n: int) -> neurons.Neuron:
        arrays: Any = rng.normal(size=(m, n)) * np.sqrt(2 / (m + n)), np.zeros(n)
        return neurons.Neuron(*(array.astype(np.float32) for array in arrays))

    networks = [tuple(layer(m, n) for m, n in itertools.pairwise(sizes)) for _ in range(num)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *networks)


def stacked(trees: Sequence[Any]) -> Any:
    """Trees along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: Any, num: int) -> list[Any]:
    """The parts of a tree along its leading axis."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(num)]


def train(start: Params, rows: Array, x: Array, y: Array) -> Params:
    """The end of a training by Adam."""
    return descent.optimize(
        on_rows, start, x, y, optimizer=optax.adam(RATE), num_steps=NUM_STEPS, per_step=rows,
        record=lambda _: None,
    ).params  # fmt: skip


def on_curve(t: Array, curve: curves.Curve, x: Array, y: Array) -> Array:
    """The loss at a point of a curve."""
    return RISK(curves.point(curve, t), x, y)


def joined(
    key: PRNGKey,
    starts: Params,
    rows: Array,
    seen: tuple[Array, Array],
    unseen: tuple[Array, Array],
) -> tuple[list[curves.Barrier], Array, curves.Curve]:
    """Trains two networks of a width and looks along the ways between them.

    A straight way is a curve, too, its control point in the middle: one program for all.
    """
    first, last = unstacked(
        jax.lax.map(lambda one: train(one[0], one[1], *seen), (starts, rows)), 2
    )
    matched = curves.align(last, first, curves.groups_of(predict, first, seen[0][:2]))
    found = curves.connect(
        RISK, first, last, *(array[:CURVE_EXAMPLES] for array in seen),
        optimizer=optax.adam(0.003), num_steps=CURVE_STEPS, key=key,
    )  # fmt: skip
    middles = [planes.point(planes.through(first, end), 0.5) for end in (last, matched)]
    ways = [
        *(stacked([first, *way]) for way in zip(middles, (last, matched), strict=True)),
        found.curve.controls,
    ]
    barriers = jax.lax.map(
        lambda way: curves.barrier(
            on_curve, jnp.float32(0), jnp.float32(1), curves.Curve(way), *seen
        ),
        stacked(ways),
    )

    def accuracy(network: Params) -> Array:
        return jnp.mean(predict(network, unseen[0]).argmax(axis=-1) == unseen[1])

    known = jax.lax.map(accuracy, stacked([first, last, *middles]))
    return unstacked(barriers, len(WAYS)), known, found.curve


def over_plane(
    curve: curves.Curve, x: Array, y: Array
) -> tuple[planes.Projection, surfaces.Surface]:
    """The curve in its own plane, and the loss over that plane around it."""
    first, control, last = unstacked(curve.controls, 3)
    plane = planes.orthonormalize(planes.through(first, last, control))
    points = jax.vmap(curves.point, (None, 0))(curve, jnp.linspace(0, 1, 41))
    projection = planes.project_path(plane, points)
    low, high = projection.coordinates.min(axis=0), projection.coordinates.max(axis=0)
    margin = 0.3 * (high - low).max()
    axes = [
        jnp.linspace(low[i] - margin, high[i] + margin, 41, dtype=jnp.float32) for i in range(2)
    ]

    # At so small a network planes.restrict would take longer to compile than it saves.
    def height(*coordinates: Array) -> Array:
        return RISK(planes.point(plane, *coordinates), x, y)

    return projection, surfaces.sweep(height, *axes, batch_size=8)


def shared_start(start: Params, rows: Array, num_shared: Array, x: Array, y: Array) -> Array:
    """The barrier between two runs from one start that share their first batches."""
    together, *apart = rows
    is_shared = jnp.arange(DEEP_STEPS)[:, None] < num_shared

    def end(own: Array) -> Params:
        return descent.optimize(
            on_rows, start, x, y, optimizer=optax.sgd(DEEP_RATE, momentum=0.9),
            num_steps=DEEP_STEPS, per_step=jnp.where(is_shared, together, own),
            record=lambda _: None,
        ).params  # fmt: skip

    ends = jax.vmap(end)(jnp.stack(apart))
    return curves.barrier(RISK, *unstacked(ends, 2), x, y, num_points=11).height


def compute(seed: int = 0) -> Results:
    """Trains pairs of networks and looks along the ways between them."""
    digits = load_digits(seed)
    seen = digits.train_images.astype(np.float32), digits.train_labels
    unseen = digits.test_images.astype(np.float32), digits.test_labels
    rng = np.random.default_rng(seed)

    def orders(key: PRNGKey, num_runs: int, batch_size: int, num_steps: int) -> Array:
        draw = lambda key: descent.minibatches(  # noqa: E731
            key, len(seen[0]), batch_size=batch_size, num_steps=num_steps
        )
        return jax.lax.map(draw, jax.random.split(key, num_runs))  # compiles in half of vmap's time

    @jax.jit
    def drawn(seed: Array) -> tuple[Array, Array, PRNGKey]:
        key_rows, key_shared, key_curve = jax.random.split(jax.random.key(seed), 3)
        rows = orders(key_rows, 2, BATCH_SIZE, NUM_STEPS)
        shared = orders(key_shared, 3 * NUM_PAIRS, DEEP_BATCH_SIZE, DEEP_STEPS)
        return rows, shared.reshape(NUM_PAIRS, 3, DEEP_STEPS, DEEP_BATCH_SIZE), key_curve

    rows, shared_rows, key_curve = drawn(seed)
    pair = jax.jit(joined)
    barriers, known, found = {}, {}, {}
    for width in WIDTHS:
        starts = starts_of(rng, (64, width, width, 10), 2)
        ways, known[width], found[width] = pair(key_curve, starts, rows, seen, unseen)
        barriers[width] = dict(zip(WAYS, ways, strict=True))
    projection, surface = jax.jit(over_plane)(
        found[DRAWN], *(array[:CURVE_EXAMPLES] for array in seen)
    )
    starts = starts_of(rng, DEEP, NUM_PAIRS)
    over_pairs = jax.vmap(shared_start, (0, 0, None, None, None))
    over_both = jax.jit(jax.vmap(over_pairs, (None, None, 0, None, None)))
    shared = over_both(starts, shared_rows, np.array(SHARED), *seen)
    return Results(barriers, known, projection, surface, shared)


def _heights(results: Results, way: str) -> np.ndarray:
    """The barriers of one way, by width."""
    return np.array([float(results.barriers[width][way].height) for width in WIDTHS])


def tables(results: Results) -> list[Table]:
    """The barriers and the accuracies by width, and the barriers after a shared start."""
    rows = []
    for i, width in enumerate(WIDTHS):
        heights = [_heights(results, way)[i] for way in WAYS]
        first, last, naive, matched = np.asarray(results.accuracies[width])
        rows.append(
            (width, *(f"{height:.4f}" for height in heights), f"{heights[1] / heights[0]:.1%}",
             f"{(first + last) / 2:.1%}", f"{naive:.1%}", f"{matched:.1%}")
        )  # fmt: skip
    shared = [
        (num, f"{heights.mean():.3f}", f"{heights.min():.3f} .. {heights.max():.3f}")
        for num, heights in zip(SHARED, np.asarray(results.shared), strict=True)
    ]
    return [
        Table(
            "Barriers between two networks 64-w-w-10, and how many unseen digits they know",
            ("width", *WAYS, "matched / as trained", "the two ends", "middle", "middle, matched"),
            rows,
        ),
        Table(
            f"Two runs of {DEEP_STEPS} steps from one start, {NUM_PAIRS} pairs",
            ("shared steps", "mean barrier", "of all pairs"),
            shared,
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """What matching, the curve and a shared start do to the barrier."""
    naive, matched, curve = (_heights(results, way) for way in WAYS)
    shares = matched / naive
    means = np.asarray(results.shared).mean(axis=1)
    return [
        Expectation(
            "there is a barrier between networks trained apart",
            f"at least {naive.min():.2f} at every width",
            bool(naive.min() > 0.1),
        ),
        Expectation(
            "with matched units it shrinks the more the wider the networks are",
            "to " + ", ".join(f"{share:.1%}" for share in shares),
            bool(np.all(np.diff(shares) < 0)),
        ),
        Expectation(
            f"at width {WIDTHS[-1]} at most 5 % of it is left",
            f"{shares[-1]:.1%}",
            bool(shares[-1] <= 0.05),
        ),
        Expectation(
            "a curve leads around four fifths of it at every width",
            "left: " + ", ".join(f"{share:.1%}" for share in curve / naive),
            bool((curve / naive).max() < 0.2),
        ),
        Expectation(
            "runs from one start that share enough steps lose two thirds of their barrier, or more",
            f"from {means[0]:.2f} without to {means[-1]:.2f} after {SHARED[-1]}",
            bool(means[-1] < means[0] / 3),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The ways of the widest pair, the barriers by width, a curve in its plane, shared starts."""
    (ways, widths), (plane, shared) = figure.subplots(2, 2)
    plots.barrier(ways, results.barriers[WIDTHS[-1]])
    share = _heights(results, WAYS[1])[-1] / _heights(results, WAYS[0])[-1]
    ways.set_title(f"Width {WIDTHS[-1]}: with matched units {share:.1%} of the barrier is left")
    for i, way in enumerate(WAYS):
        heights = np.maximum(_heights(results, way), 1e-4)
        widths.loglog(WIDTHS, heights, "o-", color=plots.COLOURS[i], label=way)
    widths.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    widths.minorticks_off()
    widths.set(xlabel="width", ylabel="barrier, nats (0 drawn as 0.0001)")
    widths.legend()
    widths.set_title("The barrier by width")
    plots.surface_contour(
        plane, results.surface, axis_names=("from one network to the other", "across"),
        value_name="training loss", log=True, aspect="equal",
    )  # fmt: skip
    plots.curve_path(plane, results.projection)
    plane.legend(loc="upper right", fontsize=9)
    height = float(results.barriers[DRAWN][WAYS[2]].height)
    plane.set_title(f"Width {DRAWN}: along the curve the loss rises by {height:.3f} at most")
    heights = np.asarray(results.shared)
    shared.plot(SHARED, heights, "o", color=plots.COLOURS[0], alpha=0.4)
    shared.plot(SHARED, heights.mean(axis=1), color=plots.COLOURS[0], label="mean of all pairs")
    shared.set(xlabel="steps that both runs share", ylabel="barrier between their ends, nats")
    shared.legend()
    first, last = heights.mean(axis=1)[[0, -1]]
    shared.set_title(
        f"From one start: {first:.2f} without a shared step, {last:.2f} after {SHARED[-1]}"
    )
    panels.letters(ways, widths, plane, shared)
