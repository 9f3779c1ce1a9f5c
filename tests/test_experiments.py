"""The experiments reproduce the note, and the runner says so."""

import importlib
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import NAMES, load
from experiments.__main__ import main
from experiments.data import colours as named_colours
from experiments.note import loss_surface
from experiments.shell import languages, report


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        check=False, capture_output=True, text=True, timeout=1800, cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(request, tmp_path_factory):
    """The command with nothing left out; with ``--whole-run`` alone, since it takes minutes."""
    if not request.config.getoption("--whole-run"):
        pytest.skip("all experiments at their full length: pytest --whole-run")
    out = tmp_path_factory.mktemp("results")
    return run("--gallery", "--out", str(out)), out


def test_what_every_experiment_expects_holds_with_one_command(whole_run):
    process, out = whole_run
    assert process.returncode == 0, process.stderr
    assert "expectations, all of which hold." in process.stdout
    others = len(NAMES) - 1
    assert f"The pictures: {out}/neuron.png and {others} more beside it." in process.stdout
    for index, name in enumerate(NAMES, start=1):
        assert f"[{index}/{len(NAMES)}] {name}: " in process.stdout
        picture = out / f"{name}.png"
        assert picture.stat().st_size > 20_000


def test_the_whole_gallery_is_small_and_lacks_no_text_in_any_language(whole_run):
    page = (whole_run[1] / "index.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 16e6
    assert re.findall(r"data-lacks[^>]*>[^<]*", page) == []


def test_the_terminal_speaks_chinese(capsys, tmp_path):
    assert main(["linear_backprop", "--lang", "zh", "--out", str(tmp_path)]) == 0

    told = capsys.readouterr().out
    assert "1 个实验，双核机器上大约需要 5 秒。" in told
    assert "要使 z = (2w + 3b)(2b + 1) 等于 150，w 和 b 应改变多少？" in told
    assert "12 个数值：7 个重新计算后一致，2 个是勘误" in told
    assert "3 个预期，全部成立。" in told


def test_columns_with_chinese_words_are_aligned():
    table = report.Table("t", ("quantity", "value"), [("学习率", 0.5), ("w", 12.25)])

    assert report.render(table).splitlines()[1:] == [
        "quantity  value",
        "--------  -----",
        "学习率      0.5",
        "w         12.25",
    ]


def test_a_text_with_gaps_is_translated_with_what_stands_in_them():
    told = languages.translate("one outlier ruins the squared hinge", "zh")

    assert told == "一个离群点毁掉平方合页损失"
    assert languages.translate("nobody has translated this", "zh") == "nobody has translated this"
    assert languages.find("nobody has translated this", "zh") is None
    # A template does not swallow a text that has no translation of its own.
    assert languages.find("rate", "zh") == "学习率"
    assert languages.find("rate and cost", "zh") == "学习率 和 代价"
    for half in ("rate and nobody", "nobody of the rate", "nobody and cost and rate"):
        assert languages.find(half, "zh") is None
        assert languages.translate(half, "zh") == half
    # A name in a gap stays as it is, and sentences are translated one by one, or not at all.
    assert languages.find("The numbers: my/own file.", "zh") == "数值：my/own file。"
    assert languages.find("The rate. The numbers: a/b.", "zh") is None
    assert languages.find("The numbers: a/b. The numbers: c.", "zh") == "数值：a/b。数值：c。"
    assert languages.translate("SGD", "zh") == languages.translate("SGD", "en") == "SGD"


def test_every_translation_uses_each_gap_of_its_text():
    texts = json.loads((languages.FOLDER / "texts.zh.json").read_text(encoding="utf-8"))

    assert len(texts) > 300
    for text, translation in texts.items():
        gaps, num_gaps = re.findall(r"\{(\d)\}", translation), len(languages.GAP.findall(text))
        assert set(gaps) <= {str(i) for i in range(num_gaps)}, text
        assert bool(gaps) == (num_gaps > 0), text


def test_into_the_default_folder_go_experiments_whose_data_are_there_and_others_say_what_to_install(
    tmp_path,
):
    # From a folder of its own: the package is installed, the experiments are found by path.
    code = "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.datasets'] = None;"
    code += "sys.path.insert(0, sys.argv[1]); "
    code += "sys.argv[1:] = ['linear_backprop', 'network_surface'];"
    code += "from experiments.__main__ import main; sys.exit(main())"
    root = str(report.NUMBERS_FILE.parent.parent.parent)
    process = subprocess.run(
        [sys.executable, "-c", code, root],
        check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "results" / "linear_backprop.png").exists()
    assert "12 numbers" in process.stdout
    assert 'left out: no sklearn.datasets here: pip install -e ".[experiments]"' in process.stdout


def test_the_list_names_every_experiment_with_its_question(capsys):
    assert main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(line.endswith("?") for line in lines)


def test_the_help_says_what_the_note_is(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])

    told = " ".join(capsys.readouterr().out.split())
    assert "a study note in Chinese" in told
    assert "ai-edu" in told


