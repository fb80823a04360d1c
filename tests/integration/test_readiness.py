# SPDX-License-Identifier: Apache-2.0
"""What programs tell of themselves: readiness, signs of life, descriptors that stay; checks of health."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtime import TIMEOUT, Runtime, shell, wait_for, with_mounts
from supervised import (
    USR,
    descriptors_of_daemon,
    packed,
    python,
    started,
    state,
    supervised,
    wait_for_state,
    wait_until,
)

CONNECTING = Path(__file__).resolve().parent / "connecting.py"
RATE = 1000

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


def test_ready_from_a_container_that_never_asked(runtime: Runtime) -> None:
    """It has a socket for its watchdog, and is ready without a word: what it says changes nothing."""
    script = """
tell("READY=1")
tell("STATUS=said it")
signal.pause()
"""
    with started(runtime, python(script, watchdog="1m")) as client:
        client.start("a:0.0.1")
        wait_until(lambda: state(client)["status"] == "said it")
        assert state(client)["state"] == "ready"
        assert [n.kind for n in client.notifications(0.5)].count("ready") <= 1


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
    # An emulated machine takes its time until Python is there.
    ready = {"by": "notify", "timeout": "3s", "timeout_max": "5s"}
    with started(runtime, python(script, ready=ready)) as client:
        began = time.monotonic()
        client.start("a:0.0.1")
        assert wait_for(client, "unhealthy").details == {"reason": "it was not ready in time"}
        assert 4.9 < time.monotonic() - began < 50
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
tell("READY=1")
for _ in range(5):
    tell("WATCHDOG=1")
    time.sleep(0.2)
time.sleep(1000)
"""
    with started(runtime, python(script, ready="notify", watchdog="500ms", restart="on-failure")) as client:
        client.start("a:0.0.1")
        began = time.monotonic()
        assert wait_for(client, "unhealthy").details == {"reason": "no sign of life for 0.5s"}
        assert time.monotonic() - began > 1
        assert wait_for(client, "restarting").details["reason"] == "no sign of life for 0.5s"
        assert state(client)["last_exit"] == {"signalled": {"signal": signal.SIGABRT}}
        assert runtime.printed("a:0.0.1")[0] == "500000"


def test_watchdog_of_a_stopped_program(runtime: Runtime) -> None:
    """It goes on to get the signal."""
    script = "tell('READY=1'); os.kill(os.getpid(), signal.SIGSTOP)"
    sections = {"ready": "notify", "watchdog": "500ms", "stop": {"timeout": "500ms"}}
    with started(runtime, python(script, **sections)) as client:
        client.start("a:0.0.1")
        found = wait_for_state(client, "idle")
        assert found["last_exit"] == {"signalled": {"signal": signal.SIGABRT}}


def test_a_watchdog_is_not_the_victim_of_a_stopped_daemon(runtime: Runtime) -> None:
    script = """
tell("READY=1")
while True:
    tell("WATCHDOG=1")
    time.sleep(0.1)
"""
    with started(runtime, python(script, ready="notify", watchdog="1s")) as client:
        client.start("a:0.0.1")
        client.wait(["a:0.0.1"])
        time.sleep(0.5)
        with runtime.halted():
            time.sleep(4)
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
    server.listen(4096)
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


def test_no_client_is_refused_during_an_update(runtime: Runtime, tmp_path: Path) -> None:
    """The echo service is replaced by its next version while a client connects 1000 times per second.

    A slow machine does as much of that as it can.
    """
    runtime.configure(repositories='[updates]\nsettle = "500ms"')
    manifest = {**python(STORING, ready="notify", fdstore=2), "network": "host"}
    new = runtime.pack({**manifest, "version": "0.0.2"}, tmp_path)
    with started(runtime, manifest) as client, runtime.connect(notifications=True) as updates:
        updates.updates(follow=True)
        client.start("a:0.0.1")
        client.wait(["a:0.0.1"])
        wait_until(lambda: len(runtime.printed("a:0.0.1")) == 2)
        port = runtime.printed("a:0.0.1")[1].split()[1]
        with subprocess.Popen(
            [sys.executable, CONNECTING, port, str(RATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as connecting:
            time.sleep(0.5)
            client.install(str(new), "default")
            client.update(["a:0.0.2"])
            phases = []
            while not phases or phases[-1] in ("staged", "trying"):
                phases.append(wait_for(updates, "update").details["phase"])
            time.sleep(0.5)
            found = json.loads(connecting.communicate(timeout=60)[0])
    assert phases[-1] == "good"
    assert runtime.printed("a:0.0.2")[0] == "run 1 web True"
    print(found)
    ends = {
        how: number for how, number in found.items() if how not in ("connections", "seconds", "held back")
    }
    # Who was being served when the program got its signal has lost its connection.
    others = {how: number for how, number in ends.items() if how != "served" and number}
    assert set(others) <= {"lost", "ECONNRESET"} and sum(others.values()) <= 2, found
    assert ends["served"] > RATE / 5
