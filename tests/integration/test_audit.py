# SPDX-License-Identifier: Apache-2.0
"""Findings of the audit of 2022 (Cure53, ESR-01) that are about containers, tried again."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

import pytest
from abilities import has_ipc_namespaces, has_network_namespaces, needs
from isolated import wait_until
from runtime import Runtime, SharedRuntime, probe, resource, shell, wait_for, with_mounts

from northstar.client import Refused
from northstar.engine import instructions as isa
from northstar.kernel import capabilities

PYTHON = "/usr/bin/python3"
MAX_ARGUMENTS, MAX_LENGTH = 128, 1024


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but the one on a terminal."""
    return shared_runtime


def told(runtime: SharedRuntime, script: str, **fields: Any) -> Any:
    """What a script in Python inside a container prints as JSON."""
    runtime.pack(probe(**fields) | {"init": PYTHON, "args": ["-c", script]})
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, lines
    return json.loads(lines[-1])


# --- 001: arguments of others


@pytest.mark.parametrize(
    "change",
    [{"init": "/bin/true"}, {"arguments": ["x"]}, {"environment": {"A": "b"}}],
    ids=["init", "arguments", "environment"],
)
def test_start_is_no_right_to_choose_what_is_started(runtime: SharedRuntime, change: dict[str, Any]) -> None:
    """ESR-01-001: a container that may start others may not say what they execute."""
    start = {"container": "b:0.0.1", "init": None, "arguments": [], "environment": {}}
    lines = ['{"connect":{"version":"0.9.2","subscribe_notifications":false}}']
    lines += [json.dumps({"request": {"start": {**start, **fields}}}) for fields in (change, {})]
    # The last one is answered after all others.
    script = "".join(f"echo '{line}' >&3; " for line in lines)
    script += "n=0; while test $n -lt 3; do read -r line <&3; echo $line; n=$((n+1)); done"
    runtime.pack(shell("a", script, console={"permissions": ["start"]}))
    runtime.pack(shell("b", "echo $# $A"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        names = ("a:0.0.1", "b:0.0.1")
        # Either may be the first to end.
        assert {wait_for(client, "exit").container for _ in names} == set(names)
        answers = [json.loads(line) for line in runtime.printed("a:0.0.1")]
        assert "permission_denied" in answers[1]["response"]
        assert answers[2] == {"response": {"start": {"ok": {"container": "b:0.0.1"}}}}
        assert runtime.printed("b:0.0.1") == ["0"]


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["-c", "exit 0", *["x"] * (MAX_ARGUMENTS - 2)], {}, None),
        (["-c", "exit 0", *["x"] * (MAX_ARGUMENTS - 2), "y"], {}, "129 arguments and variables together"),
        (["-c", "exit 0", *["x"] * (MAX_ARGUMENTS - 3)], {"A": "", "B": ""}, "at most 128 are allowed"),
        (["-c", "exit 0", "x" * MAX_LENGTH], {}, None),
        (["-c", "exit 0", "x" * (MAX_LENGTH + 1)], {}, "has 1025 bytes, the limit is 1024"),
        (["-c", "exit 0"], {"A": "x" * (MAX_LENGTH - 2)}, None),
        (["-c", "exit 0"], {"A": "x" * (MAX_LENGTH + 1)}, "the limit is 1024"),
        (["-c", "exit 0"], {"": "x"}, "."),
        (["-c", "exit 0"], {"A=B": "x"}, "."),
        (["-c", "exit 0"], {"NORTHSTAR_NAME": "x"}, "reserved key"),
        (["-c", "exit 0"], {"NORTHSTAR_": "x"}, "."),
    ],
    ids=[
        *("many", "too-many", "too-many-with-variables", "long", "too-long"),
        *("long-value", "too-long-value", "no-name", "equals", "reserved", "prefix"),
    ],
)
def test_number_and_length_of_arguments(
    runtime: SharedRuntime, arguments: list[str], environment: dict[str, str], reason: str | None
) -> None:
    """ESR-01-001."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        if reason is None:
            client.start("a:0.0.1", None, arguments, environment)
            assert wait_for(client, "exit", "a:0.0.1").status == (0, None)
            return
        with pytest.raises(Refused, match=reason) as refused:
            client.start("a:0.0.1", None, arguments, environment)
        assert refused.value.variant == "invalid_arguments"
        assert client.inspect("a:0.0.1").process is None


# --- 003: chroot

CLIMB = """
import ctypes, json, os
libc = ctypes.CDLL(None)
seen = []

def look(step):
    seen.append([step, sorted(os.listdir("/")), os.path.exists(OUTSIDE), os.path.exists("." + OUTSIDE)])

