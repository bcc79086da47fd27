"""What another release of Debian, and a Debian 13 of the tests' own, have of this machine's settings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support import apt, cache, debian
from tests.support.debian13 import __main__ as debian13
from tests.support.debian13 import settings

INDEX_TARGETS = """\
http://mirror.test/debian/ bookworm main
http://mirror.test/debian/ bookworm contrib
http://mirror.test/debian/ bookworm-updates main
http://mirror.test/security/ bookworm-security main
http://mirror.test/debian/ bookworm-backports main
http://vendor.test/apt/ stable main
"""


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_sources_are_the_machines_own_with_the_suite_exchanged(suite: str) -> None:
    found = dict(
        zip(("plain", "updates", "security"), debian._exchanged(INDEX_TARGETS, "bookworm", suite), strict=True)
    )
    assert found == {
        "plain": ("http://mirror.test/debian/", suite),
        "updates": ("http://mirror.test/debian/", f"{suite}-updates"),
        "security": ("http://mirror.test/security/", f"{suite}-security"),
    }


def test_another_releases_apt_has_sources_and_lists_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if debian.own_codename() is None or shutil.which("apt-get") is None:
        pytest.skip("this machine is no Debian")
    other = 12 if debian.own_codename() == "trixie" else 13
    updated: list[list[str]] = []
    monkeypatch.setenv("EVENTBRIDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(apt, "_private", apt._private.__wrapped__)  # the next test's is not this one's
    monkeypatch.setattr(apt, "run", lambda what, command, *_: updated.append(list(command)))
    one = apt.Apt(other)
    assert updated == [["apt-get", "-qq", "update"]]
    assert apt.Apt(other).may_update, "whoever this is"
    assert len(updated) == 1, "the lists are new"
    (place,) = tmp_path.glob(f"apt-debian{other}-*[0-9a-f]")
    found = one.ask("apt-config", "dump")
    for name, path in (("Dir::State::Lists", "lists"), ("Dir::Etc::SourceList", "sources.list")):
        assert f'{name} "{place / path}";'.lower() in found.lower()
    suites = [line.split(" ")[-2] for line in (place / "sources.list").read_text().splitlines()]
    assert suites[0] == debian.CODENAMES[other]
    assert all(suite.startswith(debian.CODENAMES[other]) for suite in suites)


def test_pips_files_are_copied_and_its_directories_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, root = tmp_path / "machine", tmp_path / "root"
    (machine / "index/simple").mkdir(parents=True)
    (machine / "wheels/more").mkdir(parents=True)
    (machine / "ca.pem").write_text("a certificate")
    (machine / "pip.conf").write_text(
        f"[global]\nextra-index-url = file://{machine}/index/simple https://index.test/simple\n"
        f"find-links = {machine}/wheels {machine}/wheels/more {machine}/nowhere\ncert = {machine}/ca.pem\n"
    )
    monkeypatch.setattr(settings, "PIP", (str(machine / "pip.conf"),))
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    assert settings.pip(root) == [f"{machine}/index", f"{machine}/wheels"]
    for name in ("pip.conf", "ca.pem"):
        assert (root / f"{machine}/{name}".lstrip("/")).read_text() == (machine / name).read_text()


def test_only_what_matters_of_the_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test")
    monkeypatch.setenv("EVENTBRIDGE_CACHE", "/another")
    monkeypatch.setenv("PYTHONPATH", "/another")
    found = settings.environment()
    assert found["https_proxy"] == "http://proxy.test"
    assert not found.keys() & {"EVENTBRIDGE_CACHE", "PYTHONPATH"}
    assert found["HOME"] == "/root"


def test_who_is_not_root_is_told_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert debian13.main([]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_systems_of_other_inputs_are_removed_unless_they_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTBRIDGE_CACHE", str(tmp_path))
    this, used, old = (f"debian13-{digit * 10}" for digit in "abc")
    for name in (this, used, old):
        (tmp_path / name).mkdir()
    with cache.locked(f"{used}-run"):
        debian13._forget_others(this)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [this, used]
