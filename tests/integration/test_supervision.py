# SPDX-License-Identifier: Apache-2.0
"""What becomes of a container after its start: restarts, readiness, watchdog, health, stop, order, boot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runtime import REPOSITORY, TIMEOUT, Runtime, environment, shell, wait_for, with_mounts

from northstar import manifest as manifests
from northstar.client import Client, Refused
from northstar.client.supervision import NOTIFICATIONS
from northstar.npk import pack

USR = {"type": "bind", "host": "/usr", "options": "nosuid,nodev"}
PYTHON = """\
import os, signal, socket, sys, time
address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def tell(text, address=address):
    notify.sendto(text if isinstance(text, bytes) else text.encode(), address)
"""


def supervised(script: str, name: str = "a", **sections: Any) -> dict[str, Any]:
    """A shell script with sections about supervision."""
    fields = {key: sections.pop(key) for key in ("autostart", "mounts", "version") if key in sections}
    return shell(name, script, custom={"northstar": sections}, **fields)


def python(script: str, name: str = "a", **sections: Any) -> dict[str, Any]:
    """A Python program that can `tell` how it is."""
    manifest = supervised("", name, mounts=with_mounts(usr=USR), **sections)
    return {**manifest, "init": "/usr/bin/python3", "args": ["-c", PYTHON + script]}


@contextmanager
def started(runtime: Runtime, *manifests: dict[str, Any]) -> Iterator[Client]:
    """A client that hears of everything."""
    for manifest in manifests:
        runtime.pack(manifest)
    with runtime.started(), runtime.connect(notifications=NOTIFICATIONS) as client:
        yield client


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(client: Client, container: str = "a:0.0.1") -> dict[str, Any]:
    return client.inspect(container).supervision


def wait_for_state(client: Client, wanted: str, container: str = "a:0.0.1") -> dict[str, Any]:
    wait_until(lambda: state(client, container)["state"] == wanted)
    return state(client, container)


def nstar(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "northstar.nstar.cli", "--url", runtime.url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment())


# --- stop and wait


def test_a_container_that_asks_for_nothing(runtime: Runtime) -> None:
    with started(runtime, shell("a")) as client:
        assert state(client)["state"] == "idle"
        client.start("a:0.0.1")
        wait_for(client, "ready", "a:0.0.1")
        assert state(client) == {
            "state": "ready",
            "restarts": 0,
            "last_exit": None,
            "reason": None,
            "next_start": None,
            "waiting_for": None,
            "quarantined": False,
            "status": None,
        }
        status = client.stop("a:0.0.1")
        assert status is not None and status.signal == signal.SIGTERM
        assert client.inspect("a:0.0.1").process is None
        assert state(client)["last_exit"] == {"signalled": {"signal": 15}}
        with pytest.raises(Refused) as refusal:
            client.stop("a:0.0.1")
        assert refusal.value.variant == "stop_container_not_started"
        client.start("a:0.0.1", "/bin/false")
        wait_for_state(client, "idle")
        assert state(client)["reason"] == "exit code 1"


def test_stop_with_signal_and_time(runtime: Runtime) -> None:
    deaf = "trap '' TERM; trap 'exit 7' INT; while :; do sleep 0.1; done"
    manifest = supervised(deaf, stop={"signal": "INT", "timeout": "30s"})
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        time.sleep(0.3)
        status = client.stop("a:0.0.1")
        assert status is not None and status.code == 7
        client.start("a:0.0.1")
        time.sleep(0.3)
        began = time.monotonic()
        status = client.stop("a:0.0.1", signal.SIGTERM, 0.5)
        assert status is not None and status.signal == signal.SIGKILL
        assert 0.4 < time.monotonic() - began < 10


def test_other_requests_and_notifications_during_a_stop(runtime: Runtime) -> None:
    with started(runtime, shell("a", "trap '' TERM; sleep 1000"), shell("b")) as client:
        client.start("a:0.0.1")
        time.sleep(0.3)
        with runtime.connect() as other:
            process = subprocess.Popen(
                [sys.executable, "-m", "northstar.nstar.cli", "-u", runtime.url, "stop", "a", "-t", "2s"],
                env=environment(),
            )
            wait_for_state(other, "stopping")
            other.start("b:0.0.1")
            assert state(other)["state"] == "stopping"
            assert process.wait(30) == 0


def test_wait(runtime: Runtime) -> None:
    with started(runtime, shell("a", "sleep 1; exit 3"), shell("b")) as client:
        client.start("a:0.0.1")
        (waited,) = client.wait(["a:0.0.1"], "ready")
        assert (waited.state, waited.error) == ("ready", None)
        waited, unknown = client.wait(["a:0.0.1", "c:0.0.1"], "exit")
        assert waited.status is not None and waited.status.code == 3
        assert "invalid_container" in unknown.error
        (waited,) = client.wait(["a:0.0.1"], "ready")
        assert waited.error == {"unexpected": {"error": "a:0.0.1 is not ready: it is idle: exit code 3"}}
        client.start("b:0.0.1")
        began = time.monotonic()
        (waited,) = client.wait(["b:0.0.1"], "exit", 0.3)
        assert waited.error == {"unexpected": {"error": "b:0.0.1 is ready after the time limit"}}
        assert time.monotonic() - began >= 0.3


def test_nobody_waits_for_a_client_that_has_gone(runtime: Runtime) -> None:
    with started(runtime, shell("a")) as client:
        client.start("a:0.0.1")
        with runtime.connect() as other:
            other._send(other._protocol.request(wait_request()))
            time.sleep(0.3)
        wait_until(lambda: "Connection closed" in runtime.output())
        client.stop("a:0.0.1")


def wait_request() -> Any:
    from northstar.client import supervision

    return supervision.wait(["a:0.0.1"], "exit", None).request


def test_commands(runtime: Runtime) -> None:
    notifying = python("time.sleep(0.5); tell('READY=1\\nSTATUS=at work'); time.sleep(1000)", ready="notify")
    with started(runtime, notifying, shell("b", "exit 4")) as client:
        done = nstar(runtime, "start", "--wait", "a")
        assert (done.returncode, done.stdout) == (0, "started a:0.0.1\na:0.0.1 is ready\n")
        assert "ready: at work" in nstar(runtime, "list").stdout
        assert '"status": "at work"' in nstar(runtime, "inspect", "a").stdout
        assert nstar(runtime, "wait", "a").stdout == "a:0.0.1 is ready\n"
        done = nstar(runtime, "wait", "a", "--until", "exit", "-t", "300ms")
        assert (done.returncode, done.stdout) == (3, "")
        assert "a:0.0.1 is ready after the time limit" in done.stderr
        assert nstar(runtime, "stop", "a").stdout.startswith("stopped a:0.0.1: signalled 15")
        assert nstar(runtime, "start", "b").returncode == 0
        wait_for_state(client, "idle", "b:0.0.1")
        done = nstar(runtime, "wait", "b", "--until", "exit")
        assert (done.returncode, done.stdout) == (0, "b:0.0.1 is idle: exit code 4\n")
        assert nstar(runtime, "wait").returncode == 1
        assert nstar(runtime, "reset", "a").stdout == "reset a:0.0.1\n"


# --- restart


def test_restarts_until_it_is_enough(runtime: Runtime) -> None:
    policy = {"policy": "on-failure", "delay": "50ms", "max_delay": "100ms", "burst": 3, "window": "1m"}
    with started(runtime, supervised("exit 3", restart=policy)) as client:
        client.start("a:0.0.1")
        found = wait_for_state(client, "quarantined")
        assert (found["restarts"], found["quarantined"], found["reason"]) == (3, True, "exit code 3")
        with runtime.connect() as plain:
            assert not [n for n in plain.notifications(0.1)]
        seen = [wait_for(client, "restarting") for _ in range(3)]
        assert [n.details["reason"] for n in seen] == ["exit code 3"] * 3
        assert wait_for(client, "quarantined").details == {"reason": "exit code 3"}
        assert "a:0.0.1 is quarantined: exit code 3" in runtime.output()
        with pytest.raises(Refused):
            client.stop("a:0.0.1")
        client.reset("a:0.0.1")
        assert state(client)["state"] == "idle"
        client.start("a:0.0.1", "/bin/sleep", ["1000"])
        assert (state(client)["state"], state(client)["restarts"]) == ("ready", 0)


def test_upstreams_clients_hear_nothing_of_it(runtime: Runtime) -> None:
    policy = {"policy": "on-failure", "delay": 0, "burst": 1, "window": "1m"}
    runtime.pack(supervised("exit 3", restart=policy))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for_state(client, "quarantined")
        kinds = [notification.kind for notification in client.notifications(0.2)]
        assert kinds == ["started", "exit", "started", "exit"]


def test_a_restart_has_the_command_of_the_start(runtime: Runtime) -> None:
    with started(runtime, supervised("exit 9", restart={"policy": "always", "delay": 0})) as client:
        client.start("a:0.0.1", "/bin/sh", ["-c", "echo again $WHAT; exit 2"], {"WHAT": "then"})
        wait_for(client, "restarting")
        wait_until(lambda: runtime.printed("a:0.0.1")[:2] == ["again then", "again then"])
        wait_for_state(client, "quarantined")


@pytest.mark.parametrize("way", ["stop", "kill", "umount", "uninstall"])
def test_what_cancels_a_restart(runtime: Runtime, way: str) -> None:
    policy = {"policy": "always", "delay": "1s", "max_delay": "1s"}
    with started(runtime, supervised("exit 0", restart=policy)) as client:
        client.start("a:0.0.1")
        found = wait_for_state(client, "waiting")
        assert 0 < found["next_start"] <= 1.1
        if way == "stop":
            assert client.stop("a:0.0.1") is not None
        elif way == "kill":
            client.kill("a:0.0.1")
        elif way == "umount":
            assert client.umount(["a:0.0.1"]) == [None]
        else:
            client.uninstall("a:0.0.1")
            time.sleep(1.5)
            assert runtime.output().count("Started a:0.0.1") == 1
            return
        assert state(client)["state"] == "idle"
        time.sleep(1.5)
        assert state(client)["state"] == "idle"
        assert runtime.output().count("Started a:0.0.1") == 1


def test_a_signal_of_a_client_is_no_failure(runtime: Runtime) -> None:
    with started(runtime, supervised("sleep 1000", restart="always")) as client:
        client.start("a:0.0.1")
        client.kill("a:0.0.1", signal.SIGUSR1)
        wait_for(client, "restarting")
        wait_for_state(client, "ready")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for_state(client, "idle")


def test_a_start_while_a_restart_is_pending(runtime: Runtime) -> None:
    policy = {"policy": "always", "delay": "30s"}
    with started(runtime, supervised("exit 0", restart=policy)) as client:
        client.start("a:0.0.1")
        wait_for_state(client, "waiting")
        client.start("a:0.0.1", "/bin/sleep", ["1000"])
        assert (state(client)["state"], state(client)["restarts"]) == ("ready", 0)


def test_the_daemon_ends_while_restarts_are_pending(runtime: Runtime) -> None:
    policy = {"policy": "always", "delay": "5s"}
    with started(runtime, supervised("exit 0", restart=policy)) as client:
        client.start("a:0.0.1")
        wait_for_state(client, "waiting")


def test_an_autostart_that_fails_is_tried_again(runtime: Runtime) -> None:
    policy = {"policy": "on-failure", "delay": "20ms", "burst": 2, "window": "1m"}
    manifest = {**supervised("", restart=policy), "init": "/nonexistent", "autostart": "critical"}
    manifest["custom"]["northstar"]["restart"]["on_burst"] = "quarantine"
    with started(runtime, manifest) as client:
        found = wait_for_state(client, "quarantined")
        assert found["restarts"] == 2
        assert "/nonexistent" in found["reason"]


def test_a_critical_container_that_crashes_too_often_ends_the_daemon(runtime: Runtime) -> None:
    policy = {"policy": "on-failure", "delay": "10ms", "burst": 2, "window": "1m"}
    runtime.pack(supervised("sleep 0.5; exit 5", restart=policy, autostart="critical"))
    runtime.start()
    assert runtime.process is not None
    assert runtime.process.wait(30) == 1
    runtime.process = None
    assert "critical container failure: a:0.0.1 exited with Exit(5)" in runtime.output()
    assert runtime.output().count("Started a:0.0.1") == 3


def test_a_wrong_section_is_refused_and_the_daemon_goes_on(runtime: Runtime) -> None:
    with pytest.raises(Exception, match=r"custom\.northstar\.restart\.policy: unknown value"):
        runtime.pack(supervised("", restart="sometimes"))


# --- ready


@pytest.mark.parametrize("place", ["file", "abstract"])
def test_ready_by_python(runtime: Runtime, place: str) -> None:
    script = """
