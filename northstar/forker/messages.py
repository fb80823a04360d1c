# SPDX-License-Identifier: Apache-2.0
"""Messages between the daemon, the forker and the containers' inits.

Three kinds of channels, all sequential-packet socket pairs (unix(7)), so that a message is a datagram:

* daemon <-> forker: fork, join, reap and enter orders with descriptors; replies with a pid.
* daemon -> application's process, or supervisor of a session: one start order, the plan.
* init -> daemon, one per container: `running`, `failed`, `exited`. A hostile init can at most lie
  about itself; whatever is malformed ends that container only. A session has such a channel, too.
"""

from __future__ import annotations

import _socket
import array
import socket
import struct

import ujson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    Socket = _socket.socket
    """The C class; making an object of its subclass in `socket` writes to much more shared memory."""

    class Plan(TypedDict):
        """Everything a container needs, in the order of use. Built by the daemon, executed by init."""

        name: str
        """Process name of init (PR_SET_NAME, cut to 15 bytes by the kernel)."""
        root: str
        """Mount point of the container's image."""
        hold: bool
        """Wait for one byte on the status channel before doing anything."""
        host_network: bool
        """Stay in the host's network namespace instead of a new one or the one handed over."""
        mounts: list[MountPlan]
        """Sorted by target."""
        uid: int
        gid: int
        groups: list[int]
        rlimits: list[tuple[str, int, int, int]]
        """(RLIMIT_*, soft, hard), -1 for unlimited."""
        capabilities: int
        """Bit mask of all five sets of the application."""
        scheduling: tuple[int, int, int] | None
        """(policy, priority, nice) for the application."""
        selinux_exec: str | None
        oom_score_adj: int | None
        argv: list[str]
        env: list[str]
        descriptors: list[str | int]
        """Roles of the descriptors that travel with the plan, in their order; a number means: the
        application gets it under that number."""

    class MountPlan(TypedDict):
        """One mount of a container."""

        kind: str
        """`bind` (host path), `resource` (path inside another image), `tree` (a prepared tree, with
        all its submounts), or the name of a file system."""
        target: str
        source: str
        directory: str
        """Only `resource`: the directory below `source`."""
        recursive: bool
        optional: bool
        """Skip it if the source does not exist."""
        attributes: int
        """MOUNT_ATTR_* to set; attributes of the source are kept."""
        options: dict[str, str]
        """Only file systems: their options."""


FORK = 1
REAP = 2
ENTER = 3
START = 4
INTRODUCTION = 5
JOIN = 6

MAX_ORDER = 512 * 1024
MAX_REPORT = 4096
MAX_DESCRIPTORS = 253

# Plain numbers: each use of an enumeration's member writes to memory that inits share with the forker.
_SOL_SOCKET = int(socket.SOL_SOCKET)
_SCM_RIGHTS = int(socket.SCM_RIGHTS)
_CMSG_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_MSG_PEEK = int(socket.MSG_PEEK)
_MSG_DONTWAIT = int(socket.MSG_DONTWAIT)
_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)

_ORDER = struct.Struct("<BI")
_START = struct.Struct("<BII")
_REPLY = struct.Struct("<i")
_INTRODUCTION = struct.Struct("<BIIIH")
_CODE = struct.Struct("<ci")

RETIRED = b"r"
"""From init to the application's process: init has no privileges any more."""

RUNNING = b"R"
FAILED = b"F"
EXITED = b"X"
FORKED = b"P"
"""Between the processes of a session only: the command has been forked."""
_REPORT_KINDS = (RUNNING, FAILED, EXITED, FORKED)


class MalformedReport(Exception):
    """What came from an init is no report."""


