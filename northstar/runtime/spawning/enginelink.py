# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the channel to the engine: it spawns the engine, and has processes born by it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
from collections import deque

from northstar.engine import binary
from northstar.engine import instructions as isa
from northstar.errors import NorthstarError
from northstar.kernel import process
from northstar.namedtuple import NamedTuple
from northstar.programs import control
from northstar.runtime.eventloop.loop import Future, Mutex, Timeout
from northstar.runtime.spawning import channel, reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket as Socket

    from northstar.engine.assembler import Encoded, Program
    from northstar.runtime.eventloop.loop import Channel, Loop

_MEMFD = "northstar-program"
_MFD_EXEC = 0x10
"""Linux 6.3; older kernels do not know it and need none."""
PATIENCE = 2.0
"""Seconds that an engine has for an answer, or to end, once the daemon ends."""
BURIAL_RETRY, BURIAL_RETRY_MAX = 0.01, 1.0
"""Seconds until a dead process is waited for again, at first and at most."""
_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class EngineDied(NorthstarError):
    """The engine is gone, and all containers with it."""

    def __init__(self) -> None:
        super().__init__("the engine has died")


class Newborn(NamedTuple):
    """A process that waits for a program: an init, or the supervisor of a session."""

    pid: int
    pidfd: int
    socket: Socket
    """The channel to it."""
    reports: Channel
    """When it may have told something."""
    end: Channel
    """When it may have ended."""
    kept_ready: bool
    """Born before it was needed, so it may have been killed meanwhile."""

    @classmethod
    def watched(cls, loop: Loop, pid: int, pidfd: int, sock: Socket) -> Newborn:
        """Of its pidfd, and our end of the channel."""
        sock.setblocking(False)
        os.set_blocking(pidfd, False)
        return cls(pid, pidfd, sock, loop.register(sock.fileno()), loop.register(pidfd), kept_ready=False)


