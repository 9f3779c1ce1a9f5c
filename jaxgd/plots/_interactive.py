"""Figures to turn and to play: the inputs are checked here, Plotly builds the figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxgd import _checks
from jaxgd.chains import Correction, Trace
from jaxgd.plots import _inputs, _runs, _words
from jaxgd.plots._runs import Runs
from jaxgd.plots._style import Aspect
from jaxgd.surfaces import Approximation, Surface

if TYPE_CHECKING:
    import plotly.graph_objects as go


def interactive_surface(
    surface: Surface | Approximation,
    runs: Runs | None = None,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    aspect: Aspect = "auto",
    resolution: int = 101,
) -> "go.Figure":
    """Draws a surface to turn in three dimensions, or to see as contours of the same values.

    Buttons switch between the two, and between a linear and a logarithmic scale, which leaves
    out what is not above 0 and says so. Hovering tells both coordinates and the value. A value
    that is not finite is a hole. A path may leave the surface: the picture widens by up to a
    quarter on each side, and tells how many points lie off the surface.

    Args:
      surface: a Surface or an Approximation, over two coordinates. An axis whose points
        grow in equal ratios is logarithmic.
      runs: a descent, or several by name, drawn at the height of their own losses; see ``Run``.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the logarithmic scale is shown first.
      aspect: "equal" where both axes have one unit.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      A Plotly figure: the last line of a notebook cell shows it, ``write_html`` saves it.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``surface`` is neither a Surface nor an Approximation, or ``runs`` are not runs.
      ValueError: if the surface is not over two coordinates that increase or decrease, no value
        is finite (with ``log``, positive), or a run is not of two numbers per point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import plots, surfaces
      >>> axis = jnp.linspace(-1.0, 1.0, 21)
      >>> bowl = surfaces.sweep(lambda a, b: a**2 + 3 * b**2, axis, axis)
      >>> figure = plots.interactive_surface(bowl)
      >>> [button.label for button in figure.layout.updatemenus[0].buttons]
      ['3-D', '3-D, log', 'contour', 'contour, log']
    """
    where = "plots.interactive_surface"
    _inputs.a_look(where, aspect)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    _inputs.words(where, axis_names, value_name)
    tracks = _runs.tracks(where, runs, axis_names, least=0)
    return _plotly(where).surface(
        grid,
        tracks,
        axis_names=axis_names,
        value_name=_inputs.captioned(grid, value_name),
        log=log,
        aspect=aspect,
    )


def interactive_descent(
    surface: Surface | Approximation,
    runs: Runs,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_frames: int = 120,
    aspect: Aspect = "auto",
    resolution: int = 101,
) -> "go.Figure":
    """Draws descents over contours, to be played step by step, their losses moving along.

    Args:
      surface: a Surface or an Approximation, over two coordinates.
      runs: what moves: a descent, or several by name; see ``Run``. One that ends early stays at
        its end. One whose losses climb far above all starts leaves the picture of the losses.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the contours grow in equal ratios.
      num_frames: how many steps are shown at most, at least 2. Of a longer run they are chosen
        in equal ratios, so closer together at the start; the figure names them.
      aspect: of the contours: "equal" where both axes have one unit.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      A Plotly figure with one frame per step shown, a slider, and buttons to play and pause.
      Write it with ``write_html(path, auto_play=False)``: as Plotly itself would start it, the
      contours are gone while it plays.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``surface`` is neither a Surface nor an Approximation, ``runs`` are not runs,
        or ``num_frames`` is no int.
      ValueError: if the surface is not over two coordinates that increase or decrease, no value
        is finite (with ``log``, positive), there are no runs, one is not of two numbers per
        point, or ``num_frames`` is below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import descent, plots, surfaces
      >>> cost = lambda p: p[0] ** 2 + 3 * p[1] ** 2
      >>> axis = jnp.linspace(-1.0, 1.0, 21)
      >>> bowl = surfaces.sweep(lambda a, b: cost((a, b)), axis, axis)
      >>> run = descent.gradient_descent(cost, (1.0, -0.5), learning_rate=0.1, num_steps=9)
      >>> len(plots.interactive_descent(bowl, run).frames)
      10
    """
    where = "plots.interactive_descent"
    _inputs.a_look(where, aspect)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    _inputs.words(where, axis_names, value_name)
    tracks = _runs.tracks(where, runs, axis_names)
    steps = _runs.shown_steps(where, tracks, num_frames)
    return _plotly(where).descent(
        grid,
        tracks,
        steps,
        axis_names=axis_names,
        value_name=_inputs.captioned(grid, value_name),
        log=log,
        aspect=aspect,
    )


def interactive_backprop(
    trace: Trace, correction: Correction | None = None, *, names: Sequence[str] = ()
) -> "go.Figure":
    """Draws a chain to be played: values appear from left to right, then adjoints flow back.

    Args:
      trace: of ``chains.backprop``. Numbers are written out; of an array the shape and the
        largest absolute entry.
      correction: of ``chains.correct`` on the same chain; its deltas flow back last.
      names: L + 1 words; ``x0, x1, ...`` where none are given.

    Returns:
      A Plotly figure with one frame per value and pass, a slider, and buttons, which
      ``write_html(path, auto_play=False)`` leaves at rest.

    Raises:
      ModuleNotFoundError: without Plotly.
      TypeError: if ``trace`` is not a Trace, or ``correction`` not a Correction.
      ValueError: if ``names`` or ``correction`` do not have one entry per value.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import chains, plots
      >>> trace = chains.backprop([jnp.square, jnp.log], 2.0)
      >>> [frame.name for frame in plots.interactive_backprop(trace, names="xab").frames]
      ['value of x', 'value of a', 'value of b', 'adjoint of b', 'adjoint of a', 'adjoint of x']
    """
    where = "plots.interactive_backprop"
    _checks.instance(where, "trace", trace, Trace)
    count = len(trace.primals)
    names = list(names) or [f"x{i}" for i in range(count)]
    _checks.length(where, "names", names, count, "one per value")
    parts = {"value": trace.primals, "adjoint": trace.adjoints}
    says = {
        "value": "Forwards: {name} = {value}",
        "adjoint": f"Backwards: d {names[-1]} / d {{name}} = {{value}}",
    }
    if correction is not None:
        _checks.instance(where, "correction", correction, Correction)
        _checks.length(where, "correction.deltas", correction.deltas, count, "one per value")
        parts["delta"] = correction.deltas
        says["delta"] = "The error back: {name} is off by {value}"
    rows = {
        heading: [_words.entry(value).replace("\n", "<br>") for value in row]
        for heading, row in parts.items()
    }
    return _plotly(where).chain(names, rows, says)


def _plotly(where: str) -> Any:
    """What builds the figures; Plotly is imported when it is first needed."""
    _checks.extra(where, "plotly", "interactive")
    from jaxgd.plots import _plotly  # noqa: PLC0415

    return _plotly
