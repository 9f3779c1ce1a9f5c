"""Texts in another language: the English text is the key, one catalogue file per language.

A key may hold ``{}``, which stands for a text that is translated in its turn, and ``{!}``, which
stands for a name or a path that is the same in every language; the translation says with ``{0}``,
``{1}``, ... where each goes. Where the text in a gap has no translation, the whole has none: no
sentence is half in one language.
"""

import functools
import html
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from experiments.shell.report import Expectation, Table

LANGUAGES = ("en", "zh")
GAP = re.compile(r"\{!?\}")
FOLDER = pathlib.Path(__file__).parent.parent / "data"


class Template(NamedTuple):
    """A text with gaps.

    Attributes:
      pattern: of the English text; a group for each gap.
      is_name: for each gap, whether what stands in it stays as it is.
      translation: with the numbers of the gaps.
    """

    pattern: re.Pattern[str]
    is_name: tuple[bool, ...]
    translation: str


class Catalogue(NamedTuple):
    """The texts of one language, by the English ones.

    Attributes:
      whole: texts without a gap.
      templates: texts with gaps, the longest first.
    """

    whole: Mapping[str, str]
    templates: tuple[Template, ...]


@functools.cache
def catalogue(language: str) -> Catalogue:
    """Reads the catalogue of a language; that of English is empty."""
    if language == "en":
        return Catalogue({}, ())
    texts = json.loads((FOLDER / f"texts.{language}.json").read_text(encoding="utf-8"))
    with_gaps = sorted(
        filter(GAP.search, texts), key=lambda key: len(GAP.sub("", key)), reverse=True
    )
    templates = (
        Template(
            pattern=re.compile("(.+?)".join(map(re.escape, GAP.split(key))), re.DOTALL),
            is_name=tuple(gap == "{!}" for gap in GAP.findall(key)),
            translation=texts[key],
        )
        for key in with_gaps
    )
    whole = {key: text for key, text in texts.items() if not GAP.search(key)}
    return Catalogue(whole, tuple(templates))


@functools.cache
def find(text: str, language: str) -> str | None:
    """The translation of a text; None if the catalogue has none for all of it.

    What is no text of the catalogue may be several of them, one sentence after the other.
    """
    known = catalogue(language)
    plain = " ".join(text.split())
    if plain in known.whole:
        return known.whole[plain]
    if language == "en" or not needs_words(text):
        return text
    text = plain
    sentences = re.split(r"(?<=[^\s.]\.) ", text)
    ways = [_sentences(sentences, language)] if sentences[1:] else []
    ways += (_filled(template, text, language) for template in known.templates)
    return next((found for found in ways if found is not None), None)


def _sentences(sentences: Sequence[str], language: str) -> str | None:
    """The translations of sentences in a row; None if one of them has none."""
    found = [find(sentence, language) for sentence in sentences]
    for i, sentence in enumerate(sentences):
        title = find(sentence[:-1], language) if found[i] is None else None
        found[i] = f"{title}。" if title is not None else found[i]
    known = [sentence for sentence in found if sentence is not None]
    return "".join(known) if len(known) == len(found) else None


def _filled(template: Template, text: str, language: str) -> str | None:
    """The translation of a text with gaps; None if it is another text, or a gap has none."""
    match = template.pattern.fullmatch(text)
    if match is None:
        return None
    gaps = [
        gap if is_name else find(gap, language)
        for gap, is_name in zip(match.groups(), template.is_name, strict=True)
    ]
    return None if None in gaps else template.translation.format(*gaps)


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


def attributes(text: str, layout: Callable[[str], str] = html.escape, of: str = "") -> str:
    """What an element of a page carries beside its English text: the other languages.

    A text that a catalogue lacks is marked, so that a test finds it.

    Args:
      text: in English.
      layout: makes HTML of a text.
      of: the attribute that holds the text, such as ``-alt`` with its hyphen; what stands
        between the tags if empty.

    Returns:
      Attributes of an element, or nothing for a text without words.
    """
    if not needs_words(text):
        return ""
    texts = ((language, find(text, language)) for language in LANGUAGES if language != "en")
    return "".join(
        f' data-lacks="{language}"'
        if found is None
        else f' data-{language}{of}="{html.escape(layout(found))}"'
        for language, found in texts
    )