print(address.replace("\\0", "@"), os.environ.get("WATCHDOG_USEC"), flush=True)
tell("STATUS=loading")
time.sleep(0.5)
tell("READY=1\\nSTATUS=at work")
time.sleep(1000)
"""
    manifest = python(script, ready="notify")
    packed(runtime, manifest, place)
    with started(runtime) as client:
        client.start("a:0.0.1")
        assert state(client)["state"] == "started"
        assert wait_for(client, "status").details["status"] in ("loading", "at work")
        (waited,) = client.wait(["a:0.0.1"])
        assert (waited.state, state(client)["status"]) == ("ready", "at work")
        (line,) = runtime.printed("a:0.0.1")
        assert line.startswith("/run/host/notify" if place == "file" else "@northstar-")
        client.stop("a:0.0.1")
        assert state(client)["status"] is None


def packed(runtime: Runtime, manifest: dict[str, Any], place: str) -> None:
    """Pack with a place for the socket, as `sextant pack` makes it, or without one."""
    if place == "abstract":
        runtime.pack(manifest)
        return
    root = runtime.base / "root"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", str(root), str(runtime.image)], check=True)
    parsed = manifests.parse(json.dumps(manifest).encode())
    pack.pack_root(parsed, str(root), str(runtime.repository), key=runtime.key if runtime.verified else None)


def needs_systemd_notify() -> None:
    if shutil.which("systemd-notify") is None:
        pytest.skip("systemd-notify is not installed")


@pytest.mark.parametrize("place", ["file", "abstract"])
def test_ready_by_systemd_notify(runtime: Runtime, place: str) -> None:
    """The real program, from a shell: it sends BARRIER=1 and waits for it, and ends at once."""
    needs_systemd_notify()
    script = "/usr/bin/systemd-notify --ready --status='up and running' && echo told; exec sleep 1000"
    manifest = supervised(script, mounts=with_mounts(usr=USR), ready="notify")
    packed(runtime, manifest, place)
    with started(runtime) as client:
        client.start("a:0.0.1")
        (waited,) = client.wait(["a:0.0.1"], timeout=TIMEOUT)
        assert (waited.error, waited.state) == (None, "ready")
        assert state(client)["status"] == "up and running"
        runtime.wait_for_log("told")


def test_only_the_main_process_may_speak(runtime: Runtime) -> None:
    script = """
