# SPDX-License-Identifier: Apache-2.0
"""Which permission a request needs."""

from __future__ import annotations

from northstar.manifest.model import PERMISSIONS
from northstar.protocol import requests

__all__ = ["ADDITIONAL", "FULL", "PERMISSIONS", "UPDATE", "allowed", "required"]

FULL = frozenset(PERMISSIONS)
ADDITIONAL = ("exec",)
"""Of ours, and not part of `full`."""

UPDATE = frozenset(("start", "kill", "uninstall"))
"""What an update needs: it starts and ends containers and removes packages, and does nothing else."""

_REQUIRED: dict[type, str] = {
    # Of the same kind as what inspect tells.
    requests.Boot: "inspect",
    requests.Exec: "exec",
    # Tells no more than inspect does, as it says nothing of the container's processes.
    requests.Explain: "inspect",
    requests.Ident: "ident",
    requests.Inspect: "inspect",
    requests.Install: "install",
    requests.Kill: "kill",
    requests.List: "list",
    # Of the same kind as what inspect tells, the command line and the environment; and with a permission of
    # its own there would be manifests and configurations that upstream refuses.
    requests.Logs: "inspect",
    requests.Mount: "mount",
    # inspect tells the same of each container.
    requests.Problems: "inspect",
    requests.Repositories: "repositories",
    # Whoever may start it can do as much by a start.
    requests.Reset: "start",
    requests.Shutdown: "shutdown",
    requests.Stop: "kill",
    requests.TokenCreate: "token_create",
    requests.TokenVerify: "token_verification",
    requests.Umount: "umount",
    requests.Uninstall: "uninstall",
    requests.Updates: "inspect",
    requests.Wait: "inspect",
}


def allowed(request: requests.Request, granted: frozenset[str]) -> bool:
    """Whether these permissions are enough for `request`."""
    if isinstance(request, requests.Update | requests.UpdateAck | requests.UpdateCancel):
        return granted >= UPDATE
    return required(request) in granted


def required(request: requests.Request) -> str:
    """The permission for `request`, unless it is about an update.

    A start that brings anything of its own needs `start_command`.
    """
    if isinstance(request, requests.Start):
        plain = request.init is None and not request.arguments and not request.environment
        return "start" if plain else "start_command"
    return _REQUIRED[type(request)]
