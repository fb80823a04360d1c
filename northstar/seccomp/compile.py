# SPDX-License-Identifier: Apache-2.0
"""Compiling a filter with libseccomp (seccomp(2), seccomp_rule_add(3)).

A call that no rule allows ends the process with SIGSYS. Done once per package, when it is loaded.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import profile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

Rules = dict[str, "list[ArgRule] | None"]
"""By name of the call; None allows any arguments."""

MAX_U64 = (1 << 64) - 1
_LIBRARIES = {"c": "libc.so.6", "seccomp": "libseccomp.so.2"}
_OPTIMIZE_AS_BINARY_TREE = 2
_UNKNOWN_CALL = -1

MAX_VALUES = 1000
"""Of all rules together. They are alternatives, each of several instructions, and take long to compile."""
MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of the kernel."""
_INSTRUCTION = 8


class SeccompError(ValueError):
    """A rule cannot be compiled; the message names it."""


def rules_of(seccomp: Seccomp, capabilities: Iterable[str]) -> Rules:
    """All rules: the profile's, those that capabilities add, and the manifest's own."""
    rules: Rules = {"execve": None}
    if seccomp.profile == "default":
        _add_default_profile(rules, frozenset(capabilities))
    for name, rule in seccomp.allow.items():
        _add(rules, name, rule)
    return rules


def _add_default_profile(rules: Rules, capabilities: frozenset[str]) -> None:
    for name in (*profile.BASE, *profile.X86_64):
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


def compile_filter(seccomp: Seccomp, capabilities: Iterable[str], architecture: str | None = None) -> bytes:
    """The BPF program for the machine at hand, or for another `architecture` (x86_64, aarch64).

    Raises SeccompError, also if libseccomp is missing.
    """
    library = _libseccomp()
    rules = rules_of(seccomp, capabilities)
    values = sum(len(rule.values or ()) for conditions in rules.values() for rule in conditions or ())
    if values > MAX_VALUES:
        raise SeccompError(f"seccomp: {values} values in all rules, at most {MAX_VALUES} are possible")
    made = library.SyscallFilter(library.KILL_PROCESS)
    if architecture is not None:
        made.remove_arch(library.Arch.NATIVE)
        made.add_arch(getattr(library.Arch, architecture.upper()))
    made.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    made.set_attr(library.Attr.CTL_OPTIMIZE, _OPTIMIZE_AS_BINARY_TREE)
    for name, conditions in rules.items():
        _check_name(library, name)
        _add_rule(library, made, name, conditions)
    if seccomp.profile == "default" and "clone3" not in rules:
        # Its flags are in memory, where a filter cannot look; C libraries then fall back to clone.
        made.add_rule(library.ERRNO(errno.ENOSYS), "clone3")
    program = _export(made)
    size = len(program) // _INSTRUCTION
    if size > MAX_INSTRUCTIONS:
        raise SeccompError(f"seccomp: {size} instructions, at most {MAX_INSTRUCTIONS} are possible")
    return program


def _check_name(library: ModuleType, name: str) -> None:
    """Calls of other architectures are fine and have no effect, names that nobody knows are mistakes."""
    if library.resolve_syscall(library.system_arch(), name) == _UNKNOWN_CALL:
        raise SeccompError(f"seccomp: no architecture has a system call {name!r}")


def _add_rule(library: ModuleType, made: Any, name: str, conditions: list[ArgRule] | None) -> None:
    arguments: list[Any] = []
    for rule in conditions or []:
        arguments += [library.Arg(rule.index, library.EQ, value) for value in rule.values or ()]
        if rule.mask is not None:
            arguments.append(library.Arg(rule.index, library.MASKED_EQ, MAX_U64 & ~rule.mask, 0))
    try:
        if conditions is None:
            made.add_rule(library.ALLOW, name)
        for argument in arguments:
            made.add_rule(library.ALLOW, name, argument)
    except OSError as error:
        if error.errno != errno.EDOM:  # it does not exist on this architecture
            raise SeccompError(f"seccomp: {name}: {error.strerror}") from None


def _export(made: Any) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(descriptor, "r+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _libseccomp() -> ModuleType:
    """pyseccomp, with the names of the libraries that it looks for.

    It asks ldconfig or gcc, and a lean image has neither.
    """
    import ctypes.util

    original = ctypes.util.find_library
    ctypes.util.find_library = lambda name: _LIBRARIES.get(name) or original(name)
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SeccompError(f"seccomp: libseccomp is not usable: {error}") from None
    finally:
        ctypes.util.find_library = original
    module: ModuleType = pyseccomp
    return module
