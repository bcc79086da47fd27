"""``eventbridge doctor``: what works here, in which version, and what to install for the rest.

It does not look whether something is installed: it has each host loop pass a byte and each hypervisor tell an event
(see `probe`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from eventbridge.core import host_lookup
from eventbridge.core.version import VERSION

from . import terminal

PROBE_SECONDS = 30.0
AT_ONCE = 2

DEBIAN_LIBVIRT = "apt-get install libvirt-dev pkg-config gcc python3-dev, then pip install libvirt-python"
DEBIAN_XEN = "apt-get install xen-system-amd64, boot Xen, and run this as root in its domain 0"
DEBIAN_PYUV = (
    "make demo, in a checkout, builds it; or there: "
    'CFLAGS="-include $PWD/tests/support/pyuv_build.h" pip install --no-cache-dir pyuv==1.4.0'
)

DEBIAN_GLIB = (
    "apt-get install libgirepository1.0-dev libcairo2-dev libglib2.0-dev pkg-config gcc python3-dev, "
    "then pip install eventbridge[glib]"
)

# What is probed: its name in probe.PROBES, whether everything rests on it, and how to get it.
HOSTS = {
    "asyncio": (True, "it is in the standard library"),
    "uvloop": (False, "pip install eventbridge[uvloop]"),
    "libuv through pyuv": (False, DEBIAN_PYUV),
    "libuv through cffi": (False, "apt-get install libuv1, then pip install eventbridge[libuv]"),
    "select": (True, "it is in the standard library"),
    "select on selectors2": (False, "pip install eventbridge[selectors2]"),
    "trio": (False, "pip install eventbridge[trio]"),
    "glib": (False, DEBIAN_GLIB),
    "gevent": (False, "pip install eventbridge[gevent]"),
    "twisted": (False, "pip install eventbridge[twisted]"),
    "qt": (False, "pip install eventbridge[qt]"),
}
HYPERVISORS = {
    "sim": (True, "it is part of eventbridge"),
    "libvirt": (False, DEBIAN_LIBVIRT),
    "libxl": (False, DEBIAN_XEN),
    "xenstore": (False, DEBIAN_XEN),
}

# What a probe's report has in it, and what that means.
STATES = {"detail": "works", "missing": "not here", "broken": "broken"}

EPILOG = """\
examples:
  eventbridge doctor
  eventbridge doctor --json | jq '.hosts[] | select(.state != "works") | .install'

exit code: 0 if the basics (asyncio, select, sim) work, 1 if not, 2 if called wrongly.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one probe."""

    name: str
    state: str
    detail: str
    version: str | None
    basic: bool
    install: str


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what works here, and what to install for the rest",
        description="Try each host loop and each hypervisor library, and say what works here.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    here, hosts, hypervisors = system(), _examine({**HOSTS, **announced()}), _examine(HYPERVISORS)
    well = all(finding.state == "works" for finding in (*hosts, *hypervisors) if finding.basic)
    if args.json:
        findings = {"hosts": [asdict(one) for one in hosts], "hypervisors": [asdict(one) for one in hypervisors]}
        terminal.say(json.dumps({**here, **findings, "ok": well}, indent=2))
    else:
        _show("Here", [(name.replace("_", " "), str(value)) for name, value in here.items()])
        _show("Host loops", [(one.name, _verdict(one)) for one in hosts])
        _show("Hypervisors", [(one.name, _verdict(one)) for one in hypervisors])
        terminal.say("The basics work." if well else "The basics (asyncio, select, sim) do not all work: see above.")
    return 0 if well else 1


def announced() -> dict[str, tuple[bool, str]]:
    """The hosts of others, by their entry points: rows as in `HOSTS`."""
    return dict.fromkeys(host_lookup.HOSTS.announced(), (False, "see the package that announces it"))


def system() -> dict[str, Any]:
    """What the machine has that matters here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "eventbridge": VERSION,
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "epoll": hasattr(select, "epoll"),
        "timerfd": _timerfd(),
        "open_files_limit": soft,
        "open_files_hard_limit": hard,
    }


def _timerfd() -> str:
    """Whose; "none" where there is none."""
    try:
        from eventbridge.core import timerfd

        os.close(timerfd.create())
    except (ImportError, AttributeError, OSError):
        return "none"
    return "the standard library's" if hasattr(os, "timerfd_create") else "libc's, through ctypes"


def _show(title: str, rows: list[tuple[str, str]]) -> None:
    terminal.say(title)
    for name, text in rows:
        terminal.say(f"  {name:22}{text}")
    terminal.say()


def _verdict(finding: Finding) -> str:
    if finding.state == "works":
        return f"works     {finding.version}: {finding.detail}"
    return f"{finding.state:10}{finding.detail}\n{'':34}to have it: {finding.install}"


# -- the probes, each in a process of its own


def _examine(table: dict[str, tuple[bool, str]]) -> list[Finding]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = list(pool.map(_probe, table))
    return [
        Finding(name, *_state(report), report.get("version"), basic, install)
        for report, (name, (basic, install)) in zip(reports, table.items(), strict=True)
    ]


def _state(report: dict[str, str]) -> tuple[str, str]:
    """Which of `STATES`, and what was found."""
    for key, state in STATES.items():
        if key in report:
            return state, terminal.printable(report[key])
    return "broken", f"it answered {report!r}"


def _probe(name: str) -> dict[str, str]:
    command = [sys.executable, "-m", "eventbridge.cli.probe", name]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"broken": f"no answer within {PROBE_SECONDS:g} s"}
    try:
        report: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last_words = " ".join(done.stderr.splitlines()[-1:])
        return {"broken": f"its process ended with {done.returncode} {last_words}".strip()}
    return report
