# SPDX-License-Identifier: Apache-2.0
"""Who is served sooner by the scheduler: the runtime, and nothing that it starts."""

from __future__ import annotations

import ctypes
import os
import struct

import leaks
from runtime import SharedRuntime, shell

from northstar.client import Client
from northstar.kernel import scheduling


def slice_of(pid: int) -> int:
    """Nanoseconds; a kernel before 6.12 tells 0 of everybody."""
    attributes = ctypes.create_string_buffer(48)
    assert scheduling._sched_getattr(pid, attributes, 48, 0) == 0
    return int(struct.unpack_from("<Q", attributes, 24)[0])


def namespace_of(pid: int) -> str:
    """Its pid namespace, nothing if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def test_the_runtime_is_served_before_the_programs_that_it_starts(runtime: SharedRuntime) -> None:
    """Short slices of the daemon and of inits are not handed down."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        (application,) = leaks.children(process.pid)
        usual = slice_of(os.getpid())
        short = scheduling.SHORTEST_SLICE if usual else 0
        assert [slice_of(pid) for pid in (runtime.process.pid, process.pid)] == [short] * 2
        assert slice_of(application) == usual
        with open("/dev/null", "r+b") as null, Client.connect(runtime.url) as other:
            other.execute("a:0.0.1", ["/bin/sleep", "1000"], {}, [null.fileno()] * 3)
            inside = [pid for pid in leaks._pids() if namespace_of(pid) == namespace_of(process.pid)]
            (command,) = set(inside) - {process.pid, application}
            assert slice_of(command) == usual
