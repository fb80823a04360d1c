# SPDX-License-Identifier: Apache-2.0
"""The journal of a container name: what must survive a power cut about its versions.

One small JSON object per name. Journals are values here; `journaltext` has their text, `store` keeps them.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from northstar.names import Version

MAX_SIZE = 4096
"""Bytes of a journal: it fits in a block, and nothing that is not ours is read into memory."""
MAX_BAD = 8
"""Bad versions that are remembered, the newest ones. None of them is installed for long."""
MAX_REASON = 160
"""Bytes of a reason, as a journal has it."""
MAX_REFERENCE = 200
"""Characters of the client's text that comes back in reports."""

STAGED, TRYING, GOOD, ROLLING_BACK = "staged", "trying", "good", "rolling_back"
PHASES = (STAGED, TRYING, GOOD, ROLLING_BACK)
"""Of an open update, in the order of the table in docs/updates.md."""

ROLLED_BACK, ROLLBACK_FAILED, CANCELLED, ABORTED = "rolled_back", "rollback_failed", "cancelled", "aborted"
RESULTS = (GOOD, ROLLED_BACK, ROLLBACK_FAILED, CANCELLED, ABORTED)
"""Of an update that is over."""

KEEP, COPY = "keep", "copy"
"""What happens to persistent data: B gets A's, or a copy is put aside for A."""

NOBODY = "-"
"""In place of a culprit, if none of the new versions is to blame: for a disk that is full, for instance."""


class JournalError(ValueError):
    """The text is no journal of this container; the message says why."""


class Bad(NamedTuple):
    """A version that has failed on trial: digest of its package, why, and when (seconds since the epoch)."""

    version: Version
    digest: str
    reason: str
    time: int


class Change(NamedTuple):
    """From version `old` of a name, None if there was none, to `new`."""

    name: str
    old: Version | None
    new: Version


class Update(NamedTuple):
    """An open update of one container or a group, as the journal of its leader has it.

    `changes` are in the order in which the new versions are tried. `boots` counts how often the runtime was
    started during the trial, `attempts` is how often the new versions may fail. `settle` in seconds.
    `reason` and `culprit`, a name or `NOBODY` or nothing if it is not known, tell of a failure.
    """

    id: str
    changes: tuple[Change, ...]
    reference: str = ""
    phase: str = STAGED
    boots: int = 0
    attempts: int = 1
    settle: float = 10.0
    data: str = KEEP
    reason: str = ""
    culprit: str = ""

    @property
    def leader(self) -> str:
        """The name whose journal has the record; those of the others point to it."""
        return min(change.name for change in self.changes)

    def change(self, name: str) -> Change:
        """What happens to a member."""
        return next(change for change in self.changes if change.name == name)

    @property
    def blamed(self) -> tuple[Change, ...]:
        """Whose new versions are bad if this fails: the one that did, or all if that is not known."""
        return tuple(change for change in self.changes if self.culprit in ("", change.name))


class Pointer(NamedTuple):
    """In the journal of a member: the update is recorded in the one of `leader`."""

    id: str
    leader: str


class Last(NamedTuple):
    """How the last update ended, until a client has acknowledged that. `containers` are new versions."""

    id: str
    result: str
    containers: tuple[str, ...]
    reference: str = ""
    reason: str = ""
    time: int = 0


class Commit(NamedTuple):
    """The update by which the active version became that, and when (seconds since the epoch)."""

    id: str
    time: int


class Journal(NamedTuple):
    """What is known about the versions of a name; an empty one if there is none.

    `previous` are the versions kept behind `active`, the newest first. `remove` are packages that nothing
    needs any more. `extra` has the keys that a newer runtime has written.
    """

    active: Version | None = None
    previous: tuple[Version, ...] = ()
    floor: Version | None = None
    bad: tuple[Bad, ...] = ()
    update: Update | None = None
    pointer: Pointer | None = None
    last: Last | None = None
    commit: Commit | None = None
    remove: tuple[Version, ...] = ()
    extra: dict[str, Any] = {}  # noqa: RUF012

    def bad_entry(self, digest: str) -> Bad | None:
        """What is remembered about a package, None if nothing."""
        return next((bad for bad in self.bad if bad.digest == digest), None)


# --- how a journal changes


def opened(journal: Journal, name: str, update: Update) -> Journal:
    """The update has reached its phase: the whole record for the leader, a pointer for the others."""
    if name != update.leader:
        return journal._replace(pointer=Pointer(update.id, update.leader), update=None)
    return journal._replace(update=update, pointer=None)


def committed(
    journal: Journal,
    change: Change,
    last: Last | None,
    commit: Commit,
    *,
    keep: int,
    floor: Version | None = None,
) -> Journal:
    """The new version is active from now on; of the older ones `keep` stay. Raises the floor."""
    older = [version for version in (change.old, *journal.previous) if version not in (None, change.new)]
    behind = tuple(dict.fromkeys(version for version in older if version is not None))
    floors = [value for value in (journal.floor, floor) if value is not None]
    return journal._replace(
        active=change.new,
        previous=behind[:keep],
        floor=max(floors, default=None),
        bad=tuple(bad for bad in journal.bad if bad.version != change.new),
        update=None,
        pointer=None,
        last=last,
        commit=commit,
        remove=_united(journal.remove, behind[keep:], without=(change.new, *behind[:keep])),
    )


def closed(journal: Journal, change: Change, last: Last | None, bad: Bad | None) -> Journal:
    """The old version stays. `bad` if the new one has failed; its package is not needed any more then."""
    known = journal.bad if bad is None else remembered(journal.bad, bad)
    remove = journal.remove if bad is None else _united(journal.remove, (change.new,), without=())
    return journal._replace(
        active=change.old,
        previous=tuple(version for version in journal.previous if version != change.old),
        bad=known,
        update=None,
        pointer=None,
        last=last,
        commit=journal.commit if journal.active == change.old else None,
        remove=remove,
    )


def remembered(known: tuple[Bad, ...], bad: Bad) -> tuple[Bad, ...]:
    """With one more bad version, which replaces what was known about the same package."""
    return (*(other for other in known if other.digest != bad.digest), bad)[-MAX_BAD:]


def uninstalled(journal: Journal, version: Version, *, forget: bool) -> Journal:
    """A package is gone. `forget` if a person has removed it: then nothing is held against it any more."""
    return journal._replace(
        active=None if journal.active == version else journal.active,
        previous=tuple(other for other in journal.previous if other != version),
        remove=tuple(other for other in journal.remove if other != version),
        bad=tuple(bad for bad in journal.bad if bad.version != version) if forget else journal.bad,
    )


def _united(
    known: tuple[Version, ...], more: Iterable[Version], without: Iterable[Version]
) -> tuple[Version, ...]:
    kept = set(without)
    return tuple(version for version in dict.fromkeys((*known, *more)) if version not in kept)
