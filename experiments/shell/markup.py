"""Texts as HTML: formulas typeset, code in its type, the other languages beside the English."""

import html
import re
from typing import Any

from experiments.shell import languages

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SIGNS = (
    (r"sqrt\(ln\(x\^2\)\)", "√(ln x²)"),
    (r"sqrt\(", "√("),
    (r"sqrt ", "√"),
    (r"\^2", "²"),
    (r"<=", "≤"),
    (r">=", "≥"),
    (r"\blambda_max\b", "λ_max"),
    (r"(?:(?<=\d) |\b)alpha\b", "α"),
    (r"(?:(?<=\d) |\b)beta\b", "β"),
    (r"(?:(?<=\d) |\b)lambda\b", "λ"),
    (r"\btheta0\b", "θ₀"),
    (r"\btheta1\b", "θ₁"),
)


def plain(words: Any) -> str:
    """Words as they are, safe in HTML."""
    return html.escape(str(words))


def typeset(words: str) -> str:
    """A text with its formulas as they are printed: √(ln x²), λ, 10⁻⁵."""
    for written, printed in SIGNS:
        words = re.sub(written, printed, words)
    return re.sub(r"\b1e(-?)0?(\d+)\b", lambda m: "10" + (m[1] + m[2]).translate(RAISED), words)


def line(words: str) -> str:
    """A line of HTML, with formulas typeset and ``code`` as in a docstring."""
    parts = re.split(r"``?(.+?)``?", " ".join(words.split()))
    return "".join(
        f"<code>{plain(part)}</code>" if i % 2 else plain(typeset(part))
        for i, part in enumerate(parts)
    )


def element(tag: str, words: str, more: str = "") -> str:
    """An element that holds a line, in every language."""
    said = languages.attributes(words, line)
    return f"<{tag}{more}{said}>{line(words)}</{tag.split(maxsplit=1)[0]}>"


def prose(words: str) -> str:
    """Paragraphs."""
    return "\n".join(element("p", paragraph) for paragraph in words.split("\n\n"))


def attribute(name: str, words: str) -> str:
    """An attribute that is read or heard, in every language."""
    return f'{name}="{plain(words)}"{languages.attributes(words, str, of=f"-{name}")}'


def in_script(text: str) -> str:
    """No closing tag inside may end it early; in a string the escape reads the same."""
    return text.replace("</script", "<\\/script")
