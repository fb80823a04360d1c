# SPDX-License-Identifier: Apache-2.0
"""The part of a session that carries out a deployment: from the offer to the result."""

from __future__ import annotations

from northstar.agent import ddi, offers
from northstar.agent.actions import (
    Acknowledge,
    Begin,
    Discard,
    Facts,
    Failure,
    Fetch,
    Fetched,
    Find,
    Found,
    Install,
    Log,
    Look,
    Remove,
    Revoke,
    Send,
    Update,
    Updates,
    Watch,
    Welcome,
)
from northstar.agent.state import (
    DOWNLOADING,
    INSTALLING,
    MAX_HISTORY,
    REQUESTED,
    Ended,
    Job,
    Report,
    reference,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.agent.memory import Memory, Steps
    from northstar.agent.state import Package

CODE_FAILURE = 500
UNANSWERED = "the runtime cannot be asked"


class Jobs:
    """The job on hand, which is in the memory's state."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    @property
    def current(self) -> Job | None:
        """The job, if there is one."""
        return self._memory.state.job

    def tidy(self) -> Steps[None]:
        """Delete the downloads that nothing needs."""
        packages = () if self.current is None else self.current.packages
        yield Discard((*self._memory.state.staged, *(package.digest for package in packages)))

    # --- what the server wants

    def offered(self, document: Any, url: str) -> Steps[None]:
        """Take an offer, or report at once why not. It takes the place of what the server wanted before."""
        wanted, problem = self._read(document, url)
        job = self.current
        if job is not None and (job.id, job.key) == (wanted.id, wanted.key):
            yield from self._renewed(job, wanted)
            return
        if job is not None and job.phase == REQUESTED:
            return  # first come, first served: the server has to wait for the runtime's verdict
        yield from self.withdrawn()
        if not problem:
            wanted, problem = yield from self._checked(wanted)
        if problem:
            yield from self.end(wanted, False, [problem])
            return
        yield Log("info", f"action {wanted.id}: {content(wanted)}")
        yield from self._memory.keep(job=wanted, staged=())
        yield from self.tidy()

    def _read(self, document: Any, url: str) -> tuple[Job, str]:
        """The job of an offer, and why there is none."""
        identifier = self._memory.read(ddi.read_id, document, "a deployment")
        settings = self._memory.settings
        try:
            return offers.job(ddi.read_offer(document, settings.secure), url, settings.limits), ""
        except (ddi.Malformed, offers.Unfit) as error:
            return Job(identifier, "", url, "skip", "skip", ()), str(error)

    def _checked(self, wanted: Job) -> Steps[tuple[Job, str]]:
        """The job, and why it will not do; one that the runtime knows already only waits for its verdict."""
        known = yield Updates()
        if not isinstance(known, Failure) and any(update.reference == wanted.reference for update in known):
            names = tuple(package.container for package in wanted.packages)
            return wanted._replace(phase=REQUESTED, fetched=len(names), containers=names), ""
        facts: Facts = yield Look()
        try:
            offers.check(wanted, facts, self._memory.settings.limits)
        except offers.Unfit as error:
            return wanted, str(error)
        return wanted, ""

    def _renewed(self, job: Job, wanted: Job) -> Steps[None]:
        """The same again; it may have become urgent, and its links may have changed."""
        changed = job._replace(
            url=wanted.url, download=wanted.download, update=wanted.update, packages=wanted.packages
        )
        if changed != job:
            yield from self._keep(changed)

    def withdrawn(self) -> Steps[None]:
        """The server does not want the job any more. What was downloaded may be of use for the next one."""
        job = self.current
        if job is not None and job.phase != REQUESTED:
            yield Log("info", f"action {job.id} has been withdrawn")
            yield from self._undone(job)
            staged = tuple(package.digest for package in job.packages[: job.fetched])
            yield from self._memory.keep(job=None, staged=staged)
            yield from self.tidy()

    def stop(self, identifier: str) -> Steps[tuple[bool, str]]:
        """Whether the job could be cancelled, and what to say of it."""
        job = self.current
        if job is None or job.id != identifier:
            for ended in reversed(self._memory.state.ended):
                if ended.reference.startswith(reference(identifier, "")):
                    return False, f"it has ended already: {ended.result}"
            return True, "nothing had been done"
        if job.phase == REQUESTED and not (yield from self._revoked(job)):
            return False, "too late: the new version is being started"
        yield from self._undone(job)
        yield from self._memory.keep(job=None)
        yield from self.tidy()
        return True, "cancelled before the new version was started"

    def _revoked(self, job: Job) -> Steps[bool]:
        known = yield Updates()
        if isinstance(known, Failure):
            return False
        for update in known:
            if update.reference == job.reference:
                revoked = not update.result and bool((yield Revoke(update.id)))
                if revoked:
                    yield Acknowledge(update.id)
                return revoked
        return True  # the runtime has not been asked yet

    def _undone(self, job: Job) -> Steps[None]:
        """Remove what was installed for a job that will not be."""
        for container in job.added:
            failure: Failure | None = yield Remove(container)
            if failure is not None:
                self._check_answered(failure)
                yield Log("warning", f"{container} was not removed: {failure.reason}")

    # --- carrying it out

    def advance(self) -> Steps[bool]:
        """Go on with the job; whether there is more to do now."""
        job = self.current
        if job is None:
            return bool(self._memory.state.reports)
        if job.phase == DOWNLOADING:
            return (yield from self._download(job))
        if job.phase == INSTALLING:
            return (yield from self._install(job))
        return (yield from self._watch(job))

    def _allowed(self, handling: str) -> Steps[bool]:
        if handling != "attempt":
            return handling == "forced"
        return bool((yield Welcome()))

    def _download(self, job: Job) -> Steps[bool]:
        if job.fetched < len(job.packages):
            if not (yield from self._allowed(job.download)):
                return False
            job = yield from self._progress(job, "download", f"downloading {content(job)}")
            fetched: Fetched = yield Fetch(job.packages[job.fetched], self._memory.regular)
            return (yield from self._fetched(job, fetched))
        if job.packages:
            job = yield from self._progress(job, "downloaded", "download complete")
        if not (yield from self._allowed(job.update)):
            return False
        yield from self._keep(job._replace(phase=INSTALLING))
        return True

    def _fetched(self, job: Job, fetched: Fetched) -> Steps[bool]:
        file = job.packages[job.fetched].file
        if fetched.progressed:
            self._memory.remember(stalls=0)
        if fetched.result == "complete":
            yield from self._keep(job._replace(fetched=job.fetched + 1))
        elif fetched.result == "later":
            raise self._memory.stalled(f"download of {file}: {fetched.reason}", fetched.retry_after)
        elif fetched.result == "mismatch" and not job.mismatches:
            yield Log("warning", f"{file}: {fetched.reason}; once more")
            yield from self._keep(job._replace(mismatches=1))
        elif fetched.result != "partial":
            yield from self._fail(job, f"{file}: {fetched.reason}")
        return True

    def _install(self, job: Job) -> Steps[bool]:
        if len(job.containers) == len(job.packages):
            yield from self._keep(job._replace(phase=REQUESTED))
            return True
        job = yield from self._progress(job, "proceeding", f"installing {content(job)}")
        package = job.packages[len(job.containers)]
        if package.container not in job.added:
            found: Found | Failure = yield Find(package)
            if isinstance(found, Failure):
                yield from self._not_done(job, f"{package.file} was not installed", found)
                return True
            if found.there:
                present = (*job.present, package.container) if found.active else job.present
                yield from self._keep(_with_container(job, package)._replace(present=present))
                return True
        yield from self._install_new(job, package)
        return True

    def _install_new(self, job: Job, package: Package) -> Steps[None]:
        """Noted before, as afterwards the first version of a name would look like one that is in use."""
        noted = job._replace(added=tuple(dict.fromkeys((*job.added, package.container))))
        yield from self._keep(noted)
        installed: str | Failure = yield Install(package)
        if isinstance(installed, Failure):
            yield from self._not_done(job, f"{package.file} was not installed", installed)
        elif installed != package.container:
            wrong = f"{package.file} holds {installed}, not {package.container}"
            yield from self._fail(job._replace(added=(*job.added, installed)), wrong)
        else:
            yield from self._keep(_with_container(noted, package))

    def _watch(self, job: Job) -> Steps[bool]:
        wanted = tuple(name for name in job.containers if name not in job.present)
        if not wanted:
            yield from self._succeeded(job, "", [])
            return True
        known = yield Updates()
        if isinstance(known, Failure):
            yield from self._not_done(job, "the updates are not known", known)
            return True
        if not any(update.reference == job.reference for update in known):
            begun = yield Begin(wanted, job.added, job.reference, job.settle, job.allow_downgrade)
            if isinstance(begun, Failure):
                yield from self._not_done(job, "the update was refused", begun)
                return True
            job = yield from self._progress(job, "proceeding", f"trying {content(job)}")
        update: Update | Failure | None = yield Watch(job.reference, self._memory.regular)
        if isinstance(update, Failure):
            yield from self._not_done(job, "the update is not known", update)
        elif update is not None and update.result:
            yield from self.decided(job, update)
        return True

    def _not_done(self, job: Job, what: str, failure: Failure) -> Steps[None]:
        self._check_answered(failure)
        yield from self._fail(job, f"{what}: {failure.reason}")

    def _check_answered(self, failure: Failure) -> None:
        """What the runtime has not refused is tried again."""
        if not failure.final:
            raise self._memory.stalled(f"{UNANSWERED}: {failure.reason}")

    def _progress(self, job: Job, execution: str, detail: str) -> Steps[Job]:
        """Tell the server once; whether it has heard does not matter."""
        if detail in job.told:
            return job
        changed = job._replace(told=(*job.told, detail))
        yield from self._keep(changed)
        body = ddi.feedback(job.id, execution, "none", [detail], self._memory.clock())
        yield Send("POST", ddi.feedback_url(job.url), body)
        return changed

    # --- the end

    def decided(self, job: Job, update: Update) -> Steps[None]:
        """The runtime's verdict is the only one there is."""
        if update.result == "success":
            yield from self._succeeded(job, update.id, list(update.details))
        else:
            yield from self.end(job, False, list(update.details), update.id)

    def _succeeded(self, job: Job, update: str, details: list[str]) -> Steps[None]:
        for name in job.removals:
            failure: Failure | None = yield Remove(name)
            if failure is not None:
                self._check_answered(failure)
                updated = [f"{content(job)} is in use"] if job.packages else []
                yield from self.end(
                    job, False, [f"{name} was not removed: {failure.reason}", *updated], update
                )
                return
            details.append(f"{name} was removed")
        yield from self.end(job, True, details or [f"{content(job)} is in use"], update)

    def _fail(self, job: Job, reason: str) -> Steps[None]:
        """The end of a job of which the new version was never started."""
        yield from self._undone(job)
        yield from self.end(job, False, [reason])

    def end(self, job: Job, success: bool, details: list[str], update: str = "") -> Steps[None]:
        """Keep the result before anybody is told of it; it is sent until the server has it."""
        memory = self._memory
        result = "success" if success else "failure"
        body = ddi.feedback(
            job.id, "closed", result, details, memory.clock(), None if success else CODE_FAILURE
        )
        report = Report(ddi.feedback_url(job.url), body, update)
        ended = (*memory.state.ended, Ended(job.reference, result))[-MAX_HISTORY:]
        yield from memory.keep(job=None, reports=(*memory.state.reports, report), ended=ended)
        yield Log("info" if success else "warning", f"action {job.id}: {result}: {'; '.join(details)}")
        memory.remember(stalls=0, stall="")
        yield from self.tidy()

    def _keep(self, job: Job) -> Steps[None]:
        yield from self._memory.keep(job=job)


def _with_container(job: Job, package: Package) -> Job:
    return job._replace(containers=(*job.containers, package.container))


def content(job: Job) -> str:
    """What a job is about."""
    names = [package.container for package in job.packages]
    return ", ".join(names + [f"without {name}" for name in job.removals])
