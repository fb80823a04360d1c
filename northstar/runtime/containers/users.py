# SPDX-License-Identifier: Apache-2.0
"""Warnings about user ids that containers have in common: there are no user namespaces."""

from __future__ import annotations

import pwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from northstar.manifest.model import Manifest


def warnings(manifests: Iterable[Manifest], only: int | None = None) -> Iterator[str]:
    """What to tell about the users of these containers; `only` looks at one uid.

    Versions of one container may share theirs, as they never run at the same time.
    """
    users: dict[int, set[str]] = {}
    for manifest in manifests:
        if manifest.init is not None and only in (None, manifest.uid):
            users.setdefault(manifest.uid, set()).add(str(manifest.name))
    for uid, names in sorted(users.items()):
        listed = ", ".join(sorted(names))
        if len(names) > 1:
            yield f"User {uid} is shared by the containers {listed}: they share files and limits"
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            continue
        yield f"User {uid} of {listed} is the user {name} of this host"
