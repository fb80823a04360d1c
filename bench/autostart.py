# SPDX-License-Identifier: Apache-2.0
"""Many containers at once: autostart of the daemon against one crun after the other.

crun is measured twice: as it is, and with what autostart does besides, a mount of an image that is not in
the page cache yet, and processes that go on running.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.crun import Crun, CrunWithImages
from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, ratio, show
from bench.turns import in_turns
from northstar.client import Client

if TYPE_CHECKING:
    from bench.daemon import Bench

CONTAINERS = 50
ROUNDS = {"none": 7, "lzo": 3, "zstd": 3, "gzip": 3}
"""How often each compression of the images is measured."""


def measure(bench: Bench) -> None:
    """Print the table of the autostart."""
    plain = Crun(bench.root, bench.base)
    rows = [row for compression in ROUNDS for row in _compare(bench, compression, plain)]
    plain.close()
    show(f"{CONTAINERS} containers: autostart as logged, mounts included; crun one after the other", rows)


def _compare(bench: Bench, compression: str, plain: Crun) -> list[Row]:
    """Rows about images of one compression, measured in turns."""
    names = (f"auto-{number}" for number in range(CONTAINERS))
    descriptions = [bare_manifest(name, args=["sleep", "1000"], autostart="relaxed") for name in names]
    packages = bench.pack_all(descriptions, compression)
    with tempfile.TemporaryDirectory(dir=bench.base) as bundles:
        peer = CrunWithImages(packages, Path(bundles))
        subjects = (partial(_autostart, bench), partial(plain.run, CONTAINERS), partial(peer.run, CONTAINERS))
        ours, directory, images = map(milliseconds, in_turns(subjects, ROUNDS[compression]))
        peer.close()
    uncompressed = compression == "none"
    label = f"images {compression}"
    return [
        ours.row(f"{label}: northstar autostart", f"packages of {packages[0].stat().st_size / 1e6:.2f} MB"),
        directory.row("  crun run of true in a plain directory"),
        images.row("  mount and crun run --detach"),
        ratio("  crun run / northstar", directory, ours, ">= 3.0" if uncompressed else ""),
        ratio("  mount and crun run / northstar", images, ours, ">= 5.0" if uncompressed else ""),
    ]


def _autostart(bench: Bench) -> float:
    """Seconds of one autostart."""
    (bench.base / "log").unlink(missing_ok=True)
    with bench.daemon(), Client.connect(bench.console) as client:
        running = [name for name in client.list() if client.inspect(name).process is not None]
        if len(running) != CONTAINERS:
            raise SystemExit(f"only {len(running)} of {CONTAINERS} containers run")
    return _time_from_log((bench.base / "log").read_text())


def _time_from_log(log: str) -> float:
    for line in log.splitlines():
        if "Successfully started" in line:
            value = line.rsplit(" in ", 1)[1]
            if value.endswith("ms"):
                return float(value[:-2]) / 1e3
            return float(value.removesuffix("s"))
    raise SystemExit("the log has no line about the autostart")
