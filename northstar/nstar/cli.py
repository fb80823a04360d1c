# SPDX-License-Identifier: Apache-2.0
"""Command line of nstar."""

from __future__ import annotations

import argparse
import sys

from northstar import API_VERSION, __version__, terminal
from northstar.client import supervision
from northstar.client.errors import PermissionDenied, Refused
from northstar.errors import NorthstarError
from northstar.helptext import HelpFormatter, do_not_translate
from northstar.nstar import arguments, commands, events, execute, logs, update, views, waiting
from northstar.nstar.check import check
from northstar.nstar.completion import FILES, completion
from northstar.nstar.context import DEVICE_SOCKET, URL_VARIABLE, Session, default_url
from northstar.nstar.seccomp import seccomp
from northstar.nstar.top import SORT_KEYS
from northstar.nstar.top import top as top_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXIT_REFUSED = 3

_EPILOG = f"""\
The default URL is ${URL_VARIABLE}, else unix://{DEVICE_SOCKET} if that exists, else tcp://localhost:4200.
Exit codes: 0 done, 1 failed (no connection, for instance), 2 wrong usage, 3 refused by the runtime,
4 an update was rolled back.
130 interrupted (SIGINT, as shells tell it), 141 nobody reads the output.
exec: that of the command, 128 + N if signal N has ended it; 1, 2 and 3 can be either's.
"""


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(
        prog="nstar",
        description="Control a Northstar runtime through its console.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    version = f"nstar {__version__} (protocol {API_VERSION})"
    top.add_argument("-V", "--version", action="version", version=version)
    top.add_argument("-u", "--url", metavar="URL", help="tcp://host[:port] or unix:///path")
    top.add_argument(
        "-j", "--json", action="store_true", help="print the runtime's response line, nothing else"
    )
    top.add_argument("--trace", action="store_true", help="show every line of the connection on stderr")
    top.add_argument(
        "-t",
        "--timeout",
        metavar="DURATION",
        type=arguments.duration,
        default=10.0,
        help="limit of the connect handshake, such as 500ms (10s)",
    )
    _commands(top)
    return top


def _commands(top: argparse.ArgumentParser) -> None:
    """All commands. `local` ones make their connection themselves or need none, and give the exit code."""
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str,
        run: Callable[..., int | None],
        *aliases: str,
        local: bool = False,
        notifications: bool | Sequence[str] = False,
    ) -> argparse.ArgumentParser:
        text = "\n".join(line.strip() for line in (run.__doc__ or "").splitlines()).rstrip()
        summary = text.partition("\n\n")[0].partition(". ")[0].rstrip(".").replace("\n", " ")
        command = subparsers.add_parser(
            name,
            aliases=list(aliases),
            help=summary[:1].lower() + summary[1:],
            description=text,
            formatter_class=HelpFormatter,
        )
        command.set_defaults(run=run, local=local, notifications=notifications)
        return command

    views.add_format(add("list", views.list_containers, "ls"), "table")
    add("repositories", commands.repositories, "repos")
    for name, run in (("mount", commands.mount), ("umount", commands.umount)):
        add(name, run).add_argument("containers", metavar="NAME[:VERSION]", nargs="*", help="containers")
    for name, run in (("start", commands.start), ("explain", commands.explain)):
        start = add(name, run)
        if name == "start":
            _start_options(start)
        _container(start)
        start.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="see above")
    _container(kill := add("kill", commands.kill))
    kill.add_argument(
        "signal", metavar="SIGNAL", type=arguments.signal, nargs="?", default=15, help="number or name (TERM)"
    )
    _container(command := add("exec", execute.run))
    execute.add_arguments(command)
    install = add("install", commands.install)
    install.add_argument("npk", metavar="NPK", help="package file")
    install.add_argument("repository", metavar="REPOSITORY", help="name of a repository")
    uninstall = add("uninstall", commands.uninstall)
    uninstall.add_argument("-w", "--wipe", action="store_true", help="delete the persistent data as well")
    _container(uninstall)
    update.add_arguments(add("update", update.update))
    updates = add("updates", update.show)
    updates.add_argument("--acknowledge", metavar="ID", help="forget how it has ended")
    updates.add_argument("--cancel", metavar="ID", help="give it up before its trial")
    add("shutdown", commands.shutdown)
    for name, run in (("notifications", events.notifications), ("events", events.events)):
        add(name, run, notifications=supervision.NOTIFICATIONS).add_argument(
            "-n", "--number", metavar="N", type=arguments.count, help="end after N of them"
        )
    _container(inspect := add("inspect", views.inspect))
    views.add_format(inspect, "json")
    _container(log := add("logs", logs.show))
    logs.register(log)
    token = add("token", commands.token)
    token.add_argument("target", metavar="TARGET", help="name of the container that shall verify it")
    token.add_argument("shared", metavar="SHARED", help="text that both sides know")
    verify = add("verify-token", commands.verify_token)
    verify.add_argument("token", metavar="TOKEN", type=arguments.token, help="token in base64")
    verify.add_argument("user", metavar="USER", help="name of the creator")
    verify.add_argument("shared", metavar="SHARED", help="text that both sides know")
    add("ident", commands.ident)
    _container(halt := add("stop", waiting.stop))
    halt.add_argument(
        "-t",
        "--timeout",
        metavar="DURATION",
        dest="grace",
        type=arguments.duration,
        help="time before SIGKILL, such as 500ms",
    )
    halt.add_argument("-s", "--signal", metavar="SIGNAL", type=arguments.signal, help="number or name")
    _container(add("reset", waiting.reset))
    wait = add("wait", waiting.wait)
    wait.add_argument("containers", metavar="NAME[:VERSION]", nargs="*", help="containers")
    wait.add_argument(
        "--until",
        choices=(supervision.READY, supervision.EXIT),
        default=supervision.READY,
        help="(%(default)s)",
    )
    wait.add_argument(
        "--boot", action="store_true", help="wait until it is decided whether this boot is good"
    )
    _limit(wait)
    usage = add("top", top_command)
    usage.add_argument("--sort", choices=SORT_KEYS, default="cpu", help="column to sort by (%(default)s)")
    usage.add_argument("-n", "--iterations", metavar="N", type=arguments.count, help="end after N tables")
    usage.add_argument(
        "-d",
        "--delay",
        metavar="DURATION",
        type=arguments.duration,
        default=2.0,
        help="time between tables (2s)",
    )
    add("check", check, local=True).add_argument(
        "-q", "--quiet", action="store_true", help="show problems and what is optional only"
    )
    profile = add("seccomp", seccomp, local=True)
    profile.add_argument("log", metavar="FILE", help="log of strace")
    profile.add_argument("--no-default-profile", action="store_true", help="list all system calls")
    script = add("completion", completion, local=True)
    script.add_argument("-s", "--shell", choices=sorted(FILES), required=True, help="which shell")
    script.add_argument("-o", "--output", metavar="FILE", help="write to a file")
    add("help", _help, local=True).add_argument("topic", metavar="COMMAND", nargs="?", help="a command")


