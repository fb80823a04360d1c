# SPDX-License-Identifier: Apache-2.0
"""The long form of the faults: again and again with new seeds, until the time is over or something fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SCALE = 5
"""So many times the faults of the short form in one round."""


def run(hours: float) -> int:
    """Rounds of `tests/faults`; the exit code is that of the round that failed."""
    end = time.monotonic() + hours * 3600
    seed = int(os.environ.get("NORTHSTAR_FAULTS_SEED", "0"))
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        seed, rounds = seed + 1, rounds + 1
        print(f"\n=== round {rounds}, seed {seed} ===", flush=True)
        variables = {"NORTHSTAR_FAULTS_SEED": str(seed), "NORTHSTAR_FAULTS_SCALE": str(SCALE)}
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-s", "-x", "tests/faults"],
            cwd=REPOSITORY,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode
        if code:
            print(f"failed with NORTHSTAR_FAULTS_SEED={seed} NORTHSTAR_FAULTS_SCALE={SCALE}")
            return code
    print(f"{rounds} rounds, the last one with seed {seed}: nothing failed")
    return 0
