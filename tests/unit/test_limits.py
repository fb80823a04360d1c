# SPDX-License-Identifier: Apache-2.0
"""Limits of messages, manifests and packages at their very edge: the last value that is taken, the next."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from northstar import manifest
from northstar.errors import ManifestError, ProtocolError
from northstar.manifest import tree
from northstar.names import Container
from northstar.npk import signature, verity
from northstar.protocol import decoding, fields, requests
from northstar.protocol.messages import ServerMessage

# --- messages


@pytest.mark.parametrize(
    ("read", "taken", "refused"),
    [
        (fields.count, [None, 0, -(1 << 31), (1 << 31) - 1], [-(1 << 31) - 1, 1 << 31, True, 1.0, "1"]),
        (fields.optional_signal, [None, 1, 31], [0, 32, -1, True, 9.0]),
        (fields.optional_seconds, [None, 0, 0.0, 31_536_000], [-0.1, 31_536_000.1, 31_536_001, True, "1"]),
        (fields.seconds, [None, 0, -1, 1e300], [True, "1", 10**400]),
        (fields.kinds, [None, [], ["x"] * 64], [["x"] * 65, "x", [1]]),
        (fields.containers, [[], ["a:0.0.1"] * 1024], ["a:0.0.1", None, [1]]),
        (fields.flag, [None, True, False], [0, 1, "true"]),
        (fields.boolean, [True, False], [None, 0, 1]),
        (fields.text, ["", "x"], ["\0", None, 1]),
        (fields.optional_text, ["", None], ["\0", 1]),
        (fields.texts, [[], ["a"]], [None, "a", ["\0"], [1]]),
        (fields.environment, [{}, {"a": "b"}], [None, [], {"a": "\0"}, {"\0": "b"}, {"a": 1}]),
        (fields.choice("a", "b"), ["a", "b"], ["c", None, 1, ["a"]]),
        (fields.word("x"), [None, "y"], [1, "\0"]),
    ],
)
def test_fields_of_requests(read: Any, taken: list[Any], refused: list[Any]) -> None:
    for value in taken:
        read(value)
    for value in refused:
        with pytest.raises((fields.Invalid, TypeError)):
            read(value)


def test_what_is_missing_in_requests() -> None:
    assert (fields.count(None), fields.flag(None), fields.kinds(None), fields.word("x")(None)) == (
        1,
        False,
        (),
        "x",
    )


def test_too_many_containers() -> None:
    with pytest.raises(ProtocolError, match=r"^more than 1024 containers in a request$"):
        fields.containers(["a:0.0.1"] * 1025)


@pytest.mark.parametrize("size", [39, 41])
def test_size_of_a_token(size: int) -> None:
    assert len(fields.token(base64.b64encode(bytes(40)).decode())) == 40
    with pytest.raises(fields.Invalid):
        fields.token(base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize("envelope", ["connect_ack", "connect_nack", "response", "notification"])
@pytest.mark.parametrize(
    "body",
    [
        None,
        "permission_denied",
        {"permission_denied": None},
        {"invalid_protocol_version": {"version": "1.2.3"}},
        {"invalid_protocol_version": {"version": "x"}},
        {"invalid_protocol_version": {"version": "1.2.3"}, "more": 1},
        ["invalid_protocol_version"],
        {"zzz": {"version": "1.2.3"}},
        {"aaa": {"version": "1.2.3"}},
        5,
    ],
)
def test_what_only_a_server_should_send(envelope: str, body: Any) -> None:
    wanted = {
        "connect_ack": body is None,
        "connect_nack": body in ("permission_denied", {"permission_denied": None})
        or body == {"invalid_protocol_version": {"version": "1.2.3"}},
    }.get(envelope, True)
    line = json.dumps({envelope: body}).encode()
    if wanted:
        assert decoding.decode_client(line) == ServerMessage(envelope, body)
        return
    with pytest.raises(ProtocolError):
        decoding.decode_client(line)


@pytest.mark.parametrize(
    ("number", "taken"),
    [(-(1 << 31), True), ((1 << 31) - 1, True), (-(1 << 31) - 1, False), (1 << 31, False)],
)
def test_numbers_of_signals(number: int, taken: bool) -> None:
    """Which of them there are is for the kernel to say."""
    line = json.dumps({"request": {"kill": {"container": "a:0.0.1", "signal": number}}}).encode()
    if taken:
        assert decoding.decode_client(line) == requests.Kill(Container.parse("a:0.0.1"), number)
        return
    with pytest.raises(ProtocolError):
        decoding.decode_client(line)


@pytest.mark.parametrize("body", [{}, {"list": None, "ident": None}, [], ["list"], 5, None, {"list": 1}])
def test_not_exactly_one_request(body: Any) -> None:
    with pytest.raises(ProtocolError, match=f"^{decoding.NOT_A_MESSAGE}$"):
        decoding.decode_client(json.dumps({"request": body}).encode())


def nested(depth: int, first: str = "") -> bytes:
    return ("[" * depth + first + "]" * depth).encode()


def test_depth_of_a_line() -> None:
    """Brackets within strings do not count, and neither do many that are next to each other."""
    limit = decoding.MAX_DEPTH
    for line in (nested(limit), b'"' + b"[" * 2 * limit + b'"', b"[" + b",".join([b"{}"] * 2 * limit) + b"]"):
        with pytest.raises(ProtocolError, match=f"^{decoding.NOT_A_MESSAGE}$"):
            decoding.decode_client(line)
    for depth in (limit + 1, limit + 2, 100_000):
        with pytest.raises(
            ProtocolError, match=f"^(nested deeper than {limit} levels|more than .* values in a line)$"
        ):
            decoding.decode_client(nested(depth))


def test_values_of_a_line() -> None:
    """Counted by their commas, colons and brackets."""
    at_the_limit = b"[" + b"," * (decoding.MAX_VALUES - 1)
    with pytest.raises(ProtocolError, match=r"^invalid JSON"):
        decoding.decode_client(at_the_limit)
    with pytest.raises(ProtocolError, match=f"^more than {decoding.MAX_VALUES} values in a line$"):
        decoding.decode_client(at_the_limit + b",")


# --- manifests


def described(**changes: Any) -> manifest.Manifest:
    return manifest.parse(
        json.dumps({"name": "a", "version": "0.0.1", "uid": 1, "gid": 1, "init": "/a", **changes}).encode()
    )


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        ({"init": "/" + "x" * 4095}, {"init": "/" + "x" * 4096}),
        ({"init": "x"}, {"init": ""}),
        ({"suppl_groups": [f"g{n}" for n in range(64)]}, {"suppl_groups": [f"g{n}" for n in range(65)]}),
        ({"suppl_groups": ["g" * 64]}, {"suppl_groups": ["g" * 65]}),
        ({"env": {f"v{n}": "" for n in range(64)}}, {"env": {f"v{n}": "" for n in range(65)}}),
        ({"env": {"v" * 64: ""}}, {"env": {"v" * 65: ""}}),
        ({"env": {"v": "x" * 1024}}, {"env": {"v": "x" * 1025}}),
        ({"network": {"namespace": "n" * 256}}, {"network": {"namespace": "n" * 257}}),
        ({"selinux": {"mount_context": "c" * 65535}}, {"selinux": {"mount_context": "c" * 65536}}),
        ({"selinux": {"mount_context": "c"}}, {"selinux": {"mount_context": ""}}),
        ({"uid": 65535}, {"uid": 65536}),
        ({"gid": 1}, {"gid": 0}),
    ],
)
def test_fields_of_manifests(taken: dict[str, Any], refused: dict[str, Any]) -> None:
    """The error names the field."""
    described(**taken)
    (name,) = refused
    with pytest.raises(ManifestError, match=f"^{name}"):
        described(**refused)


def test_values_of_a_rule_for_system_calls() -> None:
    def rule(count: int) -> manifest.Manifest:
        return described(seccomp={"allow": {"ioctl": {"args": {"index": 1, "values": list(range(count))}}}})

    rule(50)
    with pytest.raises(ManifestError, match="51 values, at most 50 are allowed"):
        rule(51)
    with pytest.raises(ManifestError):
        described(seccomp={"allow": {"ioctl": {"other": {"index": 1, "values": [1]}}}})
    with pytest.raises(ManifestError):
        described(seccomp={"allow": {"ioctl": "args"}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 76 + "..."),
        ("\u00e4", "'\u00e4'"),
        ("\u200b", r"'\u200b'"),
        ([1, "a"], "[1, 'a']"),
        (tree.Scalar("007", 7), "'007'"),
        (tree.Tagged("idle", None), "!idle"),
    ],
)
def test_values_in_errors(value: object, text: str) -> None:
    assert tree.show(value) == text


@pytest.mark.parametrize("number", [-(1 << 63), (1 << 64) - 1, 0, 1])
def test_integers_of_custom_data(number: int) -> None:
    for value in (number, tree.Scalar(str(number), number)):
        found = tree.plain(value, "custom")
        assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("number", [-(1 << 63) - 1, 1 << 64])
def test_integers_that_are_too_large(number: int) -> None:
    """An error in YAML, a float elsewhere."""
    assert isinstance(tree.plain(number, "custom"), float)
    with pytest.raises(ManifestError, match=r"^custom\.x: the integer -?[0-9]+ exceeds 64 bits$"):
        tree.plain({"x": tree.Scalar(str(number), number)}, "custom")


@pytest.mark.parametrize(
    ("value", "found"), [(1.5, 1.5), (-2.0, -2.0), (0.0, 0.0), (float("inf"), None), (float("-inf"), None)]
)
def test_floats_of_custom_data(value: float, found: float | None) -> None:
    assert tree.plain(value, "custom") == found
    assert tree.plain(float("nan"), "custom") is None


def test_a_key_that_comes_twice() -> None:
    twice = b'{"name":"a","version":"0.0.1","uid":1,"gid":1,"init":"/a","uid":2}'
    with pytest.raises(ManifestError, match=r"^uid: duplicate key$"):
        manifest.parse(twice)
    parsed = manifest.parse(twice.replace(b',"uid":2', b',"env":{"A":"1","A":"2"}'))
    assert parsed.env == {"A": "2"}


# --- packages

HASH = "0" * 64
HASHES = signature.Hashes(HASH, HASH, HASH, 4096)


def entry(text: bytes | None = None, signed: bytes = bytes(64)) -> bytes:
    return (
        signature.sign(HASHES, lambda _: signed)
        if text is None
        else text + b"---\nsignature: " + b"A" * 86 + b"=="
    )


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_size_of_a_signature(size: int) -> None:
    assert signature.read(entry())[0] == HASHES
    with pytest.raises(
        signature.SignatureError, match=f"^the signature has {size} bytes, not 64$|expected behind ---$"
    ):
        signature.read(entry(signed=bytes(size)))


def test_other_text_of_the_same_signature() -> None:
    """The last letter has bits that do not count."""
    for letter in (b"B", b"/"):
        with pytest.raises(signature.SignatureError, match=r"^the signature is no canonical base64$"):
            signature.read(entry().replace(b"A==", letter + b"=="))


@pytest.mark.parametrize(
    "change",
    [
        ("meta:\n", "meta: x\n"),
        ("meta:\n", "meta:\nmeta:\n"),
        ("meta:\n", "more:\nmeta:\n"),
        (f"meta:\n  hash: {HASH}\n", ""),
        (f"  hash: {HASH}\nmani", "mani"),
        ("fs.img:\n", f"  hash: {HASH}\nfs.img:\n"),
        (f"  verity-hash: {HASH}\n", f"  verity-hash: {HASH}\n  other: {HASH}\n"),
        (f"  verity-hash: {HASH}\n", f"  verity-hash: {HASH[1:]}\n"),
        (f"  verity-hash: {HASH}\n", "  verity-hash:\n"),
        ("4096", "04096"),
        ("4096", "-4096"),
        ("4096", "10000000000000000000"),
    ],
)
def test_signed_text(change: tuple[str, str]) -> None:
    text = HASHES.text().decode()
    assert change[0] in text
    with pytest.raises(signature.SignatureError, match="malformed"):
        signature.read(entry(text.replace(*change, 1).encode()))


@pytest.mark.parametrize("line", ["!" * 41, "meta: " + "x" * 60, "  other: " + "x" * 60])
def test_signed_text_is_quoted_in_errors_only_so_far(line: str) -> None:
    with pytest.raises(signature.SignatureError) as raised:
        signature.read(entry(line.encode() + b"\n" + HASHES.text()))
    assert str(raised.value) == f"signature.yaml is malformed at {line[:40]!r}"


def test_signed_text_that_is_not_ascii() -> None:
    with pytest.raises(signature.SignatureError, match=r"^signature\.yaml is malformed: it is not ASCII$"):
        signature.read(entry(HASHES.text() + "\u00e4".encode()))


def test_largest_offset() -> None:
    longest = HASHES._replace(verity_offset=10**18)
    assert signature.read(signature.sign(longest, lambda _: bytes(64)))[0] == longest


@pytest.mark.parametrize(
    ("blocks", "stored"),
    [(0, 0), (1, 0), (2, 1), (128, 1), (129, 3), (16384, 129), (16385, 132), (1 << 21, 16513)],
)
def test_blocks_of_hash_trees(blocks: int, stored: int) -> None:
    assert verity.tree_blocks(blocks) == stored
    assert verity.protection_size(blocks * verity.BLOCK) == (stored + 1) * verity.BLOCK
    if blocks:
        assert verity.protection_size(blocks * verity.BLOCK - 1) == (stored + 1) * verity.BLOCK


def test_sizes_in_superblocks() -> None:
    whole = verity.superblock(bytes(range(256)), bytes(16), 3)
    assert len(whole) == verity.BLOCK
    assert verity.read_salt(whole[: verity.SUPERBLOCK_SIZE], 3) == bytes(range(256))
    for size in (0, 1, verity.SUPERBLOCK_SIZE - 1):
        with pytest.raises(verity.VerityError, match=r"^the verity superblock is truncated$"):
            verity.read_salt(whole[:size], 3)
    longer = bytearray(whole)
    longer[80:82] = (257).to_bytes(2, "little")
    with pytest.raises(verity.VerityError, match=r"^the verity salt of 257 bytes is too long$"):
        verity.read_salt(bytes(longer), 3)
