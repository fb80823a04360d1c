# SPDX-License-Identifier: Apache-2.0
"""Entry point of bench/run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

from bench import (
    autostart,
    console,
    delta,
    device,
    fleet,
    importing,
    many,
    memory,
    start,
    startup,
    supervision,
    upstream,
)
from bench.daemon import bench
from bench.installation import installed
from northstar import __version__

SECTIONS = {
    "start": start.measure,
    "autostart": autostart.measure,
    "memory": memory.measure,
    "many": many.measure,
    "startup": startup.measure,
    "upstream": upstream.measure,
    "console": console.measure,
    "importing": importing.measure,
    "supervision": supervision.measure,
    "device": device.measure,
    "delta": delta.measure,
    "fleet": fleet.measure,
}
ON_DEMAND = ("device", "delta", "fleet")


def main() -> int:
    """Run the sections named in the arguments."""
    wanted = sys.argv[1:] or [name for name in SECTIONS if name not in ON_DEMAND]
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        known = ", ".join(SECTIONS)
        print(f"bench: no such section: {', '.join(unknown)}; there are {known}", file=sys.stderr)
        return 2
    crun = subprocess.run(["crun", "--version"], capture_output=True, text=True, check=True)
    print(
        f"northstar {__version__}, Python {platform.python_version()}, {crun.stdout.splitlines()[0]}, "
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs; {_load()}"
    )
    with installed():
        for name in wanted:
            began = time.monotonic()
            with bench() as setting:
                SECTIONS[name](setting)
            print(f"  [{name}: {time.monotonic() - began:.0f} s; {_load()}]", flush=True)
    return 0


def _load() -> str:
    """How busy the machine is."""
    return "load average {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
