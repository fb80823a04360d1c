# SPDX-License-Identifier: Apache-2.0
"""Structures and numbers as in the kernel's headers (taken from there with a C program)."""

from __future__ import annotations

import ctypes
import errno

import pytest

from northstar.kernel import (
    capabilities,
    dm,
    filesystem,
    libc,
    loopdevice,
    mount,
    namespaces,
    paths,
    prctl,
    process,
)


@pytest.mark.parametrize(
    ("structure", "size"),
    [
        (loopdevice.loop_info64, 232),
        (loopdevice.loop_config, 304),
        (dm.dm_ioctl, 312),
        (dm.dm_target_spec, 40),
        (mount.mount_attr, 32),
        (paths.open_how, 24),
        (capabilities.cap_user_header, 8),
        (capabilities.cap_user_data, 24),
        (filesystem.statfs_buf, 120),
    ],
)
def test_size(structure: type[ctypes.Structure], size: int) -> None:
    assert ctypes.sizeof(structure) == size


@pytest.mark.parametrize(
    ("structure", "field", "offset"),
    [
        (loopdevice.loop_config, "info", 8),
        (loopdevice.loop_info64, "lo_offset", 24),
        (loopdevice.loop_info64, "lo_flags", 52),
        (loopdevice.loop_info64, "lo_file_name", 56),
        (dm.dm_ioctl, "data_size", 12),
        (dm.dm_ioctl, "flags", 28),
        (dm.dm_ioctl, "dev", 40),
        (dm.dm_ioctl, "name", 48),
        (dm.dm_ioctl, "uuid", 176),
        (dm.dm_ioctl, "data", 305),
        (dm.dm_target_spec, "next", 20),
        (dm.dm_target_spec, "target_type", 24),
        (filesystem.statfs_buf, "f_namelen", 64),
    ],
)
def test_offset(structure: type[ctypes.Structure], field: str, offset: int) -> None:
    assert getattr(structure, field).offset == offset


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dm.DM_LIST_DEVICES, 0xC138FD02),
        (dm.DM_TABLE_LOAD, 0xC138FD09),
        (loopdevice.LOOP_CONFIGURE, 0x4C0A),
        (loopdevice.LOOP_CTL_GET_FREE, 0x4C82),
        (namespaces.CLONE_NEWNET, 0x40000000),
        (namespaces.CLONE_INTO_CGROUP, 0x200000000),
        (namespaces.NS_GET_NSTYPE, 0xB703),
        (prctl.PR_SET_NO_NEW_PRIVS, 38),
        (mount.MOVE_MOUNT_T_EMPTY_PATH, 0x40),
        (mount.MOUNT_ATTR_NOEXEC, 0x8),
        (process.WNOWAIT, 0x01000000),
        (paths.RESOLVE_IN_ROOT, 0x10),
        (libc.AT_RECURSIVE, 0x8000),
        (filesystem.CGROUP2_SUPER_MAGIC, 0x63677270),
    ],
)
def test_number(value: int, expected: int) -> None:
    assert value == expected


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", True), ("aarch64", False), ("riscv64", False)])
def test_machine(machine: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc.os, "uname", lambda: _Uname(machine))
    assert libc._is_x86_64() is expected


def test_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc.os, "uname", lambda: _Uname("armv7l"))
    with pytest.raises(ImportError, match="armv7l"):
        libc._is_x86_64()


class _Uname:
    def __init__(self, machine: str) -> None:
        self.machine = machine


def test_loop_configuration() -> None:
    config = loopdevice.configuration(7, 4096, 8192, "northstar:hello:1.0.0")
    data = bytes(config)
    assert (config.fd, config.block_size) == (7, 4096)
    assert data[8 + 24 : 8 + 40] == (4096).to_bytes(8, "little") + (8192).to_bytes(8, "little")
    assert config.info.lo_flags == loopdevice.LO_FLAGS_READ_ONLY | loopdevice.LO_FLAGS_AUTOCLEAR
    assert data[64:128] == b"northstar:hello:1.0.0".ljust(64, b"\0")


