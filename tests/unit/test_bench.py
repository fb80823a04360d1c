# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks calculate: statistics, shares of memory, which processes belong to a runtime."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

from bench import pages, processes
from bench.pages import Usage
from bench.table import Samples, milliseconds, ratio
from bench.turns import in_turns

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_samples() -> None:
    samples = Samples((4.0, 1.0, 2.0, 100.0))
    assert (samples.minimum, samples.median) == (1.0, 3.0)
    assert samples.quantile(0.5) == 4.0
    assert samples.quantile(0.95) == samples.quantile(1.0) == 100.0
    assert samples.row("what", "note") == ("what", "    3.00 ms", "note; min 1.00, p95 100.00, n=4")


def test_ratio_is_ours_in_terms_of_the_other() -> None:
    row = ratio("ratio", milliseconds([0.001, 0.002, 0.003]), milliseconds([0.004, 0.004, 0.016]), "<= 0.20")
    assert row == ("ratio", "0.50", "target <= 0.20; of the minimums 0.25")


def test_each_run_begins_with_another_subject() -> None:
    calls: list[str] = []

    def subject(name: str) -> int:
        calls.append(name)
        return len(calls)

    results = in_turns([lambda: subject("a"), lambda: subject("b")], runs=2, warm_up=1)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert results == [[4, 5], [3, 6]]


def test_a_page_is_divided_among_those_who_map_it() -> None:
    used = pages.share({1: [10, 11], 2: [11]}, {10: 1, 11: 2}, {})
    assert used == {1: Usage(PAGE, 1.5 * PAGE), 2: Usage(0, 0.5 * PAGE)}


def test_mappings_elsewhere_are_not_counted() -> None:
    used = pages.share({1: [10, 11]}, {10: 3, 11: 3}, {10: 2, 11: 1})
    assert used == {1: Usage(PAGE, 1.5 * PAGE)}


@pytest.mark.parametrize("elsewhere", [1, 2, 5])
def test_a_page_that_others_have_left_meanwhile_is_whole(elsewhere: int) -> None:
    assert pages.share({1: [10]}, {10: 1}, {10: elsewhere}) == {1: Usage(PAGE, PAGE)}


def test_a_page_that_is_not_mapped_is_the_kernels() -> None:
    assert pages.share({1: [10]}, {10: 0}, {}) == {1: Usage(0, 0)}


def test_usages_add_up() -> None:
    assert sum([Usage(1, 2), Usage(3, 4)], pages.NOTHING) == Usage(4, 6)


def test_the_runtime_is_what_is_below_the_daemon_without_what_inits_started() -> None:
    script = "sh -c 'sleep 1000 & echo $!; wait' & echo $!; sleep 1000 & echo $!; wait"
    daemon = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert daemon.stdout is not None
        printed = {int(daemon.stdout.readline()) for _ in range(3)}
        children = psutil.Process(daemon.pid).children()
        (init,) = (child for child in children if child.children())
        (helper,) = (child for child in children if child != init)
        (application,) = init.children()
        assert printed == {init.pid, helper.pid, application.pid}
        assert set(processes.runtime(daemon.pid, [init.pid])) == {daemon.pid, init.pid, helper.pid}
        assert set(processes.runtime(daemon.pid, [])) == {daemon.pid, *printed}
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.communicate(timeout=30)


def test_processor_time_is_that_of_the_process() -> None:
    assert processes.processor_time(os.getpid()) == pytest.approx(sum(os.times()[:2]), abs=0.1)
