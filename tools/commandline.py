# SPDX-License-Identifier: Apache-2.0
"""What the command lines of the programs consist of, taken from their parsers."""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from northstar.__main__ import TRY
from northstar.agent import main as agent_main
from northstar.fleet import cli as fleet_cli
from northstar.nstar import cli as nstar_cli
from northstar.runtime import main as northstar_main
from northstar.sextant import cli as sextant_cli
from northstar.trial import cli as trial_cli


class Option(NamedTuple):
    """An option. `value` is its metavar, empty if it has none; `choices` its values, if they are few."""

    strings: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str


class Argument(NamedTuple):
    """A positional argument; `many` if it may be repeated."""

    name: str
    help: str
    many: bool


class Command(NamedTuple):
    """A program, or one of its commands; `names` are its name and aliases."""

    names: tuple[str, ...]
    summary: str
    description: str
    epilog: str
    usage: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]


def nstar() -> Command:
    """The client."""
    return _command(nstar_cli.parser(), ("nstar",), "")


def sextant() -> Command:
    """The packer."""
    return _command(sextant_cli.parser(), ("sextant",), "")


def fleet() -> Command:
    """The operator's tool."""
    return _command(fleet_cli.parser(), ("northstar-fleet",), "")


def northstar() -> Command:
    """The daemon, whose own options are in a text for --help, and `try`."""
    attempt = _command(trial_cli.parser(), (TRY,), "try containers in a throw-away runtime")
    return _command_of_text("northstar", northstar_main.USAGE, northstar_main.HELP, attempt)


def agent() -> Command:
    """The update agent."""
    return _command_of_text("northstar-agent", agent_main.USAGE, agent_main.HELP)


def _command_of_text(name: str, usage: str, text: str, *commands: Command) -> Command:
    """A program whose parser is a getopt with a text for --help."""
    description, _, rest = text.partition("\n\noptions:\n")
    options, _, epilog = rest.partition("\n\n")
    found = re.findall(
        r"^  (-\S[^\n]*?)(?:  +|\n +)(\S.*?)(?=^  -|\Z)", options + "\n", re.DOTALL | re.MULTILINE
    )
    return Command(
        (name,),
        "",
        " ".join(description.split()),
        " ".join(epilog.split()),
        usage.removeprefix(f"usage: {name} ").strip(),
        tuple(_option_of_text(strings, " ".join(text.split())) for strings, text in found),
        (),
        commands,
    )


def _option_of_text(strings: str, text: str) -> Option:
    words = [part.split() for part in strings.split(", ")]
    value = words[0][1] if len(words[0]) > 1 else ""
    return Option(tuple(word[0] for word in words), value, (), text)


def _command(parser: argparse.ArgumentParser, names: tuple[str, ...], summary: str) -> Command:
    options, arguments, commands = [], [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = _subcommands(action)
        elif action.option_strings:
            options.append(_option(parser, action))
        else:
            arguments.append(_argument(parser, action))
    usage = " ".join(parser.format_usage().split()).removeprefix(f"usage: {parser.prog}").strip()
    return Command(
        names,
        summary,
        parser.description or "",
        parser.epilog or "",
        usage,
        tuple(options),
        tuple(arguments),
        tuple(commands),
    )


def _subcommands(action: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[Command]:
    names: dict[argparse.ArgumentParser, list[str]] = {}
    for name, parser in action.choices.items():
        names.setdefault(parser, []).append(name)
    helps = {entry.dest.split()[0]: entry.help or "" for entry in action._get_subactions()}
    return [_command(parser, tuple(found), helps[found[0]]) for parser, found in names.items()]


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> Option:
    choices = tuple(str(choice) for choice in action.choices or ())
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    return Option(tuple(action.option_strings), value, choices, _help(parser, action))


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    return Argument(
        str(action.metavar or action.dest.upper()),
        _help(parser, action),
        action.nargs in ("*", argparse.REMAINDER),
    )


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""
