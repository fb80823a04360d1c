# SPDX-License-Identifier: Apache-2.0
"""The documents of hawkBit's Direct Device Integration API: reading what a server sends, writing what it
expects.

Source: the reference of the API (eclipse-hawkbit/hawkbit, docs/), and exchanges with 0.3.0M7 and 0.9.0.
Nothing of a document is trusted: readers raise Malformed, and give back values of known types and bounded
size.
"""

from __future__ import annotations

import re
import time

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MAX_MODULES = 100
MAX_ARTIFACTS = 8
"""Artifacts of one module: a package and its index; others are passed over."""
MAX_TEXT = 1024
MAX_DETAILS = 20
"""Details of one feedback; servers refuse more than 50."""
MAX_DETAIL = 500

_HANDLING = ("skip", "attempt", "forced")
_HEXADECIMAL = {"sha256": 64, "sha1": 40}


class Malformed(ValueError):
    """A document is not what the protocol says."""


class Poll(NamedTuple):
    """The answer to a poll: seconds until the next one, if the server says so, and links by name."""

    sleep: float | None
    links: dict[str, str]


class Artifact(NamedTuple):
    """A file. `digest` is "sha256:…", or "sha1:…" of a server that has no other, or empty."""

    name: str
    size: int
    digest: str
    url: str


class Module(NamedTuple):
    """A software module: for us one container."""

    part: str
    name: str
    version: str
    artifacts: tuple[Artifact, ...]
    metadata: dict[str, str]


class Offer(NamedTuple):
    """A deployment, or what is to be confirmed. `download` and `update`: skip, attempt, forced."""

    id: str
    download: str
    update: str
    window: str
    """Of the server's maintenance window: available, unavailable, or empty if there is none."""
    modules: tuple[Module, ...]


def read_poll(document: Any) -> Poll:
    """The answer to a poll."""
    root = _object(document, "the answer")
    sleep = None
    polling = _object(_object(root.get("config", {}), "config").get("polling", {}), "polling")
    if "sleep" in polling:
        sleep = read_sleep(polling["sleep"])
    links = {}
    for name, link in _object(root.get("_links", {}), "_links").items():
        links[name] = _text(_object(link, f"link {name}").get("href"), f"link {name}")
    return Poll(sleep, links)


def read_sleep(value: Any) -> float:
    """Seconds of HH:MM:SS."""
    match = (
        re.fullmatch(r"([0-9]{1,3}):([0-5]?[0-9]):([0-5]?[0-9])", value) if isinstance(value, str) else None
    )
    if match is None:
        raise Malformed(f"sleep: HH:MM:SS expected, not {str(value)[:40]!r}")
    hours, minutes, seconds = (int(part) for part in match.groups())
    return hours * 3600.0 + minutes * 60 + seconds


def read_id(document: Any) -> str:
    """The identifier of an action in any of the documents."""
    value = _object(document, "the answer").get("id")
    text = str(value) if type(value) is int else _text(value, "id")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise Malformed(f"id: {text[:80]!r} is none")
    return text


def read_stop(document: Any) -> str:
    """The action that is to be cancelled."""
    cancel = _object(_object(document, "the answer").get("cancelAction"), "cancelAction")
    return read_id({"id": cancel.get("stopId")})


def read_offer(document: Any, secure: bool, member: str = "deployment") -> Offer:
    """A deployment, or with `member` "confirmation" what is to be confirmed.

    `secure` says that links over plain HTTP are not to be taken.
    """
    identifier = read_id(document)
    body = _object(document.get(member), member)
    chunks = _list(body.get("chunks", []), "chunks")
    if len(chunks) > MAX_MODULES:
        raise Malformed(f"chunks: more than {MAX_MODULES}")
    window = body.get("maintenanceWindow", "")
    if window not in ("", "available", "unavailable"):
        raise Malformed("maintenanceWindow: neither available nor unavailable")
    return Offer(
        identifier,
        _handling(body, "download"),
        _handling(body, "update"),
        window,
        tuple(_module(chunk, secure) for chunk in chunks),
    )


