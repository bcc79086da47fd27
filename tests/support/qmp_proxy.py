"""A stand-in for a network that fails: it hands bytes on between two sockets until so many have gone by, and cuts."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType


class CuttingProxy:
    """Listens at `to` for one connection, and connects it to ``target`` (a port here, or a unix socket's path).

    When ``forth`` bytes have gone to the target, or ``back`` bytes from it, both connections are closed, and what is
    above is not handed on; None: never.  With ``swallow`` nothing that comes from the target is handed on.
    """

    def __init__(
        self, target: int | str, *, forth: int | None = None, back: int | None = None, swallow: bool = False
    ) -> None:
        self._target = target
        self._left = [forth, back]
        self._swallow = swallow
        self.passed = [0, 0]
        """Bytes, forth and back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def to(self) -> str:
        """As a migration's URI."""
        return f"tcp:127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Now; returns when it is done.  Idempotent."""
        self._stop.close()
        self._thread.join()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()
        self._stopped.close()
        self._listener.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            if any(key.fileobj is self._stopped for key, _ in selector.select()):
                return
            selector.unregister(self._listener)
            near, _ = self._listener.accept()
            with near, self._connected() as far:
                selector.register(near, selectors.EVENT_READ, (far, 0))
                selector.register(far, selectors.EVENT_READ, (near, 1))
                while all(self._step(key) for key, _ in selector.select()):
                    pass

    def _connected(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(self._target)
        return connected

    def _step(self, key: selectors.SelectorKey) -> bool:
        """False where it is over."""
        if key.data is None:
            return False
        other, way = key.data
        try:
            data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # it is a socket
            left = self._left[way]
            if left is not None:
                data = data[:left]
                self._left[way] = left - len(data)
            if way == 0 or not self._swallow:
                other.sendall(data)
            self.passed[way] += len(data)
        except OSError:
            return False
        return bool(data) and self._left[way] != 0
