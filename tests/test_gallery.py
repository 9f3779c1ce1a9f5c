"""The gallery in a real browser: what it shows is what was computed, and it answers to hands."""

import contextlib
import io
import json
import re
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, FrameLocator, Page

from experiments import ADDRESSES, load
from experiments.__main__ import main
from experiments.shell import languages, report
from experiments.shell.markup import typeset

ROOT = report.NUMBERS_FILE.parent.parent.parent
NAMES = tuple(address.split(".")[1] for address in ADDRESSES if address.startswith("note."))
SURFACE, TURNED, PLAYED, CHAIN = (
    "#loss_surface-0",
    "#gradient_descent-2",
    "#gradient_descent-0",
    "#nonlinear_backprop-0",
)


class Built(NamedTuple):
    """A page made by the command, the numbers beside it, and what the command said."""

    url: str
    numbers: list[dict[str, Any]]
    html: str
    said: str


def build(out: Any, *arguments: str) -> Built:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*arguments, "--gallery", "--out", str(out)]) == 0
    page = out / "index.html"
    numbers = out / "numbers.json"
    return Built(
        url=page.as_uri(),
        numbers=json.loads(numbers.read_text(encoding="utf-8")),
        html=page.read_text(encoding="utf-8"),
        said=said.getvalue(),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("gallery"), *NAMES)


def watch(page: Page, wrong: list[str]) -> None:
    """Fills a list with a page's errors and with the requests that leave it."""

    def judge(url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            wrong.append(url)

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: judge(request.url))


# Plotly draws surfaces at twice the resolution, which takes long without a card.
COARSE = """() => { if (document.getElementById("plotly")) {
    loadPlotly(); Plotly.setPlotConfig({plotGlPixelRatio: 0.5}); } }"""


class Pages:
    """Opens pages, each once, for all who leave them as they found them."""

    def __init__(self, browser: Browser):
        self.browser = browser
        self.opened: dict[str, Page] = {}
        self.played: set[str] = set()
        self.wrong: list[str] = []

    def __call__(self, url: str, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1000, "height": 640})
        key = f"{url} {options}"
        if key not in self.opened:
            self.opened[key] = page = self.browser.new_page(**options)
            page.set_default_timeout(120_000)  # milliseconds, for a machine with much to do
            watch(page, self.wrong)
            page.goto(url)
            page.evaluate(COARSE)
        return self.opened[key]


@pytest.fixture(scope="module")
def pages(browser):
    """All pages of this file, by address and options."""
    pages = Pages(browser)
    yield pages
    for page in pages.opened.values():
        page.close()


@pytest.fixture
def opened(pages):
    """Opens a page for a system, a screen or a file of its own."""
    yield pages
    assert pages.wrong == []


@pytest.fixture
def page(opened, built):
    """The page that most tests share: they play, turn and search."""
    opened.played.add(built.url)
    return opened(built.url)


@pytest.fixture
def untouched(opened, built):
    """The same page for those who need it as it opens: nothing was played, turned or zoomed.

    They stand first in this file; after the others they get a page of their own.
    """
    return opened(f"{built.url}#untouched" if built.url in opened.played else built.url)


def played_by_hand(page: Page, figure: str) -> FrameLocator:
    """Waits until a page within the page is open."""
    page.evaluate("id => document.querySelector(id).scrollIntoView()", figure)
    frame = page.frame_locator(f"{figure} iframe")
    frame.locator("body").wait_for()
    return frame


def drawn(page: Page, figure: str) -> str:
    """Waits until a figure is drawn; its plot."""
    page.evaluate("id => document.querySelector(id).scrollIntoView()", figure)
    page.wait_for_selector(f"{figure} .plot[data-drawn=true]")
    return f"{figure} .plot"


def inside(page: Page, figure: str, expression: str) -> Any:
    """A JavaScript expression of ``gd``, the plot."""
    return page.evaluate(
        f"() => {{ const gd = document.querySelector('{figure} .plot'); return {expression}; }}"
    )


def until(page: Page, figure: str, expression: str) -> None:
    page.wait_for_function(
        f"() => {{ const gd = document.querySelector('{figure} .plot'); return {expression}; }}"
    )


