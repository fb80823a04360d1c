# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests: no limits of time, which a busy machine would break. The layer's Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
