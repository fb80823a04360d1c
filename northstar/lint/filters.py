# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a manifest's filter of system calls, which are better found here than on a device."""

from __future__ import annotations

from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest import Manifest


def problem(manifest: Manifest) -> str | None:
    """Why a device would refuse the filter, or a name in it has no effect; None if all is well."""
    if manifest.seccomp is None:
        return None
    from northstar.seccomp import compile as compiler

    try:
        compiler.check(manifest.seccomp, manifest.capabilities)
    except compiler.SeccompError as error:
        return str(error)
    return None


def check(manifest: Manifest, path: str) -> None:
    """Raise NorthstarError if there is a problem; `path` is that of the manifest."""
    found = problem(manifest)
    if found is not None:
        raise NorthstarError(f"{path}: {found}")