def press(page: Page, figure: str, label: str) -> None:
    page.locator(f"{figure} .controls").get_by_role("button", name=label, exact=True).click()


def colours(page: Page, selector: str) -> int:
    """How many different colours are seen there."""
    return colours_of(page.locator(selector).first.screenshot())


def colours_of(picture: bytes) -> int:
    with Image.open(io.BytesIO(picture)) as image:
        return len(image.convert("RGB").getcolors(maxcolors=2**24) or [])


def frames(page: Page, count: int) -> None:
    """Lets the browser draw some frames."""
    page.evaluate(
        "count => new Promise(done => { const next = () => count-- ? requestAnimationFrame(next)"
        " : done(); next(); })",
        count,
    )


# A phone that asks for darkness and for no motion.
CALM_PHONE = {
    "viewport": {"width": 390, "height": 640}, "color_scheme": "dark", "reduced_motion": "reduce",
}  # fmt: skip
EYE = "gd._fullLayout.scene.camera.eye"


def test_the_numbers_of_the_note_are_reproduced(built):
    told = "44 recomputed and equal (match), 9 errata, 14 not stated in it, 27 given by it"
    assert f"94 numbers of the note: {told} and not computed, 0 off" in built.said
    assert [row["id"] for row in built.numbers] == [record["id"] for record in report.records()]
    assert {row["verdict"] for row in built.numbers} == {"match", "erratum", "not stated", "given"}
    unstated = [row for row in built.numbers if row["seed_value"] is None]
    assert {row["verdict"] for row in unstated} == {"not stated"}


def test_the_page_is_one_file_that_says_its_size(untouched, built):
    page = untouched
    size = f"{len(built.html.encode()) / 1e6:.1f} MB"
    assert f"one file of {size}" in page.locator("footer").inner_text()
    assert f"index.html ({size})" in built.said
    assert len(built.html.encode()) < 15e6
    assert not re.search(r"""(?:src|href)=["']?https?:""", built.html.split('id="plotly"')[0])


@pytest.mark.parametrize("figure", [PLAYED, CHAIN])
def test_a_player_opens_at_its_first_step(untouched, figure):
    drawn(untouched, figure)
    slider = untouched.locator(f"{figure} input[type=range]")
    assert slider.input_value() == "0"


def test_a_player_shows_the_start_alone_before_it_is_played(untouched):
    page = untouched
    drawn(page, PLAYED)
    until(page, PLAYED, "gd._fullData.slice(-1)[0].x[0] === 0")
    assert inside(page, PLAYED, "gd._fullData.slice(-4)[0].x.length") == 1
    assert page.locator(f"{PLAYED} output").inner_text() == "step 0"


def test_the_page_is_read_in_chinese_and_back(untouched):
    page = untouched
    drawn(page, PLAYED)
    drawn(page, CHAIN)
    page.locator("#language").click()
    assert page.evaluate("document.documentElement.lang") == "zh"
    until(page, CHAIN, "gd.dataset.drawn && gd._fullData.at(-1).text[0] === '正向：x = 2'")
    assert page.locator(f"{CHAIN} output").inner_text() == "x 的值"
    question = (load("gradient_descent").__doc__ or "").splitlines()[0]
    title = page.locator("#gradient_descent h2")
    assert title.inner_text() == languages.translate(question, "zh")
    button = page.locator(f"{PLAYED} .controls button").first
    assert button.inner_text() == "播放"
    until(page, PLAYED, "gd.dataset.drawn && gd._fullLayout.xaxis.title.text === 'θ₀（偏移）'")
    assert "学习率 0.01" in inside(page, PLAYED, "gd._fullData.map(trace => trace.name)")
    label = page.locator(f"{PLAYED} .plot").get_attribute("aria-label") or ""
    assert label.startswith("逐步播放的下降。可播放的下降：代价，θ₀（偏移） 从 -1.5 到 2.5，")
    alt = page.locator("#gradient_descent figure.picture img").get_attribute("alt")
    assert (alt or "").startswith("拟合直线、代价上的路径")
    assert page.locator(f"{PLAYED} output").inner_text() == "第 0 步"
    assert page.locator("#search").get_attribute("placeholder") == "词语、数值或编号"
    page.locator("#language").click()
    assert title.inner_text() == typeset(question)
    assert button.inner_text() == "Play"
    until(page, PLAYED, "gd.dataset.drawn && gd._fullLayout.xaxis.title.text === 'θ₀ (bias)'")
    assert page.locator("#gradient_descent figure.picture img").get_attribute("alt") != alt


