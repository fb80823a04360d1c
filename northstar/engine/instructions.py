# SPDX-License-Identifier: Apache-2.0
"""The instruction set: the numbers of `program.h`, and the layout of what is sent.

A program is a message (its head) with a memfd, its memory: data, registers and, read-only and from a page
boundary on, the steps.
"""

from __future__ import annotations

import struct

CHANNEL = 3
"""Every process receives its programs from this descriptor, a sequential-packet socket (unix(7))."""

BOARD_ADDRESS = 0x10000000
BOARD_SIZE = 4096
PROGRAM_ADDRESS = 0x10010000
PROGRAM_LIMIT = 0x4000000
"""Programs have at most this many bytes."""

PROGRAM_MAGIC = 0x3150534E
MAX_DESCRIPTORS = 252
MAX_ERRNO = 4095
NO_ERRNO = MAX_ERRNO
"""Fails like an errno, but the purpose of the step says it all."""
NO_REGISTER = 0xFFFF
ANY_ERROR = 0xFFFF
NO_SUCH_PATH = 0xFFFE
"""The errors of a path that leads to nothing, `paths.LEADS_NOWHERE`."""
NO_STEP = 0xFFFFFFFF

OP_CALL = 0
"""result = system call `number` of the arguments; a negative result is a failure unless it is `tolerated`."""
OP_CLONE = 1
"""result = clone3(arguments 0 and 1); the new process goes on at step `number`, without a handler."""
OP_JUMP_NEGATIVE = 2
"""Go on at step `number` if argument 0 is negative."""
OP_SET = 3
"""result = argument 0."""
OP_LOAD = 4
"""result = the 32 bit number at address argument 0."""
OP_STORE = 5
"""Store argument 1, cut to 32 bits, at address argument 0."""
OP_COMPARE = 6
"""Fail with errno argument 4 unless argument 2 bytes at 0 and 1 are the same (3 is 1), or not the same (3
is 0).
"""
OP_EXPECT = 7
"""Fail with errno argument 2 unless arguments 0 and 1 are equal."""
OP_HANDLER = 8
"""From here on a failure before step `number` goes on there."""
OP_REAP = 9
"""Wait for the end of children until process argument 0 has ended; result = its wait status (wait(2))."""
OP_CALL_EACH = 10
"""As OP_CALL, once for each bit that is set in argument 5, with the number of the bit as argument 1."""
OPERATION_COUNT = 11

HEAD = struct.Struct("<8I")
"""magic, size, steps, step count, registers, register count, descriptor count, 0."""
STEP = struct.Struct("<HHHHII6Q")
"""operation, arguments that are registers, result, tolerated, number, retries, arguments."""
REGISTER = struct.Struct("<Q")
REPORT = struct.Struct("<IiI")
"""kind, value (errno, pid or wait status), step of a failure."""

REPORT_FAILED = ord("F")
"""A step has failed. The other kinds are written by programs."""
