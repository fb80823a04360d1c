# SPDX-License-Identifier: Apache-2.0
"""The protocol of the client, without any socket."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    calls,
    logs,
    updates,
)
from northstar.client.protocol import ClientProtocol
from northstar.client.upload import Upload
from northstar.errors import ProtocolError
from northstar.protocol import requests

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
        protocol.request(requests.Ident())
    stream = ACK + STARTED + b'{"response":{"ident":"a:0.0.1"}}\r\n' + STARTED + b'{"response":"shutdown"}\n'
    cuts = sorted({0, len(stream), *(end for end in ends if end < len(stream))})
    for begin, end in itertools.pairwise(cuts):
        protocol.receive(stream[begin:end])
    assert list(protocol.responses) == [{"ident": "a:0.0.1"}, "shutdown"]
    assert [str(notification) for notification in protocol.notifications] == ["started a:0.0.1"] * 2


def test_response_without_a_request() -> None:
    protocol = established()
    protocol.request(requests.Ident())
    protocol.receive(b'{"response":{"ident":"a:0.0.1"}}\n')
    with pytest.raises(ClientError, match="unexpected message"):
        protocol.receive(b'{"response":{"ident":"a:0.0.1"}}\n')


def test_notifications_that_nobody_takes() -> None:
    protocol = established(backlog=2)
    protocol.receive(STARTED * 2)
    with pytest.raises(LaggedNotifications, match="more than 2"):
        protocol.receive(STARTED)


def test_notifications_that_nobody_wants_do_not_count() -> None:
    protocol = established(backlog=2)
    output = b'{"notification":{"output":["a:0.0.1",{"lines":[],"lost":1}]}}\n'
    protocol.receive(output + STARTED)
    with protocol.ignoring("a:0.0.1", logs.OUTPUT):
        protocol.receive(output * 3)
        assert [notification.kind for notification in protocol.notifications] == ["started"]
    protocol.receive(output)
    assert [notification.kind for notification in protocol.notifications] == ["started", "output"]


def test_trace() -> None:
    seen = []
    protocol = ClientProtocol(trace=lambda direction, line: seen.append((direction, line)))
    protocol.connect()
    protocol.receive(ACK)
    protocol.request(requests.List())
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


ERRORS = [
    ('{"configuration":{"context":"no such key"}}', "invalid configuration: no such key"),
    ('{"duplicate_container":{"container":"a:0.0.1"}}', "duplicate container name and version a:0.0.1"),
    ('{"invalid_container":{"container":"a:0.0.1"}}', "invalid container a:0.0.1"),
    ('{"invalid_arguments":{"cause":"reserved key"}}', "invalid arguments reserved key"),
    ('{"mount_busy":{"container":"a:0.0.1"}}', "container busy: a:0.0.1"),
    ('{"umount_busy":{"container":"a:0.0.1"}}', "container busy: a:0.0.1"),
    (
        '{"start_container_started":{"container":"a:0.0.1"}}',
        "failed to start container a:0.0.1: already started",
    ),
    ('{"start_container_resource":{"container":"a:0.0.1"}}', "failed to start container a:0.0.1: resource"),
    (
        '{"start_container_missing_resource":{"container":"a:0.0.1","resource":"b","version":">=0.0.2"}}',
        "failed to start container a:0.0.1: missing resource b version >=0.0.2",
    ),
    (
        '{"start_container_failed":{"container":"a:0.0.1","error":"EIO"}}',
        "failed to start container a:0.0.1: EIO",
    ),
    (
        '{"stop_container_not_started":{"container":"a:0.0.1"}}',
        "failed to stop container a:0.0.1: not started",
    ),
    ('{"invalid_repository":{"repository":"foo"}}', "invalid repository foo"),
    ('{"install_duplicate":{"container":"a:0.0.1"}}', "failed to install a:0.0.1: installed"),
    (
        '{"critical_container":{"container":"a:0.0.1","status":{"exit":{"code":1}}}}',
        "critical container a:0.0.1 exited with: {'exit': {'code': 1}}",
    ),
    ('{"unexpected":{"error":"EINVAL: Invalid argument"}}', "EINVAL: Invalid argument"),
    ('{"of_a_newer_runtime":{"x":1}}', "of_a_newer_runtime: {'x': 1}"),
    ('{"invalid_container":{}}', "invalid_container: {}"),
    ('"no object"', "no object"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_every_error_is_described(error: str, text: str) -> None:
    line = f'{{"response":{{"start":{{"error":{{"container":"a:0.0.1","error":{error}}}}}}}}}\n'
    with pytest.raises(Refused) as caught:
        answered(calls.start("a:0.0.1", None, (), None), line.encode())
    assert str(caught.value) == text
    assert caught.value.variant == (error.split('"')[1] if error.startswith("{") else "unexpected")


@pytest.mark.parametrize(
    ("notification", "text"),
    [
        ('"shutdown"', "shutting down"),
        ('{"started":"a:0.0.1"}', "started a:0.0.1"),
        ('{"install":"a:0.0.1"}', "installed a:0.0.1"),
        ('{"uninstall":"a:0.0.1"}', "uninstalled a:0.0.1"),
        ('{"exit":["a:0.0.1",{"exit":{"code":-2}}]}', "container a:0.0.1 exited with status exit code -2"),
        (
            '{"exit":["a:0.0.1",{"signalled":{"signal":15}}]}',
            "container a:0.0.1 exited with status signalled 15",
        ),
        (
            '{"c_group":["a:0.0.1",{"memory":{"low":null,"high":0,"max":34,"oom":1,"oom_kill":null}}]}',
            "container a:0.0.1 memory event: high 0, max 34, oom 1",
        ),
    ],
)
def test_every_notification_is_described(notification: str, text: str) -> None:
    protocol = established()
    protocol.receive(f'{{"notification":{notification}}}\n'.encode())
    assert [str(notification) for notification in protocol.notifications] == [text]


def test_output_of_a_container() -> None:
    line = (
        b'{"response":{"logs":{"ok":{"container":"a:0.0.1","data":{"lines":[{"time":1500000,"stream":"stderr",\
"line":"one"}],"lost":{"lines":2,"bytes":30}}}}}}\n'
    )
    assert answered(logs.fetch("a:0.0.1", follow=True), line) == ([(1.5, "stderr", "one")], 2, 30)
    protocol = established()
    lines = '{"lines":[{"time":1500000,"stream":"stdout","line":"two"}],"lost":3}'
    protocol.receive(f'{{"notification":{{"output":["a:0.0.1",{lines}]}}}}\n'.encode())
    protocol.receive(b'{"notification":{"output_end":"a:0.0.1"}}\n')
    output, end = protocol.notifications
    assert (output.kind, output.container) == (logs.OUTPUT, "a:0.0.1")
    assert logs.later(output) == ([(1.5, "stdout", "two")], 3, 0)
    assert (end.kind, end.container) == (logs.END, "a:0.0.1")


@pytest.mark.parametrize(
    ("names", "more"),
    [
        (["a"], {}),
        (["a:0.0.1"] * 1025, {}),
        (["a:0.0.1"], {"settle": float("nan")}),
        (["a:0.0.1"], {"settle": float("inf")}),
        (["a:0.0.1"], {"attempts": 1 << 31}),
        (["a:0.0.1"], {"reference": "a\0"}),
        (["a:0.0.1"], {"data": "\udc80"}),
    ],
)
def test_updates_that_would_be_no_message(names: list[str], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        updates.begin(names, **more)


@pytest.mark.parametrize("call", [updates.acknowledge, updates.cancel])
def test_keys_that_would_be_no_message(call: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        call("a\0")


@pytest.mark.parametrize("verdict", ["Ok", "Invalid", "Expired", "Future"])
def test_verdicts_about_tokens(verdict: str) -> None:
    line = f'{{"response":{{"token_verification":"{verdict}"}}}}\n'
    assert answered(calls.verify_token(b"x" * 40, "a", b""), line.encode()) == verdict


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (
            '{"permission_denied":{"exec":{"container":"a:0.0.1","command":["x"],"environment":{},'
            '"terminal":false}}}',
            "permission denied: exec",
        ),
        (
            '{"exec":{"error":{"container":"a:0.0.1","error":{"unexpected":{"error":"it is not running"}}}}}',
            "it is not running",
        ),
    ],
)
def test_command_that_is_not_executed_has_one_response(response: str, text: str) -> None:
    protocol = established()
    call = calls.execute("a:0.0.1", ["x"], {}, False)
    protocol.request(call.request)
    protocol.receive(f'{{"response":{response}}}\n'.encode())
    with pytest.raises(ClientError, match=text):
        call.decode(protocol.responses.popleft())
    with pytest.raises(ClientError, match="unexpected message"):
        protocol.receive(b'{"response":{"exec":{"ended":{"exit":{"code":7}}}}}\n')


def test_command_has_two_responses() -> None:
    protocol = established()
    protocol.request(calls.execute("a:0.0.1", ["true"], {}, False).request)
    ended = b'{"response":{"exec":{"ended":{"exit":{"code":7}}}}}\n'
    protocol.receive(b'{"response":{"exec":{"ok":{"container":"a:0.0.1"}}}}\n' + ended)
    assert calls.exit_status(protocol.responses[1]) == (7, None)
    assert calls.exit_status({"exec": {"ended": {"signalled": {"signal": 9}}}}) == (None, 9)
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


@pytest.mark.parametrize(
    ("call", "response"),
    [
        (calls.containers(), '{"list":null}'),
        (calls.kill("a:0.0.1", 15), '{"kill":null}'),
        (calls.kill("a:0.0.1", 15), '{"kill":{}}'),
        (calls.kill("a:0.0.1", 15), '{"kill":{"error":{}}}'),
        (calls.inspect("a:0.0.1"), '{"inspect":{"ok":{"container":"a:0.0.1"}}}'),
        (calls.inspect("a:0.0.1"), '{"inspect":{"ok":{"data":{"process":1}}}}'),
        (calls.install("mem", 1), '{"install":{"ok":null}}'),
        (calls.mount(["a:0.0.1"]), '{"mount":7}'),
        (calls.create_token("a", b""), '{"token":"no base64"}'),
        (logs.fetch("a:0.0.1", follow=False), '{"logs":{"ok":{"data":{"lines":[1],"lost":{}}}}}'),
    ],
)
def test_malformed_response(call: calls.Call[object], response: str) -> None:
    with pytest.raises(ClientError, match="malformed message"):
        answered(call, f'{{"response":{response}}}\n'.encode())


@pytest.mark.parametrize("ended", [None, {}, {"vanished": {}}, {"exit": {}}])
def test_malformed_end_of_a_command(ended: object) -> None:
    with pytest.raises(ClientError, match="malformed message"):
        calls.exit_status({"exec": {"ended": ended}})


def test_malformed_output() -> None:
    protocol = established()
    protocol.receive(b'{"notification":{"output":["a:0.0.1",{"lines":[{}],"lost":0}]}}\n')
    with pytest.raises(ClientError, match="malformed message"):
        logs.later(protocol.notifications.popleft())


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
