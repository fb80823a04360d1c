# SPDX-License-Identifier: Apache-2.0
"""What an agent does, without doing it: a generator of actions that takes their results.

A session polls once and does what follows from the answer. While a download or an update is under way it goes
on polling, as the server may cancel it. In the end it tells when to poll next.
"""

from __future__ import annotations

import json

from northstar.agent import ddi, offers, policy
from northstar.agent.actions import Acknowledge, Facts, Failure, Get, Log, Look, Send, Update, Updates
from northstar.agent.jobs import UNANSWERED, Jobs
from northstar.agent.memory import Later, said
from northstar.agent.state import MAX_HISTORY, REQUESTED, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.agent.memory import Memory, Steps

_WORK = {"cancelAction", "confirmationBase", "deploymentBase"}
MAX_REFUSED = 2
"""After so many answers 400 a report is given up: it is not understood."""


class Session:
    """One session."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._jobs = Jobs(memory)

    def run(self) -> Steps[float]:
        """Seconds until the next session."""
        yield from self._jobs.tidy()
        while True:
            try:
                going_on = yield from self._round()
            except Later as later:
                yield from self._memory.complain(later)
                return later.seconds
            if not going_on:
                return self._memory.regular

    def _round(self) -> Steps[bool]:
        """Poll and act; whether to go on at once, as something is under way."""
        yield from self._recover()
        yield from self._report()
        yield from self._poll()
        return (yield from self._jobs.advance())

    # --- what there was before

    def _recover(self) -> Steps[None]:
        """Ask the runtime how updates ended: its verdict counts, whatever happened to us meanwhile."""
        known = yield Updates()
        if isinstance(known, Failure):
            yield from self._memory.complain(Later(0, f"{UNANSWERED}: {known.reason}", True))
            return
        for update in known:
            job = self._jobs.current
            if job is not None and update.reference == job.reference:
                if update.result:
                    yield from self._jobs.decided(job, update)
                elif job.phase != REQUESTED:
                    yield from self._memory.keep(job=job._replace(phase=REQUESTED))
            elif update.result and self._is_reported(update):
                yield Acknowledge(update.id)

    def _is_reported(self, update: Update) -> bool:
        if any(report.update == update.id for report in self._memory.state.reports):
            return False
        return any(ended.reference == update.reference for ended in self._memory.state.ended)

    def _report(self) -> Steps[None]:
        """Send final feedback. Without an answer it is kept, for ever."""
        while self._memory.state.reports:
            report, others = self._memory.state.reports[0], self._memory.state.reports[1:]
            answer = yield Send("POST", report.url, report.body)
            if answer.status == 400 and report.refused < MAX_REFUSED:
                body = report.body | {"status": report.body["status"] | {"details": []}}
                changed = report._replace(body=body, refused=report.refused + 1)
                yield from self._memory.keep(reports=(changed, *others))
                continue
            if not (200 <= answer.status < 300 or answer.status in (400, 404, 410)):
                raise self._memory.refused(answer, "a report")
            if answer.status in (400, 404):
                yield Log("warning", f"the server does not take a report: {said(answer)}")
            if report.update:
                yield Acknowledge(report.update)
            yield from self._memory.keep(reports=others)

    # --- the server

    def _poll(self) -> Steps[None]:
        memory = self._memory
        answer = yield Get(self._memory.settings.url, "" if self._jobs.current else memory.volatile.etag)
        if answer.status not in (200, 304):
            raise memory.refused(answer, "the poll")
        if answer.status == 304:
            yield from self._tell("")
        else:
            poll = memory.read(ddi.read_poll, answer.document, "the poll")
            memory.remember(asked=policy.MAX_POLL if poll.sleep is None else poll.sleep)
            yield from self._follow(poll.links)
            # What there is to do has to come again until it is done.
            memory.remember(etag="" if poll.links.keys() & _WORK else answer.etag)
        if memory.volatile.complaint:
            yield Log("info", "the server answers again")
        memory.remember(failures=0, complaint="")

    def _follow(self, links: dict[str, str]) -> Steps[None]:
        if "cancelAction" in links:
            yield from self._cancel(links["cancelAction"])
        elif "confirmationBase" in links:
            yield from self._confirm(links["confirmationBase"])
        if "deploymentBase" in links:
            document = yield from self._document(links["deploymentBase"], "a deployment")
            if document is not None:
                yield from self._jobs.offered(document, links["deploymentBase"])
        else:
            yield from self._jobs.withdrawn()
        yield from self._tell(links.get("configData", ""))

    def _document(self, url: str, what: str) -> Steps[Any]:
        """A document, None if it is not there any more."""
        answer = yield Get(url)
        if answer.status in (404, 410):
            return None
        if answer.status != 200:
            raise self._memory.refused(answer, what)
        return answer.document

    def _answered(self, url: str, body: dict[str, Any], what: str) -> Steps[bool]:
        """Whether the server has taken the answer; it may not know the question any more."""
        answer = yield Send("POST", ddi.feedback_url(url), body)
        if not (200 <= answer.status < 300 or answer.status in (404, 410)):
            raise self._memory.refused(answer, what)
        return bool(answer.status < 300)

    def _cancel(self, url: str) -> Steps[None]:
        """A cancellation is always answered, else the server waits for ever."""
        document = yield from self._document(url, "a cancellation")
        if document is None:
            return
        identifier = self._memory.read(ddi.read_id, document, "a cancellation")
        stopped = self._memory.read(ddi.read_stop, document, "a cancellation")
        cancelled, reason = yield from self._jobs.stop(stopped)
        yield Log("info", f"action {stopped} is to be cancelled: {reason}")
        words = ("closed", "success") if cancelled else ("rejected", "none")
        body = ddi.feedback(identifier, *words, [reason], self._memory.clock())
        yield from self._answered(url, body, "the answer to a cancellation")

    def _confirm(self, url: str) -> Steps[None]:
        """Answer once; a server offers again what was denied."""
        document = yield from self._document(url, "a confirmation")
        if document is None:
            return
        offer = self._memory.read(
            lambda value: ddi.read_offer(value, self._memory.settings.secure, "confirmation"),
            document,
            "a confirmation",
        )
        action = reference(offer.id, offers.key(offer))
        answer = yield from self._answer(offer)
        if not answer or dict(self._memory.state.answers).get(action) == answer:
            return
        body = ddi.confirmation(answer, [f"{answer} on the device"])
        if (yield from self._answered(url, body, "a confirmation")):
            answers = dict(self._memory.state.answers) | {action: answer}
            yield from self._memory.keep(answers=tuple(answers.items())[-MAX_HISTORY:])

    def _answer(self, offer: ddi.Offer) -> Steps[str]:
        if self._memory.settings.confirmation != "ask":
            return "confirmed" if self._memory.settings.confirmation == "accept" else "denied"
        facts: Facts = yield Look()
        if offer.id not in facts.answers:
            names = ", ".join(f"{module.name}:{module.version}" for module in offer.modules)
            waits = f"action {offer.id} waits for northstar-agent --confirm {offer.id}: {names}"
            yield from self._memory.complain(Later(0, waits, True))
        return facts.answers.get(offer.id, "")

    def _tell(self, url: str) -> Steps[None]:
        """Send the attributes if they are asked for, or if the server knows other versions.

        Not by ourselves while there is a job: what it has installed has not proved itself.
        """
        target = url or self._memory.volatile.attributes_url
        if not target or (not url and self._jobs.current is not None):
            return
        facts: Facts = yield Look()
        versions = json.dumps(facts.versions, sort_keys=True)
        if not url and versions == self._memory.volatile.attributes:
            return
        answer = yield Send("PUT", target, ddi.attributes(facts.attributes))
        if 400 <= answer.status < 500 and answer.status != 401:
            # Nothing of it has been stored: too many, too long. The main thing is to be known at all.
            few = {name: value for name, value in facts.attributes.items() if not name.startswith("npk.")}
            answer = yield Send("PUT", target, ddi.attributes(few))
        if not 200 <= answer.status < 300:
            raise self._memory.refused(answer, "attributes")
        self._memory.remember(attributes=versions, attributes_url=target)
