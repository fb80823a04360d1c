# SPDX-License-Identifier: Apache-2.0
"""From an index to one image: choosing by name and platform, config and layers.

OCI Image Format Specification 1.1 (image-index.md, manifest.md, config.md), Docker's distribution manifests
of version 2, and `manifest.json` of `docker save`.
"""

from __future__ import annotations

import json
import platform as machine

from northstar.namedtuple import NamedTuple
from northstar.oci import blob
from northstar.oci.blob import COPY_AGAIN, Blob, ImageError, check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.oci.store import Store

MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 1000
_MAX_NESTING = 4

_OCI, _DOCKER = "application/vnd.oci.image", "application/vnd.docker"
_INDEXES = (f"{_OCI}.index.v1+json", f"{_DOCKER}.distribution.manifest.list.v2+json")
_MANIFESTS = (f"{_OCI}.manifest.v1+json", f"{_DOCKER}.distribution.manifest.v2+json")
_CONFIGS = (f"{_OCI}.config.v1+json", f"{_DOCKER}.container.image.v1+json")
_LAYERS = (
    *(f"{_OCI}.layer.v1.tar{how}" for how in ("", "+gzip", "+zstd")),
    *(f"{_OCI}.layer.nondistributable.v1.tar{how}" for how in ("", "+gzip", "+zstd")),
    *(f"{_DOCKER}.image.rootfs.diff.tar{how}" for how in ("", ".gzip", ".zstd")),
    *(f"{_DOCKER}.image.rootfs.foreign.diff.tar{how}" for how in ("", ".gzip", ".zstd")),
)
_NO_IMAGE = "only images can be imported, none of the other things that registries keep"
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class Layer(NamedTuple):
    """A layer and the digest of its uncompressed bytes."""

    blob: Blob
    diff_id: str


class Image(NamedTuple):
    """An image: its config, its layers from the lowest up, its platform and the name it goes by."""

    config: dict[str, Any]
    layers: list[Layer]
    platform: str
    name: str | None


