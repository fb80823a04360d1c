# SPDX-License-Identifier: Apache-2.0
"""The runtime on a real board, over its serial console and ssh, with labgrid.

pip install labgrid
pytest --lg-env tests/labgrid/env.yaml tests/labgrid
"""

import json
import time

import pytest

pytest.importorskip("labgrid")

TIMEOUT = 30.0


@pytest.fixture
def shell(target):
    """Root's shell on the serial console."""
    return target.get_driver("ShellDriver")


@pytest.fixture
def ssh(target):
    """Commands over ssh."""
    return target.get_driver("SSHDriver")


def process_of(ssh, name):
    answer = json.loads("\n".join(ssh.run_check(f"nstar -j inspect {name}")))
    return answer["response"]["inspect"]["ok"]["data"]["process"]


def test_the_console_answers_after_boot(shell):
    assert shell.run_check("nstar ident") == ["extern:0.0.0"]


def test_the_kernel_has_what_the_runtime_needs(shell):
    output, _, code = shell.run("check_conf.sh")
    assert code == 0, "\n".join(output)


def test_a_container_starts_and_ends(ssh):
    ssh.run_check("nstar start hello-world")
    assert process_of(ssh, "hello-world") is not None
    ssh.run_check("nstar kill hello-world 9")
    deadline = time.monotonic() + TIMEOUT
    while process_of(ssh, "hello-world") is not None:
        assert time.monotonic() < deadline, "the container does not end"
        time.sleep(0.1)
