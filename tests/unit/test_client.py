# SPDX-License-Identifier: Apache-2.0
"""The protocol of the client, without any socket, and what the faces put around it."""

from __future__ import annotations

import asyncio
import io
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.client import (
    ClientError,
    ConnectionClosed,
    LaggedNotifications,
    PermissionDenied,
    ProtocolVersion,
    Refused,
    address,
    calls,
)
from northstar.client import aio as asynchronous
from northstar.client.protocol import ClientProtocol
from northstar.client.upload import Upload
from northstar.errors import ProtocolError
from northstar.protocol import messages

ACK = b'{"connect_ack":null}\n'
STARTED = b'{"notification":{"started":"a:0.0.1"}}\n'


def established(**options: int) -> ClientProtocol:
    protocol = ClientProtocol(True, **options)
    protocol.receive(ACK)
    return protocol


def answered(call: calls.Call[object], line: bytes) -> object:
    """What a call makes of a response."""
    protocol = established()
    protocol.request(call.request)
    protocol.receive(line)
    return call.decode(protocol.responses.popleft())


# --- the protocol


def test_handshake() -> None:
    protocol = ClientProtocol(notifications=True)
    assert protocol.connect() == b'{"connect":{"version":"0.9.2","subscribe_notifications":true}}\n'
    assert not protocol.established
    protocol.receive(ACK[:5])
    assert not protocol.established
    protocol.receive(ACK[5:])
    assert protocol.established


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"connect_nack":"permission_denied"}\n', PermissionDenied),
        (b'{"connect_nack":{"invalid_protocol_version":{"version":"1.0.0"}}}\n', ProtocolVersion),
        (b'{"response":{"ident":"a:0.0.1"}}\n', ClientError),
        (b"\n", ProtocolError),
        (b"", ConnectionClosed),
    ],
)
def test_no_handshake(data: bytes, error: type[Exception]) -> None:
    protocol = ClientProtocol()
    with pytest.raises(error):
        protocol.receive(data)
    assert not protocol.established


@given(st.lists(st.integers(1, 200), max_size=5))
def test_bytes_come_in_any_pieces(ends: list[int]) -> None:
    protocol = ClientProtocol(True)
    for _ in range(2):
        protocol.request(messages.Ident())
    stream = ACK + STARTED + b'{"response":{"ident":"a:0.0.1"}}\r\n' + STARTED + b'{"response":"shutdown"}\n'
    cuts = sorted({0, len(stream), *(end for end in ends if end < len(stream))})
    for begin, end in itertools.pairwise(cuts):
        protocol.receive(stream[begin:end])
    assert list(protocol.responses) == [{"ident": "a:0.0.1"}, "shutdown"]
    assert [str(notification) for notification in protocol.notifications] == ["started a:0.0.1"] * 2


def test_response_without_a_request() -> None:
    protocol = established()
    protocol.request(messages.Ident())
    protocol.receive(b'{"response":{"ident":"a:0.0.1"}}\n')
    with pytest.raises(ClientError, match="unexpected message"):
        protocol.receive(b'{"response":{"ident":"a:0.0.1"}}\n')


def test_notifications_that_nobody_takes() -> None:
    protocol = established(backlog=2)
    protocol.receive(STARTED * 2)
    with pytest.raises(LaggedNotifications, match="more than 2"):
        protocol.receive(STARTED)


def test_trace() -> None:
    seen = []
    protocol = ClientProtocol(trace=lambda direction, line: seen.append((direction, line)))
    protocol.connect()
    protocol.receive(ACK)
    protocol.request(messages.List())
    assert [direction for direction, _ in seen] == [">", "<", ">"]
    assert seen[2][1] == b'{"request":"list"}'


# --- calls


