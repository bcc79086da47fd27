"""What the tests of xenstored's connections share: the two kinds of them."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from time import monotonic

from eventbridge.adapters.hypervisors.xen.xenstore.client import WireStore
from eventbridge.adapters.hypervisors.xen.xenstore.libxenstore import LibxenstoreStore
from eventbridge.adapters.hypervisors.xen.xenstore.store import Store, Watched
from eventbridge.errors import HypervisorError
from tests.support.patience import PATIENCE
from tests.support.xen.standin import XenStandIn

KINDS: dict[str, Callable[[], Store]] = {"libxenstore": LibxenstoreStore, "wire": WireStore.open}


class Opened:
    """Connections of one kind to the stand-in's xenstored."""

    def __init__(self, xen: XenStandIn, kind: str) -> None:
        self.xen = xen
        self.kind = kind
        self._stores: list[Store] = []

    def __call__(self) -> Store:
        self._stores.append(KINDS[self.kind]())
        return self._stores[-1]

    def close(self) -> None:
        while self._stores:
            self._stores.pop().close()


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """For what another thread does."""
    give_up, pause = monotonic() + patience, threading.Event()
    while not condition():
        assert monotonic() < give_up, "it did not come true"
        pause.wait(0.002)


def readable(store: Store, seconds: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(store.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def next_watch(store: Store) -> Watched:
    """The next, which comes."""
    assert readable(store, PATIENCE)
    watched = store.next_watch()
    assert watched is not None
    return watched


def until(store: Store, path: str) -> list[str]:
    """The paths of all that fire up to ``path``'s watch, in order."""
    paths: list[str] = []
    while not paths or paths[-1] != path:
        paths.append(next_watch(store).path)
    return paths


def code(call: Callable[[], object]) -> int | None:
    """The errno that it is refused with."""
    try:
        found = call()
    except HypervisorError as error:
        assert "\n" not in str(error)
        return error.code
    raise AssertionError(f"it was not refused: {found!r}")
