# SPDX-License-Identifier: Apache-2.0
"""Boots an image and prints what it and the runtime cost, as a Markdown table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from qemu import cache, foreign, kernels, progress, rootfs, steps
from qemu.machine import Machine, MachineFailed, Options, make_data_disk

MEMORY = 512
_INVENTORY = cache.REPOSITORY / "qemu/inventory.py"


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(prog="qemu/footprint", description=__doc__)
    result.add_argument("--kernel", metavar="debian|own|FILE", default=kernels.OWN, help=kernels.HELP)
    result.add_argument(
        "--rootfs", metavar="FILE", type=Path, help="root file system instead of the built one"
    )
    return result


def main() -> int:
    """Print the table; the exit code."""
    options = parser().parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="northstar-footprint-") as work:
            _print(_rows(_options(options.kernel, options.rootfs, Path(work))))
    except (foreign.UnknownImage, steps.StepFailed, MachineFailed, TimeoutError) as error:
        print(f"qemu/footprint: {error}", file=sys.stderr)
        return 1
    return 0


def _options(name: str, root: Path | None, work: Path) -> Options:
    boot = kernels.find(name)
    if root is not None:
        harness = work / "harness.squashfs"
        foreign.make_disk(harness, foreign.root_format(root), work / "log")
        return Options(
            kernel=boot.image, rootfs=root, initramfs=boot.initramfs, harness=harness, memory=MEMORY
        )
    data = work / "data.ext4"
    make_data_disk(data)
    image = rootfs.image() / "rootfs.squashfs"
    return Options(kernel=boot.image, rootfs=image, initramfs=boot.initramfs, data=data, memory=MEMORY)


def _rows(options: Options) -> list[tuple[str, str]]:
    progress.say(f"booting {options.kernel} with {options.rootfs}")
    with Machine(options) as machine:
        answered = machine.wait_for_console()
        if answered is None:
            raise MachineFailed("the runtime's console does not answer")
        found = json.loads(machine.output(f"python3 - <<'END'\n{_INVENTORY.read_text()}\nEND"))
    return _image_rows(options, answered) + _device_rows(found)


def _image_rows(options: Options, answered: float) -> list[tuple[str, str]]:
    return [
        ("kernel, file", _size(options.kernel.stat().st_size)),
        ("root file system, file", _size(options.rootfs.stat().st_size)),
        ("init until the console answers", f"{answered:.1f} s"),
    ]


def _device_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory, processes, installed = found["memory"], found["processes"], found["installed"]
    rows = [(f"memory, {name}", _size(kilobytes << 10)) for name, kilobytes in memory.items()]
    rows += [(f"{name}, PSS", _size(kilobytes << 10)) for name, kilobytes in processes.items()]
    rows.append(("daemon, engine and init, PSS", _size(sum(processes.values()) << 10)))
    return rows + [(f"installed: {name}", _size(size)) for name, size in installed.items()]


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _print(rows: list[tuple[str, str]]) -> None:
    print("| what | value |\n|---|---:|")
    for what, value in rows:
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    sys.exit(main())
