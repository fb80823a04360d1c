# SPDX-License-Identifier: Apache-2.0
"""No pattern takes time by the square of what it is matched with: much of it comes from somebody else."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Iterator

import pytest

import northstar

LENGTH = 20_000
"""Characters. Their square is 400 million steps, which take seconds."""
LIMIT = 0.5
RUNS = " \n0a.-:\"'[]{}/=,%<~"
HEADS = ("", "version:", "1.0.0", "1 ", "12 [", "tcp://", "unix:", "/a ", '"', "-", "a.")
ENDS = ("", "!", " ", "\n", '"')


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """All patterns for text that modules have."""
    for module in pkgutil.walk_packages(northstar.__path__, "northstar."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                yield f"{module.name}.{name}", value


FOUND = dict(patterns())


def test_there_are_patterns() -> None:
    assert len(FOUND) > 10


@pytest.mark.parametrize("name", FOUND)
def test_matching_takes_linear_time(name: str) -> None:
    pattern = FOUND[name]
    pairs = ["".join(pair) for pair in itertools.permutations(" 0a.-:", 2)]
    for head, run, end in itertools.product(HEADS, (*RUNS, *pairs), ENDS):
        text = head + run * (LENGTH // len(run)) + end
        began = time.process_time()
        pattern.match(text)
        pattern.fullmatch(text)
        assert time.process_time() - began < LIMIT, (head, run, end)
