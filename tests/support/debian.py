"""Where Debian's packages come from on this machine, for any of Debian's releases.

apt tells its own sources; those of another release are the same with the suite's name exchanged.  So the mirror, its
proxy and its certificates are the ones that the machine is set up with, and no address is written here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CODENAMES = {11: "bullseye", 12: "bookworm", 13: "trixie"}
"""Of the releases that are asked for, and of those a machine may have whose sources are exchanged for them."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""The package debian-archive-keyring has it; Debian 12's has the keys of Debian 13 too."""

_TARGET = "$(REPO_URI) $(RELEASE) $(COMPONENT)"


class NoSources(Exception):
    """apt has no source of Debian's here: what was looked for, and what to do, in one line."""


class Source(NamedTuple):
    """One suite at one mirror."""

    uri: str
    suite: str

    def line(self) -> str:
        """Return the source as sources.list(5) writes it."""
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"deb {signed}{self.uri} {self.suite} main"


def sources(release: int) -> list[Source]:
    """Return the sources of that release, the release proper first, then its updates and its security updates.

    Raises:
        NoSources: there is no apt-get, or it has no source of a Debian release.
    """
    if shutil.which("apt-get") is None:
        raise NoSources("there is no apt-get: the packages of Debian are fetched with apt")
    said = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", "--format", _TARGET, "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    own = own_codename()
    if own is None:
        raise NoSources("this machine is no Debian 11, 12 or 13 (/etc/os-release): its sources cannot be exchanged")
    found = dict.fromkeys(_exchanged(said, own, CODENAMES[release]))
    if not any(source.suite == CODENAMES[release] for source in found):
        raise NoSources(f"apt has no source of Debian's suite {own}: add one in /etc/apt/sources.list.d")
    return sorted(found, key=lambda source: len(source.suite))


def acquire_configuration() -> str:
    """Return how apt fetches here (proxies, certificates, what it checks), as apt.conf(5) writes it."""
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return "".join(f"{line}\n" for line in said.splitlines() if re.match(r'Acquire::\S+ "[^"]', line))


def _exchanged(said: str, own: str, wanted: str) -> Iterator[Source]:
    for line in said.splitlines():
        uri, suite, component = line.split(" ")
        name, dash, part = suite.partition("-")
        if component == "main" and name == own and part in ("", "updates", "security"):
            yield Source(uri, f"{wanted}{dash}{part}")


def own_codename() -> str | None:
    """Return the codename of this machine's Debian; None if it is none of CODENAMES."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            found = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', Path(path).read_text(), re.MULTILINE)
            if found and found[1] in CODENAMES.values():
                return found[1]
    return None