def attempt(step, *actions):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        for action in actions:
            action()
    except OSError as error:
        step += f": {error.strerror}"
    look(step)
    os.write(1, json.dumps(seen[-1]).encode() + b"\\n")
    os._exit(0)

def climb():
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")

def double():
    outside = os.open("/", os.O_RDONLY)
    os.mkdir("/tmp/a")
    os.chroot("/tmp/a")
    os.fchdir(outside)
    climb()

def by_descriptor(path):
    os.chdir(path)
    climb()

def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(0, name)
"""
STEPS = """
first = sorted(os.listdir("/"))
attempt("climb", climb)
attempt("double chroot", double)
for path in ("/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/cwd", "/usr", "/dev"):
    attempt(path, lambda: by_descriptor(path))
new = 0x00020000
attempt("detach /", lambda: call("unshare", new), lambda: call("umount2", b"/", 2), climb)
attempt("detach all", lambda: call("unshare", new),
        *(lambda p=p: call("umount2", p, 2) for p in (b"/proc", b"/dev", b"/usr", b"/tmp", b"/")), climb)
attempt("move", lambda: call("mount", b"/", b"/tmp", None, 8192, None), climb)
attempt("bind", lambda: call("mount", b"/", b"/tmp", None, 4096 | 16384, None), lambda: by_descriptor("/tmp"))
print(json.dumps(first))
"""


def test_nothing_but_the_image_is_reached_by_chroot(runtime: SharedRuntime) -> None:
    """ESR-01-003: with all that is needed for the classic ways out."""
    needed = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]
    if capabilities.get()[1] & capabilities.mask(needed) != capabilities.mask(needed):
        pytest.skip(f"the runtime does not have {' and '.join(needed)}")
    outside = runtime.base / "secret"
    outside.write_text("host")
    script = CLIMB.replace("OUTSIDE", repr(str(outside))) + STEPS
    mounts = {"/tmp": {"type": "tmpfs", "size": 65536}}
    fields = {"init": PYTHON, "args": ["-c", script], "capabilities": needed, "mounts": mounts}
    runtime.pack({**probe(**fields), **{key: fields[key] for key in ("init", "args")}})
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, lines
    *attempts, image = [json.loads(line) for line in lines]
    assert {"bin", "unix-sockets", "usr"} <= set(image)
    assert "var" not in image
    assert len(attempts) == 12
    inside = {step: entries for step, entries, *_ in attempts}
    assert not [step for step, _, *found in attempts if any(found)]
    for step, entries in inside.items():
        # /usr and /dev as the root of a process lead up to the image, too.
        assert entries == image, step


def test_only_planned_mounts_with_capabilities(runtime: SharedRuntime) -> None:
    """ESR-01-003: the old tree is not below the new one."""
    script = "import json; print(json.dumps([l.split()[4] for l in open('/proc/self/mountinfo')]))"
    targets = told(runtime, script, capabilities=["CAP_SYS_ADMIN"])
    nodes = {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}
    assert sorted(targets) == sorted({"/", "/proc", "/dev", "/usr", *nodes})


# --- 005: network

CONNECT = """
import json, socket, subprocess
found = []
for family, address in (
    (socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("0.0.0.0", PORT)), (socket.AF_UNIX, "\\0NAME")
):
    with socket.socket(family) as s:
        s.settimeout(20)
        found.append(s.connect_ex(address))
