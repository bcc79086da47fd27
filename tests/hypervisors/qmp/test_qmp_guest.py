"""What a guest does by itself, and what is told of it, on a real machine: its ports are written to in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import qmp_guest
from tests.support.qmp_guest import Guest
from tests.support.qmp_qemu import Qemu, Start
from tests.support.qmp_rig import Opened, Rig

Live = Callable[..., tuple[Opened, Guest, Qemu]]


@pytest.fixture
def live(rig: Rig, start: Start, directory: Path) -> Iterator[Live]:
    """``live(*arguments)`` is a machine that runs."""
    guests = []

    def live(*arguments: str) -> tuple[Opened, Guest, Qemu]:
        qemu = start("a", *qmp_guest.machine(directory, *arguments))
        opened = rig.open(qemu.uri)
        opened.ask("start")
        guests.append(Guest(directory))
        return opened, guests[-1], qemu

    yield live
    for guest in guests:
        guest.close()


def test_a_guest_that_shuts_down_stops_for_that(live: Live) -> None:
    opened, guest, _ = live()
    guest.sleep("off")
    opened.told("connection_lost eof")
    assert opened.story[1:] == ["shutdown guest", "stopped shutdown", "connection_lost eof"]


def test_a_guest_that_panics_stops_for_that(live: Live) -> None:
    opened, guest, _ = live()
    guest.panic()
    opened.told("connection_lost eof")
    assert opened.story[1:] == [
        "crashed panicked", "other stop", "shutdown guest", "stopped crashed", "connection_lost eof",
    ]  # fmt: skip


def test_a_guest_that_reboots_runs_on(live: Live) -> None:
    opened, guest, qemu = live()
    guest.reset()
    opened.told("rebooted guest")
    assert qemu.side.status == "running"
    assert opened.story[1:] == ["rebooted guest"]


def test_a_guest_that_reboots_where_it_may_not_stops(live: Live) -> None:
    opened, guest, _ = live("-no-reboot")
    guest.reset()
    opened.told("connection_lost eof")
    assert opened.story[1:] == ["shutdown guest", "stopped shutdown", "connection_lost eof"]


def test_a_guest_sleeps_and_is_woken(live: Live) -> None:
    opened, guest, qemu = live()
    guest.sleep("memory")
    opened.told("pm_suspended memory")
    assert opened.ask("info").state == "pm_suspended"
    assert "put its machine to sleep" in str(opened.begin("resume").error())
    qemu.side.ask("system_wakeup")
    opened.told("woken")
    assert opened.ask("info").state == "running"


def test_a_guest_that_is_reset_in_its_sleep_stands_still(live: Live) -> None:
    """So QEMU has it, and no event of its says so."""
    opened, guest, _ = live()
    guest.sleep("memory")
    opened.told("pm_suspended memory")
    opened.ask("reboot")
    assert opened.story[1:] == ["pm_suspended memory", "rebooted host", "suspended reset"]
    assert opened.ask("info").state == "paused"


def test_a_guest_that_saves_itself_to_its_disk_ends(live: Live) -> None:
    opened, guest, _ = live()
    guest.sleep("disk")
    opened.told("connection_lost eof")
    assert opened.story[1:] == ["pm_suspended disk", "shutdown guest", "stopped shutdown", "connection_lost eof"]


@pytest.mark.parametrize(
    ("act", "told", "state", "end"),
    [
        (lambda guest: guest.sleep("off"), "shutdown guest", "shutdown", "shutdown"),
        (lambda guest: guest.panic(), "crashed panicked", "crashed", "crashed"),
    ],
)
def test_a_qemu_that_outlives_its_guest_says_how_that_ended(
    live: Live, act: Callable[[Guest], None], told: str, state: str, end: str
) -> None:
    """-no-shutdown: the end is told when QEMU ends, and once; a quit is not why."""
    opened, guest, _ = live("-no-shutdown")
    act(guest)
    opened.told("other stop")
    assert opened.story[1:] == [told, "other stop"]
    assert opened.ask("info").state == state
    assert "reboot() first" in str(opened.begin("resume").error())
    opened.ask("destroy")
    assert opened.story[3:] == ["shutdown host", f"stopped {end}", "connection_lost eof"]


def test_a_qemu_whose_guest_was_begun_anew_ends_as_if_nothing_had_been(live: Live) -> None:
    opened, guest, _ = live("-no-shutdown")
    guest.sleep("off")
    opened.told("other stop")
    opened.ask("reboot")
    opened.ask("resume")
    assert opened.story[3:] == ["rebooted host", "suspended reset", "resumed"]
    assert opened.ask("info").state == "running"
    opened.ask("destroy")
    assert "stopped destroyed" in opened.story and "stopped shutdown" not in opened.story


def test_one_that_is_found_shut_down_stops_for_that(rig: Rig, live: Live) -> None:
    """It happened before anybody looked."""
    first, guest, qemu = live("-no-shutdown")
    guest.sleep("off")
    first.told("other stop")
    first.session.close()
    rig.passes()
    second = rig.open(qemu.uri)
    assert second.ask("info").state == "shutdown"
    second.ask("destroy")
    assert second.story == ["shutdown host", "stopped shutdown", "connection_lost eof"]


def test_a_device_that_is_gone_is_told(rig: Rig, live: Live) -> None:
    """With what is part of it: that has no name, and a path."""
    opened, _, qemu = live("-device", "pcie-root-port,id=rp1", "-device", "virtio-rng-pci,id=rng,bus=rp1")
    qemu.side.ask("device_del", id="rng")
    opened.ask("reboot")  # no guest would let go of it
    rig.until(lambda: opened.story.count("device_removed") == 2)
    removed = [event.raw["data"] for event in opened.events if event.kind == "device_removed"]
    assert [data.get("device") for data in removed] == [None, "rng"]
    assert all(data["path"] for data in removed)


def test_a_disk_that_is_ejected_is_told(live: Live) -> None:
    opened, _, qemu = live("-device", "ide-cd,id=cd")
    qemu.side.ask("blockdev-open-tray", id="cd")
    opened.told("disk_ejected")
    qemu.side.ask("blockdev-close-tray", id="cd")
    opened.told("other tray_closed")


def test_a_block_job_begins_and_ends_once(live: Live, directory: Path) -> None:
    """Mirrored from nothing to nothing: ready, then completed, each said once; its states are the rest."""
    disk = "driver=null-co,size=65536,read-zeroes=on,node-name"
    opened, _, qemu = live("-blockdev", f"{disk}=one", "-blockdev", f"{disk}=two")
    qemu.side.ask("blockdev-mirror", job_id="copy", device="one", target="two", sync="full")
    opened.told("job_progress ready")
    qemu.side.ask("block-job-complete", device="copy")
    opened.told("other job_dismissed")
    kinds = [event.kind for event in opened.events]
    assert (kinds.count("job_started"), kinds.count("job_ended")) == (1, 1)
    assert opened.story.count("job_progress completed") == 1
    assert opened.story.index("job_started created") < opened.story.index("job_ended concluded")


def test_an_event_that_no_table_names_is_told_with_all_it_says(live: Live) -> None:
    opened, _, qemu = live()
    qemu.side.ask("system_powerdown")
    opened.told("other powerdown")
    (event,) = [event for event in opened.events if event.reason == "powerdown"]
    assert event.raw["event"] == "POWERDOWN"
    assert set(event.raw) == {"event", "timestamp"}
