# SPDX-License-Identifier: Apache-2.0
"""BitBake with openembedded-core, meta-oe and meta-python: OE_CORE, BITBAKE and META_OE name the trees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bitbake import Build, Trees, Workspace

from tests import unprivileged


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    """A directory with a copy of the layer, a key pair and the build directories."""
    trees = Trees(*(Path(os.environ[name]).resolve() for name in ("OE_CORE", "BITBAKE", "META_OE")))
    with unprivileged.directory("northstar-layer-") as work:
        yield Workspace(work, trees)


@pytest.fixture(scope="session", params=["sysvinit", "systemd"])
def build(request: pytest.FixtureRequest, workspace: Workspace) -> Build:
    """A build directory for each init manager."""
    return workspace.build(request.param, f'INIT_MANAGER = "{request.param}"\n')
