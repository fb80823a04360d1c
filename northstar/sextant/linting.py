# SPDX-License-Identifier: Apache-2.0
"""The command `lint`."""

from __future__ import annotations

import argparse
import json

from northstar.errors import NorthstarError
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from northstar.lint.permit import Sorted
    from northstar.lint.rules import Finding

WARNINGS, ERRORS = 3, 4
"""Exit codes."""
_SHOWN = 5


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.set_defaults(run=run)
    files = parser.add_mutually_exclusive_group()
    files.add_argument("-r", "--root", metavar="DIR", help="root directory that belongs to the manifest")
    files.add_argument("-i", "--image", metavar="FILE", help="squashfs image that belongs to the manifest")
    parser.add_argument(
        "--host-root",
        metavar="DIR",
        help="root file system of the device, to look for sources of bind mounts and what is in them; "
        "without it the sources are looked for on this machine, and what is in them is taken as given",
    )
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        help="architecture of the device, as of `uname -m` (default: that of init, or of the imported image)",
    )
    parser.add_argument("-j", "--json", action="store_true", help="print JSON")
    parser.add_argument("--rules", action="store_true", help="print all rules with their reasons, and end")
    parser.add_argument("--unsquashfs", metavar="PATH", default="unsquashfs", help="program (%(default)s)")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="package, manifest, or directory with a manifest and `root` or fs.img",
    )


def run(options: argparse.Namespace) -> int:
    """Tell what a reviewer would object to in packages and manifests.

    What is intended is allowed in the manifest, with a reason: custom.northstar.lint.allow. The exit code is
    4 if there are errors, 3 if there are warnings, else 0.
    """
    from northstar.lint import programs, subject

    if options.rules:
        _print_rules(as_json=options.json)
        return 0
    if not options.paths:
        raise NorthstarError("nothing to look at", "name packages, manifests or directories")
    if len(options.paths) > 1 and (options.root or options.image):
        raise NorthstarError("--root and --image belong to one manifest", "name one path")
    machine = programs.machine_name(options.arch) if options.arch else None
    chosen = subject.Options(options.root, options.image, options.host_root, machine, options.unsquashfs)
    results = list(subject.subjects(options.paths, chosen))
    if options.json:
        print(json.dumps(_data(results), indent=2, ensure_ascii=False))
    else:
        _print(results)
    severities = {found.severity for _, result in results for found in result.findings}
    return ERRORS if "error" in severities else WARNINGS if "warning" in severities else 0


def _data(results: list[tuple[str, Sorted]]) -> dict[str, Any]:
    from northstar.lint.rules import SEVERITIES

    findings = [_entry(path, found) for path, result in results for found in result.findings]
    return {
        "findings": findings,
        "allowed": [
            {**_entry(path, found), "because": reason}
            for path, result in results
            for found, reason in result.allowed
        ],
        "counts": {name: sum(entry["severity"] == name for entry in findings) for name in SEVERITIES},
    }


def _entry(path: str, found: Finding) -> dict[str, str]:
    from northstar.lint.permit import PLACE
    from northstar.lint.rules import RULES

    return {
        "path": path,
        "id": found.rule,
        "severity": found.severity,
        "subject": found.subject,
        "message": found.message,
        "reason": RULES[found.rule].reason,
        "allow": f"{PLACE}.{found.rule}",
    }


def _print(results: list[tuple[str, Sorted]]) -> None:
    from northstar.lint.permit import PLACE
    from northstar.lint.rules import RULES, SEVERITIES

    counts = dict.fromkeys(SEVERITIES, 0)
    for path, result in results:
        for found in result.findings:
            counts[found.severity] += 1
        for (severity, rule), group in _grouped(result.findings):
            for found in group[:_SHOWN]:
                print(f"{path}: {severity}: {escape(found.subject)}: {escape(found.message)} [{rule}]")
            if len(group) > _SHOWN:
                print(f"{path}: {severity}: and {len(group) - _SHOWN} more [{rule}]")
            print(f"  {RULES[rule].reason}")
    allowed = sum(len(result.allowed) for _, result in results)
    print(", ".join(f"{count} {name}s" for name, count in counts.items()) + f", {allowed} allowed")
    if any(result.findings for _, result in results):
        print(f"What is intended is allowed in the manifest, with a reason: {PLACE}.ID: REASON")


def _grouped(findings: Iterable[Finding]) -> list[tuple[tuple[str, str], list[Finding]]]:
    """By severity, the worst first, and rule."""
    from northstar.lint.rules import SEVERITIES

    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.severity, found.rule), []).append(found)
    return sorted(groups.items(), key=lambda item: SEVERITIES.index(item[0][0]))


def _print_rules(*, as_json: bool) -> None:
    from northstar.lint.rules import RULES

    if as_json:
        print(json.dumps([rule._asdict() for rule in RULES.values()], indent=2))
        return
    width = max(len(name) for name in RULES)
    for rule in RULES.values():
        print(f"{rule.id:<{width}}  {rule.severity:<7}  {rule.reason}")
