"""The `choreo` command with what only tests want: a clock that can be moved, output that a full disk does not stop, sabotage.

python -m tests.chaos.child run tests.chaos.world:intake
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_EVERY = 0.02


def move_clock(file: Path) -> None:
    """Let `time.time` and `time.time_ns` be off by the seconds that stand in this file."""
    real_time, real_time_ns, monotonic = time.time, time.time_ns, time.monotonic
    state = [0.0, 0.0]  # next look, offset

    def offset() -> float:
        if monotonic() >= state[0]:
            with contextlib.suppress(OSError, ValueError):
                state[1] = float(file.read_text())
            state[0] = monotonic() + _LOOK_EVERY
        return state[1]

    time.time = lambda: real_time() + offset()
    time.time_ns = lambda: real_time_ns() + int(offset() * 1e9)


def keep_talking() -> Callable[[], None]:
    """Send the output through a pipe: a limit on the size of files then hits stores and logs, not the output.

    Returns what to call at the end, so that the last words are heard.
    """
    out = os.dup(1)
    read, write = os.pipe()
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(write)

    def relay() -> None:
        while data := os.read(read, 65536):
            with contextlib.suppress(OSError):
                os.write(out, data)

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()

    def end() -> None:
        sys.stdout.flush()
        os.dup2(out, 1)
        os.dup2(out, 2)
        relaying.join(1)

    return end


def main() -> int:
    end = keep_talking()
    if clock := os.environ.get("CHOREO_CHAOS_CLOCK"):
        move_clock(Path(clock))
    from choreo.cli import main as choreo
    from tests.chaos.inside import tell_on_signal

    tell_on_signal()
    if name := os.environ.get("CHOREO_CHAOS_SABOTAGE"):
        from tests.chaos.sabotage import SABOTAGES

        SABOTAGES[name].apply()
    try:
        return choreo(sys.argv[1:])
    finally:
        end()


if __name__ == "__main__":
    sys.exit(main())
