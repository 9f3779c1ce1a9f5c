"""Which runs can be drawn: they are checked, put in the order of the axes, made plain NumPy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgd import _checks
from jaxgd.descent import Trajectory
from jaxgd.plots._inputs import PICK_A_LANE, names, numbers

Run = Trajectory | tuple[Any, Any]
"""A descent over two coordinates: a Trajectory, or its points (T, 2) and its losses (T,).

Of a Trajectory, ``path`` must hold two numbers per point: an array (N + 1, 2), or a pytree of
two scalars; ``record`` chooses them. It is drawn up to its last step. The keys of a dict have no
order of their own: they are matched with the names of the axes. In a pair, the losses are those
of the run; on a projection those of the surface differ.
"""
Runs = Run | Mapping[Any, Run] | Sequence[Run]
"""One run, or several: by name, or in a row."""


_LOSSES_OF_PROJECTION = "Write (projection.coordinates, trajectory.losses)."


class Track(NamedTuple):
    """A run in plain arrays, up to its last step."""

    points: np.ndarray  # (T, 2)
    losses: np.ndarray  # (T,)
    steps: np.ndarray  # (T,): after how many steps each point was reached


def one_run(where: str, name: str, trajectory: Trajectory) -> np.ndarray:
    """The losses of one Trajectory, up to its last step."""
    _checks.instance(where, name, trajectory, Trajectory)
    losses = numbers(where, f"{name}.losses", trajectory.losses)
    _checks.that(
        where,
        losses.ndim == 1,
        f"{name} must be one run",
        f"losses of shape {losses.shape}",
        PICK_A_LANE.format(name),
    )
    losses = losses[: int(trajectory.num_steps) + 1]
    some = bool(np.isfinite(losses).any())
    _checks.that(where, some, f"{name} must have a finite loss", "none")
    return losses


def tracks(where: str, runs: Any, axis_names: Sequence[str], *, least: int = 1) -> dict[str, Track]:
    """Each run as a Track, by name; a single run is called "descent"."""
    if runs is None:
        runs = {}
    if isinstance(runs, Trajectory) or _is_pair(runs):
        runs = {"descent": runs}
    refuse_named_tuple(where, "runs", runs)
    _checks.instance(where, "runs", runs, (Mapping, list, tuple))
    if not isinstance(runs, Mapping):
        runs = {f"run {i}": run for i, run in enumerate(runs, start=1)}
    _checks.that(where, len(runs) >= least, "there must be a descent", "none")
    texts = names(where, "runs", runs)
    return {
        text: track(where, f"runs[{key!r}]", run, axis_names)
        for text, (key, run) in zip(texts, runs.items(), strict=True)
    }


def _is_pair(runs: object) -> bool:
    """Whether this is the points and the losses of one run, and not two runs."""
    return (
        type(runs) is tuple
        and len(runs) == 2
        and not any(isinstance(part, (tuple, Mapping)) for part in runs)
    )


def refuse_named_tuple(where: str, name: str, run: object) -> None:
    """Results of other kinds are pairs, too: a Projection's residuals are no losses."""
    if not isinstance(run, Trajectory) and hasattr(run, "_fields"):
        is_projection = type(run).__name__ == "Projection"
        cure = _LOSSES_OF_PROJECTION if is_projection else ""
        wanted = f"{name} must be a Trajectory, or a pair of points and losses"
        _checks.that(where, False, wanted, _checks.kind(run), cure, error=TypeError)


def track(where: str, name: str, run: Any, axis_names: Sequence[str]) -> Track:
    """A run of two numbers per point, with one loss per point."""
    refuse_named_tuple(where, name, run)
    _checks.instance(where, name, run, tuple)
    if isinstance(run, Trajectory):
        return _track_of_trajectory(where, name, run, axis_names)
    wanted = f"{name} must be a pair of points and losses"
    _checks.that(where, len(run) == 2, wanted, f"a tuple of {len(run)}")
    points = two_columns(where, name, run[0], axis_names)
    losses = numbers(where, f"the losses of {name}", run[1])
    got = f"{losses.shape} for {len(points)} points"
    fits = losses.shape == (len(points),) and len(points) > 0
    _checks.that(where, fits, f"{name} must have one loss per point", got)
    wanted = f"{name} must be a pair of points and losses"
    got, cure = "what must be the residuals of a Projection", _LOSSES_OF_PROJECTION
    _checks.that(where, not _are_residuals(points, losses), wanted, got, cure)
    return Track(points, losses, np.arange(len(points)))


def _are_residuals(points: np.ndarray, values: np.ndarray) -> bool:
    """Whether these are the two arrays of a Projection, made a plain tuple.

    Residuals are shares, and exactly 0 at the origin of the plane, the end of most paths, but
    large on the way to it. A loss that is 0 there is small on the way to it.
    """
    distances = np.linalg.norm(points, axis=1)
    is_origin = distances == 0
    if not is_origin.any() or values[is_origin].any() or (~is_origin).sum() < 3:
        return False
    shares, distances = values[~is_origin], distances[~is_origin]
    largest = shares.max() if ((shares >= 0) & (shares < 1.001)).all() else np.inf
    is_rounding = largest < 1e-5  # of a model with two params: no loss moves them then
    return bool(np.isfinite(largest) and (is_rounding or shares[distances.argmin()] >= largest / 2))


