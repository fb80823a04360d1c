# SPDX-License-Identifier: Apache-2.0
"""Container manifests: model, the three encodings, validation, and the way back to text."""

from northstar.manifest.dump import to_json, to_text
from northstar.manifest.encodings import read
from northstar.manifest.model import Manifest
from northstar.manifest.parse import parse

__all__ = ["Manifest", "parse", "read", "to_json", "to_text"]
