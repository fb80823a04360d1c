# SPDX-License-Identifier: Apache-2.0
"""Bytes as text have one form, which is the only one that is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.protocol.base64text import from_base64, to_base64


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\0", "AA=="), (b"\0\1", "AAE="), (b"\0\1\2", "AAEC"), (b"\xfb\xff\xfe", "+//+")],
)
def test_form(data: bytes, text: str) -> None:
    assert to_base64(data) == text
    assert from_base64(text) == data


@given(st.binary(max_size=50))
def test_everything_is_read_as_it_was_written(data: bytes) -> None:
    assert from_base64(to_base64(data)) == data


@pytest.mark.parametrize("text", ["A", "AA", "AAA", "AA=", "=", "AA==\n", "AA ==", "-_-_", "AA==AA=="])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid base64: "):
        from_base64(text)


@pytest.mark.parametrize("text", ["AB==", "A/==", "AAF=", "AAH=", "AAAA="])
def test_other_text_of_the_same_bytes(text: str) -> None:
    with pytest.raises(ValueError, match=r"^base64 is not canonical$"):
        from_base64(text)
