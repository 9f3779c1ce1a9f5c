"""Which losses does a wrong label hurt, and is the ramp as robust as the note says?

The worked cross-entropy first: one sample with logits (2, 5, 1) and class 1 costs 0.0658839
nats; the note's factor 1/3 is 1/C by mistake. Then one linear classifier under each loss, on
two classes of points of which one corner was labelled wrongly. Expect the hinge, and still
more its square, to turn their boundary towards the wrong labels, because they punish an error
the more the larger it is; expect the ramp, which stops counting at its cut, to ignore them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import descent, losses, neurons, plots, surfaces

FIGURE_SIZE = (12, 7.6)
LOGITS, LABEL = (2.0, 5.0, 1.0), 1
NUM_CLASSES, HINGE_MARGIN = 3, 1
MULTICLASS_CUT = -1 / (NUM_CLASSES - 1)
SCORES = (5.0, 2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -10.0)
MARGIN_LOSSES = {
    "logistic": lambda m: losses.sigmoid_binary_cross_entropy(m, jnp.ones_like(m)),
    "hinge": losses.hinge,
    "squared hinge": losses.squared_hinge,
    "ramp, cut at -1": lambda m: losses.ramp(m, -1.0),  # -1 / (C - 1) for two classes
}
NUM_TRAIN, NUM_TEST, NUM_WRONG = 150, 2000, 12
LEARNING_RATE, NUM_STEPS = 0.02, 20_000


class Results(NamedTuple):
    """What was computed.

    Attributes:
      probability: softmax of the true class in the worked example.
      cross_entropy: its loss.
      as_written: with the note's factor 1/3.
      hinges, ramps: of the note's own score h_y, for each of ``SCORES``.
      curves: each margin loss against the margin.
      inputs, labels, wrong: the training data, and which labels are wrong.
      neurons: the trained classifier under each loss.
      accuracies: on clean test data; then the same trained without the wrong labels.
      best: the accuracy of the best boundary there is.
    """

    probability: jax.Array
    cross_entropy: jax.Array
    as_written: jax.Array
    hinges: jax.Array
    ramps: jax.Array
    curves: surfaces.Surface
    inputs: jax.Array
    labels: jax.Array
    wrong: jax.Array
    neurons: dict[str, neurons.Neuron]
    accuracies: dict[str, tuple[jax.Array, jax.Array]]
    best: jax.Array


def compute(seed: int = 0) -> Results:
    """Computes the worked examples and trains one classifier per loss."""
    return jax.device_get(jax.jit(_compute)(jax.random.key(seed)))


def _sample(key: Any, count: int) -> tuple[jax.Array, jax.Array]:
    """Two round classes of points about (-1, 0) and (1, 0)."""
    key_side, key_noise = jax.random.split(key)
    side = jax.random.rademacher(key_side, (count,), float)
    noise = 0.6 * jax.random.normal(key_noise, (count, 2))
    return noise.at[:, 0].add(side), side


def _compute(key: Any) -> Results:
    key_train, key_test = jax.random.split(key)
    inputs, truth = _sample(key_train, NUM_TRAIN)
    # The wrong labels: a corner of the right class, moved out, that somebody labelled left.
    corner = jnp.argsort(jnp.where(truth > 0, -inputs.sum(axis=1), jnp.inf))[:NUM_WRONG]
    wrong = jnp.zeros(NUM_TRAIN, bool).at[corner].set(True)
    inputs = jnp.where(wrong[:, None], inputs + 1.5, inputs)
    labels = jnp.where(wrong, -truth, truth)
    test_inputs, test_truth = _sample(key_test, NUM_TEST)

    def train(loss: Any, weights: jax.Array) -> neurons.Neuron:
        def risk(neuron: neurons.Neuron) -> jax.Array:
            margins = losses.binary_margin(neurons.weighted_sum(neuron, inputs), labels)
            return jnp.average(loss(margins), weights=weights)

        start = neurons.Neuron(weights=jnp.zeros(2), bias=jnp.zeros(()))
        return descent.gradient_descent(
            risk, start, learning_rate=LEARNING_RATE, num_steps=NUM_STEPS, record=lambda _: None
        ).params

    def accuracy(neuron: neurons.Neuron) -> jax.Array:
        return jnp.mean(jnp.sign(neurons.weighted_sum(neuron, test_inputs)) == test_truth)

    # Both runs of a loss are one program: with all labels, and without the wrong ones.
    weights = jnp.stack([jnp.ones(NUM_TRAIN), 1.0 - wrong])
    both = {name: jax.vmap(partial(train, loss))(weights) for name, loss in MARGIN_LOSSES.items()}
    trained, clean = (jax.tree.map(lambda lanes, i=i: lanes[i], both) for i in range(2))
    logits, scores = jnp.array(LOGITS), jnp.array(SCORES)
    cross_entropy = losses.softmax_cross_entropy_with_integer_labels(logits, jnp.array(LABEL))
    return Results(
        probability=jax.nn.softmax(logits)[LABEL],
        cross_entropy=cross_entropy,
        as_written=cross_entropy / NUM_CLASSES,
        hinges=losses.hinge(scores),
        ramps=losses.ramp(scores, MULTICLASS_CUT),
        curves=surfaces.sweep(
            lambda m: {name: loss(m) for name, loss in MARGIN_LOSSES.items()},
            jnp.linspace(-3, 3, 241),
        ),
        inputs=inputs,
        labels=labels,
        wrong=wrong,
        neurons=trained,
        accuracies={name: (accuracy(trained[name]), accuracy(clean[name])) for name in trained},
        best=jnp.mean(jnp.sign(test_inputs[:, 0]) == test_truth),
    )


def tables(results: Results) -> list[Table]:
    """The worked example, hinge against ramp, and the accuracies."""
    worked = [
        ("softmax of the true class", f"{results.probability:.7f}"),
        ("cross-entropy, N = 1", f"{results.cross_entropy:.7f}"),
        ("as the note writes it, times 1/3", f"{results.as_written:.7f}"),
    ]
    scores = [
        (f"{h:g}", f"{hinge:g}", f"{ramp:g}")
        for h, hinge, ramp in zip(SCORES, results.hinges, results.ramps, strict=True)
    ]
    accuracies = [
        (
            name,
            *(f"{a:.1%}" for a in results.accuracies[name]),
            f"{_tilt(results.neurons[name]):.1f}",
        )
        for name in MARGIN_LOSSES
    ]
    return [
        Table("Logits (2, 5, 1), class 1", ("", "nats"), worked),
        Table("The note's own score h_y, cut s = -1/2", ("h_y", "hinge", "ramp"), scores),
        Table(
            f"{NUM_WRONG} of {NUM_TRAIN} labels wrong; accuracy on {NUM_TEST} clean points "
            f"(the best boundary: {results.best:.1%})",
            ("trained with", "wrong labels in", "left out", "boundary tilted by, degrees"),
            accuracies,
        ),
    ]


def _tilt(neuron: neurons.Neuron) -> float:
    """The angle between a boundary and the best one, which is upright."""
    w = np.asarray(neuron.weights)
    return float(np.degrees(np.arctan2(w[1], w[0])))


def expectations(results: Results) -> list[Expectation]:
    """Wrong labels turn every boundary but the ramp's."""
    lost = {name: float(results.best - pair[0]) for name, pair in results.accuracies.items()}
    by_ramp = next(drop for name, drop in lost.items() if name.startswith("ramp"))
    by_others = {name: drop for name, drop in lost.items() if not name.startswith("ramp")}
    least = min(by_others, key=by_others.__getitem__)
    return [
        Expectation(
            "the worked example costs 0.0658839 nats",
            f"{float(results.cross_entropy):.7f}",
            abs(float(results.cross_entropy) - 0.0658839) < 1e-6,
        ),
        Expectation(
            "the ramp loses less than 2 % of accuracy to the wrong labels",
            f"{by_ramp:.1%} below the best boundary",
            by_ramp < 0.02,
        ),
        Expectation(
            "every other loss loses more than 4 %",
            f"the least is {by_others[least]:.1%}, by the {least}",
            by_others[least] > 0.04,
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The losses against the margin, and the boundary that each of them finds."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for line in plots.loss_functions(left, results.curves):
        line.set_color(panels.colour_of_loss(str(line.get_label())))
    left.legend(fontsize=9, handlelength=3.6)
    left.set_ylim(-0.15, 6)
    left.set_title("Only the ramp stops counting")

    inputs, wrong = np.asarray(results.inputs), np.asarray(results.wrong)
    positive = np.asarray(results.labels) > 0
    groups = (
        ("class +1", positive & ~wrong, {"marker": "o", "color": plots.COLOURS[5]}),
        ("class -1", ~positive & ~wrong, {"marker": "s", "color": "0.6"}),
        ("labelled -1 wrongly", wrong, {"marker": "X", "color": "black", "s": 60}),
    )
    for name, members, look in groups:
        options: Any = {"s": 22, "alpha": 0.8, "label": name, **look}
        right.scatter(*inputs[members].T, **options)
    height = np.array([-2.6, 4.2])
    dashes = ("-", "--", "-.", ":")
    for i, name in enumerate(sorted(MARGIN_LOSSES)):  # the order of the curves on the left
        neuron, accuracy = results.neurons[name], float(results.accuracies[name][0])
        w, b = np.asarray(neuron.weights), float(neuron.bias)
        look: Any = {"color": panels.colour_of_loss(name), "ls": dashes[i], "lw": 2.5}
        right.plot(-(w[1] * height + b) / w[0], height, label=f"{name}: {accuracy:.1%}", **look)
    right.set_xlim(-3.2, 4.6)
    right.set_ylim(*height)
    right.set_xlabel("$x_1$")
    right.set_ylabel("$x_2$")
    right.legend(fontsize=8, loc="lower right", handlelength=3.6)
    right.set_title(f"Boundaries found; the best there is: {results.best:.1%}")
    panels.letters(left, right)


def numbers(results: Results) -> dict[str, Any]:
    """The note's numbers on loss functions."""
    return {
        "LF01": NUM_CLASSES,
        "LF02": LOGITS,
        "LF03": LABEL,
        "LF04": results.probability,
        "LF05": results.as_written,
        "LF06": results.cross_entropy,
        "LF07": HINGE_MARGIN,
        "LF08": "s" if _is_cut_at_s() else "elsewhere",
    }


def _is_cut_at_s() -> bool:
    """Whether the ramp is level below s and the hinge above it, whatever s is."""

    @jax.jit
    def is_cut(s: jax.Array) -> jax.Array:
        below, above = jnp.stack([s - 5, s]), jnp.stack([s, s + 0.1])
        is_level = jnp.ptp(losses.ramp(below, s)) == 0
        return is_level & jnp.all(losses.ramp(above, s) == losses.hinge(above))

    return all(map(is_cut, (-2.0, -1.0, -0.5, 0.25)))
