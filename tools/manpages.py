# SPDX-License-Identifier: Apache-2.0
"""Manual pages, from the command lines of the programs and what is said here besides."""

from __future__ import annotations

import re
from typing import NamedTuple

from northstar import __version__
from tools.commandline import Argument, Command, Option, agent, fleet, northstar, nstar, sextant


class Page(NamedTuple):
    """What a page says besides the command line; `sections` are headings with their text in lines."""

    section: int
    summary: str
    sections: dict[str, list[str]]
    see_also: str


def files() -> dict[str, str]:
    """Content by file name."""
    return {
        f"{program.names[0]}.{page.section}": render(program, page)
        for program, page in (
            (northstar(), NORTHSTAR),
            (nstar(), NSTAR),
            (sextant(), SEXTANT),
            (agent(), AGENT),
            (fleet(), FLEET),
        )
    }


def render(program: Command, page: Page) -> str:
    """A page in the macros of man(7)."""
    name = program.names[0]
    lines = [
        # REUSE-IgnoreStart
        '.\\" SPDX-License-Identifier: Apache-2.0',
        # REUSE-IgnoreEnd
        '.\\" Made by tools/generate from the command line of the program.',
        f'.TH {name.upper()} {page.section} "" "northstar {__version__}" "Northstar"',
        ".SH NAME",
        f"{name} \\- {_escaped(page.summary)}",
        ".SH SYNOPSIS",
        *_usage(name, program.usage),
        ".SH DESCRIPTION",
        *_paragraphs(f"{program.description}\n\n{program.epilog}"),
        ".SH OPTIONS",
    ]
    for option in program.options:
        lines += _option(option)
    if program.commands:
        lines.append(".SH COMMANDS")
    for command in program.commands:
        lines += _command(name, command)
    for heading, text in page.sections.items():
        lines += [f".SH {heading}", *text]
    lines += [".SH SEE ALSO", *_references(page.see_also)]
    return "\n".join(lines) + "\n"


def _command(program: str, command: Command) -> list[str]:
    aliases = f" ({', '.join(command.names[1:])})" if len(command.names) > 1 else ""
    lines = [f'.SS "{_escaped(command.names[0] + aliases)}"']
    lines += _usage(f"{program} {command.names[0]}", command.usage)
    lines += [".PP", *_paragraphs(command.description)]
    for item in command.arguments:
        lines += _argument(item)
    for option in command.options:
        if "--help" not in option.strings:
            lines += _option(option)
    return lines


def _usage(name: str, usage: str) -> list[str]:
    """Option groups stay together when the line is broken."""
    usage = usage.replace("[-h]", "").strip()
    groups = re.findall(r"\[[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*\]|\S+", usage)
    text = " ".join(_escaped(group).replace(" ", "\\ ") for group in groups)
    return [f".B {_escaped(name)}", *([text] if text else [])]


def _option(option: Option) -> list[str]:
    value = option.value
    if option.choices:
        value = "{" + ",".join(option.choices) + "}"
    suffix = f" \\fI{_escaped(value)}\\fR" if value else ""
    names = ", ".join(f"\\fB{_escaped(string)}\\fR{suffix}" for string in option.strings)
    return [".TP", names, *_paragraphs(option.help)]


def _argument(argument: Argument) -> list[str]:
    return [".TP", f"\\fI{_escaped(argument.name)}\\fR", *_paragraphs(argument.help)]


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        separator = [".PP"] if lines else []
        lines += [*separator, *(_line(line) for line in paragraph.splitlines())]
    return lines


