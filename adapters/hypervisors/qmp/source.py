"""One QEMU's socket as a `eventbridge.core.models.DirectSource`: what arrives is taken apart and handed on, what is to
be sent waits until the socket takes it, and scripts are played over it.

Whoever drains it is its thread: the loop's, or, before it is on one, the opener's.  A drain has a pass's budget (D2);
what is left of what was received comes in the next pass, and until then nothing more is received.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic

from eventbridge.core.dispatcher import BUDGET_CALLBACKS, BUDGET_SECONDS
from eventbridge.core.masks import Events
from eventbridge.errors import ConnectionLost

from .codec import LINE_LIMIT, Decoder, Event, Greeting, Message, WireError, encode
from .scripts import Command, Done, Player, QemuEnded, Running, Script
from .transport import CHUNK, Link

_ID_BITS = 48
"""Of the random number that a connection's ids begin at: no two connections' meet, and every JSON parser keeps them
exact.  The next bit is set, so that every id has 15 digits: how long a conversation is does not depend on chance.
"""
_INCOMING = Events.READABLE | Events.HANGUP | Events.ERROR


class QmpSource:
    """``on_event(event)`` is called for each of QEMU's events, in order, and ``on_end(reason, error)`` once, if ever,
    when the connection has ended; scripts are told after that, unless it has told them itself.  Both may be set anew
    while nobody drains.
    """

    def __init__(self, uri: str, link: Link, line_limit: int = LINE_LIMIT) -> None:
        self._uri = uri
        self._link = link
        self._fd = link.fileno()
        self._decoder = Decoder(line_limit)
        self.player = Player(self._send, link.take_back, after=1 << _ID_BITS | secrets.randbits(_ID_BITS))
        self.on_event: Callable[[Event], object] = lambda event: None
        self.on_end: Callable[[str, ConnectionLost], object] = lambda reason, error: None
        self.greeting: Greeting | None = None
        self.ended: ConnectionLost | None = None

    # -- DirectSource

    def fileno(self) -> int:
        return self._fd

    def events(self) -> int:
        if self.ended is not None:
            return 0
        return int(Events.READABLE | Events.WRITABLE if self._link.waiting else Events.READABLE)

    def deadline(self) -> float | None:
        if self.ended is not None:
            return None
        return 0.0 if self._decoder.ready else self.player.deadline()

    def drain(self, events: int) -> None:
        if self.ended is not None:
            return
        try:
            self.player.tick()
            if self._decoder.ready or events & _INCOMING:
                self._take()
            self._link.flush()
        except WireError as error:
            self.end("garbage", ConnectionLost(f"{self._uri}: what it sends is garbage: {error}"))
        except OSError as error:
            self._failed(error)

    def detached(self) -> None:
        self.end("closed", ConnectionLost(f"{self._uri}: the connection was closed here"))
        self._link.close()

    # -- for the session, on the same thread

    def play(self, script: Script, done: Done) -> Running:
        """Begin a script.  `events` and `deadline` may be others afterwards."""
        running = self.player.play(script, done)
        self.flush()
        return running

    def end(self, reason: str, error: ConnectionLost) -> None:
        """Nothing is received or sent from here on; the first reason counts."""
        if self.ended is None:
            self.ended = error
            self.on_end(reason, error)
            self.player.end(error)

    # -- within a drain

    def _take(self) -> None:
        until = monotonic() + BUDGET_SECONDS
        taken, drained = 0, False
        while self.ended is None and taken < BUDGET_CALLBACKS:
            message = self._decoder.next()
            if message is not None:
                taken += 1
                self._handle(message)
            elif drained:
                return  # what has come since comes in the next pass: asking would be a call of the kernel's more
            else:
                drained = not self._receive()
            if monotonic() > until:
                return

    def _receive(self) -> bool:
        """Is there more, as far as that is seen?"""
        data = self._link.receive()
        if data:
            self._decoder.feed(data)
        elif data is not None:
            cut = f", {self._decoder.held} bytes into a message" if self._decoder.held else ""
            self.end("eof", QemuEnded(f"{self._uri}: QEMU has closed the connection{cut}: it has ended"))
        return data is not None and len(data) == CHUNK

    def _handle(self, message: Message) -> None:
        if isinstance(message, Event):
            self.on_event(message)
        elif isinstance(message, Greeting):
            if self.greeting is not None:
                raise WireError("a second greeting")
            self.greeting = message
            self.player.wake()
        else:
            self.player.reply(message)

    def _send(self, id: int, command: Command) -> None:
        self._link.put(id, encode(command.name, command.arguments, id, oob=command.oob), command.fd)

    def flush(self) -> None:
        if self.ended is None:
            try:
                self._link.flush()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        """That it takes no more is no end yet: what QEMU said last is still to be read, and then the end of file."""
        if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
            words = f"the connection failed: {error.strerror or error}"
            self.end("error", ConnectionLost(f"{self._uri}: {words}"))
