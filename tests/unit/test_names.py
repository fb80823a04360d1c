# SPDX-License-Identifier: Apache-2.0
"""Names, versions, requirements, durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import sizes
from northstar.names import Container, Version, VersionReq, check_name


@pytest.mark.parametrize("name", ["a", "hello-world", "A.b_c-1", "0", "x" * 1024])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", "a\n", "x" * 1025, "a:b"]
)
def test_bad_names(name: str) -> None:
    """S-25."""
    with pytest.raises(ValueError, match="invalid name"):
        check_name(name)


@pytest.mark.parametrize(
    "text", ["0.9", "v0.9.2", "00.9.2", "0.9.2.1", " 0.9.2", "0.9.2 ", "", "1.0.18446744073709551616"]
)
def test_bad_versions(text: str) -> None:
    with pytest.raises(ValueError, match="invalid version"):
        Version.parse(text)


def test_versions_drop_pre_release_and_build() -> None:
    assert str(Version.parse("1.2.3-pre.1+build.5")) == "1.2.3"


@given(st.tuples(*[st.integers(0, 2**64 - 1)] * 3))
def test_version_round_trip(parts: tuple[int, int, int]) -> None:
    assert Version.parse(".".join(map(str, parts))) == parts


@pytest.mark.parametrize(
    ("requirement", "good", "bad"),
    [
        (">=0.0.2", ["0.0.2", "1.0.0"], ["0.0.1"]),
        ("0.0.1", ["0.0.1"], ["0.0.2", "0.1.0"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["2.0.0", "1.2.2"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
        ("~1.2.3", ["1.2.9"], ["1.3.0"]),
        ("=1.2.3", ["1.2.3"], ["1.2.4"]),
        (">1.0.0, <2.0.0", ["1.0.1", "1.9.9"], ["1.0.0", "2.0.0"]),
        ("*", ["0.0.0", "9.9.9"], []),
        ("1.*", ["1.0.0", "1.9.0"], ["2.0.0"]),
        ("<=2", ["2.9.9", "0.0.1"], ["3.0.0"]),
    ],
)
def test_requirements(requirement: str, good: list[str], bad: list[str]) -> None:
    parsed = VersionReq.parse(requirement)
    assert all(parsed.matches(Version.parse(text)) for text in good)
    assert not any(parsed.matches(Version.parse(text)) for text in bad)


def test_bare_requirement_prints_with_a_caret() -> None:
    assert str(VersionReq.parse("0.0.1")) == "^0.0.1"
    assert str(VersionReq.parse(">=0.0.1")) == ">=0.0.1"


def test_container() -> None:
    assert str(Container.parse("a:1.2.3-x")) == "a:1.2.3"
    for text in ("a", "a:", ":1.0.0", "a:1", "a:b:1.0.0"):
        with pytest.raises(ValueError, match="invalid"):
            Container.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1h 5m", 3900),
        (" 5 ms ", 0.005),
        ("1 0s", 10),
        ("0s", 0),
        ("1M", 2_630_016),
        ("2years", 63_115_200),
        ("3usec", 3e-6),
        ("1day 1week", 691_200),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert sizes.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "s", "1.5s", "-1s", "1 parsec", "10s 5", "µs"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        sizes.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("+5", 5),
        ("100MB", 100_000_000),
        ("1MiB", 1 << 20),
        ("1.5 KiB", 1536),
        (".5k", 500),
        ("1.k", 1000),
        ("1 000MB", 1_000_000),
        ("2pib", 2 << 50),
        ("99999999999999999999PiB", 2**64 - 1),
    ],
)
def test_byte_sizes(text: str, size: int) -> None:
    assert sizes.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "1.5", "1.5.2k", "1M ", "-1k", "1E", "1EB", "k", "1e3", "0x10"])
def test_bad_byte_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        sizes.parse_bytes(text)
