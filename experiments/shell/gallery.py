"""The gallery: one page of everything the experiments found, to open from the disk.

The page asks nothing of any network: pictures, figures, styles, scripts and Plotly's own
library are in the file. ``gallery.html`` is its skeleton, ``gallery.css`` its look, and
``gallery.js`` what happens on it; figures and playgrounds have files of their own.
"""

import base64
import io
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure
from PIL import Image

import jaxgd
from experiments.data import THE_NOTE
from experiments.shell import figures, languages, playgrounds, report
from experiments.shell.markup import attribute, element, in_script, plain, prose
from experiments.shell.report import Table, Verdict, is_numeric, shown_value

HERE = pathlib.Path(__file__).parent
BUTTON = ' type="button" id="errata" aria-pressed="false"'
# What the page's script says: it finds the other languages in the page.
SPOKEN = (
    "Reset view",
    "Save PNG",
    "Full screen",
    "Play",
    "Pause",
    "3-D",
    "3-D, log",
    "contour",
    "contour, log",
    "step",
    "stage",
    "step {}",
    "Arrow keys turn it, plus and minus come nearer and go away.",
    "Dark",
    "Nothing found",
    "{} sections, {} rows",
    "Your system asks for no motion: move the slider instead of playing.",
    "a word, a number, an id",
)


LEAD = (
    "Each section asks a question, says what to expect, and shows what came out. Drag a surface to "
    "turn it, or reach it with the tab key and use the arrows, + and −. Play a descent, or move "
    "its slider. Every number on this page was computed by the experiment it stands with."
)
ERRATA = "An erratum says why the note prints another number. The id leads to the experiment."


class Entry(NamedTuple):
    """What the page tells of one experiment.

    Attributes:
      name: of its module.
      question: its docstring's first line.
      expectation: the rest of the docstring.
      picture: a PNG of few colours.
      size: width and height of the picture, in pixels.
      alt: what the picture shows, in words.
      caption: the same in a line.
      tables: as on the terminal.
      ids: of the note's numbers that it computed.
      figures: by title, JSON for Plotly and what it shows in words; None without Plotly.
      playgrounds: by title, pages to play in.
    """

    name: str
    question: str
    expectation: str
    picture: bytes
    size: tuple[int, int]
    alt: str
    caption: str
    tables: Sequence[Table]
    ids: frozenset[str]
    figures: Mapping[str, tuple[str, Mapping[str, Any]]] | None
    playgrounds: Mapping[str, str]


def entry(
    name: str, experiment: ModuleType, results: Any, figure: Figure, picture: pathlib.Path
) -> Entry:
    """Gathers what an experiment has to show; ``figure`` is drawn, ``picture`` its PNG."""
    question, _, expectation = (experiment.__doc__ or "").strip().partition("\n")
    png, size = _few_colours(picture)
    expectations = report.expectations_of(experiment, results)
    return Entry(
        name=name,
        question=question,
        expectation=expectation.strip(),
        picture=png,
        size=size,
        alt=_in_words(experiment, figure),
        caption=(experiment.draw.__doc__ or "").strip().splitlines()[0],
        tables=[*experiment.tables(results), *report.expectations_tables(expectations)],
        ids=frozenset(report.numbers_of(experiment, results)),
        figures=figures.figures_of(experiment, results),
        playgrounds=playgrounds.pages_of(experiment),
    )


def write(
    path: pathlib.Path,
    entries: Sequence[Entry],
    verdicts: Sequence[Verdict],
    seed: int,
    language: str = "en",
) -> str:
    """Writes the page and says in one line where it is and how large."""
    text = page(entries, verdicts, seed, language)
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    path.write_text(text.replace("{{size}}", size), encoding="utf-8")
    told = f"The gallery: {path} ({size}); open it in a browser, it needs no network."
    missing = [figures.PLOTLY_MISSING] if any(each.figures is None for each in entries) else []
    return "\n".join(languages.translate(line, language) for line in [*missing, told])


