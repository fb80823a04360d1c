# SPDX-License-Identifier: Apache-2.0
"""Makes OCI layouts for tests, good ones and bad ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", mode: int = 0o644, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    member = other(name, tarfile.REGTYPE, mode=mode, size=len(content), **fields)
    return member, content


def other(name: str, kind: bytes, mode: int = 0o755, **fields: Any) -> tarfile.TarInfo:
    """An entry without content."""
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, mode
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def directory(name: str, **fields: Any) -> tarfile.TarInfo:
    return other(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return other(name, tarfile.SYMTYPE, mode=0o777, linkname=target)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return other(name, tarfile.LNKTYPE, linkname=target)


def tar(entries: Iterable[Entry]) -> bytes:
    """A layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            if isinstance(entry, tuple):
                archive.addfile(entry[0], io.BytesIO(entry[1]))
            else:
                archive.addfile(entry)
    return out.getvalue()


class Layout:
    """An OCI layout in a directory, of which every part can be changed before it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Store a blob; its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, value: object, kind: str) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), kind)

    def add(
        self,
        layers: Iterable[bytes],
        *,
        config: dict[str, Any] | None = None,
        architecture: str = "amd64",
        name: str = "1.2.3",
        change: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
        compress: bool = True,
    ) -> dict[str, Any]:
        """Add an image; `change` gets config and manifest before they are written."""
        layers = list(layers)
        described: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/app"], "User": "1000:1000"} if config is None else config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        stored = [
            self.blob(gzip.compress(layer, mtime=0), f"{OCI}.layer.v1.tar+gzip")
            if compress
            else self.blob(layer, f"{OCI}.layer.v1.tar")
            for layer in layers
        ]
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "layers": stored,
        }
        if change is not None:
            change(described, manifest)
        manifest.setdefault("config", self.document(described, f"{OCI}.config.v1+json"))
        descriptor = self.document(manifest, f"{OCI}.manifest.v1+json")
        descriptor["platform"] = {"os": "linux", "architecture": architecture}
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(descriptor)
        return descriptor

    def write(self) -> Path:
        """Write the index; the path of the layout."""
        index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": self.manifests}
        (self.path / "index.json").write_text(json.dumps(index))
        return self.path
