"""How a domain leaves its QEMU, for another or for a file, as scripts.

QEMU calls both a migration.  Whatever goes wrong on the way (nobody there, a machine that is not the same, an end of
either side, an abort) the domain stays here as it was, running if it ran, and the error says so.  What has gone over is
acknowledged by the other side before this one lets go (the capability "return-path"), and until `quit` is sent the
domain is here, standing still.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError
from eventbridge.hypervisor.model import State
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

from .commands import end
from .events import MIGRATION_ENDED, STATES
from .migration_common import (
    ACKNOWLEDGED,
    AWAITED,
    POLL_SECONDS,
    SETTLE_SECONDS,
    UNACKNOWLEDGED,
    capabilities,
    progress,
)
from .scripts import Command, CommandFailed, QemuEnded, Script, Wait
from .vm import Vm

_ACKNOWLEDGED = ("unix:", "tcp:")
_STAYS = (State.RUNNING, State.PAUSED, State.PM_SUSPENDED)
_FD = "eventbridge-save"


class _Failed(Exception):
    """It is still here."""


class _Way(NamedTuple):
    """``to``: a URI of QEMU's; ``how`` the reason of the end that comes of it; ``stop`` it first."""

    to: str
    how: str
    limits: Mapping[str, int] = {}
    acknowledged: bool = False
    stop: bool = True
    confirm: bool = False
    """Does whoever migrates say whether this QEMU is to end?"""


def migrate(vm: Vm, request: Request) -> Script:
    """``to`` is a URI of QEMU's: "unix:/path", "tcp:host:port"; ``live`` False: it stands still meanwhile."""
    to = str(request.arguments.get("to"))
    if request.arguments.get("persistent"):
        raise vm.refusal("migrate", "QEMU itself keeps no definition, so there is nothing persistent; leave that out")
    live = request.arguments.get("live")
    way = _Way(
        to,
        "migrated",
        _limits(request.arguments),
        acknowledged=to.startswith(_ACKNOWLEDGED),
        stop=live is not None and not live,
        confirm=bool(request.arguments.get("confirm")),
    )

    def arrived() -> None:
        if to in AWAITED:
            AWAITED[to] = vm.should_run

    yield from _leave(vm, request, way, arrived)


def confirm(vm: Vm, request: Request) -> Script:
    """The end of a `migrate` with ``confirm``: the domain runs there, or (``succeeded`` False) it is to go on here."""
    succeeded = request.arguments.get("succeeded")
    if succeeded and not vm.unconfirmed:
        raise vm.refusal("migrate_confirm", "it has not gone over to anybody who was to be confirmed")
    if succeeded:
        vm.life.expect_end("migrated")
        yield from end(vm)
    elif vm.unconfirmed:
        vm.unconfirmed = False
        yield from _stay(vm)


def save(vm: Vm, request: Request) -> Script:
    """Over a unix socket the file is made here, complete or not at all, and QEMU is passed its fd; over TCP a shell of
    QEMU's writes it.
    """
    path = str(request.arguments.get("path"))
    if not path.startswith("/") or "\0" in path:
        raise vm.refusal("save", f"the path must be absolute; found {path!r}")
    if vm.address.path is None:
        yield from _leave(vm, request, _Way(f"exec:cat > {shlex.quote(path)}", "saved"))
        return
    fd, partial = _new_file(vm, path)
    keep = False
    try:
        yield Command("getfd", {"fdname": _FD}, fd=fd)
        yield from _leave(vm, request, _Way(f"fd:{_FD}", "saved"), lambda: _complete(partial, path))
    except ConnectionLost as error:
        keep = not isinstance(error, QemuEnded)  # it writes on, and nobody else has what it writes
        raise
    finally:
        os.close(fd)
        if not keep:
            with contextlib.suppress(FileNotFoundError):  # it is complete, and has another name
                os.unlink(partial)


def _new_file(vm: Vm, path: str) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(prefix=f"{os.path.basename(path)}.", suffix=".partial", dir=os.path.dirname(path))
    except OSError as error:
        raise vm.refusal("save", f"{path} cannot be written: {error.strerror}") from None


def _complete(partial: str, path: str) -> None:
    try:
        os.rename(partial, path)
    except OSError as error:
        raise _Failed(f"{path} cannot be written: {error.strerror}") from None


