# SPDX-License-Identifier: Apache-2.0
"""What supervision costs: a restart against a start, memory per container, and how long an update takes."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench import daemon as daemons
from bench import processes, traced
from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, ratio, show
from bench.turns import in_turns
from northstar.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.daemon import Bench

RUNS = 60
WARM_UP = 10
UPDATES = 20
MANY, FIRST = 60, 20
"""Containers of each kind whose memory is compared, and how many fill the cache of programs first."""
TRACED = Path(traced.__file__)
PACKAGE = 10_000_000
"""Bytes of the package that is updated, about."""
SECTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"custom": {"northstar": {"ready": "notify", "restart": {"policy": "always"}}}},
)


def measure(bench: Bench) -> None:
    """Print the tables."""
    sleeper = ["sleep", "1000"]
    restart = {"policy": "always", "delay": 0, "burst": 1000, "window": "1s"}
    bench.pack(bare_manifest("again", args=sleeper, custom={"northstar": {"restart": restart}}))
    with bench.daemon(), Client.connect(bench.console, notifications=True) as client:
        rows = [*_restarts(client, "again:0.0.1"), *_updates(bench, client)]
    show("Supervision", [*rows, *_costs()])


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


def _costs() -> list[Row]:
    """Of containers that nobody has started yet. The first ones of each kind load code."""
    with (
        daemons.bench((*daemons.PYTHON, str(TRACED))) as setting,
        _telling(setting.base / "allocated") as told,
    ):
        names = [[f"{kind}-{number}" for number in range(MANY)] for kind in ("plain", "supervised")]
        for kind, custom in zip(names, SECTIONS, strict=True):
            setting.pack_all([bare_manifest(name, args=["sleep", "1000"], **custom) for name in kind])
        with setting.daemon() as process, Client.connect(setting.console) as client:
            grown = [_growth(client, process.pid, told, kind) for kind in names]
    (plain, few), (supervised, more) = grown
    return [
        Row("memory per container that asks for nothing", f"{plain:.0f} B", "allocated by Python"),
        Row("the same with readiness and restart", f"{supervised:.0f} B"),
        Row("beyond that of one that asks for nothing", f"{supervised - plain:.0f} B", "target <= 2 KB"),
        Row("descriptors beyond those", f"{more - few:.1f}", f"target <= 1; {few:.1f} without"),
    ]


@contextmanager
def _telling(path: Path) -> Iterator[Path]:
    """Daemons that are traced tell in this file."""
    os.environ[traced.VARIABLE] = str(path)
    try:
        yield path
    finally:
        del os.environ[traced.VARIABLE]


def _growth(client: Client, daemon: int, told: Path, names: list[str]) -> tuple[float, float]:
    """Bytes and descriptors per container."""
    for name in names[:FIRST]:
        client.start(f"{name}:0.0.1")
    before = _used(daemon, told)
    for name in names[FIRST:]:
        client.start(f"{name}:0.0.1")
    after = _used(daemon, told)
    memory, descriptors = (
        (late - early) / (len(names) - FIRST) for early, late in zip(before, after, strict=True)
    )
    return memory, descriptors


def _used(daemon: int, told: Path) -> tuple[int, int]:
    """Memory that Python has allocated, and descriptors."""
    processes.settle()
    return traced.allocated(told), len(os.listdir(f"/proc/{daemon}/fd"))


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
