"""libvirt's C API on each host: every test of a `ThroughLibvirt` class runs on every host loop, turned by the test's
own thread and by a thread of its own.

libvirt keeps one event implementation for a process's life, so all of these tests go through the one permanent
trampoline, and each installs a bridge of its own (D9).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import uvloop

from eventbridge.adapters.hosts.asyncio import AsyncioHost
from eventbridge.adapters.hosts.libuv import LibuvHost
from eventbridge.adapters.hosts.select import SelectHost
from eventbridge.adapters.hypervisors.libvirt import install
from eventbridge.core.host import HostLoop
from eventbridge.testing.conformance.harness import Rig


@contextlib.contextmanager
def uvloop_host() -> Iterator[HostLoop]:
    loop = uvloop.new_event_loop()
    try:
        yield AsyncioHost(loop)
    finally:
        loop.close()


HOSTS: dict[str, Callable[[], contextlib.AbstractContextManager[HostLoop]]] = {
    "asyncio": lambda: contextlib.nullcontext(AsyncioHost()),
    "uvloop": uvloop_host,
    "libuv": lambda: contextlib.nullcontext(LibuvHost()),
    "select": lambda: contextlib.nullcontext(SelectHost()),
}
WAYS = [pytest.param((host, own), id=f"{host}-{'own' if own else 'same'}-thread") for host in HOSTS for own in (0, 1)]


@contextlib.contextmanager
def installed_rig(host: str, own_thread: bool) -> Iterator[Rig]:
    """A rig whose bridge serves libvirt; no exception may have reached the bridge in the end."""
    with HOSTS[host]() as made:
        rig = Rig(made, own_thread)
        try:
            install(rig.bridge)
            yield rig
        finally:
            rig.end()
        assert rig.errors == []


class ThroughLibvirt:
    """The base of test classes."""

    @pytest.fixture(params=WAYS)
    def another(self, request: pytest.FixtureRequest) -> Iterator[Callable[[], Rig]]:
        """A function that installs one more bridge, on a new loop of the same kind as `rig`'s."""
        with contextlib.ExitStack() as rigs:
            host, own_thread = request.param
            yield lambda: rigs.enter_context(installed_rig(host, bool(own_thread)))

    @pytest.fixture
    def rig(self, another: Callable[[], Rig]) -> Rig:
        return another()
