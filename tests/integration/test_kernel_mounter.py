# SPDX-License-Identifier: Apache-2.0
"""The mounter with real packages: plain on loop devices, verified through dm-verity."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from abilities import has_device_mapper, has_loop, has_mksquashfs, has_squashfs, needs
from images import BLOCK_FILE, BLOCK_FILE_CONTENT, SQUASHFS, offset_of_block
from isolated import isolated, wait_until

from northstar.errors import Unexpected
from northstar.kernel import dm, loopdevice, mount
from northstar.manifest import parse
from northstar.names import Container
from northstar.npk import keys, pack
from northstar.npk.package import Package, load
from northstar.runtime.storage import mounter as module
from northstar.runtime.storage import sweep
from northstar.runtime.storage.mounter import Mounter, prepare_run_dir, release_run_dir

pytestmark = needs(has_loop, has_squashfs)


class Settings(NamedTuple):
    """The part of the configuration that the mounter reads."""

    run_dir: str
    loop_device_timeout: float = 10.0


class Sample:
    """A package file, loaded."""

    def __init__(self, path: pathlib.Path, key: bytes | None) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.package: Package = load(self.fd, key, str(path))
        self.container: Container = self.package.container

    def damage(self, block: int) -> None:
        """Flip a bit in a data block of the file in the image."""
        offset = self.package.image_offset + offset_of_block(block) + 100
        fd = os.open(self.path, os.O_RDWR)
        byte = os.pread(fd, 1, offset)[0]
        os.pwrite(fd, bytes((byte ^ 1,)), offset)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def manifest_text(name: str) -> bytes:
    return json.dumps({"name": name, "version": "1.0.0", "init": "/hello", "uid": 1000, "gid": 1000}).encode()


class Key(NamedTuple):
    """A key pair."""

    private: bytes
    public: bytes


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    directory = tmp_path_factory.mktemp("keys")
    private, public = keys.generate("test", str(directory))
    return Key(keys.load_private(private), keys.load_public(public))


@pytest.fixture
def samples(tmp_path: pathlib.Path) -> Iterator[Callable[..., Sample]]:
    """Makes packages from the ready image; closes them at the end."""
    made: list[Sample] = []

    def make(name: str = "hello", key: Key | None = None) -> Sample:
        out = tmp_path / f"{name}-1.0.0.npk"
        image = tmp_path / "image"
        image.write_bytes(SQUASHFS)
        private = key.private if key else None
        pack.pack_image(parse(manifest_text(name)), str(image), str(out), key=private)
        made.append(Sample(out, key.public if key else None))
        return made[-1]

    yield make
    for sample in made:
        os.close(sample.fd)
    paths = {str(sample.path) for sample in made}
    wait_until(lambda: not paths & {backing for _, backing in loopdevice.devices()}, "loop devices are gone")


@pytest.fixture
def run_dir(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    path = tmp_path / "run"
    prepare_run_dir(str(path))
    yield path
    for entry in reversed(mount.mountinfo()):
        if entry.target == str(path) or entry.target.startswith(f"{path}/"):
            mount.umount(entry.target, mount.MNT_DETACH)


@pytest.fixture
def mounter(run_dir: pathlib.Path) -> Iterator[Mounter]:
    made = Mounter(Settings(str(run_dir)))  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def mapped() -> Iterator[Callable[[], list[str]]]:
    """Names of the mapped devices that the test makes; there are none at the end."""
    control = dm.Control()
    before = {name for name, _ in control.list_devices()}

    def names() -> list[str]:
        listed = {name for name, _ in control.list_devices()}
        return sorted(name for name in listed - before if name.startswith(module.DM_NAME_PREFIX))

    yield names
    wait_until(lambda: not names(), "mapped devices are gone")
    control.close()


def mount_sample(mounter: Mounter, sample: Sample, run_dir: pathlib.Path) -> pathlib.Path:
    target = run_dir / str(sample.container)
    verified = sample.package.verity is not None
    mounter.mount(sample.container, sample.fd, sample.package, str(target), verified=verified)
    return target


def entry_of(target: pathlib.Path) -> mount.MountEntry:
    return next(entry for entry in mount.mountinfo() if entry.target == str(target))


def read_ahead_of(target: pathlib.Path) -> int:
    """Of the device that a file system is on, in bytes."""
    device = os.stat(target).st_dev
    path = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/read_ahead_kb")
    return int(path.read_text()) * 1024


def test_read_ahead(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    """As much as Linux reads by default, also where the disk below asks for more."""
    target = mount_sample(mounter, samples(), run_dir)
    assert read_ahead_of(target) == module.READ_AHEAD
    mounter.umount(str(target))


@needs(has_device_mapper)
def test_read_ahead_of_a_verified_image(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
) -> None:
    target = mount_sample(mounter, samples(key=key), run_dir)
    assert read_ahead_of(target) == module.READ_AHEAD
    mounter.umount(str(target))


def test_mount_and_umount(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    sample = samples()
    target = mount_sample(mounter, sample, run_dir)
    assert (target / "hello").read_text() == "hello\n"
    assert (target / BLOCK_FILE).read_bytes() == BLOCK_FILE_CONTENT
    entry = entry_of(target)
    assert entry.fstype == "squashfs"
    assert {"ro", "nosuid", "nodev"} <= entry.options
    attached = [number for number, backing in loopdevice.devices() if backing == str(sample.path)]
    fd = loopdevice.open_device(attached[0])
    assert loopdevice.status(fd).tag == "northstar:hello:1.0.0"
    os.close(fd)
    mounter.umount(str(target))
    assert not target.exists()


def test_existing_empty_mount_point(
    mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path
) -> None:
    (run_dir / "hello:1.0.0").mkdir()
    mounter.umount(str(mount_sample(mounter, samples(), run_dir)))
    assert not (run_dir / "hello:1.0.0").exists()


@needs(has_mksquashfs)
def test_package_from_a_directory(mounter: Mounter, run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "hello").write_text("from a directory")
    out = pack.pack_root(parse(manifest_text("packed")), root, tmp_path / "packed-1.0.0.npk", key=None)
    sample = Sample(out, None)
    target = mount_sample(mounter, sample, run_dir)
    assert (target / "hello").read_text() == "from a directory"
    mounter.umount(str(target))
    os.close(sample.fd)


def test_parallel(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    made = [samples(f"container-{n}") for n in range(16)]
    failures: list[BaseException] = []

    def work(part: list[Sample]) -> None:
        try:
            for _ in range(5):
                for sample in part:
                    mount_sample(mounter, sample, run_dir)
                for sample in part:
                    mounter.umount(str(run_dir / str(sample.container)))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(made[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(run_dir) == [module.NODE_DIR]


def broken_magic(sample: Sample) -> Package:
    return sample.package._replace(
        image_offset=sample.package.image_offset + 4096, image_size=sample.package.image_size - 4096
    )


def test_no_file_system(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    sample = samples()
    target = run_dir / "hello:1.0.0"
    with pytest.raises(Unexpected, match=r"hello:1\.0\.0: invalid file system image"):
        mounter.mount(sample.container, sample.fd, broken_magic(sample), str(target))
    assert not target.exists()


def test_keyed_repository_never_mounts_without_verity(
    mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path
) -> None:
    sample = samples()
    target = run_dir / "hello:1.0.0"
    with pytest.raises(Unexpected, match="NPK lacks verity information"):
        mounter.mount(sample.container, sample.fd, sample.package, str(target), verified=True)
    assert not target.exists()


def test_mounting_twice(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    sample = samples()
    mount_sample(mounter, sample, run_dir)
    with pytest.raises(Unexpected, match="is a mount point already"):
        mount_sample(mounter, sample, run_dir)
    mounter.umount(str(run_dir / "hello:1.0.0"))


def test_busy_umount(mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    target = mount_sample(mounter, samples(), run_dir)
    held = os.open(target, os.O_RDONLY)
    with pytest.raises(Unexpected, match="EBUSY"):
        mounter.umount(str(target))
    assert os.path.ismount(target)
    os.close(held)
    mounter.umount(str(target))
    assert not target.exists()


def test_file_put_under_the_mount_point(samples: Callable[..., Sample], run_dir: pathlib.Path) -> None:
    lines: list[str] = []
    mounter = Mounter(
        Settings(str(run_dir)),  # type: ignore[arg-type]
        log=lambda level, message: lines.append(message),
    )
    target = run_dir / "hello:1.0.0"
    target.mkdir()
    (target / "file").touch()
    mount_sample(mounter, samples(), run_dir)
    mounter.umount(str(target))
    assert not os.path.ismount(target)
    assert lines == [f"failed to remove {target}: Directory not empty"]


def test_no_free_loop_device(
    samples: Callable[..., Sample], run_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = samples()
    taken = loopdevice.attach(sample.fd, 0, 4096, timeout=10.0, tag="northstar:taken:1.0.0")
    monkeypatch.setattr(loopdevice, "_get_free", lambda control: taken.number)
    mounter = Mounter(Settings(str(run_dir), 0.05))  # type: ignore[arg-type]
    with pytest.raises(Unexpected, match=r"failed to acquire loop device for hello:1.0.0 within 0\.05s"):
        mount_sample(mounter, sample, run_dir)
    assert not (run_dir / "hello:1.0.0").exists()
    taken.close()


def test_what_is_missing(mounter: Mounter) -> None:
    """S-64: the device mapper only counts where packages are verified."""
    assert mounter.missing(verified=False) == {}
    found = mounter.missing(verified=True)
    assert ("verity" in found) is (has_device_mapper() is not None)


@pytest.mark.skipif(has_device_mapper() is None, reason="the kernel has dm-verity")
def test_without_device_mapper_a_verified_package_is_refused(
    mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path, key: Key
) -> None:
    with pytest.raises(Unexpected, match=r"CONFIG_(BLK_DEV_DM|DM_VERITY)"):
        mount_sample(mounter, samples(key=key), run_dir)
    assert not (run_dir / "hello:1.0.0").exists()
    assert not [
        entry for entry in mount.mountinfo() if entry.fstype == "squashfs" and str(run_dir) in entry.target
    ]


@needs(has_device_mapper)
def test_verified(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
) -> None:
    sample = samples(key=key)
    target = mount_sample(mounter, sample, run_dir)
    assert (target / BLOCK_FILE).read_bytes() == BLOCK_FILE_CONTENT
    assert {"ro", "nosuid", "nodev"} <= entry_of(target).options
    (name,) = mapped()
    control = dm.Control()
    found = control.status(name)
    control.close()
    assert found.device == entry_of(target).device
    assert found.deferred_remove
    assert found.flags & dm.DM_READONLY_FLAG
    assert found.uuid.startswith(module.DM_UUID_PREFIX)
    mounter.umount(str(target))
    wait_until(lambda: not mapped(), "the mapped device is gone")
    assert set(os.listdir(run_dir / module.NODE_DIR)) <= {"dm-control", "loop-control"}


@needs(has_device_mapper)
def test_damaged_block_is_an_io_error(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
) -> None:
    sample = samples(key=key)
    sample.damage(5)
    target = mount_sample(mounter, sample, run_dir)
    fd = os.open(target / BLOCK_FILE, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 4096, 0) == BLOCK_FILE_CONTENT[:4096]
    with pytest.raises(OSError) as caught:
        os.pread(fd, 4096, 5 * 4096)
    assert caught.value.errno == errno.EIO
    os.close(fd)
    mounter.umount(str(target))


@needs(has_device_mapper)
def test_wrong_root_hash_does_not_mount(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
) -> None:
    sample = samples(key=key)
    assert sample.package.verity is not None
    wrong = sample.package._replace(verity=sample.package.verity._replace(root_hash="0" * 64))
    target = run_dir / "hello:1.0.0"
    with pytest.raises(Unexpected, match=r"hello:1\.0\.0: E"):
        mounter.mount(sample.container, sample.fd, wrong, str(target), verified=True)
    assert not target.exists()
    wait_until(lambda: not mapped(), "no mapped device is left")


@needs(has_device_mapper)
def test_clashing_names(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = iter(["same", "same", "same", "other"])
    monkeypatch.setattr(module, "_random_token", lambda: next(tokens))
    mount_sample(mounter, samples("one", key), run_dir)
    mount_sample(mounter, samples("two", key), run_dir)
    assert len(mapped()) == 2
    for name in ("one", "two"):
        mounter.umount(str(run_dir / f"{name}:1.0.0"))


@needs(has_device_mapper)
def test_verified_in_parallel(
    mounter: Mounter,
    samples: Callable[..., Sample],
    run_dir: pathlib.Path,
    key: Key,
    mapped: Callable[[], list[str]],
) -> None:
    made = [samples(f"container-{n}", key) for n in range(12)]
    failures: list[BaseException] = []

    def work(sample: Sample) -> None:
        try:
            target = mount_sample(mounter, sample, run_dir)
            assert (target / "hello").read_text() == "hello\n"
            mounter.umount(str(target))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(sample,)) for sample in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_sweep_after_a_crash(
    mounter: Mounter, samples: Callable[..., Sample], run_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Nobody umounted anything; a mount elsewhere is not touched."""
    target = mount_sample(mounter, samples(), run_dir)
    elsewhere = tmp_path / "running"
    elsewhere.mkdir()
    mount.mount("tmpfs", str(elsewhere), "tmpfs", 0)
    lines: list[str] = []
    sweep.sweep(
        run_dir=str(run_dir),
        socket_dir=None,
        repositories=[str(tmp_path)],
        cgroups=[],
        log=lambda level, message: lines.append(f"{level}: {message}"),
    )
    assert f"info: sweep: removed mount {target}" in lines
    assert f"info: sweep: removed directory {target}" in lines
    assert not [line for line in lines if line.startswith("warn")]
    assert os.listdir(run_dir) == []
    assert os.path.ismount(elsewhere)
    mount.umount(str(elsewhere))


def test_run_dir_without_a_namespace_of_our_own(
    samples: Callable[..., Sample], tmp_path: pathlib.Path
) -> None:
    run_dir = tmp_path / "shared-run"

    def check() -> None:
        prepare_run_dir(str(run_dir), own_namespace=False)
        assert not os.path.ismount(run_dir)
        node_dir = run_dir / module.NODE_DIR
        assert "nodev" not in entry_of(node_dir).options
        mounter = Mounter(Settings(str(run_dir)))  # type: ignore[arg-type]
        target = mount_sample(mounter, samples(), run_dir)
        mounter.umount(str(target))
        release_run_dir(str(run_dir))
        assert os.listdir(run_dir) == []

    isolated(check)
