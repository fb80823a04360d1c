# SPDX-License-Identifier: Apache-2.0
"""Results of long steps, kept outside the checkout by the hash of what they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qemu import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REPOSITORY = Path(__file__).resolve().parent.parent


def directory() -> Path:
    """Where everything is kept: $NORTHSTAR_CACHE, by default ~/.cache/northstar."""
    chosen = os.environ.get("NORTHSTAR_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(chosen) if chosen else Path(base) / "northstar"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(inputs: Iterable[Path | str]) -> str:
    """Hash of files, directories (their files' names, modes and contents) and strings."""
    state = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            state.update(b"text\0" + item.encode() + b"\0")
            continue
        for path in _files(item):
            name = path.relative_to(item.parent)
            mode = path.lstat().st_mode
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            state.update(f"{name}\0{mode:o}\0{len(content)}\0".encode() + content)
    return state.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (item for item in path.rglob("*") if item.is_symlink() or item.is_file())
    return sorted(item for item in found if "__pycache__" not in item.parts)


def made(name: str, inputs: Iterable[Path | str], make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills; it is only called if there is no result for these inputs yet."""
    result = directory() / f"{name}-{digest(inputs)}"
    if result.is_dir():
        os.utime(result)
        return result
    with locked(name):
        if not result.is_dir():
            work = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".tmp", dir=directory()))
            try:
                make(work)
                work.chmod(0o755)
                work.rename(result)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
            _forget_old(name)
    return result


@contextmanager
def locked(name: str) -> Iterator[None]:
    """No other process makes what is called `name`."""
    with (directory() / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(f"waiting for another process that makes {name}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_old(name: str, keep: int = 3) -> None:
    """Remove all but the results that were used last."""
    results = [path for path in directory().glob(f"{name}-????????????????") if path.is_dir()]
    for path in sorted(results, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
