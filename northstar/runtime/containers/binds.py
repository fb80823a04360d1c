# SPDX-License-Identifier: Apache-2.0
"""What is said about bind mounts: those that were left out of a container, and why one made a start fail.

Looking at a path of the host may block, so it is done in a thread, and after the container's own process has
done the same.
"""

from __future__ import annotations

import os

from northstar.errors import StartContainerFailed
from northstar.kernel import paths
from northstar.manifest import model
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest.model import Manifest
    from northstar.runtime.containers.records import Record
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::binds")
_WRONG_TYPE = "Invalid argument"
"""What the kernel says of a file that is to be mounted on a directory, or the other way round: EINVAL."""


async def tell_left_out(loop: Loop, record: Record) -> None:
    """Tell which binds a container has been started without, the log and who inspects it."""
    run, manifest = record.run, record.manifest
    if not any(isinstance(mount, model.Bind) for mount in manifest.mounts.values()):
        return
    missing = await loop.in_thread(_missing, manifest)
    for target, host in missing:
        _log.warn(
            f"{manifest.container} runs without {target}: there is no {host} on the host "
            "('required' in custom.northstar.mounts of its manifest would refuse the start)"
        )
    if record.run is run:
        record.left_out = [
            f"{target} is left out: there is no {host} on the host" for target, host in missing
        ]


async def explained(loop: Loop, manifest: Manifest, error: StartContainerFailed) -> StartContainerFailed:
    """The error with what helps to get rid of it, if a mount has failed."""
    for target, mount in manifest.mounts.items():
        if error.error.startswith((f"mount {target} (", f"mount {target}:")):
            advice = await loop.in_thread(_advice, mount, error.error)
            return StartContainerFailed(error.container, f"{error.error}{advice}")
    return error


def _missing(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        (target, mount.host)
        for target, mount in manifest.mounts.items()
        if isinstance(mount, model.Bind) and paths.leads_nowhere(mount.host)
    ]


def _advice(mount: model.Mount, reason: str) -> str:
    if isinstance(mount, model.Bind) and paths.leads_nowhere(mount.host):
        return (
            f"; there is no {mount.host} on the host. It is left out if its mount point is not 'required' in "
            "custom.northstar.mounts, and skip_missing_binds in the configuration is not false"
        )
    if _WRONG_TYPE not in reason:
        return ""
    if isinstance(mount, model.Bind) and not os.path.isdir(mount.host):
        return (
            f"; {mount.host} is a file and its mount point in the image a directory. 'file' in "
            "custom.northstar.mounts makes a file of it when the container is packed"
        )
    return "; a directory is mounted, but its mount point in the image is a file"
