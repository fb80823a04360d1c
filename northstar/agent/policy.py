# SPDX-License-Identifier: Apache-2.0
"""When to poll, when updates that nobody insists on are welcome: pure functions."""

from __future__ import annotations

import re

from northstar.namedtuple import NamedTuple

MIN_POLL, DEFAULT_POLL, MAX_POLL = 5.0, 300.0, 86400.0
"""Seconds; the default is that of hawkBit."""
SPREAD = 0.1
"""Polls come this share earlier or later, so that devices do not poll in step for ever."""
FIRST_RETRY, LAST_RETRY = 30.0, 3600.0
DENIED_RETRY = 3600.0
MAX_RETRY_AFTER = 86400.0

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([A-Za-z]{3})\s+)?([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_DAY = 24 * 60


class Window(NamedTuple):
    """A span of local time: minutes of the day, which may run over midnight; `day` 0 is Monday, None every
    day.
    """

    day: int | None
    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """From `[DAY ]HH:MM-HH:MM`, as in `22:00-05:00` or `Sun 03:00-05:00`; ValueError."""
        match = _WINDOW.fullmatch(text.strip())
        numbers = [int(part) for part in match.groups()[1:]] if match else []
        day = match[1].lower() if match and match[1] else None
        if not match or (day is not None and day not in _DAYS):
            raise ValueError(f"invalid window {text[:40]!r}: as in 22:00-05:00 or Sun 03:00-05:00")
        begin, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
        if max(begin, end) > _DAY or max(numbers[1], numbers[3]) > 59 or begin == end:
            raise ValueError(f"invalid window {text[:40]!r}: no span of a day")
        return cls(None if day is None else _DAYS.index(day), begin, end)

    def contains(self, weekday: int, minute: int) -> bool:
        """Whether a minute of a day of the week (0 is Monday) lies within."""
        if self.begin < self.end:
            return self.day in (None, weekday) and self.begin <= minute < self.end
        if minute >= self.begin:
            return self.day in (None, weekday)
        return minute < self.end and self.day in (None, (weekday - 1) % 7)


def interval(asked: float, longest: float, random: float) -> float:
    """Seconds until the next poll. `asked` is the server's wish, `random` a number from 0 to 1."""
    return max(MIN_POLL, min(MAX_POLL, longest, asked)) * (1 + SPREAD * (2 * random - 1))


def retry(failures: int, random: float) -> float:
    """Seconds until the next try after so many failures in a row: doubled each time, half of it by chance."""
    whole = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
    return whole * (0.5 + 0.5 * random)


def after_refusal(
    status: int, retry_after: float | None, failures: int, random: float, regular: float
) -> float:
    """Seconds until the next try after an answer that is none. Status 0: there was no answer."""
    if status in (401, 403):
        return DENIED_RETRY * (1 + SPREAD * (2 * random - 1))
    if status == 404:
        return regular
    waited = retry(failures, random)
    if retry_after is not None and status in (429, 503):
        return max(waited, min(retry_after, MAX_RETRY_AFTER)) * (1 + SPREAD * random)
    return waited
