# SPDX-License-Identifier: Apache-2.0
"""Mounting packages: loop device, dm-verity for a verified package, squashfs.

After a successful mount only the mount holds the devices: umount lets go of the mapped device, which
is marked for deferred removal, and that of the loop device, which clears itself. Device nodes are made
by us in `<run_dir>/.dev`, so nothing waits for udev.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import time

from northstar.errors import Unexpected
from northstar.kernel import dm, filesystem, loopdevice, mount
from northstar.npk import superblock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.config import Config
    from northstar.names import Container
    from northstar.npk.package import Package, Verity

NODE_DIR = ".dev"
DEVICES_DIR = ".devices"
"""Nodes for containers, see `devices`; the other ones are for our own mounts."""
MOUNT_SOURCE = "northstar"
"""What mountinfo shows as the source of mounts that have no device."""
DM_NAME_PREFIX = "northstar-"
DM_UUID_PREFIX = "NORTHSTAR-"
LOOP_TAG_PREFIX = "northstar:"

READ_AHEAD = 128 * 1024
"""Bytes, what Linux does by default."""

_FLAGS = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV
_NAME_ATTEMPTS = 3


def prepare_run_dir(path: str, *, own_namespace: bool = True) -> None:
    """Make `path` ready for mount points and device nodes.

    With a mount namespace of our own a private tmpfs is mounted over it: mount points disappear with the
    daemon, and nodes can be opened even if /run is mounted nodev. Else only the directory of the nodes is
    such a tmpfs, which `release_run_dir` or the next sweep removes. Raises OSError.
    """
    os.makedirs(path, 0o755, exist_ok=True)
    if own_namespace:
        _mount_tmpfs(path, "mode=0755,size=1m")
    node_dir = f"{path}/{NODE_DIR}"
    try:
        os.mkdir(node_dir, 0o700)
    except FileExistsError:
        os.chmod(node_dir, 0o700)
    if not own_namespace:
        _mount_tmpfs(node_dir, "mode=0700,size=1m")


def _mount_tmpfs(path: str, options: str) -> None:
    mount.mount(MOUNT_SOURCE, path, "tmpfs", mount.MS_NOSUID | mount.MS_NOEXEC, options)
    mount.mount(None, path, None, mount.MS_PRIVATE)


def release_run_dir(path: str) -> None:
    """Undo `prepare_run_dir(path, own_namespace=False)`. Raises OSError."""
    node_dir = f"{path}/{NODE_DIR}"
    mount.umount(node_dir, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
    os.rmdir(node_dir)


class Mounter:
    """Mounts and umounts packages. Methods block and may be called from several threads at once."""

    __slots__ = (
        "_attach_lock",
        "_control",
        "_control_lock",
        "_log",
        "_node_dir",
        "_owner",
        "_selinux",
        "_timeout",
    )

    def __init__(
        self,
        config: Config,
        *,
        selinux: bool = False,
        log: Callable[[str, str], object] | None = None,
    ) -> None:
        """`prepare_run_dir` comes before the first mount. `selinux`: whether SELinux is enabled."""
        self._node_dir = f"{config.run_dir}/{NODE_DIR}"
        self._timeout = config.loop_device_timeout
        self._selinux = selinux
        self._log = log
        self._owner = owner_id(os.getpid())
        self._control: dm.Control | None = None
        self._control_lock = _thread.allocate_lock()
        self._attach_lock = _thread.allocate_lock()

    def mount(
        self, container: Container, fd: int, package: Package, target: str, *, verified: bool = False
    ) -> None:
        """Mount the image of the package open as `fd` at `target`, which is made if missing.

        `verified` says that the package's repository has a key; a package that comes with a root hash is
        always mounted through dm-verity. After a failure nothing is left behind. Raises
        errors.Unexpected naming the step that failed.
        """
        if verified and package.verity is None:
            raise Unexpected(f"{container}: NPK lacks verity information")
        _check_unchanged(container, fd, package)
        made = _make_target(target)
        try:
            with _Step(f"{container}: losetup failed"):
                device = self._attach(container, fd, package)
            try:
                if package.verity is None:
                    self._mount_plain(container, fd, package, device, target)
                else:
                    self._mount_verified(container, package, package.verity, device, target)
            finally:
                device.close()
        except BaseException:
            if made:
                self._remove_target(target)
            raise

    def umount(self, target: str) -> None:
        """Umount `target` and remove the mount point. Raises errors.Unexpected, then it is still mounted.

        A mount point that cannot be removed, because somebody put a file there, is only logged.
        """
        try:
            mount.umount(target, mount.UMOUNT_NOFOLLOW)
        except OSError as failure:
            raise Unexpected(f"{_errno_text(failure)} ({target})") from failure
        self._remove_target(target)

    def missing(self, *, verified: bool) -> dict[str, str]:
        """What the kernel lacks for mounts, and why: "loop", "squashfs", and if some are `verified`
        "device-mapper" and "verity", which are left alone otherwise. Blocks.
        """
        probes: dict[str, Callable[[], object]] = {"loop": self._probe_loop, "squashfs": _probe_squashfs}
        if verified:
            probes |= {"device-mapper": self._device_mapper, "verity": self._probe_verity}
        return {name: reason for name, probe in probes.items() if (reason := _reason(probe)) is not None}

    def close(self) -> None:
        """Close the device mapper's control device."""
        with self._control_lock:
            if self._control is not None:
                self._control.close()
                self._control = None

    def _attach(self, container: Container, fd: int, package: Package) -> loopdevice.Loop:
        deadline = time.monotonic() + self._timeout
        # The kernel offers the same free number to everybody who asks at the same time: one at a time.
        acquired = self._attach_lock.acquire(timeout=self._timeout)
        try:
            if not acquired:
                raise TimeoutError
            return loopdevice.attach(
                fd,
                package.image_offset,
                package.image_size,
                timeout=max(0.0, deadline - time.monotonic()),
                tag=f"{LOOP_TAG_PREFIX}{container}",
                node_dir=self._node_dir,
            )
        except TimeoutError as failure:
            raise Unexpected(
                f"failed to acquire loop device for {container} within {self._timeout:g}s"
            ) from failure
        finally:
            if acquired:
                self._attach_lock.release()

    def _mount_plain(
        self, container: Container, fd: int, package: Package, device: loopdevice.Loop, target: str
    ) -> None:
        with _Step(f"{container}: failed to read the image"):
            problem = superblock.problem(fd, package.image_offset, package.image_size)
        if problem is not None:
            raise Unexpected(f"{container}: invalid file system image: {problem}")
        _limit_read_ahead(device.fd)
        self._mount_squashfs(container, package, device.path, target)

    def _mount_verified(
        self, container: Container, package: Package, verity: Verity, device: loopdevice.Loop, target: str
    ) -> None:
        with _Step(f"{container}: failed to setup dm device"):
            mapped = _Mapped(self._device_mapper(), self._node_dir, self._owner, device, verity)
        try:
            _limit_read_ahead(mapped.fd)
            self._mount_squashfs(container, package, mapped.node, target)
        finally:
            mapped.close()

    def _mount_squashfs(self, container: Container, package: Package, source: str, target: str) -> None:
        context = package.manifest.selinux.mount_context if package.manifest.selinux else None
        data = f"context={context}" if context and self._selinux else None
        try:
            mount.mount(source, target, "squashfs", _FLAGS, data)
        except OSError as failure:
            reason = f"mount option {data}" if data and failure.errno == errno.EINVAL else _explain(failure)
            raise Unexpected(f"{container}: {_errno_text(failure)} ({reason})") from failure

    def _device_mapper(self) -> dm.Control:
        with self._control_lock:
            if self._control is None:
                self._control = dm.Control(self._node_dir)
            return self._control

    def _probe_verity(self) -> None:
        if "verity" not in self._device_mapper().targets():
            raise OSError(errno.ENOTSUP, "target not registered (CONFIG_DM_VERITY, or module not loaded)")

    def _probe_loop(self) -> None:
        loopdevice.probe(self._node_dir)

    def _remove_target(self, target: str) -> None:
        try:
            os.rmdir(target)
        except FileNotFoundError:
            return
        except OSError as failure:
            if self._log is not None:
                self._log("warn", f"failed to remove {target}: {failure.strerror}")


