# SPDX-License-Identifier: Apache-2.0
"""The configuration file of the agent."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse

from northstar.agent.http import Access, Origin
from northstar.agent.memory import Settings
from northstar.agent.offers import Limits
from northstar.agent.policy import Window
from northstar.config.table import Table, read_toml
from northstar.errors import ConfigError
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MACHINE_ID = "/etc/machine-id"
MAX_SECRET = 4096
CONFIRMATIONS = ("accept", "deny", "ask")


class Config(NamedTuple):
    """What the file says, with defaults."""

    access: Access
    settings: Settings
    console: str
    state_dir: str
    run_dir: str
    packages: tuple[str, ...]
    """Directories with installed packages."""
    speed_limit: int
    spread: float
    """Seconds in which the first poll after a boot lies."""
    attributes: dict[str, str]
    windows: tuple[Window, ...]
    idle: tuple[str, ...]
    """A program that succeeds if an update is welcome."""

    @property
    def downloads(self) -> str:
        """Directory of downloads."""
        return os.path.join(self.state_dir, "downloads")


def load(path: str) -> Config:
    """The configuration in a file; raises ConfigError with every problem found."""
    problems: list[str] = []
    table = Table(read_toml(path), "", problems)
    config = _config(table)
    table.finish()
    if problems or config is None:
        raise ConfigError(path, problems)
    return config


def _config(table: Table) -> Config | None:
    server, tenant = table.text("url").rstrip("/"), table.text("tenant", "DEFAULT")
    identifier = table.optional_text("id") or _checked(table, "id", default_id)
    if identifier is not None and not re.fullmatch(r"[A-Za-z0-9._:-]{1,256}", identifier):
        table.problem("id", "1 to 256 characters of A-Z a-z 0-9 . _ : - expected")
    if server:
        _checked(table, "url", lambda: Origin.of(server))
    quoted = urllib.parse.quote(identifier or "", safe="")
    url = f"{server}/{urllib.parse.quote(tenant, safe='')}/controller/v1/{quoted}"
    repositories = table.texts("repositories") or ("default",)
    limits = Limits(repositories, table.size("max_size", 1 << 30), table.size("reserve", 16 << 20))
    confirmation = table.text("confirmation", CONFIRMATIONS[0])
    if confirmation not in CONFIRMATIONS:
        table.problem("confirmation", f"one of {', '.join(CONFIRMATIONS)} expected")
    longest = table.duration("poll_max", 3600.0)
    if not 5 <= longest <= 86400:
        table.problem("poll_max", "5s to 24h expected")
    return Config(
        _access(table, url),
        Settings(url, limits, longest, confirmation),
        table.text("console", "unix:///run/northstar/agent"),
        table.text("state_dir", "/var/lib/northstar-agent"),
        table.text("run_dir", "/run/northstar-agent"),
        table.texts("packages"),
        table.size("speed_limit", 0),
        table.duration("spread", 60.0),
        _attributes(table),
        _windows(table),
        table.texts("idle"),
    )


def _access(table: Table, url: str) -> Access:
    hosts = table.texts("hosts")
    authentication = table.table("auth")
    if authentication is None:
        return Access(url, hosts=hosts)
    secure = url.startswith("https:")
    words = {"token_file": "TargetToken", "gateway_token_file": "GatewayToken"}
    given = [key for key in words if authentication.has(key)]
    if len(given) > 1:
        authentication.problem(given[1], f"not together with {given[0]}")
    authorization = ""
    for key in given:
        path = authentication.text(key)
        token = _checked(authentication, key, lambda path=path: secret(path))  # type: ignore[misc]
        authorization = f"{words[key]} {token}"
    certificate, private = authentication.optional_text("cert"), authentication.optional_text("key")
    if (certificate is None) != (private is None):
        authentication.problem("cert", "cert and key need each other")
    authority = authentication.optional_text("ca")
    for name, file in (("cert", certificate), ("key", private), ("ca", authority)):
        if file is not None and not os.path.isfile(file):
            authentication.problem(name, f"file {file} does not exist")
        if file is not None and not secure:
            authentication.problem(name, "needs an url of https")
    authentication.finish()
    pair = None if certificate is None or private is None else (certificate, private)
    return Access(url, authorization, authority, pair, hosts)


def _attributes(table: Table) -> dict[str, str]:
    found = table.table("attributes")
    values = {} if found is None else found.values
    for key, value in values.items():
        if not isinstance(value, str) or len(value) > 128:
            table.problem(f"attributes.{key}", "a string of at most 128 characters expected")
    return {key: str(value) for key, value in values.items()}


def _windows(table: Table) -> tuple[Window, ...]:
    found = []
    for text in table.texts("windows"):
        window = _checked(table, "windows", lambda text=text: Window.parse(text))  # type: ignore[misc]
        if window is not None:
            found.append(window)
    return tuple(found)


def _checked(table: Table, key: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError as error:
        table.problem(key, str(error))
        return None


def secret(path: str) -> str:
    """The token in a file that nobody else may read; ValueError."""
    try:
        with open(path, encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ValueError(f"{path} may be read by others: chmod 600 {path}")
            token = file.read(MAX_SECRET + 1).strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no token") from None
    if not token or len(token) > MAX_SECRET or not token.isprintable() or " " in token:
        raise ValueError(f"{path}: no token")
    return token


def default_id(path: str = MACHINE_ID) -> str:
    """An identifier made of the machine's, which is not to be given away (machine-id(5)); ValueError."""
    try:
        with open(path, encoding="ascii") as file:
            machine = file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    if not re.fullmatch(r"[0-9a-f]{32}", machine):
        raise ValueError(f"is missing, and {path} has no machine id to make one of")
    return "northstar-" + hashlib.sha256(f"northstar-agent {machine}".encode()).hexdigest()[:16]
