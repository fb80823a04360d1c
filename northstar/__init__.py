# SPDX-License-Identifier: Apache-2.0
"""Northstar: an embedded container runtime for Linux."""

__version__ = "0.1.0"

API_VERSION = "0.9.2"
"""Version of the package format and of the console protocol."""
