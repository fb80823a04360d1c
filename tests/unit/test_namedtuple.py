# SPDX-License-Identifier: Apache-2.0
"""The named tuples of the runtime are those of the standard library."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from northstar.namedtuple import NamedTuple


class Ours(NamedTuple):
    """With and without defaults."""

    name: str
    size: int = 3
    rest: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        return 2 * self.size

    @classmethod
    def small(cls) -> Ours:
        return cls("small", 1)


class Theirs(typing.NamedTuple):
    name: str
    size: int = 3
    rest: tuple[int, ...] = ()


class Nothing(NamedTuple):
    """No field."""


class Inherited(Ours):
    """Another name."""


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("a",), {}),
        (("a", 1), {"rest": (2,)}),
        (("a", 1, (2,)), {}),
        ((), {"size": 5, "name": "b"}),
        ((), {}),
        ((), {"size": 5}),
        (("a", 1, (), 4), {}),
        (("a",), {"name": "b"}),
        (("a",), {"other": 1}),
    ],
)
def test_constructor(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    def made(kind: Any) -> Any:
        try:
            return tuple(kind(*values, **named))
        except TypeError:
            return TypeError

    for _ in range(2):  # the first one compiles the constructor
        assert made(Ours) == made(Theirs)


def test_any_name_of_a_field() -> None:
    class Odd(NamedTuple):
        cls: int
        new: int
        tuple: int
        self: int = 4

    assert Odd(cls=1, new=2, tuple=3) == (1, 2, 3, 4)
    assert Odd(1, 2, 3)._replace(new=5, cls=6) == (6, 5, 3, 4)


def test_a_tuple() -> None:
    one: Any = Ours("a", rest=(1, 2))
    assert one == ("a", 3, (1, 2)) == Theirs("a", rest=(1, 2))
    assert hash(one) == hash(("a", 3, (1, 2)))
    name, size, rest = one
    assert (name, size, rest) == (one.name, one.size, one.rest) == (one[0], one[1], one[2])
    assert one < Ours("b") and isinstance(one, tuple)
    assert (one.double, Ours.small()) == (6, ("small", 1, ()))
    assert Nothing() == () and not Nothing()


def test_an_instance_is_only_a_tuple() -> None:
    one: Any = Ours("a")
    with pytest.raises(AttributeError):
        one.name = "b"
    with pytest.raises(AttributeError):
        one.other = "b"
    assert not hasattr(Inherited("a"), "__dict__")


def test_names() -> None:
    one: Any = Ours("a")
    assert repr(one) == repr(Theirs("a")).replace("Theirs", "Ours")
    assert repr(Nothing()) == "Nothing()"
    assert Ours._fields == Theirs._fields
    assert one._asdict() == Theirs("a")._asdict()
    changed = one._replace(size=9)
    assert changed == ("a", 9, ()) and type(changed) is Ours
    with pytest.raises(TypeError, match="Ours has no field other"):
        one._replace(size=1, other=1)
    match one:
        case Ours(name, size=size):
            assert (name, size) == ("a", 3)
        case _:
            pytest.fail("no match")


def test_copies() -> None:
    one = Inherited("a", 1)
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other == one and type(other) is Inherited


def test_types_of_one_name_differ() -> None:
    assert Inherited("a") == Ours("a")
    assert (type(Inherited("a")), type(Ours("a"))) == (Inherited, Ours)


def test_order_of_defaults() -> None:
    kind: Any = type(Nothing)
    with pytest.raises(TypeError, match="Wrong: a field without a default follows one with a default"):
        kind("Wrong", (NamedTuple,), {"__annotations__": {"a": "int", "b": "int"}, "a": 1})
