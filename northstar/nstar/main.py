# SPDX-License-Identifier: Apache-2.0
"""Entry of nstar. Names for a shell's completion are looked up without the rest of the program.

SIGINT ends the program as it ends one in C. Python's own handler would only run after a system call that has
begun just after the signal came, and the calls here wait for hours.
"""

from __future__ import annotations

import gc
import signal
import sys

from northstar.encoding import require_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    if arguments is None:
        require_utf8()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] == "--complete":
        from northstar.nstar.completion import complete

        return complete(words[1:])
    gc.disable()  # what is loaded stays
    from northstar.nstar import cli

    gc.enable()
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
