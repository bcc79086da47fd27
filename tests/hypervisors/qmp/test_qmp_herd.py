"""Fifty QEMUs under one dispatcher, on every host: ten thousand events, none lost, none told twice."""

from __future__ import annotations

import threading

import pytest

from tests.support.qmp_herd import herd, mistakes, stampede

ROUNDS = 100


@pytest.mark.timeout(180)
def test_fifty_qemus_tell_ten_thousand_events_and_none_is_lost(leaves_nothing: None) -> None:
    threads = threading.active_count()
    with herd(50) as qemus:
        for host in ("asyncio", "libuv", "select"):
            heads, _ = stampede(host, qemus, ROUNDS)
            assert sum(len(head.events) for head in heads) == 10_000
            assert mistakes(heads, ROUNDS) == []
            assert threading.active_count() == threads, "and no thread"
