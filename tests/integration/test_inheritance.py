# SPDX-License-Identifier: Apache-2.0
"""Whoever starts the daemon, and however: it makes no difference to it or its containers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import leaks
import pytest
from abilities import has_sys_resource, needs
from isolated import wait_until
from runtime import Runtime, shell, wait_for, with_mounts

from northstar.client import Client

# Sets every attribute that survives fork and execve (fork(2), execve(2), prctl(2)) and becomes the daemon.
STARTER = """
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
prctl = libc.prctl
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
os.umask(0o777)
for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
signal.setitimer(signal.ITIMER_REAL, 2)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
signal.setitimer(signal.ITIMER_PROF, 0.2)
os.nice(15)
libc.syscall({ioprio_set}, 1, 0, 3 << 13)  # idle
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
libc.personality(0x0040000 | 0x0400000)  # ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC
prctl(29, 1_000_000_000, 0, 0, 0)  # timer slack
prctl(36, 1, 0, 0, 0)  # child subreaper
prctl(41, 1, 0, 0, 0)  # no transparent huge pages
prctl(33, 1, 1, 0, 0)  # memory failures
prctl(57, 1, 0, 0, 0)  # I/O flusher
prctl(67, 1, 0, 0, 0)  # pages are merged
prctl(28, 1 << 6, 0, 0, 0)  # SECBIT_NO_CAP_AMBIENT_RAISE
libc.syscall({add_key}, b"user", b"northstar-starter", b"secret", 6, -3)
for path, text in (("oom_score_adj", "{oom_score_adj}"), ("coredump_filter", "0x1")):
    with open("/proc/self/" + path, "w") as file:
        file.write(text)
limits = dict(CPU=600, FSIZE=1 << 30, DATA=1 << 31, STACK=1 << 21, AS=1 << 33, NPROC=900, MEMLOCK=0,
              SIGPENDING=9, MSGQUEUE=1, NICE=0, RTPRIO=0)
for name, limit in limits.items():
    number = getattr(resource, "RLIMIT_" + name)
    resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
for number in range({first_closed}, 3):
    os.close(number)
for number in range(3, 40):
    os.open("/etc/passwd", os.O_RDONLY) if number % 2 else os.open("/", os.O_PATH)
for number in range(3, 60):
    try:
        os.set_inheritable(number, True)
    except OSError:
        pass
environment = {{name: os.environ[name] for name in ("PYTHONPATH", "HOME", "PATH") if name in os.environ}}
environment |= dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")  # ASCII is all it knows
environment |= dict(TMPDIR="/nonexistent", NOTIFY_SOCKET="/nonexistent", LISTEN_FDS="3", A="b")
os.execve(sys.executable, [sys.executable, "-m", "northstar", *sys.argv[2:]], environment)
"""
X86_64 = os.uname().machine == "x86_64"
IOPRIO_GET, IOPRIO_SET, ADD_KEY = (252, 251, 248) if X86_64 else (31, 30, 217)

PF_IO_FLUSHER = 0x00180000
"""PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE (linux/sched.h)."""

STATUS = (
    *("Umask", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "THP_enabled", "Cpus_allowed_list", "Mems_allowed_list"),
)
KEPT = ("nice", "ioprio", "Cpus_allowed_list", "cwd")
"""What a service manager may set for the daemon itself."""


def status(pid: int) -> dict[str, str]:
    pairs = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def attributes(pid: int) -> dict[str, Any]:
    """What a process could have inherited."""
    found: dict[str, Any] = {name: value for name, value in status(pid).items() if name in STATUS}
    for name in ("limits", "personality", "timerslack_ns", "coredump_filter", "oom_score_adj"):
        with contextlib.suppress(FileNotFoundError):
            found[name] = Path(f"/proc/{pid}/{name}").read_text()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    found["waits for memory"] = not int(fields[6]) & PF_IO_FLUSHER
    found["nice"], found["rt_priority"], found["policy"] = fields[16], fields[37], fields[38]
    found["ioprio"] = ctypes.CDLL(None).syscall(IOPRIO_GET, 1, pid) >> 13
    found["cwd"] = os.readlink(f"/proc/{pid}/cwd")
    return found


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def seen(client: Client) -> list[dict[str, Any]]:
    """Attributes of the container's init and application, and of what the application has written."""
    process = client.inspect("a:0.0.1").process
    assert process is not None
    (application,) = leaks.children(process.pid)
    environment = Path(f"/proc/{application}/environ").read_bytes().split(b"\0")
    descriptors = [re.sub("[0-9]+", "N", target) for target in sorted(leaks.descriptors(application))]
    return [
        attributes(process.pid),
        attributes(application),
        {"environment": sorted(environment), "descriptors": descriptors},
    ]


def manifest() -> dict[str, Any]:
    sockets = {"s": {"type": "stream", "mode": 0o666}}
    missing = {"type": "bind", "host": "/日本"}
    mounts = with_mounts(data={"type": "persist"}, tmp=missing, **{"unix-sockets": {"type": "sockets"}})
    script = "umask; echo grüße $WORD; stat -c '%A %u:%g %n' /data /unix-sockets/*; exec sleep 1000"
    return shell("a", script, sockets=sockets, mounts=mounts, env={"WORD": "日本"})


