"""Mistakes planted in the core, each of which the search must find: it is not blind.

A mutation replaces text in the source of one function; where the text is not there any more it fails, and says so.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

from eventbridge.core.binding import Berth
from eventbridge.core.dispatcher import Dispatcher
from eventbridge.core.fdtable import FdTable
from eventbridge.core.registry import Registry
from tests.model_checking.programs import Program, program

MOVED_LAST = ""
"""In the place of the text before: the line with the other text becomes the function's last."""


class Mutation(NamedTuple):
    of: Any
    function: str
    changes: tuple[tuple[str, str], ...]
    shown_by: Program
    breaks: str


MUTATIONS: dict[str, Mutation] = {
    "wake looks at the pass before it says that there is work": Mutation(
        Registry,
        "wake",
        (
            ("        self.awake = True\n", "        dispatching = self.dispatching\n        self.awake = True\n"),
            ("if not self.dispatching:", "if not dispatching:"),
        ),
        program("- | remove one"),
        "D6",
    ),
    "a pass looks for work before it says that it ends": Mutation(
        Dispatcher,
        "run_pass",
        (
            ("            registry.dispatching = False", "            pass"),
            (
                "            if self.each_pass",
                "            registry.dispatching = False\n            if self.each_pass",
            ),
        ),
        program("- | remove one"),
        "D6",
    ),
    "a pass that ends does not look for work": Mutation(
        Dispatcher, "run_pass", (("if registry.awake or ", "if "),), program("- | remove one"), "D6"
    ),
    "a removal wakes nobody": Mutation(
        Registry, "_removed", (("self.wake()", "pass"),), program("- | remove one"), "H7"
    ),
    "a removal frees at once": Mutation(
        Registry,
        "_removed",
        (("self.frees.append((item.free, item.opaque, item))", "item.free(item.opaque)"),),
        program("- | remove one"),
        "D1",
    ),
    "a removal in a callback frees at once": Mutation(
        Registry,
        "_removed",
        (("self.frees.append((item.free, item.opaque, item))", "item.free(item.opaque)"),),
        program("remove two | -"),
        "H7",
    ),
    "a nested pass frees what runs further out": Mutation(
        Dispatcher, "run_frees", (("if self._depth and", "if False and"),), program("remove one, nest | -"), "H7"
    ),
    "the timer is armed before the pass is told when to look": Mutation(
        Registry,
        "arm_for",
        ((MOVED_LAST, "self._set_look_at()"),),
        program("- | add T | tick"),
        "D6",
    ),
    "a timeout that is due while its callback runs further out is forgotten": Mutation(
        Dispatcher,
        "_fire",
        (("self._late.append(timer)", "pass"),),
        program("nest, tick, nest | -", timer=True),
        "D6",
    ),
    "whether a handle is still interested is not asked": Mutation(
        Dispatcher, "_dispatch", (("told[handle.mask][bits]", "told[31][bits]"),), program("off two | -"), "H5"
    ),
    "a handle that is added does not say that its number was touched": Mutation(
        FdTable,
        "join",
        (("        self.touched.add(fd)\n", ""),),
        program("- | remove two, reopen B, add B"),
        "H5",
    ),
    "an exception unregisters its handle": Mutation(
        Dispatcher,
        "_contain",
        (("    self.errors += 1\n", "    self.errors += 1\n    self._registry.remove_handle(item.id)\n"),),
        program("raise | -"),
        "D4",
    ),
    "an exception is reported with the lock held": Mutation(
        Dispatcher,
        "_contain",
        (
            (
                "        self._report(error, context)",
                "        with self._registry.lock:\n            self._report(error, context)",
            ),
        ),
        program("raise | -"),
        "D6",
    ),
    "a closed bridge is finished on whichever thread closes it": Mutation(
        Berth, "_take", (("not host.is_loop_thread() and", "False and"),), program("- | close"), "D1"
    ),
    "whether the number of a lone event was touched is not asked": Mutation(
        Dispatcher, "_call_lone", ((" or table.touched", ""),), program("- | remove one, reopen A, add A; alone"), "H5"
    ),
    "whether a lone event's handle is interested is not asked": Mutation(
        Dispatcher,
        "_call_lone",
        (("TOLD[handle.mask][bits]", "TOLD[31][bits]"),),
        program("- | remove one; alone"),
        "H4",
    ),
    "a lone event is called in a nested pass": Mutation(
        Dispatcher, "_call_lone", (("if self._outer or ", "if "),), program("write A, nest | -; alone"), "D5"
    ),
    "a round is not over with its lone event": Mutation(
        Dispatcher, "_begin_round", (("return None", "pass"),), program("- | -; alone"), "twice"
    ),
    "an exception out of a lone event's callback is lost": Mutation(
        Dispatcher, "_call_lone", (("self._contain(error, handle)", "pass"),), program("raise | -; alone"), "D4"
    ),
    "a nested pass begins the round anew": Mutation(
        Dispatcher,
        "_begin_round",
        (("self._events = iter(events)", "self._events = events"),),
        program("nest | -"),
        "twice",
    ),
}


@contextlib.contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Within it the core has that mistake."""
    function = getattr(mutation.of, mutation.function)
    source = textwrap.dedent(inspect.getsource(function))
    for before, after in mutation.changes:
        looked_for = before or after
        assert looked_for in source, f"{mutation.of.__name__}.{mutation.function} has no {looked_for!r} any more"
        source = source.replace(before, after, 1) if before else _move_last(source, after)
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, inspect.getsourcefile(function) or "", "exec")
    exec(code, vars(sys.modules[mutation.of.__module__]), names)
    with mock.patch.object(mutation.of, mutation.function, names[mutation.function]):
        yield


def _move_last(source: str, text: str) -> str:
    lines = source.splitlines(keepends=True)
    line = next(it for it in lines if text in it)
    return "".join([*(it for it in lines if it is not line), line])
