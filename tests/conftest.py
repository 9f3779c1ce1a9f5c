"""What holds for every test: no silent broadcasting, the same inputs at every run, no leaks.

A test that needs a browser or FFmpeg takes the fixture ``browser`` or ``ffmpeg``. Where the
machine has none it is skipped and says why; with ``--require-all`` it fails instead. The tests
that run all experiments at their full length are run with ``--whole-run`` alone. With
``--optimized`` programs are compiled as users' are.
"""

import gc
import importlib.metadata
import math
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import NoReturn

import hypothesis
import jax
import jax.numpy as jnp
import pytest
from playwright.sync_api import Browser, sync_playwright

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(20_000, 20, 20)  # what is imported and traced is many small objects, not garbage

hypothesis.settings.register_profile("jaxgd", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("jaxgd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-all",
        action="store_true",
        help="a browser or FFmpeg that is missing fails the tests that need it",
    )
    parser.addoption(
        "--whole-run",
        action="store_true",
        help="run all experiments at their full length, too, which takes minutes",
    )
    parser.addoption(
        "--optimized",
        action="store_true",
        help="compile with all optimizations, as users do; it takes a quarter longer",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Compiles in a hurry: the programs of the tests take longer to compile than to run."""
    is_optimized = config.getoption("--optimized")
    jax.config.update("jax_disable_most_optimizations", not is_optimized)
    # XLA reads its flags once, when the first program is compiled. Later versions do not know this
    # one. Here it more than halves the time that the tests take.
    if not is_optimized and importlib.metadata.version("jaxlib").startswith("0.10."):
        flag = "--xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".lstrip()


MEMORY = 1.9e9
"""Bytes of a worker above which no file leaves what it compiled to the next."""

# The files that take longest. Where workers share the tests, file by file, these are taken first,
# so that no worker is left with one of them at the end.
LONGEST = (
    "gallery",
    "functions",
    "curvature",
    "training",
    "playground_page",
    "affine",
    "readme",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def is_short(item: pytest.Item) -> bool:
        return item.path.stem.removeprefix("test_") not in LONGEST

    items.sort(key=is_short)


def leave_out(config: pytest.Config, reason: str) -> NoReturn:
    """Skips a test that this machine cannot run, or fails it where all must run."""
    if config.getoption("--require-all"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> str:
    """The path of a Chromium: the system's, or the one that Playwright installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if not pathlib.Path(path).exists():
        leave_out(pytestconfig, "no Chromium here: playwright install --with-deps chromium")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A running Chromium, which draws WebGL without a graphics card."""
    software = ["--disable-gpu", "--enable-unsafe-swiftshader", "--no-sandbox"]
    software += ["--webgl-antialiasing-mode=none"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=software)
        yield running
        running.close()


@pytest.fixture(scope="session")
def ffmpeg(pytestconfig: pytest.Config) -> str:
    """The path of an FFmpeg: the system's, or the one that imageio-ffmpeg brings."""
    path = shutil.which("ffmpeg")
    if path is not None:
        return path
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ModuleNotFoundError, RuntimeError):
        leave_out(pytestconfig, "no FFmpeg here: pip install imageio-ffmpeg")


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test: ``@pytest.mark.usefixtures("x64")``."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def optimized(pytestconfig: pytest.Config) -> Iterator[None]:
    """All optimizations, from here to the end of a file: ``usefixtures("optimized")``.

    For what is true of the programs of users alone, as that two are equal to the last bit.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    pytest_configure(pytestconfig)


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    yield
    assert jnp.result_type(float) == jnp.float32


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_dropped() -> Iterator[None]:
    """What one file compiled is of little use to the next: it is kept while there is room."""
    yield
    if _peak_memory() > MEMORY:
        jax.clear_caches()


def _peak_memory() -> float:
    """The most bytes that this process has held, where the system says so."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return math.inf
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
