# SPDX-License-Identifier: Apache-2.0
"""Command line of sextant."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from zlib import crc32

from northstar import API_VERSION, __version__, terminal
from northstar.encoding import require_utf8
from northstar.errors import NorthstarError, PackageError
from northstar.lint import filters
from northstar.npk import archive, keys, pack, package, signature, sources, squashfs, superblock
from northstar.sextant import arguments, explaining, importing, indexing, linting, resigning, skeleton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from northstar.manifest import Manifest

_COPY_CHUNK = 1 << 20


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(
        prog="sextant",
        description="Make, pack, sign, unpack and inspect Northstar packages (NPK).",
        epilog="With SOURCE_DATE_EPOCH set, packing equal input gives equal bytes.",
    )
    version = f"sextant {__version__} (package format {API_VERSION})"
    top.add_argument("-V", "--version", action="version", version=version)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _pack_options(commands.add_parser("pack", help="make a package", description=_pack.__doc__))
    _unpack_options(commands.add_parser("unpack", help="take a package apart", description=_unpack.__doc__))
    _inspect_options(commands.add_parser("inspect", help="show a package", description=_inspect.__doc__))
    resigning.options(
        commands.add_parser("sign", help="sign a packed package", description=resigning.run.__doc__)
    )
    _gen_key_options(commands.add_parser("gen-key", help="make a key pair", description=_gen_key.__doc__))
    importing.options(
        commands.add_parser(
            "import", help="make manifest and image of an OCI image", description=importing.run.__doc__
        )
    )
    skeleton.options(
        commands.add_parser("init", help="make a container to begin with", description=skeleton.run.__doc__)
    )
    explaining.options(
        commands.add_parser("explain", help="show what a start would do", description=explaining.run.__doc__)
    )
    linting.options(
        commands.add_parser(
            "lint", help="tell what is wrong with a container", description=linting.run.__doc__
        )
    )
    indexing.options(
        commands.add_parser(
            "index", help="make the index for delta downloads", description=indexing.run.__doc__
        )
    )
    commands.add_parser("schema", help="print the JSON schema of manifests").set_defaults(run=_schema)
    return top


def _pack_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_pack)
    options.add_argument(
        "-m", "--manifest-path", metavar="FILE", required=True, help="manifest in YAML, JSON or TOML"
    )
    source = options.add_mutually_exclusive_group()
    source.add_argument("-r", "--root", metavar="DIR", help="root of the container (default: an empty one)")
    source.add_argument(
        "-i",
        "--image",
        metavar="IMAGE",
        help="squashfs image to be used as it is, or an image of another tool as of `import`, over "
        "whose manifest FILE is merged",
    )
    arguments.signing_options(options)
    options.add_argument("-o", "--out", metavar="PATH", required=True, help="directory or file")
    arguments.squashfs_options(options)
    options.add_argument(
        "--clones",
        metavar="N",
        type=_count,
        help="make N packages <name>-<i> in the directory given with --out; not for resources",
    )
    importing.image_options(options)


def _unpack_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_unpack)
    options.add_argument("-n", "--npk", metavar="FILE", required=True, help="package")
    options.add_argument("-o", "--out", metavar="DIR", required=True, help="directory, made if missing")
    options.add_argument("--unsquashfs", metavar="PATH", default="unsquashfs", help="program (%(default)s)")


def _inspect_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_inspect)
    options.add_argument("-s", "--short", action="store_true", help="one line with identity and version")
    options.add_argument("-k", "--key", metavar="FILE", help="verify the package with this public key first")
    options.add_argument("--unsquashfs", metavar="PATH", default="unsquashfs", help="program (%(default)s)")
    options.add_argument("npk", metavar="NPK", help="package")


def _gen_key_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_gen_key)
    options.add_argument("-n", "--name", metavar="NAME", required=True, help="base name of the key files")
    options.add_argument("-o", "--out", metavar="DIR", required=True, help="existing directory")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


# --- pack


def _pack(options: argparse.Namespace) -> None:
    """Make a package of a manifest and a root directory or an image, signed if a key is given."""
    key = arguments.signing_key(options)
    if options.image is not None and importing.is_foreign(options.image):
        with importing.overlaid(options) as (description, image):
            for variant in _variants(description, options):
                pack.pack_image(variant, image, options.out, key=key)
        return
    description = sources.read_manifest(options.manifest_path)
    filters.check(description, options.manifest_path)
    if options.image is not None:
        _check_image(options.image)
    for variant in _variants(description, options):
        if options.image is not None:
            pack.pack_image(variant, options.image, options.out, key=key)
        else:
            pack.pack_root(
                variant,
                options.root,
                options.out,
                key=key,
                compression=options.compression,
                block_size=options.block_size,
                mksquashfs=options.mksquashfs,
                warn=_warn,
            )


def _check_image(path: str) -> None:
    """What the runtime would not mount is not packed."""
    pack.check_file(path)
    with open(path, "rb") as file:
        problem = superblock.problem(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    if problem is not None:
        raise NorthstarError(f"{path} is no squashfs image: {problem}")


def _variants(description: Manifest, options: argparse.Namespace) -> list[Manifest]:
    """The manifest itself, or its clones."""
    count = options.clones
    if count is None:
        return [description]
    if not os.path.isdir(options.out):
        raise NorthstarError(f"{options.out} is no directory", "--clones needs one")
    if description.init is None:
        return [description]
    width = len(str(count))
    return [description._replace(name=f"{description.name}-{i:0{width}}") for i in range(count)]


# --- unpack and inspect


class _Opened:
    """A package file with its table of contents."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, "rb")  # noqa: SIM115
            self.contents = archive.read(self._file.fileno(), os.fstat(self._file.fileno()).st_size)
        except OSError as error:
            raise NorthstarError(f"failed to read {path}: {error.strerror}") from None
        except archive.ArchiveError as error:
            raise PackageError(path, str(error)) from None

    def content(self, name: str) -> bytes | None:
        """Content of a small entry, None if there is none."""
        entry = self.contents.entries.get(name)
        if entry is None:
            return None
        try:
            return archive.content(self._file.fileno(), entry)
        except archive.ArchiveError as error:
            raise PackageError(self.path, str(error)) from None

    def text(self, name: str) -> str | None:
        """The same as text, to be shown."""
        content = self.content(name)
        return None if content is None else content.decode("utf-8", "replace")

    def copy_image(self, target: str) -> None:
        """Write fs.img to a file."""
        entry = self.contents.entries.get(archive.IMAGE)
        if entry is None:
            raise PackageError(self.path, f"it has no entry {archive.IMAGE}")
        self._file.seek(entry.offset)
        remaining, checksum = entry.size, 0
        with open(target, "wb") as file:
            while remaining:
                chunk = self._file.read(min(remaining, _COPY_CHUNK))
                if not chunk:
                    raise PackageError(self.path, "it has become shorter while it was read")
                remaining -= len(chunk)
                checksum = crc32(chunk, checksum)
                file.write(chunk)
        if checksum != entry.crc:
            raise PackageError(self.path, f"entry {archive.IMAGE} is damaged: CRC mismatch")


