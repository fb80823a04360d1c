# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests: no limits of time, which a busy machine would break. The layer's Python."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

settings.register_profile("northstar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("northstar")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "lib"))
