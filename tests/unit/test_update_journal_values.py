# SPDX-License-Identifier: Apache-2.0
"""Values in journals of updates: what is taken, what is left out, and how a journal changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from northstar.names import Version
from northstar.updates import journal as j
from northstar.updates import journaltext
from northstar.updates.journal import Bad, Change, Commit, Journal, JournalError, Last, Pointer, Update

V1, V2, V3, V4 = (Version(1, 0, number) for number in range(1, 5))
UPDATE = {"id": "u", "phase": "trying", "to": "1.0.2"}
LAST = {"id": "u", "result": "good", "containers": ["a:1.0.2"]}


def decoded(**fields: Any) -> tuple[Journal, list[str]]:
    return journaltext.decode("a", json.dumps({"format": 1, "name": "a", **fields}).encode())


def changed(value: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Without those that are None."""
    return {key: item for key, item in {**value, **fields}.items() if item is not None}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("active", "1.0.1", Journal(active=V1)),
        ("floor", "1.0.1", Journal(floor=V1)),
        ("previous", "1.0.1", Journal(previous=(V1,))),
        ("previous", ["1.0.2", "1.0.1"], Journal(previous=(V2, V1))),
        ("remove", [], Journal()),
        ("remove", ["1.0.1"], Journal(remove=(V1,))),
        ("committed", {"id": "u", "time": 0}, Journal(commit=Commit("u", 0))),
        ("committed", {"id": "u", "time": (1 << 62) - 1}, Journal(commit=Commit("u", (1 << 62) - 1))),
        ("last", LAST, Journal(last=Last("u", "good", ("a:1.0.2",)))),
        (
            "last",
            {**LAST, "reference": "r", "reason": "w", "time": 5},
            Journal(last=Last("u", "good", ("a:1.0.2",), "r", "w", 5)),
        ),
        ("update", {"id": "u", "leader": "b"}, Journal(pointer=Pointer("u", "b"))),
        ("update", UPDATE, Journal(update=Update("u", (Change("a", None, V2),), phase="trying"))),
        (
            "update",
            changed(UPDATE, **{"from": "1.0.1"}, settle=0, data="copy", boots=3, attempts=2, reason="w"),
            Journal(
                update=Update("u", (Change("a", V1, V2),), "", "trying", 3, 2, 0.0, "copy", "w"),
            ),
        ),
        (
            "update",
            changed(UPDATE, group={"b": {"from": None, "to": "1.0.1"}, "a": {"to": "1.0.2"}}, culprit="b"),
            Journal(
                update=Update(
                    "u", (Change("b", None, V1), Change("a", None, V2)), phase="trying", culprit="b"
                )
            ),
        ),
        (
            "bad",
            [{"version": "1.0.1", "hash": "h", "reason": "w", "time": 7}],
            Journal(bad=(Bad(V1, "h", "w", 7),)),
        ),
        ("later", {"x": [1]}, Journal(extra={"later": {"x": [1]}})),
    ],
)
def test_good_values(key: str, value: Any, expected: Journal) -> None:
    """They come back as they are."""
    journal, problems = decoded(**{key: value})
    assert (journal, problems) == (expected, [])
    assert journaltext.decode("a", journaltext.encode("a", journal)) == (expected, [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("active", 1),
        ("active", ["1.0.1"]),
        ("active", "1.0"),
        ("floor", None),
        ("previous", {"1.0.1": 1}),
        ("previous", ["1.0.1", 2]),
        ("remove", "x"),
        ("bad", {"version": "1.0.1"}),
        ("bad", [{"version": "1.0.1", "hash": "h", "reason": "w"}]),
        ("bad", [{"version": "1.0.1", "hash": 3, "reason": "w", "time": 1}]),
        ("bad", ["1.0.1"]),
        ("committed", {"id": "u"}),
        ("committed", {"id": "u", "time": -1}),
        ("committed", {"id": "u", "time": 1 << 62}),
        ("committed", {"id": "u", "time": True}),
        ("committed", {"id": "u", "time": 1.0}),
        ("committed", {"id": "\ud800", "time": 1}),
        ("last", changed(LAST, result="best")),
        ("last", changed(LAST, result=["good"])),
        ("last", changed(LAST, containers="a:1.0.2")),
        ("last", changed(LAST, containers=[1])),
        ("last", changed(LAST, time="1")),
        ("update", "u"),
        ("update", {"id": "u", "leader": "/"}),
        ("update", {"id": 1, "leader": "b"}),
        ("update", {"leader": "b"}),
        ("update", changed(UPDATE, phase="over")),
        ("update", changed(UPDATE, to=None)),
        ("update", changed(UPDATE, id=None)),
        ("update", changed(UPDATE, boots=-1)),
        ("update", changed(UPDATE, attempts="1")),
        ("update", changed(UPDATE, settle=-0.5)),
        ("update", changed(UPDATE, settle=1 << 31)),
        ("update", changed(UPDATE, settle=True)),
        ("update", changed(UPDATE, data="move")),
        ("update", changed(UPDATE, group={})),
        ("update", changed(UPDATE, group={"b": {"to": "1.0.1"}})),
        ("update", changed(UPDATE, group={"/": {"to": "1.0.1"}})),
        ("update", changed(UPDATE, group=["a"])),
        # That of another leader.
        ("update", changed(UPDATE, group={"0": {"to": "1.0.1"}, "a": {"to": "1.0.2"}})),
    ],
)
def test_a_malformed_value_is_left_out_alone(key: str, value: Any) -> None:
    others: dict[str, Any] = {"active": "1.0.1", "committed": {"id": "u", "time": 1}, "later": 5}
    expected = {"active": V1, "commit": Commit("u", 1), "extra": {"later": 5}}
    others.pop(key, None)
    expected.pop({"committed": "commit"}.get(key, key), None)
    journal, problems = decoded(**{**others, key: value})
    assert problems == [f"{key} is malformed"]
    assert journal == Journal(**expected)


