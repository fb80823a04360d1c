# SPDX-License-Identifier: Apache-2.0
"""From the text of a configuration file to a checked `Config`."""

from __future__ import annotations

import os

from northstar.config import places, repositories
from northstar.config.model import (
    DEFAULT_OUTPUT_BUFFER_SIZE,
    DEFAULT_PIDS_MAX,
    BootConfig,
    Config,
    ConsoleConfig,
    ConsoleOptions,
    Debug,
    MetricsConfig,
    Perf,
    RepositoryConfig,
    Strace,
    UpdatesConfig,
)
from northstar.config.table import Table, read_toml
from northstar.errors import ConfigError, NorthstarError
from northstar.protocol.permissions import ADDITIONAL, FULL
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


MIN_METRICS_INTERVAL = 1.0
MAX_KEPT_VERSIONS = 16
_OLD_SOCKET_DIR = "sockets"
_NEW_KEYS = ("socket_dir", "event_buffer_size", "notification_buffer_size", "loop_device_timeout")


def load(path: str, read: Callable[[str], dict[str, Any]] = read_toml) -> Config:
    """The configuration in a file; raises ConfigError with every problem found."""
    values = read(path)
    problems: list[str] = []
    table = Table(values, "", problems)
    configuration = _old(table) if is_old(values) else _new(table)
    table.finish()
    problems = problems or places.problems(configuration)
    if problems:
        raise ConfigError(path, problems)
    return configuration


def check(path: str) -> list[str]:
    """Everything that is wrong with a configuration file and with what it refers to."""
    try:
        configuration = load(path)
    except ConfigError as error:
        return list(error.problems)
    problems = []
    for repository in configuration.repositories.values():
        problems += _check_repository(repository)
    for console in configuration.consoles:
        directory = os.path.dirname(console.url.path)
        if console.url.scheme == "unix" and not os.path.isdir(directory):
            problems.append(f"console {console.url}: directory {directory} does not exist")
    if configuration.metrics is not None:
        for name in ("file", "socket"):
            path = getattr(configuration.metrics, name)
            if path and not os.path.isdir(os.path.dirname(path)):
                problems.append(f"metrics.{name}: directory {os.path.dirname(path)} does not exist")
    return problems


def _check_repository(repository: RepositoryConfig) -> list[str]:
    from northstar.npk import trust

    name = f"repositories.{repository.id}"
    problems = []
    if repository.dir is not None and not os.path.isdir(repository.dir):
        problems.append(f"{name}.type.fs.dir: directory {repository.dir} does not exist")
    try:
        trust.load_keys(repository.keys)
    except NorthstarError as error:
        problems.append(f"{name}.key: {error}")
    try:
        if repository.revoked is not None:
            trust.load_revoked(repository.revoked)
    except NorthstarError as error:
        problems.append(f"{name}.revoked: {error}")
    return problems


def is_old(values: dict[str, Any]) -> bool:
    """Whether the file is written in the dialect of 2021, which serves every console with all rights."""
    console = values.get("console")
    if isinstance(console, list | dict):
        return isinstance(console, list)
    if "log_dir" in values or "mount_parallel" in values:
        return True
    debug = values.get("debug")
    debug = debug if isinstance(debug, dict) else {}
    if "strace" in debug or "perf" in debug:
        return not any(key in values for key in _NEW_KEYS)
    return False


# --- current dialect


def _new(table: Table) -> Config:
    console = table.table("console")
    consoles: tuple[ConsoleConfig, ...] = ()
    container_options = ConsoleOptions()
    if console is not None:
        consoles, container_options = _consoles(console)
    debug = Debug()
    debug_table = table.table("debug")
    if debug_table is not None:
        debug = Debug(
            commands=debug_table.texts("commands"),
            tracer_timeout=debug_table.duration("tracer_timeout", 2.0),
        )
        debug_table.finish()
    return Config(
        run_dir=_directory(table, "run_dir"),
        data_dir=_directory(table, "data_dir"),
        socket_dir=_directory(table, "socket_dir"),
        log_dir=None,
        cgroup=_cgroup(table),
        consoles=consoles,
        repositories=repositories.read_all(table, repositories.current),
        container_console_options=container_options,
        event_buffer_size=table.integer("event_buffer_size", 256, 1),
        notification_buffer_size=table.integer("notification_buffer_size", 128, 1),
        loop_device_timeout=table.duration("loop_device_timeout", 10.0),
        skip_missing_binds=table.boolean("skip_missing_binds", True),
        persist_noexec=table.boolean("persist_noexec", False),
        pids_max=table.integer("pids_max", DEFAULT_PIDS_MAX),
        output_buffer_size=table.size("output_buffer_size", DEFAULT_OUTPUT_BUFFER_SIZE),
        debug=debug,
        metrics=_metrics(table),
        updates=_updates(table),
        boot=_boot(table),
    )


def _directory(table: Table, key: str) -> str:
    path = table.text(key)
    return os.path.abspath(path) if path else ""


def _cgroup(table: Table) -> str:
    name = table.text("cgroup").strip("/")
    if not name.strip() and isinstance(table.values.get("cgroup"), str):
        table.problem("cgroup", "a name expected: the root of the hierarchy is not ours")
    elif any(part in (".", "..") for part in name.split("/")):
        table.problem("cgroup", f"{name!r} contains . or ..")
    return name


def _boot(table: Table) -> BootConfig:
    boot = table.table("boot")
    if boot is None:
        return BootConfig(table.duration("boot_timeout", BootConfig().timeout))
    found = BootConfig(
        table.duration("boot_timeout", BootConfig().timeout), boot.texts("on_good"), boot.texts("on_bad")
    )
    boot.finish()
    return found


