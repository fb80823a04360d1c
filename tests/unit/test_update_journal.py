# SPDX-License-Identifier: Apache-2.0
"""Journals of container names: what is written can be read, and what cannot be read does no harm."""

from __future__ import annotations

import bisect
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.errors import UpdateRejected
from northstar.names import Version
from northstar.updates import journal, journaltext, records, versions
from northstar.updates.journal import Bad, Change, Commit, Journal, JournalError, Last, Pointer, Update
from northstar.updates.machine import Close
from northstar.updates.versions import Installed

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=20)
VERSIONS = st.builds(Version, st.integers(0, 9), st.integers(0, 99), st.integers(0, (1 << 64) - 1))
TEXTS = st.text(max_size=100).filter(lambda text: text.isprintable())
IDS = st.integers(0, 99).map("u-{}".format)
BAD = st.builds(
    Bad, VERSIONS, st.text("0123456789abcdef", min_size=64, max_size=64), TEXTS, st.integers(0, 1 << 40)
)
CHANGES = st.lists(
    st.tuples(NAMES, st.none() | VERSIONS, VERSIONS), min_size=1, max_size=4, unique_by=lambda c: c[0]
)
UPDATES = st.builds(
    Update,
    IDS,
    CHANGES.map(lambda changes: tuple(Change(*change) for change in changes)),
    TEXTS,
    st.sampled_from(journal.PHASES),
    st.integers(0, 9),
    st.integers(1, 9),
    st.floats(0, 100),
    st.sampled_from(["keep", "copy"]),
    TEXTS,
    NAMES | st.just(""),
)
LAST = st.builds(
    Last,
    IDS,
    st.sampled_from(journal.RESULTS),
    st.just(("a:1.0.0",)),
    TEXTS,
    TEXTS,
    st.integers(0, 1 << 40),
)
JOURNALS = st.builds(
    Journal,
    st.none() | VERSIONS,
    st.lists(VERSIONS, max_size=2).map(tuple),
    st.none() | VERSIONS,
    st.lists(BAD, max_size=3).map(tuple),
    st.none(),
    st.none() | st.builds(Pointer, IDS, NAMES),
    st.none() | LAST,
    st.none() | st.builds(Commit, IDS, st.integers(0, 1 << 40)),
    st.lists(VERSIONS, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(["later", "more"]), st.integers() | st.text("abc")),
)
V = Version.parse
COMMIT = Commit("u-1", 0)


@given(JOURNALS, st.none() | UPDATES)
def test_what_is_written_is_read(known: Journal, update: Update | None) -> None:
    name = "a" if update is None else update.leader
    if update is not None:
        known = known._replace(update=update, pointer=None)
    data = journaltext.encode(name, known)
    assert len(data) <= journal.MAX_SIZE
    assert journaltext.decode(name, data) == (known, [])


@given(JOURNALS, st.data())
def test_a_journal_that_was_cut(known: Journal, data: st.DataObject) -> None:
    text = journaltext.encode("a", known).rstrip()
    with pytest.raises(JournalError):
        journaltext.decode("a", text[: data.draw(st.integers(0, len(text) - 1))])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["active", "previous", "floor", "bad", "update", "last", "remove", "later"])


@given(st.dictionaries(KEYS, VALUES))
def test_any_values(value: dict[str, object]) -> None:
    """What cannot be understood is named and left out; the rest can be written again."""
    known, problems = journaltext.decode("a", json.dumps({"format": 1, **value}).encode("utf-8", "replace"))
    assert all("is malformed" in problem for problem in problems)
    if not known.extra:
        assert journaltext.decode("a", journaltext.encode("a", known)) == (known, [])


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    try:
        journaltext.decode("a", data)
    except JournalError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "damaged"),
        (b"[]", "no JSON object"),
        (b"[" * 4000, "damaged"),
        (b" " * 5000 + b"{}", "more than 4096 bytes"),
        (b"{}", "no format number"),
        (b'{"format":true}', "no format number"),
        (b'{"format":2}', "format 2 is newer than 1"),
        (b'{"format":1,"name":"b"}', "belongs to container 'b'"),
    ],
)
def test_no_journal(data: bytes, message: str) -> None:
    with pytest.raises(JournalError, match=message):
        journaltext.decode("a", data)


