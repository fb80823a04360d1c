# SPDX-License-Identifier: Apache-2.0
"""Command line of northstar-fleet."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from northstar import __version__, terminal
from northstar.encoding import require_utf8
from northstar.errors import NorthstarError
from northstar.fleet.fleet import Fleet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from northstar.fleet.fleet import Rollout

KINDS = ("forced", "soft", "downloadonly")
EXIT_NOT_GOOD = 3


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(
        prog="northstar-fleet",
        description="Publish packages to a hawkBit server, assign them to devices, and roll them out.",
        epilog="NORTHSTAR_FLEET_URL, NORTHSTAR_FLEET_USER, NORTHSTAR_FLEET_PASSWORD: the server, "
        "and who you are.",
    )
    top.add_argument("-V", "--version", action="version", version=f"northstar-fleet {__version__}")
    top.add_argument("-u", "--url", metavar="URL", help="the server (default: NORTHSTAR_FLEET_URL)")
    top.add_argument("--user", metavar="USER", help="(default: NORTHSTAR_FLEET_USER, or admin)")
    top.add_argument("--password-file", metavar="FILE", help="(default: NORTHSTAR_FLEET_PASSWORD)")
    top.add_argument("--ca", metavar="FILE", help="certificates to trust (default: those of the system)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _publish_options(commands.add_parser("publish", help="upload packages", description=_publish.__doc__))
    _assign_options(
        commands.add_parser("assign", help="assign a set to devices", description=_assign.__doc__)
    )
    _rollout_options(
        commands.add_parser("rollout", help="assign a set group by group", description=_rollout.__doc__)
    )
    _devices_options(commands.add_parser("devices", help="show devices", description=_devices.__doc__))
    _history_options(
        commands.add_parser("history", help="show what a device did", description=_history.__doc__)
    )
    _add_options(commands.add_parser("add", help="register a device", description=_add.__doc__))
    return top


def _publish_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_publish)
    options.add_argument(
        "--name", metavar="SET", required=True, help="NAME or NAME:VERSION (default: the package's version)"
    )
    options.add_argument("--repository", metavar="REPOSITORY", help="where devices install the packages")
    options.add_argument(
        "--settle", metavar="SECONDS", type=int, help="how long a version has to be ready to be good"
    )
    options.add_argument(
        "--allow-downgrade", action="store_true", help="devices may go back to these versions"
    )
    options.add_argument("--no-delta", action="store_true", help="upload no indexes for delta downloads")
    options.add_argument("npk", metavar="NPK", nargs="+", help="packages that are updated together")


def _assign_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_assign)
    options.add_argument("set", metavar="SET", help="NAME:VERSION, or NAME for the newest")
    _target_options(options)


def _target_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--to",
        metavar="FILTER",
        required=True,
        help="devices as hawkBit's filters have them: controllerId==board*, attribute.arch==aarch64",
    )
    options.add_argument(
        "--type", choices=KINDS, default=KINDS[0], help="how urgent it is (default: %(default)s)"
    )


def _rollout_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_rollout)
    options.add_argument("set", metavar="SET", help="NAME:VERSION, or NAME for the newest")
    _target_options(options)
    options.add_argument("--groups", metavar="N", type=int, default=1, help="(default: %(default)s)")
    options.add_argument(
        "--success",
        metavar="PERCENT",
        type=int,
        default=80,
        help="of a group, then the next one begins (default: %(default)s)",
    )
    options.add_argument(
        "--error",
        metavar="PERCENT",
        type=int,
        default=20,
        help="of a group, then the rollout pauses (default: %(default)s)",
    )
    options.add_argument(
        "--watch", action="store_true", help="follow it to its end; exit code 3 if it was not good"
    )


def _devices_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_devices)
    options.add_argument("--filter", metavar="FILTER", help="as of --to of assign")
    options.add_argument("--json", action="store_true", help="one JSON object per line")


def _history_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_history)
    options.add_argument("device", metavar="ID", help="the device's identifier")


def _add_options(options: argparse.ArgumentParser) -> None:
    options.set_defaults(run=_add)
    options.add_argument("--token-file", metavar="FILE", help="the token (default: one is made)")
    options.add_argument("device", metavar="ID", help="the device's identifier")


def _publish(fleet: Fleet, options: argparse.Namespace) -> None:
    """Upload packages, with indexes for delta downloads, as one set of a name and version."""
    name, _, version = options.name.partition(":")
    metadata = {}
    if options.repository is not None:
        metadata["northstar.repository"] = options.repository
    if options.settle is not None:
        metadata["northstar.settle"] = str(options.settle)
    if options.allow_downgrade:
        metadata["northstar.allow_downgrade"] = "true"
    print(fleet.publish(options.npk, name, version or None, metadata, not options.no_delta))


def _assign(fleet: Fleet, options: argparse.Namespace) -> None:
    """Assign a set to all devices of a filter."""
    count = fleet.assign(options.set, options.to, options.type)
    print(f"{options.set}: assigned to {count} devices")


def _rollout(fleet: Fleet, options: argparse.Namespace) -> int:
    """Assign a set to the devices of a filter group by group, as long as it does well."""
    identifier = fleet.roll_out(
        options.set, options.to, options.groups, options.success, options.error, options.type
    )
    if not options.watch:
        print(f"rollout {identifier} is running")
        return 0
    return 0 if fleet.watch(identifier, _show).good else EXIT_NOT_GOOD


def _show(rollout: Rollout) -> None:
    print(f"{time.strftime('%H:%M:%S')} rollout {rollout.id}: {rollout.state}, {_counts(rollout.counts)}")
    for group in rollout.groups:
        print(f"  {group.name}: {group.state}, {_counts(group.counts)} of {group.total}", flush=True)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nobody"


def _devices(fleet: Fleet, options: argparse.Namespace) -> None:
    """Show devices with their versions, their state and when they have polled."""
    rows = [("DEVICE", "STATE", "LAST POLL", "VERSIONS")]
    for device in fleet.devices(options.filter):
        if options.json:
            print(json.dumps(device._asdict()))
            continue
        last = (
            "never" if device.last_poll is None else time.strftime("%F %T", time.localtime(device.last_poll))
        )
        versions = " ".join(f"{name}:{version}" for name, version in device.versions.items())
        rows.append((device.id, device.state, last + (" overdue" if device.overdue else ""), versions))
    if not options.json:
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            padded = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
            print(f"{padded}  {row[3]}".rstrip())


def _add(fleet: Fleet, options: argparse.Namespace) -> None:
    """Register a device and print its token, which belongs into the file `token_file` of its agent."""
    token = _first_line(options.token_file) if options.token_file else None
    print(fleet.add_device(options.device, token))


def _history(fleet: Fleet, options: argparse.Namespace) -> None:
    """Show the actions of a device step by step, with what it reported."""
    for event in fleet.history(options.device):
        when = time.strftime("%F %T", time.localtime(event.time))
        print(f"{when}  action {event.action}: {event.kind}", *event.messages, sep="\n    ")


def _first_line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().rstrip("\n")


def _connected(options: argparse.Namespace) -> Fleet:
    url = options.url or os.environ.get("NORTHSTAR_FLEET_URL")
    if not url:
        raise NorthstarError("no server", "--url or NORTHSTAR_FLEET_URL names it")
    user = options.user or os.environ.get("NORTHSTAR_FLEET_USER", "admin")
    if options.password_file:
        password = _first_line(options.password_file)
    else:
        password = os.environ.get("NORTHSTAR_FLEET_PASSWORD", "")
    return Fleet(url, user, password, options.ca)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 failed, 2 wrong usage, 3 a watched rollout was not good."""
    if arguments is None:
        require_utf8()
    return terminal.run(lambda: _carry_out(parser().parse_args(arguments)))


def _carry_out(options: argparse.Namespace) -> int | None:
    run: Callable[[Fleet, argparse.Namespace], int | None] = options.run
    with _connected(options) as fleet:
        return run(fleet, options)


if __name__ == "__main__":
    sys.exit(main())
