"""The playground in a real browser: it answers to hands, keys and fingers, and asks nobody."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from playwright.sync_api import Page

from jaxgd import descent, plots

VALLEY = lambda p: (p[0] ** 2 + 25 * p[1] ** 2) / 2  # noqa: E731
DRAWN = '#stage[data-drawn]:not([data-drawn=""])'


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    pages = {
        "valley": plots.playground(
            VALLEY, (2.0, 0.5), learning_rate=0.05, domains=[(-3, 3), (-1, 1)], title="a <valley>"
        ),
        "line": plots.playground(
            lambda p, x, y: jnp.mean((p[0] * x + p[1] - y) ** 2),
            (0.0, 0.0),
            jnp.array([1.0, 2.0, 3.0]),
            jnp.array([1.0, 3.0, 2.0]),
            learning_rate=0.05,
            predict_fn=lambda p, x: p[0] * x + p[1],
        ),
        "curve": plots.playground(lambda x: x**4 / 4 - x**2, 2.0, learning_rate=0.05),
        "pole": plots.playground(
            lambda p: 1 / (p[0] ** 2 + p[1] ** 2 - 1) + p[0] ** 2,
            (1.5, 0.5),
            learning_rate=0.02,
            domains=[(-3, 3), (-3, 3)],
        ),
        "out of its domain": plots.playground(jnp.log, 1.0, learning_rate=0.3),
    }
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


@pytest.fixture(scope="module")
def pages(browser):
    """Pages by their options, in which one file is opened after another, and what went wrong."""
    opened: dict[str, Page] = {}
    wrong: list[str] = []

    def page_of(**options: Any) -> Page:
        options.setdefault("viewport", {"width": 920, "height": 600})
        key = str(options)
        if key not in opened:
            opened[key] = page = browser.new_page(**options)
            page.set_default_timeout(120_000)  # milliseconds, for a machine with much to do
            page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", lambda request: wrong.append(request.url))
        return opened[key]

    yield page_of, wrong
    for page in opened.values():
        page.close()


@pytest.fixture
def opened(pages, files):
    """Opens a file anew; at the end no error and no request may have been seen."""
    page_of, wrong = pages

    def opened(name: str, **options: Any) -> Page:
        page = page_of(**options)
        page.goto(files[name])
        page.wait_for_selector(DRAWN)
        assert wrong.pop(0) == files[name]
        return page

    yield opened
    assert wrong == []


def runs(page) -> list[Any]:
    return page.evaluate("jaxgd.page.runs()")


def client(page, *point):
    return page.evaluate(f"jaxgd.page.toClient({', '.join(map(str, point))})")


def slide(page, name, place):
    """Moves a slider by keys and hand alike: to a place from 0 to 1000."""
    page.evaluate(
        "([id, place]) => { const s = document.getElementById(id); s.value = place;"
        " s.dispatchEvent(new Event('input')); }",
        [name, place],
    )


def steps_of(page, index=0):
    return page.evaluate(f"jaxgd.page.runs()[{index}].path.length - 1")


def test_the_page_opens_at_rest_with_its_first_start(opened):
    page = opened("valley")

    [run] = runs(page)
    assert (run["start"], run["path"]) == ([2, 0.5], [[2, 0.5]])
    assert page.title() == page.inner_text("h1") == "a <valley>"
    assert not page.evaluate("jaxgd.page.isPlaying()")
    assert page.evaluate("jaxgd.page.view()") == {"x": [-3, 3], "y": [-1, 1]}


def test_a_click_drops_a_start_that_descends_as_the_library_does(opened):
    page = opened("valley")

    page.mouse.click(*client(page, -1.5, 0.25))
    page.wait_for_function("jaxgd.page.runs()[1].path.length > 20")
    page.click("#play")

    run = runs(page)[1]
    np.testing.assert_allclose(run["start"], [-1.5, 0.25], atol=0.02)
    with jax.enable_x64(True):
        start = tuple(map(jnp.float64, run["start"]))
        descend = jax.jit(
            lambda start: descent.gradient_descent(VALLEY, start, learning_rate=0.05, num_steps=20)
        )
        trajectory = descend(start)
    np.testing.assert_allclose(
        run["path"][:21], np.stack(trajectory.path, 1), rtol=1e-12, atol=1e-15
    )
    assert run["isPicked"]
    assert page.evaluate("jaxgd.page.timings().click") < 50


@pytest.mark.usefixtures("x64")
def test_other_scripts_run_descents_in_the_page_by_name(opened):
    page = opened("valley")

    found = page.evaluate(
        "window.jaxgd.run({rule: 'adam', rate: 0.1, momentum: 0.9, start: [2, 0.5], steps: 50})"
    )

    trajectory = descent.optimize(VALLEY, (2.0, 0.5), optimizer=optax.adam(0.1), num_steps=50)
    np.testing.assert_allclose(found["path"], np.stack(trajectory.path, 1), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found["losses"], trajectory.losses, rtol=1e-12, atol=1e-13)
    assert found["status"] == descent.Status(int(trajectory.status)).name


def test_a_dragged_start_takes_its_descent_along(opened):
    page = opened("valley")
    for _ in range(3):
        page.click("#step")

    page.mouse.move(*client(page, 2, 0.5))
    page.mouse.down()
    page.mouse.move(*client(page, 1, -0.5), steps=3)
    page.mouse.up()

    [run] = runs(page)
    np.testing.assert_allclose(run["start"], [1, -0.5], atol=0.02)
    assert len(run["path"]) == 4
    np.testing.assert_allclose(run["path"][1], np.multiply(run["start"], [0.95, -0.25]), rtol=1e-12)


def test_dragging_where_no_start_is_drops_one_and_it_follows(opened):
    page = opened("valley")

    page.mouse.move(*client(page, -2, 0.8))
    page.mouse.down()
    page.mouse.move(*client(page, -1, 0.4), steps=3)
    assert len(runs(page)) == 2
    page.mouse.up()

    np.testing.assert_allclose(runs(page)[1]["start"], [-1, 0.4], atol=0.02)
    assert page.evaluate("jaxgd.page.isPlaying()")


def test_the_rate_is_turned_until_the_run_diverges_and_the_page_says_why(opened):
    page = opened("valley")
    for _ in range(4):
        page.click("#step")
    assert "0.08 = 2 / sharpness" in page.inner_text("#bound")

    slide(page, "rate", 600)  # 300 ** 0.2 times the rate that the page opened with
    page.click("#play")
    page.wait_for_function("!jaxgd.page.isPlaying()")

    [run] = runs(page)
    assert run["rate"] == pytest.approx(0.05 * 300**0.2, rel=1e-2)
    assert run["status"] == "DIVERGED"
    ratio = f"{run['rate'] / 0.08:.2g}"
    said = page.inner_text("#status")
    assert (
        said == f"diverged at step {len(run['path']) - 1}: the rate is {ratio} times 2 / sharpness"
    )


def test_step_reset_and_clear_do_what_they_say(opened):
    page = opened("valley")

    page.click("#step")
    page.click("#step")
    formula = page.inner_text("#now p >> nth=1")
    assert formula == "y ← y − η u = −0.125 − 0.05 × (−3.125) = 0.03125"
    page.click("#reset")
    assert steps_of(page) == 0
    page.click("#clear")
    assert runs(page) == []
    assert page.inner_text("#now") == "Drop a start on the picture."
    page.click("#play")
    page.wait_for_function("jaxgd.page.runs().length == 1")


def test_at_rest_nothing_is_drawn(opened):
    page = opened("valley")
    frames = """count => new Promise(done => {
        const next = () => count-- ? requestAnimationFrame(next) : done(); next(); })"""
    page.evaluate(frames, 3)
    page.evaluate(
        "() => { const canvas = CanvasRenderingContext2D.prototype, { setTransform } = canvas;"
        " window.drawings = 0; canvas.setTransform = function (...numbers) {"
        " window.drawings++; setTransform.apply(this, numbers); }; }"
    )

    page.evaluate(frames, 10)

    assert page.evaluate("drawings") == 0
    page.click("#step")
    assert page.evaluate("drawings") > 0


def test_each_rule_can_be_chosen_and_momentum_turned(opened):
    page = opened("valley")
    page.click("#step")
    for rule in page.evaluate("jaxgd.rules"):
        page.check(f"input[value={rule}]", force=True)
        assert runs(page)[0]["rule"] == rule
        assert page.is_enabled("#momentum") == (rule in {"momentum", "nesterov"})
    page.check("input[value=momentum]", force=True)

    slide(page, "momentum", 500)

    assert runs(page)[0]["momentum"] == pytest.approx(1 - 10**-1.5, rel=1e-3)


def test_everything_can_be_done_by_keys(opened):
    page = opened("valley")
    page.focus("#stage")

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_function("jaxgd.page.runs()[1].path.length > 3")
    x, y = runs(page)[1]["start"]
    assert x < 0 < y
    page.keyboard.press("Space")
    assert not page.evaluate("jaxgd.page.isPlaying()")
    page.keyboard.press("r")
    page.keyboard.press("s")
    assert [steps_of(page, k) for k in (0, 1)] == [1, 1]
    page.keyboard.press("+")
    assert page.evaluate("jaxgd.page.view().x[1]") == pytest.approx(3 * 0.7)
    page.keyboard.press("f")
    page.keyboard.press("Delete")
    assert len(runs(page)) == 1
    assert page.evaluate("jaxgd.page.view().x") == [-3, 3]


def test_the_wheel_zooms_around_the_hand(opened):
    page = opened("valley")
    page.mouse.move(*client(page, 1, 0.5))

    page.mouse.wheel(0, -200)

    page.wait_for_function("jaxgd.page.view().x[1] < 3")
    np.testing.assert_allclose(
        client(page, 1, 0.5), page.evaluate("jaxgd.page.toClient(1, 0.5)"), atol=1
    )
    low, high = page.evaluate("jaxgd.page.view().x")
    assert low > -3
    assert (1 - low) / (high - low) == pytest.approx(4 / 6, abs=0.01)


def test_runs_are_picked_and_removed_in_their_list(opened):
    page = opened("valley")
    for x in (-2, -1):
        page.mouse.click(*client(page, x, 0.8))
    page.click("#play")
    assert page.locator("#runs li").count() == 3

    page.click("#runs li:nth-child(2) .pick")
    assert [run["isPicked"] for run in runs(page)] == [False, True, False]
    page.click("#runs li:nth-child(1) .remove")

    assert [run["start"][0] for run in runs(page)] == pytest.approx([-2, -1], abs=0.02)


def test_ten_runs_at_once_leave_time_in_every_frame(opened):
    page = opened("valley")
    for k in range(12):
        page.mouse.click(*client(page, -2.5 + 0.4 * k, -0.8))
    page.evaluate("jaxgd.page.timings().frames.length = 0")
    page.wait_for_function("jaxgd.page.timings().frames.length > 15")

    assert len(runs(page)) == 10
    # Of 1/60 s. The median: a machine that does other things at times misses some frames.
    assert np.median(page.evaluate("jaxgd.page.timings().frames")) < 16


def test_a_curve_shows_its_tangent_and_newtons_parabola(opened):
    page = opened("curve")
    page.click("#step")
    x = runs(page)[0]["path"][1][0]

    page.check("#newton")

    newton = x - (x**3 - 2 * x) / (3 * x**2 - 2)
    assert f"Newton's step leads to {newton:.6g}" in page.inner_text("#now")
    page.mouse.click(*client(page, 1.0, 0.5))
    assert runs(page)[1]["start"] == pytest.approx([1.0], abs=0.02)


def test_pasted_columns_become_the_data(opened):
    page = opened("line")
    page.click("#own summary")
    for text, said in (("1 2\nx y", "Line 2 must be two numbers."), ("1 2", "At least two lines")):
        page.fill("#own-data", text)
        page.click("#own-apply")
        assert said in page.inner_text("#own-said")

    page.fill("#own-data", "0, 1\n2; 5\n\n4\t9\n")
    page.click("#own-apply")

    assert page.inner_text("#own-said") == "3 points."
    assert runs(page)[0]["losses"] == [pytest.approx((1 + 25 + 81) / 3)]
    page.fill("#rate-value", "0.09")
    page.press("#rate-value", "Enter")
    page.evaluate("jaxgd.page.run(400)")
    np.testing.assert_allclose(runs(page)[0]["path"][-1], [2, 1], atol=1e-3)
    page.click("#own-back")
    assert runs(page)[0]["losses"] == [pytest.approx((1 + 9 + 4) / 3)]


def test_the_page_speaks_chinese_too(opened):
    page = opened("valley")

    page.click("#language")

    assert page.get_attribute("html", "lang") == "zh"
    assert page.inner_text("#play") == "▶ 播放"
    assert "锐度" in page.inner_text("#bound")
    page.click("#language")
    assert page.inner_text("#play") == "▶ Play"


def test_every_text_is_there_in_both_languages():
    texts = {
        language: json.loads((plots_folder() / f"_playground_{language}.json").read_text("utf-8"))
        for language in ("en", "zh")
    }

    assert texts["en"].keys() == texts["zh"].keys()
    for key, english in texts["en"].items():
        holes = [sorted(text.split("{")[1:]) for text in (english, texts["zh"][key])]
        names = [[hole.split("}")[0] for hole in found] for found in holes]
        assert sorted(names[0]) == sorted(names[1]), key


def plots_folder():
    return pathlib.Path(plots.__file__).parent


def test_dark_is_the_systems_wish_and_can_be_turned(opened):
    page = opened("valley", color_scheme="dark")
    assert page.get_attribute("body", "data-theme") == "dark"

    page.click("#theme")

    assert page.get_attribute("body", "data-theme") == "light"
    assert page.inner_text("#theme") == "Dark"


def test_on_a_phone_nothing_is_cut_off_and_a_finger_drops_a_start(opened):
    page = opened("valley", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 34
    page.touchscreen.tap(*client(page, -1, 0.5))
    page.wait_for_function("jaxgd.page.runs().length == 2 && jaxgd.page.runs()[1].path.length > 3")
    page.close()  # what plays takes time in every frame


def test_the_page_works_within_a_frame_of_another(browser, files):
    page = browser.new_page()
    page.set_default_timeout(120_000)  # milliseconds, for a machine with much to do
    page.goto(files["curve"])
    source = page.evaluate("document.documentElement.outerHTML")
    page.set_content("<iframe width=800 height=600></iframe>")

    page.evaluate("(source) => { document.querySelector('iframe').srcdoc = source; }", source)

    frame = page.frame_locator("iframe")
    frame.locator("#step").click()
    assert "x ← x" in frame.locator("#now").inner_text()
    page.evaluate("frames[0].postMessage({jaxgd: {language: 'zh', theme: 'dark'}}, '*')")
    frame.locator("body[data-theme=dark]").wait_for()
    assert frame.locator("#step").inner_text() == "单步"
    assert not frame.locator("#language").is_visible()
    page.close()


def test_a_page_is_small():
    page = plots.playground(VALLEY, (2.0, 0.5), learning_rate=0.05)

    assert len(page.encode()) < 100_000
    assert "http" not in page.replace("http-equiv", "")


def test_values_beside_a_pole_do_not_flatten_the_rest(opened):
    page = opened("pole")

    low, high = (page.locator(f"#scale-{end}").inner_text() for end in ("low", "high"))
    assert -30 < float(low.replace("−", "-")) < -1
    assert 5 < float(high) < 20


def test_a_first_descent_that_leaves_the_domain_of_its_function_is_in_the_window(opened):
    page = opened("out of its domain")

    low, high = page.evaluate("jaxgd.page.view().x")
    # From 1 by x - 0.3 / x: 0.7, 0.271, and then below 0, where the logarithm is NaN.
    assert -1 < low < 0.271
    assert 1 < high < 2
