"""What does the loss of a real network look like from a plane, and what does the plane hide?

A 64-32-10 tanh network learns scikit-learn's handwritten digits by SGD, with momentum, and by
Adam, from one start. Expect a smooth bowl on a filter-normalized random plane, its accuracy
falling off where its loss rises; on the principal plane of the momentum run a clear path
for it, and next to nothing of Adam, which goes elsewhere; all three on the principal plane of
the three together, at some loss of truth; and the steepest valley walls there are on the plane
of the two leading eigenvectors of the Hessian.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.data.digits import load_digits
from experiments.shell import panels
from experiments.shell.report import Expectation, Table
from experiments.shell.sweep import Map
from jaxgd import curvature, descent, losses, neurons, planes, plots, surfaces

FIGURE_SIZE = (14, 8.4)
SECONDS = 25
SIZES = (64, 32, 10)
OPTIMIZERS = {
    "SGD": optax.sgd(0.3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "Adam": optax.adam(0.01),
}
NUM_STEPS, RESOLUTION, BATCH_SIZE = 150, 51, 8
RISK = losses.empirical_risk(
    neurons.apply_network, losses.softmax_cross_entropy_with_integer_labels
)


class Results(NamedTuple):
    """What was computed.

    Attributes:
      descents: by optimizer, the whole trajectory.
      accuracies: by optimizer, on the test digits.
      surfaces: by plane, the loss and the accuracy on the training digits.
      geometries: by plane, lengths and angles of its directions.
      projections: by principal plane, by optimizer, the trajectory on it.
      eigenpairs: the two leading ones at the end of the momentum run.
    """

    descents: dict[str, descent.Trajectory]
    accuracies: dict[str, jax.Array]
    surfaces: dict[str, surfaces.Surface]
    geometries: dict[str, planes.PlaneGeometry]
    projections: dict[str, dict[str, planes.Projection]]
    eigenpairs: curvature.EigenPairs


def loss_and_accuracy(network: Any, images: Any, labels: Any) -> dict[str, jax.Array]:
    """The mean loss, and the share of images whose largest logit is the right one."""
    logits = neurons.apply_network(network, images)
    loss = losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return {"loss": loss, "accuracy": jnp.mean(logits.argmax(axis=-1) == labels)}


def compute(seed: int = 0) -> Results:
    """Trains the network three times and sweeps its loss over four planes."""
    digits = load_digits(seed)
    data = jnp.asarray(digits.train_images, jnp.float32), jnp.asarray(digits.train_labels)
    key_start, key_plane, key_lanczos = jax.random.split(jax.random.key(seed), 3)
    start = neurons.init_network(key_start, SIZES)
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)

    @jax.jit
    def train(network: Any, images: Any, labels: Any) -> dict[str, descent.Trajectory]:
        return {
            name: descent.optimize(
                RISK, network, images, labels, optimizer=optimizer, num_steps=NUM_STEPS
            )
            for name, optimizer in OPTIMIZERS.items()
        }

    descents = train(start, *data)
    end = descents["momentum"].params
    together = jax.tree.map(
        lambda *paths: jnp.concatenate(paths), *(descents[name].path for name in OPTIMIZERS)
    )
    pairs = jax.jit(
        lambda network, *data: curvature.top_eigenpairs(
            key_lanczos, RISK, network, *data, num_pairs=2, num_iterations=30
        )
    )(end, *data)
    views = {
        "random": planes.filter_normalize(planes.random(key_plane, end), filter_axis=-1),
        "own": planes.principal(descents["momentum"].path),
        "joint": planes.principal(together),
        "Hessian": planes.Plane(
            end, tuple(jax.tree.map(lambda v, i=i: v[i], pairs.vectors) for i in (0, 1))
        ),
    }
    projections = {
        view: {name: planes.project_path(views[view], descents[name].path) for name in OPTIMIZERS}
        for view in ("own", "joint")
    }
    spans = {"random": [(-1.0, 1.0)] * 2, "Hessian": [(-3.0, 3.0)] * 2}
    spans |= {view: _span(projections[view]) for view in projections}

    @jax.jit
    def sweep(phi: Any, *axes: Any) -> surfaces.Surface:
        return surfaces.sweep(phi, *axes, batch_size=BATCH_SIZE)

    swept = {}
    for view, plane in views.items():
        axes = [jnp.linspace(low, high, RESOLUTION, dtype=jnp.float32) for low, high in spans[view]]
        swept[view] = sweep(planes.restrict(loss_and_accuracy, plane, *data), *axes)
    test = digits.test_images, digits.test_labels
    return Results(
        descents=descents,
        accuracies={
            name: loss_and_accuracy(descents[name].params, *test)["accuracy"] for name in OPTIMIZERS
        },
        surfaces=swept,
        geometries={view: planes.geometry(plane) for view, plane in views.items()},
        projections=projections,
        eigenpairs=pairs,
    )


def _span(projections: dict[str, planes.Projection]) -> list[tuple[float, float]]:
    """What holds every projected path, with a margin."""
    points = np.concatenate([np.asarray(p.coordinates) for p in projections.values()])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.2 * (high - low)
    return list(zip(low - margin, high + margin, strict=True))


def tables(results: Results) -> list[Table]:
    """The runs, what each plane hides of them, and the planes themselves."""
    runs = [
        (name, f"{run.losses[0]:.3f}", f"{run.losses[-1]:.4f}", f"{results.accuracies[name]:.1%}")
        for name, run in ((name, results.descents[name]) for name in OPTIMIZERS)
    ]
    hidden = [
        (view, name, f"{projection.residuals.max():.0%}", f"{jnp.median(projection.residuals):.0%}")
        for view, projections in results.projections.items()
        for name, projection in ((name, projections[name]) for name in OPTIMIZERS)
    ]
    shapes = [
        (view, f"{shape.norms[0]:.3f}", f"{shape.norms[1]:.3f}", f"{shape.cosines[0, 1]:+.4f}")
        for view, shape in results.geometries.items()
    ]
    pairs = [
        (i + 1, f"{value:.4f}", f"{residual:.1e}")
        for i, (value, residual) in enumerate(
            zip(results.eigenpairs.values, results.eigenpairs.residuals, strict=True)
        )
    ]
    return [
        Table(
            f"Three descents of {NUM_STEPS} steps from one start",
            ("optimizer", "first loss", "last loss", "test accuracy"),
            runs,
        ),
        Table(
            "Share of each way that a principal plane does not show",
            ("plane", "optimizer", "largest", "median"),
            hidden,
        ),
        Table(
            "The planes (filter axis of the random one: -1, biases not moved)",
            ("plane", "length of 1", "length of 2", "cosine"),
            shapes,
        ),
        Table("Leading eigenvalues", ("", "eigenvalue", "||Hv - lambda v||"), pairs),
    ]


def expectations(results: Results) -> list[Expectation]:
    """What each plane shows of the three descents, and which is the steepest."""
    seen = {
        (view, name): 1 - float(jnp.median(projection.residuals))
        for view, projections in results.projections.items()
        for name, projection in projections.items()
    }
    highest = {
        view: float(surface.values["loss"].max()) for view, surface in results.surfaces.items()
    }
    return [
        Expectation(
            "the plane of the momentum run shows most of its way, and next to nothing of Adam's",
            f"in the median {seen['own', 'momentum']:.0%} and {seen['own', 'Adam']:.0%}",
            seen["own", "momentum"] > 0.5 and seen["own", "Adam"] < 0.1,
        ),
        Expectation(
            "the plane of all three shows more of Adam's",
            f"{seen['joint', 'Adam']:.0%}",
            seen["joint", "Adam"] > seen["own", "Adam"],
        ),
        Expectation(
            "the lowest loss on the random plane is at its centre",
            f"{float(results.surfaces['random'].values['loss'].min()):.4f}; highest: "
            f"{highest['random']:.2f}",
            bool(
                results.surfaces["random"].values["loss"].argmin()
                == results.surfaces["random"].values["loss"].size // 2
            ),
        ),
    ]


def draw(figure: Figure, results: Results) -> None:
    """Loss and accuracy on the random plane, the valley walls, and the paths."""
    rows = figure.add_gridspec(2, 1, height_ratios=(1.1, 1.1))
    above, below = (figure.add_subfigure(row) for row in rows)
    random, accuracy, walls = above.subplots(1, 3)
    own, joint, curve = below.subplots(1, 3, width_ratios=(1.55, 1.15, 0.8))
    part = {
        (view, name): surfaces.select(surface, name)
        for view, surface in results.surfaces.items()
        for name in ("loss", "accuracy")
    }
    look: Any = {"log": True, "aspect": "equal"}  # both axes of each plane have one unit
    names = ("filter-normalized direction 1", "direction 2")
    plots.surface_contour(random, part["random", "loss"], axis_names=names, **look)
    random.set_title("Loss on a random plane")
    plots.surface_contour(accuracy, part["random", "accuracy"], axis_names=names,
                          value_name="", cmap="cividis", aspect="equal")  # fmt: skip
    accuracy.set_title("Accuracy on the same plane")
    values = results.eigenpairs.values
    names = (f"eigenvector of λ = {values[0]:.2f}", f"eigenvector of λ = {values[1]:.2f}")
    plots.surface_contour(walls, part["Hessian", "loss"], axis_names=names, **look)
    walls.set_title("Loss between the steepest walls")

    run_losses = {name: results.descents[name].losses for name in OPTIMIZERS}
    titles = {
        "own": "Principal plane of the momentum run",
        "joint": "Principal plane of all three",
    }
    for ax, (view, title) in zip((own, joint), titles.items(), strict=True):
        names = ("principal direction 1", "principal direction 2")
        plots.surface_contour(ax, part[view, "loss"], axis_names=names, **look)
        paths = {name: results.projections[view][name] for name in OPTIMIZERS}
        plots.projected_paths(ax, paths, run_losses)
        ax.set_title(title)
    for name in OPTIMIZERS:
        look = {"color": panels.colour_of_rule(name), "label": name, "lw": 2}
        plots.loss_curve(curve, results.descents[name], **look)
    curve.set_yscale("log")
    curve.set_ylabel("loss, nats")
    curve.legend()
    curve.set_title("The true losses")
    panels.letters(random, accuracy, walls, own, joint, curve)


def interactive(results: Results) -> dict[str, Any]:
    """The planes to turn, and the three descents played on the plane they share."""
    loss = {view: surfaces.select(surface, "loss") for view, surface in results.surfaces.items()}
    on_plane = {
        view: {
            name: (projections[name].coordinates, results.descents[name].losses)
            for name in OPTIMIZERS
        }
        for view, projections in results.projections.items()
    }
    names = ("principal direction 1", "principal direction 2")
    principal: Any = {"axis_names": names, "log": True, "aspect": "equal"}
    values = results.eigenpairs.values
    walls = (f"eigenvector of {values[0]:.2f}", f"eigenvector of {values[1]:.2f}")
    return {
        "SGD, momentum and Adam on the principal plane of all three": plots.interactive_descent(
            loss["joint"], on_plane["joint"], **principal
        ),
        "The same plane to turn, each run at its true loss": plots.interactive_surface(
            loss["joint"], on_plane["joint"], **principal
        ),
        "A random plane, filter-normalized": plots.interactive_surface(
            loss["random"], axis_names=("direction 1", "direction 2"), aspect="equal"
        ),
        "The plane of the steepest walls": plots.interactive_surface(
            loss["Hessian"], axis_names=walls, aspect="equal"
        ),
    }


def large_map(seed: int, size: int) -> Map:
    """Loss and accuracy of a trained network on a random plane, filters normalized."""
    loaded = load_digits(seed)
    data = jnp.asarray(loaded.train_images, jnp.float32), jnp.asarray(loaded.train_labels)
    key_start, key_plane = jax.random.split(jax.random.key(seed))

    @jax.jit
    def restricted(*data: Any) -> Any:
        start = neurons.init_network(key_start, SIZES)
        start = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)
        end = descent.optimize(
            RISK, start, *data, optimizer=OPTIMIZERS["momentum"],
            num_steps=NUM_STEPS, record=lambda _: None,
        ).params  # fmt: skip
        plane = planes.filter_normalize(planes.random(key_plane, end), filter_axis=-1)
        return planes.restrict(loss_and_accuracy, plane, *data)

    axis = jnp.linspace(-1, 1, size, dtype=jnp.float32)
    return Map(restricted(*data), (axis, axis), (12, 5), _draw_large_map)


def _draw_large_map(figure: Figure, surface: surfaces.Surface) -> None:
    names = ("filter-normalized direction 1", "direction 2")
    titles = {
        "loss": "Loss of a trained network on a random plane",
        "accuracy": "Its accuracy there",
    }
    for ax, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        part = surface._replace(values=surface.values[name])
        told = "loss, nats" if name == "loss" else name
        plots.surface_contour(ax, part, axis_names=names, value_name=told, log=name == "loss")
        ax.set_title(titles[name])
