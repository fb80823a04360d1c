# SPDX-License-Identifier: Apache-2.0
"""What the event loop does when there is nothing else to do."""

from __future__ import annotations

import os

import pytest

from northstar.runtime.eventloop.loop import Loop


@pytest.fixture
def loop() -> Loop:
    def fail(failure: BaseException) -> None:
        raise failure

    return Loop(fail)


def test_idle_calls_wait_until_everybody_else_has_had_a_turn(loop: Loop) -> None:
    told: list[str] = []

    async def busy() -> None:
        for _ in range(5):
            await loop.turn()
            told.append("busy")

    async def main() -> None:
        loop.when_idle(lambda: told.append("first"))
        loop.when_idle(lambda: told.append("second"))
        await loop.spawn(busy())
        assert told == ["busy"] * 5
        await loop.sleep(0.01)

    loop.run(main())
    assert told == ["busy"] * 5 + ["first", "second"]


def test_between_idle_calls_others_have_their_turns(loop: Loop) -> None:
    told: list[str] = []

    def first() -> None:
        told.append("first")
        loop.call_soon(lambda: told.append("what it asked for"))

    async def main() -> None:
        loop.when_idle(first)
        loop.when_idle(lambda: told.append("second"))
        await loop.sleep(0.01)

    loop.run(main())
    assert told == ["first", "what it asked for", "second"]


def test_who_can_read_comes_before_idle_calls(loop: Loop) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    channel = loop.register(reader)
    told: list[str] = []

    async def read() -> None:
        await channel.readable()
        told.append("read")

    async def main() -> None:
        waiting = loop.spawn(read())
        await loop.turn()
        os.write(writer, b"x")
        loop.when_idle(lambda: told.append("idle"))
        await waiting
        await loop.sleep(0.01)

    loop.run(main())
    channel.close()
    os.close(reader)
    os.close(writer)
    assert told == ["read", "idle"]
