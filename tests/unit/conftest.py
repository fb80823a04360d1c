# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests: no limits of time, which a busy machine would break."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("northstar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("northstar")
