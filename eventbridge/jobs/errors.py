"""The errors of jobs.  Each says who is in the way, as far as that is known."""

from __future__ import annotations

from eventbridge.errors import EventBridgeError

from .kinds import Job


class JobError(EventBridgeError):
    """What the errors of jobs have in common.

    ``holder`` is the owner's own text, ``job`` what it does, ``since`` its beginning in seconds of Unix time, ``held``
    how many seconds that was when the error was raised.
    """

    def __init__(
        self,
        message: str,
        *,
        holder: str | None = None,
        job: Job | None = None,
        since: float | None = None,
        held: float | None = None,
    ) -> None:
        super().__init__(message)
        self.holder = holder
        self.job = job
        self.since = since
        self.held = held


class JobBusy(JobError):
    """A job was refused at once: somebody holds the domain and ``nowait`` was asked, or too many wait already."""


class JobTimeout(JobError, TimeoutError):
    """A job was not let in, or a call did not come back, before its deadline."""


class JobAborted(JobError):
    """An async job was asked to abort and has, or a job that was part of it finds it ended."""
