# SPDX-License-Identifier: Apache-2.0
"""System call filters as the kernel would run them, for both machines.

Integration tests see that the kernel takes and enforces filters. What a filter says about every call and
every kind of condition is seen here, by carrying out its program.
"""

from __future__ import annotations

import os

import pytest
from filtermachine import (
    ALLOW,
    AUDIT_ARCH,
    AUDIT_ARCH_32,
    CAPABILITIES,
    CLONE_NEW,
    CONDITIONAL,
    DESCRIBED,
    ENOSYS,
    FOREIGN,
    FORK,
    HIGHEST,
    KILL_PROCESS,
    MACHINE_OF,
    THREAD,
    U64,
    X32_BIT,
    action,
    allowed,
    base,
    both,
    number_of,
    numbers_of,
    program_of,
)

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import compile as compiler
from northstar.seccomp import profile


def test_lists_are_those_that_are_described() -> None:
    """By name: a call that is known to neither architecture would have no effect and be missed below."""
    assert len(DESCRIBED["base"]) == 244
    assert set(profile.BASE) == DESCRIBED["base"]
    assert set(profile.X86_64) == DESCRIBED["x86_64"]
    assert set(profile.BITS_32) == DESCRIBED["32-bit"]
    by_capability = {name: set(calls) for name, calls in profile.BY_CAPABILITY.items()}
    assert by_capability == {name: DESCRIBED[name] for name in CAPABILITIES}


@both
def test_names_exist_where_they_are_said_to(machine: str) -> None:
    """Names of the base list have a number on both architectures, those of x86_64 on that only."""
    assert not [name for name in DESCRIBED["base"] | CONDITIONAL if number_of(machine, name) < 0]
    assert {number_of(machine, name) >= 0 for name in DESCRIBED["x86_64"]} == {machine == "x86_64"}


def test_numbers_are_those_of_the_kernel() -> None:
    """A sample that does not come from libseccomp (syscall_64.tbl, asm-generic/unistd.h)."""
    known = {"read": (0, 63), "clone": (56, 220), "execve": (59, 221), "mount": (165, 40), "bpf": (321, 280)}
    for name, numbers in known.items():
        assert (number_of("x86_64", name), number_of("aarch64", name)) == numbers


# --- the profile


@both
def test_default_profile(machine: str) -> None:
    """S-36, ESR-01-013: exactly the described calls, of all that there are."""
    assert allowed(program_of(machine), machine) == numbers_of(machine, base(machine))


@both
@pytest.mark.parametrize("capability", [*CAPABILITIES, "CAP_NET_ADMIN", "CAP_KILL", "CAP_DAC_OVERRIDE"])
def test_capability(machine: str, capability: str) -> None:
    """ESR-01-013: each adds its own calls and no others; CAP_NET_ADMIN none."""
    expected = numbers_of(machine, base(machine) | DESCRIBED.get(capability, set()))
    assert allowed(program_of(machine, capabilities=[capability]), machine) == expected


@both
def test_all_capabilities(machine: str) -> None:
    expected = numbers_of(machine, base(machine).union(*(DESCRIBED[name] for name in CAPABILITIES)))
    assert allowed(program_of(machine, capabilities=CAPABILITIES), machine) == expected


@both
@pytest.mark.parametrize(
    "name", ["mount", "setns", "unshare", "bpf", "keyctl", "add_key", "kexec_load", "init_module", "reboot"]
)
def test_what_the_default_profile_is_for(machine: str, name: str) -> None:
    """S-36: named here, whatever the lists say."""
    assert action(program_of(machine), machine, number_of(machine, name)) == KILL_PROCESS


# --- clone