def test_the_form_of_the_specification() -> None:
    """A single previous version, an update of one container without a group."""
    text = """{"format":1,"active":"1.0.1","previous":"1.0.0","floor":"1.0.0","new_key":[1],
      "bad":[{"version":"1.0.2","hash":"00","reason":"not ready after 30s","time":1764000000}],
      "update":{"id":"u-17","reference":"hawkbit:42","from":"1.0.1","to":"1.0.3","phase":"trying","boots":1}}"""
    known, problems = journaltext.decode("hello", text.encode())
    assert not problems
    assert (known.active, known.previous, known.floor) == (V("1.0.1"), (V("1.0.0"),), V("1.0.0"))
    assert known.bad == (Bad(V("1.0.2"), "00", "not ready after 30s", 1764000000),)
    assert known.update is not None
    assert known.update.changes == (Change("hello", V("1.0.1"), V("1.0.3")),)
    assert json.loads(journaltext.encode("hello", known))["new_key"] == [1]


def test_old_bad_versions_give_way() -> None:
    """The journal stays within a block, and the newest of them is never lost."""
    known = Journal()
    for number in range(20):
        bad = Bad(Version(1, 0, number), f"{number:064}", "é" * 1000, number)
        known = known._replace(bad=journal.remembered(known.bad, bad))
    read = journaltext.decode("a", journaltext.encode("a", known))[0]
    assert 1 < len(read.bad) <= journal.MAX_BAD
    assert read.bad[-1].version == Version(1, 0, 19)
    assert read.bad[-1].reason == "é" * 78 + "…"


def test_no_room() -> None:
    changes = tuple(Change("n" * 200 + str(number), V("1.0.0"), V("1.0.1")) for number in range(20))
    with pytest.raises(JournalError, match="more than 4096"):
        records.check_room(Update("u-1", changes), {}, NO_FACTS)
    records.check_room(Update("u-1", changes[:2]), {}, NO_FACTS)


@given(st.text(max_size=400).filter(lambda text: text.isascii() or text.isprintable()))
def test_a_reason_takes_as_much_room_as_it_may(reason: str) -> None:
    kept = journaltext.clipped(reason)
    assert len(json.dumps(kept, ensure_ascii=False).encode()) <= journal.MAX_REASON + 2
    assert kept == journaltext.clipped(kept)
    assert kept == reason or (kept.endswith("…") and reason.startswith(kept[:-1]))


NO_FACTS = records.Facts({}, {})
LONG = Version(*[(1 << 64) - 1] * 3)
REASONS = ("exit code 1", "\x00" * 200, "\N{PISTOL}" * 200, '"' * 200)


def reachable(update: Update, known: dict[str, Journal], facts: records.Facts, reason: str) -> None:
    """Write what a device could write in the course of an update; raises JournalError."""

    def write(writes: records.Writes) -> None:
        for name, changed in writes:
            journaltext.encode(name, changed)
            known[name] = changed

    before = dict(known)
    for culprit in ("", journal.NOBODY, *(change.name for change in update.changes)):
        failed = update._replace(phase=journal.ROLLING_BACK, reason=reason, culprit=culprit, boots=9)
        for result in journal.RESULTS:
            known.clear()
            known.update(before)
            write(records.recording(update, known, facts))
            if result in (journal.ROLLED_BACK, journal.ROLLBACK_FAILED):
                write(records.recording(failed, known, facts))
                write(records.closing(Close(failed, result, reason), known, facts))
            else:
                write(records.closing(Close(update, result, reason), known, facts))


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize(
    "known", ["nothing", "a result", "a member's result", "bad versions", "older versions"]
)
@pytest.mark.parametrize("members", [1, 3])
def test_what_is_accepted_has_room_to_its_end(known: str, reason: str, members: int) -> None:
    """The longest names for which an update is accepted: each journal of it can be written, too."""
    last = Last("u-0", "rollback_failed", ("x" * 300 + ":1.0.0",) * 2, "r" * 200, reason, 1 << 34)
    bad = tuple(Bad(LONG, f"{number:064}", reason, 1) for number in range(8))
    journals = {
        "nothing": Journal(),
        "a result": Journal(last=last),
        "a member's result": Journal(),
        "bad versions": Journal(active=LONG, bad=bad, last=last),
        "older versions": Journal(active=V("1.0.0"), previous=(LONG, V("0.0.1")), remove=(LONG,), last=last),
    }[known]

    def scene(length: int) -> tuple[Update, dict[str, Journal], records.Facts]:
        names = [str(number) + "n" * length for number in range(members)]
        update = Update("u-1", tuple(Change(name, V("1.0.0"), LONG) for name in names), "r" * 200)
        facts = records.Facts(dict.fromkeys(names, "f" * 64), dict.fromkeys(names, LONG), 1 << 34)
        there = dict.fromkeys(names, journals)
        if known == "a member's result":
            there[names[-1]] = Journal(last=last._replace(containers=("x" * length,) * 8))
        return update, there, facts

    def accepted(length: int) -> bool:
        try:
            records.check_room(*scene(length))
        except JournalError:
            return False
        return True

    assert accepted(1) and not accepted(4000)
    longest = bisect.bisect_right(range(4000), False, key=lambda length: not accepted(length)) - 1
    reachable(*scene(longest), reason)


