# SPDX-License-Identifier: Apache-2.0
"""Output of containers and of programs of the host: pipes whose other end somebody else keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from virtualloop import turns

from northstar.kernel import process
from northstar.manifest import Manifest, parse
from northstar.runtime.debugging.child import Child
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.output import streams as output
from northstar.runtime.output.lastoutput import LastOutput
from northstar.runtime.output.streams import Streams

RUNS = 3


def run(main: Callable[[Loop], Coroutine[Any, Any, None]]) -> None:
    """Run it on an event loop, on which nothing fails and which leaves no descriptor behind."""
    failures: list[BaseException] = []
    loop = Loop(failures.append)
    before = set(os.listdir("/proc/self/fd"))
    loop.run(main(loop))
    assert failures == []
    assert set(os.listdir("/proc/self/fd")) <= before


def manifest_of(kind: str) -> Manifest:
    io = f'"io":{{"stdout":"{kind}","stderr":"{kind}"}}'
    return parse(f'{{"name":"a","version":"0.0.1","init":"/a","uid":1000,"gid":1000,{io}}}'.encode())


@pytest.fixture(autouse=True)
def no_root_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fchown", lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "inherit"])
def test_somebody_keeps_the_end_of_a_container(kind: str) -> None:
    """Pipes of ended runs do not pile up, and nobody speaks in the name of a container that has ended."""
    manifest = manifest_of(kind)

    async def main(loop: Loop) -> None:
        kept, memory = [], LastOutput()
        memory.begin(10_000)
        for _ in range(RUNS):
            streams = Streams(loop, manifest, memory)
            kept.append(os.dup(streams.descriptors["stdout"]))
            os.write(kept[-1], b"a line\nno line")
            streams.close_ends()
            await streams.drain()
        await turns(loop)
        assert [line["line"] for line in memory.to_json()["lines"]] == ["a line", "no line"] * RUNS
        for descriptor in kept:
            with pytest.raises(BrokenPipeError):
                os.write(descriptor, b"later")
            os.close(descriptor)

    run(main)


def test_nobody_keeps_it() -> None:
    """All of it arrives, and it is not waited for."""
    manifest = manifest_of("pipe")

    async def main(loop: Loop) -> None:
        memory = LastOutput()
        memory.begin(100_000)
        streams = Streams(loop, manifest, memory)
        os.write(streams.descriptors["stdout"], b"line\n" * 1000)
        streams.close_ends()
        began = time.monotonic()
        await streams.drain()
        assert len(memory.to_json()["lines"]) == 1000
        assert time.monotonic() - began < output.DRAIN_TIMEOUT

    run(main)


# --- programs of the host


def collect(lines: list[bytes]) -> Callable[[bytes], float]:
    def feed(data: bytes) -> float:
        lines.append(data)
        return 0.0

    return feed


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ("kill -34 $$", "signal: 34 (SIGRTMIN)"),
        ("kill -40 $$", "signal: 40 (SIGRTMIN+6)"),
        ("kill -64 $$", "signal: 64 (SIGRTMAX)"),
    ],
)
def test_outcome(script: str, outcome: str) -> None:
    async def main(loop: Loop) -> None:
        program = Child(loop, ["/bin/bash", "-c", script], {})
        await program.ended
        assert program.outcome == outcome

    run(main)


def test_a_program_leaves_somebody_who_keeps_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "DRAIN_TIMEOUT", 0.01)
    lines: list[bytes] = []

    async def main(loop: Loop) -> None:
        program = Child(loop, ["/bin/sh", "-c", "echo $$; sleep 1000 & echo $!"], {1: collect(lines)})
        await program.ended
        os.kill(int(b"".join(lines).split()[1]), 9)

    run(main)
    assert lines[-1] == b""


def test_no_descriptor_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go on, and leaves no zombie."""
    pids: list[int] = []

    def refuse(pid: int) -> int:
        pids.append(pid)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(process, "pidfd_open", refuse)

    async def main(loop: Loop) -> None:
        with pytest.raises(OSError, match="Too many open files"):
            Child(loop, ["/bin/sleep", "1000"], {1: collect([])})
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{pids[0]}"):
            assert time.monotonic() < deadline
            await loop.sleep(0.01)

    run(main)


def test_no_such_program() -> None:
    async def main(loop: Loop) -> None:
        with pytest.raises(FileNotFoundError):
            Child(loop, ["/nonexistent"], {1: collect([]), 2: collect([])})

    run(main)
