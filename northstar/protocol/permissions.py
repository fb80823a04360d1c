# SPDX-License-Identifier: Apache-2.0
"""Which permission a request needs."""

from __future__ import annotations

from northstar.manifest.model import PERMISSIONS
from northstar.protocol import messages

__all__ = ["ADDITIONAL", "FULL", "PERMISSIONS", "required"]

FULL = frozenset(PERMISSIONS)
ADDITIONAL = ("exec",)
"""Of ours, and not part of `full`."""

_REQUIRED: dict[type, str] = {
    # Of the same kind as what inspect tells.
    messages.Boot: "inspect",
    messages.Exec: "exec",
    # Tells no more than inspect does, as it says nothing of the container's processes.
    messages.Explain: "inspect",
    messages.Ident: "ident",
    messages.Inspect: "inspect",
    messages.Install: "install",
    messages.Kill: "kill",
    messages.List: "list",
    # Of the same kind as what inspect tells, the command line and the environment; and with a permission of
    # its own there would be manifests and configurations that upstream refuses.
    messages.Logs: "inspect",
    messages.Mount: "mount",
    messages.Repositories: "repositories",
    # It makes starts possible again, and could be said with one.
    messages.Reset: "start",
    messages.Shutdown: "shutdown",
    messages.Stop: "kill",
    messages.TokenCreate: "token_create",
    messages.TokenVerify: "token_verification",
    messages.Umount: "umount",
    messages.Uninstall: "uninstall",
    messages.Wait: "inspect",
}


def required(request: messages.Request) -> str:
    """The permission for `request`. A start that brings anything of its own needs `start_command`."""
    if isinstance(request, messages.Start):
        plain = request.init is None and not request.arguments and not request.environment
        return "start" if plain else "start_command"
    return _REQUIRED[type(request)]
