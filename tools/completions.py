# SPDX-License-Identifier: Apache-2.0
"""Completion of the command lines in bash, fish and zsh."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tools.commandline import Argument, Command, Option, northstar, nstar, sextant

DYNAMIC = ("containers", "repositories")
_KINDS = {
    "NAME[:VERSION]": "containers",
    "REPOSITORY": "repositories",
    "NPK": "files",
    "FILE": "files",
    "IMAGE": "files",
    "PACKAGE|DIRECTORY": "files",
    "PATH": "files",
    "DIR": "directories",
}
# REUSE-IgnoreStart
_HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Made by tools/generate from the command line of {name}.\n"
# REUSE-IgnoreEnd


def files() -> dict[str, str]:
    """Content by file name."""
    made = {}
    for program in (northstar(), nstar(), sextant()):
        name = program.names[0]
        made[f"{name}.bash"] = bash(program)
        made[f"{name}.fish"] = fish(program)
        made[f"_{name}"] = zsh(program)
    return made


def _kind(item: Option | Argument, program: Command) -> str:
    """What an argument or an option's value is: a key of the shells' tables, or words."""
    if isinstance(item, Option):
        return f"words {' '.join(item.choices)}" if item.choices else _KINDS.get(item.value, "nothing")
    if item.name == "COMMAND" and not item.many:
        return f"words {' '.join(_names(program))}"
    return _KINDS.get(item.name, "nothing")


def _names(program: Command) -> list[str]:
    return [name for command in program.commands for name in command.names]


def _strings(command: Command) -> str:
    return " ".join(string for option in command.options for string in option.strings)


# --- bash

_BASH = """\
{head}
# Names of containers or repositories, one per line.
_{name}_names() {{
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$(printf %q "$name")")
    done < <("${{words[0]}}" --complete "$1" "${{words[@]:1}}" 2>/dev/null)
}}

_{name}() {{
    local line=${{COMP_LINE:0:COMP_POINT}} words=() word current command='' position=0 kind='' prefix
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    current=${{words[${{#words[@]}} - 1]}}
    for word in "${{words[@]:1:${{#words[@]}} - 2}}"; do
        if [[ -n $kind ]]; then
            kind=''
            continue
        fi
        case "$command $word" in
{values}
            *" -"*) ;;
            *) if [[ -z $command ]]; then command=$word; else position=$((position + 1)); fi ;;
        esac
    done
    if [[ -z $kind && $current == -* ]]; then
        case $command in
{options}
        esac
    elif [[ -z $kind ]]; then
        case "$command $position" in
{arguments}
            *) ;;
        esac
    fi
    COMPREPLY=()
    case $kind in
        containers | repositories) _{name}_names "$kind" ;;
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
        directories)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            ;;
        words*) mapfile -t COMPREPLY < <(compgen -W "${{kind#words}}" -- "$current") ;;
    esac
    # Bash replaces only what is behind the last colon.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        prefix=${{current%"${{current##*:}}"}}
        COMPREPLY=("${{COMPREPLY[@]#"$prefix"}}")
    fi
}}

