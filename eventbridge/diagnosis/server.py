"""A Unix socket on which a running daemon is asked how it fares; ``eventbridge trace PATH`` asks.

One question a connection: a line of JSON, ``{"want": "stats"}``, ``{"want": "stacks"}``, or ``{"want": "trace",
"seconds": 5, "limit": 100000}``; the answer is one JSON object, and the end.  A trace ends before its time where the
asker says no more (``shutdown(SHUT_WR)``), and is answered all the same.

Answered on threads of its own, not on the loop: the loop that hangs is the one that is asked about, and writing a trace
out would be a slow callback itself.  The socket is for its owner alone (mode 0600, before anybody can connect).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from eventbridge.core.bridge import BridgeCore
from eventbridge.core.observed import ObservedDispatcher
from eventbridge.core.origin import origin
from eventbridge.errors import BridgeClosed, BridgeForked

from . import trace_format
from .stats import snapshot
from .tracing import Trace

ASKERS = 8
"""How many are answered at a time."""
ROOM_SECONDS = 1.0
"""How long the next one is kept waiting before he is refused."""
REPLY_SECONDS = 10.0
"""How long an asker may take to ask, and to read each piece of the answer."""
LONGEST_TRACE = 3600.0
LONGEST_QUESTION = 4096
Question: TypeAlias = dict[str, Any]

_servers: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """At ``path``, of the bridges that ``bridges()`` gives when somebody asks; until `close`.  A context manager.

    FileExistsError where somebody answers there, or it is no socket; OSError where it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], bridges: Callable[[], list[BridgeCore]]) -> None:
        self.path = os.fspath(path)
        self._bridges = bridges
        self._room = threading.BoundedSemaphore(ASKERS)
        self._closed = False
        self._listener = _listen(self.path)
        self._inode = os.stat(self.path).st_ino
        _servers.add(self)
        threading.Thread(target=self._accept, name=f"diagnosis on {self.path}", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more.  Idempotent; any thread."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # it may be somebody else's by now
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends `accept`
        self._listener.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                asker, _ = self._listener.accept()
            except OSError:
                if self._closed or self._listener.fileno() < 0:
                    return
                continue  # the asker has gone, or there are too many files: who is here goes on
            if self._room.acquire(timeout=ROOM_SECONDS):
                threading.Thread(target=self._answer, args=(asker,), name="diagnosis", daemon=True).start()
            else:
                with asker, contextlib.suppress(OSError):
                    asker.sendall(b'{"error": "too many ask at once"}')

    def _answer(self, asker: socket.socket) -> None:
        try:
            with asker, contextlib.suppress(OSError):  # it has gone
                asker.settimeout(REPLY_SECONDS)
                asker.sendall(json.dumps(self._reply(asker)).encode())
        finally:
            self._room.release()

    def _reply(self, asker: socket.socket) -> dict[str, Any]:
        try:
            question = _read(asker)
            return ANSWERS[question["want"]](self._bridges(), question, asker)
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"what is asked cannot be answered: {type(error).__name__}: {error}"}


def _listen(path: str) -> socket.socket:
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen()  # last: until then nobody can connect
    except OSError as error:
        listener.close()
        raise type(error)(error.errno, f"cannot serve diagnosis: {error.strerror or error}", path) from None
    return listener


def _make_way(path: str) -> None:
    """Of a socket that a dead process has left."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "cannot serve diagnosis: it is there, and no socket", path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise FileExistsError(errno.EEXIST, "cannot serve diagnosis: another process does, there", path)


def _read(asker: socket.socket) -> Question:
    text = b""
    while not text.endswith(b"\n"):
        more = asker.recv(LONGEST_QUESTION)
        text += more
        if not more or len(text) > LONGEST_QUESTION:
            break
    question = json.loads(text)
    if not isinstance(question, dict):
        raise TypeError("a question is a JSON object")
    return question


# -- the answers


def _stats(bridges: list[BridgeCore], question: Question, asker: socket.socket) -> dict[str, Any]:
    return {"process": os.getpid(), "bridges": [{**plain(snapshot(b)), "callback": _now_in(b)} for b in bridges]}


def _stacks(bridges: list[BridgeCore], question: Question, asker: socket.socket) -> dict[str, Any]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    loops = {bridge._dispatcher.thread for bridge in bridges if isinstance(bridge._dispatcher, ObservedDispatcher)}
    threads = [
        {
            "name": names.get(ident, str(ident)),
            "is_loop": ident in loops,
            "stack": "".join(traceback.format_stack(frame)),
        }
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    ]
    return {"process": os.getpid(), "threads": threads, "callbacks": [_now_in(bridge) for bridge in bridges]}


def _trace(bridges: list[BridgeCore], question: Question, asker: socket.socket) -> dict[str, Any]:
    seconds = min(max(float(question["seconds"]), 0.0), LONGEST_TRACE)
    limit = int(question.get("limit", 100_000))
    traces = []
    try:
        for bridge in bridges:
            with contextlib.suppress(BridgeClosed, BridgeForked):
                traces.append(Trace(bridge, limit).start())
        waits = select.poll()
        waits.register(asker, select.POLLIN | select.POLLHUP)
        waits.poll(int(seconds * 1000))
    finally:
        for trace in traces:
            trace.stop()
    return trace_format.document(traces)


ANSWERS: dict[str, Callable[[list[BridgeCore], Question, socket.socket], dict[str, Any]]] = {
    "stats": _stats,
    "stacks": _stacks,
    "trace": _trace,
}


def _now_in(bridge: BridgeCore) -> dict[str, Any] | None:
    """The callback that it is in; how long is known where somebody observes it."""
    dispatcher = bridge._dispatcher
    item = dispatcher._current
    if item is None:
        return None
    if isinstance(dispatcher, ObservedDispatcher) and dispatcher.running:
        return {"origin": str(dispatcher.calling), "since": dispatcher.running / 1e9}
    return {"origin": str(origin(item)), "since": None}


def plain(thing: Any) -> Any:
    """As JSON has it: records as objects."""
    if is_dataclass(thing):
        return {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
    if hasattr(thing, "_asdict"):
        return {name: plain(value) for name, value in thing._asdict().items()}
    if isinstance(thing, dict):
        return {name: plain(value) for name, value in thing.items()}
    return thing


def _after_fork() -> None:
    """In the child: the parent serves, and its socket must end with it."""
    for server in list(_servers):
        server._closed = True
        server._listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
