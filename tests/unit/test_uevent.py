# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of corrupted images, and that nothing else wakes the daemon."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.kernel import uevent

ERROR = (
    b"change@/devices/virtual/block/dm-3\0ACTION=change\0DEVPATH=/devices/virtual/block/dm-3\0SUBSYSTEM=block\0"
    b"DM_VERITY_ERR_BLOCK_NR=1,42\0MAJOR=253\0MINOR=3\0DEVNAME=dm-3\0DEVTYPE=disk\0SEQNUM=1234\0"
)
OTHERS = [
    b"change@/devices/virtual/block/loop0\0ACTION=change\0",
    b"add@/devices/virtual/block/dm-3\0ACTION=add\0",
    b"change@/devices/virtual/block/d",
    b"",
    b"x" * 2000,
]


def test_an_error() -> None:
    assert uevent.parse(ERROR) == ((253, 3), 42)


@pytest.mark.parametrize(
    "data",
    [
        *OTHERS,
        ERROR.replace(b"DM_VERITY_ERR_BLOCK_NR", b"X"),
        ERROR.replace(b"1,42", b"1"),
        ERROR.replace(b"MAJOR=253", b"MAJOR="),
    ],
)
def test_no_error(data: bytes) -> None:
    assert uevent.parse(data) is None


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    uevent.parse(data)


def test_the_filter_lets_errors_in_only() -> None:
    """On a pair of unix sockets, which take the same filters."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        uevent.attach_filter(receiver)
        for data in OTHERS:
            try:
                sender.send(data)
            except OSError:
                continue  # so does a unix socket tell what was dropped
        sender.send(ERROR)
        assert uevent.receive(receiver) == ((253, 3), 42)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


def test_listening() -> None:
    with uevent.listen() as listener, pytest.raises(BlockingIOError):
        uevent.receive(listener)


def test_device(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    assert uevent.device_of(str(tmp_path)) == (os.major(status.st_dev), os.minor(status.st_dev))
