"""The guests that the tests in domain 0 use, and the toolstack that makes and ends them (`toolstack`)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventbridge.adapters.hypervisors.xen.xenstore import open_store
from eventbridge.hypervisor.model import DomainRef
from tests.e2e.xen.dom0 import toolstack

SMALL = "/guests/small"
LINUX = "/guests/linux"
LINUX_FILES = "/guests/linux.cpio"
HELPER = "(libxl-save-help)"
"""As proc(5) has it: of a program's name the kernel keeps 15 bytes."""
SMALL_KB = 8 << 10
LINUX_KB = 128 << 10


def small(name: str, command_line: str = "") -> dict[str, Any]:
    """The small guest of ``guest/guest.c``, which says what its command line may be."""
    return toolstack.config(
        name, str(uuid.uuid4()), max_memkb=SMALL_KB, target_memkb=SMALL_KB, kernel=SMALL, cmdline=command_line
    )


def linux(name: str) -> dict[str, Any]:
    """Debian's kernel with ``linux_init.sh``, which counts on its console."""
    return toolstack.config(
        name,
        str(uuid.uuid4()),
        max_memkb=LINUX_KB,
        target_memkb=LINUX_KB,
        kernel=LINUX,
        ramdisk=LINUX_FILES,
        cmdline="console=hvc0 quiet mitigations=off",
    )


class Linux:
    """The Linux guest of all the tests, which takes long to boot: it is booted for the first, and anew where a test has
    lost it.  A test leaves it running, if as another domain.
    """

    NAME = "linux"

    def __init__(self, toolstack: Toolstack) -> None:
        self.config = linux(self.NAME)
        self.uuid: str = self.config["c_info"]["uuid"]
        self._toolstack = toolstack

    def run(self) -> None:
        """Unless it runs."""
        if domid_of(self.uuid) is None:
            self._toolstack.create(self.config)

    @property
    def domid(self) -> int:
        """As it is now."""
        domid = domid_of(self.uuid)
        assert domid is not None, "it does not run"
        return domid

    @property
    def ref(self) -> DomainRef:
        return DomainRef(self.NAME, self.uuid, self.domid)


def domid_of(uuid: str) -> int | None:
    """None where no domain has it.  Blocks."""
    with contextlib.closing(open_store()) as store:
        for domid in filter(int, store.list("/local/domain")):
            if store.read(f"/local/domain/{domid}/vm").decode() == f"/vm/{uuid}":
                return int(domid)
    return None


def helpers() -> list[int]:
    """The processes of libxl's that copy a guest's memory, those included that were not reaped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid, name, *_ = stat.read_text().split()
            if name == HELPER:
                found.append(int(pid))
    return found


class Toolstack:
    """A toolstack that runs; each call waits until libxl has done it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._alive: set[int] = set()

    def create(self, config: dict[str, Any]) -> int:
        """A guest that runs; its domid."""
        domid: int = self._ask("create", config)
        self._alive.add(domid)
        return domid

    def shutdown(self, domid: int) -> None:
        """The guest is told, and has heard it."""
        self._ask("shutdown", domid)

    def reboot(self, domid: int) -> None:
        self._ask("reboot", domid)

    def crash(self, domid: int) -> None:
        """The guest is told; it may not have heard it yet."""
        self._ask("crash", domid)

    def destroy(self, domid: int) -> None:
        self._ask("destroy", domid)
        self._alive.remove(domid)

    def destroy_all(self) -> None:
        for domid in list(self._alive):
            self.destroy(domid)

    def forget_all(self) -> None:
        """Nothing is to be destroyed in the end."""
        self._alive.clear()

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the toolstack ended when asked {request}"
        answer = json.loads(line)
        assert "error" not in answer, f"{request}: {answer['error']}"
        return answer["result"]


@contextlib.contextmanager
def toolstack_running() -> Iterator[Toolstack]:
    """One of the test's own; what is left of its guests is destroyed in the end."""
    command = [sys.executable, "-m", toolstack.__name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            running = Toolstack(process)
            yield running
            running.destroy_all()
        finally:
            process.kill()
