# SPDX-License-Identifier: Apache-2.0
"""What `nstar exec` does with a terminal that takes no more at the moment."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

from northstar.nstar import streams as copying


def test_output_waits_for_a_reader_of_what_does_not_block() -> None:
    """Whoever shares the terminal may have set O_NONBLOCK, and nothing is lost."""
    source, filled = os.pipe()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stuck = os.write(writing, bytes(1 << 20))
    os.write(filled, b"text")
    received = bytearray()

    def read() -> None:
        time.sleep(0.05)
        while len(received) < stuck + 4:
            received.extend(os.read(reading, 1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    streams: Any = SimpleNamespace(_outputs={source: writing})
    copying.Streams._copy_output(streams, source)
    thread.join()
    assert received[stuck:] == b"text"
    for descriptor in (source, filled, reading, writing):
        os.close(descriptor)