def test_pages_within_the_page_take_its_language_and_its_theme(untouched):
    page = untouched
    people = played_by_hand(page, "#nonlinear_backprop-play-0")
    page.click("#language")
    people.locator("html[lang=zh]").wait_for()
    assert people.locator("#all").inner_text() == "走完所有步"
    # The frame is as high as what is in it, also when it has become less.
    fits = """() => { const frame = document.querySelector("#nonlinear_backprop-play-0 iframe");
        const height = frame.contentDocument.body.getBoundingClientRect().height;
        return Math.abs(frame.clientHeight - height) < 4 && height; }"""
    empty = page.wait_for_function(fits).json_value()
    people.locator("#all").click()
    page.wait_for_function(f"empty => ({fits})() > empty", arg=empty)
    people.locator("#reset").click()
    page.wait_for_function(f"empty => ({fits})() === empty", arg=empty)
    page.click("#theme")
    people.locator("body[data-theme=dark]").wait_for()
    page.click("#language")
    page.click("#theme")
    people.locator("html[lang=en] body[data-theme=light]").wait_for()


def test_every_section_asks_its_question_and_describes_its_pictures(page):
    assert page.locator("section.experiment").count() == len(NAMES) + 1
    for name in NAMES:
        experiment: Any = load(name)
        question, _, expectation = experiment.__doc__.strip().partition("\n")
        section = page.locator(f"section#{name}")
        assert section.locator("h2").inner_text() == typeset(question)
        told = " ".join(section.locator(".expectation p").all_text_contents())
        parts = " ".join(expectation.split()).split("``")
        assert told == "".join(part if i % 2 else typeset(part) for i, part in enumerate(parts))
        image = section.locator("figure.picture img")
        assert len(image.get_attribute("alt") or "") > 60
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 800
    for plot in page.locator(".plot").all():
        assert re.search(r"\d", plot.get_attribute("aria-label") or "")
        assert plot.get_attribute("tabindex") == "0"


def test_formulas_are_typeset():
    told = "sqrt(ln(x^2)) <= 2.13, sqrt b, 2 + 2 beta below 2 / lambda, theta0, 1e-05, the alphabet"

    assert typeset(told) == "√(ln x²) ≤ 2.13, √b, 2 + 2β below 2 / λ, θ₀, 10⁻⁵, the alphabet"


def test_what_to_expect_is_folded_until_it_is_asked_for(page):
    expectation = page.locator("#gradient_descent .expectation")
    assert not expectation.locator("p").first.is_visible()
    expectation.locator("summary").click()
    assert expectation.locator("p").first.is_visible()
    expectation.locator("summary").click()
    assert not expectation.locator("p").first.is_visible()


def test_a_page_may_open_in_chinese_and_no_text_is_missing(opened, built, tmp_path):
    chinese = build(tmp_path, "neuron", "--lang", "zh")
    page = opened(chinese.url)
    assert page.locator("h1").inner_text() == "可以观看、可以转动的梯度下降"
    assert "data-lacks" not in chinese.html
    assert "data-lacks" not in built.html
    assert "6 个数值" in chinese.said
    assert chinese.said.splitlines()[-1].startswith(f"画廊：{tmp_path}/index.html（")


def test_light_and_dark_follow_the_system_and_the_button(opened, built):
    page = opened(built.url, **CALM_PHONE)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    drawn(page, PLAYED)
    assert inside(page, PLAYED, "gd._fullLayout.font.color") == "#e8ecef"
    page.locator("#theme").click()
    light = page.evaluate(background)
    assert (dark, light) == ("rgb(20, 24, 28)", "rgb(255, 255, 255)")
    until(page, PLAYED, "gd._fullLayout.font.color === '#1c2126'")
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"
    page.locator("#theme").click()


