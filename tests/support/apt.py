"""apt, as this machine has it set up or in private for another release of Debian, asked and run.

For another release apt has lists and sources of its own in the cache (tests/support/cache.py); proxies, certificates
and keys are the machine's.  Nothing of the machine's own changes, except that root is given apt's lists where it has
none.  No privilege is needed."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support import cache as kept
from tests.support import debian

QUIET = 2.0
"""Seconds of work that needs no word about it; then there is one on stderr, and again every so often."""
REMIND = 10.0
DOWNLOAD = 600.0
"""Seconds that apt-get is given."""
STALE = 86400.0
"""Seconds after which private lists are fetched anew: a mirror drops a package that has been superseded."""

_STATE = (
    Path("/var/lib/apt/lists"),
    Path("/var/lib/dpkg/status"),
    Path("/etc/apt"),
    Path("/etc/apt/sources.list.d"),
)

# Where apt-get and apt-cache look instead of at the machine's own (apt.conf(5)); the rest of its configuration holds.
_PRIVATE = """\
Dir::Etc::SourceList "{0}/sources.list";
Dir::Etc::SourceParts "{0}/none";
Dir::Etc::Preferences "{0}/none";
Dir::Etc::PreferencesParts "{0}/none";
Dir::State::Lists "{0}/lists";
Dir::State::Status "{0}/status";
Dir::Cache "{0}/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""


class NotAvailable(Exception):
    """These packages cannot be had here: what was tried, what was found, and what to do, in one line."""


class Apt:
    """One release's; None and the machine's own release mean the machine's own apt."""

    def __init__(self, release: int | None = None) -> None:
        tool("apt-get")
        tool("apt-cache")
        self.release = release if release is not None and not _is_own(release) else None
        self._private = None if self.release is None else _private(self.release)
        self.may_update = self._private is not None or os.geteuid() == 0

    @property
    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "LC_ALL": "C"}
        if self._private is not None:
            environment["APT_CONFIG"] = str(self._private / "apt.conf")
        return environment

    def ask(self, *command: str) -> str:
        """What apt-cache says, for which it takes half a second: kept until its lists or what is installed change."""
        state = _STATE if self._private is None else (self._private / "lists",)
        stamps = [str(path.stat().st_mtime_ns) for path in state if path.exists()]
        answer = kept.directory() / f"apt-{short([*command, *map(str, state), *stamps])}"
        if not answer.exists():
            said = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            ).stdout
            unfinished = answer.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            unfinished.write_text(said)
            unfinished.rename(answer)
        return answer.read_text()

    def run(self, what: str, command: Sequence[str], directory: Path) -> None:
        """Run apt-get, with a line on stderr when it takes long."""
        run(what, command, directory, self._environment)

    def update(self) -> None:
        """Fetch the lists; they may be the machine's own, which takes root."""
        with kept.locked("apt-lists"):
            self.run("fetching apt's lists", ["apt-get", "-qq", "update"], kept.directory())


def run(what: str, command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run it, with a line on stderr when it takes long; raises NotAvailable with the last that the command said."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    spent, patience = 0.0, QUIET
    while True:
        try:
            said, _ = process.communicate(timeout=patience)
            break
        except subprocess.TimeoutExpired:
            spent += patience
            patience = REMIND
            print(f"eventbridge: {what}: {spent:.0f} s", file=sys.stderr, flush=True)
            if spent > DOWNLOAD:
                process.kill()
    if process.returncode:
        last = " ".join(said.split()[-40:]) or f"exit status {process.returncode}"
        raise NotAvailable(f"{what} failed; is there a network?  {command[0]} says: {last}")


def tool(name: str) -> None:
    """Raise NotAvailable where there is no such program."""
    if not shutil.which(name):
        raise NotAvailable(f"there is no {name}: Debian's packages are fetched with apt and unpacked with dpkg")


def short(words: Iterable[str]) -> str:
    """A name for these words."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:10]


def _is_own(release: int) -> bool:
    return debian.own_codename() == debian.CODENAMES[release]


@functools.cache
def _private(release: int) -> Path:
    """The directory of that release's sources and lists, which are there."""
    try:
        sources = "".join(f"{source.line()}\n" for source in debian.sources(release))
    except debian.NoSources as error:
        raise NotAvailable(str(error)) from None
    place = kept.directory() / f"apt-debian{release}-{short([sources, _PRIVATE])}"
    with kept.locked(place.name):
        for name in ("lists/partial", "cache/archives/partial"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "sources.list").write_text(sources)
        (place / "status").touch()
        (place / "apt.conf").write_text(_PRIVATE.format(place))
        _freshen(release, place)
    return place


def _freshen(release: int, place: Path) -> None:
    fetched = place / "fetched"
    if fetched.exists() and time.time() - fetched.stat().st_mtime < STALE:
        return
    environment = {**os.environ, "APT_CONFIG": str(place / "apt.conf")}
    try:
        run(f"fetching the lists of Debian {release}", ["apt-get", "-qq", "update"], place, environment)
    except NotAvailable:
        if not fetched.exists():
            raise
    else:
        fetched.touch()
