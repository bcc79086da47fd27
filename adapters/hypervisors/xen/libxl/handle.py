"""One libxl_ctx: how it is opened, who is inside libxl with it, and what is said when libxl refuses.

Everything that calls libxl does so through `Ctx.inside`, which counts (see lifetime.py), so that the ctx is freed when
nobody is.  Any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from eventbridge.errors import HypervisorError

from ..support.libxl_log import Journal
from ..support.reasons import LIBXL_ERRORS
from . import types
from .lifetime import Lifetime

ERROR_VERSION = -2

# What is in libxl's words where it cannot open a ctx (libxl_ctx_alloc and what it calls), and what to do about it.
HINTS = (
    (
        "cannot open libxc handle",
        "is this a Xen host's domain 0, and may this user open /dev/xen/privcmd? be root there",
    ),
    ("cannot connect to xenstore", "is xenstored running, and may this user connect to it? be root on a Xen host"),
)


class Ctx:
    """``library`` is a `types.Library`, or what stands in for one.  ``pointer`` is libxl's.  ``on_free()`` is called
    when the last one is out after `Lifetime.close`, on that thread; it calls `free`, in time.

    `HypervisorError` where libxl cannot open it; nothing is left behind then.
    """

    def __init__(self, library: Any, uri: str, on_free: Callable[[], None]) -> None:
        self.library = library
        self.uri = uri
        self.pointer = ctypes.c_void_p()
        self.lifetime = Lifetime(on_free)
        self._journal = Journal(library)
        self._journal.listen()
        # With a logger always: one that is NULL libxl calls, too.
        code = library.libxl_ctx_alloc(ctypes.byref(self.pointer), types.LIBXL_VERSION, 0, self._journal.pointer)
        if code:
            said = self._journal.last()
            self._journal.close()
            raise self._cannot_open(code, said)

    def free(self) -> None:
        """Nobody is inside, nobody comes.  Blocks on xenstored."""
        self.library.libxl_ctx_free(self.pointer)
        self._journal.close()

    def enter(self, finishing: bool = False) -> bool:
        """As `Lifetime.enter`, and libxl's last words are those of what follows."""
        self._journal.listen()
        return self.lifetime.enter(finishing)

    @contextlib.contextmanager
    def inside(self, operation: str, domid: int | None = None, finishing: bool = False) -> Iterator[None]:
        """Around whatever calls libxl; `HypervisorError` where it is closed."""
        if not self.enter(finishing):
            raise HypervisorError(
                f"{self.uri}: cannot {operation}{_of(domid)}: it was closed; open another",
                operation=operation,
                domain=_name(domid),
            )
        try:
            yield
        finally:
            self.lifetime.leave()

    def call(self, operation: str, domid: int | None, function: Any, *arguments: Any) -> int:
        """``function(ctx, *arguments)``; `HypervisorError` where it returns less than 0."""
        with self.inside(operation, domid):
            code: int = function(self.pointer, *arguments)
            if code < 0:
                raise self.refusal(operation, code, domid)
        return code

    def refusal(self, operation: str, code: int | None, domid: int | None = None, words: str = "") -> HypervisorError:
        """What libxl answered, in words, with the last that it said on this thread."""
        if not words:
            words = LIBXL_ERRORS.get(code or 0, f"an error that is not known, {code}")
        said = self._journal.last()
        return HypervisorError(
            f"{self.uri}: cannot {operation}{_of(domid)}: {words}{f'; libxl said: {said}' if said else ''}",
            code=code,
            operation=operation,
            domain=_name(domid),
        )

    def _cannot_open(self, code: int, said: str) -> HypervisorError:
        words = LIBXL_ERRORS.get(code, str(code))
        if code == ERROR_VERSION:
            words = f"{self.library.name} refuses the version of its interface that all from 4.2 on have had"
        hint = next((hint for mark, hint in HINTS if mark in said), "")
        return HypervisorError(
            f"{self.uri}: cannot open libxl: {'; '.join(filter(None, (said or words, hint)))}",
            code=code,
            operation="open",
        )


def _of(domid: int | None) -> str:
    return "" if domid is None else f" domain {domid}"


def _name(domid: int | None) -> str | None:
    return None if domid is None else str(domid)
