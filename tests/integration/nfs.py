# SPDX-License-Identifier: Apache-2.0
"""A directory of this machine seen through NFS 4.2: the kernel's server, told of its export without mountd.

Where userspace would answer questions of the server, its caches are filled beforehand (exports(5),
Documentation/filesystems/nfs/rpc-cache.rst of the kernel).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path("/proc/fs/nfsd")
CACHES = Path("/proc/net/rpc")
ADDRESS = "127.0.0.1"
MOUNT_OPTIONS = f"vers=4.2,addr={ADDRESS},clientaddr={ADDRESS},soft,timeo=10,retrans=1,acregmax=1,acdirmax=1"
"""Soft: a server that is silent gives errors after seconds, where it would be waited for otherwise."""

NOBODY = 65534
ROOT_IS_NOBODY = 0x4
_ANY_PORT, _WHOLE_TREE, _NUMBERED = 0x2, 0x400, 0x2000
_LIFETIME = 3600
_BY_NUMBER = 1


@contextmanager
def exported(directory: Path, clients: Path, flags: int = 0) -> Iterator[None]:
    """The kernel serves a directory as the root of NFS; the server's control files are mounted.

    It remembers clients in a directory. Without one all would wait for those of before a restart.
    """
    until = int(time.time()) + _LIFETIME
    _tell("auth.unix.ip", f"nfsd {ADDRESS} {until} here")
    flags |= _ANY_PORT | _WHOLE_TREE | _NUMBERED
    _tell("nfsd.export", f"here {directory} {until} {flags} {NOBODY} {NOBODY} 0")
    _tell("nfsd.fh", f"here {_BY_NUMBER} \\x00000000 {until} {directory}")
    _control("versions", "-2 -3 +4 +4.1 +4.2")
    _control("nfsv4recoverydir", str(clients))
    _control("portlist", "tcp 2049")
    _control("threads", "2")
    _control("v4_end_grace", "Y")
    try:
        yield
    finally:
        stop()
        for name in ("nfsd.fh", "nfsd.export", "auth.unix.ip"):
            (CACHES / name / "flush").write_text(str(until))


def stop() -> None:
    """The server does not answer any more."""
    _control("threads", "0")


def _control(name: str, text: str) -> None:
    (SERVER / name).write_text(f"{text}\n")


def _tell(cache: str, line: str) -> None:
    (CACHES / cache / "channel").write_text(f"{line}\n")