# --- which version counts

A, B, C = (Installed(Version(1, 0, number), str(number)) for number in range(3))
FACTORY = Installed(Version(2, 0, 0), "factory", writable=False)


@pytest.mark.parametrize(
    ("installed", "known", "expected"),
    [
        ([], Journal(), None),
        ([A, B], Journal(), B),
        ([A, B], Journal(active=A.version), A),
        ([B, C], Journal(active=A.version), C),
        ([A, B], Journal(bad=(Bad(B.version, "1", "", 0),)), A),
        # Other content under the number of a bad version is another package.
        ([A, B], Journal(bad=(Bad(B.version, "x", "", 0),)), B),
        ([A, B], Journal(active=B.version, bad=(Bad(B.version, "1", "", 0),)), A),
        ([A], Journal(floor=B.version), None),
        ([A, FACTORY], Journal(), A),
        ([FACTORY], Journal(), FACTORY),
        ([A, FACTORY], Journal(bad=(Bad(A.version, "0", "", 0),)), FACTORY),
        ([A, FACTORY], Journal(active=FACTORY.version), FACTORY),
    ],
)
def test_the_version(installed: list[Installed], known: Journal, expected: Installed | None) -> None:
    assert versions.current(installed, known) == (None if expected is None else expected.version)


@pytest.mark.parametrize(
    ("new", "known", "options", "message"),
    [
        (B, Journal(), {}, "it is the active version already"),
        (A, Journal(), {}, "a downgrade from 1.0.1"),
        (A, Journal(floor=B.version), {"allow_downgrade": True, "force": True}, "below the floor 1.0.1"),
        (C, Journal(bad=(Bad(C.version, "2", "exited with 1", 7),)), {}, "has failed before: exited with 1"),
    ],
)
def test_refused(new: Installed, known: Journal, options: dict[str, bool], message: str) -> None:
    with pytest.raises(UpdateRejected, match=message) as caught:
        versions.check_update("a", B.version, new, known, **options)
    assert caught.value.time == (7 if "failed" in message else None)


def test_allowed() -> None:
    versions.check_update("a", B.version, C, Journal())
    versions.check_update("a", None, A, Journal())
    versions.check_update("a", B.version, A, Journal(), allow_downgrade=True)
    versions.check_update("a", B.version, C, Journal(bad=(Bad(C.version, "2", "", 7),)), force=True)


def test_what_stays_behind() -> None:
    """As many as wanted, the newest ones; the rest is to be removed."""
    known = Journal(active=V("1.0.2"), previous=(V("1.0.1"),))
    change = Change("a", V("1.0.2"), V("1.0.3"))
    one = journal.committed(known, change, None, COMMIT, keep=1, floor=V("1.0.1"))
    assert (one.active, one.previous, one.remove, one.floor) == (
        V("1.0.3"),
        (V("1.0.2"),),
        (V("1.0.1"),),
        V("1.0.1"),
    )
    assert journal.committed(known, change, None, COMMIT, keep=2).remove == ()
    assert journal.committed(known, change, None, COMMIT, keep=0).remove == (V("1.0.2"), V("1.0.1"))
    lower = journal.committed(
        known._replace(floor=V("1.0.2")), change, None, COMMIT, keep=1, floor=V("1.0.1")
    )
    assert lower.floor == V("1.0.2")


def test_what_a_person_removes_is_forgotten() -> None:
    known = Journal(active=V("1.0.0"), bad=(Bad(V("1.0.1"), "1", "", 0),), remove=(V("1.0.1"),))
    assert journal.uninstalled(known, V("1.0.1"), forget=False).bad == known.bad
    forgotten = journal.uninstalled(known, V("1.0.1"), forget=True)
    assert (forgotten.bad, forgotten.remove, forgotten.active) == ((), (), V("1.0.0"))
    assert journal.uninstalled(known, V("1.0.0"), forget=True).active is None
