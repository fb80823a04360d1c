# SPDX-License-Identifier: Apache-2.0
"""What packages are made of: a manifest, and beside it the root directory or the image."""

from __future__ import annotations

import os

from northstar import manifest
from northstar.errors import ManifestError, NorthstarError
from northstar.namedtuple import NamedTuple
from northstar.npk import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest import Manifest

MANIFESTS = ("manifest.yaml", "manifest.yml", "manifest.json", "manifest.toml")


class Directory(NamedTuple):
    """Paths of a container's sources; `root` and `image` are None where there is none."""

    manifest: str
    root: str | None
    image: str | None


def directory(path: str) -> Directory | None:
    """The sources in a directory, None if it has no manifest: `root`, or else fs.img."""
    found = [name for name in MANIFESTS if os.path.exists(os.path.join(path, name))]
    if not found:
        return None
    root, image = os.path.join(path, "root"), os.path.join(path, archive.IMAGE)
    has_root = os.path.isdir(root)
    return Directory(
        os.path.join(path, found[0]),
        root if has_root else None,
        image if not has_root and os.path.exists(image) else None,
    )


def read_manifest(path: str) -> Manifest:
    """A manifest in a file. Raises NorthstarError."""
    try:
        with open(path, "rb") as file:
            return manifest.parse(manifest.read(file))
    except OSError as error:
        raise NorthstarError(f"failed to read {path}: {error.strerror}") from None
    except ManifestError as error:
        raise NorthstarError(f"{path}: {error}", error.hint) from None
