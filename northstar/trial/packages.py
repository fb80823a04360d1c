# SPDX-License-Identifier: Apache-2.0
"""What is to be tried, as packages."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile

from northstar.errors import NorthstarError
from northstar.lint import filters
from northstar.npk import pack, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX = ".npk"
_PREPARE = "prepare"


def packages(path: str, out: str) -> Iterator[str]:
    """Package files of what a path names: a package, sources, or a directory of packages.

    Packages that are made are written to the directory `out`, unsigned. Raises NorthstarError.
    """
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise NorthstarError(f"{path} does not exist", "name packages, or directories with a manifest")
        yield path
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise NorthstarError(f"failed to read {path}: {error.strerror}") from None
    found = sources.directory(path)
    if found is not None:
        yield _packed(path, found, out)
        return
    ready = [os.path.join(path, name) for name in names if name.endswith(_SUFFIX)]
    if not ready:
        raise NorthstarError(
            f"{path}: there is neither a manifest nor a package",
            f"a directory has one of {', '.join(sources.MANIFESTS)} and the directory root beside it, "
            f"or files *{_SUFFIX}",
        )
    yield from ready


def _packed(path: str, found: sources.Directory, out: str) -> str:
    description = sources.read_manifest(found.manifest)
    filters.check(description, found.manifest)
    if found.image is not None:
        return pack.pack_image(description, found.image, out)
    with _prepared(path, found.root) as root:
        return pack.pack_root(description, root, out, compression="none")


@contextlib.contextmanager
def _prepared(path: str, root: str | None) -> Iterator[str | None]:
    """The root directory; a copy that `prepare` has completed where there is such a program.

    This is what examples/build.sh does.
    """
    program = os.path.join(path, _PREPARE)
    if not os.access(program, os.X_OK):
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="northstar-try-") as work:
        copy = os.path.join(work, "root")
        if root is None:
            os.mkdir(copy)
        else:
            shutil.copytree(root, copy, symlinks=True)
        done = subprocess.run([os.path.abspath(program), copy], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise NorthstarError(f"{program} failed: exit code {done.returncode}")
        yield copy
