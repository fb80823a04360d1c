# SPDX-License-Identifier: Apache-2.0
"""Manifests: the three encodings, what is refused, and the way back."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.errors import ManifestError
from northstar.manifest import extension

DATA = Path(__file__).parent / "data"
MINIMAL = "name: a\nversion: 1.0.0\ninit: /a\nuid: 1\ngid: 1\n"
TOML = 'name = "a"\nversion = "1.0.0"\nuid = 1\ngid = 1\ninit = "/a"\n'
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


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/data", "/data"),
        ("/data/", "/data"),
        ("//data/./x/.", "/data/x"),
        ("data/x", "/data/x"),
        ("./data", "/data"),
    ],
)
def test_mount_points_have_one_form(text: str, target: str) -> None:
    parsed = manifest.parse(f"{MINIMAL}mounts: {{{text}: {{type: proc}}}}\n".encode())
    assert list(parsed.mounts) == [target]


@pytest.mark.parametrize("mount", ["{type: persist}", "{type: tmpfs, size: 1}", "{type: bind, host: /b}"])
@pytest.mark.parametrize("other", ["/data/", "/data/.", "//data", "/./data"])
def test_the_same_mount_point_twice(mount: str, other: str) -> None:
    with pytest.raises(ManifestError, match="duplicate mount point /data"):
        manifest.parse(f"{MINIMAL}mounts: {{/data: {{type: proc}}, {other}: {mount}}}\n".encode())


@pytest.mark.parametrize("target", ["/", "//", "/.", ".", "''", "/a/..", "../a"])
@pytest.mark.parametrize("mount", ["{type: proc}", "{type: bind, host: /b}"])
def test_what_is_no_mount_point(target: str, mount: str) -> None:
    with pytest.raises(ManifestError, match=r"^mounts\."):
        manifest.parse(f"{MINIMAL}mounts: {{{target}: {mount}}}\n".encode())


def test_binds_that_upstream_takes() -> None:
    """Its check for overlaps sees neighbours only, in the order of bytes."""
    binds = ", ".join(f"{target}: {{type: bind, host: /b}}" for target in ("/a", "/a-b", "/a/b"))
    assert len(manifest.parse(f"{MINIMAL}mounts: {{{binds}}}\n".encode()).mounts) == 3


@pytest.mark.parametrize("name", ["''", ".", "..", "a b", "a=b", "x" * 300])
def test_names_of_sockets(name: str) -> None:
    """They are part of a file name. What does not fit into it fails when the container starts."""
    sockets = f"sockets: {{{name}: {{type: stream, mode: 1}}}}\n"
    assert list(manifest.parse(f"{MINIMAL}{sockets}".encode()).sockets) == [name.strip("'")]


JSON = '{"name":"a","version":"1.0.0","uid":1,"gid":1,"init":"/a"'


def custom(text: str) -> Any:
    """What `inspect` shows."""
    return json.loads(manifest.to_text(manifest.parse(text.encode())))["custom"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (MINIMAL + "custom: 1e400", "1e400"),
        (MINIMAL + "custom: [-1.5e999, 1e308]", ["-1.5e999", 1e308]),
        (MINIMAL + "custom: [.inf, .nan, -.inf]", [None, None, None]),
        (JSON + ',"custom":1e400}', "1e400"),
        (JSON + ',"custom":18446744073709551615}', (1 << 64) - 1),
        (JSON + ',"custom":18446744073709551616}', float(1 << 64)),
        (JSON + ',"custom":-9223372036854775809}', -float(1 << 63)),
        (JSON + ',"custom":1' + "0" * 300 + "}", 1e300),
        (JSON + ',"custom":' + "9" * 400 + "}", "9" * 400),
        (JSON + ',"custom":-' + "9" * 5000 + "}", "-" + "9" * 5000),
        (MINIMAL + "custom: " + "9" * 40, 1e40),
        (MINIMAL + "custom: -" + "9" * 70, -1e70),
        (MINIMAL + "custom: " + "9" * 400, "9" * 400),
        (TOML + "custom = [inf, -inf, nan, 1e308]\n", [None, None, None, 1e308]),
    ],
)
def test_numbers_of_custom(text: str, value: Any) -> None:
    found = custom(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z"),
        ("1979-05-27 07:32:00", "1979-05-27T07:32:00"),
        ("1979-05-27T00:32:00.500-07:00", "1979-05-27T00:32:00.5-07:00"),
        ("1979-05-27T00:32:00.25Z", "1979-05-27T00:32:00.25Z"),
        ("1979-05-27", "1979-05-27"),
        ("07:32:00.100", "07:32:00.1"),
    ],
)
def test_dates_of_custom(text: str, shown: str) -> None:
    assert custom(f"{TOML}custom = {text}\n") == {"$__toml_private_datetime": shown}


@pytest.mark.parametrize("line", ["{}", "{allow: {}}", "{profile: default, allow: {}}", "{profile: default}"])
def test_empty_maps_are_not_absent(line: str) -> None:
    seccomp = yaml.safe_load(line)
    parsed = manifest.parse(f"{MINIMAL}seccomp: {line}\n".encode())
    assert manifest.to_json(parsed)["seccomp"] == seccomp
    assert manifest.parse(manifest.to_text(parsed)) == parsed


@pytest.mark.parametrize("name", ["full.yaml", "full2.json", "full3.toml", "resource.yaml"])
def test_byte_order_mark(name: str) -> None:
    text = (DATA / name).read_bytes()
    assert manifest.parse(b"\xef\xbb\xbf" + text) == manifest.parse(text)


OPTIONAL = [
    *("console", "init", "sched", "autostart", "cgroups", "network", "seccomp", "selinux", "io", "custom"),
    *("cgroups.parent", "cgroups.cpu", "cgroups.memory", "cgroups.blkio", "cgroups.pids"),
    *("cgroups.cpu.shares", "cgroups.memory.swappiness", "seccomp.profile", "seccomp.allow"),
    *("selinux.exec", "selinux.mount_context"),
]


@pytest.mark.parametrize("field", OPTIONAL)
def test_null_is_absent(field: str) -> None:
    """In JSON and in YAML, for each field that may be absent and is no list or map."""
    *above, last = field.split(".")
    value: Any = {last: None}
    absent: Any = {}
    for key in reversed(above):
        value, absent = {key: value}, {key: absent}
    minimal = {
        "name": "a",
        "version": "1.0.0",
        "uid": 1,
        "gid": 1,
        **({} if last == "init" else {"init": "/a"}),
    }
    expected = manifest.parse(json.dumps({**minimal, **absent}).encode())
    assert manifest.parse(json.dumps({**minimal, **value}).encode()) == expected
    assert manifest.parse(yaml.safe_dump({**minimal, **value}).encode()) == expected


@pytest.mark.parametrize(
    "field", ["args", "env", "mounts", "capabilities", "suppl_groups", "rlimits", "sockets"]
)
def test_null_is_no_list_or_map_in_json(field: str) -> None:
    """YAML has no other way to write an empty one."""
    with pytest.raises(ManifestError, match=f"^{field}: "):
        manifest.parse(f'{JSON},"{field}":null}}'.encode())
    assert manifest.parse(f"{MINIMAL}{field}:\n".encode()) == manifest.parse(MINIMAL.encode())


MOUNTS = "mounts: {/b: {type: bind, host: /b}, /p: {type: persist}, /t: {type: tmpfs, size: 1}}\n"


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ("{}", {}),
        ("text", {}),
        ("{northstar: text}", {}),
        ("{northstar: {mounts: [a]}}", {}),
        ("{northstar: {other: {/b: x}}}", {}),
        ("{northstar: {mounts: {/b: required}}}", {"/b": {"required"}}),
        (
            "{northstar: {mounts: {//b/.: ' required , file ', /p/: noexec}}}",
            {"/b": {"required", "file"}, "/p": {"noexec"}},
        ),
    ],
)
def test_words_about_mount_points(custom: str, words: dict[str, set[str]]) -> None:
    """`custom` may be anything; only what has the form of ours is ours."""
    assert extension.mounts(manifest.parse(f"{MINIMAL}{MOUNTS}custom: {custom}\n".encode())) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("/x: required", "there is no mount point /x"),
        ("/b: requird", "unknown word 'requird'; known here are: required, file, directory"),
        ("/b: noexec", "unknown word 'noexec'"),
        ("/b: 'required,'", "unknown word ''"),
        ("/p: required", "known here are: noexec"),
        ("/t: noexec", "known here are: none"),
        ("/b: [required]", "a text of words"),
        ("/b: 'file, directory'", "exclude each other"),
        ("/b: file, /b/: required", "duplicate mount point /b"),
    ],
)
def test_wrong_words_about_mount_points(words: str, message: str) -> None:
    with pytest.raises(ManifestError, match=f"^custom.northstar.mounts.*{message}"):
        manifest.parse(f"{MINIMAL}{MOUNTS}custom: {{northstar: {{mounts: {{{words}}}}}}}\n".encode())


SLOW = {
    "groups": '"suppl_groups":[' + ",".join(f'"g{n}"' for n in range(100_000)) + "]",
    "permissions": '"console":{"permissions":[' + ",".join(['"ident"'] * 100_000) + "]}",
    "capabilities": '"capabilities":[' + ",".join(['"CAP_KILL"'] * 80_000) + "]",
    "version": f'"selinux":{{"exec":"{"a" * 1_000_000}"}}',
    "blanks": '"custom":' + " " * 1_000_000 + "1",
    "size": '"mounts":{"/a":{"type":"tmpfs","size":"1' + " " * 900_000 + '!"}}',
    "requirement": '"mounts":{"/a":{"type":"resource","name":"n","version":"1'
    + "," * 900_000
    + '","dir":"/"}}',
    "words": '"mounts":{'
    + ",".join(f'"/{n}":{{"type":"persist"}}' for n in range(15_000))
    + '},"custom":{"northstar":{"mounts":{'
    + ",".join(f'"/{n}":"noexec"' for n in range(15_000))
    + "}}}",
    "mounts": '"mounts":{' + ",".join(f'"/{n}":{{"type":"proc"}}' for n in range(30_000)) + "}",
}


def test_many_tag_directives() -> None:
    """libyaml takes seconds, with the interpreter's lock."""
    directives = "".join(f"%TAG !t{n}! x\n" for n in range(50_000))
    began = time.process_time()
    with pytest.raises(ManifestError, match="more than 32 YAML tag directives"):
        manifest.parse(f"{directives}---\n{MINIMAL}".encode())
    assert time.process_time() - began < 1
    assert manifest.parse(f"%TAG !t! x\n---\n{MINIMAL}".encode()).name == "a"