def run_once(runtime: Runtime) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """Attributes of the container's processes and of the daemon, and what the container printed."""
    runtime.forget_log()
    runtime.start()
    with runtime.connect(notifications=True) as client:
        client.start("a:0.0.1")
        wait_until(lambda: len(runtime.printed("a:0.0.1")) == 4, "the container has printed four lines")
        assert runtime.process is not None
        found = seen(client), attributes(runtime.process.pid), runtime.printed("a:0.0.1")
        socket_file = next((runtime.base / "sockets").glob("a:*"))
        assert stat.S_IMODE(socket_file.stat().st_mode) == 0o666
        assert stat.S_IMODE((runtime.base / "sockets").stat().st_mode) == 0o755
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
    assert runtime.stop() == 0
    return found


@pytest.fixture
def prepared(runtime: Runtime) -> Runtime:
    runtime.pack(manifest())
    return runtime


def hostile(runtime: Runtime, first_closed: int = 3) -> list[str]:
    """A command that starts the daemon with everything that a process can inherit."""
    directory = runtime.base / "gone"
    directory.mkdir()
    # Without CAP_SYS_RESOURCE nobody can lower it again.
    score = 500 if has_sys_resource() is None else Path("/proc/self/oom_score_adj").read_text().strip()
    starter = STARTER.format(
        ioprio_set=IOPRIO_SET, add_key=ADD_KEY, first_closed=first_closed, oom_score_adj=score
    )
    return [sys.executable, "-c", starter, str(directory)]


def test_containers_and_daemon_are_the_same_whoever_starts_it(prepared: Runtime) -> None:
    """S-31, S-66."""
    containers, daemon, printed = run_once(prepared)
    (prepared.base / "sockets").rmdir()
    prepared.command = hostile(prepared)
    other_containers, other_daemon, other_printed = run_once(prepared)
    for one, other in zip(containers, other_containers, strict=True):
        assert other == one
    assert other_printed == printed
    assert without(other_daemon, *KEPT, "SigCgt") == without(daemon, *KEPT, "SigCgt")


def test_timers_and_signals_of_the_starter(prepared: Runtime) -> None:
    """They neither end the daemon nor keep it from ending."""
    prepared.command = hostile(prepared)
    prepared.start()
    time.sleep(2.5)
    with prepared.connect() as client:
        assert client.list() == ["a:0.0.1"]
    assert prepared.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("first_closed", [0, 2])
def test_standard_streams_that_are_closed(prepared: Runtime, first_closed: int) -> None:
    """Nothing that the daemon opens takes their place, or what it says would be written there."""
    prepared.command = hostile(prepared, first_closed)
    prepared.start()
    assert prepared.process is not None
    for number in range(first_closed, 3):
        assert os.readlink(f"/proc/{prepared.process.pid}/fd/{number}") == "/dev/null"
    with prepared.connect(notifications=True) as client:
        client.start("a:0.0.1")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
    assert prepared.stop() == 0


def test_daemon_adopts_nobody(prepared: Runtime) -> None:
    """A starter may have been a subreaper: orphans would be the daemon's, and nobody would wait for them."""
    prepared.command = ["sh", "-c", '(sleep 0.2 & ) ; exec "$@"', "sh", *hostile(prepared)]
    prepared.start()
    assert prepared.process is not None
    time.sleep(0.5)
    states = [status(pid)["State"] for pid in leaks.children(prepared.process.pid)]
    assert not [state for state in states if state.startswith("Z")]
    assert prepared.stop() == 0


BACKGROUND = """
import fcntl, os, signal, sys, termios
os.setsid()
master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
attributes = termios.tcgetattr(slave)
attributes[3] |= termios.TOSTOP
termios.tcsetattr(slave, termios.TCSANOW, attributes)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.dup2(slave, 1)
    os.dup2(slave, 2)
    os.execv(sys.executable, [sys.executable, "-m", "northstar", *sys.argv[1:]])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
status = os.waitpid(pid, os.WUNTRACED)[1]
if os.WIFSTOPPED(status):
    os.kill(pid, signal.SIGKILL)
    sys.exit("stopped")
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A shell with job control, which has the daemon in the background of its terminal and nobody reads that."""


def test_in_the_background_of_a_terminal(prepared: Runtime) -> None:
    """It is not stopped for writing there, nor are containers."""
    prepared.command = [sys.executable, "-c", BACKGROUND]
    prepared.start()
    with prepared.connect(notifications=True) as client:
        for _ in range(20):
            client.start("a:0.0.1")
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
    assert prepared.stop() == 0


def limits_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:25].strip(): line[25:] for line in lines if not re.match("Max (open|core) file", line)}


@needs(has_sys_resource)
def test_limits_are_those_of_init(prepared: Runtime) -> None:
    """Whatever the starter had, as all services begin with them."""
    prepared.command = hostile(prepared)
    prepared.start()
    with prepared.connect() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        (application,) = leaks.children(process.pid)
        assert limits_of(application) == limits_of(1)
    assert prepared.stop() == 0
