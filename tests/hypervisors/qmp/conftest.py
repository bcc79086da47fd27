"""Private QEMUs, and sessions with them, of which nothing may be left: no process, no fd, no thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.qmp import migration_common
from tests.support import qmp_qemu
from tests.support.descriptors import open_fds
from tests.support.qmp_qemu import MACHINE, Qemu, Start, wait_until
from tests.support.qmp_rig import Rig


@pytest.fixture(scope="session")
def libuv_is_up() -> None:
    """libuv's first loop opens fds that stay for the life of the process."""
    with Bridge("libuv") as bridge:
        bridge.run(timeout=0.001)


@pytest.fixture
def leaves_nothing(libuv_is_up: None) -> Iterator[None]:
    fds, threads = open_fds(), threading.active_count()
    yield
    wait_until(lambda: threading.active_count() == threads)
    wait_until(lambda: open_fds() == fds)
    assert not migration_common.AWAITED


@pytest.fixture
def directory(leaves_nothing: None) -> Iterator[Path]:
    with qmp_qemu.directory() as made:
        yield made


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """``start(name, *arguments)`` makes a QEMU that is up."""
    with contextlib.ExitStack() as stack:

        def start(name: str = "a", *arguments: str) -> Qemu:
            return stack.enter_context(Qemu(directory, name, *(arguments or MACHINE)))

        yield start


@pytest.fixture
def rig(leaves_nothing: None, start: Start) -> Iterator[Rig]:
    """On select."""
    made = Rig("select")
    yield made
    made.close()


@pytest.fixture(params=["asyncio", "libuv", "select"])
def each_rig(request: pytest.FixtureRequest, start: Start) -> Iterator[Rig]:
    """On each host in turn."""
    made = Rig(request.param)
    yield made
    made.close()
