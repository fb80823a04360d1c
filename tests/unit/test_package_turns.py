# SPDX-License-Identifier: Apache-2.0
"""A client that sends a package as fast as it is read keeps nobody from having his turn."""

from __future__ import annotations

from types import SimpleNamespace

from northstar.protocol.framing import LineBuffer
from northstar.runtime.console.connection import Connection
from northstar.runtime.eventloop.loop import Loop

PIECES = 20


class Others:
    """Somebody who wants to do something in every turn."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.turns = 0
        self._go_on()

    def _go_on(self) -> None:
        self.turns += 1
        self._loop.call_soon(self._go_on)


def test_others_have_a_turn_for_each_piece() -> None:
    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)
    connection = Connection.__new__(Connection)
    connection._services = SimpleNamespace(loop=loop)  # type: ignore[assignment]
    connection._buffer = LineBuffer()
    connection._buffer.feed(bytes(range(PIECES)))

    async def receive() -> bytes:
        pieces = b""
        for number in range(PIECES):
            before = others.turns
            pieces += await connection.read_package(1)
            assert others.turns > before, f"nobody had a turn at piece {number}"
        return pieces

    others = Others(loop)
    assert loop.run(receive()) == bytes(range(PIECES))
