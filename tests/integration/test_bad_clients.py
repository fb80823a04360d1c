# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow, many, or gone at the wrong moment: the others notice nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from isolated import wait_until
from runtime import Runtime, SharedRuntime, shell
from wire import CONNECT, wire

from northstar.client import Refused

pytestmark = pytest.mark.anywhere

ACK = b'{"connect_ack":null}\n'
IDENT = {"ident": "extern:0.0.0"}


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but those that configure one."""
    return shared_runtime


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_one_byte_at_a_time(runtime: SharedRuntime) -> None:
    with wire(runtime) as slow, wire(runtime) as other:
        for byte in b'{"request":"ident"}\n':
            assert other.ask("ident") == IDENT
            slow.send(bytes((byte,)))
        assert slow.line() == b'{"response":{"ident":"extern:0.0.0"}}\n'


def test_half_a_request_and_gone(runtime: SharedRuntime) -> None:
    with wire(runtime) as other:
        for _ in range(10):
            with wire(runtime) as gone:
                gone.send(b'{"request":"li')
        assert other.ask("ident") == IDENT


def test_gone_before_the_answers(runtime: SharedRuntime) -> None:
    with wire(runtime) as other:
        for _ in range(10):
            with wire(runtime) as gone:
                gone.send(b'{"request":"repositories"}\n' * 100)
        assert other.ask("ident") == IDENT


def test_gone_within_a_package(runtime: SharedRuntime) -> None:
    with wire(runtime) as other:
        for repository in ("default", "mem"):
            with wire(runtime) as gone:
                gone.send({"request": {"install": {"repository": repository, "size": 1000}}})
                gone.send(b"x" * 500)
        assert other.ask("list") == {"list": []}
    runtime.wait_for_log("Failed to install: failed to read npk")
    assert not os.listdir(runtime.repository)


def test_bytes_behind_a_package(runtime: SharedRuntime) -> None:
    """ESR-01-002: they are read as the next line."""
    package = runtime.pack_only(shell("a")).read_bytes()
    with wire(runtime) as connection, wire(runtime) as other:
        request = {"install": {"repository": "mem", "size": len(package)}}
        connection.send({"request": request})
        connection.send(package + b'{"request":"list"}\n' + b"garbage\n")
        assert connection.line() == b'{"response":{"install":{"ok":{"container":"a:0.0.1"}}}}\n'
        assert connection.line() == b'{"response":{"list":["a:0.0.1"]}}\n'
        assert connection.line() == b""
        assert other.ask({"uninstall": {"container": "a:0.0.1", "wipe": False}}) == {
            "uninstall": {"ok": {"container": "a:0.0.1"}}
        }


def test_a_client_that_sends_faster_than_it_is_answered(runtime: SharedRuntime) -> None:
    """It gets its turns, and the others get theirs."""
    flood = 3000
    with wire(runtime) as greedy, wire(runtime) as other:
        greedy.send(b'{"request":"ident"}\n' * flood)
        assert other.ask("ident") == IDENT
        for _ in range(flood):
            assert greedy.line() == b'{"response":{"ident":"extern:0.0.0"}}\n'


FORGED = "x\n00:00:00.000 northstar ⬤  ERROR: forged\r\x1b[2J\x9b1A\u2028"
HOSTILE = [
    {"connect": {"version": FORGED, "subscribe_notifications": False}},
    {"request": {"inspect": {"container": FORGED}}},
    {"request": {"inspect": {"container": f"{FORGED}:0.0.1"}}},
    {"request": {"uninstall": {"container": f"a:{FORGED}", "wipe": False}}},
    {"request": {"mount": {"containers": [FORGED]}}},
    {"request": {"install": {"repository": FORGED, "size": 1}}},
    {"request": {"token_create": {"target": FORGED, "shared": "AAAA"}}},
    {"request": {"token_verify": {"token": "AAAA", "user": FORGED, "shared": "AAAA"}}},
    {
        "request": {
            "start": {"container": "a:0.0.1", "init": f"/{FORGED}", "arguments": [], "environment": {}}
        }
    },
    {"request": {"start": {"container": "a:0.0.1", "arguments": ["-c", FORGED], "environment": {}}}},
    {"request": {"start": {"container": "a:0.0.1", "arguments": [], "environment": {FORGED: FORGED}}}},
    {"request": {FORGED: FORGED}},
    {FORGED: FORGED},
]


def test_what_clients_send_forges_no_lines_of_the_log(runtime: SharedRuntime) -> None:
    """S-52: names, paths and texts of clients, of the address of one, and of a package's file name."""
    line = re.compile(r"\d\d:\d\d:\d\d\.\d{3} +\S+ ⬤  [A-Z]+ *: [^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028]*")
    runtime.pack(shell("a", f"printf '{FORGED}'; exit 0"))
    with runtime.started() as client:
        for message in HOSTILE:
            with wire(runtime, connect="connect" not in message) as connection:
                connection.sock.settimeout(10)
                connection.send(json.dumps(message, ensure_ascii=False).encode() + b"\n")
                if "install" in message.get("request", ()):
                    connection.send(b"x")
                connection.line()
        name = runtime.base / "c\n00:00:00.000 forged"
        with socket.socket(socket.AF_UNIX) as named:
            named.bind(str(name))
            named.connect(str(runtime.base / "console"))
            named.sendall(b"[]\n")
            assert named.recv(100) == b""
        name.unlink()
        wait_until(lambda: client.inspect("a:0.0.1").process is None, "those that were started have ended")
        runtime.run(client, "a:0.0.1")
        assert client.list() == ["a:0.0.1"]
    assert "forged" in runtime.output()
    assert not [text for text in runtime.output().splitlines() if not line.fullmatch(text)]