complete -F _{name} {name}
"""


def bash(program: Command) -> str:
    """The script for bash."""
    values, options, arguments = [], [], []
    top = program._replace(names=("",))
    for command in (top, *program.commands):
        names = " | ".join(name or "''" for name in command.names)
        options.append(f"            {names}) kind={shlex.quote(f'words {_strings(command)}')} ;;")
        for option in command.options:
            if option.value:
                words = " | ".join(
                    f'"{name} {string}"' for name in command.names for string in option.strings
                )
                values.append(f"            {words}) kind={shlex.quote(_kind(option, program))} ;;")
        for number, argument in enumerate(command.arguments):
            position = "*" if argument.many else str(number)
            kind = _kind(argument, program)
            if kind != "nothing":
                words = " | ".join(f'"{name} "{position}' for name in command.names)
                arguments.append(f"            {words}) kind={shlex.quote(kind)} ;;")
    if program.commands:
        words = f"words {' '.join(_names(program))}"
        arguments.insert(0, f'            " 0") kind={shlex.quote(words)} ;;')
    name = program.names[0]
    return _BASH.format(
        head=_HEAD.format(name=name) + "# shellcheck shell=bash\n",
        name=name,
        values="\n".join(values),
        options="\n".join(options),
        arguments="\n".join(arguments),
    ).replace("in\n\n            *", "in\n            *")


# --- fish

_FISH_KINDS = {
    "files": "-F",
    "directories": "-f -a '(__fish_complete_directories)'",
    "nothing": "-f",
}


def fish(program: Command) -> str:
    """The script for fish."""
    name = program.names[0]
    lines = [_HEAD.format(name=name)]
    if program.commands:
        lines += [
            f"function __{name}_names",
            f"    {name} --complete $argv (commandline -opc) 2>/dev/null",
            "end",
            "",
        ]
    lines.append(f"complete -c {name} -f")
    condition = "-n __fish_use_subcommand " if program.commands else ""
    lines += [_fish_option(name, condition, option, program) for option in program.options]
    for command in program.commands:
        text = _fish_quoted(command.summary)
        lines.append(f"complete -c {name} -n __fish_use_subcommand -a '{' '.join(command.names)}' -d {text}")
    for command in program.commands:
        condition = f"-n '__fish_seen_subcommand_from {' '.join(command.names)}' "
        lines += [_fish_option(name, condition, option, program) for option in command.options]
        for argument in command.arguments:
            kind = _fish_kind(_kind(argument, program), name)
            if kind != "-f":
                lines.append(f"complete -c {name} {condition}{kind}")
    return "\n".join(lines) + "\n"


def _fish_option(name: str, condition: str, option: Option, program: Command) -> str:
    parts = [f"complete -c {name} {condition}".rstrip()]
    for string in option.strings:
        parts.append(f"-l {string[2:]}" if string.startswith("--") else f"-s {string[1:]}")
    if option.value:
        parts.append(f"-r {_fish_kind(_kind(option, program), name)}")
    return " ".join([*parts, "-d", _fish_quoted(option.help)])


def _fish_kind(kind: str, name: str) -> str:
    if kind.startswith("words "):
        return f"-f -a '{kind.removeprefix('words ')}'"
    return f"-f -a '(__{name}_names {kind})'" if kind in DYNAMIC else _FISH_KINDS[kind]


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- zsh

_ZSH_KINDS = {"files": "_files", "directories": "_files -/", "nothing": " "}
_ZSH = """\
#compdef {name}
{head}
_{name}_names() {{
    local -a names
    names=(${{(f)"$({name} --complete $1 $url 2>/dev/null)"}})
    compadd -a names
}}

_{name}() {{
    local curcontext=$curcontext state line
    local -a commands url
    typeset -A opt_args
    commands=(
{commands}
    )
    _arguments -C -A '-*' \\
{options} \\
        '1:command:->command' \\
        '*::argument:->argument' && return
    url=(${{opt_args[-u]:+-u ${{opt_args[-u]//\\\\/}}}} ${{opt_args[--url]:+-u ${{opt_args[--url]//\\\\/}}}})
    url=(${{=url}})
    case $state in
        command) _describe -t commands command commands ;;
        argument)
            case $line[1] in
{cases}
            esac
            ;;
    esac
}}

_{name} "$@"
"""


def zsh(program: Command) -> str:
    """The script for zsh."""
    name = program.names[0]
    head = _HEAD.format(name=name)
    if not program.commands:
        options = _zsh_lines(_zsh_options(program, program), 4)
        return f"#compdef {name}\n{head}\n_arguments \\\n{options}\n"
    commands = [
        f"        {shlex.quote(f'{alias}:{command.summary}')}"
        for command in program.commands
        for alias in command.names
    ]
    return _ZSH.format(
        name=name,
        head=head,
        commands="\n".join(commands),
        options=_zsh_lines(_zsh_options(program, program), 8),
        cases="\n".join(_zsh_case(command, program) for command in program.commands),
    )


def _zsh_case(command: Command, program: Command) -> str:
    specifications = [*_zsh_options(command, program)]
    for number, argument in enumerate(command.arguments, 1):
        place = "*" if argument.many else str(number)
        specifications.append(_zsh_argument(place, argument, program))
    return (
        f"                {' | '.join(command.names)})\n"
        f"                    _arguments \\\n{_zsh_lines(specifications, 24)}\n"
        "                    ;;"
    )


def _zsh_argument(place: str, argument: Argument, program: Command) -> str:
    label = argument.name.lower().partition("[")[0]
    return shlex.quote(f"{place}:{label}:{_zsh_kind(_kind(argument, program), program)}")


def _zsh_options(command: Command, program: Command) -> Iterator[str]:
    for option in command.options:
        text = option.help.replace("[", "\\[").replace("]", "\\]")
        value = ""
        if option.value:
            value = f":{option.value.lower()}:{_zsh_kind(_kind(option, program), program)}"
        for string in option.strings:
            excluded = f"({' '.join(option.strings)})" if len(option.strings) > 1 else ""
            assigned = "=" if value and string.startswith("--") else ""
            yield shlex.quote(f"{excluded}{string}{assigned}[{text}]{value}")


def _zsh_kind(kind: str, program: Command) -> str:
    if kind.startswith("words "):
        return f"({kind.removeprefix('words ')})"
    return f" _{program.names[0]}_names {kind}" if kind in DYNAMIC else _ZSH_KINDS[kind]


def _zsh_lines(specifications: Iterator[str] | list[str], indent: int) -> str:
    return " \\\n".join(" " * indent + specification for specification in specifications)
