# SPDX-License-Identifier: Apache-2.0
"""Datagrams of sd_notify(3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.supervision.notification import MAX_SIZE, MAX_TEXT, Message, parse


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"READY=1", Message(ready=True)),
        (b"READY=1\n", Message(ready=True)),
        (b"READY=0", Message()),
        (b"READY=1\nSTATUS=up and running", Message(ready=True, text="up and running")),
        (b"STATUS=", Message(text="")),
        (b"STATUS=a=b", Message(text="a=b")),
        (b"STATUS=one\nSTATUS=two", Message(text="one")),
        (b"STOPPING=1", Message(stopping=True)),
        (b"RELOADING=1\nMONOTONIC_USEC=17", Message(reloading=True)),
        (b"WATCHDOG=1", Message(watchdog="1")),
        (b"WATCHDOG=trigger", Message(watchdog="trigger")),
        (b"WATCHDOG=2", Message()),
        (b"WATCHDOG_USEC=1500000", Message(interval=1.5)),
        (b"EXTEND_TIMEOUT_USEC=250000", Message(extend=0.25)),
        (b"EXTEND_TIMEOUT_USEC=-1", Message()),
        (b"EXTEND_TIMEOUT_USEC=18446744073709551616", Message()),
        (b"EXTEND_TIMEOUT_USEC=" + b"9" * 3000, Message()),
        ("EXTEND_TIMEOUT_USEC=\u0663".encode(), Message()),
        (b"ERRNO=2", Message(error=2)),
        (b"ERRNO=4095", Message(error=4095)),
        (b"ERRNO=4096", Message()),
        (b"ERRNO=0", Message(error=0)),
        (b"EXTEND_TIMEOUT_USEC=18446744073709551615", Message(extend=18446744073709.551615)),
        (b"EXTEND_TIMEOUT_USEC=" + b"1".zfill(20), Message(extend=1e-6)),
        (b"EXTEND_TIMEOUT_USEC=" + b"1".zfill(21), Message()),
        (b"STOPPING=0\nRELOADING=0\nRESTART_RESET=0\nFDSTORE=0\nFDSTOREREMOVE=0", Message()),
        (b"READY=\nSTOPPING=2\nRELOADING=\nRESTART_RESET=2\nFDSTORE=2\nFDSTOREREMOVE=2", Message()),
        (b"FDPOLL=1", Message(fdpoll=True)),
        (b"FDNAME=" + b"x" * 255, Message(fdname="x" * 255)),
        (b"FDNAME=" + b"x" * 256, Message()),
        (b"FDNAME=a\x7fb", Message()),
        ("FDNAME=ä".encode(), Message()),
        (b"X=" + b"x" * (MAX_SIZE - 2), Message()),
        (b"BARRIER=1", Message()),
        (b"RESTART_RESET=1", Message(restart_reset=True)),
        (b"FDSTORE=1\nFDNAME=web\nFDPOLL=0", Message(fdstore=True, fdname="web", fdpoll=False)),
        (b"FDSTORE=1\nFDNAME=a:b", Message(fdstore=True)),
        (b"FDSTOREREMOVE=1\nFDNAME=web", Message(fdremove=True, fdname="web")),
        (b"MAINPID=1\nNOTIFYACCESS=all\nX_OURS=1", Message()),
        (b"garbage\nREADY=1\n=\n==", Message(ready=True)),
    ],
)
def test_messages(data: bytes, message: Message) -> None:
    assert parse(data) == message


@pytest.mark.parametrize("data", [b"", b"\n\n", b"garbage", b"READY=1\0", b"\xff=1", b"A=" + b"x" * MAX_SIZE])
def test_no_messages(data: bytes) -> None:
    assert parse(data) is None


def test_a_text_cannot_do_anything_to_a_terminal() -> None:
    message = parse("STATUS=\x1b[31mred\x07\ttab\u202e\u2028grün".encode())
    assert message is not None
    assert message.text == r"\x1b[31mred\x07\ttab\u202e\u2028grün"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 1023, "x" * 1023),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "..."),
        ("ä" * 512, "ä" * 512),
        ("ä" * 513, "ä" * 510 + "..."),
        ("\x01" * 256, r"\x01" * 256),
    ],
)
def test_how_much_of_a_text_is_shown(text: str, shown: str) -> None:
    """As many bytes as are allowed, escapes included."""
    message = parse(f"STATUS={text}".encode())
    assert message is not None
    assert message.text == shown


def test_a_long_text_is_cut_between_characters() -> None:
    message = parse(b"STATUS=" + "ü".encode() * 2000)
    assert message is not None and message.text is not None
    assert message.text == "ü" * 510 + "..."
    assert len(message.text.encode()) <= MAX_TEXT


_LINE = st.builds(
    lambda key, value: f"{key}={value}".encode(),
    st.sampled_from(
        ["READY", "STATUS", "WATCHDOG", "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC", "ERRNO", "FDNAME"]
    ),
    st.text(max_size=40),
)


@given(st.one_of(st.binary(max_size=64), st.lists(_LINE, max_size=8).map(b"\n".join)))
def test_whatever_comes(data: bytes) -> None:
    message = parse(data)
    if message is not None and message.text is not None:
        assert message.text.isprintable()
        assert len(message.text.encode()) <= MAX_TEXT
