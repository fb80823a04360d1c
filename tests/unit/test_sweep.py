# SPDX-License-Identifier: Apache-2.0
"""The sweep removes what is recognisably ours and nothing else (the parts that need no root)."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from northstar.errors import NorthstarError
from northstar.kernel import loop
from northstar.runtime import mounter, sweep


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
    monkeypatch.setattr(loop, "devices", lambda: [])


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
    (sockets / "a:1.0.0:file").touch()
    (sockets / "a:1.0.0:link").symlink_to("foreign")
    assert run(tmp_path).removed() == [f"socket {sockets}/hello:1.0.0:control"]
    assert sorted(os.listdir(sockets)) == ["a:1.0.0:file", "a:1.0.0:link", "foreign"]


def test_temporary_files(tmp_path: pathlib.Path) -> None:
    repository = tmp_path / "repository"
    (repository / "dir.tmp").mkdir(parents=True)
    for name in ("a.npk", "b.npk.tmp", "c.tmp"):
        (repository / name).touch()
    (repository / "link.tmp").symlink_to("a.npk")
    assert run(tmp_path).removed() == [
        f"temporary file {repository}/b.npk.tmp",
        f"temporary file {repository}/c.tmp",
    ]
    assert sorted(os.listdir(repository)) == ["a.npk", "dir.tmp", "link.tmp"]


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


def test_owner() -> None:
    prefix = mounter.DM_NAME_PREFIX
    assert sweep._owner_lives(f"{prefix}{mounter.owner_id(os.getpid())}-abcdef")
    pid, _, start = mounter.owner_id(os.getpid()).partition(".")
    assert not sweep._owner_lives(f"{prefix}{pid}.{int(start) + 1}-abcdef")
    assert not sweep._owner_lives(f"{prefix}4194305.1-abcdef")
    assert not sweep._owner_lives(f"{prefix}garbage")


def test_lock(tmp_path: pathlib.Path) -> None:
    fd = sweep.lock_run_dir(str(tmp_path))
    with pytest.raises(NorthstarError, match="in use by another northstar daemon"):
        sweep.lock_run_dir(str(tmp_path))
    os.close(fd)
    os.close(sweep.lock_run_dir(str(tmp_path)))


def test_lock_of_a_missing_directory(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        sweep.lock_run_dir(str(tmp_path / "missing"))
