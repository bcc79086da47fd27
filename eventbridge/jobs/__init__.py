"""Job conditions: who may do what to a domain at the same time as whom.  The public names, nothing else."""

from .coroutines import AsyncHold
from .errors import JobAborted, JobBusy, JobError, JobTimeout
from .info import HeldJob, JobInfo, Metrics, Progress, Waits
from .jobs import Jobs
from .kinds import LETS_IN, Job, as_markdown
from .manager import DEFAULT_TIMEOUT, JobManager
from .state_machine import DEFAULT_LIMIT, Change, Following, Listener, Machine
from .ticket import OnSettled, State, Ticket, Verdict

__all__ = [
    "Jobs",
    "JobManager",
    "JobError",
    "JobBusy",
    "JobTimeout",
    "JobAborted",
    "Job",
    "LETS_IN",
    "as_markdown",
    "Ticket",
    "State",
    "OnSettled",
    "AsyncHold",
    "JobInfo",
    "HeldJob",
    "Progress",
    "Following",
    "Listener",
    "Metrics",
    "Waits",
    "Machine",
    "Change",
    "Verdict",
    "DEFAULT_TIMEOUT",
    "DEFAULT_LIMIT",
]