class Engine:
    """Sends programs; several may be under way, the engine answers each once and in order."""

    def __init__(self, loop: Loop, path: str, on_death: Callable[[], None]) -> None:
        """Spawn it. `on_death` is called once when it has ended, unless `close` came first.

        Raises OSError.
        """
        self._loop = loop
        self._on_death = on_death
        self._waiting: deque[Future] = deque()
        self._sending = Mutex()
        self._ready: Newborn | None = None
        self._preparing: Future | None = None
        self._to_prepare = False
        self.died = False
        """Whether it has ended without having been told to."""
        self._socket, theirs = channel.pair()
        try:
            self.pid = _spawn(path, theirs.fileno())
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)
        self._channel = loop.register(self._socket.fileno())
        loop.spawn(self._receive())

    async def set_up(self, program: Program, null: int) -> None:
        """Have the engine carry out its first program. Raises NorthstarError, EngineDied."""
        report = await self._ask(program.encode(), [null])
        if report.kind == isa.REPORT_FAILED:
            raise NorthstarError(reports.failure(program, report))

    async def start(self, encoded: Encoded, descriptors: Sequence[int]) -> Newborn:
        """Give a program to the init that is kept ready, or to a new one.

        Raises EngineDied, or OSError: fork failed.
        """
        if self._preparing is not None:
            # It is there sooner than another one.
            await self._preparing
        init, self._ready = self._ready, None
        if init is not None and await self._hand_over(init, encoded, descriptors):
            return init
        return await self._bear(control.NAMESPACES, encoded, descriptors)

    async def join(self, encoded: Encoded, descriptors: Sequence[int]) -> Newborn:
        """Give a program to a new process in the namespaces of the host; as `start`."""
        return await self._bear(0, encoded, descriptors)

    def prepare_when_idle(self) -> None:
        """As `prepare`, once whoever waits for an answer has got it."""
        if not self._to_prepare:
            self._to_prepare = True
            self._loop.when_idle(self._begin_to_prepare)

    def _begin_to_prepare(self) -> None:
        self._to_prepare = False
        self._loop.spawn(self.prepare())

    async def prepare(self) -> None:
        """Have an init ready for the next start."""
        if self._ready is not None or self._preparing is not None:
            return
        self._preparing = prepared = Future()
        try:
            self._ready = (await self._birth(control.NAMESPACES))._replace(kept_ready=True)
        except (OSError, EngineDied):
            # The next start meets the same error and reports it.
            return
        finally:
            self._preparing = None
            prepared.set_result()

    async def bury(self, pid: int) -> None:
        """Let the engine wait for a dead process; from then on the pid may be used again.

        Raises EngineDied.
        """
        answer = Future()
        await self._ask_for_burial(pid, answer)
        self._loop.when_done(answer, lambda: self._check_burial(pid, answer))

    async def end_if_silent(self) -> bool:
        """End an engine that does not answer any more, so that nobody waits for it; whether it was one."""
        try:
            await self._loop.wait_for(self._loop.spawn(self._answers()), PATIENCE)
        except Timeout:
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False

    async def close(self) -> None:
        """End the engine and wait for it."""
        self._on_death = lambda: None
        if self._ready is not None:
            with contextlib.suppress(EngineDied):
                await self._abandon(self._ready)
            self._ready = None
        self._channel.close()
        self._socket.close()
        pidfd = os.pidfd_open(self.pid)
        gone = self._loop.register(pidfd)
        try:
            while not ended(pidfd):
                await self._loop.wait_for(gone.readable(), PATIENCE)
        except Timeout:
            os.kill(self.pid, signal.SIGKILL)
        gone.close()
        os.close(pidfd)
        os.waitpid(self.pid, 0)

    async def _ask_for_burial(self, pid: int, answer: Future) -> None:
        try:
            await self._send(control.burial(pid).encode(), [], answer)
        except OSError:
            answer.set_result(reports.Report(isa.REPORT_FAILED, 0, 0))

    def _check_burial(self, pid: int, answer: Future) -> None:
        if not _is_buried(answer):
            self._loop.spawn(self._insist(pid))

    async def _insist(self, pid: int) -> None:
        """A dead process belongs to its tracer at first; descriptors or memory may be short as well."""
        pause, answer = BURIAL_RETRY, Future()
        with contextlib.suppress(EngineDied):
            while not _is_buried(answer):
                await self._loop.sleep(pause)
                pause, answer = min(2 * pause, BURIAL_RETRY_MAX), Future()
                await self._ask_for_burial(pid, answer)
                await answer

    async def _answers(self) -> None:
        # What does not even leave here says nothing about the engine.
        with contextlib.suppress(EngineDied, OSError):
            await self._ask(control.sign_of_life().encode(), [])

    async def _bear(self, flags: int, encoded: Encoded, descriptors: Sequence[int]) -> Newborn:
        newborn = await self._birth(flags)
        try:
            _send_program(newborn.socket, encoded, descriptors)
        except BaseException:
            await self._abandon(newborn)
            raise
        return newborn

    async def _birth(self, flags: int) -> Newborn:
        ours, theirs = channel.pair()
        try:
            report = await self._ask(_birth_program(flags), [theirs.fileno()])
            if report.kind == isa.REPORT_FAILED:
                raise OSError(report.value, os.strerror(report.value), "fork")
            try:
                pidfd = process.pidfd_open(report.value)
            except OSError:
                # Its channel is closed below, so it ends.
                os.kill(report.value, signal.SIGKILL)
                await self.bury(report.value)
                raise
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Newborn.watched(self._loop, report.value, pidfd, ours)

    async def _hand_over(self, init: Newborn, encoded: Encoded, descriptors: Sequence[int]) -> bool:
        """Send the program; False if init has ended, because somebody has killed it while it waited.

        Raises OSError; then it ends.
        """
        try:
            _send_program(init.socket, encoded, descriptors)
            return True
        except OSError as error:
            await self._abandon(init)
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                return False
            raise

    async def _abandon(self, newborn: Newborn) -> None:
        """End a process that has no program."""
        newborn.reports.close()
        newborn.socket.close()
        # It may have ended with the engine, and then somebody else has waited for it.
        with contextlib.suppress(ProcessLookupError):
            process.pidfd_send_signal(newborn.pidfd, signal.SIGKILL)
        while not ended(newborn.pidfd):
            await newborn.end.readable()
        newborn.end.close()
        os.close(newborn.pidfd)
        await self.bury(newborn.pid)

    async def _ask(self, encoded: Encoded, descriptors: Sequence[int]) -> reports.Report:
        answer = Future()
        await self._send(encoded, descriptors, answer)
        report: reports.Report = await answer
        return report

    async def _send(self, encoded: Encoded, descriptors: Sequence[int], answer: Future) -> None:
        async with self._sending:
            while True:
                if self._socket.fileno() < 0:
                    raise EngineDied
                try:
                    _send_program(self._socket, encoded, descriptors)
                    # Only now: what has not been sent is not answered.
                    self._waiting.append(answer)
                    return
                except BlockingIOError:
                    await self._channel.writable()
                except (BrokenPipeError, ConnectionResetError):
                    raise EngineDied from None

    async def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(reports.SIZE)
            except BlockingIOError:
                await self._channel.readable()
                continue
            except OSError:
                data = b""
            if not data:
                break
            self._waiting.popleft().set_result(reports.decode(data))
        self.died = True
        for answer in self._waiting:
            answer.set_error(EngineDied())
        self._on_death()


def ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended (it may not have been reaped yet)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _is_buried(answer: Future) -> bool:
    """With the engine, the dead are somebody else's."""
    if not answer.done:
        return False
    try:
        report: reports.Report = answer.result()
    except EngineDied:
        return True
    return report.kind == control.BURIED and report.value != 0


@functools.cache
def _birth_program(flags: int) -> Encoded:
    return control.birth(flags).encode()


def _send_program(sock: Socket, encoded: Encoded, descriptors: Sequence[int]) -> None:
    memfd = channel.sealed(_MEMFD, encoded.memory)
    try:
        if len(descriptors) > isa.MAX_DESCRIPTORS:
            raise OSError(
                errno.ETOOMANYREFS,
                f"{len(descriptors)} descriptors, at most {isa.MAX_DESCRIPTORS} are possible",
            )
        channel.send(sock, encoded.head, [memfd, *descriptors])
    finally:
        os.close(memfd)


def _spawn(path: str, theirs: int) -> int:
    """Nothing is inherited but the channel. Raises OSError."""
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)
    ]
    actions.append((os.POSIX_SPAWN_DUP2, theirs, isa.CHANNEL))

    def spawn(program: str) -> int:
        return os.posix_spawn(
            program, [binary.NAME], {}, file_actions=actions, setsigdef=_ALL_SIGNALS, setsigmask=()
        )

    copy = channel.sealed(binary.NAME, _content(path), flags=_MFD_EXEC)
    try:
        pid = spawn(f"/proc/self/fd/{copy}")
        # A container that gets at it can neither change nor execute it.
        os.fchmod(copy, 0)
        return pid
    except PermissionError:
        # vm.memfd_noexec, or a policy that forbids to execute what is in no file system.
        return spawn(path)
    finally:
        os.close(copy)


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()
