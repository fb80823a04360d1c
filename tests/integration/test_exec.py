# SPDX-License-Identifier: Apache-2.0
"""Commands inside running containers: the request `exec`, and `nstar exec`."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from abilities import has_cgroup1_controllers, has_keyrings, needs
from isolated import wait_until
from leaks import children, name_of
from runtime import TIMEOUT, Runtime, SharedRuntime, environment, probe, shell, wait_for
from test_containers import field
from test_hardening import engine_of

from northstar.client import Client, ExitStatus, PermissionDenied, Refused
from northstar.kernel import capabilities, cgroup

A = "a:0.0.1"
SYSTEM_CALLS = {"profile": "default"}


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


@contextmanager
def running(runtime: SharedRuntime, script: str = "sleep 1000", **fields: Any) -> Iterator[Client]:
    """A container `a` runs."""
    runtime.pack(shell("a", script, **fields))
    with runtime.started() as client:
        client.start(A)
        yield client


class Command:
    """A command in the container `a`, its output in a pipe."""

    def __init__(self, runtime: Runtime, *command: str, **variables: str) -> None:
        reader, writer = os.pipe()
        self.output = os.fdopen(reader, encoding="utf-8", errors="replace")
        self.client = runtime.connect()
        with open(os.devnull, encoding="ascii") as null, open(writer, "wb") as end:
            try:
                self.client.execute(A, command, variables, [null.fileno(), end.fileno(), end.fileno()])
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self.output.close()
        self.client.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(runtime: Runtime, *command: str, **variables: str) -> tuple[ExitStatus, list[str]]:
    """How a command in the container ends, and the lines that it writes."""
    with Command(runtime, *command, **variables) as started:
        lines = started.output.read().splitlines()
        return started.client.exit_status(), lines


def lines_of(runtime: Runtime, *command: str, **variables: str) -> list[str]:
    """What a command writes; it must end with 0."""
    status, lines = run(runtime, *command, **variables)
    assert status.success, (status, lines)
    return lines


def supervisors(runtime: SharedRuntime) -> list[int]:
    """Pids of the sessions' supervisors."""
    return [pid for pid in children(engine_of(runtime)) if name_of(pid) == "northstar-exec"]


def application_of(client: Client) -> int:
    """Pid of the container's application."""
    process = client.inspect(A).process
    assert process is not None
    return min(children(process.pid))


def namespaces_of(pid: int) -> dict[str, str]:
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}


# --- what the command is


def test_rights_are_those_of_the_application(runtime: SharedRuntime) -> None:
    """S-31, S-35, S-36: status and limits read the same."""
    granted = [n for n in ("CAP_KILL", "CAP_NET_RAW") if capabilities.get()[1] & capabilities.mask((n,))]
    own = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    own += ("SigBlk", "SigIgn", "SigCgt")
    fields = {
        "capabilities": granted,
        "seccomp": SYSTEM_CALLS,
        "rlimits": {"nofile": {"soft": 50, "hard": 60}},
    }
    script = "cat /proc/self/status /proc/self/limits; echo done; sleep 1000"
    with running(runtime, script, uid=1234, gid=2345, **fields):
        wait_until(lambda: "done" in runtime.printed(A), "the application has told who it is")
        theirs = runtime.printed(A)
        lines = lines_of(runtime, "cat", "/proc/self/status", "/proc/self/limits")
    assert field(lines, "Uid").split() == ["1234"] * 4
    assert {name: field(lines, name) for name in own} == {name: field(theirs, name) for name in own}
    limits = [line.split() for line in lines if line.startswith("Max ")]
    assert limits == [line.split() for line in theirs if line.startswith("Max ")]


@pytest.mark.parametrize("network", [None, "host"])
def test_namespaces_are_those_of_the_application(runtime: SharedRuntime, network: str | None) -> None:
    fields = {"network": network} if network else {}
    with running(runtime, **fields) as client, Command(runtime, "sleep", "1000"):
        (supervisor,) = supervisors(runtime)
        (command,) = children(supervisor)
        expected = namespaces_of(application_of(client))
        found = namespaces_of(command)
        host = namespaces_of(os.getpid())
    # Two control group namespaces with the same root are the same for those who are in them.
    assert found.pop("cgroup") != host["cgroup"]
    del expected["cgroup"]
    assert found == expected
    assert (found["net"] == host["net"]) == (network == "host")


