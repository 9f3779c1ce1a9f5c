"""The gallery: one page of everything the experiments found, to open from the disk.

The page asks nothing of any network: pictures, figures, styles, scripts and Plotly's own
library are in the file. ``gallery.html`` is its skeleton, ``gallery.css`` its look, and
``gallery.js`` what happens on it.
"""

import base64
import html
import io
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
from experiments.shell import report
from experiments.shell.report import Table, Verdict, is_numeric, shown_value

HERE = pathlib.Path(__file__).parent
PLOTLY_MISSING = (
    'Surfaces to turn and descents to play need Plotly: pip install -e ".[interactive]"'
)


class Entry(NamedTuple):
    """What the page tells of one experiment.

    Attributes:
      name: of its module.
      question: its docstring's first line.
      expectation: the rest of the docstring.
      picture: a PNG of few colours.
      size: width and height of the picture, in pixels.
      alt: what the picture shows, in words.
      tables: as on the terminal.
      ids: of the note's numbers that it computed.
      figures: by title, JSON for Plotly and what it shows in words; None without Plotly.
    """

    name: str
    question: str
    expectation: str
    picture: bytes
    size: tuple[int, int]
    alt: str
    tables: Sequence[Table]
    ids: frozenset[str]
    figures: Mapping[str, tuple[str, Mapping[str, Any]]] | None


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
        tables=[*experiment.tables(results), *report.expectations_tables(expectations)],
        ids=frozenset(report.numbers_of(experiment, results)),
        figures=_figures(experiment, results),
    )


def write(
    path: pathlib.Path, entries: Sequence[Entry], verdicts: Sequence[Verdict], seed: int
) -> str:
    """Writes the page and says in one line where it is and how large."""
    text = page(entries, verdicts, seed)
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    path.write_text(text.replace("{{size}}", size), encoding="utf-8")
    missing = f"    {PLOTLY_MISSING}\n" if any(e.figures is None for e in entries) else ""
    return f"{missing}The gallery: {path} ({size}); open it in a browser, it needs no network."


def page(entries: Sequence[Entry], verdicts: Sequence[Verdict], seed: int) -> str:
    """The whole page; its own size is left to be filled in."""
    moving = any(each.figures for each in entries)
    names = [each.name for each in entries]
    computed_in = {id_: each.name for each in entries for id_ in each.ids}
    contents = [(each.name, each.name.replace("_", " ")) for each in entries]
    contents += [("numbers", "the note's numbers")] if verdicts else []
    still = any(each.figures is None for each in entries)
    parts = {
        "style": _part("css"),
        "contents": "\n".join(
            f'<li><a href="#{i}">{_text(words)}</a></li>' for i, words in contents
        ),
        "note": _text(THE_NOTE),
        "notice": f'<p class="notice">{_text(PLOTLY_MISSING)}</p>' if still else "",
        "experiments": "\n".join(_experiment(each, verdicts) for each in entries),
        "numbers": _numbers(verdicts, computed_in) if verdicts else "",
        "made": f"jaxgd {jaxgd.__version__}, JAX {jax.__version__}, seed {seed}",
        "command": "python -m experiments " + " ".join([*names, "--gallery"]),
        "plotly": f'<script type="text/plain" id="plotly">{_plotly_js()}</script>'
        if moving
        else "",
        "script": _part("js"),
    }
    return re.sub(
        r"\{\{(\w+)\}\}", lambda m: parts.get(m[1], m[0]), _part("html")
    )  # one pass: what is filled in is not searched again


def _part(kind: str) -> str:
    return (HERE / f"gallery.{kind}").read_text(encoding="utf-8")


def _plotly_js() -> str:
    """Plotly's library for the browser."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    return _in_script(get_plotlyjs())


def _in_script(text: str) -> str:
    """No closing tag inside may end it early; in a string the escape reads the same."""
    return text.replace("</script", "<\\/script")


def _few_colours(picture: pathlib.Path) -> tuple[bytes, tuple[int, int]]:
    """The picture with 256 colours, which no eye misses, in a third of the bytes."""
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
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
    return told.replace("$", "")  # of mathematics in TeX


def _figures(experiment: ModuleType, results: Any) -> dict[str, Any] | None:
    if not hasattr(experiment, "interactive"):
        return {}
    try:
        figures = experiment.interactive(results)
    except ModuleNotFoundError:
        return None
    return {title: (figure.to_json(), figure.layout.meta) for title, figure in figures.items()}


def _text(words: Any) -> str:
    return html.escape(str(words))


def _prose(words: str) -> str:
    """Paragraphs, with ``code`` as in a docstring."""
    paragraphs = (re.sub(r"``?(.+?)``?", r"<code>\1</code>", _text(p)) for p in words.split("\n\n"))
    return "\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)


def _experiment(each: Entry, verdicts: Sequence[Verdict]) -> str:
    picture = base64.b64encode(each.picture).decode()
    width, height = each.size
    own = [verdict for verdict in verdicts if verdict.record["id"] in each.ids]
    figures = (
        _figure(f"{each.name}-{i}", title, *figure)
        for i, (title, figure) in enumerate((each.figures or {}).items())
    )
    return f"""
