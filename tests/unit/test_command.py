# SPDX-License-Identifier: Apache-2.0
"""What is executed: init, arguments and environment of the manifest and of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from northstar.errors import InvalidArguments, StartContainerResource
from northstar.manifest import Manifest, parse
from northstar.runtime.containers import command

OURS = ["NORTHSTAR_CONTAINER=a:0.0.1", "NORTHSTAR_NAME=a", "NORTHSTAR_VERSION=0.0.1"]


def manifest(**fields: Any) -> Manifest:
    whole = {"name": "a", "version": "0.0.1", "init": "/init", "uid": 1, "gid": 1, **fields}
    return parse(json.dumps({key: value for key, value in whole.items() if value is not None}).encode())


@pytest.mark.parametrize(
    ("fields", "init", "arguments", "argv"),
    [
        ({}, None, (), ["/init"]),
        ({"args": ["x", "y"]}, None, (), ["/init", "x", "y"]),
        ({"args": ["x", "y"]}, None, ("z",), ["/init", "z"]),
        ({"args": ["x"]}, "/other", (), ["/other", "x"]),
        ({}, "/other", ("z",), ["/other", "z"]),
        ({}, "<INIT>-debug", (), ["/init-debug"]),
        ({"init": None, "uid": 1}, "/other", (), ["/other"]),
        ({"init": None}, "<INIT>", (), ["<INIT>"]),
    ],
)
def test_arguments(
    fields: dict[str, Any], init: str | None, arguments: tuple[str, ...], argv: list[str]
) -> None:
    assert command.command(manifest(**fields), init, arguments, {}).argv == argv


def test_nothing_to_execute() -> None:
    with pytest.raises(StartContainerResource) as caught:
        command.command(manifest(init=None), None, (), {})
    assert str(caught.value.container) == "a:0.0.1"


@pytest.mark.parametrize(
    ("of_manifest", "of_request", "env"),
    [({}, {}, []), ({"A": "1"}, {}, ["A=1"]), ({"A": "1"}, {"B": "2"}, ["B=2"]), ({}, {"B": ""}, ["B="])],
)
def test_environment(of_manifest: dict[str, str], of_request: dict[str, str], env: list[str]) -> None:
    """That of a request replaces that of the manifest; ours is always there."""
    assert command.command(manifest(env=of_manifest), None, (), of_request).env == [*env, *OURS]


def test_environment_of_a_session() -> None:
    """It is added to that of the manifest."""
    found = command.session(manifest(env={"A": "1", "B": "2"}), ("sh", "-c"), {"B": "3"})
    assert found == (["sh", "-c"], ["A=1", "B=3", *OURS])


SOCKETS = {name: {"type": "stream", "mode": 0o600} for name in ("b", "a", "c")}


@pytest.mark.parametrize("stored", [0, 1, 2, 5])
@pytest.mark.parametrize("console", [False, True])
def test_numbers_of_descriptors(stored: int, console: bool) -> None:
    """What earlier runs have left comes first, then the console, then sockets by name."""
    more: dict[str, Any] = {"console": {"permissions": ["ident"]}} if console else {}
    env = command.command(manifest(sockets=SOCKETS, **more), None, (), {}, stored).env
    first = 3 + stored
    expected = [f"NORTHSTAR_CONSOLE={first}"] if console else []
    first += console
    expected += [f"NORTHSTAR_SOCKET_{name}={first + place}" for place, name in enumerate("abc")]
    assert env == [*OURS, *expected]


# --- what a request may bring


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"": "x"}, "malformed name ''"),
        ({"A=B": "x"}, "malformed name 'A=B'"),
        ({"NORTHSTAR_NAME": "x"}, "reserved key NORTHSTAR_NAME or NORTHSTAR_VERSION"),
        ({"NORTHSTAR_CONSOLE": "x"}, "reserved key NORTHSTAR_NAME or NORTHSTAR_VERSION"),
        ({"NORTHSTAR_ANYTHING": "x"}, "reserved key NORTHSTAR_ANYTHING"),
    ],
)
def test_names_of_variables(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidArguments, match=reason):
        command.check_environment({"GOOD": "=", **environment})


@pytest.mark.parametrize("name", ["northstar_name", "NORTHSTAR", "XNORTHSTAR_NAME", "a b"])
def test_other_names(name: str) -> None:
    command.check_environment({name: "x"})


@pytest.mark.parametrize(("arguments", "variables"), [(128, 0), (0, 128), (64, 64)])
def test_number_of_arguments(arguments: int, variables: int) -> None:
    """Arguments and variables count together, init does not."""
    environment = {f"V{number}": "" for number in range(variables)}
    command.check_arguments("/init", ["x"] * arguments, environment)
    command.check_arguments(None, ["x"] * arguments, environment)
    with pytest.raises(InvalidArguments, match="129 arguments and variables together, at most 128"):
        command.check_arguments("/init", ["x"] * (arguments + 1), environment)
    with pytest.raises(InvalidArguments, match="200 arguments and variables together"):
        command.check_arguments(None, ["x"] * (200 - variables), environment)


@pytest.mark.parametrize("place", ["init", "argument", "variable"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 1024, None),
        ("ä" * 512, None),
        ("x" * 1025, "has 1025 bytes, the limit is 1024"),
        ("ä" * 513, "has 1026 bytes"),
        ("xxx\0y", "contains a NUL"),
    ],
)
def test_texts(place: str, text: str, reason: str | None) -> None:
    init = text if place == "init" else None
    arguments = ["fine", text] if place == "argument" else ["fine"]
    # NAME=value has as many bytes: two ASCII characters are left out.
    plain = text.replace("ä", "xx")
    environment = {"V": plain[2:]} if place == "variable" else {}
    if reason is None:
        command.check_arguments(init, arguments, environment)
        return
    with pytest.raises(InvalidArguments, match=reason):
        command.check_arguments(init, arguments, environment)
