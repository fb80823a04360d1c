# SPDX-License-Identifier: Apache-2.0
"""The manual pages: groff understands them, they say everything. (test_completions.py: they are current.)"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import commandline, manpages

PAGES = Path(__file__).resolve().parents[2] / "docs/man"
PROGRAMS = [
    commandline.northstar(),
    commandline.nstar(),
    commandline.sextant(),
    commandline.agent(),
    commandline.fleet(),
]


def formatted(path: Path) -> str:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    command = ["groff", "-man", "-Tascii", "-ww", "-P-c", "-rLL=200n", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return re.sub(".\b", "", done.stdout)


@pytest.mark.parametrize("path", sorted(PAGES.iterdir()), ids=lambda path: path.name)
def test_groff_has_no_complaint(path: Path) -> None:
    text = formatted(path)
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{heading}\n" in text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.names[0])
def test_every_command_and_option_is_there(program: commandline.Command) -> None:
    (path,) = PAGES.glob(f"{program.names[0]}.*")
    text = formatted(path)
    for command in (program, *program.commands):
        assert any(line.strip().startswith(command.names[0]) for line in text.splitlines())
        for option in command.options:
            assert f"{option.strings[-1]}" in text
            assert "--help" in option.strings or " ".join(option.help.split())[:60] in text


def test_text_that_looks_like_a_request() -> None:
    option = commandline.Option(("-x",), "", (), ".conf is 'read' \\ back")
    program = commandline.Command(("x",), "", "'quoted'\n\n.dot", "", "", (option,), (), ())
    page = manpages.Page(1, "x", {}, "x(1)")
    text = manpages.render(program, page)
    assert "\n\\&.conf is \\(aqread\\(aq \\e back\n" in text
    assert "\n\\(aqquoted\\(aq\n.PP\n\\&.dot\n" in text
