# SPDX-License-Identifier: Apache-2.0
"""The socket for notifications of a container whose image has no place for one.

It has a name in the abstract namespace, which belongs to the network namespace (unix(7)): so it is init that
makes it, there, and sends it to the daemon. Messages come with the credentials of the sender, as in a network
namespace that others use as well everybody can see the name.
"""

from __future__ import annotations

import struct
from socket import AF_UNIX, SCM_RIGHTS, SO_PASSCRED, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Program, Register

ROLE = "notify"
"""Of the descriptor through which the socket is sent."""

_IOVEC = struct.Struct("<QQ")
_CMSG = struct.Struct("<QiiI4x")
"""`struct cmsghdr` and one descriptor, see cmsg(3)."""
_CMSG_SIZE, _CMSG_DATA = 20, 16
_MSGHDR = struct.Struct("<QI4xQQQQi4x")


def offer(p: Program, name: str, link: Register) -> None:
    """Make the socket, and send it to the other end of `link`."""
    p.purpose = f"make the socket @{name} for notifications"
    kind = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK
    offered = p.value("socket", int(AF_UNIX), int(kind), 0, of="socket")
    p.call("setsockopt", offered, SOL_SOCKET, SO_PASSCRED, p.put(struct.pack("<i", 1)), 4)
    address = struct.pack("<H", AF_UNIX) + b"\0" + name.encode()
    p.call("bind", offered, p.put(address), len(address))
    control = p.put(_CMSG.pack(_CMSG_SIZE, SOL_SOCKET, SCM_RIGHTS, 0))
    p.store(control + _CMSG_DATA, offered)
    content = p.put(_IOVEC.pack(p.text("n"), 1))
    message = p.put(_MSGHDR.pack(0, 0, content, 1, control, _CMSG_SIZE, 0))
    p.call("sendmsg", link, message, 0)
    p.call("close", offered)
    p.call("close", link)
