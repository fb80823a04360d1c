# SPDX-License-Identifier: Apache-2.0
"""The file system that layers make one over the other, in memory: names and metadata, no content.

Paths are resolved as if the tree were the root of the machine: an absolute link, `..` or a link in place of a
parent directory leads nowhere else. (OCI Image Format Specification 1.1, layer.md)
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.oci.blob import ImageError
from northstar.oci.tarreader import DIRECTORY, FILE, HARD_LINK, SYMLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from northstar.oci.tarreader import Member

MAX_ENTRIES = 500_000
"""Of all layers together. The largest images that are in use have half as many."""
MAX_DEPTH = 256
MAX_NAME = 255
MAX_LINKS = 40
"""As the kernel, path_resolution(7)."""
MAX_STEPS = 20_000_000
"""Path components looked up for all entries: seconds."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_METADATA = ".wh..wh."
"""Of aufs; not part of the file system."""


class Source(NamedTuple):
    """Where the content of a file is: `offset` in the uncompressed layer."""

    layer: int
    offset: int


class Node:
    """A file, link, special file, or directory (`children` is set)."""

    __slots__ = (
        "children",
        "device",
        "gid",
        "kind",
        "mode",
        "mtime",
        "size",
        "source",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: str, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 0) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = 0
        self.source: Source | None = None
        self.target = ""
        self.device = (0, 0)
        self.xattrs: dict[str, bytes] = {}
        self.children: dict[str, Child] | None = {} if kind == DIRECTORY else None

    def make_file(self, mode: int) -> None:
        """Turn a new directory into an empty file."""
        self.kind, self.mode, self.children = FILE, mode, None


class Child(NamedTuple):
    """A name in a directory, and the layer that put it there."""

    node: Node
    layer: int


