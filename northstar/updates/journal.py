# SPDX-License-Identifier: Apache-2.0
"""The journal of a container name: what must survive a power cut about its versions.

One small JSON object per name. Journals are values here; `store` keeps them. docs/updates.md has the format.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from northstar.names import Version, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FORMAT = 1
MAX_SIZE = 4096
"""Bytes of a journal: it fits in a block, and nothing that is not ours is read into memory."""
MAX_BAD = 8
"""Bad versions that are remembered, the newest ones. None of them is installed for long."""
MAX_REASON = 160
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

_KEYS = ("format", "name", "active", "previous", "floor", "bad", "update", "last", "remove")


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
    remove: tuple[Version, ...] = ()
    extra: dict[str, Any] = {}  # noqa: RUF012

    def bad_entry(self, digest: str) -> Bad | None:
        """What is remembered about a package, None if nothing."""
        return next((bad for bad in self.bad if bad.digest == digest), None)

    @property
    def is_open(self) -> bool:
        """Whether the name takes part in an update."""
        return self.update is not None or self.pointer is not None


# --- how a journal changes


def opened(journal: Journal, name: str, update: Update) -> Journal:
    """The update has reached its phase: the whole record for the leader, a pointer for the others."""
    if name != update.leader:
        return journal._replace(pointer=Pointer(update.id, update.leader), update=None)
    return journal._replace(update=update, pointer=None)


def committed(
    journal: Journal, change: Change, last: Last | None, *, keep: int, floor: Version | None = None
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


# --- text


def encode(name: str, journal: Journal) -> bytes:
    """The text of a journal. Raises JournalError if it does not fit, even without the older bad versions."""
    while True:
        data = json.dumps(_to_json(name, journal), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        if len(data) <= MAX_SIZE:
            return data
        if len(journal.bad) < 2:
            raise JournalError(
                f"the journal of {name[:40]} would have {len(data)} bytes, more than {MAX_SIZE}"
            )
        journal = journal._replace(bad=journal.bad[1:])


def _to_json(name: str, journal: Journal) -> dict[str, Any]:
    value: dict[str, Any] = {"format": FORMAT, "name": name}
    value["active"] = _text_or_none(journal.active)
    value["previous"] = [str(version) for version in journal.previous]
    value["floor"] = _text_or_none(journal.floor)
    value["bad"] = [
        {"version": str(bad.version), "hash": bad.digest, "reason": clipped(bad.reason), "time": bad.time}
        for bad in journal.bad
    ]
    if journal.update is not None:
        value["update"] = _update_to_json(name, journal.update)
    elif journal.pointer is not None:
        value["update"] = journal.pointer._asdict()
    if journal.last is not None:
        value["last"] = last_to_json(journal.last)
    if journal.remove:
        value["remove"] = [str(version) for version in journal.remove]
    return {key: item for key, item in value.items() if item not in (None, [])} | journal.extra


def _update_to_json(name: str, update: Update) -> dict[str, Any]:
    own = update.change(name)
    value = {
        "id": update.id,
        "reference": update.reference,
        "from": _text_or_none(own.old),
        "to": str(own.new),
        "phase": update.phase,
        "boots": update.boots,
        "attempts": update.attempts,
        "settle": update.settle,
        "data": update.data,
        "reason": clipped(update.reason),
        "culprit": update.culprit,
        "group": {
            change.name: {"from": _text_or_none(change.old), "to": str(change.new)}
            for change in update.changes
        },
    }
    return {key: item for key, item in value.items() if item not in (None, "")}


def last_to_json(last: Last) -> dict[str, Any]:
    """A result as journals and responses have it."""
    value = {
        "id": last.id,
        "result": last.result,
        "reference": last.reference,
        "reason": clipped(last.reason),
        "time": last.time,
        "containers": list(last.containers),
    }
    return {key: item for key, item in value.items() if item != ""}


def clipped(reason: str) -> str:
    """A reason as long as a journal has room for."""
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 1]}…"


def _text_or_none(version: Version | None) -> str | None:
    return None if version is None else str(version)


def decode(name: str, data: bytes) -> tuple[Journal, list[str]]:
    """A journal, and what of it cannot be understood and is left out. Raises JournalError.

    A journal of another container, or of a newer format, is none.
    """
    value = _parsed(data)
    if value.get("name", name) != name:
        raise JournalError(f"it belongs to container {str(value['name'])[:40]!r}")
    version = value.get("format")
    if type(version) is not int or version < 1:
        raise JournalError("it has no format number")
    if version > FORMAT:
        raise JournalError(f"format {version} is newer than {FORMAT}, which this runtime writes")
    problems: list[str] = []

    def read(key: str, convert: Callable[[Any], Any], default: Any) -> Any:
        if key not in value:
            return default
        try:
            return convert(value[key])
        except (ValueError, TypeError, KeyError, AttributeError):
            problems.append(f"{key} is malformed")
            return default

    update = read("update", lambda item: _update(name, item), None)
    journal = Journal(
        active=read("active", _version, None),
        previous=read("previous", _versions, ()),
        floor=read("floor", _version, None),
        bad=read("bad", lambda items: tuple(_bad(item) for item in _list(items)), ())[-MAX_BAD:],
        update=update if isinstance(update, Update) else None,
        pointer=update if isinstance(update, Pointer) else None,
        last=read("last", _last, None),
        remove=read("remove", _versions, ()),
        extra={key: item for key, item in value.items() if key not in _KEYS},
    )
    return journal, problems


def _parsed(data: bytes) -> dict[str, Any]:
    if not data.strip():
        raise JournalError("it is empty")
    if len(data) > MAX_SIZE:
        raise JournalError(f"it has more than {MAX_SIZE} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise JournalError("it is damaged: no JSON") from None
    if not isinstance(value, dict):
        raise JournalError("it is no JSON object")
    return value


def _version(value: Any) -> Version:
    return Version.parse(_text(value))


def _versions(value: Any) -> tuple[Version, ...]:
    """A list, or a single one."""
    return tuple(_version(item) for item in (_list(value) if not isinstance(value, str) else [value]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    # A lone surrogate, which JSON can express, cannot be written again.
    value.encode()
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1 << 31:
        raise ValueError
    return float(value)


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError
    return str(value)


def _bad(value: Any) -> Bad:
    return Bad(
        _version(value["version"]), _text(value["hash"]), _text(value["reason"]), _number(value["time"])
    )


def _last(value: Any) -> Last:
    return Last(
        _text(value["id"]),
        _one_of(value["result"], RESULTS),
        tuple(_text(item) for item in _list(value["containers"])),
        _text(value.get("reference", "")),
        _text(value.get("reason", "")),
        _number(value.get("time", 0)),
    )


def _update(name: str, value: Any) -> Update | Pointer:
    if "leader" in value:
        return Pointer(_text(value["id"]), check_name(_text(value["leader"])))
    group = value.get("group", {name: value})
    changes = tuple(
        Change(
            check_name(_text(member)),
            None if item.get("from") is None else _version(item["from"]),
            _version(item["to"]),
        )
        for member, item in group.items()
    )
    update = Update(
        _text(value["id"]),
        changes,
        _text(value.get("reference", "")),
        _one_of(value["phase"], PHASES),
        _number(value.get("boots", 0)),
        _number(value.get("attempts", 1)),
        _seconds(value.get("settle", 10.0)),
        _one_of(value.get("data", KEEP), (KEEP, COPY)),
        _text(value.get("reason", "")),
        _text(value.get("culprit", "")),
    )
    if update.leader != name:
        raise ValueError
    return update