if os.fork() == 0:
    tell("READY=1\\nSTATUS=child")
    os._exit(0)
os.wait()
time.sleep(1)
tell("STATUS=main")
time.sleep(1000)
"""
    with started(runtime, python(script, ready={"by": "notify", "access": "main"})) as client:
        client.start("a:0.0.1")
        assert wait_for(client, "status").details == {"status": "main"}
        assert state(client)["state"] == "started"


def test_others_in_the_same_network_may_not_speak(runtime: Runtime) -> None:
    """The abstract name can be seen in the network namespace of the host."""
    script = "print(address, flush=True); time.sleep(1000)"
    manifest = {**python(script, ready="notify"), "network": "host"}
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        wait_until(lambda: bool(runtime.printed("a:0.0.1")))
        names = [
            line.split()[-1]
            for line in Path("/proc/net/unix").read_text().splitlines()
            if "@northstar-" in line
        ]
        assert names
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"READY=1\nSTATUS=stranger", "\0" + names[0][1:])
        time.sleep(0.5)
        assert (state(client)["state"], state(client)["status"]) == ("started", None)


def test_not_ready_in_time(runtime: Runtime) -> None:
    sections = {"ready": {"by": "notify", "timeout": "300ms"}, "stop": {"timeout": "300ms"}}
    manifest = python("signal.signal(15, signal.SIG_IGN); time.sleep(1000)", **sections)
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        assert wait_for(client, "unhealthy").details == {"reason": "it was not ready in time"}
        found = wait_for_state(client, "idle")
        assert found["last_exit"] == {"signalled": {"signal": 9}}
        assert found["reason"] == "it was not ready in time"


def test_an_end_with_success_before_ready_is_a_failure(runtime: Runtime) -> None:
    policy = {"policy": "on-failure", "delay": 0, "burst": 1, "window": "1m"}
    with started(runtime, python("", ready="notify", restart=policy)) as client:
        client.start("a:0.0.1")
        found = wait_for_state(client, "quarantined")
        assert found["reason"] == "exit code 0 before it was ready"


def test_ready_and_gone_at_once(runtime: Runtime) -> None:
    """The last words of a program are heard, also if it has ended already."""
    script = "tell('STATUS=done'); tell('READY=1'); os._exit(0)"
    with started(runtime, *(python(script, f"a{n}", ready="notify") for n in range(5))) as client:
        for number in range(5):
            name = f"a{number}:0.0.1"
            client.start(name)
            found = wait_for_state(client, "idle", name)
            assert (found["reason"], found["last_exit"]) == (None, {"exit": {"code": 0}})


def test_something_that_is_done_once(runtime: Runtime) -> None:
    with started(
        runtime, supervised("sleep 0.3", ready="exit"), supervised("exit 1", "b", ready="exit")
    ) as client:
        client.start("a:0.0.1")
        assert state(client)["state"] == "started"
        (waited,) = client.wait(["a:0.0.1"])
        assert (waited.error, waited.state) == (None, "idle")
        client.start("b:0.0.1")
        (waited,) = client.wait(["b:0.0.1"])
        assert waited.error == {"unexpected": {"error": "b:0.0.1 is not ready: it is idle: exit code 1"}}


def test_a_time_that_is_extended_for_ever(runtime: Runtime) -> None:
    script = """
