# SPDX-License-Identifier: Apache-2.0
"""What the console says to which request, byte by byte; and whatever else a client may send."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from consoleclient import CONNECT, EXTERN, IDENT, SUBSCRIBE, connect, everything, exactly
from consoleserver import Server, serve
from hypothesis import given, settings
from hypothesis import strategies as st

from northstar.config import ConsoleOptions
from northstar.names import Container
from northstar.protocol.permissions import FULL
from northstar.runtime.spawning.process import ExitStatus

GOLDEN = Path(__file__).with_name("data") / "console.txt"
A = Container.parse("a:0.0.1")
EVERYTHING = FULL | {"exec"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from serve()


def conversations() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in GOLDEN.read_text().splitlines():
        name = re.fullmatch(r"\[(.*)\]", line)
        if name:
            found[name[1]] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("name", conversations())
def test_golden(server: Server, name: str) -> None:
    with server.connection(granted=FULL if name.endswith("without the permission") else EVERYTHING) as sock:
        for line in conversations()[name]:
            kind, text = line[0], line[2:].encode()
            if kind == ">":
                sock.sendall(text + b"\n")
            elif kind == "+":
                sock.sendall(text)
            elif kind == "<":
                exactly(sock, text + b"\n")
            else:
                assert line == "."
                assert everything(sock) == b""
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b""


REQUESTS = [
    line[2:]
    for lines in conversations().values()
    for line in lines
    if line.startswith('> {"request":') and '"list":null' not in line and '"start":[' not in line
]


def needed(line: str) -> str:
    """The permission for a request of the golden file."""
    name = re.findall(r"[a-z_]+", line)[1]
    if name == "start" and "<INIT>" in line:
        return "start_command"
    if name in ("logs", "problems"):
        return "inspect"
    return "token_verification" if name == "token_verify" else name


@pytest.mark.parametrize("line", REQUESTS)
def test_permission_denied_echoes_the_request(server: Server, line: str) -> None:
    with server.connection(granted=frozenset()) as sock:
        connect(sock)
        sock.sendall(line.encode() + b"\n")
        exactly(sock, line.replace('{"request":', '{"response":{"permission_denied":').encode() + b"}\n")


@pytest.mark.parametrize("permission", sorted(EVERYTHING - {"notifications"}))
def test_each_permission_is_needed(server: Server, permission: str) -> None:
    """Everything is denied that needs `permission`, and nothing else."""
    with server.connection(granted=EVERYTHING - {permission}) as sock:
        connect(sock)
        # The bytes of a package would have to follow, and a command has two answers.
        alone = {"install", "exec"} - {permission}
        for line in (line for line in REQUESTS if needed(line) not in alone):
            sock.sendall(line.encode() + b"\n")
            assert (b'"permission_denied"' in sock.recv(65536)) == (needed(line) == permission), line


NOTIFICATIONS = [
    ("started", (A, 0.5), '{"notification":{"started":"a:0.0.1"}}'),
    ("exited", (A, ExitStatus(code=0)), '{"notification":{"exit":["a:0.0.1",{"exit":{"code":0}}]}}'),
    ("exited", (A, ExitStatus(code=-1)), '{"notification":{"exit":["a:0.0.1",{"exit":{"code":-1}}]}}'),
    (
        "exited",
        (A, ExitStatus(signal=15)),
        '{"notification":{"exit":["a:0.0.1",{"signalled":{"signal":15}}]}}',
    ),
    ("installed", (A,), '{"notification":{"install":"a:0.0.1"}}'),
    ("uninstalled", (A,), '{"notification":{"uninstall":"a:0.0.1"}}'),
    (
        "memory_event",
        (A, {"low": None, "high": None, "max": 34, "oom": 1, "oom_kill": None}),
        '{"notification":{"c_group":["a:0.0.1",{"memory":{"low":null,"high":null,"max":34,"oom":1,'
        '"oom_kill":null}}]}}',
    ),
]


@pytest.mark.parametrize(("event", "arguments", "line"), NOTIFICATIONS)
def test_golden_notification(server: Server, event: str, arguments: tuple[object, ...], line: str) -> None:
    with server.connection() as subscriber, server.connection() as other:
        connect(subscriber, SUBSCRIBE)
        connect(other)
        server.call(getattr(server.notifications, event), *arguments)
        exactly(subscriber, line.encode() + b"\n")
        other.sendall(IDENT)
        exactly(other, EXTERN)


def test_golden_output(server: Server) -> None:
    container = Container.parse("followed:0.0.1")
    output = server.call(server.runtime.containers.get, container).output
    with server.connection() as sock:
        connect(sock)
        sock.sendall(b'{"request":{"logs":{"container":"followed:0.0.1","follow":true}}}\n')
        exactly(
            sock,
            b'{"response":{"logs":{"ok":{"container":"followed:0.0.1","data":{"lines":[{"time":1700000000123456,'
            b'"stream":"stderr","line":"first words"}],"lost":{"lines":0,"bytes":0}}}}}}\n',
        )
        server.call(output.add, "stdout", 'tab\t "ä"')
        exactly(
            sock,
            b'{"notification":{"output":["followed:0.0.1",{"lines":[{"time":1700000000123456,"stream":"stdout",'
            b'"line":"tab\\t \\"\xc3\xa4\\""}],"lost":0}]}}\n',
        )
        server.call(output.remove)
        exactly(sock, b'{"notification":{"output_end":"followed:0.0.1"}}\n')


def test_golden_expired_token(server: Server) -> None:
    with server.connection(ConsoleOptions(token_validity=60.0)) as sock:
        connect(sock)
        sock.sendall(b'{"request":{"token_create":{"target":"extern","shared":""}}}\n')
        token = json.loads(sock.recv(1000))["response"]["token"]
        verify = {"token_verify": {"token": token, "user": "extern", "shared": ""}}
        for elapsed, verdict in ((60, b"Ok"), (61, b"Expired")):
            server.now += elapsed
            sock.sendall(json.dumps({"request": verify}).encode() + b"\n")
            exactly(sock, b'{"response":{"token_verification":"' + verdict + b'"}}\n')
            server.now -= elapsed


# --- anything


ENDLESS = (
    b'{"request":{"exec":{"container":"endless:0.0.1","command":["x"],"environment":{},"terminal":false}}}\n'
)
FOLLOW = b'{"request":{"logs":{"container":"a:0.0.1","follow":true}}}\n'
PIECES = st.sampled_from(
    [line.encode() + b"\n" for line in REQUESTS]
    + [CONNECT, SUBSCRIBE, ENDLESS, FOLLOW, b"\n", b"{", b"}", b'"', b"\xff", b"\0"]
)
STREAMS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=8).map(b"".join),
    st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=8).map(lambda p: CONNECT + b"".join(p)),
)


@settings(max_examples=300)
@given(STREAMS, st.integers(0, 5), st.booleans())
def test_any_bytes_end_in_answers_and_a_closed_connection(
    server: Server, stream: bytes, descriptors: int, may_execute: bool
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (
        server.connection(granted=EVERYTHING if may_execute else FULL) as sock,
        server.connection() as bystander,
    ):
        connect(bystander)
        if stream:
            try:
                assert socket.send_fds(sock, [stream], [0] * descriptors) == len(stream)
            except PermissionError:
                # Linux 6.16 can refuse what the peer does not want.
                assert descriptors and not may_execute
                sock.sendall(stream)
        sock.shutdown(socket.SHUT_WR)
        answers = everything(sock)
        assert answers == b"" or answers.endswith(b"\n")
        bystander.sendall(IDENT)
        exactly(bystander, EXTERN)
    assert server.failures == []
    # Less, if the collector finds some of another test meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before
