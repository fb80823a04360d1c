# SPDX-License-Identifier: Apache-2.0
"""An OCI image that umoci makes of a static busybox, in three layers, and its import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

APPLETS = ("cat", "id", "ls", "pwd", "sh", "sleep", "touch")
PROGRAM = """\
#!/bin/sh
echo "ids $(id -u):$(id -g) in $(pwd) with $1 and $MODE"
echo "files $(ls)"
touch /var/lib/app/kept && echo "volume $(ls /var/lib/app)"
touch /tmp/x && echo "tmp is writable"
touch /x 2>/dev/null || echo "root is read-only"
exec sleep 1000
"""
CONFIG = {
    "user": "app:www",
    "entrypoint": "./run",
    "cmd": "--now",
    "workingdir": "/srv/app",
    "env": "MODE=test",
    "volume": "/var/lib/app",
}
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def make(busybox: Path, architecture: str, out: Path) -> None:
    """Import the image into the directory `out`. `architecture` is named as in OCI images."""
    with tempfile.TemporaryDirectory(prefix="test-oci-") as work:
        layout = Path(work) / "layout"
        image = f"{layout}:1.0.0"
        _umoci("init", "--layout", str(layout))
        _umoci("new", "--image", image)
        _umoci("config", "--image", image, "--architecture", architecture, "--os", "linux")
        first, second = Path(work) / "first", Path(work) / "second"
        _fill(first, busybox)
        (second / "srv/app").mkdir(parents=True)
        (second / "srv/app/run").write_text(PROGRAM)
        (second / "srv/app/run").chmod(0o755)
        for directory in (first, second):
            for name in sorted(os.listdir(directory)):
                _umoci("insert", "--image", image, str(directory / name), f"/{name}")
        _umoci("insert", "--image", image, "--whiteout", "/srv/app/removed")
        options = [text for key, value in CONFIG.items() for text in (f"--config.{key}", value)]
        _umoci("config", "--image", image, *options)
        subprocess.run(
            [
                *(sys.executable, "-m", "northstar.sextant.cli", "import", str(layout)),
                *("--platform", f"linux/{architecture}", "--name", "imported", "--out", str(out)),
            ],
            check=True,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _fill(root: Path, busybox: Path) -> None:
    for name in ("bin", "etc", "srv/app"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1234:1235::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1235:\nwww:x:33:\n")
    (root / "srv/app/removed").write_text("of the first layer")
    (root / "srv/app/kept").write_text("of the first layer")


def _umoci(*arguments: str) -> None:
    done = subprocess.run(["umoci", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"umoci {arguments[0]}: {done.stderr}")