class Tree:
    """The layers that were applied so far."""

    def __init__(self) -> None:
        self.root = Node(DIRECTORY)
        self._entries = 0
        self._steps = 0
        self._layer = 0
        self._purged: set[int] = set()

    def begin(self, layer: int) -> None:
        """What is applied next belongs to this layer."""
        self._layer = layer
        self._purged.clear()

    def apply(self, member: Member, offset: int) -> Node | None:
        """Put an entry of a layer over the tree; the file it made, if it is one. Raises ImageError."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise ImageError(f"the layers have more than {MAX_ENTRIES} entries")
        parts = _parts(member.name)
        if not parts:
            if member.kind == DIRECTORY:
                _describe(self.root, member)
            return None
        name = parts.pop()
        if any(part.startswith(_METADATA) for part in parts):
            return None
        if name.startswith(_WHITEOUT):
            self._whiteout(parts, name, member)
            return None
        parent = self._parent(parts, member)
        if member.kind == HARD_LINK:
            node = self._linked(member)
        else:
            node = self._made(parent, name, member)
            if member.size:
                node.source = Source(self._layer, offset)
        assert parent.children is not None
        parent.children[name] = Child(node, self._layer)
        return node if member.kind == "file" else None

    # --- parts of apply

    def _parent(self, parts: list[str], member: Member) -> Node:
        parent = self._walk(parts, create=True, what=member.name)
        assert parent is not None
        if parent.children is None:
            _refuse(member, "its parent is no directory")
        return parent

    def _linked(self, member: Member) -> Node:
        parts = _parts(member.target)
        found = self._walk(parts[:-1], create=False, what=member.name) if parts else None
        child = found.children.get(parts[-1]) if found is not None and found.children is not None else None
        if child is None:
            _refuse(member, f"it is a hard link to {member.target[:200]!r}, which does not exist")
        if child.node.children is not None:
            _refuse(member, f"it is a hard link to {member.target[:200]!r}, which is a directory")
        return child.node

    def _made(self, parent: Node, name: str, member: Member) -> Node:
        assert parent.children is not None
        present = parent.children.get(name)
        if member.kind == DIRECTORY and present is not None and present.node.children is not None:
            _describe(present.node, member)
            return present.node
        node = Node(member.kind)
        _describe(node, member)
        return node

    def _whiteout(self, parts: list[str], name: str, member: Member) -> None:
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            _refuse(member, "it is a whiteout of no name")
        parent = self._walk(parts, create=False, what=member.name)
        if parent is None or parent.children is None:
            return
        if name == _OPAQUE:
            self._purge(parent)
        elif not name.startswith(_METADATA):
            self._remove_lower(parent.children, hidden)

    def _remove_lower(self, children: dict[str, Child], name: str) -> None:
        """Remove what lower layers put there; what is of this layer stays."""
        child = children.get(name)
        if child is None:
            return
        if child.node.children is not None:
            self._purge(child.node)
        if child.layer < self._layer and not child.node.children:
            del children[name]

    def _purge(self, directory: Node) -> None:
        """The same for everything in a directory; once per layer, as nothing of a lower layer comes back."""
        if id(directory) in self._purged or directory.children is None:
            return
        self._purged.add(id(directory))
        for name in list(directory.children):
            self._remove_lower(directory.children, name)

    # --- paths

    def lookup(self, path: str) -> Node | None:
        """What is at a path, links followed; None if nothing is. Raises ImageError."""
        return self._walk(_parts(path, climb=True), create=False, what=path)

    def ensure(self, path: str) -> Node:
        """What is at a path; missing directories are made. Raises ImageError."""
        found = self._walk(_parts(path, climb=True), create=True, what=path)
        assert found is not None
        return found

    def _walk(self, parts: list[str], *, create: bool, what: str) -> Node | None:
        """Resolve a path from the root; with `create` missing directories are made."""
        way = [self.root]
        pending = parts[::-1]
        links = 0
        while pending:
            self._step()
            name = pending.pop()
            if name == "..":
                if len(way) > 1:
                    way.pop()
                continue
            children = way[-1].children
            if children is None:
                if create:
                    raise ImageError(f"{what[:200]!r} cannot be made: a parent of it is no directory")
                return None
            child = children.get(name)
            if child is None:
                if not create:
                    return None
                child = children[name] = Child(Node(DIRECTORY), self._layer)
            node = child.node
            if node.kind == SYMLINK:
                links += 1
                if links > MAX_LINKS:
                    if create:
                        raise ImageError(f"{what[:200]!r} leads through more than {MAX_LINKS} links")
                    return None
                if node.target.startswith("/"):
                    del way[1:]
                pending += [part for part in node.target.split("/") if part not in ("", ".")][::-1]
                continue
            way.append(node)
            if len(way) > MAX_DEPTH:
                raise ImageError(f"{what[:200]!r} is deeper than {MAX_DEPTH} directories")
        return way[-1]

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ImageError("the paths of the layers take too long to be looked up")

    def remove(self, *kinds: str) -> list[str]:
        """Remove all nodes of some kinds; their paths, sorted."""
        removed = []
        for path, directory in [("", self.root), *self.walk()]:
            for name, child in list((directory.children or {}).items()):
                if child.node.kind in kinds and directory.children is not None:
                    removed.append(f"/{path}/{name}" if path else f"/{name}")
                    del directory.children[name]
        return sorted(removed)

    def walk(self) -> Iterator[tuple[str, Node]]:
        """All names below the root with their nodes, sorted, directories before what is in them."""
        return _walked("", self.root)


def _walked(path: str, directory: Node) -> Iterator[tuple[str, Node]]:
    stack = [(path, directory)]
    while stack:
        path, node = stack.pop()
        if path:
            yield path, node
        if node.children:
            prefix = f"{path}/" if path else ""
            for name in sorted(node.children, reverse=True):
                stack.append((f"{prefix}{name}", node.children[name].node))


def _parts(path: str, *, climb: bool = False) -> list[str]:
    """The components of a path; `..` only with `climb`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not climb and ".." in parts:
        raise ImageError(f"the path {path[:200]!r} of a layer contains '..'")
    for part in parts:
        if len(part) > MAX_NAME or len(part.encode("utf-8", "surrogateescape")) > MAX_NAME:
            raise ImageError(f"a name in the path {path[:200]!r} is longer than {MAX_NAME} bytes")
    return parts


def _describe(node: Node, member: Member) -> None:
    node.mode, node.uid, node.gid, node.mtime = member.mode, member.uid, member.gid, member.mtime
    node.size, node.target, node.device = member.size, member.target, member.device
    node.xattrs = member.xattrs


def _refuse(member: Member, reason: str) -> NoReturn:
    raise ImageError(f"the entry {member.name[:200]!r} of a layer cannot be applied: {reason}")
