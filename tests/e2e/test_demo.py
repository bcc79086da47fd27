"""``eventbridge demo``: what ``make demo`` runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.command import blocking, environment, eventbridge

HOSTS = ("asyncio", "libuv", "select")
SHORT = ("demo", "--for", "1")


def by_host(shown: str) -> dict[str, str]:
    """The part of each host."""
    return {part.partition(":")[0]: part for part in shown.split("\n\n")[1:]}


def counted(part: str) -> dict[str, int]:
    return {source: int(count) for source, count in re.findall(r"^  (libvirt|simulated) +(\d+) events?:", part, re.M)}


def test_libvirts_and_simulated_events_are_shown_on_each_host_in_turn_and_told_apart() -> None:
    done = eventbridge(*SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    parts = by_host(done.stdout)
    assert tuple(parts) == HOSTS
    for part in parts.values():
        counts = counted(part)
        assert counts["libvirt"] > 0 and counts["simulated"] > 0, part
        assert len(re.findall(r"  libvirt +test +(suspended|resumed|stopped|started)", part)) == counts["libvirt"]
        assert re.search(r"  simulated +simulated-\d+ +\w+", part)
        assert re.search(r"the bridge: \d+ handles, .* 0 errors", part)
    assert "simulated by eventbridge, no hypervisor at all" in done.stdout


def test_without_libvirt_it_says_what_to_install_and_shows_the_simulated_one_alone(tmp_path: Path) -> None:
    done = eventbridge(*SHORT, env=environment(blocking(tmp_path, "libvirt")))
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install libvirt-python" in done.stdout
    for part in by_host(done.stdout).values():
        assert counted(part).keys() == {"simulated"}


def test_a_host_that_is_missing_is_said_to_be_and_the_others_are_shown(tmp_path: Path) -> None:
    done = eventbridge(*SHORT, env=environment(blocking(tmp_path, "pyuv", "cffi")))
    parts = by_host(done.stdout)
    assert done.returncode == 0
    assert "not here" in parts["libuv"] and "pip install" in parts["libuv"]
    assert all(counted(parts[name])["simulated"] > 0 for name in ("asyncio", "select"))


def test_a_host_that_is_here_and_shows_nothing_is_a_failure(tmp_path: Path) -> None:
    blocked = blocking(tmp_path, "libvirt")
    (tmp_path / "sitecustomize.py").write_text(
        "import eventbridge.cli.demo as demo\ndemo.SIM = 'sim:///default?domains=0'\n"
        "demo.LABELS[demo.SIM] = 'simulated'\n"
    )
    done = eventbridge(*SHORT, env=environment(blocked))
    assert done.returncode == 1
    assert "domains" in done.stderr, "the reason"
    assert "Traceback" not in done.stderr
