"""``python -m experiments play``: formulas are read and not run; files and data become a page."""

import json
import math
import re
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from py_mini_racer import MiniRacer

from experiments.__main__ import main
from experiments.shell import expressions


@pytest.fixture(autouse=True)
def _precision():
    """The command switches float64 on for its process; the tests go on as they were."""
    yield
    jax.config.update("jax_enable_x64", False)


def engine_of(path):
    [script] = re.findall(
        r'<script class="engine">(.*?)</script>', path.read_text("utf-8"), re.DOTALL
    )
    machine = MiniRacer()
    machine.eval(script)
    return lambda expression: json.loads(str(machine.eval(f"JSON.stringify({expression})")))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("text", "witness"),
    [
        ("x**2 + sin(y)**2", lambda x, y: x**2 + math.sin(y) ** 2),
        ("-x ** 2 / (y - 3)", lambda x, y: -(x**2) / (y - 3)),
        ("exp(-x) * log(y + e) - pi", lambda x, y: math.exp(-x) * math.log(y + math.e) - math.pi),
        ("x if x < y else y * 2", lambda x, y: x if x < y else y * 2),
        ("where(0 < x < 1 and not y > 2, 1.5, x)", lambda x, y: 1.5 if 0 < x < 1 and y <= 2 else x),
        ("max(x, y) % 0.3 + x // 0.2", lambda x, y: max(x, y) % 0.3 + x // 0.2),
        ("2 ** -x + abs(y) ** 0.5", lambda x, y: 2**-x + abs(y) ** 0.5),
        ("(x - 1) ** -3", lambda x, _: (x - 1) ** -3),
        ("hypot(x, arctan2(y, x))", lambda x, y: math.hypot(x, math.atan2(y, x))),
    ],
)  # fmt: skip
def test_a_formula_means_what_it_says(text, witness):
    variables, function = expressions.parse(text)

    for x, y in ((0.7, 1.2), (-0.4, 0.3), (1.6, 2.7)):
        values = {"x": jnp.float64(x), "y": jnp.float64(y)}
        assert set(variables) <= values.keys()
        assert float(function(values)) == pytest.approx(witness(x, y), rel=1e-13)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("__import__('os').system('true')", "got .__import__"),
        ("x.__class__", r"got 'x\.__class__' \(Attribute\)"),
        ("(lambda x: x)(y)", "Call"),
        ("[x for x in y]", "ListComp"),
        ("x[0]", "Subscript"),
        ("eval(x)", r"got 'eval\(x\)' \(Call\)"),
        ("sin(x, axis=0)", "Call"),
        ("sin(*x)", "Starred"),
        ("'a' * 9", "Constant"),
        ("x @ y", "BinOp"),
        ("x is y", "Compare"),
        ("(x := 3)", "NamedExpr"),
        ("sin + x", "Name"),
        ("x +", "as in Python, got 'x \\+'"),
        ("x; y", "as in Python"),
        ("x^2", r"a power must be written with \*\*, got 'x \^ 2'"),
        ("sin(x, y)", r"sin takes 1 number, got 2: 'sin\(x, y\)'"),
        ("max(x)", "max takes 2 numbers, got 1"),
        ("where(x > 0, x)", "where takes 3 numbers, got 2"),
        ("x" * 1001, "at most 1000 characters, got 1001"),
        ("(" * 300 + "x" + ")" * 300, "as in Python|so deeply"),
    ],
)
def test_a_text_that_is_no_formula_is_refused_and_never_run(text, got):
    with pytest.raises(ValueError, match=got):
        expressions.parse(text)


def test_a_huge_power_ends_at_once():
    _, function = expressions.parse("9**9**9**9**9 + x")

    assert float(function({"x": jnp.float32(1)})) == math.inf


