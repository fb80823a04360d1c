# SPDX-License-Identifier: Apache-2.0
"""From text to trees: which encoding it is, what values become, and the limits of each encoding."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from northstar.errors import ManifestError
from northstar.manifest import encodings, yaml
from northstar.manifest.encodings import MAX_DEPTH, MAX_SIZE, MAX_TOML_SIZE
from northstar.manifest.tree import Map, Scalar, Tagged

DEEP = f"nested deeper than {MAX_DEPTH} levels"


def parse(text: str) -> Any:
    return encodings.parse(text.encode())


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of libyaml, and PyYAML's own, which is used where there is no libyaml."""
    if not hasattr(pyyaml, request.param):
        pytest.skip("PyYAML is without libyaml")
    monkeypatch.setattr(yaml, "_LOADER", getattr(pyyaml, request.param))


def refusal(text: str) -> str:
    with pytest.raises(ManifestError) as refused:
        parse(text)
    return str(refused.value)


# --- which encoding

JSON, TOML = {"a": 1}, {"a": {"b": 1}}
YAML = {"a": Scalar("1", 1)}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('{"a":1}', JSON),
        ('\ufeff \n\t{"a":1}', JSON),
        ("{a: 1}", YAML),
        ("a: 1", YAML),
        ("# comment\n\na: 1", YAML),
        ("- a = 1", [Scalar("a = 1", "a = 1")]),
        ("a: b = 1", {"a": Scalar("b = 1", "b = 1")}),
        ("a = 1", JSON),
        ("\n  # comment\n\n  a=1", JSON),
        ('"a" = 1', JSON),
        ("'a' = 1", JSON),
        ("a.b = 1", TOML),
        ("a-b_c = 1", {"a-b_c": 1}),
        ("[a]\nb = 1", TOML),
        ("[[a]]\nb = 1", {"a": [{"b": 1}]}),
        ("\ufeffa = 1", JSON),
    ],
)
def test_which_encoding(text: str, tree: Any) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": }, ]', "invalid JSON: Expecting value: line 1 column 7 (char 6)"),
        ("{a: [}", "invalid JSON: Expecting property name"),
        ("a: [", "invalid YAML: "),
        ("a = [", "invalid TOML: "),
        ("", "missing field name: the manifest is empty"),
        ("# comment\n", "missing field name: the manifest is empty"),
        ('{"a":NaN}', "invalid JSON: NaN is no JSON value"),
        ('{"a":-Infinity}', "invalid JSON: -Infinity is no JSON value"),
    ],
)
def test_errors_are_those_of_the_encoding(text: str, problem: str) -> None:
    assert refusal(text).startswith(problem)


def test_text_that_is_not_utf_8() -> None:
    with pytest.raises(ManifestError, match=r"^the manifest is not UTF-8: "):
        encodings.parse(b'{"a":"\xff"}')


# --- limits


def test_size() -> None:
    text = b'{"a":1}'.ljust(MAX_SIZE)
    assert MAX_SIZE == 1 << 20
    assert encodings.read(io.BytesIO(text)) == text
    assert encodings.parse(text) == JSON
    longer = encodings.read(io.BytesIO(text * 2))
    assert len(longer) == MAX_SIZE + 1
    with pytest.raises(ManifestError, match=rf"^the manifest has more than {MAX_SIZE} bytes$"):
        encodings.parse(longer)


def test_size_of_toml() -> None:
    """Characters, not bytes."""
    text = "a = 1\n#".ljust(MAX_TOML_SIZE, "\u00e4")
    assert MAX_TOML_SIZE == 1 << 16
    assert parse(text) == JSON
    assert (
        refusal(text + " ") == f"the manifest has {MAX_TOML_SIZE + 1} characters, the limit for TOML is 65536"
    )


def lists(depth: int, inner: str = "") -> str:
    return "[" * depth + inner + "]" * depth


def maps(depth: int, inner: str = "1") -> str:
    return '{"a": ' * depth + inner + "}" * depth


