# SPDX-License-Identifier: Apache-2.0
"""Start of a mounted container against `crun run` of the same root, alternating."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.crun import Crun
from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, ratio, show
from northstar.client import Client
from northstar.kernel import cgroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.daemon import Bench

TITLE = "Start of a mounted container (busybox true; new pid, mount, ipc, uts, network, cgroup namespace)"

RUNS = 60
WARM_UP = 5

FULL = {
    "seccomp": {"profile": "default"},
    "cgroups": {"memory": {"memory_hard_limit": 50000000}, "cpu": {"shares": 100}},
    "rlimits": {"nproc": {"soft": 100, "hard": 100}, "core": {"soft": 0, "hard": 0}},
    "sockets": {
        "one": {"type": "stream", "mode": 0o600},
        "two": {"type": "datagram", "mode": 0o600},
    },
}
"""Everything switched on; the two mounts make five with those of the bare container."""


def pack(bench: Bench) -> None:
    """Pack the containers that are measured."""
    for directory in ("data", "lib"):
        (bench.root / directory).mkdir()
    bench.pack(bare_manifest("bare"))
    for name, fields in (
        ("full", FULL),
        ("no-cgroups", {key: value for key, value in FULL.items() if key != "cgroups"}),
    ):
        description = bare_manifest(name, **fields)
        mounts = description["mounts"]
        assert isinstance(mounts, dict)
        mounts |= {"/data": {"type": "persist"}, "/lib": {"type": "bind", "host": "/lib"}}
        bench.pack(description)


def alternate(bench: Bench, peer: Callable[[], float] | None, runs: int) -> list[Row]:
    """Start the containers in turns, and those of the peer if there is one; the rows about it."""
    samples: dict[str, list[float]] = {name: [] for name in ("bare", "exit", "full", "no-cgroups", "peer")}
    with bench.daemon(), Client.connect(bench.console, notifications=True) as client:
        for number in range(WARM_UP + runs):
            executing, exited = start(client, "bare:0.0.1")
            full, _ = start(client, "full:0.0.1")
            most, _ = start(client, "no-cgroups:0.0.1")
            theirs = peer() if peer else 0.0
            if number >= WARM_UP:
                for name, value in zip(samples, (executing, exited, full, most, theirs), strict=True):
                    samples[name].append(value)
    bare, whole, everything, no_cgroups, other = (milliseconds(values) for values in samples.values())
    version = cgroup.detect().mode
    rows = [
        bare.row("northstar, request sent -> application executing", "" if peer else "target <= 30 ms"),
        whole.row("northstar, request sent -> exit notification"),
        everything.row("northstar, everything switched on -> executing"),
        no_cgroups.row("northstar, all but control groups -> executing"),
    ]
    if peer:
        rows += [
            other.row("crun run, spawn -> exit"),
            ratio("ratio executing / crun run", bare, other, "<= 0.20"),
            ratio("ratio exit notification / crun run", whole, other, "<= 0.35"),
        ]
    target = f"<= 1.30; control groups are {version} here"
    return [
        *rows,
        ratio("ratio everything / bare", everything, bare, target),
        ratio("ratio all but control groups / bare", no_cgroups, bare),
    ]


def measure(bench: Bench) -> None:
    """Print the table of start times."""
    pack(bench)
    peer = Crun(bench.root, bench.base)
    rows = alternate(bench, peer.run, RUNS)
    peer.close()
    show(TITLE, rows)


def start(client: Client, container: str) -> tuple[float, float]:
    """Seconds from the request to its response, and to the exit notification."""
    began = time.perf_counter()
    client.start(container)
    executing = time.perf_counter() - began
    wait_for_exit(client)
    return executing, time.perf_counter() - began


def wait_for_exit(client: Client) -> None:
    """Take notifications until one tells of an exit."""
    for notification in client.notifications(timeout=30):
        if notification.kind == "exit":
            return
    raise SystemExit("bench: no notification of an exit")
