# SPDX-License-Identifier: Apache-2.0
"""Runs tests again and again in forks of a process that has loaded pytest: most take less time than that.

    python3 -m tests.forkserver DIRECTORY SECONDS TEST...

For each line in the pipe `wanted` of the directory there is a line in the pipe `result`: the exit code of
pytest, 124 if the tests had not ended after so many seconds, or 125 if their process ended before pytest did.
What they are about is loaded anew each time.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import hypothesis.stateful  # noqa: F401 # loaded for the forks
import nacl.signing  # noqa: F401
import pytest
import yaml  # noqa: F401

LATE, DIED = 124, 125
_FINISHED = 100
"""Is added to the exit code of pytest, so that it differs from that of a test that ends its own process."""


def command(directory: Path, seconds: float) -> str:
    """What asks for one run, and has its exit code. It ends after a while if there is no server any more."""
    return (
        f"timeout {seconds} sh -c 'echo > {directory}/wanted && read code < {directory}/result && exit $code'"
    )


def serve(directory: Path, seconds: float, tests: list[str]) -> None:
    """Until the process is ended."""
    while True:
        (directory / "wanted").read_text()
        code = run(seconds, tests)
        (directory / "result").write_text(f"{code}\n")


def run(seconds: float, tests: list[str]) -> int:
    """One run, with all processes that it has started."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(_FINISHED + pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    descriptor = os.pidfd_open(pid)
    try:
        late = not select.select([descriptor], [], [], seconds)[0]
    finally:
        os.close(descriptor)
    # The leader is not buried yet, so this is no other group.
    os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return LATE if late else code - _FINISHED if code >= _FINISHED else DIED


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
