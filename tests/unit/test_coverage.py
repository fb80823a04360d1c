# SPDX-License-Identifier: Apache-2.0
"""Every field of the manifest has a test that looks from inside a container, every requirement one at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from northstar import manifest
from northstar.errors import ManifestError
from northstar.sextant import schema
from tests import coverage

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MINIMAL = {"name": "a", "version": "1.0.0", "uid": 1, "gid": 1}


def test_every_field_has_a_test() -> None:
    known = coverage.marks()
    missing = [field for field in coverage.leaves(schema.fields()) if not coverage.tests_of(field, known)]
    assert not missing


def test_marks_name_existing_fields() -> None:
    assert set(coverage.marks()) <= set(schema.fields())


def test_table_is_current() -> None:
    """Run `python3 -m tests.coverage > tests/coverage.md`."""
    assert (REPOSITORY / "tests/coverage.md").read_text() == coverage.table(schema.fields())


def test_every_requirement_has_a_test() -> None:
    """And no test has a number that docs/security.md does not know."""
    assert coverage.requirements().keys() == coverage.documented()


def test_schema_is_current() -> None:
    """Run `sextant schema > docs/manifest.schema.json`."""
    assert json.loads((REPOSITORY / "docs/manifest.schema.json").read_text()) == schema.schema()


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("examples/*/manifest.yaml")), ids=lambda p: p.parent.name
)
def test_examples_fit_the_schema(path: Path) -> None:
    stored = json.loads(manifest.to_text(manifest.parse(path.read_bytes())))
    jsonschema.validate(stored, schema.schema())


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 0},
        {"nmae": "a"},
        {"name": "a b"},
        {"init": ""},
        {"mounts": {"/a": {"type": "bind"}}},
        {"mounts": {"/a": {"type": "bind", "host": "/a", "options": "ro"}}},
        {"mounts": {"/a": {"type": "nfs"}}},
        {"network": "guest"},
        {"seccomp": {"allow": {"read": {"args": {"index": 6, "mask": 1}}}}},
        {"capabilities": ["CAP_FLY"]},
        {"capabilities": ["CAP_KILL", "CAP_KILL"]},
        {"sched": {"policy": {"fifo": {"priority": 100}}}},
        {"rlimits": {"coffee": {"soft": 1}}},
        {"sockets": {"s": {"type": "raw", "mode": 0}}},
        {"console": {"permissions": ["everything"]}},
        {"io": {"stdout": "pipe"}},
        {"selinux": {"exec": "a b"}},
        {"autostart": "maybe"},
        {"cgroups": {"memory": {"memory_hard_limit": "1MB"}}},
        {"custom": {"northstar": {"restart": "sometimes"}}},
        {"custom": {"northstar": {"restart": {"delay": 5}}}},
        {"custom": {"northstar": {"watchdog": {"signal": "ABRT"}}}},
        {"custom": {"northstar": {"health": "check"}}},
        {"custom": {"northstar": {"after": {"database": "up"}}}},
        {"custom": {"northstar": {"fdstore": 129}}},
        {"custom": {"northstar": {"floor": 1}}},
        {"custom": {"northstar": {"floor": "1.0"}}},
    ],
    ids=str,
)
def test_schema_and_parser_refuse_the_same(fields: dict[str, Any]) -> None:
    text = json.dumps({"init": "/a", **MINIMAL, **fields})
    with pytest.raises(ManifestError):
        manifest.parse(text.encode())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(text), schema.schema())


@pytest.mark.parametrize(
    "section",
    [
        {"restart": {"policy": "always", "delay": 0, "window": "5m"}, "watchdog": "10s", "bind": "bus"},
        {"ready": {"by": "notify", "timeout": "1m 30s"}, "stop": {"signal": "SIGINT"}, "health": ["/check"]},
        {"ready": "exit", "after": {"bus": "started"}, "after_timeout": "1m", "fdstore": 1, "others": "too"},
        {"floor": "0.0.1-rc.1"},
    ],
    ids=str,
)
def test_schema_and_parser_accept_the_same(section: dict[str, Any]) -> None:
    text = json.dumps({"init": "/a", **MINIMAL, "custom": {"northstar": section}})
    manifest.parse(text.encode())
    jsonschema.validate(json.loads(text), schema.schema())
