# SPDX-License-Identifier: Apache-2.0
"""The state diagram of the documentation is current, and has every state."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from northstar.supervision import state
from tools import states

PICTURE = Path(__file__).resolve().parents[2] / "docs/supervision.svg"


def test_diagram_is_current() -> None:
    """Run `python3 -m tools.states > docs/supervision.svg`."""
    assert PICTURE.read_text() == states.svg() + "\n"
    ElementTree.fromstring(PICTURE.read_text())


def test_every_state_is_there() -> None:
    names = {*state.ALIVE, state.IDLE, state.WAITING, state.QUARANTINED}
    assert set(states.PLACES) == names
    assert {arrow.source for arrow in states.ARROWS} == names
    assert {arrow.target for arrow in states.ARROWS} == names
