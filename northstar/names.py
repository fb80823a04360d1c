# SPDX-License-Identifier: Apache-2.0
"""Names, versions, version requirements and container identities."""

from __future__ import annotations

import re
from functools import lru_cache

from northstar.namedtuple import NamedTuple
from northstar.sizes import MAX_U64

MAX_NAME = 1024
MAX_COMPARATORS = 32

_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._-]*", re.ASCII)
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PRE = rf"(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
_BUILD = r"(?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
# Compiled when they are needed, which is seldom.
_VERSION = rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER}){_PRE}{_BUILD}"
_COMPARATOR = (
    rf"(?P<op>=|>=|>|<=|<|~|\^|) *(?P<major>{_NUMBER})"
    rf"(?:\.(?P<minor>{_NUMBER}|[*xX])(?:\.(?P<patch>{_NUMBER}|[*xX]){_PRE}{_BUILD})?)?"
)


def check_name(text: str) -> str:
    """`text` if it is a legal name, else ValueError.

    Names are used as path components and command line arguments, so a leading `.` or `-` is refused.
    """
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise ValueError(
            f"invalid name {text[:80]!r}: 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, "
            "the first one neither . nor -"
        )
    return text


class Version(NamedTuple):
    """A version; pre-release and build parts are checked and dropped when parsing."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """From `major.minor.patch[-pre][+build]` (semver.org); ValueError."""
        parts = text.split(".") if text.isascii() else []
        if len(parts) != 3 or not all(part.isdigit() and (part[0] != "0" or part == "0") for part in parts):
            match = re.fullmatch(_VERSION, text, re.ASCII)
            if match is None:
                raise ValueError(f"invalid version {text[:80]!r}: not of the form major.minor.patch")
            parts = [match[1], match[2], match[3]]
        numbers = [int(part) for part in parts]
        if max(numbers) > MAX_U64:
            raise ValueError(f"invalid version {text[:80]!r}: a part exceeds 64 bits")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Container(NamedTuple):
    """Identity of a container."""

    name: str
    version: Version

    @classmethod
    def parse(cls, text: str) -> Container:
        """From `name:version`; ValueError."""
        return _container(text)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@lru_cache(maxsize=64)
def _container(text: str) -> Container:
    """Whoever works with a container names it again and again."""
    name, colon, version = text.partition(":")
    if not colon:
        raise ValueError(f"invalid container {text[:80]!r}: not of the form name:version")
    return Container(check_name(name), Version.parse(version))


class _Comparator(NamedTuple):
    """One condition. `low` and `high` bound the versions that match: low <= version < high."""

    text: str
    low: tuple[int, int, int]
    high: tuple[int, int, int] | None

    def matches(self, version: Version) -> bool:
        return self.low <= version and (self.high is None or version < self.high)


class VersionReq:
    """A version requirement: comparators that must all match."""

    __slots__ = ("_comparators",)

    def __init__(self, comparators: tuple[_Comparator, ...]) -> None:
        self._comparators = comparators

    @classmethod
    def parse(cls, text: str) -> VersionReq:
        """From comparators separated by commas, or `*`; ValueError. docs/manifest.md has the table."""
        if text.strip(" ") in ("*", "x", "X"):
            return cls(())
        parts = text.split(",")
        if len(parts) > MAX_COMPARATORS:
            raise ValueError(f"invalid version requirement: more than {MAX_COMPARATORS} comparators")
        return cls(tuple(_parse_comparator(part.strip(" "), text) for part in parts))

    def matches(self, version: Version) -> bool:
        """Whether all comparators accept `version`."""
        return all(comparator.matches(version) for comparator in self._comparators)

    def __str__(self) -> str:
        return ", ".join(comparator.text for comparator in self._comparators) or "*"

    def __repr__(self) -> str:
        return f"VersionReq({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionReq) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _parse_comparator(part: str, whole: str) -> _Comparator:
    match = re.fullmatch(_COMPARATOR, part, re.ASCII)
    if match is None:
        raise ValueError(f"invalid version requirement {whole[:80]!r}")
    numbers: list[int] = []
    wildcard = False
    for name in ("major", "minor", "patch"):
        value = match[name]
        if value is None:
            break
        if value in "*xX":
            wildcard = True
        elif wildcard:
            raise ValueError(f"invalid version requirement {whole[:80]!r}: a number after a wildcard")
        else:
            numbers.append(int(value))
    if max(numbers) > MAX_U64:
        raise ValueError(f"invalid version requirement {whole[:80]!r}: a part exceeds 64 bits")
    if match["pre"] is not None and len(numbers) < 3:
        raise ValueError(f"invalid version requirement {whole[:80]!r}: a pre-release needs three numbers")
    operator = match["op"] or ("=" if wildcard else "^")
    dotted = ".".join(map(str, numbers))
    suffix = f"-{match['pre']}" if match["pre"] else ""
    text = f"{dotted}.*" if wildcard and not match["op"] else f"{operator}{dotted}{suffix}"
    low, high = _bounds(operator, numbers, match["pre"] is not None)
    return _Comparator(text, low, high)


def _bounds(
    operator: str, numbers: list[int], pre_release: bool
) -> tuple[tuple[int, int, int], tuple[int, int, int] | None]:
    """The half-open interval that a comparator accepts. A pre-release is ordered below its release."""
    exact = _fill(numbers)
    after = _next(numbers)
    if pre_release:
        # No container has a pre-release version: 1.2.3-alpha lies just below 1.2.3.
        after = exact
    if operator == "=":
        return exact, after
    if operator == ">":
        return after, None
    if operator == ">=":
        return exact, None
    if operator == "<":
        return (0, 0, 0), exact
    if operator == "<=":
        return (0, 0, 0), after
    if operator == "~":
        return exact, _next(numbers[:2])
    return exact, _next(_up_to_first_significant(numbers))


def _up_to_first_significant(numbers: list[int]) -> list[int]:
    """The numbers that `^` keeps fixed: up to the first one that is not zero."""
    for index, number in enumerate(numbers):
        if number:
            return numbers[: index + 1]
    return numbers


def _fill(numbers: list[int]) -> tuple[int, int, int]:
    filled = [*numbers, 0, 0][:3]
    return filled[0], filled[1], filled[2]


def _next(numbers: list[int]) -> tuple[int, int, int]:
    """The first version behind all that begin with `numbers`."""
    return _fill([*numbers[:-1], numbers[-1] + 1])