def _metrics(table: Table) -> MetricsConfig | None:
    metrics = table.table("metrics")
    if metrics is None:
        return None
    url = metrics.take("socket", "a URL", _url, None, needed=False)
    if url is not None and url.scheme != "unix":
        metrics.problem("socket", "only unix:///path is possible")
    found = MetricsConfig(
        _directory(metrics, "file") if metrics.has("file") else None,
        metrics.duration("interval", 15.0),
        url.path if url is not None else None,
        metrics.take("mode", 'a mode such as "0660"', _mode, 0o600, needed=False),
    )
    if found.interval < MIN_METRICS_INTERVAL:
        metrics.problem("interval", f"must be at least {MIN_METRICS_INTERVAL:.0f}s")
    if not found.file and not found.socket:
        metrics.problem("file", "is missing, and so is socket")
    metrics.finish()
    return found


def _updates(table: Table) -> UpdatesConfig:
    default = UpdatesConfig()
    updates = table.table("updates")
    if updates is None:
        return default
    words = ("resume", "abort")
    on_power_loss = updates.text("on_power_loss", words[0])
    if on_power_loss not in words:
        updates.problem("on_power_loss", f'"resume" or "abort" expected, not {on_power_loss!r}')
    found = UpdatesConfig(
        updates.duration("settle", default.settle),
        updates.integer("max_boots", default.max_boots, high=repositories.MAX_U32),
        on_power_loss == "abort",
        updates.integer("keep", default.keep, high=MAX_KEPT_VERSIONS),
        updates.duration("late_rollback", default.late_rollback),
    )
    updates.finish()
    return found


def _consoles(table: Table) -> tuple[tuple[ConsoleConfig, ...], ConsoleOptions]:
    options_table = table.table("options")
    container_options = ConsoleOptions() if options_table is None else _options(options_table)
    # Any other table is one more console.
    names = [name for name, value in table.values.items() if isinstance(value, dict) and name != "options"]
    found = (table.table(name) for name in names)
    consoles = tuple(_console(listener) for listener in found if listener is not None)
    table.finish()
    return consoles, container_options


def _console(listener: Table) -> ConsoleConfig:
    own = listener.table("options")
    url = listener.take("bind", "a URL", _url, None, needed=True)
    permissions = listener.take(
        "permissions", '"full" or a list of permissions', _permissions, FULL, needed=True
    )
    if url is not None and url.scheme != "unix" and "exec" in permissions:
        listener.problem("permissions", "exec needs a unix socket, as descriptors go with the request")
    return ConsoleConfig(
        url or ConsoleUrl("unix", "", 0, ""),
        permissions,
        ConsoleOptions() if own is None else _options(own),
        listener.take("mode", 'a mode such as "0660"', _mode, None, needed=False),
        listener.boolean("insecure", False),
        listener.integer("max_connections", 2048, 1),
    )


def _options(table: Table) -> ConsoleOptions:
    default = ConsoleOptions()
    options = ConsoleOptions(
        token_validity=table.duration("token_validity", default.token_validity),
        max_requests_per_sec=table.integer("max_requests_per_sec", default.max_requests_per_sec),
        max_request_size=table.size("max_request_size", default.max_request_size),
        max_npk_install_size=table.size("max_npk_install_size", default.max_npk_install_size),
        npk_stream_timeout=table.duration("npk_stream_timeout", default.npk_stream_timeout),
    )
    table.finish()
    return options


def _url(value: Any) -> ConsoleUrl | None:
    return ConsoleUrl.parse(value) if isinstance(value, str) else None


def _permissions(value: Any) -> frozenset[str] | None:
    if isinstance(value, str):
        if value.strip() != "full":
            raise ValueError(f'"full" or a list expected, not {value!r}')
        return FULL
    if not isinstance(value, list):
        return None
    for item in value:
        if item not in ("full", *FULL, *ADDITIONAL):
            raise ValueError(f"unknown permission {item!r}")
    named = frozenset(value)
    return named - {"full"} | FULL if "full" in named else named


def _mode(value: Any) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{value!r} is no octal file mode")
    return mode


# --- older dialect


def _old(table: Table) -> Config:
    run_dir = _directory(table, "run_dir")
    none: tuple[ConsoleUrl, ...] = ()
    urls = table.take("console", "a list of URLs", _urls, none, needed=False)
    debug = Debug()
    debug_table = table.table("debug")
    if debug_table is not None:
        debug = Debug(strace=_strace(debug_table), perf=_perf(debug_table))
    return Config(
        run_dir=run_dir,
        data_dir=_directory(table, "data_dir"),
        socket_dir=os.path.join(os.path.dirname(run_dir), _OLD_SOCKET_DIR),
        log_dir=_directory(table, "log_dir"),
        cgroup=_cgroup(table),
        consoles=tuple(ConsoleConfig(url, FULL) for url in urls),
        repositories=repositories.read_all(table, repositories.older),
        event_buffer_size=1000,
        notification_buffer_size=1000,
        mount_parallel=table.optional_integer("mount_parallel", 1),
        debug=debug,
        dialect="old",
    )


def _urls(value: Any) -> tuple[ConsoleUrl, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(ConsoleUrl.parse(item) for item in value)


def _strace(table: Table) -> Strace | None:
    strace = table.table("strace")
    if strace is None:
        return None
    output = strace.text("output")
    if output not in ("", "file", "log"):
        strace.problem("output", f'"file" or "log" expected, not {output!r}')
    return Strace(
        output,
        strace.text("path", "strace"),
        tuple(strace.text("flags", "").split()),
        strace.boolean("include_runtime", False),
    )


def _perf(table: Table) -> Perf | None:
    perf = table.table("perf")
    if perf is None:
        return None
    return Perf(perf.text("path", "perf"), tuple(perf.text("flags", "").split()))
