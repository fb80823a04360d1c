# SPDX-License-Identifier: Apache-2.0
"""The driver of the mutation tests: which tests belong to which module, and which survivors are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import forkserver, mutants
from tests.mutants import Survivor

ROOT = Path(__file__).resolve().parent.parent.parent
DIFF = """\
--- mutation diff ---
--- a/northstar/x.py
+++ b/northstar/x.py
@@ -1,3 +1,3 @@
 def f(a):
-    return a | 1
+    return a & 1
"""


def test_modules_and_tests_are_there() -> None:
    found = dict(mutants.modules([]))
    assert len(found) > 40
    assert len(found) == len(list(mutants.modules([])))
    for module, tests in found.items():
        assert (ROOT / module).is_file()
        assert tests
        for name in tests:
            assert (ROOT / f"tests/unit/test_{name}.py").is_file(), name


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("pass", 0),
        ("assert False", 1),
        ("os._exit(0)", forkserver.DIED),
        ("os.kill(os.getpid(), 9)", forkserver.DIED),
        ("time.sleep(60)", forkserver.LATE),
    ],
)
def test_end_of_a_run(tmp_path: Path, line: str, code: int) -> None:
    """A test that ends its process without a word has not passed."""
    path = tmp_path / "test_x.py"
    path.write_text(f"import os, time\ndef test_x():\n    {line}\n")
    assert forkserver.run(2.0 if "sleep" in line else 60.0, [str(path)]) == code


def test_choice_of_modules() -> None:
    chosen = [module for module, _ in mutants.modules(["northstar/config/"])]
    assert chosen and all(module.startswith("northstar/config/") for module in chosen)


def test_survivor_of_a_change() -> None:
    assert mutants.survivor("northstar/x.py", DIFF) == Survivor(
        "northstar/x.py", "return a | 1", "return a & 1"
    )


def test_accepted_survivors() -> None:
    text = "| module | line |\n| `northstar/x.py` | `return a \\| 1` | `return a & 1` | a is 0 or 1 |\n"
    assert mutants.accepted_survivors(text) == {mutants.survivor("northstar/x.py", DIFF)}
    accepted = mutants.accepted_survivors(mutants.ACCEPTED.read_text())
    assert accepted
    for one in accepted:
        assert one.module == mutants.ANY or one.old in (ROOT / one.module).read_text(), one