@both
@pytest.mark.parametrize("capabilities", [(), ("CAP_KILL",), ("CAP_SYS_ADMIN",)], ids=str)
def test_clone(machine: str, capabilities: tuple[str, ...]) -> None:
    """S-36: processes and threads for everybody, namespaces with CAP_SYS_ADMIN only."""
    program, clone = program_of(machine, capabilities=capabilities), number_of(machine, "clone")
    for flags in (0, FORK, THREAD, U64 & ~sum(CLONE_NEW.values())):
        assert action(program, machine, clone, flags) == ALLOW, hex(flags)
    expected = ALLOW if "CAP_SYS_ADMIN" in capabilities else KILL_PROCESS
    for name, flag in CLONE_NEW.items():
        for flags in (flag, flag | FORK, flag | 1 << 40):
            assert action(program, machine, clone, flags) == expected, name


@both
def test_clone3(machine: str) -> None:
    """Its flags are out of sight. ENOSYS makes C libraries use clone; a rule of the manifest overrides it."""
    number = number_of(machine, "clone3")
    assert action(program_of(machine), machine, number) == ENOSYS
    assert action(program_of(machine, {"clone3": None}), machine, number) == ALLOW
    assert action(program_of(machine, capabilities=["CAP_SYS_ADMIN"]), machine, number) == ALLOW
    assert action(program_of(machine, default=False), machine, number) == KILL_PROCESS


@both
def test_rule_of_the_manifest_for_clone(machine: str) -> None:
    program = program_of(machine, {"clone": None})
    assert action(program, machine, number_of(machine, "clone"), CLONE_NEW["USER"]) == ALLOW
    # Alternatives: it does not matter which argument of which rule fits.
    program = program_of(machine, {"clone": ArgRule(1, (7,), None)})
    clone = number_of(machine, "clone")
    for arguments, expected in (
        ((CLONE_NEW["USER"], 7), ALLOW),
        ((FORK, 0), ALLOW),
        ((CLONE_NEW["USER"], 0), KILL_PROCESS),
    ):
        assert action(program, machine, clone, *arguments) == expected


@both
def test_personalities(machine: str) -> None:
    program, number = program_of(machine), number_of(machine, "personality")
    for value in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert action(program, machine, number, value) == ALLOW, hex(value)
    for value in (0x1, 0x40000, 0x20009, 0xFFFFFFFE, U64, 1 << 32, 1 << 32 | 8):
        assert action(program, machine, number, value) == KILL_PROCESS, hex(value)


# --- conditions


@both
@pytest.mark.parametrize(
    ("rule", "fits", "fits_not"),
    [
        (ArgRule(0, (1, 5), None), (1, 5), (0, 2, 4, 6, 1 << 32 | 1, U64)),
        (ArgRule(0, (7,), None), (7,), (0, 7 << 32)),
        (ArgRule(0, (1, 1), None), (1,), (0, 2)),
        (ArgRule(0, (U64, 1 << 32, 0), None), (U64, 1 << 32, 0), (1, 0xFFFFFFFF, 0xFFFFFFFF << 32)),
        # Each half fits one of the values, but not both halves the same.
        (ArgRule(0, (1 << 32 | 2, 2 << 32 | 1), None), (1 << 32 | 2,), (1 << 32 | 1, 2 << 32 | 2, 2)),
        (ArgRule(0, tuple(range(0, 500, 10)), None), (0, 10, 490), (5, 500, 1)),
        (ArgRule(0, None, 0xF0), (0, 0x10, 0xF0), (0x11, 0x100, 1 << 32)),
        (ArgRule(0, None, 0), (0,), (1, 1 << 32, U64)),
        (ArgRule(0, None, U64), (0, 1, U64), ()),
        (ArgRule(0, None, 0xF0 << 32), (0, 0x10 << 32), (1, 0x100 << 32, 0x10 << 32 | 1)),
        (ArgRule(0, (1,), 6), (1, 0, 2, 4, 6), (3, 5, 7, 8, 1 << 32 | 1)),
        (ArgRule(0, (0xFF,), 0xF0 << 32), (0xFF, 0x10 << 32, 0), (0x10 << 32 | 0xFF, 1)),
        (ArgRule(0, (), 1), (0, 1), (2,)),
        (ArgRule(0, (), None), (), (0, 5)),
    ],
    ids=lambda value: str(value) if isinstance(value, ArgRule) else "",
)
@pytest.mark.parametrize("index", range(6))
def test_condition(
    machine: str, rule: ArgRule, fits: tuple[int, ...], fits_not: tuple[int, ...], index: int
) -> None:
    """S-36: every value counts, a mask is what may be set, both are alternatives; all 64 bits count."""
    program = program_of(machine, {"acct": ArgRule(index, rule.values, rule.mask)}, default=False)
    number = number_of(machine, "acct")
    for values, expected in ((fits, ALLOW), (fits_not, KILL_PROCESS)):
        for value in values:
            others = [U64 if expected == KILL_PROCESS else 3] * 6
            others[index] = value
            assert action(program, machine, number, *others) == expected, hex(value)


