"""Is back-propagation a trunk with branches, as the note's summary has it?

A network that tells warm from cool colours, written as a chain of stages. Backwards along the
trunk run the gradients of the loss with respect to each layer's output; at each layer with
parameters a branch leaves, the gradient with respect to them. Expect every branch to equal
what ``jax.grad`` of the whole says, to rounding; and after training on the named colours of
CSS the branches to be small, for there is little left to correct. The trunk need not be: on
its way to the input it is multiplied by weights that training has made large.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.data import colours as named_colours
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from jaxgd import chains, descent, losses, neurons, plots

FIGURE_SIZE = (12, 6.2)
SECONDS = 8
SIZES = (3, 5, 4, 1)
LEARNING_RATE, NUM_STEPS = 0.1, 4000
STAGE_NAMES = ("x", "$z_1$", "$a_1$", "$z_2$", "$a_2$", "$z_3$", "loss")


class Results(NamedTuple):
    """What was computed.

    Attributes:
      before: the chain before training.
      after: the chain after training.
      gradient: ``jax.grad`` of the whole loss before training, layer by layer.
      largest_difference: between the branches and it.
      descent: the training.
      accuracies: on the training and on the test colours.
    """

    before: chains.Trace
    after: chains.Trace
    gradient: tuple[neurons.Neuron, ...]
    largest_difference: jax.Array
    descent: descent.Trajectory
    accuracies: tuple[float, float]


def _activate(_: Any, z: jax.Array) -> jax.Array:
    return jnp.tanh(z)


def _stages(labels: jax.Array) -> tuple[Any, ...]:
    """The network and its loss as stages: z = x @ W + b, a = tanh(z), and so on."""

    def loss(_: Any, logits: jax.Array) -> jax.Array:
        return jnp.mean(losses.sigmoid_binary_cross_entropy(logits[:, 0], labels))

    layer = neurons.weighted_sum
    return layer, _activate, layer, _activate, layer, loss


def _per_stage(network: tuple[neurons.Neuron, ...]) -> tuple[Any, ...]:
    """The params of each stage: a layer's, or none."""
    first, second, third = network
    return first, (), second, (), third, ()


def compute(seed: int = 0) -> Results:
    """Traces the chain before and after training."""
    colours = named_colours.load()
    train, test = named_colours.split(colours, seed)
    inputs, labels = jnp.asarray(colours.rgb), jnp.asarray(colours.warm)
    network = neurons.init_network(jax.random.key(seed), SIZES)

    def logits(network: Any, x: Any) -> jax.Array:
        return neurons.apply_network(network, x)[:, 0]

    risk = losses.empirical_risk(logits, losses.sigmoid_binary_cross_entropy)

    @jax.jit
    def run(network: Any, x: Any, y: Any) -> tuple[Any, ...]:
        trajectory = descent.gradient_descent(
            risk, network, x, y, learning_rate=LEARNING_RATE, num_steps=NUM_STEPS
        )

        def trace(network: Any) -> chains.Trace:
            return chains.backprop(_stages(y), x, params=_per_stage(network))

        return trajectory, trace(network), trace(trajectory.params), jax.grad(risk)(network, x, y)

    trajectory, before, after, gradient = run(network, inputs[train], labels[train])
    branches = [branch for branch in before.param_adjoints or () if branch]
    differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), tuple(branches), gradient)
    right = (np.asarray(logits(trajectory.params, inputs)) > 0) == (colours.warm > 0.5)
    return Results(
        before=before,
        after=after,
        gradient=gradient,
        largest_difference=jnp.max(jnp.stack(jax.tree.leaves(differences))),
        descent=trajectory,
        accuracies=(float(right[train].mean()), float(right[test].mean())),
    )