def _start_options(start: argparse.ArgumentParser) -> None:
    start.add_argument("-w", "--wait", action="store_true", help="wait until it is ready")
    start.add_argument(
        "--with-dependencies", action="store_true", help="start what it is meant to wait for first"
    )
    _limit(start)


def _limit(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-t",
        "--timeout",
        metavar="DURATION",
        dest="limit",
        type=arguments.duration,
        help="limit of the wait, such as 30s",
    )


def _help(options: argparse.Namespace) -> int:
    """Show the help of a command."""
    parser().parse_args([*([options.topic] if options.topic else []), "--help"])
    return 0


def _container(command: argparse.ArgumentParser) -> None:
    command.add_argument("container", metavar="NAME[:VERSION]", help="the version may be left out if unique")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    terminal.prepare_streams()
    do_not_translate()
    url = ""
    try:
        try:
            top = parser()
            options = top.parse_args(words)
            if options.json and options.run is execute.run:
                top.error("exec and --json: standard output is that of the program")
            url = options.url = options.url or default_url()
            return _carry_out(options)
        finally:
            sys.stdout.flush()
    except (Refused, PermissionDenied) as error:
        terminal.complain(error)
        return EXIT_REFUSED
    except NorthstarError as error:
        terminal.complain(error)
    except TimeoutError:
        print(f"Error: {url}: deadline has elapsed", file=sys.stderr)
    except OSError as error:
        return terminal.complain_of_system(error)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
    return terminal.EXIT_FAILURE


def _carry_out(options: argparse.Namespace) -> int:
    if options.local:
        code: int = options.run(options)
        return code
    try:
        session = Session(options, notifications=options.notifications)
    except OSError as error:
        error.filename = options.url
        raise
    try:
        code = options.run(session, options)
    except (Refused, PermissionDenied):
        session.say_refusal()
        raise
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
