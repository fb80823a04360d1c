# SPDX-License-Identifier: Apache-2.0
"""What a hostile container or image tries; the numbers are those of docs/security.md."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from abilities import has_keyrings, has_mksquashfs, has_sys_resource, needs
from isolated import wait_until
from leaks import children, name_of
from runtime import Runtime, SharedRuntime, probe, shell, wait_for, with_mounts
from test_containers import lines_of

from northstar import manifest
from northstar.client import Client, Refused
from northstar.kernel import capabilities, procfs
from northstar.npk import pack

PTRACE = "CAP_SYS_PTRACE"
Hostile = Callable[[dict[str, Any], dict[str, str]], None]


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def init_of(client: Client, container: str = "a:0.0.1") -> int:
    """Pid of init."""
    process = client.inspect(container).process
    assert process is not None
    return process.pid


def engine_of(runtime: SharedRuntime) -> int:
    assert runtime.process is not None
    (pid,) = (pid for pid in children(runtime.process.pid) if name_of(pid) == "northstar-engin")
    return pid


# --- images


@pytest.fixture
def hostile(runtime: SharedRuntime, tmp_path: Path) -> Hostile:
    """Packs an image made of a directory, and a manifest."""
    reason = has_mksquashfs()
    if reason is not None:
        pytest.skip(reason)

    def make(description: dict[str, Any], links: dict[str, str]) -> None:
        root = tmp_path / "root"
        (root / "bin").mkdir(parents=True)
        for name in ("proc", "dev", "real", "usr"):
            (root / name).mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin/busybox")
        for applet in ("sh", "cat", "ls", "touch"):
            (root / "bin" / applet).symlink_to("busybox")
        for name, target in links.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
        image = tmp_path / "image"
        command = ["mksquashfs", str(root), str(image), "-quiet", "-no-progress", "-all-root"]
        subprocess.run(command, check=True)
        out = runtime.base / "packed"
        out.mkdir(exist_ok=True)
        key = runtime.key if runtime.verified else None
        packed = pack.pack_image(
            manifest.parse(json.dumps(description).encode()), str(image), str(out), key=key
        )
        runtime.add_package(Path(packed))

    return make


@pytest.mark.parametrize("link", ["/etc", "../../../../etc", "/proc/self/root/etc", ".."])
def test_links_in_mount_targets_stay_in_the_image(
    runtime: SharedRuntime, hostile: Hostile, link: str
) -> None:
    """S-20: the mount lands in the image, or the start fails; nothing is mounted on the host."""
    mounts = with_mounts(target={"type": "tmpfs", "size": 4096})
    hostile(shell("a", "exit 0", mounts=mounts), {"target": link})
    before = Path("/proc/self/mountinfo").read_text()
    with runtime.started() as client:
        try:
            client.start("a:0.0.1")
            wait_for(client, "exit", "a:0.0.1")
        except Refused as error:
            assert "/target" in str(error)
        assert Path("/proc/self/mountinfo").read_text() == before
        assert client.list() == ["a:0.0.1"]


def test_link_inside_the_image_is_followed(runtime: SharedRuntime, hostile: Hostile) -> None:
    """S-20."""
    mounts = with_mounts(target={"type": "tmpfs", "size": 4096})
    hostile(shell("a", "cat /proc/self/mounts", mounts=mounts), {"target": "/real"})
    with runtime.started() as client:
        _, lines = runtime.run(client, "a:0.0.1")
    assert [line for line in lines if line.split()[1] == "/real"]


def test_parent_in_a_target_is_refused(runtime: SharedRuntime) -> None:
    """S-20: when it is packed, and when a package with it is installed."""
    with pytest.raises(Exception, match=r"contains '\.\.'"):
        runtime.pack_only(shell("a", mounts=with_mounts(**{"../x": {"type": "tmpfs", "size": 4096}})))


def test_nested_mounts_in_any_order(runtime: SharedRuntime) -> None:
    """S-20: parents first."""
    mounts = {"/usr/tmp/": {"type": "persist"}, "/usr": {"type": "bind", "host": str(runtime.base / "outer")}}
    (runtime.base / "outer/tmp").mkdir(parents=True, exist_ok=True)
    lines = lines_of(runtime, "cat /proc/self/mounts", mounts=with_mounts() | dict(reversed(mounts.items())))
    targets = [line.split()[1] for line in lines]
    assert targets.index("/usr") < targets.index("/usr/tmp")


@pytest.mark.parametrize("link", ["/etc", "../../.."])
def test_links_in_directories_of_resources_stay_in_the_resource(
    runtime: SharedRuntime, hostile: Hostile, link: str
) -> None:
    """S-21."""
    hostile({"name": "r", "version": "0.0.1", "uid": 1000, "gid": 1000}, {"out": link})
    source = {"type": "resource", "name": "r", "version": "*", "dir": "/out"}
    runtime.pack(shell("a", "ls /resource", mounts=with_mounts(resource=source)))
    with runtime.started() as client:
        try:
            _, lines = runtime.run(client, "a:0.0.1")
            assert "passwd" not in lines
        except Refused:
            pass


def test_device_nodes_and_links_of_the_image_are_covered(runtime: SharedRuntime, hostile: Hostile) -> None:
    """A `dev` mount hides what the image has there, and nodes in the image do not work."""
    hostile(shell("a", "ls -la /dev/"), {"dev/null": "/bin/sh", "dev/sda": "/real"})
    with runtime.started() as client:
        _, lines = runtime.run(client, "a:0.0.1")
    assert not [line for line in lines if "sda" in line]
    assert [line for line in lines if line.startswith("c") and line.endswith(" null")]


# --- mounts


def test_only_planned_mounts(runtime: SharedRuntime) -> None:
    """S-19: nothing of the host is left after pivot_root, seen from the container or from outside."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        text = Path(f"/proc/{init_of(client)}/mountinfo").read_text()
    targets = {line.split()[4] for line in text.splitlines()}
    assert {target for target in targets if not target.startswith(("/proc", "/dev"))} == {"/"}


