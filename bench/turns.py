# SPDX-License-Identifier: Apache-2.0
"""Measurements that are compared take turns, so that other work on the machine meets all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def in_turns(subjects: Sequence[Callable[[], T]], runs: int, warm_up: int = 0) -> list[list[T]]:
    """What each subject returned in each run; the first `warm_up` runs are left out.

    Each run begins with another subject: the kernel may still be busy with what the one before has left.
    """
    results: list[list[T]] = [[] for _ in subjects]
    for number in range(warm_up + runs):
        for step in range(len(subjects)):
            place = (number + step) % len(subjects)
            result = subjects[place]()
            if number >= warm_up:
                results[place].append(result)
    return results
