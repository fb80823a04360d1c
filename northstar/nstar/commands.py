# SPDX-License-Identifier: Apache-2.0
"""The commands: one function each, which gets a session and the options."""

from __future__ import annotations

import itertools

from northstar.client import supervision
from northstar.client.errors import Refused, describe
from northstar.nstar import progress, table, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from northstar.nstar.context import Session


def repositories(session: Session, _: argparse.Namespace) -> None:
    """Show the names of all repositories."""
    names = sorted(session.client.repositories())
    session.say(table.render(("Name",), [(name,) for name in names], session.bold))


def mount(session: Session, options: argparse.Namespace) -> None:
    """Mount containers."""
    names = [session.container(name) for name in options.containers]
    _show_results(session, names, session.client.mount(names))


def umount(session: Session, options: argparse.Namespace) -> None:
    """Umount containers."""
    names = [session.container(name) for name in options.containers]
    _show_results(session, names, session.client.umount(names))


def _show_results(session: Session, names: Sequence[str], errors: Sequence[Any]) -> None:
    rows = [
        (name, "ok" if error is None else describe(error)) for name, error in zip(names, errors, strict=True)
    ]
    session.say(table.render(("Name", "Result"), rows, session.bold))
    for error in errors:
        if error is not None:
            raise Refused(error)


def start(session: Session, options: argparse.Namespace) -> None:
    """Start a container. COMMAND: [KEY=VALUE...] [INIT [ARGUMENT...]] replaces what the manifest says."""
    init, arguments, environment = _command(options.words)
    name = session.container(options.container)
    if options.with_dependencies:
        waiting.start_dependencies(session, name, options.limit)
    session.client.start(name, init, arguments, environment)
    pairs = " ".join(f"{key}={value}" for key, value in environment.items())
    session.say(f"started {name} {pairs} {init or ''} {' '.join(arguments)}".rstrip())
    if options.wait:
        waiting.wait_for(session, [name], supervision.READY, options.limit)


def explain(session: Session, options: argparse.Namespace) -> None:
    """Show the system calls that a start would make.

    Nothing is started. COMMAND is that of `start`. Headings tell what the calls below are for, and what an
    error would name.
    """
    init, arguments, environment = _command(options.words)
    name = session.container(options.container)
    session.say("\n".join(session.client.explain(name, init, arguments, environment)))


def _command(words: Sequence[str]) -> tuple[str | None, Sequence[str], dict[str, str]]:
    """[KEY=VALUE...] [INIT [ARGUMENT...]]"""
    variables = list(itertools.takewhile(lambda word: "=" in word, words))
    command = words[len(variables) :]
    environment = dict(word.split("=", 1) for word in variables)
    init, arguments = (command[0], command[1:]) if command else (None, [])
    return init, arguments, environment


def kill(session: Session, options: argparse.Namespace) -> None:
    """Send a signal to a container."""
    name = session.container(options.container)
    session.client.kill(name, options.signal)
    session.say(f"signalled {name} with signal {options.signal}")


def install(session: Session, options: argparse.Namespace) -> None:
    """Install a package into a repository."""
    with progress.Bar(options.npk) as bar:
        session.client.install(options.npk, options.repository, bar.update)
    session.say(f"installed {options.npk} into {options.repository}")


def uninstall(session: Session, options: argparse.Namespace) -> None:
    """Remove a package. The version may be left out only if there is no other one."""
    name = session.container(options.container, unique=True)
    session.client.uninstall(name, options.wipe)
    session.say(f"uninstalled {name}")


def shutdown(session: Session, _: argparse.Namespace) -> None:
    """Shut the runtime down. All containers are killed and umounted."""
    session.client.shutdown()
    if not session.json or b'"shutdown"' in session.last_response:
        session.say("shutdown")


def token(session: Session, options: argparse.Namespace) -> None:
    """Create a token that proves to TARGET who we are."""
    from northstar.protocol.base64text import to_base64

    created = session.client.create_token(options.target, options.shared.encode())
    session.say(f"created token {to_base64(created)}")


def verify_token(session: Session, options: argparse.Namespace) -> None:
    """Verify a token that USER created for us."""
    session.say(session.client.verify_token(options.token, options.user, options.shared.encode()))


def ident(session: Session, _: argparse.Namespace) -> None:
    """Show as whom the runtime knows us."""
    session.say(session.client.ident())
