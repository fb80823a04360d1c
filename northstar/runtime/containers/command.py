# SPDX-License-Identifier: Apache-2.0
"""What is to be executed: the command of a start or of a session, with its arguments and environment."""

from __future__ import annotations

from northstar.errors import InvalidArguments, StartContainerResource
from northstar.manifest.validate import RESERVED_ENV, RESERVED_PREFIX
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from northstar.manifest.model import Manifest
    from northstar.names import Container

FIRST_DESCRIPTOR = 3
"""Of those that an application gets besides its standard streams."""
MAX_ARGUMENTS = 128
"""Arguments and environment variables of a start request, together."""
MAX_ARGUMENT_LENGTH = 1024


class Command(NamedTuple):
    """What to execute: `env` are NAME=value strings."""

    argv: list[str]
    env: list[str]


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse reserved and malformed variables of a start request; raises InvalidArguments."""
    if any(name in environment for name in RESERVED_ENV):
        raise InvalidArguments(f"env contains reserved key {' or '.join(RESERVED_ENV)}")
    for name in environment:
        if not name or "=" in name:
            raise InvalidArguments(f"env contains the malformed name {name!r}")
        if name.startswith(RESERVED_PREFIX):
            raise InvalidArguments(f"env contains the reserved key {name}")


def check_arguments(init: str | None, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
    """Limit count and size of what a start request brings; raises InvalidArguments."""
    texts = [init or "", *arguments]
    texts += [f"{name}={value}" for name, value in environment.items()]
    if len(texts) - 1 > MAX_ARGUMENTS:
        raise InvalidArguments(
            f"{len(texts) - 1} arguments and variables together, at most {MAX_ARGUMENTS} are allowed"
        )
    for text in texts:
        size = len(text.encode())
        if "\0" in text:
            raise InvalidArguments(f"{text!r} contains a NUL")
        if size > MAX_ARGUMENT_LENGTH:
            raise InvalidArguments(f"{text[:40]!r}... has {size} bytes, the limit is {MAX_ARGUMENT_LENGTH}")


def command(
    manifest: Manifest,
    init: str | None,
    arguments: Iterable[str],
    environment: Mapping[str, str],
    stored: int = 0,
) -> Command:
    """The command of a start request, completed from the manifest.

    `stored` is the number of the descriptors that come before those of the manifest.
    Raises StartContainerResource if there is no init at all.
    """
    container = manifest.container
    if init is None:
        program = manifest.init
    else:
        program = init.replace("<INIT>", manifest.init) if manifest.init is not None else init
    if program is None:
        raise StartContainerResource(container)
    argv = [program, *(tuple(arguments) or manifest.args)]
    variables = dict(environment or manifest.env)
    env = _environment(container, variables)
    number = FIRST_DESCRIPTOR + stored
    if manifest.console is not None:
        env.append(f"NORTHSTAR_CONSOLE={number}")
        number += 1
    env += [f"NORTHSTAR_SOCKET_{name}={number + i}" for i, name in enumerate(sorted(manifest.sockets))]
    return Command(argv, env)


def session(manifest: Manifest, argv: Iterable[str], environment: Mapping[str, str]) -> Command:
    """A command for a running container: `environment` is added to that of the manifest."""
    return Command(list(argv), _environment(manifest.container, {**manifest.env, **environment}))


def _environment(container: Container, variables: Mapping[str, str]) -> list[str]:
    env = [f"{name}={value}" for name, value in variables.items()]
    env += [
        f"NORTHSTAR_CONTAINER={container}",
        f"NORTHSTAR_NAME={container.name}",
        f"NORTHSTAR_VERSION={container.version}",
    ]
    return env
