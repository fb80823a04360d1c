# SPDX-License-Identifier: Apache-2.0
"""From a manifest and a start request to a plan: mounts, descriptors, limits, and what a host may refuse."""

from __future__ import annotations

import grp
import json
import resource
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.errors import StartContainerFailed, StartContainerMissingResource
from northstar.kernel import procfs
from northstar.manifest import Manifest, parse
from northstar.names import Container
from northstar.runtime.containers import command, plan
from northstar.runtime.containers.plan import Notify
from northstar.supervision.model import NOTIFY, Ready, Settings, Watchdog

READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8
STRICT = NO_SUID | NO_DEV | NO_EXEC
RESOURCES = 1 << 24
"""The mask of CAP_SYS_RESOURCE."""
PLACES = plan.Places("/run/c", "/data", "/sockets", "/run/c/.devices")


def manifest(**fields: Any) -> Manifest:
    whole = {"name": "a", "version": "0.0.1", "init": "/init", "uid": 1, "gid": 2, **fields}
    return parse(json.dumps(whole).encode())


def facts(available: int = 0, *, selinux: bool = False) -> plan.Facts:
    return plan.Facts(available, 40, selinux, None)


def session(parsed: Manifest, known: plan.Facts) -> Any:
    return plan.session(
        parsed, command.command(parsed, None, (), {}), [], known, group_numbers=[], application_filter=b""
    )


def build(parsed: Manifest, notify: Notify | None = None, **more: Any) -> Any:
    what = command.command(parsed, None, (), {})
    return plan.build(
        parsed, what, PLACES, {}, [], facts(), group_numbers=[], application_filter=b"", notify=notify, **more
    )


def mounts(target: str, mount: dict[str, Any], places: plan.Places = PLACES, **fields: Any) -> Any:
    [found] = plan.mounts(manifest(mounts={target: mount}, **fields), places, {target: "r:1.0.0"})
    return found


def bind(options: str = "") -> dict[str, Any]:
    return {"type": "bind", "host": "/h", "options": options}


PERSIST = {"type": "persist"}
RESOURCE = {"type": "resource", "name": "r", "version": "*", "dir": "/sub"}


@pytest.mark.parametrize(
    ("mount", "kind", "source", "attributes"),
    [
        (bind(), "bind", "/h", READ_ONLY),
        (bind("rw"), "bind", "/h", 0),
        (bind("noexec"), "bind", "/h", READ_ONLY | NO_EXEC),
        (bind("nosuid"), "bind", "/h", READ_ONLY | NO_SUID),
        (bind("nodev"), "bind", "/h", READ_ONLY | NO_DEV),
        (bind("rw,noexec,nosuid,nodev"), "bind", "/h", STRICT),
        (RESOURCE, "resource", "/run/c/r:1.0.0", READ_ONLY | NO_SUID | NO_DEV),
        ({**RESOURCE, "options": "noexec"}, "resource", "/run/c/r:1.0.0", READ_ONLY | STRICT),
        (PERSIST, "bind", "/data/a", NO_SUID | NO_DEV),
        ({"type": "sockets"}, "bind", "/sockets", STRICT),
        ({"type": "dev"}, "tree", "/run/c/.devices", 0),
        ({"type": "tmpfs", "size": 4096}, "tmpfs", "", STRICT),
        ({"type": "proc"}, "proc", "", STRICT | READ_ONLY),
        ({"type": "sysfs"}, "sysfs", "", STRICT | READ_ONLY),
    ],
)
def test_mounts(mount: dict[str, Any], kind: str, source: str, attributes: int) -> None:
    found = mounts("/m", mount)
    assert (found["kind"], found["source"], found["attributes"]) == (kind, source, attributes)
    assert found["target"] == "/m"
    assert found["options"] == ({"size": "4096", "mode": "1777"} if kind == "tmpfs" else {})
    assert found["directory"] == ("/sub" if kind == "resource" else "")
    assert found["recursive"] is (kind == "tree")


def test_a_bind_may_have_what_is_mounted_below_it() -> None:
    assert mounts("/m", bind("rec"))["recursive"] is True


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("required", [False, True])
def test_binds_without_their_source(skipped: bool, required: bool) -> None:
    """One is left out if configuration and manifest allow it."""
    custom = {"northstar": {"mounts": {"/m": "required"}}} if required else None
    found = mounts("/m", bind(), PLACES._replace(skip_missing_binds=skipped), custom=custom)
    assert found["optional"] is (skipped and not required)


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_programs_in_persistent_directories(configured: bool, asked: bool) -> None:
    custom = {"northstar": {"mounts": {"/m": "noexec"}}} if asked else None
    found = mounts("/m", PERSIST, PLACES._replace(persist_noexec=configured), custom=custom)
    assert bool(found["attributes"] & NO_EXEC) is (configured or asked)


