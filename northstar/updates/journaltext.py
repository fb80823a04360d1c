# SPDX-License-Identifier: Apache-2.0
"""The text of a journal: JSON, tolerant of what a newer runtime has written, and small."""

from __future__ import annotations

import bisect
import json

from northstar.names import Version, check_name
from northstar.updates.journal import (
    COPY,
    KEEP,
    MAX_BAD,
    MAX_REASON,
    MAX_SIZE,
    PHASES,
    RESULTS,
    Bad,
    Change,
    Commit,
    Journal,
    JournalError,
    Last,
    Pointer,
    Update,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FORMAT = 1
_QUOTES = 2
_KEYS = ("format", "name", "active", "previous", "floor", "bad", "update", "last", "committed", "remove")


def encode(name: str, journal: Journal) -> bytes:
    """The text of a journal. Raises JournalError if it does not fit, even without the older bad versions."""
    while True:
        data = _encoded(_to_json(name, journal)) + b"\n"
        if len(data) <= MAX_SIZE:
            return data
        if len(journal.bad) < 2:
            raise JournalError(
                f"the journal of {name[:40]} would have {len(data)} bytes, more than {MAX_SIZE}"
            )
        journal = journal._replace(bad=journal.bad[1:])


def clipped(reason: str) -> str:
    """A reason as long as a journal has room for."""

    def size(text: str) -> int:
        return len(_encoded(text)) - _QUOTES

    if size(reason) <= MAX_REASON:
        return reason
    longer = bisect.bisect_right(range(MAX_REASON), MAX_REASON, key=lambda end: size(f"{reason[:end]}…"))
    return f"{reason[: longer - 1]}…"


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


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
    if journal.commit is not None:
        value["committed"] = journal.commit._asdict()
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
        commit=read("committed", lambda item: Commit(_text(item["id"]), _number(item["time"])), None),
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
