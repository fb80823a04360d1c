# SPDX-License-Identifier: Apache-2.0
"""From a manifest and a start request to the plan that init executes.

Pure functions: nothing here touches the kernel, so all of it can be tested without root.
"""

from __future__ import annotations

import grp
import resource

from northstar.errors import StartContainerFailed, StartContainerMissingResource
from northstar.kernel import capabilities, procfs, scheduling
from northstar.kernel.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from northstar.manifest import extension, model
from northstar.namedtuple import NamedTuple
from northstar.programs import initfilter
from northstar.programs.notify import ROLE as NOTIFY
from northstar.runtime.containers.command import FIRST_DESCRIPTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from northstar.manifest.model import Manifest
    from northstar.names import Container
    from northstar.programs.plan import MountPlan, Plan
    from northstar.runtime.containers.command import Command
    from northstar.supervision.model import Settings

RLIMITS = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}
"""Resource limit numbers of Linux (setrlimit(2)), equal on x86-64 and aarch64."""

POLICIES = {
    "other": scheduling.SCHED_OTHER,
    "fifo": scheduling.SCHED_FIFO,
    "round_robin": scheduling.SCHED_RR,
    "batch": scheduling.SCHED_BATCH,
    "idle": scheduling.SCHED_IDLE,
    "deadline": scheduling.SCHED_DEADLINE,
}

_UNLIMITED = (1 << 63) - 1
_OPTION_ATTRIBUTES = {"noexec": MOUNT_ATTR_NOEXEC, "nosuid": MOUNT_ATTR_NOSUID, "nodev": MOUNT_ATTR_NODEV}
_STRICT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class Notify(NamedTuple):
    """How the application gets its socket for notifications: as a file, or by a name that init gives it."""

    address: str
    """For the variable NOTIFY_SOCKET."""
    interval: float = 0.0
    """Of its watchdog, in seconds; 0 if it has none."""
    name: str = ""
    place: str = ""
    """Where the file `source` is mounted."""
    source: str = ""
    listen: dict[str, str] = {}  # noqa: RUF012
    """Variables about descriptors that it has left for this run."""
    stored: int = 0
    """Their number. They come first, as sd_listen_fds(3) wants it."""


def expected_notify(manifest: Manifest, settings: Settings) -> Notify | None:
    """What a start would have, as far as it is known before: the image is one of `sextant`."""
    if not settings.notifies:
        return None
    interval = 0.0 if settings.watchdog is None else settings.watchdog.interval
    place = extension.reachable_notify_place(manifest)
    if place is None:
        return Notify("@northstar-RANDOM", interval, "northstar-RANDOM")
    return Notify(place, interval, "", place, "SOCKET")


class Places(NamedTuple):
    """Where the sources of mounts are."""

    run_dir: str
    data_dir: str
    socket_dir: str
    devices: str
    """The prepared tree for mounts of type dev."""
    skip_missing_binds: bool = True
    """Leave out a bind whose source does not exist, instead of refusing the start."""
    persist_noexec: bool = False
    """No program can be executed in persistent directories."""


def resources(manifest: Manifest, known: Collection[Container]) -> dict[str, Container]:
    """For each resource mount (by target) the highest known version that the requirement accepts.

    Raises StartContainerMissingResource.
    """
    chosen: dict[str, Container] = {}
    for target, mount in manifest.mounts.items():
        if not isinstance(mount, model.Resource):
            continue
        accepted = [
            container
            for container in known
            if container.name == mount.name and mount.version.matches(container.version)
        ]
        if not accepted:
            raise StartContainerMissingResource(manifest.container, mount.name, mount.version)
        chosen[target] = max(accepted, key=lambda container: container.version)
    return chosen


def groups(manifest: Manifest, warn: Callable[[str], None]) -> list[int]:
    """Numbers of the supplementary groups; unknown names are skipped with a warning."""
    numbers = []
    for name in manifest.suppl_groups:
        try:
            numbers.append(grp.getgrnam(name).gr_gid)
        except KeyError:
            warn(f"Skipping supplementary group {name} of {manifest.container}: no such group on this host")
    return sorted(set(numbers))