while True:
    tell("EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(0.05)
"""
    ready = {"by": "notify", "timeout": "200ms", "timeout_max": "1s"}
    with started(runtime, python(script, ready=ready)) as client:
        began = time.monotonic()
        client.start("a:0.0.1")
        assert wait_for(client, "unhealthy").details == {"reason": "it was not ready in time"}
        assert 0.9 < time.monotonic() - began < 20
        wait_for_state(client, "idle")


def test_stopping_by_itself(runtime: Runtime) -> None:
    script = "tell('READY=1'); tell('STOPPING=1'); time.sleep(1000)"
    with started(runtime, python(script, ready="notify", stop={"timeout": "500ms"})) as client:
        client.start("a:0.0.1")
        wait_for(client, "ready")
        wait_for_state(client, "stopping")
        found = wait_for_state(client, "idle")
        assert found["reason"] == "it did not stop in time"


FLOOD = """
import array
def descriptors(text, number):
    held = [os.dup(0) for _ in range(number)]
    try:
        notify.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", held))], 0, address)
    finally:
        for descriptor in held:
            os.close(descriptor)
"""


def test_a_flood(runtime: Runtime) -> None:
    """Others are served as ever, nothing piles up, and what is no notification is dropped."""
    script = """
tell(b"READY=1")
begin = time.monotonic()
number = 0
while time.monotonic() - begin < 3:
    number += 1
    tell(f"STATUS={number}")
    tell(b"\\xff\\0" * 10)
    if number % 50 == 0:
        descriptors(b"X_LOTS=1", 253)
        descriptors(b"FDSTORE=1", 100)
        descriptors(b"BARRIER=1", 100)
        try:
            tell(b"READY=1\\nX=" + b"x" * 60000)
        except OSError as error:
            print(error, flush=True)
tell("STATUS=done")
time.sleep(1000)
"""
    manifest = python(FLOOD + script, ready="notify")
    with started(runtime, manifest, shell("b")) as client:
        client.start("a:0.0.1")
        wait_for(client, "ready")
        before = descriptors_of_daemon(runtime)
        slowest = 0.0
        while state(client)["status"] != "done":
            began = time.monotonic()
            client.start("b:0.0.1")
            client.stop("b:0.0.1")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 3
        told = [n for n in client.notifications(0.5) if n.kind == "status"]
        assert len(told) < 40
        assert descriptors_of_daemon(runtime) <= before + 3
        assert "there is no further warning" in runtime.output()
        assert runtime.output().count("no notification") == 1
        assert state(client)["state"] == "ready"


def descriptors_of_daemon(runtime: Runtime) -> int:
    assert runtime.process is not None
    return len(os.listdir(f"/proc/{runtime.process.pid}/fd"))


def test_a_long_status(runtime: Runtime) -> None:
    script = """
tell("READY=1\\nSTATUS=" + "\\x1b[31mred\\u00fc" * 300)
time.sleep(0.5)
tell("STATUS=one\\nSTATUS=two\\ntree")
time.sleep(1000)
"""
    with started(runtime, python(script, ready="notify")) as client:
        client.start("a:0.0.1")
        wait_for(client, "ready")
        text = state(client)["status"]
        assert text.startswith(r"\x1b[31mredü") and len(text.encode()) <= 1024
        wait_until(lambda: state(client)["status"] == "one")


def test_containers_without_it_have_no_socket(runtime: Runtime) -> None:
    manifest = supervised("echo socket=$NOTIFY_SOCKET; sleep 1000", restart="always")
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        wait_until(lambda: runtime.printed("a:0.0.1") == ["socket="])


# --- watchdog and health


def test_watchdog(runtime: Runtime) -> None:
    script = """
print(os.environ["WATCHDOG_USEC"], flush=True)
for _ in range(5):
    tell("WATCHDOG=1")
    time.sleep(0.2)
time.sleep(1000)
"""
    with started(runtime, python(script, watchdog="500ms", restart="on-failure")) as client:
        client.start("a:0.0.1")
        began = time.monotonic()
        assert wait_for(client, "unhealthy").details == {"reason": "no sign of life for 0.5s"}
        assert time.monotonic() - began > 1
        assert wait_for(client, "restarting").details["reason"] == "no sign of life for 0.5s"
        assert state(client)["last_exit"] == {"signalled": {"signal": signal.SIGABRT}}
        assert runtime.printed("a:0.0.1")[0] == "500000"


def test_watchdog_of_a_stopped_program(runtime: Runtime) -> None:
    """It cannot even react to the signal; then it is killed."""
    script = "tell('WATCHDOG=1'); os.kill(os.getpid(), signal.SIGSTOP)"
    with started(runtime, python(script, watchdog="500ms", stop={"timeout": "500ms"})) as client:
        client.start("a:0.0.1")
        found = wait_for_state(client, "idle")
        assert found["last_exit"] == {"signalled": {"signal": 9}}


def test_a_watchdog_is_not_the_victim_of_a_stopped_daemon(runtime: Runtime) -> None:
    script = """
while True:
    tell("WATCHDOG=1")
    time.sleep(0.1)
"""
    with started(runtime, python(script, watchdog="1s")) as client:
        client.start("a:0.0.1")
        time.sleep(0.5)
        assert runtime.process is not None
        runtime.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        runtime.process.send_signal(signal.SIGCONT)
        time.sleep(2)
        assert state(client)["state"] == "ready"
        assert "unhealthy" not in runtime.output()


def test_a_program_triggers_its_watchdog(runtime: Runtime) -> None:
    script = "tell('READY=1'); tell('WATCHDOG=trigger'); time.sleep(1000)"
    with started(runtime, python(script, ready="notify")) as client:
        client.start("a:0.0.1")
        wait_for(client, "unhealthy")
        assert "triggered the watchdog" in wait_for_state(client, "idle")["reason"]


def test_health(runtime: Runtime) -> None:
    health = {"exec": ["/bin/test", "!", "-e", "/tmp/ill"], "period": "5s", "threshold": 2}
    mounts = with_mounts(tmp={"type": "tmpfs", "size": "1MB"})
    manifest = supervised("sleep 8; echo > /tmp/ill; sleep 1000", mounts=mounts, health=health)
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        reason = wait_for(client, "unhealthy").details["reason"]
        assert reason == "2 checks of its health have failed: /bin/test: Exit(1)"
        assert wait_for_state(client, "idle")["reason"] == reason


def test_a_check_that_hangs(runtime: Runtime) -> None:
    health = {
        "exec": ["/bin/sleep", "1000"],
        "period": "5s",
        "timeout": "300ms",
        "threshold": 1,
        "on_failure": "none",
    }
    with started(runtime, supervised("sleep 1000", health=health)) as client:
        client.start("a:0.0.1")
        reason = wait_for(client, "unhealthy").details["reason"]
        assert reason.endswith("/bin/sleep has not ended within 0.3s")
        assert state(client)["state"] == "ready"
        processes = client.inspect("a:0.0.1").process
        assert processes is not None and len(processes.statistics["processes"]) == 1


# --- order


def test_autostart_in_order(runtime: Runtime) -> None:
    network = supervised("sleep 1000", "network", autostart="relaxed", stop={"timeout": "5s"})
    database = python(
        "time.sleep(1); tell('READY=1'); time.sleep(1000)",
        "database",
        ready="notify",
        autostart="relaxed",
        after={"network": "started"},
    )
    migration = supervised(
        "sleep 0.5", "migration", ready="exit", autostart="relaxed", after={"database": "ready"}
    )
    app = supervised(
        "sleep 1000", "app", autostart="relaxed", after={"migration": "succeeded", "database": "ready"}
    )
    never = supervised(
        "sleep 1000", "never", autostart="relaxed", after={"migration": "failed"}, after_timeout="5s"
    )
    with started(runtime, app, database, migration, network, never) as client:
        assert state(client, "never:0.0.1")["waiting_for"] == "migration failed"
        wait_for_state(client, "ready", "app:0.0.1")
        log = runtime.output()
        places = [log.index(f"Started {name}:0.0.1") for name in ("network", "database", "migration", "app")]
        assert places == sorted(places)
        assert (
            wait_for_state(client, "idle", "never:0.0.1")["reason"]
            == "it has waited for migration failed in vain"
        )
    log = runtime.output()
    stops = [log.index(f"Sending SIGTERM to {name}:0.0.1") for name in ("app", "database", "network")]
    assert stops == sorted(stops)


def test_containers_that_wait_for_each_other(runtime: Runtime) -> None:
    def waiting(name: str, other: str) -> dict[str, Any]:
        return supervised("sleep 1000", name, autostart="critical", after={other: "ready"})

    lonely = supervised("sleep 1000", "lonely", autostart="relaxed")
    with started(runtime, waiting("a", "b"), waiting("b", "c"), waiting("c", "a"), lonely) as client:
        wait_for_state(client, "ready", "lonely:0.0.1")
        assert "a waits for b waits for c waits for a" in runtime.output()
        assert state(client)["state"] == "idle"
        assert client.boot().state == "bad"
        client.start("a:0.0.1")
        assert "is started without what it is meant to wait for: b ready" in runtime.output()


def test_bound_to_another_one(runtime: Runtime) -> None:
    policy = {"policy": "always", "delay": "500ms"}
    database = supervised("sleep 1000", "database", restart=policy)
    app = supervised("sleep 1000", "app", bind=["database"])
    with started(runtime, database, app) as client:
        assert nstar(runtime, "start", "--with-dependencies", "--wait", "app").returncode == 0
        assert state(client, "database:0.0.1")["state"] == "ready"
        client.kill("database:0.0.1", signal.SIGUSR1)
        wait_until(lambda: runtime.output().count("Started app:0.0.1") == 2)
        wait_for_state(client, "ready", "app:0.0.1")
        client.stop("database:0.0.1")
        assert wait_for_state(client, "idle", "app:0.0.1")["reason"] is None


def test_shutdown_with_a_program_that_does_not_stop(runtime: Runtime) -> None:
    manifest = supervised("trap '' TERM; sleep 1000", stop={"timeout": "500ms"})
    with started(runtime, manifest, shell("b", "trap '' TERM; sleep 1000")) as client:
        client.start("a:0.0.1")
        client.start("b:0.0.1")
        time.sleep(0.3)
        began = time.monotonic()
    assert 0.4 < time.monotonic() - began < 8


# --- boot


def test_a_good_boot(runtime: Runtime) -> None:
    told = runtime.base / "told"
    program = f'["/bin/sh", "-c", "echo good > {told}"]'
    runtime.configure(repositories=f'[boot]\non_good = {program}\non_bad = ["/bin/false"]')
    critical = python(
        "time.sleep(1); tell('READY=1'); time.sleep(1000)", ready="notify", autostart="critical"
    )
    relaxed = supervised("sleep 1000", "b", autostart="relaxed", after={"nobody": "ready"})
    with started(runtime, critical, relaxed) as client:
        decision = client.boot()
        assert (decision.state, decision.waiting) == ("pending", ["a:0.0.1"])
        done = nstar(runtime, "wait", "--boot")
        assert (done.returncode, done.stdout) == (0, "boot is good\n")
        wait_until(told.exists)


@pytest.mark.parametrize("way", ["failure", "timeout"])
def test_a_bad_boot(runtime: Runtime, way: str) -> None:
    told = runtime.base / "told"
    runtime.configure(
        top='boot_timeout = "2s"',
        repositories=f'[boot]\non_bad = ["/bin/sh", "-c", "echo bad > {told}"]',
    )
    script = "exit 1" if way == "failure" else "sleep 1000"
    manifest = supervised(
        script, ready={"by": "notify", "timeout": "1m"}, boot="required", autostart="relaxed"
    )
    with started(runtime, manifest) as client:
        done = nstar(runtime, "wait", "--boot")
        assert (done.returncode, done.stdout) == (1, "boot is bad: a:0.0.1\n")
        wait_until(told.exists)
        assert client.boot(wait=True).state == "bad"


# --- descriptors that stay

STORING = """
import array
number = int(os.environ.get("LISTEN_FDS", "0"))
ours = os.environ.get("LISTEN_PID") == str(os.getpid())
print("run", number, os.environ.get("LISTEN_FDNAMES"), ours, flush=True)
if number:
    server = socket.socket(fileno=3)
else:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(100)
    def store(name, *descriptors):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        notify.sendmsg([b"FDSTORE=1\\nFDNAME=" + name], rights, 0, address)
    with open("/proc/self/status") as file:
        store(b"file", file.fileno())
    store(b"web", server.fileno())
    store(b"again", server.fileno())
    print("port", server.getsockname()[1], flush=True)
tell("READY=1")
while True:
    connection, _ = server.accept()
    what = connection.recv(10)
    if what == b"crash":
        os._exit(1)
    connection.sendall(what)
    connection.close()
"""


def ask(port: int, what: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.sendall(what)
        return client.recv(10)


def test_a_listening_socket_outlives_a_crash(runtime: Runtime) -> None:
    """No client is refused while nobody serves it."""
    sections = {"ready": "notify", "restart": {"policy": "always", "delay": "500ms"}, "fdstore": 2}
    manifest = {**python(STORING, **sections), "network": "host", "console": {"permissions": ["ident"]}}
    with started(runtime, manifest) as client:
        client.start("a:0.0.1")
        client.wait(["a:0.0.1"])
        wait_until(lambda: len(runtime.printed("a:0.0.1")) == 2)
        port = int(runtime.printed("a:0.0.1")[1].split()[1])
        assert ask(port, b"hello") == b"hello"
        before = descriptors_of_daemon(runtime)
        for number in range(3):
            assert ask(port, b"crash") == b""
            began = time.monotonic()
            assert ask(port, b"hello") == b"hello"
            assert time.monotonic() - began > 0.3
            wait_until(lambda: len(runtime.printed("a:0.0.1")) == 3 + number)  # noqa: B023
            assert runtime.printed("a:0.0.1")[-1] == "run 1 web True"
        assert descriptors_of_daemon(runtime) <= before + 1
        client.stop("a:0.0.1")
        with pytest.raises(OSError):
            ask(port, b"hello")
        client.start("a:0.0.1")
        wait_until(lambda: "run 0 None False" in runtime.printed("a:0.0.1")[5:])


# --- the examples


def pack_examples(runtime: Runtime, *names: str) -> None:
    for name in names:
        directory = REPOSITORY / "examples" / name
        parsed = manifests.parse((directory / "manifest.yaml").read_bytes())
        key = runtime.key if runtime.verified else None
        pack.pack_root(parsed, str(directory / "root"), str(runtime.repository), key=key)


def test_example_ready(runtime: Runtime) -> None:
    pack_examples(runtime, "ready")
    with started(runtime) as client:
        client.start("ready:0.0.1")
        assert state(client, "ready:0.0.1")["state"] == "started"
        (waited,) = client.wait(["ready:0.0.1"])
        assert (waited.state, state(client, "ready:0.0.1")["status"]) == ("ready", "waiting for work")
        client.stop("ready:0.0.1")
        if shutil.which("systemd-notify"):
            client.start("ready:0.0.1", "/ready.sh")
            (waited,) = client.wait(["ready:0.0.1"])
            assert (waited.state, state(client, "ready:0.0.1")["status"]) == ("ready", "waiting for work")


def test_example_ordered(runtime: Runtime) -> None:
    pack_examples(runtime, "ordered-app", "ordered-database", "ordered-migration")
    with started(runtime):
        done = nstar(runtime, "start", "--with-dependencies", "--wait", "ordered-app")
        assert (done.returncode, done.stderr) == (0, "")
        log = runtime.output()
        texts = ("opening the database", "the database is open", "migrated", "the database is there")
        places = [log.index(text) for text in texts]
        assert places == sorted(places)
