# SPDX-License-Identifier: Apache-2.0
"""What an init reports, which may be under the control of a hostile container."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.forker import messages
from northstar.runtime.process import PROTOCOL_VIOLATION, ExitStatus


@given(st.binary(max_size=2 * messages.MAX_REPORT))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    """S-30."""
    try:
        kind, code, text = messages.decode_report(data)
    except messages.MalformedReport:
        return
    assert kind in (messages.RUNNING, messages.FAILED, messages.EXITED, messages.FORKED)
    assert -(1 << 31) <= code < 1 << 31
    assert len(text) <= messages.MAX_REPORT


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


@given(st.text(max_size=5000), st.integers(0, 200))
def test_reports_are_short(text: str, code: int) -> None:
    data = messages.encode_report(messages.FAILED, code, text)
    assert len(data) <= messages.MAX_REPORT
    assert messages.decode_report(data)[:2] == (messages.FAILED, code)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(2, "gone", "/a"), "step (/a)"),
        (OSError(2, "gone", b"/a\xff"), "step (/a\ufffd)"),
        (OSError(2, "gone"), "step"),
        (OSError(0, "no errno", "/a"), "step (/a): no errno"),
    ],
    ids=["text", "bytes", "no file", "no errno"],
)
def test_failure_names_the_file(error: OSError, text: str) -> None:
    """S-38: once, and as a text."""
    found = messages.decode_report(messages.encode_failure("step", error))
    assert found == (messages.FAILED, error.errno, text)
    (kind, _, again) = messages.decode_report(messages.encode_failure("mount /a\ufffd", error))
    assert (kind, again.count("/a")) == (messages.FAILED, 1)
