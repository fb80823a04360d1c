# SPDX-License-Identifier: Apache-2.0
"""The socket of a run for notifications, and what it costs."""

from __future__ import annotations

import gc
import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.names import Container, Version
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.supervision.notifysocket import NotifySocket
from northstar.supervision.notification import Message

MOST = 800
"""Bytes of each. A container with readiness and a restart policy may cost 2 KB more than one without."""
NUMBER = 20
TRUNCATED = b"READY=1\nX=" + b"x" * 60_000
PLACE = "/run/host/notify"
RECORD: Any = SimpleNamespace(
    container=Container("a", Version(1, 0, 0)),
    manifest=SimpleNamespace(uid=1000),
    settings=SimpleNamespace(fdstore=0),
)

Make = Callable[[], NotifySocket]


@pytest.fixture
def loop() -> Loop:
    return Loop(lambda failure: pytest.fail(str(failure)))


@pytest.fixture
def make(tmp_path: Path, loop: Loop) -> Make:
    """Of an image that has a place for it."""
    image = tmp_path / "image"
    (image / "run/host").mkdir(parents=True)
    (image / "run/host/notify").touch()

    def made() -> NotifySocket:
        notify = NotifySocket(loop)
        notify.make(str(tmp_path), str(image), PLACE)
        return notify

    return made


def send(path: str, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
        for data in datagrams:
            program.sendto(data, path)


def test_what_is_told(loop: Loop, make: Make) -> None:
    """Also before anybody listened; what is none, or too long to be read, is dropped."""
    told: list[Message] = []

    async def main() -> None:
        notify = make()
        path = notify.source
        send(path, b"READY=1")
        notify.began()
        notify.serve(RECORD, lambda record, message, descriptors: told.append(message), None)
        for status in (b"one", b"two"):
            send(path, b"STATUS=" + status, b"\xff no notification", TRUNCATED)
            await loop.sleep(0.01)
        await notify.close()
        assert not os.path.exists(path)

    loop.run(main())
    assert [(message.ready, message.text) for message in told] == [
        (True, None),
        (False, "one"),
        (False, "two"),
    ]


def test_memory(loop: Loop, make: Make) -> None:
    def tell(*_: object) -> None:
        return

    async def main() -> None:
        served = []
        tracemalloc.start()
        try:
            for number in range(NUMBER + 1):
                notify = make()
                notify.began()
                notify.serve(RECORD, tell, None)
                served.append(notify)
                await loop.sleep(0.01)
                if not number:
                    gc.collect()
                    before = tracemalloc.get_traced_memory()[0]
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        for notify in served:
            await notify.close()
        assert grown / NUMBER < MOST

    loop.run(main())
