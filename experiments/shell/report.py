"""How results are told: tables for the terminal, and the note's numbers held against ours."""

import json
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

NUMBERS_FILE = pathlib.Path(__file__).parent.parent / "data" / "numbers.json"


# What a number of the note can be: recomputed and equal; recomputed and another; a value that the
# note never states; one that the note gives, held only against what the program assumes; and one
# that the program gets wrong.
KINDS = ("match", "erratum", "not stated", "given", "OFF")


class Table(NamedTuple):
    """A title, a header, and rows of cells; numbers are right-aligned."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Verdict(NamedTuple):
    """A record of ``numbers.json`` beside the value that was computed for it."""

    record: Mapping[str, Any]
    value: Any
    kind: str  # one of KINDS
    reason: str


class Expectation(NamedTuple):
    """What was to come out of an experiment, and what did.

    Attributes:
      says: what was expected, in words.
      found: what was computed, in words.
      holds: whether the one agrees with the other.
    """

    says: str
    found: str
    holds: bool


def render(table: Table) -> str:
    """Lays a table out in columns."""
    cells = [[str(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(_columns(row[i]) for row in cells) for i in range(len(table.header))]
    numeric = [is_numeric(row[i] for row in table.rows) for i in range(len(table.header))]
    lines = [
        "  ".join(
            " " * (width - _columns(cell)) + cell
            if right
            else cell + " " * (width - _columns(cell))
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([table.title, *lines])


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes; a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def markdown(table: Table) -> str:
    """Lays a table out as Markdown, without its title."""
    numeric = [is_numeric(row[i] for row in table.rows) for i in range(len(table.header))]
    rules = ["---:" if right else "---" for right in numeric]
    lines = [" | ".join(map(str, row)) for row in (table.header, rules, *table.rows)]
    return "\n".join(f"| {line} |" for line in lines)


def is_numeric(column: Iterable[Any]) -> bool:
    """Whether every cell that is not empty is a number."""
    return all(_is_number(str(cell)) for cell in column if str(cell))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def expectations_of(experiment: ModuleType, results: Any) -> list[Expectation]:
    """What an experiment expected of its results; nothing if it does not say."""
    return experiment.expectations(results) if hasattr(experiment, "expectations") else []


def numbers_of(experiment: ModuleType, results: Any) -> dict[str, Any]:
    """The note's numbers that an experiment computed, by id; nothing if it has none."""
    return experiment.numbers(results) if hasattr(experiment, "numbers") else {}


def expectations_tables(expectations: Sequence[Expectation]) -> list[Table]:
    """What was expected beside what was found: one table, or none."""
    rows = [(says, found, "yes" if holds else "NO") for says, found, holds in expectations]
    header = ("expected", "found", "holds")
    return [Table("What was expected", header, rows)] if rows else []


def records() -> list[dict[str, Any]]:
    """Every number of the note."""
    return json.loads(NUMBERS_FILE.read_text(encoding="utf-8"))


def verdicts(computed: Mapping[str, Any]) -> list[Verdict]:
    """Holds computed values against their records, in the order of the note."""
    known = {record["id"]: record for record in records()}
    unknown = sorted(set(computed) - set(known))
    if unknown:
        raise KeyError(f"numbers.json has no record {', '.join(unknown)}")
    return [_verdict(record, computed[id_]) for id_, record in known.items() if id_ in computed]


def _verdict(record: Mapping[str, Any], value: Any) -> Verdict:
    """A match agrees with the note and with the exact value; an erratum with the latter only.

    A value that the note does not state, or states as a formula, has the exact one to agree with.
    """
    tolerance = record["tolerance"]
    printed, exact = record["seed_value"], record["exact_value"]
    if not _agrees(value, exact, 1e-9 if tolerance is None else tolerance):
        return Verdict(record, value, "OFF", f"should be {shown_value(exact)}")
    if "erratum" in record:
        return Verdict(record, value, "erratum", record["erratum"])
    if printed is None:
        return Verdict(record, value, "not stated", "")
    is_numeric = isinstance(printed, (int, float, list))
    if is_numeric and not _agrees(value, printed, tolerance or 0):
        return Verdict(record, value, "OFF", f"the note prints {shown_value(printed)}")
    return Verdict(record, value, "given" if record.get("given") else "match", "")


def count(verdicts: Sequence[Verdict]) -> str:
    """How many numbers there are of each kind, in a sentence."""
    counts = {kind: sum(verdict.kind == kind for verdict in verdicts) for kind in KINDS}
    return (
        f"{len(verdicts)} numbers of the note: {counts['match']} recomputed and equal (match), "
        f"{counts['erratum']} errata, {counts['not stated']} not stated in it, {counts['given']} "
        f"given by it and not computed, {counts['OFF']} off."
    )


def _agrees(value: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, str) or isinstance(value, str):
        return value == wanted
    value, wanted = np.asarray(value, float), np.asarray(wanted, float)
    if value.shape != wanted.shape:
        return False
    # The note's decimals are exact in base 10 only: half a unit may come out an ulp wider.
    return bool(np.all(np.abs(value - wanted) <= tolerance + 4e-16 * np.abs(wanted)))


def shown_value(value: Any) -> str:
    """A value in a few characters."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if np.ndim(value):
        return "[" + " ".join(shown_value(entry) for entry in np.asarray(value).tolist()) + "]"
    return f"{value:.9g}"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def numbers_table(results: Iterable[Verdict], say: Callable[[str], str] = str) -> Table:
    """The one table: each number of the note, the computed one, and the verdict.

    Args:
      results: of the numbers.
      say: puts a text into the reader's language.

    Returns:
      A table, whose long texts are cut.
    """
    rows = [
        (
            verdict.record["id"],
            _clip(say(verdict.record["quantity"]), 50),
            _clip(shown_value(verdict.record["seed_value"]), 24),
            _clip(shown_value(verdict.value), 24),
            say(verdict.kind) + (f": {say(verdict.reason)}" if verdict.reason else ""),
        )
        for verdict in results
    ]
    header = ("id", "quantity", "the note", "computed", "verdict")
    return Table("The numbers of the note", header, rows)


def numbers_json(results: Iterable[Verdict]) -> str:
    """The same table for machines."""
    rows = [
        {
            **verdict.record,
            "computed": np.asarray(verdict.value).tolist(),
            "verdict": verdict.kind,
            "reason": verdict.reason,
        }
        for verdict in results
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
