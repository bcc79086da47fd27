"""Debian packages for a test's private use: downloaded, unpacked in the cache, and never installed.

``apt-get download`` asks for no privilege and dpkg-deb unpacks; nothing of the machine's own changes, except that
root is given apt's lists where it has none.  What was unpacked before serves again without the network.  By hand::

    python -m tests.support.debs NAME...        # prints the directory they are unpacked in"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.support import cache as kept
from tests.support import wanted

QUIET = 2.0
"""Seconds of work that needs no word about it; then there is one on stderr, and again every so often."""
REMIND = 10.0
DOWNLOAD = 600.0
"""Seconds that apt-get is given."""

_APT_STATE = (
    Path("/var/lib/apt/lists"),
    Path("/var/lib/dpkg/status"),
    Path("/etc/apt"),
    Path("/etc/apt/sources.list.d"),
)


class NotAvailable(Exception):
    """These packages cannot be had here: what was tried, what was found, and what to do, in one line."""


def unpacked(*names: str) -> Path:
    """The directory in which these packages are unpacked, in the versions that apt offers now.

    Raises NotAvailable where there is no apt-get or dpkg-deb, no such package, or no network."""
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        _tool(tool)
    names = tuple(sorted(set(names)))
    prefix = f"debs-{_short(names)}"
    try:
        versions = candidates(names)
    except NotAvailable:
        if older := sorted(kept.directory().glob(f"{prefix}-*[0-9a-f]"), key=lambda path: path.stat().st_ctime):
            return older[-1]  # fetched when apt still had its lists
        raise
    exact = [f"{name}={versions[name]}" for name in names]
    return kept.once(f"{prefix}-{_short(exact)}", lambda place: _fetch(exact, place))


def wanted_debs(*names: str) -> Path:
    """The same for a test, which ends where they cannot be had (`wanted.absent`)."""
    with or_the_test_ends():
        return unpacked(*names)


@contextlib.contextmanager
def or_the_test_ends() -> Iterator[None]:
    """What is not available in here ends the test, by the same policy."""
    try:
        yield
    except NotAvailable as error:
        wanted.absent(str(error))


def candidates(names: Sequence[str]) -> dict[str, str]:
    """The version that apt would install of each; raises NotAvailable where it knows one of them not at all."""
    versions = _known(names)
    if len(versions) < len(names) and os.geteuid() == 0:
        _update()
        versions = _known(names)
    if missing := [name for name in names if name not in versions]:
        raise NotAvailable(f"apt knows no package {', '.join(missing)}: run apt-get update, or add a Debian source")
    return versions


@cache
def xen_version() -> str:
    """The newest Xen whose libraries apt offers, as "4.17" (Debian 12's, with which the tests are tested)."""
    version = _newest_offered()
    if version is None and os.geteuid() == 0:
        _update()
        version = _newest_offered()
    return version or _newest_kept()


def _newest_offered() -> str | None:
    listed = _apt("apt-cache", "pkgnames", "libxenmisc4.")
    found = [match[1] for match in map(re.compile(r"libxenmisc(4\.\d+)").fullmatch, listed.split()) if match]
    offered = _known([f"libxenmisc{version}" for version in found])
    return max((v for v in found if f"libxenmisc{v}" in offered), key=lambda v: int(v[2:]), default=None)


def _newest_kept() -> str:
    if older := sorted(kept.directory().glob("debs-*/usr/lib/xen-4.*"), key=lambda path: int(path.name[6:])):
        return older[-1].name[4:]
    raise NotAvailable("apt offers no libxenmisc4.NN (Xen's libraries): run apt-get update; Debian 12 has 4.17")


def _known(names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    said = _apt("apt-cache", "policy", *names)
    pairs = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", said, re.MULTILINE)
    return {name: version for name, version in pairs if version != "(none)"}


def _update() -> None:
    with kept.locked("apt-lists"):
        _run("fetching apt's lists", ["apt-get", "-qq", "update"], kept.directory())


def _fetch(exact: Sequence[str], place: Path) -> None:
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []  # _apt may not write in root's cache
    with tempfile.TemporaryDirectory(dir=kept.directory()) as debs:
        what = f"fetching {len(exact)} Debian packages ({exact[0].partition('=')[0]}, ...)"
        _run(what, ["apt-get", "-qq", *sandbox, "download", *exact], Path(debs))
        for deb in sorted(Path(debs).glob("*.deb")):
            _run(f"unpacking {deb.name}", ["dpkg-deb", "-x", str(deb), str(place)], place)


def _run(what: str, command: Sequence[str], directory: Path) -> None:
    """With a line on stderr when it takes long; raises NotAvailable with the last that the command said."""
    process = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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


def _apt(*command: str) -> str:
    """What apt-cache says, for which it takes half a second: kept until apt's lists or what is installed change."""
    _tool(command[0])
    stamps = [str(path.stat().st_mtime_ns) for path in _APT_STATE if path.exists()]
    answer = kept.directory() / f"apt-{_short([*command, *stamps])}"
    if not answer.exists():
        environment = {**os.environ, "LC_ALL": "C"}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        unfinished = answer.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        unfinished.write_text(said)
        unfinished.rename(answer)
    return answer.read_text()


def _tool(name: str) -> None:
    if not shutil.which(name):
        raise NotAvailable(f"there is no {name}: Debian's packages are fetched with apt and unpacked with dpkg")


def _short(words: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:10]


def main(names: Sequence[str]) -> int:
    if not names or names[0].startswith("-"):
        print("usage: python -m tests.support.debs NAME...", file=sys.stderr)
        return 2
    try:
        print(unpacked(*names))
    except NotAvailable as error:
        print(f"debs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