def _track_of_trajectory(
    where: str, name: str, run: Trajectory, axis_names: Sequence[str]
) -> Track:
    losses = one_run(where, name, run)
    points = two_columns(where, name, run.path, axis_names)
    num_rows, num_losses = len(points), len(np.asarray(run.losses))
    record_every = max((num_losses - 1) // max(num_rows - 1, 1), 1)
    got = f"{num_losses} losses for {num_rows} points"
    fits = record_every * (num_rows - 1) == num_losses - 1
    _checks.that(where, fits, f"{name} must have one loss per recorded point", got)
    end = len(losses) - 1  # rows past the last step repeat it
    steps = np.unique(np.minimum(np.arange(num_rows) * record_every, end))
    return Track(points[: len(steps)], losses[steps], steps)


def two_columns(where: str, name: str, path: object, axis_names: Sequence[str]) -> np.ndarray:
    """The points of a path, shape (T, 2), the first column belonging to the first axis.

    Two numbers per point in one array keep their order. Those of a pytree are put in the order
    of the axes that bear their names; otherwise they keep that of the pytree, which a dict has
    not got.
    """
    if _is_of_points(path):
        path = np.asarray(path)
    leaves = [
        (keys, numbers(where, f"the path of {name}", leaf))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(path)
    ]
    wanted = f"{name} must have two numbers per point, shape (T, 2)"
    lengths = {leaf.shape[:1] for _, leaf in leaves}
    got = " and ".join(str(leaf.shape) for _, leaf in leaves) or "nothing"
    _checks.that(where, len(lengths) == 1 and not lengths & {(), (0,)}, wanted, got)
    columns = [leaf.reshape(len(leaf), -1) for _, leaf in leaves]
    width = sum(column.shape[1] for column in columns)
    cure = "Keep two with record, or project: planes.project_path."
    _checks.that(where, width == 2, wanted, got, cure)
    has_some = any(np.isfinite(column).any() for column in columns)
    _checks.that(where, has_some, f"{name} must have a finite point", "none")
    if len(columns) == 2:
        columns = _in_the_order_of_the_axes(where, name, leaves, columns, axis_names)
    return np.concatenate(columns, axis=1)


def _is_of_points(path: object) -> bool:
    """Rows written out, [[0, 1], [2, 3]]; a tuple of arrays is a pytree of columns."""
    if isinstance(path, list):
        return all(hasattr(row, "__len__") or hasattr(row, "shape") for row in path)
    if type(path) is tuple:
        return not any(hasattr(row, "shape") for row in path)
    return False


def _in_the_order_of_the_axes(
    where: str,
    name: str,
    leaves: Sequence[Any],
    columns: list[np.ndarray],
    axis_names: Sequence[str],
) -> list[np.ndarray]:
    paths = [_checks.place(keys) for keys, _ in leaves]
    straight, crossed = (
        all(_same_name(a, p) for a, p in zip(axis_names, order, strict=True))
        for order in (paths, paths[::-1])
    )
    if crossed and not straight:
        return columns[::-1]
    firsts = next((pair for pair in zip(leaves[0][0], leaves[1][0], strict=False)
                   if pair[0] != pair[1]), (None,))  # fmt: skip
    by_key = isinstance(firsts[0], jax.tree_util.DictKey)
    _checks.that(
        where,
        straight or not by_key,
        f"the path of {name} must say which number belongs to which axis",
        f"{_and(paths)} for the axes {_and(list(axis_names))}",
        f"Name the axes after them, or record an array: "
        f"record=lambda p: jnp.stack([p[{_last(paths[0])!r}], p[{_last(paths[1])!r}]]).",
    )
    return columns


def _and(words: Sequence[str]) -> str:
    return " and ".join(map(repr, words))


def _last(path: str) -> str:
    return path.rsplit("/", maxsplit=1)[-1]


def _same_name(axis_name: str, path: str) -> bool:
    """Whether an axis is named after an entry of the params: "w" or "weight" for "weights"."""
    short = str(axis_name).strip("$\\ ").lower()
    name = _last(path).lower()
    return bool(short) and (name.startswith(short) or short.startswith(name))


def shown_steps(where: str, runs: Mapping[str, Track], num_frames: object) -> np.ndarray:
    """All steps, or at most so many, in equal ratios: the first and the last among them."""
    num_frames = _checks.count(where, "num_frames", num_frames, least=2)
    every = np.unique(np.concatenate([run.steps for run in runs.values()]))
    if len(every) <= num_frames:
        return every
    kept = np.unique(np.geomspace(1, len(every), num_frames).round().astype(int)) - 1
    return every[kept]


def rows_until(run: Track, steps: np.ndarray) -> np.ndarray:
    """For each of these steps, the row of the last point that the run had reached by then."""
    return np.searchsorted(run.steps, steps, side="right") - 1


def loss_limits(runs: Mapping[str, Track]) -> tuple[float, float, bool]:
    """The range of the losses to show, and whether all are positive.

    A run that climbs far above all starts leaves the picture, so that the others are not
    flattened; where all runs do, the whole range is shown.
    """
    finite = [run.losses[np.isfinite(run.losses)] for run in runs.values()]
    finite = [losses for losses in finite if losses.size]
    if not finite:
        return 0.0, 1.0, False
    every = np.concatenate(finite)
    is_log = bool((every > 0).all())
    start, low = max(losses[0] for losses in finite), every.min()
    limit = 10 * start if is_log else start + ((start - low) or abs(start) or 1.0)
    calm = [losses.max() for losses in finite if losses.max() <= limit]
    high = limit if calm and every.max() > limit else every.max()
    return float(low), float(high), is_log
