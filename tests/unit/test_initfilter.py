# SPDX-License-Identifier: Apache-2.0
"""S-28: the filter of init, instruction by instruction: what it lets through, for which architecture."""

from __future__ import annotations

import errno

import pytest
from filtermachine import AUDIT_ARCH, action, number_of

from northstar.programs import initfilter

MACHINES = sorted(initfilter.AUDIT_ARCH)
ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


@pytest.mark.parametrize("machine", MACHINES)
def test_only_the_calls_of_init(machine: str) -> None:
    program = initfilter.program(machine)
    numbers = {number for number in range(600) if action(program, machine, number) == ALLOWED}
    assert {number_of(machine, name) for name in initfilter.CALLS} <= numbers
    assert len(numbers) == len(initfilter.CALLS) + 1
    assert {action(program, machine, number) for number in range(600)} == {ALLOWED, REFUSED}
    assert action(program, machine, 0xFFFFFFFF) == REFUSED


@pytest.mark.parametrize("machine", MACHINES)
def test_no_other_architecture(machine: str) -> None:
    """A number would be that of another call there."""
    program = initfilter.program(machine)
    for name, architecture in {**AUDIT_ARCH, "none": 0}.items():
        answers = {action(program, machine, number, arch=architecture) for number in range(600)}
        assert answers == ({ALLOWED, REFUSED} if name == machine else {KILLED})


def test_unknown_machine() -> None:
    assert initfilter.program("pdp11") == b""
