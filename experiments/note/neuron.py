"""What does a single neuron do, and can one tell a warm colour from a cool one?

The note's five parts, on its example of house prices: inputs, weights (0.92, 0.2, 0.03), a
bias, their sum, an activation. A threshold neuron fires exactly when the weighted input
reaches t, with b = -t (the note's text has the sign wrong, its formula right); a sigmoid goes
up smoothly about the same place. Expect one neuron to tell warm from cool almost without
error: on the colour circle the two are halves, and a half is what a single plane cuts off.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.data import colours as named_colours
from experiments.data.colours import Colours
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, plots, surfaces

FIGURE_SIZE = (12, 7.6)
WEIGHTS = (0.92, 0.2, 0.03)
THRESHOLD = 1.0
HOUSES = {  # area in 100 square metres, location and orientation from 0 to 1
    "small flat, good location": (0.6, 0.9, 0.5),
    "house at the edge": (1.1, 0.2, 1.0),
    "villa": (2.4, 0.7, 0.8),
}
FEATURES = ("area", "location", "orientation")
ACTIVATIONS = {
    "step": neurons.step,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky relu": jax.nn.leaky_relu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
}
LEARNING_RATE, NUM_STEPS = 2.0, 3000


class Results(NamedTuple):
    """What was computed.

    Attributes:
      house: the neuron of the note's example.
      sums: (3,) weighted sums of the houses.
      fires: (3,) whether the threshold neuron fires.
      smooth: (3,) what the sigmoid says.
      threshold_holds: whether w.x >= t and w.x + b >= 0 agreed on 10,000 random inputs.
      activations: every activation and its derivative against z.
      descent: of the colour neuron.
      colours: the data.
      outputs: (N,) what the trained neuron says of each colour, greys included.
      train, test: the indices of the two sets.
      accuracies: on each.
    """

    house: neurons.Neuron
    sums: jax.Array
    fires: jax.Array
    smooth: jax.Array
    threshold_holds: jax.Array
    activations: surfaces.Surface
    descent: descent.Trajectory
    colours: Colours
    outputs: jax.Array
    train: np.ndarray
    test: np.ndarray
    accuracies: tuple[float, float]


def compute(seed: int = 0) -> Results:
    """Computes the house example and trains the colour neuron."""
    house = neurons.Neuron(weights=jnp.array(WEIGHTS), bias=jnp.array(-THRESHOLD))
    houses = jnp.array(list(HOUSES.values()))

    @jax.jit
    def judge() -> dict[str, jax.Array]:
        random = jax.random.uniform(jax.random.key(seed), (10_000, 3), minval=-2, maxval=2)
        sums = neurons.weighted_sum(house._replace(bias=jnp.zeros(())), random)
        fires = neurons.apply(house, random, activation=neurons.step)
        return {
            "sums": neurons.weighted_sum(house, houses),
            "fires": neurons.apply(house, houses, activation=neurons.step),
            "smooth": neurons.apply(house, houses),
            "threshold_holds": jnp.all((sums >= THRESHOLD) == (fires == 1)),
        }

    colours = named_colours.load()
    train, test = named_colours.split(colours, seed)
    risk = losses.empirical_risk(neurons.weighted_sum, losses.sigmoid_binary_cross_entropy)

    @jax.jit
    def trained(rgb: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[descent.Trajectory, Any]:
        start = neurons.init(jax.random.key(seed), 3)
        trajectory = descent.gradient_descent(
            risk, start, x, y, learning_rate=LEARNING_RATE, num_steps=NUM_STEPS
        )
        return trajectory, neurons.apply(trajectory.params, rgb)

    trajectory, outputs = trained(colours.rgb, colours.rgb[train], colours.warm[train])
    right = (np.asarray(outputs) > 0.5) == (colours.warm > 0.5)
    results = Results(
        house=house,
        **judge(),
        activations=jax.jit(surfaces.sweep, static_argnums=0)(
            lambda z: {name: fn(z) for name, fn in ACTIVATIONS.items()}, np.linspace(-4, 4, 401)
        ),
        descent=trajectory,
        colours=colours,
        outputs=outputs,
        train=train,
        test=test,
        accuracies=(float(right[train].mean()), float(right[test].mean())),
    )
    return jax.device_get(results)


def tables(results: Results) -> list[Table]:
    """The houses, the trained neuron, and what it gets wrong."""
    houses = [
        (name, *(f"{v:g}" for v in x), f"{z:.4f}", f"{fires:g}", f"{smooth:.4f}")
        for (name, x), z, fires, smooth in zip(
            HOUSES.items(), results.sums, results.fires, results.smooth, strict=True
        )
    ]
    colours, neuron = results.colours, results.descent.params
    w = ", ".join(f"{v:.2f}" for v in neuron.weights)
    trained = [
        ("training", len(results.train), f"{results.accuracies[0]:.3f}"),
        ("test", len(results.test), f"{results.accuracies[1]:.3f}"),
    ]
    wrong = [
        (colours.names[i], f"{colours.hues[i]:.0f}", ("cool", "warm")[int(colours.warm[i])],
         f"{results.outputs[i]:.3f}", "test" if i in results.test else "training")
        for i in np.flatnonzero(
            ~np.isnan(colours.warm) & ((np.asarray(results.outputs) > 0.5) != (colours.warm > 0.5))
        )
    ]  # fmt: skip
    return [
        Table(
            f"Houses: weights {WEIGHTS}, bias {-THRESHOLD:g} (threshold {THRESHOLD:g})",
            ("house", *FEATURES, "z", "step", "sigmoid"),
            houses,
        ),
        Table(
            f"Warm or cool: weights ({w}) for red, green, blue, bias {neuron.bias:.2f}",
            ("colours", "number", "accuracy"),
            trained,
        ),
        Table("Colours it gets wrong", ("colour", "hue", "label", "output", "set"), wrong),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The threshold is -b, and one neuron tells warm from cool."""
    return [
        Expectation(
            "w.x >= t and w.x + b >= 0 with b = -t fire for the same inputs",
            "on 10,000 random inputs" if results.threshold_holds else "not always",
            bool(results.threshold_holds),
        ),
        Expectation(
            "one neuron tells more than 90 % of the unseen colours",
            f"{results.accuracies[1]:.1%}",
            bool(results.accuracies[1] > 0.9),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The neuron at work, the activations, threshold and sigmoid, the colours in order."""
    grid = figure.add_gridspec(3, 2, height_ratios=(1.25, 1.1, 0.9))
    diagram = figure.add_subplot(grid[0, 0])
    villa = HOUSES["villa"]
    plots.neuron_diagram(
        diagram, results.house, villa, activation=jax.nn.sigmoid, input_names=FEATURES
    )
    diagram.set_title("The five parts of a neuron: the villa")

    curves = figure.add_subplot(grid[0:2, 1])
    smooth = {k: v for k, v in results.activations.values.items() if k != "step"}
    plots.activation_curves(curves, results.activations._replace(values=smooth))
    curves.set_ylim(-1.6, 4.1)
    curves.set_title("Activations")

    firing = figure.add_subplot(grid[1, 0])
    both = {k: results.activations.values[k] for k in ("step", "sigmoid")}
    plots.activation_curves(firing, results.activations._replace(values=both))
    firing.plot(results.sums, results.smooth, "o", color=plots.COLOURS[4], label="the houses")
    firing.legend(fontsize=9)
    firing.set_title("Fires or not, and gradually")

    order = np.argsort(np.asarray(results.outputs))
    strip = figure.add_subplot(grid[2, :])
    rgb, outputs = results.colours.rgb[order], np.asarray(results.outputs)[order]
    strip.imshow(rgb[None], aspect="auto", extent=(0, len(order), 0, 1))
    strip.plot(np.arange(len(order)) + 0.5, outputs, color="white", lw=4)
    strip.plot(np.arange(len(order)) + 0.5, outputs, color="black", lw=2)
    strip.axhline(0.5, color="0.5", ls=":")
    warm = np.asarray(results.colours.warm)[order]  # NaN for greys, which are neither
    wrong = np.flatnonzero(np.abs(outputs - warm) > 0.5)
    strip.plot(wrong + 0.5, np.full(wrong.size, 1.07), "v", color="black", ms=7, clip_on=False,
               label=f"{wrong.size} on the wrong side of 0.5")  # fmt: skip
    strip.legend(loc="upper left", fontsize=9)
    strip.set_xlabel("the named colours, in order of the neuron's output")
    strip.set_ylabel("output: warm")
    panels.letters(diagram, curves, firing, strip)
    strip.set_title(
        f"A colour neuron, trained on {len(results.train)} colours: "
        f"{results.accuracies[1]:.0%} right on {len(results.test)} others",
        pad=16,
    )


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on the neuron."""
    w = results.house.weights
    return {
        "N01": w[0],
        "N02": w[1],
        "N03": w[2],
        "N04": w.sum(),
        "N05": w.size,
        "N06": "b=-t" if results.threshold_holds else "no",
    }
