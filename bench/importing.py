# SPDX-License-Identifier: Apache-2.0
"""`sextant import` against skopeo, umoci and mksquashfs, one after the other, of the same image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.daemon import ROOT
from bench.table import Row, Samples, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.daemon import Bench

RUNS = 3
MEGABYTES = 100
SOURCES = (
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/share/perl",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/bin",
)


def measure(bench: Bench) -> None:
    """Print the table of an import. The image is made of files of this machine."""
    missing = [name for name in ("skopeo", "umoci", "mksquashfs") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"bench: {', '.join(missing)}: not installed")
    layout = _image(bench.base)
    work = bench.base / "work"
    ours: list[float] = []
    theirs: list[float] = []
    same_level: list[float] = []
    for _ in range(RUNS):
        work.mkdir()
        ours.append(_timed(lambda: _import(layout, work)))
        unpacked = _timed(lambda: _unpack(layout, work))
        theirs.append(unpacked + _timed(lambda: _squash(work, "theirs")))
        same_level.append(unpacked + _timed(lambda: _squash(work, "same", "-Xcompression-level", "7")))
        sizes = [path.stat().st_size for path in (work / "out/fs.img", work / "theirs")]
        shutil.rmtree(work)
    samples = [Samples(tuple(seconds * 1e3 for seconds in times)) for times in (ours, theirs, same_level)]
    mine, other, same = samples
    show(
        f"Import of an image of {MEGABYTES} MB uncompressed",
        [
            Row("skopeo copy, umoci unpack, mksquashfs", str(other), other.spread()),
            Row("the same with gzip at level 7", str(same), same.spread()),
            Row("sextant import", str(mine), mine.spread()),
            Row("import / the three", f"{mine.median / other.median:.2f}", "target <= 0.80"),
            Row("import / the three at level 7", f"{mine.median / same.median:.2f}"),
            Row("size of the image, import / the three", f"{sizes[0] / sizes[1]:.3f}"),
        ],
    )


def _image(base: Path) -> Path:
    """A layout with an image of one layer, of files of the system."""
    root = base / "files"
    left = MEGABYTES * 1000 * 1000
    for source in SOURCES:
        for directory, _, names in os.walk(source):
            for name in sorted(names):
                path = os.path.join(directory, name)
                if left > 0 and os.path.isfile(path) and not os.path.islink(path):
                    target = root / path.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
                    left -= os.path.getsize(path)
    layout = base / "layout"
    image = f"{layout}:1.0.0"
    _run("umoci", "init", "--layout", str(layout))
    _run("umoci", "new", "--image", image)
    _run("umoci", "insert", "--image", image, str(root / "usr"), "/usr")
    _run("umoci", "config", "--image", image, "--config.user", "1000:1000", "--config.cmd", "/usr/bin/true")
    shutil.rmtree(root)
    return layout


def _import(layout: Path, work: Path) -> None:
    _run(sys.executable, "-m", "northstar.sextant.cli", "import", str(layout), "--out", str(work / "out"))


def _unpack(layout: Path, work: Path) -> None:
    _run("skopeo", "copy", "--quiet", f"oci:{layout}:1.0.0", f"oci:{work}/copy:1.0.0")
    _run("umoci", "unpack", "--image", f"{work}/copy:1.0.0", f"{work}/bundle")


def _squash(work: Path, name: str, *options: str) -> None:
    _run("mksquashfs", f"{work}/bundle/rootfs", f"{work}/{name}", "-noappend", "-no-progress", *options)


def _timed(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
