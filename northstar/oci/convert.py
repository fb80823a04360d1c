# SPDX-License-Identifier: Apache-2.0
"""From the config of an image to a manifest. What a manifest cannot say becomes a note, one line each.

OCI Image Format Specification 1.1, config.md. The result is data as of JSON: a manifest of one's own may be
merged over it before it is parsed.
"""

from __future__ import annotations

import posixpath
import re

from northstar import names
from northstar.manifest.parse import MAX_ENV, MAX_ENV_NAME, MAX_ENV_VALUE
from northstar.manifest.validate import RESERVED_ENV
from northstar.namedtuple import NamedTuple
from northstar.oci import users
from northstar.oci.blob import ImageError
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.oci.image import Image
    from northstar.oci.squash import Contents

DEFAULT_ID = 1000
_TMP_SIZE = "16MB"
_VERSION_LABEL = "org.opencontainers.image.version"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = "/bin/sh"
_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z._-]+", re.ASCII)
_SUFFIXES = re.compile(r"(\.oci)?(\.tar)?(\.gz|\.tgz)?$")
_VERSION = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:[-+].*)?", re.ASCII)


class Note(NamedTuple):
    """What a manifest cannot say, and the field that it would be in, if there is one."""

    field: str
    text: str


class Choice(NamedTuple):
    """What the caller wants to be different from the config; None: as it comes."""

    name: str | None = None
    version: str | None = None
    user: str | None = None


class Draft(NamedTuple):
    """A manifest as JSON data, what to say about it, and the ports that the image exposes."""

    manifest: dict[str, Any]
    notes: list[Note]
    ports: list[str]


def draft(image: Image, contents: Contents, source: str, choice: Choice) -> Draft:
    """The manifest of an image. `source` is what the user called it. Raises ImageError."""
    return _Converter(image, contents, source, choice).draft()


