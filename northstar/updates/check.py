# SPDX-License-Identifier: Apache-2.0
"""May an update begin? From a request to what it would change."""

from __future__ import annotations

from northstar.errors import InvalidArguments, UpdateRejected
from northstar.namedtuple import NamedTuple
from northstar.names import Container, Version
from northstar.updates import journal as journals
from northstar.updates import versions
from northstar.updates.journal import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.updates.device import Device
    from northstar.updates.journal import Journal

MAX_GROUP = 16
MAX_ATTEMPTS = 10
MAX_SETTLE = 3600.0


class Order(NamedTuple):
    """What a client asks for. `settle` in seconds, None for what is configured."""

    containers: tuple[Container, ...]
    attempts: int = 1
    settle: float | None = None
    allow_downgrade: bool = False
    force: bool = False
    data: str = journals.KEEP
    reference: str = ""


def arguments(order: Order) -> None:
    """Raises InvalidArguments about what no device could do."""
    names = [container.name for container in order.containers]
    if not names:
        raise InvalidArguments("an update needs a container")
    if len(names) > MAX_GROUP:
        raise InvalidArguments(f"{len(names)} containers in an update, at most {MAX_GROUP} are possible")
    for name in names:
        if names.count(name) > 1:
            raise InvalidArguments(f"the update has two versions of {name}")
    if not 1 <= order.attempts <= MAX_ATTEMPTS:
        raise InvalidArguments(f"attempts: {order.attempts} is not between 1 and {MAX_ATTEMPTS}")
    if order.settle is not None and not 0 <= order.settle <= MAX_SETTLE:
        raise InvalidArguments(f"settle: {order.settle} is not between 0 and {MAX_SETTLE:.0f} seconds")
    if order.data not in (journals.KEEP, journals.COPY):
        raise InvalidArguments(f"data: {order.data[:40]!r} is neither {journals.KEEP} nor {journals.COPY}")
    if len(order.reference) > journals.MAX_REFERENCE or not order.reference.isprintable():
        raise InvalidArguments(
            f"reference: at most {journals.MAX_REFERENCE} printable characters are possible"
        )


def changes(
    order: Order, device: Device, journal: Callable[[str], Journal], held: Callable[[str], str | None]
) -> tuple[Change, ...]:
    """What the update would change. Raises InvalidContainer, UpdateRejected."""
    manifests = [device.manifest(container) for container in order.containers]
    if all(manifest.init is None for manifest in manifests):
        raise UpdateRejected(
            order.containers[0],
            "a resource proves itself together with a container that uses it; update both as a group",
        )
    return tuple(_change(container, order, device, journal, held) for container in order.containers)


def _change(
    container: Container,
    order: Order,
    device: Device,
    journal: Callable[[str], Journal],
    held: Callable[[str], str | None],
) -> Change:
    name = container.name
    update = held(name)
    if update is not None:
        raise UpdateRejected(container, f"{name} is being updated ({update})")
    installed = device.versions_of(name)
    new = next(item for item in installed if item.version == container.version)
    known = journal(name)
    old = _old(container, device, known)
    versions.check_update(name, old, new, known, allow_downgrade=order.allow_downgrade, force=order.force)
    return Change(name, old, new.version)


def _old(container: Container, device: Device, known: Journal) -> Version | None:
    """What runs, else what would run; nothing if this is the first version of its name."""
    running = device.running(container.name)
    if running is not None:
        return running.version
    installed = device.versions_of(container.name)
    if len(installed) == 1 and known.active is None:
        return None
    return versions.current(installed, known)
