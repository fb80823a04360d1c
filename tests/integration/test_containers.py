# SPDX-License-Identifier: Apache-2.0
"""Containers as they see themselves."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import leaks
import pytest
from isolated import wait_until
from runtime import SharedRuntime, resource, shell, wait_for, with_mounts

from northstar.client import Client, Refused
from northstar.kernel import procfs


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def lines_of(runtime: SharedRuntime, script: str, **fields: object) -> list[str]:
    """What a container that runs `script` prints; it must end with 0."""
    runtime.pack(shell("a", script, **fields))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, (status, lines)
    return lines


def field(lines: list[str], name: str) -> str:
    """A field of /proc/self/status."""
    (found,) = (line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
    return found


def test_namespaces_are_new(runtime: SharedRuntime) -> None:
    script = (
        "cd /proc/self/ns; for n in pid mnt ipc uts net cgroup; do echo $n $(stat -c %N $n); done; hostname"
    )
    lines = lines_of(runtime, script)
    for line in lines[:5]:
        name = line.split()[0]
        number = re.search(r"\[(\d+)\]", line)
        assert number is not None
        assert f"[{number[1]}]" not in os.readlink(f"/proc/self/ns/{name}")


def test_processes_are_described(runtime: SharedRuntime) -> None:
    """What inspect tells of processes; independent of control groups."""
    runtime.pack(shell("a", "sleep 1000 & echo ready; wait"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        names = ["sh", "sleep"]
        wait_until(lambda: [found["name"] for found in processes_of(client)] == names, "both run")
        outer, inner = processes_of(client)
        assert (outer["parent"], inner["parent"]) == (process.pid, outer["pid"])
        assert (outer["state"], outer["threads"]) == ("S", 1)
        assert inner["resident"] > 0
        assert os.stat(f"/proc/{inner['pid']}").st_uid == 1000


def processes_of(client: Client) -> list[dict[str, Any]]:
    process = client.inspect("a:0.0.1").process
    assert process is not None
    found: list[dict[str, Any]] = process.statistics["processes"]
    return found


def test_init_is_the_parent(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a") | {"init": "/bin/cat", "args": ["/proc/self/stat"]})
    with runtime.started() as client:
        _, lines = runtime.run(client, "a:0.0.1")
    assert int(lines[0].split()[3]) == 1


def test_only_processes_of_the_container_are_visible(runtime: SharedRuntime) -> None:
    pids = [int(line) for line in lines_of(runtime, "ls /proc") if line.isdigit()]
    assert 1 in pids
    assert max(pids) < 10


@pytest.mark.covers("uid", "gid")
def test_user_and_groups(runtime: SharedRuntime) -> None:
    """S-35."""
    lines = lines_of(runtime, "cat /proc/self/status", uid=1234, gid=2345)
    assert field(lines, "Uid").split() == ["1234"] * 4
    assert field(lines, "Gid").split() == ["2345"] * 4
    assert field(lines, "Groups") == ""


def test_no_capabilities_and_no_new_privileges(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/status")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(field(lines, name), 16) == 0
    assert field(lines, "NoNewPrivs") == "1"


def test_signals_are_reset(runtime: SharedRuntime) -> None:
    """Nothing ignored, nothing blocked, whatever the daemon does."""
    runtime.pack(shell("a") | {"init": "/bin/cat", "args": ["/proc/self/status"]})
    previous = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        with runtime.started() as client:
            status, lines = runtime.run(client, "a:0.0.1")
    finally:
        signal.signal(signal.SIGQUIT, previous)
    assert status.success
    assert int(field(lines, "SigIgn"), 16) == 0
    assert int(field(lines, "SigBlk"), 16) == 0


def test_open_files_are_standard_streams_only(runtime: SharedRuntime) -> None:
    """S-27: no descriptor of the runtime reaches a container; 3 is the directory that ls reads."""
    runtime.pack(shell("a") | {"init": "/bin/ls", "args": ["/proc/self/fd"]})
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["0", "1", "2", "3"])


def test_working_directory_and_root(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "pwd; ls /; ls /..")
    assert lines[0] == "/"
    half = (len(lines) - 1) // 2
    assert lines[1 : 1 + half] == lines[1 + half :]
    assert "busybox" not in lines


def test_root_is_read_only_and_the_host_is_not_visible(runtime: SharedRuntime) -> None:
    """S-09."""
    script = "touch /x 2>/dev/null && echo written; cat /proc/self/mounts; ls /etc 2>/dev/null; true"
    lines = lines_of(runtime, script)
    assert "written" not in lines
    root = next(line for line in lines if line.split()[1] == "/")
    assert " squashfs ro," in root
    assert "nosuid" in root
    assert not [line for line in lines if str(runtime.base) in line and " / " not in line]


@pytest.mark.covers("mounts.proc")
def test_proc_is_read_only_and_masked(runtime: SharedRuntime) -> None:
    script = "cat /proc/self/mounts; (echo x > /proc/sys/kernel/hostname) 2>/dev/null; echo $?"
    lines = lines_of(runtime, script)
    assert [line for line in lines if line.startswith("proc /proc proc ro,")]
    assert lines[-1] != "0"


@pytest.mark.covers("mounts.dev")
def test_dev(runtime: SharedRuntime) -> None:
    script = """
    for name in full null random tty urandom zero; do test -c /dev/$name && echo $name; done
    dd if=/dev/zero bs=10 count=1 2>/dev/null | wc -c
    echo discarded > /dev/null && echo null works
    dd if=/dev/urandom bs=4 count=1 2>/dev/null | wc -c
    (echo x > /dev/full) 2>/dev/null || echo full
    ls /dev; touch /dev/new 2>/dev/null && echo created; true
    """
    lines = lines_of(runtime, script)
    assert lines[:6] == ["full", "null", "random", "tty", "urandom", "zero"]
    assert lines[6].strip() == "10"
    assert "null works" in lines
    assert "created" not in lines
    assert not [line for line in lines if re.match("loop|vd|sd|mem|kmsg", line)]


@pytest.mark.covers("mounts.tmpfs")
def test_tmpfs(runtime: SharedRuntime) -> None:
    script = """
    cat /proc/self/mounts
    echo data > /tmp/file && cat /tmp/file
    dd if=/dev/zero of=/tmp/big bs=1000 count=3000 2>/dev/null || echo full
    """
    mounts = with_mounts(tmp={"type": "tmpfs", "size": 2_000_000})
    lines = lines_of(runtime, script, mounts=mounts)
    assert "data" in lines
    assert lines[-1] == "full"


@pytest.mark.covers("mounts.sysfs")
def test_sysfs_is_read_only(runtime: SharedRuntime) -> None:
    mounts = with_mounts(sys={"type": "sysfs"})
    lines = lines_of(runtime, "ls /sys; cat /proc/self/mounts", mounts=mounts)
    assert "class" in lines
    (entry,) = (line for line in lines if line.startswith("sysfs /sys "))
    assert " ro," in entry


@pytest.mark.covers("mounts.bind")
def test_bind(runtime: SharedRuntime) -> None:
    shared = runtime.base / "shared"
    (shared / "below").mkdir(parents=True)
    (shared / "file").write_text("from the host\n")
    (shared / "below").chmod(0o777)
    mounts = with_mounts(data={"type": "bind", "host": str(shared), "options": "nosuid,nodev,noexec"})
    lines = lines_of(
        runtime, "cat /data/file; touch /data/below/x 2>/dev/null || echo read-only", mounts=mounts
    )
    assert lines == ["from the host", "read-only"]


@pytest.mark.covers("mounts.bind.options")
def test_bind_writable(runtime: SharedRuntime) -> None:
    shared = runtime.base / "writable"
    shared.mkdir()
    shared.chmod(0o777)
    mounts = with_mounts(data={"type": "bind", "host": str(shared), "options": "rw"})
    assert lines_of(runtime, "echo written > /data/file", mounts=mounts) == []
    assert (shared / "file").read_text() == "written\n"


def test_bind_of_a_file(runtime: SharedRuntime) -> None:
    """The mount point must be a file as well; /hello is one in the image."""
    source = runtime.base / "text"
    source.write_text("replaced\n")
    mounts = with_mounts(hello={"type": "bind", "host": str(source)})
    assert lines_of(runtime, "cat /hello", mounts=mounts) == ["replaced"]


@pytest.mark.covers("mounts.persist")
def test_persist(runtime: SharedRuntime) -> None:
    mounts = with_mounts(data={"type": "persist"})
    runtime.pack(shell("keeper", "cat /data/file; echo kept > /data/file", mounts=mounts))
    with runtime.started() as client:
        assert runtime.run(client, "keeper:0.0.1")[1][-1:] != ["kept"]
        assert runtime.run(client, "keeper:0.0.1") == ((0, None), ["kept"])
        status = os.stat(runtime.base / "data/keeper")
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1000, 0o700)
        client.uninstall("keeper:0.0.1", wipe=True)
        assert not (runtime.base / "data/keeper").exists()


@pytest.mark.covers("mounts.resource")
def test_resource(runtime: SharedRuntime) -> None:
    mounts = with_mounts(
        resource={
            "type": "resource",
            "name": "text",
            "version": ">=0.0.1",
            "dir": "/files/deep",
            "options": "noexec,nosuid,nodev",
        }
    )
    runtime.pack(resource("text"))
    lines = lines_of(
        runtime,
        "cat /resource/file; grep /resource /proc/self/mounts || cat /proc/self/mounts",
        mounts=mounts,
    )
    assert lines[0] == "deep"
    (entry,) = (line for line in lines if " /resource " in line)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(entry.split()[3].split(","))


@pytest.mark.covers("mounts.resource.version")
def test_resource_of_the_highest_matching_version(runtime: SharedRuntime) -> None:
    for version in ("1.0.0", "1.2.0", "2.0.0"):
        runtime.pack(resource("text", version))
    mounts = with_mounts(resource={"type": "resource", "name": "text", "version": "^1.0.0", "dir": "/"})
    runtime.pack(shell("user", mounts=mounts))
    with runtime.started() as client:
        client.start("user:0.0.1")
        mounted = [name for name in client.list() if client.inspect(name).mounted]
        assert sorted(mounted) == ["text:1.2.0", "user:0.0.1"]


def test_missing_resource(runtime: SharedRuntime) -> None:
    mounts = with_mounts(resource={"type": "resource", "name": "text", "version": ">=2", "dir": "/"})
    runtime.pack(resource("text", "1.0.0"))
    runtime.pack(shell("user", mounts=mounts))
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("user:0.0.1")
        assert refused.value.variant == "start_container_missing_resource"
        assert refused.value.fields["resource"] == "text"
        assert not client.inspect("user:0.0.1").mounted


def test_missing_directory_of_a_resource(runtime: SharedRuntime) -> None:
    mounts = with_mounts(resource={"type": "resource", "name": "text", "version": ">=0", "dir": "/nowhere"})
    runtime.pack(resource("text"))
    runtime.pack(shell("user", mounts=mounts))
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("user:0.0.1")
        assert refused.value.variant == "start_container_missing_resource"
        assert refused.value.fields["version"] == "0.0.1"
        assert client.inspect("user:0.0.1").process is None


@pytest.mark.parametrize("where", ["bind source", "mount point"])
def test_mount_that_is_impossible(runtime: SharedRuntime, where: str) -> None:
    """S-38: The start fails with step and path, and the container can be started again."""
    if where == "bind source":
        mounts = with_mounts(data={"type": "bind", "host": "/nonexistent/source"})
        named = "/nonexistent/source"
    else:
        mounts = with_mounts(**{"no/such/place": {"type": "tmpfs", "size": 1000}})
        named = "/no/such/place"
    required = {"northstar": {"mounts": {"/data": "required"}}} if where == "bind source" else None
    runtime.pack(shell("user", mounts=mounts, custom=required))
    runtime.pack(shell("other", "echo fine"))
    with runtime.started() as client:
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                client.start("user:0.0.1")
            assert named in str(refused.value)
            assert client.inspect("user:0.0.1").process is None
        assert runtime.run(client, "other:0.0.1") == ((0, None), ["fine"])


@pytest.mark.parametrize(
    ("init", "reason"),
    [("/nonexistent", "No such file"), ("/hello", "Permission denied"), ("/tmp", "Permission denied")],
)
def test_program_that_cannot_be_executed(runtime: SharedRuntime, init: str, reason: str) -> None:
    """S-38: the request fails, with the reason."""
    runtime.pack(shell("user") | {"init": init})
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("user:0.0.1")
        assert refused.value.variant == "start_container_failed"
        assert init in str(refused.value)
        assert reason in str(refused.value)
        assert client.inspect("user:0.0.1").process is None


@pytest.mark.covers("init", "args", "env")
def test_environment_and_arguments(runtime: SharedRuntime) -> None:
    runtime.pack(
        shell(
            "a", "echo $0 $1 $GREETING $NORTHSTAR_CONTAINER $NORTHSTAR_NAME $NORTHSTAR_VERSION; env | wc -l"
        )
        | {
            "args": [
                "-c",
                "echo [$1] [$GREETING] [$NORTHSTAR_CONTAINER] [$NORTHSTAR_NAME] [$NORTHSTAR_VERSION]",
                "x",
                "one",
            ]
        }
        | {"env": {"GREETING": "hi there"}}
    )
    with runtime.started() as client:
        expected = ["[one] [hi there] [a:0.0.1] [a] [0.0.1]"]
        assert runtime.run(client, "a:0.0.1") == ((0, None), expected)


def test_start_with_another_command(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", env={"GREETING": "hi"}))
    with runtime.started() as client:
        client.start("a:0.0.1", "<INIT>", ["-c", "echo $GREETING$OTHER $0", "x y"], {"OTHER": "new"})
        wait_for(client, "exit")
        assert runtime.printed("a:0.0.1") == ["new x y"]


def test_start_of_a_resource_with_a_command(runtime: SharedRuntime) -> None:
    runtime.pack(resource("text"))
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("text:0.0.1")
        assert refused.value.variant == "start_container_resource"
        # It has no output, as its manifest has none.
        assert runtime.run(client, "text:0.0.1", "/bin/echo", "alive") == ((0, None), [])
        assert client.inspect("text:0.0.1").process is None


@pytest.mark.parametrize("code", [0, 1, 10, 127, 128, 255])
def test_exit_code(runtime: SharedRuntime, code: int) -> None:
    runtime.pack(shell("a", f"exit {code}"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[0] == (code, None)
        runtime.wait_for_log(f"Container a:0.0.1 exited with status Exit({code})")


@pytest.mark.parametrize("number", [1, 2, 9, 15])
def test_signal(runtime: SharedRuntime, number: int) -> None:
    runtime.pack(shell("a", "exec sleep 1000"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        client.kill("a:0.0.1", number)
        assert wait_for(client, "exit").status == (None, number)
        assert client.inspect("a:0.0.1").process is None


def test_descendants_end_with_the_container(runtime: SharedRuntime) -> None:
    """Init reaps orphans while the application runs, and everything ends with it."""
    runtime.pack(shell("a", "(sleep 1000 &) ; (sleep 0.1; true) & echo started; exit 7"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((7, None), ["started"])


def test_restart_many_times(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "exec sleep 1000"))
    with runtime.started() as client:
        for _ in range(10):
            client.start("a:0.0.1")
            client.kill("a:0.0.1")
            assert wait_for(client, "exit").status == (None, 15)


@pytest.mark.covers("io")
@pytest.mark.parametrize("output", ["pipe", "discard", "inherit"])
def test_output(runtime: SharedRuntime, output: str) -> None:
    runtime.pack(shell("a", "echo visible; echo error >&2", io={"stdout": output, "stderr": output}))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
        time.sleep(0.2)
        assert status.success
        assert sorted(lines) == (["error", "visible"] if output == "pipe" else [])
        raw = [line for line in runtime.output().splitlines() if line in ("visible", "error")]
        assert sorted(raw) == (["error", "visible"] if output == "inherit" else [])


def test_a_locked_pipe_harms_nobody(runtime: SharedRuntime) -> None:
    """S-51: splice(2) from a socket that is silent keeps the lock of the pipe that the daemon reads from."""
    script = "trap 'echo more; exec cat <&$NORTHSTAR_CONSOLE' USR1; echo ready; while :; do sleep 0.1; done"
    runtime.pack(shell("a", script, console={"permissions": ["ident"]}))
    runtime.pack(shell("b", "echo fine"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_until(lambda: runtime.printed("a:0.0.1") == ["ready"], "the signal is expected")
        assert runtime.process is not None
        daemon, program = runtime.process.pid, processes_of(client)[0]["pid"]
        threads = Path(f"/proc/{daemon}/task")
        # The daemon finds the output together with the lock.
        with runtime.halted():
            os.kill(program, signal.SIGUSR1)
            wait_until(lambda: describe(program) == ("cat", "S"), "cat waits for the socket")
        wait_until(lambda: len(list(threads.iterdir())) == 2, "a thread waits for the lock")
        assert runtime.run(client, "b:0.0.1") == ((0, None), ["fine"])
        client.kill("a:0.0.1", signal.SIGKILL)
        assert wait_for(client, "exit", "a:0.0.1").status == (None, 9)
        wait_until(lambda: len(list(threads.iterdir())) == 1, "the thread has ended")


def describe(pid: int) -> tuple[str, str]:
    """Name and state of a process."""
    found = procfs.Process(pid)
    return found.name, found.state


def test_a_flood_of_output_harms_nobody(runtime: SharedRuntime) -> None:
    """Control characters do not reach the log, long lines are cut, others are served meanwhile."""
    script = (
        "i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done; printf '\\033[31mred\\n'; echo end"
    )
    runtime.pack(shell("loud", script))
    with runtime.started() as client:
        client.start("loud:0.0.1")
        with runtime.connect() as other:
            assert other.list() == ["loud:0.0.1"]
        wait_for(client, "exit")
        runtime.wait_for_log(": end")
        assert "\x1b" not in runtime.output()
        assert "line 1999" in runtime.printed("loud:0.0.1")


def test_an_endless_flood_is_cut(runtime: SharedRuntime) -> None:
    """S-51: what is too much is counted and lost, the container goes on."""
    runtime.pack(shell("loud", "exec yes"))
    with runtime.started() as client:
        client.start("loud:0.0.1")
        runtime.wait_for_log("lines were too many and are lost]")
        for _ in range(20):
            assert client.list() == ["loud:0.0.1"]
        assert client.inspect("loud:0.0.1").process is not None


@pytest.mark.covers("rlimits.nproc")
def test_rlimits(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/limits", rlimits={"nproc": {"soft": 1000, "hard": 2000}})
    (found,) = (line for line in lines if line.startswith("Max processes"))
    assert found.split()[2:4] == ["1000", "2000"]


@pytest.mark.covers("suppl_groups")
def test_supplementary_groups(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/status", suppl_groups=["tty"])
    assert field(lines, "Groups") == "5"


@pytest.mark.covers("network")
def test_host_network(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "stat -c %N /proc/self/ns/net", network="host")
    assert os.readlink("/proc/self/ns/net") in lines[0]


def test_own_network_has_loopback_only(runtime: SharedRuntime) -> None:
    lines = lines_of(runtime, "cat /proc/self/net/dev")
    devices = {line.partition(":")[0].strip() for line in lines if ":" in line}
    assert devices - {"lo"} <= {
        "tunl0",
        "ip6tnl0",
        "sit0",
        "gre0",
        "gretap0",
        "erspan0",
        "ip_vti0",
        "ip6_vti0",
        "ip6gre0",
    }


def test_missing_network_namespace(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", network={"namespace": "nonexistent"}))
    with runtime.started() as client, pytest.raises(Refused, match="/run/netns/nonexistent"):
        client.start("a:0.0.1")


def test_sockets(runtime: SharedRuntime) -> None:
    """A listening socket is handed over, and its file is gone after the end."""
    sockets = {"control": {"type": "stream", "mode": 0o666}}
    runtime.pack(shell("a", "ls -l /proc/$$/fd/$NORTHSTAR_SOCKET_control; exec sleep 1000", sockets=sockets))
    path = runtime.base / "sockets/a:0.0.1:control"
    with runtime.started() as client:
        client.start("a:0.0.1")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
        status = os.stat(path)
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1000, 0o666)
        client.kill("a:0.0.1")
        wait_for(client, "exit")
        assert not path.exists()


@pytest.mark.covers("console")
def test_console_of_a_container(runtime: SharedRuntime) -> None:
    """The inherited console speaks the protocol with the permissions of the manifest."""
    requests = ['{"connect":{"version":"0.9.2","subscribe_notifications":false}}']
    requests += ['{"request":"ident"}', '{"request":"list"}']
    send = "".join(f"echo '{request}' >&3; " for request in requests)
    script = f"{send} cat <&3 & sleep 2; kill $!; wait; true"
    runtime.pack(shell("a", script, console={"permissions": ["ident"]}))
    with runtime.started() as client:
        _, lines = runtime.run(client, "a:0.0.1")
    text = "\n".join(lines)
    assert '{"connect_ack":null}' in text
    assert '{"response":{"ident":"a:0.0.1"}}' in text
    assert '{"response":{"permission_denied":"list"}}' in text


def test_two_versions_do_not_run_together(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    runtime.pack(shell("a") | {"version": "0.0.2"})
    with runtime.started() as client:
        client.start("a:0.0.1")
        with pytest.raises(Refused) as refused:
            client.start("a:0.0.2")
        assert refused.value.variant == "start_container_started"
        assert refused.value.fields == {"container": "a:0.0.1"}


def test_memory_of_init_is_small(runtime: SharedRuntime) -> None:
    """Not a measurement: just that init is a copy of the engine and not of the daemon."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        rollup = Path(f"/proc/{process.pid}/smaps_rollup")
        if not rollup.exists():
            pytest.skip("the kernel has no smaps_rollup")
        private = sum(
            int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Private")
        )
        assert private < 2000


def test_init_is_in_the_container_and_has_no_privileges(runtime: SharedRuntime) -> None:
    """S-29: pid 1 has the container's root, no capability, and cannot gain any."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        proc = Path(f"/proc/{process.pid}")
        wait_until(lambda: "Seccomp:\t2" in (proc / "status").read_text(), "init has its filter")
        lines = (proc / "status").read_text().splitlines()
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(field(lines, name), 16) == 0
        assert field(lines, "NoNewPrivs") == "1"
        assert field(lines, "Uid").split() == ["1000"] * 4
        assert field(lines, "Groups") == ""
        (application,) = leaks.children(process.pid)
        for namespace in ("mnt", "pid", "ipc", "uts"):
            ours, theirs = (os.readlink(f"/proc/{pid}/ns/{namespace}") for pid in (process.pid, application))
            assert ours == theirs
        assert "busybox" in os.listdir(proc / "root/bin")
        assert len(os.listdir(proc / "fd")) == 4
