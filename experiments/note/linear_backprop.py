"""How far must w and b move so that z = (2w + 3b)(2b + 1) becomes 150?

From (w, b) = (3, 4) the chain gives z = 162. Expect one exact step where only w moves, for z
is affine in w; quadratic convergence where the derivative is computed anew at each step, for
that is Newton's method; linear convergence where the first derivative is kept, the chord
method; and two different right answers where w and b each repair half of the error, for
z(w, b) = 150 is a curve.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import chains, plots, surfaces

FIGURE_SIZE = (11, 4.6)
START, TARGET = (3.0, 4.0), 150.0
STAGES = (
    lambda wb: (2 * wb[0] + 3 * wb[1], 2 * wb[1] + 1),  # (w, b) -> (x, y)
    lambda xy: xy[0] * xy[1],  # (x, y) -> z
)
TOLERANCE, MAX_STEPS = 1e-5, 10
RUNS = {
    "b, derivative kept": ("b", False),
    "b, recomputed": ("b", True),
    "w and b, derivatives kept": ("wb", False),
    "w and b, recomputed": ("wb", True),
}


class Results(NamedTuple):
    """What was computed.

    Attributes:
      trace: the chain at the start, forwards and backwards.
      expanded_slope: dz/dw of the expanded polynomial 4wb + 2w + 6b^2 + 3b.
      w_step: the run in which only w moves; its path is of w.
      runs: the four runs of the original programs by name; their paths are of (w, b).
      slopes: (dz/dw, dz/db) at each iterate of each run.
      surface: z over (w, b).
    """

    trace: chains.Trace
    expanded_slope: jax.Array
    w_step: chains.Solution
    runs: dict[str, chains.Solution]
    slopes: dict[str, tuple[jax.Array, jax.Array]]
    surface: surfaces.Surface


def compute(seed: int = 0) -> Results:
    """Computes every run of the note and of its sources."""
    del seed  # nothing here is random
    return jax.device_get(jax.jit(_compute)())


def _compute() -> Results:
    w, b = START
    first, *rest = STAGES

    def run(moving: str, refresh: bool) -> chains.Solution:
        options: Any = {"tolerance": TOLERANCE, "max_steps": MAX_STEPS, "refresh": refresh}
        if moving == "wb":
            return chains.solve(STAGES, START, TARGET, **options)
        solution = chains.solve([lambda b: first((w, b)), *rest], b, TARGET, **options)
        return solution._replace(path=(jnp.full_like(solution.path, w), solution.path))

    runs = {name: run(*options) for name, options in RUNS.items()}
    slopes = jax.vmap(lambda wb: chains.backprop(STAGES, wb).adjoints[0])
    return Results(
        trace=chains.backprop(STAGES, START),
        expanded_slope=jax.grad(lambda w: 4 * w * b + 2 * w + 6 * b**2 + 3 * b)(w),
        w_step=chains.solve(
            [lambda w: first((w, b)), *rest], w, TARGET, tolerance=TOLERANCE, max_steps=1
        ),
        runs=runs,
        slopes={name: slopes(run.path) for name, run in runs.items()},
        surface=surfaces.sweep(
            lambda w, b: chains.compose(*STAGES)((w, b)),
            jnp.linspace(2.25, 3.15, 91),
            jnp.linspace(3.75, 4.05, 51),
        ),
    )


def tables(results: Results) -> list[Table]:
    """The chain at the start, the step in w, and the four runs."""
    (x, y), z = results.trace.primals[1:]
    (dx, dy), _ = results.trace.adjoints[1:]
    dw, db = results.trace.adjoints[0]
    chain = Table(
        "The chain at (w, b) = (3, 4), forwards and backwards",
        ("", "w", "b", "x", "y", "z"),
        [
            ("value", *(f"{v:g}" for v in (*START, x, y, z))),
            ("dz/d.", *(f"{v:g}" for v in (dw, db, dx, dy, 1))),
        ],
    )
    w = results.w_step
    rows = [
        (f"{t}", f"{w.path[t]:.6f}", f"{START[1]:.6f}", f"{w.outputs[t]:.6f}", f"{r:.6f}")
        for t, r in enumerate(w.residuals)
    ]
    header = ("update", "w", "b", "z", "z - 150")
    shown = [chain, Table("Only w moves: one step is exact", header, rows)]
    for name in RUNS:
        run = results.runs[name]
        steps = int(run.num_steps)
        rows = []
        for t in range(steps + 1):
            row = [v[t] for v in (*run.path, run.outputs, run.residuals)]
            if t < steps:
                row += [v[t if RUNS[name][1] else 0] for v in results.slopes[name]]
                row += [v[t] - v[t + 1] for v in run.path]
            rows.append([t, *(f"{v:.6f}" for v in row), *[""] * (8 - len(row))])
        used = (*header, "dz/dw used", "dz/db used", "delta w", "delta b")
        shown.append(Table(f"{name}: {steps} updates", used, rows))
    return shown


def expectations(results: Results) -> list[Expectation]:
    """One exact step in w; Newton's method and the chord method; two ends on one curve."""
    steps = {name: int(run.num_steps) for name, run in results.runs.items()}
    pairs = [(name, name.replace("recomputed", "derivatives kept")) for name in steps]
    recomputed = {name: kept for name, kept in pairs if name != kept and kept in steps}
    ends = np.array([run.path[0][int(run.num_steps)] for run in results.runs.values()])
    off = float(np.abs([run.residuals[int(run.num_steps)] for run in results.runs.values()]).max())
    return [
        Expectation(
            "one step in w alone is exact",
            f"z - 150 = {float(results.w_step.residuals[1]):g} after it",
            bool(results.w_step.residuals[1] == 0),
        ),
        Expectation(
            "recomputed derivatives need fewer updates than kept ones",
            ", ".join(f"{steps[name]} against {steps[kept]}" for name, kept in recomputed.items()),
            all(steps[name] < steps[kept] for name, kept in recomputed.items()),
        ),
        Expectation(
            "every run ends on z = 150, with b alone and with w and b at different points",
            f"z is off by {off:.0e}, the ends are {np.ptp(ends):.2f} apart in w",
            bool(off < TOLERANCE and np.ptp(ends) > 0.1),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The steps on z(w, b), and the residuals on a logarithmic scale."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    plots.surface_contour(left, results.surface, axis_names=("w", "b"), value_name="z")
    w, b = results.surface.coordinates
    contour = left.contour(w, b, np.asarray(results.surface.values).T, [TARGET], colors="white")
    left.clabel(contour, fmt="z = %g", manual=[(2.85, 3.845)])
    inset = left.inset_axes((0.04, 0.06, 0.42, 0.42))
    in_w = np.asarray(results.w_step.path)[: int(results.w_step.num_steps) + 1]
    in_w = np.stack([in_w, np.full_like(in_w, START[1])], axis=1)
    only_w: Any = {"color": plots.COLOURS[4], "marker": "D", "ms": 7}
    plots.descent_path(left, in_w, **only_w)
    styles = dict(zip(RUNS, (("o", 11), ("x", 8), ("s", 11), ("+", 11)), strict=True))
    for name, colour in zip(RUNS, (plots.COLOURS[i] for i in (5, 1, 2, 3)), strict=True):
        run = results.runs[name]
        marker, size = styles[name]
        look: Any = {"marker": marker, "markersize": size, "fillstyle": "none", "label": name}
        path = np.stack(run.path, axis=1)[: int(run.num_steps) + 1]
        for ax in (left, inset):
            plots.descent_path(ax, path, color=colour, **look)
        plots.residual_curve(right, run, color=colour, **look)
    ends = [np.stack(results.runs[name].path, axis=1)[1:3] for name in list(RUNS)[2:]]
    (x_low, y_low), (x_high, y_high) = (f(np.concatenate(ends), axis=0) for f in (np.min, np.max))
    inset.contour(w, b, np.asarray(results.surface.values).T, [TARGET], colors="0.5")
    room_x, room_y = 0.6 * (x_high - x_low), 0.6 * (y_high - y_low)
    inset.set(xlim=(x_low - room_x, x_high + room_x), ylim=(y_low - room_y, y_high + room_y))
    inset.set(xticks=[], yticks=[])
    inset.text(0.04, 0.95, "where the runs\nin w and b end", fontsize=8, va="top",
               transform=inset.transAxes)  # fmt: skip
    left.indicate_inset_zoom(inset, edgecolor="black")
    left.set_xlim(float(w[0]), float(w[-1]))
    left.set_title("The steps, on z(w, b)")
    left.annotate("only w moves: the note's step", in_w[-1], xytext=(4, 9), color="white",
                  textcoords="offset points", fontsize=9)  # fmt: skip
    right.axhline(TOLERANCE, color="0.5", linestyle=":")
    right.annotate("the programs' stop, 10⁻⁵", (0, TOLERANCE), xytext=(2, 4),
                   textcoords="offset points", fontsize=8, color="0.3")  # fmt: skip
    right.set_ylim(1e-9, 50)
    right.set_ylabel("|z − 150|")
    right.set_title("Recomputed: Newton. Kept: the chord method")
    right.legend(fontsize=8)
    panels.letters(left, right)


def playgrounds() -> dict[str, str]:
    """The same question to gradient descent: half the squared error over w and b."""
    z = chains.compose(*STAGES)
    page = plots.playground(
        lambda wb: jnp.square(z(wb) - TARGET) / 2, START, learning_rate=1e-4,
        axis_names=("w", "b"), domains=((2.0, 4.0), (3.0, 5.0)), title="(z − 150)² / 2",
    )  # fmt: skip
    return {"By hand: every start ends on the curve z = 150, each at another point": page}


def interactive(results: Results) -> dict[str, Any]:
    """The chain played, and z over (w, b) with the ways to 150."""
    ways = {
        name: (
            np.stack(run.path, axis=1)[: int(run.num_steps) + 1],
            run.outputs[: int(run.num_steps) + 1],
        )
        for name, run in results.runs.items()
        if name.endswith("recomputed")
    }
    return {
        "z over (w, b), and two ways down to 150": plots.interactive_surface(
            results.surface, ways, axis_names=("w", "b"), value_name="z"
        ),
        "The chain at the start, stage by stage": plots.interactive_backprop(
            results.trace, names=("(w, b)", "(x, y)", "z")
        ),
    }


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on linear back-propagation."""
    (w, b), (x, y), z = results.trace.primals
    w_step = results.w_step
    return {
        "L01": w,
        "L02": b,
        "L03": x,
        "L04": y,
        "L05": z,
        "L06": results.trace.adjoints[0][0],
        "L07": results.expanded_slope,
        "L08": TARGET,
        "L09": w_step.path[0] - w_step.path[1],
        "L10": w_step.path[1],
        "L11": w_step.outputs[1],
        "L12": "exact" if w_step.residuals[1] == 0 else "approximate",
    }
