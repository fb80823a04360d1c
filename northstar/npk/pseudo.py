# SPDX-License-Identifier: Apache-2.0
"""Mount points that the image must have, as pseudo file definitions of mksquashfs(1)."""

from __future__ import annotations

import os

from northstar.errors import NorthstarError
from northstar.manifest import extension, model
from northstar.npk import mountpoints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from northstar.manifest import Manifest

DEVICES = (
    ("full", 1, 7, "null_device"),
    ("null", 1, 3, "full_device"),
    ("random", 1, 8, "full_device"),
    ("tty", 5, 0, "owntty_device"),
    ("urandom", 1, 9, "random_device"),
    ("zero", 1, 5, "zero_device"),
)
LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
_MODES = {model.Proc: 0o444, model.Sysfs: 0o444, model.Resource: 0o555}


def definitions(manifest: Manifest, root: str, *, labels: bool, warn: Callable[[str], None]) -> list[str]:
    """One line for each directory, file, node or link that is not in `root`.

    With `labels` the nodes get SELinux labels, which takes mksquashfs 4.6. `warn` is told what may not be as
    it was meant. Raises NorthstarError about mount points that are not possible.
    """
    lines: dict[str, str] = {}
    files: dict[str, str] = {}
    owner = f"{manifest.uid} {manifest.gid}"
    words = extension.mounts(manifest)
    for target, place in mountpoints.places(manifest, root, warn).items():
        mount = manifest.mounts[target]
        for path in _missing(root, place):
            if path in files and path != place:
                raise NorthstarError(f"mount point {target}: {files[path]} is one for a file")
            lines.setdefault(path, f"{_quoted(path)} d {_mode(mount):o} {owner}")
        if place in lines and mountpoints.is_file(mount, words.get(target, frozenset()), warn):
            files[place] = target
            lines[place] = f"{_quoted(place)} f {_mode(mount) & ~0o111:o} {owner} true"
        if isinstance(mount, model.Dev):
            for path, definition, label in _dev(manifest, place):
                if path in lines or os.path.lexists(f"{root}{path}"):
                    continue
                lines[path] = f"{_quoted(path)} {definition.replace('OWNER', owner)}"
                if labels:
                    lines[f"{path} label"] = f"{_quoted(path)} x security.selinux={label}"
    if extension.notify_place(manifest) is not None:
        place = mountpoints.place(root, extension.NOTIFY_PLACE)
        for path in _missing(root, place):
            kind = "f 444" if path == place else "d 555"
            lines.setdefault(path, f"{_quoted(path)} {kind} {owner}{' true' if path == place else ''}")
    return list(lines.values())


def _mode(mount: model.Mount) -> int:
    if isinstance(mount, model.Bind):
        return 0o755 if "rw" in mount.options else 0o555
    return _MODES.get(type(mount), 0o755)


def _missing(root: str, place: str) -> Iterator[str]:
    """`place`, in which there are no links, and its parents as far as they are not in `root`, top down."""
    path = ""
    for component in place.split("/")[1:]:
        path = f"{path}/{component}"
        if not os.path.lexists(f"{root}{path}"):
            yield path


def _dev(manifest: Manifest, target: str) -> Iterator[tuple[str, str, str]]:
    for name, major, minor, label in DEVICES:
        yield f"{target}/{name}", f"c 666 OWNER {major} {minor}", f"u:object_r:{label}:s0"
    if isinstance(manifest.mounts.get("/proc"), model.Proc):
        for name, suffix in LINKS:
            yield f"{target}/{name}", f"s 777 OWNER /proc/self/fd{suffix}", "u:r:su:s0"


def _quoted(path: str) -> str:
    if "\n" in path:
        raise NorthstarError(f"mount point {path!r}: mksquashfs makes no names with line breaks")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
