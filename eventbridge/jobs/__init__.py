"""Job conditions: who may do what to a domain at the same time as whom.  The public names, nothing else."""

from .conditions import Jobs
from .coroutines import AsyncHold
from .domains import DEFAULT_TIMEOUT
from .info import HeldJob, JobInfo, Metrics, Progress, Waits
from .machine import DEFAULT_LIMIT, Change, Following, Listener, Machine
from .table import LETS_IN, Job, as_markdown
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
