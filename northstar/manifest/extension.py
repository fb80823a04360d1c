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


The sections about supervision have a reader of their own, `northstar.manifest.supervision`.
"""

from __future__ import annotations

from northstar.manifest import model
from northstar.manifest.tree import fail
from northstar.names import Version
from northstar.supervision.model import CRITICAL, DEFAULTS, SECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.manifest.model import Manifest
    from northstar.supervision.model import Settings

REQUIRED = "required"
"""Of a bind: without its source the container does not start."""
FILE, DIRECTORY = "file", "directory"
"""Of a bind or resource: what the packer makes as its mount point."""
NOEXEC = "noexec"
"""Of a persist mount: no program can be executed there."""

NOTIFY_PLACE = "/run/host/notify"
"""Where a container finds the socket for its notifications (systemd's container interface)."""

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
    value = _members(manifest.custom, "northstar").get("floor")
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


def supervision(manifest: Manifest) -> Settings:
    """What shall become of the container when it starts, runs and ends. Raises ManifestError."""
    section = _members(manifest.custom, "northstar")
    if all(section.get(key) is None for key in SECTIONS):
        return CRITICAL if manifest.autostart == "critical" else DEFAULTS
    # Most containers ask for nothing.
    from northstar.manifest import supervision

    return supervision.read(section, manifest)


def notify_place(manifest: Manifest) -> str | None:
    """The file that an image needs, so that the socket for notifications can be mounted there.

    None if the container has none, or if a mount of the manifest would hide it.
    """
    return reachable_notify_place(manifest) if supervision(manifest).notifies else None


def reachable_notify_place(manifest: Manifest) -> str | None:
    """The same of a container that is known to have such a socket."""
    hidden = any(f"{NOTIFY_PLACE}/".startswith(f"{target}/") for target in manifest.mounts)
    return None if hidden else NOTIFY_PLACE


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
