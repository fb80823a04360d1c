# SPDX-License-Identifier: Apache-2.0
"""Rules about the manifest alone."""

from __future__ import annotations

import os

from northstar.lint import filters
from northstar.lint.rules import finding
from northstar.manifest import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.lint.rules import Finding
    from northstar.manifest import Manifest

_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "usr",
)
_SENSITIVE = ("/", "/dev", "/proc", "/root", "/run", "/sys", "/var/run")
_GROUPS = ("adm", "disk", "docker", "kmem", "lxd", "root", "shadow", "sudo", "tty", "wheel")
_CAPABILITIES = {
    "CAP_BPF": "load programs into the kernel",
    "CAP_CHECKPOINT_RESTORE": "choose process ids and follow links of other processes",
    "CAP_CHOWN": "take any file",
    "CAP_DAC_OVERRIDE": "read and write any file",
    "CAP_DAC_READ_SEARCH": "read any file",
    "CAP_FOWNER": "change the mode of any file",
    "CAP_LINUX_IMMUTABLE": "lock files",
    "CAP_MAC_ADMIN": "change the security policy",
    "CAP_MAC_OVERRIDE": "go around the security policy",
    "CAP_MKNOD": "make device nodes",
    "CAP_NET_ADMIN": "change interfaces, routes and packet filters",
    "CAP_NET_RAW": "read and forge packets",
    "CAP_PERFMON": "watch the kernel and all processes",
    "CAP_SETFCAP": "give capabilities to files",
    "CAP_SETGID": "enter any group",
    "CAP_SETPCAP": "give capabilities away",
    "CAP_SETUID": "become any user",
    "CAP_SYSLOG": "read addresses of the kernel",
    "CAP_SYS_ADMIN": "mount, and nearly everything else",
    "CAP_SYS_BOOT": "stop the device and load another kernel",
    "CAP_SYS_MODULE": "load kernel modules",
    "CAP_SYS_PTRACE": "control other processes",
    "CAP_SYS_RAWIO": "access the hardware",
    "CAP_SYS_TIME": "set the clock",
}
_PERMISSIONS = ("install", "mount", "shutdown", "start_command", "umount", "uninstall")
_REALTIME = ("fifo", "round_robin", "deadline")


def check(manifest: Manifest, host_root: str) -> Iterator[Finding]:
    """What is wrong with a manifest; sources of bind mounts are looked for below `host_root`."""
    yield from _binds(manifest, host_root)
    for name in sorted(manifest.capabilities):
        if name in _CAPABILITIES:
            yield finding("dangerous-capability", name, f"it allows to {_CAPABILITIES[name]}")
    for name in manifest.suppl_groups:
        if name in _GROUPS:
            yield finding("privileged-group", name, f"the container is in the group {name}")
    if isinstance(manifest.network, model.NetworkHost):
        yield finding("host-network", "network", "the container uses the network of the device")
    if manifest.console is not None:
        powerful = [name for name in _PERMISSIONS if name in manifest.console.permissions]
        if powerful:
            yield finding("powerful-console", "console", f"the container may {', '.join(powerful)}")
    if manifest.init is not None:
        yield from _running(manifest)


def _running(manifest: Manifest) -> Iterator[Finding]:
    """What only a container with a program has."""
    cgroups = manifest.cgroups or model.Cgroups()
    limit = cgroups.memory.memory_hard_limit if cgroups.memory is not None else None
    attributes = cgroups.memory.attrs if cgroups.memory is not None else {}
    if manifest.seccomp is None:
        yield finding("no-seccomp", "seccomp", "there is no filter of system calls")
    elif broken := filters.problem(manifest):
        yield finding("broken-filter", "seccomp", broken.removeprefix("seccomp: "))
    if (limit is None or limit < 0) and not {"memory.max", "limit_in_bytes"} & attributes.keys():
        yield finding("no-memory-limit", "cgroups.memory", "there is no limit of memory")
    if cgroups.pids is None:
        yield finding("no-pids-limit", "cgroups.pids", "there is no limit of processes")
    if manifest.sched is not None and manifest.sched.policy in _REALTIME and "rttime" not in manifest.rlimits:
        message = f"the policy is {manifest.sched.policy}, and there is no limit rttime"
        yield finding("realtime-unlimited", "sched", message)
    if manifest.io is None or set(manifest.io) == {"discard"}:
        yield finding("output-lost", "io", "standard output and error are discarded")


def _binds(manifest: Manifest, host_root: str) -> Iterator[Finding]:
    for target, mount in sorted(manifest.mounts.items()):
        if not isinstance(mount, model.Bind):
            continue
        host = os.path.normpath("/" + mount.host.lstrip("/"))
        if "rw" in mount.options and _is_system(host):
            yield finding("writable-system-bind", target, f"{host} of the device can be written to")
        elif host in _SENSITIVE:
            yield finding("sensitive-bind", target, f"it is {host} of the device")
        if not os.path.exists(host_root.rstrip("/") + host):
            where = "this machine" if host_root == "/" else host_root
            yield finding("missing-host-path", target, f"{host} does not exist on {where}")


def _is_system(host: str) -> bool:
    """Whether a directory is the system's, or contains directories that are."""
    parts = host.split("/")[1:]
    return host in ("/", "/var") or parts[0] in _SYSTEM
