# SPDX-License-Identifier: Apache-2.0
"""Messages of the console, byte by byte; framing; tokens."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.errors import ProtocolError
from northstar.names import Container, Version
from northstar.protocol import base64text, decoding, messages, permissions, requests, tokens
from northstar.protocol.framing import LineBuffer

A = Container("a", Version(0, 0, 1))
TOKEN = bytes.fromhex("000000000000002a9b4b85fd432930c33c365ce443c7745e4083f4f256c849d7e7c7e71af71ace2b")
TOKEN_TEXT = "AAAAAAAAACqbS4X9Qykwwzw2XORDx3ReQIP08lbISdfnx+ca9xrOKw=="

GOLDEN: list[tuple[Any, str]] = [
    (
        requests.Connect(Version(0, 9, 2), False),
        '{"connect":{"version":"0.9.2","subscribe_notifications":false}}',
    ),
    (
        requests.Exec(A, ("ls", "-l"), {"DEBUG": "1"}, True),
        '{"request":{"exec":{"container":"a:0.0.1","command":["ls","-l"],"environment":{"DEBUG":"1"},'
        '"terminal":true}}}',
    ),
    (requests.Ident(), '{"request":"ident"}'),
    (requests.Inspect(A), '{"request":{"inspect":{"container":"a:0.0.1"}}}'),
    (requests.Install("mem", 123456), '{"request":{"install":{"repository":"mem","size":123456}}}'),
    (requests.Kill(A, 15), '{"request":{"kill":{"container":"a:0.0.1","signal":15}}}'),
    (requests.List(), '{"request":"list"}'),
    (
        requests.Explain(A, "/x", ("y",), {"Z": "1"}),
        '{"request":{"explain":{"container":"a:0.0.1","init":"/x","arguments":["y"],"environment":{"Z":"1"}}}}',
    ),
    (requests.Boot(True, 1.5), '{"request":{"boot":{"wait":true,"timeout":1.5}}}'),
    (requests.Reset(A), '{"request":{"reset":{"container":"a:0.0.1"}}}'),
    (requests.Stop(A), '{"request":{"stop":{"container":"a:0.0.1","signal":null,"timeout":null}}}'),
    (requests.Stop(A, 2, 0.5), '{"request":{"stop":{"container":"a:0.0.1","signal":2,"timeout":0.5}}}'),
    (
        requests.Wait((A,), "ready", None),
        '{"request":{"wait":{"containers":["a:0.0.1"],"until":"ready","timeout":null}}}',
    ),
    (requests.Logs(A, True), '{"request":{"logs":{"container":"a:0.0.1","follow":true}}}'),
    (requests.Mount((A, A)), '{"request":{"mount":{"containers":["a:0.0.1","a:0.0.1"]}}}'),
    (requests.Problems(), '{"request":"problems"}'),
    (requests.Repositories(), '{"request":"repositories"}'),
    (requests.Shutdown(), '{"request":"shutdown"}'),
    (
        requests.Start(A, None, (), {}),
        '{"request":{"start":{"container":"a:0.0.1","init":null,"arguments":[],"environment":{}}}}',
    ),
    (
        requests.Start(A, "<INIT>", ("-v",), {"DEBUG": "1"}),
        '{"request":{"start":{"container":"a:0.0.1","init":"<INIT>","arguments":["-v"],'
        '"environment":{"DEBUG":"1"}}}}',
    ),
    (
        requests.TokenCreate("token-server", b"hello!"),
        '{"request":{"token_create":{"target":"token-server","shared":"aGVsbG8h"}}}',
    ),
    (
        requests.TokenVerify(TOKEN, "token-client", b"hello!"),
        f'{{"request":{{"token_verify":{{"token":"{TOKEN_TEXT}","user":"token-client","shared":"aGVsbG8h"}}}}}}',
    ),
    (requests.Umount((A,)), '{"request":{"umount":{"containers":["a:0.0.1"]}}}'),
    (requests.Uninstall(A, True), '{"request":{"uninstall":{"container":"a:0.0.1","wipe":true}}}'),
]


UPDATES: list[tuple[Any, str]] = [
    (
        requests.Update((A,), 2, 1.5, True, False, "copy", "campaign 42"),
        '{"request":{"update":{"containers":["a:0.0.1"],"attempts":2,"settle":1.5,"allow_downgrade":true,'
        '"force":false,"data":"copy","reference":"campaign 42"}}}',
    ),
    (requests.Updates(True), '{"request":{"updates":{"follow":true}}}'),
    (requests.UpdateAck("u-1"), '{"request":{"update_ack":{"id":"u-1"}}}'),
    (requests.UpdateCancel("u-1"), '{"request":{"update_cancel":{"id":"u-1"}}}'),
]


@pytest.mark.parametrize(("message", "line"), UPDATES, ids=lambda value: type(value).__name__)
def test_golden_updates(message: Any, line: str) -> None:
    assert messages.encode(message) == line.encode() + b"\n"
    assert decoding.decode_client(line.encode()) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"update":{"containers":["a:0.0.1"]}}', requests.Update((A,))),
        ('{"update":{"containers":["a:0.0.1"],"settle":3,"force":null}}', requests.Update((A,), 1, 3.0)),
        ('{"updates":{}}', requests.Updates()),
    ],
)
def test_what_may_be_left_out_of_an_update(body: str, message: Any) -> None:
    assert decoding.decode_client(b'{"request":' + body.encode() + b"}") == message


@pytest.mark.parametrize(
    "body",
    [
        '{"update":{}}',
        '{"update":{"containers":"a:0.0.1"}}',
        '{"update":{"containers":["a"]}}',
        '{"update":{"containers":["a:0.0.1"],"attempts":1.5}}',
        '{"update":{"containers":["a:0.0.1"],"settle":"10s"}}',
        '{"update":{"containers":["a:0.0.1"],"settle":true}}',
        f'{{"update":{{"containers":["a:0.0.1"],"settle":1{"0" * 400}}}}}',
        '{"update":{"containers":["a:0.0.1"],"data":1}}',
        '{"update_ack":{}}',
        '{"update_cancel":{"id":1}}',
        '{"updates":{"follow":1}}',
    ],
)
def test_malformed_updates(body: str) -> None:
    with pytest.raises(ProtocolError):
        decoding.decode_client(b'{"request":' + body.encode() + b"}")


def test_permissions_of_updates() -> None:
    """Whoever may do by hand what an update does may have it done."""
    for message, _ in UPDATES:
        if not isinstance(message, requests.Updates):
            assert permissions.allowed(message, permissions.UPDATE)
            for missing in permissions.UPDATE:
                assert not permissions.allowed(message, permissions.FULL - {missing})
    assert permissions.allowed(requests.Updates(), frozenset(("inspect",)))
    assert not permissions.allowed(requests.Updates(), permissions.FULL - {"inspect"})


@pytest.mark.parametrize(("message", "line"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden(message: Any, line: str) -> None:
    assert messages.encode(message) == line.encode() + b"\n"
    assert decoding.decode_client(line.encode()) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"request":{"list":null}}', requests.List()),
        ('{"request":{"kill":["a:0.0.1",15]}}', requests.Kill(A, 15)),
        ('{"request":{"start":{"container":"a:0.0.1","arguments":[],"environment":{}}}}', requests.Start(A)),
        ('{"request":"list","unknown":1}', requests.List()),
        ('{"request":{"logs":{"container":"a:0.0.1"}}}', requests.Logs(A)),
        ('{"request":{"inspect":{"container":"a:0.0.1","more":1}}}', requests.Inspect(A)),
        ('  {"request" : "list" }\t', requests.List()),
        ('{"connect":1,"request":"list","response":1}', requests.List()),
        (
            '{"request":{"start":{"container":"a:0.0.1","arguments":[],"environment":{"a":"b","a":"c"}}}}',
            requests.Start(A, None, (), {"a": "c"}),
        ),
        (
            f'{{"request":{{"inspect":["{"n" * 1024}:0.0.1"]}}}}',
            requests.Inspect(Container("n" * 1024, Version(0, 0, 1))),
        ),
        ('{"request":{"inspect":{"container":"a:0.0.1-pre+build"}}}', requests.Inspect(A)),
        ('{"request":"boot"}', requests.Boot()),
        ('{"request":{"boot":{}}}', requests.Boot()),
        ('{"request":{"stop":{"container":"a:0.0.1"}}}', requests.Stop(A)),
        ('{"request":{"wait":{"containers":[],"until":"exit","timeout":5}}}', requests.Wait((), "exit", 5.0)),
        ('{"connect":["0.9.2",true]}', requests.Connect(Version(0, 9, 2), True)),
        ('{"connect":["0.9.2",true,["ready"]]}', requests.Connect(Version(0, 9, 2), True, ("ready",))),
    ],
)
def test_tolerated(line: str, message: Any) -> None:
    assert decoding.decode_client(line.encode()) == message


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "null",
        "[]",
        "{}",
        '"list"',
        '{"request":"list"} x',
        '{"request":"list"}{"request":"list"}',
        '\ufeff{"request":"list"}',
        '{"request":{"list":{}}}',
        '{"request":{"list":[]}}',
        '{"request":{"list":null,"ident":null}}',
        '{"request":{"kill":{"container":"a:0.0.1","signal":15.0}}}',
        '{"request":{"kill":{"container":"a:0.0.1","signal":true}}}',
        '{"request":{"kill":{"container":"a:0.0.1","signal":2147483648}}}',
        '{"request":{"kill":{"container":"a:0.0.1","signal":15e0}}}',
        '{"request":{"kill":{"container":"a:0.0.1","signal":"15"}}}',
        '{"request":{"kill":{"container":"a:0.0.1"}}}',
        '{"request":{"kill":null}}',
        '{"request":{"stop":{"container":"a:0.0.1","signal":0}}}',
        '{"request":{"stop":{"container":"a:0.0.1","timeout":-1}}}',
        '{"request":{"stop":{"container":"a:0.0.1","timeout":"5s"}}}',
        '{"request":{"stop":{"container":"a:0.0.1","timeout":1e300}}}',
        '{"request":{"wait":{"containers":["a:0.0.1"]}}}',
        '{"request":{"wait":{"containers":["a:0.0.1"],"until":"started"}}}',
        '{"request":{"boot":{"wait":1}}}',
        '{"connect":{"version":"0.9.2","subscribe_notifications":true,"notifications":"ready"}}',
        '{"connect":["0.9.2"]}',
        '{"request":{"start":{"container":"a:0.0.1","init":null,"arguments":null,"environment":{}}}}',
        '{"request":{"start":{"container":"a:0.0.1","init":null,"arguments":[]}}}',
        f'{{"request":{{"inspect":["{"n" * 1025}:0.0.1"]}}}}',
        '{"request":{"logs":{"container":"a:0.0.1","follow":1}}}',
        '{"request":{"mount":{"containers":null}}}',
        '{"request":{"mount":{"containers":["a"]}}}',
        '{"request":{"mount":{"containers":["../x:0.0.1"]}}}',
        '{"request":{"install":{"repository":"r","size":-1}}}',
        '{"request":{"install":{"repository":"r","size":18446744073709551616}}}',
        '{"request":{"uninstall":{"container":"a:0.0.1","wipe":0}}}',
        '{"request":{"token_verify":{"token":"AAAA","user":"a","shared":""}}}',
        '{"request":{"token_create":{"target":"a","shared":"aGVsbG8"}}}',
        '{"request":{"token_create":{"target":"a","shared":"aGVsbG9="}}}',
        '{"request":{"inspect":{"container":"a:0.0.1","container":"b:0.0.1"}}}',
        '{"request":{"start":{"container":"a:0.0.1","init":"\\ud800","arguments":[],"environment":{}}}}',
        '{"request":{"start":{"container":"a:0.0.1","init":"\\u0000","arguments":[],"environment":{}}}}',
        '{"connect":{"version":"0.9","subscribe_notifications":false}}',
        '{"connect":{"version":"0.9.2"}}',
        '{"request":NaN}',
    ],
)
def test_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        decoding.decode_client(line.encode())


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}")])
def test_nesting_is_limited(opening: str, closing: str) -> None:
    """The object of the message itself is the first level."""

    def nested(levels: int) -> bytes:
        inner = levels - 1
        return ('{"request":"list","x":' + opening * inner + "1" + closing * inner + "}").encode()

    assert decoding.decode_client(nested(64)) == requests.List()
    for levels in (65, 900, 20_000):
        with pytest.raises(ProtocolError, match="nested deeper than 64 levels"):
            decoding.decode_client(nested(levels))


def test_many_brackets_are_not_deep() -> None:
    brackets = "[{" * 500
    line = json.dumps({"request": {"start": ["a:0.0.1", None, [brackets], {}]}, "x": [[]] * 100})
    assert decoding.decode_client(line.encode()) == requests.Start(A, None, (brackets,))


@pytest.mark.parametrize("values", ["0,", "[],", "{},", '"1":1,'])
def test_values_of_a_line_are_limited(values: str) -> None:
    """Memory and time of what is refused anyway."""
    opening, closing = ("{", "}") if ":" in values else ("[", "]")

    def line(number: int) -> bytes:
        each = 1 + sum(map(values.count, ":[{"))
        content = (values * ((number - 6) // each))[:-1]
        return ('{"request":"list","x":' + opening + content + closing + "}").encode()

    assert decoding.decode_client(line(65536)) == requests.List()
    with pytest.raises(ProtocolError, match="more than 65536 values in a line"):
        decoding.decode_client(line(65536 + 10))


@pytest.mark.parametrize("operation", ["mount", "umount"])
def test_containers_of_a_request_are_limited(operation: str) -> None:
    def line(number: int) -> bytes:
        return json.dumps({"request": {operation: {"containers": ["a:0.0.1"] * number}}}).encode()

    assert decoding.decode_client(line(1024)).containers == (A,) * 1024  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match="more than 1024 containers in a request"):
        decoding.decode_client(line(1025))


@given(st.binary(max_size=200))
def test_any_line_is_a_message_or_a_protocol_error(line: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decoding.decode_client(line)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
containers = st.builds(
    Container,
    st.from_regex(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,20}", fullmatch=True),
    st.builds(Version, *[st.integers(0, 2**64 - 1)] * 3),
)
names = st.from_regex(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,20}", fullmatch=True)
any_request = st.one_of(
    st.builds(
        requests.Exec,
        containers,
        st.lists(texts, max_size=3).map(tuple),
        st.dictionaries(texts, texts, max_size=3),
        st.booleans(),
    ),
    st.builds(requests.Inspect, containers),
    st.builds(requests.Install, texts, st.integers(0, 2**64 - 1)),
    st.builds(requests.Kill, containers, st.integers(-(2**31), 2**31 - 1)),
    st.builds(requests.Logs, containers, st.booleans()),
    st.builds(requests.Mount, st.lists(containers, max_size=3).map(tuple)),
    *(
        st.builds(
            kind,
            containers,
            st.none() | texts,
            st.lists(texts, max_size=3).map(tuple),
            st.dictionaries(texts, texts, max_size=3),
        )
        for kind in (requests.Explain, requests.Start)
    ),
    st.builds(requests.TokenCreate, names, st.binary(max_size=50)),
    st.builds(requests.TokenVerify, st.binary(min_size=40, max_size=40), names, st.binary(max_size=50)),
    st.builds(requests.Umount, st.lists(containers, max_size=3).map(tuple)),
    st.builds(requests.Uninstall, containers, st.booleans()),
    st.sampled_from(
        [requests.Ident(), requests.List(), requests.Problems(), requests.Repositories(), requests.Shutdown()]
    ),
)


@given(st.builds(Version, *[st.integers(0, 2**64 - 1)] * 3), st.booleans())
def test_every_connect_decodes_to_itself(version: Version, subscribe: bool) -> None:
    connect = requests.Connect(version, subscribe)
    line = messages.encode(connect)
    assert decoding.decode_client(line[:-1]) == connect
    assert json.loads(line) == {"connect": connect.wire()}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from([messages.response, messages.notification]), values)
def test_everything_a_server_sends_decodes_to_itself(encode: Any, value: Any) -> None:
    line = encode(value)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert messages.decode_server(line[:-1]) == (encode.__name__, value)
    assert json.loads(line) == {encode.__name__: value}


@given(any_request)
def test_every_request_decodes_to_itself(request: Any) -> None:
    line = messages.encode(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decoding.decode_client(line[:-1]) == request
    assert json.loads(line) == {"request": request.wire()}


def test_first_answers_decode_to_themselves() -> None:
    assert messages.decode_server(messages.connect_ack()) == ("connect_ack", None)
    assert messages.decode_server(messages.connect_nack_permission()) == ("connect_nack", "permission_denied")
    version = {"invalid_protocol_version": {"version": "0.9.2"}}
    line = messages.connect_nack_version(Version(0, 9, 2))
    assert messages.decode_server(line) == ("connect_nack", version)


def test_every_request_has_a_permission() -> None:
    needed = {permissions.required(message) for message, _ in GOLDEN[1:]}
    assert needed == {*permissions.PERMISSIONS, *permissions.ADDITIONAL} - {"notifications"}
    assert permissions.FULL.isdisjoint(permissions.ADDITIONAL)
    assert permissions.required(requests.Start(A)) == "start"
    assert permissions.required(requests.Start(A, "/x")) == "start_command"
    assert permissions.required(requests.Start(A, None, ("x",))) == "start_command"
    assert permissions.required(requests.Start(A, None, (), {"a": "b"})) == "start_command"


# --- framing


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=10), st.data())
def test_lines_in_any_pieces(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer = LineBuffer()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:size])
        stream = stream[size:]
        while (line := buffer.next_line()) is not None:
            found.append(line)
    assert found == [line[:-1] if line.endswith(b"\r") else line for line in lines]


def test_longest_line() -> None:
    buffer = LineBuffer(10)
    buffer.feed(b"x" * 10 + b"\n")
    assert buffer.next_line() == b"x" * 10
    buffer.feed(b"x" * 10)
    assert buffer.next_line() is None
    buffer.feed(b"x")
    with pytest.raises(ProtocolError, match="limit of 10 bytes"):
        buffer.next_line()


def test_a_limit_of_zero_is_a_limit() -> None:
    buffer = LineBuffer(0)
    buffer.feed(b"\n")
    assert buffer.next_line() == b""
    buffer.feed(b"x")
    with pytest.raises(ProtocolError, match="limit of 0 bytes"):
        buffer.next_line()


def test_raw_bytes_behind_a_line() -> None:
    buffer = LineBuffer(10)
    buffer.feed(b"line\n" + b"raw" * 10 + b"\nnext\n")
    assert buffer.next_line() == b"line"
    assert buffer.take(30) == b"raw" * 10
    assert buffer.next_line() == b""
    assert buffer.next_line() == b"next"


# --- tokens


def authority(now: float) -> tokens.TokenAuthority:
    clock = iter([100.0, *[100.0 + now] * 10])
    made = tokens.TokenAuthority(bytes(range(32)), lambda: next(clock))
    made.create("x", "x", b"")
    return made


def test_token_vectors() -> None:
    assert authority(42).create("token-client", "token-server", b"hello!") == TOKEN
    first = tokens.TokenAuthority(bytes(range(32)), lambda: 5.0).create("extern", "extern", b"")
    assert base64text.to_base64(first) == "AAAAAAAAAAB6E94wblDtgu80QNd/GhYHqpTb7p/GyQP/+Fm7UxwnHw=="


@pytest.mark.parametrize(
    ("now", "validity", "verdict"),
    [(42, 60, "Ok"), (102, 60, "Ok"), (103, 60, "Expired"), (41, 60, "Future"), (43, 0.5, "Expired")],
)
def test_age_of_tokens(now: float, validity: float, verdict: str) -> None:
    assert authority(now).verify(TOKEN, "token-client", "token-server", b"hello!", validity) == verdict


def test_wrong_tokens() -> None:
    """ESR-01-012."""
    right = {"token": TOKEN, "user": "token-client", "target": "token-server", "shared": b"hello!"}

    def verify(**wrong: Any) -> str:
        return authority(42).verify(**{**right, **wrong}, validity=60)  # type: ignore[arg-type]

    assert verify() == "Ok"
    assert verify(user="other") == "Invalid"
    assert verify(target="other") == "Invalid"
    assert verify(shared=b"other") == "Invalid"
    assert verify(token=TOKEN[:-1] + b"x") == "Invalid"
