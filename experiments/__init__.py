"""The experiments of the note, and some beyond it, one file each: ``python -m experiments``.

An experiment is a module with

* a docstring that asks a question and says what to expect,
* ``compute(seed=0) -> results``: everything computed, jitted, nothing printed or drawn; a long
  one has ``compute(seed=0, full=False)`` and takes seconds unless ``full``,
* ``tables(results)``: what it found, as tables for the terminal,
* ``draw(figure, results)``: its picture, on an empty Matplotlib figure of ``FIGURE_SIZE``,
* ``numbers(results)``: its share of ``numbers.json``, by id,
* if it has something to turn or to play, ``interactive(results) -> dict``: Plotly figures by
  title, of ``plots.interactive_...``. The gallery shows them above the picture; without Plotly
  it does without them.
"""

NAMES = (
    "neuron",
    "linear_backprop",
    "nonlinear_backprop",
    "gradient_descent",
    "loss_functions",
    "loss_surface",
    "trunk_and_branches",
    "network_surface",
    "activations_surface",
    "edge_of_stability",
    "trainability",
    "momentum_map",
    "stability",
    "optimizers",
    "batch_noise",
    "robust_or_not",
)