def _check_unchanged(container: Container, fd: int, package: Package) -> None:
    """Raises Unexpected for a file that has become shorter, of which the kernel would say something else; and
    for one that somebody has written to since it was loaded, if dm-verity does not look after its content.
    """
    needed = package.image_offset + package.image_size
    with _Step(f"{container}: failed to look at the package"):
        found = os.fstat(fd)
    if found.st_size < needed:
        raise Unexpected(f"{container}: the package is truncated: {found.st_size} bytes, {needed} are needed")
    if package.verity is None and (found.st_size, found.st_mtime_ns) != (package.size, package.modified):
        raise Unexpected(f"{container}: the package was changed after it was loaded; restart the runtime")


def _limit_read_ahead(device: int) -> None:
    """Where a disk asks for large transfers the kernel reads megabytes for a page, most of it for nothing."""
    with contextlib.suppress(OSError):
        filesystem.set_read_ahead(device, READ_AHEAD)


class _Mapped:
    """A verity device held open by us and gone as soon as neither we nor a mount hold it."""

    __slots__ = ("fd", "node")

    def __init__(
        self, control: dm.Control, node_dir: str, owner: str, device: loopdevice.Loop, verity: Verity
    ) -> None:
        name, number = _create(control, owner, device, verity)
        self.node = f"{node_dir}/{name}"
        self.fd = -1
        try:
            filesystem.make_block_node(self.node, number)
            # Removing a device that nobody has open is not deferred, so open it first; and mark it
            # before the mount, so that it cannot outlive a daemon killed from here on.
            self.fd = os.open(self.node, os.O_RDONLY | os.O_CLOEXEC)
            control.remove(name, deferred=True)
        except BaseException:
            self.close()
            _discard(control, name)
            raise

    def close(self) -> None:
        """Let go of the device and remove its node."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        try:
            os.unlink(self.node)
        except FileNotFoundError:
            return


def _create(
    control: dm.Control, owner: str, device: loopdevice.Loop, verity: Verity
) -> tuple[str, tuple[int, int]]:
    """A new verity device, with another name if the chosen one is taken; its name and number."""
    major, minor = device.device
    attempt = 1
    while True:
        token = _random_token()
        name = f"{DM_NAME_PREFIX}{owner}-{token}"
        try:
            return name, control.create_verity(
                name,
                f"{DM_UUID_PREFIX}{token}",
                f"{major}:{minor}",
                verity.root_hash,
                verity.salt,
                verity.data_blocks,
            )
        except OSError as failure:
            if failure.errno not in (errno.EBUSY, errno.EEXIST) or attempt == _NAME_ATTEMPTS:
                raise
            attempt += 1


def _random_token() -> str:
    return os.urandom(16).hex()


def _discard(control: dm.Control, name: str) -> bool:
    """Remove a device after a failure; the failure itself matters more than one of this."""
    try:
        control.remove(name, deferred=True)
    except OSError:
        return False
    return True


def owner_id(pid: int) -> str:
    """Text that names a process for all time: pid and start time (clock ticks since boot).

    ENOENT: no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return f"{pid}.{int(fields[19])}"


