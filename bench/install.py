# SPDX-License-Identifier: Apache-2.0
"""Installing a package against copying the same file, alternating."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, show
from northstar.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from bench.daemon import Bench

RUNS = 9
MEGABYTES = 100


def measure(bench: Bench) -> None:
    """Print the table of an install. The daemon runs."""
    package = _package(bench)
    copy = bench.base / "copy"
    installs: list[float] = []
    copies: list[float] = []
    with Client.connect(bench.console) as client:
        for _ in range(RUNS):
            copies.append(_copy(package, copy))
            copy.unlink()
            began = time.perf_counter()
            name = client.install(str(package), "bench")
            installs.append(time.perf_counter() - began)
            client.uninstall(name)
    size = package.stat().st_size / 1e6
    theirs, ours = milliseconds(copies), milliseconds(installs)
    show(
        f"Install of a package of {size:.0f} MB ({_file_system(bench.base)})",
        [
            theirs.row("cp and fsync", f"{size / theirs.median * 1e3:.0f} MB/s"),
            ours.row("install", f"{size / ours.median * 1e3:.0f} MB/s"),
            Row("throughput install / cp", f"{theirs.median / ours.median:.2f}", "target >= 0.70"),
        ],
    )


def _package(bench: Bench) -> Path:
    large = bench.root / "large"
    large.write_bytes(os.urandom(MEGABYTES * 1000 * 1000))
    package = bench.pack(bare_manifest("large"), "none", bench.base)
    large.unlink()
    return package


def _copy(source: Path, target: Path) -> float:
    """Seconds."""
    began = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - began


def _file_system(path: Path) -> str:
    shown = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True)
    return shown.stdout.strip()
