# SPDX-License-Identifier: Apache-2.0
"""What the QEMU harness takes for a kernel or a root file system of another builder."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from qemu import foreign


def at(offset: int, magic: bytes) -> bytes:
    return bytes(offset) + magic + bytes(4096)


KERNEL = at(0x38, b"ARM\x64")
CPIO = b"070701" + bytes(200)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(at(0x438, b"\x53\xef"), "ext4"), (b"hsqs" + bytes(92), "squashfs"), (gzip.compress(CPIO), "cpio")],
)
def test_root_file_systems(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(content)
    assert foreign.root_format(path) == expected


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "neither ext4 nor squashfs nor cpio.gz"),
        (b"hello", "neither ext4 nor squashfs nor cpio.gz"),
        (gzip.compress(b"a tar archive"), "neither"),
        (b"\x1f\x8bbroken", "neither"),
        (at(510, b"\x55\xaa"), "partitions"),
        (b"QFI\xfb", "qemu-img"),
        (b"\xfd7zXZ\x00", "compressed by xz"),
    ],
)
def test_other_root_file_systems_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(content)
    with pytest.raises(foreign.UnknownImage, match=complaint) as raised:
        foreign.root_format(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [KERNEL, gzip.compress(KERNEL)])
def test_kernels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Image"
    path.write_bytes(content)
    foreign.check_kernel(path)


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"\x7fELF", "arch/arm64/boot/Image"), (b"MZ", "not an aarch64 kernel")]
)
def test_other_kernels_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "Image"
    path.write_bytes(content)
    with pytest.raises(foreign.UnknownImage, match=complaint):
        foreign.check_kernel(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(foreign.UnknownImage, match="No such file"):
        foreign.root_format(tmp_path / "missing")
