# SPDX-License-Identifier: Apache-2.0
"""Engines in a place where they can harm nobody.

That is a user without rights, an empty root directory, namespaces of their own, limits, and a filter that
leaves the system calls that the engine needs and some that neither wait nor change anything.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from northstar.engine import binary
from northstar.engine import instructions as isa
from northstar.engine.assembler import Encoded, Program
from northstar.kernel import mount, namespaces
from northstar.runtime.spawning import channel, enginelink, reports

NOBODY = 65534
TOKEN = ord("T")
PROCESSES = 40
X86_64 = os.uname().machine == "x86_64"

OF_THE_ENGINE = {
    "clone3": (435, 435),
    "close": (3, 57),
    "exit_group": (231, 94),
    "fcntl": (72, 25),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "recvmsg": (47, 212),
    "wait4": (61, 260),
    "write": (1, 64),
}
HARMLESS = {
    "clock_gettime": (228, 113),
    "dup3": (292, 24),
    "fstat": (5, 80),
    "getgroups": (115, 158),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getresgid": (120, 150),
    "getresuid": (118, 148),
    "openat": (257, 56),
    "openat2": (437, 437),
    "rt_sigprocmask": (14, 135),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "socketpair": (53, 199),
    "umask": (95, 166),
    "uname": (63, 160),
}
EXECVEAT, SECCOMP = (322, 317) if X86_64 else (281, 277)
_MODE_FILTER, _NO_NEW_PRIVS, _AT_EMPTY_PATH = 1, 38, 0x1000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def numbers(calls: dict[str, tuple[int, int]]) -> list[int]:
    return [pair[0 if X86_64 else 1] for pair in calls.values()]


def _filter() -> bytes:
    allowed = [*numbers(OF_THE_ENGINE), *numbers(HARMLESS), EXECVEAT]
    program = [(_LOAD, 0, 0, 0)]
    program += [(_EQUALS, len(allowed) - index, 0, number) for index, number in enumerate(allowed)]
    program += [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


class Jailed:
    """An engine, seen by the process that has made the jail and is process 1 in it."""

    def __init__(self, image: int) -> None:
        self.socket, theirs = channel.pair()
        self._tokens = 0
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become_engine(image, theirs.fileno())
            finally:
                os._exit(99)
        theirs.close()
        self.socket.setblocking(False)

    def send(self, encoded: Encoded, descriptors: int = 0) -> list[reports.Report]:
        """Send a program; the reports that had to be read before there was room.

        Raises OSError if it is gone.
        """
        found = []
        while True:
            try:
                enginelink._send_program(self.socket, encoded, [0] * descriptors)
                return found
            except BlockingIOError:
                ready, _, _ = select.select([self.socket], [self.socket], [], 10)
                if not ready:
                    raise TimeoutError("the engine neither reads nor writes") from None
                found += self._waiting()

    def _waiting(self) -> list[reports.Report]:
        found = []
        while True:
            try:
                data = self.socket.recv(100)
            except BlockingIOError:
                return found
            if not data:
                raise ConnectionResetError
            if len(data) == reports.SIZE:
                found.append(reports.decode(data))

    def reports(self, patience: float) -> list[reports.Report]:
        """All that it says up to the answer to one more program.

        Raises ConnectionResetError if it has ended, TimeoutError if it hangs.
        """
        self._tokens += 1
        token = reports.Report(TOKEN, self._tokens, 0)
        p = Program()
        p.call("write", isa.CHANNEL, p.put(isa.REPORT.pack(*token)), isa.REPORT.size)
        found = self.send(p.encode())
        while token not in found:
            ready, _, _ = select.select([self.socket], [], [], patience)
            if not ready:
                raise TimeoutError("the engine hangs")
            found += self._waiting()
        return found[: found.index(token)]

    def descriptors(self) -> int:
        """How many it has, and the one that it tells of at present."""
        p = Program()
        kept = p.value("fcntl", isa.CHANNEL, 0, 0)
        address = p.put(isa.REPORT.pack(TOKEN, 0, 0))
        p.store(address + 4, kept)
        p.call("close", kept)
        p.call("write", isa.CHANNEL, address, isa.REPORT.size)
        self.send(p.encode())
        select.select([self.socket], [], [], 10)
        return self._waiting()[0].value

    def end(self) -> int:
        """Close the channel and end everything; the wait status of the engine, -1 if it had to be killed."""
        self.socket.close()
        status = -1
        self._wait_for_end()
        os.kill(-1, signal.SIGKILL)
        while True:
            try:
                pid, ended = os.wait()
            except ChildProcessError:
                return status
            if pid == self.pid and not (os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL):
                status = ended

    def _wait_for_end(self) -> None:
        """Not for long: it may wait for a clone."""
        pidfd = os.pidfd_open(self.pid)
        select.select([pidfd], [], [], 0.2)
        os.close(pidfd)


def _become_engine(image: int, theirs: int) -> None:
    os.dup2(theirs, isa.CHANNEL)
    os.set_inheritable(isa.CHANNEL, True)
    os.closerange(isa.CHANNEL + 1, image)
    bpf = _filter()
    text = ctypes.create_string_buffer(bpf)
    program = ctypes.create_string_buffer(struct.pack("<H6xQ", len(bpf) // 8, ctypes.addressof(text)))
    call = ctypes.CDLL(None).syscall
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    empty = (ctypes.c_char_p * 1)(None)
    if call(SECCOMP, _MODE_FILTER, 0, program) == 0:
        call(EXECVEAT, image, b"", empty, empty, _AT_EMPTY_PATH)


def run(action: Callable[[int], Any], directory: Path, patience: int) -> Any:
    """The result of `action`, called with a descriptor of the engine's program in a jail with this root.

    What is in the jail is ended after so many seconds. A failure fails the test.
    """
    directory.chmod(0o755)
    image = channel.sealed("engine", Path(binary.path()).read_bytes(), enginelink._MFD_EXEC)
    os.fchmod(image, 0o555)
    reader, writer = os.pipe()
    warden = os.fork()
    if warden == 0:
        try:
            namespaces.unshare(
                namespaces.CLONE_NEWNS
                | namespaces.CLONE_NEWPID
                | namespaces.CLONE_NEWIPC
                | namespaces.CLONE_NEWUTS
                | namespaces.CLONE_NEWNET
            )
            inside = os.fork()
            if inside == 0:
                _live(action, directory, image, writer, patience)
            os.waitpid(inside, 0)
        finally:
            os._exit(0)
    os.close(writer)
    os.close(image)
    with open(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(warden, 0)
    if not answer:
        pytest.fail(f"the jail did not end within {patience} s")
    outcome = json.loads(answer)
    if "failure" in outcome:
        pytest.fail(outcome["failure"], pytrace=False)
    return outcome["result"]


def _live(action: Callable[[int], Any], directory: Path, image: int, writer: int, patience: int) -> None:
    """Process 1 of the jail."""
    outcome: dict[str, Any] = {}
    try:
        signal.alarm(patience)
        signal.signal(signal.SIGALRM, _too_late)
        high = 200
        os.dup2(image, high)
        mount.mount(None, "/", None, mount.MS_PRIVATE | mount.MS_REC)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.chdir(directory)
        os.chroot(".")
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, PROCESSES),
            (resource.RLIMIT_AS, 1 << 29),
        ):
            resource.setrlimit(limit, (value, value))
        outcome["result"] = action(high)
    except BaseException:
        outcome = {"failure": traceback.format_exc()}
    finally:
        os.write(writer, json.dumps(outcome).encode())
        os._exit(0)


def _too_late(*_: object) -> None:
    raise TimeoutError("the jail has not ended in time")