def test_a_parent_is_mounted_before_what_lies_below_it() -> None:
    """Also before a name that a plain comparison of texts puts between them."""
    parsed = manifest(mounts=dict.fromkeys(["/a/b", "/a-b", "/b", "/a"], PERSIST))
    assert [mount["target"] for mount in plan.mounts(parsed, PLACES, {})] == ["/a", "/a/b", "/a-b", "/b"]


@pytest.mark.parametrize(
    ("requirement", "chosen"),
    [("*", "r:10.0.0"), ("^1", "r:1.10.0"), ("<1.9", "r:1.2.0"), ("=1.2.0", "r:1.2.0"), ("2", None)],
)
def test_the_highest_version_of_a_resource(requirement: str, chosen: str | None) -> None:
    known = ["q:1.3.0", "r:1.2.0", "r:1.10.0", "r:10.0.0", "s:2.0.0", "s:11.0.0"]
    parsed = manifest(mounts={"/m": {**RESOURCE, "version": requirement}, "/n": PERSIST})
    containers = [Container.parse(name) for name in known]
    if chosen is not None:
        assert plan.resources(parsed, containers) == {"/m": Container.parse(chosen)}
        return
    with pytest.raises(StartContainerMissingResource):
        plan.resources(parsed, containers)


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, each once; who is missing on this host is named, and no reason to refuse a start."""
    numbers = {"x": 30, "y": 4, "z": 30}
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=numbers[name]))
    warnings: list[str] = []
    assert plan.groups(manifest(suppl_groups=["x", "none", "y", "z"]), warnings.append) == [4, 30]
    assert [("none" in warning, "a:0.0.1" in warning) for warning in warnings] == [(True, True)]


CONSOLE = {"console": {"permissions": "full"}}
SOCKETS = {"sockets": {name: {"type": "stream", "mode": 0o600} for name in "xyz"}}


@pytest.mark.parametrize(
    ("fields", "notify", "expected"),
    [
        ({}, None, ["mounts"]),
        (CONSOLE, None, [3, "mounts"]),
        (SOCKETS, None, [3, 4, 5, "mounts"]),
        ({**CONSOLE, **SOCKETS}, None, [3, 4, 5, 6, "mounts"]),
        ({**CONSOLE, **SOCKETS}, Notify("@n", name="n", stored=2), [3, 4, 5, 6, 7, 8, "mounts", "notify"]),
        ({}, Notify("/n", stored=1), [3, "mounts"]),
        ({"io": {"stdout": "pipe", "stderr": "pipe"}}, None, ["stdout", "stderr", "mounts"]),
        ({"io": {"stdout": "discard", "stderr": "pipe"}}, None, ["stderr", "mounts"]),
        ({"io": {"stdout": "inherit", "stderr": "discard"}, **CONSOLE}, None, [3, "stdout", "mounts"]),
        ({"network": "host"}, Notify("@n", name="n"), ["mounts", "network", "notify"]),
    ],
)
def test_what_travels_with_a_start(
    fields: dict[str, Any], notify: Notify | None, expected: list[str | int]
) -> None:
    assert plan.roles(manifest(**fields), ["g", "h"], notify) == [*expected, "g", "h"]


@pytest.mark.parametrize(
    ("settings", "mounted", "expected"),
    [
        (Settings(), {}, None),
        (Settings(ready=Ready(NOTIFY)), {}, ("/run/host/notify", 0.0, True)),
        (Settings(watchdog=Watchdog(2.5, 9.0, 6)), {}, ("/run/host/notify", 2.5, True)),
        (Settings(fdstore=1), {"/run": PERSIST}, ("@northstar-RANDOM", 0.0, False)),
    ],
)
def test_the_socket_that_a_start_would_have(
    settings: Settings, mounted: dict[str, Any], expected: tuple[str, float, bool] | None
) -> None:
    found = plan.expected_notify(manifest(mounts=mounted), settings)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.address, found.interval, bool(found.place)) == expected
    assert bool(found.name) is not bool(found.place)


def test_a_socket_as_a_file_is_the_last_mount() -> None:
    parsed = manifest(env={"A": "1", "NOTIFY_SOCKET": "/fake", "WATCHDOG_USEC": "1"}, mounts={"/x": PERSIST})
    order = build(parsed, Notify("/n", 2.5, "", "/n", "/host/n", {"LISTEN_FDS": "1"}, 1))
    assert [mount["target"] for mount in order["mounts"]] == ["/x", "/n"]
    assert order["mounts"][-1]["source"] == "/host/n"
    assert order["mounts"][-1]["attributes"] == STRICT | READ_ONLY
    assert order["notify"] == ""
    assert order["env"][0] == "A=1"
    assert order["env"][-3:] == ["NOTIFY_SOCKET=/n", "LISTEN_FDS=1", "WATCHDOG_USEC=2500000"]
    assert len([variable for variable in order["env"] if "NOTIFY_SOCKET" in variable]) == 1


def test_a_socket_by_a_name_is_no_mount() -> None:
    order = build(manifest(), Notify("@n", name="n"))
    assert (order["mounts"], order["notify"]) == ([], "n")
    assert order["env"][-1] == "NOTIFY_SOCKET=@n"


def test_without_a_socket() -> None:
    order = build(manifest())
    assert (order["name"], order["root"], order["hold"]) == ("init-a:0.0.1", "/run/c/a:0.0.1", False)
    assert (order["mounts"], order["notify"], order["terminal"]) == ([], "", False)
    assert build(manifest(), hold=True)["hold"] is True


def test_numbers_of_limits() -> None:
    """As the C library has them, where it has them."""
    for name, number in plan.RLIMITS.items():
        assert number == getattr(resource, f"RLIMIT_{name.upper()}", number)
    assert sorted(plan.RLIMITS.values()) == list(range(16))


HIGHEST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"soft": 0, "hard": 0}, (0, 0)),
        ({"soft": 1, "hard": 2}, (1, 2)),
        ({"soft": 2, "hard": 2}, (2, 2)),
        ({"soft": 3, "hard": 2}, "soft limit 3 is above the hard limit 2"),
        ({"soft": 7}, (7, -1)),
        ({"hard": 7}, "above the hard limit 7"),
        ({}, (-1, -1)),
        ({"soft": HIGHEST - 1, "hard": HIGHEST - 1}, (HIGHEST - 1, HIGHEST - 1)),
        ({"soft": HIGHEST - 1, "hard": HIGHEST}, (HIGHEST - 1, -1)),
        ({"soft": HIGHEST + 1, "hard": HIGHEST + 1}, (-1, -1)),
    ],
)
def test_limits(limit: dict[str, int], expected: tuple[int, int] | str) -> None:
    parsed = manifest(rlimits={"core": limit})
    if isinstance(expected, tuple):
        assert session(parsed, facts())["rlimits"] == [("core", 4, *expected)]
        return
    with pytest.raises(StartContainerFailed, match=f"rlimits.core: .*{expected}"):
        session(parsed, facts())


@pytest.mark.parametrize(
    ("available", "own", "most"),
    [
        (0, 500, 500),
        (0, 1000, 1000),
        (0, 2000, 1000),
        (0, resource.RLIM_INFINITY, 1000),
        (RESOURCES, 500, 1000),
        (~RESOURCES, 500, 500),
    ],
)
def test_most_open_files(available: int, own: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the kernel; without privileges no more than the runtime itself may have."""
    monkeypatch.setattr(procfs, "max_open_files", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (7, own))

    def limits(limit: dict[str, int]) -> Any:
        return session(manifest(rlimits={"nofile": limit}), facts(available))["rlimits"]

    assert limits({}) == [("nofile", 7, most, most)]
    assert limits({"soft": most, "hard": most}) == [("nofile", 7, most, most)]
    with pytest.raises(StartContainerFailed, match=f"rlimits.nofile: {most + 1} is above {most}, "):
        limits({"soft": 1, "hard": most + 1})


