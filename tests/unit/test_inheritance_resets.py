# SPDX-License-Identifier: Apache-2.0
"""Attributes that a process of its own cannot show to others: they are reset in the process itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

import pytest

from northstar.kernel import prctl

PR_GET_MEMORY_MERGE = 68
_prctl = ctypes.CDLL(None, use_errno=True).prctl

SCRIPT = """
import sys
from northstar.runtime import inheritance
inheritance.let_go()
{look}
"""


IGNORED = """
import signal
print(*(int(number) for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN))
"""


def after(look: str) -> list[str]:
    """What a process prints after it has let go of what it inherited."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(look=look)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("setting", "getting"),
    [
        (prctl.PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE),
        (prctl.PR_SET_THP_DISABLE, 42),
    ],
    ids=["merged pages", "huge pages"],
)
def test_prctl(setting: int, getting: int) -> None:
    if _prctl(setting, 1, 0, 0, 0) < 0:
        pytest.skip(f"prctl({setting}): {os.strerror(ctypes.get_errno())}")
    try:
        look = f"import ctypes; print(ctypes.CDLL(None).prctl({getting}, 0, 0, 0, 0))"
        assert after(look) == ["0"]
    finally:
        _prctl(setting, 0, 0, 0, 0)


def test_signals() -> None:
    """The interpreter's own ones and SIGTTOU are ignored, as nobody may stop the daemon by its terminal."""
    ignored = {signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGTTIN}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        found = set(after(IGNORED))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert found == {str(int(number)) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU)}
