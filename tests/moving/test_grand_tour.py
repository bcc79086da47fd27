"""D9: one bridge, with live connections on it, that goes round every ordered pair of hosts: nothing lost, nothing
twice, nothing early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.moving.loops import MAIN, MORE, Witness, loops, tour, travelling
from tests.moving.travelling import LongJob, OpenLibvirt, OpenSim, RawLibvirt
from tests.support.libvirtd import Libvirtd, private_libvirtd
from tests.support.patience import PATIENCE


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with private_libvirtd() as daemon:
        yield daemon


def pack_libvirt(witness: Witness, daemon: Libvirtd, drive: Any) -> list[Any]:
    return [
        RawLibvirt(witness, daemon),
        OpenLibvirt(witness, "test:///default", "test:///default", drive),
        OpenLibvirt(witness, daemon.unix_uri, daemon.tcp_uri, drive),
    ]


def pack_sim(witness: Witness, daemon: Libvirtd, drive: Any) -> list[Any]:
    return [OpenSim(witness, drive), LongJob(witness, drive)]


PACKS: dict[str, Callable[..., list[Any]]] = {"libvirt": pack_libvirt, "sim": pack_sim}


@pytest.mark.parametrize("pack", PACKS)
def test_a_bridge_visits_every_pair_of_running_loops_and_loses_nothing(pack: str, daemon: Libvirtd) -> None:
    """D9, D1, T3: each loop runs in a thread of its own, and a third thread moves; 72 moves."""
    errors: list[Any] = []
    with loops(*MAIN) as stage, travelling(stage[MAIN[0]].start(), errors) as (bridge, witness):
        luggage = PACKS[pack](witness, daemon, witness.until)
        for name in MAIN[1:]:
            stage[name].start()
        for name in tour(MAIN)[1:]:
            for piece in luggage:
                piece.mark()
            loop, before = stage[name], dict(witness.threads)
            bridge.move(loop.host)
            assert bridge.host is loop.host
            witness.until(lambda: witness.threads.get(loop.thread, 0) > before.get(loop.thread, 0), lambda: loop.name)  # noqa: B023
            witness.until(lambda: all(piece.moved_on() for piece in luggage), lambda: loop.name)  # noqa: B023
        assert set(witness.threads) == {stage[name].thread for name in MAIN}
        for piece in luggage:  # of an in-process driver nobody may deregister while another thread makes events:
            piece.stop()  # its lock and Python's are then taken in both orders
        for piece in luggage:
            piece.finish(witness.until)
        witness.end()
        witness.until(bridge.is_empty)


@pytest.mark.parametrize("pack", PACKS)
def test_a_bridge_visits_every_pair_of_loops_that_the_test_runs_in_turn(pack: str, daemon: Libvirtd) -> None:
    """D9: neither runs when it moves; 110 moves, with asyncio's loops of other makers among them."""
    errors: list[Any] = []
    names = [*MAIN, *MORE]
    with loops(*names) as stage, travelling(stage[names[0]], errors) as (bridge, witness):

        def drive(happened: Callable[[], object]) -> None:
            assert bridge.run(lambda: bool(happened()), PATIENCE), f"this never came true on {bridge!r}"

        luggage = PACKS[pack](witness, daemon, drive)
        for name in tour(names)[1:]:
            for piece in luggage:
                piece.mark()
            bridge.move(stage[name].host)
            ticks = witness.ticks
            drive(lambda: witness.errors or (witness.ticks > ticks and all(piece.moved_on() for piece in luggage)))  # noqa: B023
            witness.check()
        for piece in luggage:  # of an in-process driver nobody may deregister while another thread makes events:
            piece.stop()  # its lock and Python's are then taken in both orders
        for piece in luggage:
            piece.finish(drive)
        witness.end()
        drive(bridge.is_empty)