@pytest.mark.parametrize(
    ("text", "leaf", "deeper"),
    [
        (maps(MAX_DEPTH, "@"), "1", "[1]"),
        (maps(1, lists(MAX_DEPTH - 1, "@")), "1", "[1]"),
        (maps(2, lists(MAX_DEPTH - 3, maps(1, "@"))), "1", '{"b": 1}'),
        (maps(1, "[1, " + lists(MAX_DEPTH - 2, "@") + "]"), "1", "[[]]"),
        # What is empty has no level of its own.
        (maps(1, lists(MAX_DEPTH - 1, "@")), "[]", "[[]]"),
        (maps(MAX_DEPTH, "@"), "{}", '{"b": {}}'),
    ],
)
def test_depth_of_json(text: str, leaf: str, deeper: str) -> None:
    deepest = text.replace("@", leaf)
    assert parse(deepest) == json.loads(deepest)
    assert refusal(text.replace("@", deeper)) == DEEP


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900])
@pytest.mark.parametrize("start", ["", "a = ", "a: "])
def test_too_deep(start: str, depth: int) -> None:
    assert refusal(start + (maps(depth) if not start else lists(depth, "1"))) == DEEP


@pytest.mark.parametrize(
    ("deepest", "deeper"),
    [
        (f"a = {lists(MAX_DEPTH - 1, '1')}", f"a = {lists(MAX_DEPTH, '1')}"),
        (f"{'.'.join('a' * MAX_DEPTH)} = 1", f"{'.'.join('a' * (MAX_DEPTH + 1))} = 1"),
        # Dots of comments and numbers count, up to twice as many; those of strings do not.
        (f"a = 1 #{'.' * 2 * MAX_DEPTH}", f"a = 1 #{'.' * (2 * MAX_DEPTH + 1)}"),
        (f"a = '{'.' * 99}' #{'.' * 2 * MAX_DEPTH}", f"a = '{'.' * 99}' #{'.' * (2 * MAX_DEPTH + 1)}"),
        (f'a = "{"." * 99}" #{"." * 2 * MAX_DEPTH}', f'a = "{"." * 99}" #{"." * (2 * MAX_DEPTH + 1)}'),
        (f"a = 1 #{'.' * 64}\nb = 1 #{'.' * 64}", f"a = 1 #{'.' * 64}\nb = 1 #{'.' * 65}"),
    ],
)
def test_depth_of_toml(deepest: str, deeper: str) -> None:
    assert "a" in parse(deepest)
    assert refusal(deeper) == DEEP


@pytest.mark.parametrize("text", [maps(100_000), f"a = {lists(20_000)}"], ids=["json", "toml"])
def test_deeper_than_the_parser_can_go(text: str) -> None:
    assert refusal(text) == DEEP


@pytest.mark.usefixtures("parser")
def test_depth_of_yaml() -> None:
    assert parse("a: " + lists(MAX_DEPTH - 1))
    assert refusal("a: " + lists(MAX_DEPTH)) == DEEP
    assert yaml.parse("[[]]", 2) == [[]]
    for text in ("[[[]]]", "[[{}]]", "[[1, []]]", "[{a: [1]}]"):
        with pytest.raises(ManifestError, match=r"^nested deeper than 2 levels$"):
            yaml.parse(text, 2)
    assert yaml.parse("[[1], [1], {a: 1}]", 2)


