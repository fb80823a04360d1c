# SPDX-License-Identifier: Apache-2.0
"""What the integrator of a device lets the packages of a repository ask for.

Whoever signs packages decides what is in their manifests; a policy says within which limits. It is part of
the configuration, and without one there are none. docs/configuration.md explains every rule.
"""

from northstar.policy.check import refusal, violations
from northstar.policy.model import Policy, Range

__all__ = ["Policy", "Range", "refusal", "violations"]
