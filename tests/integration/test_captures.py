# SPDX-License-Identifier: Apache-2.0
"""docs/captures.md has the form of what tests/captures.py makes today."""

from __future__ import annotations

import re

import pytest
from abilities import has_mksquashfs, needs
from runtime import REPOSITORY, Runtime

DIFFERENT = ((r"\[.*", "["), (r"[0-9.]+( [KMG]?B)?", "0"), ("-+", "-"), (" +", " "))
"""What is not the same each time: the bar and behind it, numbers, and thereby widths, and the order."""


def form(text: str) -> list[str]:
    for pattern, replacement in DIFFERENT:
        text = re.sub(pattern, replacement, text)
    return sorted({line.rstrip() for line in text.splitlines()})


@needs(has_mksquashfs)
def test_captures(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "tests")
    import captures

    assert form(captures.document(runtime, size=2 << 20, delay="10ms")) == form(captures.OUT.read_text())
