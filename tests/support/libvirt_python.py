"""libvirt-python's source distribution, which has its own tests: downloaded once, into the tests' cache.

``python -m tests.support.libvirt_python`` does that ahead, so that the tests need no network.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from tests.support import cache


class NotDownloaded(Exception):
    """pip could not have it; one line with what pip said."""


def source_distribution() -> Path:
    """Return the archive, of the version that is installed.  Raises `NotDownloaded`."""
    version = importlib.metadata.version("libvirt-python")
    place = cache.once(f"libvirt-python-{version}", lambda place: _download(f"libvirt-python=={version}", place))
    (archive,) = place.glob("*.tar.gz")
    return archive


def _download(requirement: str, place: Path) -> None:
    only_the_source = ("--no-deps", "--no-binary", ":all:", "--quiet", "--dest", str(place))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download")
    done = subprocess.run([*pip, *only_the_source, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise NotDownloaded(f"pip could not download the source of {requirement}, which has its own tests: {said}")


def main() -> int:
    try:
        source_distribution()
    except NotDownloaded as error:
        print(f"libvirt_python: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
