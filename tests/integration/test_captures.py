# SPDX-License-Identifier: Apache-2.0
"""docs/captures.md and docs/session.svg have the form of what tests/captures.py makes today."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from abilities import has_mksquashfs, needs
from runtime import REPOSITORY, Runtime

DIFFERENT = (
    (r"cpu [0-9].*", "machine"),
    (r"\[.*", "["),
    (r"[0-9.]+( [KMG]?B)?", "0"),
    ("-+", "-"),
    (" +", " "),
)
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


def words(text: str) -> list[str]:
    """Of a session, but for temporary directories, pids, and the echo of Ctrl-C, which may be anywhere."""
    return re.sub(r"/tmp/\S+|\d{3,}|\^C", "", re.sub("\x1b\\[[0-9;]*m", "", text)).split()


@needs(has_mksquashfs)
def test_session_of_the_readme(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "tests")
    import captures

    drawn = ElementTree.fromstring(captures.SESSION.read_text())
    texts = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    shown = words(" ".join(texts).replace("\xa0", " "))
    for word in words(captures.session(runtime.base)):
        assert word in shown, (word, shown)
