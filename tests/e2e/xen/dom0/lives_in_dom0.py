"""Twenty guests' lives, told by ``eventbridge watch libxl:///`` as a user runs it."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from typing import Any

import pytest

from tests.e2e.xen.dom0 import guests
from tests.helpers.command import Running, running

EACH = 4
Told = list[tuple[str, str | None]]

STARTED = ("started", None)
# A fate: its guests' command line, what the toolstack asks of them, and all that is to be told of each domain.
FATES: dict[str, tuple[str, str | None, Told]] = {
    "shut-down": ("", "shutdown", [STARTED, ("shutdown", "guest"), ("stopped", "shutdown")]),
    "rebooted": ("", "reboot", [STARTED, ("rebooted", None), ("stopped", "shutdown")]),
    "crashed": ("", "crash", [STARTED, ("crashed", None), ("stopped", "crashed")]),
    "crashed-at-once": ("exit=crash", None, [STARTED, ("crashed", None), ("stopped", "crashed")]),
    "destroyed": ("", "destroy", [STARTED, ("stopped", "destroyed")]),
}
AGAIN: Told = [STARTED, ("stopped", "destroyed")]  # a guest that rebooted is made anew, as toolstacks do


class Tale:
    """What a running ``eventbridge watch --json`` tells, by domid."""

    def __init__(self, watch: Running) -> None:
        self._watch = watch
        self.events: list[dict[str, Any]] = []
        self.told: defaultdict[int, Told] = defaultdict(list)

    def until(self, domid: int, count: int) -> None:
        """So many events of a domain."""
        while len(self.told[domid]) < count:
            line = self._watch.stdout.readline()
            assert line, f"the watch ended; of domain {domid} it told {self.told[domid]}"
            self._take(line)

    def end(self) -> None:
        """All the rest."""
        self._watch.send(signal.SIGTERM)
        code, rest, err = self._watch.ends()
        assert (code, "Traceback" in err) == (0, False), err
        for line in rest.splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        event = json.loads(line)
        self.events.append(event)
        self.told[event["domain"]["id"]].append((event["kind"], event["reason"]))


@pytest.mark.parametrize("loop", ["asyncio", "select"])
def test_each_of_twenty_guests_lives_is_told_in_full_once_and_in_order(loop: str, toolstack: guests.Toolstack) -> None:
    """House, "Events": a domain's end is one ``stopped``, with its reason; what its guest did is told before it."""
    configs = {f"{fate}-{n}": guests.small(f"{fate}-{n}", FATES[fate][0]) for n in range(EACH) for fate in FATES}
    fates = {name: name.rpartition("-")[0] for name in configs}
    expected: dict[int, Told] = {}
    names: dict[int, str] = {}
    with running("watch", "libxl:///", "--json", "--loop", loop) as watch:
        watch.until("watching")
        tale = Tale(watch)

        def create(name: str, told: Told) -> int:
            domid = toolstack.create(configs[name])
            names[domid], expected[domid] = name, told
            return domid

        domids = {name: create(name, FATES[fates[name]][2]) for name in configs}
        for name, domid in domids.items():
            asked = FATES[fates[name]][1]
            if asked:
                getattr(toolstack, asked)(domid)
        for name, domid in reversed(domids.items()):
            if fates[name] != "destroyed":
                tale.until(domid, 2)
                toolstack.destroy(domid)
            if fates[name] == "rebooted":
                toolstack.destroy(create(name, AGAIN))
        for domid in expected:
            tale.until(domid, len(expected[domid]))
        tale.end()
    assert tale.told == expected
    assert [event["sequence"] for event in tale.events] == list(range(1, len(tale.events) + 1))
    assert {event["domain"]["id"]: event["domain"]["name"] for event in tale.events} == names
    uuids = {event["domain"]["name"]: event["domain"]["uuid"] for event in tale.events}
    assert uuids == {name: config["c_info"]["uuid"] for name, config in configs.items()}
