# SPDX-License-Identifier: Apache-2.0
"""What a manifest says about updates, in `custom.northstar`.

custom:
  northstar:
    floor: 1.0.2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from northstar.manifest.tree import fail
from northstar.names import Version

if TYPE_CHECKING:
    from northstar.manifest.model import Manifest

_PATH = "custom.northstar.floor"


def floor(manifest: Manifest) -> Version | None:
    """The lowest version that may run once this one has proved itself. Raises ManifestError."""
    section: Any = manifest.custom.get("northstar") if isinstance(manifest.custom, dict) else None
    value = section.get("floor") if isinstance(section, dict) else None
    if value is None:
        return None
    if not isinstance(value, str):
        fail(_PATH, "a version expected")
    try:
        version = Version.parse(value)
    except ValueError as error:
        fail(_PATH, str(error))
    if version > manifest.version:
        fail(_PATH, f"{version} is higher than the version of the container itself, {manifest.version}")
    return version
