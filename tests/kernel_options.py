# SPDX-License-Identifier: Apache-2.0
"""The table of kernel options for the documentation.

python3 -m tests.kernel_options > docs/kernel-options.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FRAGMENT = Path(__file__).resolve().parent.parent / "recipes-northstar/linux/files/northstar.cfg"
HEAD = """\
# Kernel options

Made by `python3 -m tests.kernel_options` from the [fragment](../recipes-northstar/linux/files/northstar.cfg)
that all image builders use; `check_conf.sh` checks them on a device or in a file.

| feature | options | without them |
|---|---|---|
"""


def table(fragment: str) -> str:
    """The Markdown text for a fragment."""
    rows = []
    for group in re.split(r"^## ", fragment, flags=re.MULTILINE)[1:]:
        title, _, body = group.partition("\n")
        feature, _, effect = title.partition(": ")
        options = re.findall(r"^CONFIG_(\w+)=y", body, re.MULTILINE)
        rows.append(f"| {feature} | {', '.join(f'`{option}`' for option in options)} | {effect} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table(FRAGMENT.read_text()))
