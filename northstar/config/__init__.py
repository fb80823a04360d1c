# SPDX-License-Identifier: Apache-2.0
"""The daemon's configuration file, in the current and in the older dialect."""

from northstar.config.model import Config, ConsoleConfig, ConsoleOptions, Debug, RepositoryConfig
from northstar.config.reader import check, load
from northstar.protocol.url import ConsoleUrl

__all__ = [
    "Config",
    "ConsoleConfig",
    "ConsoleOptions",
    "ConsoleUrl",
    "Debug",
    "RepositoryConfig",
    "check",
    "load",
]
