"""A private Xen for a test: the real xenstored and the real libraries over the hypercall stand-in.

It is all in one temporary directory of a short name (a unix socket's path must stay under 108 bytes, unix(7)), needs
no privilege, and touches nothing of the machine's own.  The test is the hypervisor and the toolstack: it creates
domains, shuts them down, and lets them die.  When a call returns the table is changed, xenstored has answered each
request, and VIRQ_DOM_EXC is on its way; what shuts down and dies before libxl has looked was, to libxl, only dead.
xenstored ends, besides, with the thread that started it; while there is none, domains come and go all the same, and the
next is told of those that are there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import UUID, uuid4

from tests.support import freezing
from tests.support.freezing import Frozen
from tests.support.markers import needs
from tests.support.patience import PATIENCE
from tests.support.xen import loaded, packages, store, table

POWEROFF, REBOOT, SUSPEND, CRASH, WATCHDOG = range(5)


@dataclass(frozen=True, slots=True)
class Guest:
    """A domain as its toolstack knows it."""

    domid: int
    name: str
    uuid: UUID
    hvm: bool = False

    @property
    def path(self) -> str:
        return f"/local/domain/{self.domid}"

    @property
    def paths(self) -> Sequence[str]:
        """All that a toolstack removes at its end, in libxl's order."""
        return f"/vm/{self.uuid}", self.path, f"/libxl/{self.domid}"

    def nodes(self) -> dict[str, str]:
        vm = f"/vm/{self.uuid}"
        return {
            f"{vm}/uuid": str(self.uuid),
            f"{vm}/name": self.name,
            f"{self.path}/vm": vm,
            f"{self.path}/name": self.name,
            f"{self.path}/domid": str(self.domid),
            f"/libxl/{self.domid}/type": "hvm" if self.hvm else "pv",
        }


