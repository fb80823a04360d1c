# SPDX-License-Identifier: Apache-2.0
"""The configuration as data. docs/configuration.md explains every field."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.policy.model import Policy


class ConsoleOptions(NamedTuple):
    """Limits of a console connection; times in seconds, sizes in bytes, 0 requests for no limit."""

    token_validity: float = 60.0
    max_requests_per_sec: int = 1000
    max_request_size: int = 1 << 20
    max_npk_install_size: int = 256 << 20
    npk_stream_timeout: float = 10.0


class ConsoleConfig(NamedTuple):
    """A listener for up to `max_connections` clients.

    `mode` is that of a unix socket; `insecure` silences the warning about open tcp ports.
    """

    url: ConsoleUrl
    permissions: frozenset[str]
    options: ConsoleOptions = ConsoleOptions()
    mode: int | None = None
    insecure: bool = False
    max_connections: int = 2048


class RepositoryConfig(NamedTuple):
    """A repository: a directory, or in memory if `dir` is None.

    `keys` are paths of public keys and of directories of such, `revoked` is that of a revocation list;
    `policy` is what manifests may ask for, None for anything. `require_mounts`: the runtime does not start
    without what `mount_on_start` mounts.
    """

    id: str
    dir: str | None
    keys: tuple[str, ...] = ()
    mount_on_start: bool = False
    require_mounts: bool = False
    capacity_num: int | None = None
    capacity_size: int | None = None
    revoked: str | None = None
    policy: Policy | None = None


class Strace(NamedTuple):
    """strace attached to every container; `output` is `file` or `log`."""

    output: str
    path: str = "strace"
    flags: tuple[str, ...] = ()
    include_runtime: bool = False


class Perf(NamedTuple):
    """perf record attached to every container."""

    path: str = "perf"
    flags: tuple[str, ...] = ()


class Debug(NamedTuple):
    """Programs that are started with every container.

    A start waits up to `tracer_timeout` seconds for one of the commands to trace the container's init.
    """

    commands: tuple[str, ...] = ()
    tracer_timeout: float = 2.0
    strace: Strace | None = None
    perf: Perf | None = None


class MetricsConfig(NamedTuple):
    """Where metrics go: a file, written every `interval` seconds, and a unix socket with its mode."""

    file: str | None
    interval: float
    socket: str | None
    mode: int


class UpdatesConfig(NamedTuple):
    """How updates are done; times in seconds. `keep` is how many versions stay behind the active one."""

    settle: float = 10.0
    max_boots: int = 2
    abort_on_power_loss: bool = False
    keep: int = 1
    late_rollback: float = 600.0


class BootConfig(NamedTuple):
    """How many seconds a boot may take to become good, and the programs that run when it is decided."""

    timeout: float = 300.0
    on_good: tuple[str, ...] = ()
    on_bad: tuple[str, ...] = ()


DEFAULT_PIDS_MAX = 1024
DEFAULT_OUTPUT_BUFFER_SIZE = 64 << 10


class Config(NamedTuple):
    """The whole configuration.

    `loop_device_timeout` in seconds. `pids_max` is the limit of processes and threads of containers whose
    manifest sets none, 0 for no limit. `output_buffer_size` is the memory for the last output of each
    container, in bytes.
    """

    run_dir: str
    data_dir: str
    socket_dir: str
    log_dir: str | None
    cgroup: str
    consoles: tuple[ConsoleConfig, ...]
    repositories: dict[str, RepositoryConfig]
    container_console_options: ConsoleOptions = ConsoleOptions()
    event_buffer_size: int = 256
    notification_buffer_size: int = 128
    loop_device_timeout: float = 10.0
    mount_parallel: int | None = None
    debug: Debug = Debug()
    metrics: MetricsConfig | None = None
    boot: BootConfig = BootConfig()
    skip_missing_binds: bool = True
    persist_noexec: bool = False
    pids_max: int = DEFAULT_PIDS_MAX
    output_buffer_size: int = DEFAULT_OUTPUT_BUFFER_SIZE
    updates: UpdatesConfig = UpdatesConfig()
    dialect: str = "new"
