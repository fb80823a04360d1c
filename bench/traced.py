# SPDX-License-Identifier: Apache-2.0
"""A daemon that tells how much memory Python has allocated in it: again and again, in a file.

traced.py --config FILE      with the path of the file in NORTHSTAR_TRACED
"""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

PAUSE = 0.1
VARIABLE = "NORTHSTAR_TRACED"


def allocated(path: Path) -> int:
    """Bytes, of a moment after this call."""
    path.unlink(missing_ok=True)
    while not path.exists():
        time.sleep(PAUSE)
    return int(path.read_text())


def _tell(path: Path) -> None:
    temporary = path.with_suffix(".new")
    while True:
        time.sleep(PAUSE)
        gc.collect()
        with suppress(OSError):  # the daemon begins with closing whatever is open
            temporary.write_text(str(tracemalloc.get_traced_memory()[0]))
            temporary.replace(path)


def main() -> None:
    """Run the daemon beside the thread that tells."""
    from northstar.runtime.main import main as daemon

    tracemalloc.start()
    threading.Thread(target=_tell, args=(Path(os.environ[VARIABLE]),), daemon=True).start()
    daemon()


if __name__ == "__main__":
    main()