class XenStandIn:
    """A stand-in that runs, from entering its context to leaving it.  ``xenstored`` is the daemon's process."""

    def __init__(self) -> None:
        needs("xen")
        self.directory = Path(tempfile.mkdtemp(prefix="xen", dir="/tmp"))
        self.socket = self.directory / "run" / "socket"
        self._hidden = self.directory / "new" / "socket"
        """Where xenstored is at first, until it has been told what it is to know."""
        self._living: store.Store | None = None
        """The stand-in's own connection, while there is a xenstored."""
        self.guests: dict[int, Guest] = {}
        """Those created here and not yet dead, by domid."""
        self._life = contextlib.ExitStack()
        """What ends with the daemon."""
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(shutil.rmtree, self.directory)

    def __enter__(self) -> XenStandIn:
        with self._cleanup:
            for name in _DIRECTORIES:
                (self.directory / name).mkdir(parents=True)
            self.table = table.Table(self.directory)
            self._cleanup.callback(self.table.close)
            self._cleanup.callback(self._life.close)
            self._start()
            self._show()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    # -- the daemon --

    def _start(self) -> None:
        with open(self.directory / "xenstored.log", "ab") as log:
            self.xenstored = subprocess.Popen(
                [*packages.xenstored(), "-N", "--pid-file", self.directory / "run" / "xenstored.pid"],
                env={**os.environ, **self.environment, **self._daemon_environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._life.callback(self._end)
        self._living = self._connect()
        self._life.callback(self._store_gone)
        self._store.ask(store.write(f"/local/domain/0/{key}", value) for key, value in _DOM0.items())

    def _daemon_environment(self) -> dict[str, str]:
        return {
            "EVENTBRIDGE_STANDIN_XENSTORED": "1",
            "XENSTORED_RUNDIR": str(self.directory / "run"),
            "XENSTORED_PATH": str(self._hidden),
            "XENSTORED_ROOTDIR": str(self.directory / "lib"),
        }

    def _connect(self) -> store.Store:
        """When it answers: then it is bound to the VIRQ, too, and loops."""
        for _ in range(int(PATIENCE * 200)):
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return store.Store(self._hidden)
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.xenstored.wait(0.005)
                raise RuntimeError(f"xenstored ended with {status}; it said: {self.log()}")
        raise TimeoutError(f"xenstored is not up after {PATIENCE} s; it said: {self.log()}")

    def _show(self) -> None:
        """Now others find it, in the place of the one before."""
        self._hidden.rename(self.socket)

    def _end(self) -> None:
        self.xenstored.kill()
        self.xenstored.wait()

    @property
    def _store(self) -> store.Store:
        assert self._living is not None, "there is no xenstored to be asked: it was killed"
        return self._living

    def _store_gone(self) -> None:
        self._store.close()
        self._living = None

    def kill(self) -> None:
        """As ``kill -9``: xenstored cannot say goodbye.  The domains live on."""
        self._life.close()

    def freeze(self) -> Frozen:
        """Freeze xenstored, until `thaw` or the end of the ``with``."""
        return freezing.freeze(self.xenstored.pid)

    def thaw(self) -> None:
        """Let xenstored go on."""
        freezing.thaw(self.xenstored.pid)

    def restart(self, *, told_before: bool = False) -> None:
        """A new xenstored on the same socket, told of the guests that live, as a toolstack would tell it: once it is
        there for everybody, or before it is.
        """
        self.kill()
        self._start()
        if not told_before:
            self._show()
        self._register(self.guests.values())
        if told_before:
            self._show()

    def log(self) -> str:
        """What xenstored said so far."""
        return (self.directory / "xenstored.log").read_text(errors="replace").strip() or "nothing"

    # -- who is to use it --

    @property
    def environment(self) -> dict[str, str]:
        """What a program is to be run with, added to its environment, so that its Xen is this one."""
        paths = [str(packages.libraries()), os.environ.get("LD_LIBRARY_PATH")]
        preloaded = [str(packages.stand_in()), os.environ.get("LD_PRELOAD")]
        return {
            "EVENTBRIDGE_STANDIN": str(self.directory),
            "XENSTORED_PATH": str(self.socket),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
            "LD_PRELOAD": os.pathsep.join(filter(None, preloaded)),
        }

    def load(self) -> None:
        """This process's Xen is this one, until the stand-in's context is left: the libraries are found by their
        plain names, and what they open from now on is here.  RuntimeError where other Xen libraries are loaded."""
        loaded.load()
        for name in ("EVENTBRIDGE_STANDIN", "XENSTORED_PATH"):
            self._cleanup.callback(_restore, name, os.environ.get(name))
            os.environ[name] = self.environment[name]

    def refuse(self, error: int = errno.EPERM, *, opening: bool = False) -> None:
        """Each hypercall fails with this errno; with ``opening`` it is the opening of a handle that fails, as that of
        /dev/xen/privcmd does without permission.  xenstored is never refused.  ``refuse(0)`` ends it."""
        self.table.refuse(error if opening else 0, 0 if opening else error)

    # -- the store --

    def read(self, path: str) -> str | None:
        """The value; None where there is no such path."""
        return self._store.read(path)

    def write(self, path: str, value: str) -> None:
        self._store.ask([store.write(path, value)])

    def write_many(self, nodes: dict[str, str]) -> None:
        self._store.ask(store.write(path, value) for path, value in nodes.items())

    def rm(self, path: str) -> None:
        """With all that is below it, if it is there."""
        self._store.remove([path])

    # -- domains --

    def create(self, domid: int, name: str | None = None, uuid: UUID | None = None, *, hvm: bool = False) -> Guest:
        """A running domain, introduced to xenstored; by default ``guestN`` of a random UUID."""
        guest = Guest(domid, name or f"guest{domid}", uuid or uuid4(), hvm)
        self.create_many([guest])
        return guest

    def create_many(self, guests: Iterable[Guest | int]) -> list[Guest]:
        """Domains, by their domids where no more matters."""
        if self._living is not None:
            self._living.read("/local")  # whatever died before is noticed by now, should its domid come again
        made = [Guest(guest, f"guest{guest}", uuid4()) if isinstance(guest, int) else guest for guest in guests]
        for guest in made:  # first: xenstored asks Xen about each domain that it is introduced to
            self.table.add(guest.domid, guest.uuid, table.RUNNING | (table.HVM if guest.hvm else 0))
            self.guests[guest.domid] = guest
        if self._living is not None:
            self._register(made)
        return made

    def _register(self, guests: Iterable[Guest]) -> None:
        requests = []
        for guest in guests:
            requests += [store.write(path, value) for path, value in guest.nodes().items()]
            requests.append(store.introduce(guest.domid))
        self._store.ask(requests)

    def shutdown(self, *domids: int, reason: int = POWEROFF) -> None:
        """The guests shut down, for one reason and with one VIRQ; the domains stay, as a toolstack finds them."""
        for domid in domids:
            flags = self.table.flags(domid) & (table.HVM | table.DYING)
            self.table.set_flags(domid, flags | table.SHUTDOWN | reason << table.REASON_SHIFT)
        self.table.virq()

    def resume(self, domid: int) -> None:
        """A guest that had shut down to be saved goes on; Xen announces nothing, and the toolstack tells xenstored."""
        self.table.set_flags(domid, self.table.flags(domid) & table.HVM | table.RUNNING)
        if self._living is not None:
            self._living.ask([store.resume(domid)])

    def die(self, *domids: int, forget: bool = True) -> None:
        """The domains vanish, with one VIRQ; unless told not to ``forget`` the toolstack first removes all that the
        store has of them, as libxl does."""
        guests = [self.guests.pop(domid) for domid in domids]
        if forget and self._living is not None:
            self._living.remove([path for guest in guests for path in guest.paths])
        for domid in domids:
            self.table.remove(domid)
        self.table.virq()

    # -- devices --

    def nic(self, domid: int, devid: int = 0, script: str = "/bin/true") -> str:
        """A connected network interface, for ``libxl_device_nic_remove`` to remove; the hotplug script runs when its
        backend has closed.  The path of its backend."""
        return self._device(domid, "vif", devid, {"script": script})

    def nic_gone(self, domid: int, devid: int = 0) -> None:
        """The backend has closed, for which libxl waits up to 10 s."""
        self.write(f"/local/domain/0/backend/vif/{domid}/{devid}/state", "6")

    def cdrom(self, domid: int, vdev: str = "hdc", devid: int = 5632) -> str:
        """A drive with a disc in it, as ``libxl_evenable_disk_eject`` expects it; the path of its backend."""
        return self._device(domid, "vbd", devid, {"dev": vdev, "params": "phy:/dev/null", "removable": "1"}, "cdrom")

    def eject(self, domid: int, devid: int = 5632) -> None:
        """The guest ejects the disc."""
        self.write(f"/local/domain/{domid}/device/vbd/{devid}/eject", "eject")

    def _device(self, domid: int, kind: str, devid: int, more: dict[str, str], device_type: str = "") -> str:
        backend = f"/local/domain/0/backend/{kind}/{domid}/{devid}"
        frontend = f"/local/domain/{domid}/device/{kind}/{devid}"
        ends = {"backend": backend, "backend-id": "0", "frontend": frontend, "frontend-id": str(domid)}
        ours = {"state": "4", "online": "1", "frontend": frontend, "frontend-id": str(domid), "type": kind, **more}
        theirs = {"state": "4", "backend": backend, "backend-id": "0"}
        if device_type:
            theirs |= {"device-type": device_type, "eject": ""}
        places = {backend: ours, frontend: theirs, f"/libxl/{domid}/device/{kind}/{devid}": ends}
        self.write_many({f"{place}/{key}": value for place, nodes in places.items() for key, value in nodes.items()})
        return backend


_DOM0 = {"domid": "0", "name": "Domain-0"}
_DIRECTORIES = "run new lib root/run/xen root/var/run/xen root/var/lib/xen root/var/log/xen".split()


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
