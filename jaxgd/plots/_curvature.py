"""Curvature: the eigenvalues of a Hessian as a density, and the sharpness along a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxgd import _checks
from jaxgd.curvature import SpectralDensity
from jaxgd.plots import _inputs, _words
from jaxgd.plots._style import COLOURS, DASHES, pick

_LOWEST = 1e-12  # of the highest density: what lies below is rounding


def spectrum(
    ax: Axes,
    density: SpectralDensity | Mapping[str, SpectralDensity],
    *,
    smoothing: float | None = None,
) -> list[Line2D]:
    """Draws how many eigenvalues lie where, on a logarithmic scale.

    Each node is a Gaussian of width s, weighted and averaged over the S samples::

        density(t) = 1 / S  sum_ij  weights_ij  exp(-(t - nodes_ij)^2 / (2 s^2)) / (s sqrt(2 pi))

    The label of the axis says s. The picture reaches down to the least of the outermost nodes,
    so that a single eigenvalue far from all others is seen; a tick at the bottom stands at each
    node.

    Args:
      ax: where to draw.
      density: of ``curvature.spectral_density``; or several, by name: the whole and its layers.
      smoothing: the width s, above 0, in the unit of the eigenvalues. None takes 1 % of the
        range of all nodes.

    Returns:
      One line per density.

    Raises:
      TypeError: if one is not a SpectralDensity.
      ValueError: if these are not of one shape (S, K), are not finite, or ``smoothing`` is not
        above 0.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import curvature, plots
      >>> def loss_fn(params):
      ...     return jnp.sum(jnp.array([1.0, 1.0, 1.0, 9.0]) * params**2) / 2
      >>> density = curvature.spectral_density(
      ...     jax.random.key(0), loss_fn, jnp.ones(4), num_iterations=2, num_samples=3
      ... )
      >>> ax = Figure().add_subplot()
      >>> lines = plots.spectrum(ax, density, smoothing=0.1)
      >>> ax.get_ylabel()
      'density, smoothed over 0.1'
    """
    where = "plots.spectrum"
    _inputs.flat_axes(where, ax)
    several = isinstance(density, Mapping)
    named: Mapping[str, Any] = density if several else {"density": density}
    _checks.that(where, bool(named), "there must be a density", "none")
    texts = _inputs.names(where, "density", named)
    parts = [
        _nodes_and_weights(where, f"density[{key!r}]" if several else "density", value)
        for key, value in named.items()
    ]
    every = np.concatenate([nodes.ravel() for nodes, _ in parts])
    low, high = float(every.min()), float(every.max())
    if smoothing is None:
        smoothing = (high - low) / 100 or max(abs(high), 1.0) / 100
    smoothing = float(_checks.scalar(where, "smoothing", smoothing))
    above = np.isfinite(smoothing) and smoothing > 0
    _checks.that(where, bool(above), "smoothing must be above 0", f"{smoothing:g}")
    margin = 5 * smoothing
    count = int(np.clip(4 * (high - low) / smoothing, 1000, 20_000))
    places = np.union1d(np.linspace(low - margin, high + margin, count), every)
    lines, lows, highs = [], [], []
    for i, (text, (nodes, weights)) in enumerate(zip(texts, parts, strict=True)):
        values = _smoothed(places, nodes, weights, smoothing)
        line_kwargs: Any = {"color": pick(COLOURS, i), "linestyle": pick(DASHES, i), "label": text}
        with_floor = np.where(values > values.max() * _LOWEST, values, np.nan)
        lines += ax.plot(places, with_floor, lw=1.6, **line_kwargs)
        outermost = [int(nodes.argmin()), int(nodes.argmax())]
        peaks = np.interp(nodes.ravel()[outermost], places, values)
        lows.append(max(peaks.min(), values.max() * _LOWEST))
        highs.append(values.max())
        ticks = {"marker": "|", "ls": "", "color": pick(COLOURS, i), "alpha": 0.5, "ms": 7}
        bottom = np.full(nodes.size, 0.03 * (1 + i))
        ax.plot(nodes.ravel(), bottom, transform=ax.get_xaxis_transform(), **ticks)
    ax.set_yscale("log")
    ax.set_ylim(min(lows) / 10, max(highs) * 3)
    ax.set_xlim(low - margin, high + margin)
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel(f"density, smoothed over {_words.number(smoothing, 2)}")
    if several:
        ax.legend(fontsize=9)
    return lines


def sharpness_curve(
    ax: Axes,
    sharpness: object,
    learning_rate: object,
    *,
    steps: object = None,
    threshold: float = 2.0,
    **line_kwargs: Any,
) -> list[Line2D]:
    """Draws a sharpness against the step, with the level above which no step is stable.

    On a quadratic, descent is stable only while the sharpness is below ``threshold / rate``:
    a dashed line in the colour of the curve.

    Args:
      ax: where to draw.
      sharpness: shape (T,), of one run; or (S, T), of S runs at one rate, say from several seeds.
        ``curvature.sharpness``, ``batch_sharpness`` or ``preconditioned_sharpness``.
      learning_rate: above 0.
      steps: shape (T,), at which the sharpness was seen; None counts 0, 1, ... T - 1.
      threshold: 2 for gradient descent, ``(2 + 2 beta) / (1 - beta)`` for the preconditioned
        sharpness of Adam: 38 at beta 0.9.
      **line_kwargs: passed on to ``ax.plot`` for the runs; the label is that of the first.

    Returns:
      A line per run, then the dashed one.

    Raises:
      TypeError: if these are no real numbers.
      ValueError: if the sharpness has neither one axis nor two or no finite entry, there is not
        one step per column, or the rate or the threshold is not above 0.

    Example:
      >>> from matplotlib.figure import Figure
      >>> from jaxgd import plots
      >>> ax = Figure().add_subplot()
      >>> lines = plots.sharpness_curve(ax, [12.0, 17.5, 19.9], 0.1, steps=[0, 100, 200])
      >>> lines[-1].get_label()
      '2 / 0.1 = 20'

    Source:
      Cohen, Kaur, Li et al., Gradient descent on neural networks typically occurs at the edge of
      stability, 2021, Sec. 2.
    """
    where = "plots.sharpness_curve"
    _inputs.flat_axes(where, ax)
    rows = _inputs.numbers(where, "sharpness", sharpness)
    fits = rows.ndim in (1, 2) and rows.size > 0
    wanted = "sharpness must have the shape (T,), or (S, T) for several runs"
    _checks.that(where, fits, wanted, f"{rows.shape}")
    is_some_finite = bool(np.isfinite(rows).any())
    _checks.that(where, is_some_finite, "sharpness must have a finite entry", "none")
    rows = np.atleast_2d(rows)
    places = np.arange(rows.shape[1]) if steps is None else _inputs.numbers(where, "steps", steps)
    wanted = f"steps must have the shape ({rows.shape[1]},), as sharpness has columns"
    _checks.that(where, places.shape == rows.shape[1:], wanted, f"{places.shape}")
    rate, level = (
        float(_checks.scalar(where, name, value))
        for name, value in (("learning_rate", learning_rate), ("threshold", threshold))
    )
    for name, value in (("learning_rate", rate), ("threshold", level)):
        _checks.that(where, 0 < value < np.inf, f"{name} must be above 0", f"{value:g}")
    lines: list[Line2D] = []
    for row in rows:
        lines += ax.plot(places, row, **line_kwargs)
        line_kwargs = {**line_kwargs, "color": lines[0].get_color(), "label": None}
    bound = f"{_words.number(level)} / {_words.number(rate)} = {_words.number(level / rate)}"
    style: Any = {"color": lines[0].get_color(), "ls": "--", "lw": 1.2}
    ax.set_xlabel("step")
    ax.set_ylabel("sharpness")
    return [*lines, ax.axhline(level / rate, label=bound, **style)]


def _nodes_and_weights(
    where: str, name: str, density: SpectralDensity
) -> tuple[np.ndarray, np.ndarray]:
    _checks.instance(where, name, density, SpectralDensity, _inputs.SEVERAL)
    nodes = _inputs.numbers(where, f"{name}.nodes", density.nodes)
    weights = _inputs.numbers(where, f"{name}.weights", density.weights)
    fits = nodes.ndim == 2 and nodes.shape == weights.shape and nodes.size > 0
    wanted = f"{name}.nodes and {name}.weights must have one shape (S, K)"
    _checks.that(where, fits, wanted, f"{nodes.shape} and {weights.shape}")
    finite = bool(np.isfinite(nodes).all() and np.isfinite(weights).all())
    _checks.that(where, finite, f"{name} must be finite", "NaN or inf among its nodes or weights")
    return nodes, weights


def _smoothed(
    places: np.ndarray, nodes: np.ndarray, weights: np.ndarray, width: float
) -> np.ndarray:
    """The mean over samples of the weighted Gaussians at the nodes."""
    density = np.zeros_like(places)
    for node, weight in zip(nodes.ravel(), weights.ravel(), strict=True):
        first, last = np.searchsorted(places, [node - 9 * width, node + 9 * width])
        near = places[first:last]
        density[first:last] += weight * np.exp(-(((near - node) / width) ** 2) / 2)
    return density / (len(nodes) * width * np.sqrt(2 * np.pi))
