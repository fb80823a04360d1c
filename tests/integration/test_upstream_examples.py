# SPDX-License-Identifier: Apache-2.0
"""Manifests with what upstream's 22 examples have in theirs start with the default configuration.

Most of them bind /system, which is there on Android only. Their programs are a shell here.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from abilities import has_cgroup_controllers, has_network_namespaces
from runtime import SharedRuntime, resource, shell, wait_for

from northstar.client import Client, Refused

pytestmark = pytest.mark.anywhere

HOST = {"type": "bind", "options": "nosuid,nodev"}
MOUNTS: dict[str, Any] = {
    "/dev": {"type": "dev"},
    "/proc": {"type": "proc"},
    "/lib": {**HOST, "host": "/lib"},
    "/lib64": {**HOST, "host": "/lib64"},
    "/system": {**HOST, "host": "/system"},
}
DISCARDED = {"io": {"stdout": "pipe", "stderr": "discard"}}
HELLO = {"type": "resource", "name": "message", "version": ">=0.0.1", "dir": "/"}
SOCKET = {"type": "datagram", "mode": 0o777, "uid": 1000, "gid": 1000}
RESOURCES = ("ferris-0.0.1", "message-0.0.1", "message-0.0.2", "test-resource-0.0.1")


def mounts(**more: Any) -> dict[str, Any]:
    return {"mounts": {**MOUNTS, **{f"/{target}": mount for target, mount in more.items()}}}


def console(*permissions: str) -> dict[str, Any]:
    return {"console": {"permissions": list(permissions)}}


APPLICATIONS: dict[str, dict[str, Any]] = {
    "console": console("ident", "notifications", "inspect", "kill", "list"),
    "cpueater": {"env": {"THREADS": "4"}, "cgroups": {"parent": "cpu-intense", "cpu": {"shares": 100}}},
    "crashing": {"env": {"RUST_BACKTRACE": "1"}, **DISCARDED},
    "custom": {
        "custom": {"properties": {"hello": "again"}},
        **console("ident", "notifications", "inspect", "list"),
    },
    "hello-ferris": mounts(
        data={**HELLO, "options": "nodev,nosuid"}, resource={**HELLO, "options": "noexec"}
    ),
    "hello-resource": mounts(data={**HELLO, "version": ">=0.0.2"}),
    "hello-world": {},
    "inspect": {
        "suppl_groups": ["src", "inet"],
        "rlimits": {"nproc": {"soft": 10000, "hard": 20000}},
        **mounts(sys={"type": "sysfs"}, tmp={"type": "tmpfs", "size": "10MB"}),
        **DISCARDED,
    },
    "memeater": {
        "cgroups": {"memory": {"oom_monitor": True, "memory_hard_limit": 10_000_000, "swappiness": 0}}
    },
    "netns": {"network": {"namespace": "container"}},
    "persistence": mounts(data={"type": "persist"}),
    "redis-server": {"network": "host", **mounts(etc={**HOST, "host": "/etc"})},
    "redis-client": {"network": "host", **mounts(etc={**HOST, "host": "/etc"})},
    "seccomp": {"seccomp": {"profile": "default"}},
    "sockets": {"sockets": {"hello": SOCKET}, **mounts(**{"unix-sockets": {"type": "sockets"}})},
    "token-server": {"network": "host", **console("ident", "token_verification")},
    "token-client": {"network": "host", **console("ident", "token_create")},
    "test-container": {
        "sched": {"policy": {"fifo": {"priority": 11}}},
        "rlimits": {"nproc": {"soft": 10000, "hard": 20000}},
        "seccomp": {
            "profile": "default",
            "allow": {"delete_module": {"args": {"index": 1, "values": [1], "mask": 6}}, "clone3": "any"},
        },
        "sockets": {
            kind: {**SOCKET, "type": kind, "passcred": True} for kind in ("datagram", "stream", "seq_packet")
        },
        **mounts(
            data={"type": "persist"},
            tmp={"type": "tmpfs", "size": "20480000"},
            resource={"type": "resource", "name": "test-resource", "version": ">=0.0.1", "dir": "/"},
            **{"unix-sockets": {"type": "sockets"}},
        ),
    },
}
NEEDS = {
    "cpueater": has_cgroup_controllers,
    "memeater": has_cgroup_controllers,
    "netns": has_network_namespaces,
}


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, which is configured by default."""
    return shared_runtime


def starts(client: Client, name: str) -> None:
    client.start(f"{name}:0.0.1")
    assert client.inspect(f"{name}:0.0.1").process is not None
    client.kill(f"{name}:0.0.1", signal.SIGKILL)
    wait_for(client, "exit", f"{name}:0.0.1")


def test_there_are_as_many() -> None:
    assert len(APPLICATIONS) + len(RESOURCES) == 22


@pytest.mark.parametrize("name", APPLICATIONS)
def test_starts(runtime: SharedRuntime, name: str) -> None:
    """What the host does not have is left out, and said."""
    if name in NEEDS and (reason := NEEDS[name]()) is not None:
        pytest.skip(reason)
    for text in RESOURCES:
        runtime.pack(resource(*text.rsplit("-", 1)))
    runtime.pack({**shell(name), **mounts(), **APPLICATIONS[name]})
    with runtime.started() as client:
        if name == "netns":
            with pytest.raises(Refused, match="network namespace"):
                client.start("netns:0.0.1")
            return
        starts(client, name)
        if not os.path.exists("/system"):
            runtime.wait_for_log(f"{name}:0.0.1 runs without /system")