# --- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("9" * 38, 10**38 - 1),
        ("1" + "0" * 38, 1e38),
        ("9" * 39, 1e39),
        ("-" + "9" * 37, 1 - 10**37),
        ("9" * 308, 1e308),
        ("9" * 310, "9" * 310),
        ("-" + "9" * 5000, "-" + "9" * 5000),
        ("1.5", 1.5),
        ("1e308", 1e308),
        ("1e400", "1e400"),
        ("-1.0e400", "-1.0e400"),
        ("1e-400", 0.0),
    ],
)
def test_numbers_of_json(text: str, value: Any) -> None:
    """Integers of up to 38 digits, then floats, then text."""
    for found in (parse(f'{{"a":{text}}}')["a"], parse(f'{{"a":[[{text}]]}}')["a"][0][0]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_of_toml(sign: str) -> None:
    largest, next_one = f"{sign}{(1 << 64) - 1}", f"{sign}{1 << 64}"
    assert parse(f"a = {largest}") == {"a": int(largest)}
    assert parse(f"a = {{ b = [{largest}] }}") == {"a": {"b": [int(largest)]}}
    for text in (f"a = {next_one}", f"a = [{{ b = {next_one} }}]", f"[[a]]\nb = {next_one}"):
        assert refusal(text) == "an integer has 65 bits, at most 64 are possible"


@pytest.mark.parametrize("text", ["inf", "+inf", "-inf", "nan", "1.5", "1e308", "-1e308", "1e-400"])
def test_floats_of_toml(text: str) -> None:
    found = parse(f"a = {text}")["a"]
    assert repr(found) == repr(float(text))


def test_floats_that_are_too_large_for_toml() -> None:
    assert refusal("a = -1e309") == "invalid TOML: -1e309 is too large for a float"
    longest = "9" * 310 + ".0"
    assert refusal(f"a = {longest}") == f"invalid TOML: {'9' * 40} is too large for a float"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *(
            (word, word)
            for word in ("yes", "no", "on", "off", "nULL", "tRUE", "y", "1:20", "2020-01-01", "1_0")
        ),
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("-12", -12),
        ("007", "007"),
        ("0x1F", 31),
        ("-0xff", -255),
        ("0o17", 15),
        ("0b101", 5),
        ("0b2", "0b2"),
        ("0o8", "0o8"),
        ("0xg", "0xg"),
        ("0X1", "0X1"),
        ("--1", "--1"),
        ("9" * 38, 10**38 - 1),
        ("-" + "9" * 38, 1 - 10**38),
        ("9" * 39, 1e39),
        ("9" * 400, "9" * 400),
        ("0x" + "f" * 36, (1 << 144) - 1),
        ("0x" + "f" * 37, "0x" + "f" * 37),
        ("0o" + "7" * 37, "0o" + "7" * 37),
        ("0b" + "1" * 37, "0b" + "1" * 37),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("+1.5e3", 1500.0),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("1e", "1e"),
        (".", "."),
        ("e3", "e3"),
        ("1e309", "1e309"),
        (".inf", math.inf),
        ("+.Inf", math.inf),
        ("-.INF", -math.inf),
        ("inf", "inf"),
        ("-.nan", "-.nan"),
        ("\u0661", "\u0661"),
    ],
)
def test_plain_scalars_of_yaml(text: str, value: Any) -> None:
    found = yaml.resolve(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_no_numbers_of_yaml(text: str) -> None:
    found = yaml.resolve(text)
    assert isinstance(found, float) and math.isnan(found)


@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_integers_are_the_same_in_all_encodings(number: int) -> None:
    assert yaml.resolve(str(number)) == number
    if abs(number) < 1 << 64:
        assert parse(f"a = {number}") == {"a": number}
    if len(str(number)) <= 38:
        assert parse(f'{{"a":{number}}}') == {"a": number}


# --- text, keys and tags


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff", "\\uDC00x", "\\uD83Dx"])
def test_half_surrogate_pairs(text: str) -> None:
    shown = text[:6].lower()
    for whole in (f'{{"a":["{text}"]}}', f'{{"b":{{"{text}":1}}}}'):
        assert refusal(whole) == f"invalid JSON: '{shown}' is no character"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("text", ["\\ud800", "\\udfff", "x" * 19 + "\\udc00"])
def test_half_surrogate_pairs_of_yaml(text: str) -> None:
    for whole in (f'a: "{text}"', f'"{text}": 1', f'- "\u00e4{text}"'):
        assert refusal(whole).startswith("invalid YAML: ")


def test_text_is_quoted_in_errors_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "_LOADER", pyyaml.SafeLoader)
    text = "\\ud800" + "x" * 19
    assert refusal(f'a: "{text}yyy"') == f"invalid YAML: '{text}' is no text"


def test_text_that_looks_like_half_a_surrogate_pair() -> None:
    assert parse(r'{"a":"\\ud800","b":"\ud83d\ude00","c":"\u00e4"}') == {
        "a": r"\ud800",
        "b": "\U0001f600",
        "c": "\u00e4",
    }


@pytest.mark.parametrize(
    "text", ['{"a":1,"b":2,"a":3,"c":4,"a":5,"c":6}', "{a: 1, b: 2, a: 3, c: 4, a: 5, c: 6}"]
)
def test_keys_that_come_more_than_once(text: str) -> None:
    """The last one wins; that there are more is known."""
    found = parse(text)
    assert isinstance(found, Map)
    assert sorted(found.duplicates) == ["a", "a", "c"]
    assert {key: getattr(value, "value", value) for key, value in found.items()} == {"a": 5, "b": 2, "c": 6}


