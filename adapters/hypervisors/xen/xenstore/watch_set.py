"""Which watches a connection has, so that nothing is told of one that is no more.

xenstored sends what a watch saw before it was removed even after that, and libxenstore hands it on (unless opened
with XS_UNWATCH_FILTER, which the oldest do not know).  Not locked: each operation is atomic under the GIL.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from eventbridge.errors import HypervisorError

from .store import Watched


class Ledger:
    """The pairs of path and token that are watched."""

    def __init__(self) -> None:
        self._watches: set[tuple[str, str]] = set()

    @contextmanager
    def adding(self, path: str, token: str) -> Iterator[None]:
        """Around the call that sets a watch: it may fire before that has returned."""
        self._watches.add((path, token))
        try:
            yield
        except HypervisorError as error:
            if error.code != errno.EEXIST:
                self._watches.discard((path, token))
            raise

    def remove(self, path: str, token: str) -> None:
        self._watches.discard((path, token))

    def wants(self, event: Watched) -> bool:
        """Is a watch there that this is of?"""
        return any((above, event.token) in self._watches for above in _above(event.path))


def _above(path: str) -> Iterator[str]:
    """``path``, and each node that it is below."""
    yield path
    while "/" in path.lstrip("/"):
        path = path.rpartition("/")[0]
        yield path
    if path.startswith("/"):
        yield "/"
