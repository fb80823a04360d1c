# SPDX-License-Identifier: Apache-2.0
"""Filters at their limits: how long a program may be, and the ends of the generation of the profile."""

from __future__ import annotations

import errno

import pytest
from filtermachine import ALLOW, KILL_PROCESS, action, both, program_of

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import bpf, syscalls
from northstar.seccomp import compile as compiler

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of the kernel."""


def many(values: int) -> dict[str, ArgRule | None]:
    """Rules whose program has one more instruction for one more value, as only x86_64 has the call."""
    of_both = [name for name in syscalls.numbers("x86_64") if name in syscalls.numbers("i386")]
    rules: dict[str, ArgRule | None] = {
        name: ArgRule(0, None, mask) for mask, name in enumerate(of_both[:275])
    }
    return {**rules, "accept": ArgRule(1, tuple(range(values)), None)}


def length(values: int) -> int:
    return len(program_of("x86_64", many(values), default=False)) // 8


def test_longest_program() -> None:
    values = 2 + MAX_INSTRUCTIONS - length(2)
    assert length(values) == MAX_INSTRUCTIONS
    program = program_of("x86_64", many(values), default=False)
    accept = syscalls.numbers("x86_64")["accept"]
    assert action(program, "x86_64", accept, 0, values - 1) == ALLOW
    assert action(program, "x86_64", accept, 0, values) == KILL_PROCESS
    with pytest.raises(
        compiler.SeccompError, match=r"^seccomp: 4097 instructions, at most 4096 are possible$"
    ):
        length(values + 1)


@both
@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 250, 252, 253, 254, 255, 256, 257, 400, 401])
def test_many_values(machine: str, count: int) -> None:
    """Jumps reach 255 instructions."""
    first = 0x1_0000_0000 - count // 2
    values = range(first, first + count)
    program = program_of(machine, {"mseal": ArgRule(3, tuple(values), None), "read": None}, default=False)
    mseal = syscalls.numbers(machine)["mseal"]
    for value in (*values[:3], *values[-3:], *values[count // 2 - 1 : count // 2 + 2]):
        assert action(program, machine, mseal, 0, 0, 0, value) == ALLOW
    for value in (0, first - 1, first + count, first & 0xFFFFFFFF, first + (1 << 32)):
        assert value in values or action(program, machine, mseal, 0, 0, 0, value) == KILL_PROCESS
    assert action(program, machine, syscalls.numbers(machine)["read"]) == ALLOW


def test_values_of_all_rules() -> None:
    names = [name for name in syscalls.numbers("x86_64") if name != "execve"][:21]
    rules: dict[str, ArgRule | None] = {name: ArgRule(0, tuple(range(50)), None) for name in names[:20]}
    compiler.compile_filter(Seccomp(None, rules), ())
    with pytest.raises(compiler.SeccompError, match=r"^seccomp: 1001 values in all rules, at most 1000 "):
        compiler.compile_filter(Seccomp(None, rules | {names[20]: ArgRule(0, (1,), None)}), ())


@pytest.mark.parametrize(
    ("name", "number", "old"),
    [
        ("read", 0, True),
        ("epoll_pwait2", 441, True),
        ("mount_setattr", 442, False),
        ("of a kernel to come", 0xEFFFF, False),
        ("of 32-bit ARM", 0xF0000, True),
        ("breakpoint", 0xF0001, True),
        ("uretprobe", 335, False),
        ("uprobe", 336, False),
    ],
)
def test_generation_of_the_profile(name: str, number: int, old: bool) -> None:
    assert syscalls.is_of_generation(name, number) is old


@pytest.mark.parametrize(
    ("verdicts", "answers"),
    [
        ({}, {0: "no", 1: "no", 1 << 31: "no"}),
        ({0: ALLOW}, {0: "yes", 1: "no"}),
        ({1: ALLOW}, {0: "no", 1: "yes", 2: "no"}),
        ({0: ALLOW, 1: ALLOW, 3: ALLOW}, {0: "yes", 1: "yes", 2: "no", 3: "yes", 4: "no"}),
        ({5: KILL_PROCESS, 6: ALLOW}, {4: "no", 5: "end", 6: "yes", 7: "no"}),
    ],
)
def test_numbers_without_a_verdict(verdicts: dict[int, int], answers: dict[int, str]) -> None:
    otherwise = bpf.ERRNO | errno.EPERM
    program = b"".join(bpf.by_number(verdicts, otherwise, [(9, KILL_PROCESS), (11, otherwise)]))
    words = {"no": otherwise, "yes": ALLOW, "end": KILL_PROCESS}
    above = {8: "no", 9: "end", 10: "end", 11: "no"}
    found = {number: action(program, "x86_64", number) for number in answers | above}
    assert found == {number: words[word] for number, word in (answers | above).items()}
