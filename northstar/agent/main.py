# SPDX-License-Identifier: Apache-2.0
"""The command `northstar-agent`: waits between polls, and lets a process of its own do each of them.

That process needs HTTP and TLS, which are 9 MB of memory; here is only what waits. And whatever happens to
it, the next one goes on.
"""

from __future__ import annotations

import os
import signal
import sys

from northstar.encoding import require_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from northstar.agent.config import Config

CONFIG = "/etc/northstar/agent.toml"
EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG = 1, 2, 78
RETRY, MAX_WAIT = 60.0, 2 * 86400.0
USAGE = "usage: northstar-agent [-h] [-c FILE] [--once] [--now] [--check] [--confirm ID] [--deny ID] [-V]\n"
HELP = """
Update agent of the Northstar runtime: takes packages from a fleet server
that speaks hawkBit's Direct Device Integration API.

options:
  -h, --help            show this help message and exit
  -c FILE, --config FILE
                        configuration file (/etc/northstar/agent.toml)
  --once                poll once if it is time, do what is to be done, and
                        exit: for timers
  --now                 poll now, even if it is not time yet
  --check               validate the configuration, print what is wrong, and
                        exit
  --confirm ID          confirm an action that waits for it, and exit
  --deny ID             deny an action that waits for a confirmation, and exit
  -V, --version         show program's version number and exit

SIGTERM and SIGINT end the agent, SIGHUP makes it poll now."""

_SHORT = {"c": "config", "h": "help", "V": "version"}
_WITH_VALUE = ("config", "confirm", "deny", "result-fd")
_KNOWN = ("once", "now", "check", *_SHORT.values(), *_WITH_VALUE)


def parse_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Options by name; exits for usage errors."""
    given = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, assigned, value = word[2:].partition("=")
        if not word.startswith("--"):
            name, assigned, value = _SHORT.get(word[1:2], ""), "", ""
            if not word.startswith("-") or len(word) != 2:
                name = ""
        if name not in _KNOWN or (assigned and name not in _WITH_VALUE):
            _refuse(f"option {word} not recognized")
        if name in _WITH_VALUE and not assigned:
            if not rest:
                _refuse(f"option {word} requires argument")
            value = rest.pop(0)
        given[name] = value
    return given


def _refuse(reason: str) -> NoReturn:
    print(f"{USAGE}northstar-agent: error: {reason}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


class _Waiting:
    """The process that waits. Its signals are taken where it waits for something, and nowhere else."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, path: str) -> None:
        self._path = path
        self._now = False

    def run(self, now: bool) -> int:
        """Poll until a signal ends it; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (*self._SIGNALS, signal.SIGCHLD))
        self._now = now
        while True:
            child, reading = self._spawned()
            if not self._ended(child):
                return 0
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            with open(reading, "rb") as file:
                wait = _seconds(file.read(64))
            if code in (EXIT_USAGE, EXIT_CONFIG):
                return code
            caught = None if self._now else signal.sigtimedwait(self._SIGNALS, wait)
            if caught is not None and caught.si_signo != signal.SIGHUP:
                return 0
            self._now = self._now or caught is not None

    def _spawned(self) -> tuple[int, int]:
        """A process for one poll, and where its result can be read."""
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        command = [sys.executable, "-m", "northstar.agent", "--config", self._path, "--once"]
        command += [f"--result-fd={writing}", *(["--now"] if self._now else [])]
        self._now = False
        child = os.posix_spawn(sys.executable, command, os.environ, setsigmask=())
        os.close(writing)
        return child, reading

    def _ended(self, child: int) -> bool:
        """Wait for the process; whether we are to go on."""
        while True:
            number = signal.sigwait((*self._SIGNALS, signal.SIGCHLD))
            if number == signal.SIGHUP:
                self._now = True
            elif number != signal.SIGCHLD:
                os.kill(child, signal.SIGTERM)
                os.waitpid(child, 0)
                return False
            elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True


def _seconds(text: bytes) -> float:
    try:
        return min(max(float(text), 1.0), MAX_WAIT)
    except ValueError:
        return RETRY


def _answer(config: Config, action: str, answer: str) -> int:
    from northstar.agent.store import Store

    try:
        Store(config.state_dir, config.run_dir).answer(action, answer)
    except (OSError, ValueError) as error:
        print(f"northstar-agent: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


def _once(path: str, given: dict[str, str]) -> int:
    """What needs the configuration; the exit code."""
    from northstar.agent import config
    from northstar.errors import ConfigError

    try:
        loaded = config.load(path)
    except ConfigError as error:
        for problem in error.problems:
            print(f"{path}: {problem}", file=sys.stdout if "check" in given else sys.stderr)
        return EXIT_FAILURE if "check" in given else EXIT_CONFIG
    if "check" in given:
        print(f"{path}: ok")
        return 0
    for name, answer in (("confirm", "confirmed"), ("deny", "denied")):
        if name in given:
            return _answer(loaded, given[name], answer)
    from northstar.agent import worker

    wait = worker.run(loaded, "now" in given)
    if "result-fd" in given:
        os.write(int(given["result-fd"]), str(wait).encode())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; the exit code. 78 (EX_CONFIG) says that the configuration has mistakes."""
    if arguments is None:
        require_utf8()
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    if "help" in given:
        print(USAGE + HELP)
        return 0
    if "version" in given:
        from northstar import API_VERSION, __version__

        print(f"northstar-agent {__version__} (protocol and package format {API_VERSION})")
        return 0
    path = given.get("config", CONFIG)
    if any(name in given for name in ("once", "check", "confirm", "deny")):
        return _once(path, given)
    return _Waiting(path).run("now" in given)


if __name__ == "__main__":
    sys.exit(main())
