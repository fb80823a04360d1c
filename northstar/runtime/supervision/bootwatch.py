# SPDX-License-Identifier: Apache-2.0
"""Whether this boot is a good one: watched until it is decided, and told to a program of the integrator."""

from __future__ import annotations

from northstar.runtime import log
from northstar.supervision import boot, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from northstar.config.model import BootConfig
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.runtime.supervision.supervisor import Supervisor
    from northstar.supervision.boot import Decision

_log = log.Logger("runtime::boot")


class BootWatch:
    """Decides once; before `begin` it is pending."""

    def __init__(
        self, loop: Loop, containers: Iterable[Supervised], supervisor: Supervisor, config: BootConfig
    ) -> None:
        self.decision: Decision = boot.Decision(boot.PENDING)
        self.trials: Callable[[], int] = lambda: 0
        """How many updates have not proved themselves yet."""
        self._loop = loop
        self._supervisor = supervisor
        self._containers = containers
        self._config = config
        self._required: list[Supervised] = []
        self._begun = False
        self._expired = False

    @property
    def decided(self) -> bool:
        """Whether it is good or bad."""
        return self.decision.state != boot.PENDING

    def begin(self) -> None:
        """The autostarts are under way."""
        self._required = [
            r for r in self._containers if r.settings.boot == model.REQUIRED and r.manifest.autostart
        ]
        self._begun = True
        self.look()
        if not self.decided:
            self._supervisor.watch(lambda record, before: self.look())
            self._loop.call_later(self._config.timeout, self._expire)

    def look(self) -> None:
        """Something has changed."""
        if not self._begun or self.decided:
            return
        states = {str(record.container): record.state for record in self._required}
        self.decision = boot.decide(states, expired=self._expired, trials=self.trials())
        if self.decided:
            self._tell()

    def _expire(self) -> None:
        self._expired = True
        self.look()

    def _tell(self) -> None:
        state, waiting, failed = self.decision
        if state == boot.GOOD:
            _log.info(f"This boot is good: {len(self._required)} required container(s)")
            program = self._config.on_good
        else:
            _log.error(f"This boot is bad: {', '.join(failed) or ', '.join(waiting) + ' not ready in time'}")
            program = self._config.on_bad
        self._supervisor.stir()
        if program:
            self._loop.spawn(self._run(program))

    async def _run(self, program: tuple[str, ...]) -> None:
        # Most devices have no such program.
        from northstar.runtime.debugging.child import Child

        try:
            child = Child(self._loop, list(program), {})
        except OSError as error:
            _log.error(f"failed to run {program[0]}: {error.strerror}")
            return
        await child.ended
        _log.info(f"{program[0]} ended: {child.outcome}")
