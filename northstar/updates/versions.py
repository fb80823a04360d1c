# SPDX-License-Identifier: Apache-2.0
"""Which version of a name is *the* version, and which one may take its place."""

from __future__ import annotations

from northstar.errors import UpdateRejected
from northstar.namedtuple import NamedTuple
from northstar.names import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from northstar.names import Version
    from northstar.updates.journal import Journal


class Installed(NamedTuple):
    """An installed version: digest of its package, and whether its repository can be written to."""

    version: Version
    digest: str
    writable: bool = True


def current(installed: Iterable[Installed], journal: Journal) -> Version | None:
    """The version that a name stands for, None if there is no usable one.

    The journal's active one if it is there. Else the highest that is not bad, of those that were installed;
    what came with a read-only image is the last resort.
    """
    usable = [item for item in installed if is_usable(item, journal)]
    if any(item.version == journal.active for item in usable):
        return journal.active
    best = max(usable, key=lambda item: (item.writable, item.version), default=None)
    return None if best is None else best.version


def find(installed: Iterable[Installed], version: Version) -> Installed | None:
    """The one of that version, None if it is not there."""
    return next((item for item in installed if item.version == version), None)


def is_usable(item: Installed, journal: Journal) -> bool:
    """Whether a version may run without somebody who asks for it: not bad, and not below the floor."""
    return is_above_floor(item.version, journal) and journal.bad_entry(item.digest) is None


def is_above_floor(version: Version, journal: Journal) -> bool:
    """Whether the versions that have proved themselves allow this one."""
    return journal.floor is None or version >= journal.floor


def check_update(
    name: str,
    old: Version | None,
    new: Installed,
    journal: Journal,
    *,
    allow_downgrade: bool = False,
    force: bool = False,
) -> None:
    """Raises UpdateRejected if `new` must not take the place of `old`. `force` forgives what is bad only."""
    container = Container(name, new.version)
    if new.version == old:
        raise UpdateRejected(container, "it is the active version already")
    if not is_above_floor(new.version, journal):
        raise UpdateRejected(container, f"version {new.version} is below the floor {journal.floor}")
    if old is not None and new.version < old and not allow_downgrade:
        raise UpdateRejected(
            container, f"this would be a downgrade from {old}, and the request does not allow it"
        )
    bad = journal.bad_entry(new.digest)
    if bad is not None and not force:
        raise UpdateRejected(container, f"this package has failed before: {bad.reason}", bad.time)
