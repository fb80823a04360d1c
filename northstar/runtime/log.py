# SPDX-License-Identifier: Apache-2.0
"""Log output: one line per record on stderr, and the system's log where there is one.

The line format is that of upstream's daemon, so that tools which match on its messages keep working:

    HH:MM:SS.mmm <target, right aligned> ⬤  <LEVEL>: <message>

Where journald listens, records go there by its native protocol, with fields for container output; else, where
/dev/log is, to syslog. Nothing is written to stderr if that is the journal as well (JOURNAL_STREAM,
systemd.exec(5)). The standard logging package is not used: it costs 0.7 MB and its import 6 ms.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import deque

from northstar.runtime.ownstream import OwnStream
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from northstar.names import Container

LEVELS = {
    "error": ("ERROR", 3, 31),
    "warn": ("WARN ", 4, 33),
    "info": ("INFO ", 6, 32),
    "debug": ("DEBUG", 7, 90),
}
"""Level: padded name, syslog priority (RFC 5424), colour."""

SYSLOG_DAEMON = 3 << 3
MAX_MESSAGE = 64 * 1024
MAX_BACKLOG = 1024
MAX_BACKLOG_SIZE = 1 << 20
"""Records, and bytes of them, that are kept for whoever reads the log more slowly than we write."""

JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"

_width = 30
_colour = False
_clock = (0, "00:00:00")
"""The second of the last line, and how it is written."""
_NO_FIELDS: Mapping[str, str] = {}
_sinks: list[_Sink] = []
_on_backlog: Callable[[], None] | None = None


def setup(journal: str = JOURNAL_SOCKET, syslog: str = SYSLOG_SOCKET) -> None:
    """Find out where records go. Called once, by the daemon. The arguments are paths of sockets."""
    global _colour
    _sinks.clear()
    has_journal = os.path.exists(journal)
    if not (has_journal and _stderr_is_journal()):
        _colour = _wants_colour()
        _sinks.append(_StderrSink())
    if has_journal:
        _sinks.append(_JournalSink(journal))
    elif os.path.exists(syslog):
        _sinks.append(_SyslogSink(syslog))


def record(level: str, target: str, message: str, fields: Mapping[str, str] = _NO_FIELDS) -> None:
    """Write a record. `target` is a module name; `fields` are for the journal only."""
    message = escape(message[:MAX_MESSAGE])
    if not _sinks:
        _write_directly(_line(level, target, message))
    for sink in _sinks:
        sink(level, target, message, fields)


def announce(level: str, target: str, message: str) -> None:
    """Write a record of which stderr gets the message alone: for whoever has started the daemon by hand."""
    text = escape(message[:MAX_MESSAGE])
    if not _sinks:
        _write_directly(f"{text}\n".encode("utf-8", "replace"))
    for sink in _sinks:
        if isinstance(sink, _StderrSink):
            sink.send(f"{text}\n".encode("utf-8", "replace"))
        else:
            sink(level, target, text, _NO_FIELDS)


def container_fields(container: Container, stream: str) -> dict[str, str]:
    """The fields of what a container has written to `stream`."""
    return {
        "NORTHSTAR_CONTAINER": container.name,
        "NORTHSTAR_VERSION": str(container.version),
        "NORTHSTAR_STREAM": stream,
    }


def _write_directly(line: bytes) -> None:
    """Before `setup`."""
    with contextlib.suppress(OSError):
        os.write(2, line)


def watch_backlog(callback: Callable[[], None]) -> None:
    """`callback` is called when records have to wait; `flush` is then to be called until it is True."""
    global _on_backlog
    _on_backlog = callback


def flush() -> bool:
    """Send the records that wait; whether none is left."""
    return all([sink.flush() for sink in _sinks])


def finish(limit: float) -> None:
    """Send the records that wait, for up to `limit` seconds, as the process is about to end. Blocks."""
    deadline = time.monotonic() + limit
    while not flush() and time.monotonic() < deadline:
        time.sleep(0.01)


class Logger:
    """Records of one module."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target

    def __call__(self, level: str, message: str) -> None:
        record(level, self.target, message)

    def error(self, message: str) -> None:
        """The daemon or a container is impaired."""
        record("error", self.target, message)

    def warn(self, message: str) -> None:
        """Something was refused or skipped."""
        record("warn", self.target, message)

    def info(self, message: str) -> None:
        """A state change."""
        record("info", self.target, message)

    def debug(self, message: str) -> None:
        """Detail."""
        record("debug", self.target, message)


