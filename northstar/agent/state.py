# SPDX-License-Identifier: Apache-2.0
"""What an agent remembers: durably what must survive a power cut, and until the next boot the rest."""

from __future__ import annotations

from northstar.agent import policy
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1

DOWNLOADING, INSTALLING, REQUESTED = "downloading", "installing", "requested"
"""Phases of a job. `requested` is noted before the runtime is asked for the update."""

MAX_HISTORY = 16


def reference(identifier: str, key: str) -> str:
    """What stands for an action of the server, and its content."""
    return f"hawkbit:{identifier}:{key}"


class Package(NamedTuple):
    """A package of a job."""

    name: str
    """Of the container."""
    version: str
    file: str
    """As the server calls it; shown, never a path."""
    size: int
    digest: str
    url: str
    repository: str
    index_url: str = ""
    index_size: int = 0

    @property
    def container(self) -> str:
        """What it is to be installed as."""
        return f"{self.name}:{self.version}"


class Job(NamedTuple):
    """A deployment that was accepted and has not ended."""

    id: str
    key: str
    """Of its content: servers use an identifier again for something else."""
    url: str
    download: str
    update: str
    packages: tuple[Package, ...]
    removals: tuple[str, ...] = ()
    """Names of containers that are to be removed."""
    settle: int | None = None
    allow_downgrade: bool = False
    phase: str = DOWNLOADING
    fetched: int = 0
    """That many packages are complete."""
    containers: tuple[str, ...] = ()
    """What was installed."""
    mismatches: int = 0
    added: tuple[str, ...] = ()
    """What was not there before; noted before it is installed, and so it may not be there yet."""
    present: tuple[str, ...] = ()
    """What of it is the active version already."""
    told: tuple[str, ...] = ()
    """Progress that was reported."""

    @property
    def reference(self) -> str:
        """By which an update of the runtime is known to be this one."""
        return reference(self.id, self.key)


class Report(NamedTuple):
    """A final feedback that the server has not accepted yet; `update` is what to acknowledge then."""

    url: str
    body: dict[str, Any]
    update: str = ""
    refused: int = 0


class Ended(NamedTuple):
    """A job that has ended, and how."""

    reference: str
    result: str


class State(NamedTuple):
    """What survives a power cut."""

    job: Job | None = None
    reports: tuple[Report, ...] = ()
    ended: tuple[Ended, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    """Confirmations that were given, by reference."""
    staged: tuple[str, ...] = ()
    """Digests of what was downloaded for later."""

    def to_json(self) -> Any:
        """A JSON value."""
        job = self.job
        return {
            "format": FORMAT,
            "job": None if job is None else job._asdict() | {"packages": [p._asdict() for p in job.packages]},
            "reports": [report._asdict() for report in self.reports],
            "ended": [list(item) for item in self.ended],
            "answers": [list(item) for item in self.answers],
            "staged": list(self.staged),
        }

    @classmethod
    def from_json(cls, value: Any) -> State:
        """From its JSON value; ValueError if it is none of this format."""
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']}")
            return cls(
                None if value["job"] is None else _job(value["job"]),
                tuple(Report(**item) for item in value["reports"]),
                tuple(Ended(*item) for item in value["ended"]),
                tuple((str(key), str(answer)) for key, answer in value["answers"]),
                tuple(str(digest) for digest in value["staged"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed: {error}") from None


def _job(value: Any) -> Job:
    job = Job(**value)
    return job._replace(
        packages=tuple(Package(**item) for item in value["packages"]),
        removals=tuple(job.removals),
        containers=tuple(job.containers),
        added=tuple(job.added),
        present=tuple(job.present),
        told=tuple(job.told),
    )


class Volatile(NamedTuple):
    """What is lost at a reboot without harm."""

    url: str = ""
    """Of the device at the server that all this is about."""
    etag: str = ""
    failures: int = 0
    """Polls in a row that the server did not answer."""
    complaint: str = ""
    """About the server, the last one in the log: the same is not repeated."""
    stalls: int = 0
    """Tries in a row after which the job had not got on."""
    stall: str = ""
    """About the job, the last one in the log."""
    asked: float = policy.DEFAULT_POLL
    """Seconds between two polls that the server wishes for."""
    attributes: str = ""
    """The versions that the server was told last."""
    attributes_url: str = ""
    """And where."""
    due: float = 0.0
    """When to poll next: seconds of CLOCK_BOOTTIME."""

    @classmethod
    def from_json(cls, value: Any) -> Volatile:
        """From its JSON value; a new one if it is malformed."""
        known = cls()
        if not isinstance(value, dict) or value.keys() != known._asdict().keys():
            return known
        if any(type(value[key]) not in (type(default), int) for key, default in known._asdict().items()):
            return known
        return cls(**value)
