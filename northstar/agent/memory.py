# SPDX-License-Identifier: Apache-2.0
"""What the parts of a session share: its settings, what it remembers, and when it cannot go on."""

from __future__ import annotations

from northstar.agent import ddi, policy
from northstar.agent.actions import Action, Answer, Keep, Log
from northstar.agent.state import Volatile
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    from northstar.agent.offers import Limits
    from northstar.agent.state import State

    T = TypeVar("T")
    Steps = Generator[Action, Any, T]


class Settings(NamedTuple):
    """What a session goes by."""

    url: str
    """Of the device at the server."""
    limits: Limits
    longest: float
    """Seconds between two polls, at most."""
    confirmation: str
    """accept, deny or ask."""

    @property
    def secure(self) -> bool:
        """Whether the server is only spoken to over TLS."""
        return self.url.startswith("https:")


class Later(Exception):
    """Nothing more can be done now; go on in so many seconds. `waiting` says that the job is what waits."""

    def __init__(self, seconds: float, complaint: str, waiting: bool = False) -> None:
        super().__init__(complaint)
        self.seconds = seconds
        self.complaint = complaint
        self.waiting = waiting


class Memory:
    """`state` and `volatile` are what is to be remembered."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        volatile: Volatile,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """`clock` gives the seconds since 1970, `random` numbers from 0 to 1."""
        self.settings = settings
        self.state = state
        self.volatile = volatile if volatile.url == settings.url else Volatile(settings.url)
        self.clock = clock
        self.random = random

    @property
    def regular(self) -> float:
        """Seconds between two polls; each time somewhat different."""
        return policy.interval(self.volatile.asked, self.settings.longest, self.random())

    def keep(self, **changes: Any) -> Steps[None]:
        """Change the durable part."""
        self.state = self.state._replace(**changes)
        yield Keep(self.state)

    def remember(self, **changes: Any) -> None:
        """Change the other part."""
        self.volatile = self.volatile._replace(**changes)

    def complain(self, later: Later) -> Steps[None]:
        """A line in the log, unless it is what was said last."""
        known = self.volatile.stall if later.waiting else self.volatile.complaint
        if later.complaint == known:
            return
        self.remember(**{"stall" if later.waiting else "complaint": later.complaint})
        yield Log("warning", later.complaint)

    def read(self, reader: Callable[[Any], T], document: Any, what: str) -> T:
        """What a reader makes of a document; one that is malformed is no answer."""
        try:
            return reader(document)
        except ddi.Malformed as error:
            raise self.refused(Answer(0, reason=str(error)), what) from None

    def refused(self, answer: Answer, what: str) -> Later:
        """What to do after an answer that is none."""
        failures = self.volatile.failures + 1
        self.remember(failures=failures, etag="")
        seconds = policy.after_refusal(
            answer.status, answer.retry_after, failures, self.random(), self.regular
        )
        return Later(seconds, f"{what}: {said(answer)}")

    def stalled(self, what: str, retry_after: float | None = None) -> Later:
        """What to do if the job does not get on."""
        stalls = self.volatile.stalls + 1
        self.remember(stalls=stalls)
        return Later(policy.after_refusal(503, retry_after, stalls, self.random(), self.regular), what, True)


def said(answer: Answer) -> str:
    """What an answer says, in words."""
    words = {
        401: "the server does not know our token (401)",
        403: "the server forbids it (403)",
        404: "the server does not know this device (404)",
        429: "the server is asked too often (429)",
    }
    if answer.status == 0:
        return answer.reason
    return words.get(answer.status, f"the server answers {answer.status}")
