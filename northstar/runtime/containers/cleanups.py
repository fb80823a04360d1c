# SPDX-License-Identifier: Apache-2.0
"""What a run has to give back in the end."""

from __future__ import annotations

from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = log.Logger("runtime::run")


class CleanUps:
    """Steps, the last one first. One that fails is logged, and the others are taken nevertheless."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object] | None]]] = []

    def add(self, purpose: str, step: Callable[[], Awaitable[object] | None]) -> None:
        """To be taken before all that were added earlier; `purpose` is for the log: "failed to …"."""
        self._steps.append((purpose, step))

    async def run(self) -> None:
        """Take all of them, each once."""
        while self._steps:
            purpose, step = self._steps.pop()
            try:
                waiting = step()
                if waiting is not None:
                    await waiting
            except OSError as error:
                place = f" {error.filename}" if error.filename else ""
                _log.error(f"failed to {purpose}:{place} {error.strerror or error}")
            except Exception as error:
                _log.error(f"failed to {purpose}: {type(error).__name__}: {error}")
