"""What a waiting reader sees: that an experiment still computes, and how long it usually does."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def ticking(
    usual_seconds: float, period: float | None = None, out: TextIO | None = None
) -> Iterator[None]:
    """Says every ``period`` seconds how long the body has been running.

    On a terminal one line is written again each second, and wiped at the end; elsewhere a line
    is added every ten seconds.

    Args:
      usual_seconds: how long the body takes on two cores.
      period: seconds between two lines.
      out: where to; standard error if None.

    Yields:
      Nothing.
    """
    stream = sys.stderr if out is None else out
    rewrites = stream.isatty()
    period = period or (1.0 if rewrites else 10.0)
    is_done, start = threading.Event(), time.monotonic()

    def tick() -> None:
        while not is_done.wait(period):
            line = f"    computing: {time.monotonic() - start:.0f} s of about {usual_seconds:.0f} s"
            stream.write(f"\r{line}" if rewrites else f"{line}\n")
            stream.flush()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
        if rewrites:
            stream.write("\r\x1b[K")
            stream.flush()
