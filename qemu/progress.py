# SPDX-License-Identifier: Apache-2.0
"""Tells the user what is going on, and of a step that takes its time for how long it has been going on."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 5.0
"""Seconds from which on a step is worth more than one line in a log."""


def say(text: str) -> None:
    """Print a line."""
    print(f"[qemu] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Tell that a step begins, that it goes on (from `LONG` seconds, ever more rarely) and how long it took.

    A terminal shows one line that counts the seconds. Steps do not nest.
    """
    began = time.monotonic()
    ended = threading.Event()
    terminal = sys.stderr.isatty()
    if not terminal:
        say(text)
    ticker = threading.Thread(target=_tick, args=(text, began, ended, terminal), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        ended.set()
        ticker.join()
        seconds = time.monotonic() - began
        if terminal:
            _overwrite(f"{text}: {seconds:.0f} s\n")
        elif seconds >= LONG:
            say(f"{text}: {seconds:.0f} s, ended")


def _tick(text: str, began: float, ended: threading.Event, terminal: bool) -> None:
    if terminal:
        _overwrite(text)
    seconds = 0.0
    while not ended.wait(1.0 if terminal else max(LONG, seconds / 2)):
        seconds = time.monotonic() - began
        if terminal:
            _overwrite(f"{text}: {seconds:.0f} s")
        else:
            say(f"{text}: {seconds:.0f} s")


def _overwrite(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K[qemu] {text}")
    sys.stderr.flush()
