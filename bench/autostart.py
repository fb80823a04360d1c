# SPDX-License-Identifier: Apache-2.0
"""Many containers at once: autostart of the daemon against one crun after the other.

crun is measured twice: as it is, and with what autostart does besides, a mount of an image that is not in
the page cache yet, and processes that go on running.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.crun import Crun, CrunWithImages
from bench.daemon import bare_manifest
from bench.table import Row, show
from northstar.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.daemon import Bench

CONTAINERS = 50
ROUNDS = 5
COMPRESSIONS = ("none", "lzo", "zstd", "gzip")


def measure(bench: Bench) -> None:
    """Print the table of the autostart."""
    plain = Crun(bench.root, bench.base)
    directory = _median(lambda: plain.run(CONTAINERS))
    plain.close()
    show(
        f"{CONTAINERS} containers",
        [
            Row("crun run, one after the other", _show(directory), "busybox true, plain directory"),
            *(row for compression in COMPRESSIONS for row in _compare(bench, compression, directory)),
        ],
    )


def _compare(bench: Bench, compression: str, directory: float) -> list[Row]:
    """Rows about images of one compression; `directory` is what crun took without images."""
    packages = [_pack(bench, number, compression) for number in range(CONTAINERS)]
    ours = _median(lambda: _autostart(bench))
    with tempfile.TemporaryDirectory(dir=bench.base) as bundles:
        peer = CrunWithImages(packages, Path(bundles))
        theirs = _median(lambda: peer.run(CONTAINERS))
        peer.close()
    size = f"mounts included, as logged; packages of {packages[0].stat().st_size / 1e6:.2f} MB"
    return [
        Row(f"images {compression}: northstar autostart", _show(ours), size),
        Row(f"images {compression}: mount and crun run --detach", _show(theirs), "one after the other"),
        Row("  crun run / northstar", f"{directory / ours:.2f}", "target >= 3.0"),
        Row("  mount and crun run / northstar", f"{theirs / ours:.2f}"),
    ]


def _pack(bench: Bench, number: int, compression: str) -> Path:
    description = bare_manifest(f"auto-{number}", args=["sleep", "1000"], autostart="relaxed")
    return bench.pack(description, compression)


def _show(seconds: float) -> str:
    return f"{seconds * 1e3:8.1f} ms"


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
