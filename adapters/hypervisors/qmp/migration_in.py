"""How a domain arrives from another QEMU, as scripts: prepared, finished or called off by whoever migrates.

The QEMU was started with ``-incoming defer``.  What comes in does not run by itself ("stop" before it comes turns
autostart off, softmmu/runstate-action and monitor/qmp-cmds.c): it runs when whoever migrates says that it has come, so
that it never runs twice.  Whether it ran where it came from the stream does not say where that was stopped to move it;
the sessions of one process tell each other (`migration_common.AWAITED`), and one from elsewhere is made to run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Mapping
from typing import Any

from eventbridge.hypervisor.request import Request

from .commands import end
from .migration_common import ACKNOWLEDGED, AWAITED, POLL_SECONDS, SETTLE_SECONDS, capabilities
from .queries import info
from .scripts import Command, CommandFailed, Script, Wait
from .vm import Vm

_LONGEST_PATH = 107
"""Bytes in a unix socket's path (unix(7))."""
_PREFIX = "eventbridge-incoming-"
_WILDCARDS = ("0.0.0.0", "::", "")


def prepare(vm: Vm, request: Request) -> Script:
    """Where it listens, as ``migrate``'s ``to``: "unix:/path" or "tcp:host:port"."""
    if not vm.life.incoming:
        raise vm.refusal("migrate_prepare", "it does not wait to become another: start QEMU with -incoming defer")
    yield capabilities(ACKNOWLEDGED)
    yield Command("stop")
    listen = str(request.arguments.get("listen") or _somewhere(vm))
    yield from _listen(vm, listen)
    found = yield Command("query-migrate")
    addresses = found.get("socket-address") or [{}]
    vm.listening = _uri(vm, addresses[0], listen)
    AWAITED[vm.listening] = True
    return vm.listening


def _listen(vm: Vm, listen: str) -> Script:
    before = yield Command("query-migrate")
    try:
        yield Command("migrate-incoming", {"uri": listen})
    except CommandFailed as error:
        why = f"it cannot listen at {listen}: {error.description}"
        after = yield Command("query-migrate")
        # From 9.1 on QEMU sets this status before it listens and leaves it so when it could not, and then refuses
        # every other address (migration/migration.c: qemu_start_incoming_migration).
        if after.get("status") == "setup" != before.get("status"):
            why += "; and having failed once it listens nowhere else: start this QEMU anew"
        raise vm.refusal("migrate_prepare", why) from None


def finish(vm: Vm, request: Request) -> Script:
    """Its source has let go of it."""
    while (found := (yield Command("query-migrate"))).get("status") != "completed":
        if found.get("status") == "failed":
            raise vm.refusal("migrate_finish", f"what came in is of no use: {found.get('error-desc', 'see its log')}")
        yield Wait(POLL_SECONDS)
    while (yield from vm.status()) == "inmigrate":  # a step behind, in the main loop (process_incoming_migration_bh)
        yield Wait(SETTLE_SECONDS)
    if vm.listening is None or AWAITED.get(vm.listening, True):
        yield Command("cont")
        vm.should_run = True
    forget(vm)  # not before it runs: until then it can be called off
    return (yield from info(vm, request))


def cancel(vm: Vm, request: Request) -> Script:
    """QEMU cannot be told to stop listening but by its end; nor may what has come in run beside its source.  One that
    awaits nobody, and nobody came to, is somebody's domain: it is not ended.
    """
    if vm.listening is None and not vm.life.incoming:
        raise vm.refusal("migrate_cancel", "nothing is on its way to it: destroy() ends it")
    vm.life.expect_end("failed")
    forget(vm)
    yield from end(vm)


def forget(vm: Vm) -> None:
    """Nobody is awaited any more."""
    to, vm.listening = vm.listening, None
    if to is None:
        return
    kind, _, path = to.partition(":")
    if kind == "unix":  # QEMU leaves it there
        with contextlib.suppress(OSError):
            os.unlink(path)
            if os.path.dirname(path).startswith(os.path.join(tempfile.gettempdir(), _PREFIX)):
                os.rmdir(os.path.dirname(path))
    AWAITED.pop(to, None)


def _somewhere(vm: Vm) -> str:
    """Beside the QMP socket, where QEMU may write; or at any port of the interface that QMP is at."""
    if vm.address.path is None:
        host = f"[{vm.address.host}]" if ":" in vm.address.host else vm.address.host
        return f"tcp:{host}:0"
    path = f"{vm.address.path}.incoming"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        path = os.path.join(tempfile.mkdtemp(prefix=_PREFIX), "socket")
    return f"unix:{path}"


def _uri(vm: Vm, address: Mapping[str, Any], listen: str) -> str:
    """Of a SocketAddress (qapi/sockets.json): the port is one that was asked for as 0."""
    if address.get("type") != "inet":
        return listen
    host = str(address["host"])
    if host in _WILDCARDS:
        host = vm.address.host or socket.gethostname()
    return f"tcp:[{host}]:{address['port']}" if ":" in host else f"tcp:{host}:{address['port']}"
