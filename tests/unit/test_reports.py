# SPDX-License-Identifier: Apache-2.0
"""What an init reports, which may be under the control of a hostile container."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.engine import instructions as isa
from northstar.engine.assembler import Program
from northstar.runtime.spawning import reports
from northstar.runtime.spawning.process import PROTOCOL_VIOLATION, ExitStatus
from northstar.runtime.spawning.reports import Report


@given(st.binary(max_size=3 * reports.SIZE))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    """S-30."""
    try:
        report = reports.decode(data)
    except reports.MalformedReport:
        assert len(data) != reports.SIZE
        return
    assert isa.REPORT.pack(*report) == data


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_any_number_is_an_exit_status(status: int) -> None:
    """S-30."""
    found = ExitStatus.from_wait_status(status)
    assert (found.code is None) != (found.signal is None)
    assert str(found)
    assert found.to_json()


def test_status_of_a_stopped_process_is_no_end() -> None:
    """S-30."""
    stopped = 0x137F
    assert os.WIFSTOPPED(stopped)
    assert ExitStatus.from_wait_status(stopped) == (PROTOCOL_VIOLATION, None)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, (1 << 32) - 1))
def test_any_failure_is_a_text(value: int, step: int) -> None:
    """S-30: whatever errno and step an init makes up."""
    assert reports.failure(_program(), Report(isa.REPORT_FAILED, value, step))


def _program() -> Program:
    p = Program()
    p.purpose = "look"
    p.call("openat", -100, "/a\ufffd", 0, 0)
    p.purpose = "look at /b"
    p.call("openat", -100, "/b", 0, 0)
    p.call("getpid")
    return p


@pytest.mark.parametrize(
    ("step", "value", "text"),
    [
        (0, errno.ENOENT, "look (/a\ufffd): No such file or directory (ENOENT)"),
        (1, errno.ENOENT, "look at /b: No such file or directory (ENOENT)"),
        (2, errno.EPERM, "look at /b: Operation not permitted (EPERM)"),
        (2, isa.NO_ERRNO, "look at /b"),
        (2, isa.NO_ERRNO + 1, "look at /b: Unknown error 4096 (4096)"),
        (3, errno.EPERM, "a failure of step 3, which does not exist"),
        (isa.NO_STEP, errno.ENOEXEC, "the engine refuses the program: Exec format error (ENOEXEC)"),
    ],
)
def test_failure_names_purpose_and_file(step: int, value: int, text: str) -> None:
    """S-38: once, and as a text."""
    assert reports.failure(_program(), Report(isa.REPORT_FAILED, value, step)) == text
