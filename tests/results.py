# SPDX-License-Identifier: Apache-2.0
"""Results of tests and tiers, and their summary."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
NOTHING_SELECTED = 5
"""Exit code of pytest."""


class Result(NamedTuple):
    """Outcome of one test: `passed`, `failed` or `skipped`, and the reason of a skip."""

    test: str
    outcome: str
    reason: str = ""


class Tier(NamedTuple):
    """Results of one tier; `problem` says why it could not run completely."""

    name: str
    results: list[Result]
    seconds: float
    problem: str = ""

    def count(self, outcome: str) -> int:
        """How many tests ended like this."""
        return sum(result.outcome == outcome for result in self.results)


def finished(name: str, report: Path, code: int, seconds: float, *, selected: bool) -> Tier:
    """The tier of a pytest run that ended with `code`; 1 means that tests have failed.

    If tests were selected, it is no problem that there is none of them here.
    """
    results = read_report(report) if report.exists() else []
    if code == NOTHING_SELECTED and selected:
        return Tier(name, results, seconds)
    problem = "" if code in (0, 1) and results else f"pytest ended with {code}"
    return Tier(name, results, seconds, problem)


def read_report(path: Path) -> list[Result]:
    """The results in a JUnit report."""
    results = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.append(Result(test, FAILED))
        elif skipped is not None:
            results.append(Result(test, SKIPPED, skipped.get("message", "")))
        else:
            results.append(Result(test, PASSED))
    return results


def never_run(tiers: Sequence[Tier]) -> list[str]:
    """Tests that every tier skipped."""
    outcomes: dict[str, set[str]] = {}
    for tier in tiers:
        for result in tier.results:
            outcomes.setdefault(result.test, set()).add(result.outcome)
    return sorted(test for test, seen in outcomes.items() if seen == {SKIPPED})


def summarise(tiers: Sequence[Tier], on_demand: Mapping[str, Sequence[str]], *, complete: bool) -> int:
    """Print what was skipped and the sums; the exit code.

    `complete`: all tests of all tiers were meant to run. `on_demand` has the tiers that run if asked for,
    with the variables that they need.
    """
    print("\n=== summary ===")
    for tier in tiers:
        reasons: dict[str, int] = {}
        for result in tier.results:
            if result.outcome == SKIPPED:
                reasons[result.reason] = reasons.get(result.reason, 0) + 1
        for reason, count in sorted(reasons.items()):
            print(f"{tier.name}: {count} skipped: {reason}")
    broken = [tier for tier in tiers if tier.problem]
    unseen = never_run(tiers) if complete and not broken else []
    if complete:
        for name in on_demand.keys() - {tier.name for tier in tiers}:
            needs = f" with {', '.join(on_demand[name])}" if on_demand[name] else ""
            print(f"{name}: not run; tests/run --{name}{needs}")
    for test in unseen:
        print(f"no tier can run {test}")
    for tier in tiers:
        counts = ", ".join(f"{tier.count(outcome)} {outcome}" for outcome in (PASSED, FAILED, SKIPPED))
        problem = f" -- {tier.problem}" if tier.problem else ""
        print(f"{tier.name}: {counts} in {tier.seconds:.0f} s{problem}")
    failed = sum(tier.count(FAILED) for tier in tiers) + len(broken) + len(unseen)
    passed, skipped = (sum(tier.count(outcome) for tier in tiers) for outcome in (PASSED, SKIPPED))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