@pytest.fixture
def hard_limit() -> Iterator[int]:
    """That of open files, which the test may use like the daemon."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_connections(runtime: SharedRuntime, hard_limit: int) -> None:
    """2000 on a machine that allows it."""
    number = min(2000, hard_limit // 8)
    assert runtime.process is not None
    before = open_files(runtime.process.pid)
    with wire(runtime) as other:
        with ExitStack() as stack:
            connections = [stack.enter_context(wire(runtime, connect=False)) for _ in range(number)]
            for connection in connections:
                connection.send(CONNECT)
            for connection in connections:
                assert connection.line() == ACK
            assert other.ask("ident") == IDENT
            assert open_files(runtime.process.pid) >= before + number
        while open_files(runtime.process.pid) > before + 1:
            assert other.ask("ident") == IDENT


def test_soft_limit_of_open_files_is_for_containers(own_runtime: Runtime) -> None:
    """The daemon uses what the hard one allows; containers start with what the daemon was started with."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    own_runtime.command = ["sh", "-c", 'ulimit -Sn 60; exec "$@"', "sh", *own_runtime.command]
    own_runtime.pack(shell("a", "ulimit -Sn; ulimit -Hn"))
    with own_runtime.started() as client:
        with ExitStack() as stack:
            for _ in range(100):
                assert stack.enter_context(wire(own_runtime)).ask("ident") == IDENT
        for _ in range(2):
            assert own_runtime.run(client, "a:0.0.1")[1] == ["60", str(hard)]


def test_no_descriptors_left(own_runtime: Runtime) -> None:
    """Who is connected is served; who waits is served as soon as somebody leaves."""
    own_runtime.pack(shell("a"))
    own_runtime.start()
    assert own_runtime.process is not None
    pid = own_runtime.process.pid
    with ExitStack() as stack:
        first = stack.enter_context(own_runtime.connect())
        limit = open_files(pid) + 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        waiting = [stack.enter_context(wire(own_runtime, connect=False)) for _ in range(20)]
        for connection in waiting:
            connection.send(CONNECT)
        own_runtime.wait_for_log("Error listening: Too many open files")
        assert first.list() == ["a:0.0.1"]
        with pytest.raises(Refused, match="Too many open files"):
            first.start("a:0.0.1")
        assert first.ident() == "extern:0.0.0"
        for connection in waiting:
            assert connection.line() == ACK
            connection.sock.shutdown(2)
    with own_runtime.connect(notifications=True) as client:
        client.start("a:0.0.1")
    assert own_runtime.output().count("Error listening") == 1
    assert own_runtime.stop() == 0


def test_shutdown_within_a_start(own_runtime: Runtime) -> None:
    """Whatever has been begun ends; the fixture looks for what could be left."""
    own_runtime.pack(shell("a"))
    own_runtime.start()
    start = {"container": "a:0.0.1", "init": None, "arguments": [], "environment": {}}
    with wire(own_runtime) as connection:
        connection.send({"request": {"start": start}})
        own_runtime.wait_for_log("Trying to start a:0.0.1")
        assert own_runtime.stop(signal.SIGTERM) == 0
    assert "did not end" not in own_runtime.output()
