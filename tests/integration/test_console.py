# SPDX-License-Identifier: Apache-2.0
"""The console byte by byte."""

from __future__ import annotations

import json
import socket
import time

import pytest
from runtime import Runtime, SharedRuntime, nstar, shell, wait_for
from wire import CONNECT, wire

from northstar.client import Client, ConnectionClosed, PermissionDenied, Refused

pytestmark = pytest.mark.anywhere


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but those that configure one."""
    return shared_runtime


@pytest.mark.parametrize("version", ["0.9.0", "0.9.2", "0.9.99", "0.9.3-pre", "0.10.0", "1.0.0"])
def test_version_accepted(runtime: SharedRuntime, version: str) -> None:
    with wire(runtime, connect=False) as connection:
        connection.send({"connect": {"version": version, "subscribe_notifications": False}})
        assert connection.line() == b'{"connect_ack":null}\n'


@pytest.mark.parametrize("version", ["0.8.99", "0.0.1"])
def test_version_refused(runtime: SharedRuntime, version: str) -> None:
    with wire(runtime, connect=False) as connection:
        connection.send({"connect": {"version": version, "subscribe_notifications": False}})
        assert connection.line() == b'{"connect_nack":{"invalid_protocol_version":{"version":"0.9.2"}}}\n'
        assert connection.line() == b""


BAD_LINES = {
    "no JSON": b"hello\n",
    "empty line": b"\n",
    "invalid UTF-8": b'{"request":"\xff"}\n',
    "unknown request": b'{"request":"dance"}\n',
    "unknown envelope": b'{"question":"list"}\n',
    "wrong type": b'{"request":{"kill":{"container":"a:0.0.1","signal":"15"}}}\n',
    "envelope twice": b'{"request":"ident","request":"ident"}\n',
    "message of a server": b'{"connect_ack":null,"request":"ident"}\n',
    "byte order mark": b'\xef\xbb\xbf{"request":"ident"}\n',
    "lone surrogate": b'{"request":{"start":["a:0.0.1","\\ud800",[],{}]}}\n',
    "many keys": b'{"request":"ident",' + b",".join(b'"%d":1' % n for n in range(5000)) + b',"1":1,"x"}\n',
    "many digits": b'{"request":{"kill":["a:0.0.1",' + b"1" * 700 + b"]}}\n",
    "unknown key with many digits": b'{"request":"ident","x":' + b"1" * 700 + b"}\n",
    "missing field": b'{"request":{"uninstall":{"container":"a:0.0.1"}}}\n',
    "bad container": b'{"request":{"inspect":{"container":"a"}}}\n',
    "two requests in one": b'{"request":{"list":null,"ident":null}}\n',
    "duplicate key": b'{"request":{"inspect":{"container":"a:0.0.1","container":"b:0.0.1"}}}\n',
    "second connect": json.dumps(CONNECT).encode() + b"\n",
    "deep nesting": b'{"request":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "giant line": b"x" * 2_000_000 + b"\n",
    "NUL": b'{"request":{"start":["a:0.0.1","\\u0000",[],{}]}}\n',
    "install that is too large": b'{"request":{"install":{"repository":"mem","size":999999999}}}\n',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line_closes_only_its_connection(runtime: SharedRuntime, name: str) -> None:
    with wire(runtime) as bystander, wire(runtime) as connection:
        connection.send(BAD_LINES[name])
        assert connection.line() == b""
        assert bystander.ask("ident") == {"ident": "extern:0.0.0"}


@pytest.mark.parametrize("name", ["no JSON", "giant line", "unknown envelope"])
def test_bad_line_instead_of_connect(runtime: SharedRuntime, name: str) -> None:
    with wire(runtime, connect=False) as connection:
        connection.send(BAD_LINES[name])
        assert connection.line() == b""


def test_request_before_connect(runtime: SharedRuntime) -> None:
    with wire(runtime, connect=False) as connection:
        connection.send({"request": "list"})
        assert connection.line() == b""


def test_requests_in_pieces_and_in_bulk(runtime: SharedRuntime) -> None:
    with wire(runtime) as connection:
        for byte in b'{"request":"ident"}\r\n':
            connection.send(bytes((byte,)))
        assert connection.line() == b'{"response":{"ident":"extern:0.0.0"}}\n'
        connection.send(b'{"request":"ident"}\n' * 100)
        for _ in range(100):
            assert connection.line() == b'{"response":{"ident":"extern:0.0.0"}}\n'


def test_errors_by_variant(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started(), wire(runtime) as connection:
        unknown = {
            "error": {"container": "x:0.0.1", "error": {"invalid_container": {"container": "x:0.0.1"}}}
        }
        assert connection.ask({"inspect": {"container": "x:0.0.1"}}) == {"inspect": unknown}
        assert connection.ask({"kill": {"container": "x:0.0.1", "signal": 15}}) == {"kill": unknown}
        assert connection.ask({"uninstall": {"container": "x:0.0.1", "wipe": False}}) == {
            "uninstall": unknown
        }
        assert connection.ask({"mount": {"containers": ["x:0.0.1"]}}) == {"mount": [unknown]}
        start = {"container": "x:0.0.1", "init": None, "arguments": [], "environment": {}}
        assert connection.ask({"start": start}) == {"start": unknown}
        answer = connection.ask({"kill": {"container": "a:0.0.1", "signal": 15}})
        assert answer["kill"]["error"]["error"] == {"stop_container_not_started": {"container": "a:0.0.1"}}
        for number in (0, -1, 32, 64, 1000):
            answer = connection.ask({"kill": {"container": "a:0.0.1", "signal": number}})
            assert answer["kill"]["error"]["error"] == {"unexpected": {"error": "EINVAL: Invalid argument"}}
        start |= {"container": "a:0.0.1", "environment": {"NORTHSTAR_NAME": "x"}}
        answer = connection.ask({"start": start})
        assert "reserved key" in answer["start"]["error"]["error"]["invalid_arguments"]["cause"]


def test_mount_and_umount(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    runtime.pack(shell("b"))
    with runtime.started() as client:
        assert client.mount(["a:0.0.1", "b:0.0.1", "x:0.0.1"])[:2] == [None, None]
        assert client.mount(["a:0.0.1"]) == [{"invalid_container": {"container": "a:0.0.1"}}]
        assert client.umount(["a:0.0.1", "b:0.0.1"]) == [None, None]
        assert client.umount(["a:0.0.1"]) == [{"umount_busy": {"container": "a:0.0.1"}}]
        client.start("a:0.0.1")
        assert client.umount(["a:0.0.1"]) == [{"umount_busy": {"container": "a:0.0.1"}}]
        with pytest.raises(Refused) as refused:
            client.uninstall("a:0.0.1")
        assert refused.value.variant == "umount_busy"
        assert client.mount([]) == []


def test_start_of_a_running_container(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        with pytest.raises(Refused) as refused:
            client.start("a:0.0.1")
        assert refused.value.variant == "start_container_started"


def test_inspect_is_what_the_manifest_says(runtime: SharedRuntime) -> None:
    description = shell("a", custom={"key": [1, 2.5, None]}, env={"A": "b"})
    runtime.pack(description)
    with runtime.started() as client:
        data = client.inspect("a:0.0.1")
        assert data.manifest == description
        assert (data.repository, data.mounted, data.process) == ("default", False, None)
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        assert process.pid > 1
        assert 0 < process.uptime < 60


def test_notifications(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.connect(notifications=True) as watcher:
        with runtime.started() as client:
            client.start("a:0.0.1")
            client.kill("a:0.0.1")
            wait_for(client, "exit")
        kinds = [wait_for(watcher, kind).kind for kind in ("install", "started", "exit", "uninstall")]
        assert kinds == ["install", "started", "exit", "uninstall"]


def test_response_precedes_the_notification_it_caused(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started(), wire(runtime, connect=False) as connection:
        connection.send({"connect": {"version": "0.9.2", "subscribe_notifications": True}})
        connection.line()
        start = {"container": "a:0.0.1", "init": None, "arguments": [], "environment": {}}
        connection.send({"request": {"start": start}})
        assert connection.line() == b'{"response":{"start":{"ok":{"container":"a:0.0.1"}}}}\n'
        assert connection.line() == b'{"notification":{"started":"a:0.0.1"}}\n'


def test_tokens(runtime: SharedRuntime) -> None:
    with runtime.started() as client:
        token = client.create_token("extern", b"shared")
        assert client.verify_token(token, "extern", b"shared") == "Ok"
        assert client.verify_token(token, "other", b"shared") == "Invalid"
        assert client.verify_token(token, "extern", b"different") == "Invalid"


def test_a_client_that_does_not_read_delays_nobody(runtime: SharedRuntime) -> None:
    with wire(runtime) as lazy, wire(runtime) as busy:
        lazy.sock.setblocking(False)
        try:
            for _ in range(20_000):
                lazy.sock.send(b'{"request":"repositories"}\n')
        except BlockingIOError:
            pass
        began = time.monotonic()
        assert busy.ask("ident") == {"ident": "extern:0.0.0"}
        assert time.monotonic() - began < 10


# --- tests with a configuration of their own_runtime


def test_permissions(own_runtime: Runtime) -> None:
    """ESR-01-008: those of the listener, and no others."""
    own_runtime.config.write_text(
        own_runtime.config.read_text().replace(
            'permissions = ["full", "exec"]', 'permissions = ["list", "start"]'
        )
    )
    own_runtime.pack(shell("a"))
    own_runtime.start()
    with Client.connect(own_runtime.url) as client, wire(own_runtime) as connection:
        assert client.list() == ["a:0.0.1"]
        for call in (client.ident, client.repositories, client.shutdown, lambda: client.kill("a:0.0.1")):
            with pytest.raises(PermissionDenied):
                call()
        request = {"kill": {"container": "a:0.0.1", "signal": 15}}
        assert connection.ask(request) == {"permission_denied": request}
        with pytest.raises(PermissionDenied):
            client.start("a:0.0.1", "/bin/sh")
        client.start("a:0.0.1")
    with pytest.raises(PermissionDenied):
        Client.connect(own_runtime.url, notifications=True)
    assert own_runtime.stop() == 0


def test_limits_of_requests(own_runtime: Runtime) -> None:
    own_runtime.configure(console='options = { max_requests_per_sec = 5, max_request_size = "100B" }')
    own_runtime.start()
    with wire(own_runtime) as connection:
        began = time.monotonic()
        for _ in range(9):
            assert connection.ask("ident") == {"ident": "extern:0.0.0"}
        assert time.monotonic() - began > 0.9
        connection.send(b'{"request":"ident"}' + b" " * 81 + b"\n")
        assert connection.line() == b'{"response":{"ident":"extern:0.0.0"}}\n'
        connection.send(b'{"request":"ident"}' + b" " * 82 + b"\n")
        assert connection.line() == b""
    assert own_runtime.stop() == 0


def test_tcp(own_runtime: Runtime) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = own_runtime.config.read_text().replace(own_runtime.url, f"tcp://localhost:{port}")
    own_runtime.config.write_text(text.replace('["full", "exec"]', '"full"'))
    own_runtime.url = f"tcp://localhost:{port}"
    with own_runtime.started() as client:
        assert client.ident() == "extern:0.0.0"


def test_shutdown_closes_connections(own_runtime: Runtime) -> None:
    own_runtime.start()
    with own_runtime.connect() as client, own_runtime.connect() as other:
        other.shutdown()
        with pytest.raises(ConnectionClosed):
            while True:
                client.ident()
                time.sleep(0.01)
    assert own_runtime.stop() == 0


# --- nstar


def test_nstar_commands(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started():
        assert nstar(runtime, "start", "a").stdout == "started a:0.0.1\n"
        table = nstar(runtime, "list").stdout.splitlines()
        header = table[0].replace("|", " ").split()
        assert header == ["Name", "Version", "Repository", "Type", "Mounted", "PID", "Uptime", "State"]
        assert table[2].split()[:9] == ["a", "|", "0.0.1", "|", "default", "|", "app", "|", "yes"]
        assert nstar(runtime, "-j", "list").stdout == '{"response":{"list":["a:0.0.1"]}}\n'
        assert nstar(runtime, "kill", "a", "9").stdout == "signalled a:0.0.1 with signal 9\n"
        assert nstar(runtime, "ident").stdout == "extern:0.0.0\n"
        assert nstar(runtime, "repositories").stdout.split() == ["Name", "---------", "default", "mem"]
        assert json.loads(nstar(runtime, "inspect", "a").stdout)["repository"] == "default"


def test_nstar_refused(runtime: SharedRuntime) -> None:
    with runtime.started():
        done = nstar(runtime, "start", "nonesuch")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == "Error: no container found with name nonesuch\n"
        done = nstar(runtime, "-j", "kill", "nonesuch:0.0.1")
        assert done.returncode == 3
        assert json.loads(done.stdout)["response"]["kill"]["error"]["container"] == "nonesuch:0.0.1"


def test_nstar_without_a_runtime(runtime: SharedRuntime) -> None:
    runtime_url, runtime.url = runtime.url, "unix:///nonexistent/console"
    try:
        done = nstar(runtime, "list")
    finally:
        runtime.url = runtime_url
    assert done.returncode == 1
    assert "unix:///nonexistent/console" in done.stderr
    assert "No such file or directory" in done.stderr


def test_nstar_trace(runtime: SharedRuntime) -> None:
    done = nstar(runtime, "--trace", "ident")
    assert done.stdout == "extern:0.0.0\n"
    assert [line[:12] for line in done.stderr.splitlines()] == [
        '> {"connect"',
        '< {"connect_',
        '> {"request"',
        '< {"response',
    ]
