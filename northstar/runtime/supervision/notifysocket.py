# SPDX-License-Identifier: Apache-2.0
"""The socket through which the program of a run tells how it is: one per run, so the socket says who speaks.

It is a file that is mounted into the container, if the image has a place for it; else it has a random name in
the abstract namespace of the container's network, where others may see it, so that only messages of the
container's user count. Floods are read in small portions; the queue of the socket holds up whoever floods.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from northstar.errors import Unexpected
from northstar.kernel import paths, procfs, sockets
from northstar.programs import attendance
from northstar.runtime import log
from northstar.runtime.eventloop import transport
from northstar.supervision import notification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.runtime.eventloop.loop import Channel, Loop
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.supervision.notification import Message

    Tell = Callable[[Supervised, Message, list[int]], None]

_log = log.Logger("runtime::notify")

DIRECTORY = ".notify"
"""Of the sockets, in the directory of mount points."""
A_TURN = 64
"""Datagrams that are read before others have their turn."""
_NOBODY = -1


class NotifySocket:
    """Made before the start; `serve` begins when the program executes."""

    __slots__ = (
        "_busy",
        "_channel",
        "_closed",
        "_complained",
        "_link",
        "_loop",
        "_main",
        "_path",
        "_record",
        "_socket",
        "_tell",
        "address",
        "place",
        "source",
        "theirs",
    )

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._record: Supervised
        self._tell: Tell
        self._main = 0
        self._socket: socket.socket | None = None
        self._channel: Channel | None = None
        self._link: socket.socket | None = None
        self._path = ""
        self._busy = False
        """Whether the next portion is on its way."""
        self._complained = False
        self._closed = False
        self.theirs: socket.socket | None = None
        """Through which init sends the socket that it makes, if there is none yet."""
        self.address = ""
        """For the variable NOTIFY_SOCKET."""
        self.place = ""
        """Where the file is to be mounted, or nothing."""
        self.source = ""

    def make(self, run_dir: str, image: str, place: str | None) -> None:
        """Make the file if `image` has a file at `place`, else what init needs to make the socket.

        Blocks. Raises Unexpected.
        """
        try:
            if place is not None and _has_file(image, place):
                self._make_file(run_dir)
                self.place = self.address = place
            else:
                self._link, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self.address = f"@northstar-{os.urandom(16).hex()}"
        except OSError as error:
            raise Unexpected(f"failed to make a socket for notifications: {error.strerror}") from None

    @property
    def abstract_name(self) -> str:
        """The name that init gives to the socket; nothing if there is a file."""
        return self.address[1:] if self._link is not None else ""

    def _make_file(self, run_dir: str) -> None:
        directory = f"{run_dir}/{DIRECTORY}"
        os.makedirs(directory, 0o700, exist_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket = made
        name = os.urandom(8).hex()
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The path of the directory may be longer than a name of a socket.
            made.bind(f"/proc/self/fd/{held}/{name}")
            self._path = self.source = f"{directory}/{name}"
            os.chmod(self._path, 0o666)
        finally:
            os.close(held)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def began(self) -> None:
        """The program executes: init has sent the socket. Raises OSError, Unexpected."""
        self.address = self.place = self.source = ""
        if self.theirs is not None:
            self.theirs.close()
            self.theirs = None
        if self._link is not None:
            _, descriptors = sockets.receive(self._link, 1)
            self._link.close()
            self._link = None
            if not descriptors:
                raise Unexpected("the socket for notifications has not arrived: too many open files?")
            self._socket = socket.socket(fileno=descriptors[0])

    def serve(self, record: Supervised, tell: Tell, init: int | None) -> None:
        """Listen; with the pid of a container's init only to its application.

        `tell` gets the record, each message, and the descriptors that come with it if they are to be stored.
        """
        if self._socket is None:
            return
        self._record, self._tell = record, tell
        if init is not None:
            self._main = procfs.child_by_number(init, attendance.APPLICATION) or _NOBODY
        self._socket.setblocking(False)
        self._channel = self._loop.listen(self._socket.fileno(), self._stirred)

    def _stirred(self) -> None:
        if not self._busy:
            self._take_portion()

    def _take_portion(self) -> None:
        garbage: list[int] = []
        self._busy = not self._closed and (self._read(A_TURN, garbage) or bool(garbage))
        if garbage:
            # The last close of a file may take its time, in which more may come that nobody waits for.
            closing = self._loop.spawn(self._loop.in_thread(sockets.close_all, garbage))
            self._loop.when_done(closing, self._take_portion)
        elif self._busy:
            self._loop.call_soon(self._take_portion)

    def drain(self, limit: int = A_TURN) -> None:
        """Take what is there now."""
        garbage: list[int] = []
        if self._channel is not None:
            self._read(limit, garbage)
        if garbage:
            self._loop.spawn(self._loop.in_thread(sockets.close_all, garbage))

    def _read(self, limit: int, garbage: list[int]) -> bool:
        """Whether there may be more. `garbage` gets the descriptors that nobody wants."""
        for _ in range(limit):
            if self._socket is None or len(garbage) > sockets.MAX_DESCRIPTORS:
                return self._socket is not None
            try:
                datagram = sockets.receive_datagram(self._socket, notification.MAX_SIZE)
            except BlockingIOError:
                return False
            except OSError as error:
                self._complain(f"cannot be read: {error.strerror}")
                return False
            self._take(datagram, garbage)
        return True

    def _take(self, datagram: sockets.Datagram, garbage: list[int]) -> None:
        message = None if datagram.truncated else notification.parse(datagram.data)
        if not self._is_ours(datagram):
            message = None
        elif message is None:
            self._complain(f"a datagram of {len(datagram.data)} bytes is no notification")
        kept = message is not None and message.fdstore and self._record.settings.fdstore
        if not kept:
            garbage += datagram.descriptors
        if message is not None:
            self._tell(self._record, message, datagram.descriptors if kept else [])

    def _is_ours(self, datagram: sockets.Datagram) -> bool:
        if self._main and datagram.pid != self._main:
            return False
        # Who can reach the file is in the container.
        return bool(self._path) or datagram.uid == self._record.manifest.uid

    def _complain(self, text: str) -> None:
        """Once per run: who floods must not fill the log."""
        if not self._complained:
            self._complained = True
            _log.warn(
                f"{self._record.container}: socket for notifications: {text}; there is no further warning"
            )

    async def close(self) -> None:
        """The run is over, or has never begun. What was not read is lost."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for end in (self._link, self.theirs, self._socket):
            if end is not None:
                await transport.close_apart(self._loop, end, [])
        self._link = self.theirs = self._socket = None
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = ""


def _has_file(image: str, place: str) -> bool:
    """Whether the place in an image is a file; the image is not trusted."""
    root = os.open(image, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS
        found = paths.openat2(root, place, os.O_PATH, flags)
    except OSError:
        return False
    finally:
        os.close(root)
    try:
        return stat.S_ISREG(os.fstat(found).st_mode)
    finally:
        os.close(found)
