# SPDX-License-Identifier: Apache-2.0
"""Manifest fields about the process, seen from inside."""

from __future__ import annotations

import grp
import json
import os
import resource as limits
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
from abilities import has_network_namespaces, has_selinux, has_sys_resource, needs
from isolated import wait_until
from runtime import SharedRuntime, nstar, probe, shell, wait_for
from test_containers import field, lines_of

from northstar.client import Refused
from northstar.kernel import capabilities, mount, namespaces
from northstar.kernel.libc import AT_FDCWD
from northstar.manifest import model

SLEEPING = "Sleeping..."


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def told(runtime: SharedRuntime, *command: str, **fields: Any) -> list[str]:
    """What test-container prints until it sleeps."""
    runtime.pack(probe(*command, **fields))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log(f"DEBUG: {SLEEPING}")
        return runtime.printed("a:0.0.1")


def value_of(lines: list[str], name: str) -> str:
    (found,) = (line.partition(": ")[2] for line in lines if line.startswith(f"{name}: "))
    return found


def refused(runtime: SharedRuntime, manifest: dict[str, Any], reason: str) -> None:
    """The start is refused with the reason; a start without the field works afterwards."""
    runtime.pack(manifest)
    runtime.pack(shell("b", "exit 0"))
    with runtime.started() as client:
        with pytest.raises(Refused, match=reason):
            client.start("a:0.0.1")
        assert client.inspect("a:0.0.1").process is None
        assert runtime.run(client, "b:0.0.1")[0].success


# --- capabilities


@pytest.mark.covers("capabilities")
def test_all_sets_of_capabilities(runtime: SharedRuntime) -> None:
    """An unprivileged user keeps them over execve, by the ambient set."""
    names = ["CAP_NET_ADMIN", "CAP_SYS_NICE"]
    lines = lines_of(runtime, "cat /proc/self/status", capabilities=names)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(field(lines, name), 16) == capabilities.mask(names), name


@pytest.mark.covers("capabilities")
def test_capability_is_effective(runtime: SharedRuntime) -> None:
    script = "ip link set lo down && ip link show lo"
    lines = lines_of(runtime, script, capabilities=["CAP_NET_ADMIN"])
    assert "UP" not in lines[0]
    runtime.pack(shell("b", script))
    with runtime.started() as client:
        assert not runtime.run(client, "b:0.0.1")[0].success


def test_every_capability_that_the_runtime_has_can_be_given(runtime: SharedRuntime) -> None:
    own = capabilities.get()[1]
    names = [name for name, number in capabilities.NAMES.items() if own >> number & 1]
    lines = lines_of(runtime, "cat /proc/self/status", capabilities=names)
    assert int(field(lines, "CapEff"), 16) == own


@pytest.mark.skipif(has_sys_resource() is None, reason="CAP_SYS_RESOURCE is there")
def test_capability_that_the_runtime_does_not_have(runtime: SharedRuntime) -> None:
    refused(runtime, shell("a", capabilities=["CAP_SYS_RESOURCE"]), "CAP_SYS_RESOURCE")


# --- scheduling


@pytest.mark.covers("sched")
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"other": {"nice": 7}}, ("0", "0", "7")),
        ({"other": {"nice": -5}}, ("0", "0", "-5")),
        ({"batch": {"nice": 3}}, ("3", "0", "3")),
        ({"fifo": {"priority": 11}}, ("1", "11", "0")),
        ({"round_robin": {"priority": 5}}, ("2", "5", "0")),
        ("idle", ("5", "0", "0")),
    ],
    ids=["other", "other-negative", "batch", "fifo", "round_robin", "idle"],
)
def test_scheduling(runtime: SharedRuntime, policy: Any, expected: tuple[str, ...]) -> None:
    lines = told(runtime, "inspect", sched={"policy": policy})
    names = ("sched_getscheduler", "sched_priority", "getpriority")
    assert tuple(value_of(lines, name) for name in names) == expected


