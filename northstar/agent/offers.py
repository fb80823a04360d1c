# SPDX-License-Identifier: Apache-2.0
"""From a server's offer to a job, or the reason why there is none: pure functions."""

from __future__ import annotations

import hashlib
import json

from northstar.agent.state import Job, Package
from northstar.delta import index
from northstar.namedtuple import NamedTuple
from northstar.names import Version, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from northstar.agent.actions import Facts
    from northstar.agent.ddi import Artifact, Module, Offer

    T = TypeVar("T")


SUFFIX = ".npk"
MAX_INDEX_SIZE = 4 << 20
MAX_FILE_NAME = 255
MAX_SETTLE = 3600
_PREFIX = "northstar."


class Unfit(Exception):
    """An offer will not be carried out; its text says why."""


class Limits(NamedTuple):
    """What the owner of the device allows."""

    repositories: tuple[str, ...]
    """The first one is that of packages which say nothing."""
    max_size: int
    reserve: int
    """Bytes that are to stay free."""


def key(offer: Offer) -> str:
    """What tells the content of an offer from that of another one with the same identifier."""
    content = [
        [m.name, m.version, [[a.name, a.size, a.digest] for a in m.artifacts], sorted(m.metadata.items())]
        for m in offer.modules
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def job(offer: Offer, url: str, limits: Limits) -> Job:
    """The job of an offer; raises Unfit."""
    packages, removals, settles, downgrades = [], [], [], []
    for module in offer.modules:
        _check_metadata(module)
        if module.metadata.get("northstar.action") == "uninstall":
            removals.append(_removal(module))
            continue
        packages.append(_package(module, limits))
        settles.append(_settle(module))
        downgrades.append(module.metadata.get("northstar.allow_downgrade") == "true")
    names = [package.name for package in packages] + removals
    if not names:
        raise Unfit("nothing to install")
    for name in names:
        if names.count(name) > 1:
            raise Unfit(f"{name}: two modules for one container")
    asked = [settle for settle in settles if settle is not None]
    return Job(
        offer.id,
        key(offer),
        url,
        offer.download,
        offer.update,
        tuple(packages),
        tuple(removals),
        max(asked, default=None),
        bool(downgrades) and all(downgrades),
    )


def _check_metadata(module: Module) -> None:
    known = ("repository", "settle", "allow_downgrade", "action")
    for name in module.metadata:
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in known:
            raise Unfit(f"{module.name[:80]}: metadata {name[:80]}: not known to this agent")
    for name, values in (
        ("northstar.action", ("install", "uninstall")),
        ("northstar.allow_downgrade", ("true", "false")),
    ):
        if module.metadata.get(name, values[0]) not in values:
            raise Unfit(f"{module.name[:80]}: metadata {name}: one of {', '.join(values)} expected")


def _removal(module: Module) -> str:
    if module.artifacts:
        raise Unfit(f"{module.name[:80]}: a removal has no artifacts")
    return _checked(check_name, module.name)


def _settle(module: Module) -> int | None:
    text = module.metadata.get("northstar.settle")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > MAX_SETTLE:
        raise Unfit(f"{module.name[:80]}: metadata northstar.settle: 0 to {MAX_SETTLE} seconds expected")
    return int(text)


def _package(module: Module, limits: Limits) -> Package:
    name = _checked(check_name, module.name)
    version = str(_checked(Version.parse, module.version))
    for artifact in module.artifacts:
        _check_file_name(artifact)
    found = [artifact for artifact in module.artifacts if artifact.name.endswith(SUFFIX)]
    if len(found) != 1:
        raise Unfit(f"{name}: one artifact *{SUFFIX} expected, there are {len(found)}")
    artifact = found[0]
    if not artifact.digest:
        raise Unfit(f"{artifact.name}: neither sha256 nor sha1 is known")
    if not 0 < artifact.size <= limits.max_size:
        raise Unfit(f"{artifact.name}: {artifact.size} bytes, at most {limits.max_size} are allowed")
    repository = module.metadata.get("northstar.repository", limits.repositories[0])
    if repository not in limits.repositories:
        raise Unfit(
            f"{name}: repository {repository[:80]!r} is not among those of this device's configuration"
        )
    listed = next((a for a in module.artifacts if a.name == artifact.name + index.SUFFIX), None)
    package = Package(name, version, artifact.name, artifact.size, artifact.digest, artifact.url, repository)
    if listed is None or not 0 < listed.size <= MAX_INDEX_SIZE:
        return package
    return package._replace(index_url=listed.url, index_size=listed.size)


def _check_file_name(artifact: Artifact) -> None:
    name = artifact.name
    if (
        "/" in name
        or "\\" in name
        or not name.isprintable()
        or name.startswith(".")
        or len(name) > MAX_FILE_NAME
    ):
        raise Unfit(f"{name[:80]!r}: no name of a file")


def _checked(check: Callable[[str], T], text: str) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise Unfit(str(error)) from None


def check(wanted: Job, facts: Facts, limits: Limits) -> None:
    """Whether the device can take it now; raises Unfit."""
    needed = sum(package.size for package in wanted.packages) + limits.reserve
    if needed > facts.free:
        raise Unfit(f"no room: {needed} bytes needed, {facts.free} free")
    if wanted.allow_downgrade:
        return
    for package in wanted.packages:
        active = facts.versions.get(package.name)
        if active is not None and Version.parse(package.version) < Version.parse(active):
            raise Unfit(f"{package.name}:{package.version} is a downgrade, {active} is active")
