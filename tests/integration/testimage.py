# SPDX-License-Identifier: Apache-2.0
"""The file system image of test containers: a static busybox, links to it, a program, mount points."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DIRECTORIES = (
    "bin",
    "data",
    "dev",
    "etc",
    "proc",
    "resource",
    "sockets",
    "sys",
    "system",
    "tmp",
    "unix-sockets",
    "usr/lib",
    "usr/lib64",
)
APPLETS = (
    *("cat", "dd", "echo", "env", "false", "hostname", "id", "ip", "kill", "ls", "mkdir", "nice"),
    *("ps", "pwd", "rm", "sh", "sleep", "stat", "test", "touch", "true", "wc", "yes"),
)
PROGRAM = Path(__file__).resolve().parent.parent.parent / "examples/test-container/root/test-container"
FILES = {"hello": "hello from test resource\n", "files/deep/file": "deep\n"}


def make(busybox: Path, image: Path) -> None:
    """Write the image, with everything in it belonging to uid 1000."""
    with tempfile.TemporaryDirectory(prefix="test-image-") as work:
        root = Path(work) / "root"
        for name in DIRECTORIES:
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(PROGRAM, root / PROGRAM.name)
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "lib").symlink_to("usr/lib")
        (root / "lib64").symlink_to("usr/lib64")
        command = ["mksquashfs", str(root), str(image), "-noappend", "-quiet", "-no-progress"]
        subprocess.run([*command, "-force-uid", "1000", "-force-gid", "1000"], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
