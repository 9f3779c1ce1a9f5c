"""The experiments of the study note, and some beyond it, one file each: ``python -m experiments``.

An experiment is a module of ``note`` or of ``beyond`` with

* a docstring that asks a question and says what to expect,
* ``compute(seed=0) -> results``: everything computed, jitted, nothing printed or drawn; a long
  one has ``compute(seed=0, full=False)`` and takes seconds unless ``full``,
* ``tables(results)``: what it found, as tables for the terminal,
* ``draw(figure, results)``: its picture, on an empty Matplotlib figure of ``FIGURE_SIZE``,

and, where it has them,

* ``expectations(results)``: a list of ``Expectation(says, found, holds)``. One that does not hold
  makes the command fail,
* ``numbers(results)``: its share of ``data/numbers.json``, by id,
* ``interactive(results) -> dict``: Plotly figures to turn or to play, by title, of
  ``plots.interactive_...``. The gallery shows them above the picture; without Plotly it does
  without them,
* ``playgrounds() -> dict``: pages to play in, by title, of ``plots.playground``. The gallery has
  them within it,
* ``SECONDS``: how long it takes on two cores, compilation included; two numbers, the second of
  them for ``full``,
* ``large_map(seed, size) -> Map``: what ``python -m experiments sweep`` can compute at any size.

Experiments import ``data`` and ``shell``, never each other. A new one is a file, and a line below.
"""

import importlib
from types import ModuleType

# In the order in which they run and are shown.
ADDRESSES = (
    "note.neuron",
    "note.linear_backprop",
    "note.nonlinear_backprop",
    "note.gradient_descent",
    "note.loss_functions",
    "note.loss_surface",
    "beyond.trunk_and_branches",
    "beyond.network_surface",
    "beyond.residual_surface",
    "beyond.transformer_surface",
    "beyond.activations_surface",
    "beyond.edge_of_stability",
    "beyond.stochastic_edge",
    "beyond.adaptive_edge",
    "beyond.spectrum",
    "beyond.flatness",
    "beyond.trainability",
    "beyond.momentum_map",
    "beyond.stability",
    "beyond.optimizers",
    "beyond.batch_noise",
    "beyond.training",
    "beyond.two_minima",
    "beyond.basins",
    "beyond.robust_or_not",
)
NAMES = tuple(address.split(".")[1] for address in ADDRESSES)


def load(name: str) -> ModuleType:
    """The experiment of that name."""
    return importlib.import_module(f"experiments.{ADDRESSES[NAMES.index(name)]}")
