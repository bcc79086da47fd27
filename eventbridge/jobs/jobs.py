"""Job conditions: so that nobody waits for somebody else's migration.

`Jobs` is one table with both faces, so that a thread and a coroutine contend for a domain as equals.
"""

from __future__ import annotations

from .coroutines import Coroutines
from .threads import Threads


class Jobs(Threads, Coroutines):
    """Who does what to which domain.  A driver has one; see `Domains` for its arguments, and for who may call what:
    any thread, everything.
    """
