# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests: no limits of time, which a busy machine would break. The layer's Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from agentrig import Rig
    from ddiserver import DdiServer

settings.register_profile("northstar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("northstar")

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS.parent / "lib"))
# The scripted fleet server, which integration tests use on the device as well.
sys.path.append(str(TESTS / "integration"))


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that cut the power by other means: nobody waits for the disk of this machine."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# --- the update agent


@pytest.fixture
def server() -> Iterator[DdiServer]:
    """An update server that is scripted."""
    from ddiserver import serving

    with serving() as server:
        yield server


@pytest.fixture
def rig(server: DdiServer, tmp_path: Path) -> Rig:
    """An agent of that server."""
    from agentrig import Rig

    return Rig(server.device, tmp_path)


@pytest.fixture
def hello(server: DdiServer) -> dict[str, Any]:
    """A module that the server can assign."""
    from agentrig import PACKAGE

    return server.module("hello", "1.0.1", PACKAGE)
