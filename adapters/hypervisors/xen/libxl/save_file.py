"""A saved guest's files: its memory as libxl streams it, at a path, and beside it, as PATH.json, its definition.

libxl's stream says nothing of what the domain is to be when it is restored, so the definition is kept too.  Both are
written under other names, and take the old ones' places when the guest is whole on the disk: what fails leaves nothing
behind and nothing destroyed.  Blocks: a worker's thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from eventbridge.errors import HypervisorError

_PARTIAL = ".partial"
_ROOM = 4096  # bytes that are there for sure, on a full disk too: libxl needs that for a stream's head (streams.py)
_MODE = 0o600  # a guest's memory is nobody else's business


def definition_path(path: str) -> str:
    return f"{path}.json"


class NewFile:
    """``with NewFile(path) as file``: ``file.fd`` is open for writing.  It is gone afterwards, unless it was kept."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self._partial = f"{path}{_PARTIAL}"

    def __enter__(self) -> NewFile:
        try:
            _must_be_regular(self.path)
            self.fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        except FileExistsError:
            raise refusal("save to", self.path, f"somebody is at it, or left {self._partial} behind") from None
        except OSError as error:
            raise refusal("save to", self.path, error.strerror or str(error), error.errno) from None
        try:
            os.posix_fallocate(self.fd, 0, _ROOM)
        except OSError as error:
            self.__exit__()
            raise refusal("save to", self.path, error.strerror or str(error), error.errno) from None
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial)

    def keep(self, definition: str | None) -> None:
        """It is whole: now it is PATH, and safe on the disk."""
        beside = definition_path(self.path)
        try:
            os.ftruncate(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR))
            os.fsync(self.fd)
            if definition is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(beside)  # an older one's, which would be taken for this one's
            else:
                _write(f"{beside}{_PARTIAL}", definition)
                os.rename(f"{beside}{_PARTIAL}", beside)
            os.rename(self._partial, self.path)
            _sync_directory(self.path)
        except OSError as error:
            raise refusal("save to", self.path, error.strerror or str(error), error.errno) from None


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """An fd at the start of a saved guest."""
    try:
        _must_be_regular(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise refusal("restore from", path, error.strerror or str(error), error.errno) from None
    try:
        yield fd
    finally:
        os.close(fd)


def definition_beside(path: str) -> str | None:
    try:
        with open(definition_path(path), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise refusal("restore from", path, f"the definition beside it cannot be read: {error}") from None


def refusal(what: str, path: str, words: str, code: int | None = None) -> HypervisorError:
    return HypervisorError(f"cannot {what} {path}: {words}", code=code)


def _must_be_regular(path: str) -> None:
    """Of anything else how far it is cannot be told, and when libxl may be aborted."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is there, and no regular file")


def _write(path: str, text: str) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE), "w", encoding="utf-8"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