KILL, NET_ADMIN = 1 << 5, 1 << 12


@pytest.mark.parametrize(
    ("names", "available", "missing"),
    [
        ([], 0, None),
        (["CAP_KILL"], KILL, None),
        (["CAP_KILL", "CAP_NET_ADMIN"], KILL | NET_ADMIN | 1, None),
        (["CAP_KILL"], 0, "CAP_KILL"),
        (["CAP_NET_ADMIN", "CAP_KILL"], KILL, "CAP_NET_ADMIN"),
        (["CAP_NET_ADMIN", "CAP_KILL"], ~(KILL | NET_ADMIN), "CAP_KILL, CAP_NET_ADMIN"),
    ],
)
def test_capabilities(names: list[str], available: int, missing: str | None) -> None:
    """Nobody can give what he does not have."""
    parsed = manifest(capabilities=names)
    if missing is None:
        found = session(parsed, facts(available))
        masks = {"CAP_KILL": KILL, "CAP_NET_ADMIN": NET_ADMIN}
        assert found["capabilities"] == sum(masks[name] for name in names)
        return
    with pytest.raises(StartContainerFailed, match=f"does not have {missing}$"):
        session(parsed, facts(available))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"fifo": {"priority": 99}}, (1, 99, 0)),
        ({"round_robin": {"priority": 1}}, (2, 1, 0)),
        ({"other": {"nice": -20}}, (0, 0, -20)),
        ({"batch": {"nice": 19}}, (3, 0, 19)),
        ("idle", (5, 0, 0)),
        ("deadline", (6, 0, 0)),
    ],
)
def test_scheduling(policy: Any, expected: tuple[int, int, int]) -> None:
    assert session(manifest(sched={"policy": policy}), facts())["scheduling"] == expected
    assert session(manifest(), facts())["scheduling"] is None


@pytest.mark.parametrize("enabled", [False, True])
def test_context_of_selinux(enabled: bool) -> None:
    context = {"mount_context": "m", "exec": "u:r:t:s0"}
    known = facts(selinux=enabled)
    assert session(manifest(selinux=context), known)["selinux_exec"] == ("u:r:t:s0" if enabled else None)
    assert session(manifest(), known)["selinux_exec"] is None
