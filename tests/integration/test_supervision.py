# SPDX-License-Identifier: Apache-2.0
"""Stop, wait, and restarts of containers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runtime import Runtime, environment, shell, wait_for
from supervised import (
    nstar,
    python,
    started,
    state,
    supervised,
    wait_for_state,
    wait_until,
)

from northstar import manifest as manifests
from northstar.client import Refused
from northstar.errors import ManifestError
from northstar.npk import pack

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


def test_another_version_takes_the_place_of_one_that_waits(runtime: Runtime) -> None:
    policy = {"policy": "always", "delay": "1s"}
    versions = [supervised("exit 0", restart=policy), supervised("sleep 1000", version="0.0.2")]
    with started(runtime, *versions) as client:
        client.start("a:0.0.1")
        wait_for_state(client, "waiting")
        client.start("a:0.0.2")
        time.sleep(1.5)
        assert (state(client)["state"], state(client, "a:0.0.2")["state"]) == ("idle", "ready")


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


def test_a_wrong_section_is_refused_and_the_daemon_goes_on(runtime: Runtime, tmp_path: Path) -> None:
    """When it is packed, when it is installed, and when it is loaded: a newer packer may have let it pass."""
    with pytest.raises(ManifestError, match=r"custom\.northstar\.restart\.policy: unknown value"):
        runtime.pack(supervised("", restart="sometimes"))
    parsed = manifests.parse(json.dumps(supervised("")).encode())
    wrong = parsed._replace(custom={"northstar": {"restart": "sometimes"}})
    key = runtime.key if runtime.verified else None
    pack.pack_image(wrong, str(runtime.image), str(runtime.repository), key=key)
    package = pack.pack_image(wrong._replace(name="c"), str(runtime.image), str(tmp_path), key=key)
    with started(runtime, shell("b")) as client:
        assert client.list() == ["b:0.0.1"]
        reason = "custom.northstar.restart.policy: unknown value 'sometimes'"
        assert reason in runtime.output()
        with pytest.raises(Refused) as refusal:
            client.install(package, "default")
        assert reason in str(refusal.value)
        client.start("b:0.0.1")
