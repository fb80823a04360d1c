# SPDX-License-Identifier: Apache-2.0
"""Unix sockets of containers: made by the daemon before the start, handed over as descriptors."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from northstar.errors import Unexpected
from northstar.kernel import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest.model import Manifest
    from northstar.manifest.model import Socket as SocketSpec

MAX_PATH = 107
"""Bytes of sun_path without the terminating NUL, unix(7)."""

_TYPES = {
    "stream": socket.SOCK_STREAM,
    "datagram": socket.SOCK_DGRAM,
    "seq_packet": socket.SOCK_SEQPACKET,
}


class ContainerSockets:
    """The sockets of one run, in the order of their names."""

    __slots__ = ("_paths", "_sockets")

    def __init__(self, socket_dir: str, manifest: Manifest) -> None:
        """Create them all; raises Unexpected naming the socket, none is left then.

        Blocks, as their directory may be on any disk: for a thread, which gets a umask of its own by it.
        """
        namespaces.unshare(namespaces.CLONE_FS)
        self._sockets: list[socket.socket] = []
        self._paths: list[str] = []
        for name in sorted(manifest.sockets):
            path = f"{socket_dir}/{manifest.container}:{name}"
            try:
                self._create(path, manifest.sockets[name], manifest)
            except OSError as error:
                self.close_ends()
                self.remove()
                reason = error.strerror or str(error)
                raise Unexpected(f"failed to create socket {path}: {reason}") from None

    @property
    def descriptors(self) -> list[int]:
        """Descriptors for the engine."""
        return [sock.fileno() for sock in self._sockets]

    def close_ends(self) -> None:
        """Close the daemon's copies."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def remove(self) -> None:
        """Remove the files when the run is over, all that can be. Blocks. Raises OSError."""
        failure: OSError | None = None
        for path in self._paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failure = error
        self._paths.clear()
        if failure is not None:
            raise failure

    def _create(self, path: str, spec: SocketSpec, manifest: Manifest) -> None:
        if len(path.encode()) > MAX_PATH:
            raise OSError(0, f"the path is longer than {MAX_PATH} bytes")
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(0, "there is a file that is no socket")
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, _TYPES[spec.type])
        self._sockets.append(sock)
        if spec.passcred:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        previous = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(previous)
        self._paths.append(path)
        if spec.type != "datagram":
            sock.listen(socket.SOMAXCONN)
        uid = manifest.uid if spec.uid is None else spec.uid
        gid = manifest.gid if spec.gid is None else spec.gid
        _set_owner(path, uid, gid, spec.mode & 0o7777)


def _set_owner(path: str, uid: int, gid: int, mode: int) -> None:
    """Of the socket at `path` and of nothing that somebody puts there meanwhile. Raises OSError."""
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(0, "it was replaced by something else")
        # Changing it through the descriptor itself takes Linux 6.6 (fchmodat2 with AT_EMPTY_PATH).
        held = f"/proc/self/fd/{found}"
        os.chown(held, uid, gid)
        os.chmod(held, mode)
    finally:
        os.close(found)