def _wants_colour() -> bool:
    if "CLICOLOR_FORCE" in os.environ:
        return True
    if "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or os.environ.get("CLICOLOR") == "0":
        return False
    return os.isatty(2)


class _Sink:
    """Where records go. One that is slower than we are gets them later, or not at all."""

    def __init__(self) -> None:
        self._backlog: deque[bytes] = deque()
        self._size = 0
        self._lost = 0

    def __call__(self, level: str, target: str, message: str, fields: Mapping[str, str]) -> None:
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send, or keep for later."""
        if not self._backlog:
            lost = self._lost
            data = self._try(data)
            if not data:
                if self._lost == lost:
                    self._tell_lost()
                return
        self._backlog.append(data)
        self._size += len(data)
        # Of a container that floods the log; not the first one, half of which may be sent.
        while len(self._backlog) > 2 and (self._size > MAX_BACKLOG_SIZE or len(self._backlog) > MAX_BACKLOG):
            self._size -= len(self._backlog[1])
            del self._backlog[1]
            self._lost += 1
        if len(self._backlog) == 1 and _on_backlog is not None:
            _on_backlog()

    def flush(self) -> bool:
        """Send what was kept; whether nothing is left."""
        while self._backlog:
            rest = self._try(self._backlog[0])
            self._size -= len(self._backlog[0]) - len(rest)
            if rest:
                self._backlog[0] = rest
                return False
            self._backlog.popleft()
        self._tell_lost()
        return not self._backlog

    def _tell_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self("warn", "northstar", f"{lost} records are lost: the log was too slow or away", _NO_FIELDS)
            if self._lost:
                self._lost = lost  # nor is this one heard

    def _try(self, data: bytes) -> bytes:
        """Send now; what has to wait. What cannot be sent is counted as lost."""
        raise NotImplementedError


class _StderrSink(_Sink):
    def __init__(self) -> None:
        super().__init__()
        self._stream = OwnStream(2)

    def __call__(self, level: str, target: str, message: str, fields: Mapping[str, str]) -> None:
        self.send(_line(level, target, message))

    def _try(self, data: bytes) -> bytes:
        while data:
            try:
                taken = self._stream.write(data)
            except OSError:
                # A closed or full stderr must not stop the daemon.
                self._lost += 1
                return b""
            if not taken:
                break
            data = data[taken:]
        return data


def _line(level: str, target: str, message: str) -> bytes:
    global _width, _clock
    now = time.time()
    second, clock = _clock
    if second != int(now):
        clock = time.strftime("%H:%M:%S", time.gmtime(now))
        _clock = (int(now), clock)
    name, _, colour = LEVELS[level]
    _width = max(_width, min(len(target), 60))
    if _colour:
        name = f"\x1b[{colour}m{name}\x1b[0m"
    line = f"{clock}.{int(now * 1000) % 1000:03} {target:>{_width}} ⬤  {name}: {message}\n"
    return line.encode("utf-8", "replace")


class _DatagramSink(_Sink):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def _try(self, data: bytes) -> bytes:
        try:
            self._socket.sendto(data, self._path)
        except BlockingIOError:
            return data
        except OSError:
            # The log daemon restarts: the record is lost, the runtime goes on.
            self._lost += 1
        return b""


class _SyslogSink(_DatagramSink):
    """RFC 3164 datagrams, as syslog(3) sends them."""

    def __call__(self, level: str, target: str, message: str, _: Mapping[str, str]) -> None:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime())
        text = f"<{SYSLOG_DAEMON | LEVELS[level][1]}>{stamp} northstar[{os.getpid()}]: {target}: {message}"
        self.send(text.encode("utf-8", "replace")[:2048])


class _JournalSink(_DatagramSink):
    """The journal's native protocol (systemd: Native Journal Protocol)."""

    def __call__(self, level: str, target: str, message: str, fields: Mapping[str, str]) -> None:
        own = {"SYSLOG_IDENTIFIER": "northstar", "PRIORITY": str(LEVELS[level][1]), "TARGET": target}
        # No value has a line break: names of containers are checked, the others are ours.
        encoded = "".join(f"{key}={value}\n" for key, value in {**own, **fields}.items()).encode()
        body = message.encode("utf-8", "replace")
        self.send(encoded + b"MESSAGE\n" + struct.pack("<Q", len(body)) + body + b"\n")


def _stderr_is_journal() -> bool:
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not device.isdigit() or not inode.isdigit():
        return False
    status = os.fstat(2)
    return (status.st_dev, status.st_ino) == (int(device), int(inode))
