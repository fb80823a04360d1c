# SPDX-License-Identifier: Apache-2.0
"""What supervision costs: a restart against a start, memory per container, and how long an update takes."""

from __future__ import annotations

import os
import select
import signal
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

import psutil

from bench import pages, processes
from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, ratio, show
from bench.turns import in_turns
from northstar.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from bench.daemon import Bench

RUNS = 60
WARM_UP = 10
UPDATES = 20
MANY, AT_A_TIME = 100, 20
"""Containers of each kind whose memory is compared."""
PACKAGE = 10_000_000
"""Bytes of the package that is updated, about."""
SUPERVISED = {"northstar": {"ready": "notify", "restart": {"policy": "always"}}}


def measure(bench: Bench) -> None:
    """Print the tables."""
    sleeper = ["sleep", "1000"]
    restart = {"policy": "always", "delay": 0, "burst": 1000, "window": "1s"}
    bench.pack(bare_manifest("again", args=sleeper, custom={"northstar": {"restart": restart}}))
    names = [[f"{kind}-{number}" for number in range(MANY)] for kind in ("plain", "supervised")]
    plain = [bare_manifest(name, args=sleeper) for name in names[0]]
    bench.pack_all(plain)
    bench.pack_all([bare_manifest(name, args=sleeper, custom=SUPERVISED) for name in names[1]])
    with bench.daemon() as daemon, Client.connect(bench.console, notifications=True) as client:
        rows = _restarts(client, "again:0.0.1") + _memory(client, daemon.pid, names) + _updates(bench, client)
    show("Supervision", rows)


# --- a restart


def _restarts(client: Client, container: str) -> list[Row]:
    subjects = [partial(_start, client, container), partial(_crash, client, container)]
    started, crashed = map(milliseconds, in_turns(subjects, RUNS, WARM_UP))
    client.stop(container, timeout=0)
    return [
        started.row("start, request sent -> executing"),
        crashed.row("crash -> executing again, delay 0"),
        ratio("ratio crash / start", crashed, started, "<= 1.50"),
    ]


def _start(client: Client, container: str) -> float:
    """Seconds of a start; it runs afterwards."""
    if client.inspect(container).process is not None:
        client.stop(container, timeout=0)
    began = time.perf_counter()
    client.start(container)
    return time.perf_counter() - began


def _crash(client: Client, container: str) -> float:
    """Seconds until it executes again after its application was killed."""
    if client.inspect(container).process is None:
        client.start(container)
    application = _application(client, container)
    for _ in client.notifications(timeout=0):
        pass
    began = time.perf_counter()
    os.kill(application, signal.SIGKILL)
    _wait_for(client, "started", container)
    return time.perf_counter() - began


def _application(client: Client, container: str) -> int:
    (init,) = processes.inits(client, [container])
    (application,) = psutil.Process(init).children()
    return application.pid


def _wait_for(client: Client, kind: str, container: str) -> None:
    for notification in client.notifications(timeout=30):
        if (notification.kind, notification.container) == (kind, container):
            return
    raise SystemExit(f"bench: no notification {kind}")


# --- memory


def _memory(client: Client, daemon: int, names: list[list[str]]) -> list[Row]:
    """In turns, as the heap has holes in the beginning; the first turns are not counted: they load code."""
    grown, opened = [], []
    for first in range(0, MANY, AT_A_TIME):
        for kind in names:
            before = _used(daemon)
            for name in kind[first : first + AT_A_TIME]:
                client.start(f"{name}:0.0.1")
            used = _used(daemon)
            grown.append((used[0] - before[0]) / AT_A_TIME)
            opened.append((used[1] - before[1]) / AT_A_TIME)
    for name in names[0] + names[1]:
        client.stop(f"{name}:0.0.1", timeout=0)
    plain, supervised = (statistics.median(grown[kind::2][1:]) for kind in (0, 1))
    descriptors = opened[-1] - opened[-2]
    return [
        Row("memory of a container that asks for nothing", f"{plain:.0f} B", "daemon, private"),
        Row(
            "the same with readiness and restart, beyond that",
            f"{supervised - plain:.0f} B",
            "target <= 2 KB",
        ),
        Row("descriptors beyond those", f"{descriptors:.1f}", f"target <= 1; {opened[-2]:.1f} without"),
    ]


def _used(daemon: int) -> tuple[float, int]:
    """Private memory and descriptors of the daemon."""
    processes.settle()
    return pages.alone([daemon])[daemon].private, len(os.listdir(f"/proc/{daemon}/fd"))


# --- an update


def _updates(bench: Bench, client: Client) -> list[Row]:
    """A package of 10 MB, an application that is ready at once; the service is down from end to start."""
    (bench.root / "data").write_bytes(os.urandom(PACKAGE))
    versions = [f"0.0.{number}" for number in range(UPDATES + 1)]
    script = "trap 'exit 0' TERM; sleep 1000 & wait"
    packages, peers = (
        [
            bench.pack(
                bare_manifest(name, args=["sh", "-c", script]) | {"version": version}, directory=bench.base
            )
            for version in versions
        ]
        for name in ("service", "peer")
    )
    size = packages[0].stat().st_size
    client.updates(follow=True)
    client.start(client.install(packages[0], "bench"))
    spent, down, starts, first = [], [], [], []
    for old, new, package, peer in zip(versions, versions[1:], packages[1:], peers, strict=False):
        client.install(package, "bench")
        ended = os.pidfd_open(_application(client, f"service:{old}"))
        began = time.perf_counter()
        client.update([f"service:{new}"], settle=0)
        select.select([ended], [], [])
        gone = time.perf_counter()
        os.close(ended)
        _wait_for(client, "started", f"service:{new}")
        executing = time.perf_counter()
        spent.append(executing - began)
        down.append(executing - gone)
        _wait_for_end_of_update(client)
        client.stop(f"service:{new}")
        starts.append(_start(client, f"service:{new}"))
        first.append(_first_start(client, peer))
    downtime, start = milliseconds(down), milliseconds(starts)
    return [
        milliseconds(spent).row(
            "update, request sent -> new version ready", f"package of {size / 1e6:.1f} MB"
        ),
        downtime.row("nothing runs meanwhile for"),
        start.row("start of the same package"),
        milliseconds(first).row("mount and first start of such a package"),
        ratio("ratio down / start", downtime, start, "<= 3"),
    ]


def _first_start(client: Client, package: Path) -> float:
    """Seconds of the start of a package that was never mounted; then it is removed."""
    container = client.install(package, "bench")
    began = time.perf_counter()
    client.start(container)
    spent = time.perf_counter() - began
    client.stop(container)
    client.uninstall(container)
    return spent


def _wait_for_end_of_update(client: Client) -> None:
    for notification in client.notifications(timeout=30):
        if notification.kind == "update" and notification.details["phase"] == "good":
            return
    raise SystemExit("bench: the update was not good")
