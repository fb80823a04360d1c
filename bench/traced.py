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
from pathlib import Path

PAUSE = 0.1
VARIABLE = "NORTHSTAR_TRACED"


def allocated(path: Path) -> int:
    """Bytes, of a moment after this call."""
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        time.sleep(PAUSE)
    return int(path.read_text())


def _tell(path: Path) -> None:
    temporary = path.with_suffix(".new")
    while True:
        gc.collect()
        temporary.write_text(str(tracemalloc.get_traced_memory()[0]))
        temporary.replace(path)
        time.sleep(PAUSE)


def main() -> None:
    """Run the daemon beside the thread that tells."""
    from northstar.runtime.main import main as daemon

    tracemalloc.start()
    threading.Thread(target=_tell, args=(Path(os.environ[VARIABLE]),), daemon=True).start()
    daemon()


if __name__ == "__main__":
    main()
