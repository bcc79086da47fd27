"""The tables name everything that the installed binding has, and give each thing its one kind.

A newer libvirt's constant makes one of these fail, and that is what they are for; until somebody gives it a row, it
is told as `other` (or without a reason), which is tested too."""

from __future__ import annotations

import json
from typing import Any

import libvirt
import pytest

from eventbridge.adapters.hypervisors.libvirt import events
from eventbridge.adapters.hypervisors.libvirt.events import (
    LIFECYCLE,
    MEANINGS,
    NAMES,
    SHAPES,
    TOLD_BETTER_BY,
    translate,
)
from eventbridge.hypervisor.events import Kind

EVENT = "VIR_DOMAIN_EVENT_"
IDS = {name: number for number, name in events.event_ids().items()}


def constants(prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): getattr(libvirt, name) for name in dir(libvirt) if name.startswith(prefix)}


LIFECYCLE_TYPES = [name for name in LIFECYCLE if "_" not in name]
DETAILS = [(of, detail) for of in LIFECYCLE_TYPES for detail in constants(f"{EVENT}{of}_")]


def told(name: str, *arguments: Any) -> tuple[Kind, str | None, dict[str, Any]]:
    return translate(IDS[name], arguments)


@pytest.mark.parametrize("name", IDS)
def test_every_event_of_the_binding_has_a_shape(name: str) -> None:
    assert name in SHAPES


@pytest.mark.parametrize(("of", "detail"), DETAILS)
def test_every_detail_of_a_lifecycle_event_has_a_row_and_its_events_kind(of: str, detail: str) -> None:
    number, detail_number = constants(EVENT)[of], constants(f"{EVENT}{of}_")[detail]
    kind, reason, raw = told("LIFECYCLE", number, detail_number)
    assert (kind, reason) == LIFECYCLE[f"{of}_{detail}"]
    assert kind is (Kind.WOKEN if detail == "WAKEUP" else LIFECYCLE[of][0])
    assert raw == {"event": "LIFECYCLE", "type": of, "detail": detail}


def test_every_domain_event_constant_belongs_to_some_table() -> None:
    """So that a new lifecycle event, or a new value of an argument, cannot be overlooked."""
    named = {f"{EVENT}{name}" for name in LIFECYCLE} | {f"{EVENT}ID_{name}" for name in SHAPES}
    open_ended = tuple(names.prefix for names in NAMES.values() if not names.only)
    listed = {names.prefix + name for names in NAMES.values() for name in names.only.split()}
    address_families = ("VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_",)  # within an address, which `raw` has as it is
    unknown = [
        name
        for name in dir(libvirt)
        if name.startswith(EVENT) and name not in named | listed and not name.startswith(open_ended + address_families)
    ]
    assert unknown == []


def test_every_reason_for_closing_has_a_row() -> None:
    assert set(constants("VIR_CONNECT_CLOSE_REASON_")) == set(events.CLOSE_REASONS)
    assert events.translate_close(libvirt.VIR_CONNECT_CLOSE_REASON_EOF) == ("eof", {"event": "CLOSE", "reason": "EOF"})
    assert events.translate_close(99) == (None, {"event": "CLOSE", "reason": 99})


def test_every_key_of_the_tables_is_an_event_and_an_argument_that_exist() -> None:
    assert {name for name, _ in MEANINGS} | {name for name, _ in NAMES} <= set(SHAPES)
    assert set(TOLD_BETTER_BY) | set(TOLD_BETTER_BY.values()) <= set(SHAPES)
    for name, argument in set(NAMES) - {("JOB_COMPLETED", "operation")}:
        assert argument in SHAPES[name].arguments
    assert {shape.by for shape in SHAPES.values()} - {None, "success"} <= {argument for _, argument in NAMES}


