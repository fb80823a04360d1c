# SPDX-License-Identifier: Apache-2.0
"""System calls that a filter may not know: newer ones, those of 32-bit programs, and names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from filtermachine import (
    ALLOW,
    AUDIT_ARCH,
    AUDIT_ARCH_32,
    CLONE_NEW,
    CONDITIONAL,
    DESCRIBED,
    ENOSYS,
    FOREIGN,
    FORK,
    HIGHEST,
    KILL_PROCESS,
    MACHINE_OF,
    action,
    both,
    number_of,
    number_on,
    program_of,
)

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import compile as compiler
from northstar.seccomp import profile, syscalls, tables
from tools import syscalls as generator

ROOT = Path(__file__).resolve().parents[2]

# --- calls that are newer than the profile

NEWEST = 441
"""epoll_pwait2, Linux 5.11."""


@both
@pytest.mark.parametrize("default", [True, False], ids=["default", "own list"])
def test_calls_that_are_newer_than_the_profile(machine: str, default: bool) -> None:
    """Libraries try them and fall back: fchmodat2 (452), Landlock (444), whatever comes next."""
    program = program_of(machine, default=default)
    for architecture in (AUDIT_ARCH[machine], FOREIGN[syscalls.COMPATIBLE[machine]]):
        for number in (*range(NEWEST + 1, HIGHEST), 1023, 1024, 65535, 0xE0000):
            assert action(program, machine, number, arch=architecture) == ENOSYS, number


@both
def test_newer_call_that_a_rule_allows(machine: str) -> None:
    program = program_of(machine, {"fchmodat2": None, "mseal": ArgRule(2, (0,), None)})
    assert action(program, machine, 452) == ALLOW
    assert action(program, machine, 462, 1, 2, 0) == ALLOW
    # Known now, and its arguments are wrong.
    assert action(program, machine, 462, 1, 2, 1) == KILL_PROCESS
    assert action(program, machine, 463) == ENOSYS
    program = program_of(machine, capabilities=["CAP_SYS_ADMIN"])
    assert action(program, machine, 442) == ALLOW  # mount_setattr


@both
def test_numbers_that_are_not_in_use(machine: str) -> None:
    """Among them those of uretprobe and uprobe of x86_64, which the kernel calls for the program."""
    program = program_of(machine)
    unused = range(335, 424) if machine == "x86_64" else (*range(244, 260), *range(296, 424))
    assert {action(program, machine, number) for number in unused} == {ENOSYS}


@pytest.mark.parametrize("architecture", MACHINE_OF)
def test_documented_list_of_calls_that_end_the_process(architecture: str) -> None:
    """The manual names each of them, and each that it names does."""
    text = (ROOT / "docs/manifest.md").read_text()
    documented = dict(_documented(text))
    names = documented["all"] | documented[architecture]
    machine = MACHINE_OF[architecture]
    audit = (AUDIT_ARCH | AUDIT_ARCH_32)[architecture]
    program = program_of(machine)
    found = set()
    for number in (*range(HIGHEST), *range(0xF0000, 0xF0010)):
        arguments = (0x40000000,)  # wrong for personality and clone, which are allowed with others
        if action(program, machine, number, *arguments, arch=audit) == KILL_PROCESS:
            found.add(number)
    assert found == {number_of(architecture, name) for name in names}
    assert min(found) >= 0


def _documented(text: str) -> Iterable[tuple[str, set[str]]]:
    table = text.partition("### What ends the process")[2].partition("\n## ")[0]
    for architectures, calls in re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", table, re.MULTILINE):
        for architecture in architectures.split(", "):
            yield architecture, set(re.findall(r"`([a-z0-9_]+)`", calls))


# --- 32-bit programs


@pytest.mark.parametrize("architecture", AUDIT_ARCH_32)
def test_default_profile_of_32_bit_programs(architecture: str) -> None:
    """The calls of the profile, by the numbers that they have there, and those that only they have."""
    machine, audit = MACHINE_OF[architecture], AUDIT_ARCH_32[architecture]
    program = program_of(machine)
    names = DESCRIBED["base"] | DESCRIBED["x86_64"] | DESCRIBED["32-bit"] | CONDITIONAL
    expected = {number_on(architecture, name) for name in names} - {None}
    numbers = (*range(HIGHEST), *range(0xF0000, 0xF0010))
    found = {number for number in numbers if action(program, machine, number, arch=audit) == ALLOW}
    assert found == expected


@pytest.mark.parametrize("architecture", AUDIT_ARCH_32)
def test_conditions_of_32_bit_programs(architecture: str) -> None:
    machine, audit = MACHINE_OF[architecture], AUDIT_ARCH_32[architecture]
    clone = number_of(architecture, "clone")
    assert action(program_of(machine), machine, clone, FORK, arch=audit) == ALLOW
    assert action(program_of(machine), machine, clone, CLONE_NEW["USER"], arch=audit) == KILL_PROCESS
    program = program_of(machine, {"acct": ArgRule(1, (5,), None)}, default=False)
    acct = number_of(architecture, "acct")
    assert action(program, machine, acct, 0, 5, arch=audit) == ALLOW
    assert action(program, machine, acct, 0, 6, arch=audit) == KILL_PROCESS


# --- names


def test_names_and_numbers_are_those_of_libseccomp() -> None:
    """As far as its version here knows them."""
    for architecture in tables.NUMBERS:
        for name, number in syscalls.numbers(architecture).items():
            theirs = number_of(architecture, name)
            # Pseudo numbers below -1 stand for calls that i386 has made direct ones later.
            assert theirs in (number, -1) or (theirs < -1 and architecture in AUDIT_ARCH_32), name


@pytest.mark.parametrize("name", ["make_coffee", "Read", "read ", "", "a" * 1000, "read=0", "sync_file"])
def test_call_that_nobody_knows(name: str) -> None:
    """A mistake when a package is made; on a device it may be of a kernel to come, and has no effect."""
    rules = Seccomp(None, {name: None, "read": None})
    with pytest.raises(compiler.SeccompError, match="no architecture has a system call"):
        compiler.check(rules, ())
    assert compiler.unknown_calls(rules) == [name]
    assert compiler.compile_filter(rules, ()) == compiler.compile_filter(Seccomp(None, {"read": None}), ())


@pytest.mark.parametrize("name", ["read", "mseal", "listns", "arm_fadvise64_64", "set_tls", "riscv_hwprobe"])
def test_call_that_some_architecture_has(name: str) -> None:
    compiler.check(Seccomp(None, {name: None}), ())


def test_check_finds_what_a_device_would_refuse() -> None:
    rules = {name: ArgRule(0, tuple(range(50)), None) for name in profile.BASE[:21] if name != "execve"}
    with pytest.raises(compiler.SeccompError, match="at most 1000"):
        compiler.check(Seccomp(None, rules | {"mount": ArgRule(0, (1,), None)}), ())


def test_table_is_made_from_the_files_of_go(tmp_path: Path) -> None:
    """The generator, with files as golang.org/x/sys has them."""
    directory = tmp_path / "sys@v1.2.3/unix"
    (directory / "linux").mkdir(parents=True)
    (directory / "linux/Dockerfile").write_text("RUN git clone --branch v9.8 --depth 1 https://x/linux")
    for name in ("amd64", "386", "arm64", "arm", "riscv64"):
        text = "const (\n\tSYS_READ = 3\n\tSYS__LLSEEK    = 140\n\tSYS_SYSCALL_MASK = 0\n)\n"
        own = "\tSYS_ARM_SYNC_FILE_RANGE = 341\n" if name == "arm" else "\tSYS_RISCV_X = 9\n"
        (directory / f"zsysnum_linux_{name}.go").write_text(
            text + (own if name in ("arm", "riscv64") else "")
        )
    made: dict[str, Any] = {}
    text = generator.module(directory)
    exec(text, made)
    assert "Linux 9.8" in text and "v1.2.3" in text
    assert made["NUMBERS"]["x86_64"].split() == ["read=3", "_llseek=140"]
    assert "sync_file_range2=341" in made["NUMBERS"]["arm"].split()
    assert "set_tls=983045" in made["NUMBERS"]["arm"].split()
    assert made["OTHERS"].split() == ["riscv_x"]