print(json.dumps(found))
"""


@needs(has_network_namespaces)
@pytest.mark.parametrize("lo", ["down", "up"])
def test_listeners_of_the_host_are_out_of_reach(runtime: SharedRuntime, lo: str) -> None:
    """ESR-01-005: on the loopback device, and in the abstract namespace of unix sockets."""
    script, listeners = listening()
    up = "import subprocess; subprocess.run(['/bin/ip', 'link', 'set', 'lo', 'up'], check=True)\n"
    more = {"capabilities": ["CAP_NET_ADMIN"]} if lo == "up" else {}
    try:
        found = told(runtime, (up if lo == "up" else "") + script, **more)
        assert all(found)
        for listener in listeners:
            with pytest.raises(BlockingIOError):
                listener.accept()
        # It is the network that makes the difference.
        assert told(runtime, script, network="host") == [0, 0, 0]
    finally:
        for listener in listeners:
            listener.close()


def listening() -> tuple[str, list[socket.socket]]:
    """Two listeners and a script that connects to them."""
    first, second = socket.socket(), socket.socket(socket.AF_UNIX)
    first.bind(("127.0.0.1", 0))
    name = f"northstar-audit-{os.getpid()}"
    second.bind(f"\0{name}")
    for listener in (first, second):
        listener.listen()
        listener.setblocking(False)
    port = first.getsockname()[1]
    return CONNECT.replace("PORT", str(port)).replace("NAME", name), [first, second]


# --- 006: directories of resources


@pytest.mark.parametrize("directory", ["/../../var", "/files/../../../var", "/..//./../var", "/../var/log"])
def test_parents_in_directories_of_resources(runtime: SharedRuntime, directory: str) -> None:
    """ESR-01-006: the resource is all there is above its directories."""
    runtime.pack(resource("text"))
    source = {"type": "resource", "name": "text", "version": "*", "dir": directory}
    runtime.pack(shell("a", mounts=with_mounts(resource=source)))
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.start("a:0.0.1")
        assert refused.value.variant == "start_container_missing_resource"
        assert client.inspect("a:0.0.1").process is None


def test_parents_that_stay_in_the_resource(runtime: SharedRuntime) -> None:
    """ESR-01-006: above its root there is its root."""
    runtime.pack(resource("text"))
    source = {"type": "resource", "name": "text", "version": "*", "dir": "/../../files/../files"}
    runtime.pack(shell("a", "ls /resource", mounts=with_mounts(resource=source)))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[1] == ["deep"]


# --- 007: IPC

FIND = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
found = []
for result in (libc.shmget(KEY, 0, 0), libc.mq_open(b"/NAME", 0)):
    found.append(0 if result >= 0 else ctypes.get_errno())
print(json.dumps(found))
"""


@needs(has_ipc_namespaces)
def test_objects_of_the_host_are_invisible(runtime: SharedRuntime) -> None:
    """ESR-01-007: a segment of System V and a queue of POSIX, which all of the host can open."""
    libc = ctypes.CDLL(None, use_errno=True)
    key, name = 0x4E530000 | os.getpid() & 0xFFFF, f"northstar-{os.getpid()}"
    script = FIND.replace("KEY", str(key)).replace("NAME", name)
    segment = libc.shmget(key, 4096, 0o1666)
    queue = libc.mq_open(f"/{name}".encode(), os.O_CREAT, 0o666, None)
    try:
        if segment < 0 or queue < 0:
            pytest.skip(f"this machine has no IPC: {os.strerror(ctypes.get_errno())}")
        # The script finds them where they are.
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        assert json.loads(done.stdout) == [0, 0]
        assert told(runtime, script) == [errno.ENOENT, errno.ENOENT]
    finally:
        libc.shmctl(segment, 0, None)
        libc.mq_unlink(f"/{name}".encode())
        if queue >= 0:
            os.close(queue)