@pytest.mark.parametrize("settle", [0, 0.25, 10, (1 << 31) - 1])
def test_time_on_trial(settle: float) -> None:
    journal, problems = decoded(update=changed(UPDATE, settle=settle))
    assert journal.update is not None
    assert (journal.update.settle, problems) == (settle, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "b"}, "it belongs to container 'b'"),
        ({"name": "b" * 50}, f"it belongs to container '{'b' * 40}'$"),
        ({"format": 2}, "format 2 is newer than 1"),
        ({"format": 0}, "no format number"),
        ({"format": True}, "no format number"),
        ({"format": "1"}, "no format number"),
        ({"format": None}, "no format number"),
    ],
)
def test_what_is_no_journal_of_ours(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(JournalError, match=message):
        decoded(**fields)


def test_a_journal_without_a_name_is_that_of_its_file() -> None:
    assert journaltext.decode("a", b'{"format":1}') == (Journal(), [])


@pytest.mark.parametrize(("size", "fits"), [(4095, True), (4096, True), (4097, False)])
def test_size(size: int, fits: bool) -> None:
    """When it is read, and when it is written."""
    text = b'{"format":1,"name":"a","x":""}\n'
    text = text.replace(b'""', b'"' + b"x" * (size - len(text)) + b'"')
    assert len(text) == size
    if fits:
        journal, _ = journaltext.decode("a", text)
        assert journaltext.encode("a", journal) == text
        return
    with pytest.raises(JournalError, match="more than 4096 bytes"):
        journaltext.decode("a", text)
    with pytest.raises(JournalError, match="4097 bytes, more than 4096"):
        journaltext.encode("a", Journal(extra={"x": "x" * (size - 31)}))


def test_the_last_bad_version_is_not_given_up() -> None:
    """Older ones give way to what does not fit."""
    bad = tuple(Bad(version, "h" * 40, "w", 1) for version in (V1, V2, V3))
    text = journaltext.encode("a", Journal(bad=bad, extra={"x": "x" * 3900}))
    assert journaltext.decode("a", text)[0].bad == (bad[2],)
    with pytest.raises(JournalError, match=r"the journal of a would have \d+ bytes"):
        journaltext.encode("a", Journal(bad=bad, extra={"x": "x" * 4000}))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("x" * 160, "x" * 160),
        ("x" * 161, "x" * 157 + "…"),
        ("ä" * 80, "ä" * 80),
        ("ä" * 81, "ä" * 78 + "…"),
        ('"' * 80, '"' * 80),
        ('"' * 81, '"' * 78 + "…"),
    ],
)
def test_reasons_are_cut_as_they_are_written(reason: str, expected: str) -> None:
    assert journaltext.clipped(reason) == expected


