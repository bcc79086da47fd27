"""The words of a refusal: who holds the domain, with which job, for how long, and what to do next.

One table from `Verdict` to the error and its sentence.  Nothing here runs under a lock.
"""

from __future__ import annotations

from collections.abc import Callable

from eventbridge.errors import EventBridgeError, HypervisorError

from .errors import JobAborted, JobBusy, JobTimeout
from .info import HeldJob
from .ticket import Ticket, Verdict

_Maker = Callable[[str, Ticket, HeldJob | None], EventBridgeError]


def _of_a_job(kind: type[JobBusy] | type[JobTimeout] | type[JobAborted]) -> _Maker:
    def make(message: str, ticket: Ticket, held: HeldJob | None) -> EventBridgeError:
        if held is None:
            return kind(message)
        return kind(message, holder=held.holder, job=held.job, since=held.since, held=held.held)

    return make


def _of_a_domain(message: str, ticket: Ticket, held: HeldJob | None) -> EventBridgeError:
    return HypervisorError(message, operation=ticket.job.value, domain=str(ticket.key))


_WORDS: dict[Verdict, tuple[_Maker, str]] = {
    Verdict.BUSY: (_of_a_job(JobBusy), "{domain}: {job} would have to wait: {holding}; ask again without nowait"),
    Verdict.TIMEOUT: (
        _of_a_job(JobTimeout),
        "{domain}: {job} was not let in within {waited:.1f} s: {holding}; wait longer, or abort that",
    ),
    Verdict.FULL: (_of_a_job(JobBusy), "{domain}: {job} would be one too many: {queue} wait already, and {holding}"),
    Verdict.GONE: (_of_a_domain, "{domain} has ended while {job} waited for it: {holding}"),
    Verdict.ORPHANED: (
        _of_a_job(JobAborted),
        "{domain}: {job} is part of an async job that does not run any more: {holding}",
    ),
}


def error_of(ticket: Ticket, held: HeldJob | None) -> EventBridgeError:
    """What a refused ticket's owner is to raise; ``held`` is what stood in its way, when it did."""
    refusal = ticket.refusal
    make, words = _WORDS[refusal.verdict]
    message = words.format(
        domain=ticket.key,
        job=ticket.job.value,
        waited=refusal.at - ticket.asked,
        holding=held or "nobody holds it",
        queue=refusal.queue,
    )
    return make(message, ticket, held)
