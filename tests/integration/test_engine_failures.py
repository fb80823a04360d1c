# SPDX-License-Identifier: Apache-2.0
"""The engine dies, hangs or cannot clone; a process ends between its clone and its program."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from abilities import has_pids_controller, needs
from isolated import wait_until
from leaks import children, name_of
from runtime import Runtime, SharedRuntime, shell, wait_for
from test_exec import Command
from test_failures import is_again, lying_around

from northstar.client import ClientError, ExitStatus, Refused
from northstar.kernel import cgroup, cgrouptree, procfs

A = "a:0.0.1"
STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """Tests whose daemon survives share one."""
    return shared_runtime


def engine_of(runtime: Runtime) -> int:
    assert runtime.process is not None
    (pid,) = (pid for pid in children(runtime.process.pid) if name_of(pid) == "northstar-engin")
    return pid


def spare_of(runtime: Runtime) -> int:
    """The init that waits for the next start."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [pid for pid in children(engine_of(runtime)) if name_of(pid) == "northstar-spare"]
        return bool(found)

    wait_until(there, "an init waits")
    return found[0]


def errors_in(log: str) -> list[str]:
    return [line for line in log.splitlines() if "ERROR" in line]


# --- death of the engine


def test_killed_engine(own_runtime: Runtime) -> None:
    """Its containers end, their ends are told, and the daemon says why it ends, and soon."""
    names = ["a", "b", "c"]
    for name in names:
        own_runtime.pack(shell(name, "trap '' TERM; while :; do sleep 1000; done"))
    own_runtime.start()
    assert own_runtime.process is not None
    with own_runtime.connect(notifications=True) as client:
        for name in names:
            client.start(f"{name}:0.0.1")
        inits = [process.pid for name in names if (process := client.inspect(f"{name}:0.0.1").process)]
        began = time.monotonic()
        os.kill(engine_of(own_runtime), signal.SIGKILL)
        told = {(told := wait_for(client, "exit")).container: told.status for _ in names}
        code = own_runtime.process.wait(60)
        spent = time.monotonic() - began
    own_runtime.process = None
    log = own_runtime.output()
    assert told == {f"{name}:0.0.1": ExitStatus(None, int(signal.SIGKILL)) for name in names}
    assert code == 1
    assert spent < 1.0, log
    assert [line.partition("ERROR: ")[2] for line in errors_in(log)] == [
        "Runtime exited with error: the engine has died, and all containers with it"
    ]
    assert not [pid for pid in inits if lives(pid)]


def test_killed_engine_and_a_session(own_runtime: Runtime) -> None:
    """The command ends as well. How soon depends on the host's init, which has to wait for it."""
    own_runtime.pack(shell("a"))
    own_runtime.start()
    assert own_runtime.process is not None
    with own_runtime.connect(notifications=True) as client:
        client.start(A)
        process = client.inspect(A).process
        assert process is not None
        with Command(own_runtime, "sleep", "1000") as command:
            pid = command_pid(process.pid)
            os.kill(engine_of(own_runtime), signal.SIGKILL)
            wait_for(client, "exit")
            assert command.output.read() == ""
        assert own_runtime.process.wait(60) == 1
    own_runtime.process = None
    assert not lives(pid)
    assert len(errors_in(own_runtime.output())) == 1


def command_pid(init: int) -> int:
    """A process in the pid namespace of an init that is not of its family."""
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    family = {init, *(process.pid for process in procfs.descendants(init))}
    found: list[int] = []

    def there() -> bool:
        found.clear()
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                    found.append(int(entry))
        found[:] = [pid for pid in found if pid not in family and name_of(pid) == "sleep"]
        return bool(found)

    wait_until(there, "the command executes")
    return found[0]


def lives(pid: int) -> bool:
    try:
        return procfs.Process(pid).state != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_killed_engine_of_an_idle_daemon(own_runtime: Runtime) -> None:
    own_runtime.start()
    assert own_runtime.process is not None
    os.kill(engine_of(own_runtime), signal.SIGKILL)
    assert own_runtime.process.wait(60) == 1
    own_runtime.process = None
    assert len(errors_in(own_runtime.output())) == 1


def test_engine_killed_during_starts(own_runtime: Runtime) -> None:
    """Whoever waits gets an answer or the end of the connection; no exception of the daemon's gets out."""
    for number in range(6):
        own_runtime.pack(shell(f"n{number}"))
    own_runtime.start()
    assert own_runtime.process is not None
    engine = engine_of(own_runtime)
    starters = [threading.Thread(target=start_in_vain, args=(own_runtime, f"n{n}:0.0.1")) for n in range(6)]
    for starter in starters:
        starter.start()
    time.sleep(0.02)
    os.kill(engine, signal.SIGKILL)
    for starter in starters:
        starter.join(60)
        assert not starter.is_alive()
    assert own_runtime.process.wait(60) == 1
    own_runtime.process = None
    log = own_runtime.output()
    assert "Internal error" not in log
    assert len(errors_in(log)) == 1, log


def start_in_vain(runtime: Runtime, container: str) -> None:
    with suppress(OSError, ClientError, Refused), runtime.connect() as client:
        client.start(container)


# --- an engine that hangs


def test_shutdown_with_a_stopped_engine(own_runtime: Runtime) -> None:
    """Also if a start waits for it, which cannot go on."""
    own_runtime.pack(shell("a"))
    own_runtime.pack(shell("b"))
    own_runtime.start()
    with own_runtime.connect() as client:
        client.start(A)
    os.kill(spare_of(own_runtime), signal.SIGKILL)
    os.kill(engine_of(own_runtime), signal.SIGSTOP)
    starter = threading.Thread(target=start_in_vain, args=(own_runtime, "b:0.0.1"))
    starter.start()
    own_runtime.wait_for_log("Creating b:0.0.1")
    began = time.monotonic()
    assert own_runtime.stop() == 0
    assert time.monotonic() - began < 10
    starter.join(60)
    log = own_runtime.output()
    assert "The engine has not answered for 2 s and was killed" in log
    assert "Shutdown complete" in log
    assert not errors_in(log)