# --- 010: terminals

ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
terminal = os.open(sys.argv.pop(1), os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execv(sys.executable, [sys.executable, '-m', 'northstar', *sys.argv[1:]])
"""
TRY_TERMINALS = """
import errno, fcntl, json, os, termios
numbers = [int(name) for name in os.listdir("/proc/self/fd")]
found = {"terminals": [], "pushed": [], "opened": []}
for number in numbers:
    try:
        if os.isatty(number):
            found["terminals"].append(number)
        fcntl.ioctl(number, termios.TIOCSTI, b"x")
        found["pushed"].append(number)
    except OSError as error:
        pass
for path in ("/dev/tty", "/dev/console", "/dev/pts/0", TERMINAL, *(f"/proc/1/fd/{n}" for n in range(3))):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
        found["opened"].append(path)
    except OSError as error:
        found[path] = error.errno
print("RESULT", json.dumps(found))
"""


def test_terminal_of_the_daemon(own_runtime: Runtime) -> None:
    """ESR-01-010: the daemon has one; a container that writes to it cannot push input, nor open it."""
    ours, theirs = pty.openpty()
    terminal = os.ttyname(theirs)
    output: list[bytes] = []
    reader = threading.Thread(target=collect, args=(ours, output))
    own_runtime.command = [sys.executable, "-c", ON_TERMINAL, terminal]
    script = TRY_TERMINALS.replace("TERMINAL", repr(terminal))
    description = probe(io={"stdout": "inherit", "stderr": "inherit"}) | {
        "init": PYTHON,
        "args": ["-c", script],
    }
    own_runtime.pack(description)
    reader.start()
    try:
        with own_runtime.started() as client:
            client.start("a:0.0.1")
            assert wait_for(client, "exit", "a:0.0.1").status == (0, None)
            assert own_runtime.process is not None
            opened = [os.readlink(f"/proc/{own_runtime.process.pid}/fd/{number}") for number in range(3)]
            assert opened == [terminal] * 3
            waiting = fcntl.ioctl(theirs, termios.FIONREAD, b"\0" * 4)
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    (line,) = re.findall(rb"RESULT (.*?)\r?\n", b"".join(output))
    found = json.loads(line)
    assert (found["terminals"], found["pushed"], found["opened"]) == ([], [], [])
    assert found["/dev/tty"] == errno.ENXIO
    assert found[terminal] in (errno.ENOENT, errno.EACCES)
    assert struct.unpack("i", waiting) == (0,)


def collect(terminal: int, output: list[bytes]) -> None:
    """What is written to a terminal, until nobody has its other side."""
    try:
        while chunk := os.read(terminal, 4096):
            output.append(chunk)
    except OSError:
        return


# --- 011: reports

PIDFD_GETFD = 438


def report(kind: str, value: int = 0, step: int = 0) -> bytes:
    """As an init sends it."""
    return isa.REPORT.pack(ord(kind), value, step)


REPORTS: dict[str, list[bytes]] = {
    "zero": [b"\0"],
    "short": [b"X"],
    "almost": [report("X")[:-1]],
    "one byte more": [report("X") + b"\0"],
    "oversized": [b"X" + b"\0" * 4096],
    "huge": [b"X" * 100_000],
    "unknown": [report("?")],
    "running again": [report("R")],
    "failed": [report("F", -1, 0xFFFFFFFF)],
    "failed, and a text": [report("F", 2, 1) + b"\xff\n\x1b" * 100],
    "born": [report("P", 1)],
    "command has ended": [report("W")],
    "stopped": [report("X", 0x137F)],
    "no status": [report("X", -1)],
    "json": [b'{"exit":{"code":0}}'],
    "exit twice": [report("X"), report("X")],
}


def may_take_descriptors() -> str | None:
    """Root over processes that are not dumpable, and the call."""
    wanted = capabilities.mask(("CAP_SYS_PTRACE",))
    return None if capabilities.get()[0] & wanted else "CAP_SYS_PTRACE is missing"


def status_channel(pid: int) -> socket.socket:
    """The very socket by which an init reports, as a hostile init has it: pidfd_getfd(2)."""
    (number,) = (int(name) for name in os.listdir(f"/proc/{pid}/fd") if int(name) > 2)
    process = os.pidfd_open(pid)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, number, 0)
    os.close(process)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    return socket.socket(fileno=descriptor)


def attacked(
    runtime: SharedRuntime, attack: Callable[[socket.socket], object]
) -> tuple[int | None, int | None]:
    """How a container ends whose init reports what `attack` sends; another one lives on."""
    runtime.pack(shell("a"))
    runtime.pack(shell("b"))
    with runtime.started() as client:
        for container in ("b:0.0.1", "a:0.0.1"):
            client.start(container)
        process = client.inspect("a:0.0.1").process
        assert process is not None
        with status_channel(process.pid) as channel:
            attack(channel)
            status = wait_for(client, "exit", "a:0.0.1").status
        assert not os.path.exists(f"/proc/{process.pid}/root/bin")
        assert client.inspect("b:0.0.1").process is not None
        client.start("a:0.0.1")
        assert client.inspect("a:0.0.1").process is not None
    assert status is not None
    return status.code, status.signal


@needs(may_take_descriptors)
@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_a_hostile_init(runtime: SharedRuntime, name: str) -> None:
    """ESR-01-011, S-30: whatever it says is about its own container."""
    code, number = attacked(runtime, lambda channel: [send(channel, data) for data in REPORTS[name]])
    assert (code, number) == ((0, None) if name == "exit twice" else (-1, None))


@needs(may_take_descriptors)
def test_endless_reports(runtime: SharedRuntime) -> None:
    """ESR-01-011, S-30: they end with the container."""

    def flood(channel: socket.socket) -> None:
        while send(channel, os.urandom(64)):
            pass

    assert attacked(runtime, flood) == (-1, None)


@needs(may_take_descriptors)
def test_reports_with_descriptors(runtime: SharedRuntime) -> None:
    """ESR-01-011, S-30: the daemon does not take them."""
    assert runtime.process is not None
    before = len(os.listdir(f"/proc/{runtime.process.pid}/fd"))
    with open("/dev/null", "rb") as file:
        rights = struct.pack("20i", *[file.fileno()] * 20)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        assert attacked(runtime, lambda channel: channel.sendmsg([b"?????"], ancillary)) == (-1, None)
    wait_until(lambda: len(os.listdir(f"/proc/{runtime.process.pid}/fd")) <= before, "all are closed")  # type: ignore[union-attr]


def send(channel: socket.socket, data: bytes) -> bool:
    """False if nobody listens any more."""
    try:
        channel.send(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
