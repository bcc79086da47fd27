"""What can go wrong on the way to a Xen host is one clear error, the same for both generations of libxl, and leaves
nothing.  (xenstored's own connections have theirs in ``tests/hypervisors/xen/xenstore/test_store_end.py``.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventbridge import Bridge
from eventbridge.adapters.hypervisors.xen import libxl, libxl41
from eventbridge.adapters.hypervisors.xen.libxl41.waiter import EventSource
from eventbridge.adapters.hypervisors.xen.support import library
from eventbridge.errors import HypervisorError, HypervisorUnavailable
from eventbridge.hypervisor import lookup
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE
from tests.support.xen import libxl41 as stand_in
from tests.support.xen.peers import HEADER, as_nobody, message, scripted_peer
from tests.support.xen.standin import XenStandIn

URI = "libxl:///"
WATCH = 4
GENERATIONS = ["libxl", "libxl41"]


@pytest.fixture(params=GENERATIONS)
def generation(request: pytest.FixtureRequest, xen: XenStandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which libxl this process has: the real one, or the stand-in for 4.1."""
    if request.param == "libxl41":
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(stand_in.stand_in()))
    return str(request.param)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge("select") as bridge:
        yield bridge
        assert bridge.run(until=bridge.is_empty, timeout=PATIENCE)


@pytest.fixture
def open_context(generation: str, bridge: Bridge) -> Callable[[], Any]:
    """Opened once already, so that what is loaded for good is loaded."""
    opened: Callable[[], Any] = (lambda: libxl.Context(bridge)) if generation == "libxl" else libxl41.Context
    opened().close()
    return opened


def test_no_permission_on_xenstoreds_socket_says_so_and_what_to_do(
    xen: XenStandIn, bridge: Bridge, open_context: Callable[[], Any]
) -> None:
    """Only there: the hypervisor itself lets everybody in."""
    fds = open_fds()
    xen.directory.chmod(0o755)
    (xen.directory / "table").chmod(0o666)
    with (
        as_nobody(xen.socket),
        pytest.raises(
            HypervisorError, match=r"cannot open libxl: .*is xenstored running, and may this user"
        ) as refused,
    ):
        open_context()
    assert (refused.value.code, refused.value.operation) == (-3, "open")
    assert "\n" not in str(refused.value)
    assert open_fds() == fds


def test_nor_does_the_driver_get_past_it(xen: XenStandIn, bridge: Bridge, generation: str) -> None:
    lookup.find(URI).subscribe(URI, bridge, lambda event: None).close()  # what is loaded is loaded while it can be read
    bridge.run(until=bridge.is_empty, timeout=PATIENCE)
    fds = open_fds()
    with as_nobody(xen.socket), pytest.raises(HypervisorError, match=r"cannot connect to xenstored.*no permission"):
        lookup.find(URI).subscribe(URI, bridge, lambda event: None)
    assert open_fds() == fds


@pytest.mark.parametrize(
    "answer", [message(WATCH, 0)[:7], HEADER.pack(WATCH, 0, 0, 9) + b"trunc"], ids=["in its header", "after it"]
)
def test_a_truncated_reply_fails_what_was_asked_and_says_so(
    xen: XenStandIn,
    bridge: Bridge,
    generation: str,
    open_context: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
) -> None:
    """The peer, a stand-in for xenstored, hangs up within its answer."""
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "socket"))
    with scripted_peer(tmp_path / "socket", [answer]):
        context = open_context()
        with pytest.raises(HypervisorError, match=r"libxl:///: cannot wa(tch|it for)") as refused:
            _watch(context)
        context.close()
    assert refused.value.code is not None
    assert "\n" not in str(refused.value)


def _watch(context: Any) -> None:
    if isinstance(context, libxl.Context):
        context.generators.of_death(7)
    else:
        EventSource(context, _Nobody()).wait()


class _Nobody:
    """Whom nothing is told."""

    def shut_down(self, domid: int, reason: int) -> None:
        raise AssertionError("nothing was asked")

    def gone(self, domid: int) -> None:
        raise AssertionError("nothing was asked")


def test_without_any_libxl_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch, bridge: Bridge) -> None:
    """A machine that has none, which is not this one: no name that is looked for is anybody's here."""
    monkeypatch.delenv("EVENTBRIDGE_LIBXL", raising=False)
    monkeypatch.setitem(library._KNOWN, "libxl", (("libnone.so.1",), library.LIBXL_PACKAGE, "EVENTBRIDGE_LIBXL"))
    library._loaded.cache_clear()
    try:
        for opened in (lambda: libxl.Context(bridge), libxl41.Context, lambda: lookup.find(URI).version()):
            with pytest.raises(HypervisorUnavailable, match=r"libxl cannot be loaded .*apt-get install libxenmisc"):
                opened()
    finally:
        library._loaded.cache_clear()


@pytest.mark.parametrize("other", GENERATIONS)
def test_each_adapter_says_whose_the_other_generation_is(
    xen: XenStandIn, bridge: Bridge, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Which version is wrong depends on who is asked."""
    if other == "libxl":
        with pytest.raises(HypervisorUnavailable, match=r"libxenlight\.so"):
            libxl41.Context()
    else:
        monkeypatch.setenv("EVENTBRIDGE_LIBXL", str(stand_in.stand_in()))
        with pytest.raises(HypervisorUnavailable, match=r"libxenlight\.so\.1\.0 is a libxl of before 4\.2"):
            libxl.Context(bridge)
