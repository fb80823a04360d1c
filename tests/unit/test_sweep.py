# SPDX-License-Identifier: Apache-2.0
"""The sweep removes what is recognisably ours and nothing else (the parts that need no root)."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from northstar.config import Config, RepositoryConfig
from northstar.errors import NorthstarError
from northstar.kernel import loopdevice, mount
from northstar.runtime.storage import directory as directoryrepository
from northstar.runtime.storage import mounter, sweep


class Log:
    """Records the lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, level: str, message: str) -> None:
        self.lines.append((level, message))

    def removed(self) -> list[str]:
        return [text.removeprefix("sweep: removed ") for level, text in self.lines if level == "info"]


@pytest.fixture(autouse=True)
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the test off the devices and mounts of the machine."""
    monkeypatch.setattr(sweep, "_mapped_devices", lambda log: None)
    monkeypatch.setattr(loopdevice, "devices", lambda: [])


def run(tmp_path: pathlib.Path, **changes: object) -> Log:
    log = Log()
    arguments: dict[str, object] = {
        "run_dir": str(tmp_path / "run"),
        "socket_dir": str(tmp_path / "sockets"),
        "repositories": [str(tmp_path / "repository")],
        "cgroups": [],
    }
    sweep.sweep(**(arguments | changes), log=log)  # type: ignore[arg-type]
    return log


def make_socket(path: pathlib.Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.close()


def test_nothing_there(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path).lines == []


def test_mount_points(tmp_path: pathlib.Path) -> None:
    run_dir = tmp_path / "run"
    for name in ("hello:1.0.0", "full:1.0.0", "other", ".dev"):
        (run_dir / name).mkdir(parents=True)
    (run_dir / "full:1.0.0" / "file").touch()
    (run_dir / "file:1.0.0").touch()
    (run_dir / "link:1.0.0").symlink_to("other")
    log = run(tmp_path)
    assert log.removed() == [f"directory {run_dir}/.dev", f"directory {run_dir}/hello:1.0.0"]
    assert sorted(os.listdir(run_dir)) == ["file:1.0.0", "full:1.0.0", "link:1.0.0", "other"]
    assert any(level == "warn" and "full:1.0.0" in text for level, text in log.lines)


def test_sockets(tmp_path: pathlib.Path) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    make_socket(sockets / "hello:1.0.0:control")
    make_socket(sockets / "foreign")
    make_socket(sockets / "a:b:c")
    make_socket(sockets / "a:1.0.0:")
    (sockets / "a:1.0.0:file").touch()
    (sockets / "a:1.0.0:link").symlink_to("foreign")
    assert run(tmp_path).removed() == [f"socket {sockets}/hello:1.0.0:control"]
    assert sorted(os.listdir(sockets)) == ["a:1.0.0:", "a:1.0.0:file", "a:1.0.0:link", "a:b:c", "foreign"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_somebody_serves(tmp_path: pathlib.Path, kind: socket.SocketKind) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    path = sockets / "hello:1.0.0:control"
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            sock.listen(1)
        log = run(tmp_path)
        assert log.removed() == []
        assert path.exists()
        assert [level for level, _ in log.lines] == ["warn"]
    assert run(tmp_path).removed() == [f"socket {path}"]


@pytest.mark.parametrize(
    ("source", "fstype", "target", "ours"),
    [
        ("/run/ns/.dev/northstar-1.2-3", "squashfs", "/run/ns/a:1.0.0", True),
        ("/run/ns/.dev/loop3", "squashfs", "/run/ns/a:1.0.0", True),
        ("northstar", "tmpfs", "/run/ns/.dev", True),
        ("northstar", "tmpfs", "/run/ns/.devices", True),
        ("devtmpfs", "devtmpfs", "/run/ns/.devices/null", True),
        ("/dev/loop3", "squashfs", "/run/ns/a:1.0.0", False),
        ("tmpfs", "tmpfs", "/run/ns/a:1.0.0", False),
        ("/dev/sda1", "ext4", "/run/ns/data", False),
    ],
)
def test_mounts(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    fstype: str,
    target: str,
    ours: bool,
) -> None:
    """Of all that is mounted below run_dir only what we have mounted is umounted."""
    line = f"36 35 98:0 / {target} rw - {fstype} {source} rw".encode()
    elsewhere = b"37 35 98:0 / /run/nsx/a:1.0.0 rw - squashfs /run/ns/.dev/loop4 rw"
    entries = [mount.MountEntry(line), mount.MountEntry(elsewhere)]
    umounted: list[str] = []
    monkeypatch.setattr(mount, "mountinfo", lambda: entries)
    monkeypatch.setattr(mount, "umount", lambda path, _: umounted.append(path))
    run(tmp_path, run_dir="/run/ns")
    assert umounted == ([target] if ours else [])


def test_temporary_files(tmp_path: pathlib.Path) -> None:
    repository = tmp_path / "repository"
    (repository / "dir.tmp").mkdir(parents=True)
    ours = [directoryrepository.temporary_name() for _ in range(3)]
    foreign = ["a.npk", "b.npk.tmp", "c.tmp", f"{'0' * 24}.tmp", f".{'0' * 23}.tmp", f".{'g' * 24}.tmp"]
    for name in (*ours[:2], *foreign):
        (repository / name).touch()
    (repository / ours[2]).symlink_to("a.npk")
    assert run(tmp_path).removed() == [f"temporary file {repository}/{name}" for name in sorted(ours[:2])]
    assert sorted(os.listdir(repository)) == sorted([*foreign, "dir.tmp", ours[2]])


def test_a_cgroup_path_that_is_none_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "group" / "child").mkdir(parents=True)
    log = run(tmp_path, cgroups=[str(tmp_path / "group"), str(tmp_path / "missing")])
    assert (tmp_path / "group" / "child").is_dir()
    assert [level for level, _ in log.lines] == ["warn"]


@pytest.mark.parametrize(
    ("backing", "ours"),
    [
        ("/data/repository/a.npk", True),
        ("/data/repository/a.npk (deleted)", True),
        ("/memfd:northstar (deleted)", True),
        ("/data/repository", False),
        ("/data/repository2/a.npk", False),
        ("/home/user/disk.img", False),
    ],
)
def test_loop_backing_file(backing: str, ours: bool) -> None:
    assert sweep._is_our_file(backing, ["/data/repository"]) is ours


def test_loop_devices_of_others_are_left_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = [f"{tmp_path}/repository/a.npk", f"{tmp_path}/repository2/a.npk", "/var/lib/other.img", ""]
    looked_at: list[int] = []
    monkeypatch.setattr(loopdevice, "devices", lambda: list(enumerate(backing)))
    monkeypatch.setattr(sweep, "_loop_device", lambda number, log: looked_at.append(number))
    run(tmp_path)
    assert looked_at == [0]


def test_owner() -> None:
    prefix = mounter.DM_NAME_PREFIX
    assert sweep._owner_lives(f"{prefix}{mounter.owner_id(os.getpid())}-abcdef")
    pid, _, start = mounter.owner_id(os.getpid()).partition(".")
    assert not sweep._owner_lives(f"{prefix}{pid}.{int(start) + 1}-abcdef")
    assert not sweep._owner_lives(f"{prefix}4194305.1-abcdef")
    assert not sweep._owner_lives(f"{prefix}garbage")


def test_lock(tmp_path: pathlib.Path) -> None:
    fd = sweep.lock(str(tmp_path))
    with pytest.raises(NorthstarError, match="in use by another northstar daemon"):
        sweep.lock(str(tmp_path))
    os.close(fd)
    os.close(sweep.lock(str(tmp_path)))


def test_all_directories_are_locked(tmp_path: pathlib.Path) -> None:
    """Those that two daemons have in common, whatever it is; nothing stays locked after a refusal."""

    def made(name: str, **common: pathlib.Path) -> Config:
        paths = {
            key: common.get(key, tmp_path / name / key) for key in ("run", "data", "sockets", "repository")
        }
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
        repository = RepositoryConfig("r", str(paths["repository"]))
        missing = RepositoryConfig("m", str(tmp_path / "missing"))
        return Config(
            str(paths["run"]),
            str(paths["data"]),
            str(paths["sockets"]),
            None,
            "northstar",
            (),
            {"r": repository, "m": missing, "memory": RepositoryConfig("memory", None)},
        )

    first = sweep.lock_directories(made("first"))
    for key in ("run", "data", "sockets", "repository"):
        second = made("second", **{key: tmp_path / "first" / key})
        with pytest.raises(NorthstarError, match=f"{key} is in use by another northstar daemon"):
            sweep.lock_directories(second)
    for fd in sweep.lock_directories(made("second")) + first:
        os.close(fd)


def test_lock_of_a_missing_directory(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        sweep.lock(str(tmp_path / "missing"))
