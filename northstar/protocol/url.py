# SPDX-License-Identifier: Apache-2.0
"""Where a console is."""

from __future__ import annotations

import re

from northstar.namedtuple import NamedTuple

DEFAULT_PORT = 4200

_AUTHORITY = r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:@]+))(?::(?P<port>[0-9]{0,20}))?"
_BLANKS = "".join(map(chr, range(0x21)))
_IGNORED = str.maketrans("", "", "\t\n\r")


class ConsoleUrl(NamedTuple):
    """Where a console listens: `host` and `port` for tcp, `path` for unix."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> ConsoleUrl:
        """From `tcp://host[:port]` or `unix:///path`; ValueError.

        Blanks around it do not count, nor what follows host and port (https://url.spec.whatwg.org). The path
        of a unix socket is taken as it is, without escapes.
        """
        text = text.strip(_BLANKS).translate(_IGNORED)
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        if not colon or scheme not in ("tcp", "unix"):
            raise ValueError(f"invalid url {text!r}: console scheme must be tcp or unix")
        authority, path = _divide(rest)
        if scheme == "unix":
            if authority:
                raise ValueError(f"invalid url {text!r}: a unix url has three slashes, unix:///path")
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"invalid url {text!r}: the path must be absolute")
            return cls(scheme, "", 0, path)
        if "@" in authority:
            raise ValueError(f"invalid url {text!r}: a console knows no users and passwords")
        address = re.fullmatch(_AUTHORITY, authority)
        if address is None:
            raise ValueError(f"invalid url {text!r}: tcp://host[:port] expected")
        port = int(address["port"]) if address["port"] else DEFAULT_PORT
        if port > 65535:
            raise ValueError(f"invalid url {text!r}: no such port")
        return cls(scheme, address["six"] or address["host"], port, "")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def _divide(rest: str) -> tuple[str, str]:
    """Authority and path of what follows the scheme's colon."""
    if not rest.startswith("//"):
        return "", rest
    ends = [position for mark in "/?#" if (position := rest.find(mark, 2)) >= 0]
    end = min(ends, default=len(rest))
    return rest[2:end], rest[end:]
