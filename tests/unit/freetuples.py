# SPDX-License-Identifier: Apache-2.0
"""Tuples that CPython keeps for later, up to 2,000 of each length.

One that is made shorter when it is filled, as by `_replace`, comes from another length than it goes back to:
something that is done again and again should leave none, or memory grows for thousands of times.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def none_is_left(repetitions: int) -> Iterator[None]:
    """What is done here so many times leaves less than one for every second time."""
    if sys.implementation.name != "cpython":
        pytest.skip("not CPython")
    gc.collect()
    gc.disable()
    try:
        before = free()
        yield
        after = free()
    finally:
        gc.enable()
    left = {length: number - before[length] for length, number in after.items()}
    assert max(left.values()) < repetitions // 2, left


def free() -> dict[int, int]:
    """How many free tuples there are, by length. The interpreter tells it on its standard error only."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        text = file.read().decode()
    return {int(length): int(number) for number, length in re.findall(r"(\d+) free +(\d+)-sized", text)}
