"""Job conditions: who may do what to a domain at the same time as whom.  The public names, nothing else."""

from .coroutines import AsyncHold
from .domains import DEFAULT_TIMEOUT
from .info import HeldJob, JobInfo, Metrics, Progress, Waits
from .jobs import Jobs
from .kinds import LETS_IN, Job, as_markdown
from .state_machine import DEFAULT_LIMIT, Change, Following, Listener, Machine
from .ticket import OnSettled, State, Ticket, Verdict

__all__ = [
    "Jobs",
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
