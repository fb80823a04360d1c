# SPDX-License-Identifier: Apache-2.0
"""Start of a mounted container against `crun run` of the same root, alternating."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bench.crun import Crun
from bench.daemon import bare_manifest
from bench.table import Row, Samples, milliseconds, ratio, show
from bench.turns import in_turns
from northstar.client import Client
from northstar.kernel import cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class Times(NamedTuple):
    """Seconds from the request to its response, and to the exit notification."""

    executing: float
    exit: float


def alternate(bench: Bench, peer: Callable[[], float] | None, runs: int) -> list[Row]:
    """Start the containers in turns, and those of the peer if there is one; the rows about it."""
    with bench.daemon(), Client.connect(bench.console, notifications=True) as client:
        subjects = [partial(start, client, f"{name}:0.0.1") for name in ("bare", "full", "no-cgroups")]
        if peer is None:
            bare, full, most = in_turns(subjects, runs, WARM_UP)
            theirs = None
        else:
            bare, full, most, other = in_turns([*subjects, partial(_peer, peer)], runs, WARM_UP)
            theirs = exited(other)
    return [
        executing(bare).row(
            "northstar, request sent -> application executing", "" if peer else "target <= 30 ms"
        ),
        exited(bare).row("northstar, request sent -> exit notification"),
        executing(full).row("northstar, everything switched on -> executing"),
        executing(most).row("northstar, all but control groups -> executing"),
        *(_compare(bare, theirs) if theirs else ()),
        ratio(
            "ratio everything / bare",
            executing(full),
            executing(bare),
            f"<= 1.30; control groups are {cgroup.detect().mode} here",
        ),
        ratio("ratio all but control groups / bare", executing(most), executing(bare)),
    ]


def _compare(bare: list[Times], theirs: Samples) -> list[Row]:
    return [
        theirs.row("crun run, spawn -> exit"),
        ratio("ratio executing / crun run", executing(bare), theirs, "<= 0.20"),
        ratio("ratio exit notification / crun run", exited(bare), theirs, "<= 0.35"),
    ]


def executing(times: Sequence[Times]) -> Samples:
    """Times to the response."""
    return milliseconds([one.executing for one in times])


def exited(times: Sequence[Times]) -> Samples:
    """Times to the exit notification."""
    return milliseconds([one.exit for one in times])


def measure(bench: Bench) -> None:
    """Print the table of start times."""
    pack(bench)
    peer = Crun(bench.root, bench.base)
    rows = alternate(bench, peer.run, RUNS)
    peer.close()
    show(TITLE, rows)


def start(client: Client, container: str) -> Times:
    """Start a container and wait until it has ended."""
    began = time.perf_counter()
    client.start(container)
    answered = time.perf_counter() - began
    wait_for_exit(client)
    return Times(answered, time.perf_counter() - began)


def _peer(run: Callable[[], float]) -> Times:
    """A peer that tells of the end alone."""
    seconds = run()
    return Times(seconds, seconds)


def wait_for_exit(client: Client) -> None:
    """Take notifications until one tells of an exit."""
    for notification in client.notifications(timeout=30):
        if notification.kind == "exit":
            return
    raise SystemExit("bench: no notification of an exit")
