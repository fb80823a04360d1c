# SPDX-License-Identifier: Apache-2.0
"""What a program tells in the protocol of sd_notify(3): one datagram, lines of KEY=value.

Unknown keys are ignored, and so are values that make no sense: a program must not be punished for what a
later version of the protocol allows. Of a key that is there twice the first one counts, as in systemd.
MAINPID, EXIT_STATUS and NOTIFYACCESS are not for us: the end of the application is that of the container.
BARRIER needs nothing: the descriptor that comes along is closed after everything before it, as all that
nobody wants.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.text import escape

MAX_SIZE = 4096
"""Bytes of a datagram; systemd has the same limit."""
MAX_TEXT = 1024
"""Bytes of STATUS, as it is kept and shown."""
MAX_U64 = (1 << 64) - 1
MAX_ERRNO = 4095
MAX_FDNAME = 255

FEED, TRIGGER = "1", "trigger"
"""Values of WATCHDOG."""


class Message(NamedTuple):
    """What one datagram says. Times are in seconds; None: it says nothing about that."""

    ready: bool = False
    stopping: bool = False
    reloading: bool = False
    restart_reset: bool = False
    watchdog: str = ""
    """FEED, TRIGGER, or nothing."""
    interval: float | None = None
    """For the watchdog from now on."""
    extend: float | None = None
    """The timeout at hand ends so much later than now, at the earliest."""
    text: str | None = None
    error: int | None = None
    fdstore: bool = False
    fdname: str = ""
    fdremove: bool = False
    fdpoll: bool = True


def parse(data: bytes) -> Message | None:
    """The message in a datagram; None if it is none. It never raises."""
    if len(data) > MAX_SIZE or b"\0" in data:
        return None
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    told: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals:
            told.setdefault(key, value)
    if not told:
        return None
    text, error = told.get("STATUS"), _number(told.get("ERRNO"))
    watchdog = told.get("WATCHDOG", "")
    return Message(
        ready=told.get("READY") == "1",
        stopping=told.get("STOPPING") == "1",
        reloading=told.get("RELOADING") == "1",
        restart_reset=told.get("RESTART_RESET") == "1",
        watchdog=watchdog if watchdog in (FEED, TRIGGER) else "",
        interval=_seconds(told.get("WATCHDOG_USEC")),
        extend=_seconds(told.get("EXTEND_TIMEOUT_USEC")),
        text=None if text is None else shown(text),
        error=error if error is not None and error <= MAX_ERRNO else None,
        fdstore=told.get("FDSTORE") == "1",
        fdname=_fdname(told.get("FDNAME", "")),
        fdremove=told.get("FDSTOREREMOVE") == "1",
        fdpoll=told.get("FDPOLL") != "0",
    )


def shown(text: str) -> str:
    """A text as a terminal can show it: control characters escaped, at most MAX_TEXT bytes."""
    text = escape(text, kept="")
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT:
        return text
    return encoded[: MAX_TEXT - 3].decode(errors="ignore") + "..."


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 20:
        return None
    number = int(text)
    return number if number <= MAX_U64 else None


def _seconds(text: str | None) -> float | None:
    number = _number(text)
    return None if number is None else number / 1e6


def _fdname(text: str) -> str:
    """A name for descriptors, as in sd_listen_fds_with_names(3)."""
    legal = text.isascii() and text.isprintable() and ":" not in text and len(text) <= MAX_FDNAME
    return text if legal else ""
