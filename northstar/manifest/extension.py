# SPDX-License-Identifier: Apache-2.0
"""What this runtime reads of `custom.northstar`, which upstream accepts and ignores.

`mounts` has words about mount points, separated by commas as in `options`:

    custom:
      northstar:
        mounts:
          /etc/service.conf: required,file
          /data: noexec
        floor: 1.0.2

`floor` is the lowest version that may run once this one has proved itself in an update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from northstar.manifest import model
from northstar.manifest.tree import fail
from northstar.names import Version

if TYPE_CHECKING:
    from northstar.manifest.model import Manifest

REQUIRED = "required"
"""Of a bind: without its source the container does not start."""
FILE, DIRECTORY = "file", "directory"
"""Of a bind or resource: what the packer makes as its mount point."""
NOEXEC = "noexec"
"""Of a persist mount: no program can be executed there."""

_PATH = "custom.northstar.mounts"
_FLOOR = "custom.northstar.floor"
_WORDS: dict[type, tuple[str, ...]] = {
    model.Bind: (REQUIRED, FILE, DIRECTORY),
    model.Persist: (NOEXEC,),
    model.Resource: (FILE, DIRECTORY),
}


def mounts(manifest: Manifest) -> dict[str, frozenset[str]]:
    """The words of each mount point that has some. Raises ManifestError."""
    found: dict[str, frozenset[str]] = {}
    for text, value in _members(_members(manifest.custom, "northstar"), "mounts").items():
        path, target = f"{_PATH}.{text}", model.mount_point(text)
        if target not in manifest.mounts:
            fail(path, f"there is no mount point {target} in mounts")
        if target in found:
            fail(path, f"duplicate mount point {target}")
        found[target] = _words(value, type(manifest.mounts[target]), path)
    return found


def floor(manifest: Manifest) -> Version | None:
    """The floor that a manifest asks for, None if it asks for none. Raises ManifestError."""
    section = manifest.custom.get("northstar") if isinstance(manifest.custom, dict) else None
    value = section.get("floor") if isinstance(section, dict) else None
    if value is None:
        return None
    if not isinstance(value, str):
        fail(_FLOOR, "a version is expected")
    try:
        version = Version.parse(value)
    except ValueError as error:
        fail(_FLOOR, str(error))
    if version > manifest.version:
        fail(_FLOOR, f"{version} is higher than the container's own version {manifest.version}")
    return version


def restarts(manifest: Manifest) -> bool:
    """Whether the container has a restart policy, so that it comes back when it ends."""
    section = manifest.custom.get("northstar") if isinstance(manifest.custom, dict) else None
    policy = section.get("restart") if isinstance(section, dict) else None
    if isinstance(policy, dict):
        policy = policy.get("policy")
    return policy not in (None, "never")


def _members(value: Any, key: str) -> dict[str, Any]:
    """A map in a map; nothing if there is none, as `custom` may be anything."""
    member = value.get(key) if isinstance(value, dict) else None
    return member if isinstance(member, dict) else {}


def _words(value: Any, kind: type, path: str) -> frozenset[str]:
    if not isinstance(value, str):
        fail(path, "a text of words separated by commas is expected")
    known = _WORDS.get(kind, ())
    words = [word.strip() for word in value.split(",")]
    for word in words:
        if word not in known:
            fail(path, f"unknown word {word!r}; known here are: {', '.join(known) or 'none'}")
    if FILE in words and DIRECTORY in words:
        fail(path, f"{FILE} and {DIRECTORY} exclude each other")
    return frozenset(words)
