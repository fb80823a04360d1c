# SPDX-License-Identifier: Apache-2.0
"""The command `import`, and what `pack` shares with it: images of other container tools."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile

from northstar.errors import ManifestError, NorthstarError
from northstar.lint import filters
from northstar.npk import archive, pack
from northstar.sextant import arguments
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from northstar.manifest import Manifest
    from northstar.oci.convert import Choice
    from northstar.oci.importer import Imported

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TRANSPORT = re.compile(r"[a-z-]+:", re.ASCII)
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.set_defaults(run=run)
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="directory, made if missing")
    image_options(parser)
    parser.add_argument("--name", metavar="NAME", help="name of the container (default: of the image)")
    parser.add_argument("--version", metavar="VERSION", help="version (default: label or tag of the image)")
    arguments.squashfs_options(parser)
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="OCI layout (directory or archive), archive of `docker save`, or docker://NAME by skopeo",
    )


def image_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose and limit an image, which `pack` has as well."""
    parser.add_argument("--ref", metavar="REF", help="name or tag of the image, if there are several")
    parser.add_argument(
        "--platform",
        metavar="PLATFORM",
        type=_platform,
        help="such as linux/arm64, if there are several (default: this machine's)",
    )
    parser.add_argument("--user", metavar="USER[:GROUP]", help="user instead of the one the image names")
    parser.add_argument(
        "--max-size",
        metavar="BYTES",
        type=_size,
        default=4 << 30,
        help="refuse images with more uncompressed bytes; K, M and G are understood (4G)",
    )


def run(options: argparse.Namespace) -> None:
    """Make manifest.yaml and fs.img, for `pack`, of an OCI or Docker image.

    Layers are applied with owners, modes, times, links and extended attributes, without root. What a manifest
    cannot express is told, one line each.
    """
    with _new_files(options.out) as work, _opened(options, _choice(options, {})) as imported:
        from northstar import manifest
        from northstar.oci import text

        source = _source(imported, options.image)
        data = imported.draft.manifest
        comments = _comments(imported, source)
        described = text.render(data, comments)
        try:
            description = manifest.parse(described.encode())
        except ManifestError as error:
            raise NorthstarError(f"{source}: {error}", error.hint) from None
        with open(os.path.join(work, archive.MANIFEST), "w", encoding="utf-8") as file:
            file.write(described)
        _write_image(imported, description, os.path.join(work, archive.IMAGE), options)
        _tell(imported)
    print(
        f"made {os.path.join(options.out, archive.MANIFEST)} and {os.path.join(options.out, archive.IMAGE)} "
        f"of {source} ({imported.image.platform})"
    )


@contextlib.contextmanager
def overlaid(options: argparse.Namespace) -> Iterator[tuple[Manifest, str]]:
    """For `pack`: the manifest of the options over the image's own, and a squashfs image of its layers."""
    from northstar.manifest.parse import from_tree
    from northstar.oci import overlay

    own = _own(options.manifest_path)
    with (
        tempfile.TemporaryDirectory(prefix="sextant-") as work,
        _opened(options, _choice(options, own)) as imported,
    ):
        try:
            description = from_tree(overlay.merge(imported.draft.manifest, own))
        except ManifestError as error:
            raise NorthstarError(f"{options.manifest_path}: {error}", error.hint) from None
        filters.check(description, options.manifest_path)
        path = os.path.join(work, archive.IMAGE)
        _write_image(imported, description, path, options)
        _tell(imported, own)
        yield description, path


def _own(path: str) -> dict[str, Any]:
    """The fields of a manifest, which need not be complete."""
    from northstar.manifest import encodings, tree

    try:
        with open(path, "rb") as file:
            return tree.mapping(encodings.parse(encodings.read(file)), "")
    except OSError as error:
        raise NorthstarError(f"failed to read {path}: {error.strerror}") from None
    except ManifestError as error:
        raise NorthstarError(f"{path}: {error}", error.hint) from None


def is_foreign(reference: str) -> bool:
    """Whether `pack` has to import an image: it is no file to be used as it is."""
    if os.path.isdir(reference) or (_TRANSPORT.match(reference) and not os.path.exists(reference)):
        return True
    if not os.path.isfile(reference):
        return False
    try:
        with open(reference, "rb") as file:
            head = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    except OSError:
        return False
    return head.startswith(_GZIP_MAGIC) or head[_TAR_MAGIC_AT:] == _TAR_MAGIC


@contextlib.contextmanager
def _opened(options: argparse.Namespace, choice: Choice) -> Iterator[Imported]:
    """The image that the options mean."""
    from northstar.oci import importer

    with importer.opened(
        options.image, ref=options.ref, platform=options.platform, max_size=options.max_size, choice=choice
    ) as imported:
        yield imported


def _choice(options: argparse.Namespace, own: dict[str, Any]) -> Choice:
    """What options and a manifest of one's own say about what would otherwise be taken from the image."""
    from northstar.manifest import tree
    from northstar.oci.convert import Choice

    def said(key: str) -> str | None:
        value = own.get(key, getattr(options, key, None))
        return None if tree.is_null(value) else str(getattr(value, "text", value))

    user = options.user
    if user is None and said("uid") is not None:
        user = ":".join(filter(None, (said("uid"), said("gid"))))
    return Choice(said("name"), said("version"), user)


def _write_image(imported: Imported, description: Manifest, path: str, options: argparse.Namespace) -> None:
    """Make the squashfs image."""
    imported.write(
        path,
        description,
        warn=lambda text: print(f"Warning: {text}", file=sys.stderr),
        compression=options.compression,
        block_size=options.block_size,
        time=pack.source_date_epoch(),
        program=options.mksquashfs,
    )


def _tell(imported: Imported, own: Collection[str] = ()) -> None:
    """Say what a manifest cannot express, if it is not in the fields of a manifest of one's own."""
    for note in imported.draft.notes:
        if not note.field or note.field not in own:
            print(f"Note: {note.text}", file=sys.stderr)


def _source(imported: Imported, reference: str) -> str:
    """What the image is called: its name, or the file's if it has but a tag."""
    name = imported.image.name
    whole = name is not None and set(name) & set("/:")
    return escape(str(name) if whole else os.path.basename(os.path.normpath(reference)))


def _comments(imported: Imported, source: str) -> list[str]:
    comments = [f"Made of {source} ({imported.image.platform}) by sextant import."]
    if imported.draft.ports:
        comments.append(f"Exposed ports: {escape(', '.join(imported.draft.ports))}")
    if imported.draft.notes:
        comments += ["", *(f"* {note.text}" for note in imported.draft.notes)]
    return comments


@contextlib.contextmanager
def _new_files(out: str) -> Iterator[str]:
    """A directory whose files appear in `out` when they are complete, or not at all."""
    names = (archive.MANIFEST, archive.IMAGE)
    for name in names:
        path = os.path.join(out, name)
        if os.path.lexists(path):
            raise NorthstarError(f"{path} already exists", "give another directory with --out")
    made = not os.path.lexists(out)
    try:
        os.makedirs(out, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sextant-", dir=out) as work:
            yield work
            for name in names:
                os.rename(os.path.join(work, name), os.path.join(out, name))
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(out)
        raise


def _platform(text: str) -> object:
    from northstar.oci.image import Platform

    try:
        return Platform.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isascii() or not digits.isdigit() or not int(digits):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500M")
    return int(digits) * unit
