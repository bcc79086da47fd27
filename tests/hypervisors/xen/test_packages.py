"""What the tests fetch and build is made once and whole, and what cannot be had is said in one line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support import cache, debs
from tests.support.apt import Apt, NotAvailable
from tests.support.xen import packages

TOGETHER = 8


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENTBRIDGE_CACHE", str(tmp_path / "cache"))
    return cache.directory()


def test_a_thing_is_made_once_however_many_ask_together(empty_cache: Path) -> None:
    made, found, together = [], [], threading.Barrier(TOGETHER)

    def make(place: Path) -> None:
        made.append(place)
        (place / "content").write_text("whole")

    def ask() -> None:
        together.wait()
        found.append((cache.once("thing", make) / "content").read_text())

    threads = [threading.Thread(target=ask) for _ in range(TOGETHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["whole"] * TOGETHER
    assert len(made) == 1
    assert sorted(path.name for path in empty_cache.iterdir()) == ["thing", "thing.lock"]


def test_what_fails_half_way_leaves_nothing_and_can_be_made_again(empty_cache: Path) -> None:
    def fail(place: Path) -> None:
        (place / "half").touch()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        cache.once("thing", fail)
    assert [path.name for path in empty_cache.iterdir()] == ["thing.lock"]
    assert list(cache.once("thing", lambda place: (place / "whole").touch()).iterdir()) == [empty_cache / "thing/whole"]


def test_without_apt_the_reason_is_said_in_one_line(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(empty_cache))
    assert debs.main(["libyajl2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "apt-get" in err
    assert err.count("\n") == 1


def test_what_apt_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apt, "update", lambda self: None)  # its lists are new enough for this
    packages.root()  # or the test ends here, where nothing can be fetched
    with pytest.raises(NotAvailable, match="no-such-package"):
        debs.unpacked("libyajl2", "no-such-package")


def test_fetched_once_it_needs_no_lists_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packages.root()
    names = [f"libxenmisc{packages.version()}", f"xen-utils-{packages.version()}", *packages.FIXED]
    monkeypatch.setattr(debs, "_known", lambda names, apt: {})
    monkeypatch.setattr(Apt, "update", lambda self: None)
    assert debs.unpacked(*names) == first
    assert debs.xen_version.__wrapped__() == packages.version()