def test_working_directory_of_all_processes_is_inside(runtime: SharedRuntime) -> None:
    """S-27: no process of the container stands outside of its root."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        init = init_of(client)
        for pid in (init, *children(init)):
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.stat(f"/proc/{pid}/cwd/").st_dev == os.stat(f"/proc/{pid}/root/").st_dev
            assert os.stat(f"/proc/{pid}/root/").st_dev != os.stat("/").st_dev


def test_proc_cannot_be_written(runtime: SharedRuntime) -> None:
    """S-23."""
    script = (
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches; do"
        " echo 0 2>/dev/null > $f && echo written $f; done 2>/dev/null; true"
    )
    for granted in [], ["CAP_DAC_OVERRIDE"]:
        assert lines_of(runtime, script, capabilities=granted) == []
        runtime.forget_log()


# --- init


def test_descriptors_of_init(runtime: SharedRuntime) -> None:
    """S-27: standard streams and the status channel."""
    runtime.pack(shell("a", sockets={"s": {"type": "stream", "mode": 0o600}}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        directory = f"/proc/{init_of(client)}/fd"
        links = [os.readlink(f"{directory}/{name}") for name in sorted(os.listdir(directory), key=int)]
    assert [os.path.basename(link) for link in links[:3]] == ["null"] * 3
    assert [link.partition(":")[0] for link in links[3:]] == ["socket"]


def test_inherited_descriptors_reach_nobody(own_runtime: Runtime) -> None:
    """S-27: the daemon was started with descriptors of the host's root, a socket and a pipe."""
    script = (
        "import os, socket, sys;"
        "fds = [os.open('/', os.O_RDONLY) for _ in range(20)] + list(os.pipe());"
        "[os.set_inheritable(fd, True) for fd in fds];"
        "os.execv(sys.executable, [sys.executable, '-m', 'northstar', *sys.argv[1:]])"
    )
    own_runtime.command = [sys.executable, "-c", script]
    own_runtime.pack(shell("a") | {"init": "/bin/ls", "args": ["/proc/self/fd"]})
    with own_runtime.started() as client:
        assert own_runtime.run(client, "a:0.0.1")[1] == ["0", "1", "2", "3"]
        assert own_runtime.process is not None
        directory = f"/proc/{own_runtime.process.pid}/fd"
        links = [os.readlink(f"{directory}/{name}") for name in os.listdir(directory)]
        # One of its own: the way to the host's mounts.
        assert links.count("/") == 1


@pytest.mark.parametrize("granted", [[], [PTRACE]], ids=["plain", "ptrace"])
def test_interpreter_cannot_be_overwritten(runtime: SharedRuntime, granted: list[str]) -> None:
    """S-28, ESR-01-014: /proc/1/exe is the host's interpreter."""
    if granted and not capabilities.get()[1] & capabilities.mask(granted):
        pytest.skip(f"the runtime does not have {granted[0]}")
    interpreter = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    script = (
        "for f in /proc/1/exe /proc/1/map_files/*; do (echo x >> $f) 2>/dev/null && echo opened $f;"
        " done; true"
    )
    assert lines_of(runtime, script, uid=1000, capabilities=granted) == []
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before