<section class="experiment" id="{each.name}" aria-labelledby="{each.name}-title">
<p class="name"><code>{_text(each.name)}</code></p>
<h2 id="{each.name}-title" tabindex="-1">{_text(each.question)}</h2>
<div class="expectation">{_prose(each.expectation)}</div>
{"".join(figures)}
<figure class="picture">
<img src="data:image/png;base64,{picture}" width="{width}" height="{height}" decoding="async"
alt="{_text(each.alt)}">
<figcaption>{_text(each.alt)}</figcaption>
</figure>
{"".join(_table(table) for table in each.tables)}
{_own_numbers(own) if own else ""}
</section>"""


def _figure(name: str, title: str, figure: str, meta: Mapping[str, Any]) -> str:
    """A place for a figure, its controls, its words, and its data, drawn when it is reached."""
    notes = "".join(f"<li>{_text(note)}</li>" for note in meta["notes"])
    words = _text(meta["description"])
    return f"""
<figure class="interactive" id="{name}" aria-labelledby="{name}-title">
<h3 id="{name}-title">{_text(title)}</h3>
<div class="controls" role="group" aria-label="Controls of: {_text(title)}"></div>
<div class="frame"><div class="plot" tabindex="0" role="img"
aria-label="{_text(title)}. {words}"></div></div>
<ul class="notes">{notes}</ul>
<details class="words"><summary>In words</summary><p>{words}</p></details>
<script type="application/json">{_in_script(figure)}</script>
</figure>"""


def _table(table: Table, kind: str = "found") -> str:
    numeric = [is_numeric(row[i] for row in table.rows) for i in range(len(table.header))]

    def cells(tag: str, row: Iterable[Any]) -> str:
        return "".join(
            f"<{tag}{' class=number' if right else ''}{' scope=col' if tag == 'th' else ''}>"
            f"{_text(cell)}</{tag}>"
            for cell, right in zip(row, numeric, strict=True)
        )

    rows = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    title = _text(table.title)
    return f"""
<div class="scroll" tabindex="0" role="region" aria-label="Table: {title}">
<table class="{kind}"><caption>{title}</caption>
<thead><tr>{cells("th", table.header)}</tr></thead>
<tbody>
{rows}
</tbody></table></div>"""


def _own_numbers(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (v.record["id"], v.record["quantity"], shown_value(v.record["seed_value"]),
         shown_value(v.value), v.kind)
        for v in verdicts
    ]  # fmt: skip
    header = ("id", "quantity", "the note", "computed", "verdict")
    table = _table(Table("Its numbers in the note", header, rows), "verdicts")
    return (
        f"<details><summary>Its numbers in the note: {_counts(verdicts)}</summary>{table}</details>"
    )


def _counts(verdicts: Sequence[Verdict]) -> str:
    kinds = [verdict.kind for verdict in verdicts]
    return ", ".join(f"{kinds.count(k)} {k}" for k in report.KINDS if k in kinds)


def _numbers(verdicts: Sequence[Verdict], computed_in: Mapping[str, str]) -> str:
    """The one table: each number of the note, the computed one, the verdict and its reason."""
    rows = []
    for v in verdicts:
        id_ = v.record["id"]
        where = computed_in.get(id_, "")
        cells = "".join(
            f"<td>{_text(cell)}</td>"
            for cell in (
                v.record["quantity"],
                shown_value(v.record["seed_value"]),
                shown_value(v.value),
            )
        )
        look = v.kind.lower().replace(" ", "-")
        badge = f'<span class="badge {look}">{_text(v.kind)}</span> {_text(v.reason)}'
        rows.append(
            f'<tr data-kind="{v.kind}"><td><a href="#{where}">{_text(id_)}</a></td>{cells}'
            f"<td>{badge}</td></tr>"
        )
    header = "".join(
        f"<th scope=col>{words}</th>"
        for words in ("id", "quantity", "the note", "computed", "verdict")
    )
    return f"""
<section class="experiment" id="numbers" aria-labelledby="numbers-title">
<h2 id="numbers-title" tabindex="-1">Which numbers of the note are right?</h2>
<p>{_text(report.count(verdicts))} An erratum says why the note prints another number.
The id leads to the experiment.</p>
<p><button type="button" id="errata" aria-pressed="false">Show the errata only</button></p>
<div class="scroll" tabindex="0" role="region" aria-label="Table: the numbers of the note">
<table class="verdicts"><caption>The numbers of the note</caption>
<thead><tr>{header}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody></table></div>
</section>"""
