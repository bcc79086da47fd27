"""What others announce: hosts and hypervisors by entry point.

A module of its own for one reason: ``importlib.metadata`` takes a third of the time that importing eventbridge does,
and is needed only when a name is looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


def entry_points(group: str) -> EntryPoints:
    """Those of an entry-point group, as ``importlib.metadata.entry_points``."""
    from importlib.metadata import entry_points as announced

    return announced(group=group)
