# SPDX-License-Identifier: Apache-2.0
"""Manifests: the three encodings, what is refused, and the way back."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.errors import ManifestError

DATA = Path(__file__).parent / "data"
MINIMAL = "name: a\nversion: 1.0.0\ninit: /a\nuid: 1\ngid: 1\n"
RESOURCE = "name: a\nversion: 1.0.0\nuid: 1\ngid: 1\n"


def normal(value: Any) -> Any:
    """Sets are lists of any order, and options a text of any order."""
    if isinstance(value, dict):
        return {
            key: ",".join(sorted(item.split(","))) if key == "options" else normal(item)
            for key, item in value.items()
        }
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return [normal(item) for item in value] if isinstance(value, list) else value


def test_full_manifest_has_the_expected_json_form() -> None:
    parsed = manifest.parse((DATA / "full.yaml").read_bytes())
    found = json.loads(json.dumps(manifest.to_json(parsed)))
    expected = json.loads((DATA / "full.expected.json").read_text())
    assert normal(found) == normal(expected)


@pytest.mark.parametrize("name", ["full.yaml", "full2.json", "full3.toml", "resource.yaml"])
def test_round_trip(name: str) -> None:
    parsed = manifest.parse((DATA / name).read_bytes())
    text = manifest.to_text(parsed)
    assert manifest.parse(text) == parsed
    # What is packed is JSON, and YAML as well.
    assert json.loads(text) == yaml.safe_load(text)


def test_resource() -> None:
    parsed = manifest.parse((DATA / "resource.yaml").read_bytes())
    assert parsed.init is None
    assert str(parsed.container) == "codec-pack:1.6.0"


CHANGES = [
    "foo: 1",
    "uid: 2",
    "args: foo",
    "env: {NORTHSTAR_NAME: x}",
    "env: {" + ", ".join(f"A{n}: x" for n in range(65)) + "}",
    f"env: {{{'A' * 65}: x}}",
    f"env: {{A: {'x' * 1025}}}",
    'env: {A: "a\\0b"}',
    'args: ["\\0"]',
    "suppl_groups: [a, a]",
    "capabilities: [CAP_KILL, CAP_KILL]",
    "capabilities: [cap_kill]",
    "capabilities: [CAP_FLY]",
    "console: full",
    "console: {}",
    "console: {permissions: [fly]}",
    "sched: {policy: !fifo {priority: 0}}",
    "sched: {policy: !other {nice: 20}}",
    "sched: {policy: other}",
    "network: {namespace: a}",
    f"network: !namespace {'x' * 257}",
    "seccomp: {allow: {read: !args {index: 0}}}",
    "seccomp: {allow: {read: !args {index: 6, mask: 1}}}",
    f"seccomp: {{allow: {{read: !args {{index: 0, values: {list(range(51))}}}}}}}",
    "seccomp: {allow: {read: !args {index: 0, values: [-1]}}}",
    "selinux: {exec: ''}",
    "selinux: {exec: a-b}",
    "io: {stdout: pipe}",
    "io: {stdout: pipe, stderr: paper}",
    "cgroups: {blkio: {weight: 5}}",
    "sockets: {a: {type: stream}}",
    "sockets: {a: {type: seqpacket, mode: 1}}",
    "rlimits: {NPROC: {}}",
    "rlimits: {nproc: {soft: unlimited}}",
    "mounts: {a: {type: bind, host: /b}}",
    "mounts: {/a: {type: bind, host: /b}, /a/b: {type: bind, host: /b}}",
    "mounts: {/a: {type: tmpfs}}",
    "mounts: {/a: {type: tmpfs, size: -1}}",
    "mounts: {/a: {type: tmpfs, size: 1.5M}}",
    "mounts: {/a: {type: foo}}",
    "mounts: {/a: {}}",
    "mounts: {/a: {type: resource, name: n, version: 1, dir: /}}",
    "mounts: {/a: {type: resource, name: n, version: '1', dir: x}}",
    "mounts: {/a: {type: resource, name: n, version: '1', dir: /, options: rec}}",
    "mounts: {/a: {type: bind, host: /b, options: 'ro'}}",
    "mounts: {/a: {type: bind, host: /b, options: 'rw,'}}",
    "autostart: maybe",
    "seccomp: {allow: []}",
    "seccomp: {allow: 0}",
    "console: {permissions: !full }",
    "sockets: {a: {type: stream, mode: 1, uid: 4294967295}}",
    "sockets: {" + ", ".join(f"s{n}: {{type: stream, mode: 1}}" for n in range(65)) + "}",
]


@pytest.mark.parametrize("change", CHANGES)
def test_refused(change: str) -> None:
    manifest.parse(MINIMAL.encode())
    with pytest.raises(ManifestError) as refused:
        manifest.parse(f"{MINIMAL}{change}\n".encode())
    field = change.partition(":")[0]
    assert field in str(refused.value)


REPLACED = [
    ("version: 1.0.0", "version: 1.0"),
    ("uid: 1", "uid: 0"),
    ("uid: 1", "uid: 70000"),
    ("uid: 1", "uid: '1'"),
    ("uid: 1", "uid: 0777"),
    ("name: a", "name: 'a b'"),
    ("name: a", "name: ä"),
    ("name: a", "name: ''"),
    ("name: a", "name: -rf"),
    ("init: /a", "init: ''"),
]


@pytest.mark.parametrize(("old", "new"), REPLACED)
def test_refused_values(old: str, new: str) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest.parse(MINIMAL.replace(old, new).encode())
    assert old.partition(":")[0] in str(refused.value)


@pytest.mark.parametrize("field", ["name", "version", "uid", "gid"])
def test_missing_fields_are_named(field: str) -> None:
    text = "".join(line for line in MINIMAL.splitlines(True) if not line.startswith(f"{field}:"))
    with pytest.raises(ManifestError, match=field):
        manifest.parse(text.encode())


@pytest.mark.parametrize(
    "line",
    [
        "args: [x]",
        "env: {A: b}",
        "autostart: relaxed",
        "cgroups: {}",
        "seccomp: {}",
        "io: {stdout: pipe, stderr: pipe}",
        "capabilities: [CAP_KILL]",
        "suppl_groups: [a]",
    ],
)
def test_what_a_resource_must_not_have(line: str) -> None:
    with pytest.raises(ManifestError, match=line.partition(":")[0]):
        manifest.parse(f"{RESOURCE}{line}\n".encode())


GARBAGE = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"- a",
    b"{",
    b"\x00",
    b"a: b: c",
    b"%YAML 9\n---\n",
    b"!!python/object:os.system {}",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage(text: bytes) -> None:
    with pytest.raises(ManifestError):
        manifest.parse(text)


TOML = 'name = "a"\nversion = "1.0.0"\nuid = 1\ngid = 1\ninit = "/a"\n'
KEY = ".".join(["a"] * 40)
TOO_MUCH = {
    "deep TOML key": f"{TOML}custom.{KEY} = 1\n",
    "very deep TOML key": f"{TOML}custom.{'.'.join(['a'] * 4000)} = 1\n",
    "deep TOML table": f"{TOML}[custom.{KEY}]\n",
    "quoted TOML key": TOML + "custom." + ".".join(['"\\""'] * 4000) + " = 1\n",
    "deep TOML value": f"{TOML}custom = {'[' * 5000}{']' * 5000}\n",
    "large TOML": TOML + "# ....\n" * 20000,
    "TOML integer": f"{TOML}[custom]\na = {'9' * 5000}\n",
    "TOML integer with a base": f"{TOML.replace('uid = 1', 'uid = 0x' + 'f' * 6000)}",
    "half a surrogate pair": '{"name":"a","version":"1.0.0","uid":1,"gid":1,"init":"/a","args":["\\ud800"]}',
    "half a surrogate pair as a key": '{"name":"a","version":"1.0.0","uid":1,"gid":1,"custom":{"\\uDFFF":1}}',
    "half a surrogate pair in TOML": TOML + 'args = ["\\ud800"]\n',
    "half a surrogate pair in YAML": MINIMAL + 'args: ["\\ud800"]\n',
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_takes_too_much_is_refused(text: str) -> None:
    """Before it takes memory, and with an error of ours."""
    with pytest.raises(ManifestError) as refused:
        manifest.parse(text.encode())
    assert len(str(refused.value)) < 300


def test_a_surrogate_pair_is_a_character() -> None:
    text = '{"name":"a","version":"1.0.0","uid":1,"gid":1,"init":"/a","args":["\\ud83d\\ude00"]}'
    assert manifest.parse(text.encode()).args == ("\U0001f600",)


@pytest.mark.parametrize(
    ("tagged", "plain"),
    [
        ("autostart: !critical", "autostart: critical"),
        ("network: !host", "network: host"),
        ("sched: {policy: !idle }", "sched: {policy: idle}"),
        ("io: {stdout: !pipe , stderr: !discard }", "io: {stdout: pipe, stderr: discard}"),
        ("capabilities: [!CAP_KILL ]", "capabilities: [CAP_KILL]"),
        ("console: {permissions: [!ident ]}", "console: {permissions: [ident]}"),
    ],
)
def test_words_may_be_tags(tagged: str, plain: str) -> None:
    parsed = manifest.parse(f"{MINIMAL}{tagged}\n".encode())
    assert parsed == manifest.parse(f"{MINIMAL}{plain}\n".encode())


def test_yaml_bombs_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ManifestError):
        manifest.parse(("custom:\n" + "\n".join(f"  {line}" for line in lines)).encode())
    with pytest.raises(ManifestError):
        manifest.parse((MINIMAL + "custom: " + "[" * 5000 + "]" * 5000).encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_answered_with_a_manifest_or_an_error(text: bytes) -> None:
    with contextlib.suppress(ManifestError):
        manifest.parse(text)


printable = st.text("abc/ü \"'\\{}[]:,#&*!|>%@`~\t\n-", min_size=1, max_size=20)
anything = st.text(st.characters(), max_size=5)  # also half surrogate pairs
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"name": st.just("a"), "version": st.just("1.0.0"), "uid": st.integers(1, 65535), "gid": st.just(1)},
        optional={
            "init": printable,
            "custom": json_values.filter(lambda value: value is not None),
        },
    )
)
def test_json_round_trip(description: dict[str, Any]) -> None:
    """Whatever is accepted can be written and read again."""
    try:
        parsed = manifest.parse(json.dumps(description).encode())
    except ManifestError as error:
        assert "is no character" in str(error)
        return
    assert manifest.parse(manifest.to_text(parsed)) == parsed
