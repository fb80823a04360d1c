# SPDX-License-Identifier: Apache-2.0
"""What a manifest allows: `custom.northstar.lint.allow`, a map from the id of a rule to a reason.

Instead of a reason there may be a map from subjects to reasons, where a subject may have wildcards (fnmatch).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from northstar.errors import ManifestError
from northstar.lint.rules import RULES, finding
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from northstar.lint.rules import Finding
    from northstar.manifest import Manifest

PLACE = "custom.northstar.lint.allow"


class Permit(NamedTuple):
    """One thing that is allowed."""

    rule: str
    subject: str
    reason: str

    def covers(self, found: Finding) -> bool:
        """Whether a finding is allowed by it."""
        return found.rule == self.rule and fnmatchcase(found.subject, self.subject)


class Sorted(NamedTuple):
    """Findings that stand, and those that are allowed with the reason."""

    findings: list[Finding]
    allowed: list[tuple[Finding, str]]


def permits(manifest: Manifest) -> list[Permit]:
    """What a manifest allows. Raises ManifestError."""
    node: Any = manifest.custom
    for key in ("northstar", "lint", "allow"):
        node = node.get(key) if isinstance(node, dict) else None
    if node is None:
        return []
    found = []
    for rule, value in _map(node, PLACE).items():
        if rule not in RULES:
            raise ManifestError(f"{PLACE}.{rule}: unknown rule; known are {', '.join(RULES)}")
        subjects = {"*": value} if isinstance(value, str) else _map(value, f"{PLACE}.{rule}")
        for subject, reason in subjects.items():
            if not isinstance(reason, str) or not reason.strip():
                raise ManifestError(f"{PLACE}.{rule}: a reason is expected, not {reason!r}")
            found.append(Permit(rule, subject, reason))
    return found


def apply(findings: Iterable[Finding], allowed: list[Permit], *, complete: bool) -> Sorted:
    """Sort findings. `complete`: files were looked at as well, so what is not needed can be told."""
    result = Sorted([], [])
    used: set[Permit] = set()
    for found in findings:
        matching = [permit for permit in allowed if permit.covers(found)]
        if matching:
            used.update(matching)
            result.allowed.append((found, matching[0].reason))
        else:
            result.findings.append(found)
    for permit in allowed:
        if complete and permit not in used:
            where = permit.rule if permit.subject == "*" else f"{permit.rule}: {permit.subject}"
            result.findings.append(finding("unused-allow", where, "it is allowed, and is not found"))
    return result


def _map(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: a map is expected, not {value!r}")
    return value
