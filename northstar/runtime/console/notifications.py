# SPDX-License-Identifier: Apache-2.0
"""Broadcast of notifications to the connections that want them."""

from __future__ import annotations

from northstar.protocol import messages
from northstar.runtime.containers.events import Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from northstar.names import Container
    from northstar.runtime.spawning.process import ExitStatus

    class Subscriber(Protocol):
        """Takes encoded notifications; must not block and must not raise."""

        def notify(self, line: bytes) -> None:
            """Deliver or queue one notification."""


class Notifications(Observer):
    """The subscribers, and one method per event."""

    def __init__(self) -> None:
        self._subscribers: dict[Subscriber, frozenset[str]] = {}
        self._update_followers: dict[Subscriber, None] = {}

    def subscribe(self, subscriber: Subscriber, kinds: frozenset[str] = frozenset()) -> None:
        """Deliver to it from now on: what upstream has, and the kinds of ours that it names."""
        self._subscribers[subscriber] = kinds

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """No more; no-op if it is not subscribed."""
        self._subscribers.pop(subscriber, None)
        self._update_followers.pop(subscriber, None)

    def follow_updates(self, subscriber: Subscriber) -> None:
        """Deliver what is told of updates to it, too, as clients of upstream do not understand that."""
        self._update_followers[subscriber] = None

    def started(self, container: Container, seconds: float) -> None:
        """A container's application was executed."""
        self._publish({"started": str(container)})

    def exited(self, container: Container, status: ExitStatus) -> None:
        """A container ended and its cgroup and sockets are removed."""
        self._publish({"exit": [str(container), status.to_json()]})

    def installed(self, container: Container) -> None:
        """A package was added."""
        self._publish({"install": str(container)})

    def uninstalled(self, container: Container) -> None:
        """A package was removed."""
        self._publish({"uninstall": str(container)})

    def memory_event(self, container: Container, event: dict[str, int | None]) -> None:
        """A container's control group ran out of memory."""
        self._publish({"c_group": [str(container), {"memory": event}]})

    def updated(self, details: dict[str, Any]) -> None:
        """An update has come to its next phase."""
        self._tell_followers({"update": details})

    def damaged(self, container: Container) -> None:
        """A read of the image of a mounted package has met a damaged block."""
        self._tell_followers({"damaged": str(container)})

    def _tell_followers(self, value: object) -> None:
        line = messages.notification(value)
        for subscriber in list(self._update_followers):
            subscriber.notify(line)

    def supervised(self, kind: str, container: Container, details: dict[str, object]) -> None:
        """Something about the supervision of a container, for those that have named its kind."""
        self.extension(kind, [str(container), details] if details else str(container))

    def extension(self, kind: str, value: object) -> None:
        """A notification that upstream does not have, for those that have named its kind."""
        wanting = [subscriber for subscriber, kinds in self._subscribers.items() if kind in kinds]
        if wanting:
            line = messages.notification({kind: value})
            for subscriber in wanting:
                subscriber.notify(line)

    def _publish(self, value: object) -> None:
        line = messages.notification(value)
        for subscriber in list(self._subscribers):
            subscriber.notify(line)
