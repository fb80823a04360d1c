# SPDX-License-Identifier: Apache-2.0
"""Which integration tests see which manifest field from inside a container, and which requirement they prove.

    python3 -m tests.coverage > tests/coverage.md

Fields are named by the mark `covers` of a test; a field covers what lies below it. Requirements are those
numbers of docs/security.md, S-nn and ESR-01-nnn, that a test names in its docstring or a comment.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TESTS = ROOT / "integration"
SECURITY = ROOT.parent / "docs/security.md"
_NUMBER = re.compile(r"\b(?:S-\d\d|ESR-01-\d{3})\b")


def marks() -> dict[str, set[str]]:
    """Field -> tests."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(TESTS.glob("test_*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef):
                for field in _covered(function):
                    found[field].add(f"{path.stem}::{function.name}")
    return dict(found)


def _covered(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.covers":
            for argument in decorator.args:
                yield ast.literal_eval(argument)


def tests_of(field: str, known: dict[str, set[str]]) -> set[str]:
    """The tests of a field or of a field above it."""
    parts = field.split(".")
    return set().union(*(known.get(".".join(parts[:n]), set()) for n in range(1, len(parts) + 1)))


def leaves(fields: list[str]) -> list[str]:
    """Fields that have none below them."""
    return [field for field in fields if not any(other.startswith(f"{field}.") for other in fields)]


def documented() -> set[str]:
    """The numbers of docs/security.md that stand at the beginning of a line of a table."""
    heads = re.findall(r"^\| ([^|]*) \|", SECURITY.read_text(), re.MULTILINE)
    return set(_NUMBER.findall(" ".join(heads)))


def requirements() -> dict[str, set[str]]:
    """Number -> tests, of all kinds; a whole module if its docstring has the number."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(ROOT.rglob("test_*.py")):
        text, module = path.read_text(), f"{path.parent.name}/{path.stem}"
        tree = ast.parse(text)
        for number in _NUMBER.findall(ast.get_docstring(tree) or ""):
            found[number].add(module)
        for function in tree.body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _NUMBER.findall(ast.get_source_segment(text, function) or ""):
                    found[number].add(f"{module}::{function.name}")
    return dict(found)


def table(fields: list[str]) -> str:
    """The Markdown text."""
    return _fields(fields) + "\n" + _requirements()


def _requirements() -> str:
    rows = [f"| {number} | {', '.join(sorted(names))} |" for number, names in sorted(requirements().items())]
    head = (
        "# Requirements and their tests\n\nThe numbers are those of docs/security.md.\n\n"
        "| number | tests in `tests` |\n|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _fields(fields: list[str]) -> str:
    known = marks()
    rows = [f"| `{field}` | {', '.join(sorted(tests_of(field, known)))} |" for field in leaves(fields)]
    head = (
        "# Manifest fields and their tests\n\n"
        "Made by `python3 -m tests.coverage`, checked by `tests/unit/test_coverage.py`. The tests start a "
        "container\nand look from inside; they run on the host as far as it can, and on the device.\n\n"
        "| field | tests in `tests/integration` |\n|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def main() -> int:
    """Print the table."""
    from northstar.sextant import schema

    print(table(schema.fields()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
