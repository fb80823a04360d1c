# SPDX-License-Identifier: Apache-2.0
"""The driver of the mutation tests: which tests belong to which module, and which survivors are accepted."""

from __future__ import annotations

from pathlib import Path

from tests import mutants
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
