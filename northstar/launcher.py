# SPDX-License-Identifier: Apache-2.0
"""Entry point of the daemon.

It forks the forker while next to nothing is imported: each container's init is a copy of the forker and
keeps its memory for as long as the container lives.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NO_FORKER = ("-h", "--help", "-V", "--version", "--check")


def main() -> NoReturn:
    """Run the daemon with the arguments of the process."""
    arguments = sys.argv[1:]
    if any(argument in _NO_FORKER for argument in arguments):
        from northstar.runtime import main as daemon

        options = daemon.parse_arguments(arguments)
        sys.exit(daemon.check(options.config))
    from northstar.forker import forker, messages
    from northstar.kernel import process

    # Nothing that the caller left open may reach a container.
    process.close_range(3)
    ours, theirs = messages.channel()
    pid = os.fork()
    if pid == 0:
        ours.close()
        forker.main(theirs)
    theirs.close()
    from northstar.runtime import main as daemon

    sys.exit(daemon.main(arguments, ours, pid))
