# SPDX-License-Identifier: Apache-2.0
"""The daemon: command line, start-up in order, shutdown in order."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys

from northstar import API_VERSION, __version__, config
from northstar.config.apart import read_toml_apart
from northstar.errors import ConfigError, NorthstarError
from northstar.kernel import libc, mount, namespaces
from northstar.namedtuple import NamedTuple
from northstar.runtime import inheritance, log
from northstar.runtime.monitoring import servicemanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from northstar.config import Config

_log = log.Logger("northstar")

EXIT_FAILURE = 1
EXIT_USAGE = 2
LOG_GRACE = 0.5

_DISK_FAILS = (errno.EIO, errno.EROFS, errno.ENOSPC, errno.EUCLEAN, errno.ENXIO, errno.ESTALE)

USAGE = "usage: northstar [-h] [-c FILE] [-d] [--check] [-V]\n"
HELP = """
Northstar container runtime: mounts signed packages and runs them as
containers.

options:
  -h, --help            show this help message and exit
  -c FILE, --config FILE
                        configuration file (northstar.toml)
  -d, --disable-mount-namespace
                        stay in the mount namespace of the caller; mounts left
                        by a crash are swept at the next start
  --check               validate the configuration, print what is wrong, and
                        exit
  -V, --version         show program's version number and exit

SIGINT, SIGTERM and SIGHUP shut the runtime down in order.

northstar try [PACKAGE|DIRECTORY]... starts containers in a throw-away
runtime, without a configuration; see northstar try --help."""


_SHORT = {"c": "config", "d": "disable-mount-namespace", "h": "help", "V": "version"}
_OPTIONS = ("check", *_SHORT.values())


class Options(NamedTuple):
    """The command line."""

    config: str
    check: bool
    disable_mount_namespace: bool


def parse_arguments(arguments: Sequence[str]) -> Options:
    """The command line of the daemon; exits for --help, --version and usage errors.

    Read here, as argparse costs the daemon 2 MB of private memory, and getopt 0.3 MB for translations.
    """
    given = dict(_options(arguments))
    if "help" in given:
        print(USAGE + HELP)
        sys.exit(0)
    if "version" in given:
        print(f"northstar {__version__} (protocol and package format {API_VERSION})")
        sys.exit(0)
    return Options(
        config=given.get("config", "northstar.toml"),
        check="check" in given,
        disable_mount_namespace="disable-mount-namespace" in given,
    )


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of each option."""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, assigned, value = word[2:].partition("=")
        elif word.startswith("-") and len(word) > 1:
            name, value = _SHORT.get(word[1], word[1]), word[2:]
            assigned = value if name == "config" else ""
            if value and not assigned:
                rest.insert(0, f"-{value}")
        else:
            _refuse(f"unexpected argument {word}")
        if name not in _OPTIONS:
            _refuse(f"option {word} not recognized")
        if name == "config" and not assigned:
            if not rest:
                _refuse(f"option {word} requires argument")
            value = rest.pop(0)
        elif name != "config" and assigned:
            _refuse(f"option --{name} must not have an argument")
        yield name, value


def _refuse(reason: str) -> NoReturn:
    print(f"{USAGE}northstar: error: {reason}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def check(path: str) -> int:
    """Print the problems of a configuration; the exit code."""
    from northstar import terminal

    terminal.prepare_streams()
    problems = config.check(path)
    try:
        for problem in problems:
            print(f"{path}: {problem}")
        if not problems:
            print(f"{path}: ok")
        sys.stdout.flush()
    except OSError as error:
        return terminal.complain_of_system(error)
    return EXIT_FAILURE if problems else 0


def main() -> NoReturn:
    """Run the daemon with the arguments of the process."""
    options = parse_arguments(sys.argv[1:])
    sys.exit(check(options.config) if options.check else run(options))


def run(options: Options, *, system_log: bool = True) -> int:
    """Run the daemon; the exit code. Without `system_log` its log goes to stderr alone."""
    inheritance.let_go(servicemanager.ready_descriptor())
    libc.share_heap()
    # No number that a client may send is nearly as long, and reading long ones takes its time.
    sys.set_int_max_str_digits(sys.int_info.str_digits_check_threshold)
    log.setup() if system_log else log.setup("", "")
    _log.info(f"Northstar Runtime v{API_VERSION}")
    _log.debug(f"Running as user {os.environ.get('USER', 'unknown')} (uid: {os.getuid()})")
    try:
        configuration = config.load(options.config, read_toml_apart)
        degraded = _make_directories(configuration)
        private = not options.disable_mount_namespace
        # Through this descriptor the host's mounts stay in reach, also later ones that do not propagate.
        host_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if private:
            _enter_mount_namespace()
        else:
            _log.debug("Mount namespace is disabled")
        open_files = _raise_limit_of_open_files()
        # Imported only now: a mistake in the configuration is reported without waiting for it.
        from northstar.runtime.daemon import Daemon

        daemon = Daemon(configuration, host_root=host_root, open_files=open_files, private_mounts=private)
        for place, reason in degraded.items():
            daemon.degrade(place, reason)
        gc.enable()
        return daemon.run()
    except ConfigError as error:
        _tell(f"Error: failed to read configuration file {error.path}", *(f"  {p}" for p in error.problems))
    except NorthstarError as error:
        _tell(f"Error: {error}", *([f"Hint: {error.hint}"] if error.hint else []))
    return EXIT_FAILURE


def _tell(*lines: str) -> None:
    """Why there is no daemon: on stderr, and in the system's log, as an init script has no other place."""
    for line in lines:
        log.announce("error", _log.target, line)
    log.finish(LOG_GRACE)


def _make_directories(configuration: Config) -> dict[str, str]:
    """Directories that cannot be used although the daemon can go on without them, and why."""
    degraded: dict[str, str] = {}
    names: list[tuple[str, str | None]] = [
        ("data_dir", configuration.data_dir),
        ("run_dir", configuration.run_dir),
        ("socket_dir", configuration.socket_dir),
        ("log_dir", configuration.log_dir),
    ]
    for name, path in names:
        if path is None:
            continue
        problem, disk_fails = _problem_of(name, path)
        if problem is None:
            continue
        if name != "data_dir" or not disk_fails:
            raise NorthstarError(problem)
        # Containers without persistent data do not need it.
        degraded[name] = f"{problem}: containers with persistent data cannot be started"
    return degraded


def _problem_of(name: str, path: str) -> tuple[str | None, bool]:
    """What is wrong with a directory, which is made if it is missing, and whether its disk is to blame."""
    try:
        os.makedirs(path, exist_ok=True)
        if os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return None, False
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        return f"{name} {path} is not read and/or writeable", read_only
    except OSError as error:
        return f"failed to create {name} {path}: {error.strerror}", error.errno in _DISK_FAILS


def _raise_limit_of_open_files() -> tuple[int, int]:
    """A client is an open file, and the usual limit is 1024. The limits that were in force before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def _enter_mount_namespace() -> None:
    """A namespace of its own, which still sees what the host mounts later (hence slave, not private)."""
    _log.info("Entering mount namespace")
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
    except OSError as error:
        raise NorthstarError(
            f"failed to enter a mount namespace: {error.strerror}", "the runtime needs root or CAP_SYS_ADMIN"
        ) from None
