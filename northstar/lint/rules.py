# SPDX-License-Identifier: Apache-2.0
"""What is looked for: each rule has an id, a severity and the reason why a reviewer objects."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


class Rule(NamedTuple):
    """A kind of objection."""

    id: str
    severity: str
    reason: str


class Finding(NamedTuple):
    """An objection: which rule, what it is about (a path, a field, a name), and what is wrong with that."""

    rule: str
    subject: str
    message: str
    severity: str


_RULES = (
    # of the manifest
    Rule("root-user", ERROR, "root owns the device; a container never needs to be root, and cannot be"),
    Rule("privileged-group", WARNING, "members of this group can become root or read everything"),
    Rule(
        "host-network",
        WARNING,
        "all sockets of the device, those of other programs on loopback too, can be reached",
    ),
    Rule(
        "no-seccomp",
        WARNING,
        "every system call of the kernel can be made, and so every mistake in one be used",
    ),
    Rule("broken-filter", ERROR, "the package is refused, or the name has no effect"),
    Rule("no-memory-limit", WARNING, "a leak takes the memory of the whole device"),
    Rule("no-pids-limit", NOTE, "only the limit of the runtime's configuration stops a fork bomb"),
    Rule("writable-system-bind", ERROR, "a program that can change the system can take it over"),
    Rule("sensitive-bind", WARNING, "it shows devices, sockets or processes that are not the container's"),
    Rule(
        "missing-host-path", WARNING, "without its source a bind mount is left out, or the start is refused"
    ),
    Rule(
        "dangerous-capability", WARNING, "with this capability a program can take over the device, or nearly"
    ),
    Rule("powerful-console", WARNING, "a program that is taken over can replace or start others"),
    Rule("realtime-unlimited", WARNING, "an endless loop with real-time priority stops everything else"),
    Rule("output-lost", NOTE, "what the program prints goes nowhere"),
    # of the files
    Rule("set-id-file", WARNING, "it has no effect in a container, and makes one ask what it is there for"),
    Rule("device-node", WARNING, "it cannot be opened: images are mounted without devices"),
    Rule(
        "world-writable",
        WARNING,
        "nothing in an image can be written; the mode is a mistake or a trap elsewhere",
    ),
    Rule("missing-init", ERROR, "the container cannot start"),
    Rule("init-not-executable", ERROR, "the container cannot start"),
    Rule("missing-interpreter", ERROR, "the program cannot be executed"),
    Rule("missing-library", ERROR, "the dynamic linker ends the program"),
    Rule("wrong-architecture", ERROR, "the program cannot be executed on the device"),
    Rule("damaged-program", WARNING, "the program cannot be executed"),
    Rule("missing-mount-point", ERROR, "the start fails, as the image cannot be changed"),
    # of the permissions that a manifest gives
    Rule("unused-allow", NOTE, "what is allowed is not there; what is not needed hides what comes later"),
)

RULES = {rule.id: rule for rule in _RULES}


def finding(rule: str, subject: str, message: str, severity: str | None = None) -> Finding:
    """A finding, with the severity of the rule if it has no other."""
    return Finding(rule, subject, message, severity or RULES[rule].severity)
