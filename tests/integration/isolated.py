# SPDX-License-Identifier: Apache-2.0
"""Running a part of a test in a child with namespaces of its own, and waiting with a deadline."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable

import pytest

from northstar.kernel import mount, namespaces


def isolated(action: Callable[[], object], flags: int = namespaces.CLONE_NEWNS) -> None:
    """Call `action` in a forked child with new namespaces; its mounts reach nobody else.

    A failure in the child fails the test with the child's traceback.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            namespaces.unshare(flags)
            if flags & namespaces.CLONE_NEWNS:
                mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
            action()
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[:60000])
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as stream:
        report = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        pytest.fail(f"in the child (exit {status}):\n{report}", pytrace=False)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Poll `condition` until it holds; fail the test with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:g} s: {what}")
        time.sleep(0.005)