def test_deadline_needs_more_than_a_policy(runtime: SharedRuntime) -> None:
    """The kernel wants a runtime and a period, which manifests do not have (sched(7))."""
    refused(runtime, shell("a", sched={"policy": "deadline"}), "set scheduling policy 6")


# --- limits


@pytest.mark.covers("rlimits")
@pytest.mark.parametrize("name", model.RLIMITS)
def test_every_limit(runtime: SharedRuntime, name: str) -> None:
    """To a value that the container would not have anyway."""
    own = limits.getrlimit(getattr(limits, f"RLIMIT_{name.upper()}", _number(name)))
    wanted = 1 << 40 if name in ("as", "data", "stack", "fsize", "core", "rss", "memlock") else 400
    if 0 <= own[1] <= wanted and has_sys_resource() is not None:
        if own[1] == 0:
            pytest.skip(f"{has_sys_resource()}, and the limit of {name} is 0")
        wanted = own[1] - 1
    assert own != (wanted, wanted)
    lines = told(runtime, "inspect", rlimits={name: {"soft": wanted, "hard": wanted}})
    (found,) = (line[25:].split()[:2] for line in lines if line.startswith(_LINES[name]))
    assert found == [str(wanted), str(wanted)]


_LINES = {
    "as": "Max address space",
    "core": "Max core file size",
    "cpu": "Max cpu time",
    "data": "Max data size",
    "fsize": "Max file size",
    "locks": "Max file locks",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "rss": "Max resident set",
    "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout",
    "sigpending": "Max pending signals",
    "stack": "Max stack size",
}
"""The words of /proc/<pid>/limits."""


def _number(name: str) -> int:
    """Python has no name for this one (asm-generic/resource.h)."""
    return {"locks": 10}.get(name, -1)


