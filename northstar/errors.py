# SPDX-License-Identifier: Apache-2.0
"""The exception tree.

System calls raise plain `OSError`. Everything above them raises one of the classes below.
`ApiError` and its subclasses are the error variants of the console protocol (docs/console.md):
what a request handler raises is what the client reads.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class NorthstarError(Exception):
    """Base class. `hint` tells the user what to do about it, where that is known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StorageError(NorthstarError):
    """Storage fails, not its configuration: what is not on it goes on."""


class ConfigError(NorthstarError):
    """The configuration file is unusable; `problems` lists every finding, one line each."""

    def __init__(self, path: str, problems: Sequence[str]) -> None:
        super().__init__(f"{path}: " + "; ".join(problems))
        self.path = path
        self.problems = tuple(problems)


class ManifestError(NorthstarError):
    """A manifest is malformed or breaks a validation rule; the message names field and value."""


class PackageError(NorthstarError):
    """A package file was refused: not a package, damaged, or not signed by the expected key."""

    def __init__(self, path: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class ProtocolError(NorthstarError):
    """Bytes on a console connection that are no valid message; the connection is closed."""


class ApiError(NorthstarError):
    """An error that a client receives as the `error` object of a response."""

    variant = "unexpected"

    def fields(self) -> dict[str, Any]:
        """The members of the error object."""
        return {"error": str(self)}

    def to_json(self) -> dict[str, Any]:
        """The error object: one key, the variant."""
        return {self.variant: self.fields()}


class Unexpected(ApiError):
    """Everything that has no variant of its own."""


class ContainerError(ApiError):
    """Base of the variants that carry just a container."""

    text = "{}"

    def __init__(self, container: object) -> None:
        super().__init__(self.text.format(container))
        self.container = container

    def fields(self) -> dict[str, Any]:
        return {"container": str(self.container)}


class InvalidContainer(ContainerError):
    """No such container; also: mount of a container that is mounted already."""

    variant = "invalid_container"
    text = "invalid container {}"


class UmountBusy(ContainerError):
    """The container is not mounted, is started, or is used by the container named."""

    variant = "umount_busy"
    text = "container {} cannot be unmounted: busy"


class StartContainerStarted(ContainerError):
    """This container, or another version of it, is running."""

    variant = "start_container_started"
    text = "container {} failed to start: already started"


class StartContainerResource(ContainerError):
    """The container has no init and the request names none."""

    variant = "start_container_resource"
    text = "container {} failed to start: it is a resource container"


class StopContainerNotStarted(ContainerError):
    """A signal was requested for a container that is not running."""

    variant = "stop_container_not_started"
    text = "container {} failed to stop"


class InstallDuplicate(ContainerError):
    """Another repository provides this container already."""

    variant = "install_duplicate"
    text = "failed to install {}: already installed"


class StartContainerMissingResource(ApiError):
    """No installed package satisfies a resource mount, or its directory is missing."""

    variant = "start_container_missing_resource"

    def __init__(self, container: object, resource: str, version: object) -> None:
        super().__init__(
            f"container {container} failed to start: resource {resource} version {version} is missing"
        )
        self.container = container
        self.resource = resource
        self.version = version

    def fields(self) -> dict[str, Any]:
        return {"container": str(self.container), "resource": self.resource, "version": str(self.version)}


class StartContainerFailed(ApiError):
    """A step between fork and execve failed; the text names step, object and errno."""

    variant = "start_container_failed"

    def __init__(self, container: object, error: str) -> None:
        super().__init__(f"container {container} failed to start: {error}")
        self.container = container
        self.error = error

    def fields(self) -> dict[str, Any]:
        return {"container": str(self.container), "error": self.error}


class InvalidRepository(ApiError):
    """No repository of that name."""

    variant = "invalid_repository"

    def __init__(self, repository: str) -> None:
        super().__init__(f"invalid repository {repository}")
        self.repository = repository

    def fields(self) -> dict[str, Any]:
        return {"repository": self.repository}


class InvalidArguments(ApiError):
    """Arguments or environment of a start request are not acceptable."""

    variant = "invalid_arguments"

    def __init__(self, cause: str) -> None:
        super().__init__(f"invalid arguments {cause}")
        self.cause = cause

    def fields(self) -> dict[str, Any]:
        return {"cause": self.cause}


class UpdateRejected(ApiError):
    """A version must not take the place of another one, or not now."""

    variant = "update_rejected"

    def __init__(self, container: object, reason: str, time: int | None = None) -> None:
        """`time`, in seconds since the epoch, is when the same package has failed before."""
        super().__init__(f"update to {container} rejected: {reason}")
        self.container = container
        self.reason = reason
        self.time = time

    def fields(self) -> dict[str, Any]:
        when = {} if self.time is None else {"time": self.time}
        return {"container": str(self.container), "reason": self.reason, **when}
