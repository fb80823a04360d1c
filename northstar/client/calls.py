# SPDX-License-Identifier: Apache-2.0
"""What a client can ask for: each request with the meaning of its response.

The faces of the client send `Call.request` and give the value of the response to `Call.decode`.
Functions raise ValueError for what the runtime would take for no message; `decode` raises PermissionDenied,
Refused, ClientError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from northstar.client.model import ContainerData, ExitStatus
from northstar.client.protocol import decoded, outcome, result
from northstar.names import Container, check_name
from northstar.protocol import base64text, decoding, fields, requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


class Call(NamedTuple, Generic[T]):
    """A request and how to read its response."""

    request: requests.Request
    read: Callable[[Any], T]

    def decode(self, response: Any) -> T:
        """What the response means."""
        return decoded(self.read, response)


def ident() -> Call[str]:
    """As whom the runtime knows us."""
    return Call(requests.Ident(), lambda response: str(result(response, "ident")))


def containers() -> Call[list[str]]:
    """All containers."""
    return Call(requests.List(), lambda response: list(result(response, "list")))


def repositories() -> Call[list[str]]:
    """Names of all repositories."""
    return Call(requests.Repositories(), lambda response: list(result(response, "repositories")))


def problems() -> Call[dict[str, str]]:
    """What is impaired, and why."""

    def decode(response: Any) -> dict[str, str]:
        return {str(place): str(reason) for place, reason in dict(result(response, "problems")).items()}

    return Call(requests.Problems(), decode)


def inspect(container: str) -> Call[ContainerData]:
    """Everything about a container."""

    def decode(response: Any) -> ContainerData:
        return ContainerData.from_wire(container, outcome(result(response, "inspect"))["data"])

    return Call(requests.Inspect(Container.parse(container)), decode)


def start(
    container: str, init: str | None, arguments: Sequence[str], environment: Mapping[str, str] | None
) -> Call[None]:
    """Start a container."""
    variables = dict(environment or {})
    check_texts(init or "", *arguments, *variables, *variables.values())
    request = requests.Start(Container.parse(container), init, tuple(arguments), variables)
    return Call(request, done("start"))


def explain(
    container: str, init: str | None, arguments: Sequence[str], environment: Mapping[str, str] | None
) -> Call[list[str]]:
    """What a start would do: lines of text, see `northstar.programs.explanation`."""
    variables = dict(environment or {})
    check_texts(init or "", *arguments, *variables, *variables.values())
    request = requests.Explain(Container.parse(container), init, tuple(arguments), variables)

    def decode(response: Any) -> list[str]:
        return [str(line) for line in outcome(result(response, "explain"))["data"]["lines"]]

    return Call(request, decode)


def kill(container: str, signal: int) -> Call[None]:
    """Send a signal to a container."""
    if not decoding.MIN_I32 <= signal <= decoding.MAX_I32:
        raise ValueError(f"invalid signal {signal}")
    return Call(requests.Kill(Container.parse(container), signal), done("kill"))


def execute(
    container: str, command: Sequence[str], environment: Mapping[str, str], terminal: bool
) -> Call[None]:
    """Run a command in a container; its descriptors 0, 1 and 2 travel with the request."""
    check_texts(*command, *environment, *environment.values())
    request = requests.Exec(Container.parse(container), tuple(command), dict(environment), terminal)
    return Call(request, done("exec"))


def exit_status(response: Any) -> ExitStatus:
    """How the command ended: what the second response of `execute` means."""
    return decoded(lambda value: ExitStatus.from_wire(result(value, "exec")["ended"]), response)


def mount(containers: Sequence[str]) -> Call[list[Any]]:
    """Mount containers; for each None or the error object."""
    return Call(requests.Mount(parsed(containers)), _errors("mount"))


def umount(containers: Sequence[str]) -> Call[list[Any]]:
    """Umount containers; for each None or the error object."""
    return Call(requests.Umount(parsed(containers)), _errors("umount"))


def install(repository: str, size: int) -> Call[str]:
    """Install a package of `size` bytes, which follow the request; the container."""

    def decode(response: Any) -> str:
        return str(outcome(result(response, "install"))["container"])

    return Call(requests.Install(repository, size), decode)


def uninstall(container: str, wipe: bool) -> Call[None]:
    """Remove a package, with the container's persistent data if `wipe`."""
    return Call(requests.Uninstall(Container.parse(container), wipe), done("uninstall"))


def create_token(target: str, shared: bytes) -> Call[bytes]:
    """A token by which `target` can verify who we are."""
    request = requests.TokenCreate(check_name(target), shared)
    return Call(request, lambda response: base64text.from_base64(result(response, "token")))


def verify_token(token: bytes, user: str, shared: bytes) -> Call[str]:
    """`Ok`, `Invalid`, `Expired` or `Future`."""
    request = requests.TokenVerify(token, check_name(user), shared)
    return Call(request, lambda response: str(result(response, "token_verification")))


def shutdown() -> Call[None]:
    """End the runtime."""

    def decode(response: Any) -> None:
        result(response, "shutdown")

    return Call(requests.Shutdown(), decode)


# --- responses


def done(kind: str) -> Callable[[Any], None]:
    """How to read a response that tells nothing but success."""

    def decode(response: Any) -> None:
        outcome(result(response, kind))

    return decode


def _errors(kind: str) -> Callable[[Any], list[Any]]:
    def decode(response: Any) -> list[Any]:
        return [item["error"]["error"] if "error" in item else None for item in result(response, kind)]

    return decode


def check_texts(*texts: str) -> None:
    """Raises ValueError for what is no text to the runtime."""
    for text in texts:
        if "\0" in text:
            raise ValueError(f"{text!r} contains a NUL")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{text!r} is not UTF-8") from None


def parsed(names: Sequence[str]) -> tuple[Container, ...]:
    """The containers of one request; raises ValueError."""
    if len(names) > fields.MAX_CONTAINERS:
        raise ValueError(f"more than {fields.MAX_CONTAINERS} containers in a request")
    return tuple(Container.parse(name) for name in names)
