"""Pages within the gallery, in which an experiment is done by hand."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from experiments.shell.markup import attribute, element
from jaxgd import plots

HERE = pathlib.Path(__file__).parent


def pages_of(experiment: ModuleType) -> dict[str, str]:
    """The pages of an experiment, by title; none where it has no ``playgrounds``."""
    return experiment.playgrounds() if hasattr(experiment, "playgrounds") else {}


def people(
    correct: Callable[[Any, Any], Any], *, start: float, target: float, tolerance: float, most: int
) -> str:
    """A page in which a value is passed through a chain and its error back, step by step.

    Args:
      correct: ``(x, target) -> Correction``, four values forwards and four deltas.
      start: the x that the page opens with.
      target: what the chain is to give.
      tolerance: how near is near enough.
      most: how many updates are made at most.

    Returns:
      The page, as HTML.
    """
    parts = {
        "correct": plots.javascript(correct, start, target),
        "start": f"{start:g}",
        "target": f"{target:g}",
        "tolerance": f"{tolerance:g}",
        "most": str(most),
    }
    skeleton = (HERE / "people.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], skeleton)


def figures(name: str, pages: Mapping[str, str]) -> str:
    """The places of an experiment's pages in the gallery; each is opened when it is reached."""
    return "".join(
        f"""
<figure class="playground" id="{name}-play-{i}" aria-labelledby="{name}-play-{i}-title">
{element("h3", title, f' id="{name}-play-{i}-title"')}
<iframe {attribute("title", title)}></iframe>
<script type="application/json">{json.dumps(page).replace("<", chr(92) + "u003c")}</script>
</figure>"""
        for i, (title, page) in enumerate(pages.items())
    )


def script() -> str:
    """What opens the pages and tells them the gallery's language and theme."""
    return (HERE / "playgrounds.js").read_text(encoding="utf-8")