def roles(manifest: Manifest, group_roles: list[str], notify: Notify | None = None) -> list[str | int]:
    """What travels with a start, in this order: a number is that of the application's descriptor.

    `group_roles` are those of the control group. "mounts" is a mount namespace with nothing in it.
    """
    stored = 0 if notify is None else notify.stored
    number = FIRST_DESCRIPTOR + stored
    found: list[str | int] = list(range(FIRST_DESCRIPTOR, number))
    if manifest.console is not None:
        found.append(number)
        number += 1
    if manifest.io is not None:
        streams = (("stdout", manifest.io.stdout), ("stderr", manifest.io.stderr))
        found += [name for name, kind in streams if kind != "discard"]
    found += range(number, number + len(manifest.sockets))
    found.append("mounts")
    if manifest.network is not None:
        found.append("network")
    if notify is not None and notify.name:
        found.append(NOTIFY)
    return found + group_roles


class Facts(NamedTuple):
    """What the runtime knows of the host and of itself."""

    available: int
    """Mask of the capabilities that the runtime has."""
    last_capability: int
    selinux: bool
    oom_score_adj: tuple[int, int] | None
    """That of applications, and that of the runtime; None if it cannot be changed."""


def build(
    manifest: Manifest,
    what: Command,
    places: Places,
    chosen: Mapping[str, object],
    descriptors: list[str | int],
    facts: Facts,
    *,
    group_numbers: list[int],
    application_filter: bytes,
    hold: bool = False,
    notify: Notify | None = None,
) -> Plan:
    """The complete plan of a start. `descriptors` are the roles of what travels with it.

    Raises StartContainerFailed.
    """
    order = session(
        manifest, what, descriptors, facts, group_numbers=group_numbers, application_filter=application_filter
    )
    order["name"] = f"init-{manifest.container}"
    order["root"] = f"{places.run_dir}/{manifest.container}"
    order["hold"] = hold
    order["mounts"] = mounts(manifest, places, chosen)
    if notify is not None:
        order["notify"] = notify.name
        order["env"] = _with_notify(order["env"], notify)
        if notify.place:
            # Last: what it is mounted on is in the image, and not hidden by a mount of the manifest.
            order["mounts"].append(_plan("bind", notify.place, notify.source, _STRICT | MOUNT_ATTR_RDONLY))
    return order


def _with_notify(env: list[str], notify: Notify) -> list[str]:
    """A variable that the manifest has as well would hide ours."""
    ours = {"NOTIFY_SOCKET": notify.address, **notify.listen}
    if notify.interval:
        ours["WATCHDOG_USEC"] = str(round(notify.interval * 1e6))
    kept = [variable for variable in env if variable.partition("=")[0] not in ours]
    return kept + [f"{name}={value}" for name, value in ours.items()]


def session(
    manifest: Manifest,
    what: Command,
    descriptors: list[str | int],
    facts: Facts,
    *,
    group_numbers: list[int],
    application_filter: bytes,
    terminal: bool = False,
) -> Plan:
    """The plan of a command in a running container: as `build`, without mounts."""
    context = manifest.selinux.exec if facts.selinux and manifest.selinux is not None else None
    return {
        "name": "",
        "root": "",
        "hold": False,
        "terminal": terminal,
        "mounts": [],
        "uid": manifest.uid,
        "gid": manifest.gid,
        "groups": group_numbers,
        "rlimits": _limits(manifest, facts.available),
        "capabilities": _capabilities(manifest, facts.available),
        "available": facts.available,
        "last_capability": facts.last_capability,
        "scheduling": _scheduling(manifest),
        "selinux_exec": context,
        "oom_score_adj": facts.oom_score_adj,
        "argv": what.argv,
        "env": what.env,
        "descriptors": descriptors,
        "application_filter": application_filter,
        "init_filter": initfilter.program(),
        "notify": "",
    }


