# SPDX-License-Identifier: Apache-2.0
"""How the kernel shares the processors out, see sched(7) and sched_setattr(2)."""

from __future__ import annotations

import ctypes
import struct

from northstar.kernel.libc import check, syscall

_ATTRIBUTES = struct.Struct("<IIQiIQQQ")
"""`struct sched_attr`, its first version: size, policy, flags, nice, priority, runtime, deadline, period."""

SCHED_OTHER = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6

SHORTEST_SLICE = 100_000
"""Nanoseconds."""

_sched_setattr = syscall(314, 274, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_sched_getattr = syscall(315, 275, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


def attributes(policy: int = SCHED_OTHER, priority: int = 0, nice: int = 0, slice_length: int = 0) -> bytes:
    """For sched_setattr(2). `slice_length` is in nanoseconds, 0 for the usual one; only with SCHED_OTHER."""
    return _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, priority, slice_length, 0, 0)


def ask_for_slice(nanoseconds: int) -> bool:
    """Have the calling thread and those that it makes run in short slices, and so be served sooner.

    The share of the processors stays what it was. Linux 6.12; older kernels ignore it. False,
    and nothing changes, if the thread is not scheduled by SCHED_OTHER. Raises OSError.
    """
    current = ctypes.create_string_buffer(_ATTRIBUTES.size)
    check(_sched_getattr(0, current, _ATTRIBUTES.size, 0), "sched_getattr")
    _, policy, _, nice, *_ = _ATTRIBUTES.unpack(current.raw)
    if policy != SCHED_OTHER:
        return False
    check(_sched_setattr(0, attributes(nice=nice, slice_length=nanoseconds), 0), "sched_setattr")
    return True
