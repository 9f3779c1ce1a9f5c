"""How fast does the heavy ball roll, for every step and every momentum?

On a quadratic with eigenvalues 1 and 100 the error shrinks in the long run by a constant factor
per step, the rate. Goh's closed form gives it from a quadratic equation per eigenvalue; here it
is measured on descents with ``optax.sgd(alpha, momentum=beta)``, one per point of the map.
Expect the two maps to agree to 1 % wherever the rate is below 0.99; the fastest descent at
alpha = 0.0330579, beta = 0.669421, where the rate is 9/11 = 0.818182, as against 99/101 =
0.980198 for plain gradient descent at its best; and the largest errors on the creases of the
map, where two roots meet and the error shrinks like t times rate^t.

Source: Goh, Why Momentum Really Works, Distill, 2017.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import descent, plots, surfaces

FIGURE_SIZE = (14, 5.2)
EIGENVALUES = (1.0, 100.0)
ALPHAS, BETAS = (0.0005, 0.04), (0.0, 0.99)
RESOLUTION, NUM_STEPS, BATCH_SIZE = (80, 81), 2000, 648
ZOOMS, ZOOM_RESOLUTION = 5, 17
SLOW = 0.99  # where the closed form is above it, a rate is measured but not judged


class Results(NamedTuple):
    """What was computed.

    Attributes:
      measured: the rate over (alpha, beta), NaN where the descent diverged.
      closed_form: over the same grid; above 1 where it diverges.
      best: (alpha, beta, rate) of the fastest descent found by sweeps, each finer than the last.
      best_closed_form: the same from the closed form.
      best_without: (alpha, rate) measured at the best step without momentum.
    """

    measured: surfaces.Surface
    closed_form: surfaces.Surface
    best: jax.Array
    best_closed_form: tuple[float, float, float]
    best_without: tuple[float, jax.Array]


def quadratic(x: jax.Array) -> jax.Array:
    """The loss: half the sum of eigenvalue times coordinate squared, least at 0."""
    return jnp.sum(jnp.array(EIGENVALUES) * x**2) / 2


def measured_rate(alpha: Any, beta: Any, *, num_steps: int = NUM_STEPS) -> jax.Array:
    """The factor by which a descent shrinks per step, in the second half of it.

    A descent with momentum is at x_t and comes from x_{t-1}; complex roots make each of them
    swing through 0, not both at once. So the rate is taken from the larger of the two, as the
    slope of its logarithm, fitted to all steps of the second half. The minimum lies at 0, where
    floating-point numbers are dense: however small x becomes, nothing is lost to rounding.
    """
    run = descent.optimize(
        quadratic,
        jnp.ones(len(EIGENVALUES)),
        optimizer=optax.sgd(alpha, momentum=beta),
        num_steps=num_steps,
    )
    late = run.path[num_steps // 2 :]
    size = jnp.abs(late).max(axis=1)  # no squares: they would underflow
    length = jnp.maximum(size[1:], size[:-1])
    steps = jnp.arange(length.size) - (length.size - 1) / 2
    slope = jnp.sum(steps * jnp.log(length)) / jnp.sum(steps**2)
    return jnp.where(run.status == descent.Status.MAX_STEPS, jnp.exp(slope), jnp.nan)


def closed_form_rate(alpha: Any, beta: Any) -> jax.Array:
    """The larger root of sigma^2 - (1 - alpha l + beta) sigma + beta, over both eigenvalues."""
    middle = (1 + beta - alpha * jnp.array(EIGENVALUES)) / 2
    root = jnp.sqrt((middle**2 - beta).astype(complex))
    return jnp.maximum(jnp.abs(middle + root), jnp.abs(middle - root)).max()


def sweep_rates(alphas: Any, betas: Any) -> surfaces.Surface:
    """Descends at every step and momentum of a grid."""
    return surfaces.sweep(measured_rate, alphas, betas, batch_size=BATCH_SIZE)


def compute(seed: int = 0, full: bool = False) -> Results:
    """Measures the map, and looks for its lowest point; ``full`` takes a grid four times finer."""
    del seed  # nothing here is random
    scale = 4 if full else 1
    alphas, betas = (
        jnp.linspace(*span, scale * (size - 1) + 1)
        for span, size in zip((ALPHAS, BETAS), RESOLUTION, strict=True)
    )
    small, large = EIGENVALUES
    root = (large / small) ** 0.5
    best = (
        (2 / (small**0.5 + large**0.5)) ** 2,
        ((root - 1) / (root + 1)) ** 2,
        (root - 1) / (root + 1),
    )
    measured = jax.jit(sweep_rates)(alphas, betas)
    return Results(
        measured=measured,
        closed_form=jax.jit(lambda *axes: surfaces.sweep(closed_form_rate, *axes))(alphas, betas),
        best=jax.jit(fastest)(measured),
        best_closed_form=best,
        best_without=(2 / (small + large), jax.jit(measured_rate)(2 / (small + large), 0.0)),
    )


def fastest(coarse: surfaces.Surface) -> jax.Array:
    """The (alpha, beta, rate) where a descent is fastest: sweeps about the best point so far.

    A search for the least of many measurements finds one that errs on the low side.
    """

    def best_of(surface: surfaces.Surface) -> jax.Array:
        i, j = jnp.unravel_index(jnp.nanargmin(surface.values), surface.values.shape)
        alphas, betas = surface.coordinates
        return jnp.stack([alphas[i], betas[j], surface.values[i, j]])

    def zoom(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, None]:
        best, reach = carry
        window = jnp.linspace(-1, 1, ZOOM_RESOLUTION)
        axes = (at + width * window for at, width in zip(best[:2], reach, strict=True))
        found = best_of(sweep_rates(*axes))
        return (jnp.where(found[2] < best[2], found, best), reach / 3), None

    spacing = jnp.stack([axis[1] - axis[0] for axis in coarse.coordinates])
    (best, _), _ = jax.lax.scan(zoom, (best_of(coarse), 2 * spacing), length=ZOOMS)
    return best


def relative_errors(results: Results) -> np.ndarray:
    """Measured over closed form, less 1; NaN where the descent diverged."""
    return np.asarray(results.measured.values / results.closed_form.values - 1)


def tables(results: Results) -> list[Table]:
    """The fastest descent, and how well the two maps agree."""
    best, wanted = [float(x) for x in results.best], results.best_closed_form
    without = float(results.best_without[1])
    optimum = [
        ("measured", *(f"{x:.6f}" for x in best), f"{without:.6f}"),
        ("closed form", *(f"{x:.6f}" for x in wanted), f"{1 - 2 / (1 + EIGENVALUES[1]):.6f}"),
        ("apart by", *(f"{abs(a / b - 1):.2%}" for a, b in zip(best, wanted, strict=True)), ""),
    ]
    errors, closed = np.abs(relative_errors(results)), np.asarray(results.closed_form.values)
    agreement = []
    for name, members in (
        (f"rate below {SLOW}", closed < SLOW),
        (f"rate from {SLOW} to 1", (closed >= SLOW) & (closed < 1)),
    ):
        judged = errors[members]
        largest = np.nanmax(judged)
        i, j = np.argwhere(members & (errors == largest))[0]
        at = (
            f"{axis[k]:.4f}" for axis, k in zip(results.measured.coordinates, (i, j), strict=True)
        )
        agreement.append(
            (name, judged.size, int(np.isnan(judged).sum()), f"{np.median(judged):.1e}",
             f"{largest:.1e}", *at, "yes" if largest <= 0.01 else "no")
        )  # fmt: skip
    stayed = int(np.sum(np.isfinite(errors[closed > 1])))
    agreement.append(("rate above 1", int(np.sum(closed > 1)), int(np.sum(closed > 1)) - stayed,
                      "", "", "", "", "all diverged" if stayed == 0 else "no"))  # fmt: skip
    return [
        Table(
            f"The fastest descent, over {ZOOMS} sweeps each finer than the last",
            ("", "alpha", "beta", "rate", "best rate without momentum"),
            optimum,
        ),
        Table(
            f"{closed.size} descents of {NUM_STEPS} steps beside the closed form",
            (
                "closed form",
                "descents",
                "diverged",
                "median error",
                "largest",
                "at alpha",
                "beta",
                "within 1 %",
            ),
            agreement,
        ),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The measured map is that of the closed form, and the fastest descent that of Goh."""
    errors, closed = np.abs(relative_errors(results)), np.asarray(results.closed_form.values)
    judged = np.where(closed < SLOW, errors, 0.0)
    i, j = np.unravel_index(judged.argmax(), judged.shape)
    alpha, beta = (
        float(axis[k]) for axis, k in zip(results.measured.coordinates, (i, j), strict=True)
    )
    # Two roots meet where beta = (1 - sqrt(alpha l))^2; within a few steps of the grid counts.
    creases = [(1 - (alpha * value) ** 0.5) ** 2 for value in EIGENVALUES]
    away = min(abs(beta - crease) for crease in creases)
    spacing = float(results.measured.coordinates[1][1])
    apart = np.abs(np.array(results.best) / results.best_closed_form - 1).max()
    without = float(results.best_without[1])
    return [
        Expectation(
            f"where the closed form is below {SLOW}, the measured rate agrees with it to 1 %",
            f"the largest error is {judged.max():.2%}",
            bool(judged.max() <= 0.01),
        ),
        Expectation(
            "the fastest descent found is Goh's to 1 %",
            f"they are {apart:.2%} apart",
            bool(apart <= 0.01),
        ),
        Expectation(
            "momentum beats the best rate without it",
            f"{float(results.best[2]):.3f} against {without:.3f}",
            bool(results.best[2] < without),
        ),
        Expectation(
            "the largest error lies on a crease of the map",
            f"{away:.4f} in beta from one",
            bool(away < 2 * spacing),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The two maps side by side, and the error between them."""
    left, middle, right = figure.subplots(1, 3, sharey=True)
    closed = np.asarray(results.closed_form.values)
    calm = np.where(closed < 1, closed, np.nan)
    measured = np.asarray(results.measured.values)
    levels = np.linspace(0.8, 1, 21)
    for ax, values, name in ((left, measured, "Measured"), (middle, calm, "Goh's closed form")):
        contours = _map(ax, results.measured.coordinates, values, levels, "viridis")
        ax.set_title(f"{name}: fastest at the star")
    bar = figure.colorbar(contours, ax=[left, middle], pad=0.02, aspect=40)
    bar.set_label("rate: error after / before a step")
    bar.set_ticks([0.8, 0.85, 0.9, 0.95, 1], labels=["0.80", "0.85", "0.90", "0.95", "1"])
    alpha, beta, rate = (float(x) for x in results.best)
    at = f"measured: α = {alpha:.4f}, β = {beta:.3f},\nrate {rate:.4f}"
    left.plot(alpha, beta, "*", color=plots.COLOURS[1], ms=16, mec="white", ls="none", label=at)
    alpha, beta, rate = results.best_closed_form
    at = f"theory: α = {alpha:.4f}, β = {beta:.3f},\nrate {rate:.4f}"
    middle.plot(alpha, beta, "*", color=plots.COLOURS[1], ms=16, mec="white", ls="none", label=at)
    for ax in (left, middle):
        ax.legend(loc="lower right", fontsize=9)

    errors = np.abs(relative_errors(results))
    exponents = np.linspace(-7, -2, 11)
    shown = np.clip(np.log10(np.maximum(errors, 1e-16)), exponents[0], exponents[-1])
    contours = _map(right, results.measured.coordinates, shown, exponents, "cividis")
    bar = figure.colorbar(contours, ax=right, ticks=range(-7, -1), pad=0.02, aspect=40)
    bar.ax.set_yticklabels(["10⁻⁷ or less", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "1 %"])
    bar.set_label("relative error", labelpad=-22)
    largest = np.nanmax(errors[closed < SLOW])
    right.set_title(f"At rates below {SLOW} they differ\nby {largest:.2%} at most")
    left.set_ylabel("momentum β")
    panels.letters(left, middle, right)


def _map(ax: Axes, axes: Any, values: np.ndarray, levels: np.ndarray, colours: str) -> Any:
    """One map over (α, β); what diverges by theory stays grey, up to the exact border."""
    alphas, betas = (np.asarray(axis) for axis in axes)
    # In the last cell before the border the rate may jump to 1, which no grid shows as a line:
    # contours are carried from the cell before it to the border, which is exact.
    filled = values.copy()
    for column in filled.T:
        finite = np.flatnonzero(np.isfinite(column))
        if finite.size > 1:
            column[finite[-1] :] = column[finite[-2]]
    contours = ax.contourf(alphas, betas, filled.T, levels=levels, cmap=colours)
    border = 2 * (1 + betas) / EIGENVALUES[1]
    ax.fill_betweenx(betas, border, alphas[-1], color="0.85", lw=0)
    ax.set(xlim=(alphas[0], alphas[-1]), ylim=(betas[0], betas[-1]))
    ax.text(0.97, 0.03 if "cividis" in colours else 0.19, "grey: diverges", ha="right",
            transform=ax.transAxes, fontsize=10)  # fmt: skip
    ax.set_xticks([0.01, 0.02, 0.03, 0.04])
    ax.set_xlabel("step α")
    return contours