def channel() -> tuple[Socket, Socket]:
    """A connected pair of close-on-exec sockets that keep message boundaries."""
    return _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: Socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors; raises OSError (EMSGSIZE, ETOOMANYREFS, EPIPE)."""
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], rights)


def receive(sock: Socket, size: int = MAX_ORDER) -> tuple[bytes, list[int]]:
    """Receive one message with its descriptors (close-on-exec); no bytes means the peer is gone."""
    data, ancillary, _, _ = sock.recvmsg(size, _ROOM, _CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) // 4 * 4])
    return data, descriptors.tolist()


def waits(sock: Socket) -> bool:
    """Whether there is something to receive, be it the end."""
    try:
        sock.recv(1, _MSG_PEEK | _MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def encode_failure(step: str, error: OSError) -> bytes:
    """Report that a step failed; names the file if the step does not."""
    name = error.filename.decode("utf-8", "replace") if isinstance(error.filename, bytes) else error.filename
    named = f"{step} ({name})" if name and str(name) not in step else step
    text = named if error.errno else f"{named}: {error.strerror}"
    return encode_report(FAILED, error.errno or 0, text)


def encode_start(plan: Plan, application_filter: bytes, init_filter: bytes) -> bytes:
    """An order to start a container. The filters are BPF programs (seccomp(2)), possibly empty."""
    body = ujson.dumps(plan, ensure_ascii=False, escape_forward_slashes=False).encode()
    header = _START.pack(START, len(application_filter), len(init_filter))
    return b"".join((header, application_filter, init_filter, body))


def encode_reap(pid: int) -> bytes:
    """An order to wait for a dead init. Until then its pid cannot be used again."""
    return _ORDER.pack(REAP, pid)


def encode_enter() -> bytes:
    """An order to enter the mount namespace whose descriptor travels with it."""
    return _ORDER.pack(ENTER, 0)


def encode_introduction(pid: int, uid: int, gid: int, name: str, init_filter: bytes) -> bytes:
    """What the application's process tells init; status channel and mount namespace travel with it."""
    encoded = name.encode()
    return _INTRODUCTION.pack(INTRODUCTION, pid, uid, gid, len(encoded)) + encoded + init_filter


def decode_introduction(data: bytes) -> tuple[int, int, int, str, bytes]:
    """(pid, uid, gid, name, init filter) of an introduction."""
    _, pid, uid, gid, length = _INTRODUCTION.unpack_from(data)
    start = _INTRODUCTION.size
    return pid, uid, gid, data[start : start + length].decode(), data[start + length :]


def is_order(data: bytes) -> bool:
    """Whether it is a start order, and no introduction."""
    return data[0] == START


def encode_fork() -> bytes:
    """An order to fork an init, which takes its plan from the socket that travels with the order."""
    return _ORDER.pack(FORK, 0)


def encode_join() -> bytes:
    """An order to fork a session's supervisor, which takes its plan from the socket that travels along."""
    return _ORDER.pack(JOIN, 0)


def decode_order(data: bytes) -> tuple[int, int]:
    """(FORK, JOIN, REAP or ENTER, pid to reap) of an order to the forker."""
    kind, number = _ORDER.unpack(data)
    return kind, number


def decode_start(data: bytes) -> tuple[Plan, bytes, bytes]:
    """(plan, application filter, init filter) of a start order."""
    _, first, second = _START.unpack_from(data)
    start = _START.size
    middle, end = start + first, start + first + second
    plan: Plan = ujson.loads(data[end:])
    return plan, data[start:middle], data[middle:end]


def encode_reply(pid: int) -> bytes:
    """The forker's answer to an order to fork: a pid, or a negative errno."""
    return _REPLY.pack(pid)


def decode_reply(data: bytes) -> int:
    """The pid, or a negative errno."""
    pid: int = _REPLY.unpack(data)[0]
    return pid


def encode_report(kind: bytes, code: int = 0, text: str = "") -> bytes:
    """A report. `code` is an errno (failed), a wait status (exited), see wait(2), or a pid (forked)."""
    return (_CODE.pack(kind, code) + text.encode("utf-8", "replace"))[:MAX_REPORT]


def decode_report(data: bytes) -> tuple[bytes, int, str]:
    """(kind, code, text); raises MalformedReport."""
    if not _CODE.size <= len(data) <= MAX_REPORT:
        raise MalformedReport(f"{len(data)} bytes")
    kind, code = _CODE.unpack_from(data)
    if kind not in _REPORT_KINDS:
        raise MalformedReport(f"unknown kind {kind!r}")
    return kind, code, data[_CODE.size :].decode("utf-8", "replace")
