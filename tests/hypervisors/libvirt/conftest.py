"""What the tests with a real libvirt share: a bridge on each host that serves libvirt, connections that are closed,
private daemons.

A process has one libvirt and libvirt has one event implementation: every test here installs a bridge of its own on the
one trampoline, after all the others in its process (D9), and shows in the end that libvirt has left nothing on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.libvirt import install
from tests.support.libvirtd import Libvirtd, private_libvirtd
from tests.support.patience import PATIENCE
from tests.support.watched import DOMAIN, HOSTS, Errors, Watched


@pytest.fixture
def errors() -> Errors:
    """What the bridge was told of exceptions; a test that causes some takes them out."""
    return []


@pytest.fixture(params=HOSTS)
def bridge(request: pytest.FixtureRequest, errors: Errors) -> Iterator[Bridge]:
    """A bridge, to be run by the test, that serves libvirt."""
    with Bridge(request.param, on_error=lambda error, context: errors.append((error, context))) as bridge:
        install(bridge)
        assert bridge.is_empty(), "a test before this one, in the same process, left something of libvirt's"
        yield bridge
        if not bridge.closed:
            assert bridge.run(until=bridge.is_empty, timeout=PATIENCE), f"libvirt left something: {bridge!r}"
        assert errors == []


@pytest.fixture
def connect() -> Iterator[Callable[[str], Any]]:
    """``libvirt.open``, with the connections closed after the test."""
    with contextlib.ExitStack() as connections:

        def connect(uri: str) -> Any:
            connection = libvirt.open(uri)
            connections.callback(_close, connection)
            return connection

        yield connect


@pytest.fixture
def transient(connect: Callable[[str], Any]) -> Iterator[Callable[[str], Any]]:
    """``transient(uri)``: a domain "t" that runs, on a connection of its own, and is gone after the test."""
    with contextlib.ExitStack() as domains:

        def transient(uri: str) -> Any:
            domain = connect(uri).createXML(DOMAIN.format("t"))
            domains.callback(_destroy, domain)
            return domain

        yield transient


def _destroy(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # the test has, or has lost the connection
        domain.destroy()


def _close(connection: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # the test has closed it
        connection.close()


@pytest.fixture
def watch(bridge: Bridge) -> Iterator[Callable[..., Watched]]:
    """``watch(uri)``: the driver's events of it, until the test is over."""
    with contextlib.ExitStack() as subscriptions:

        def watch(uri: str, **options: Any) -> Watched:
            watched = Watched(uri, bridge, **options)
            subscriptions.callback(watched.close)
            return watched

        yield watch


@pytest.fixture
def daemon() -> Iterator[Libvirtd]:
    """A private libvirtd."""
    with private_libvirtd() as daemon:
        yield daemon


@pytest.fixture(params=["unix", "tcp"])
def remote_uri(daemon: Libvirtd, request: pytest.FixtureRequest) -> str:
    """A private libvirtd's, over each transport."""
    return daemon.unix_uri if request.param == "unix" else daemon.tcp_uri
