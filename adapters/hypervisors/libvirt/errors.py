"""What libvirt's errors mean: its codes to eventbridge's errors and hints, as tables.

The words are always libvirt's own, with what was tried on whom before them and, where it is known, what to do after.
Any thread; nothing here asks a daemon anything.
"""

from __future__ import annotations

from typing import Any

import libvirt

from eventbridge.errors import ConnectionLost, EventBridgeError, HypervisorError, NoSuchDomain
from eventbridge.hypervisor.request import Request
from eventbridge.jobs import JobAborted

# By libvirt's error code (virErrorNumber, virterror.h): what to do about a connection that cannot be opened...
OPEN_HINTS: dict[int, str] = {
    libvirt.VIR_ERR_SYSTEM_ERROR: "is the daemon running?",
    libvirt.VIR_ERR_NO_CONNECT: "is that driver part of this libvirt?",
    libvirt.VIR_ERR_AUTH_FAILED: "may this user connect to it?",
    libvirt.VIR_ERR_AUTH_CANCELLED: "may this user connect to it without being asked for a password?",
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: "may this user connect to it without being asked for a password?",
}

# ... and about a call that is refused.
HINTS: dict[int, str] = {
    libvirt.VIR_ERR_NO_SUPPORT: "its driver has no such call",
    libvirt.VIR_ERR_NO_DOMAIN: "list() says which domains there are",
    libvirt.VIR_ERR_XML_ERROR: "virt-xml-validate says what is wrong with a definition",
    libvirt.VIR_ERR_XML_DETAIL: "virt-xml-validate says what is wrong with a definition",
    libvirt.VIR_ERR_OPERATION_DENIED: "may this user do that?",
    libvirt.VIR_ERR_ACCESS_DENIED: "may this user do that?",
    libvirt.VIR_ERR_OPERATION_TIMEOUT: "something else that libvirt does to this domain goes on: await its end, or "
    "abort it",
    libvirt.VIR_ERR_MIGRATE_UNSAFE: "put its disks on storage that both hosts share, with cache='none'",
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: "is the guest agent running in the guest?",
}

# Of a call on a connection that is no more: by which code libvirt tells depends on who noticed (the socket that was
# closed, the keepalive that went unanswered, the connection that we closed).
LOSSES: frozenset[int] = frozenset(
    {
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_NO_CLIENT,
        libvirt.VIR_ERR_GNUTLS_ERROR,
    }
)


def meaning(uri: str, request: Request, error: Any, alive: bool, aborted: bool = False) -> EventBridgeError:
    """What libvirt refused ``request`` with, as an error of ours.  ``alive``: is the connection still good?
    ``aborted``: has libvirt agreed to cut it short?
    """
    code = error.get_error_code()
    if code in LOSSES and not alive:
        return ConnectionLost(f"{tried(uri, request)}: the connection was lost: {words(error)}")
    if aborted or code == libvirt.VIR_ERR_OPERATION_ABORTED:
        return JobAborted(f"{tried(uri, request)}: {words(error)}")
    kind = NoSuchDomain if code == libvirt.VIR_ERR_NO_DOMAIN else HypervisorError
    return refusal(kind, uri, request, _with_hint(words(error), HINTS.get(code)), code)


def refusal(
    kind: type[HypervisorError], uri: str, request: Request, what: str, code: int | None = None
) -> HypervisorError:
    """An error that says what was tried on whom, and ``what`` came of it."""
    return kind(f"{tried(uri, request)}: {what}", code=code, operation=request.operation, domain=_who(request))


def tried(uri: str, request: Request) -> str:
    """As in ``qemu:///system: start of web-1``."""
    who = _who(request)
    return f"{uri}: {request.operation}" + ("" if who is None else f" of {who}")


def cannot_open(uri: str, what: str, error: Any) -> HypervisorError:
    """libvirt refused a connection, or its events."""
    code = error.get_error_code()
    return HypervisorError(
        f"{uri}: {what}: {_with_hint(words(error), OPEN_HINTS.get(code))}", code=code, operation="open"
    )


def words(error: Any) -> str:
    """libvirt's message, in one line."""
    return " ".join((error.get_error_message() or str(error)).split())


def _with_hint(said: str, hint: str | None) -> str:
    return f"{said}; {hint}" if hint else said


def _who(request: Request) -> str | None:
    domain = request.domain
    if domain is None:
        return None
    return domain.name or domain.uuid or (None if domain.id is None else f"id {domain.id}")
