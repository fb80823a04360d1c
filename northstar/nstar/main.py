# SPDX-License-Identifier: Apache-2.0
"""Entry of nstar. Names for a shell's completion are looked up without the rest of the program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and words[0] == "--complete":
            from northstar.nstar.completion import complete

            return complete(words[1:])
        from northstar.nstar import cli

        return cli.main(words)
    except KeyboardInterrupt:
        # While the rest of the program is loaded.
        return 130


if __name__ == "__main__":
    sys.exit(main())
