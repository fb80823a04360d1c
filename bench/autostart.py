# SPDX-License-Identifier: Apache-2.0
"""Many containers at once: autostart of the daemon against one `crun run` after the other."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench.crun import Crun
from bench.daemon import bare_manifest
from bench.table import Row, show
from northstar.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.daemon import Bench

CONTAINERS = 50
ROUNDS = 5


def measure(bench: Bench) -> None:
    """Print the table of the autostart."""
    peer = Crun(bench.root, bench.base)
    theirs = _median(lambda: peer.run(CONTAINERS))
    peer.close()
    ours = {}
    for compression in ("none", "gzip"):
        for number in range(CONTAINERS):
            description = bare_manifest(f"auto-{number}", args=["sleep", "1000"], autostart="relaxed")
            bench.pack(description, compression)
        ours[compression] = _median(lambda: _autostart(bench))
    show(
        f"{CONTAINERS} containers",
        [
            *(
                Row(
                    f"northstar autostart, mounts included, images {compression}",
                    f"{seconds * 1e3:8.1f} ms",
                    "as logged by the daemon; cold page cache",
                )
                for compression, seconds in ours.items()
            ),
            Row(
                "crun run, one after the other",
                f"{theirs * 1e3:8.1f} ms",
                "busybox true, plain directory, warm page cache",
            ),
            Row("ratio crun / northstar, images none", f"{theirs / ours['none']:.2f}", "target >= 3.0"),
            Row(
                "ratio crun / northstar, images gzip",
                f"{theirs / ours['gzip']:.2f}",
                "decompression included",
            ),
        ],
    )


def _autostart(bench: Bench) -> float:
    """Seconds of one autostart."""
    (bench.base / "log").unlink(missing_ok=True)
    with bench.daemon(), Client.connect(bench.console) as client:
        running = [name for name in client.list() if client.inspect(name).process is not None]
        if len(running) != CONTAINERS:
            raise SystemExit(f"only {len(running)} of {CONTAINERS} containers run")
    return _time_from_log((bench.base / "log").read_text())


def _median(measured: Callable[[], float]) -> float:
    return statistics.median(measured() for _ in range(ROUNDS))


def _time_from_log(log: str) -> float:
    for line in log.splitlines():
        if "Successfully started" in line:
            value = line.rsplit(" in ", 1)[1]
            if value.endswith("ms"):
                return float(value[:-2]) / 1e3
            return float(value.removesuffix("s"))
    raise SystemExit("the log has no line about the autostart")
