# SPDX-License-Identifier: Apache-2.0
"""From the rules of a manifest to a filter program (seccomp(2)), for a machine and its 32-bit programs.

A call that a rule allows is made. One that no rule allows ends the process with SIGSYS if it is of the
generation of the profile `default`; newer ones, and numbers that mean nothing, fail with ENOSYS, so that
libraries fall back to what there was before. Programs are worked out once per package, when it is loaded.
"""

from __future__ import annotations

import errno
import os

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import bpf, profile, syscalls
from northstar.sizes import MAX_U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Rules = dict[str, list[ArgRule] | None]

ENOSYS = bpf.ERRNO | errno.ENOSYS

AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
"""linux/audit.h"""

_X32 = [(0x40000000, bpf.KILL_PROCESS), (0xFFFFFFFF, ENOSYS)]
"""The numbers of the ABI x32, which has the architecture of x86_64; -1 is what tracers make of a call."""

MAX_VALUES = 1000
"""Of all rules together."""
MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of the kernel."""


class SeccompError(ValueError):
    """A rule cannot be compiled; the message names it."""


def rules_of(seccomp: Seccomp, capabilities: Iterable[str]) -> Rules:
    """All rules by name of the call: the profile's, those that capabilities add, and the manifest's own.

    None allows any arguments.
    """
    rules: Rules = {"execve": None}
    if seccomp.profile == "default":
        _add_default_profile(rules, frozenset(capabilities))
    for name, rule in (seccomp.allow or {}).items():
        _add(rules, name, rule)
    return rules


def _add_default_profile(rules: Rules, capabilities: frozenset[str]) -> None:
    for name in (*profile.BASE, *profile.X86_64, *profile.BITS_32):
        _add(rules, name, None)
    _add(rules, "personality", ArgRule(0, profile.PERSONALITIES, None))
    for capability in capabilities:
        for name in profile.BY_CAPABILITY.get(capability, ()):
            _add(rules, name, None)
    _add(rules, "clone", ArgRule(0, None, MAX_U64 & ~profile.CLONE_NAMESPACE_FLAGS))


def _add(rules: Rules, name: str, rule: ArgRule | None) -> None:
    """Rules are alternatives; one without conditions makes all others of its call pointless."""
    if rule is None or rules.get(name, []) is None:
        rules[name] = None
    else:
        rules[name] = [*(rules.get(name) or []), rule]


def check(seccomp: Seccomp, capabilities: Iterable[str]) -> None:
    """Whether a package with these rules can be installed on every machine.

    Raises SeccompError, also for a system call that no architecture has: it is a mistake.
    """
    for name in unknown_calls(seccomp):
        raise SeccompError(f"seccomp: no architecture has a system call {name!r}")
    capabilities = tuple(capabilities)
    for machine in syscalls.COMPATIBLE:
        compile_filter(seccomp, capabilities, machine)


def unknown_calls(seccomp: Seccomp) -> list[str]:
    """Names in the rules that no architecture has, as far as this runtime knows; they have no effect."""
    return syscalls.unknown(seccomp.allow) if seccomp.allow else []


def compile_filter(seccomp: Seccomp, capabilities: Iterable[str], machine: str | None = None) -> bytes:
    """The BPF program for the machine at hand, or for another `machine` (x86_64, aarch64).

    Raises SeccompError.
    """
    machine = machine or os.uname().machine
    if machine not in syscalls.COMPATIBLE:
        raise SeccompError(f"seccomp: there are no filters for the architecture {machine}")
    rules = rules_of(seccomp, capabilities)
    values = sum(len(rule.values or ()) for conditions in rules.values() for rule in conditions or ())
    if values > MAX_VALUES:
        raise SeccompError(f"seccomp: {values} values in all rules, at most {MAX_VALUES} are possible")
    # Its flags are in memory, where a filter cannot look; C libraries then fall back to clone.
    without_clone3 = seccomp.profile == "default" and "clone3" not in rules
    code = bpf.by_architecture(
        {
            AUDIT_ARCH[architecture]: _program(architecture, rules, without_clone3=without_clone3)
            for architecture in (machine, syscalls.COMPATIBLE[machine])
        }
    )
    if len(code) > MAX_INSTRUCTIONS:
        raise SeccompError(f"seccomp: {len(code)} instructions, at most {MAX_INSTRUCTIONS} are possible")
    return b"".join(code)


def _program(architecture: str, rules: Rules, *, without_clone3: bool) -> list[bytes]:
    """What happens with the calls of one architecture."""
    verdicts: dict[int, int | list[ArgRule]] = {}
    for name, number in syscalls.numbers(architecture).items():
        if name in rules:
            conditions = rules[name]
            verdicts[number] = bpf.ALLOW if conditions is None else conditions
        elif name == "clone3" and without_clone3:
            verdicts[number] = ENOSYS
        elif syscalls.is_of_generation(name, number):
            verdicts.setdefault(number, bpf.KILL_PROCESS)
    return bpf.by_number(verdicts, ENOSYS, _X32 if architecture == "x86_64" else ())