def page(
    entries: Sequence[Entry], verdicts: Sequence[Verdict], seed: int, language: str = "en"
) -> str:
    """The whole page; its own size is left to be filled in."""
    moving = any(each.figures for each in entries)
    names = [each.name for each in entries]
    computed_in = {id_: each.name for each in entries for id_ in each.ids}
    contents = [(each.name, _name(each.name)) for each in entries]
    contents += [("numbers", "the note's numbers")] if verdicts else []
    still = any(each.figures is None for each in entries)
    parts = {
        "style": _part("css"),
        "contents": "\n".join(
            "<li>" + element("a", words, f' href="#{i}"') + "</li>" for i, words in contents
        ),
        "language": language,
        "lead": element("p", LEAD, ' class="lead"'),
        "note": element("p", THE_NOTE),
        "title": element("h1", "Descent to watch and to turn"),
        "skip": element("a", "Skip to the experiments", ' class="skip" href="#main"'),
        "search": element("label", "Search", ' for="search"'),
        "contents_title": element("summary", "Contents"),
        "spoken": _spoken(entries),
        "notice": element("p", figures.PLOTLY_MISSING, ' class="notice"') if still else "",
        "experiments": "\n".join(_experiment(each, verdicts) for each in entries),
        "numbers": _numbers(verdicts, computed_in) if verdicts else "",
        "made": f"jaxgd {jaxgd.__version__}, JAX {jax.__version__}, seed {seed}",
        "command": "python -m experiments " + " ".join([*names, "--gallery"]),
        "plotly": f'<script type="text/plain" id="plotly">{figures.plotly_js()}</script>'
        if moving
        else "",
        "script": figures.script() + _part("js") + playgrounds.script(),
    }
    parts["made_by"] = element("p", f"Made by ``{parts['command']}`` with {parts['made']}. This "
                                "page is one file of {{size}}; it needs no network.")  # fmt: skip
    return re.sub(
        r"\{\{(\w+)\}\}", lambda m: parts.get(m[1], m[0]), _part("html")
    )  # one pass: what is filled in is not searched again


def _spoken(entries: Sequence[Entry]) -> str:
    """What the script says, by language: its own words and those within the figures."""
    shown = {text for each in entries for figure, _ in (each.figures or {}).values()
             for text in figures.words_in(figure)}  # fmt: skip
    texts = {
        language: {text: languages.find(text, language) for text in sorted({*SPOKEN, *shown})}
        for language in languages.LANGUAGES
    }
    lacking = [text for known in texts.values() for text, found in known.items() if found is None]
    lacks = f' data-lacks="{plain("; ".join(lacking))}"' if lacking else ""
    data = in_script(json.dumps(texts, ensure_ascii=False))
    return f'<script type="application/json" id="texts"{lacks}>{data}</script>'


def _part(kind: str) -> str:
    return (HERE / f"gallery.{kind}").read_text(encoding="utf-8")


def _few_colours(picture: pathlib.Path) -> tuple[bytes, tuple[int, int]]:
    """The picture with 256 colours, which no eye misses, in a third of the bytes."""
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue(), small.size


def _in_words(experiment: ModuleType, figure: Figure) -> str:
    """What a picture shows: what its function says, and the titles and axes of its panels."""
    panels = []
    for ax in figure.axes:
        if ax.get_label() == "<colorbar>":
            continue
        names = [
            getattr(ax, f"get_{axis}label")() for axis in "zyx" if hasattr(ax, f"get_{axis}label")
        ]
        against = " against ".join(name for name in names if name)
        title = ax.get_title() or ""
        if title:
            panels.append(f"{title} ({against})" if against else title)
    said = (experiment.draw.__doc__ or "").strip().splitlines()[0]
    told = " ".join([said, *(["Panels: " + "; ".join(panels) + "."] if panels else [])])
    return " ".join(told.replace("$", "").split())  # the dollars are those of TeX


