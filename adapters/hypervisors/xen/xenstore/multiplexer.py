"""A conversation with xenstored over a `Link`: requests and their replies, and the watch events in between.

One thread of its own receives for as long as the connection lives.  Replies go to the threads that wait for them,
told apart by their request ids; watch events into a queue.  An eventfd is readable while that has something, or the
connection has ended, which is noticed at once.  Any number of threads may ask at the same time.  ``_lock`` is held
over what they and the receiver share, and never while anything is sent, received or waited for.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from eventbridge.errors import HypervisorError

from ..support.close_gate import Gate
from . import wire
from .store import Watched, closed, gone
from .transport import Link
from .wire import Decoder, Message, Type, WireError

CHUNK = 64 * 1024
"""Bytes received at once."""
CLOSE_SECONDS = 1.0
"""How long `Conversation.close` waits for its own thread, which waits for nobody."""


class _Asked(NamedTuple):
    """A request under way, and where its thread waits; None is put there when there will be no reply."""

    type: Type
    reply: queue.SimpleQueue[Message | None]


class Conversation:
    """See above.  ``link`` is its own from here on; ``address`` is for messages; of the watch events only those that
    it ``wants`` are kept.
    """

    def __init__(self, address: str, link: Link, wants: Callable[[Watched], bool]) -> None:
        self._address = address
        self._link = link
        self._wants = wants
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._asked: dict[int, _Asked] = {}
        self._last = 0
        self._events: collections.deque[Watched] = collections.deque()
        self._ended: Callable[[], Exception] | None = None
        self._ready, self._enough = _eventfd(), _eventfd()
        self._signalled = False
        self._gate = Gate(self._release, lambda: closed(address))
        self._gate.__enter__()  # the receiver's stay
        self._receiver = threading.Thread(target=self._receive, name=f"receiver of {address}", daemon=True)
        self._receiver.start()

    def fileno(self) -> int:
        with self._gate:
            return self._ready

    def next_watch(self) -> Watched | None:
        """Never blocks; `ConnectionLost` once it has ended and nothing is left."""
        with self._gate, self._lock:
            if self._events:
                event = self._events.popleft()
                self._settle()
                return event
            self._must_go_on()
            return None

    def ask(self, type: Type, payload: bytes, transaction: int) -> Message:
        """The reply, of the request's type or ERROR.  Blocks.  `ConnectionLost` where there is none any more."""
        with self._gate:
            request, reply = self._note(type)
            self._send(wire.encode(Message(type, request, transaction, payload)))
            message = reply.get()
            if message is None:
                self._must_go_on()
                raise AssertionError("no reply, and no end")
            return message

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Around what takes a reply apart: where it is garbage, so may be everything from here on."""
        try:
            yield
        except WireError as error:
            found = f"its reply is garbage: {error}"
            with self._gate:
                self._end(lambda: gone(self._address, found))
            raise gone(self._address, found) from error

    def drop_unwanted(self) -> None:
        """Of the watch events that wait."""
        with self._gate, self._lock:
            self._events = collections.deque(filter(self._wants, self._events))
            self._settle()

    def close(self) -> None:
        """Whoever waits for a reply is told, and gets none.  Idempotent; any thread."""
        with contextlib.suppress(HypervisorError), self._gate:  # closed already
            self._gate.close()
            self._end(lambda: closed(self._address))
        if self._receiver is not threading.current_thread():
            self._receiver.join(CLOSE_SECONDS)

    # -- asking

    def _note(self, type: Type) -> tuple[int, queue.SimpleQueue[Message | None]]:
        reply: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        with self._lock:
            self._must_go_on()
            request = self._last % wire.ID_MAX + 1
            while request in self._asked:  # for as long as it took to ask the other 4 billion
                request = request % wire.ID_MAX + 1
            self._last = request
            self._asked[request] = _Asked(type, reply)
        return request, reply

    def _send(self, data: bytes) -> None:
        try:
            with self._sending:
                self._link.send(data)
        except OSError as error:
            found = f"it takes no more requests: {error.strerror}"
            self._end(lambda: gone(self._address, found))
        except BaseException:  # Ctrl-C, perhaps, and half a request sent
            self._end(lambda: gone(self._address, "sending a request was interrupted"))
            raise

    def _must_go_on(self) -> None:
        if self._ended is not None:
            raise self._ended()

    # -- the receiver's thread

    def _receive(self) -> None:
        found = "its receiver failed"
        try:
            found = self._pump()
        except OSError as error:
            found = f"nothing can be received: {error.strerror}"
        except WireError as error:
            found = f"what it sends is garbage or truncated: {error}"
        finally:
            self._end(lambda: gone(self._address, found))
            self._gate.__exit__(None, None, None)

    def _pump(self) -> str:
        decoder = Decoder()
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        poll.register(self._enough, select.POLLIN)
        while all(fd != self._enough for fd, _ in poll.poll()):
            data = self._link.receive(CHUNK)
            if not data:
                decoder.end()
                return "it closed the connection"
            decoder.feed(data)
            while (message := decoder.next()) is not None:
                self._take(message)
        return "it was closed here"

    def _take(self, message: Message) -> None:
        if message.type is Type.WATCH_EVENT:
            event = wire.watched(message.payload)
            with self._lock:
                if self._wants(event):
                    self._events.append(event)
                    self._settle()
            return
        self._whose(message).reply.put(message)

    def _whose(self, message: Message) -> _Asked:
        """Linux's device answers WATCH and UNWATCH itself, with a request id of 0, and in their order."""
        with self._lock:
            request = message.request
            if not request:
                request = next((number for number, asked in self._asked.items() if asked.type is message.type), 0)
            if request not in self._asked:
                raise WireError(f"a reply of type {message.type.name} to request {message.request}, which nobody made")
            asked = self._asked[request]
            if message.type not in (asked.type, Type.ERROR):  # it is left there, to be told of the end
                raise WireError(f"a reply of type {message.type.name} to a request of type {asked.type.name}")
            return self._asked.pop(request)

    # -- the end

    def _end(self, why: Callable[[], Exception]) -> None:
        """Inside the gate.  The first reason counts."""
        with self._lock:
            if self._ended is None:
                self._ended = why
            waiting = list(self._asked.values())
            self._asked.clear()
            self._settle()
        for asked in waiting:
            asked.reply.put(None)
        os.eventfd_write(self._enough, 1)
        with contextlib.suppress(OSError):  # it is disconnected already
            self._link.hang_up()

    def _settle(self) -> None:
        """The eventfd as the queue is.  Under the lock."""
        wanted = bool(self._events or self._ended)
        if wanted and not self._signalled:
            os.eventfd_write(self._ready, 1)
        elif self._signalled and not wanted:
            os.eventfd_read(self._ready)
        self._signalled = wanted

    def _release(self) -> None:
        self._link.close()
        os.close(self._ready)
        os.close(self._enough)


def _eventfd() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
