"""What can be asked for by name: our own adapters, and those that installed packages announce as entry points.

A catalogue names the adapters and imports none until one is asked for.  ``importlib.metadata`` is imported as late: it
takes a third of the time that importing eventbridge does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


class BuiltIn(NamedTuple):
    """One of our own adapters."""

    target: str
    """``module:attribute``, the module absolute or, from a dot on, below the catalogue's package."""
    install: str
    """What to do if its library is missing."""
    loaded_by: tuple[str, ...] = ()
    """Modules of which one is loaded wherever its loop runs; none: only the adapter itself can tell."""


class NotInstalled(Exception):
    """A name is known, and the library behind it cannot be imported; the message says why and what to install."""


class Catalogue:
    """The adapters of one kind.

    ``group`` is the entry-point group in which others announce theirs, ``package`` the place of ours below
    ``eventbridge.adapters``.  Any thread may call any method.
    """

    def __init__(self, group: str, package: str, built_in: Mapping[str, BuiltIn]) -> None:
        self.group = group
        self.built_in: MutableMapping[str, BuiltIn] = dict(built_in)
        self._package = f"{__package__}.adapters.{package}"

    def names(self) -> list[str]:
        """Return every name, installed or not: ours, then those that others announce."""
        return [*self.built_in, *self.announced()]

    def announced(self) -> list[str]:
        """Return the names that others announce, but for those that are ours."""
        return [entry.name for entry in entry_points(self.group) if entry.name not in self.built_in]

    def load(self, name: str) -> Any:
        """Import the adapter and return it.

        Raises KeyError for a name that is not known, and `NotInstalled` if one of ours cannot be imported.
        """
        if name in self.built_in:
            target, install, _ = self.built_in[name]
            module, _, attribute = target.partition(":")
            try:
                return getattr(importlib.import_module(module, self._package), attribute)
            except ImportError as error:
                raise NotInstalled(f"{error}; {install}") from error
        for entry in entry_points(self.group):
            if entry.name == name:
                return entry.load()
        raise KeyError(name)


def entry_points(group: str) -> EntryPoints:
    """Return the entry points of a group, as ``importlib.metadata.entry_points`` does."""
    from importlib.metadata import entry_points as announced

    return announced(group=group)
