# SPDX-License-Identifier: Apache-2.0
"""Pages for newcomers name fields, commands and files that there are."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from northstar import manifest
from northstar.nstar import cli as nstar_cli
from northstar.sextant import cli as sextant_cli
from northstar.sextant import schema

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("coming-from.md", "tutorial.md", "troubleshooting.md")
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")
TEXT = (ROOT / "docs/coming-from.md").read_text()


def commands(parser: argparse.ArgumentParser) -> set[str]:
    (action,) = (found for found in parser._actions if isinstance(found, argparse._SubParsersAction))
    return set(action.choices)


PROGRAMS = {"nstar": commands(nstar_cli.parser()), "sextant": commands(sextant_cli.parser())}


def test_pages_have_manifests_and_links() -> None:
    assert YAML.findall(TEXT)
    for page in PAGES:
        assert LINK.search((ROOT / "docs" / page).read_text()), page


@pytest.mark.parametrize("text", YAML.findall(TEXT))
def test_manifest_can_be_packed(text: str) -> None:
    parsed = manifest.parse(text.encode())
    assert parsed.name == "gateway"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    spans = [span for line in text.splitlines() for span in line.split("`")[1::2]]
    used = [found for span in spans for found in re.findall(r"^(nstar|sextant) ([a-z][a-z-]+)", span)]
    used += re.findall(r"^(nstar|sextant) ([a-z][a-z-]+)", text, re.MULTILINE)
    assert len(used) > 4
    assert not {(program, name) for program, name in used if name not in PROGRAMS[program]}


def test_fields_exist() -> None:
    fields = set(schema.schema()["properties"])
    podman = TEXT.partition("`podman run` in a manifest")[2].partition("```yaml")[0]
    named = set()
    for row in podman.splitlines():
        cells = row.split(" | ")
        if row.startswith("| `-"):
            named |= set(re.findall(r"`([a-z_]+)[`:]", cells[1]))
    assert len(named) >= 10
    assert named <= fields | {"profile", "dev"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for name, anchor in LINK.findall(text):
        target = (ROOT / "docs" / name).resolve() if name else ROOT / "docs" / page
        assert target.exists(), name
        if anchor and target.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            made = {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in made, f"{name}#{anchor}"


def test_readme_opens_with_pictures_that_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    opening = text.partition("\n## ")[0]
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", opening)
    assert len(shown) == 2
    for name in shown:
        assert (ROOT / name).read_text().startswith("<svg")
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).exists(), name