class Platform(NamedTuple):
    """`os/architecture[/variant]`, as in an index."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """From `os/architecture[/variant]` or just `architecture`; ValueError."""
        parts = text.split("/")
        if len(parts) == 1:
            parts.insert(0, "linux")
        if len(parts) > 3 or not all(parts):
            raise ValueError(f"{text!r} is no platform: os/architecture or os/architecture/variant")
        return cls(*parts)

    @classmethod
    def here(cls) -> Platform:
        """That of this machine."""
        name = machine.machine()
        return cls("linux", _ARCHITECTURES.get(name, name))

    def accepts(self, other: Platform) -> bool:
        """Whether an image for `other` is meant; a variant that is not told fits to all."""
        return self[:2] == other[:2] and (
            self.variant == other.variant or not (self.variant and other.variant)
        )

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def select(store: Store, where: str, name: str | None, platform: Platform | None) -> Image:
    """The image called `name`, or the only one, for a platform; `where` is for messages. Raises ImageError.

    Without `platform`, if there are several, the one for this machine.
    """
    if store.find("index.json") is not None:
        return _from_layout(store, where, name, platform)
    if store.find("manifest.json") is not None:
        return _from_docker(store, where, name, platform)
    raise ImageError(
        f"{where} is no image: it has neither index.json nor manifest.json",
        "an OCI layout (directory or archive) or an archive of `docker save` is expected",
    )


# --- OCI layout


def _from_layout(store: Store, where: str, name: str | None, platform: Platform | None) -> Image:
    index = _document(store, "index.json", where)
    chosen = _named(_list(index, "manifests", where), where, name)
    found: list[tuple[Platform | None, dict[str, Any], str | None]] = []
    for descriptor in chosen:
        _manifests(store, descriptor, _name_of(descriptor), found, 0)
    descriptor, ref = _for_platform(found, where, platform)
    manifest = _blob_document(store, descriptor, "manifest")
    config_descriptor = manifest.get("config")
    config = _blob_document(store, config_descriptor, "config", _CONFIGS)
    layers = [_layer(store, entry) for entry in _list(manifest, "layers", "the manifest")]
    diff_ids = _diff_ids(config, len(layers))
    found_platform = _check_platform(config, where, platform)
    pairs = [Layer(layer, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True)]
    return Image(config, pairs, str(found_platform), ref)


def _name_of(descriptor: dict[str, Any]) -> str | None:
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return None
    name = annotations.get(_CONTAINERD_NAME, annotations.get(_REF_NAME))
    return name if isinstance(name, str) else None


def _named(descriptors: list[dict[str, Any]], where: str, name: str | None) -> list[dict[str, Any]]:
    """The descriptors of the image that is wanted: one name, perhaps for several platforms."""
    names = [_name_of(descriptor) for descriptor in descriptors]
    if name is None:
        if len(set(names)) > 1:
            _ask_for_name(where, [text for text in names if text])
        return descriptors
    wanted = [
        descriptor
        for descriptor, text in zip(descriptors, names, strict=True)
        if text is not None and _fits(name, text)
    ]
    if not wanted:
        known = ", ".join(sorted(text for text in names if text)) or "none with a name"
        raise ImageError(f"{where} has no image {name}; there is {known}")
    return wanted


def _fits(name: str, full: str) -> bool:
    """Whether a name or a tag means the image called `full`."""
    return full == name or full.endswith((f"/{name}", f":{name}"))


def _ask_for_name(where: str, names: list[str]) -> None:
    raise ImageError(f"{where} has several images: {', '.join(sorted(names))}", "choose one with --ref")


def _manifests(
    store: Store,
    descriptor: dict[str, Any],
    name: str | None,
    found: list[tuple[Platform | None, dict[str, Any], str | None]],
    depth: int,
) -> None:
    """Collect the manifests below a descriptor, which may be an index itself."""
    kind = descriptor.get("mediaType")
    if kind in _INDEXES:
        if depth >= _MAX_NESTING:
            raise ImageError(f"indexes are nested deeper than {_MAX_NESTING} levels")
        for inner in _list(_blob_document(store, descriptor, "index"), "manifests", "the index"):
            _manifests(store, inner, name, found, depth + 1)
            if len(found) > MAX_LAYERS:
                raise ImageError(f"there are more than {MAX_LAYERS} manifests")
    elif kind in _MANIFESTS:
        found.append((_platform(descriptor.get("platform")), descriptor, name))
    elif depth == 0:
        raise ImageError(f"the media type {kind!r} is not that of an image", _NO_IMAGE)


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    fields = [value.get(key, "") for key in ("os", "architecture", "variant")]
    return Platform(*fields) if all(isinstance(field, str) for field in fields) else None


def _for_platform(
    found: list[tuple[Platform | None, dict[str, Any], str | None]], where: str, wanted: Platform | None
) -> tuple[dict[str, Any], str | None]:
    """The manifest for the platform that is wanted; this machine's if there are several and none is named."""
    # BuildKit keeps its attestations under the platform unknown/unknown.
    found = [entry for entry in found if entry[0] is None or entry[0].os != "unknown"]
    if not found:
        raise ImageError(f"{where} has no image")
    if len(found) == 1:
        return found[0][1:]
    target = wanted or Platform.here()
    for platform, descriptor, name in found:
        if platform is not None and target.accepts(platform):
            return descriptor, name
    there = sorted({str(platform) for platform, *_ in found if platform})
    raise ImageError(
        f"{where} is not there for {target}, but for {', '.join(there)}", "choose with --platform"
    )


# --- docker save


