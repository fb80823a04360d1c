# SPDX-License-Identifier: Apache-2.0
"""A progress bar on stderr, if that is a terminal."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_WIDTH = 30
_INTERVAL = 0.05


class Bar:
    """Shows how much of a file was sent."""

    def __init__(self, path: str) -> None:
        self._label = os.path.basename(path)
        self._visible = sys.stderr.isatty()
        self._began = time.monotonic()
        self._shown = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def update(self, sent: int, size: int) -> None:
        """`sent` of `size` bytes are on their way."""
        now = time.monotonic()
        if not self._visible or (now - self._shown < _INTERVAL and sent < size):
            return
        self._shown = now
        share = sent / size if size else 1.0
        filled = round(_WIDTH * share)
        rate = sent / 1e6 / max(now - self._began, 1e-6)
        bar = "#" * filled + "." * (_WIDTH - filled)
        print(
            f"\r{self._label} [{bar}] {share:4.0%} {sent / 1e6:.1f} MB {rate:.0f} MB/s",
            end="",
            file=sys.stderr,
            flush=True,
        )
