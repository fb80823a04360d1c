# SPDX-License-Identifier: Apache-2.0
"""Our filters compared with those that libseccomp makes of the same rules."""

from __future__ import annotations

import functools
import tempfile

import pyseccomp
import pytest
from filtermachine import (
    ALLOW,
    AUDIT_ARCH,
    CAPABILITIES,
    CLONE_NEW,
    FORK,
    HIGHEST,
    KILL_PROCESS,
    LIBSECCOMP,
    U64,
    action,
    both,
    number_of,
    program_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import compile as compiler
from northstar.seccomp import profile

# --- the same rules, compiled by libseccomp


def reference(machine: str, rules: dict[str, list[ArgRule] | None]) -> bytes:
    """A filter with the same rules by somebody else; it ends the process where ours says ENOSYS."""
    made = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    made.remove_arch(pyseccomp.Arch.NATIVE)
    made.add_arch(getattr(pyseccomp.Arch, LIBSECCOMP[machine]))
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for name, conditions in rules.items():
        if number_of(machine, name) < 0:
            continue
        if conditions is None:
            made.add_rule(pyseccomp.ALLOW, name)
        for rule in conditions or []:
            for value in rule.values or ():
                made.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(rule.index, pyseccomp.EQ, value))
            if rule.mask is not None:
                outside = pyseccomp.Arg(rule.index, pyseccomp.MASKED_EQ, U64 & ~rule.mask, 0)
                made.add_rule(pyseccomp.ALLOW, name, outside)
    with tempfile.TemporaryFile("w+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


@functools.cache
def reference_of_profile(machine: str, capabilities: frozenset[str]) -> bytes:
    return reference(machine, compiler.rules_of(Seccomp("default", {}), capabilities))


@both
@pytest.mark.parametrize(
    "capabilities", [frozenset(), frozenset(("CAP_SYS_ADMIN",)), frozenset(CAPABILITIES)]
)
def test_profile_is_as_libseccomp_compiles_it(machine: str, capabilities: frozenset[str]) -> None:
    theirs = reference_of_profile(machine, capabilities)
    ours = program_of(machine, capabilities=capabilities)
    for number in range(HIGHEST):
        for first in (0, 8, FORK, CLONE_NEW["NS"], 1 << 32, U64):
            answers = (action(ours, machine, number, first), action(theirs, machine, number, first))
            assert (answers[0] == ALLOW) == (answers[1] == ALLOW), (number, first)


words = st.sampled_from([0, 1, 2, 0xFF, 0xFFFFFFFF, 1 << 32, 1 << 32 | 1, 1 << 63, U64]) | st.integers(0, U64)
conditions = st.builds(
    ArgRule,
    st.integers(0, 5),
    st.none() | st.lists(words, min_size=1, max_size=20).map(tuple),
    st.none() | words,
).filter(lambda rule: rule.values is not None or rule.mask is not None)


@settings(max_examples=150, deadline=None)
@given(
    machine=st.sampled_from(sorted(AUDIT_ARCH)),
    allow=st.dictionaries(
        st.sampled_from(["read", "write", "acct", "mount", "clone"]), st.none() | conditions, min_size=1
    ),
    arguments=st.lists(words, min_size=6, max_size=6),
)
def test_conditions_are_as_libseccomp_compiles_them(
    machine: str, allow: dict[str, ArgRule | None], arguments: list[int]
) -> None:
    ours = program_of(machine, allow, default=False)
    theirs = reference(machine, compiler.rules_of(Seccomp(None, allow), ()))
    values = {value for rule in allow.values() if rule for value in (*(rule.values or ()), rule.mask or 0)}
    for name in allow:
        number = number_of(machine, name)
        for value in (*values, *arguments):
            for given_arguments in (arguments, [value] * 6):
                expected = action(theirs, machine, number, *given_arguments)
                assert action(ours, machine, number, *given_arguments) == expected


def test_far_jumps() -> None:
    """Long lists of conditions lie between the two halves of the search."""
    rules = {name: ArgRule(0, tuple(range(0, 100, 2)), None) for name in profile.BASE[29:49]}
    program = program_of("x86_64", rules, default=False)
    for name in rules:
        assert action(program, "x86_64", number_of("x86_64", name), 98) == ALLOW
        assert action(program, "x86_64", number_of("x86_64", name), 99) == KILL_PROCESS
    many = program_of("x86_64", {"read": ArgRule(3, tuple(range(0, 2000, 2)), None)}, default=False)
    for value in (0, 398, 400, 402, 1998):
        assert action(many, "x86_64", 0, 9, 9, 9, value) == ALLOW
        assert action(many, "x86_64", 0, 9, 9, 9, value + 1) == KILL_PROCESS
