# SPDX-License-Identifier: Apache-2.0
"""Where a console is."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PORT = 4200

_URL = re.compile(r"(?P<scheme>[A-Za-z]+):(?://(?P<authority>[^/?#]*))?(?P<path>.*)")
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:@]+))(?::(?P<port>[0-9]{0,20}))?")
_BLANKS = "".join(map(chr, range(0x21)))


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
        text = re.sub(r"[\t\n\r]", "", text.strip(_BLANKS))
        match = _URL.fullmatch(text)
        scheme = match["scheme"].lower() if match else ""
        if match is None or scheme not in ("tcp", "unix"):
            raise ValueError(f"invalid url {text!r}: console scheme must be tcp or unix")
        authority, path = match["authority"] or "", match["path"] or ""
        if scheme == "unix":
            if authority:
                raise ValueError(f"invalid url {text!r}: a unix url has three slashes, unix:///path")
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"invalid url {text!r}: the path must be absolute")
            return cls(scheme, "", 0, path)
        if "@" in authority:
            raise ValueError(f"invalid url {text!r}: a console knows no users and passwords")
        address = _AUTHORITY.fullmatch(authority)
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
