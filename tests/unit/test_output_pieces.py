# SPDX-License-Identifier: Apache-2.0
"""A flood of short lines is dealt with in pieces, so that others have turns."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.output import streams as output


@given(st.binary(max_size=3000) | st.integers(0, 1000).map(lambda count: b"y\n" * count))
def test_pieces_are_the_data(data: bytes) -> None:
    pieces = list(output._pieces(data))
    assert b"".join(pieces) == data
    assert all(piece.count(b"\n") <= output._LINES_IN_A_ROW for piece in pieces)
    # Nothing is the end of the stream, and is passed on as such.
    assert pieces == [b""] if not data else all(pieces)


def test_a_flood_that_is_cut_off() -> None:
    """What has been read is passed on in pieces as well, also if others keep the pipe open."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = os.write(writer, b"y\n" * 60_000)
    os.set_blocking(reader, False)
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    fed: list[int] = []
    turns: list[int] = []

    def neighbour() -> None:
        turns.append(len(fed))
        if sum(fed) < size:
            loop.call_soon(neighbour)

    def feed(data: bytes) -> float:
        fed.append(len(data))
        if len(fed) == 3:
            task.cancel()
        return 0.0

    task = loop.spawn(output.forward(loop, reader, feed))
    loop.call_soon(neighbour)

    async def end() -> None:
        await output.drain(loop, [task])

    try:
        loop.run(end())
    finally:
        os.close(writer)
    assert not failures
    assert sum(fed) == size
    assert fed[-1] == 0
    assert max(fed) <= 2 * output._LINES_IN_A_ROW
    # Between any two pieces somebody else had a turn.
    assert len(set(turns)) >= len(fed) - 1


def test_what_a_pipe_holds_is_passed_on_also_if_others_keep_it_open() -> None:
    """A slow machine has not read all of it when its time is over; what comes later is nobody's."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    fed: list[bytes] = []
    os.write(writer, b"before\n")

    def feed(data: bytes) -> float:
        fed.append(data)
        if len(fed) == 1:
            # It is written while the first line is dealt with, and the time is over then.
            os.write(writer, b"in the pipe\n" * 3000 + b"the last")
            task.cancel()
        return 0.0

    task = loop.spawn(output.forward(loop, reader, feed))

    async def end() -> None:
        await output.drain(loop, [task])

    try:
        loop.run(end())
    finally:
        os.close(writer)
    assert not failures
    assert b"".join(fed) == b"before\n" + b"in the pipe\n" * 3000 + b"the last"
    assert fed[-1] == b""
