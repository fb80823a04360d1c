# SPDX-License-Identifier: Apache-2.0
"""What a client takes from a server and what it does not; who may have an update done; tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from northstar.errors import ProtocolError
from northstar.names import Container, Version
from northstar.protocol import messages, permissions, requests, tokens

A = Container("a", Version(0, 0, 1))


@pytest.mark.parametrize("kind", ["connect_ack", "connect_nack", "response", "notification"])
@pytest.mark.parametrize("body", [None, "x", 1, [], {}, {"response": 1}])
def test_messages_of_a_server(kind: str, body: Any) -> None:
    assert messages.decode_server(json.dumps({kind: body}).encode()) == messages.ServerMessage(kind, body)


@pytest.mark.parametrize(
    "value",
    [
        *({}, [], None, 1, "response", ["response"], [{"response": 1}]),
        *({"request": 1}, {"connect": 1}, {"": 1}, {"Response": 1}),
        *({"response": 1, "notification": 1}, {"response": 1, "x": 1}),
    ],
)
def test_what_no_server_sends(value: Any) -> None:
    with pytest.raises(ProtocolError, match=f"^{messages.NOT_A_MESSAGE}$"):
        messages.decode_server(json.dumps(value).encode())


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b'{"response":1}}', b'{"response":\xff}', b"x"])
def test_what_is_no_json(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^invalid JSON: "):
        messages.decode_server(line)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, "b"]}, '{"a":[1,"b"]}'),
        ("\u00e4\U0001f600", '"\u00e4\U0001f600"'),
        ('\n"\\', '"\\n\\"\\\\"'),
        ("a\udcffb", '"a?b"'),
    ],
)
def test_text_of_lines(value: Any, text: str) -> None:
    """UTF-8 without blanks; what is none is replaced, so that the others can read the line."""
    assert messages.response(value) == f'{{"response":{text}}}\n'.encode()
    assert messages.notification(value) == f'{{"notification":{text}}}\n'.encode()


# --- permissions

OF_UPDATES = [
    requests.Update((A,), 1, None, False, False, "keep", ""),
    requests.UpdateAck("x"),
    requests.UpdateCancel("x"),
]


@pytest.mark.parametrize("request_", OF_UPDATES, ids=repr)
def test_who_may_have_an_update_done(request_: Any) -> None:
    needed = {"start", "kill", "uninstall"}
    for granted in (needed, needed | {"list"}, permissions.FULL):
        assert permissions.allowed(request_, frozenset(granted))
    for missing in needed:
        for granted in (needed - {missing}, {missing}, permissions.FULL - {missing}, set()):
            assert not permissions.allowed(request_, frozenset(granted))


@pytest.mark.parametrize(
    ("request_", "permission"),
    [
        (requests.List(), "list"),
        (requests.Exec(A, ("x",), {}, False), "exec"),
        (requests.Start(A), "start"),
        (requests.Start(A, "/x"), "start_command"),
        (requests.Start(A, "", (), {}), "start_command"),
        (requests.Start(A, None, ("",), {}), "start_command"),
        (requests.Start(A, None, (), {"": ""}), "start_command"),
        (requests.Updates(), "inspect"),
    ],
    ids=repr,
)
def test_who_may_ask(request_: Any, permission: str) -> None:
    assert permissions.allowed(request_, frozenset((permission,)))
    assert not permissions.allowed(request_, (permissions.FULL | {"exec"}) - {permission})


# --- tokens


@pytest.mark.parametrize("seconds", [0.0, 0.999, 1.0, 255.5, 256.0, 1e9])
def test_time_of_tokens(seconds: float) -> None:
    """Whole seconds since the first one, in the first bytes."""
    clock = iter([7.5, 7.5 + seconds, 7.5 + seconds])
    authority = tokens.TokenAuthority(bytes(32), lambda: next(clock))
    assert authority.create("u", "t", b"s")[:8] == bytes(8)
    token = authority.create("u", "t", b"s")
    assert int.from_bytes(token[:8], "big") == int(seconds)
    assert len(token) == tokens.SIZE == 40
    assert authority.verify(token, "u", "t", b"s", 0) == "Ok"


@pytest.mark.parametrize(
    ("age", "validity", "verdict"),
    [
        (0, 0, "Ok"),
        (1, 0, "Expired"),
        (60, 60, "Ok"),
        (61, 60, "Expired"),
        (61, 61.5, "Ok"),
        (-1, 60, "Future"),
    ],
)
def test_age_of_tokens(age: int, validity: float, verdict: str) -> None:
    clock = iter([0.0, 100.0, 100.0 + age, 100.0 + age])
    authority = tokens.TokenAuthority(bytes(32), lambda: next(clock))
    authority.create("", "", b"")
    token = authority.create("u", "t", b"s")
    assert authority.verify(token, "u", "t", b"s", validity) == verdict
    # Who is too late learns no more than that.
    wrong = authority.verify(token, "u", "t", b"x", validity)
    assert wrong == ("Invalid" if verdict == "Ok" else verdict)


@pytest.mark.parametrize("position", [*range(8, 40, 7), 39])
def test_each_byte_of_a_token_counts(position: int) -> None:
    authority = tokens.TokenAuthority(bytes(range(32)), lambda: 0.0)
    token = bytearray(authority.create("u", "t", b"s"))
    token[position] ^= 1
    assert authority.verify(bytes(token), "u", "t", b"s", 60) == "Invalid"


def test_parts_of_tokens_are_apart() -> None:
    """What moves from one part to the next is something else."""
    authority = tokens.TokenAuthority(bytes(32), lambda: 0.0)
    token = authority.create("ab", "c", b"d")
    for parts in (("a", "bc", b"d"), ("ab", "cd", b""), ("c", "ab", b"d"), ("", "abc", b"d")):
        assert authority.verify(token, *parts, 60) == "Invalid"
    other = tokens.TokenAuthority(bytes(31) + b"\1", lambda: 0.0)
    assert other.verify(token, "ab", "c", b"d", 60) == "Invalid"
