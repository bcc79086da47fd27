"""The private Xen libraries in the test's own process, with the stand-in before them.

The dynamic linker finds a library that is loaded already by its SONAME, and a symbol in what was loaded globally
first.  So the stand-in is loaded globally, then each library by its path, what another needs before it; a plain
``ctypes.CDLL("libxenlight.so.4.17")`` finds these ever after, for libraries are never unloaded.  Any thread, once."""

from __future__ import annotations

import ctypes
import functools
import re
from pathlib import Path

from tests.support.xen import packages

SONAMES = (
    "libz.so.1 liblzma.so.5 libzstd.so.1 libuuid.so.1 libyajl.so.2 libxentoolcore.so.1 libxentoollog.so.1"
    " libxencall.so.1 libxenevtchn.so.1 libxengnttab.so.1 libxenforeignmemory.so.1 libxendevicemodel.so.1"
    " libxenhypfs.so.1 libxenctrl.so.{version} libxenguest.so.{version} libxenstore.so.4 libxenlight.so.{version}"
)
ADOPTED = "libxenlight.so.{version}", "libxenguest.so.{version}"


@functools.cache
def load() -> None:
    """Raises RuntimeError where this process has other Xen libraries in it: those never go through the stand-in."""
    private, version = packages.libraries(), packages.version()
    if others := [path for path in mapped() if path.parent != private]:
        raise RuntimeError(f"{others[0]} is in this process already, so the private one cannot be: load that one first")
    stand_in = ctypes.CDLL(str(packages.stand_in()), mode=ctypes.RTLD_GLOBAL)
    for soname in SONAMES.format(version=version).split():
        ctypes.CDLL(str(_path(private, soname)))
    for library in ADOPTED:
        if stand_in.standin_adopt(library.format(version=version).encode()) <= 0:
            raise RuntimeError(f"{library} does not go through the stand-in for Xen's directories")


def mapped() -> set[Path]:
    """The Xen libraries in this process, without the stand-in."""
    found = re.findall(r"\S*/libxen[a-z]+\.so\S*", Path("/proc/self/maps").read_text())
    return {Path(path) for path in found}


def _path(private: Path, soname: str) -> Path:
    """zlib1g and the like have theirs in /lib."""
    outside = private.parents[2] / "lib" / private.name
    return next(path for path in (private / soname, outside / soname) if path.exists())
