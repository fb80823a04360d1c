# SPDX-License-Identifier: Apache-2.0
"""Starts that fail: the request says at which step and why, and nothing is left of them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import leaks
import pytest
from runtime import SharedRuntime, resource, shell, wait_for, with_mounts
from test_containers import lines_of

from northstar.client import Client, Refused
from northstar.kernel import mount

NO_SUCH = "/nonexistent/source"
TMPFS = {"type": "tmpfs", "size": 4096}
REQUIRED = {"northstar": {"mounts": {"/data": "required"}}}


def text(directory: str, version: str = "*") -> dict[str, Any]:
    """A mount of the resource `text`."""
    return {"type": "resource", "name": "text", "version": version, "dir": directory}


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "program-missing": ({"init": "/nonexistent"}, "execute /nonexistent: No such file"),
    "program-not-executable": ({"init": "/hello"}, "execute /hello: Permission denied"),
    "program-a-directory": ({"init": "/tmp"}, "execute /tmp: Permission denied"),
    "program-below-a-file": ({"init": "/hello/x"}, "execute /hello/x: Not a directory"),
    "interpreter-missing": ({"init": "/test-container"}, "execute /test-container: No such file"),
    "bind-missing": (
        {"mounts": with_mounts(data={"type": "bind", "host": NO_SUCH}), "custom": REQUIRED},
        rf"mount /data \({NO_SUCH}\): No such file.*; there is no {NO_SUCH} on the host",
    ),
    "bind-of-a-file-on-a-directory": (
        {"mounts": with_mounts(data={"type": "bind", "host": "/proc/version"})},
        "mount /data: Invalid argument.*; /proc/version is a file and its mount point .* a directory",
    ),
    "mount-point-missing": ({"mounts": with_mounts(**{"no/such": TMPFS})}, "mount /no/such: No such file"),
    "mount-point-a-file": (
        {"mounts": with_mounts(hello=TMPFS)},
        "mount /hello: Invalid argument.*; a directory is mounted, .* is a file",
    ),
    "mount-point-below-a-file": ({"mounts": with_mounts(**{"hello/x": TMPFS})}, "mount /hello/x: Not a dir"),
    "resource-missing": ({"mounts": with_mounts(resource=text("/", ">=9"))}, "resource"),
    "resource-without-directory": ({"mounts": with_mounts(resource=text("/nowhere"))}, "resource"),
    "network-missing": (
        {"network": {"namespace": "no-such"}},
        "network namespace /run/netns/no-such: No such",
    ),
    "network-no-name": ({"network": {"namespace": "../netns"}}, "network namespace /run/netns/../netns: the"),
    "limit-above-itself": (
        {"rlimits": {"nofile": {"soft": 9, "hard": 8}}},
        "rlimits.nofile: the soft limit 9 is above the hard limit 8",
    ),
    "limit-too-high": (
        {"rlimits": {"nofile": {"soft": 1 << 40, "hard": 1 << 40}}},
        "rlimits.nofile: 1099511627776 is above [0-9]+, which is the most",
    ),
    "policy": ({"sched": {"policy": "deadline"}}, "set scheduling policy 6"),
    "group-attribute": ({"cgroups": {"cpu": {"attrs": {"cpu.nonesuch": "1"}}}}, "cgroup: .*cpu"),
    "group-value": ({"cgroups": {"memory": {"attrs": {"memory.max": "x"}}}}, "cgroup: .*memory"),
    "group-parent": ({"cgroups": {"parent": "../up", "cpu": {"shares": 100}}}, "cgroup: .*up"),
    "socket-name": (
        {"sockets": {"x" * 200: {"type": "stream", "mode": 0o600}}},
        "longer than 107",
    ),
    "socket-taken": ({"sockets": {"taken": {"type": "stream", "mode": 0o600}}}, "no socket"),
    "persist-a-link": ({"mounts": with_mounts(data={"type": "persist"})}, "persistent directory .*persist-a"),
}


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def lying_around(runtime: SharedRuntime) -> dict[str, Any]:
    """What the daemon and the engine hold, and what there is of them elsewhere."""
    assert runtime.process is not None
    daemon = runtime.process.pid
    (engine,) = (pid for pid in leaks.children(daemon) if leaks.name_of(pid) == "northstar-engin")
    offspring = sorted(leaks.name_of(pid) for parent in (daemon, engine) for pid in leaks.children(parent))
    return {
        "descriptors": sorted(re.sub(r"\[\d+\]", "", name) for name in leaks.descriptors(daemon)),
        "descriptors of the engine": len(leaks.descriptors(engine)),
        "mounts": sorted(entry.target for entry in mount.mountinfo(f"/proc/{daemon}/mountinfo")),
        "children": offspring,
        "sockets": sorted(os.listdir(runtime.base / "sockets")),
        "groups": sorted(path for path in leaks._control_groups() if runtime.base.name in path),
    }


def is_again(runtime: SharedRuntime, before: dict[str, Any]) -> None:
    """Wait until all is as it was."""
    deadline = time.monotonic() + leaks.SECONDS
    while (now := lying_around(runtime)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now == before


def failure_of(client: Client, container: str) -> str:
    """Why it does not start."""
    with pytest.raises(Refused) as refused:
        client.start(container)
    assert client.inspect(container).process is None
    return str(refused.value)


def all_fail(client: Client) -> None:
    """Each with its reason; then nothing is mounted any more."""
    said = {name: failure_of(client, f"{name}:0.0.1") for name in FAILURES}
    assert not {name: text for name, text in said.items() if not re.search(FAILURES[name][1], text)}
    mounted = [name for name in client.list() if client.inspect(name).mounted]
    client.umount([name for name in mounted if not name.startswith(("bystander", "text"))])
    client.umount(["text:0.0.1"])


def obstacles(runtime: SharedRuntime) -> list[Path]:
    """Files that are in the way of some starts."""
    link = runtime.base / "data/persist-a-link"
    link.symlink_to("/etc")
    taken = runtime.base / "sockets/socket-taken:0.0.1:taken"
    taken.write_text("precious")
    return [link, taken]


def test_failing_starts_leave_nothing(runtime: SharedRuntime) -> None:
    """S-33, S-38: each kind of failure is reported; all of them together leave things as they were."""
    runtime.pack(resource("text"))
    runtime.pack(shell("bystander"))
    for name, (fields, _) in FAILURES.items():
        runtime.pack({**shell(name), **fields})
    with runtime.started() as client:
        in_the_way = obstacles(runtime)
        try:
            client.start("bystander:0.0.1")
            # Directories of control groups are opened once, when the first container needs them.
            all_fail(client)
            before = lying_around(runtime)
            all_fail(client)
            is_again(runtime, before)
            assert client.inspect("bystander:0.0.1").process is not None
        finally:
            for path in in_the_way:
                path.unlink()


@pytest.mark.parametrize("name", ["program-missing", "bind-missing", "limit-too-high", "mount-point-missing"])
def test_error_is_of_the_right_kind(runtime: SharedRuntime, name: str) -> None:
    """S-38: what fails in init or behind it is no exit of the container, and nobody is told of a start."""
    fields, _ = FAILURES[name]
    runtime.pack({**shell("a"), **fields})
    runtime.pack(shell("b", "exit 0"))
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("a:0.0.1")
        assert refused.value.variant == "start_container_failed"
        assert refused.value.fields["container"] == "a:0.0.1"
        client.start("b:0.0.1")
        told = [wait_for(client, "exit"), *client.notifications(timeout=0)]
        assert {notification.container for notification in told} == {"b:0.0.1"}


def test_many_orphans(runtime: SharedRuntime) -> None:
    """S-33: init reaps what others leave to it while the application runs."""
    script = """
    zombies() {
        n=0
        for file in /proc/[0-9]*/stat; do
            { read -r _ _ state _ < $file && test $state = Z && n=$((n+1)); } 2>/dev/null
        done
        test $n != 0
    }
    i=0
    while test $i -lt 200; do (true & true) & i=$((i+1)); done
    wait
    while zombies; do sleep 0.1; done
    echo done
    """
    assert lines_of(runtime, script) == ["done"]


def started_and_failed(client: Client) -> None:
    client.start("a:0.0.1")
    wait_for(client, "exit", "a:0.0.1")
    with pytest.raises(Refused):
        client.start("broken:0.0.1")


def test_no_zombies_of_many_starts(runtime: SharedRuntime) -> None:
    """S-33: half of them fail."""
    runtime.pack(shell("a", "exit 0"))
    runtime.pack({**shell("broken"), **FAILURES["mount-point-missing"][0]})
    with runtime.started() as client:
        started_and_failed(client)
        before = lying_around(runtime)
        for _ in range(15):
            started_and_failed(client)
        is_again(runtime, before)
