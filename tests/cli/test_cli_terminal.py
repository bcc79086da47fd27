"""What an event looks like to a person."""

from __future__ import annotations

import time

import pytest

from eventbridge.cli import terminal
from eventbridge.cli.terminal import EventLines, one_line, printable, tally
from eventbridge.hypervisor.events import DomainEvent, Kind
from eventbridge.hypervisor.model import DomainRef

NOON = time.mktime((2026, 1, 2, 12, 0, 0, 0, 0, -1))


def event(kind: Kind, name: str | None = "vm", reason: str | None = None, source: str = "a:///") -> DomainEvent:
    return DomainEvent(kind, DomainRef(name, "u-u-i-d", 7), reason, source, 1, NOON + 0.25)


def test_the_columns_are_time_domain_kind_and_reason() -> None:
    lines = EventLines({"a:///": "a"}, colour=False)
    assert lines(event(Kind.STARTED, reason="booted")) == "12:00:00.250  vm            started        booted"
    assert lines(event(Kind.STOPPED)) == "12:00:00.250  vm            stopped"


def test_several_sources_are_told_apart_by_a_column_as_wide_as_the_longest() -> None:
    lines = EventLines({"a:///": "a", "b:///": "longer"}, colour=False)
    assert lines(event(Kind.STARTED)).startswith("12:00:00.250  a       vm ")
    assert lines(event(Kind.STARTED, source="b:///")).startswith("12:00:00.250  longer  vm ")


def test_the_domains_column_grows_with_the_names_and_does_not_shrink_again() -> None:
    lines = EventLines({"a:///": "a"}, colour=False)
    long = lines(event(Kind.STARTED, "a-domain-of-some-length"))
    assert lines(event(Kind.STARTED)).index("started") == long.index("started")


def test_a_domain_without_a_name_is_shown_by_what_is_known_of_it() -> None:
    lines = EventLines({"a:///": "a"}, colour=False)
    assert "u-u-i-d" in lines(event(Kind.STARTED, None))
    lost = DomainEvent(Kind.CONNECTION_LOST, None, "eof", "a:///", 1, NOON)
    assert lines(lost) == "12:00:00.000  -             connection_lost  eof"


def test_colour_does_not_move_the_columns() -> None:
    plain, coloured = (EventLines({"a:///": "a"}, colour=colour)(event(Kind.CRASHED, reason="x")) for colour in (0, 1))
    assert coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", "") == plain
    assert coloured != plain


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_shown_by_its_name(kind: Kind) -> None:
    assert str(kind) in EventLines({"a:///": "a"}, colour=True)(event(kind))


def test_what_is_not_printable_is_escaped_and_the_rest_is_left() -> None:
    assert printable("a\x1b[31m\n\u202eb\x9b") == r"a\x1b[31m\n\u202eb\x9b"
    assert printable("Grüße, 世界 \\n") == "Grüße, 世界 \\n"


def test_an_error_is_told_in_one_line_whatever_is_in_it() -> None:
    assert one_line(ValueError("two\nlines\tand \x1b[2J")) == r"two lines and \x1b[2J"
    assert one_line(OSError(2, "No such file", "f")) == "f: No such file"
    assert one_line(OSError("plain")) == "plain"
    assert one_line(ValueError()) == "ValueError"


def test_the_count_begins_with_the_most_frequent() -> None:
    assert tally({Kind.STARTED: 1, Kind.CRASHED: 3, Kind.RESUMED: 1}) == "crashed 3, resumed 1, started 1"


def test_colour_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not terminal.coloured(None)
    with open("/dev/null") as not_a_terminal:
        assert not terminal.coloured(not_a_terminal)
