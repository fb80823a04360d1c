# SPDX-License-Identifier: Apache-2.0
"""The manifest as data. docs/manifest.md explains every field."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.names import Container, Version, VersionReq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


PERMISSIONS = (
    "ident",
    "inspect",
    "install",
    "kill",
    "list",
    "notifications",
    "mount",
    "repositories",
    "shutdown",
    "start",
    "start_command",
    "token_create",
    "token_verification",
    "umount",
    "uninstall",
)
"""What a console may be allowed to do, in the order of upstream's definition."""

MOUNT_OPTIONS = ("rw", "noexec", "nosuid", "nodev", "rec")
POLICIES = ("other", "fifo", "round_robin", "batch", "idle", "deadline")
RLIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
SOCKET_TYPES = ("stream", "datagram", "seq_packet")
OUTPUTS = ("discard", "pipe", "inherit")
AUTOSTARTS = ("relaxed", "critical")


class Console(NamedTuple):
    """The container gets a console connection with these permissions."""

    permissions: frozenset[str]


class Bind(NamedTuple):
    """A directory or file of the host."""

    host: str
    options: frozenset[str] = frozenset()


class Dev(NamedTuple):
    """A /dev with full, null, random, tty, urandom and zero."""


class Persist(NamedTuple):
    """The container's persistent directory."""


class Proc(NamedTuple):
    """procfs of the container's pid namespace, read-only."""


class Resource(NamedTuple):
    """A directory of another container's image."""

    name: str
    version: VersionReq
    dir: str
    options: frozenset[str] = frozenset()


class Sockets(NamedTuple):
    """The runtime's directory of container sockets."""


class Sysfs(NamedTuple):
    """sysfs, read-only."""


class Tmpfs(NamedTuple):
    """A tmpfs of `size` bytes."""

    size: int


Mount = Bind | Dev | Persist | Proc | Resource | Sockets | Sysfs | Tmpfs


def mount_point(text: str) -> str:
    """The one form in which mount points are compared: absolute, without `.`, `//` and a `/` at the end."""
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


class NetworkHost(NamedTuple):
    """The network namespace of the host."""


class NetworkNamespace(NamedTuple):
    """An existing network namespace, /run/netns/<name>."""

    name: str


class Sched(NamedTuple):
    """Scheduling policy; `nice` for other and batch, `priority` for fifo and round_robin."""

    policy: str
    nice: int | None = None
    priority: int | None = None


class Io(NamedTuple):
    """What happens with stdout and stderr: `discard`, `pipe` or `inherit`."""

    stdout: str
    stderr: str


class Rlimit(NamedTuple):
    """Soft and hard limit, None for unlimited."""

    soft: int | None = None
    hard: int | None = None


class Socket(NamedTuple):
    """A unix socket handed over to the container."""

    type: str
    mode: int
    uid: int | None = None
    gid: int | None = None
    passcred: bool | None = None


class ArgRule(NamedTuple):
    """Condition on one system call argument: one of `values`, or no bit outside `mask`."""

    index: int  # type: ignore[assignment]
    values: tuple[int, ...] | None = None
    mask: int | None = None


class Seccomp(NamedTuple):
    """System call filter: a profile and calls allowed besides, where None allows any arguments."""

    profile: str | None
    allow: dict[str, ArgRule | None] | None


class Selinux(NamedTuple):
    """SELinux contexts of the root file system and of the application."""

    mount_context: str | None = None
    exec: str | None = None


class WeightDevice(NamedTuple):
    """Weight of one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(NamedTuple):
    """Rate limit of one block device, per second."""

    major: int
    minor: int
    rate: int


class Blkio(NamedTuple):
    """Block I/O controller."""

    weight: int | None
    leaf_weight: int | None
    weight_device: tuple[WeightDevice, ...]
    throttle_read_bps_device: tuple[ThrottleDevice, ...]
    throttle_read_iops_device: tuple[ThrottleDevice, ...]
    throttle_write_bps_device: tuple[ThrottleDevice, ...]
    throttle_write_iops_device: tuple[ThrottleDevice, ...]
    attrs: dict[str, str]


class Cpu(NamedTuple):
    """CPU and cpuset controller; times in microseconds."""

    cpus: str | None
    mems: str | None
    shares: int | None
    quota: int | None
    period: int | None
    realtime_runtime: int | None
    realtime_period: int | None
    attrs: dict[str, str]


class Memory(NamedTuple):
    """Memory controller; sizes in bytes."""

    oom_monitor: bool
    kernel_memory_limit: int | None
    memory_hard_limit: int | None
    memory_soft_limit: int | None
    kernel_tcp_memory_limit: int | None
    memory_swap_limit: int | None
    swappiness: int | None
    attrs: dict[str, str]


class Pids(NamedTuple):
    """Controller of the number of processes and threads."""

    max: int


class Cgroups(NamedTuple):
    """Control group settings. `pids` is an addition to upstream's format, which ignores it."""

    parent: str | None = None
    blkio: Blkio | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    pids: Pids | None = None


class Manifest(NamedTuple):
    """Everything a package says about its container. Without `init` it is a resource."""

    name: str
    version: Version
    console: Console | None
    init: str | None
    args: tuple[str, ...]
    env: dict[str, str]
    uid: int
    gid: int
    sched: Sched | None
    mounts: dict[str, Mount]
    autostart: str | None
    cgroups: Cgroups | None
    network: NetworkHost | NetworkNamespace | None
    seccomp: Seccomp | None
    selinux: Selinux | None
    capabilities: frozenset[str]
    suppl_groups: tuple[str, ...]
    rlimits: dict[str, Rlimit]
    sockets: dict[str, Socket]
    io: Io | None
    custom: Any

    @property
    def container(self) -> Container:
        """Identity of the container."""
        return Container(self.name, self.version)
