"""What is filmed is what was computed, each frame drawn once."""

from typing import Any

import _runs
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxgd import plots, surfaces

surface_of: Any = surfaces.Surface
AXES = np.linspace(0, 1, 4, dtype=np.float32), np.linspace(0, 2, 6, dtype=np.float32)
GRID = surface_of(AXES, 1 + AXES[0][:, None] ** 2 + 10 * AXES[1])
POINTS = np.array([[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]])
PATH = POINTS, np.array([1.0, 11.5, 22.0])
filmed: Any = plots.animate_descent


def frames_of(path: Any) -> list[np.ndarray]:
    with Image.open(path) as film:
        frames = []
        for k in range(getattr(film, "n_frames", 1)):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB"), float))
    return frames


def test_an_animation_is_saved_by_ffmpeg(tmp_path, ffmpeg):
    animation = filmed(GRID, {"long": PATH, "rose": _runs.rose()}, num_frames=7)
    with matplotlib.rc_context({"animation.ffmpeg_path": ffmpeg}):
        animation.save(tmp_path / "x.mp4", writer="ffmpeg", dpi=40)
    saved = (tmp_path / "x.mp4").read_bytes()
    assert saved.startswith(b"\x00\x00\x00")
    assert len(saved) > 3_000


def test_a_film_has_one_frame_per_step_shown_and_each_is_what_a_full_drawing_shows(tmp_path):
    film = filmed(GRID, {"up": PATH})
    film.save(tmp_path / "x.gif", writer="pillow", dpi=40)
    frames = frames_of(tmp_path / "x.gif")
    assert len(frames) == 3
    assert (frames[0] != frames[1]).any()
    # After the last frame the figure stands at it: drawn anew, whole, it looks the same.
    film.canvas.figure.savefig(tmp_path / "last.png", dpi=40)
    (whole,) = frames_of(tmp_path / "last.png")
    assert whole.shape == frames[-1].shape
    assert np.mean(np.abs(whole - frames[-1])) < 6  # a GIF has 256 colours


def test_what_stands_still_is_laid_out_and_drawn_once_for_a_whole_film(tmp_path, monkeypatch):
    runs = {"up": (np.linspace([0, 0], [1, 2], 15), np.linspace(1, 22, 15))}
    film = filmed(GRID, runs)
    drawn = []
    draw = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, *args: drawn.append(draw(self, *args)))
    film.save(tmp_path / "x.gif", writer="pillow", dpi=40)
    assert len(frames_of(tmp_path / "x.gif")) == 15
    assert len(drawn) == 2


def test_a_run_that_diverges_does_not_flatten_the_others():
    t = np.arange(9.0)
    wild = np.stack([t / 8, t / 8], 1), 10.0 ** (1 + 4 * t)
    calm = np.stack([t / 8, 0 * t], 1), 10 * 0.5**t
    film = filmed(GRID, {"calm": calm, "wild": wild})
    low, high = film.canvas.figure.axes[1].get_ylim()
    assert low <= calm[1][-1]
    assert 10 <= high <= 300
    page: Any = plots.interactive_descent(GRID, {"calm": calm, "wild": wild})
    assert 1 <= page.layout.yaxis2.range[1] <= 2.5  # decades
    assert "wild: its losses rise beyond the picture." in page.layout.meta["notes"]
    alone: Any = plots.interactive_descent(GRID, {"wild": wild})
    assert alone.layout.yaxis2.range[1] >= 33


def test_runs_have_one_colour_in_films_and_on_pages():
    runs = {"up": PATH, "rose": _runs.rose()}
    film, page = filmed(GRID, runs), plots.interactive_descent(GRID, runs)
    (lines, _) = film.canvas.figure.axes[0].lines[::2], None
    data: Any = page.data
    assert [line.get_color() for line in lines] == [data[1].line.color, data[3].line.color]
