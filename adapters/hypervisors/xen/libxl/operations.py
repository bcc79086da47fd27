"""All that can be asked of ``libxl:///``, with a libxl of 4.2 or later: what the one that is loaded can do."""

from __future__ import annotations

from typing import Any

from ..resolve import Resolver
from ..session import Table, XenSession
from . import creation, migration_out, save_restore
from .calls import LibxlCalls
from .context import Context
from .creation import Creation
from .migration_out import Migration
from .save_restore import Saving
from .toolstack import LibxlToolstack


def calls(session: XenSession, toolstack: Any) -> tuple[Resolver, Table]:
    """For `XenSession.open`."""
    assert isinstance(toolstack, LibxlToolstack)
    context = toolstack.context
    asked = LibxlCalls(session, context)
    table = dict(asked.table)
    if _has(context, creation.NEEDED):
        made = Creation(session, context)
        kept = Saving(session, context, asked, made)
        table["create"] = made.create
        if _has(context, save_restore.NEEDED):
            table["save"] = kept.save
        if _has(context, save_restore.NEEDED_TO_RESTORE) and context.library.version >= save_restore.RESTORE_SINCE:
            table["restore"] = kept.restore
        if {"save", "restore"} <= table.keys() and _has(context, migration_out.NEEDED):
            moved = Migration(session, context, asked, kept)
            table["migrate"] = moved.migrate
            table["migrate_prepare"] = moved.prepare
            table["migrate_finish"] = moved.finish
            table["migrate_cancel"] = moved.cancel
            table["migrate_confirm"] = moved.confirm
    return Resolver(session.uri, toolstack.ref, toolstack.refs), table


def _has(context: Context, functions: tuple[str, ...]) -> bool:
    """Arm's libxl, for one, has nothing that saves (LIBXL_HAVE_NO_SUSPEND_RESUME)."""
    return all(hasattr(context.library, function) for function in functions)
