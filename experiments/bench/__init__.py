"""How fast is it, beside the other ways of doing the same, in one run?

Every figure is the least time of several calls, compiled before the clock starts; the ways of
one table take turns, so that a machine that slows down slows all of them. "chunk" is the
number of points computed at once, the best of those tried. What is not installed is said and
left out: ``pip install -e ".[bench]"`` brings PyTorch and the packages raced against.
"""

import importlib.util
import os
import platform
from collections.abc import Callable, Sequence

import jax

from experiments.bench import curvatures, descents, models, networks, surfaces
from experiments.shell import report
from experiments.shell.report import Table


def figures(tables: Sequence[Table]) -> str:
    """The tables as a page of Markdown, under a line that says where they were measured."""
    where = (
        f"Measured on {os.cpu_count()} cores ({platform.machine()}), {jax.default_backend()}, "
        f"Python {platform.python_version()}, JAX {jax.__version__}."
    )
    parts = ["# How fast", where, *(f"## {t.title}\n\n{report.markdown(t)}" for t in tables)]
    return "\n\n".join(parts) + "\n"


def main(show: Callable[[Table], None]) -> None:
    """Runs every race and shows its table as soon as it is there."""
    for package in ("torch", "loss_landscapes", "matfree", "curvlinops", "pyhessian"):
        if importlib.util.find_spec(package) is None:
            rows = [(package, 'pip install -e ".[bench]"')]
            show(Table("Not installed, left out", ("package", "cure"), rows))
    show(descents.descents())
    show(descents.many_descents())
    for each in descents.training():
        show(each)
    show(surfaces.grid())
    show(surfaces.linear_neuron())
    for name in surfaces.NETWORKS:
        show(surfaces.network(name))
    for name in models.MODELS:
        show(networks.network(name))
    for each in curvatures.curvatures():
        show(each)
