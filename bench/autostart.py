# SPDX-License-Identifier: Apache-2.0
"""Many containers at once: autostart of the daemon against one `crun run` after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.crun import Crun
from bench.daemon import bare_manifest
from bench.table import Row, show
from northstar.client import Client

if TYPE_CHECKING:
    from bench.daemon import Bench

CONTAINERS = 50


def measure(bench: Bench) -> None:
    """Print the table of the autostart."""
    for number in range(CONTAINERS):
        bench.pack(bare_manifest(f"auto-{number}", args=["sleep", "1000"], autostart="relaxed"))
    with bench.daemon(), Client.connect(bench.console) as client:
        running = [name for name in client.list() if client.inspect(name).process is not None]
        if len(running) != CONTAINERS:
            raise SystemExit(f"only {len(running)} of {CONTAINERS} containers run")
    ours = _time_from_log((bench.base / "log").read_text())
    peer = Crun(bench.root, bench.base)
    theirs = peer.run(CONTAINERS)
    peer.close()
    show(
        f"{CONTAINERS} containers",
        [
            Row("northstar autostart, mounts included", f"{ours * 1e3:8.1f} ms", "as logged by the daemon"),
            Row(
                "crun run, one after the other",
                f"{theirs * 1e3:8.1f} ms",
                "busybox true, not mounted from images",
            ),
            Row("ratio crun / northstar", f"{theirs / ours:.2f}", "target >= 3.0"),
        ],
    )


def _time_from_log(log: str) -> float:
    for line in log.splitlines():
        if "Successfully started" in line:
            value = line.rsplit(" in ", 1)[1]
            if value.endswith("ms"):
                return float(value[:-2]) / 1e3
            return float(value.removesuffix("s"))
    raise SystemExit("the log has no line about the autostart")
