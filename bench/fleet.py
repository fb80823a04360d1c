# SPDX-License-Identifier: Apache-2.0
"""A thousand devices and a rollout: the agent itself with a runtime that only pretends, against hawkBit.

A board in QEMU takes part. FLEET_DEVICES is the number of the others.
"""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import fleetboard, hawkbit
from bench.table import Row, milliseconds, show
from northstar.agent import worker as workers
from northstar.agent.actions import Begin, Failure, Found, Update
from northstar.agent.config import Config
from northstar.agent.http import Access
from northstar.agent.memory import Settings
from northstar.agent.offers import Limits
from northstar.fleet import Fleet, Rollout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.daemon import Bench
    from northstar.agent.state import Package
    from northstar.fleet.api import Api

DEVICES = int(os.environ.get("FLEET_DEVICES", "1000"))
THREADS = 8
GROUPS = 4
SIZE = 20_000
TIME_LIMIT = 900.0
GATEWAY_TOKEN = "simulated-fleet"
BOARD = "board"
SIMULATED = "controllerId==sim*"


class Pretended:
    """A runtime: updates are good, or bad. What it has come to is compared with what was reported."""

    def __init__(self, good: bool) -> None:
        self.good = good
        self.active: dict[str, str] = {}
        self._known: dict[str, Update] = {}

    def updates(self) -> tuple[Update, ...] | Failure:
        """Those that are over and not acknowledged."""
        return tuple(self._known.values())

    def versions(self) -> dict[str, str]:
        """The active ones."""
        return self.active

    def find(self, package: Package) -> Found | Failure:
        """Not yet."""
        return Found(there=False)

    def install(self, package: Package, path: str) -> str | Failure:
        """Whatever it is."""
        return package.container

    def begin(self, update: Begin) -> str | Failure:
        """It is over at once."""
        identifier = f"u-{len(self._known)}"
        result = "success" if self.good else "failure"
        self._known[identifier] = Update(identifier, update.reference, result, (result,))
        if self.good:
            for name, _, version in (container.partition(":") for container in update.containers):
                self.active[name] = version
        return identifier

    def watch(self, reference: str, seconds: float) -> Update | Failure | None:
        """The verdict."""
        return next((update for update in self._known.values() if update.reference == reference), None)

    def revoke(self, identifier: str) -> bool:
        """It is too late for that."""
        return False

    def acknowledge(self, identifier: str) -> None:
        """Forget it."""
        self._known.pop(identifier, None)

    def remove(self, name: str) -> Failure | None:
        """There is nothing."""
        return None


class Device(NamedTuple):
    """A simulated device."""

    worker: workers.Worker
    runtime: Pretended


def device(server: str, identifier: str, directory: Path, good: bool) -> Device:
    """One whose state is in a directory of its own."""
    url = f"{server}/DEFAULT/controller/v1/{identifier}"
    place = directory / identifier
    config = Config(
        Access(url, f"GatewayToken {GATEWAY_TOKEN}"),
        Settings(url, Limits(("default",), 1 << 20, 0), 30.0, "accept"),
        "",
        str(place),
        str(place / "run"),
        (),
        0,
        0.0,
        {},
        (),
        (),
    )
    runtime = Pretended(good)
    return Device(workers.Worker(config, runtime, lambda *_: None), runtime)


