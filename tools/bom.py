# SPDX-License-Identifier: Apache-2.0
"""The software bill of materials of a release, in CycloneDX 1.6 (https://cyclonedx.org/specification/overview/)."""

from __future__ import annotations

import email
import hashlib
import re
import uuid
import zipfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from northstar.engine import binary

SUPPLIER = "The Northstar developers"
LICENCE = "Apache-2.0"
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
TOOLS = ("build", "setuptools")


def write(directory: Path, files: list[Path], epoch: int) -> Path:
    """Write the bill of wheels and source distribution into a directory; its path. Raises ValueError."""
    wheels = [path for path in files if path.suffix == ".whl"]
    described = _metadata(wheels[0])
    name, version = described["Name"], described["Version"]
    text = JsonV1Dot6(_bom(name, version, described, files, epoch)).output_as_string(indent=2)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ValueError(f"the bill of materials is not valid: {problem}")
    path = directory / f"{name}-{version}.cdx.json"
    path.write_text(text + "\n")
    return path


def _bom(name: str, version: str, described: Any, files: list[Path], epoch: int) -> Bom:
    product = Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=version,
        bom_ref=f"{name}@{version}",
        description=described["Summary"],
        purl=PackageURL("pypi", None, name, version),
        licenses=[LicenseFactory().make_from_string(LICENCE)],
        supplier=OrganizationalEntity(name=SUPPLIER),
        components=[_file(path) for path in files],
    )
    digests = "".join(_digest(path.read_bytes()) for path in files)
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digests))
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.component = product
    for tool in TOOLS:
        bom.metadata.tools.components.add(
            Component(type=ComponentType.APPLICATION, name=tool, version=metadata.version(tool))
        )
    engines = [_engine(path) for path in files if path.suffix == ".whl"]
    required = [_required(text) for text in described.get_all("Requires-Dist") or ()]
    bom.components.update([*engines, *required])
    bom.register_dependency(product, [*engines, *required])
    return bom


def _file(path: Path) -> Component:
    """What is published."""
    digest = _digest(path.read_bytes())
    return Component(type=ComponentType.FILE, name=path.name, bom_ref=path.name, hashes=[_sha256(digest)])


def _engine(wheel: Path) -> Component:
    """The native program in a wheel, which links with nothing."""
    machine = wheel.stem.partition("linux_")[2]
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"northstar/engine/{binary.NAME}")
    return Component(
        type=ComponentType.APPLICATION,
        name=binary.NAME,
        version=_metadata(wheel)["Version"],
        bom_ref=f"{binary.NAME}-{machine}",
        description="compiled from northstar/engine, statically, without a C library",
        licenses=[LicenseFactory().make_from_string(LICENCE)],
        hashes=[_sha256(_digest(content))],
        properties=[Property(name="northstar:machine", value=machine)],
    )


def _required(requirement: str) -> Component:
    """A package that is installed besides; any version will do unless the requirement says otherwise."""
    found = REQUIREMENT.match(requirement)
    if found is None:
        raise ValueError(f"not understood: {requirement!r}")
    name = re.sub(r"[-_.]+", "-", found[0]).lower()
    return Component(
        type=ComponentType.LIBRARY,
        name=found[0],
        bom_ref=f"pkg:pypi/{name}",
        purl=PackageURL("pypi", None, name),
        scope=ComponentScope.OPTIONAL if "extra ==" in requirement else ComponentScope.REQUIRED,
        properties=[Property(name="northstar:requirement", value=requirement)],
    )


def _metadata(wheel: Path) -> Any:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
