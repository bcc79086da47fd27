"""What tests fetch or build is kept in one directory between runs, and made once, however many processes ask at once.

The directory is ``${XDG_CACHE_HOME:-~/.cache}/eventbridge``, or what EVENTBRIDGE_CACHE says; it may be removed at any
time.  A thing is made beside its place and renamed into it whole, so a half-made one is never met; a lock makes the
others wait for the one who makes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def directory() -> Path:
    """The cache's own directory, which exists."""
    told = os.environ.get("EVENTBRIDGE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(told) if told else Path(base) / "eventbridge"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The directory of that name in the cache; where there is none, ``make`` fills an empty one that becomes it."""
    place = directory() / name
    if place.is_dir():
        return place
    with locked(name):
        if not place.is_dir():  # nobody made it while this waited
            with _beside(place) as unfinished:
                make(unfinished)
                unfinished.rename(place)
    return place


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """The one process, and the one thread, in here under that name; whoever dies in here lets go of it."""
    with open(directory() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_if_free(name: str) -> Iterator[bool]:
    """Enter under that name without waiting: False if somebody else is in there."""
    with open(directory() / f"{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    unfinished.chmod(0o755)
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