@both
def test_rule_of_the_manifest_on_top_of_the_profile(machine: str) -> None:
    """It adds to what the profile allows and takes nothing away, with conditions or without."""
    program = program_of(machine, {"keyctl": None, "read": ArgRule(0, (1,), None)})
    expected = numbers_of(machine, base(machine) | {"keyctl"})
    assert allowed(program, machine) == expected
    assert action(program, machine, number_of(machine, "read"), 99) == ALLOW


# --- without a profile, and what is no system call of the machine


@both
def test_empty_filter(machine: str) -> None:
    """S-36: `seccomp: {}` leaves execve, with any arguments."""
    program = program_of(machine, default=False)
    assert allowed(program, machine) == {number_of(machine, "execve")}
    program = program_of(machine, {"execve": ArgRule(0, (1,), None)}, default=False)
    assert action(program, machine, number_of(machine, "execve"), 5) == ALLOW
    assert action(program, machine, number_of(machine, "read")) == KILL_PROCESS


@both
@pytest.mark.parametrize("default", [True, False], ids=["default", "empty"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_other_architectures(machine: str, default: bool, foreign: str) -> None:
    """S-36: numbers of another architecture mean other calls."""
    program = program_of(machine, default=default)
    if foreign in AUDIT_ARCH_32 and MACHINE_OF[foreign] == machine:
        return  # below
    for number in range(HIGHEST):
        assert action(program, machine, number, arch=FOREIGN[foreign]) == KILL_PROCESS


def test_each_architecture_is_foreign_to_the_other() -> None:
    for machine, other in (("x86_64", "aarch64"), ("aarch64", "x86_64")):
        assert action(program_of(machine), machine, 63, arch=AUDIT_ARCH[other]) == KILL_PROCESS


@pytest.mark.parametrize("default", [True, False], ids=["default", "empty"])
def test_x32(default: bool) -> None:
    """S-36: calls of the ABI x32 have the architecture of x86_64 and another number."""
    program = program_of("x86_64", default=default)
    for number in (*range(HIGHEST), 0x3FFFFFFE):
        assert action(program, "x86_64", X32_BIT | number) == KILL_PROCESS
        assert action(program, "x86_64", 1 << 31 | number) == KILL_PROCESS


@both
def test_call_that_a_tracer_has_skipped(machine: str) -> None:
    """Its number is -1 then (seccomp(2)); it is no call of another ABI."""
    assert action(program_of(machine), machine, 0xFFFFFFFF) == ENOSYS


@both
def test_call_of_another_architecture_is_ignored(machine: str) -> None:
    foreign = "sync_file_range2" if machine == "x86_64" else "arch_prctl"
    assert allowed(program_of(machine, {foreign: None}, default=False), machine) == {
        number_of(machine, "execve")
    }


def test_machine_without_filters() -> None:
    with pytest.raises(compiler.SeccompError, match="riscv64"):
        compiler.compile_filter(Seccomp("default", {}), (), "riscv64")


def test_filter_for_the_machine_at_hand() -> None:
    """The one that is used has the same program as the one that names its architecture."""
    assert compiler.compile_filter(Seccomp("default", {}), ()) == program_of(os.uname().machine)
