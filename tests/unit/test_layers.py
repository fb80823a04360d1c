# SPDX-License-Identifier: Apache-2.0
"""Who may use whom: imports lead downwards only, and in no circle; those for types alone count as well."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

LAYERS: tuple[tuple[str, ...], ...] = (
    # What everything speaks of.
    ("northstar", "encoding", "errors", "namedtuple", "sizes", "text"),
    ("helptext", "kernel", "names", "supervision", "terminal"),
    ("engine", "manifest"),
    # Formats and rules, pure.
    ("delta", "npk", "programs", "protocol", "seccomp"),
    ("policy",),
    ("client", "config", "fleet", "lint", "oci"),
    # The daemon.
    ("runtime", "runtime.duration", "runtime.inheritance", "runtime.ownstream"),
    ("runtime.log",),
    ("runtime.eventloop",),
    ("runtime.controlgroups", "runtime.output", "runtime.spawning", "runtime.storage"),
    ("runtime.debugging", "updates"),
    ("runtime.supervision",),
    ("runtime.containers",),
    ("runtime.console", "runtime.monitoring"),
    ("runtime.parts",),
    ("runtime.daemon",),
    ("runtime.main",),
    # Commands.
    ("agent", "nstar", "sextant", "trial"),
    ("__main__",),
)
"""The lowest first. Those of one layer do not know each other."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


class Import(NamedTuple):
    """One module uses another."""

    source: str
    target: str


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "northstar").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports() -> list[Import]:
    return [Import(name, target) for name, path in MODULES.items() for target in targets(path)]


def targets(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {name for name in found if name in MODULES}


def room(module: str) -> str:
    """The package below `northstar` or `northstar.runtime`, or the module that stands there itself."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["runtime"] else parts[:1]) or "northstar"


def file(module: str) -> str:
    return str(MODULES[module].relative_to(ROOT))


IMPORTS = imports()


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in MODULES} == set(LEVEL)


@pytest.mark.parametrize("source", sorted({room(module) for module in MODULES}))
def test_imports_lead_downwards(source: str) -> None:
    upwards = [
        f"{file(used.source)} uses {file(used.target)}"
        for used in IMPORTS
        if room(used.source) == source != room(used.target) and LEVEL[room(used.target)] >= LEVEL[source]
    ]
    assert not upwards, "\n".join(upwards)


def test_no_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for used in IMPORTS:
        graph[used.source].add(used.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle: " + " uses ".join(file(module) for module in reversed(error.args[1])))
