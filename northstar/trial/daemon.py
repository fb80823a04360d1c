# SPDX-License-Identifier: Apache-2.0
"""The daemon of a trial: ends with the one who has started it, and then removes all that belongs to it.

`python3 -m northstar.trial.daemon --config DIRECTORY/northstar.toml PID`, with the parent's pid.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys

from northstar.kernel import mount, prctl
from northstar.runtime import main as northstar

CONFIGURATION = "northstar.toml"
RUN_DIR = "run"


def main(configuration: str, parent: int) -> int:
    """Run the daemon; the exit code."""
    directory = os.path.dirname(configuration)
    prctl.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != parent:
        return northstar.EXIT_FAILURE
    options = northstar.Options(configuration, check=False, disable_mount_namespace=False)
    try:
        return northstar.run(options, system_log=False)
    finally:
        if os.getppid() != parent:
            _remove(directory)


def _remove(directory: str) -> None:
    """In place of the one who has started us."""
    with contextlib.suppress(OSError):  # it is mounted only if the daemon got that far
        mount.umount(f"{directory}/{RUN_DIR}", mount.MNT_DETACH)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], int(sys.argv[3])))
