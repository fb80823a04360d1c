# SPDX-License-Identifier: Apache-2.0
"""A runtime in a temporary directory, which ends and disappears with its context."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import northstar
from northstar.client import Client
from northstar.errors import NorthstarError
from northstar.runtime.monitoring.servicemanager import READY_FD
from northstar.trial.daemon import CONFIGURATION, RUN_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

REPOSITORY = "default"
MAX_SOCKET_PATH = 107
"""sockaddr_un.sun_path without the NUL at its end (unix(7))."""

_PACKAGES = "packages"
_END_TIMEOUT = 30.0
"""Seconds for an orderly shutdown; the daemon gives up on a process that cannot be killed after 10."""
_SWEEP_TIMEOUT, _SWEEP_PAUSE = 5.0, 0.02
"""Seconds: the processes of a daemon that was killed die after it, and are in their groups until then."""
_TAIL = 10
_MARK = " ⬤  "
_MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM")
"""What the service manager of the caller has told it, not us."""

_CONFIGURATION = """\
run_dir = "{directory}/{run_dir}"
data_dir = "{directory}/data"
socket_dir = "{directory}/sockets"
cgroup = "{name}"
[console.global]
bind = "unix://{directory}/console"
permissions = ["full", "exec"]
options = {{ max_requests_per_sec = 0, max_npk_install_size = "1TB" }}
[repositories.{repository}]
type = {{ fs = {{ dir = "{directory}/{packages}" }} }}
"""


class Trial:
    """The runtime: `url` of its console, `directory` for whatever has to be thrown away with it."""

    def __init__(self, directory: str, daemon: subprocess.Popen[bytes], log: IO[bytes] | None) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/console"
        self.daemon = daemon
        self._log = log
        self._told = 0

    def connect(self) -> Client:
        """A connection that gets notifications."""
        return Client.connect(self.url, notifications=True)

    def warnings(self) -> list[str]:
        """What the runtime has warned of since the last call."""
        found = []
        for line in self._lines(self._told):
            _, mark, message = line.partition(_MARK)
            level, _, text = message.partition(": ")
            if mark and level.strip() in ("WARN", "ERROR"):
                found.append(text)
        return found

    def last_words(self) -> str:
        """Why the runtime has ended: what is no record of its log, else the end of that."""
        lines = self._lines(0)
        return "\n".join([line for line in lines if _MARK not in line] or lines[-_TAIL:])

    def _lines(self, position: int) -> list[str]:
        """The complete lines of the log from a position on; notes where they end."""
        if self._log is None:
            return []
        size = os.fstat(self._log.fileno()).st_size
        data = os.pread(self._log.fileno(), size - position, position)
        complete = data[: data.rfind(b"\n") + 1]
        self._told = position + len(complete)
        return complete.decode("utf-8", "replace").splitlines()


@contextlib.contextmanager
def running(*, show_log: bool) -> Iterator[tuple[Trial, int]]:
    """A runtime that is about to start, and the descriptor that is readable when it is ready or has ended.

    Its log goes to our stderr if `show_log`. Raises NorthstarError.
    """
    directory = tempfile.mkdtemp(prefix="northstar-try-")
    try:
        with contextlib.ExitStack() as stack:
            log = None if show_log else stack.enter_context(tempfile.TemporaryFile())
            _prepare(directory)
            ready, theirs = os.pipe()
            stack.callback(os.close, ready)
            try:
                daemon = _spawn(directory, log, theirs)
            finally:
                os.close(theirs)
            stack.callback(_end, daemon, directory)
            yield Trial(directory, daemon, log), ready
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(directory: str) -> None:
    if len(f"{directory}/console".encode()) > MAX_SOCKET_PATH or '"' in directory or "\\" in directory:
        raise NorthstarError(f"{directory} is no place for a socket", "set TMPDIR to a directory as /tmp")
    os.mkdir(f"{directory}/{_PACKAGES}")
    text = _CONFIGURATION.format(
        directory=directory,
        run_dir=RUN_DIR,
        name=os.path.basename(directory),
        repository=REPOSITORY,
        packages=_PACKAGES,
    )
    with open(f"{directory}/{CONFIGURATION}", "w", encoding="utf-8") as file:
        file.write(text)


def _spawn(directory: str, log: IO[bytes] | None, ready: int) -> subprocess.Popen[bytes]:
    """A process group of its own: Ctrl-C is for us, who end it in order."""
    environment = {name: value for name, value in os.environ.items() if name not in _MANAGERS}
    environment[READY_FD] = str(ready)
    # The same code as ours, wherever it is, and nothing that happens to be in the current directory.
    code = os.path.dirname(os.path.dirname(os.path.abspath(northstar.__file__)))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    options = ["--config", f"{directory}/{CONFIGURATION}", str(os.getpid())]
    command = [sys.executable, "-P", "-m", "northstar.trial.daemon", *options]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(ready,),
        process_group=0,
    )


def _end(daemon: subprocess.Popen[bytes], directory: str) -> None:
    if daemon.poll() is None:
        daemon.terminate()
    try:
        daemon.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    # By SIGTERM it ends only as long as it has not begun with anything.
    if daemon.returncode < 0 and daemon.returncode != -signal.SIGTERM:
        _sweep(directory)


def _sweep(directory: str) -> None:
    """Remove what a daemon that was killed has left, as the next one would."""
    from northstar import config
    from northstar.runtime.controlgroups.detection import detect
    from northstar.runtime.storage import sweep

    loaded = config.load(f"{directory}/{CONFIGURATION}")
    groups = detect(loaded.cgroup, loaded.pids_max).paths()
    deadline = time.monotonic() + _SWEEP_TIMEOUT
    while True:
        sweep.sweep(
            run_dir=loaded.run_dir,
            socket_dir=loaded.socket_dir,
            repositories=[f"{directory}/{_PACKAGES}"],
            cgroups=groups,
            log=lambda level, message: None,
        )
        if time.monotonic() > deadline or not any(map(os.path.exists, groups)):
            return
        time.sleep(_SWEEP_PAUSE)
