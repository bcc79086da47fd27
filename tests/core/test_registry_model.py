"""The registry, poller and dispatcher against a plain Python model of the rules, over real fds.

The model knows numbers, files and masks as poll(2) does.  After every step one turn of the host is given, and exactly
the handles that the model says are called.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from eventbridge import Bridge, Events
from eventbridge.testing import SteppingHost

R, W, E, H = Events.READABLE, Events.WRITABLE, Events.ERROR, Events.HANGUP
MASKS = st.sampled_from([0, R, W, R | W, E, H, R | E | H])


class File:
    """One end of a socket pair, as the model sees it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.fd = ours.detach()
        self.peer = theirs.detach()
        self.content = 0
        self.hung_up = False

    def state(self) -> int:
        """What poll(2) would say of it, all asked for."""
        if self.hung_up:
            return R | W | H
        return (R if self.content else 0) | W


class RegistryAgainstAModel(RuleBasedStateMachine):
    """H1-H5, H7, H8, H11."""

    handles = Bundle("handles")

    @initialize()
    def start(self) -> None:
        self.host = SteppingHost()
        self.bridge = Bridge(self.host)
        self.calls: list[tuple[int, int]] = []
        self.freed: Counter[int] = Counter()
        self.removed: set[int] = set()
        self.files = [File() for _ in range(3)]
        self.ghosts: list[int] = []
        self.model: dict[int, tuple[File, int]] = {}
        self.last = 0

    def teardown(self) -> None:
        self.bridge.close()
        self.host.step_until_idle()
        assert self.freed == Counter([*self.removed, *self.model])
        assert set(self.freed.values()) <= {1}
        for file in self.files:
            os.close(file.fd)
            if not file.hung_up:
                os.close(file.peer)
        for ghost in self.ghosts:
            os.close(ghost)

    def called(self, id: int, fd: int, events: int, opaque: Any) -> None:
        self.calls.append((id, events))

    def free(self, key: list[int]) -> None:
        self.freed[key[0]] += 1

    @rule(target=handles, index=st.integers(0, 2), mask=MASKS)
    def add(self, index: int, mask: int) -> int:
        file = self.files[index]
        key: list[int] = []
        id = self.bridge.add_handle(file.fd, mask, self.called, key, self.free)
        key.append(id)
        assert id == self.last + 1, "H1"
        self.last = id
        self.model[id] = file, mask
        return id

    @rule(id=handles, mask=MASKS)
    def update(self, id: int, mask: int) -> None:
        self.bridge.update_handle(id, mask)
        self.model[id] = self.model[id][0], mask

    @rule(id=consumes(handles))
    def remove(self, id: int) -> None:
        self.bridge.remove_handle(id)
        del self.model[id]
        self.removed.add(id)

    @rule(index=st.integers(0, 2))
    def write(self, index: int) -> None:
        file = self.files[index]
        if not file.hung_up:
            os.write(file.peer, b"x")
            file.content += 1

    @rule(index=st.integers(0, 2))
    def drain(self, index: int) -> None:
        file = self.files[index]
        if file.content:
            os.read(file.fd, 65536)
            file.content = 0

    @rule(index=st.integers(0, 2))
    def hang_up(self, index: int) -> None:
        file = self.files[index]
        if not file.hung_up:
            os.close(file.peer)
            file.hung_up = True

    @precondition(lambda self: len(self.ghosts) < 20)
    @rule(index=st.integers(0, 2), kept=st.booleans(), mask=MASKS)
    def replace_under_a_new_handle(self, index: int, kept: bool, mask: int) -> None:
        """H11: another file comes onto the number, the old one living on or not, and somebody registers it."""
        old, new = self.files[index], File()
        if kept:
            self.ghosts.append(os.dup(old.fd))
            self.ghosts.append(old.peer) if not old.hung_up else None
        elif not old.hung_up:
            os.close(old.peer)
        os.dup2(new.fd, old.fd)
        os.close(new.fd)
        new.fd = old.fd
        self.files[index] = new
        for id, (file, asked) in list(self.model.items()):
            if file is old:
                self.model[id] = new, asked
        self.add(index, mask or R)

    @invariant()
    def one_turn_calls_just_those_that_the_model_says(self) -> None:
        """H2, H3, H4, H5: the handles that are there, told what they asked for."""
        if not hasattr(self, "bridge"):
            return
        self.calls.clear()
        self.host.step()
        expected = {}
        for id, (file, mask) in self.model.items():
            told = file.state() & (mask | E | H) if mask else 0
            if told:
                expected[id] = int(told)
        while self.bridge._dispatcher._left:  # on a slow machine a round may take two passes
            self.host.step()
        assert dict(self.calls) == expected
        assert len(self.calls) == len(expected), "once each"
        assert self.freed.keys() <= self.removed, "H7: never before it is removed"


TestRegistry = RegistryAgainstAModel.TestCase
TestRegistry.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
