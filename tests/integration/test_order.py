# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom, whether a boot is good, and the examples about it."""

from __future__ import annotations

import shutil
import signal
import time
from typing import Any

import pytest
from abilities import has_mksquashfs
from runtime import REPOSITORY, Runtime, shell
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
from northstar.npk import pack

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


def test_who_waits_is_mounted_meanwhile(runtime: Runtime) -> None:
    """Also if those that do not wait have started long before all packages are mounted."""
    first = python("time.sleep(1000)", "first", ready="notify", autostart="relaxed")
    names = [f"waiting-{number:02}" for number in range(40)]
    others = [supervised("sleep 1000", name, autostart="relaxed", after={"first": "ready"}) for name in names]
    with started(runtime, first, *others) as client:
        assert [name for name in names if not client.inspect(f"{name}:0.0.1").mounted] == []
        for name in names[-8:]:
            client.start(f"{name}:0.0.1")


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


# --- the examples


def pack_examples(runtime: Runtime, *names: str) -> None:
    if (missing := has_mksquashfs()) is not None:
        pytest.skip(missing)
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