@pytest.mark.parametrize("field", SLOW.values(), ids=SLOW)
def test_reading_takes_linear_time(field: str) -> None:
    """A manifest as large as they may be; by the square of its length it would take minutes."""
    began = time.process_time()
    with contextlib.suppress(ManifestError):
        manifest.parse(f"{JSON},{field}}}".encode())
    assert time.process_time() - began < 3


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


KEY = ".".join(["a"] * 40)
TOO_MUCH = {
    "deep TOML key": f"{TOML}custom.{KEY} = 1\n",
    "very deep TOML key": f"{TOML}custom.{'.'.join(['a'] * 4000)} = 1\n",
    "deep TOML table": f"{TOML}[custom.{KEY}]\n",
    "quoted TOML key": TOML + "custom." + ".".join(['"\\""'] * 4000) + " = 1\n",
    "deep TOML value": f"{TOML}custom = {'[' * 5000}{']' * 5000}\n",
    "large TOML": TOML + "# ....\n" * 20000,
    "TOML float": f"{TOML}custom = 1e400\n",
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


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        ("1.0.0", None),
        ("1.0.1", "1.0.1 is higher than the container's own version 1.0.0"),
        ("1", "custom.northstar.floor: a version is expected"),
        ("'1'", "not of the form major.minor.patch"),
    ],
)
def test_floor(floor: str, message: str | None) -> None:
    """It cannot lock the container out of its own name."""
    text = f"{MINIMAL}custom: {{ northstar: {{ floor: {floor} }} }}\n".encode()
    if message is None:
        assert extension.floor(manifest.parse(text)) == (1, 0, 0)
    else:
        with pytest.raises(ManifestError, match=re.escape(message)):
            manifest.parse(text)