def test_place_and_environment(runtime: SharedRuntime) -> None:
    with running(runtime, env={"A": "1", "B": "2"}):
        lines = lines_of(runtime, "sh", "-c", "pwd; ls /; env", B="3", C="4")
    assert lines[0] == "/"
    assert "unix-sockets" in lines
    assert {"A=1", "B=3", "C=4", f"NORTHSTAR_CONTAINER={A}"} <= set(lines)


def test_descriptors(runtime: SharedRuntime) -> None:
    """S-27: 3 is the directory that ls reads."""
    with running(runtime):
        assert lines_of(runtime, "/bin/ls", "/proc/self/fd") == ["0", "1", "2", "3"]


def test_session_without_terminal(runtime: SharedRuntime) -> None:
    """S-27: nothing of the host's terminals."""
    with running(runtime):
        lines = lines_of(
            runtime, "sh", "-c", "cat /proc/$$/stat; (echo x > /dev/tty) 2>/dev/null && echo open; true"
        )
    pid, _, (_, _, group, session, terminal, *_) = (
        lines[0].split()[0],
        0,
        lines[0].rpartition(")")[2].split(),
    )
    assert (group, session, terminal) == (pid, pid, "0")
    assert "open" not in lines


@needs(has_keyrings)
def test_session_keyring_is_not_the_host_s(runtime: SharedRuntime) -> None:
    """S-41."""
    keyctl, get_keyring_id, session = {"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3
    runtime.pack(probe("sleep"))
    with runtime.started() as client:
        client.start(A)
        call = ("/test-container", "syscall", str(keyctl), str(get_keyring_id), str(session), "0")
        with Command(runtime, *call) as command:
            line = next(line for line in command.output if "returned" in line)
    theirs = int(line.split()[-1])
    assert theirs not in (-1, ctypes.CDLL(None).syscall(keyctl, get_keyring_id, session, 0))


def test_control_group(runtime: SharedRuntime) -> None:
    """S-43."""
    if cgroup.detect().mode != cgroup.V2:
        pytest.skip("control groups are not those of version 2")
    with (
        running(runtime) as client,
        Command(runtime, "sh", "-c", "busybox grep ^0: /proc/self/cgroup; sleep 1000") as command,
    ):
        assert command.output.readline() == "0::/\n"
        (pid,) = children(supervisors(runtime)[0])
        groups = [Path(f"/proc/{p}/cgroup").read_text() for p in (pid, application_of(client))]
        assert groups[0] == groups[1] != Path("/proc/self/cgroup").read_text()


@needs(has_cgroup1_controllers)
def test_control_groups_of_version_1(runtime: SharedRuntime) -> None:
    """S-43."""
    cgroups = {"cpu": {"shares": 512}, "pids": {"max": 50}}
    with running(runtime, cgroups=cgroups) as client, Command(runtime, "sleep", "1000"):
        (pid,) = children(supervisors(runtime)[0])
        groups = [Path(f"/proc/{p}/cgroup").read_text() for p in (pid, application_of(client))]
        assert groups[0] == groups[1] != Path("/proc/self/cgroup").read_text()


# --- how it ends


def test_exit_codes(runtime: SharedRuntime) -> None:
    with running(runtime, seccomp=SYSTEM_CALLS):
        assert run(runtime, "true") == ((0, None), [])
        assert run(runtime, "sh", "-c", "exit 77")[0] == (77, None)
        assert run(runtime, "sh", "-c", "kill -9 $$")[0] == (None, signal.SIGKILL)
        # S-36: the filter.
        assert run(runtime, "hostname", "x")[0] == (None, signal.SIGSYS)
        assert supervisors(runtime) == []


def test_refusals(runtime: SharedRuntime) -> None:
    """S-38: with the step and the cause; nothing is left."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        for container in (A, "b:0.0.1"):
            with pytest.raises(Refused, match=r"not running|invalid container"):
                client.execute(container, ["true"], {}, [0, 1, 2])
        client.start(A)
        with pytest.raises(Refused, match=r"execute /nope.*No such file"):
            run(runtime, "/nope")
        with pytest.raises(Refused, match=r"execute nope.*No such file"):
            run(runtime, "nope")
        with pytest.raises(Refused, match=r"execute /data.*Permission denied"):
            run(runtime, "/data")
        with pytest.raises(Refused, match=r"NORTHSTAR_NAME"):
            run(runtime, "true", NORTHSTAR_NAME="x")
        with pytest.raises(Refused, match=r"needs a command"):
            run(runtime)
        assert supervisors(runtime) == []
        assert run(runtime, "true")[0].success


def test_descriptors_that_lead_out_are_refused(runtime: SharedRuntime) -> None:
    """S-27: directories, and terminals that are not the command's own."""
    master, slave = os.openpty()
    with running(runtime) as client, open(os.devnull, "r+b") as null:
        descriptors = {
            os.open("/", os.O_RDONLY): "directory",
            os.open("/bin/sh", os.O_PATH): "no open file",
            slave: "terminal",
        }
        for descriptor, reason in descriptors.items():
            with pytest.raises(Refused, match=reason):
                client.execute(A, ["true"], {}, [null.fileno(), null.fileno(), descriptor])
            os.close(descriptor)
        for count in (0, 1, 2):
            with pytest.raises(Refused, match="three descriptors"):
                client.execute(A, ["true"], {}, [null.fileno()] * count)
        with pytest.raises(Refused, match="no terminal"):
            client.execute(A, ["true"], {}, [null.fileno()] * 3, terminal=True)
        client.execute(A, ["true"], {}, [null.fileno()] * 3)
        assert client.exit_status().success
    os.close(master)


@pytest.mark.parametrize("number", [1, 2])
def test_a_second_terminal_is_refused(runtime: SharedRuntime, number: int) -> None:
    """S-27: the command has one, and no other of the host under any number."""
    (master, own), (other_master, other) = os.openpty(), os.openpty()
    again = os.open(os.ttyname(own), os.O_RDWR | os.O_NOCTTY)
    with running(runtime) as client:
        descriptors = [own, again, own]
        descriptors[number] = other
        with pytest.raises(Refused, match=f"descriptor {number} of the command is a terminal of the host"):
            client.execute(A, ["true"], {}, descriptors, terminal=True)
        client.execute(A, ["true"], {}, [own, again, own], terminal=True)
        assert client.exit_status().success
    for descriptor in (master, own, other_master, other, again):
        os.close(descriptor)


def test_terminal_of_somebody_else(runtime: SharedRuntime) -> None:
    """S-27: whose controlling terminal it is keeps it."""
    master, slave = os.openpty()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        os.login_tty(os.dup(slave))
        theirs.send(b"ready")
        theirs.recv(1)
        os._exit(0)
    assert ours.recv(5) == b"ready"
    with running(runtime) as client, pytest.raises(Refused, match="controlling"):
        client.execute(A, ["true"], {}, [slave] * 3, terminal=True)
    ours.send(b"x")
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()
    os.close(master)
    os.close(slave)


def test_end_of_the_container_ends_the_command(runtime: SharedRuntime) -> None:
    with running(runtime) as client, Command(runtime, "sleep", "1000") as command:
        client.kill(A, signal.SIGKILL)
        assert command.client.exit_status() == (None, signal.SIGKILL)
        wait_for(client, "exit", A)
        assert supervisors(runtime) == []


@pytest.mark.parametrize("script", ["echo up; sleep 1000", "trap '' HUP; echo up; sleep 1000 & sleep 1000"])
def test_end_of_the_client_ends_the_command(runtime: SharedRuntime, script: str) -> None:
    """SIGHUP, and SIGKILL for those who ignore it."""
    with running(runtime) as client:
        with Command(runtime, "sh", "-c", script) as command:
            assert command.output.readline() == "up\n"
        wait_until(lambda: supervisors(runtime) == [], "the supervisor has ended")
        process = client.inspect(A).process
        assert process is not None
        wait_until(lambda: len(children(process.pid)) == 1, "only the application is left")


def test_requests_after_the_end(runtime: SharedRuntime) -> None:
    """The connection is good for more; bytes while the command runs are none of the protocol."""
    with running(runtime) as client, open(os.devnull, "r+b") as null:
        for _ in range(2):
            client.execute(A, ["true"], {}, [null.fileno()] * 3)
            assert client.exit_status().success
            assert client.list() == [A]
        with Command(runtime, "sleep", "1000") as command:
            socket.socket(fileno=os.dup(command.client.fileno())).sendall(b'{"request":"list"}\n')
            assert command.output.read() == ""


def test_many_at_once(runtime: SharedRuntime) -> None:
    with running(runtime):
        commands = [Command(runtime, "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]
        for number, command in enumerate(commands):
            with command:
                assert command.output.read() == f"{number}\n"
                assert command.client.exit_status() == (number, None)
        assert supervisors(runtime) == []


def test_shutdown_with_a_command(own_runtime: Runtime) -> None:
    """Nothing is left, and the client hears of it."""
    own_runtime.pack(shell("a"))
    own_runtime.start()
    with own_runtime.connect() as client:
        client.start(A)
        with Command(own_runtime, "sh", "-c", "trap '' HUP TERM; sleep 1000") as command:
            assert own_runtime.stop() == 0
            assert command.output.read() == ""


# --- who may


def test_permission_is_not_part_of_full(own_runtime: Runtime) -> None:
    text = own_runtime.config.read_text()
    own_runtime.config.write_text(text.replace('["full", "exec"]', '"full"'))
    own_runtime.pack(shell("a"))
    own_runtime.start()
    with own_runtime.connect() as client:
        client.start(A)
        with pytest.raises(PermissionDenied, match="exec"):
            run(own_runtime, "true")
        assert client.list() == [A]


def test_console_of_a_container_has_no_exec(runtime: SharedRuntime) -> None:
    """Not even with all permissions, and the manifest cannot name this one."""
    request = {"container": A, "command": ["true"], "environment": {}, "terminal": False}
    text = '{"request":{"exec":' + str(request).replace("'", '"').replace("False", "false") + "}}"
    connect = '{"connect":{"version":"0.9.2","subscribe_notifications":false}}'
    script = f"echo '{connect}' >&3; echo '{text}' >&3; read a <&3; read b <&3; echo $b; sleep 1000"
    with running(runtime, script, console={"permissions": "full"}):
        runtime.wait_for_log('"permission_denied":{"exec"')


def test_tcp_is_refused(runtime: SharedRuntime, tmp_path: Path) -> None:
    """By `northstar --check`, and by nstar before it connects."""
    config = tmp_path / "northstar.toml"
    config.write_text(runtime.config.read_text().replace(runtime.url, "tcp://localhost:4200"))
    check = subprocess.run(
        [*runtime.command, "--check", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=environment(),
    )
    assert "console.global.permissions: exec needs a unix socket" in check.stdout


def test_nstar_refuses_tcp(own_runtime: Runtime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    text = own_runtime.config.read_text().replace(own_runtime.url, url)
    own_runtime.config.write_text(text.replace('["full", "exec"]', '"full"'))
    own_runtime.url = url
    own_runtime.start()
    done = nstar_exec(url, "a", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "exec needs a unix socket" in done.stderr


# --- nstar exec


def nstar_exec(url: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "northstar.nstar.cli", "-u", url, "exec", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment(), **options
    )


class Typist:
    """`nstar exec` on a terminal of its own."""

    def __init__(self, runtime: SharedRuntime, *arguments: str) -> None:
        command = [sys.executable, "-m", "northstar.nstar.cli", "-u", runtime.url, "exec", *arguments]
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (33, 77))
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment() | {"TERM": "vt52"},
            start_new_session=True,
        )
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Read until `text` has appeared; forget all up to it."""
        while text not in self.seen:
            readable, _, _ = select.select([self.master], [], [], TIMEOUT)
            assert readable, f"{text!r} does not appear: {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def restored(self) -> bool:
        """Whether the terminal is as before."""
        return termios.tcgetattr(self.slave) == self.before

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_nstar_with_redirected_streams(runtime: SharedRuntime) -> None:
    """Streams and exit codes pass through."""
    script = "cat; echo problem >&2; test -t 0 && echo terminal; exit 5"
    with running(runtime):
        done = nstar_exec(runtime.url, "a", "sh", "-c", script, input="text\n")
        assert (done.returncode, done.stdout, done.stderr) == (5, "text\n", "problem\n")
        done = nstar_exec(runtime.url, "-e", "X=y z", A, "sh", "-c", 'echo "$X"; kill -15 $$')
        assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "y z\n")
        done = nstar_exec(runtime.url, "a", "/nope")
        assert done.returncode == 3
        assert "execute /nope: No such file" in done.stderr


def test_nstar_on_a_terminal(runtime: SharedRuntime) -> None:
    """The command has a terminal, with its size and its signals."""
    script = (
        "echo $TERM; busybox stty size; trap 'busybox stty size' WINCH; echo ready; read line; echo got $line"
    )
    with running(runtime):
        with Typist(runtime, "a", "sh", "-c", script + "; sleep 1000") as typist:
            typist.expect("vt52")
            typist.expect("33 77")
            typist.expect("ready")
            assert not typist.restored()
            typist.type("this\r")
            typist.expect("got this")
            typist.type("\x03")
            assert typist.process.wait(TIMEOUT) == 128 + signal.SIGINT
            assert typist.restored()
        with Typist(
            runtime, "a", "sh", "-c", "trap 'busybox stty size' WINCH; echo up; while :; do read x; done"
        ) as typist:
            typist.expect("up")
            termios.tcsetwinsize(typist.slave, (44, 88))
            typist.process.send_signal(signal.SIGWINCH)
            typist.expect("44 88")
            typist.process.terminate()
            assert typist.process.wait(TIMEOUT) == 128 + signal.SIGTERM
            assert typist.restored()
        wait_until(lambda: supervisors(runtime) == [], "the supervisor has ended")


def test_nstar_is_killed(runtime: SharedRuntime) -> None:
    script = "trap '' HUP; echo up; while :; do sleep 1; done"
    with running(runtime), Typist(runtime, "a", "sh", "-c", script) as typist:
        typist.expect("up")
        assert len(supervisors(runtime)) == 1
        typist.process.kill()
        wait_until(lambda: supervisors(runtime) == [], "the supervisor has ended")


def test_terminal_of_nstar_is_out_of_reach(runtime: SharedRuntime) -> None:
    """S-27: with -T the command gets pipes, although nstar is on a terminal."""
    with (
        running(runtime),
        Typist(runtime, "-T", "a", "sh", "-c", "test -t 0 || echo pipe; cat; exit 9") as typist,
    ):
        typist.expect("pipe")
        typist.type("hello\n")
        typist.expect("hello\r\nhello")
        typist.type("\x04")
        assert typist.process.wait(TIMEOUT) == 9


# --- what a hostile container tries

WATCH = """
for p in /proc/[0-9]*; do
    busybox grep CapEff $p/status | busybox grep -v {mask}
    busybox grep Uid $p/status | busybox grep -v 1000.1000.1000.1000
    busybox grep NoNewPrivs $p/status | busybox grep -v 1
    ls -l $p/fd | busybox grep ':[[]' | busybox grep -v -e socket: -e pipe:
    (echo x >> $p/exe) && echo opened $p
done 2>/dev/null
"""


def test_nothing_is_worth_taking_over(runtime: SharedRuntime) -> None:
    """S-27, S-28, S-29: not even for a container that may trace everything that it sees."""
    granted = ["CAP_SYS_PTRACE"]
    mask = capabilities.mask(granted)
    if not capabilities.get()[1] & mask:
        pytest.skip("the runtime does not have CAP_SYS_PTRACE")
    interpreter = Path(os.path.realpath(sys.executable))
    before = interpreter.stat().st_mtime_ns
    watch = WATCH.format(mask=f"-e {mask:016x} -e {0:016x}")
    with running(runtime, f"while :; do {watch} done", capabilities=granted):
        for _ in range(20):
            assert run(runtime, "true")[0].success
        assert runtime.printed(A) == []
    assert interpreter.stat().st_mtime_ns == before
