"""One story of domains, told by ``eventbridge watch libxl:/// --json`` over either generation of libxl: the same, event
for event.  4.2 and later is the real libxl 4.17; 4.1 is the project's stand-in, over the real libxenstore."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from tests.support.command import Running, environment, running
from tests.support.xen import libxl41
from tests.support.xen.standin import CRASH, POWEROFF, REBOOT, SUSPEND, WATCHDOG, Guest, XenStandIn

URI = "libxl:///"
WEB, WEB_AGAIN, MAIL, DB, DISC = (UUID(int=number) for number in range(1, 6))


class Telling:
    """A watch that runs, beside the Xen that it watches."""

    def __init__(self, xen: XenStandIn, watch: Running) -> None:
        self.xen = xen
        self._watch = watch
        self.events: list[dict[str, Any]] = []

    def hears(self, count: int = 1) -> None:
        """So many events more: what comes next in the story waits for them."""
        self.events += [json.loads(line) for line in self._watch.shows(count)]

    def end(self) -> list[dict[str, Any]]:
        self._watch.send(signal.SIGTERM)
        code, rest, said = self._watch.ends()
        assert (code, rest) == (0, ""), said
        assert "Traceback" not in said
        return self.events


@contextmanager
def told(xen: XenStandIn, **env: str) -> Iterator[Telling]:
    with running("watch", URI, "--json", env=environment(**xen.environment, **env)) as watch:
        watch.until("watching")
        yield Telling(xen, watch)


def story(telling: Telling) -> list[dict[str, Any]]:
    """Everything that can happen to a domain here, each once at least."""
    xen = telling.xen
    xen.create(1, "web", WEB)
    telling.hears()
    xen.create_many([Guest(2, "mail", MAIL), Guest(3, "db", DB)])
    telling.hears(2)
    xen.shutdown(1, reason=REBOOT)
    telling.hears()
    xen.die(1)
    telling.hears()
    xen.create(1, "web", WEB_AGAIN)  # its domid is used again
    telling.hears()
    xen.shutdown(2, reason=SUSPEND)
    telling.hears()
    xen.resume(2)
    telling.hears()
    xen.shutdown(2, reason=POWEROFF)
    telling.hears()
    xen.shutdown(3, reason=CRASH)
    telling.hears()
    xen.die(3)
    telling.hears()
    xen.die(2)
    telling.hears()
    xen.shutdown(1, reason=WATCHDOG)
    telling.hears()
    xen.die(1)
    telling.hears()
    xen.create(7, "saved")
    telling.hears()
    xen.shutdown(7, reason=SUSPEND)
    telling.hears()
    xen.die(7)
    telling.hears()
    xen.die(6)
    telling.hears()
    xen.eject(5)
    telling.hears()
    return telling.end()


def before(xen: XenStandIn) -> None:
    """Who is there before anybody watches."""
    xen.create(5, "disc", DISC, hvm=True)
    xen.cdrom(5, "hdc")
    xen.create(6, "old")


def without_chance(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that a story decides: not when, and not the UUIDs that were drawn for those without one."""
    drawn = {"saved", "old"}
    return [
        {**event, "at": None, "domain": {**event["domain"], "uuid": None}}
        if event["domain"]["name"] in drawn
        else {**event, "at": None}
        for event in events
    ]


@pytest.mark.parametrize("env", [{}, {"EVENTBRIDGE_LIBXL": "4.1"}], ids=["4.2 and later", "4.1"])
def test_the_story_is_told_in_full(env: dict[str, str]) -> None:
    env = {name: str(libxl41.stand_in()) for name in env}
    with XenStandIn() as xen:
        before(xen)
        with told(xen, **env) as telling:
            events = story(telling)
    assert [f"{event['domain']['name']} {event['kind']} {event['reason']}" for event in events] == [
        "web started None",
        *sorted(["mail started None", "db started None"], reverse=True),
        "web rebooted None",
        "web stopped shutdown",
        "web started None",
        "mail suspended guest",
        "mail resumed None",
        "mail shutdown guest",
        "db crashed None",
        "db stopped crashed",
        "mail stopped shutdown",
        "web crashed watchdog",
        "web stopped crashed",
        "saved started None",
        "saved suspended guest",
        "saved stopped saved",
        "old stopped destroyed",
        "disc disk_ejected hdc",
    ]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))


def test_either_generation_tells_the_same_event_for_event() -> None:
    tales = []
    for env in ({}, {"EVENTBRIDGE_LIBXL": str(libxl41.stand_in())}):
        with XenStandIn() as xen:
            before(xen)
            with told(xen, **env) as telling:
                tales.append(without_chance(story(telling)))
    assert tales[0] == tales[1]
