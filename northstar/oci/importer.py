# SPDX-License-Identifier: Apache-2.0
"""An image from where it is to what `sextant` makes of it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile

from northstar.namedtuple import NamedTuple
from northstar.oci import convert, image, squash, store, tarreader
from northstar.oci.blob import Budget, ImageError
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from northstar.manifest import Manifest
    from northstar.oci.convert import Choice, Draft
    from northstar.oci.image import Image, Platform
    from northstar.oci.squash import Contents

MAX_SIZE = 4 << 30
"""Default limit of the uncompressed bytes of an image. A package cannot hold more, compressed."""

_REMOTE = re.compile(r"(docker|docker-daemon|containers-storage|dir|ostree|sif):", re.ASCII)
_LOCAL = re.compile(r"(oci|oci-archive|docker-archive):", re.ASCII)


class Imported(NamedTuple):
    """An image whose layers have been read and checked."""

    image: Image
    contents: Contents
    draft: Draft

    def write(
        self,
        path: str,
        manifest: Manifest,
        warn: Callable[[str], None] = lambda text: None,
        **options: object,
    ) -> None:
        """Make the squashfs image, with the mount points of `manifest`; options as of `squash.write`."""
        squash.add_mount_points(self.contents.tree, manifest, warn)
        squash.write(self.contents, self.image.layers, path, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def opened(
    reference: str, *, ref: str | None, platform: Platform | None, max_size: int, choice: Choice
) -> Iterator[Imported]:
    """Read an image. What it was fetched to is there until the end of the context. Raises ImageError.

    `reference` is a directory or archive, or something of skopeo(1)'s such as docker://redis:7.
    """
    budget = Budget(max_size)
    with contextlib.ExitStack() as stack:
        if _REMOTE.match(reference):
            path = stack.enter_context(_fetched(reference, platform))
            name: str | None = reference.partition(":")[2].lstrip("/")
        else:
            path, name = _LOCAL.sub("", reference), None
            if path != reference and not os.path.exists(path):
                path, _, tag = path.rpartition(":")
                ref = ref or tag
        chosen = image.select(stack.enter_context(store.opened(path, budget)), path, ref, platform)
        if name is not None:
            chosen = chosen._replace(name=name)
        contents = squash.read(chosen.layers, budget)
        draft = convert.draft(chosen, contents, path, choice)
        devices = contents.tree.remove(tarreader.CHARACTER, tarreader.BLOCK_DEVICE)
        if devices:
            more = f" and {len(devices) - 3} more" if len(devices) > 3 else ""
            text = f"device nodes are left out, they would not work: {', '.join(devices[:3])}{more}"
            draft.notes.append(convert.Note("", escape(text)))
        draft.notes.extend(convert.Note("", escape(text)) for text in squash.about_attributes(contents.tree))
        yield Imported(chosen, contents, draft)


@contextlib.contextmanager
def _fetched(reference: str, platform: Platform | None) -> Iterator[str]:
    """A directory with an OCI layout of the image, copied by skopeo."""
    with tempfile.TemporaryDirectory(prefix="sextant-") as work:
        target = os.path.join(work, "image")
        command = ["skopeo", "copy", "--quiet"]
        if platform is not None:
            command += ["--override-os", platform.os, "--override-arch", platform.architecture]
            command += ["--override-variant", platform.variant] if platform.variant else []
        try:
            done = subprocess.run(
                [*command, "--", reference, f"oci:{target}:image"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise ImageError(
                f"skopeo could not be run to get {reference}: {error.strerror}",
                "install skopeo, or give a directory or archive",
            ) from None
        if done.returncode:
            lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ImageError(f"skopeo failed to get {reference}: {lines[-1]}")
        yield target
