# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the channel to the forker."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from northstar.forker import messages
from northstar.kernel import process
from northstar.runtime.loop import Future, Mutex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from northstar.forker.messages import Plan, Socket
    from northstar.runtime.loop import Loop


class ForkerDied(Exception):
    """The forker is gone, and all containers with it."""


class Init(NamedTuple):
    """An init that waits for its plan, or the supervisor of a session."""

    pid: int
    pidfd: int
    orders: Socket


class ForkerLink:
    """Sends orders; several may be under way, the forker answers in order."""

    def __init__(self, loop: Loop, sock: Socket, pid: int, on_death: Callable[[], None]) -> None:
        """`on_death` is called once when the forker has ended, unless `close` came first."""
        self.pid = pid
        self._loop = loop
        self._socket = sock
        self._on_death = on_death
        self._waiting: deque[Future] = deque()
        self._sending = Mutex()
        self._ready: Init | None = None
        self._preparing = False
        sock.setblocking(False)
        self._channel = loop.register(sock.fileno())
        loop.spawn(self._receive())

    async def start(
        self, plan: Plan, descriptors: Sequence[int], filters: tuple[bytes, bytes]
    ) -> tuple[int, int]:
        """Give a plan to an init; its (pid, pidfd).

        Raises ForkerDied, or OSError: fork failed, E2BIG: the plan is larger than MAX_ORDER.
        """
        order = _order(plan, filters)
        init, self._ready = self._ready, None
        if init is None or not await self._hand_over(init, order, descriptors):
            init = await self._fork(messages.encode_fork(), order, descriptors)
        return init.pid, init.pidfd

    async def join(
        self, plan: Plan, descriptors: Sequence[int], filters: tuple[bytes, bytes]
    ) -> tuple[int, int]:
        """Give a plan to the supervisor of a session; as `start`."""
        order = _order(plan, filters)
        supervisor = await self._fork(messages.encode_join(), order, descriptors)
        return supervisor.pid, supervisor.pidfd

    async def prepare(self) -> None:
        """Have an init ready for the next start, now that the processors are free."""
        if self._ready is not None or self._preparing:
            return
        self._preparing = True
        try:
            # Whoever waits for the start at hand gets the answer first.
            await self._loop.turn()
            self._ready = await self._fork(messages.encode_fork())
        except OSError:
            # The next start meets the same error and reports it.
            return
        finally:
            self._preparing = False

    async def _fork(self, order: bytes, plan: bytes = b"", descriptors: Sequence[int] = ()) -> Init:
        """Have a process forked. A plan that is known already waits for it."""
        orders, theirs = messages.channel()
        orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * messages.MAX_ORDER)
        answer = Future()
        try:
            if plan:
                messages.send(orders, plan, descriptors)
            await self._send(order, [theirs.fileno()], answer)
            pid = await answer
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid), "fork")
            pidfd = process.pidfd_open(pid)
        except BaseException:
            orders.close()
            raise
        finally:
            theirs.close()
        if plan:
            orders.close()
        return Init(pid, pidfd, orders)

    async def _hand_over(self, init: Init, order: bytes, descriptors: Sequence[int]) -> bool:
        """Send the plan; False if init has ended, because somebody has killed it while it waited.

        Raises OSError; then it ends.
        """
        try:
            messages.send(init.orders, order, descriptors)
            init.orders.close()
            return True
        except OSError as error:
            init.orders.close()
            os.close(init.pidfd)
            await self.reap(init.pid)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                return False
            raise

    async def reap(self, pid: int) -> None:
        """Let the forker wait for a dead init; from then on the pid may be used again."""
        await self._send(messages.encode_reap(pid), ())

    def enter_mount_namespace(self) -> None:
        """Make the forker follow into the mount namespace of this process. Before any other order."""
        descriptor = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        messages.send(self._socket, messages.encode_enter(), [descriptor])
        os.close(descriptor)

    async def close(self) -> None:
        """End the forker and wait for it."""
        self._on_death = lambda: None
        if self._ready is not None:
            self._ready.orders.close()
            os.close(self._ready.pidfd)
            self._ready = None
        self._channel.close()
        self._socket.close()
        os.waitpid(self.pid, 0)

    async def _send(self, order: bytes, descriptors: Sequence[int], answer: Future | None = None) -> None:
        async with self._sending:
            if answer is not None:
                self._waiting.append(answer)
            while True:
                try:
                    messages.send(self._socket, order, descriptors)
                    return
                except BlockingIOError:
                    await self._channel.writable()
                except (BrokenPipeError, ConnectionResetError):
                    raise ForkerDied from None

    async def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(messages.MAX_REPORT)
            except BlockingIOError:
                await self._channel.readable()
                continue
            except OSError:
                data = b""
            if not data:
                break
            self._waiting.popleft().set_result(messages.decode_reply(data))
        for answer in self._waiting:
            answer.set_error(ForkerDied())
        self._on_death()


def _order(plan: Plan, filters: tuple[bytes, bytes]) -> bytes:
    order = messages.encode_start(plan, *filters)
    if len(order) > messages.MAX_ORDER:
        what = "arguments, environment, mounts and system call filter"
        raise OSError(errno.E2BIG, f"{len(order)} bytes, at most {messages.MAX_ORDER} are possible", what)
    return order


def ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended (it may not have been reaped yet)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))
