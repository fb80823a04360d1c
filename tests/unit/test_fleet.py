# SPDX-License-Identifier: Apache-2.0
"""The operator's side without a server, and what the page about fleets says of tests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from northstar.fleet import Fleet, cli

ROOT = Path(__file__).parents[2]
TESTS = [*ROOT.glob("tests/unit/test_agent*.py"), *ROOT.glob("tests/fleet/test_*.py"), Path(__file__)]


def test_each_test_of_the_page_is_there() -> None:
    text = (ROOT / "docs/fleet.md").read_text()
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", text))
    found = {name for path in (*TESTS, ROOT / "tests/unit/test_delta.py") for name in names_in(path)}
    assert len(named) > 20 and named <= found, named - found


def names_in(path: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)


def test_devices_that_do_not_poll_are_overdue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that is dead stays `pending` for the server; the operator sees that it does not poll."""

    def every(_: Any, path: str, **__: Any) -> Iterator[dict[str, Any]]:
        assert path == "/targets"
        for name, overdue in (("alive", False), ("dead", True)):
            poll = {"lastRequestAt": 1_700_000_000_000, "overdue": overdue}
            yield {"controllerId": name, "updateStatus": "pending", "pollStatus": poll}
        yield {"controllerId": "new", "updateStatus": "registered"}

    monkeypatch.setattr("northstar.fleet.api.Api.every", every)
    monkeypatch.setattr("northstar.fleet.api.Api.get", lambda *_: {"npk.hello": "1.0.0", "arch": "x"})
    assert cli.main(["--url", "http://127.0.0.1:9", "devices"]) == 0
    when = time.strftime("%F %T", time.localtime(1_700_000_000))
    rows = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["DEVICE", "STATE", "LAST POLL", "VERSIONS"],
        ["alive", "pending", when, "hello:1.0.0"],
        ["dead", "pending", f"{when} overdue", "hello:1.0.0"],
        ["new", "registered", "never", "hello:1.0.0"],
    ]


def test_the_newest_set_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def get(_: Any, path: str, **query: Any) -> Any:
        asked.append(query)
        return {"content": [{"id": 7}], "total": 1000}

    monkeypatch.setattr("northstar.fleet.api.Api.get", get)
    with Fleet("http://127.0.0.1:9", "admin", "") as fleet:
        assert fleet._set_id("hello") == 7
    assert asked == [{"q": "name==hello", "limit": 1, "sort": "id:DESC"}]
