# SPDX-License-Identifier: Apache-2.0
"""What a client's request can end in besides its result."""

from __future__ import annotations

from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ClientError(NorthstarError):
    """Base class."""


class ConnectionClosed(ClientError):
    """The runtime closed the connection."""

    def __init__(self) -> None:
        super().__init__("connection closed by the runtime")


class PermissionDenied(ClientError):
    """The connection does not have the permission for this request."""

    def __init__(self, what: str) -> None:
        super().__init__(f"permission denied: {what}")


class ProtocolVersion(ClientError):
    """The runtime does not support our version of the protocol."""

    def __init__(self, version: str) -> None:
        super().__init__(f"invalid protocol version: the runtime speaks {version}")


class LaggedNotifications(ClientError):
    """More notifications have come than were taken; the connection is of no use any more."""

    def __init__(self, backlog: int) -> None:
        super().__init__(f"notification consumer lagged: more than {backlog} notifications wait")


class Refused(ClientError):
    """The runtime refused a request. `variant` is the kind of error, `fields` its details."""

    def __init__(self, error: Any) -> None:
        self.variant, self.fields = _parts(error)
        super().__init__(describe(error))


def _parts(error: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(error, dict) and len(error) == 1:
        ((variant, fields),) = error.items()
        if isinstance(fields, dict):
            return variant, fields
    return "unexpected", {"error": str(error)}


_TEXTS = {
    "configuration": "invalid configuration: {context}",
    "duplicate_container": "duplicate container name and version {container}",
    "invalid_container": "invalid container {container}",
    "invalid_arguments": "invalid arguments {cause}",
    "mount_busy": "container busy: {container}",
    "umount_busy": "container busy: {container}",
    "start_container_started": "failed to start container {container}: already started",
    "start_container_resource": "failed to start container {container}: resource",
    "start_container_missing_resource": (
        "failed to start container {container}: missing resource {resource} version {version}"
    ),
    "start_container_failed": "failed to start container {container}: {error}",
    "stop_container_not_started": "failed to stop container {container}: not started",
    "invalid_repository": "invalid repository {repository}",
    "install_duplicate": "failed to install {container}: installed",
    "update_rejected": "update to {container} rejected: {reason}",
    "unexpected": "{error}",
}


def describe(error: Any) -> str:
    """One line about an error object of the protocol."""
    variant, fields = _parts(error)
    if variant == "critical_container":
        return f"critical container {fields.get('container')} exited with: {fields.get('status')}"
    try:
        return _TEXTS[variant].format(**fields)
    except (KeyError, IndexError):
        return f"{variant}: {fields}"
