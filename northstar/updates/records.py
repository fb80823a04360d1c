# SPDX-License-Identifier: Apache-2.0
"""Which journals are written for a step of an update, in which order, and what is found in them afterwards.

A power cut may come between any two writes. The journal of a group's leader decides: it is written first
where something begins, and last where it ends.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.names import Container
from northstar.updates import journal as journals
from northstar.updates import journaltext
from northstar.updates.journal import (
    ABORTED,
    GOOD,
    ROLLBACK_FAILED,
    ROLLED_BACK,
    ROLLING_BACK,
    STAGED,
    Bad,
    Change,
    Commit,
    Journal,
    Last,
    Update,
)
from northstar.updates.machine import Close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from northstar.names import Version

Writes = list[tuple[str, Journal]]
"""Names and their new journals, in the order in which they become durable."""


class Facts(NamedTuple):
    """What journals need to know of the new packages: digests, and the floors that their manifests ask for.

    `now` in seconds since the epoch; `keep` is how many versions stay behind the active one.
    """

    digests: Mapping[str, str]
    floors: Mapping[str, Version]
    now: int = 0
    keep: int = 1


def recording(update: Update, known: Mapping[str, Journal], facts: Facts) -> Writes:
    """The update has reached its phase."""
    leader = known.get(update.leader, Journal())
    if update.phase == ROLLING_BACK and update.leader in (change.name for change in update.blamed):
        bad = _bad(update, update.change(update.leader), facts)
        leader = leader._replace(bad=journals.remembered(leader.bad, bad))
    writes = [(update.leader, journals.opened(leader, update.leader, update))]
    if update.phase == STAGED:
        others = (change.name for change in update.changes if change.name != update.leader)
        writes += [(name, journals.opened(known.get(name, Journal()), name, update)) for name in others]
    return writes


def closing(close: Close, known: Mapping[str, Journal], facts: Facts) -> Writes:
    """The update is over. The leader's journal is the last one: until then all can be written again."""
    update = close.update
    others = [change for change in update.changes if change.name != update.leader]
    last = Last(
        update.id,
        close.result,
        tuple(str(Container(change.name, change.new)) for change in update.changes),
        update.reference,
        close.reason,
        facts.now,
    )
    writes = [(change.name, _closed(close, change, None, known, facts)) for change in others]
    leader = update.change(update.leader)
    return [*writes, (update.leader, _closed(close, leader, last, known, facts))]


def _closed(
    close: Close, change: Change, last: Last | None, known: Mapping[str, Journal], facts: Facts
) -> Journal:
    journal = known.get(change.name, Journal())
    last = last or journal.last
    if close.result == GOOD:
        commit, floor = Commit(close.update.id, facts.now), facts.floors.get(change.name)
        return journals.committed(journal, change, last, commit, keep=facts.keep, floor=floor)
    failed = close.result in (ROLLED_BACK, ROLLBACK_FAILED) and change in close.update.blamed
    return journals.closed(journal, change, last, _bad(close.update, change, facts) if failed else None)


def _bad(update: Update, change: Change, facts: Facts) -> Bad:
    digest = facts.digests.get(change.name, "")
    return Bad(change.new, digest, journaltext.clipped(update.reason), facts.now)


def check_room(update: Update, known: Mapping[str, Journal], facts: Facts) -> None:
    """Raises JournalError if some journal would become too large in the course of the update.

    All that can be written are tried, with the longest of what is not known yet.
    """
    facts = facts._replace(now=1 << 40)
    reason = "x" * journals.MAX_REASON
    failed = update._replace(phase=ROLLING_BACK, boots=(1 << 32) - 1, reason=reason)
    writes = recording(update, known, facts)
    for culprit in {"", update.leader, max((change.name for change in update.changes), key=len)}:
        writes += recording(failed._replace(culprit=culprit), known, facts)
    for close in (
        Close(update, GOOD, ""),
        Close(update, ABORTED, reason),
        Close(failed, ROLLBACK_FAILED, reason),
    ):
        writes += closing(close, known, facts)
    for name, journal in writes:
        journaltext.encode(name, journal)


# --- what is found at the next start


def recover(known: Mapping[str, Journal]) -> tuple[list[Update], Writes]:
    """The open updates, and the journals of members that point to one which is none, put right."""
    updates = [journal.update for journal in known.values() if journal.update is not None]
    ids = {(update.leader, update.id) for update in updates}
    writes = [
        (name, journal._replace(pointer=None))
        for name, journal in known.items()
        if journal.pointer is not None and (journal.pointer.leader, journal.pointer.id) not in ids
    ]
    return updates, writes


def committed(known: Mapping[str, Journal]) -> list[tuple[Update, int]]:
    """The updates by which the active versions became that, to go back from, and when that was."""
    changes: dict[Commit, list[Change]] = {}
    for name, journal in sorted(known.items()):
        if journal.commit is not None and journal.active is not None:
            older = journal.previous[0] if journal.previous else None
            changes.setdefault(journal.commit, []).append(Change(name, older, journal.active))
    return [(Update(commit.id, tuple(members)), commit.time) for commit, members in changes.items()]


def versions_to_json(journal: Journal) -> dict[str, Any]:
    """What a journal says about versions."""
    value = {
        "active": None if journal.active is None else str(journal.active),
        "previous": [str(version) for version in journal.previous],
        "floor": None if journal.floor is None else str(journal.floor),
        "bad": [{"version": str(bad.version), "reason": bad.reason, "time": bad.time} for bad in journal.bad],
    }
    return {key: item for key, item in value.items() if item not in (None, [])}


def update_to_json(update: Update) -> dict[str, Any]:
    """An open update."""
    return {
        "id": update.id,
        "phase": update.phase,
        "reference": update.reference,
        "boots": update.boots,
        "changes": [
            {
                "name": change.name,
                "from": None if change.old is None else str(change.old),
                "to": str(change.new),
            }
            for change in update.changes
        ],
    }
