"""``eventbridge doctor``: what works is tried, and what is not there is said to be not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventbridge.cli.doctor import HOSTS, HYPERVISORS
from eventbridge.cli.probe import PROBES
from tests.support.command import ROOT, blocking, environment, eventbridge
from tests.support.xen.standin import XenStandIn

NO_XEN = dict.fromkeys(("EVENTBRIDGE_LIBXL", "EVENTBRIDGE_LIBXENSTORE", "XENSTORED_PATH"), "/nowhere")

OPTIONAL = "libvirt pyuv cffi uvloop selectors2 trio gi gevent twisted PySide6 PyQt6".split()


def examined(env: dict[str, str] | None = None) -> tuple[dict[str, Any], int]:
    done = eventbridge("doctor", "--json", env=env)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in report["hosts"] + report["hypervisors"]}
    return {**report, "findings": findings}, done.returncode


def test_every_probe_is_asked_for_and_every_host_and_hypervisor_has_one() -> None:
    assert {*HOSTS, *HYPERVISORS} == set(PROBES)


@pytest.mark.xen
def test_everything_that_the_tests_install_works() -> None:
    with XenStandIn() as xen:
        report, code = examined(environment(**xen.environment))
    assert {name: finding["state"] for name, finding in report["findings"].items()} == dict.fromkeys(PROBES, "works")
    assert all(finding["version"] for finding in report["findings"].values())
    assert (report["ok"], code) == (True, 0)
    assert report["epoll"] is True
    assert report["open_files_limit"] > 0


def test_what_is_not_installed_is_said_to_be_not_here_with_what_to_install(tmp_path: Path) -> None:
    env = environment(blocking(tmp_path, *OPTIONAL), **NO_XEN)
    report, code = examined(env)
    states = {name: finding["state"] for name, finding in report["findings"].items()}
    here = {"asyncio", "select", "sim"}
    assert states == {name: "works" if name in here else "not here" for name in PROBES}
    assert all("install" in report["findings"][name]["install"] for name in PROBES if name not in here)
    assert (report["ok"], code) == (True, 0), "the basics need nothing installed"


@pytest.mark.parametrize(
    "code, said",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with -11"),
        ("raise RuntimeError('made for another machine')", "made for another machine"),
    ],
)
def test_a_library_that_crashes_or_fails_is_broken_and_takes_nothing_else_with_it(
    code: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "uvloop.py").write_text(code)
    report, exit_code = examined(environment(str(tmp_path)))
    assert report["findings"]["uvloop"]["state"] == "broken"
    assert said in report["findings"]["uvloop"]["detail"]
    assert report["findings"]["libvirt"]["state"] == "works"
    assert exit_code == 0


@pytest.mark.xen
def test_libxl_without_xen_is_not_here_and_says_why() -> None:
    """Its library alone opens nothing: that is no fault of its."""
    with XenStandIn() as xen:
        xen.kill()
        report, code = examined(environment(**xen.environment))
    for name in ("libxl", "xenstore"):
        assert report["findings"][name]["state"] == "not here"
        assert "is xenstored running" in report["findings"][name]["detail"]
    assert code == 0


def test_where_one_of_the_basics_does_not_work_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['eventbridge.adapters.hypervisors.sim'] = None  # cannot be imported\n"
    )
    report, code = examined(environment(str(tmp_path)))
    xen = {"libxl", "xenstore"}  # here only on a Xen host
    failing = {name for name, finding in report["findings"].items() if finding["state"] != "works"}
    assert failing - xen == {"sim"}
    assert (report["ok"], code) == (False, 1)


@pytest.mark.xen
def test_the_text_names_each_with_its_state() -> None:
    with XenStandIn() as xen:
        shown = eventbridge("doctor", env=environment(**xen.environment)).stdout
    for name in PROBES:
        assert f"  {name:22}works" in shown
    assert str(ROOT) not in shown.partition("Host loops")[2]
    assert "Traceback" not in shown