@pytest.mark.parametrize(("offset", "size"), [(512, 8192), (4096, 8191)])
def test_loop_block_size_only_where_aligned(offset: int, size: int) -> None:
    assert loopdevice.configuration(3, offset, size, "x").block_size == 0


def test_loop_tag_is_cut_and_terminated() -> None:
    config = loopdevice.configuration(3, 0, 4096, "x" * 200)
    assert bytes(config.info.lo_file_name) == b"x" * 63 + b"\0"


def test_verity_parameters() -> None:
    text = dm.verity_parameters("7:3", "AB" * 32, b"\x01\xff", 10)
    assert text == f"1 7:3 7:3 4096 4096 10 11 sha256 {'ab' * 32} 01ff"


def test_verity_parameters_without_salt() -> None:
    assert dm.verity_parameters("7:3", "0" * 64, b"", 1).endswith(" -")


@pytest.mark.parametrize(
    ("device", "root_hash", "salt", "blocks"),
    [
        ("7:3", "0" * 63, b"", 1),
        ("7:3", "0" * 63 + " ", b"", 1),
        ("7:3", "0" * 64, b"x" * 257, 1),
        ("7:3", "0" * 64, b"", 0),
        ("7:3", "0" * 64, b"", 1 << 50),
        ("", "0" * 64, b"", 1),
        ("/dev/a b", "0" * 64, b"", 1),
        ("/dev/a\\b", "0" * 64, b"", 1),
    ],
)
def test_verity_parameters_refused(device: str, root_hash: str, salt: bytes, blocks: int) -> None:
    with pytest.raises(OSError) as caught:
        dm.verity_parameters(device, root_hash, salt, blocks)
    assert caught.value.errno == errno.EINVAL


def test_table_payload() -> None:
    payload = dm.table("verity", 80, "1 7:3")
    spec = dm.dm_target_spec.from_buffer_copy(payload)
    assert (spec.sector_start, spec.length, spec.target_type) == (0, 80, b"verity")
    assert spec.next == len(payload) == 48
    assert payload[40:] == b"1 7:3\0\0\0"


def test_message() -> None:
    data = dm.message("a-name", "a-uuid", dm.DM_READONLY_FLAG, b"payload", 1, 1024)
    head = dm.dm_ioctl.from_buffer_copy(data)
    assert len(data) == head.data_size == 1024
    assert list(head.version) == [4, 0, 0]
    assert (head.data_start, head.target_count, head.flags) == (312, 1, 1)
    assert (head.name, head.uuid) == (b"a-name", b"a-uuid")
    assert data[312:320] == b"payload\0"


def test_message_with_a_name_too_long() -> None:
    with pytest.raises(OSError) as caught:
        dm.message("n" * 128, "", 0, b"", 0, 1024)
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, "n" * 128)


@pytest.mark.parametrize(
    ("dev", "expected"), [(0xFD00, (253, 0)), (0xFDFF, (253, 255)), (0x10FD03, (253, 0x103))]
)
def test_device_number(dev: int, expected: tuple[int, int]) -> None:
    assert dm.device_number(dev) == expected


def _name_record(dev: int, step: int, name: bytes) -> bytes:
    record = dev.to_bytes(8, "little") + step.to_bytes(4, "little") + name + b"\0"
    return record.ljust(step or len(record), b"\0")


def test_device_list() -> None:
    data = _name_record(0xFD00, 32, b"one") + _name_record(0xFD01, 0, b"northstar-two")
    assert dm.parse_names(data) == [("one", (253, 0)), ("northstar-two", (253, 1))]


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(16)])
def test_empty_device_list(data: bytes) -> None:
    assert dm.parse_names(data) == []


def test_target_list() -> None:
    first = (32).to_bytes(4, "little") + bytes(12) + b"linear\0"
    second = bytes(16) + b"verity\0"
    assert dm.parse_targets(first.ljust(32, b"\0") + second) == {"linear", "verity"}
    assert dm.parse_targets(b"") == frozenset()


def test_capability_mask() -> None:
    assert capabilities.mask(("CAP_CHOWN", "CAP_KILL", "CAP_CHECKPOINT_RESTORE")) == 1 | 1 << 5 | 1 << 40
    assert sorted(capabilities.NAMES.values()) == list(range(41))
