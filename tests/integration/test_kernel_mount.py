# SPDX-License-Identifier: Apache-2.0
"""Mount calls in a mount namespace of their own."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest
from abilities import has_keyrings, has_network_namespaces, has_root, needs
from isolated import isolated

from northstar.kernel import filesystem, libc, mount, namespaces, paths, process

pytestmark = needs(has_root)


def entry_of(target: pathlib.Path | str) -> mount.MountEntry:
    """The topmost mount at `target`."""
    found = [entry for entry in mount.mountinfo() if entry.target == str(target)]
    assert found, f"nothing is mounted at {target}"
    return found[-1]


def attach_tmpfs(target: pathlib.Path, options: tuple[tuple[str, str | None], ...] = ()) -> None:
    fd = mount.new_filesystem("tmpfs", options)
    mount.move_mount(fd, libc.AT_FDCWD, str(target))
    os.close(fd)


def test_mount_and_umount(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        mount.mount("a-name", str(tmp_path), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "size=1m")
        entry = entry_of(tmp_path)
        assert (entry.fstype, entry.source) == ("tmpfs", "a-name")
        assert {"nosuid", "nodev", "rw"} <= entry.options
        assert filesystem.filesystem_type(str(tmp_path)) == filesystem.TMPFS_MAGIC
        mount.umount(str(tmp_path))
        with pytest.raises(OSError) as caught:
            mount.umount(str(tmp_path))
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path))

    isolated(check)
    assert not os.path.ismount(tmp_path)


def test_new_filesystem_with_options(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        fd = mount.new_filesystem(
            "tmpfs", [("size", "64k"), ("mode", "1777")], mount.MOUNT_ATTR_NOEXEC, source="here"
        )
        mount.move_mount(fd, libc.AT_FDCWD, str(tmp_path))
        entry = entry_of(tmp_path)
        assert entry.source == "here"
        assert "noexec" in entry.options
        assert "size=64k" in entry.super_options
        assert os.stat(tmp_path).st_mode & 0o7777 == 0o1777

    isolated(check)


def test_readonly_filesystem(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        fd = mount.new_filesystem("tmpfs", readonly=True)
        mount.move_mount(fd, libc.AT_FDCWD, str(tmp_path))
        with pytest.raises(OSError) as caught:
            (tmp_path / "file").touch()
        assert caught.value.errno == errno.EROFS

    isolated(check)


def test_errors_of_the_context_name_the_option() -> None:
    with pytest.raises(OSError) as caught:
        mount.new_filesystem("tmpfs", [("no-such-option", "1")])
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "no-such-option")
    with pytest.raises(OSError) as caught:
        mount.new_filesystem("no-such-fs")
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "no-such-fs")


def test_attach_on_a_descriptor_resolved_inside_a_root(tmp_path: pathlib.Path) -> None:
    """The target is a link to /etc, which inside the root is another directory than the host's."""

    def check() -> None:
        root = tmp_path / "root"
        (root / "etc").mkdir(parents=True)
        (root / "link").symlink_to("/etc")
        root_fd = os.open(root, os.O_PATH)
        target = paths.open_in_root(root_fd, "link", os.O_PATH | os.O_DIRECTORY)
        fd = mount.new_filesystem("tmpfs")
        mount.move_mount(fd, target)
        assert entry_of(root / "etc").fstype == "tmpfs"
        assert not [entry for entry in mount.mountinfo() if entry.target == "/etc"]

    isolated(check)


@pytest.mark.parametrize("recursive", [False, True])
def test_bind_with_attributes(tmp_path: pathlib.Path, recursive: bool) -> None:
    """Attributes take effect on a bind, on submounts only if asked, and restrictions stay."""

    def check() -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        mount.mount("tmpfs", str(source), "tmpfs", mount.MS_NOEXEC)
        (source / "sub").mkdir()
        attach_tmpfs(source / "sub")
        fd = mount.open_tree(libc.AT_FDCWD, str(source), mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE)
        attributes = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID
        mount.mount_setattr(fd, "", libc.AT_RECURSIVE if recursive else 0, attributes)
        mount.move_mount(fd, libc.AT_FDCWD, str(target))
        assert {"ro", "nosuid", "noexec"} <= entry_of(target).options
        assert ("ro" in entry_of(target / "sub").options) is recursive
        assert "rw" in entry_of(source).options

    isolated(check)


def test_descriptor_is_not_inherited() -> None:
    fd = mount.open_tree(libc.AT_FDCWD, "/")
    assert os.get_inheritable(fd) is False
    os.close(fd)


def test_pivot_root(tmp_path: pathlib.Path) -> None:
    """With "." for both, then the old root is detached; nothing of it remains."""

    def check() -> None:
        attach_tmpfs(tmp_path)
        (tmp_path / "marker").touch()
        old = os.open("/", os.O_PATH)
        os.chdir(tmp_path)
        mount.pivot_root(".", ".")
        os.fchdir(old)
        mount.mount(None, ".", None, mount.MS_SLAVE | mount.MS_REC)
        mount.umount(".", mount.MNT_DETACH)
        os.chdir("/")
        if os.listdir("/") != ["marker"]:
            raise AssertionError(os.listdir("/"))

    isolated(check)


def test_pivot_root_to_no_mount_point(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        os.chdir(tmp_path)
        with pytest.raises(OSError) as caught:
            mount.pivot_root(".", ".")
        # EBUSY: the same mount as the current root; EINVAL: if the root is no mount point either (chroot)
        assert caught.value.errno in (errno.EBUSY, errno.EINVAL)

    isolated(check)


@needs(has_network_namespaces)
def test_setns(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        before = os.open("/proc/self/ns/net", os.O_RDONLY)
        identity = os.fstat(before).st_ino
        namespaces.unshare(namespaces.CLONE_NEWNET)
        assert os.stat("/proc/self/ns/net").st_ino != identity
        with pytest.raises(OSError):
            namespaces.setns(before, namespaces.CLONE_NEWUTS)
        namespaces.setns(before, namespaces.CLONE_NEWNET)
        assert os.stat("/proc/self/ns/net").st_ino == identity

    isolated(check)


@needs(has_keyrings)
def test_session_keyring() -> None:
    def check() -> None:
        first = process.join_session_keyring()
        second = process.join_session_keyring()
        assert first > 0
        assert second not in (0, first)

    isolated(check)
