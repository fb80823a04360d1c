# SPDX-License-Identifier: Apache-2.0
"""`northstar`, and `python3 -m northstar`: the daemon, or `northstar try`."""

from __future__ import annotations

import gc
import sys

from northstar.encoding import require_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

TRY = "try"


def main() -> NoReturn:
    """Run what the arguments of the process ask for."""
    require_utf8()
    if sys.argv[1:2] == [TRY]:
        from northstar.trial import cli

        sys.exit(cli.main(sys.argv[2:]))
    gc.disable()  # what is loaded stays; the daemon switches it on when it begins to serve
    from northstar.runtime.main import main as daemon

    daemon()


if __name__ == "__main__":
    main()
