# SPDX-License-Identifier: Apache-2.0
"""Entry point of bench/run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from bench import autostart, console, device, memory, start
from bench.daemon import bench
from northstar import __version__

SECTIONS = {
    "start": start.measure,
    "autostart": autostart.measure,
    "memory": memory.measure,
    "console": console.measure,
    "device": device.measure,
}


def main() -> int:
    """Run the sections named in the arguments."""
    wanted = sys.argv[1:] or [name for name in SECTIONS if name != "device"]
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        print(
            f"bench: no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}", file=sys.stderr
        )
        return 2
    crun = subprocess.run(["crun", "--version"], capture_output=True, text=True, check=True)
    print(
        f"northstar {__version__}, Python {platform.python_version()}, {crun.stdout.splitlines()[0]}, "
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
    )
    for name in wanted:
        with bench() as setting:
            SECTIONS[name](setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
