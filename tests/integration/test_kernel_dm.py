# SPDX-License-Identifier: Apache-2.0
"""dm-verity devices on loop devices."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
from collections.abc import Iterator

import pytest
from abilities import has_device_mapper, has_loop, needs
from isolated import wait_until

from northstar.kernel import dm, filesystem, loopdevice
from northstar.runtime.storage import sweep
from northstar.runtime.storage.mounter import DM_NAME_PREFIX, DM_UUID_PREFIX

pytestmark = needs(has_loop, has_device_mapper)

SALT = bytes(range(32))
BLOCKS = 20
DATA = b"".join(bytes((n,)) * 4096 for n in range(BLOCKS))


def tree(data: bytes, salt: bytes) -> tuple[str, bytes]:
    """Root hash and hash tree of up to 128 blocks: one level, one block."""
    digests = [hashlib.sha256(salt + data[n : n + 4096]).digest() for n in range(0, len(data), 4096)]
    block = b"".join(digests).ljust(4096, b"\0")
    return hashlib.sha256(salt + block).hexdigest(), block


@pytest.fixture
def control() -> Iterator[dm.Control]:
    opened = dm.Control()
    before = set(opened.list_devices())
    yield opened
    wait_until(lambda: set(opened.list_devices()) <= before, "mapped devices of the test are gone")
    opened.close()


class Image:
    """A file with data, a block in place of the superblock, and the hash tree; on a loop device."""

    def __init__(self, path: pathlib.Path, data: bytes = DATA, salt: bytes = SALT) -> None:
        self.salt = salt
        self.root_hash, hashes = tree(DATA, salt)
        path.write_bytes(data + bytes(4096) + hashes)
        self.fd = os.open(path, os.O_RDONLY)
        size = os.fstat(self.fd).st_size
        self.loop = loopdevice.attach(self.fd, 0, size, timeout=10.0, tag="northstar:test-kernel-dm:1.0.0")

    @property
    def device(self) -> str:
        return f"{self.loop.device[0]}:{self.loop.device[1]}"

    def close(self) -> None:
        self.loop.close()
        os.close(self.fd)


@pytest.fixture
def image(tmp_path: pathlib.Path) -> Iterator[Image]:
    made = Image(tmp_path / "image")
    yield made
    made.close()


def create(
    control: dm.Control, image: Image, name: str = "northstar-test-dm", uuid: str | None = None
) -> tuple[int, int]:
    return control.create_verity(
        name, uuid or f"TEST-{name}", image.device, image.root_hash, image.salt, BLOCKS
    )


def open_device(device: tuple[int, int]) -> int:
    """Through a node in /dev, as other places may be mounted nodev."""
    node = f"/dev/northstar-test-{device[1]}"
    filesystem.make_block_node(node, device)
    try:
        return os.open(node, os.O_RDONLY)
    finally:
        os.unlink(node)


def test_version_and_targets(control: dm.Control) -> None:
    assert control.version() >= (4, 27, 0)
    assert "verity" in control.targets()


def test_life(control: dm.Control, image: Image) -> None:
    """Create, read, mark for removal while open, gone when closed."""
    number = create(control, image)
    assert ("northstar-test-dm", number) in control.list_devices()
    fd = open_device(number)
    found = control.status("northstar-test-dm")
    assert (found.uuid, found.device) == ("TEST-northstar-test-dm", number)
    assert found.flags & dm.DM_READONLY_FLAG
    assert not found.deferred_remove
    control.remove("northstar-test-dm")
    assert control.status("northstar-test-dm").deferred_remove
    content = b""
    while chunk := os.read(fd, 65536):
        content += chunk
    assert content == DATA
    os.close(fd)
    wait_until(lambda: ("northstar-test-dm", number) not in control.list_devices(), "the device is gone")


def test_without_salt(control: dm.Control, tmp_path: pathlib.Path) -> None:
    image = Image(tmp_path / "image", salt=b"")
    fd = open_device(create(control, image))
    control.remove("northstar-test-dm")
    assert os.read(fd, len(DATA)) == DATA
    os.close(fd)
    image.close()


def test_many_devices_are_listed(control: dm.Control, tmp_path: pathlib.Path) -> None:
    image = Image(tmp_path / "image")
    names = [f"northstar-test-{n}-{'x' * 80}" for n in range(20)]
    images = [Image(tmp_path / f"image-{n}") for n in range(len(names))]
    try:
        for name, each in zip(names, images, strict=True):
            create(control, each, name)
        assert set(names) <= {name for name, _ in control.list_devices()}
    finally:
        for name in names:
            control.remove(name)
        for each in (image, *images):
            each.close()


def test_corruption_is_an_io_error(control: dm.Control, tmp_path: pathlib.Path) -> None:
    damaged = bytearray(DATA)
    damaged[7 * 4096 + 99] ^= 1
    image = Image(tmp_path / "image", bytes(damaged))
    fd = open_device(create(control, image))
    assert os.pread(fd, 4096, 0) == DATA[:4096]
    with pytest.raises(OSError) as caught:
        os.pread(fd, 4096, 7 * 4096)
    assert caught.value.errno == errno.EIO
    control.remove("northstar-test-dm")
    os.close(fd)
    image.close()


def test_wrong_root_hash(control: dm.Control, image: Image) -> None:
    image.root_hash = "0" * 64
    fd = open_device(create(control, image))
    with pytest.raises(OSError) as caught:
        os.pread(fd, 4096, 0)
    assert caught.value.errno == errno.EIO
    control.remove("northstar-test-dm")
    os.close(fd)


def test_device_cannot_be_written(control: dm.Control, image: Image) -> None:
    number = create(control, image)
    node = "/dev/northstar-test-node"
    filesystem.make_block_node(node, number)
    with pytest.raises(OSError):
        fd = os.open(node, os.O_RDWR)
        try:
            os.pwrite(fd, bytes(4096), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
    control.remove("northstar-test-dm")


def test_name_clash(control: dm.Control, image: Image) -> None:
    create(control, image)
    with pytest.raises(OSError) as caught:
        create(control, image, uuid="TEST-another")
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, "northstar-test-dm")
    assert "DM_DEV_CREATE" in str(caught.value)
    control.remove("northstar-test-dm")


def test_refused_table_leaves_nothing(control: dm.Control, image: Image) -> None:
    """More blocks than the device has."""
    with pytest.raises(OSError) as caught:
        control.create_verity(
            "northstar-test-dm", "TEST-1", image.device, image.root_hash, image.salt, BLOCKS * 1000
        )
    assert "DM_TABLE_LOAD" in str(caught.value)
    assert "northstar-test-dm" not in dict(control.list_devices())


def test_missing_device(control: dm.Control) -> None:
    for call in (control.status, control.remove):
        with pytest.raises(OSError) as caught:
            call("northstar-no-such-device")
        assert (caught.value.errno, caught.value.filename) == (errno.ENXIO, "northstar-no-such-device")


def test_sweep(control: dm.Control, tmp_path: pathlib.Path) -> None:
    """A device left by a daemon that is gone is removed, one of others is not."""
    images = [Image(tmp_path / f"image-{n}") for n in range(2)]
    stale = f"{DM_NAME_PREFIX}4194305.1-abc"
    foreign = f"{DM_NAME_PREFIX}4194305.1-foreign"
    create(control, images[0], stale, f"{DM_UUID_PREFIX}abc")
    create(control, images[1], foreign, "OTHER-abc")
    lines: list[str] = []
    sweep._mapped_devices(lambda level, message: lines.append(message))
    assert lines == [f"sweep: removed device {stale}"]
    assert foreign in dict(control.list_devices())
    control.remove(foreign)
    for each in images:
        each.close()
