# SPDX-License-Identifier: Apache-2.0
"""Where journals are kept: one file per container name in the directory `.state` of a repository.

A journal is replaced as a package is: a temporary file, synchronised, renamed, and the directory
synchronised. So after a power cut there is the old one or the new one. All functions block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from northstar.kernel.filesystem import sync_directory, write_all
from northstar.names import check_name
from northstar.runtime.storage.repository import JOURNALS
from northstar.updates import journal as journals
from northstar.updates import journaltext
from northstar.updates.journal import Journal, JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".json"
ASIDE = ".unreadable"
"""Behind the name of a file that is no journal, and in the way of one."""
_TEMPORARY = ".tmp"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def load(repository: str, warn: Callable[[str], None]) -> dict[str, Journal]:
    """All journals of a repository. What cannot be read is told to `warn`, and counts as not there."""
    found: dict[str, Journal] = {}
    try:
        top = os.open(os.path.join(repository, JOURNALS), _TOP)
    except FileNotFoundError:
        return found
    except OSError as error:
        warn(f"Journals in {repository}/{JOURNALS} cannot be read: {error.strerror}")
        return found
    try:
        for entry in sorted(os.listdir(top)):
            path = os.path.join(repository, JOURNALS, entry)
            if entry.startswith(".") and entry.endswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    os.unlink(entry, dir_fd=top)
            elif entry.endswith(SUFFIX):
                journal = _load(top, entry, path, warn)
                if journal is not None:
                    found[entry.removesuffix(SUFFIX)] = journal
    except OSError as error:
        warn(f"Journals in {repository}/{JOURNALS} cannot be read: {error.strerror}")
    finally:
        os.close(top)
    return found


def _load(top: int, entry: str, path: str, warn: Callable[[str], None]) -> Journal | None:
    try:
        name = check_name(entry.removesuffix(SUFFIX))
        journal, problems = journaltext.decode(name, _read(top, entry))
    except OSError as error:
        warn(f"Journal {path} counts as not there: {error.strerror}")
    except (JournalError, ValueError) as error:
        warn(f"Journal {path} counts as not there: {error}")
    else:
        for problem in problems:
            warn(f"Journal {path}: {problem}, it is left out")
        return journal
    return None


def _read(top: int, entry: str) -> bytes:
    fd = os.open(entry, _READ, dir_fd=top)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.read(fd, journals.MAX_SIZE + 1)
    finally:
        os.close(fd)


def write(repository: str, name: str, journal: Journal) -> None:
    """Replace a journal, durably; one that says nothing is removed. Raises OSError, JournalError.

    What is at its place and is no journal is put aside.
    """
    data = b"" if journal == Journal() else journaltext.encode(name, journal)
    top = _open_directory(repository)
    try:
        entry, temporary = f"{name}{SUFFIX}", f".{name}{_TEMPORARY}"
        _put_aside(top, entry, name)
        if not data:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry, dir_fd=top)
        else:
            _write(top, temporary, data)
            os.rename(temporary, entry, src_dir_fd=top, dst_dir_fd=top)
        sync_directory(top)
        if not data:
            # It goes with the last of them; what is left of it by a power cut does no harm.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(repository, JOURNALS))
    finally:
        os.close(top)


def _open_directory(repository: str) -> int:
    """It is made if it is missing, and that is durable, too."""
    parent = os.open(repository, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(JOURNALS, 0o700, dir_fd=parent)
            sync_directory(parent)
        return os.open(JOURNALS, _TOP, dir_fd=parent)
    finally:
        os.close(parent)


def _write(top: int, entry: str, data: bytes) -> None:
    fd = os.open(entry, _WRITE, 0o600, dir_fd=top)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_aside(top: int, entry: str, name: str) -> None:
    """A journal of a newer runtime, for instance, is not lost because an older one was started once."""
    try:
        journaltext.decode(name, _read(top, entry))
    except FileNotFoundError:
        return
    except (OSError, JournalError):
        aside = f"{entry}{ASIDE}"
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=top)
        with contextlib.suppress(OSError):
            os.rmdir(aside, dir_fd=top)
        os.rename(entry, aside, src_dir_fd=top, dst_dir_fd=top)
