# SPDX-License-Identifier: Apache-2.0
"""What `nstar check` has found."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple


class Finding(NamedTuple):
    """One line: `state` is `ok`, `info`, `optional`, `warning`, `MISSING` (in the kernel) or `FAILED`."""

    state: str
    text: str

    @property
    def good(self) -> bool:
        """Whether containers can run nevertheless."""
        return self.state not in ("MISSING", "FAILED")
