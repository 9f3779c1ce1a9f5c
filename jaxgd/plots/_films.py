"""Films: descents over contours, frame by frame, with Matplotlib alone."""

from collections.abc import Sequence
from typing import Any

from matplotlib import cbook
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxgd.plots import _inputs, _runs
from jaxgd.plots._runs import Runs
from jaxgd.plots._style import FEW_POINTS, PATH_COLOURS, Aspect, outline, pick
from jaxgd.plots._surfaces import surface_contour
from jaxgd.surfaces import Approximation, Surface
from jaxgd.types import PyTree


def animate_descent(
    surface: Surface | Approximation,
    runs: Runs,
    *,
    axis_names: tuple[str, str] = ("a", "b"),
    value_name: str = "loss",
    log: bool = False,
    num_frames: int = 120,
    figure_size: tuple[float, float] = (9, 4),
    aspect: Aspect = "auto",
    resolution: int = 101,
) -> FuncAnimation:
    """Films descents over contours, beside their losses.

    Args:
      surface: a Surface or an Approximation, over two coordinates.
      runs: what moves: a descent, or several by name; see ``Run``. One that ends early stays at
        its end. One whose losses climb far above all starts leaves the picture of the losses.
      axis_names: what the coordinates are.
      value_name: what the values are.
      log: whether the contours grow in equal ratios.
      num_frames: how many steps are shown at most, as in ``interactive_descent``.
      figure_size: width and height, in inches.
      aspect: of the contours: "equal" where both axes have one unit.
      resolution: how many points per axis an Approximation is drawn at; at least 2.

    Returns:
      An animation on a figure of its own. ``animation.save("x.gif", writer="pillow", dpi=80)``
      writes a GIF; ``save("x.mp4", writer="ffmpeg")`` a film, where FFmpeg is installed. What
      does not move is drawn once.

    Raises:
      TypeError: if ``surface`` is neither a Surface nor an Approximation, ``runs`` are not runs,
        or ``num_frames`` is no int.
      ValueError: if the surface cannot be drawn over two coordinates, there are no runs, one is
        not of two numbers per point, or ``num_frames`` is below 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgd import descent, plots, surfaces
      >>> cost = lambda p: p[0] ** 2 + 3 * p[1] ** 2
      >>> axis = jnp.linspace(-1.0, 1.0, 21)
      >>> bowl = surfaces.sweep(lambda a, b: cost((a, b)), axis, axis)
      >>> run = descent.gradient_descent(cost, (1.0, -0.5), learning_rate=0.1, num_steps=9)
      >>> film = plots.animate_descent(bowl, run)
      >>> film.save(getfixture("tmp_path") / "x.gif", writer="pillow", dpi=30)
    """
    where = "plots.animate_descent"
    _inputs.a_look(where, aspect)
    grid = _inputs.grid(where, surface, 2, log=log, resolution=resolution)
    _inputs.words(where, axis_names, value_name)
    tracks = _runs.tracks(where, runs, axis_names)
    steps = _runs.shown_steps(where, tracks, num_frames)
    figure = Figure(figsize=figure_size, layout="constrained")
    canvas = _Canvas(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    words: Any = {"axis_names": axis_names, "value_name": value_name}
    surface_contour(left, surface, log=log, aspect=aspect, resolution=resolution, **words)
    x, y = grid.axes
    left.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    low, high, is_log = _runs.loss_limits(tracks)
    right.set(xlabel="step", ylabel=value_name, xlim=(0, max(steps[-1], 1)))
    if is_log:
        right.set_yscale("log")
    # Room for the marks: a twentieth of the height at each end.
    margin = (high / low) ** 0.05 if is_log else 0.05 * (high - low)
    if margin > (1 if is_log else 0):
        room = (low / margin, high * margin) if is_log else (low - margin, high + margin)
        right.set_ylim(*room)

    marker = "o" if len(steps) <= FEW_POINTS else ""
    lines = []
    for i, name in enumerate(tracks):
        line: Any = {"color": pick(PATH_COLOURS, i), "label": name}
        head: Any = {"color": line["color"], "mec": "black", "ls": ""}
        each = (
            *left.plot([], [], f"-{marker}", markersize=2.5, lw=2, **line),
            *left.plot([], [], "o", ms=9, **head),
            *right.plot([], [], lw=2.2, **line),
            *right.plot([], [], "o", ms=7, **head),
        )
        outline(each[0])
        lines.append(each)
    legend = right.legend(loc="upper right")
    heading = right.text(0.5, 1.02, " ", ha="center", va="bottom", transform=right.transAxes)
    canvas.moving = [*(line for each in lines for line in each), legend, heading]

    def show(k: int) -> Sequence[Artist]:
        for (path, head, curve, tip), track in zip(lines, tracks.values(), strict=True):
            rows = _runs.rows_until(track, steps[: k + 1])
            path.set_data(*track.points[rows].T)
            head.set_data(*track.points[rows[-1:]].T)
            curve.set_data(track.steps[rows], track.losses[rows])
            tip.set_data(track.steps[rows[-1:]], track.losses[rows[-1:]])
        heading.set_text(f"step {steps[k]:,} of {steps[-1]:,}")
        return canvas.moving

    film = _Film(figure, show, frames=len(steps), interval=60, blit=False)
    film.canvas = canvas
    return film


class _Canvas(FigureCanvasAgg):
    """Draws what stands still once, and then for each frame of a film only what moves."""

    moving: Sequence[Artist] = ()
    is_filming = False
    _still: Any = None

    def start_film(self) -> None:
        """Lays the figure out for good: no frame moves its axes."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)
        self.is_filming, self._still = True, None

    def draw_idle(self, *args: PyTree, **kwargs: Any) -> None:
        """Nothing while a film is written: the writer draws each frame, once."""
        if not self.is_filming:
            super().draw_idle(*args, **kwargs)

    def print_raw(self, filename_or_obj: Any, *, metadata: Any = None, **_: Any) -> None:
        """Writes the pixels of one frame, as the writers of films ask for them."""
        if not self.is_filming:
            super().print_raw(filename_or_obj, metadata=metadata)
            return
        if self._still is None:
            for artist in self.moving:
                artist.set_visible(False)
            self.draw()
            self._still = self.copy_from_bbox(self.figure.bbox)
            for artist in self.moving:
                artist.set_visible(True)
        self.restore_region(self._still)
        renderer = self.get_renderer()
        for artist in self.moving:
            artist.draw(renderer)
        with cbook.open_file_cm(filename_or_obj, "wb") as file:
            file.write(renderer.buffer_rgba())

    print_rgba = print_raw


class _Film(FuncAnimation):
    """An animation whose frames are drawn once each."""

    canvas: _Canvas

    def save(self, filename: Any, *args: PyTree, **kwargs: Any) -> None:
        """Saves the film; everything is passed on to ``FuncAnimation.save``."""
        self.canvas.start_film()
        try:
            super().save(filename, *args, **kwargs)
        finally:
            self.canvas.is_filming = False

    def __del__(self) -> None:
        """Nothing: a film that nobody saved is dropped without Matplotlib's warning."""
