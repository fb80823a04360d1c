# SPDX-License-Identifier: Apache-2.0
"""The blocking client and that for asyncio, with runtimes that only pretend."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from northstar.client import Client, ClientError, ConnectionClosed, Output, address
from northstar.client import aio as asynchronous
from northstar.errors import ProtocolError

ACK = b'{"connect_ack":null}\n'
STARTED = b'{"notification":{"started":"a:0.0.1"}}\n'


def test_both_faces_have_the_same_methods() -> None:
    def public(face: type) -> set[str]:
        return {name for name in vars(face) if not name.startswith("_")}

    # Descriptors go with the request of a command, which transports of asyncio cannot send.
    blocking = {"answered", "execute", "exit_status", "fileno"}
    assert public(Client) - blocking == public(asynchronous.Client)
    # How to connect differs only in how options are passed on.
    for name in public(asynchronous.Client) - {"connect", "from_env"}:
        assert parameters(getattr(Client, name)) == parameters(getattr(asynchronous.Client, name)), name
    options = parameters(Client)[1:]
    assert parameters(asynchronous.Client.connect)[1:] == parameters(asynchronous.Client.from_env) == options
    assert parameters(Client.connect)[0] == parameters(asynchronous.Client.connect)[0]


def parameters(function: Callable[..., Any]) -> list[tuple[str, object, object]]:
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


@pytest.mark.parametrize("module", ["asyncio", "tomllib", "northstar.config", "northstar.manifest"])
def test_blocking_face_does_not_import(module: str) -> None:
    """A command line client is started often, also on slow devices."""
    script = f"import sys, northstar.client; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("value", ["", "x", "-1", "²", "987654"])
def test_no_inherited_console(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(address.CONSOLE_VARIABLE, value)
    with pytest.raises(ClientError, match="NORTHSTAR_CONSOLE"):
        address.inherited()


Script = dict[bytes, bytes]
"""A runtime of a few lines: what it answers to which line."""


def talking(script: Script) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(script[line])
        writer.close()

    return talk


async def serve(path: Path, script: Script) -> asyncio.Server:
    return await asyncio.start_unix_server(talking(script), path)


@asynccontextmanager
async def connected(directory: Path, script: Script) -> AsyncIterator[asynchronous.Client]:
    server = await serve(directory / "console", script)
    async with server:
        url = f"unix://{directory}/console"
        async with await asynchronous.Client.connect(url, notifications=True) as client:
            yield client


@contextmanager
def connected_blocking(script: Script) -> Iterator[Client]:
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with theirs, theirs.makefile("rb") as lines:
            for line in lines:
                theirs.sendall(script[line])

    runtime = threading.Thread(target=talk)
    runtime.start()
    try:
        with ours, Client(ours, notifications=True) as client:
            yield client
    finally:
        runtime.join()


CONNECT = b'{"connect":{"version":"0.9.2","subscribe_notifications":true}}\n'
IDENT = b'{"request":"ident"}\n'
LIST = b'{"request":"list"}\n'
LOGS = b'{"request":{"logs":{"container":"a:0.0.1","follow":false}}}\n'
FOLLOW = b'{"request":{"logs":{"container":"a:0.0.1","follow":true}}}\n'


def line(text: str) -> str:
    return f'{{"lines":[{{"time":1,"stream":"stdout","line":"{text}"}}]'


def kept(text: str) -> bytes:
    data = f'{line(text)},"lost":{{"lines":0,"bytes":0}}}}'
    return f'{{"response":{{"logs":{{"ok":{{"container":"a:0.0.1","data":{data}}}}}}}}}\n'.encode()


def written(text: str, container: str = "a:0.0.1") -> bytes:
    return f'{{"notification":{{"output":["{container}",{line(text)},"lost":0}}]}}}}\n'.encode()


END = b'{"notification":{"output_end":"a:0.0.1"}}\n'
CHATTY: Script = {
    CONNECT: ACK,
    FOLLOW: kept("one") + written("two") + written("other", "b:0.0.1") + STARTED + written("three"),
    # Some more has been on its way.
    LOGS: written("four") + kept("all"),
    IDENT: b'{"response":{"ident":"extern:0.0.0"}}\n',
}


def texts(output: Output) -> list[str]:
    return [line.text for line in output.lines]


def test_output_is_followed_to_its_end(tmp_path: Path) -> None:
    script = {**CHATTY, FOLLOW: CHATTY[FOLLOW] + END}

    async def run() -> None:
        async with connected(tmp_path, script) as client:
            assert texts(await client.logs("a:0.0.1")) == ["all"]
            outputs = [output async for output in client.follow_logs("a:0.0.1")]
            # "four" had come before, when nobody asked for it.
            assert [texts(output) for output in outputs] == [["one"], ["four"], ["two"], ["three"]]

    asyncio.run(run())
    with connected_blocking(script) as client:
        assert texts(client.logs("a:0.0.1")) == ["all"]
        found = [texts(output) for output in client.follow_logs("a:0.0.1")]
        assert found == [["one"], ["four"], ["two"], ["three"]]


def test_whoever_leaves_early_gets_no_more_output(tmp_path: Path) -> None:
    """What had arrived is forgotten; other notifications are not."""
    others = ["output b:0.0.1", "started a:0.0.1"]

    async def run() -> None:
        async with connected(tmp_path, CHATTY) as client:
            following = client.follow_logs("a:0.0.1")
            async for output in following:
                if texts(output) == ["two"]:
                    break
            await following.aclose()
            assert await client.ident() == "extern:0.0.0"
            assert [str(notification) async for notification in client.notifications(0)] == others

    asyncio.run(run())
    with connected_blocking(CHATTY) as client:
        for output in client.follow_logs("a:0.0.1"):
            if texts(output) == ["two"]:
                break
        assert client.ident() == "extern:0.0.0"
        assert [str(notification) for notification in client.notifications(0)] == others


def test_inherited_console(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        monkeypatch.setenv(address.CONSOLE_VARIABLE, str(ours.detach()))
        streams = await asyncio.open_unix_connection(sock=theirs)
        script = {
            CONNECT.replace(b"true", b"false"): ACK,
            IDENT: b'{"response":{"ident":"a:0.0.1"}}\n',
        }
        runtime = asyncio.create_task(talking(script)(*streams))
        async with await asynchronous.Client.from_env() as client:
            assert await client.ident() == "a:0.0.1"
        await runtime
        with pytest.raises(ClientError, match="NORTHSTAR_CONSOLE"):
            await asynchronous.Client.from_env()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        (b'{"connect_nack":null}\n', b""),
        (b'{"connect_nack":{}}\n', b""),
        (b'{"connect_nack":{"invalid_protocol_version":"0.9.2"}}\n', b""),
        (ACK, b'{"notification":null}\n'),
        (ACK, b'{"notification":{}}\n'),
        (ACK, b'{"notification":{"started":"a:0.0.1","exit":"a:0.0.1"}}\n'),
        (ACK, b'{"notification":{"exit":"x"}}\n'),
        (ACK, b'{"notification":{"exit":["a:0.0.1",{"vanished":{}}]}}\n'),
        (ACK, b'{"notification":{"exit":["a:0.0.1",{"exit":{}}]}}\n'),
        (ACK, b'{"notification":{"new":[]}}\n'),
    ],
)
@pytest.mark.parametrize("face", ["asyncio", "blocking"])
def test_malformed_messages_of_the_runtime(tmp_path: Path, face: str, hello: bytes, answer: bytes) -> None:
    async def run() -> None:
        async with connected(tmp_path, script) as client:
            await client.list()

    script = {CONNECT: hello, LIST: answer}
    with pytest.raises(ClientError, match="malformed message of the runtime"):
        if face == "asyncio":
            asyncio.run(run())
        else:
            with connected_blocking(script) as client:
                client.list()


async def turns() -> None:
    """Let others do what they can do without waiting."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_cancelled_install_never_leaves_a_request_without_its_package(tmp_path: Path) -> None:
    """Here it waits for a runtime that does not read, and has sent nothing of the package yet."""
    package = tmp_path / "package"
    package.write_bytes(b"N" * 1000)

    async def run() -> None:
        received, reading = bytearray(), asyncio.Event()

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(ACK)
            await reading.wait()
            received.extend(await reader.read())
            writer.close()

        server = await asyncio.start_unix_server(read, tmp_path / "console", limit=1024)
        async with server, await asynchronous.Client.connect(f"unix://{tmp_path}/console") as client:
            large = asyncio.create_task(client.start("a:0.0.1", "/x", ["y" * 1000] * 1000))
            await turns()
            large.cancel()
            install = asyncio.create_task(client.install(package, "default"))
            await turns()
            install.cancel()
            with pytest.raises(asyncio.CancelledError):
                await install
            assert isinstance(client._wire.error, ConnectionClosed)
            with pytest.raises(ConnectionClosed):
                await client.ident()
            reading.set()
            with pytest.raises(asyncio.CancelledError):
                await large
        assert b"ident" not in received

    asyncio.run(run())


