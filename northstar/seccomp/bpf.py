# SPDX-License-Identifier: Apache-2.0
"""Classic BPF programs that decide about a system call (seccomp(2), linux/filter.h).

A program is a list of `struct sock_filter` over `struct seccomp_data`; jumps are relative and go forward.
"""

from __future__ import annotations

import struct
from itertools import groupby

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from northstar.manifest.model import ArgRule

    Code = list[bytes]

    # An action, or conditions of which one must hold for ALLOW; else it is KILL_PROCESS.
    Verdict = int | list[ArgRule]

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
"""The low 16 bits are the errno."""

_LOAD_WORD = 0x20
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_NOT_LESS = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06

_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16
_WORD = (1 << 32) - 1
_FARTHEST = 255
"""Instructions that a conditional jump can skip."""
_VALUES_AT_ONCE = 200


def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`; the jumps skip so many instructions."""
    return struct.pack("<HBBI", code, if_true, if_false, operand)


def give(action: int) -> Code:
    """End with an action."""
    return [instruction(_RETURN, action)]


def by_architecture(programs: Mapping[int, Code]) -> Code:
    """The program of the caller's architecture (AUDIT_ARCH_*); others end the process."""
    code = [instruction(_LOAD_WORD, _ARCHITECTURE)]
    for architecture, program in programs.items():
        code += _unless(_JUMP_EQUAL, architecture, program)
    return code + give(KILL_PROCESS)


def by_number(
    verdicts: Mapping[int, Verdict], otherwise: int, above: Sequence[tuple[int, Verdict]] = ()
) -> Code:
    """A search for the number of the call; `otherwise` is the action for numbers without a verdict.

    `above` are ranges above all numbers with a verdict: each begins at its number and ends at the next one.
    """
    ranges: list[tuple[int, Verdict]] = []
    following = 0
    for number, verdict in sorted(verdicts.items()):
        if following < number:
            _append(ranges, following, otherwise)
        _append(ranges, number, verdict)
        following = number + 1
    for number, verdict in ((following, otherwise), *above):
        _append(ranges, number, verdict)
    return [instruction(_LOAD_WORD, _NUMBER), *_search(ranges)]


def _append(ranges: list[tuple[int, Verdict]], number: int, verdict: Verdict) -> None:
    """Another range, unless it continues the last one."""
    if not ranges or ranges[-1][1] != verdict:
        ranges.append((number, verdict))


def _search(ranges: Sequence[tuple[int, Verdict]]) -> Code:
    """Binary search: each range begins at its number and ends where the next one begins."""
    if len(ranges) == 1:
        verdict = ranges[0][1]
        return give(verdict) if isinstance(verdict, int) else _one_of(verdict)
    middle = len(ranges) // 2
    below = _search(ranges[:middle])
    return _unless_not_less(ranges[middle][0], below) + _search(ranges[middle:])


def _one_of(rules: Sequence[ArgRule]) -> Code:
    """ALLOW if the arguments meet one of the conditions."""
    code: Code = []
    for rule in rules:
        if rule.values:
            code += _equals(rule.index, rule.values)
        if rule.mask is not None:
            code += _within(rule.index, rule.mask)
    return code + give(KILL_PROCESS)


def _equals(index: int, values: Sequence[int]) -> Code:
    """ALLOW if the argument is one of the values; else go on. Values with the same upper half go together."""
    code: Code = []
    for upper, group in groupby(sorted(set(values)), lambda value: value >> 32):
        lower = [value & _WORD for value in group]
        for first in range(0, len(lower), _VALUES_AT_ONCE):
            code += _load_upper(index)
            code += _unless(_JUMP_EQUAL, upper, _any_of(index, lower[first : first + _VALUES_AT_ONCE]))
    return code


def _any_of(index: int, lower: Sequence[int]) -> Code:
    """ALLOW if the lower half of the argument is one of the values; else go on."""
    *others, last = lower
    code = _load_lower(index)
    for position, value in enumerate(others):
        code.append(instruction(_JUMP_EQUAL, value, if_true=len(others) - position))
    return [*code, instruction(_JUMP_EQUAL, last, if_false=1), *give(ALLOW)]


def _within(index: int, mask: int) -> Code:
    """ALLOW if no bit outside of the mask is set; else go on."""
    upper, lower = ~mask >> 32 & _WORD, ~mask & _WORD
    return [
        *_load_upper(index),
        instruction(_JUMP_ANY_BIT, upper, if_true=3),
        *_load_lower(index),
        instruction(_JUMP_ANY_BIT, lower, if_true=1),
        *give(ALLOW),
    ]


def _load_lower(index: int) -> Code:
    """Both machines are little-endian."""
    return [instruction(_LOAD_WORD, _ARGUMENTS + 8 * index)]


def _load_upper(index: int) -> Code:
    return [instruction(_LOAD_WORD, _ARGUMENTS + 8 * index + 4)]


def _unless(code: int, operand: int, block: Code) -> Code:
    """A block that is skipped unless the condition holds."""
    if len(block) <= _FARTHEST:
        return [instruction(code, operand, if_false=len(block)), *block]
    return [instruction(code, operand, if_true=1), instruction(_JUMP, len(block)), *block]


def _unless_not_less(number: int, block: Code) -> Code:
    """A block that is skipped if the number is not less."""
    if len(block) <= _FARTHEST:
        return [instruction(_JUMP_NOT_LESS, number, if_true=len(block)), *block]
    return [instruction(_JUMP_NOT_LESS, number, if_false=1), instruction(_JUMP, len(block)), *block]
