# SPDX-License-Identifier: Apache-2.0
"""Where a console is: what is a URL, what it becomes, and how it is written again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.protocol.url import DEFAULT_PORT, ConsoleUrl


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://localhost", "localhost", 4200),
        ("tcp://localhost:", "localhost", DEFAULT_PORT),
        ("tcp://a:0", "a", 0),
        ("tcp://a:1", "a", 1),
        ("tcp://a:65535", "a", 65535),
        ("tcp://a:00000000000000000001", "a", 1),
        ("TCP://a:1", "a", 1),
        ("tcp://A.b-c_d:1", "A.b-c_d", 1),
        ("tcp://[::1]", "::1", DEFAULT_PORT),
        ("tcp://[::1]:5", "::1", 5),
        ("tcp://[fe80::A.1]:5", "fe80::A.1", 5),
        ("tcp://127.0.0.1:1/path?query#fragment", "127.0.0.1", 1),
        ("tcp://a?b:2/c", "a", DEFAULT_PORT),
        ("tcp://a:1#b/c?d", "a", 1),
        ("\0\x01 tcp://a:1 \t\x1f", "a", 1),
        ("t\ncp://a\t:\r1", "a", 1),
    ],
)
def test_ports(text: str, host: str, port: int) -> None:
    assert ConsoleUrl.parse(text) == ConsoleUrl("tcp", host, port, "")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unix:///", "/"),
        ("unix:///run/a b", "/run/a b"),
        ("unix:/run/x", "/run/x"),
        ("UNIX:///run/X", "/run/X"),
        ("unix:///a%20b?c#d", "/a%20b?c#d"),
        ("unix:////a", "//a"),
        (" unix:///a\n", "/a"),
        ("unix:///a!", "/a!"),
        ("unix:///a:1@b", "/a:1@b"),
    ],
)
def test_sockets(text: str, path: str) -> None:
    assert ConsoleUrl.parse(text) == ConsoleUrl("unix", "", 0, path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "console scheme must be tcp or unix"),
        ("tcp", "console scheme must be tcp or unix"),
        ("unix", "console scheme must be tcp or unix"),
        ("/run/x", "console scheme must be tcp or unix"),
        ("http://a", "console scheme must be tcp or unix"),
        ("udp://a", "console scheme must be tcp or unix"),
        ("unix://run/x", "a unix url has three slashes, unix:///path"),
        ("unix://a", "a unix url has three slashes, unix:///path"),
        ("unix:", "the path must be absolute"),
        ("unix://", "the path must be absolute"),
        ("unix:run/x", "the path must be absolute"),
        ("unix://?/x", "the path must be absolute"),
        ("unix:///a\0b", "the path must be absolute"),
        ("tcp://me@a", "a console knows no users and passwords"),
        ("tcp://me:pw@a:1", "a console knows no users and passwords"),
        ("tcp:", "tcp://host[:port] expected"),
        ("tcp:a:1", "tcp://host[:port] expected"),
        ("tcp:///a", "tcp://host[:port] expected"),
        ("tcp://:1", "tcp://host[:port] expected"),
        ("tcp://a:b", "tcp://host[:port] expected"),
        ("tcp://a:-1", "tcp://host[:port] expected"),
        ("tcp://a:1:2", "tcp://host[:port] expected"),
        ("tcp://::1", "tcp://host[:port] expected"),
        ("tcp://[::1", "tcp://host[:port] expected"),
        ("tcp://[]:1", "tcp://host[:port] expected"),
        ("tcp://[a.g]:1", "tcp://host[:port] expected"),
        ("tcp://a:000000000000000000001", "tcp://host[:port] expected"),
        ("tcp://a:65536", "no such port"),
        ("tcp://a:99999", "no such port"),
    ],
)
def test_what_is_no_place(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^invalid url .*{re.escape(problem)}$"):
        ConsoleUrl.parse(text)


HOSTS = st.from_regex(r"[0-9A-Za-z.-]{1,20}", fullmatch=True) | st.from_regex(
    r"[0-9a-f:.]{1,20}", fullmatch=True
)


@given(HOSTS, st.integers(0, 65535))
def test_ports_are_written_as_they_are_read(host: str, port: int) -> None:
    """In the form of a host's name, or in brackets if it has colons."""
    url = ConsoleUrl("tcp", host, port, "")
    assert str(url) == (f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
    assert ConsoleUrl.parse(str(url)) == url


@given(st.from_regex(r"/[!-~]{0,20}", fullmatch=True))
def test_sockets_are_written_as_they_are_read(path: str) -> None:
    url = ConsoleUrl("unix", "", 0, path)
    assert str(url) == f"unix://{path}"
    assert ConsoleUrl.parse(str(url)) == url