def test_program_that_is_the_engine(runtime: SharedRuntime, hostile: Hostile) -> None:
    """S-28: a link to /proc/self/exe leads to the process before execve, whose program nobody may execute."""
    hostile(shell("a") | {"init": "/self"}, {"self": "/proc/self/exe"})
    with runtime.started() as client:
        for _ in range(2):
            with pytest.raises(Refused, match=r"execute /self: Permission denied"):
                client.start("a:0.0.1")
            assert client.inspect("a:0.0.1").process is None


def test_init_has_no_privileges(runtime: SharedRuntime) -> None:
    """S-29: less than the application, whatever that has."""
    own = capabilities.get()[1]
    granted = [name for name in ("CAP_SYS_ADMIN", "CAP_NET_ADMIN") if own & capabilities.mask((name,))]
    runtime.pack(shell("a", capabilities=granted))
    with runtime.started() as client:
        client.start("a:0.0.1")
        init = init_of(client)
        (application,) = children(init)
        assert os.path.samestat(os.stat(f"/proc/{init}/root/"), os.stat(f"/proc/{application}/root/"))
        status = Path(f"/proc/{init}/status").read_text()
    fields = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert fields["Uid"].split() == ["1000"] * 4


@pytest.mark.parametrize("granted", [[], [PTRACE]], ids=["plain", "ptrace"])
def test_init_has_no_privileges_before_the_program_begins(runtime: SharedRuntime, granted: list[str]) -> None:
    """S-29: there is no moment in which a tracer could use it."""
    if granted and not capabilities.get()[1] & capabilities.mask(granted):
        pytest.skip(f"the runtime does not have {granted[0]}")
    lines = lines_of(runtime, "exec cat /proc/1/status", capabilities=granted)
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (fields["CapEff"], fields["CapPrm"]) == ("0" * 16, "0" * 16)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_init_cannot_be_traced_by_the_container(runtime: SharedRuntime) -> None:
    """S-28, S-29: it is not dumpable, so its /proc files belong to root."""
    script = "cat /proc/1/environ /proc/1/maps; ls /proc/1/fd; ls /proc/1/cwd/"
    assert lines_of(runtime, f"({script}) 2>/dev/null; true") == []


