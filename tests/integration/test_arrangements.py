# SPDX-License-Identifier: Apache-2.0
"""Every way in which an application can arrange its processes, against kill, stop and its own end.

A signal reaches the application wherever it is; its end is that of all its processes; the exit status is its.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from isolated import wait_until
from leaks import children
from runtime import Runtime, SharedRuntime, nstar, shell, wait_for, with_mounts

from northstar.client import Client
from northstar.kernel import procfs

pytestmark = pytest.mark.anywhere

A = "a:0.0.1"
TERMINATED, SURVIVED = 3, 4

# What all begin with. `ready` says that everything is arranged; SIGTERM ends the application in order.
HEAD = f"""
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def on_term(*_):
    os.write(1, b"terminated\\n")
    os._exit({TERMINATED})

def ready():
    os.write(1, b"ready\\n")

def wait():
    while True:
        signal.pause()

def child(action):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        action()
        wait()
    return pid

def deaf():
    for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP}}:
        signal.signal(number, signal.SIG_IGN)

signal.signal(signal.SIGTERM, on_term)
"""

ORDERLY = {
    "alone": "ready(); wait()",
    "in a session of its own": "os.setsid(); ready(); wait()",
    "in a group of its own": "os.setpgid(0, 0); ready(); wait()",
    "in the group of a child": """
pid = child(lambda: None)
os.setpgid(pid, pid)
os.setpgid(0, pid)
ready(); wait()
""",
    "stopped": "ready(); os.kill(os.getpid(), signal.SIGSTOP); wait()",
    "stopped in a session of its own": "os.setsid(); ready(); os.kill(os.getpid(), signal.SIGSTOP); wait()",
    "with children that ignore everything": "[child(deaf) for _ in range(3)]; ready(); wait()",
    "with children in sessions of their own": "[child(os.setsid) for _ in range(3)]; ready(); wait()",
    "with stopped children": """
pids = [child(lambda: None) for _ in range(3)]
[os.kill(pid, signal.SIGSTOP) for pid in pids]
ready(); wait()
""",
    "with daemons": """
def daemon():
    os.setsid()
    if os.fork():
        os._exit(0)
for _ in range(3):
    os.waitpid(child(daemon), 0)
ready(); wait()
""",
    "with a deep tree": """
def deeper(level=0):
    os.setsid()
    if level < 20 and os.fork() == 0:
        deeper(level + 1)
child(deeper)
ready(); wait()
""",
    "with children that nobody waits for": "[child(lambda: os._exit(0)) for _ in range(5)]; ready(); wait()",
    "SIGCHLD ignored": """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child(lambda: os._exit(0)); ready(); wait()
""",
    "SIGCHLD blocked": """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
child(lambda: os._exit(0)); ready(); wait()
""",
    "reaping like an init": """
libc.prctl(36, 1, 0, 0, 0)
def orphan():
    if os.fork():
        os._exit(0)
child(orphan)
def on_child(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
signal.signal(signal.SIGCHLD, on_child)
ready(); wait()
""",
    "having killed all others": "child(lambda: None); os.kill(-1, signal.SIGKILL); ready(); wait()",
    "having tried to end init": """
for number in signal.valid_signals():
    os.kill(1, number)
ready(); wait()
""",
    "having signalled its group": """
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.killpg(0, signal.SIGUSR1); os.killpg(0, signal.SIGCHLD); os.killpg(0, signal.SIGWINCH)
ready(); wait()
""",
    "another program": """
if len(sys.argv) < 2:
    os.execv(sys.executable, [sys.executable, "-c", os.environ["SOURCE"], "again"])
ready(); wait()
""",
    "another program of a second thread": """
if len(sys.argv) < 2:
    def execute():
        os.execv(sys.executable, [sys.executable, "-c", os.environ["SOURCE"], "again"])
    threading.Thread(target=execute).start()
    wait()
ready(); wait()
""",
}
"""Each ends by SIGTERM, in its own way."""

DEAF = {
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); wait()",
    "ignores SIGTERM in a session of its own": "os.setsid(); deaf(); ready(); wait()",
    "has blocked SIGTERM": """
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
ready(); wait()
""",
    "does not end by it": "signal.signal(signal.SIGTERM, lambda *_: None); ready(); wait()",
    "stops again and again": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCONT, lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
ready(); os.kill(os.getpid(), signal.SIGSTOP); wait()
""",
    "has traced children": """
def traced():
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
pid = child(traced)
os.waitpid(pid, os.WUNTRACED)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready(); wait()
""",
}
"""Only SIGKILL ends these."""

