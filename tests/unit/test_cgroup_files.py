# SPDX-License-Identifier: Apache-2.0
"""Detection of control group hierarchies and the file helpers, on ordinary directories."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
from collections.abc import Iterator

import pytest

from northstar.kernel import cgroup, cgrouptree, filesystem

HYBRID = b"""\
31 23 0:28 / {root} rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / {root}/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu
33 31 0:32 / {root}/memory rw - cgroup cgroup rw,memory,clone_children
34 31 0:37 / {root}/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:38 / {root}/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def write_mountinfo(tmp_path: pathlib.Path, text: bytes) -> str:
    path = tmp_path / "mountinfo"
    path.write_bytes(text.replace(b"{root}", os.fsencode(tmp_path)))
    return str(path)


def test_hybrid(tmp_path: pathlib.Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").write_text("hugetlb memory\n")
    found = cgroup.detect(str(tmp_path), write_mountinfo(tmp_path, HYBRID))
    assert found.mode == cgroup.HYBRID
    assert found.unified == f"{tmp_path}/unified"
    assert found.controllers == {
        "cpu": f"{tmp_path}/cpu,cpuacct",
        "cpuacct": f"{tmp_path}/cpu,cpuacct",
        "memory": f"{tmp_path}/memory",
        "hugetlb": f"{tmp_path}/unified",
    }
    assert found.roots(["cpu", "cpuacct", "blkio", "memory"]) == [
        f"{tmp_path}/cpu,cpuacct",
        f"{tmp_path}/memory",
    ]


def test_v1(tmp_path: pathlib.Path) -> None:
    lines = b"\n".join(HYBRID.splitlines()[:-1]) + b"\n"
    found = cgroup.detect(str(tmp_path), write_mountinfo(tmp_path, lines))
    assert (found.mode, found.unified) == (cgroup.V1, None)
    assert set(found.controllers) == {"cpu", "cpuacct", "memory"}


def test_v2(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "filesystem_type", lambda path: filesystem.CGROUP2_SUPER_MAGIC)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
    found = cgroup.detect(str(tmp_path))
    assert (found.mode, found.unified) == (cgroup.V2, str(tmp_path))
    assert found.controllers == dict.fromkeys(("cpu", "io", "memory"), str(tmp_path))


def test_no_control_groups(tmp_path: pathlib.Path) -> None:
    found = cgroup.detect(str(tmp_path / "none"), write_mountinfo(tmp_path, HYBRID.splitlines()[0]))
    assert (found.mode, found.unified, found.controllers) == (cgroup.V1, None, {})


@pytest.fixture
def group(tmp_path: pathlib.Path) -> Iterator[int]:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "memory.max").write_text("max\n")
    (tmp_path / "group" / "link").symlink_to("memory.max")
    (tmp_path / "outside").write_text("untouched")
    fd = cgroup.open_root(str(tmp_path / "group"))
    yield fd
    os.close(fd)


def test_read_and_write(group: int) -> None:
    assert cgroup.read(group, "memory.max") == b"max\n"
    cgroup.write(group, "memory.max", "123")
    assert cgroup.read(group, "memory.max") == b"123\n"  # written over, not truncated


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "/etc/passwd", "a/b"])
def test_names_that_are_no_file_names(group: int, name: str, tmp_path: pathlib.Path) -> None:
    for call in (lambda: cgroup.read(group, name), lambda: cgroup.write(group, name, "x")):
        with pytest.raises(OSError) as caught:
            call()
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, name)
    assert (tmp_path / "outside").read_text() == "untouched"


def test_links_are_not_followed(group: int) -> None:
    with pytest.raises(OSError) as caught:
        cgroup.write(group, "link", "x")
    assert caught.value.errno == errno.ELOOP


def test_nothing_is_created(group: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        cgroup.write(group, "memory.high", "1")
    assert caught.value.filename == "memory.high"


def test_create_open_and_remove(tmp_path: pathlib.Path) -> None:
    root = cgroup.open_root(str(tmp_path))
    os.close(cgroup.create(root, "a/b/c"))
    os.close(cgroup.create(root, "a/b"))  # again is fine
    fd = cgroup.open_group(root, "a/b")
    assert cgroup.children(fd) == ["c"]
    os.close(fd)
    cgrouptree.remove(root, "a")
    cgrouptree.remove(root, "a")
    assert os.listdir(tmp_path) == []
    os.close(root)


@pytest.mark.parametrize("path", ["", "/", "/a", "a//b", "..", "a/../../b", "."])
def test_create_refuses_paths_that_leave(tmp_path: pathlib.Path, path: str) -> None:
    root = cgroup.open_root(str(tmp_path))
    with pytest.raises(OSError) as caught:
        cgroup.create(root, path)
    assert caught.value.errno == errno.EINVAL
    assert os.listdir(tmp_path) == []
    os.close(root)


def test_open_stays_below(tmp_path: pathlib.Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "link").symlink_to("group")
    root = cgroup.open_root(str(tmp_path))
    for path, code in (("..", errno.EXDEV), ("/", errno.EXDEV), ("link", errno.ELOOP), ("no", errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            cgroup.open_group(root, path)
        assert caught.value.errno == code
    os.close(root)


def test_groups_nested_deeper_than_interpreter_and_descriptors_allow(tmp_path: pathlib.Path) -> None:
    """Whoever may make groups decides how deep."""
    root = cgroup.open_root(str(tmp_path))
    here = os.dup(root)
    for _ in range(1500):
        for name in ("deep", "next"):
            os.mkdir(name, dir_fd=here)
        above, here = here, os.open("deep", cgroup.DIRECTORY, dir_fd=here)
        os.close(above)
    os.close(here)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        cgrouptree.remove(root, "deep")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir(tmp_path) == ["next"]
    os.close(root)


OWN = """\
12:pids:/
4:memory,hugetlb:/system.slice/northstar.service
1:name=systemd:/init.scope
0::/svc/x:y
"""


@pytest.mark.parametrize(
    ("controller", "group"),
    [("", "svc/x:y"), ("pids", ""), ("hugetlb", "system.slice/northstar.service"), ("cpu", None)],
)
def test_own_group(tmp_path: pathlib.Path, controller: str, group: str | None) -> None:
    (tmp_path / "cgroup").write_text(OWN)
    assert cgroup.own_group(controller, str(tmp_path / "cgroup")) == group


def test_flat_keyed() -> None:
    data = b"low 0\nhigh 12\nmax 3\nnonsense\nkey value\nsock_throttled 7\n"
    assert cgroup.parse_flat_keyed(data) == {"low": 0, "high": 12, "max": 3, "sock_throttled": 7}