def test_limit_without_a_value_is_unlimited(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/limits", rlimits={"core": {"soft": 0}})
    (found,) = (line[25:].split() for line in lines if line.startswith("Max core"))
    assert found[:2] == ["0", "unlimited"]


def most_open_files() -> int:
    """The kernel knows no unlimited number of them, and without a privilege our own limit is the end."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    return most if has_sys_resource() is None else min(most, limits.getrlimit(limits.RLIMIT_NOFILE)[1])


MOST = -1
"""Stands for that number."""


@pytest.mark.parametrize(
    ("limit", "soft", "hard"),
    [
        ({"soft": 256}, 256, MOST),
        ({}, MOST, MOST),
        ({"soft": 0, "hard": (1 << 64) - 1}, 0, MOST),
        ({"soft": 1, "hard": 1}, 1, 1),
        ({"soft": 256, "hard": MOST}, 256, MOST),
    ],
    ids=str,
)
def test_open_files(runtime: SharedRuntime, limit: dict[str, int], soft: int, hard: int) -> None:
    limit = {key: most_open_files() if value == MOST else value for key, value in limit.items()}
    runtime.pack(shell("a", "exec sleep 1000", rlimits={"nofile": limit}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        (application,) = leaks.children(process.pid)
        lines = Path(f"/proc/{application}/limits").read_text().splitlines()
    (found,) = (line[25:].split()[:2] for line in lines if line.startswith("Max open files"))
    assert found == [str(most_open_files() if number == MOST else number) for number in (soft, hard)]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"soft": 5, "hard": 1 << 40}, f"rlimits.nofile: {1 << 40} is above [0-9]+, which is the most"),
        ({"soft": 1 << 40, "hard": 1 << 40}, f"rlimits.nofile: {1 << 40} is above [0-9]+, which is the most"),
        ({"soft": 1 << 40}, "rlimits.nofile: the soft limit 1099511627776 is above the hard limit [0-9]+"),
        ({"hard": 256}, "rlimits.nofile: the soft limit [0-9]+ is above the hard limit 256"),
    ],
    ids=str,
)
def test_open_files_that_are_impossible(runtime: SharedRuntime, limit: dict[str, int], reason: str) -> None:
    refused(runtime, shell("a", rlimits={"nofile": limit}), reason)


def test_soft_limit_above_the_hard_limit(runtime: SharedRuntime) -> None:
    limit = {"nofile": {"soft": 20, "hard": 10}}
    refused(runtime, shell("a", rlimits=limit), "rlimits.nofile: the soft limit 20 is above")


def test_hardly_any_descriptor(runtime: SharedRuntime) -> None:
    """A limit below what a start has open counts for the program, and not for its start."""
    limit = {"nofile": {"soft": 4, "hard": 4}}
    assert lines_of(runtime, "ulimit -n", rlimits=limit) == ["4"]


def test_arguments_that_are_too_large(runtime: SharedRuntime) -> None:
    """S-33: the start is refused with the reason, and neither a descriptor nor a process is left."""
    refused(runtime, shell("a") | {"args": ["x" * 600_000]}, "execute /bin/sh: Argument list too long")


@needs(has_sys_resource)
def test_limits_can_be_raised(runtime: SharedRuntime) -> None:
    """Up to what the kernel allows, as limits are set while the process is privileged."""
    hard = limits.getrlimit(limits.RLIMIT_MEMLOCK)[1]
    wanted = 1 << 40 if hard < 0 else hard + 4096
    limit = {"memlock": {"soft": wanted, "hard": wanted}}
    lines = lines_of(runtime, "cat /proc/self/limits", rlimits=limit)
    (found,) = (line[25:].split() for line in lines if line.startswith("Max locked"))
    assert found[:2] == [str(wanted)] * 2


# --- groups


@pytest.mark.covers("suppl_groups")
def test_groups_by_name(runtime: SharedRuntime) -> None:
    names = [group.gr_name for group in grp.getgrall() if group.gr_gid][:3]
    lines = lines_of(runtime, "cat /proc/self/status", suppl_groups=names)
    numbers = sorted(grp.getgrnam(name).gr_gid for name in names)
    assert [int(number) for number in field(lines, "Groups").split()] == numbers


def test_unknown_group_is_skipped_with_a_warning(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/status", suppl_groups=["tty", "no-such-group"])
    assert field(lines, "Groups") == str(grp.getgrnam("tty").gr_gid)
    assert "Skipping supplementary group no-such-group of a:0.0.1" in runtime.output()


# --- SELinux


@pytest.mark.skipif(has_selinux() is None, reason="SELinux is enabled")
@pytest.mark.covers("selinux")
def test_contexts_are_skipped_without_selinux(runtime: SharedRuntime) -> None:
    contexts = {"mount_context": "system_u:object_r:x:s0", "exec": "system_u:system_r:y:s0"}
    assert lines_of(runtime, "echo started", selinux=contexts) == ["started"]


@needs(has_selinux)
@pytest.mark.covers("selinux")
def test_contexts(runtime: SharedRuntime) -> None:
    """Of the program, and of the files of its image."""
    contexts = {
        "mount_context": "unconfined_u:object_r:user_home_t:s0",
        "exec": "unconfined_u:unconfined_r:test_container_t:s0",
    }
    runtime.pack(shell("a", "read -r c < /proc/self/attr/current; echo $c; sleep 1000", selinux=contexts))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_until(lambda: runtime.printed("a:0.0.1") != [], "the program has told its context")
        assert runtime.printed("a:0.0.1") == [contexts["exec"]]
        init = client.inspect("a:0.0.1").process
        assert init is not None
        label = os.getxattr(f"/proc/{init.pid}/root/bin/busybox", "security.selinux")
        assert label.rstrip(b"\0").decode() == contexts["mount_context"]


@needs(has_selinux)
@pytest.mark.parametrize("kind", ["mount_context", "exec"])
def test_context_that_the_policy_does_not_know(runtime: SharedRuntime, kind: str) -> None:
    """The start is refused, with the context in the reason, and nothing stays mounted."""
    contexts = {"mount_context": None, "exec": None, kind: "unconfined_u:object_r:no_such_t:s0"}
    runtime.pack(shell("a", selinux=contexts))
    with runtime.started() as client:
        with pytest.raises(Refused, match="no_such_t"):
            client.start("a:0.0.1")
        assert client.inspect("a:0.0.1").process is None


# --- network


@pytest.fixture
def network_namespace() -> Iterator[str]:
    """A namespace as `ip netns add` makes it."""
    path = Path("/run/netns/northstar-test")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    pid = os.fork()
    if pid == 0:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        signal.pause()
    try:
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{pid}/ns/net") == own:
            pass
        tree = mount.open_tree(AT_FDCWD, f"/proc/{pid}/ns/net", mount.OPEN_TREE_CLONE)
        mount.move_mount(tree, AT_FDCWD, str(path))
        os.close(tree)
        yield path.name
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        mount.umount(str(path), mount.MNT_DETACH)
        path.unlink()


@needs(has_network_namespaces)
@pytest.mark.covers("network.namespace")
def test_existing_network_namespace(runtime: SharedRuntime, network_namespace: str) -> None:
    """S-18: also if it was made after the start of the daemon."""
    network = {"namespace": network_namespace}
    lines = lines_of(runtime, "stat -L -c %i /proc/self/ns/net", network=network)
    assert int(lines[0]) == os.stat(f"/run/netns/{network_namespace}").st_ino


@pytest.mark.parametrize("name", ["", "..", "../netns/x", "no such"])
def test_network_namespace_that_is_none(runtime: SharedRuntime, name: str) -> None:
    """S-37."""
    refused(runtime, shell("a", network={"namespace": name}), "network namespace /run/netns/")


def test_file_that_is_no_network_namespace(runtime: SharedRuntime) -> None:
    path = Path("/run/netns/northstar-no-netns")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    try:
        refused(runtime, shell("a", network={"namespace": path.name}), "network namespace")
        assert runtime.process is not None
        assert not [name for name in leaks.descriptors(runtime.process.pid) if path.name in name]
    finally:
        path.unlink()


# --- sockets

SOCKETS: dict[str, dict[str, Any]] = {
    "stream": {"type": "stream", "mode": 0o666, "uid": 1000, "gid": 1000, "passcred": True},
    "datagram": {"type": "datagram", "mode": 0o640, "uid": 1000, "gid": 1001, "passcred": True},
    "seq-packet": {"type": "seq_packet", "mode": 0o600, "passcred": True},
    "no_permission": {"type": "datagram", "mode": 0, "passcred": False},
}


@pytest.mark.covers("sockets", "mounts.sockets")
@pytest.mark.parametrize("name", SOCKETS)
def test_sockets(runtime: SharedRuntime, name: str) -> None:
    """The container serves its socket and connects to it through the mount."""
    mounts = {"/unix-sockets": {"type": "sockets"}}
    runtime.pack(probe("socket", name, sockets=SOCKETS, mounts=mounts))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, lines
    if name == "no_permission":
        assert lines[-1] == "Refused: Permission denied"
    elif name == "stream":
        assert lines.count("Receiving 6 bytes") == 10
    else:
        # SO_PASSCRED adds the sender's credentials.
        assert len([line for line in lines if line.startswith("Received") and "uid 1000" in line]) == 10


@pytest.mark.covers("sockets")
def test_owner_and_mode_of_sockets(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", sockets=SOCKETS))
    with runtime.started() as client:
        client.start("a:0.0.1")
        for name, settings in SOCKETS.items():
            status = os.stat(runtime.base / f"sockets/a:0.0.1:{name}")
            owner = (settings.get("uid", 1000), settings.get("gid", 1000))
            assert (status.st_uid, status.st_gid) == owner
            assert status.st_mode & 0o7777 == settings["mode"]


def test_descriptors_of_sockets_are_the_only_ones(runtime: SharedRuntime) -> None:
    """S-27: 0, 1, 2 and four sockets."""
    lines = told(runtime, "inspect", sockets=SOCKETS)
    assert "    total: 7" in lines
    links = [line.partition(": ")[2] for line in lines if "/proc/self/fd/" in line and ": " in line]
    assert [link.partition(":")[0] for link in links[3:7]] == ["socket"] * 4


@pytest.mark.parametrize("name", ["a/b", "/a", "a/.."])
def test_name_of_a_socket_that_is_no_file_name(runtime: SharedRuntime, name: str, tmp_path: Path) -> None:
    """Refused when it is packed and when it is installed."""
    with pytest.raises(Exception, match="contains '/'"):
        runtime.pack_only(shell("a", sockets={name: {"type": "stream", "mode": 0o600}}))


def test_file_in_place_of_a_socket(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", sockets={"s": {"type": "stream", "mode": 0o600}}))
    obstacle = runtime.base / "sockets/a:0.0.1:s"
    with runtime.started() as client:
        obstacle.write_text("precious")
        with pytest.raises(Refused, match="no socket"):
            client.start("a:0.0.1")
        assert obstacle.read_text() == "precious"
        obstacle.unlink()
        client.start("a:0.0.1")


# --- console


@pytest.mark.covers("console")
def test_console_from_inside_is_a_connection_of_the_container(runtime: SharedRuntime) -> None:
    """It needs no handshake beyond connect, and serves what the manifest allows."""
    permissions = ["ident", "inspect", "kill", "list"]
    script = (
        """echo '{"connect":{"version":"0.9.2","subscribe_notifications":false}}' >&3;"""
        """ echo '{"request":{"kill":["a:0.0.1",15]}}' >&3; sleep 1000"""
    )
    runtime.pack(shell("a", f"trap 'exit 44' TERM; {script} & wait", console={"permissions": permissions}))
    with runtime.started() as client:
        status, _ = runtime.run(client, "a:0.0.1")
    assert status.code == 44 or status.signal == signal.SIGTERM


# --- inspect


@pytest.mark.covers("custom", "name", "version")
def test_inspect_gives_back_the_manifest(runtime: SharedRuntime) -> None:
    custom = {"properties": {"hello": "again"}, "list": [1, 2.5, None, True]}
    runtime.pack(shell("a", custom=custom, env={"A": "1"}))
    with runtime.started():
        done = nstar(runtime, "-j", "inspect", "a")
        found = json.loads(done.stdout)["response"]["inspect"]["ok"]["data"]["manifest"]
    assert found["custom"] == custom
    assert (found["name"], found["version"]) == ("a", "0.0.1")
    assert found["env"] == {"A": "1"}


# --- processes


def test_orphans_are_reaped(runtime: SharedRuntime) -> None:
    assert "zombies: 0" in told(runtime, "orphan")


def test_signals_reach_the_process_group(runtime: SharedRuntime) -> None:
    """S-34: `kill` is for the application and what it has started."""
    runtime.pack(shell("a", "sleep 1000 & sleep 1000"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        client.kill("a:0.0.1", signal.SIGTERM)
        status = wait_for(client, "exit", "a:0.0.1").status
        assert status is not None
        assert status.signal == signal.SIGTERM


def test_mounts_of_the_container_are_its_own(runtime: SharedRuntime) -> None:
    """Nothing of them is seen outside, and a socket of the host is out of reach."""
    before = subprocess.run(
        ["cat", "/proc/self/mountinfo"], capture_output=True, text=True, check=True
    ).stdout
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        after = Path("/proc/self/mountinfo").read_text()
    assert before == after


def test_abstract_sockets_of_the_host_are_out_of_reach(runtime: SharedRuntime) -> None:
    """ESR-01-005: they belong to the network namespace (unix(7))."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0northstar-test-abstract")
        listener.listen()
        lines = lines_of(runtime, "cat /proc/net/unix")
    assert not [line for line in lines if "northstar-test-abstract" in line]