@pytest.mark.parametrize("text", ['{"a":1,"b":2}', "{a: 1, b: 2}", "a = 1\nb = 2"])
def test_keys_that_come_once(text: str) -> None:
    found = parse(text)
    assert getattr(found, "duplicates", ()) == ()
    assert getattr(found, "yaml", False) is (text[:2] == "{a")


ONE, TEXT = Scalar("1", 1), Scalar("1", "1")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", ONE),
        ("'1'", TEXT),
        ('"1"', TEXT),
        ("|-\n 1", TEXT),
        (">-\n 1", TEXT),
        ("!!str 1", TEXT),
        ("! 1", ONE),
        ("! '1'", TEXT),
        ("!!int '1'", TEXT),
        ("!x 1", Tagged("x", ONE)),
        ("!x '1'", Tagged("x", TEXT)),
        ("!x", Tagged("x", Scalar("", None))),
        ("!x [1]", Tagged("x", [ONE])),
        ("!x {b: 1}", Tagged("x", {"b": ONE})),
        ("!!seq [1]", [ONE]),
        ("!!map {b: 1}", {"b": ONE}),
        ("!<tag:else.org,2002:x> 1", Tagged("tag:else.org,2002:x", ONE)),
        ("{? !x b : 1}", None),
        ("{? [b] : 1}", None),
        ("{? {b: 1} : 1}", None),
        ("{1: 1}", {"1": ONE}),
        ("{'\u00e4': \u00e4}", {"\u00e4": Scalar("\u00e4", "\u00e4")}),
    ],
)
def test_values_of_yaml(text: str, value: Any) -> None:
    if value is None:
        assert refusal(f"a: {text}") == "the key of a map has to be a scalar"
        return
    assert parse(f"a: {text}") == {"a": value}


@pytest.mark.usefixtures("parser")
def test_aliases_of_yaml() -> None:
    found = parse("a: &x 1\nb: &y [*x]\nc: {d: *y, e: *x}\nf: &x 2\ng: *x\n*x : 3\n")
    two = Scalar("2", 2)
    assert found == {
        "a": ONE,
        "b": [ONE],
        "c": {"d": [ONE], "e": ONE},
        "f": two,
        "g": two,
        "2": Scalar("3", 3),
    }
    assert refusal("a: *x") == "unknown YAML anchor 'x'"
    assert refusal("a: &x [*x]") == "unknown YAML anchor 'x'"


@pytest.mark.usefixtures("parser")
def test_documents_of_yaml() -> None:
    assert parse("---\na: 1\n...\n") == YAML
    assert refusal("a: 1\n---\na: 1\n") == "more than one YAML document"


def test_nodes_of_yaml() -> None:
    """An alias is as many nodes as it stands for."""

    def nodes(count: int) -> str:
        thousand = f"- &a [{', '.join(['x'] * 999)}]\n"
        return thousand + "- *a\n" * (count // 1000 - 1) + "- x\n" * (count % 1000 - 1)

    for small in (1001, 2500, 99_999, yaml.MAX_NODES - 1):
        assert len(parse(nodes(small))) == small // 1000 + small % 1000 - 1
    assert parse(nodes(99_999) + "- x\n")
    for text in (nodes(99_999) + "- x\n- x\n", nodes(99_999) + "- {a: 1}\n", nodes(99_001) + "- *a\n"):
        assert refusal(text) == f"more than {yaml.MAX_NODES} YAML nodes"
    assert parse(nodes(98_001) + "- {a: [*a, 1]}\n")


def test_tag_directives_of_yaml() -> None:
    def directives(count: int) -> str:
        return "".join(f"%TAG !t{n}! x\n" for n in range(count)) + "---\na: 1\n"

    assert parse(directives(yaml.MAX_TAG_DIRECTIVES)) == YAML
    assert refusal(directives(yaml.MAX_TAG_DIRECTIVES + 1)) == "more than 32 YAML tag directives"


def test_errors_of_yaml_are_in_one_line() -> None:
    assert "\n" not in refusal("a: [\n  b\n  c: d: e\n")
