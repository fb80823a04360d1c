# SPDX-License-Identifier: Apache-2.0
"""From layers to one squashfs image, without root and without extracting a file.

The layers are read twice: once to learn what they make together, once to hand the content of the files that
are left to mksquashfs(1) as a tar stream. So it takes no disk space besides the image, and no memory for
content.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile

from northstar.manifest import extension, model
from northstar.namedtuple import NamedTuple
from northstar.npk import mountpoints, pseudo, squashfs
from northstar.oci import blob, tarreader, tarwriter
from northstar.oci.blob import Budget, ImageError, Stream
from northstar.oci.tree import Child, Node, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from northstar.manifest import Manifest
    from northstar.oci.image import Layer

ACCOUNT_FILES = ("etc/passwd", "etc/group")
MAX_ACCOUNTS = 1 << 20
"""Bytes of one of these files."""
_XATTRS = ("user.", "trusted.", "security.")
"""What squashfs stores."""
_CAPABILITIES = "security.capability"
_GZIP_LEVEL = "7"
"""Instead of 9: a Debian image of 140 MB took 5 s of processor time instead of 19, and 0.6 % more space."""
_MAX_TIME = (1 << 32) - 1


class Contents(NamedTuple):
    """What the layers make together, and the text of files with users and groups."""

    tree: Tree
    accounts: dict[int, bytes]
    """By identity of the node."""

    def text(self, path: str) -> str:
        """One of the files with users and groups; empty if there is none."""
        node = self.tree.lookup(path)
        return self.accounts.get(id(node), b"").decode("utf-8", "replace")


def read(layers: list[Layer], budget: Budget) -> Contents:
    """Apply the layers in memory; all digests are checked. Raises ImageError."""
    tree = Tree()
    accounts: dict[int, bytes] = {}
    for index, (stored, diff_id) in enumerate(layers):
        tree.begin(index)
        with contextlib.closing(blob.layer(stored, diff_id, budget)) as chunks:
            stream = Stream(chunks)
            for member in tarreader.members(stream, stored.name):
                if member.size > budget.left:
                    budget.take(member.size)  # says so before it is read
                node = tree.apply(member, stream.position)
                if node is not None and member.name.lstrip("./") in ACCOUNT_FILES:
                    accounts[id(node)] = stream.read(min(member.size, MAX_ACCOUNTS))
    return Contents(tree, accounts)


def add_mount_points(tree: Tree, manifest: Manifest, warn: Callable[[str], None] = lambda text: None) -> None:
    """Make what mounts of the manifest need and the image has not, as `sextant pack` does for directories.

    `warn` is told what depends on this machine.
    """
    words = extension.mounts(manifest)
    for target, mount in sorted(manifest.mounts.items()):
        exists = tree.lookup(target) is not None
        directory = tree.ensure(target)
        if not exists and mountpoints.is_file(mount, words.get(target, frozenset()), warn):
            directory.make_file(0o444)
        if isinstance(mount, model.Dev) and directory.children is not None:
            for name, node in _device_nodes(manifest):
                directory.children.setdefault(name, Child(node, 0))
    place = extension.notify_place(manifest)
    if place is not None and tree.lookup(place) is None:
        tree.ensure(place).make_file(0o444)


def _device_nodes(manifest: Manifest) -> Iterator[tuple[str, Node]]:
    for name, major, minor, _ in pseudo.DEVICES:
        node = Node(tarreader.CHARACTER, 0o666, manifest.uid, manifest.gid)
        node.device = (major, minor)
        yield name, node
    if isinstance(manifest.mounts.get("/proc"), model.Proc):
        for name, suffix in pseudo.LINKS:
            node = Node(tarreader.SYMLINK, 0o777, manifest.uid, manifest.gid)
            node.target = f"/proc/self/fd{suffix}"
            yield name, node


def about_attributes(tree: Tree) -> list[str]:
    """What is to be said about extended attributes."""
    capable = [path for path, node in tree.walk() if _CAPABILITIES in node.xattrs]
    others = {key for _, node in tree.walk() for key in node.xattrs if not key.startswith(_XATTRS)}
    said = []
    if capable:
        more = f" and {len(capable) - 3} more" if len(capable) > 3 else ""
        said.append(f"file capabilities have no effect in a container: /{', /'.join(capable[:3])}{more}")
    if others:
        said.append(
            f"extended attributes that squashfs has not are left out: {', '.join(sorted(others)[:5])}"
        )
    return said


def write(
    contents: Contents,
    layers: list[Layer],
    image: str,
    *,
    compression: str = "gzip",
    block_size: int | None = None,
    time: int | None = None,
    program: str = "mksquashfs",
) -> None:
    """Make the image, with owners, modes, times, links and extended attributes of the layers.

    `time`, in seconds since the epoch, replaces all time stamps. Raises NorthstarError.
    """
    squashfs.version(program)
    root = contents.tree.root
    command = [program, "-", image, "-tar", "-noappend", "-no-progress", "-quiet", "-exports"]
    command += ["-root-mode", f"{root.mode:o}"]
    command += ["-root-uid", str(root.uid), "-root-gid", str(root.gid), "-root-time", str(_time(root))]
    command += squashfs.options(compression, block_size, time)
    if compression == "gzip":
        command += ["-Xcompression-level", _GZIP_LEVEL]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=squashfs.environment(),
            )
        except OSError as error:
            raise squashfs.not_run(program, error) from None
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                _write_tar(contents.tree, layers, pipe.write)
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            output.seek(0)
            raise squashfs.failed(program, code, output.read().decode(errors="replace"))


def _write_tar(tree: Tree, layers: list[Layer], write: Callable[[bytes], object]) -> None:
    """Names without content first, then the files in the order in which the layers have them."""
    files: dict[int, tuple[str, Node]] = {}
    links: list[tuple[str, str, Node]] = []
    for path, node in tree.walk():
        if node.kind != tarreader.FILE:
            write(_header(path, node))
        elif id(node) in files:
            links.append((path, files[id(node)][0], node))
        else:
            files[id(node)] = (path, node)
            if node.source is None:
                write(_header(path, node))
    by_layer: list[list[tuple[int, str, Node]]] = [[] for _ in layers]
    for path, node in files.values():
        if node.source is not None:
            by_layer[node.source.layer].append((node.source.offset, path, node))
    for (stored, _), wanted in zip(layers, by_layer, strict=True):
        if wanted:
            wanted.sort(key=lambda entry: entry[0])
            # Digests were checked when the layers were read first.
            with contextlib.closing(blob.layer(stored._replace(digest=None), None, None)) as chunks:
                _copy_files(Stream(chunks), wanted, stored.name, write)
    for path, target, node in links:
        write(_header(path, node, link=target))
    write(tarwriter.END)


def _copy_files(
    stream: Stream, wanted: list[tuple[int, str, Node]], name: str, write: Callable[[bytes], object]
) -> None:
    for offset, path, node in wanted:
        there = stream.skip(offset - stream.position)
        write(_header(path, node))
        for piece in stream.pieces(node.size):
            write(piece)
        if not there or stream.position != offset + node.size:
            raise ImageError(f"{name} has changed while it was read")
        write(tarwriter.padding(node.size))


_KINDS = {
    tarreader.FILE: tarwriter.FILE,
    tarreader.SYMLINK: tarwriter.SYMLINK,
    tarreader.CHARACTER: tarwriter.CHARACTER,
    tarreader.DIRECTORY: tarwriter.DIRECTORY,
    tarreader.FIFO: tarwriter.FIFO,
}


def _header(path: str, node: Node, link: str | None = None) -> bytes:
    xattrs = {key: value for key, value in node.xattrs.items() if key.startswith(_XATTRS)}
    return tarwriter.header(
        path,
        _KINDS[node.kind] if link is None else tarwriter.HARD_LINK,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime=_time(node),
        size=node.size if link is None else 0,
        target=node.target if link is None else link,
        device=node.device,
        xattrs=xattrs if link is None else None,
    )


def _time(node: Node) -> int:
    return min(node.mtime, _MAX_TIME)
