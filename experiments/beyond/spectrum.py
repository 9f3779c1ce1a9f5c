"""How many directions of a loss are sharp, and where do the negative ones come from?

Nearly all eigenvalues of a classifier's Hessian lie close to zero; a few stand far out. A network
learns ten digits by Adam. At the start the spectrum is almost even on both sides of zero. Expect
most eigenvalues to be a hundredth of the largest or less while it learns, and ten of them, as many
as there are classes, to carry a quarter of the trace and more. Expect the large ones to belong to
the Gauss-Newton part, which never bends downwards, and the negative ones to the rest, which fades
as the examples are fitted; at the end the whole spectrum has shrunk along with the loss. (Large
networks show a gap after as many eigenvalues as classes. In one as small as this it comes and
goes; the table says where the widest gap lies.)

Each density is an estimate by stochastic Lanczos quadrature, its weights summing to 1, of the whole
and of the block of each layer.

The network: 64-24-10, tanh, 1,810 parameters, on 600 digits, all at every step.

Source: Papyan, The full spectrum of deepnet Hessians at scale, 2018; Ghorbani, Krishnan and Xiao,
An investigation into neural net optimization via Hessian eigenvalue density, 2019; Sagun, Evci,
Guney, Dauphin and Bottou, Empirical analysis of the Hessian of over-parametrized networks, 2017.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell.panels import letters
from experiments.shell.report import Expectation, Table
from jaxgd import curvature, descent, losses, neurons, plots
from jaxgd.types import Array, Params

FIGURE_SIZE = (14, 8)
SECONDS = 25
SIZES, NUM_CLASSES = (64, 24, 10), 10
RATE, NUM_STEPS, STRIDE = 0.01, 400, 40
LOOKED_AT = (0, 40, 400)
NUM_EXAMPLES, NUM_ITERATIONS, NUM_SAMPLES, NUM_PAIRS = 600, 40, 3, 15
LAYERS = ("0", "1")


class Results(NamedTuple):
    """What was computed; of the densities and eigenvalues, one row for each of LOOKED_AT.

    Attributes:
      losses: shape (NUM_STEPS + 1,).
      accuracies: the share of training digits that are right.
      hessian: the density of the Hessian.
      gauss_newton: that of the Gauss-Newton matrix.
      layers: that of the block of each layer, by its path; at the middle one of LOOKED_AT.
    """

    losses: Array
    accuracies: Array
    hessian: curvature.SpectralDensity
    gauss_newton: curvature.SpectralDensity
    layers: dict[str, curvature.SpectralDensity]


def predict(params: Any, x: Array) -> Array:
    """Applies the network: images (m, 64) to logits (m, 10)."""
    return neurons.apply_network(params, x, activation=jnp.tanh)


def linear_at(params: Params) -> Callable[[Params, Array], Array]:
    """The network made linear at some params: its Hessian is the Gauss-Newton matrix."""

    def predict_linearly(moved: Params, x: Array) -> Array:
        step = jax.tree.map(jnp.subtract, moved, params)
        value, change = jax.jvp(lambda p: predict(p, x), (params,), (step,))
        return value + change

    return predict_linearly


CROSS_ENTROPY = losses.softmax_cross_entropy_with_integer_labels
RISK = losses.empirical_risk(predict, CROSS_ENTROPY)


density_of = partial(
    curvature.spectral_density, num_iterations=NUM_ITERATIONS, num_samples=NUM_SAMPLES
)


def look(params: Params, x: Array, y: Array) -> tuple[Any, ...]:
    """The share that is right, and both densities."""
    key = jax.random.key(0)
    linear_risk = losses.empirical_risk(linear_at(params), CROSS_ENTROPY)
    return (
        (predict(params, x).argmax(axis=1) == y).mean(),
        density_of(key, RISK, params, x, y),
        density_of(key, linear_risk, params, x, y),
    )


def compute(seed: int = 0) -> Results:
    """Trains, then looks at the start, on the way, and at the end."""
    digits = load_digits(seed)
    images, y = digits.train_images[:NUM_EXAMPLES], digits.train_labels[:NUM_EXAMPLES]
    x = images - images.mean(axis=0)
    start = neurons.init_network(jax.random.key(seed + 1), SIZES)

    @jax.jit
    def train(start: Params, x: Array, y: Array) -> tuple[Params, Array]:
        run = descent.optimize(
            RISK, start, x, y, optimizer=optax.adam(RATE), num_steps=NUM_STEPS,
            record_every=STRIDE,
        )  # fmt: skip
        rows = np.array(LOOKED_AT) // STRIDE
        return jax.tree.map(lambda path: path[rows], run.path), run.losses

    @jax.jit
    def look_at_layers(params: Params, x: Array, y: Array) -> dict[str, Any]:
        return {
            layer: density_of(
                jax.random.key(0), RISK, params, x, y,
                where=lambda path, _, layer=layer: path.startswith(f"{layer}/"),
            )
            for layer in LAYERS
        }  # fmt: skip

    points, trace = train(start, x, y)
    accuracies, hessian, gauss_newton = jax.jit(
        lambda points, x, y: jax.lax.map(lambda params: look(params, x, y), points)
    )(points, x, y)
    middle = jax.tree.map(lambda leaf: leaf[1], points)
    layers = look_at_layers(middle, x, y)
    return Results(trace, accuracies, hessian, gauss_newton, layers)


def widest_gap(largest: np.ndarray) -> int:
    """After how many eigenvalues the next one is smallest beside its forerunner."""
    return int(np.argmax(largest[:-1] / largest[1:])) + 1


def share_of_small(density: curvature.SpectralDensity) -> float:
    """The share of eigenvalues that are a hundredth of the largest or less."""
    nodes, weights = np.asarray(density.nodes), np.asarray(density.weights)
    return float(weights[np.abs(nodes) < 0.01 * nodes.max()].sum() / len(weights))


def largest_of(density: curvature.SpectralDensity) -> np.ndarray:
    """The largest eigenvalues, descending, as the first probe finds them."""
    return np.asarray(density.nodes)[0, ::-1][:NUM_PAIRS]


def share_of_ten(density: curvature.SpectralDensity) -> float:
    """The share of the trace that as many eigenvalues as classes carry."""
    num_params = sum((m + 1) * n for m, n in itertools.pairwise(SIZES))
    mean = float((density.weights * density.nodes).sum(axis=1).mean())
    return float(largest_of(density)[:NUM_CLASSES].sum()) / (num_params * mean)


def _at(density: curvature.SpectralDensity, index: int) -> curvature.SpectralDensity:
    return curvature.SpectralDensity(nodes=density.nodes[index], weights=density.weights[index])


def _below_zero(density: curvature.SpectralDensity) -> np.ndarray:
    """The lowest node of each density over its highest."""
    nodes = np.asarray(density.nodes)
    return nodes.min(axis=(1, 2)) / nodes.max(axis=(1, 2))


def tables(results: Results) -> list[Table]:
    """The spectra in figures."""
    whole, part = _below_zero(results.hessian), _below_zero(results.gauss_newton)
    rows = []
    for i, step in enumerate(LOOKED_AT):
        density = _at(results.hessian, i)
        rows.append(
            (f"{step}", f"{results.losses[step]:.3f}", f"{results.accuracies[i]:.1%}",
             f"{largest_of(density)[0]:.3f}", f"{share_of_ten(density):.0%}",
             f"{share_of_small(density):.0%}", f"{widest_gap(largest_of(density))}",
             f"{whole[i]:+.3f}", f"{part[i]:+.0e}")
        )  # fmt: skip
    return [
        Table(
            "The spectrum along the training",
            ("step", "loss", "right", "largest", "share of ten", "a hundredth or less",
             "widest gap after", "lowest / highest", "of Gauss-Newton"),
            rows,
        )
    ]  # fmt: skip


def expectations(results: Results) -> list[Expectation]:
    """A few outliers, of the Gauss-Newton part; the negative ones of the rest."""
    whole, part = _below_zero(results.hessian), _below_zero(results.gauss_newton)
    highest = [float(d.nodes[1].max()) for d in (results.hessian, results.gauss_newton)]
    sums = np.abs(np.asarray(results.hessian.weights).sum(axis=2) - 1).max()
    middle = _at(results.hessian, 1)
    small, carried = share_of_small(middle), share_of_ten(middle)
    return [
        Expectation(
            f"at step {LOOKED_AT[1]} most eigenvalues are a hundredth of the largest or less",
            f"{small:.0%} of them",
            bool(small > 0.5),
        ),
        Expectation(
            "ten of them carry a quarter of the trace and more",
            f"{carried:.0%} of it",
            bool(carried > 0.25),
        ),
        Expectation(
            "the largest one belongs to the Gauss-Newton part",
            f"{highest[0]:.3f} of the Hessian, {highest[1]:.3f} of that part",
            bool(abs(highest[0] / highest[1] - 1) < 0.25),
        ),
        Expectation(
            "the Gauss-Newton part never bends downwards",
            f"its lowest node is {part.min():.0e} of its highest",
            bool(part.min() > -1e-6),
        ),
        Expectation(
            "the rest fades as the examples are fitted",
            "lowest over highest " + ", ".join(f"{value:.2f}" for value in whole),
            bool((np.diff(whole) > 0).all()),
        ),
        Expectation("the weights sum to 1", f"to {sums:.0e}", bool(sums < 1e-6)),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The density at each step beside its Gauss-Newton part, the layers, the outliers."""
    panels = figure.subplots(2, 3)
    for i, (ax, step) in enumerate(zip(panels[0], LOOKED_AT, strict=True)):
        plots.spectrum(
            ax,
            {"Hessian": _at(results.hessian, i), "Gauss-Newton": _at(results.gauss_newton, i)},
        )
        ax.set_title(
            f"Step {step}: loss {results.losses[step]:.3f}, {results.accuracies[i]:.1%} right",
            fontsize=11,
        )
    layers, values, trace = panels[1]
    plots.spectrum(layers, {f"layer {layer}": d for layer, d in results.layers.items()})
    sharpest = max(results.layers, key=lambda layer: float(results.layers[layer].nodes.max()))
    layers.set_title(f"Blocks at step {LOOKED_AT[1]}: layer {sharpest} is the sharper", fontsize=11)
    order = np.arange(1, NUM_PAIRS + 1)
    for i, step in enumerate(LOOKED_AT):
        values.semilogy(
            order,
            largest_of(_at(results.hessian, i)),
            "o-",
            ms=4,
            color=plots.COLOURS[i],
            label=f"step {step}",
        )
    gap = widest_gap(largest_of(_at(results.hessian, 1)))
    values.axvline(gap + 0.5, color="0.6", ls="--")
    values.set_title(f"The widest gap at step {LOOKED_AT[1]}: after rank {gap}", fontsize=11)
    values.set(xlabel="rank", ylabel="eigenvalue")
    values.legend()
    trace.semilogy(results.losses, color=plots.COLOURS[0])
    for step in LOOKED_AT:
        trace.axvline(step, color="0.6", ls="--", lw=1)
    trace.set_title("The loss, and where the spectra were taken", fontsize=11)
    trace.set(xlabel="step", ylabel="loss")
    letters(*panels.flat)