def _unpack(options: argparse.Namespace) -> None:
    """Write manifest and signature of a package, and its root directory, to a directory."""
    opened = _Opened(options.npk)
    root = os.path.join(options.out, "root")
    if os.path.lexists(root):
        raise NorthstarError(f"{root} already exists")
    with tempfile.TemporaryDirectory(prefix="sextant-") as work:
        image = os.path.join(work, archive.IMAGE)
        opened.copy_image(image)
        with _directory(options.out):
            squashfs.extract(image, root, options.unsquashfs, warn=_warn)
        for name in (archive.MANIFEST, archive.SIGNATURE):
            content = opened.content(name)
            if content is not None:
                with open(os.path.join(options.out, name), "wb") as file:
                    file.write(content)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[None]:
    """Is there; if it was not before, and what is done in it fails, it is not after."""
    made = not os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            os.rmdir(path)
        raise


def _inspect(options: argparse.Namespace) -> None:
    """Show what is in a package."""
    if options.short or options.key:
        key = keys.load_public(options.key) if options.key else None
        loaded = _load(options.npk, key)
        if options.short:
            resource = "no" if loaded.manifest.init else "yes"
            print(
                f"name: {loaded.manifest.name}, version: {loaded.manifest.version}, "
                f"NPK version: {loaded.format_version}, resource container: {resource}"
            )
            return
    opened = _Opened(options.npk)
    heading = _green if sys.stdout.isatty() and "NO_COLOR" not in os.environ else str
    print(heading(f"# inspection of '{options.npk}'"))
    print(heading("## NPK Content"), *opened.contents.entries, "", sep="\n")
    print(heading("## manifest.yaml"), opened.text(archive.MANIFEST) or "No manifest found", "", sep="\n")
    print(heading("## signature.yaml"), opened.text(archive.SIGNATURE) or "No signature found", "", sep="\n")
    print(heading("## package hash"), _digest(opened), "", sep="\n")
    with tempfile.TemporaryDirectory(prefix="sextant-") as work:
        image = os.path.join(work, archive.IMAGE)
        opened.copy_image(image)
        print(heading("## SquashFS listing"), squashfs.listing(image, options.unsquashfs), sep="\n", end="")


def _digest(opened: _Opened) -> str:
    """What a revocation list has of the package."""
    entry = opened.content(archive.SIGNATURE)
    if entry is None:
        return "None, as it is not signed"
    try:
        return signature.read(entry)[1]
    except signature.SignatureError as error:
        return f"None: {error}"


def _load(path: str, key: bytes | None) -> package.Package:
    try:
        with open(path, "rb") as file:
            return package.load(file.fileno(), key, path)
    except OSError as error:
        raise NorthstarError(f"failed to read {path}: {error.strerror}") from None


def _green(text: str) -> str:
    return f"\x1b[32m{text}\x1b[0m"


# --- gen-key


def _gen_key(options: argparse.Namespace) -> None:
    """Make an Ed25519 key pair: NAME.key to sign with, NAME.pub for the repositories of devices."""
    keys.generate(options.name, options.out)


def _schema(options: argparse.Namespace) -> None:
    import json

    from northstar.sextant import schema

    print(json.dumps(schema.schema(), indent=2))


def _warn(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads.

    `lint` has more.
    """
    if arguments is None:
        require_utf8()
    return terminal.run(lambda: _carry_out(parser().parse_args(arguments)))


def _carry_out(options: argparse.Namespace) -> int | None:
    run: Callable[[argparse.Namespace], int | None] = options.run
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