# --- no more processes


@contextmanager
def injected(pid: int, error: str) -> Iterator[None]:
    """clone3 of a process fails."""
    assert STRACE is not None
    options = ["-qq", "-o", os.devnull, "-e", "trace=clone3", "-e", f"inject=clone3:error={error}"]
    tracer = subprocess.Popen([STRACE, *options, "-p", str(pid)])
    try:
        wait_until(lambda: "\nTracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "it is traced")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


@needs_strace
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_engine_that_cannot_clone(runtime: SharedRuntime, error: str) -> None:
    """The start says so, nothing is left, and the next one is fine."""
    runtime.pack(shell("a", "exit 0"))
    reason = os.strerror(getattr(errno, error))
    with runtime.started() as client:
        assert runtime.run(client, A)[0].success
        spare_of(runtime)
        before = lying_around(runtime)
        with injected(engine_of(runtime), error):
            # There is one in stock.
            assert runtime.run(client, A)[0].success
            for _ in range(2):
                with pytest.raises(Refused, match=f"fork: {reason}"):
                    client.start(A)
                assert client.inspect(A).process is None
        assert runtime.run(client, A)[0].success
        is_again(runtime, before)


@needs_strace
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_init_that_cannot_clone(runtime: SharedRuntime, error: str) -> None:
    runtime.pack(shell("a", "exit 0"))
    with runtime.started() as client:
        assert runtime.run(client, A)[0].success
        spare = spare_of(runtime)
        before = lying_around(runtime)
        with injected(spare, error), pytest.raises(Refused, match=rf"fork the application: .*\({error}\)"):
            client.start(A)
        assert runtime.run(client, A)[0].success
        is_again(runtime, before)


@needs_strace
def test_session_that_cannot_be_cloned(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start(A)
        spare_of(runtime)
        before = lying_around(runtime)
        with injected(engine_of(runtime), "EAGAIN"), pytest.raises(Refused, match=r"exec in a:0\.0\.1: fork"):
            Command(runtime, "true")
        with Command(runtime, "true") as command:
            assert command.client.exit_status().success
        is_again(runtime, before)


@needs(has_pids_controller)
def test_limit_of_processes(own_runtime: Runtime) -> None:
    """The runtime's own control group has no room for another process."""
    own_runtime.pack(shell("a", "exit 0"))
    root = cgroup.open_root(cgroup.detect().controllers["pids"])
    name = f"limited-{own_runtime.base.name}"
    group = cgroup.create(root, name)
    try:
        with own_runtime.started() as client:
            assert own_runtime.run(client, A)[0].success
            os.kill(spare_of(own_runtime), signal.SIGKILL)
            engine = engine_of(own_runtime)
            cgroup.attach(group, engine)
            cgroup.write(group, "pids.max", "1")
            for _ in range(2):
                with pytest.raises(Refused, match="fork: Resource temporarily unavailable"):
                    client.start(A)
            cgroup.write(group, "pids.max", "max")
            assert own_runtime.run(client, A)[0].success
    finally:
        cgrouptree.remove(root, name, 5.0)
        os.close(group)
        os.close(root)


# --- processes that end early


def test_start_after_the_waiting_init_was_killed(runtime: SharedRuntime) -> None:
    """At any moment: it may have ended, may be about to, or may have the program already."""
    runtime.pack(shell("a", "exit 0"))
    with runtime.started() as client:
        for attempt in range(40):
            os.kill(spare_of(runtime), signal.SIGKILL)
            time.sleep((attempt % 5) * 0.0003)
            assert runtime.run(client, A)[0].success


NOTHING_ELSE: dict[str, Any] = {"allow": {"read": "any"}}
DEATHS = {
    "no x bit": ({"init": "/hello"}, r"execute /hello: Permission denied"),
    "no x bit, no write": ({"init": "/hello", "seccomp": NOTHING_ELSE}, r"execute /hello: Permission denied"),
    "missing, no write": ({"init": "/none", "seccomp": NOTHING_ELSE}, r"execute /none: No such file"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_death_before_execve_is_no_start(runtime: SharedRuntime, name: str) -> None:
    fields, reason = DEATHS[name]
    runtime.pack({**shell("a"), **fields})
    runtime.pack(shell("b", "exit 0"))
    with runtime.started() as client:
        with pytest.raises(Refused, match=reason) as refused:
            client.start(A)
        assert refused.value.variant == "start_container_failed"
        client.start("b:0.0.1")
        told = [wait_for(client, "exit"), *client.notifications(timeout=0)]
        assert {notification.container for notification in told} == {"b:0.0.1"}


SESSION_DEATHS = {
    "no x bit": ("/hello", r"execute /hello: Permission denied"),
    "missing": ("/none", r"execute /none: No such file"),
    "directory": ("/tmp", r"execute /tmp: Permission denied"),
}


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered"])
@pytest.mark.parametrize("name", SESSION_DEATHS)
def test_death_before_execve_is_no_session(runtime: SharedRuntime, name: str, filtered: bool) -> None:
    program, reason = SESSION_DEATHS[name]
    fields = {"seccomp": {"profile": "default"}} if filtered else {}
    runtime.pack({**shell("a"), **fields})
    with runtime.started() as client:
        client.start(A)
        with pytest.raises(Refused, match=reason):
            Command(runtime, program)
        with Command(runtime, "true") as command:
            assert command.client.exit_status() == ExitStatus(0, None)
