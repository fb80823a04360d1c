# SPDX-License-Identifier: Apache-2.0
"""Loop devices: attach, read-only, autoclear, competition, missing nodes."""

from __future__ import annotations

import errno
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest
from abilities import has_loop, needs
from isolated import isolated, wait_until

from northstar.kernel import loopdevice, mount

pytestmark = needs(has_loop)

SIZE = 64 * 1024
TAG = "northstar:test-kernel-loop:1.0.0"


@pytest.fixture
def image(tmp_path: pathlib.Path) -> Iterator[int]:
    """Descriptor (read and write) of a file whose 4096-byte blocks are filled with their number."""
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes((n,)) * 4096 for n in range(SIZE // 4096)))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)
    wait_until(lambda: not attached_to(str(path)), "loop devices of the test are gone")


def attached_to(path: str) -> list[int]:
    return [number for number, backing in loopdevice.devices() if backing == path]


def attach(fd: int, offset: int = 0, size: int = SIZE, **arguments: object) -> loopdevice.Loop:
    return loopdevice.attach(fd, offset, size, tag=TAG, **({"timeout": 5.0} | arguments))  # type: ignore[arg-type]


def sysfs(device: loopdevice.Loop, name: str) -> str:
    return pathlib.Path(f"/sys/block/loop{device.number}/{name}").read_text().strip()


def test_shows_the_part_asked_for(image: int) -> None:
    device = attach(image, offset=8192, size=3 * 4096)
    content = pathlib.Path(device.path).read_bytes()
    assert content == b"\2" * 4096 + b"\3" * 4096 + b"\4" * 4096
    found = loopdevice.status(device.fd)
    assert (found.number, found.offset, found.size, found.tag) == (device.number, 8192, 3 * 4096, TAG)
    assert sysfs(device, "dev") == f"{device.device[0]}:{device.device[1]}"
    device.close()
    device.close()


def test_read_only_although_the_file_is_writable(image: int) -> None:
    device = attach(image)
    assert sysfs(device, "ro") == "1"
    with pytest.raises(OSError):
        fd = os.open(device.path, os.O_RDWR)
        try:
            os.write(fd, b"x" * 4096)
            os.fsync(fd)
        finally:
            os.close(fd)
    device.close()


def test_memfd_is_read_only_too() -> None:
    fd = os.memfd_create("northstar-test")
    os.truncate(fd, SIZE)
    device = attach(fd)
    assert sysfs(device, "ro") == "1"
    device.close()
    os.close(fd)


@pytest.mark.parametrize(("offset", "size", "block"), [(4096, 8192, "4096"), (512, 8192, "512")])
def test_block_size(image: int, offset: int, size: int, block: str) -> None:
    device = attach(image, offset, size)
    assert sysfs(device, "queue/logical_block_size") == block
    device.close()


def test_autoclear(image: int, tmp_path: pathlib.Path) -> None:
    device = attach(image)
    path = str(tmp_path / "image")
    assert attached_to(path) == [device.number]
    assert loopdevice.status(device.fd).flags & loopdevice.LO_FLAGS_AUTOCLEAR
    device.close()
    wait_until(lambda: attached_to(path) == [], "the device cleared itself")


def test_detach(image: int, tmp_path: pathlib.Path) -> None:
    device = attach(image)
    loopdevice.detach(device.fd)
    device.close()
    wait_until(lambda: attached_to(str(tmp_path / "image")) == [], "the device is free")


def test_status_of_a_free_device(image: int) -> None:
    device = attach(image)
    number = device.number
    device.close()
    wait_until(lambda: number not in dict(loopdevice.devices()), "the device is free")
    fd = loopdevice.open_device(number)
    with pytest.raises(OSError) as caught:
        loopdevice.status(fd)
    os.close(fd)
    assert caught.value.errno == errno.ENXIO


def test_parallel(image: int, tmp_path: pathlib.Path) -> None:
    """Threads that all compete for the next free number."""
    devices: list[loopdevice.Loop] = []
    failures: list[OSError] = []

    def work() -> None:
        try:
            for _ in range(4):
                devices.append(attach(image, timeout=30.0))
        except OSError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [device.number for device in devices]
    for device in devices:
        device.close()
    assert failures == []
    assert len(numbers) == len(set(numbers)) == 32


def test_all_busy_times_out(image: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number again and again, because another process always is faster."""
    taken = attach(image)
    monkeypatch.setattr(loopdevice, "_get_free", lambda control: taken.number)
    with pytest.raises(TimeoutError) as caught:
        attach(image, timeout=0.05)
    assert "no free loop device within 0.05 s" in str(caught.value)
    assert caught.value.filename == taken.path
    assert loopdevice.status(taken.fd).tag == TAG  # untouched
    taken.close()


def test_loser_takes_another_number(image: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = attach(image)
    answers = iter([taken.number, taken.number])
    real = loopdevice._get_free
    monkeypatch.setattr(loopdevice, "_get_free", lambda control: next(answers, None) or real(control))
    other = attach(image)
    assert other.number != taken.number
    taken.close()
    other.close()


def test_a_directory_cannot_be_attached(tmp_path: pathlib.Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        attach(fd)
    os.close(fd)
    assert caught.value.errno == errno.EINVAL
    assert "LOOP_CONFIGURE" in str(caught.value)


def hide_dev() -> None:
    """An empty /dev, as on an image without devtmpfs."""
    mount.mount("tmpfs", "/dev", "tmpfs", 0)


def test_missing_nodes_are_made(image: int, tmp_path: pathlib.Path) -> None:
    def check() -> None:
        nodes = tmp_path / "nodes"
        nodes.mkdir()
        mount.mount("tmpfs", str(nodes), "tmpfs", 0)
        hide_dev()
        device = attach(image, node_dir=str(nodes))
        assert device.path == f"{nodes}/loop{device.number}"
        assert pathlib.Path(device.path).read_bytes()[:4096] == bytes(4096)
        assert os.listdir("/dev") == []
        device.close()
        second = attach(image, node_dir=str(nodes))  # nodes that are there already are fine
        second.close()

    isolated(check)


def test_without_nodes_and_directory_it_says_what_is_missing(image: int) -> None:
    def check() -> None:
        hide_dev()
        with pytest.raises(OSError, match="CONFIG_BLK_DEV_LOOP") as caught:
            attach(image)
        assert caught.value.errno == errno.ENODEV

    isolated(check)
