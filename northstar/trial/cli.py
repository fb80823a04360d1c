# SPDX-License-Identifier: Apache-2.0
"""Command line of `northstar try`."""

from __future__ import annotations

import argparse
import os

from northstar import terminal
from northstar.client.errors import ConnectionClosed, Refused
from northstar.errors import NorthstarError
from northstar.manifest import extension
from northstar.npk import package
from northstar.supervision.model import NEVER
from northstar.trial import packages, runtime
from northstar.trial.follow import Follower, note
from northstar.trial.signals import Interrupted, Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from northstar.client import Client
    from northstar.manifest import Manifest

_DESCRIPTION = """\
Start containers in a throw-away runtime.

The runtime has a temporary directory, a console and a control group of its own, so that it disturbs no other
one, and verifies no signature, so that it needs no device mapper. When everything is installed, what is no
resource is started, in the order given, and what it writes is passed on: stdout to stdout, stderr to stderr.
When all have ended, unless one has a restart policy, or at Ctrl-C, everything is removed, persistent data as
well. Ctrl-C sends SIGTERM and waits for up to 3 s, a second one does not wait.

Without an argument the runtime is empty and stays; nstar installs and starts what you like, by the URL that
is shown. Needs root.
"""
_EPILOG = """\
Exit codes: 0 all containers have ended well, 1 one has not, or could not be started, 2 wrong usage,
130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="northstar try",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "-k",
        "--keep",
        action="store_true",
        help="stay when all containers have ended, until Ctrl-C; for updates and restarts",
    )
    found.add_argument("-v", "--verbose", action="store_true", help="show the log of the runtime")
    found.add_argument(
        "paths",
        metavar="PACKAGE|DIRECTORY",
        nargs="*",
        help="package, directory with a manifest and `root` or fs.img, or directory of packages",
    )
    return found


def main(arguments: Sequence[str]) -> int:
    """Try containers; the exit code."""
    terminal.prepare_streams()
    options = parser().parse_args(arguments)
    wish = Wish()
    try:
        with wish.heard() as wake:
            return _try(options, wish, wake)
    except Interrupted as interrupted:
        return terminal.SIGNALLED + interrupted.number
    except NorthstarError as error:
        if wish.times:  # a program that we have called got the signal as well
            return terminal.SIGNALLED + wish.number
        terminal.complain(error)
        return terminal.EXIT_FAILURE
    except OSError as error:
        return terminal.complain_of_system(error)


def _try(options: argparse.Namespace, wish: Wish, wake: int) -> int:
    if os.geteuid() != 0:
        raise NorthstarError("only root can try containers", "sudo northstar try ...")
    with runtime.running(show_log=options.verbose) as (trial, ready):
        files = [file for path in options.paths for file in packages.packages(path, trial.directory)]
        if not os.read(ready, 1):
            trial.daemon.wait()
            raise NorthstarError(f"the runtime could not be started:\n{trial.last_words()}")
        with trial.connect() as client:
            manifests = _install(client, files)
            apps = [str(found.container) for found in manifests if found.init is not None]
            keep = options.keep or not apps or any(map(_restarts, manifests))
            note(f"the console is {trial.url}, for nstar --url")
            follower = Follower(trial, client, apps, keep=keep)
            wish.counted()
            try:
                follower.start()
                follower.follow(wish, wake)
            except ConnectionClosed:
                note("the runtime has ended\n" + trial.last_words())
                return terminal.EXIT_FAILURE
    if wish.times:
        return terminal.SIGNALLED + wish.number
    return terminal.EXIT_FAILURE if follower.failed or trial.daemon.returncode else 0


def _install(client: Client, files: Sequence[str]) -> list[Manifest]:
    """Install packages; their manifests."""
    manifests = []
    for path in files:
        with open(path, "rb") as file:
            manifest = package.load(file.fileno(), None, path).manifest
            file.seek(0)
            try:
                client.install(file, runtime.REPOSITORY)
            except Refused as error:
                raise NorthstarError(f"{path}: {error}") from None
        manifests.append(manifest)
    return manifests


def _restarts(manifest: Manifest) -> bool:
    """Whether it comes back when it has ended."""
    return extension.supervision(manifest).restart.policy != NEVER
