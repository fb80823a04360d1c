# SPDX-License-Identifier: Apache-2.0
"""Where mount points are in a root directory: the runtime follows links, but only inside the image.

`place` does by hand what openat2(2) with RESOLVE_IN_ROOT does when a container starts, for a path that does
not have to exist.
"""

from __future__ import annotations

import os
import stat

from northstar.errors import NorthstarError
from northstar.manifest import extension, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.manifest import Manifest

MAX_LINKS = 40
"""MAXSYMLINKS of the kernel."""


def places(manifest: Manifest, root: str, warn: Callable[[str], None]) -> dict[str, str]:
    """For each mount point the path in the image that it leads to, in the order of the mount points.

    Raises NorthstarError about those that cannot be mounted on; `warn` is told which ones hide others.
    """
    found: dict[str, str] = {}
    by_place: dict[str, str] = {}
    for target in sorted(manifest.mounts):
        path = place(root, target)
        if path in by_place:
            warn(f"mount points {by_place[path]} and {target} are the same place, the second hides the first")
        _check_type(root, target, path, manifest.mounts[target])
        by_place[path] = target
        found[target] = path
    return found


def place(root: str, target: str) -> str:
    """The path without links that `target` leads to inside `root`. Raises NorthstarError."""
    done: list[str] = []
    rest = target.split("/")[::-1]
    links = 0
    while rest:
        component = rest.pop()
        if component in ("", "."):
            continue
        if component == "..":
            _check_directory(root, done, target, must_exist=True)
            done = done[:-1]
            continue
        _check_directory(root, done, target, must_exist=False)
        link = _link("/".join([root, *done, component]))
        if link is None:
            done.append(component)
            continue
        links += 1
        if links > MAX_LINKS:
            raise NorthstarError(f"mount point {target}: too many links in {root}")
        if link.startswith("/"):
            done = []
        rest += link.split("/")[::-1]
    if not done:
        raise NorthstarError(f"mount point {target}: it leads to the root of the image")
    return "/" + "/".join(done)


def is_file(mount: model.Mount, words: frozenset[str], warn: Callable[[str], None]) -> bool:
    """Whether a mount point that is to be made is a file.

    If the manifest does not say what that of a bind is, it is what the source is on this machine, if there is
    such a thing here, and `warn` is told.
    """
    if extension.FILE in words:
        return True
    if not isinstance(mount, model.Bind) or extension.DIRECTORY in words:
        return False
    if not os.path.exists(mount.host) or os.path.isdir(mount.host):
        return False
    warn(
        f"{mount.host} is a file on this machine, so its mount point becomes one; 'file' or 'directory' in "
        "custom.northstar.mounts would not depend on the machine"
    )
    return True


def _link(path: str) -> str | None:
    """Where a link leads to, None if it is none."""
    try:
        return os.readlink(path)
    except OSError:  # there is nothing, or something else
        return None


def _check_directory(root: str, components: list[str], target: str, *, must_exist: bool) -> None:
    path = "/".join(["", *components])
    try:
        mode = os.lstat(f"{root}{path}").st_mode
    except FileNotFoundError:
        if must_exist:
            raise NorthstarError(f"mount point {target}: there is no {path} in {root}") from None
        return
    except OSError as error:
        raise NorthstarError(f"mount point {target}: {root}{path}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise NorthstarError(f"mount point {target}: {path} in {root} is no directory")


def _check_type(root: str, target: str, path: str, mount: model.Mount) -> None:
    """Only a file can be mounted on a file; of some mounts it is not known what they are on the device."""
    if not isinstance(mount, model.Bind | model.Resource) and os.path.lexists(f"{root}{path}"):
        _check_directory(root, path.split("/")[1:], target, must_exist=True)