def test_value_of_a_response() -> None:
    assert answered(calls.ident(), b'{"response":{"ident":"extern:0.0.0"}}\n') == "extern:0.0.0"
    assert answered(calls.containers(), b'{"response":{"list":["a:0.0.1"]}}\n') == ["a:0.0.1"]
    assert answered(calls.shutdown(), b'{"response":"shutdown"}\n') is None
    mounted = b'{"response":{"mount":[{"ok":{"container":"a:0.0.1"}},{"error":{"container":"b:0.0.1",\
"error":{"invalid_container":{"container":"b:0.0.1"}}}}]}}\n'
    errors = answered(calls.mount(["a:0.0.1", "b:0.0.1"]), mounted)
    assert errors == [None, {"invalid_container": {"container": "b:0.0.1"}}]


def test_refused() -> None:
    line = b'{"response":{"kill":{"error":{"container":"a:0.0.1","error":{"stop_container_not_started":\
{"container":"a:0.0.1"}}}}}}\n'
    with pytest.raises(Refused, match=r"failed to stop container a:0\.0\.1: not started") as caught:
        answered(calls.kill("a:0.0.1", 15), line)
    assert caught.value.variant == "stop_container_not_started"


def test_command_has_two_responses() -> None:
    protocol = established()
    protocol.request(calls.execute("a:0.0.1", ["true"], {}, False).request)
    ended = b'{"response":{"exec":{"ended":{"exit":{"code":7}}}}}\n'
    protocol.receive(b'{"response":{"exec":{"ok":{"container":"a:0.0.1"}}}}\n' + ended)
    assert calls.exit_status(protocol.responses[1]) == (7, None)
    with pytest.raises(ClientError, match="unexpected message"):
        protocol.receive(ended)


def test_denied() -> None:
    with pytest.raises(PermissionDenied, match="list"):
        answered(calls.containers(), b'{"response":{"permission_denied":"list"}}\n')
    line = b'{"response":{"permission_denied":{"install":{"repository":"a","size":1}}}}\n'
    with pytest.raises(PermissionDenied, match="install"):
        answered(calls.install("a", 1), line)


def test_response_of_another_kind() -> None:
    with pytest.raises(ClientError, match="unexpected response"):
        answered(calls.ident(), b'{"response":{"list":[]}}\n')


def test_malformed_container() -> None:
    with pytest.raises(ValueError, match="version"):
        calls.inspect("a")


# --- packages


def test_upload_of_a_file_from_where_it_stands() -> None:
    file = io.BytesIO(b"-" + b"x" * 1_000_000)
    file.read(1)
    steps = []
    upload = Upload(file, None, lambda sent, size: steps.append((sent, size)))
    assert b"".join(upload.chunks()) == b"x" * 1_000_000
    assert steps[-1] == (1_000_000, 1_000_000)
    assert steps == sorted(steps) and len(steps) > 1


def test_upload_of_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.npk"
    path.write_bytes(b"content")
    for package in (path, str(path)):
        with Upload(package, None, None) as upload:
            assert upload.size == 7
            assert b"".join(upload.chunks()) == b"content"


class Pipe:
    """Something that can be read, and nothing else."""

    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read


def test_upload_of_something_that_cannot_seek() -> None:
    assert b"".join(Upload(Pipe(b"content and more"), 7, None).chunks()) == b"content"
    with pytest.raises(ValueError, match="size"):
        Upload(Pipe(b"content"), None, None)


def test_upload_that_is_too_short() -> None:
    with pytest.raises(ClientError, match="only 7 of 8 bytes"):
        list(Upload(Pipe(b"content"), 8, None).chunks())


# --- faces


def test_both_faces_have_the_same_methods() -> None:
    from northstar.client import Client

    def public(face: type) -> set[str]:
        return {name for name in vars(face) if not name.startswith("_")}

    # Descriptors go with the request of a command, which transports of asyncio cannot send.
    blocking = {"answered", "execute", "exit_status", "fileno"}
    assert public(Client) - blocking == public(asynchronous.Client)


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


async def serve(path: Path, script: dict[bytes, bytes]) -> asyncio.Server:
    """A runtime of a few lines: what it answers to which line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(script[line])
        writer.close()

    return await asyncio.start_unix_server(talk, path)


CONNECT = b'{"connect":{"version":"0.9.2","subscribe_notifications":true}}\n'
IDENT = b'{"request":"ident"}\n'
LIST = b'{"request":"list"}\n'


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
