"""Figures to turn and to play within the gallery, and the words in them."""

import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from experiments.shell import languages
from experiments.shell.markup import attribute, element, in_script

HERE = pathlib.Path(__file__).parent
PLOTLY_MISSING = (
    'Surfaces to turn and descents to play need Plotly: pip install -e ".[interactive]"'
)


def figures_of(experiment: ModuleType, results: Any) -> dict[str, Any] | None:
    """By title, JSON for Plotly and what it shows in words; None without Plotly."""
    if not hasattr(experiment, "interactive"):
        return {}
    try:
        figures = experiment.interactive(results)
    except ModuleNotFoundError:
        return None
    return {title: (figure.to_json(), figure.layout.meta) for title, figure in figures.items()}


def plotly_js() -> str:
    """Plotly's library for the browser."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    return in_script(get_plotlyjs())


def script() -> str:
    """What draws the figures, and moves, turns and translates them."""
    return (HERE / "figures.js").read_text(encoding="utf-8")


def place(name: str, title: str, figure: str, meta: Mapping[str, Any]) -> str:
    """A place for a figure, its controls, its words, and its data, drawn when it is reached."""
    notes = "".join(element("li", note) for note in meta["notes"])
    controls, label = f"Controls of: {title}", f"{title}. {meta['description']}"
    return f"""
<figure class="interactive" id="{name}" aria-labelledby="{name}-title">
{element("h3", title, f' id="{name}-title"')}
<div class="controls" role="group" {attribute("aria-label", controls)}></div>
<div class="frame"><div class="plot" tabindex="0" role="img"
{attribute("aria-label", label)}></div></div>
<ul class="notes">{notes}</ul>
<details class="words">{element("summary", "In words")}{element("p", meta["description"])}</details>
<script type="application/json">{in_script(_once(figure))}</script>
</figure>"""


def _once(figure: str) -> str:
    """The figure with each array written once: where it comes again stands the place of the first.

    A surface holds the same values up to eight times, as heights, as colours, as contours.
    """
    places: dict[str, int] = {}
    arrays = itertools.count()

    def written(match: re.Match[str]) -> str:
        place = next(arrays)
        first = places.setdefault(match[1], place)
        return match[0] if first == place else f'"bdata":"#{first}"'

    return re.sub(r'"bdata":"([^"]*)"', written, figure)


def words_in(figure: str) -> set[str]:
    """The texts that a figure shows: of its axes, runs, stages, buttons, and of what hovers."""
    parts = json.loads(figure)
    parts["layout"].pop("title", None)  # the page has the notes in it beside the figure
    return {text for text in _texts(parts) if languages.needs_words(text.replace("<br>", " "))}


def _texts(part: Any, key: str = "") -> Iterator[str]:
    """All texts below a part of a figure; ``key`` says what the part is to the one above."""
    if isinstance(part, dict):
        is_frame = "traces" in part  # the name of a frame is heard by its slider, as a step's label
        for inner_key, inner in part.items():
            if inner_key not in ("meta", "template") and not (is_frame and inner_key == "name"):
                yield from _texts(inner, inner_key)
    elif isinstance(part, list):
        for inner in part:
            yield from _texts(inner, key)
    elif isinstance(part, str) and key in ("text", "name", "label"):
        yield part
    elif isinstance(part, str) and key == "hovertemplate":
        yield from re.findall(r"[^<>:%{}]+(?=: %\{)|(?<=<extra>)[^<]+", part)
