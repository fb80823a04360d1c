# SPDX-License-Identifier: Apache-2.0
"""The configuration as data. docs/configuration.md explains every field."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PORT = 4200

_URL = re.compile(r"(?P<scheme>[A-Za-z]+):(?://(?P<authority>[^/]*))?(?P<path>/.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:@]+))(?::(?P<port>[0-9]{1,5}))?")


class ConsoleUrl(NamedTuple):
    """Where a console listens: `host` and `port` for tcp, `path` for unix."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> ConsoleUrl:
        """From `tcp://host[:port]` or `unix:///path`; ValueError."""
        match = _URL.fullmatch(text)
        scheme = match["scheme"].lower() if match else ""
        if match is None or scheme not in ("tcp", "unix"):
            raise ValueError(f"invalid url {text!r}: console scheme must be tcp or unix")
        authority, path = match["authority"] or "", match["path"] or ""
        if scheme == "unix":
            if authority:
                raise ValueError(f"invalid url {text!r}: a unix url has three slashes, unix:///path")
            if not path or "\0" in path:
                raise ValueError(f"invalid url {text!r}: the path must be absolute")
            return cls(scheme, "", 0, path)
        address = _AUTHORITY.fullmatch(authority)
        if address is None or path not in ("", "/"):
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


class ConsoleOptions(NamedTuple):
    """Limits of a console connection; times in seconds, sizes in bytes, 0 requests for no limit."""

    token_validity: float = 60.0
    max_requests_per_sec: int = 1000
    max_request_size: int = 1 << 20
    max_npk_install_size: int = 256 << 20
    npk_stream_timeout: float = 10.0


class ConsoleConfig(NamedTuple):
    """A listener. `mode` is that of a unix socket; `insecure` silences the warning about open tcp ports."""

    url: ConsoleUrl
    permissions: frozenset[str]
    options: ConsoleOptions = ConsoleOptions()
    mode: int | None = None
    insecure: bool = False


class RepositoryConfig(NamedTuple):
    """A repository: a directory, or in memory if `dir` is None. `key` is the path of a public key."""

    id: str
    dir: str | None
    key: str | None = None
    mount_on_start: bool = False
    capacity_num: int | None = None
    capacity_size: int | None = None


class Strace(NamedTuple):
    """strace attached to every container; `output` is `file` or `log`."""

    output: str
    path: str = "strace"
    flags: tuple[str, ...] = ()
    include_runtime: bool = False


class Perf(NamedTuple):
    """perf record attached to every container."""

    path: str = "perf"
    flags: tuple[str, ...] = ()


class Debug(NamedTuple):
    """Programs that are started with every container.

    A start waits up to `tracer_timeout` seconds for one of the commands to trace the container's init.
    """

    commands: tuple[str, ...] = ()
    tracer_timeout: float = 2.0
    strace: Strace | None = None
    perf: Perf | None = None


DEFAULT_PIDS_MAX = 1024


class Config(NamedTuple):
    """The whole configuration.

    `loop_device_timeout` in seconds. `pids_max` is the limit of processes and threads of containers whose
    manifest sets none, 0 for no limit.
    """

    run_dir: str
    data_dir: str
    socket_dir: str
    log_dir: str | None
    cgroup: str
    consoles: tuple[ConsoleConfig, ...]
    repositories: dict[str, RepositoryConfig]
    container_console_options: ConsoleOptions = ConsoleOptions()
    event_buffer_size: int = 256
    notification_buffer_size: int = 128
    loop_device_timeout: float = 10.0
    mount_parallel: int | None = None
    debug: Debug = Debug()
    skip_missing_binds: bool = False
    pids_max: int = DEFAULT_PIDS_MAX
    dialect: str = "new"
