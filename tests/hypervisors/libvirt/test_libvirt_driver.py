"""The driver's own promises: what it opens, refuses and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from eventbridge import Bridge, BridgeClosed, HypervisorError
from eventbridge.adapters.hypervisors.libvirt import installed
from eventbridge.adapters.hypervisors.libvirt.driver import driver
from eventbridge.adapters.hypervisors.libvirt.events import TOLD_BETTER_BY, event_ids
from eventbridge.hypervisor.lookup import find
from tests.support.watched import Watched


def test_a_daemon_that_is_not_there_is_one_clear_error(
    bridge: Bridge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"test+unix:///default?socket={tmp_path}/nobody"
    with pytest.raises(HypervisorError) as refused:
        driver.subscribe(uri, bridge, print)
    assert str(refused.value) == (
        f"{uri}: cannot open: Failed to connect socket to '{tmp_path}/nobody': No such file or directory; "
        "is the daemon running?"
    )
    assert (refused.value.code, refused.value.operation) == (libvirt.VIR_ERR_SYSTEM_ERROR, "open")
    assert bridge.is_empty()
    assert capfd.readouterr() == ("", "")


def test_a_definition_that_is_wrong_is_one_line_without_a_hint_about_daemons(bridge: Bridge, tmp_path: Path) -> None:
    (tmp_path / "bad.xml").write_text("<nothing/>")
    with pytest.raises(HypervisorError) as refused:
        driver.subscribe(f"test://{tmp_path}/bad.xml", bridge, print)
    assert "daemon" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert bridge.is_empty()


def test_a_closed_bridge_is_refused_before_anything_is_opened(bridge: Bridge) -> None:
    """D8."""
    with Bridge("select") as closed:
        pass
    with pytest.raises(BridgeClosed):
        driver.subscribe("test:///default", closed, print)
    assert installed() is bridge


def test_subscribing_installs_libvirt_on_the_bridge_it_is_given(bridge: Bridge) -> None:
    with Bridge("select") as other:
        one = driver.subscribe("test:///default", other, print)
        assert installed() is other
        two = driver.subscribe("test:///default", bridge, print)
        assert installed() is bridge
        one.close()
        two.close()
        assert other.is_empty()


def test_it_asks_for_every_event_once(bridge: Bridge, watch: Callable[..., Watched]) -> None:
    """What is told twice is asked for by its better id only; what the driver lacks is noted."""
    subscription = watch("test:///default").subscription
    assert len(subscription._callbacks) == len(set(event_ids().values()) - set(TOLD_BETTER_BY))
    assert set(subscription.refused) == {"keepalive"}
    assert bridge.stats().timeouts == 1


def test_every_scheme_of_libvirts_leads_here() -> None:
    assert find("qemu:///system") is find("test+unix:///default?socket=/x") is driver


def test_the_version_names_the_library_and_its_binding() -> None:
    library, binding = driver.version().split(" (")
    number = libvirt.getVersion()
    assert library == f"libvirt {number // 10**6}.{number // 1000 % 1000}.{number % 1000}"
    assert binding.startswith("libvirt-python ")
