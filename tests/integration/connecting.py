# SPDX-License-Identifier: Apache-2.0
"""A client that connects to an echo service so many times per second, whether it is answered or not.

connecting.py PORT RATE     until its stdin ends; then what became of the connections, as JSON
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time
from collections import Counter

TEXT = b"hello"
MOST = 3000
"""Connections that are open at a time; what would be more is held back, and counted."""
PATIENCE = 30.0
"""Seconds for the last answers."""


class Connecting:
    """All connections, and how they ended: `served`, `lost`, or the name of an error."""

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._began = time.monotonic()
        self._open: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._due = 0
        self.outcomes: Counter[str] = Counter()

    def run(self) -> dict[str, float]:
        """Connect until stdin ends, then wait for answers."""
        self._poll.register(sys.stdin, select.EPOLLIN)
        while not self._step(connect=True):
            pass
        seconds = time.monotonic() - self._began
        self._poll.unregister(sys.stdin)
        deadline = time.monotonic() + PATIENCE
        while self._open and time.monotonic() < deadline:
            self._step(connect=False)
        self.outcomes["unanswered"] = len(self._open)
        return {"connections": self._due, "seconds": seconds, **self.outcomes}

    def _step(self, *, connect: bool) -> bool:
        """Whether stdin has ended."""
        if connect:
            wanted = int((time.monotonic() - self._began) * self._rate)
            for _ in range(wanted - self._due):
                self._connect()
            self._due = max(self._due, wanted)
        over = False
        for number, _ in self._poll.poll(0.5 / self._rate if connect else 1.0):
            if number == sys.stdin.fileno():
                over = True
            else:
                self._answered(number)
        return over

    def _connect(self) -> None:
        if len(self._open) >= MOST:
            self.outcomes["held back"] += 1
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(PATIENCE)
            # On this host it is connected, or refused, at once.
            sock.connect(("127.0.0.1", self._port))
            sock.setblocking(False)
            sock.send(TEXT)
        except OSError as error:
            self._end(sock, errno.errorcode.get(error.errno or 0, "error"))
            return
        self._open[sock.fileno()] = sock
        self._poll.register(sock, select.EPOLLIN)

    def _answered(self, number: int) -> None:
        sock = self._open.pop(number)
        try:
            outcome = "served" if sock.recv(len(TEXT)) == TEXT else "lost"
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, "error")
        self._end(sock, outcome)

    def _end(self, sock: socket.socket, outcome: str) -> None:
        self.outcomes[outcome] += 1
        sock.close()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(Connecting(int(sys.argv[1]), float(sys.argv[2])).run()))
