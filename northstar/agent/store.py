# SPDX-License-Identifier: Apache-2.0
"""The files in which an agent remembers: one that a power cut leaves old or new, and one below /run."""

from __future__ import annotations

import contextlib
import json
import os
import re

from northstar.agent.state import State, Volatile
from northstar.kernel.filesystem import sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MAX_SIZE = 1 << 20
STATE, VOLATILE, ANSWERS = "state.json", "poll.json", "answers"
MAX_ANSWERS = 64
"""That are looked at, the newest ones; whoever gave them may be another user, so they are not removed."""
_ANSWERS = ("confirmed", "denied")


class Store:
    """State in one directory, the rest in another."""

    def __init__(self, state_dir: str, run_dir: str) -> None:
        self._state_dir, self._run_dir = state_dir, run_dir

    def load(self) -> tuple[State, str]:
        """The state, and what is wrong with the file; then the state is a new one."""
        path = os.path.join(self._state_dir, STATE)
        try:
            return State.from_json(_read(path)), ""
        except FileNotFoundError:
            return State(), ""
        except (OSError, ValueError) as error:
            return State(), f"{path}: {error}; begun anew"

    def keep(self, state: State) -> None:
        """Make a state durable: written, synchronised and renamed."""
        _write(os.path.join(self._state_dir, STATE), state.to_json(), durable=True)

    def load_volatile(self) -> Volatile | None:
        """What was remembered since the boot, None if nothing was."""
        try:
            return Volatile.from_json(_read(os.path.join(self._run_dir, VOLATILE)))
        except (OSError, ValueError):
            return None

    def keep_volatile(self, volatile: Volatile) -> None:
        """Remember until the next boot."""
        _write(os.path.join(self._run_dir, VOLATILE), volatile._asdict(), durable=False)

    def answers(self) -> dict[str, str]:
        """Confirmations that were given here, by action."""
        found = {}
        directory = os.path.join(self._state_dir, ANSWERS)
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            newest = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)[:MAX_ANSWERS]
            for entry in newest:
                with contextlib.suppress(OSError, ValueError):
                    answer = _read(entry.path)
                    if answer in _ANSWERS:
                        found[entry.name] = answer
        return found

    def answer(self, action: str, answer: str) -> None:
        """Confirm or deny an action; ValueError if that is none."""
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", action):
            raise ValueError(f"{action[:80]!r} is no action")
        directory = os.path.join(self._state_dir, ANSWERS)
        os.makedirs(directory, 0o755, exist_ok=True)
        _write(os.path.join(directory, action), answer, durable=True)


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError("too long")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("malformed") from None


def _write(path: str, value: Any, durable: bool) -> None:
    temporary = path + ".tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    if durable:
        rename_durably(temporary, path)
    else:
        os.rename(temporary, path)


def rename_durably(source: str, target: str) -> None:
    """Rename a file whose content is durable, and make its new name so as well."""
    os.rename(source, target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_directory(directory)
    finally:
        os.close(directory)
