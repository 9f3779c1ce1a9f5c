"""The notebooks run from top to bottom, and what they show is there."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """By notebook, everything that its cells said and showed.

    One kernel runs them all, as each would import JAX anew; no name outlives its notebook.
    """
    notebooks = {path.stem: read(path) for path in NOTEBOOKS}
    joined = nbformat.v4.new_notebook()
    for notebook in notebooks.values():
        joined.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebooks"))}}
    NotebookClient(joined, timeout=240, resources=resources).execute()
    return {
        stem: [output for cell in notebook.cells for output in cell.get("outputs", [])]
        for stem, notebook in notebooks.items()
    }


def texts(outputs):
    return "".join(output.get("text", "") for output in outputs)


def kinds(outputs):
    return [kind for output in outputs for kind in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_outputs(path):
    notebook = read(path)

    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notes_descent_finds_the_limit_of_the_rate(shown):
    said = texts(shown["descent"])

    assert "2 / sharpness = 0.0138" in said
    assert "rate 0.0139: DIVERGED" in said
    assert "image/png" in kinds(shown["descent"])


def test_a_network_is_swept_with_a_bar_and_can_be_turned(shown):
    assert "100%" in texts(shown["surface"])
    assert "application/vnd.plotly.v1+json" in kinds(shown["surface"])


def test_a_notebook_shows_playgrounds(shown):
    data = [output.get("data", {}) for output in shown["playground"]]
    pages = [found["text/html"] for found in data if "text/html" in found]

    assert len(pages) == 3
    assert all(page.startswith("<iframe srcdoc=") for page in pages)