class Simulation:
    """Threads that let devices poll, one after the other, until they are told to stop."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._queue: queue.SimpleQueue[Device] = queue.SimpleQueue()
        for one in devices:
            self._queue.put(one)
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._over.is_set():
            one = self._queue.get()
            began = time.perf_counter()
            try:
                one.worker.run(now=True)
            except OSError as error:
                self.failures.append(str(error))
            one.worker.close()
            self.seconds.append(time.perf_counter() - began)
            self._queue.put(one)

    def stop(self) -> None:
        """Let what has begun come to its end."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def measure(bench: Bench) -> None:
    """Print the table of two rollouts: one that goes well, one that is paused."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    base = bench.base / "fleet"
    base.mkdir()
    try:
        with hawkbit.running(base) as server:
            _measure(server, base)
    except hawkbit.Unavailable as error:
        print(f"\nfleet: SKIPPED: {error}")


def _measure(server: hawkbit.Server, base: Path) -> None:
    api, fleet = server.api(), server.fleet()
    for name, value in (
        ("authentication.gatewaytoken.enabled", True),
        ("authentication.gatewaytoken.key", GATEWAY_TOKEN),
        ("pollingTime", "00:00:30"),
    ):
        api.send("PUT", f"/system/configs/{name}", {"value": value})
    names = [f"sim{number:05}" for number in range(DEVICES)]
    api.send("POST", "/targets", [{"controllerId": name, "name": name} for name in names])
    with fleetboard.booted(server.port, BOARD, fleet.add_device(BOARD)) as board:
        rows = _well(server, api, fleet, base, names)
        rows += _board(fleet, board)
    rows += _badly(server, fleet, base, names)
    rows.append(Row("memory of hawkBit", f"{server.resident() / 1e6:.0f} MB", "resident, at the end"))
    show(f"Fleet: {DEVICES} devices, {GROUPS} groups, a package of {SIZE // 1000} kB", rows)


def _well(server: hawkbit.Server, api: Api, fleet: Fleet, base: Path, names: list[str]) -> list[Row]:
    devices = [device(server.url, name, base, True) for name in names]
    found, simulation, seconds = _rolled_out(
        fleet, base, devices, "1.0.1", f"{SIMULATED},controllerId=={BOARD}"
    )
    updated = sum(one.runtime.active.get("sim") == "1.0.1" for one in devices)
    in_sync = api.get("/targets", q=f"updatestatus==in_sync;{SIMULATED}", limit=1)["total"]
    polls = milliseconds(simulation.seconds)
    return [
        Row("rollout", found.state, f"{seconds:.0f} s"),
        Row("updated devices", str(updated), f"of {len(names)}"),
        Row("of which the server knows", str(in_sync), f"lost reports: {updated - in_sync}"),
        Row("errors of the agents", str(len(simulation.failures))),
        polls.row("a poll with all that follows", f"{len(polls.values) / seconds:.0f} per second"),
    ]


def _board(fleet: Fleet, board: fleetboard.Board) -> list[Row]:
    (known,) = fleet.devices(f"controllerId=={BOARD}")
    note = (
        f"known as sim:{known.versions.get('sim')}, running: {', '.join(board.running('sim')) or 'nothing'}"
    )
    return [
        Row("board in QEMU, in the same rollout", known.state, note),
        Row("its agent between polls, PSS", board.memory()),
    ]


def _badly(server: hawkbit.Server, fleet: Fleet, base: Path, names: list[str]) -> list[Row]:
    """A third of the devices take it back: more than the threshold."""
    chance = random.Random(1)
    devices = [device(server.url, name, base, chance.random() > 1 / 3) for name in names]
    found, _, seconds = _rolled_out(fleet, base, devices, "1.0.2", SIMULATED)
    updated = sum(one.runtime.active.get("sim") == "1.0.2" for one in devices)
    return [
        Row("rollout of a bad version", found.state, f"{seconds:.0f} s, groups: {_groups(found)}"),
        Row("devices it has reached", str(updated + found.counts.get("error", 0)), f"of {len(names)}"),
    ]


def _groups(rollout: Rollout) -> str:
    return ", ".join(group.state for group in rollout.groups)


def _rolled_out(
    fleet: Fleet, base: Path, devices: Sequence[Device], version: str, query: str
) -> tuple[Rollout, Simulation, float]:
    fleet.publish([str(fleetboard.package(base, "sim", version, SIZE - 8000))], "sim")
    identifier = fleet.roll_out(f"sim:{version}", query, GROUPS)
    began = time.monotonic()
    simulation = Simulation(devices)
    try:
        while not (found := fleet.rollout(identifier)).over and time.monotonic() - began < TIME_LIMIT:
            time.sleep(1)
    finally:
        simulation.stop()
    return found, simulation, time.monotonic() - began
