"""What the README shows runs as it stands and prints what it says."""

import io
import os
import pathlib
import re
import socket
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout

import jax
import pytest

import jaxgd
from experiments import NAMES

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_python_block_of_the_readme_runs_and_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    # What is promised stands after a print, or in the comment lines below the last one.
    promised = re.findall(r"^(?:\s*print\(.*\)  )?# (.*)$", code, re.MULTILINE)
    assert len(promised) >= code.count("print(")
    printed = io.StringIO()
    # The README is read by people who have not asked jax to refuse rank promotion.
    with redirect_stdout(printed), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().splitlines() == promised


def test_the_job_of_the_readme_runs_as_printed_in_two_processes(tmp_path):
    (script,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
    (tmp_path / "job.py").write_text(script, encoding="utf-8")
    assert "$ python job.py localhost:9911 2 0 & python job.py localhost:9911 2 1\n" in README
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "job.py", address, "2", rank], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for rank, (out, _) in enumerate(outputs):
        assert f"{rank} of 2: (40, 30)\n" in out
    assert "1.20k/1.20k" in outputs[0][1] or "600/600" in outputs[0][1]
    assert (tmp_path / "heights.zarr" / "computed").is_dir()


def test_the_two_commands_stand_each_alone_on_a_line_of_a_code_block():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert blocks[:2] == [
        'pip install -e ".[experiments]" && python -m experiments\n',
        'pip install -e ".[test]" && pytest -n auto --dist loadfile\n',
    ]


@pytest.mark.parametrize("picture", re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
def test_every_picture_of_the_readme_is_there_and_small(picture):
    path = ROOT / picture
    kind, most = {".png": (b"\x89PNG", 200_000), ".gif": (b"GIF89a", 1_000_000)}[path.suffix]
    assert path.read_bytes().startswith(kind)
    assert path.stat().st_size < most


ROOMS_IN_FULL = (
    "neurons",
    "chains",
    "descent",
    "curvature",
    "planes",
    "curves",
    "surfaces",
    "sweeps",
)


@pytest.mark.parametrize("room", ROOMS_IN_FULL)
def test_the_map_of_rooms_names_what_is_public(room):
    (row,) = re.findall(rf"^\| `jaxgd\.{room}` \|[^|]*\|(.*)\|$", README, re.MULTILINE)
    public = {
        name
        for name, value in vars(getattr(jaxgd, room)).items()
        if callable(value)
        and not name.startswith("_")
        and f"{value.__module__}.".startswith(f"jaxgd.{room}.")
    }

    named = set(re.findall(r"`(\w+)`", row))

    assert public <= named, public - named
    assert all(hasattr(getattr(jaxgd, room), name) for name in named)


def test_the_errata_of_the_note_are_listed():
    table = (ROOT / "experiments/note/ERRATA.md").read_text(encoding="utf-8")

    assert len(re.findall(r"^\| (?!where)", table, re.MULTILINE)) == 33


def test_the_readme_shows_experiments_that_exist():
    shown = re.findall(r"`(\w+)`: ", README)

    assert len(shown) >= 8
    assert set(shown) <= set(NAMES)


@pytest.mark.parametrize("link", re.findall(r"\]\((experiments/[^)]+\.md)\)", README))
def test_every_page_that_the_readme_leads_to_is_there(link):
    assert (ROOT / link).read_text(encoding="utf-8").startswith("# ")


def test_the_readme_says_which_versions_of_jax_are_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bounds,) = (each for each in project["dependencies"] if each.startswith("jax>"))
    oldest = (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8")

    assert bounds == "jax>=0.10.2,<0.13"
    assert "jaxgd runs on JAX 0.10.2 to 0.12" in README
    assert "\njax==0.10.2\n" in oldest


def test_the_oldest_versions_tested_are_the_lower_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["test"], *extras["experiments"], *extras["tour"]]
    needed += [*extras["interactive"], *extras["store"], *extras["topology"]]
    found = re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(needed), re.MULTILINE)
    bounds: dict[str, str] = dict(found)
    lines = (ROOT / ".ci/oldest.txt").read_text(encoding="utf-8").splitlines()
    tested = {line.split("==")[0]: line.split("==")[1] for line in lines}

    def padded(version: str) -> list[str]:
        return [*version.split("."), "0", "0"][:3]

    assert len(bounds) >= 19
    assert {name: padded(tested[name]) for name in bounds} == {
        name: padded(bound) for name, bound in bounds.items()
    }


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxgd.__version__)
