# SPDX-License-Identifier: Apache-2.0
"""`sextant explain`: what a start of a container would do, without a device."""

from __future__ import annotations

import sys

from northstar.errors import NorthstarError
from northstar.kernel import capabilities
from northstar.manifest import extension, model
from northstar.npk import archive, package, sources
from northstar.programs import explanation
from northstar.runtime.containers import command, filters, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from northstar.manifest import Manifest

_RUN_DIR = "/run/northstar/containers"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="package or manifest")
    parser.add_argument(
        "words", metavar="COMMAND", nargs="*", help="program and arguments to execute instead"
    )


def run(options: argparse.Namespace) -> None:
    """Show the system calls that a start of a container would make, in their order.

    Places and numbers are those of a device with the default configuration and control groups of version 2.
    Nothing is mounted or started, and no privileges are needed.
    """
    parsed = _manifest(options.file)
    init, *arguments = options.words or [None]
    notify = plan.expected_notify(parsed, extension.supervision(parsed))
    order = plan.build(
        parsed,
        command.command(parsed, init, arguments, {}),
        _places(),
        {
            target: _resource(mount)
            for target, mount in parsed.mounts.items()
            if isinstance(mount, model.Resource)
        },
        plan.roles(parsed, ["cgroup"], notify),
        _facts(),
        group_numbers=plan.groups(parsed, _warn),
        application_filter=_filter(parsed),
        notify=notify,
    )
    print("\n".join(explanation.lines(order)))


def _manifest(path: str) -> Manifest:
    with open(path, "rb") as file:
        if archive.is_one(file.fileno()):
            return package.load(file.fileno(), None, path).manifest
    return sources.read_manifest(path)


def _places() -> plan.Places:
    return plan.Places(_RUN_DIR, "/var/lib/northstar/data", "/run/northstar/sockets", f"{_RUN_DIR}/.devices")


def _resource(mount: model.Resource) -> str:
    """The highest version that fits; which one, only a device knows."""
    return f"{mount.name}:{mount.version}"


def _facts() -> plan.Facts:
    every = capabilities.mask(capabilities.NAMES)
    return plan.Facts(every, max(capabilities.NAMES.values()), selinux=True, oom_score_adj=(0, -900))


def _filter(parsed: Manifest) -> bytes:
    try:
        return filters.application_filter(parsed)
    except (NorthstarError, ImportError) as error:
        _warn(f"the system call filter is left out: {error}")
        return b""


def _warn(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)
