# SPDX-License-Identifier: Apache-2.0
"""The slices of the scheduler, of this process and of its threads."""

from __future__ import annotations

import os
import struct
import threading
from typing import Any

import pytest

from northstar.kernel import scheduling

SHARES = ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE")


def in_child(action: Any) -> Any:
    """What `action` returns in a forked child, as nobody gets his own slices back."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, repr(action()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        text = stream.read()
    assert os.waitpid(pid, 0)[1] == 0
    return eval(text)


def now() -> tuple[int, int, int]:
    """Policy, nice value and slice of the calling thread."""
    buffer = scheduling.ctypes.create_string_buffer(48)
    assert scheduling._sched_getattr(0, buffer, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("<IIQiIQQQ", buffer.raw)
    return policy, nice, runtime


def kernel_has_slices() -> bool:
    """Linux 6.12 tells of them; before, the number is ignored and 0."""
    return bool(in_child(lambda: now()[2]))


def test_a_short_slice() -> None:
    def ask() -> tuple[bool, tuple[int, int, int], tuple[int, int, int]]:
        os.nice(3)
        before = now()
        return scheduling.ask_for_slice(scheduling.SHORTEST_SLICE), before, now()

    granted, before, after = in_child(ask)
    assert granted
    assert after[:2] == before[:2] == (os.SCHED_OTHER, os.nice(0) + 3)
    assert after[2] == (scheduling.SHORTEST_SLICE if kernel_has_slices() else 0)


def test_threads_have_it_as_well() -> None:
    def ask() -> tuple[int, int]:
        found: list[int] = []
        scheduling.ask_for_slice(scheduling.SHORTEST_SLICE)
        thread = threading.Thread(target=lambda: found.append(now()[2]))
        thread.start()
        thread.join()
        return found[0], now()[2]

    of_thread, own = in_child(ask)
    assert of_thread == own


@pytest.mark.parametrize("name", SHARES[1:])
def test_who_is_scheduled_otherwise_is_left_alone(name: str) -> None:
    def ask() -> tuple[bool, bool]:
        os.sched_setscheduler(0, getattr(os, name), os.sched_param(0))
        before = now()
        return scheduling.ask_for_slice(scheduling.SHORTEST_SLICE), before == now()

    assert in_child(ask) == (False, True)


def test_the_usual_slice_again() -> None:
    def ask() -> tuple[int, int]:
        usual = now()[2]
        scheduling.ask_for_slice(scheduling.SHORTEST_SLICE)
        buffer = scheduling.ctypes.create_string_buffer(scheduling.attributes(nice=os.nice(0)), 48)
        assert scheduling._sched_setattr(0, buffer, 0) == 0
        return usual, now()[2]

    usual, again = in_child(ask)
    assert usual == again


def test_layout() -> None:
    assert scheduling.attributes(1, 7, -3, 5) == struct.pack("<IIQiIQQQ", 48, 1, 0, -3, 7, 5, 0, 0)
