"""Debian packages for a test's private use: downloaded, unpacked in the cache, and never installed.

``apt-get download`` asks for no privilege and dpkg-deb unpacks; nothing of the machine's own changes, except that
root is given apt's lists where it has none.  What was unpacked before serves again without the network.  By hand::

    python -m tests.support.debs NAME...        # prints the directory they are unpacked in"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tests.support import cache as kept
from tests.support import wanted
from tests.support.apt import Apt, NotAvailable, run, short, tool


def unpacked(*names: str, release: int | None = None) -> Path:
    """Return the directory in which these packages of a release are unpacked, in the versions that apt offers now.

    Raises NotAvailable where there is no apt-get or dpkg-deb, no such package, or no network."""
    apt = Apt(release)
    tool("dpkg-deb")
    names = tuple(sorted(set(names)))
    prefix = f"{_prefix(apt)}-{short(names)}"
    try:
        versions = candidates(names, apt)
    except NotAvailable:
        if older := sorted(kept.directory().glob(f"{prefix}-*[0-9a-f]"), key=lambda path: path.stat().st_ctime):
            return older[-1]  # fetched when apt still had its lists
        raise
    exact = [f"{name}={versions[name]}" for name in names]
    return kept.once(f"{prefix}-{short(exact)}", lambda place: _fetch(exact, apt, place))


def _prefix(apt: Apt) -> str:
    return "debs" if apt.release is None else f"debs{apt.release}"


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


def candidates(names: Sequence[str], apt: Apt) -> dict[str, str]:
    """The version that apt would install of each; raises NotAvailable where it knows one of them not at all."""
    versions = _known(names, apt)
    if len(versions) < len(names) and apt.may_update:
        apt.update()
        versions = _known(names, apt)
    if missing := [name for name in names if name not in versions]:
        raise NotAvailable(f"apt knows no package {', '.join(missing)}: run apt-get update, or add a Debian source")
    return versions


@cache
def xen_version(release: int | None = None) -> str:
    """The newest Xen whose libraries that release offers, as "4.17" (Debian 12's; Debian 13 has 4.20)."""
    apt = Apt(release)
    version = _newest_offered(apt)
    if version is None and apt.may_update:
        apt.update()
        version = _newest_offered(apt)
    return version or _newest_kept(apt)


def _newest_offered(apt: Apt) -> str | None:
    listed = apt.ask("apt-cache", "pkgnames", "libxenmisc4.")
    found = [match[1] for match in map(re.compile(r"libxenmisc(4\.\d+)").fullmatch, listed.split()) if match]
    offered = _known([f"libxenmisc{version}" for version in found], apt)
    return max((v for v in found if f"libxenmisc{v}" in offered), key=lambda v: int(v[2:]), default=None)


def _newest_kept(apt: Apt) -> str:
    pattern = f"{_prefix(apt)}-*/usr/lib/xen-4.*"
    if older := sorted(kept.directory().glob(pattern), key=lambda path: int(path.name[6:])):
        return older[-1].name[4:]
    raise NotAvailable("apt offers no libxenmisc4.NN (Xen's libraries): run apt-get update; Debian 12 has 4.17")


def _known(names: Sequence[str], apt: Apt) -> dict[str, str]:
    if not names:
        return {}
    said = apt.ask("apt-cache", "policy", *names)
    pairs = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", said, re.MULTILINE)
    return {name: version for name, version in pairs if version != "(none)"}


def _fetch(exact: Sequence[str], apt: Apt, place: Path) -> None:
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []  # _apt may not write in root's cache
    with tempfile.TemporaryDirectory(dir=kept.directory()) as debs:
        what = f"fetching {len(exact)} Debian packages ({exact[0].partition('=')[0]}, ...)"
        apt.run(what, ["apt-get", "-qq", *sandbox, "download", *exact], Path(debs))
        for deb in sorted(Path(debs).glob("*.deb")):
            run(f"unpacking {deb.name}", ["dpkg-deb", "-x", str(deb), str(place)], place)


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
