# SPDX-License-Identifier: Apache-2.0
"""Where the engine's binary is: installed beside this module, or made from a checkout and kept in the
cache.
"""

from __future__ import annotations

import os

from northstar.errors import NorthstarError

NAME = "northstar-engine"

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))


def path() -> str:
    """The binary's path. Raises OSError or NorthstarError if there is none and none can be made."""
    installed = f"{_DIRECTORY}/{NAME}"
    if os.path.exists(installed):
        return installed
    from northstar.engine import build

    try:
        return build.cached()
    except build.BuildFailed as error:
        raise NorthstarError(str(error)) from None