def test_cancelled_request_leaves_the_connection_in_step(tmp_path: Path) -> None:
    async def run() -> None:
        script = {
            CONNECT: ACK,
            IDENT: b"",
            LIST: b'{"response":{"ident":"x:0.0.1"}}\n{"response":{"list":[]}}\n',
        }
        server = await serve(tmp_path / "console", script)
        async with server:
            url = f"unix://{tmp_path}/console"
            async with await asynchronous.Client.connect(url, notifications=True) as client:
                request = asyncio.create_task(client.ident())
                await asyncio.sleep(0)
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                assert await client.list() == []

    asyncio.run(run())


def test_end_of_the_connection_is_told_to_all(tmp_path: Path) -> None:
    async def run() -> None:
        script = {CONNECT: ACK + STARTED, IDENT: b"", LIST: b"no message\n"}
        server = await serve(tmp_path / "console", script)
        async with server:
            url = f"unix://{tmp_path}/console"
            async with await asynchronous.Client.connect(url, notifications=True) as client:
                results = await asyncio.gather(client.ident(), client.list(), return_exceptions=True)
                assert [type(result) for result in results] == [ProtocolError, ProtocolError]
                with pytest.raises(ProtocolError):
                    await client.ident()
                seen = []
                with pytest.raises(ProtocolError):
                    async for notification in client.notifications():
                        seen.append(str(notification))
                assert seen == ["started a:0.0.1"]

    asyncio.run(run())