def set_limits(vm: Vm, request: Request) -> Script:
    """Bandwidth or downtime, of the one that is under way."""
    yield from _limit(vm, _limits(request.arguments))


def _limits(arguments: Mapping[str, Any]) -> dict[str, int]:
    """bytes/s and ms, as QEMU has them too."""
    names = {"bandwidth": "max-bandwidth", "downtime": "downtime-limit"}
    return {theirs: int(arguments[ours]) for ours, theirs in names.items() if arguments.get(ours) is not None}


def _leave(vm: Vm, request: Request, way: _Way, arrived: Callable[[], object] = lambda: None) -> Script:
    status = yield from vm.status()
    if STATES.get(status) not in _STAYS:
        raise vm.refusal(request.operation, f"it is {status}")
    vm.should_run = vm.life.running
    vm.life.leaving = way.how
    try:
        yield from _limit(vm, way.limits)
        yield capabilities(ACKNOWLEDGED if way.acknowledged else UNACKNOWLEDGED)
        if way.stop:
            yield Command("stop")
        yield from _transfer(vm, request, way.to)
        yield from _settled(vm)
        arrived()
        vm.unconfirmed = way.confirm
        if not way.confirm:
            yield from _let_go(vm, way)
    except (CommandFailed, _Failed) as error:
        yield from _stay(vm)
        raise _refusal(vm, request, way.to, error) from None
    finally:
        vm.life.leaving = None


def _limit(vm: Vm, limits: Mapping[str, int]) -> Script:
    """For this time only."""
    if limits:
        found = yield Command("query-migrate-parameters")
        vm.limits = {name: found[name] for name in limits if name in found} | vm.limits
        yield Command("migrate-set-parameters", limits)


def _transfer(vm: Vm, request: Request, to: str) -> Script:
    request.abortable(vm.wake)
    if _aborted(request):
        raise _Failed("it was aborted")
    yield Command("migrate", {"uri": to})
    cancelled = False
    while True:
        found = yield Command("query-migrate")
        status = found.get("status")
        vm.tell(request, progress(found))
        if status in MIGRATION_ENDED:
            break
        if _aborted(request) and not cancelled:
            cancelled = True
            yield Command("migrate_cancel")
        else:
            yield Wait(POLL_SECONDS)
    if status != "completed":
        raise _Failed("it was aborted" if status == "cancelled" else found.get("error-desc", "QEMU does not say why"))


def _aborted(request: Request) -> bool:
    """It may be by the next time that this is asked."""
    return request.aborted


def _let_go(vm: Vm, way: _Way) -> Script:
    """It has gone over: what is left here ends.  Who has migrated need not wait for that: the domain stands still
    until its destination is told to run it.
    """
    vm.life.expect_end(way.how)
    if way.how == "migrated":
        with contextlib.suppress(QemuEnded):
            yield Command("quit")
    else:
        yield from end(vm)


def _settled(vm: Vm) -> Script:
    """The status that comes after finish-migrate: until then QEMU is still at it (migration.c:
    migration_iteration_finish), and closes the channel only after that.
    """
    while (status := (yield from vm.status())) == "finish-migrate":
        yield Wait(SETTLE_SECONDS)
    return status


def _stay(vm: Vm) -> Script:
    """QEMU has it run again where it ran when it was stopped for the last of it; where we stopped it, we do."""
    status = yield from _settled(vm)
    if vm.should_run and STATES.get(status) is State.PAUSED:
        yield Command("cont")
    if vm.limits:
        yield Command("migrate-set-parameters", vm.limits)
        vm.limits = {}


def _refusal(vm: Vm, request: Request, to: str, error: Exception) -> EventBridgeError:
    stays = "runs on" if vm.life.running else "stays, paused,"
    target = "" if request.operation == "save" else f" to {to}"
    said = f"QEMU refused {error.command}: {error.description}" if isinstance(error, CommandFailed) else str(error)
    words = f"cannot {request.operation} {vm.ref.name}{target}: {said}; it {stays} here"
    if request.aborted and isinstance(error, _Failed):
        return JobAborted(words)
    return HypervisorError(words, operation=request.operation, domain=vm.ref.name)
