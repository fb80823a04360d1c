# SPDX-License-Identifier: Apache-2.0
"""docs/troubleshooting.md: each error text is one of the code or of the C library, and has cause and cure."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")
GAP = "…"
SYSTEM = {os.strerror(number) for number in range(1, 134)}


def headings() -> list[tuple[str, str]]:
    """Each heading with the text below it."""
    parts = HEADING.split((ROOT / "docs/troubleshooting.md").read_text())[1:]
    return [(parts[i], parts[i + 1].partition("\n## ")[0]) for i in range(0, len(parts), 2)]


def texts(heading: str) -> list[str]:
    return QUOTED.findall(heading)


ALL = [text for heading, _ in headings() for text in texts(heading)]


def skeleton(node: ast.AST) -> str | None:
    """A text of the code, with a gap for each value."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(skeleton(part) or GAP for part in node.values)
    return None


def in_code() -> Iterator[str]:
    for path in (ROOT / "northstar").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = skeleton(node)
            if found is not None:
                yield found.replace("{}", GAP)


CODE = set(in_code())


@pytest.mark.parametrize("text", ALL)
def test_text_is_that_of_the_code(text: str) -> None:
    if text.removeprefix(f"{GAP}: ") in SYSTEM:
        return
    words = text.strip(GAP).strip()
    if words.startswith("signalled "):
        assert f"signalled {GAP}" in CODE
        return
    pattern = r"[^\n]*".join(re.escape(part) for part in words.split(GAP))
    assert [found for found in CODE if re.search(pattern, found)], text


def test_there_are_the_twenty_most_likely_ones() -> None:
    assert len(headings()) >= 20
    assert len(set(ALL)) == len(ALL)


@pytest.mark.parametrize(("heading", "text"), headings(), ids=[heading for heading, _ in headings()])
def test_cause_and_cure_are_told(heading: str, text: str) -> None:
    assert "*Cause:*" in text
    assert "*Cure:*" in text, heading


def test_a_text_that_is_nowhere_is_noticed() -> None:
    with pytest.raises(AssertionError):
        test_text_is_that_of_the_code("the moon is not valid for the key of the repository")
