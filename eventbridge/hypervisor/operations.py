"""What can be asked of a hypervisor: one table, of each operation's job, its patience and its arguments.

Drivers answer these and no others; whatever the hypervisor, the words are the same.  Arguments that are not given are
None, or False.  Bandwidths are in bytes/s, downtimes in ms, paths are the hypervisor's host's.  The jobs are those
that libvirt's QEMU driver takes for the like (src/qemu/qemu_driver.c): who lets whom in is `jobs.kinds`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventbridge.jobs import Job

SECONDS = 30.0
"""How long whoever asks waits in all, for the domain's job and for the hypervisor, unless he says otherwise."""


@dataclass(frozen=True, slots=True)
class Operation:
    """``job`` is what it holds of its domain, None for what is about none; ``seconds`` how long it is waited for unless
    said otherwise, None for as long as it takes.  ``answer`` says what the answer is, ``arguments`` what it takes.
    """

    job: Job | None
    answer: str
    seconds: float | None = SECONDS
    arguments: tuple[str, ...] = ()


OPERATIONS: dict[str, Operation] = {
    # of the hypervisor
    "list": Operation(None, "list[DomainInfo], running and not"),
    "create": Operation(None, "DomainRef of a domain that runs now", arguments=("definition", "paused")),
    "define": Operation(None, "DomainRef", arguments=("definition",)),
    "restore": Operation(None, "DomainRef of the domain that runs again", None, ("path", "paused", "definition")),
    # of a domain
    "info": Operation(Job.QUERY, "DomainInfo"),
    "console_info": Operation(Job.QUERY, "ConsoleInfo", arguments=("kind", "number")),
    "start": Operation(Job.START, "None: it runs", arguments=("paused",)),
    "suspend": Operation(Job.SUSPEND, "None: it is paused"),
    "resume": Operation(Job.MODIFY, "None: it runs"),
    "shutdown": Operation(Job.MODIFY, "None: its guest was asked to"),
    "reboot": Operation(Job.MODIFY, "None: its guest was asked to"),
    "destroy": Operation(Job.DESTROY, "None: it has ended"),
    "undefine": Operation(Job.MODIFY, "None"),
    # of a domain, for as long as it takes; with progress, and abortable
    "save": Operation(Job.SAVE, "None: it is in the file, and has ended", None, ("path",)),
    "managed_save": Operation(Job.SAVE, "None: start() brings it back", None),
    "migrate": Operation(
        Job.MIGRATION_OUT,
        "None: it has gone",
        None,
        ("to", "live", "bandwidth", "downtime", "confirm", "persistent", "undefine"),
    ),
    # of a migration's destination, whose MIGRATION_IN job whoever migrates holds from the first of these to the last;
    # ``source`` is the DomainRef of who comes, ``domain`` who is there to become it, where the hypervisor has such.
    # `prepare` answers with what ``migrate`` is given as ``to``; where it is refused nothing is left to be cancelled
    "migrate_prepare": Operation(None, "str: where it listens", arguments=("source", "listen")),
    "migrate_finish": Operation(None, "DomainInfo as it runs now", None, ("source",)),
    "migrate_cancel": Operation(None, "None: nothing of it is left", arguments=("source",)),
    # of a migration's source, once its destination runs or has failed: until then the source stands still, whole
    "migrate_confirm": Operation(None, "None: it has ended, or goes on", arguments=("succeeded",)),
    # of an asynchronous job that is under way
    "set_bandwidth": Operation(Job.MIGRATION_OP, "None", arguments=("bandwidth",)),
    "set_downtime": Operation(Job.MIGRATION_OP, "None", arguments=("downtime",)),
}
