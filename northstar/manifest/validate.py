# SPDX-License-Identifier: Apache-2.0
"""Rules of a manifest that concern more than one field."""

from __future__ import annotations

import itertools

from northstar.manifest import extension, model
from northstar.manifest.tree import fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest.model import Manifest

MAX_SOCKETS = 64

RESERVED_PREFIX = "NORTHSTAR_"
"""Of variables that only the runtime sets; a manifest may have others than these, as upstream allows it."""
RESERVED_ENV = ("NORTHSTAR_NAME", "NORTHSTAR_VERSION", "NORTHSTAR_CONTAINER", "NORTHSTAR_CONSOLE")

_NOT_FOR_RESOURCES = (
    "args",
    "env",
    "autostart",
    "cgroups",
    "seccomp",
    "capabilities",
    "suppl_groups",
    "io",
)


def check(manifest: Manifest) -> None:
    """Raises ManifestError about the first rule that is broken."""
    for name in manifest.env:
        if name in RESERVED_ENV:
            fail(f"env.{name}", "the name is reserved")
        if not name or "=" in name:
            fail("env", f"{name!r} is no name of a variable")
    if manifest.init is None:
        _check_resource(manifest)
    for target, mount in manifest.mounts.items():
        if isinstance(mount, model.Resource):
            _check_resource_mount(target, mount)
    _check_overlaps(manifest)
    extension.mounts(manifest)
    extension.floor(manifest)
    extension.supervision(manifest)
    if len(manifest.sockets) > MAX_SOCKETS:
        fail("sockets", f"{len(manifest.sockets)} sockets, at most {MAX_SOCKETS} are allowed")
    for name in manifest.sockets:
        if "/" in name:
            fail(f"sockets.{name}", f"the name {name!r} contains '/'")


def _check_resource(manifest: Manifest) -> None:
    for field in _NOT_FOR_RESOURCES:
        value = getattr(manifest, field)
        if value is not None and (value or field in ("cgroups", "seccomp")):
            fail(field, "not possible in a resource container (there is no init)")


def _check_resource_mount(target: str, mount: model.Resource) -> None:
    if "rec" in mount.options:
        fail(f"mounts.{target}.options", "'rec' is not possible for a resource")
    if not mount.dir.startswith("/"):
        fail(f"mounts.{target}.dir", f"{mount.dir!r} is not absolute")


def _check_overlaps(manifest: Manifest) -> None:
    """Neighbours in the order of their bytes, as upstream: `/a` and `/a/b` pass with `/a-b` between them."""
    binds = sorted(target for target, mount in manifest.mounts.items() if isinstance(mount, model.Bind))
    for target, following in itertools.pairwise(binds):
        if following.startswith(f"{target}/"):
            fail(f"mounts.{following}", f"overlaps with the bind mount {target}")
