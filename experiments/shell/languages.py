"""Texts in another language: the English text is the key, one catalogue file per language.

A key may hold ``{}``, which stands for any text; the translation says with ``{0}``, ``{1}``, ...
where it goes. What stands there is translated, too, if the catalogue has it.
"""

import functools
import html
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from experiments.shell.report import Expectation, Table

LANGUAGES = ("en", "zh")
FOLDER = pathlib.Path(__file__).parent.parent / "data"


class Catalogue(NamedTuple):
    """The texts of one language, by the English ones.

    Attributes:
      whole: texts without a gap.
      templates: patterns for texts with gaps, and their translations, the longest first.
    """

    whole: Mapping[str, str]
    templates: tuple[tuple[re.Pattern[str], str], ...]


@functools.cache
def catalogue(language: str) -> Catalogue:
    """Reads the catalogue of a language; that of English is empty."""
    if language == "en":
        return Catalogue({}, ())
    texts = json.loads((FOLDER / f"texts.{language}.json").read_text(encoding="utf-8"))
    templates = (key for key in texts if "{}" in key)
    gaps = sorted(templates, key=lambda key: len(key.replace("{}", "")), reverse=True)
    patterns = ("(.+?)".join(re.escape(part) for part in key.split("{}")) for key in gaps)
    templates = tuple(
        (re.compile(pattern, re.DOTALL), texts[key])
        for pattern, key in zip(patterns, gaps, strict=True)
    )
    return Catalogue({key: text for key, text in texts.items() if "{}" not in key}, templates)


def find(text: str, language: str) -> str | None:
    """The translation of a text; None if the catalogue has none."""
    if language == "en" or not needs_words(text):
        return text
    known = catalogue(language)
    text = " ".join(text.split())
    if text in known.whole:
        return known.whole[text]
    for pattern, wanted in known.templates:
        match = pattern.fullmatch(text)
        if match:
            return wanted.format(*(translate(gap, language) for gap in match.groups()))
    return None


def translate(text: str, language: str) -> str:
    """A text in a language; in English where the catalogue has none."""
    return find(text, language) or text


def needs_words(text: str) -> bool:
    """Whether a text holds a word, and not only numbers, names in capitals and formulas."""
    return bool(re.search(r"(?<![\w.`])[A-Za-z]?[a-z]{2,}(?![\w(]|\.\w)", text))


def table(table: Table, language: str) -> Table:
    """A table with its title, its header and its words in a language."""
    return Table(
        translate(table.title, language),
        [translate(cell, language) for cell in table.header],
        [[translate(str(cell), language) for cell in row] for row in table.rows],
    )


def expectation(expectation: Expectation, language: str) -> Expectation:
    """An expectation in a language."""
    return expectation._replace(
        says=translate(expectation.says, language), found=translate(expectation.found, language)
    )


def attributes(text: str, layout: Callable[[str], str] = html.escape) -> str:
    """What an element of a page carries beside its English text: the other languages.

    A text that a catalogue lacks is marked, so that a test finds it.

    Args:
      text: in English.
      layout: makes HTML of a text.

    Returns:
      Attributes of an element, or nothing for a text without words.
    """
    if not needs_words(text):
        return ""
    texts = ((language, find(text, language)) for language in LANGUAGES if language != "en")
    return "".join(
        f' data-lacks="{language}"'
        if found is None
        else f' data-{language}="{html.escape(layout(found))}"'
        for language, found in texts
    )
