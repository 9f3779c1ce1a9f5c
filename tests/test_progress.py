"""Whoever waits for an experiment sees that it is running."""

import io
import threading

import pytest

from experiments.shell import progress


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal, and when it was first written to."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal, self.is_written = is_terminal, threading.Event()

    def isatty(self):
        return self.is_terminal

    def flush(self):
        self.is_written.set()


@pytest.mark.parametrize(("is_terminal", "start"), [(True, "\r    "), (False, "    ")])
def test_a_computation_says_how_long_it_has_run_and_how_long_it_usually_does(is_terminal, start):
    terminal = Terminal(is_terminal)

    with progress.ticking(66, period=0.01, out=terminal):
        assert terminal.is_written.wait(timeout=30)

    assert terminal.getvalue().startswith(f"{start}computing: 0 s of about 66 s")
    assert terminal.getvalue().endswith("\r\x1b[K" if is_terminal else "\n")


def test_a_computation_that_is_over_says_nothing_more():
    terminal = Terminal(False)

    with pytest.raises(ValueError, match="in vain"), progress.ticking(5, period=60, out=terminal):
        raise ValueError("in vain")

    assert terminal.getvalue() == ""