def _line(line: str) -> str:
    """A line of text, which must not look like a request."""
    escaped = _escaped(line.strip())
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\`").replace("'", "\\(aq")


def _references(names: str) -> list[str]:
    pages = [name.partition("(") for name in names.split()]
    last = len(pages) - 1
    return [
        f".BR {_escaped(name)} ({section}{'' if number == last else ' ,'}"
        for number, (name, _, section) in enumerate(pages)
    ]


def _list(*entries: tuple[str, str]) -> list[str]:
    return [line for term, text in entries for line in (".TP", f".B {_escaped(term)}", _line(text))]


def _example(*lines: str) -> list[str]:
    return [".nf", *(_line(line) for line in lines), ".fi"]


NORTHSTAR = Page(
    8,
    "embedded container runtime",
    {
        "EXIT STATUS": _list(
            ("0", "it was shut down, or the configuration is valid"),
            ("1", "it could not start, or a critical container ended; of try: a container has failed"),
            ("2", "wrong usage"),
            ("130 and others", "of try: 128 and the number of the signal that has ended it"),
        ),
        "FILES": _list(
            ("/etc/northstar/northstar.toml", "configuration of the init script and the unit"),
            ("/etc/northstar/keys", "public keys of repositories"),
            ("/run/northstar/console", "the console's socket"),
        ),
        "EXAMPLES": _example(
            "northstar --check --config /etc/northstar/northstar.toml",
            "sudo northstar try hello",
            "sudo northstar try --keep message-1.0.0.npk hello-1.0.0.npk",
        ),
    },
    "nstar(1) sextant(1)",
)
NSTAR = Page(
    1,
    "control a Northstar runtime",
    {
        "EXIT STATUS": _list(
            ("0", "done"),
            ("1", "failed, for instance because there is no connection; problems found by check"),
            ("2", "wrong usage"),
            ("3", "refused by the runtime"),
            ("4", "an update was rolled back"),
            ("130 in a shell", "interrupted (SIGINT)"),
            ("141", "nobody reads the output"),
        ),
        "ENVIRONMENT": _list(
            ("NSTAR_URL", "where the runtime is, if --url is not given"),
            ("NO_COLOR", "if it is set there are no colours on terminals"),
        ),
        "FILES": _list(("/run/northstar/console", "the console's usual socket")),
        "EXAMPLES": _example(
            "nstar install hello-1.0.0.npk default",
            "nstar start hello DEBUG=1 /hello --verbose",
            "nstar top --sort memory",
            "nstar stop -t 5s hello",
            "nstar -j inspect hello",
        ),
    },
    "northstar(8) sextant(1)",
)
SEXTANT = Page(
    1,
    "pack, sign and inspect Northstar packages",
    {
        "EXIT STATUS": _list(
            ("0", "done"),
            ("1", "failed"),
            ("2", "wrong usage"),
            ("3", "lint has warnings"),
            ("4", "lint has errors"),
            ("130", "interrupted"),
        ),
        "ENVIRONMENT": _list(("SOURCE_DATE_EPOCH", "time stamp of all files, for reproducible packages")),
        "EXAMPLES": _example(
            "sextant gen-key --name mine --out .",
            "sextant pack -m hello/manifest.yaml -r hello/root -k mine.key -o .",
            "sextant inspect hello-1.0.0.npk",
            "sextant init --python gateway",
            "sextant lint gateway",
            "sextant import docker://docker.io/library/redis:7 --platform linux/arm64 --out redis",
        ),
    },
    "nstar(1) northstar(8) mksquashfs(1) skopeo(1)",
)
AGENT = Page(
    8,
    "take updates from a fleet server",
    {
        "EXIT STATUS": _list(
            ("0", "it was ended, the poll is done, or the configuration is valid"),
            ("1", "failed; mistakes found by --check"),
            ("2", "wrong usage"),
            ("78", "the configuration has mistakes"),
        ),
        "FILES": _list(
            ("/etc/northstar/agent.toml", "configuration"),
            ("/var/lib/northstar-agent", "what survives a power cut, and downloads"),
            ("/run/northstar-agent", "what is lost at a reboot without harm"),
        ),
    },
    "northstar(8) northstar-fleet(1)",
)
FLEET = Page(
    1,
    "publish packages to a fleet and roll them out",
    {
        "EXIT STATUS": _list(
            ("0", "done"),
            ("1", "failed"),
            ("2", "wrong usage"),
            ("3", "a watched rollout was not good"),
            ("130", "interrupted"),
        ),
        "ENVIRONMENT": _list(
            ("NORTHSTAR_FLEET_URL", "the server, if --url is not given"),
            ("NORTHSTAR_FLEET_USER", "the user, if --user is not given"),
            ("NORTHSTAR_FLEET_PASSWORD", "the password, if --password-file is not given"),
        ),
        "EXAMPLES": _example(
            "northstar-fleet add board-1",
            "northstar-fleet publish hello-1.0.1.npk --name hello",
            "northstar-fleet assign hello:1.0.1 --to controllerId==board-1",
            "northstar-fleet rollout hello --to 'attribute.arch==aarch64' --groups 5 --watch",
            "northstar-fleet devices",
        ),
    },
    "northstar-agent(8) sextant(1)",
)
