# SPDX-License-Identifier: Apache-2.0
"""What can be looked at: a package, a directory with a manifest and its files, a manifest."""

from __future__ import annotations

import os

from northstar.errors import ManifestError, NorthstarError, PackageError
from northstar.lint import contents, files, permit, settings
from northstar.lint.rules import finding
from northstar.manifest import encodings, tree
from northstar.manifest.parse import from_tree
from northstar.namedtuple import NamedTuple
from northstar.npk import archive, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from northstar.lint.files import Files
    from northstar.lint.permit import Sorted
    from northstar.lint.rules import Finding

_SOMEBODY = 65534


class Options(NamedTuple):
    """Where the files of a manifest are, the root of the device, its architecture, and unsquashfs."""

    root: str | None = None
    image: str | None = None
    host_root: str | None = None
    machine: str | None = None
    unsquashfs: str = "unsquashfs"


class _Subject(NamedTuple):
    text: bytes
    files: Files | None
    packed: bool


def check(path: str, options: Options) -> Sorted:
    """What is to be said about a package, directory or manifest. Raises NorthstarError."""
    subject = _open(path, options)
    try:
        value, findings = _without_root(encodings.parse(subject.text))
        manifest = from_tree(value)
        allowed = permit.permits(manifest)
    except ManifestError as error:
        raise NorthstarError(f"{path}: {error}", error.hint) from None
    findings += settings.check(manifest, options.host_root or "/")
    if subject.files is not None:
        findings += contents.check(
            manifest,
            subject.files,
            packed=subject.packed,
            host_root=options.host_root,
            machine=options.machine,
        )
    return permit.apply(findings, allowed, complete=subject.files is not None)


def _without_root(value: Any) -> tuple[Any, list[Finding]]:
    """The tree with another user if it is root, which no manifest can have; and what to say about that."""
    found: list[Finding] = []
    if isinstance(value, dict):
        for key in ("uid", "gid"):
            number = value.get(key)
            if isinstance(number, tree.Scalar):
                number = number.value
            if number == 0 and not isinstance(number, bool):
                found.append(finding("root-user", key, f"the {key} is 0"))
                value[key] = _SOMEBODY
    return value, found


def _open(path: str, options: Options) -> _Subject:
    try:
        if os.path.isdir(path):
            return _directory(path, options)
        with open(path, "rb") as file:
            if archive.is_one(file.fileno()):
                return _package(file.fileno(), path, options)
            return _with_files(encodings.read(file), options)
    except OSError as error:
        raise NorthstarError(f"failed to read {error.filename or path}: {error.strerror}") from None


def _directory(path: str, options: Options) -> _Subject:
    """A directory with a manifest, and beside it `root` or `fs.img`, unless the options name others."""
    found = sources.directory(path)
    if found is None:
        raise NorthstarError(f"{path}: there is no {', '.join(sources.MANIFESTS)}")
    if options.root is None and options.image is None:
        options = options._replace(root=found.root, image=found.image)
    with open(found.manifest, "rb") as file:
        return _with_files(encodings.read(file), options)


def _with_files(text: bytes, options: Options) -> _Subject:
    if options.root is not None:
        if not os.path.isdir(options.root):
            raise NorthstarError(f"{options.root} is no directory")
        return _Subject(text, files.of_directory(options.root), packed=False)
    if options.image is not None:
        return _Subject(text, files.of_image(options.image, options.unsquashfs), packed=True)
    return _Subject(text, None, packed=False)


def _package(fd: int, path: str, options: Options) -> _Subject:
    try:
        entries = archive.read(fd, os.fstat(fd).st_size).entries
        for name in (archive.MANIFEST, archive.IMAGE):
            if name not in entries:
                raise archive.ArchiveError(f"it has no entry {name}")
        text = archive.content(fd, entries[archive.MANIFEST])
    except archive.ArchiveError as error:
        raise PackageError(path, str(error)) from None
    found = files.of_image(path, options.unsquashfs, entries[archive.IMAGE].offset)
    return _Subject(text, found, packed=True)


def subjects(paths: list[str], options: Options) -> Iterator[tuple[str, Sorted]]:
    """Each path with what is to be said about it. Raises NorthstarError."""
    for path in paths:
        yield path, check(path, options)
