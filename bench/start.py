# SPDX-License-Identifier: Apache-2.0
"""Start of a mounted container against `crun run` of the same root, alternating."""

from __future__ import annotations

import time

from bench.crun import Crun
from bench.daemon import Bench, bare_manifest
from bench.table import Row, Samples, show
from northstar.client import Client
from northstar.kernel import cgroup

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


def measure(bench: Bench) -> None:
    """Print the table of start times."""
    (bench.root / "data").mkdir()
    (bench.root / "lib").mkdir()
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
    bare: list[float] = []
    ended: list[float] = []
    everything: list[float] = []
    without_groups: list[float] = []
    crun: list[float] = []
    peer = Crun(bench.root, bench.base)
    with bench.daemon(), Client.connect(bench.console, notifications=True) as client:
        for number in range(WARM_UP + RUNS):
            executing, exited = _start(client, "bare:0.0.1")
            full_executing, _ = _start(client, "full:0.0.1")
            group_less, _ = _start(client, "no-cgroups:0.0.1")
            crun_seconds = peer.run()
            if number < WARM_UP:
                continue
            bare.append(executing)
            ended.append(exited)
            everything.append(full_executing)
            without_groups.append(group_less)
            crun.append(crun_seconds)
    peer.close()
    ours, whole, full_samples, most, theirs = (
        Samples(tuple(value * 1e3 for value in values))
        for values in (bare, ended, everything, without_groups, crun)
    )
    version = cgroup.detect().mode
    show(
        "Start of a mounted container (busybox true; new pid, mount, ipc, uts, network, cgroup namespace)",
        [
            Row("northstar, request sent -> application executing", str(ours), ours.spread()),
            Row("northstar, request sent -> exit notification", str(whole), whole.spread()),
            Row("northstar, everything switched on -> executing", str(full_samples), full_samples.spread()),
            Row("northstar, all but control groups -> executing", str(most), most.spread()),
            Row("crun run, spawn -> exit", str(theirs), theirs.spread()),
            Row("ratio executing / crun run", f"{ours.median / theirs.median:.2f}", "target <= 0.60"),
            Row(
                "ratio everything / bare",
                f"{full_samples.median / ours.median:.2f}",
                f"target <= 1.50; control groups are {version} here",
            ),
            Row("ratio all but control groups / bare", f"{most.median / ours.median:.2f}", ""),
        ],
    )


def _start(client: Client, container: str) -> tuple[float, float]:
    """Seconds from the request to its response, and to the exit notification."""
    began = time.perf_counter()
    client.start(container)
    executing = time.perf_counter() - began
    for notification in client.notifications(timeout=30):
        if notification.kind == "exit":
            break
    return executing, time.perf_counter() - began
