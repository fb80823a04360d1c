# SPDX-License-Identifier: Apache-2.0
"""Parsing of /proc/<pid>/mountinfo."""

from __future__ import annotations

import errno
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.kernel import mount

LINES = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 master:3 - proc proc rw
90 22 7:1 / /run/northstar/with\\040blank\\011tab\\134\\043 ro,nosuid,nodev - squashfs /dev/loop1 ro
91 22 0:30 /sub/dir /mnt rw propagate_from:1 unbindable - tmpfs  rw
"""


@pytest.fixture
def entries(tmp_path: pathlib.Path) -> list[mount.MountEntry]:
    file = tmp_path / "mountinfo"
    file.write_bytes(LINES)
    return mount.mountinfo(str(file))


def test_fields(entries: list[mount.MountEntry]) -> None:
    root = entries[0]
    assert root.device == (254, 0)
    assert (root.root, root.target, root.fstype, root.source) == ("/", "/", "ext4", "/dev/vda")
    assert root.options == {"rw", "relatime"}
    assert root.super_options == {"rw", "discard"}
    assert root.propagation == ("shared:1",)


def test_several_optional_fields(entries: list[mount.MountEntry]) -> None:
    assert entries[1].propagation == ("shared:12", "master:3")
    assert entries[3].propagation == ("propagate_from:1", "unbindable")


def test_no_optional_field_and_escapes(entries: list[mount.MountEntry]) -> None:
    assert entries[2].propagation == ()
    assert entries[2].target == "/run/northstar/with blank\ttab\\#"
    assert "ro" in entries[2].options


def test_root_of_a_bind_and_empty_source(entries: list[mount.MountEntry]) -> None:
    assert (entries[3].root, entries[3].source) == ("/sub/dir", "")


@pytest.mark.parametrize("line", [b"", b"22 1 254:0 / / rw", b"1 2 3 - ext4 a rw", b"1 2 3:4 / / rw - ext4"])
def test_malformed(line: bytes) -> None:
    with pytest.raises(OSError) as caught:
        mount.MountEntry(line)
    assert caught.value.errno == errno.EINVAL


def test_own_mountinfo() -> None:
    assert any(entry.target == "/" for entry in mount.mountinfo())


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_unescape_reverses_the_kernel(data: bytes) -> None:
    escaped = data.replace(b"\\", b"\\134")
    for char in b" \t\n#":
        escaped = escaped.replace(bytes((char,)), b"\\%03o" % char)
    assert mount.unescape(escaped) == data.decode("utf-8", "surrogateescape")
