"""What libxl says about itself, which it prints to stderr unless it is given somewhere else: into Python's logging.

libxl calls a logger for every message there is, a dozen for each event, and formats it first.  So the logger is Xen's
own that writes to a stdio stream and drops in C what is below a level; the stream is one of ours (fopencookie(3)), and
only what is worth it gets to Python.

libxl calls an error whatever did not work, a look at a domain that has just gone included, and what really went wrong
comes back as a return value.  So its errors are logged as INFO, what it calls critical as ERROR, and the last words
of a call are kept for the exception that is made of it.  Any thread that is inside libxl, with its lock held."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
from ctypes import CFUNCTYPE, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p
from typing import Any

log = logging.getLogger(f"{__package__}.said")

# xentoollog_level (xentoollog.h) by its name, and what it is in logging.
_LEVELS = {
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
    "detail": logging.DEBUG,
    "progress": logging.DEBUG,
    "info": logging.DEBUG,
    "notice": logging.DEBUG,
    "warning": logging.INFO,
    "error": logging.INFO,
    "critical": logging.ERROR,
}
XTL_DEBUG, XTL_WARN, XTL_ERROR = 1, 7, 8
_WORTH_KEEPING = ("error", "critical")
_NO_PROGRESS = 0o4 | 0o20  # XTL_STDIOSTREAM_HIDE_PROGRESS, _PROGRESS_NO_CR

_LINE = re.compile(r"(?:\w+: )?(\w+): (.*)")
_PLACE = re.compile(r"^[\w./-]+\.[ch]:\d+:\w+: ")

Write = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)


class _CookieFunctions(ctypes.Structure):
    """cookie_io_functions_t."""

    _fields_ = (("read", c_void_p), ("write", Write), ("seek", c_void_p), ("close", c_void_p))


class Journal:
    """A logger for one ctx, ``pointer``; `close` when that has been freed."""

    def __init__(self, library: Any, level: int | None = None) -> None:
        self._library = library
        self._said = threading.local()
        self._functions = _CookieFunctions(None, Write(self._written), None, None)
        self._file = _fopencookie(None, b"w", self._functions)
        wanted = least() if level is None else level
        self.pointer: int | None = library.xtl_createlogger_stdiostream(self._file, wanted, _NO_PROGRESS)

    def listen(self) -> None:
        """What is said on this thread from here on is `last`; what was said before is not."""
        self._said.last = ""

    def last(self) -> str:
        """The last error that libxl has told of on this thread."""
        found: str = getattr(self._said, "last", "")
        return found

    def close(self) -> None:
        """Once, and nobody is inside libxl any more."""
        self._library.xtl_logger_destroy(self.pointer)
        _fclose(self._file)

    def _written(self, cookie: int | None, text: int, size: int) -> int:
        try:
            for line in ctypes.string_at(text, size).decode(errors="replace").splitlines():
                self._take(line)
        except BaseException:  # nothing may be raised into C
            log.exception("libxl's words were lost")
        return size

    def _take(self, line: str) -> None:
        found = _LINE.match(line)
        level, words = (found[1], found[2]) if found else ("debug", line)
        if level in _WORTH_KEEPING:
            self._said.last = _PLACE.sub("", words)
        log.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


def least() -> int:
    """The lowest xentoollog_level that is of use, as logging is set up now."""
    if log.isEnabledFor(logging.DEBUG):
        return XTL_DEBUG
    return XTL_WARN if log.isEnabledFor(logging.INFO) else XTL_ERROR


_libc = ctypes.CDLL(None)
_fopencookie = CFUNCTYPE(c_void_p, c_void_p, c_char_p, _CookieFunctions)(("fopencookie", _libc))
_fclose = CFUNCTYPE(c_int, c_void_p)(("fclose", _libc))
