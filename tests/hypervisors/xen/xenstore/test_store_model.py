"""Any sequence of operations comes out as in a dict, through libxenstore and by the wire protocol alike."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_rig import KINDS, next_watch

from eventbridge.adapters.hypervisors.xen.xenstore.store import Store
from eventbridge.errors import HypervisorError
from tests.support.xen.standin import XenStandIn

NAMES = ["", "/a", "/a/b", "/a/b/c", "/b", "/b/a"]
TURNS = itertools.count()

paths = st.sampled_from(NAMES)
operations = st.one_of(
    st.tuples(st.just("write"), paths, st.binary(max_size=5)),
    st.tuples(st.sampled_from(["read", "make", "list"]), paths),
    st.tuples(st.just("remove"), st.sampled_from(NAMES[1:])),
    st.tuples(st.sampled_from(["begin", "commit", "abort"])),
)


@dataclass
class Model:
    """A store as a dict from path to value; in a transaction, a copy of it."""

    nodes: dict[str, bytes] = field(default_factory=lambda: {"": b""})
    copy: dict[str, bytes] | None = None

    @property
    def seen(self) -> dict[str, bytes]:
        return self.nodes if self.copy is None else self.copy

    def read(self, path: str) -> object:
        return self.seen.get(path, errno.ENOENT)

    def list(self, path: str) -> object:
        below = {name.removeprefix(f"{path}/") for name in self.seen if name.startswith(f"{path}/")}
        return {name for name in below if "/" not in name} if path in self.seen else errno.ENOENT

    def write(self, path: str, value: bytes) -> object:
        self.make(path)
        self.seen[path] = value
        return None

    def make(self, path: str) -> object:
        while path not in self.seen:
            self.seen[path] = b""
            path = path.rpartition("/")[0]
        return None

    def remove(self, path: str) -> object:
        if path.rpartition("/")[0] not in self.seen:
            return errno.ENOENT
        for name in [name for name in self.seen if name == path or name.startswith(f"{path}/")]:
            del self.seen[name]
        return None

    def begin(self) -> object:
        if self.copy is None:
            self.copy = dict(self.nodes)
        return None

    def commit(self) -> object:
        self.nodes, self.copy = self.seen, None
        return None

    def abort(self) -> object:
        self.copy = None
        return None


class Real:
    """The same operations on a real connection, below a node of its own."""

    def __init__(self, store: Store, root: str) -> None:
        self.store = store
        self.root = root
        self.transaction = 0
        store.make(root)
        store.watch(root, root)

    def __call__(self, operation: str, path: str = "", *value: bytes) -> object:
        if operation in ("begin", "commit", "abort"):
            return self._transaction(operation)
        try:
            found = getattr(self.store, operation)(self.root + path, *value, self.transaction)
        except HypervisorError as error:
            return error.code
        return set(found) if operation == "list" else found

    def _transaction(self, operation: str) -> None:
        if operation == "begin":
            self.transaction = self.transaction or self.store.begin()
        elif self.transaction:
            assert self.store.end(self.transaction, abort=operation == "abort")
            self.transaction = 0

    def told(self) -> list[str]:
        """What has changed, below its node: each once, for xenstored tells a change once that it has not sent yet."""
        self._transaction("abort")
        self.store.write(f"{self.root}/end", b"")
        paths: list[str] = []
        while not paths or paths[-1] != "/end":
            paths.append(next_watch(self.store).path.removeprefix(self.root))
        self.store.unwatch(self.root, self.root)
        self.store.remove(self.root)
        return list(dict.fromkeys(paths))


@pytest.fixture(scope="module")
def stores() -> Iterator[list[Store]]:
    with XenStandIn() as xen:
        xen.load()
        opened = [make() for make in KINDS.values()]
        yield opened
        for store in opened:
            store.close()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, max_size=30))
def test_both_are_a_dict_and_tell_the_same_changes(stores: list[Store], drawn: list[tuple[str, ...]]) -> None:
    model, turn = Model(), next(TURNS)
    reals = [Real(store, f"/model-{turn}-{number}") for number, store in enumerate(stores)]
    written = []
    for name, *arguments in drawn:
        operation: Callable[..., object] = getattr(model, name)
        expected = operation(*arguments)
        assert [real(name, *arguments) for real in reals] == [expected] * len(reals), name
        written += [arguments[0]] if name == "write" and model.copy is None else []
    told, again = (real.told() for real in reals)
    assert told == again
    assert set(written) <= set(told)
