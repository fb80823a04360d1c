# SPDX-License-Identifier: Apache-2.0
"""The command `completion`, and the names that completed command lines need."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

FILES = {"bash": "nstar.bash", "fish": "nstar.fish", "zsh": "_nstar"}

_TIMEOUT = 2.0


def completion(options: argparse.Namespace) -> int:
    """Print the completion script of a shell.

    To be evaluated in bash, to be saved as _nstar in a directory of $fpath for zsh, or as nstar.fish in
    ~/.config/fish/completions.
    """
    directory = os.path.join(os.path.dirname(os.path.dirname(__file__)), "completions")
    with open(os.path.join(directory, FILES[options.shell]), encoding="utf-8") as file:
        text = file.read()
    if options.output is None:
        print(text, end="")
        return 0
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"Generating {options.shell} completions to {options.output}")
    return 0


def complete(arguments: Sequence[str]) -> int:
    """Print names for a shell: `containers` or `repositories`, then the words of the command line.

    Silent if the runtime does not answer. This runs at every press of a key, so it does without argparse.
    """
    from northstar.client import Client
    from northstar.errors import NorthstarError
    from northstar.nstar.context import default_url

    kind, words = arguments[0] if arguments else "", arguments[1:]
    try:
        with Client.connect(_url(words) or default_url(), timeout=_TIMEOUT) as client:
            containers = kind == "containers"
            names = short_names(client.list()) if containers else sorted(client.repositories())
    except (NorthstarError, OSError, ValueError):
        return 1
    sys.stdout.writelines(f"{name}\n" for name in names)
    return 0


def _url(words: Sequence[str]) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-u", "--url"):
            return following
        if word.startswith("--url="):
            return word.removeprefix("--url=")
    return None


def short_names(containers: Sequence[str]) -> list[str]:
    """Names without the version where it is not needed."""
    names = [container.partition(":")[0] for container in containers]
    return sorted(
        name if names.count(name) == 1 else container
        for name, container in zip(names, containers, strict=True)
    )
