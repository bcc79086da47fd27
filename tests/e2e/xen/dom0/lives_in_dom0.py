"""Twenty guests' lives, told by ``eventbridge watch libxl:///`` as a user runs it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections import defaultdict
from typing import Any

from tests.e2e.xen.dom0 import guests
from tests.support.command import Running, running

EACH = 4
LOOPS = ("asyncio", "select")
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


class Story:
    """Guests that live as their fates say, and what is to be told of each domain."""

    def __init__(self, toolstack: guests.Toolstack) -> None:
        self.configs = {
            f"{fate}-{n}": guests.small(f"{fate}-{n}", FATES[fate][0]) for n in range(EACH) for fate in FATES
        }
        self.fates = {name: name.rpartition("-")[0] for name in self.configs}
        self.expected: dict[int, Told] = {}
        self.names: dict[int, str] = {}
        self._toolstack = toolstack

    def create(self, name: str, told: Told) -> int:
        domid = self._toolstack.create(self.configs[name])
        self.names[domid], self.expected[domid] = name, told
        return domid

    def play(self, tales: list[Tale]) -> None:
        domids = {name: self.create(name, FATES[self.fates[name]][2]) for name in self.configs}
        for name, domid in domids.items():
            asked = FATES[self.fates[name]][1]
            if asked:
                getattr(self._toolstack, asked)(domid)
        for name, domid in reversed(domids.items()):
            if self.fates[name] != "destroyed":
                for tale in tales:
                    tale.until(domid, 2)
                self._toolstack.destroy(domid)
            if self.fates[name] == "rebooted":
                self._toolstack.destroy(self.create(name, AGAIN))
        for domid, told in self.expected.items():
            for tale in tales:
                tale.until(domid, len(told))


def test_each_of_twenty_guests_lives_is_told_in_full_once_and_in_order(toolstack: guests.Toolstack) -> None:
    """House, "Events": a domain's end is one ``stopped``, with its reason; what its guest did is told before it.  Two
    who watch, on asyncio and on select, are told the same.
    """
    story = Story(toolstack)
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(running("watch", "libxl:///", "--json", "--loop", loop)) for loop in LOOPS]
        for watch in watches:
            watch.until("watching")
        tales = [Tale(watch) for watch in watches]
        story.play(tales)
        for tale in tales:
            tale.end()
    for tale in tales:
        assert tale.told == story.expected
        assert [event["sequence"] for event in tale.events] == list(range(1, len(tale.events) + 1))
        assert {event["domain"]["id"]: event["domain"]["name"] for event in tale.events} == story.names
        uuids = {event["domain"]["name"]: event["domain"]["uuid"] for event in tale.events}
        assert uuids == {name: config["c_info"]["uuid"] for name, config in story.configs.items()}