def test_nothing_plays_for_those_who_ask_for_no_motion(opened, built):
    page = opened(built.url, **CALM_PHONE)
    drawn(page, PLAYED)
    assert page.locator(f"{PLAYED} .controls").get_by_role("button", name="Play").count() == 0
    assert "no motion" in page.locator(f"{PLAYED} .notes").inner_text()
    assert page.locator(f"{PLAYED} input[type=range]").is_visible()


def test_nothing_is_wider_than_a_phone(opened, built):
    page = opened(built.url, **CALM_PHONE)
    for figure in (PLAYED, SURFACE, CHAIN):
        drawn(page, figure)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = page.evaluate(
        "[...document.querySelectorAll('button, input, h2, figure')]"
        ".filter(part => part.matches('h2, figure') || part.checkVisibility())"
        ".map(part => part.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) > 50
    for box in boxes:
        assert 0 <= box["left"] < box["right"] <= 391
    picture = page.locator("#gradient_descent figure.picture")
    small = picture.locator("img").bounding_box()
    picture.locator("button").click()
    large = picture.locator("img").bounding_box()
    assert small
    assert large
    assert small["width"] <= 390 < 2 * 390 < large["width"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    below = inside(page, PLAYED, "gd._fullLayout.yaxis2.domain[1] < gd._fullLayout.yaxis.domain[0]")
    assert below
    page.close()  # a surface that is drawn takes time in every frame


def test_without_plotly_the_page_is_still_made_and_says_how_to_get_the_rest(
    monkeypatch, tmp_path, opened
):
    monkeypatch.setitem(sys.modules, "plotly", None)
    without = build(tmp_path, "linear_backprop")
    page = opened(without.url)
    said = 'pip install -e ".[interactive]"'
    assert said in page.locator(".notice").inner_text()
    assert said in without.said
    assert page.locator("figure.interactive").count() == 0
    assert page.locator("figure.picture img").count() == 1
    page.locator("#search").fill("recomputed")
    assert page.locator("#linear_backprop tbody tr:visible").count() > 0
    assert len(without.html) < 1_000_000


def test_chinese_terms_are_found_in_either_language(page):
    page.locator("#search").fill("学习率")
    shown = "[...document.querySelectorAll('section.experiment:not([hidden]) h2')].length"
    assert page.locator("#gradient_descent").is_visible()
    assert page.evaluate(shown) < len(NAMES)
    page.locator("#search").fill("")


@pytest.mark.parametrize("figure", [SURFACE, TURNED])
def test_a_surface_is_drawn(page, figure):
    assert colours(page, f"{drawn(page, figure)} canvas") > 100


def test_a_surface_is_turned_by_hand_and_by_keys_and_put_back(page):
    figure, plot = SURFACE, drawn(page, SURFACE)
    start = inside(page, figure, EYE)
    box = page.locator(plot).bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 280, steps=2)
    page.mouse.up()
    until(page, figure, f"Math.abs({EYE}.x - {start['x']}) > 0.05")
    press(page, figure, "Reset view")
    until(page, figure, f"Math.abs({EYE}.x - {start['x']}) < 1e-6")
    page.locator(plot).focus()
    page.keyboard.press("ArrowRight")
    until(page, figure, f"Math.abs({EYE}.x - {start['x']}) > 0.05")
    nearer = inside(page, figure, f"Math.hypot({EYE}.x, {EYE}.y, {EYE}.z)")
    page.keyboard.press("+")
    until(page, figure, f"Math.hypot({EYE}.x, {EYE}.y, {EYE}.z) < {nearer} - 0.05")
    press(page, figure, "Reset view")


def test_a_surface_out_of_sight_gives_its_canvas_up_and_comes_back_as_it_was(page):
    plot = drawn(page, SURFACE)
    page.locator(plot).focus()
    page.keyboard.press("ArrowRight")
    press(page, SURFACE, "3-D, log")
    until(page, SURFACE, "gd._fullLayout.scene.zaxis.type === 'log'")
    turned = inside(page, SURFACE, EYE)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(f"() => !inSight.has(document.querySelector('{plot}'))")
    page.evaluate(f"figures.get(document.querySelector('{plot}')).purge()")
    assert page.locator(f"{plot} canvas").count() == 0
    drawn(page, SURFACE)
    assert colours(page, f"{plot} canvas") > 100
    assert inside(page, SURFACE, EYE) == pytest.approx(turned)
    assert inside(page, SURFACE, "gd._fullLayout.scene.zaxis.type") == "log"
    press(page, SURFACE, "3-D")
    press(page, SURFACE, "Reset view")


def test_hovering_tells_the_coordinates_and_the_value_of_the_surface(page):
    plot = drawn(page, SURFACE)
    page.evaluate(
        "plot => document.querySelector(plot)"
        ".on('plotly_hover', event => { window.hovered = event.points[0]; })",
        plot,
    )
    box = page.locator(plot).bounding_box()
    assert box
    for dx in range(0, 60, 4):
        page.mouse.move(box["x"] + box["width"] / 2 - 60 + dx, box["y"] + box["height"] / 2 + 40)
        frames(page, 4)
        if page.evaluate("Boolean(window.hovered)"):
            break
    page.wait_for_function("() => window.hovered")
    x, y, z = page.evaluate("[hovered.x, hovered.y, hovered.z]")
    loss_surface: Any = load("loss_surface")
    cost = np.mean((x * loss_surface.X + y - loss_surface.Y) ** 2) / 2
    np.testing.assert_allclose(z, cost, rtol=1e-4)
    label = page.locator(f"{plot} .hovertext").first.text_content() or ""
    assert "w: " in label
    assert "b: " in label
    assert "loss J: " in label


def test_buttons_switch_between_the_scales_and_the_contours(page):
    drawn(page, SURFACE)
    kinds = "gd._fullData.filter(t => t.visible === true).map(t => t.type).join()"
    height = "gd._fullLayout.scene?.zaxis.type"
    assert (inside(page, SURFACE, kinds), inside(page, SURFACE, height)) == ("surface", "linear")
    press(page, SURFACE, "3-D, log")
    until(page, SURFACE, f"{height} === 'log'")
    assert colours(page, f"{SURFACE} canvas") > 100
    press(page, SURFACE, "contour")
    until(page, SURFACE, f"{kinds} === 'contour'")
    assert page.locator(f"{SURFACE} .contourlayer path").count() > 5
    press(page, SURFACE, "contour, log")
    until(
        page,
        SURFACE,
        f"{kinds} === 'contour' && gd._fullData.find(t => t.visible).coloraxis === 'coloraxis2'",
    )
    press(page, SURFACE, "3-D")
    until(page, SURFACE, f"{kinds} === 'surface' && {height} === 'linear'")
    page.wait_for_selector(f"{SURFACE} canvas")
    pressed = page.locator(f"{SURFACE} .controls button[aria-pressed=true]").all_inner_texts()
    assert pressed == ["3-D"]


def test_a_figure_is_saved_as_a_picture_and_fills_the_screen(page):
    drawn(page, PLAYED)
    with page.expect_download() as download:
        press(page, PLAYED, "Save PNG")
    assert download.value.suggested_filename == f"{PLAYED[1:]}.png"
    assert colours_of(download.value.path().read_bytes()) > 100
    press(page, PLAYED, "Full screen")
    page.wait_for_function(f"() => document.fullscreenElement?.id === '{PLAYED[1:]}'")
    until(page, PLAYED, "gd.querySelector('.main-svg').clientHeight > 0.75 * innerHeight")
    press(page, PLAYED, "Full screen")
    page.wait_for_function("() => document.fullscreenElement === null")


def test_a_zoomed_figure_is_put_back(page):
    drawn(page, PLAYED)
    span = "gd._fullLayout.xaxis.range[1] - gd._fullLayout.xaxis.range[0]"
    whole = inside(page, PLAYED, span)
    plot = page.locator(f"{PLAYED} .nsewdrag").first.bounding_box()
    assert plot
    page.mouse.move(plot["x"] + 40, plot["y"] + 40)
    page.mouse.down()
    page.mouse.move(plot["x"] + 120, plot["y"] + 120, steps=4)
    page.mouse.up()
    until(page, PLAYED, f"{span} < {whole} / 2")
    press(page, PLAYED, "Reset view")
    until(page, PLAYED, f"Math.abs({span} - {whole}) < 1e-6")


def test_play_moves_the_path_and_the_losses_and_pause_stops_both(page):
    drawn(page, PLAYED)
    length = "gd._fullData.slice(-4)[0].x.length"
    press(page, PLAYED, "Play")
    until(page, PLAYED, f"{length} > 3 && {length} < 60")
    press(page, PLAYED, "Pause")
    frames(page, 10)
    stopped = inside(page, PLAYED, length)
    step = page.locator(f"{PLAYED} output").inner_text()
    frames(page, 20)
    assert inside(page, PLAYED, length) == stopped
    assert page.locator(f"{PLAYED} output").inner_text() == step
    # The curve of the losses has come as far, and the head stands at the step that is told.
    tips = inside(
        page, PLAYED, "gd._fullData.slice(-4).map(t => [t.x.length, t.x[t.x.length - 1]])"
    )
    assert [n for n, _ in tips] == [stopped, stopped, 1, 1]
    assert f"step {tips[-1][1]}" == step


def test_the_slider_is_moved_by_the_keyboard(page):
    drawn(page, PLAYED)
    slider = page.locator(f"{PLAYED} input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    until(page, PLAYED, "gd._fullData.slice(-1)[0].x[0] === 0")
    assert slider.get_attribute("aria-valuetext") == "step 0"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    until(page, PLAYED, "gd._fullData.slice(-1)[0].x[0] === 3")
    bias, weight = inside(
        page, PLAYED, "[gd._fullData.slice(-2)[0].x[0], gd._fullData.slice(-2)[0].y[0]]"
    )
    experiment: Any = load("gradient_descent")
    by_hand = np.ones(2)
    for _ in range(3):
        error = by_hand[0] + by_hand[1] * experiment.X - experiment.Y
        by_hand -= 0.01 * np.array([error.mean(), (error * experiment.X).mean()])
    np.testing.assert_allclose([bias, weight], by_hand, rtol=1e-5)


def test_a_chain_is_played_stage_by_stage(page):
    drawn(page, CHAIN)
    slider = page.locator(f"{CHAIN} input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    texts = f"[...document.querySelectorAll('{CHAIN} .textpoint text')].map(t => t.textContent)"
    page.wait_for_function(f"() => !({texts}).includes('4')")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"() => ({texts}).includes('4') && ({texts}).includes('Forwards: a = 4')"
    )
    assert not {"0.4247", "1.177"} & set(page.evaluate(texts))
    press(page, CHAIN, "Play")
    page.wait_for_function(f"() => ({texts}).includes('Forwards: b = 1.386')")
    press(page, CHAIN, "Pause")
    slider.focus()
    page.keyboard.press("End")
    last = ["The error back: x is off by -2.243", "0.4247", "0.1062", "1.177"]
    # Plotly draws a frame trace by trace.
    page.wait_for_function(f"() => {last}.every(text => ({texts}).includes(text))")


def test_the_tables_hold_the_computed_numbers(page, built):
    experiment: Any = load("gradient_descent")
    for name in ("gradient_descent", "nonlinear_backprop"):
        for table in page.locator(f"#{name} > .scroll table").all():
            title = table.locator("caption").text_content() or ""
            cells = [row.locator("th, td").all_text_contents() for row in table.locator("tr").all()]
            rendered = report.render(report.Table(title, cells[0], cells[1:]))
            assert rendered in built.said
    fit = page.locator("#gradient_descent > .scroll table").first.locator("tbody tr").all()
    bias, weight = np.linalg.lstsq(
        np.stack([np.ones(20), experiment.X], 1), experiment.Y, rcond=None
    )[0]
    assert fit[-1].locator("td").all_text_contents()[2:4] == [f"{bias:.8f}", f"{weight:.8f}"]
    shown = page.locator("#numbers tbody tr")
    assert shown.count() == len(re.findall(r"^(?:N|L|NL|G|V|LF)\d\d ", built.said, re.MULTILINE))
    row = page.locator("#numbers tbody tr", has_text="NL12")
    assert row.locator(".badge").inner_text() == "erratum"
    assert "9.6557064" in (row.text_content() or "")


def test_search_filters_sections_and_rows_and_errata_can_be_shown_alone(page):
    visible = (
        "[...document.querySelectorAll('section.experiment')]"
        ".filter(section => !section.hidden).map(section => section.id)"
    )
    page.keyboard.press("Tab")
    page.locator("#search").fill("NL12")
    assert page.evaluate(visible) == ["nonlinear_backprop", "numbers"]
    assert page.locator("#numbers tbody tr:visible").count() == 1
    assert page.locator("#found").inner_text() == "2 sections, 2 rows"
    page.locator("#search").fill("warm colour")
    assert page.evaluate(visible) == ["neuron"]
    page.locator("#search").fill("no such thing")
    assert page.locator("#found").inner_text() == "Nothing found"
    page.locator("#search").fill("")
    assert page.evaluate(visible) == [*NAMES, "numbers"]
    every = page.locator("#numbers tbody tr:visible").count()
    page.locator("#errata").click()
    alone = page.locator("#numbers tbody tr:visible")
    assert 0 < alone.count() < every
    assert set(alone.locator(".badge").all_inner_texts()) == {"erratum"}
    page.locator("#errata").click()
    assert page.locator("#numbers tbody tr:visible").count() == every


def test_the_contents_jump_to_a_section(page):
    link = page.locator("nav a[href='#loss_surface']")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => Math.abs(document.querySelector('#loss_surface').getBoundingClientRect().top) < 200"
    )
    assert page.evaluate("document.activeElement.id") == "loss_surface-title"


def test_what_is_read_stays_in_sight_while_a_search_shortens_the_page(page):
    # A page that scrolls smoothly goes on to where the search was, far below what is left of it.
    drawn(page, PLAYED)
    top = "document.querySelector('#gradient_descent-0').getBoundingClientRect().top"
    for words in ("学习率", ""):
        page.locator("#search").fill(words)
        frames(page, 30)
        assert 0 < page.evaluate(top) < 640


def test_the_people_of_the_chain_fill_the_notes_table(page, built):
    people = played_by_hand(page, "#nonlinear_backprop-play-0")
    people.locator("#all").click()

    with jax.enable_x64(True):  # as the page was built
        results: Any = load("nonlinear_backprop").compute()
    rows = people.locator("#rows tr").all()
    forwards = [[float(c) for c in row.locator("td").all_inner_texts()] for row in rows[:4]]
    steps = int(results.solution.num_steps) + 1
    wanted = [np.asarray(values)[:steps] for values in results.corrections.primals]
    np.testing.assert_allclose(forwards, wanted, rtol=1e-4)
    assert "after 4 updates" in people.locator("#said").inner_text()


@pytest.mark.parametrize("start", ["1", "0.5", "0"])
def test_from_one_or_below_the_people_say_that_there_is_no_way(page, start):
    people = played_by_hand(page, "#nonlinear_backprop-play-0")
    people.locator("#start").fill(start)
    people.locator("#step").click()

    assert "No way from here" in people.locator("#said").inner_text()
    assert people.locator("#step").is_disabled()


def test_the_rates_of_the_note_are_tried_by_hand(page):
    points = played_by_hand(page, "#gradient_descent-play-0")
    points.locator("#rate-value").wait_for()
    ends = {}
    for rate in ("0.0138", "0.0139"):
        points.locator("#rate-value").fill(rate)
        points.locator("#rate-value").press("Enter")
        ends[rate] = points.locator("body").evaluate(
            "() => jaxgd.run({rate: Number(document.getElementById('rate-value').value),"
            " steps: 10000, start: [0, 0]}).status"
        )
    assert ends == {"0.0138": "MAX_STEPS", "0.0139": "DIVERGED"}
