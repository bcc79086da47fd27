"""What a stand-in runs: Debian's xenstored and Xen libraries, unpacked privately, and the stand-in's own library,
built once into the cache under the checksum of all that goes into it."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import cache, debs
from tests.support.wanted import program

FIXED = (
    "libxen-dev libxenstore4 libxentoollog1 libxentoolcore1 libxencall1 libxenevtchn1 libxengnttab1"
    " libxenforeignmemory1 libxendevicemodel1 libxenhypfs1 libyajl2 libuuid1 liblzma5 libzstd1 zlib1g"
).split()
SOURCES = tuple(Path(__file__).with_name(name) for name in ("hypercalls.c", "devices.c", "places.c"))
HEADERS = (Path(__file__).with_name("table.h"),)
FLAGS = "-std=gnu11 -O1 -g -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden".split()
LIBRARY = "libxen-stand-in.so"


@functools.cache
def version() -> str:
    """Xen's, as "4.17"."""
    with debs.or_the_test_ends():
        return debs.xen_version()


@functools.cache
def root() -> Path:
    """Where the packages are unpacked: ``usr/include``, ``usr/lib/...``."""
    return debs.wanted_debs(f"libxenmisc{version()}", f"xen-utils-{version()}", *FIXED)


@functools.cache
def libraries() -> Path:
    """The directory of the shared libraries, Debian's multiarch one."""
    (found,) = root().glob("usr/lib/*/libxenlight.so." + version())
    return found.parent


def xenstored() -> list[str]:
    """The command that starts it with its data in memory, where they are anyway from Xen 4.18 on."""
    in_memory = ["--internal-db"] if int(version().partition(".")[2]) < 18 else []
    return [str(root() / f"usr/lib/xen-{version()}/bin/xenstored"), *in_memory]


@functools.cache
def stand_in() -> Path:
    """The stand-in's library, built where this compiler has not built these sources with these headers before."""
    compiler = [program("gcc", "gcc libc6-dev"), *FLAGS, f"-I{root()}/usr/include"]
    checksum = hashlib.sha256("\0".join(compiler).encode())
    for file in (*SOURCES, *HEADERS):
        checksum.update(file.read_bytes())

    def build(place: Path) -> None:
        command = [*compiler, "-o", str(place / LIBRARY), *map(str, SOURCES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the hypercall stand-in does not compile: {done.stderr}")

    return cache.once(f"xen-stand-in-{checksum.hexdigest()[:12]}", build) / LIBRARY


def main() -> int:
    """Fetch the packages and build the stand-in, so that the tests need no network."""
    try:
        stand_in()
    except (pytest.fail.Exception, pytest.skip.Exception, RuntimeError) as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