ENDS = {
    "at once": "os._exit(5)",
    "with children that ignore everything": "[child(deaf) for _ in range(3)]; time.sleep(0.1); os._exit(5)",
    "as a daemon does": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        wait()
    os._exit(0)
os._exit(5)
""",
    "with stopped children": """
pids = [child(lambda: None) for _ in range(3)]
[os.kill(pid, signal.SIGSTOP) for pid in pids]
os._exit(5)
""",
    "in a session of its own": "os.setsid(); os._exit(5)",
    "while a child holds its output": "child(lambda: None); os.write(1, b'last words\\n'); os._exit(5)",
    "with zombies": "[child(lambda: os._exit(0)) for _ in range(50)]; time.sleep(0.2); os._exit(5)",
}


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def manifest(source: str) -> dict[str, Any]:
    usr = {"type": "bind", "host": "/usr", "options": "nosuid,nodev"}
    return {
        **shell("a"),
        "init": "/usr/bin/python3",
        "args": ["-c", HEAD + source],
        "env": {"SOURCE": HEAD + source},
        "mounts": with_mounts(usr=usr),
    }


@contextmanager
def running(runtime: SharedRuntime, source: str) -> Iterator[Client]:
    """The application has arranged everything; afterwards nothing of it is left."""
    runtime.pack(manifest(source))
    with runtime.started() as client:
        client.start(A)
        wait_until(lambda: "ready" in runtime.printed(A), "the application is ready")
        init = init_of(client)
        pidfds = [
            os.pidfd_open(pid) for pid in [init, *(process.pid for process in procfs.descendants(init))]
        ]
        yield client
        for pidfd in pidfds:
            wait_until(lambda: is_gone(pidfd), "all its processes are gone")  # noqa: B023
            os.close(pidfd)


def is_gone(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def init_of(client: Client) -> int:
    process = client.inspect(A).process
    assert process is not None
    return process.pid


def ended(client: Client) -> tuple[int | None, int | None]:
    status = wait_for(client, "exit", A).status
    assert status is not None
    assert client.inspect(A).process is None
    return status


def printed_once(runtime: Runtime) -> bool:
    return runtime.printed(A).count("terminated") == 1


@pytest.mark.parametrize("name", ORDERLY)
def test_stop(runtime: SharedRuntime, name: str) -> None:
    """In order and soon, without SIGKILL."""
    with running(runtime, ORDERLY[name]) as client:
        done = nstar(runtime, "stop", "-t", "20s", "a")
        assert done.stdout == f"stopped {A}: exit code {TERMINATED}\n", done.stderr
        assert ended(client) == (TERMINATED, None)
        assert printed_once(runtime)


@pytest.mark.parametrize("name", ["alone", "in a session of its own", "in the group of a child"])
def test_kill(runtime: SharedRuntime, name: str) -> None:
    """SIGTERM reaches the application once, and SIGCONT a stopped one."""
    with running(runtime, ORDERLY[name]) as client:
        client.kill(A, signal.SIGSTOP)
        (application,) = [pid for pid in children(init_of(client)) if procfs.Process(pid).name != "init-a"][
            :1
        ]
        wait_until(lambda: procfs.Process(application).state == "T", "it is stopped")
        client.kill(A, signal.SIGTERM)
        assert client.inspect(A).process is not None
        client.kill(A, signal.SIGCONT)
        assert ended(client) == (TERMINATED, None)
        assert printed_once(runtime)


@pytest.mark.parametrize("name", DEAF)
def test_stop_of_one_that_does_not_listen(runtime: SharedRuntime, name: str) -> None:
    with running(runtime, DEAF[name]) as client:
        done = nstar(runtime, "stop", "-t", "200ms", "a")
        assert done.stdout == f"stopped {A}: signalled 9\n", done.stderr
        assert ended(client) == (None, signal.SIGKILL)


@pytest.mark.parametrize("name", ["with daemons", "with a deep tree", "with stopped children", *DEAF])
def test_sigkill(runtime: SharedRuntime, name: str) -> None:
    """It ends everything, whatever has been arranged."""
    with running(runtime, {**ORDERLY, **DEAF}[name]) as client:
        client.kill(A, signal.SIGKILL)
        assert ended(client) == (None, signal.SIGKILL)
        assert "terminated" not in runtime.printed(A)


@pytest.mark.parametrize("name", ENDS)
def test_end(runtime: SharedRuntime, name: str) -> None:
    """Its status is told, and all that it leaves behind goes with it."""
    runtime.pack(manifest(ENDS[name]))
    with runtime.started() as client:
        client.start(A)
        assert ended(client) == (5, None)
        if "holds its output" in name:
            assert runtime.printed(A) == ["last words"]


def test_end_of_the_first_thread(runtime: SharedRuntime) -> None:
    """The process goes on without it: /proc calls it a zombie, and a signal ends all of it."""
    number = 60 if os.uname().machine == "x86_64" else 93
    source = f"""
signal.signal(signal.SIGTERM, signal.SIG_DFL)
def other():
    time.sleep(0.1)
    ready()
    time.sleep(1000)
threading.Thread(target=other).start()
libc.syscall({number}, 0)
"""
    with running(runtime, source) as client:
        assert client.inspect(A).process is not None
        client.kill(A, signal.SIGTERM)
        assert ended(client) == (None, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGSEGV, signal.SIGALRM])
def test_death_by_another_signal_in_a_session_of_its_own(runtime: SharedRuntime, number: int) -> None:
    with running(runtime, "os.setsid(); ready(); wait()") as client:
        client.kill(A, number)
        assert ended(client) == (None, number)
