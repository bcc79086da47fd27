"""Facts in, each event out once: a hypothesis machine puts facts in as Xen's libraries do, late, twice and out of
place, and reads the stream as its consumer would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventbridge.adapters.hypervisors.xen.lifecycle import Lives
from eventbridge.adapters.hypervisors.xen.support.reasons import SHUTDOWN
from eventbridge.hypervisor.events import Kind
from eventbridge.hypervisor.model import DomainRef

DOMIDS = st.integers(1, 4)
REASONS = st.sampled_from([*SHUTDOWN, 77])
ENDS = {meant.end for meant in SHUTDOWN.values()} | {"destroyed"}
GUEST = DomainRef("guest", "00000000-0000-0000-0000-000000000001", 1)


class Stream:
    """What was told, as text."""

    def __init__(self) -> None:
        self.told: list[tuple[Kind, DomainRef | None, str | None]] = []

    def __call__(
        self, kind: Kind, domain: DomainRef | None, reason: str | None = None, raw: Mapping[str, Any] | None = None
    ) -> None:
        assert raw
        self.told.append((kind, domain, reason))

    def lines(self) -> list[str]:
        return [f"{kind} {reason}" for kind, _, reason in self.told]


class LivesMachine(RuleBasedStateMachine):
    """``living`` is what the stream says; ``truth`` what the facts say."""

    @initialize()
    def begin(self) -> None:
        self.stream = Stream()
        self.lives = Lives(self.stream)
        self.truth: dict[int, str | None] = {}
        self.serial = 0

    @rule(domid=DOMIDS, again=st.booleans())
    def appears(self, domid: int, again: bool) -> None:
        """As the same domain once more, or as another that was given its domid."""
        if domid not in self.truth or not again:
            self.serial += 1
            self.truth[domid] = str(self.serial)
        self.lives.appeared(DomainRef(f"d{domid}", self.truth[domid], domid))

    @rule(domid=DOMIDS, reason=REASONS)
    def shuts_down(self, domid: int, reason: int) -> None:
        self.lives.shut_down(domid, reason)

    @rule(domid=DOMIDS)
    def resumes(self, domid: int) -> None:
        self.lives.resumed(domid)

    @rule(domid=DOMIDS)
    def ends(self, domid: int) -> None:
        self.lives.gone(domid)
        self.truth.pop(domid, None)

    @rule(domids=st.sets(DOMIDS))
    def is_surveyed(self, domids: set[int]) -> None:
        for domid in domids - set(self.truth):
            self.serial += 1
            self.truth[domid] = str(self.serial)
        self.truth = {domid: uuid for domid, uuid in self.truth.items() if domid in domids}
        self.lives.seen([DomainRef(f"d{domid}", uuid, domid) for domid, uuid in self.truth.items()])

    @invariant()
    def the_stream_explains_who_lives(self) -> None:
        living: dict[int, str | None] = {}
        stopped: dict[int, Kind] = {}
        for kind, ref, reason in self.stream.told:
            assert ref is not None and ref.id is not None
            if kind is Kind.STARTED:
                assert ref.id not in living, "started twice"
                living[ref.id] = ref.uuid
            else:
                assert living.get(ref.id) == ref.uuid, "an event of a domain that does not live"
            if kind is Kind.STOPPED:
                assert reason in ENDS
                assert (reason == "destroyed") == (ref.id not in stopped)
                stopped.pop(ref.id, None)
                del living[ref.id]
            elif kind is Kind.RESUMED:
                assert stopped.pop(ref.id)
            elif kind is not Kind.STARTED:
                stopped[ref.id] = kind
        assert living == self.truth
        assert set(self.lives.domids()) == set(living)


TestLives = LivesMachine.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("reason", SHUTDOWN)
def test_the_end_of_a_domain_says_how_its_guest_had_stopped(reason: int) -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.shut_down(1, reason)
    lives.shut_down(1, reason)
    lives.gone(1)
    lives.gone(1)
    meant = SHUTDOWN[reason]
    assert stream.lines() == ["started None", f"{meant.kind} {meant.reason}", f"stopped {meant.end}"]


def test_a_domain_whose_guest_had_not_stopped_was_destroyed() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.gone(1)
    assert stream.lines() == ["started None", "stopped destroyed"]


def test_of_those_that_were_there_before_only_what_is_new_is_told() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.found(GUEST, reason=3)
    lives.shut_down(1, 3)  # libxl tells it to whoever begins to follow the domain
    assert stream.told == []
    lives.gone(1)
    assert stream.told == [(Kind.STOPPED, GUEST, "crashed")]


def test_only_a_domain_that_was_suspended_is_looked_at_again() -> None:
    lives = Lives(Stream())
    lives.appeared(GUEST)
    assert lives.suspended() == []
    lives.shut_down(1, 2)
    assert lives.suspended() == [1]
    lives.resumed(1)
    assert lives.suspended() == []


@pytest.mark.parametrize(("reason", "explained"), [(0, True), (1, True), (2, False), (3, True), (None, False)])
def test_an_end_is_explained_by_how_the_guest_stopped_unless_it_may_have_gone_on(
    reason: int | None, explained: bool
) -> None:
    lives = Lives(Stream())
    lives.found(GUEST, reason)
    assert lives.is_explained(1) is explained
    assert not lives.is_explained(2)
    lives.leaving(1)
    assert lives.is_explained(1)


def test_an_event_of_an_unknown_domain_still_says_its_domid() -> None:
    stream = Stream()
    Lives(stream).ejected(9, "hdc")
    assert stream.told == [(Kind.DISK_EJECTED, DomainRef(None, None, 9), "hdc")]


def test_what_was_paused_from_here_is_told_for_nobody_else_tells_it() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.paused(1)
    lives.unpaused(1)
    assert stream.lines() == ["started None", "suspended paused", "resumed None"]


def test_a_guest_that_goes_on_elsewhere_has_migrated_and_was_not_saved() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.leaving(1)
    lives.leaving(2)  # it is not known here
    lives.shut_down(1, 2)
    lives.gone(1)
    assert stream.lines() == ["started None", "suspended guest", "stopped migrated"]


def test_a_domain_that_has_come_in_is_called_by_its_name_from_then_on() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(DomainRef("web--incoming", GUEST.uuid, 1))
    lives.renamed(1, "web")
    lives.renamed(2, "nobody")
    lives.gone(1)
    assert [domain.name for _, domain, _ in stream.told if domain] == ["web--incoming", "web"]


def test_two_domains_of_one_uuid_are_told_one_after_the_other() -> None:
    """A guest moves within its host; and one that comes to nothing is not told at all."""
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.appeared(DomainRef("guest--incoming", GUEST.uuid, 2))
    lives.gone(2)
    lives.appeared(DomainRef("guest--incoming", GUEST.uuid, 3))
    assert 3 in lives
    assert 2 not in lives
    lives.renamed(3, "guest")
    lives.leaving(1)
    assert stream.lines() == ["started None"]
    lives.gone(1)
    assert stream.told[1:] == [
        (Kind.STOPPED, GUEST, "migrated"),
        (Kind.STARTED, DomainRef("guest", GUEST.uuid, 3), None),
    ]
    lives.gone(3)
    assert stream.lines()[3:] == ["stopped destroyed"]


def test_a_guest_that_stays_after_all_has_not_migrated() -> None:
    stream = Stream()
    lives = Lives(stream)
    lives.appeared(GUEST)
    lives.leaving(1)
    lives.leaving(1, False)
    lives.gone(1)
    assert stream.lines() == ["started None", "stopped destroyed"]