def _make_target(target: str) -> bool:
    """Make the mount point; False if it was there already."""
    try:
        os.mkdir(target, 0o755)
        return True
    except FileExistsError:
        if os.path.islink(target) or not os.path.isdir(target):
            raise Unexpected(f"failed to create directory {target}: something else is there") from None
        if os.path.ismount(target):
            raise Unexpected(f"{target} is a mount point already") from None
        return False
    except OSError as failure:
        raise Unexpected(f"failed to create directory {target}: {failure.strerror}") from failure


class _Step:
    """Turns an OSError inside the with block into errors.Unexpected with the step's text in front."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, failure: BaseException | None, traceback: object) -> None:
        if isinstance(failure, OSError):
            where = f" ({os.fsdecode(failure.filename)})" if failure.filename else ""
            raise Unexpected(f"{self._text}: {failure.strerror}{where}") from failure


def _errno_text(failure: OSError) -> str:
    code = failure.errno or 0
    return f"{errno.errorcode.get(code, str(code))}: {os.strerror(code)}"


def _explain(failure: OSError) -> str:
    if failure.errno == errno.ENODEV:
        return "the kernel has no squashfs: it needs CONFIG_SQUASHFS"
    if failure.errno == errno.EIO:
        return "mount of the image: damaged, or it does not match its root hash"
    if failure.errno == errno.EINVAL:
        return "mount of the image: no squashfs, or a compression the kernel does not support"
    return "mount of the image"


def _reason(probe: Callable[[], object]) -> str | None:
    try:
        probe()
    except OSError as failure:
        return failure.strerror or str(failure)
    return None


def _probe_squashfs() -> None:
    """fsopen makes the kernel load the module, unlike a look into /proc/filesystems."""
    os.close(mount.fsopen("squashfs"))
