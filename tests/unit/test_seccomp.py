# SPDX-License-Identifier: Apache-2.0
"""System call filters as the kernel would run them, for both architectures.

Integration tests see that the kernel takes and enforces filters. What a filter says about every call and
every kind of condition is seen here, by carrying out its program.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import compile as compiler
from northstar.seccomp import profile

# include/uapi/linux/audit.h, seccomp.h, asm-generic/errno.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FOREIGN = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3, "none": 0}
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ENOSYS = ERRNO | errno.ENOSYS

HIGHEST = 600
"""Above all numbers of system calls there are."""
X32_BIT = 0x40000000
U64 = (1 << 64) - 1
CLONE_NEW = {
    "NS": 0x00020000,
    "CGROUP": 0x02000000,
    "UTS": 0x04000000,
    "IPC": 0x08000000,
    "USER": 0x10000000,
    "PID": 0x20000000,
    "NET": 0x40000000,
}
FORK = 0x01200011
THREAD = 0x003D0F00

both = pytest.mark.parametrize("machine", AUDIT_ARCH)


# --- the kernel's part


def action(program: bytes, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What a program answers for a call: classic BPF over struct seccomp_data (seccomp(2))."""
    six = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *six)
    accumulator = position = 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("<HBBI", program, position * 8)
        position += 1
        match code:
            case 0x20:  # ld [constant]
                (accumulator,) = struct.unpack_from("<I", data, constant)
            case 0x54:  # and
                accumulator &= constant
            case 0x05:  # ja
                position += constant
            case 0x15:  # jeq
                position += if_true if accumulator == constant else if_false
            case 0x25:  # jgt
                position += if_true if accumulator > constant else if_false
            case 0x35:  # jge
                position += if_true if accumulator >= constant else if_false
            case 0x45:  # jset
                position += if_true if accumulator & constant else if_false
            case 0x06:  # ret
                return int(constant)
            case _:
                raise AssertionError(f"instruction {code:#x} is not known")


def number_of(machine: str, name: str) -> int:
    """Number of a call; negative if the architecture does not have it."""
    library = compiler._libseccomp()
    number: int = library.resolve_syscall(getattr(library.Arch, machine.upper()), name)
    return number


def numbers_of(machine: str, names: Iterable[str]) -> set[int]:
    return {number for name in names if (number := number_of(machine, name)) >= 0}


def program_of(
    machine: str,
    allow: dict[str, ArgRule | None] | None = None,
    capabilities: Iterable[str] = (),
    *,
    default: bool = True,
) -> bytes:
    rules = Seccomp("default" if default else None, allow or {})
    return compiler.compile_filter(rules, capabilities, machine)


def allowed(program: bytes, machine: str) -> set[int]:
    """Calls that are allowed with arguments of 0."""
    return {number for number in range(HIGHEST) if action(program, machine, number) == ALLOW}


# --- what is expected


def described() -> dict[str, set[str]]:
    """The sections of data/seccomp-default.conf."""
    sections: dict[str, set[str]] = {}
    name = ""
    for line in (Path(__file__).parent / "data/seccomp-default.conf").read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            sections.setdefault(name, set()).update(line.split())
    return sections


DESCRIBED = described()
CAPABILITIES = [name for name in DESCRIBED if name.startswith("CAP_")]
CONDITIONAL = {"clone", "personality"}
"""Allowed with an argument of 0."""


def base(machine: str) -> set[str]:
    return DESCRIBED["base"] | (DESCRIBED["x86_64"] if machine == "x86_64" else set()) | CONDITIONAL


def test_lists_are_those_that_are_described() -> None:
    """By name: a call that is known to neither architecture would have no effect and be missed below."""
    assert len(DESCRIBED["base"]) == 244
    assert set(profile.BASE) == DESCRIBED["base"]
    assert set(profile.X86_64) == DESCRIBED["x86_64"]
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


@both
@pytest.mark.parametrize("default", [True, False], ids=["default", "empty"])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_other_architectures(machine: str, default: bool, foreign: str) -> None:
    """S-36: numbers of another architecture mean other calls."""
    program = program_of(machine, default=default)
    for number in range(HIGHEST):
        assert action(program, machine, number, arch=FOREIGN[foreign]) == KILL_PROCESS


def test_each_architecture_is_foreign_to_the_other() -> None:
    for machine, other in (("x86_64", "aarch64"), ("aarch64", "x86_64")):
        assert action(program_of(machine), machine, 63, arch=AUDIT_ARCH[other]) == KILL_PROCESS


@pytest.mark.parametrize("default", [True, False], ids=["default", "empty"])
def test_x32(default: bool) -> None:
    """S-36: calls of the ABI x32 have the architecture of x86_64 and another number."""
    program = program_of("x86_64", default=default)
    for number in (*range(HIGHEST), 0x3FFFFFFF):
        assert action(program, "x86_64", X32_BIT | number) == KILL_PROCESS
    assert action(program, "x86_64", 0xFFFFFFFF) == KILL_PROCESS


@both
def test_call_of_another_architecture_is_ignored(machine: str) -> None:
    foreign = "sync_file_range2" if machine == "x86_64" else "arch_prctl"
    assert allowed(program_of(machine, {foreign: None}, default=False), machine) == {
        number_of(machine, "execve")
    }


@pytest.mark.parametrize("name", ["make_coffee", "Read", "read ", "", "a" * 1000])
def test_call_that_nobody_knows(name: str) -> None:
    with pytest.raises(compiler.SeccompError, match="no architecture has a system call"):
        compiler.compile_filter(Seccomp(None, {name: None}), ())


def test_filter_for_the_machine_at_hand() -> None:
    """The one that is used has the same program as the one that names its architecture."""
    library = compiler._libseccomp()
    machine = {value: name for name, value in arches(library).items()}[library.system_arch()]
    assert compiler.compile_filter(Seccomp("default", {}), ()) == program_of(machine)


def arches(library: Any) -> dict[str, int]:
    return {name: int(getattr(library.Arch, name.upper())) for name in AUDIT_ARCH}
