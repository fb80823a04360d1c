# SPDX-License-Identifier: Apache-2.0
"""What a run leaves is cleaned up whatever fails, and what is kept for the next ones has an end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from northstar import manifest
from northstar.config import ConsoleOptions
from northstar.errors import StartContainerFailed
from northstar.runtime.console.server import ConsoleServer
from northstar.runtime.containers import filters, sockets
from northstar.runtime.containers.cleanups import CleanUps
from northstar.runtime.containers.sockets import ContainerSockets
from northstar.runtime.eventloop.loop import Loop


def described(**more: object) -> manifest.Manifest:
    fields = {"name": "a", "version": "0.0.1", "init": "/a", "uid": os.getuid() or 1, "gid": os.getgid() or 1}
    return manifest.parse(json.dumps({**fields, **more}).encode())


def test_all_steps_are_taken_in_reverse_order(capfd: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []

    def step(name: str, failure: Exception | None = None) -> None:
        taken.append(name)
        if failure is not None:
            raise failure

    async def slow_step() -> None:
        await loop.sleep(0)
        step("slow", ValueError("a mistake"))

    clean_ups, loop = CleanUps(), Loop(pytest.fail)  # type: ignore[arg-type]
    clean_ups.add("do the first", lambda: step("first"))
    clean_ups.add("remove it", lambda: step("file", IsADirectoryError(21, "Is a directory", "/x")))
    clean_ups.add("go slowly", slow_step)
    clean_ups.add("forget it", lambda: step("last", OSError("no number")))
    loop.run(clean_ups.run())
    loop.run(clean_ups.run())
    assert taken == ["last", "slow", "file", "first"]
    said = capfd.readouterr().err
    for text in (
        "failed to remove it: /x Is a directory\n",
        "failed to go slowly: ValueError: a mistake\n",
        "failed to forget it: no number\n",
    ):
        assert said.count(text) == 1
    assert "do the first" not in said


def test_a_socket_that_was_replaced_by_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are removed nevertheless, and the failure is told once."""
    monkeypatch.setattr(sockets, "_set_owner", lambda *_: None)
    wanted = {name: {"type": "stream", "mode": 0o600} for name in ("one", "two", "three")}
    made = ContainerSockets(str(tmp_path), described(sockets=wanted))
    assert sorted(os.listdir(tmp_path)) == ["a:0.0.1:one", "a:0.0.1:three", "a:0.0.1:two"]
    (tmp_path / "a:0.0.1:one").unlink()
    (tmp_path / "a:0.0.1:one").mkdir()
    with pytest.raises(OSError, match=r"a:0\.0\.1:one"):
        made.remove()
    assert os.listdir(tmp_path) == ["a:0.0.1:one"]
    made.remove()
    made.close_ends()


def test_few_filters_are_kept() -> None:
    for number in range(40):
        allow = {"ioctl": {"args": {"index": 1, "values": [number]}}}
        assert filters.application_filter(described(seccomp={"allow": allow}))
    assert filters._compiled.cache_info().currsize <= 16


def test_no_container_has_the_name_of_the_hosts_clients() -> None:
    server = ConsoleServer(None, None, None, ConsoleOptions(), 1)  # type: ignore[arg-type]
    with pytest.raises(StartContainerFailed, match="a container named extern cannot have a console"):
        server.connect_container(described(name="extern", console={"permissions": ["ident"]}))