def _largest(tree: Any) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def tables(results: Results) -> list[Table]:
    """The trunk, the branches, and the network's success."""
    trunk = []
    words = ("input", "sum 1", "tanh 1", "sum 2", "tanh 2", "logit", "loss")
    rows = zip(words, results.before.primals, results.before.adjoints, results.after.adjoints,
               strict=True)  # fmt: skip
    for word, primal, before, after in rows:
        shape = "×".join(map(str, primal.shape)) or "scalar"
        trunk.append((word, shape, f"{_largest(before):.3e}", f"{_largest(after):.3e}"))
    branches = []
    for index, gradient in enumerate(results.gradient):
        branch = (results.before.param_adjoints or ())[2 * index]
        later = (results.after.param_adjoints or ())[2 * index]
        for field in ("weights", "bias"):
            a, b = getattr(branch, field), getattr(gradient, field)
            branches.append(
                (f"layer {index + 1} {field}", "×".join(map(str, a.shape)), f"{_largest(a):.3e}",
                 f"{_largest(getattr(later, field)):.3e}", f"{_largest(a - b):.1e}")
            )  # fmt: skip
    curve = results.descent.losses
    success = [
        ("loss before training", f"{curve[0]:.4f}"),
        ("loss after training", f"{curve[-1]:.4f}"),
        ("accuracy on the training colours", f"{results.accuracies[0]:.1%}"),
        ("accuracy on the test colours", f"{results.accuracies[1]:.1%}"),
    ]
    header = ("largest |entry| before", "after training")
    return [
        Table("The trunk: d loss / d output", ("of", "shape", *header), trunk),
        Table(
            "The branches: d loss / d params",
            ("of", "shape", *header, "minus jax.grad"),
            branches,
        ),
        Table("Training", ("", "value"), success),
    ]


def expectations(results: Results) -> list[Expectation]:
    """The branches are the gradient; training makes them small, not the trunk."""
    before, after = (
        max(_largest(getattr(branch, field)) for branch in trace.param_adjoints or () if branch
            for field in ("weights", "bias"))
        for trace in (results.before, results.after)
    )  # fmt: skip
    return [
        Expectation(
            "every branch is what jax.grad of the whole gives",
            f"to {float(results.largest_difference):.0e}",
            bool(results.largest_difference < 1e-6),
        ),
        Expectation(
            "training makes the branches ten times smaller",
            f"from {before:.0e} to {after:.0e}",
            bool(after < before / 10),
        ),
        Expectation(
            "more than 90 % of the unseen colours are told",
            f"{results.accuracies[1]:.1%}",
            bool(results.accuracies[1] > 0.9),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """The chain, the trunk's size by depth, and the branches before and after."""
    grid = figure.add_gridspec(2, 3, height_ratios=(0.75, 1.2))
    chain = figure.add_subplot(grid[0, :])
    plots.backprop_trace(chain, results.before, names=STAGE_NAMES)
    chain.set_title("Values forwards, the trunk back, a branch to each layer's params")

    trunk, branches, curve = (figure.add_subplot(grid[1, i]) for i in range(3))
    traces = (("before training", results.before, "o"), ("after", results.after, "s"))
    for (name, trace, marker), colour in zip(traces, plots.COLOURS[1:], strict=False):
        look: Any = {"marker": marker, "color": colour, "label": name}
        trunk.semilogy([_largest(a) for a in trace.adjoints], **look)
        sizes = [_largest(branch) for branch in (trace.param_adjoints or ())[::2]]
        branches.semilogy(range(1, 4), sizes, **look)
    trunk.set_xticks(range(len(STAGE_NAMES)), STAGE_NAMES)
    trunk.set_ylabel("largest |d loss / d output|")
    trunk.set_title("The trunk, by depth")
    trunk.legend(fontsize=9)
    branches.set_xticks(range(1, 4), ["layer 1", "layer 2", "layer 3"])
    branches.set_ylabel("largest |d loss / d params|")
    branches.set_title("The branches")
    branches.legend(fontsize=9)
    plots.loss_curve(curve, results.descent, color=plots.COLOURS[0], lw=2)
    curve.set_yscale("log")
    curve.set_ylabel("loss, nats")
    panels.letters(chain, trunk, branches, curve)
    curve.set_title(f"Training: {results.accuracies[1]:.0%} right on the test colours")


def interactive(results: Results) -> dict[str, Any]:
    """The chain before training, layer by layer: shapes, and the largest entry of each."""
    names = ("x", "z1", "a1", "z2", "a2", "z3", "loss")
    return {
        "The network as a chain, before training": plots.interactive_backprop(
            results.before, names=names
        )
    }