def _handling(body: dict[str, Any], key: str) -> str:
    value = body.get(key, "forced")
    if value not in _HANDLING:
        raise Malformed(f"{key}: one of {', '.join(_HANDLING)} expected")
    return str(value)


def _module(value: Any, secure: bool) -> Module:
    chunk = _object(value, "chunk")
    artifacts = _list(chunk.get("artifacts", []), "artifacts")
    if len(artifacts) > MAX_ARTIFACTS:
        raise Malformed(f"artifacts: more than {MAX_ARTIFACTS} in one module")
    metadata = {}
    for entry in _list(chunk.get("metadata", []) or [], "metadata"):
        pair = _object(entry, "metadata")
        metadata[_text(pair.get("key"), "metadata key")] = _text(
            pair.get("value"), "metadata value", empty=True
        )
    return Module(
        _text(chunk.get("part"), "part"),
        _text(chunk.get("name"), "name of a module"),
        _text(chunk.get("version"), "version of a module"),
        tuple(_artifact(artifact, secure) for artifact in artifacts),
        metadata,
    )


def _artifact(value: Any, secure: bool) -> Artifact:
    artifact = _object(value, "artifact")
    name = _text(artifact.get("filename"), "filename")
    size = artifact.get("size")
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise Malformed(f"size of {name[:80]!r}: no number of bytes")
    hashes = _object(artifact.get("hashes", {}), "hashes")
    digest = ""
    for algorithm, length in _HEXADECIMAL.items():
        value = hashes.get(algorithm)
        if value:
            if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{length}}}", value):
                raise Malformed(f"{algorithm} of {name[:80]!r}: {length} hexadecimal digits expected")
            digest = f"{algorithm}:{value.lower()}"
            break
    links = _object(artifact.get("_links", {}), "_links")
    for link in ("download",) if secure else ("download", "download-http"):
        if link in links:
            return Artifact(name, size, digest, _text(_object(links[link], link).get("href"), link))
    only = " over TLS" if secure and "download-http" in links else ""
    raise Malformed(f"{name[:80]!r} has no link to download it{only}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{name}: an object expected")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{name}: a list expected")
    return value


def _text(value: Any, name: str, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise Malformed(f"{name}: a text expected")
    if len(value) > MAX_TEXT:
        raise Malformed(f"{name}: longer than {MAX_TEXT} characters")
    return value


# --- what is sent


def feedback(
    identifier: str, execution: str, finished: str, details: list[str], now: float, code: int | None = None
) -> dict[str, Any]:
    """A feedback about a deployment or a cancellation.

    `execution` is one of the words proceeding, download, downloaded, rejected, closed; others are refused by
    servers. Old servers need `id`, and take `time`; new ones take `timestamp`, in milliseconds.
    """
    status: dict[str, Any] = {
        "execution": execution,
        "result": {"finished": finished},
        "details": [_shortened(text) for text in details[:MAX_DETAILS]],
    }
    if code is not None:
        status["code"] = code
    return {
        "id": identifier,
        "time": time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)),
        "timestamp": int(now * 1000),
        "status": status,
    }


def confirmation(answer: str, details: list[str]) -> dict[str, Any]:
    """The answer `confirmed` or `denied`."""
    code = 0 if answer == "confirmed" else 1
    return {"confirmation": answer, "code": code, "details": [_shortened(text) for text in details]}


def attributes(values: dict[str, str]) -> dict[str, Any]:
    """What a device tells of itself. It replaces what was told before, so what is gone disappears."""
    return {"mode": "replace", "data": values}


def feedback_url(url: str) -> str:
    """Where the feedback about a linked action goes; there is no link to it."""
    return url.partition("?")[0].rstrip("/") + "/feedback"


def _shortened(text: str) -> str:
    clean = "".join(char if char.isprintable() else " " for char in text)
    return clean if len(clean) <= MAX_DETAIL else clean[: MAX_DETAIL - 1] + "…"
