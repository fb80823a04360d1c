# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of its devices: netlink(7), NETLINK_KOBJECT_UEVENT."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL = 1
"""The group of the kernel's own messages; udev sends others."""
_SIZE = 8192
_VERITY_DATA = "0"


def listen() -> socket.socket:
    """A socket that gets an event in each datagram; it does not block. Only in the first network namespace
    does the kernel tell of devices that belong to none.

    EPROTONOSUPPORT: kernel without CONFIG_NET.
    """
    import socket

    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT)
    try:
        sock.bind((0, _KERNEL))
    except BaseException:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> Iterator[dict[str, str]]:
    """The events that have arrived, as their variables. ENOBUFS: some have been lost."""
    while True:
        try:
            data, sender = sock.recvfrom(_SIZE)
        except BlockingIOError:
            return
        if sender[0] == 0:
            yield parse(data)


def parse(data: bytes) -> dict[str, str]:
    """The variables of an event: `ACTION@DEVPATH`, then `NAME=VALUE`, each with a NUL at its end."""
    found = {}
    for item in data.split(b"\0")[1:]:
        name, equals, value = item.decode("utf-8", "replace").partition("=")
        if equals:
            found[name] = value
    return found


def damaged_block(event: dict[str, str]) -> tuple[tuple[int, int], str] | None:
    """The number of the verity device, and which of its blocks is not what it was signed as.

    None if the event is of another kind (linux/drivers/md/dm-verity-target.c; Linux 4.1).
    """
    kind, comma, number = event.get("DM_VERITY_ERR_BLOCK_NR", "").partition(",")
    device = event.get("MAJOR", ""), event.get("MINOR", "")
    if not comma or not all(text.isdecimal() for text in (number, *device)):
        return None
    what = "data block" if kind == _VERITY_DATA else "hash block"
    return (int(device[0]), int(device[1])), f"{what} {number}"