def test_the_command_writes_a_page_of_a_formula_and_names_it(tmp_path, capsys):
    out = tmp_path / "new" / "page.html"

    assert main(["play", "w**2 + sin(b)**2", "--start", "0.5", "-1", "--out", str(out)]) == 0

    assert str(out) in capsys.readouterr().out
    ask = engine_of(out)
    found = ask("jaxgd.run({rate: 0.25, start: {w: -1, b: 0.5}, steps: 1}).path")
    assert found[1]["w"] == -0.5
    assert found[1]["b"] == pytest.approx(0.5 - 0.25 * math.sin(1.0))
    assert ask("jaxgd.engine.MODEL.axisNames") == ["b", "w"]
    assert ask("jaxgd.engine.MODEL.start") == [0.5, -1]
    rate = ask("jaxgd.engine.MODEL.rate")
    assert 0 < rate < 2 / 2


@pytest.mark.parametrize(
    ("unpacked", "start", "line"),
    [
        ("w, b = params", [0.1, 0.5], (0.1, 0.5)),
        ('w, b = params["w"], params["b"]', {"w": 0.1, "b": 0.5}, (0.1, 0.5)),
        ("w, b = params, 0.25", 0.1, (0.1, 0.25)),
    ],
)
@pytest.mark.parametrize("given", ["x, y", "data"])
def test_the_command_writes_a_page_of_a_function_of_a_file_and_its_data(
    tmp_path, unpacked, start, line, given
):
    columns = "" if given == "x, y" else "x, y = data.T"
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(f"""
            import jax.numpy as jnp

            def loss(params, {given}):
                {unpacked}
                {columns}
                return jnp.mean((w * x + b - y) ** 2)
        """)
    )
    lines = '# measured\n\n"x","y"\n"1",2.5\n\n-2; 0,5\n0.25\t-1,\n'
    (tmp_path / "points.csv").write_text(lines, encoding="utf-8-sig")
    out = tmp_path / "page.html"

    what = f"{tmp_path / 'mine.py'}:loss"
    assert main(["play", what, "--data", str(tmp_path / "points.csv"), "--out", str(out)]) == 0

    x, y = np.array([1, -2, 0.25]), np.array([2.5, 0.5, -1])
    w, b = line
    found = engine_of(out)(f"jaxgd.look({json.dumps(start)}).loss")
    assert found == pytest.approx(np.mean((w * x + b - y) ** 2), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x + y + z"], "one or two variables, got x, y, z"),
        (["3"], "one or two variables, got none"),
        (["x.y"], "got 'x.y'"),
        (["-x**2 > -1", "--start", "-2"], "a number, got true or false: -x\\*\\*2 > -1"),
        (["x**2", "--start", "nan"], r"--start must be finite numbers, got \[nan\]"),
        (["mine.py"], "the function must be named, too: mine.py:FUNCTION"),
        (["broken.py:loss"], "broken.py cannot be run: ModuleNotFoundError: No module named 'no'"),
        (["leaving.py:loss"], "leaving.py cannot be run: SystemExit: 3"),
        (["mine.py:loss", "--data", "nan.csv"], "line 1 of nan.csv must be finite numbers"),
        (["x**2", "--start", "1", "2"], "--start must be 1 numbers, one per variable, got 2"),
        (["x**2", "--data", "a.csv"], "--data goes with a function of a file"),
        (["x**2", "--rate", "-1"], "learning_rate must be above 0"),
        (["x**2", "--domain", "2", "1"], r"domains\[0\] must be \(low, high\)"),
        (["none.py:loss"], "no file none.py"),
        (["mine.py:other"], "must define a function 'other'"),
        (["mine.py:loss", "--data", "words.csv"], "line 2 of words.csv must be numbers, got 'a,b'"),
        (["mine.py:loss", "--data", "ragged.csv"], "line 2 of ragged.csv must have 2 numbers"),
        (["mine.py:loss", "--data", "empty.csv"], "empty.csv must hold lines of numbers"),
        (["mine.py:loss", "--start", "1", "2", "3"], "--start must be one or two numbers, got 3"),
        (["mine.py:loss"], "must take one number, two in an array, or w and b in a dict"),
        (["x**2", "--out", "mine.py/page.html"], "mine.py"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def loss(params, x, y): return params.nothing\n")
    (tmp_path / "broken.py").write_text("import no")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    (tmp_path / "nan.csv").write_text("1,nan\n")
    (tmp_path / "words.csv").write_text("1,2\na,b\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "empty.csv").write_text("\n# nothing\n")

    assert main(["play", *arguments]) == 2

    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1
