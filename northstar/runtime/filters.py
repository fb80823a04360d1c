# SPDX-License-Identifier: Apache-2.0
"""Compiled system call filters of the packages, made when a package becomes known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from northstar.errors import Unexpected

if TYPE_CHECKING:
    from northstar.manifest import Manifest

_cache: dict[tuple[str, frozenset[str]], bytes] = {}


def application_filter(manifest: Manifest) -> bytes:
    """The BPF program for a container, empty if it wants none. Raises Unexpected naming the rule.

    Packages with the same rules share one program.
    """
    if manifest.seccomp is None:
        return b""
    key = (repr(manifest.seccomp), manifest.capabilities)
    program = _cache.get(key)
    if program is None:
        # libseccomp is loaded only if there is a package that needs it.
        from northstar.seccomp import compile as compiler

        try:
            program = compiler.compile_filter(manifest.seccomp, manifest.capabilities)
        except compiler.SeccompError as error:
            raise Unexpected(str(error)) from None
        _cache[key] = program
    return program
