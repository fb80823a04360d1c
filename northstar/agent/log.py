# SPDX-License-Identifier: Apache-2.0
"""Log lines: to the standard error stream, or to syslog where nobody reads that."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from northstar.text import escape

TAG = "northstar-agent"
SYSLOG = "/dev/log"
_DAEMON = 3 << 3
_PRIORITIES = {"error": 3, "warning": 4, "info": 6}


def write(level: str, text: str) -> None:
    """One line, with control characters made visible."""
    line = escape(text)[:4096]
    if "JOURNAL_STREAM" in os.environ:
        print(f"<{_PRIORITIES[level]}>{line}", file=sys.stderr, flush=True)
    elif not (_nobody_reads() and _syslog(level, line)):
        print(f"{TAG}: {line}", file=sys.stderr, flush=True)


def _nobody_reads() -> bool:
    """Whether the standard error stream is /dev/null, as init scripts have it."""
    try:
        return os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return True


def _syslog(level: str, line: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        stamp = time.strftime("%b %e %H:%M:%S")
        sock.sendto(f"<{_DAEMON | _PRIORITIES[level]}>{stamp} {TAG}: {line}".encode(), SYSLOG)
        return True
    return False