def _experiment(each: Entry, verdicts: Sequence[Verdict]) -> str:
    picture = base64.b64encode(each.picture).decode()
    width, height = each.size
    own = [verdict for verdict in verdicts if verdict.record["id"] in each.ids]
    turned_and_played = (
        figures.place(f"{each.name}-{i}", title, *figure)
        for i, (title, figure) in enumerate((each.figures or {}).items())
    )
    return f"""
<section class="experiment" id="{each.name}" aria-labelledby="{each.name}-title">
<p class="name"><code>{plain(each.name)}</code></p>
{element("h2", each.question, f' id="{each.name}-title" tabindex="-1"')}
<details class="expectation">{element("summary", "What to expect")}
{prose(each.expectation)}</details>
{"".join(turned_and_played)}
{playgrounds.figures(each.name, each.playgrounds)}
<figure class="picture">
<div class="sheet"><img src="data:image/png;base64,{picture}" width="{width}" height="{height}"
decoding="async" {attribute("alt", each.alt)}></div>
<button type="button" class="enlarge" aria-pressed="false">{element("span", "Enlarge")}</button>
{element("figcaption", each.caption)}
</figure>
{"".join(_table(table) for table in each.tables)}
{_own_numbers(own) if own else ""}
</section>"""


def _table(table: Table, kind: str = "found") -> str:
    numeric = [is_numeric(row[i] for row in table.rows) for i in range(len(table.header))]

    def cells(tag: str, row: Iterable[Any]) -> str:
        return "".join(
            f"<{tag}{' class=number' if right else ''}{' scope=col' if tag == 'th' else ''}"
            f"{_known(str(cell), needed=tag == 'th')}>{plain(cell)}</{tag}>"
            for cell, right in zip(row, numeric, strict=True)
        )

    rows = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    label = attribute("aria-label", f"Table: {table.title}")
    return f"""
<div class="scroll" tabindex="0" role="region" {label}>
<table class="{kind}"><caption{languages.attributes(table.title)}>{plain(table.title)}</caption>
<thead><tr>{cells("th", table.header)}</tr></thead>
<tbody>
{rows}
</tbody></table></div>"""


def _known(cell: str, needed: bool) -> str:
    """The other languages of a cell, which in a table's body may be a name and have none."""
    is_known = needed or all(languages.find(cell, other) for other in languages.LANGUAGES)
    return languages.attributes(cell) if is_known else ""


def _name(experiment: str) -> str:
    return experiment.replace("_", " ")


def _own_numbers(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (v.record["id"], v.record["quantity"], shown_value(v.record["seed_value"]),
         shown_value(v.value), v.kind)
        for v in verdicts
    ]  # fmt: skip
    header = ("id", "quantity", "the note", "computed", "verdict")
    table = _table(Table("Its numbers in the note", header, rows), "verdicts")
    summary = element("span", "Its numbers in the note")
    return f"<details><summary>{summary}: {_counts(verdicts)}</summary>{table}</details>"


def _counts(verdicts: Sequence[Verdict]) -> str:
    kinds = [verdict.kind for verdict in verdicts]
    return ", ".join(f"{kinds.count(k)} {element('span', k)}" for k in report.KINDS if k in kinds)


def _numbers(verdicts: Sequence[Verdict], computed_in: Mapping[str, str]) -> str:
    """The one table: each number of the note, the computed one, the verdict and its reason."""
    rows = []
    for v in verdicts:
        id_ = v.record["id"]
        where = computed_in.get(id_, "")
        cells = "".join(
            f"<td{_known(cell, needed=i == 0)}>{plain(cell)}</td>"
            for i, cell in enumerate(
                (
                    v.record["quantity"],
                    shown_value(v.record["seed_value"]),
                    shown_value(v.value),
                )
            )
        )
        look = v.kind.lower().replace(" ", "-")
        badge = element("span", v.kind, f' class="badge {look}"')
        badge += f" <span{languages.attributes(v.reason)}>{plain(v.reason)}</span>"
        rows.append(
            f'<tr data-kind="{v.kind}"><td><a href="#{where}">{plain(id_)}</a></td>{cells}'
            f"<td>{badge}</td></tr>"
        )
    header = "".join(
        element("th", words, " scope=col")
        for words in ("id", "quantity", "the note", "computed", "verdict")
    )
    return f"""
<section class="experiment" id="numbers" aria-labelledby="numbers-title">
{element("h2", "Which numbers of the note are right?", ' id="numbers-title" tabindex="-1"')}
{element("p", report.count(verdicts))}
{element("p", ERRATA)}
<p>{element("button", "Show the errata only", BUTTON)}</p>
<div class="scroll" tabindex="0" role="region"
{attribute("aria-label", "Table: The numbers of the note")}>
<table class="verdicts">{element("caption", "The numbers of the note")}
<thead><tr>{header}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody></table></div>
</section>"""
