# SPDX-License-Identifier: Apache-2.0
"""Mutation tests: small wrong changes, one after the other, each of which some unit test should notice.

    python3 -m tests.mutants [--minutes N] [--sample N] [MODULE...]

Made by cosmic-ray on a copy of the repository. Results are kept by what module and tests contain, so a run
that was ended goes on where it was. Survivors that no test has to notice are in docs/mutants.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from qemu import cache
from tests import forkserver

REPOSITORY = Path(__file__).resolve().parent.parent
ACCEPTED = REPOSITORY / "docs/mutants.md"
WANTED = 0.85
ANY = "any"
_TIMEOUT = 30.0
_RUNTIME = "northstar/runtime"
_SETTINGS = """\
[cosmic-ray]
module-path = "{module}"
timeout = {limit}
excluded-modules = []
test-command = "{command}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
    "core/ReplaceBinaryOperator_BitOr_.*",
    "core/RemoveDecorator",
    "core/ReplaceComparisonOperator_(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)",
]
"""

TESTS: dict[str, tuple[str, ...]] = {
    "northstar/npk/archive.py": ("archive", "npk", "limits"),
    "northstar/npk/package.py": ("npk", "limits"),
    "northstar/npk/signature.py": ("npk", "limits"),
    "northstar/npk/verity.py": ("npk", "limits"),
    "northstar/manifest/encodings.py": ("encodings", "manifest"),
    "northstar/manifest/extension.py": ("supervision_limits", "manifest"),
    "northstar/manifest/supervision.py": ("supervision_limits", "manifest_supervision"),
    "northstar/manifest/yaml.py": ("encodings", "manifest"),
    "northstar/manifest": ("manifest_forms", "limits", "supervision_limits", "manifest", "numbers"),
    "northstar/protocol/base64text.py": ("base64text",),
    "northstar/protocol/messages.py": ("protocol_edges", "protocol"),
    "northstar/protocol/permissions.py": ("protocol_edges", "protocol"),
    "northstar/protocol/tokens.py": ("protocol_edges", "protocol"),
    "northstar/protocol/url.py": ("console_url",),
    "northstar/protocol": ("protocol", "client", "limits"),
    "northstar/config/apart.py": ("config_apart",),
    "northstar/config/reader.py": ("config_reader", "config"),
    "northstar/config": ("config_reader", "config", "policy"),
    "northstar/seccomp": ("seccomp_limits", "seccomp", "seccomp_calls"),
    f"{_RUNTIME}/console/outbox.py": ("outbox",),
    f"{_RUNTIME}/console/throttle.py": ("throttle",),
    f"{_RUNTIME}/containers/damage.py": ("damage",),
    f"{_RUNTIME}/containers/cleanups.py": ("cleanups",),
    f"{_RUNTIME}/containers/command.py": ("command",),
    f"{_RUNTIME}/containers/plan.py": ("plan",),
    f"{_RUNTIME}/containers/programs.py": ("recent_programs",),
    f"{_RUNTIME}/spawning/reports.py": ("reports",),
    f"{_RUNTIME}/controlgroups/groupsettings.py": ("cgroup_settings", "cgroup_values"),
    f"{_RUNTIME}/controlgroups/oom.py": ("oom",),
    f"{_RUNTIME}/eventloop/loop.py": ("channels", "loop", "loop_idle", "loop_interleavings"),
    f"{_RUNTIME}/eventloop/tasks.py": ("loop", "loop_interleavings"),
    f"{_RUNTIME}/eventloop/transport.py": ("stream",),
    f"{_RUNTIME}/eventloop/unixsocket.py": ("unixsocket",),
    f"{_RUNTIME}/eventloop/watch.py": ("loop_watch",),
    f"{_RUNTIME}/monitoring/exporter.py": ("exporter",),
    f"{_RUNTIME}/monitoring/metrics.py": ("metrics",),
    f"{_RUNTIME}/monitoring/openmetrics.py": ("metrics",),
    f"{_RUNTIME}/monitoring/servicemanager.py": ("sdnotify",),
    f"{_RUNTIME}/monitoring/usage.py": ("metrics",),
    f"{_RUNTIME}/output/lastoutput.py": ("lastoutput",),
    f"{_RUNTIME}/storage/persist.py": ("persist", "persist_owner"),
    f"{_RUNTIME}/storage/directory.py": (
        "repository",
        "repository_names",
        "repository_files",
        "repository_packages",
    ),
    "northstar/npk/superblock.py": ("superblock",),
    "northstar/engine/assembler.py": ("programs", "engine"),
    "northstar/engine/validator.py": ("programs", "engine", "engine_properties"),
    "northstar/engine/listing.py": ("programs",),
    "northstar/programs": ("programs", "initfilter"),
    "northstar/supervision/boot.py": ("supervision_order",),
    "northstar/supervision/ends.py": ("supervision_machine", "supervision_lives"),
    "northstar/supervision/machine.py": ("supervision_machine", "supervision_lives"),
    "northstar/supervision/model.py": ("supervision_model",),
    "northstar/supervision/notification.py": ("supervision_notification",),
    "northstar/supervision/order.py": ("supervision_order",),
    "northstar/supervision/state.py": ("supervision_model", "supervision_machine"),
    "northstar/updates/machine.py": ("update_actions", "update_machine"),
    "northstar/updates/journal.py": ("update_journal_values", "update_journal"),
    "northstar/updates/journaltext.py": ("update_journal_values", "update_journal"),
}
"""Which unit tests are run for the modules below a path."""


class Survivor(NamedTuple):
    """A change that no test has noticed: the line before and after it."""

    module: str
    old: str
    new: str


class Score(NamedTuple):
    """Of one module: how many mutants have been tried, and which have survived."""

    module: str
    tried: int
    left: int
    survivors: list[Survivor]


def main(arguments: list[str]) -> int:
    """Run and report; 1 if the score is below what is wanted."""
    parser = argparse.ArgumentParser(prog="tests/run --mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="files or directories (default: all)")
    parser.add_argument("--minutes", type=float, metavar="N", help="end after so long, and go on next time")
    parser.add_argument("--sample", type=int, metavar="N", help="try so many of each module, always the same")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.minutes * 60 if options.minutes is not None else None
    work = _copy()
    accepted = accepted_survivors(ACCEPTED.read_text())
    scores = []
    for module, tests in modules(options.modules):
        if end is not None and time.monotonic() > end:
            break
        score = _run(work, module, tests, end, options.sample)
        missed = [one for one in score.survivors if not accepted & {one, one._replace(module=ANY)}]
        scores.append(score._replace(survivors=missed))
        _show(scores[-1])
    tried = sum(score.tried for score in scores)
    survived = sum(len(score.survivors) for score in scores)
    reached = 1 - survived / tried if tried else 0.0
    left = sum(score.left for score in scores)
    print(f"{tried} mutants, {survived} survived: {reached:.0%}, wanted {WANTED:.0%}; {left} not tried yet")
    return 0 if reached >= WANTED else 1


def modules(wanted: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each module with its tests, those of its own entry or its directory's; below wanted paths, if any."""
    for path, tests in TESTS.items():
        found = sorted((REPOSITORY / path).glob("*.py")) if path[-3:] != ".py" else [REPOSITORY / path]
        for module in (str(file.relative_to(REPOSITORY)) for file in found if file.name != "__init__.py"):
            if module != path and module in TESTS:
                continue
            if not wanted or any(module.startswith(prefix.rstrip("/")) for prefix in wanted):
                yield module, tests


