# SPDX-License-Identifier: Apache-2.0
"""Requests that wait: for containers to become ready or to end, and for the decision about this boot."""

from __future__ import annotations

from northstar.errors import ApiError, Unexpected
from northstar.runtime.supervision.supervisor import exit_status
from northstar.supervision import model
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.names import Container
    from northstar.protocol.requests import Boot, Wait
    from northstar.runtime.supervision.bootwatch import BootWatch
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.runtime.supervision.supervisor import Supervisor

    Find = Callable[[Container], Supervised]


async def wait(supervisor: Supervisor, find: Find, request: Wait) -> list[object]:
    """One result for each container, which `find` gives, or raises ApiError."""
    waits = [_Wait(find, container, request.until) for container in request.containers]
    await supervisor.within(request.timeout, lambda: all(each.over() for each in waits))
    return [each.result() for each in waits]


async def boot(supervisor: Supervisor, watch: BootWatch, request: Boot) -> object:
    """The decision about this boot."""
    if request.wait:
        await supervisor.within(request.timeout, lambda: watch.decided)
    state, waiting, failed = watch.decision
    return {"state": state, "waiting": list(waiting), "failed": list(failed)}


class _Wait:
    """What is waited for of one container."""

    def __init__(self, find: Find, container: Container, until: str) -> None:
        self._container = container
        self._until = until
        self._record: Supervised | None = None
        self._error: ApiError | None = None
        try:
            self._record = find(container)
            self._generation = self._record.state.generation
        except ApiError as error:
            self._error = error

    def over(self) -> bool:
        """Whether there is nothing more to wait for. What has been reached once counts."""
        record = self._record
        if record is None or self._error is not None:
            return True
        if self._until == "exit":
            return record.state.phase not in s.ALIVE or record.state.generation != self._generation
        return _is_ready(record) or _gives_up(record)

    def result(self) -> object:
        name, record = str(self._container), self._record
        error = self._error
        if record is not None and not self.over():
            error = Unexpected(f"{name} is {_word(record)} after the time limit")
        elif record is not None and self._until == "ready" and not _is_ready(record):
            error = Unexpected(f"{name} is not ready: it is {_word(record)}")
        if error is not None or record is None:
            return {"error": {"container": name, "error": error.to_json() if error is not None else None}}
        status = exit_status(record.state.last)
        data = {"state": record.state.phase, "exit": None if status is None else status.to_json()}
        return {"ok": {"container": name, "data": data}}


def _is_ready(record: Supervised) -> bool:
    """Operational, or done if it does something once."""
    state = record.state
    done = state.phase == s.IDLE and state.last is not None and not state.last.failed
    return state.phase == s.READY or (record.settings.ready.by == model.EXIT and done)


def _gives_up(record: Supervised) -> bool:
    """It does not become ready by itself any more."""
    return record.state.phase in (s.IDLE, s.QUARANTINED)


def _word(record: Supervised) -> str:
    state = record.state
    if state.last is not None and state.last.failed:
        return f"{state.phase}: {state.last.reason}"
    return state.phase + (f" for {state.held}" if state.held else "")
