# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md: the files and functions that a start passes are there, and each calls the next."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/architecture.md").read_text()
ROW = re.compile(r"\| (\d+) \| `([^`]+)` \| `([^`]+)` \| [^|]+ \| (\d*) ?\|")
FILES = sorted(set(re.findall(r"`([a-z_/]+\.(?:py|c|h))`", TEXT)))
ROOMS = sorted(
    set(
        re.findall(
            r"`((?:runtime|client|config|lint|oci|npk|protocol|seccomp|programs|manifest|engine|kernel|nstar|sextant|trial)/(?:[a-z]+/)?)`",
            TEXT,
        )
    )
)


class Step(NamedTuple):
    number: int
    file: Path
    function: str
    caller: int | None


def steps() -> list[Step]:
    section = TEXT.partition("## The way of a start request")[2].partition("\n## ")[0]
    return [
        Step(int(number), ROOT / "northstar" / file, function, int(caller) if caller else None)
        for number, file, function, caller in ROW.findall(section)
    ]


STEPS = steps()


def test_steps_are_counted() -> None:
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))
    assert len(STEPS) >= 15
    assert sum(step.caller is None for step in STEPS) == 2


def test_files_and_rooms_are_named() -> None:
    assert len(FILES) >= 20
    assert len(ROOMS) >= 10


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.number}-{step.file.stem}")
def test_step(step: Step) -> None:
    text = step.file.read_text()
    defined = rf"def {step.function}\(" if step.file.suffix == ".py" else rf"\b{step.function}\("
    assert re.search(defined, text), f"{step.file} has no {step.function}"
    if step.caller is not None:
        caller = STEPS[step.caller - 1]
        # Called, or handed over to who calls it.
        assert re.search(rf"(\.|\b){step.function}[(,]", caller.file.read_text()), (
            f"{caller.file} does not use {step.function}"
        )


@pytest.mark.parametrize("name", FILES)
def test_files_are_there(name: str) -> None:
    assert any(
        (ROOT / place / name).is_file()
        for place in ("", "northstar", "northstar/runtime", "northstar/programs")
    ), name


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_say_what_they_own(name: str) -> None:
    package = ROOT / "northstar" / name / "__init__.py"
    assert ast.get_docstring(ast.parse(package.read_text()))