def test_end_of_init_ends_the_container_and_nothing_else(runtime: SharedRuntime) -> None:
    """A rogue init can hurt its own container only."""
    runtime.pack(shell("a"))
    runtime.pack(shell("b"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        client.start("b:0.0.1")
        os.kill(init_of(client), signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
        assert client.inspect("b:0.0.1").process is not None
        client.start("a:0.0.1")


def test_stopped_init_harms_nobody(runtime: SharedRuntime) -> None:
    """The daemon waits for no container."""
    runtime.pack(shell("a"))
    runtime.pack(shell("b", "exit 0"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        os.kill(init_of(client), signal.SIGSTOP)
        assert runtime.run(client, "b:0.0.1")[0].success
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")


def test_killed_spare_is_replaced(runtime: SharedRuntime) -> None:
    """Somebody with the right to do so kills the processes that wait for a start."""
    runtime.pack(shell("a", "exit 0"))
    with runtime.started() as client:
        for _ in range(3):
            (spare,) = children(engine_of(runtime))
            os.kill(spare, signal.SIGKILL)
            wait_until(lambda pid=spare: procfs.Process(pid).state == "Z", "it is dead")  # type: ignore[misc]
            assert runtime.run(client, "a:0.0.1")[0].success


# --- processes


def test_no_signal_is_ignored_or_blocked(runtime: SharedRuntime) -> None:
    """S-31."""
    runtime.pack(shell("a") | {"init": "/bin/cat", "args": ["/proc/self/status"]})
    with runtime.started() as client:
        _, lines = runtime.run(client, "a:0.0.1")
    for name in ("SigIgn", "SigBlk", "SigCgt"):
        (mask,) = (line.split()[1] for line in lines if line.startswith(name))
        assert int(mask, 16) == 0, name


def test_children_of_the_engine_are_reaped(runtime: SharedRuntime) -> None:
    """S-33: after starts that succeed and starts that fail."""
    runtime.pack(shell("a", "exit 0"))
    runtime.pack(shell("broken") | {"init": "/nonexistent"})
    with runtime.started() as client:
        for _ in range(10):
            runtime.run(client, "a:0.0.1")
            with pytest.raises(Refused):
                client.start("broken:0.0.1")
        engine = engine_of(runtime)
        # The one that is ready for the next start is all there is.
        wait_until(lambda: len(children(engine)) == 1, "the engine has one child")


@needs(has_keyrings)
def test_keyring_of_its_own(runtime: SharedRuntime) -> None:
    """S-41."""
    keyctl, get_keyring_id, session = {"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3
    runtime.pack(probe("syscall", str(keyctl), str(get_keyring_id), str(session), "0"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        line = runtime.wait_for_log(f"DEBUG: syscall {keyctl} returned")
    theirs = int(line.split()[-1])
    assert theirs not in (-1, ctypes.CDLL(None).syscall(keyctl, get_keyring_id, session, 0))


def test_terminal_of_the_daemon_is_out_of_reach(runtime: SharedRuntime) -> None:
    """ESR-01-010: a container has a session of its own, without a controlling terminal."""
    lines = lines_of(runtime, "cat /proc/self/stat; (echo x > /dev/tty) 2>/dev/null && echo open; true")
    session, terminal = lines[0].rpartition(")")[2].split()[3:5]
    assert (int(session), int(terminal)) == (1, 0)
    assert "open" not in lines


def test_scores_of_the_oom_killer(runtime: SharedRuntime) -> None:
    """S-60: all of the runtime is spared, applications are not."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        init, engine = init_of(client), engine_of(runtime)
        wait_until(lambda: len(children(engine)) == 2, "an init waits for the next start")
        assert runtime.process is not None
        ours = {score_of(pid) for pid in (runtime.process.pid, engine, *children(engine))}
        theirs = {score_of(pid) for pid in children(init)}
    own = score_of(os.getpid())
    # A unit may protect the daemon itself; that is not for its containers.
    assert theirs == {max(0, own)}
    assert ours == {-900 if has_sys_resource() is None else own}


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_core_dumps_of_init_are_off(runtime: SharedRuntime) -> None:
    """S-60: its memory is of no use to anybody."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        text = Path(f"/proc/{init_of(client)}/limits").read_text()
    (found,) = (line.split()[4] for line in text.splitlines() if line.startswith("Max core"))
    assert found == "0"


def test_second_container_cannot_use_a_private_socket(runtime: SharedRuntime) -> None:
    """S-24: owner and mode are in force before the first connection."""
    sockets = {"datagram": {"type": "datagram", "mode": 0o600, "uid": 1000, "gid": 1000}}
    mounts = {"/unix-sockets": {"type": "sockets"}}
    runtime.pack(shell("server", sockets=sockets))
    script = "import socket;socket.socket(1, 2).connect('/unix-sockets/server:0.0.1:datagram')"
    runtime.pack(
        probe("sleep", uid=1001, mounts=mounts) | {"init": "/usr/bin/python3", "args": ["-c", script]}
    )
    with runtime.started() as client:
        client.start("server:0.0.1")
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.code == 1
    assert "PermissionError" in lines[-1]


def test_long_name_of_a_socket(runtime: SharedRuntime) -> None:
    """S-24: sun_path is short (unix(7))."""
    runtime.pack(shell("a", sockets={"x" * 200: {"type": "stream", "mode": 0o600}}))
    with runtime.started() as client:
        with pytest.raises(Refused, match="longer than 107"):
            client.start("a:0.0.1")
        assert client.list() == ["a:0.0.1"]


def test_console_of_the_host_is_not_in_the_container(runtime: SharedRuntime) -> None:
    """Neither by path nor by descriptor, unless the manifest has one."""
    lines = lines_of(runtime, "ls /run 2>/dev/null; cat /proc/net/unix; true")
    assert not [line for line in lines if "console" in line]


# --- after pivot_root


@needs(has_mksquashfs)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_of_the_image_is_opened_before_execve(runtime: SharedRuntime, tmp_path: Path) -> None:
    """S-59: no import, no name service, no locale between pivot_root and execve."""
    runtime.pack(shell("a", "exit 0"))
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%file,execve,pivot_root", "-p"]
    engine = engine_of(runtime)
    with runtime.started() as client, subprocess.Popen([*command, str(engine)]) as tracer:
        wait_until(lambda: tracing(engine), "strace is attached")
        # The process that waits was forked before; the next one is seen from its beginning.
        for _ in range(2):
            runtime.run(client, "a:0.0.1")
        tracer.send_signal(signal.SIGINT)
    assert_quiet(trace.read_text())


def tracing(pid: int) -> bool:
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


PLANNED = ("umount2(", "chdir(", "fchdir(", "---", "+++")


def assert_quiet(trace: str) -> None:
    """Only what is planned lies between pivot_root and execve of a process."""
    pivoted: set[str] = set()
    seen = 0
    for line in trace.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith("pivot_root("):
            pivoted.add(pid)
            seen += 1
        elif call.startswith("execve("):
            pivoted.discard(pid)
        elif pid in pivoted:
            assert call.startswith(PLANNED), line
    assert seen