def test_each_end_of_a_domain_is_one_kind_and_its_reason_says_why() -> None:
    ends = [reason for kind, reason in LIFECYCLE.values() if kind is Kind.STOPPED and reason]
    assert len(ends) == len(set(ends))
    assert {"shutdown", "destroyed", "crashed", "migrated", "saved", "failed"} <= set(ends)
    assert not [
        name for name, (kind, _) in LIFECYCLE.items() if kind is Kind.STOPPED and not name.startswith("STOPPED")
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "reason", "raw"),
    [
        ("REBOOT", (), "rebooted", None, {}),
        ("RTC_CHANGE", (-60,), "other", "rtc_change", {"offset": -60}),
        ("WATCHDOG", (2,), "other", "watchdog", {"action": "RESET"}),
        (
            "IO_ERROR_REASON",
            ("/d", "vda", 1, "enospc"),
            "other",
            "io_error",
            {"path": "/d", "device": "vda", "action": "PAUSE", "reason": "enospc"},
        ),
        ("CONTROL_ERROR", (), "other", "control_error", {}),
        ("TRAY_CHANGE", ("ide0-1-0", 0), "disk_ejected", None, {"device": "ide0-1-0", "reason": "OPEN"}),
        ("TRAY_CHANGE", ("ide0-1-0", 1), "other", "tray_closed", {"device": "ide0-1-0", "reason": "CLOSE"}),
        ("DEVICE_ADDED", ("net1",), "device_added", None, {"device": "net1"}),
        ("DEVICE_REMOVED", ("net1",), "device_removed", None, {"device": "net1"}),
        ("DEVICE_REMOVAL_FAILED", ("net1",), "other", "device_removal_failed", {"device": "net1"}),
        ("AGENT_LIFECYCLE", (1, 2), "other", "agent_connected", {"state": "CONNECTED", "reason": "CHANNEL"}),
        (
            "AGENT_LIFECYCLE",
            (2, 1),
            "other",
            "agent_disconnected",
            {"state": "DISCONNECTED", "reason": "DOMAIN_STARTED"},
        ),
        ("BLOCK_JOB_2", ("vda", 2, 3), "job_progress", "ready", {"disk": "vda", "type": "COPY", "status": "READY"}),
        (
            "BLOCK_JOB_2",
            ("vda", 1, 0),
            "job_ended",
            "completed",
            {"disk": "vda", "type": "PULL", "status": "COMPLETED"},
        ),
        ("BLOCK_JOB_2", ("vda", 4, 1), "job_ended", "failed", {"type": "ACTIVE_COMMIT", "status": "FAILED"}),
        ("BLOCK_JOB_2", ("vda", 5, 2), "job_ended", "canceled", {"type": "BACKUP", "status": "CANCELED"}),
        ("MIGRATION_ITERATION", (3,), "job_progress", "iteration", {"iteration": 3}),
        ("JOB_COMPLETED", ({"operation": 5, "success": True},), "job_ended", "completed", {}),
        ("JOB_COMPLETED", ({"operation": 2, "success": False, "errmsg": "no"},), "job_ended", "failed", {}),
        ("BALLOON_CHANGE", (2048,), "other", "balloon_change", {"actual": 2048}),
        ("METADATA_CHANGE", (1, None), "other", "metadata_change", {"type": "TITLE", "namespace": None}),
        ("MEMORY_FAILURE", (1, 3, 3), "other", "memory_failure", {"flags": ["ACTION_REQUIRED", "RECURSIVE"]}),
        ("MEMORY_DEVICE_SIZE_CHANGE", ("dimm0", 64), "other", "memory_device_size_change", {"size": 64}),
        ("BLOCK_THRESHOLD", ("vda", None, 9, 1), "other", "block_threshold", {"threshold": 9, "excess": 1}),
        ("TUNABLE", ({"cputune.cpu_shares": 7},), "other", "tunable", {"params": {"cputune.cpu_shares": 7}}),
        (
            "GRAPHICS",
            (2, {"family": 0, "node": "::"}, {}, "vnc", [("a", "b")]),
            "other",
            "graphics",
            {"phase": "DISCONNECT"},
        ),
        ("DISK_CHANGE", ("/old", None, "vda", 1), "other", "disk_change", {"reason": "DROP_MISSING_ON_START"}),
    ],
)
def test_an_event_is_told_by_kind_reason_and_libvirts_own_names(
    name: str, arguments: tuple[Any, ...], kind: str, reason: str | None, raw: dict[str, Any]
) -> None:
    found = told(name, *arguments)
    assert (str(found[0]), found[1]) == (kind, reason)
    assert found[2]["event"] == name
    assert raw.items() <= found[2].items()
    assert json.loads(json.dumps(found[2])) == found[2], "raw must be plain data"


def test_a_job_names_its_operation() -> None:
    _, _, raw = told("JOB_COMPLETED", {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, "time_elapsed": 5})
    assert raw["params"] == {"operation": "MIGRATION_OUT", "time_elapsed": 5}


def test_what_no_table_knows_is_other_with_all_that_came() -> None:
    """Never dropped: an event, a lifecycle event, a value or an argument that a newer libvirt adds."""
    assert translate(999, ("a", 1, b"x", object)) == (
        Kind.OTHER,
        None,
        {"event": 999, "arguments": ["a", 1, "x", str(object)]},
    )
    assert told("LIFECYCLE", 99, 7) == (Kind.OTHER, "lifecycle", {"event": "LIFECYCLE", "type": 99, "detail": 7})
    assert told("TRAY_CHANGE", "cd", 9)[0::2] == (
        Kind.OTHER,
        {"event": "TRAY_CHANGE", "device": "cd", "reason": 9},
    )
    assert told("REBOOT", "new")[2] == {"event": "REBOOT", "argument_0": "new"}


def test_a_new_detail_keeps_its_events_kind_and_shows_its_number() -> None:
    """Or a domain's end would be missed for a reason that is merely new."""
    assert told("LIFECYCLE", libvirt.VIR_DOMAIN_EVENT_STOPPED, 99) == (
        Kind.STOPPED,
        None,
        {"event": "LIFECYCLE", "type": "STOPPED", "detail": 99},
    )
