"""The stand-in for libxl 4.1 (libxl41.c), built once into the cache, and its own counters."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support import cache
from tests.support.wanted import program
from tests.support.xen import packages

SONAME = "libxenlight.so.1.0"
SOURCE = Path(__file__).with_name("libxl41.c")


class Counts(NamedTuple):
    """What there is of each at the moment; how often libxl_get_event was called; how many ctxs were freed before their
    waiters were."""

    ctxs: int
    waiters: int
    events: int
    gets: int
    freed_too_early: int


@functools.cache
def stand_in() -> Path:
    """The library's file: what EVENTBRIDGE_LIBXL is to be."""
    libraries = packages.libraries()
    compiler = [program("gcc", "gcc libc6-dev"), *packages.FLAGS, f"-I{packages.root()}/usr/include"]
    linked = [f"-Wl,-soname,{SONAME}", f"-L{libraries}", f"-Wl,-rpath-link,{libraries}", "-lxenctrl", "-lxenstore"]
    checksum = hashlib.sha256("\0".join([*compiler, *linked]).encode() + SOURCE.read_bytes()).hexdigest()

    def build(place: Path) -> None:
        done = subprocess.run(
            [*compiler, "-o", place / SONAME, SOURCE, *linked], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the stand-in for libxl 4.1 does not compile: {done.stderr}")

    return cache.once(f"libxl41-stand-in-{checksum[:12]}", build) / SONAME


def counts() -> Counts:
    """Of this process."""
    found = ctypes.CDLL(str(stand_in())).libxl41_standin_counts
    found.restype = ctypes.POINTER(ctypes.c_int * len(Counts._fields))
    return Counts(*found().contents)