def test_an_unknown_name_is_answered_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["neurons"])

    told = f"no experiment named neurons; known: {', '.join(NAMES)}; bench"
    assert told in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_in_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")

    assert main(["neuron", "--out", str(tmp_path / "file" / "results")]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write to" in line


def test_an_expectation_that_does_not_hold_is_printed_and_makes_the_command_fail(
    monkeypatch, capsys, tmp_path
):
    experiment = load("linear_backprop")
    monkeypatch.setattr(
        experiment,
        "expectations",
        lambda results: [
            report.Expectation("the start is there", f"{results.trace.primals[-1]:g}", True),
            report.Expectation("pigs fly", "not today", False),
        ],
    )

    assert main(["linear_backprop", "--out", str(tmp_path)]) == 1

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "the start is there 162 yes" in lines
    assert "pigs fly not today NO" in lines
    assert "2 expectations, all but 1 of which hold." in lines
    assert "does not hold: pigs fly (not today)" in lines


def test_a_number_that_is_off_makes_the_command_fail(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(load("linear_backprop"), "numbers", lambda results: {"L05": 161})

    assert main(["linear_backprop", "--out", str(tmp_path)]) == 1

    assert "0 given by it and not computed, 1 off." in capsys.readouterr().out


def test_a_crash_leaves_no_empty_numbers_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(load("linear_backprop"), "tables", lambda results: results.nothing)

    with pytest.raises(AttributeError, match="nothing"):
        main(["linear_backprop", "--out", str(tmp_path)])

    assert list(tmp_path.iterdir()) == []


def test_an_experiment_may_do_without_numbers_and_expectations(monkeypatch, capsys, tmp_path):
    experiment = load("linear_backprop")
    monkeypatch.delattr(experiment, "numbers")
    monkeypatch.delattr(experiment, "expectations")

    assert main(["linear_backprop", "--out", str(tmp_path)]) == 0

    assert [path.name for path in tmp_path.iterdir()] == ["linear_backprop.png"]
    assert capsys.readouterr().out.endswith(f"The pictures: {tmp_path}/linear_backprop.png.\n")


def test_the_races_write_their_figures(monkeypatch, capsys, tmp_path):
    bench = importlib.import_module("experiments.bench")
    table = report.Table("A race", ("way", "milliseconds"), [("ours", 1.5), ("theirs", 3)])
    monkeypatch.setattr(bench, "main", lambda show: show(table))

    assert main(["bench", "--out", str(tmp_path)]) == 0

    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "## A race\n\n| way | milliseconds |\n| --- | ---: |\n| ours | 1.5 |\n" in page
    assert f"JAX {jax.__version__}" in page
    assert "theirs" in capsys.readouterr().out


def test_a_map_of_any_size_is_swept_drawn_and_resumed(capsys, tmp_path):
    store = tmp_path / "store"
    command = ["sweep", "--map", "trainability", "--size", "9", "--store", str(store), "--seed",
               "1", "--out", str(tmp_path), "--batch-size", "4"]  # fmt: skip
    assert main(command) == 0
    first = capsys.readouterr()
    assert "trainability, 9 x 9 points" in first.out
    assert "81.0/81.0" in first.err
    picture = tmp_path / "sweep_trainability.png"
    assert picture.stat().st_size > 20_000
    picture.unlink()
    lost, *kept = sorted((store / "computed" / "c").glob("*/*"))
    times = [file.stat().st_mtime_ns for file in kept]
    lost.unlink()

    assert main(command) == 0

    assert capsys.readouterr().out == first.out
    assert picture.exists()
    assert lost.exists()
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert main([*command[:-1], "5"]) == 2
    told = capsys.readouterr().err
    assert "store must belong to this sweep" in told
    assert "its batch_size, 4" in told


def test_the_map_of_the_digits_has_a_loss_and_an_accuracy(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(load("network_surface"), "NUM_STEPS", 5)
    assert main(["sweep", "--map", "digits", "--size", "3", "--out", str(tmp_path)]) == 0

    table = capsys.readouterr().out.splitlines()
    assert table[0] == "digits, 3 x 3 points"
    assert [line.split()[0] for line in table[3:5]] == ["accuracy", "loss"]
    assert (tmp_path / "sweep_digits.png").stat().st_size > 20_000


@pytest.mark.parametrize(("option", "least"), [("--size", 2), ("--seed", 0)])
def test_a_sweep_of_a_senseless_size_is_refused(capsys, option, least):
    with pytest.raises(SystemExit):
        main(["sweep", option, str(least - 1)])
    assert f"{option} must be at least {least}, got {least - 1}" in capsys.readouterr().err


def test_a_negative_seed_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--seed", "-1"])
    assert "--seed must be at least 0, got -1" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_keeps_to_the_protocol(name):
    experiment = load(name)
    assert experiment.__doc__
    assert experiment.__doc__.splitlines()[0].endswith("?")
    assert "xpect" in experiment.__doc__
    for part in ("compute", "tables", "draw"):
        assert callable(getattr(experiment, part))
    assert len(experiment.FIGURE_SIZE) == 2
    optional = {"numbers", "expectations", "interactive", "large_map"}
    public = {
        part
        for part, value in vars(experiment).items()
        if part in optional and value.__module__ == experiment.__name__
    }
    assert public == optional & set(vars(experiment))


def computed_for(record, change=0.0):
    return {record["id"]: np.asarray(record["exact_value"]) + change}


@pytest.mark.parametrize(
    "record", [r for r in report.records() if r["id"] in ("L10", "NL09", "G09")]
)
def test_a_number_that_is_off_is_called_off(record):
    (verdict,) = report.verdicts(computed_for(record))
    assert verdict.kind == ("not stated" if record["seed_value"] is None else "match")
    (verdict,) = report.verdicts(computed_for(record, change=2 * record["tolerance"] + 1e-11))
    assert verdict.kind == "OFF"


def test_the_note_value_of_an_erratum_is_called_off():
    (verdict,) = report.verdicts({"NL12": 9.665})
    assert verdict.kind == "OFF"
    (verdict,) = report.verdicts({"NL12": 9.655706402390724})
    assert verdict.kind == "erratum"
    assert "9.656" in verdict.reason


def test_a_list_of_the_wrong_length_and_a_word_are_called_off():
    assert report.verdicts({"V07": [200]})[0].kind == "OFF"
    assert report.verdicts({"N06": "b=t"})[0].kind == "OFF"
    with pytest.raises(KeyError, match="no record X1"):
        report.verdicts({"X1": 0})


def test_a_given_of_the_note_is_called_given_and_one_that_is_off_is_called_off():
    assert report.verdicts({"L01": 3.0})[0].kind == "given"
    assert report.verdicts({"L01": 4.0})[0].kind == "OFF"


def test_the_kinds_of_numbers_are_counted_in_a_sentence():
    verdicts = report.verdicts(
        {"L01": 3, "NL12": 9.655706402390724, "V06": 40, "V01": 7, "L03": 18}
    )

    assert report.count(verdicts) == (
        "5 numbers of the note: 1 recomputed and equal (match), 1 errata, 1 not stated in it, "
        "1 given by it and not computed, 1 off."
    )


def test_every_error_of_the_note_has_its_reason():
    records = report.records()
    wrong = {record["id"] for record in records if "SEED-ERROR" in record["note"]}

    assert len(wrong) == 7
    assert wrong < {record["id"] for record in records if "erratum" in record}


def test_the_tables_of_three_decimals_hold_in_float32_too():
    nonlinear = load("nonlinear_backprop")
    linear = load("linear_backprop")
    results = nonlinear.compute()
    assert results.solution.outputs.dtype == np.float32
    computed = nonlinear.numbers(results) | linear.numbers(linear.compute())
    # The analytic solution is printed to more digits than float32 holds of an exponential.
    for verdict in report.verdicts(computed):
        tolerance = verdict.record["tolerance"]
        if isinstance(verdict.value, str) or tolerance is None:
            continue
        wanted, value = float(verdict.record["exact_value"]), float(verdict.value)
        assert abs(value - wanted) <= max(tolerance, 4e-7 * abs(wanted)), verdict.record["id"]


def test_all_forty_published_losses_come_out_of_the_stand_in_data():
    with jax.enable_x64(True):
        results = loss_surface.compute()
    corners = np.ix_((0, 1, 2, -3, -2, -1), (0, 1, 2, -3, -2, -1))
    grid = np.asarray(results.near.values)[corners]
    assert (np.round(grid, 2) == loss_surface.PUBLISHED_GRID).all()
    for bias, printed in loss_surface.PUBLISHED_LINES.items():
        digits = len(printed.split(".")[1])
        assert round(float(results.lines[bias]), digits) == float(printed)
    assert results.largest_difference < 1e-12


def test_no_colour_is_in_the_training_and_in_the_test_set():
    colours = named_colours.load()
    assert len({tuple(rgb) for rgb in colours.rgb}) == len(colours.names)
    train, test = named_colours.split(colours, seed=0)
    assert not set(train) & set(test)
    assert not np.isnan(colours.warm[np.concatenate([train, test])]).any()
    of = dict(zip(colours.names, colours.warm, strict=True))
    assert (of["orange"], of["red"], of["blue"], of["teal"]) == (1, 1, 0, 0)
    assert np.isnan(of["dimgray"] if "dimgray" in of else of["dimgrey"])
