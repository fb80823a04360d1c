# SPDX-License-Identifier: Apache-2.0
"""The memory for the last output of a container, and those who follow it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.names import Container
from northstar.runtime.output.lastoutput import OVERHEAD, Follower, LastOutput
from northstar.runtime.output.streams import BURST, Lines

A = Container.parse("a:0.0.1")


def kept(output: LastOutput) -> list[str]:
    return [line["line"] for line in output.to_json()["lines"]]


def output(limit: int) -> LastOutput:
    made = LastOutput()
    made.begin(limit)
    return made


def told(follower: Follower) -> dict[str, Any]:
    line = follower.next_notification()
    notification = json.loads(line)["notification"] if line else {}
    return notification["output"][1] if "output" in notification else notification


def test_lines_with_time_and_stream() -> None:
    before = time.time_ns() // 1000
    made = output(1000)
    made.add("stdout", "Grüße")
    made.add("stderr", "")
    found = made.to_json()
    assert [(line["stream"], line["line"]) for line in found["lines"]] == [
        ("stdout", "Grüße"),
        ("stderr", ""),
    ]
    assert before <= found["lines"][0]["time"] <= found["lines"][1]["time"] <= time.time_ns() // 1000
    assert found["lost"] == {"lines": 0, "bytes": 0}


def test_new_lines_take_the_place_of_old_ones() -> None:
    made = output(10 * (OVERHEAD + 20))
    for number in range(100):
        made.add("stdout", f"line {number:3}")
    lines = kept(made)
    assert lines == [f"line {number:3}" for number in range(100 - len(lines), 100)]
    assert len(lines) >= 10
    assert made.to_json()["lost"] == {"lines": 100 - len(lines), "bytes": 8 * (100 - len(lines))}


@given(st.integers(0, 2000), st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=200)))
def test_memory_is_bounded_and_everything_accounted_for(limit: int, texts: list[str]) -> None:
    made = output(limit)
    for text in texts:
        made.add("stdout", text)
    lines = kept(made)
    found = made.to_json()
    size = sum(len(line.encode()) for line in lines)
    assert size + OVERHEAD * len(lines) <= limit
    assert found["lost"]["lines"] + len(lines) == len(texts)
    cut = sum(len(text.encode()) for text in texts) - found["lost"]["bytes"] - size
    # Half a character at the cut of a line that is too long is shown by neither.
    assert 0 <= cut <= 3 * len(lines)


def test_a_line_that_is_too_long_is_cut() -> None:
    made = output(200)
    made.add("stdout", "x" * 1000)
    (line,) = kept(made)
    assert set(line) == {"x"}
    assert made.lost_bytes == 1000 - len(line)


def test_a_run_forgets_the_one_before() -> None:
    made = output(OVERHEAD + 20)
    made.add("stdout", "first")
    made.add("stdout", "second")
    assert kept(made) == ["second"]
    made.begin(1000)
    assert made.to_json() == {"lines": [], "lost": {"lines": 0, "bytes": 0}}


def test_what_the_rate_limit_drops_is_counted() -> None:
    made = output(1 << 20)
    lines = Lines(lambda line: made.add("stdout", line), on_lost=made.lose)
    lines.feed(b"12345\n" * (BURST + 100))
    lost = made.to_json()["lost"]
    # The allowance grows with time.
    assert 0 < lost["lines"] <= 100
    assert lost["bytes"] == 5 * lost["lines"]
    assert len(kept(made)) + lost["lines"] == BURST + 100


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ""), (1, "e"), (2, "de"), (4, "bcde"), (5, "abcde"), (9, "abcde")]
)
def test_last_lines(count: int, expected: str) -> None:
    made = output(1000)
    assert made.last(count) == []
    for text in "abcde":
        made.add("stdout", text)
    assert made.last(count) == list(expected)


@pytest.mark.parametrize(("missing", "lines"), [(0, ["abc", "def"]), (1, ["def"])])
def test_room_is_used_to_the_last_byte(missing: int, lines: list[str]) -> None:
    """Of each line there is its text, when it came, and from where: nine bytes."""
    made = output(2 * (OVERHEAD + 9 + 3) - missing)
    for text in ("abc", "def"):
        made.add("stdout", text)
    assert kept(made) == lines
    assert (made.lost_lines, made.lost_bytes) == (missing, 3 * missing)


# --- following


def test_a_follower_gets_what_comes_after_it_began() -> None:
    made = output(1000)
    made.add("stdout", "before")
    woken: list[None] = []
    follower = Follower(A, made, lambda: woken.append(None))
    assert told(follower) == {}
    made.add("stdout", "one")
    made.add("stderr", "two")
    assert len(woken) == 2
    found = told(follower)
    assert [(line["stream"], line["line"]) for line in found["lines"]] == [
        ("stdout", "one"),
        ("stderr", "two"),
    ]
    assert found["lost"] == 0
    assert told(follower) == {}


@pytest.mark.parametrize("restart", [False, True])
def test_a_slow_follower_learns_what_it_has_missed(restart: bool) -> None:
    made = output(3 * (OVERHEAD + 15))
    follower = Follower(A, made, lambda: None)
    for number in range(10):
        made.add("stdout", f"{number}")
    if restart:
        made.begin(1000)
        made.add("stdout", "10")
    found = told(follower)
    lines = [line["line"] for line in found["lines"]]
    assert lines == (["10"] if restart else ["7", "8", "9"])
    assert found["lost"] == (10 if restart else 7)


def test_the_end_of_following() -> None:
    made = output(1000)
    follower = Follower(A, made, lambda: None)
    made.add("stdout", "x")
    assert len(told(follower)["lines"]) == 1
    made.remove()
    assert not follower.ended
    assert told(follower) == {"output_end": "a:0.0.1"}
    assert follower.ended
    assert told(follower) == {}


def test_nobody_is_woken_after_it_stopped() -> None:
    made = output(1000)
    follower = Follower(A, made, lambda: pytest.fail("woken"))
    follower.stop()
    made.add("stdout", "x")
