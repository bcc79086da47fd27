"""Who lets whom in: the kinds of jobs, and the one table of what may run beside what.

A normal job has its domain to itself among the normal ones.  An async job runs long, beside normal jobs, and lets in
those of its row in `LETS_IN`; one async job at a time.  An async job begins when neither kind runs.  The facts are
libvirt's (``src/conf/virdomainjob.h``, ``docs/kbase/internals/qemu-threads``); SNAPSHOT_WITH_MEMORY is the mask that
its QEMU driver gives a snapshot while memory is saved.  `as_markdown` makes the documentation's table of this one.

Plain data: any thread.
"""

from __future__ import annotations

import enum


class Job(enum.Enum):
    """What somebody does to a domain.  The value is how it reads in a message."""

    QUERY = "query"
    """Changes nothing."""
    DESTROY = "destroy"
    """Ends the domain; no async job keeps it out."""
    SUSPEND = "suspend"
    """Stops its virtual CPUs."""
    MODIFY = "modify"
    """May change anything."""
    ABORT = "abort"
    """Ends the async job that runs."""
    MIGRATION_OP = "migration operation"
    """Steers a migration on its way: bandwidth, downtime, post-copy."""

    MIGRATION_OUT = "migration out"
    MIGRATION_IN = "migration in"
    SAVE = "save"
    DUMP = "dump"
    SNAPSHOT = "snapshot"
    SNAPSHOT_WITH_MEMORY = "snapshot with memory"
    START = "start"
    BACKUP = "backup"

    is_async: bool
    """Does it run long, beside normal jobs?"""


_DEFAULT = frozenset({Job.QUERY, Job.DESTROY, Job.ABORT})
_MIGRATING = _DEFAULT | {Job.SUSPEND, Job.MIGRATION_OP}

LETS_IN: dict[Job, frozenset[Job]] = {
    Job.MIGRATION_OUT: _MIGRATING,
    Job.MIGRATION_IN: frozenset({Job.DESTROY}),
    Job.SAVE: _DEFAULT,
    Job.DUMP: _DEFAULT,
    Job.SNAPSHOT: frozenset({Job.DESTROY}),
    Job.SNAPSHOT_WITH_MEMORY: _MIGRATING,
    Job.START: frozenset({Job.DESTROY}),
    Job.BACKUP: _DEFAULT | {Job.SUSPEND, Job.MODIFY},
}
"""By async job: the normal jobs that run beside it.  No async job is in any row."""

RESCUES = frozenset({Job.DESTROY, Job.ABORT})
"""What an abandoned job lets in as if it did not run: the two ways out of a call that hangs."""

BRINGS_UP = frozenset({Job.START, Job.MIGRATION_IN})
"""What makes a domain, so that it need not wait for one that lives."""

UNBOUNDED = frozenset({Job.DESTROY, *LETS_IN})
"""What is queued however many wait."""

for _job in Job:
    _job.is_async = _job in LETS_IN

NORMAL = tuple(job for job in Job if not job.is_async)
ASYNC = tuple(job for job in Job if job.is_async)


def as_markdown() -> str:
    """The table as the documentation has it: a row an async job, a column a normal one, ``x`` where it is let in."""
    rows = [["async job", *(job.name for job in NORMAL)], ["---"] * (len(NORMAL) + 1)]
    rows += [[runs.name, *("x" if job in LETS_IN[runs] else "" for job in NORMAL)] for runs in ASYNC]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
