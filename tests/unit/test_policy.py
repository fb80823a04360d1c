# SPDX-License-Identifier: Apache-2.0
"""S-68: what the integrator of a device lets packages ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from northstar import config, manifest, policy
from northstar.errors import ConfigError
from northstar.policy import Policy

TOP = """\
run_dir = "/r"
data_dir = "/d"
socket_dir = "/s"
cgroup = "c"
[repositories.apps]
type = "mem"
"""
MODEST: dict[str, Any] = {
    "name": "app-1",
    "version": "1.0.0",
    "init": "/app",
    "uid": 1000,
    "gid": 1000,
}


def configured(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "northstar.toml"
    path.write_text(f"{TOP}[repositories.apps.policy]\n{text}\n")
    found = config.load(str(path)).repositories["apps"].policy
    assert found is not None
    return found


def refusal(tmp_path: Path, text: str, **fields: Any) -> str | None:
    description = manifest.parse(json.dumps({**MODEST, **fields}).encode())
    return policy.refusal(description, configured(tmp_path, text), "policy")


RULES: list[tuple[str, dict[str, Any], str]] = [
    (
        'names = ["app-*", "lib-*"]',
        {"name": "other"},
        "name: other is against the rule names (allowed: app-*, lib-*)",
    ),
    ('uids = ["1000-1999", 5]', {"uid": 4}, "uid: 4 is against the rule uids (allowed: 1000-1999, 5)"),
    ('uids = ["1000-1999"]', {"uid": 2000}, "uid: 2000 is against"),
    ("gids = [1000]", {"gid": 1}, "gid: 1 is against the rule gids (allowed: 1000)"),
    (
        'groups = ["audio"]',
        {"suppl_groups": ["audio", "disk"]},
        "suppl_groups: disk is against the rule groups",
    ),
    ("groups = []", {"suppl_groups": ["audio"]}, "allowed: none"),
    (
        'capabilities = ["CAP_NET_RAW"]',
        {"capabilities": ["CAP_NET_RAW", "CAP_SYS_ADMIN"]},
        "capabilities: CAP_SYS_ADMIN is against the rule capabilities (allowed: CAP_NET_RAW)",
    ),
    ("host_network = false", {"network": "host"}, "network: host is against the rule host_network (false)"),
    (
        'network_namespaces = ["app-*"]',
        {"network": {"namespace": "wan"}},
        "network: wan is against the rule network_namespaces (allowed: app-*)",
    ),
    (
        'permissions = ["ident"]',
        {"console": {"permissions": ["ident", "install"]}},
        "console: install is against the rule permissions (allowed: ident)",
    ),
    ('permissions = ["ident"]', {"console": {"permissions": "full"}}, "console: shutdown is against"),
    (
        'autostart = ["relaxed"]',
        {"autostart": "critical"},
        "autostart: critical is against the rule autostart",
    ),
    (
        'schedulers = ["other"]',
        {"sched": {"policy": {"fifo": {"priority": 10}}}},
        "sched: fifo is against the rule schedulers (allowed: other)",
    ),
    ('require = ["seccomp"]', {}, "seccomp: none is against the rule require (seccomp is needed)"),
    ('system_calls = ["read"]', {}, "seccomp: none is against the rule system_calls"),
    (
        'system_calls = ["mount"]',
        {"seccomp": {"profile": "default", "allow": {"mount": "any", "bpf": "any", "read": "any"}}},
        "seccomp.allow: bpf is against the rule system_calls (allowed: mount)",
    ),
    ('require = ["memory"]', {}, "cgroups.memory.memory_hard_limit: none is against the rule require"),
    ('memory_max = "1MiB"', {}, "cgroups.memory.memory_hard_limit: none is against the rule memory_max"),
    (
        'memory_max = "1MiB"',
        {"cgroups": {"memory": {"memory_hard_limit": 1048577}}},
        "memory_hard_limit: 1048577 is against the rule memory_max (at most 1048576)",
    ),
    (
        'require = ["memory"]',
        {"cgroups": {"memory": {"memory_hard_limit": -1}}},
        "memory_hard_limit: -1 is against the rule require",
    ),
    (
        "pids_max = 10",
        {"cgroups": {"pids": {"max": 11}}},
        "cgroups.pids.max: 11 is against the rule pids_max",
    ),
    ('require = ["pids"]', {}, "cgroups.pids.max: none is against the rule require"),
    ('require = ["cpu"]', {}, "cgroups.cpu.quota: none is against the rule require"),
]


@pytest.mark.parametrize(("rule", "fields", "message"), RULES)
def test_refused(tmp_path: Path, rule: str, fields: dict[str, Any], message: str) -> None:
    """The refusal names field, value and rule."""
    reason = refusal(tmp_path, rule, **fields)
    assert reason is not None
    assert reason.startswith("policy: ")
    assert message in reason


@pytest.mark.parametrize(("rule", "fields", "message"), RULES)
def test_off_by_default(tmp_path: Path, rule: str, fields: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, "", **fields) is None


ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ('names = ["app-*"]', {}),
    ('uids = ["1000-1999"]', {"uid": 1999}),
    ("host_network = false", {"network": {"namespace": "x"}}),
    ("host_network = false", {}),
    ('permissions = ["ident"]', {"console": {"permissions": ["ident"]}}),
    ('require = ["seccomp"]\nsystem_calls = []', {"seccomp": {"profile": "default"}}),
    ('memory_max = "1MiB"', {"cgroups": {"memory": {"memory_hard_limit": 1048576}}}),
    ('require = ["pids"]\npids_max = 10', {"cgroups": {"pids": {"max": 10}}}),
]


@pytest.mark.parametrize(("rule", "fields"), ALLOWED)
def test_allowed(tmp_path: Path, rule: str, fields: dict[str, Any]) -> None:
    assert refusal(tmp_path, rule, **fields) is None


BINDS = [
    ('binds = ["/etc/hosts", "/srv"]', "/etc/hosts", "", True),
    ('binds = ["/etc/hosts", "/srv"]', "/srv/data/x", "", True),
    ('binds = ["/srv/"]', "/srv", "", True),
    ('binds = ["/srv"]', "//srv//data", "", True),
    ('binds = ["/"]', "/etc/shadow", "", True),
    ('binds = ["/srv"]', "/srv/../etc/shadow", "", False),
    ('binds = ["/srv"]', "/srv2", "", False),
    ('binds = ["/srv"]', "/", "", False),
    ("binds = []", "/srv", "", False),
    ('binds = ["/srv"]', "/srv", "rw", True),
    ('binds = ["/srv"]', "/dev/mem", "rw", False),
    ('binds = ["/srv"]\nwritable_binds = []', "/srv", "rw", False),
    ('binds = ["/srv"]\nwritable_binds = []', "/srv", "", True),
    ('binds = []\nwritable_binds = ["/srv"]', "/srv/x", "", True),
    ('writable_binds = ["/srv"]', "/srv/x", "rw", True),
    ('writable_binds = ["/srv"]', "/etc", "rw", False),
    ('writable_binds = ["/srv"]', "/etc", "", True),
]


@pytest.mark.parametrize(("rule", "host", "options", "allowed"), BINDS)
def test_binds(tmp_path: Path, rule: str, host: str, options: str, allowed: bool) -> None:
    """Of what may be read, all that lies below; what may be written may be read as well."""
    mount = {"type": "bind", "host": host, **({"options": options} if options else {})}
    reason = refusal(tmp_path, rule, mounts={"/x": mount})
    assert (reason is None) == allowed, reason
    if reason is not None:
        assert f"mounts./x: {host} is against the rule" in reason


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    reason = refusal(tmp_path, 'uids = [1]\nrequire = ["seccomp", "memory"]')
    assert reason is not None
    assert reason.count("is against the rule") == 3


def test_of_a_resource_only_the_name_counts(tmp_path: Path) -> None:
    """It does not run."""
    description = manifest.parse(
        json.dumps({"name": "lib-x", "version": "1.0.0", "uid": 1, "gid": 1}).encode()
    )
    rules = configured(tmp_path, 'names = ["lib-*"]\nuids = [1000]\nrequire = ["seccomp", "memory"]')
    assert policy.refusal(description, rules, "policy") is None
    rules = configured(tmp_path, 'names = ["app-*"]')
    assert policy.refusal(description, rules, "policy") is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid = [1]", "repositories.apps.policy.uid: unknown key"),
        ('uids = ["a"]', "policy.uids: 'a' is no number and no range"),
        ('uids = ["5-1"]', "policy.uids: '5-1' is no range"),
        ("uids = [-1]", "policy.uids: -1 is no range"),
        ("uids = [true]", "policy.uids: True is no number"),
        ("uids = 1", "policy.uids: a list of"),
        ('capabilities = ["CAP_ALL"]', "policy.capabilities: unknown word 'CAP_ALL'"),
        ('permissions = ["exec"]', "policy.permissions: unknown word 'exec'"),
        ('require = ["disk"]', "policy.require: unknown word 'disk'; known are seccomp, memory, pids, cpu"),
        ('binds = ["srv"]', "policy.binds: 'srv' is no absolute path"),
        ('binds = ["/a/../b"]', "is no absolute path"),
        ('host_network = "no"', "policy.host_network: a boolean expected"),
        ("pids_max = 0", "policy.pids_max: must be at least 1"),
        ('names = [""]', "policy.names: a list of strings expected"),
    ],
)
def test_bad_rules(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        configured(tmp_path, text)
