# SPDX-License-Identifier: Apache-2.0
"""From an image's config to a manifest, its text, and a manifest of one's own over it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.errors import ManifestError
from northstar.manifest import encodings
from northstar.manifest.parse import from_tree
from northstar.oci import convert, overlay, squash, text, users
from northstar.oci.blob import ImageError
from northstar.oci.convert import Choice, Draft
from northstar.oci.image import Image
from northstar.oci.squash import Contents
from northstar.oci.tarreader import DIRECTORY, FILE, Member
from northstar.oci.tree import Tree

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:\nodd:x:notanumber:1::/:\n# comment\n\nshort\n"
GROUP = "root:x:0:\nwww:x:33:\naudio:x:29:www,other\nvideo:x:44:www\n"


def contents(*paths: str, passwd: str = PASSWD) -> Contents:
    """A tree of executable files, with users and groups."""
    tree = Tree()
    accounts = {}
    for path, data in (("etc/passwd", passwd), ("etc/group", GROUP), *((path, "") for path in paths)):
        kind = DIRECTORY if path.endswith("/") else FILE
        node = tree.apply(Member(path, kind, 0o755, 0, 0, 0, 0, "", (0, 0), {}), 0)
        accounts[id(node)] = data.encode()
    return Contents(tree, accounts)


def draft(
    config: dict[str, Any], *paths: str, name: str | None = "app:1.0.0", choice: Choice | None = None
) -> Draft:
    image = Image({"config": {"Cmd": ["/app"], "User": "33:33"} | config}, [], "linux/arm64", name)
    return convert.draft(image, contents("app", *paths), "dir/image.tar.gz", choice or Choice())


def parsed(made: Draft) -> manifest.Manifest:
    return manifest.parse(text.render(made.manifest).encode())


def notes(made: Draft, word: str) -> list[str]:
    return [note.text for note in made.notes if word in note.text]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("www", (33, 33)),
        ("33", (33, 33)),
        ("www:audio", (33, 29)),
        ("www:7", (33, 7)),
        ("5:audio", (5, 29)),
        ("5", (5, 0)),
        ("", (0, 0)),
        ("root", (0, 0)),
        (":audio", (0, 29)),
    ],
)
def test_user(user: str, expected: tuple[int, int]) -> None:
    assert users.resolve(user, PASSWD, GROUP)[:2] == expected


@pytest.mark.parametrize("user", ["nobody", "www:nogroup", "odd", "www:", "-1", "99999999999", "w w"])
def test_user_that_is_not_there(user: str) -> None:
    if user == "www:":
        assert users.resolve(user, PASSWD, GROUP)[:2] == (33, 33)
        return
    with pytest.raises(ImageError):
        users.resolve(user, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("user", "ids", "word"),
    [
        ("", (1000, 1000), "never runs as root"),
        ("0:29", (1000, 29), "never runs as root"),
        ("7", (7, 7), "never runs in group 0"),
        ("www", (33, 33), "the groups audio, video"),
    ],
)
def test_user_that_a_container_cannot_have(user: str, ids: tuple[int, int], word: str) -> None:
    made = draft({"User": user})
    assert (parsed(made).uid, parsed(made).gid) == ids
    assert len(notes(made, word)) == 1


def test_user_of_ones_own() -> None:
    made = draft({"User": "nobody-here"}, choice=Choice(user="5:6"))
    assert (parsed(made).uid, parsed(made).gid) == (5, 6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker.io/library/redis:7.0.15", "redis:7.0.15"),
        ("redis:v7.2", "redis:7.2.0"),
        ("redis:7-alpine", "redis:7.0.0"),
        ("localhost:5000/a/b:latest", "b:0.0.1"),
        ("1.4", "image:1.4.0"),
        (None, "image:0.0.1"),
        ("x/my app!:1.0.0", "my-app:1.0.0"),
        ("redis@sha256:00", "redis:0.0.1"),
    ],
)
def test_name_and_version(name: str | None, expected: str) -> None:
    assert str(parsed(draft({}, name=name)).container) == expected


def test_version_of_the_label() -> None:
    made = draft({"Labels": {"org.opencontainers.image.version": "3.2.1"}})
    assert str(parsed(made).version) == "3.2.1"


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"Entrypoint": ["/app"], "Cmd": ["-x"]}, ("/app", "-x")),
        ({"Entrypoint": None, "Cmd": ["/app", ""]}, ("/app", "")),
        ({"Cmd": ["tool"], "Env": ["PATH=/none:/opt/bin"]}, ("/opt/bin/tool",)),
        ({"Cmd": ["tool"], "Env": ["PATH=relative::/opt/bin"]}, ("/opt/bin/tool",)),
        ({"WorkingDir": "/srv"}, ("/srv/app",)),
        ({"WorkingDir": "/"}, ("/app",)),
        ({"WorkingDir": "//", "Cmd": ["nowhere"]}, ("nowhere",)),
    ],
)
def test_command(config: dict[str, Any], command: tuple[str, ...]) -> None:
    if config == {"WorkingDir": "/srv"}:
        config = config | {"Cmd": ["./app"]}
        command = ("/srv/./app",)
    description = parsed(draft(config, "opt/bin/tool"))
    assert (description.init, *description.args) == command


def test_working_directory_with_a_shell() -> None:
    made = draft({"WorkingDir": "srv/x", "Cmd": ["run", "a b"]}, "bin/sh")
    description = parsed(made)
    assert (description.init, *description.args) == (
        *("/bin/sh", "-c", 'cd "$0" && exec "$@"', "/srv/x", "run", "a b"),
    )
    assert notes(made, "the working directory /srv/x is entered by /bin/sh")


def test_image_without_command_is_a_resource() -> None:
    made = draft({"Cmd": None, "Env": ["A=b"], "Volumes": {"/x": {}}})
    assert parsed(made).init is None
    assert notes(made, "resource container")


def test_environment_within_the_limits() -> None:
    entries = ["A=1=2", "A=3", "NORTHSTAR_NAME=x", f"{'N' * 65}=x", f"LONG={'v' * 1025}", "none", "=x", "E="]
    made = draft({"Env": entries})
    assert parsed(made).env == {"A": "3", "E": ""}
    assert len(notes(made, "left out")) == 5
    many = draft({"Env": [f"V{i}=" for i in range(70)]})
    assert len(parsed(many).env) == 64 and len(notes(many, "left out")) == 6


def test_volumes() -> None:
    volumes = {"/data": {}, "data/sub": {}, "/": {}, "/proc/x": {}, "/cache/../var": {}, "/full": {}}
    volumes["/full/file"] = volumes["/app"] = {}
    made = draft({"Volumes": volumes}, "full/file")
    persist = [path for path, mount in parsed(made).mounts.items() if type(mount).__name__ == "Persist"]
    assert sorted(persist) == ["/data", "/full", "/var"]
    assert notes(made, "the volumes /data, /full, /var share one directory")
    assert notes(made, "the volume /full has files in the image")
    assert len(notes(made, "covers it")) == 4
    assert notes(made, "the volume /app is left out: in the image it is no directory")


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "A=b"},
        {"Cmd": "/app"},
        {"Cmd": [1]},
        {"Volumes": ["/a"]},
        {"Labels": {"a": 1}},
        {"User": 7},
        {"Cmd": ["/app\0"]},
        {"WorkingDir": ["/"]},
    ],
)
def test_config_of_the_wrong_types(config: dict[str, Any]) -> None:
    with pytest.raises(ImageError):
        draft(config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(
    JSON,
    st.lists(TEXT, max_size=5),
    st.dictionaries(st.text("ABC:", min_size=1, max_size=9), TEXT, max_size=4),
)
def test_text_says_what_the_data_says(custom: Any, args: list[str], env: dict[str, str]) -> None:
    data = {"name": "a", "version": "1.0.0", "init": "/a", "args": args, "env": env, "uid": 1, "gid": 1}
    data["custom"] = {"data": custom}
    try:
        expected = manifest.parse(json.dumps(data).encode())
    except ManifestError:
        return
    made = text.render(data, ["a comment", "", "two\nlines"])
    assert manifest.parse(made.encode()) == expected


def test_overlay() -> None:
    below = {
        **{"name": "a", "version": "1.0.0", "uid": 1, "gid": 1, "init": "/a", "args": ["x"]},
        **{"env": {"A": "1", "B": "2"}, "mounts": {"/tmp": {"type": "tmpfs", "size": 1}}},
        **{"custom": {"oci": {"x": 1, "y": 2}}, "seccomp": {"profile": "default"}},
    }
    own = encodings.parse(
        b"init: /b\nenv: { B: null, C: 3 }\nmounts: { /tmp: { type: persist } }\nseccomp: ~\n"
        b"network: !namespace n\ncustom: { oci: { y: [1] } }\n"
    )
    merged = from_tree(overlay.merge(below, own))
    assert (merged.init, merged.args, merged.env) == ("/b", (), {"A": "1", "C": "3"})
    assert type(merged.mounts["/tmp"]).__name__ == "Persist"
    assert merged.seccomp is None
    assert merged.custom == {"oci": {"x": 1, "y": [1]}}
    assert below["args"] == ["x"]


def test_overlay_with_duplicates() -> None:
    own = encodings.parse(b"env: { A: 1, A: 2 }\n")
    with pytest.raises(ManifestError, match="duplicate"):
        overlay.merge({"env": {}}, own)


@pytest.mark.parametrize(
    ("host", "words", "kind"),
    [
        ("/dev/null", None, FILE),
        ("/", None, DIRECTORY),
        ("/nonexistent", None, DIRECTORY),
        ("/nonexistent", "file", FILE),
    ],
)
def test_type_of_a_mount_point_that_is_made(host: str, words: str | None, kind: str) -> None:
    """As `sextant pack` makes it of a directory."""
    custom = {"northstar": {"mounts": {"/new/point": words}}} if words else None
    description = {"name": "a", "version": "1.0.0", "init": "/a", "uid": 1, "gid": 1, "custom": custom}
    mounts = {target: {"type": "bind", "host": host} for target in ("/new/point", "/app", "/dir")}
    tree = contents("app", "dir/").tree
    squash.add_mount_points(tree, manifest.parse(json.dumps({**description, "mounts": mounts}).encode()))
    found = {target: tree.lookup(target) for target in mounts}
    assert {target: node.kind for target, node in found.items() if node is not None} == {
        "/new/point": kind,
        "/app": FILE,
        "/dir": DIRECTORY,
    }


def test_a_place_for_the_socket_of_notifications() -> None:
    custom = {"northstar": {"watchdog": "10s"}}
    description = {"name": "a", "version": "1.0.0", "init": "/a", "uid": 1, "gid": 1, "custom": custom}
    tree = contents("app").tree
    squash.add_mount_points(tree, manifest.parse(json.dumps(description).encode()))
    node = tree.lookup("/run/host/notify")
    assert node is not None and node.kind == FILE
