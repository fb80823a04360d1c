# SPDX-License-Identifier: Apache-2.0
"""Installing a package against copying the same file, alternating."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

from bench.daemon import bare_manifest
from bench.table import Row, milliseconds, show
from bench.turns import in_turns
from northstar.client import Client

if TYPE_CHECKING:
    from pathlib import Path

    from bench.daemon import Bench

RUNS = 9
MEGABYTES = 100


def measure(bench: Bench) -> None:
    """Print the table of an install. The daemon runs."""
    package = _package(bench)
    with Client.connect(bench.console) as client:
        subjects = (
            partial(_copy, package, bench.base / "copy"),
            partial(_install, client, str(package)),
        )
        theirs, ours = map(milliseconds, in_turns(subjects, RUNS))
    size = package.stat().st_size / 1e6
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
    spent = time.perf_counter() - began
    target.unlink()
    return spent


def _install(client: Client, package: str) -> float:
    """Seconds."""
    began = time.perf_counter()
    name = client.install(package, "bench")
    spent = time.perf_counter() - began
    client.uninstall(name)
    return spent


def _file_system(path: Path) -> str:
    shown = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True)
    return shown.stdout.strip()