class _Converter:
    def __init__(self, image: Image, contents: Contents, source: str, choice: Choice) -> None:
        self._image = image
        config = image.config.get("config")
        self._config: dict[str, Any] = config if isinstance(config, dict) else {}
        self._contents = contents
        self._source = source
        self._choice = choice
        self._notes: list[Note] = []

    def draft(self) -> Draft:
        uid, gid = self._user()
        env = self._env()
        command = self._command(env)
        ports = sorted(self._keys("ExposedPorts"))
        manifest: dict[str, Any] = {"name": self._name(), "version": self._version()}
        if command:
            manifest |= {"init": command[0], "args": command[1:], "env": env}
        manifest |= {"uid": uid, "gid": gid}
        if command:
            manifest |= {
                "io": {"stdout": "pipe", "stderr": "pipe"},
                "mounts": self._mounts(),
                "seccomp": {"profile": "default"},
            }
            self._note(
                "", "the root file system is read-only; mounts of the manifest are what can be written to"
            )
        else:
            self._note(
                "init", "the image has neither entrypoint nor command, so it becomes a resource container"
            )
        manifest["custom"] = {"oci": self._custom()}
        if ports:
            self._note(
                "network",
                f"ports {', '.join(ports)} are exposed: a container has no network but loopback, unless the "
                "manifest has `network`",
            )
        if self._config.get("Healthcheck"):
            self._note("", "the health check is left out: a manifest has none")
        return Draft(manifest, self._notes, ports)

    def _note(self, field: str, text: str) -> None:
        self._notes.append(Note(field, escape(text)))

    # --- values of the config, which may be anything

    def _strings(self, key: str) -> list[str]:
        value = self._config.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ImageError(f"the config's {key} is no list of texts")
        return [self._clean(item, key) for item in value]

    def _string(self, key: str) -> str:
        value = self._config.get(key) or ""
        if not isinstance(value, str):
            raise ImageError(f"the config's {key} is no text")
        return self._clean(value, key)

    def _keys(self, key: str) -> list[str]:
        value = self._config.get(key) or {}
        if not isinstance(value, dict):
            raise ImageError(f"the config's {key} is no map")
        return [self._clean(item, key) for item in value]

    @staticmethod
    def _clean(text: str, key: str) -> str:
        if "\0" in text:
            raise ImageError(f"the config's {key} contains a NUL")
        return text

    # --- fields of the manifest

    def _name(self) -> str:
        if self._choice.name is not None:
            return self._choice.name
        full = self._image.name or ""
        if not set(full) & set("/:"):  # a mere tag, as in most layouts
            full = posixpath.basename(self._source.rstrip("/"))
        last = full.partition("@")[0].rpartition("/")[2].partition(":")[0]
        name = _NOT_IN_NAMES.sub("-", _SUFFIXES.sub("", last)).strip("-.")
        try:
            return names.check_name(name)
        except ValueError:
            message = f"no name of a container can be made of {full!r}"
            raise ImageError(message, "give one with --name") from None

    def _version(self) -> str:
        if self._choice.version is not None:
            return self._choice.version
        labels = self._config.get("Labels")
        label = labels.get(_VERSION_LABEL) if isinstance(labels, dict) else None
        name = (self._image.name or "").partition("@")[0]
        tag = name.rpartition("/")[2].partition(":")[2]
        for text in (label, tag, name):
            match = _VERSION.fullmatch(text) if isinstance(text, str) else None
            if match is not None:
                return ".".join(str(int(part or 0)) for part in match.groups())
        self._note(
            "version", "the image has no version of three numbers; the container gets 0.0.1 (--version)"
        )
        return "0.0.1"

    def _user(self) -> tuple[int, int]:
        text = self._string("User") if self._choice.user is None else self._choice.user
        passwd, group = self._contents.text("/etc/passwd"), self._contents.text("/etc/group")
        user = users.resolve(text, passwd, group)
        if user.groups:
            self._note(
                "suppl_groups",
                f"the groups {', '.join(user.groups)} of the user are left out: suppl_groups of a manifest "
                "are groups of the device",
            )
        uid, gid = user.uid, user.gid
        if uid > users.MAX_ID or gid > users.MAX_ID:
            raise ImageError(
                f"user {uid} and group {gid} of the image: at most {users.MAX_ID} is possible in a manifest",
                "choose another with --user",
            )
        if uid == 0:
            uid, gid = DEFAULT_ID, gid or DEFAULT_ID
            self._note("uid", f"a container never runs as root: it gets uid {uid} and gid {gid} (--user)")
        elif gid == 0:
            gid = uid
            self._note("gid", f"a container never runs in group 0: it gets gid {gid} (--user)")
        return uid, gid

    def _env(self) -> dict[str, str]:
        env: dict[str, str] = {}
        for entry in self._strings("Env"):
            name, equals, value = entry.partition("=")
            if not equals or not name:
                self._note("env", f"the environment has {entry[:80]!r}, which is no NAME=VALUE: left out")
            elif name in RESERVED_ENV:
                self._note("env", f"the variable {name} is left out: the runtime sets it")
            elif len(name.encode()) > MAX_ENV_NAME or len(value.encode()) > MAX_ENV_VALUE:
                self._note(
                    "env",
                    f"the variable {name[:80]} is left out: a name has up to {MAX_ENV_NAME} bytes, a value "
                    f"up to {MAX_ENV_VALUE}",
                )
            else:
                env[name] = value
        while len(env) > MAX_ENV:
            name, _ = env.popitem()
            self._note("env", f"the variable {name} is left out: a manifest has up to {MAX_ENV}")
        return env

    def _command(self, env: dict[str, str]) -> list[str]:
        command = self._strings("Entrypoint") + self._strings("Cmd")
        if not command:
            return []
        directory = _absolute(self._string("WorkingDir"))
        if directory == "/":
            return [self._program(command[0], env), *command[1:]]
        if self._contents.tree.lookup(_SHELL) is None:
            self._note(
                "init",
                f"the working directory {directory} is left out: a container starts in /, and there is no "
                f"{_SHELL} to change it",
            )
            return [posixpath.join(directory, self._program(command[0], env)), *command[1:]]
        self._contents.tree.ensure(directory)
        self._note(
            "init", f"the working directory {directory} is entered by {_SHELL}: a container starts in /"
        )
        return [_SHELL, "-c", 'cd "$0" && exec "$@"', directory, *command]

    def _program(self, name: str, env: dict[str, str]) -> str:
        """The path of a program, looked up as execvp(3) does."""
        if "/" in name:
            return name
        for directory in env.get("PATH", _DEFAULT_PATH).split(":"):
            path = posixpath.join("/", directory, name)
            node = self._contents.tree.lookup(path)
            if node is not None and node.children is None and node.mode & 0o111:
                return path
        self._note("init", f"the program {name} is nowhere in PATH of the image: init has to be a path")
        return name

    def _mounts(self) -> dict[str, Any]:
        mounts: dict[str, Any] = {"/dev": {"type": "dev"}, "/proc": {"type": "proc"}}
        volumes: list[str] = []
        for path in sorted(_absolute(key) for key in self._keys("Volumes")):
            outer = next((other for other in (*mounts, *volumes) if f"{path}/".startswith(f"{other}/")), None)
            if path == "/" or outer is not None:
                self._note("mounts", f"the volume {path} is left out: {outer or 'the root'} covers it")
                continue
            node = self._contents.tree.lookup(path)
            if node is not None and node.children is None:
                self._note("mounts", f"the volume {path} is left out: in the image it is no directory")
                continue
            volumes.append(path)
            if node is not None and node.children:
                self._note(
                    "mounts",
                    f"the volume {path} has files in the image, which the persistent directory hides",
                )
        if len(volumes) > 1:
            self._note(
                "mounts", f"the volumes {', '.join(volumes)} share one directory: a container has only one"
            )
        mounts |= {path: {"type": "persist"} for path in volumes}
        if not any(f"{path}/".startswith("/tmp/") for path in volumes):
            mounts["/tmp"] = {"type": "tmpfs", "size": _TMP_SIZE}
        return mounts

    def _custom(self) -> dict[str, Any]:
        custom: dict[str, Any] = {"platform": self._image.platform}
        if self._image.name is not None:
            custom["image"] = self._image.name
        signal = self._string("StopSignal")
        if signal:
            custom["stop_signal"] = signal
            if signal not in ("SIGTERM", "15", "TERM"):
                self._note(
                    "", f"the stop signal {signal} is kept in custom.oci only: the runtime sends SIGTERM"
                )
        labels = self._config.get("Labels")
        if labels:
            if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
                raise ImageError("the config's Labels are no map of texts")
            custom["labels"] = dict(sorted(labels.items()))
        return custom


def _absolute(path: str) -> str:
    """A path of the config without `.`, `..` and double slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))
