# SPDX-License-Identifier: Apache-2.0
"""The diagram of the documentation is current, and has every phase and result."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from northstar.updates import journal
from tools import updatephases

PICTURE = Path(__file__).resolve().parents[2] / "docs/updates.svg"


def test_diagram_is_current() -> None:
    """Run `python3 -m tools.updatephases > docs/updates.svg`."""
    assert PICTURE.read_text() == updatephases.svg() + "\n"
    ElementTree.fromstring(PICTURE.read_text())


def test_every_phase_is_there() -> None:
    """`aborted` shares the box of `cancelled`."""
    names = {*journal.PHASES, *journal.RESULTS} - {journal.ABORTED}
    assert set(updatephases.PLACES) == {updatephases.START, *names}
    assert {arrow.target for arrow in updatephases.ARROWS} == names
