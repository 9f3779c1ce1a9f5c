"""What does the loss of a transformer look like, and what is a filter of attention?

Two blocks of causal attention learn Python's licence letter by letter, by Adam. Their kernels for
queries, keys and values have three axes (inputs, heads, features), so that one filter belongs to
one feature of one head. Counted by the last axis alone, as is right for a matrix, a filter mixes
the same feature of all heads: expect some of them to come out a fifth too long or too short then.
On the plane whose filters are right, expect a single bowl round the trained network, smooth enough
for a Chebyshev series through a few hundred points; its error is stated, and checked.

Source: Vaswani et al., Attention is all you need, 2017; Li, Xu, Taylor, Studer and Goldstein,
Visualizing the loss landscape of neural nets, 2018.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments import data
from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, planes, plots, surfaces, sweeps
from jaxgd.types import Array, Params, PRNGKey

FIGURE_SIZE = (14, 8.4)
SECONDS = 15
WIDTH, NUM_HEADS, NUM_BLOCKS, LENGTH = 48, 4, 2, 48
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 500, 16, 0.01
NUM_SEEN, REACH, TOLERANCE, MAX_DEGREE, NUM_CHECKED, RESOLUTION = 16, 1.0, 0.02, 32, 64, 101
TEXT = (pathlib.Path(data.__file__).parent / "licence.txt").read_text(encoding="utf-8")
LETTERS = sorted(set(TEXT))
ATTENTION = ("query", "key", "value")


class Results(NamedTuple):
    """What was computed.

    Attributes:
      run: the training; no path is kept.
      share_right: of the letters of NUM_SEEN pieces of the text, those that are most likely.
      lengths: by which axes count filters, the length of each attention filter of a direction
        over that of the network.
      series: the loss of these pieces over the plane, as a Chebyshev series.
      surface: the same on a grid, to be drawn.
      deviation: the largest deviation of the series from the loss at NUM_CHECKED random points.
    """

    run: descent.Trajectory
    share_right: float
    lengths: dict[str, np.ndarray]
    series: surfaces.Approximation
    surface: surfaces.Surface
    deviation: float


def init(key: PRNGKey) -> Params:
    """Draws the arrays, by name: "0/query" is that of the first block."""
    features = WIDTH // NUM_HEADS
    shapes: dict[str, tuple[int, ...]] = {"letter": (len(LETTERS), WIDTH), "place": (LENGTH, WIDTH)}
    for block in range(NUM_BLOCKS):
        shapes |= {f"{block}/{name}": (WIDTH, NUM_HEADS, features) for name in ATTENTION}
        shapes |= {
            f"{block}/mix": (WIDTH, WIDTH),
            f"{block}/up": (WIDTH, 4 * WIDTH),
            f"{block}/down": (4 * WIDTH, WIDTH),
        }
    shapes["output"] = (WIDTH, len(LETTERS))
    scales = {name: 0.5 if name in ("letter", "place") else shape[0] ** -0.5
              for name, shape in shapes.items()}  # fmt: skip
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.normal(key, shape, jnp.float32) * np.float32(scales[name])
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def filter_axis(path: str, _leaf: Array) -> int | tuple[int, int]:
    """A filter is one feature of one head; elsewhere one output."""
    return (-2, -1) if path.endswith(ATTENTION) else -1


def predict(params: Params, letters: Array) -> Array:
    """Letters by number, (m, LENGTH), to logits of the next ones, (m, LENGTH, letters)."""
    is_past = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    x = params["letter"][letters] + params["place"]
    for block in range(NUM_BLOCKS):
        p = {name: params[f"{block}/{name}"] for name in (*ATTENTION, "mix", "up", "down")}
        z = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        query, key, value = (jnp.einsum("mti,ihf->mhtf", z, p[name]) for name in ATTENTION)
        scores = jnp.einsum("mhtf,mhsf->mhts", query, key) / np.sqrt(query.shape[-1], dtype="f")
        weights = jax.nn.softmax(jnp.where(is_past, scores, -jnp.inf))
        x = x + jnp.einsum("mhts,mhsf->mthf", weights, value).reshape(x.shape) @ p["mix"]
        z = jax.nn.standardize(x, axis=-1, epsilon=1e-5)
        x = x + jax.nn.gelu(z @ p["up"]) @ p["down"]
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) @ params["output"]


RISK = losses.empirical_risk(predict, losses.softmax_cross_entropy_with_integer_labels)


def pieces(starts: Array) -> tuple[Array, Array]:
    """Pieces of the text that begin at some letters, and the letter that follows each of theirs."""
    text = jnp.asarray([LETTERS.index(letter) for letter in TEXT], jnp.int32)
    windows = text[starts[:, None] + jnp.arange(LENGTH + 1)]
    return windows[:, :-1], windows[:, 1:]


def compute(seed: int = 0) -> Results:
    """Trains the network and follows its loss over a plane."""
    key_start, key_batch, key_plane, key_check = jax.random.split(jax.random.key(seed), 4)
    last = len(TEXT) - LENGTH - 1
    starts = jax.random.randint(key_batch, (NUM_STEPS, BATCH_SIZE), 0, last)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, NUM_STEPS))

    @jax.jit
    def train(start: Params, starts: Array) -> descent.Trajectory:
        return descent.optimize(
            lambda params, starts: RISK(params, *pieces(starts)), start, optimizer=optimizer,
            num_steps=NUM_STEPS, per_step=starts, record=lambda _: None,
        )  # fmt: skip

    run = train(init(key_start), starts)
    x, y = pieces(jnp.linspace(0, last, NUM_SEEN).astype(int))
    drawn = planes.random(key_plane, run.params)
    plane, mixed = (planes.filter_normalize(drawn, filter_axis=axis) for axis in (filter_axis, -1))
    phi = planes.restrict(RISK, plane, x, y)
    series = sweeps.approximate(
        phi, *[(-REACH, REACH)] * 2, tolerance=TOLERANCE, max_degree=MAX_DEGREE, progress=False
    )
    axis = jnp.linspace(-REACH, REACH, RESOLUTION)
    checked = jax.random.uniform(key_check, (2, NUM_CHECKED), jnp.float32, -REACH, REACH)

    @jax.jit
    def seen(series: Any, phi: Any) -> tuple[surfaces.Surface, Array]:
        on_grid = surfaces.sweep(lambda a, b: surfaces.evaluate(series, a, b), axis, axis)
        deviations = jax.lax.map(
            lambda point: jnp.abs(surfaces.evaluate(series, *point) - phi(*point)), tuple(checked)
        )
        return on_grid, deviations.max()

    surface, deviation = seen(series, phi)
    return Results(
        run=run,
        share_right=float(jnp.mean(jax.jit(predict)(run.params, x).argmax(axis=-1) == y)),
        lengths={"heads and features": _lengths(plane), "features alone": _lengths(mixed)},
        series=series,
        surface=surface,
        deviation=float(deviation),
    )


def _lengths(plane: planes.Plane) -> np.ndarray:
    """The length of each attention filter of the first direction, over that of the network."""
    ratios = [
        jnp.linalg.norm(plane.directions[0][name], axis=0) / jnp.linalg.norm(leaf, axis=0)
        for name, leaf in plane.origin.items()
        if name.endswith(ATTENTION)
    ]
    return np.concatenate([np.ravel(ratio) for ratio in ratios])


def share_off(lengths: np.ndarray) -> float:
    """The share of filters that are a fifth too long or too short."""
    return float(np.mean(np.abs(lengths - 1) > 0.2))


def _error(results: Results) -> float:
    """The stated error, over the range of the surface."""
    return float(results.series.errors) / float(np.ptp(np.asarray(results.surface.values)))


def tables(results: Results) -> list[Table]:
    """What was learned, the filters in two ways, and the series."""
    values, run_losses = np.asarray(results.surface.values), np.asarray(results.run.losses)
    learned = (f"{run_losses[0]:.2f}", f"{run_losses[-20:].mean():.2f}",
               f"{results.share_right:.0%}")  # fmt: skip
    filters = [
        (name, lengths.size, f"{lengths.min():.2f}", f"{lengths.max():.2f}",
         f"{share_off(lengths):.0%}")
        for name, lengths in results.lengths.items()
    ]  # fmt: skip
    series = (int(results.series.num_points), f"{values.min():.2f}", f"{values.max():.2f}",
              f"{_error(results):.1%}", f"{results.deviation / np.ptp(values):.1%}")  # fmt: skip
    return [
        Table(
            f"{len(TEXT)} letters, {NUM_STEPS} steps of {BATCH_SIZE} pieces",
            ("first loss", "last losses", "next letters foretold"),
            [learned],
        ),
        Table(
            "Attention filters of a direction, over those of the network",
            ("what counts them", "filters", "shortest", "longest", "off by a fifth"),
            filters,
        ),
        Table(
            "The surface, a Chebyshev series",
            ("evaluations", "lowest", "highest", "error stated", f"error at {NUM_CHECKED} points"),
            [series],
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The text is learned, filters of mixed heads are wrong, and the bowl is one."""
    right, mixed = (share_off(lengths) for lengths in results.lengths.values())
    values = np.asarray(results.surface.values)
    lowest = np.unravel_index(values.argmin(), values.shape)
    place = [float(axis[i]) for axis, i in zip(results.surface.coordinates, lowest, strict=True)]
    points, error = int(results.series.num_points), float(results.series.errors)
    return [
        Expectation(
            "more than half of the next letters are foretold",
            f"{results.share_right:.0%}",
            results.share_right > 0.5,
        ),
        Expectation(
            "counted by features alone, some attention filters are off by a fifth and more",
            f"{mixed:.0%}; by heads and features {right:.0%}",
            mixed > 0.05 and right == 0,
        ),
        Expectation(
            "the lowest point of the plane is the network's, to a tenth",
            f"at {place[0]:+.2f}, {place[1]:+.2f}",
            max(map(abs, place)) <= 0.1,
        ),
        Expectation(
            "a few hundred points give the surface within the stated error",
            f"{points} points, {results.deviation:.3f} of {error:.3f} nats",
            points < 500 and results.deviation <= error,
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The bowl as a relief and as a map, filter lengths in two ways, and the training."""
    grid = figure.add_gridspec(2, 2)
    names: Any = {"axis_names": ("direction 1", "direction 2")}
    relief = figure.add_subplot(grid[0, 0], projection="3d")
    plots.surface_3d(relief, results.surface, **names)
    relief.set_title("The loss of the transformer")
    ax, filters, loss = (figure.add_subplot(grid[place]) for place in ((0, 1), (1, 0), (1, 1)))
    plots.surface_contour(ax, results.surface, aspect="equal", **names)
    points = int(results.series.num_points)
    title = f"Within {_error(results):.1%} of its range, from {points} points"
    ax.set_title(title, fontsize=10)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
    bins = np.linspace(0.5, 1.6, 45)
    for (name, lengths), colour in zip(results.lengths.items(), plots.COLOURS, strict=False):
        filters.hist(
            lengths, bins=bins.tolist(), color=colour, alpha=0.7, label=f"counted by {name}"
        )
    filters.set_yscale("log")
    filters.set(xlabel="length of a filter, over the network's", ylabel="attention filters")
    off = share_off(results.lengths["features alone"])
    filters.set_title(f"Mixed heads make {off:.0%} of the filters wrong by a fifth")
    filters.legend()
    trace = np.asarray(results.run.losses)[:-1].reshape(-1, 10).mean(axis=1)
    loss.plot(10 * np.arange(trace.size) + 5, trace, color=plots.COLOURS[0])
    loss.set(xlabel="step", ylabel="loss per letter, mean of 10 steps", ylim=(0, None))
    loss.set_title(f"Training: {results.share_right:.0%} of the next letters are foretold")
    letters(relief, ax, filters, loss)


def interactive(results: Results) -> dict[str, Any]:
    """The bowl to turn."""
    names: Any = {"axis_names": ("direction 1", "direction 2"), "aspect": "equal"}
    return {"The loss of the transformer": plots.interactive_surface(results.surface, **names)}