def test_as_many_bad_versions_as_are_kept() -> None:
    entries = [{"version": f"1.0.{n}", "hash": str(n), "reason": "", "time": n} for n in range(9)]
    journal, _ = decoded(bad=entries)
    assert [bad.time for bad in journal.bad] == list(range(1, 9))
    more = j.remembered(journal.bad, Bad(V1, "new", "", 9))
    assert [bad.time for bad in more] == list(range(2, 10))
    again = j.remembered(more, Bad(V1, "5", "", 10))
    assert [bad.time for bad in again] == [2, 3, 4, 6, 7, 8, 9, 10]


# --- how a journal changes

GROUP = Update("u", (Change("c", V1, V2), Change("b", None, V2)))
FULL = Journal(
    active=V2,
    previous=(V1,),
    floor=V1,
    bad=(Bad(V3, "h3", "", 1), Bad(V4, "h4", "", 2)),
    commit=Commit("before", 1),
    remove=(V4,),
    extra={"x": 1},
)


def test_an_update_is_opened() -> None:
    assert j.opened(FULL, "b", GROUP) == FULL._replace(update=GROUP)
    assert j.opened(FULL._replace(update=GROUP), "c", GROUP) == FULL._replace(pointer=Pointer("u", "b"))
    assert j.opened(FULL._replace(pointer=Pointer("u", "b")), "b", GROUP).pointer is None
    assert (GROUP.change("c"), GROUP.change("b")) == GROUP.changes
    assert (GROUP.blamed, GROUP._replace(culprit="b").blamed) == (GROUP.changes, GROUP.changes[1:])
    assert GROUP._replace(culprit=j.NOBODY).blamed == ()


@pytest.mark.parametrize(
    ("keep", "previous", "remove"),
    [(0, (), (V4, V2, V1)), (1, (V2,), (V4, V1)), (2, (V2, V1), (V4,)), (9, (V2, V1), (V4,))],
)
def test_a_new_version_is_good(keep: int, previous: tuple[Version, ...], remove: tuple[Version, ...]) -> None:
    last, commit = Last("u", "good", ("a:1.0.3",)), Commit("u", 2)
    opened = FULL._replace(update=GROUP, pointer=Pointer("u", "b"))
    found = j.committed(opened, Change("a", V2, V3), last, commit, keep=keep)
    assert found == FULL._replace(
        active=V3, previous=previous, bad=(FULL.bad[1],), last=last, commit=commit, remove=remove
    )


@pytest.mark.parametrize(
    ("before", "wanted", "floor"),
    [(None, None, None), (V1, None, V1), (None, V2, V2), (V3, V2, V3), (V1, V2, V2)],
)
def test_a_floor_is_only_raised(
    before: Version | None, wanted: Version | None, floor: Version | None
) -> None:
    change, commit = Change("a", None, V3), Commit("u", 2)
    known = Journal(floor=before)
    assert j.committed(known, change, None, commit, keep=1, floor=wanted).floor == floor


def test_an_old_version_is_good_again() -> None:
    """It is neither behind itself, nor to be removed."""
    found = j.committed(FULL._replace(remove=(V1, V4)), Change("a", V2, V1), None, Commit("u", 2), keep=1)
    assert (found.active, found.previous, found.remove) == (V1, (V2,), (V4,))


@pytest.mark.parametrize("failed", [False, True])
def test_an_old_version_stays(failed: bool) -> None:
    bad = Bad(V3, "h3", "again", 5) if failed else None
    last = Last("u", "rolled_back", ("a:1.0.3",))
    opened = FULL._replace(update=GROUP, pointer=Pointer("u", "b"))
    found = j.closed(opened, Change("a", V2, V3), last, bad)
    expected = FULL._replace(last=last)
    if failed:
        expected = expected._replace(bad=(FULL.bad[1], bad), remove=(V4, V3))
    assert found == expected
    back = j.closed(opened, Change("a", V1, V2), last, bad)
    assert (back.active, back.previous, back.commit) == (V1, (), None)


@pytest.mark.parametrize("forget", [False, True])
def test_a_package_is_gone(forget: bool) -> None:
    assert j.uninstalled(FULL, V2, forget=forget) == FULL._replace(active=None)
    assert j.uninstalled(FULL, V1, forget=forget) == FULL._replace(previous=())
    gone = FULL._replace(remove=(), bad=FULL.bad[:1] if forget else FULL.bad)
    assert j.uninstalled(FULL, V4, forget=forget) == gone


def test_what_is_remembered_of_a_package() -> None:
    assert [FULL.bad_entry(digest) for digest in ("h3", "h4", "h", "h5")] == [*FULL.bad, None, None]
