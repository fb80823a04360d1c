# SPDX-License-Identifier: Apache-2.0
"""Whether a program is well-formed: the same rules that the engine applies to what it receives."""

from __future__ import annotations

from northstar.engine import instructions as isa

_JUMPS = (isa.OP_CLONE, isa.OP_JUMP_NEGATIVE, isa.OP_HANDLER)
_ERRNO_ARGUMENT = {isa.OP_COMPARE: 4, isa.OP_EXPECT: 2}


class InvalidProgram(ValueError):
    """Names the step and what is wrong with it."""


def validate(head: bytes, memory: bytes, descriptors: int) -> None:
    """Check a program that comes with so many descriptors, the memfd not counted. Raises InvalidProgram."""
    if len(head) != isa.HEAD.size:
        raise InvalidProgram(f"a head of {len(head)} bytes")
    magic, size, steps, step_count, registers, register_count, wanted, reserved = isa.HEAD.unpack(head)
    _require(magic == isa.PROGRAM_MAGIC and reserved == 0, "this is no program")
    _require(0 < size <= isa.PROGRAM_LIMIT and size == len(memory), f"{size} bytes")
    _require(steps % 4096 == 0, f"steps at {steps}")
    _require(_has_room(steps, size, step_count, isa.STEP.size), f"{step_count} steps at {steps}")
    _require(_has_room(registers, steps, register_count, isa.REGISTER.size), f"{register_count} registers")
    _require(register_count <= isa.NO_REGISTER, f"{register_count} registers")
    _require(wanted == descriptors and wanted <= register_count, f"{descriptors} descriptors for {wanted}")
    for index in range(step_count):
        _check(isa.STEP.unpack_from(memory, steps + index * isa.STEP.size), index, step_count, register_count)


def _check(step: tuple[int, ...], index: int, step_count: int, register_count: int) -> None:
    operation, from_register, result, _, number, _, *arguments = step
    _require(operation < isa.OPERATION_COUNT, f"step {index}: unknown operation {operation}")
    _require(from_register < 1 << 6, f"step {index}: argument kinds {from_register:#x}")
    _require(result == isa.NO_REGISTER or result < register_count, f"step {index}: register {result}")
    for position, argument in enumerate(arguments):
        if from_register >> position & 1:
            _require(argument < register_count, f"step {index}: register {argument}")
    if operation in _JUMPS:
        _require(index < number < step_count, f"step {index}: goes on at {number}")
    position = _ERRNO_ARGUMENT.get(operation, -1)
    if position >= 0:
        constant = not from_register >> position & 1
        valid = constant and 0 < arguments[position] <= isa.MAX_ERRNO
        _require(valid, f"step {index}: errno {arguments[position]}")


def _has_room(begin: int, end: int, count: int, each: int) -> bool:
    return begin % 8 == 0 and begin <= end and count * each <= end - begin


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidProgram(problem)