def _from_docker(store: Store, where: str, name: str | None, platform: Platform | None) -> Image:
    entries = _document(store, "manifest.json", where, kind=list)
    tags = [tag for entry in entries for tag in _tags(entry)]
    if name is not None:
        entries = [
            e for e in entries if any(t == name or t.endswith((f"/{name}", f":{name}")) for t in _tags(e))
        ]
        if not entries:
            raise ImageError(f"{where} has no image {name}; there is {', '.join(tags) or 'none with a name'}")
    if len(entries) > 1:
        _ask_for_name(where, tags)
    if not entries or not isinstance(entries[0], dict):
        raise ImageError(f"{where} has no image")
    entry = entries[0]
    config = _document(store, _string(entry.get("Config"), "Config"), where)
    names = entry.get("Layers")
    if not isinstance(names, list) or len(names) > MAX_LAYERS:
        raise ImageError(f"{where}: Layers is no list of at most {MAX_LAYERS}")
    diff_ids = _diff_ids(config, len(names))
    layers = []
    for layer, diff_id in zip(names, diff_ids, strict=True):
        found = store.find(_string(layer, "Layers"))
        if found is None:
            raise ImageError(f"{where} has no file {layer}, which is a layer of the image")
        layers.append(Layer(found, diff_id))
    found_platform = _check_platform(config, where, platform)
    return Image(config, layers, str(found_platform), next(iter(_tags(entry)), None))


def _tags(entry: Any) -> list[str]:
    tags = entry.get("RepoTags") if isinstance(entry, dict) else None
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


# --- parts of both


def _check_platform(config: dict[str, Any], where: str, wanted: Platform | None) -> Platform:
    found = _platform(config)
    if found is None or not found.os or not found.architecture:
        raise ImageError(f"{where}: the config says neither os nor architecture")
    if found.os != "linux":
        raise ImageError(f"{where} is an image for {found}, not for linux")
    if wanted is not None and not wanted.accepts(found):
        raise ImageError(f"{where} is not for {wanted}, but for {found}", "choose with --platform")
    return found


def _diff_ids(config: dict[str, Any], count: int) -> list[str]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != count:
        raise ImageError(f"the config does not name the digests of all {count} layers (rootfs.diff_ids)")
    return [check_digest(diff_id, "rootfs.diff_ids") for diff_id in diff_ids]


def _layer(store: Store, descriptor: dict[str, Any]) -> Blob:
    kind = descriptor.get("mediaType")
    if kind not in _LAYERS:
        raise ImageError(f"a layer has the unknown media type {kind!r}", _NO_IMAGE)
    return _blob(store, descriptor, "layer")


def _blob(store: Store, descriptor: Any, what: str) -> Blob:
    """The file that a descriptor means, of the size that it tells."""
    if not isinstance(descriptor, dict):
        raise ImageError(f"the {what} has no descriptor")
    digest = check_digest(descriptor.get("digest"), f"the {what}")
    algorithm, _, text = digest.partition(":")
    found = store.find(f"blobs/{algorithm}/{text}", digest)
    if found is None:
        raise ImageError(f"the {what} {digest} is missing", COPY_AGAIN)
    if descriptor.get("size") != found.size:
        raise ImageError(
            f"the {what} {digest} has {found.size} bytes, {descriptor.get('size')!r} are expected",
            COPY_AGAIN,
        )
    return found._replace(name=f"the {what} {digest}")


def _blob_document(
    store: Store, descriptor: Any, what: str, kinds: tuple[str, ...] | None = None
) -> dict[str, Any]:
    found = _blob(store, descriptor, what)
    if kinds is not None and descriptor.get("mediaType") not in kinds:
        raise ImageError(f"the {what} has the unknown media type {descriptor.get('mediaType')!r}", _NO_IMAGE)
    document = _json(found, f"the {what}")
    if not isinstance(document, dict):
        raise ImageError(f"the {what} is no JSON object")
    return document


def _document(store: Store, name: str, where: str, kind: type = dict) -> Any:
    found = store.find(name)
    if found is None:
        raise ImageError(f"{where} has no {name}")
    document = _json(found, f"{where}: {name}")
    if not isinstance(document, kind):
        raise ImageError(f"{where}: {name} is not what it has to be")
    return document


def _json(found: Blob, what: str) -> Any:
    try:
        text = blob.content(found, MAX_DOCUMENT).decode("utf-8")
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is no JSON: {str(error) or 'nested too deep'}") from None
    return value


def _list(document: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageError(f"{where}: {key} is no list of descriptors")
    if len(entries) > MAX_LAYERS:
        raise ImageError(f"{where}: {key} has more than {MAX_LAYERS} entries")
    return entries


def _string(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise ImageError(f"{key} in manifest.json is no text")
    return value