def accepted_survivors(text: str) -> set[Survivor]:
    """The table of the documentation: module or `any`, line, mutated line, reason."""
    rows = re.findall(r"^\| `(any|northstar/[^`]+)` \| `(.*?)` \| `(.*?)` \| [^|]+ \|$", text, re.MULTILINE)
    return {Survivor(*(cell.replace("\\|", "|") for cell in row)) for row in rows}


def _copy() -> Path:
    """A copy of the repository, in which files may be damaged."""
    work = cache.directory() / "mutants" / "work"
    shutil.rmtree(work, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        target = work / name
        if (REPOSITORY / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
    return work


def _run(work: Path, module: str, tests: tuple[str, ...], end: float | None, sample: int | None) -> Score:
    """Try the mutants of a module that have not been tried yet."""
    files = [f"tests/unit/test_{name}.py" for name in tests]
    content = b"".join((REPOSITORY / path).read_bytes() for path in (module, *files))
    name = module.removesuffix(".py").replace("/", "-")
    chosen = "" if sample is None else f"-{sample}"
    session = cache.directory() / "mutants" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}{chosen}"
    settings = session.with_suffix(".toml")

    def tool(*words: str | Path) -> None:
        limit = None if end is None else max(1.0, end - time.monotonic())
        subprocess.run(words, cwd=work, check=True, timeout=limit, stdout=subprocess.DEVNULL)

    with _served(work, files) as command:
        settings.write_text(_SETTINGS.format(module=module, limit=2 * _TIMEOUT, command=command))
        try:
            if not session.with_suffix(".ready").exists():
                session.unlink(missing_ok=True)
                tool("cosmic-ray", "init", settings, session)
                tool("cr-filter-operators", session, settings)
                if sample is not None:
                    _thin_out(session, sample)
                tool("cosmic-ray", "--verbosity=ERROR", "baseline", settings)
                session.with_suffix(".ready").touch()
            tool("cosmic-ray", "exec", settings, session)
        except subprocess.TimeoutExpired:
            print(f"{module}: the time is over", file=sys.stderr)
        finally:
            shutil.copy(REPOSITORY / module, work / module)
    return _score(work, module, session)


def _thin_out(session: Path, size: int) -> None:
    """Leave so many of the mutants that cosmic-ray has planned."""
    with closing(sqlite3.connect(session)) as plan, plan:
        skipped = {job for (job,) in plan.execute("select job_id from work_results")}
        order = "operator_name, operator_args, occurrence"
        planned = plan.execute(f"select job_id from mutation_specs order by {order}")
        jobs = [job for (job,) in planned if job not in skipped]
        kept = set(random.Random(0).sample(jobs, min(size, len(jobs))))
        for job in jobs:
            if job not in kept:
                plan.execute("delete from mutation_specs where job_id = ?", (job,))
                plan.execute("delete from work_items where job_id = ?", (job,))


@contextmanager
def _served(work: Path, files: list[str]) -> Iterator[str]:
    """A process that runs these tests; the command that lets it do so."""
    # Modules are changed more than once in a second, so no bytecode of them is kept.
    variables = {
        "PYTHONPATH": str(work),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with tempfile.TemporaryDirectory(prefix="northstar-mutants-") as directory:
        for name in ("wanted", "result"):
            os.mkfifo(f"{directory}/{name}")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", directory, str(_TIMEOUT), *files],
            cwd=work,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield forkserver.command(Path(directory), 2 * _TIMEOUT)
        finally:
            server.terminate()
            server.wait()


def _score(work: Path, module: str, session: Path) -> Score:
    command: list[str | Path] = ["cosmic-ray", "dump", session]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=True)
    tried, left, survivors = 0, 0, []
    for line in done.stdout.splitlines():
        _, result = json.loads(line)
        if result is None:
            left += 1
        elif result["worker_outcome"] == "normal":
            tried += 1
            if result["test_outcome"] == "survived":
                survivors.append(survivor(module, result["diff"]))
    return Score(module, tried, left, survivors)


def survivor(module: str, diff: str) -> Survivor:
    """From the text of a change."""
    changed = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    old = " ".join(line[1:].strip() for line in changed if line[0] == "-")
    new = " ".join(line[1:].strip() for line in changed if line[0] == "+")
    return Survivor(module, old, new)


def _show(score: Score) -> None:
    share = 1 - len(score.survivors) / score.tried if score.tried else 1.0
    numbers = f"{score.tried} tried, {len(score.survivors)} survived, {share:.0%}; {score.left} left"
    print(f"{score.module}: {numbers}")
    for one in score.survivors:
        print(f"  - {one.old}\n  + {one.new}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
