# SPDX-License-Identifier: Apache-2.0
"""Compiled system call filters of the packages, made when a package becomes known."""

from __future__ import annotations

import functools

from northstar.errors import Unexpected
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from northstar.manifest import Manifest
    from northstar.manifest.model import ArgRule

_log = log.Logger("runtime::filters")


def application_filter(manifest: Manifest) -> bytes:
    """The BPF program for a container, empty if it wants none. Raises Unexpected naming the rule.

    Packages with the same rules share one program. A name that this runtime does not know, perhaps as it is
    older than the package, is left out with a warning.
    """
    wanted = manifest.seccomp
    if wanted is None:
        return b""
    # Loaded only if there is a package that needs it.
    from northstar.seccomp import compile as compiler

    for name in compiler.unknown_calls(wanted):
        _log.warn(
            f"seccomp: leaving out {name!r} of {manifest.container}: no system call of that name is known"
        )
    try:
        return _compiled(wanted.profile, tuple(sorted((wanted.allow or {}).items())), manifest.capabilities)
    except compiler.SeccompError as error:
        raise Unexpected(str(error)) from None


def application_filters(manifests: Iterable[Manifest]) -> list[bytes | Unexpected]:
    """The filter of each, or why there is none. Takes its time."""
    outcomes: list[bytes | Unexpected] = []
    for manifest in manifests:
        try:
            outcomes.append(application_filter(manifest))
        except Unexpected as error:
            outcomes.append(error)
    return outcomes


@functools.lru_cache(maxsize=16)
def _compiled(
    profile: str | None, allow: tuple[tuple[str, ArgRule | None], ...], capabilities: frozenset[str]
) -> bytes:
    from northstar.manifest.model import Seccomp
    from northstar.seccomp.compile import compile_filter

    return compile_filter(Seccomp(profile, dict(allow)), capabilities)
