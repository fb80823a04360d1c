# SPDX-License-Identifier: Apache-2.0
"""Rules about the files of a container."""

from __future__ import annotations

from northstar.lint import files, programs
from northstar.lint.rules import finding
from northstar.lint.view import MISSING, View, components
from northstar.manifest import model
from northstar.npk import pseudo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.lint.files import Entry, Files
    from northstar.lint.rules import Finding
    from northstar.manifest import Manifest

_SET_ID, _STICKY, _WORLD_WRITABLE = 0o6000, 0o1000, 0o002


def check(
    manifest: Manifest, found: Files, *, packed: bool, host_root: str | None, machine: str | None
) -> Iterator[Finding]:
    """What is wrong with the files. `packed`: they are those of an image, to which nothing is added any more.

    `host_root` is the root of the device, if it is known; `machine` its architecture as of uname(2).
    """
    own_nodes = _own_nodes(manifest)
    for path, entry in sorted(found.entries.items()):
        if path not in own_nodes:
            yield from _entry(path, entry)
    if packed:
        yield from _mount_points(manifest, found)
    view = View(found, manifest, host_root)
    yield from programs.check(manifest, found, view, machine, everybody_owns=not packed)


def _entry(path: str, entry: Entry) -> Iterator[Finding]:
    if entry.kind == files.FILE and entry.mode & _SET_ID:
        yield finding("set-id-file", path, f"its mode is {entry.mode:04o}")
    if entry.kind in (files.CHARACTER, files.BLOCK):
        yield finding("device-node", path, "it is a device node")
    elif entry.kind != files.SYMLINK and entry.mode & _WORLD_WRITABLE and not _shared(entry):
        yield finding("world-writable", path, f"its mode is {entry.mode:04o}")


def _shared(entry: Entry) -> bool:
    """A directory such as /tmp, in which everybody has files of their own."""
    return entry.kind == files.DIRECTORY and bool(entry.mode & _STICKY)


def _own_nodes(manifest: Manifest) -> set[str]:
    """What `sextant pack` adds to an image for a mount of type `dev`."""
    return {
        "/" + "/".join((*components(target), name))
        for target, mount in manifest.mounts.items()
        if isinstance(mount, model.Dev)
        for name, *_ in pseudo.DEVICES
    }


def _mount_points(manifest: Manifest, found: Files) -> Iterator[Finding]:
    bare = View(found, manifest._replace(mounts={}), None)
    for target in sorted(manifest.mounts):
        outer = any(
            components(target)[: len(components(other))] == components(other)
            for other in manifest.mounts
            if other != target
        )
        # What is below another mount has to be in that.
        if not outer and bare.resolve(target).state == MISSING:
            yield finding("missing-mount-point", target, "it is not in the image")