def _limits(manifest: Manifest, available: int) -> list[tuple[str, int, int, int]]:
    found = []
    for name, limit in sorted(manifest.rlimits.items()):
        most = _most_open_files(available) if name == "nofile" else _UNLIMITED
        soft, hard = (most if n is None or n >= _UNLIMITED else n for n in limit)
        if hard > most:
            reason = f"rlimits.{name}: {hard} is above {most}, which is the most that is possible here"
            raise StartContainerFailed(manifest.container, reason)
        if soft > hard:
            reason = f"rlimits.{name}: the soft limit {soft} is above the hard limit {hard}"
            raise StartContainerFailed(manifest.container, reason)
        found.append((name, RLIMITS[name], _infinite(soft), _infinite(hard)))
    return found


def _most_open_files(available: int) -> int:
    """What "unlimited" means for open files, as the kernel does not take the word (setrlimit(2))."""
    most = procfs.max_open_files()
    own = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if own == resource.RLIM_INFINITY or available & capabilities.mask(("CAP_SYS_RESOURCE",)):
        return most
    return min(most, own)


def _infinite(limit: int) -> int:
    return -1 if limit == _UNLIMITED else limit


def _capabilities(manifest: Manifest, available: int) -> int:
    wanted = capabilities.mask(manifest.capabilities)
    missing = [name for name in sorted(manifest.capabilities) if not available & capabilities.mask((name,))]
    if missing:
        reason = f"capabilities: the runtime itself does not have {', '.join(missing)}"
        raise StartContainerFailed(manifest.container, reason)
    return wanted


def _scheduling(manifest: Manifest) -> tuple[int, int, int] | None:
    sched = manifest.sched
    if sched is None:
        return None
    return POLICIES[sched.policy], sched.priority or 0, sched.nice or 0


def mounts(manifest: Manifest, places: Places, chosen: Mapping[str, object]) -> list[MountPlan]:
    """The mounts in the order of making them: a parent comes before what lies below it."""
    words = extension.mounts(manifest)
    return [
        _mount(target, mount, manifest, places, chosen.get(target), words.get(target, frozenset()))
        for target, mount in sorted(manifest.mounts.items(), key=lambda item: item[0].split("/"))
    ]


def _mount(
    target: str,
    mount: model.Mount,
    manifest: Manifest,
    places: Places,
    resource: object,
    words: frozenset[str],
) -> MountPlan:
    if isinstance(mount, model.Bind):
        read_only = 0 if "rw" in mount.options else MOUNT_ATTR_RDONLY
        attributes = read_only | _attributes(mount.options)
        recursive = "rec" in mount.options
        optional = places.skip_missing_binds and extension.REQUIRED not in words
        return _plan("bind", target, mount.host, attributes, recursive=recursive, optional=optional)
    if isinstance(mount, model.Resource):
        attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | _attributes(mount.options)
        source = f"{places.run_dir}/{resource}"
        return _plan("resource", target, source, attributes, directory=mount.dir)
    if isinstance(mount, model.Persist):
        strict = places.persist_noexec or extension.NOEXEC in words
        attributes = _STRICT if strict else _STRICT & ~MOUNT_ATTR_NOEXEC
        return _plan("bind", target, f"{places.data_dir}/{manifest.name}", attributes)
    if isinstance(mount, model.Sockets):
        return _plan("bind", target, places.socket_dir, _STRICT)
    if isinstance(mount, model.Dev):
        return _plan("tree", target, places.devices, 0, recursive=True)
    if isinstance(mount, model.Tmpfs):
        return _plan("tmpfs", target, "", _STRICT, options={"size": str(mount.size), "mode": "1777"})
    kind = "proc" if isinstance(mount, model.Proc) else "sysfs"
    return _plan(kind, target, "", _STRICT | MOUNT_ATTR_RDONLY)


def _attributes(options: Iterable[str]) -> int:
    attributes = 0
    for option in options:
        attributes |= _OPTION_ATTRIBUTES.get(option, 0)
    return attributes


def _plan(
    kind: str,
    target: str,
    source: str,
    attributes: int,
    *,
    directory: str = "",
    recursive: bool = False,
    optional: bool = False,
    options: dict[str, str] | None = None,
) -> MountPlan:
    return {
        "kind": kind,
        "target": target,
        "source": source,
        "directory": directory,
        "recursive": recursive,
        "optional": optional,
        "attributes": attributes,
        "options": options or {},
    }
