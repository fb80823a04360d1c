# SPDX-License-Identifier: Apache-2.0
"""What a manifest is written as, what is the default of a field that is missing, and keys that come twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from northstar import manifest
from northstar.errors import ManifestError
from northstar.manifest import model

MINIMAL = '{"name":"a","version":"0.0.1","init":"/a","uid":1,"gid":1'
BLKIO = (
    ",".join(
        f'"{name}":[]'
        for name in ("weight_device", *(f"throttle_{n}_device" for n in ("read_bps", "read_iops")))
    )
    + ',"throttle_write_bps_device":[],"throttle_write_iops_device":[]'
)


def read(fields: str) -> manifest.Manifest:
    return manifest.parse(f"{MINIMAL},{fields}}}".encode())


def written(fields: str) -> Any:
    """The last field as it is written."""
    data = manifest.to_json(read(fields))
    return data[list(json.loads("{" + fields + "}"))[-1]]


def refusal(fields: str) -> str:
    with pytest.raises(ManifestError) as refused:
        read(fields)
    return str(refused.value)


def test_text_of_a_manifest() -> None:
    """Each byte of it: what is packed twice has to be the same."""
    found = manifest.to_text(read('"env":{"\u00c4":"\u00fc"},"args":["x"]'))
    assert (
        found.decode()
        == """\
{
 "name": "a",
 "version": "0.0.1",
 "init": "/a",
 "args": [
  "x"
 ],
 "env": {
  "\u00c4": "\u00fc"
 },
 "uid": 1,
 "gid": 1
}
"""
    )


@pytest.mark.parametrize(
    "empty", ["args", "env", "mounts", "capabilities", "suppl_groups", "rlimits", "sockets"]
)
def test_what_is_empty_is_not_written(empty: str) -> None:
    value = "{}" if empty in ("env", "mounts", "rlimits", "sockets") else "[]"
    assert manifest.to_json(read(f'"{empty}":{value}')) == json.loads(f"{MINIMAL}}}")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ('"console":{"permissions":[]}', {"permissions": []}),
        ('"console":{"permissions":["list","ident"]}', {"permissions": ["ident", "list"]}),
        ('"console":{"permissions":" full "}', {"permissions": "full"}),
        ('"cgroups":{}', {}),
        ('"cgroups":{"parent":"p"}', {"parent": "p"}),
        ('"cgroups":{"cpu":{"shares":0,"attrs":{}}}', {"cpu": {"shares": 0}}),
        ('"cgroups":{"cpu":{"attrs":{"a":"b"}}}', {"cpu": {"attrs": {"a": "b"}}}),
        ('"cgroups":{"memory":{}}', {"memory": {"oom_monitor": False}}),
        ('"cgroups":{"memory":{"oom_monitor":true}}', {"memory": {"oom_monitor": True}}),
        ('"cgroups":{"memory":{"oom_monitor":false}}', {"memory": {"oom_monitor": False}}),
        ('"sched":{"policy":{"other":{"nice":0}}}', {"policy": {"other": {"nice": 0}}}),
        ('"sched":{"policy":{"fifo":{"priority":1}}}', {"policy": {"fifo": {"priority": 1}}}),
        ('"sched":{"policy":"idle"}', {"policy": "idle"}),
        ('"mounts":{"/b":{"type":"bind","host":"/h"}}', {"/b": {"type": "bind", "host": "/h"}}),
        (
            '"mounts":{"/b":{"type":"bind","host":"/h","options":"rw , noexec"}}',
            {"/b": {"type": "bind", "host": "/h", "options": "rw,noexec"}},
        ),
        ('"mounts":{"/t":{"type":"tmpfs","size":0}}', {"/t": {"type": "tmpfs", "size": 0}}),
        ('"network":"host"', "host"),
        ('"network":{"namespace":"n"}', {"namespace": "n"}),
        ('"seccomp":{}', {}),
        ('"seccomp":{"profile":"default","allow":{}}', {"profile": "default", "allow": {}}),
        ('"seccomp":{"allow":{"read":"any"}}', {"allow": {"read": "any"}}),
        (
            '"seccomp":{"allow":{"read":{"args":{"index":0,"values":[]}}}}',
            {"allow": {"read": {"args": {"index": 0, "values": ()}}}},
        ),
        ('"selinux":{}', {"mount_context": None, "exec": None}),
        ('"capabilities":["CAP_KILL","CAP_CHOWN"]', ["CAP_CHOWN", "CAP_KILL"]),
        ('"rlimits":{"core":{}}', {"core": {"soft": None, "hard": None}}),
        ('"sockets":{"s":{"type":"stream","mode":0}}', {"s": {"type": "stream", "mode": 0}}),
        ('"io":{"stdout":"pipe","stderr":"discard"}', {"stdout": "pipe", "stderr": "discard"}),
        ('"custom":{}', {}),
        ('"custom":0', 0),
    ],
)
def test_how_fields_are_written(fields: str, value: Any) -> None:
    found = written(fields)
    if isinstance(value, dict) and "/b" in value and "options" in value["/b"]:
        assert sorted(found["/b"].pop("options").split(",")) == sorted(value["/b"].pop("options").split(","))
    assert found == value
    again = manifest.parse(manifest.to_text(read(fields)))
    assert again == read(fields)


def test_permissions_of_a_console() -> None:
    """All of them have a word of their own; one less has not."""
    words = list(model.PERMISSIONS)
    assert written(f'"console":{{"permissions":{json.dumps(words)}}}') == {"permissions": "full"}
    for missing in words:
        others = [word for word in words if word != missing]
        assert written(f'"console":{{"permissions":{json.dumps(others)}}}') == {"permissions": others}
    for wrong in ('"fuller"', '"list"', '"zzz"', '""', "5", "{}", "true", "null"):
        assert refusal(f'"console":{{"permissions":{wrong}}}').startswith(
            "console.permissions: 'full' or a list of permissions is expected, not "
        )


# --- keys that come twice, and unknown ones


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ('"uid":2', "uid"),
        ('"io":{"stdout":"pipe","stderr":"pipe","stdout":"pipe"}', "io.stdout"),
        ('"mounts":{"/a":{"type":"proc"},"/a":{"type":"proc"}}', "mounts./a"),
        ('"mounts":{"/a":{"type":"proc","type":"proc"}}', "mounts./a.type"),
        ('"rlimits":{"core":{},"core":{}}', "rlimits.core"),
        ('"rlimits":{"core":{"soft":1,"soft":1}}', "rlimits.core.soft"),
        ('"sched":{"policy":"idle","policy":"idle"}', "sched.policy"),
        ('"cgroups":{"parent":"a","parent":"a"}', "cgroups.parent"),
        ('"cgroups":{"cpu":{"shares":1,"shares":1}}', "cgroups.cpu.shares"),
        ('"seccomp":{"profile":"default","profile":"default"}', "seccomp.profile"),
    ],
)
def test_fields_that_come_twice(fields: str, place: str) -> None:
    assert refusal(fields) == f"{place}: duplicate key"


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        ('"env":{"A":"1","A":"2"}', '"env":{"A":"2"}'),
        ('"cgroups":{"cpu":{"attrs":{"a":"1","a":"2"}}}', '"cgroups":{"cpu":{"attrs":{"a":"2"}}}'),
        ('"cgroups":{"x":1,"x":2}', '"cgroups":{}'),
        ('"sched":{"policy":"idle","x":1,"x":2}', '"sched":{"policy":"idle"}'),
        ('"rlimits":{"core":{"x":1,"x":2}}', '"rlimits":{"core":{}}'),
        ('"seccomp":{"allow":{"read":"x","read":"any"}}', '"seccomp":{"allow":{"read":"any"}}'),
        (
            '"sockets":{"s":{"type":"x","mode":0},"s":{"type":"stream","mode":0}}',
            '"sockets":{"s":{"type":"stream","mode":0}}',
        ),
        ('"custom":{"a":1,"a":2}', '"custom":{"a":2}'),
        (f'"cgroups":{{"blkio":{{{BLKIO},"x":1,"x":2}}}}', f'"cgroups":{{"blkio":{{{BLKIO}}}}}'),
    ],
)
def test_where_the_last_of_two_counts(fields: str, others: str) -> None:
    """As upstream: names that are chosen freely, and fields that nobody knows where such are ignored."""
    assert read(fields) == read(others)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ('"x":1', "x"),
        ('"io":{"stdout":"pipe","stderr":"pipe","x":1}', "io.x"),
        ('"mounts":{"/a":{"type":"tmpfs","size":1,"x":1}}', "mounts./a.x"),
        ('"sockets":{"s":{"type":"stream","mode":0,"x":1}}', "sockets.s.x"),
        ('"seccomp":{"x":1}', "seccomp.x"),
        ('"selinux":{"x":1}', "selinux.x"),
        ('"console":{"permissions":[],"x":1}', "console.x"),
    ],
)
def test_fields_that_nobody_knows(fields: str, place: str) -> None:
    assert refusal(fields).startswith(f"{place}: unknown field; known are ")


# --- rules of more than one field


def sockets(count: int) -> str:
    return '"sockets":' + json.dumps({f"s{n}": {"type": "stream", "mode": 0} for n in range(count)})


def test_number_of_sockets() -> None:
    assert len(read(sockets(64)).sockets) == 64
    assert refusal(sockets(65)) == "sockets: 65 sockets, at most 64 are allowed"


@pytest.mark.parametrize("name", ["/", "a/b", "/a"])
def test_names_that_no_socket_has(name: str) -> None:
    fields = f'"sockets":{{"{name}":{{"type":"stream","mode":0}}}}'
    assert refusal(fields) == f"sockets.{name}: the name {name!r} contains '/'"


@pytest.mark.parametrize(
    ("mount", "key"),
    [
        ("type: bind, host: {}", "host"),
        ("type: bind, host: /h, options: {}", "options"),
        ("type: tmpfs, size: {}", "size"),
        ("type: resource, name: {}, version: '1', dir: /", "name"),
        ("type: resource, name: r, version: {}, dir: /", "version"),
        ("type: resource, name: r, version: '1', dir: {}", "dir"),
    ],
)
@pytest.mark.parametrize("value", ["1.0", "true", "~"])
def test_text_of_mounts_is_quoted_in_yaml(mount: str, key: str, value: str) -> None:
    text = "name: a\nversion: 0.0.1\ninit: /a\nuid: 1\ngid: 1\nmounts: {/m: {" + mount.format(value) + "}}\n"
    with pytest.raises(ManifestError) as refused:
        manifest.parse(text.encode())
    assert str(refused.value) == f"mounts./m.{key}: a string is expected, {value!r} has to be quoted"


@pytest.mark.parametrize(
    "policy", ["{}", '{"idle":null,"other":null}', '{"idle":null,"idle":null}', "[]", "1", "true"]
)
def test_not_exactly_one_variant(policy: str) -> None:
    assert refusal(f'"sched":{{"policy":{policy}}}').startswith("sched.policy: one variant is expected, not ")


@pytest.mark.parametrize("name", ["", "=", "A=", "=A", "A=B"])
def test_names_that_no_variable_has(name: str) -> None:
    assert refusal(f'"env":{{"{name}":"x"}}') == f"env: {name!r} is no name of a variable"


@pytest.mark.parametrize("name", ["NAME", "VERSION", "CONTAINER", "CONSOLE"])
def test_names_that_are_reserved(name: str) -> None:
    name = f"NORTHSTAR_{name}"
    assert refusal(f'"env":{{"{name}":"x"}}') == f"env.{name}: the name is reserved"
    assert list(read(f'"env":{{"{name}_":"x","{name.lower()}":"x","NORTHSTAR_":"x"}}').env) == [
        f"{name}_",
        name.lower(),
        "NORTHSTAR_",
    ]


@pytest.mark.parametrize("key", ["uid", "gid"])
@pytest.mark.parametrize(
    ("number", "good"), [(0, True), ((1 << 32) - 3, True), ((1 << 32) - 2, True), ((1 << 32) - 1, False)]
)
def test_owners_of_sockets(key: str, number: int, good: bool) -> None:
    """The last number means that it stays as it is, chown(2)."""
    fields = f'"sockets":{{"s":{{"type":"stream","mode":0,"{key}":{number}}}}}'
    if good:
        assert getattr(read(fields).sockets["s"], key) == number
    else:
        assert refusal(fields) == f"sockets.s.{key}: {number} is out of the range 0..4294967294"


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (("/a", "/b"), None),
        (("/a", "/ab"), None),
        (("/a", "/a/b"), "mounts./a/b: overlaps with the bind mount /a"),
        (("/a/b/c", "/a/b"), "mounts./a/b/c: overlaps with the bind mount /a/b"),
        (("/a", "/a-b", "/a/b"), None),
    ],
)
def test_binds_within_each_other(targets: tuple[str, ...], problem: str | None) -> None:
    fields = '"mounts":' + json.dumps({target: {"type": "bind", "host": "/h"} for target in targets})
    if problem is None:
        assert list(read(fields).mounts) == list(targets)
    else:
        assert refusal(fields) == problem
    other = fields.replace('"bind", "host": "/h"', '"tmpfs", "size": 1')
    assert list(read(other).mounts) == list(targets)
