"""What a domain is to be: a libxl_domain_config, in and out as libxl's own JSON.

How large it is and what is in it differs with every release of Xen, so its size is measured and its content is libxl's
affair (``libxl_domain_config_from_json``, from 4.5 on); the words are those of ``xl create --dryrun`` in JSON.  A
worker's thread: reading one back asks xenstored.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from typing import Any

from eventbridge.errors import HypervisorError

from . import types
from .async_operation import Operation
from .context import Context

Definition = str | bytes | Mapping[str, Any]
"""JSON, or what it says."""

_kept: list[Config] = []
"""Those that libxl may look at for good: an operation was given up, and its ctx left as it is."""


class Config:
    """``with Config(context) as config``; ``config.room`` is what libxl is given.  `lent_to` an operation it outlives
    that.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._library = context.library
        self._operation: Operation | None = None
        self.room = ctypes.create_string_buffer(types.size_of(self._library.libxl_domain_config_init))

    def __enter__(self) -> Config:
        self._library.libxl_domain_config_init(self.room)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._operation is not None and self._operation.code is None:
            _kept.append(self)
        else:
            self._library.libxl_domain_config_dispose(self.room)

    def lent_to(self, operation: Operation) -> Operation:
        self._operation = operation
        return operation

    def read(self, definition: Definition) -> None:
        """`HypervisorError` where libxl finds no definition in it."""
        try:
            self._context.call("libxl_domain_config_from_json", self.room, as_json(definition).encode())
        except HypervisorError as error:
            raise HypervisorError(
                f"{error}; a definition is a libxl_domain_config as JSON, as in "
                '{"c_info": {"type": "pvh", "name": "web"}, "b_info": {"max_memkb": 65536, "kernel": "/path"}}',
                code=error.code,
            ) from None

    def retrieve(self, domid: int) -> str:
        """That of a domain that runs."""
        self._context.call("libxl_retrieve_domain_configuration", domid, self.room, None, domid=domid)
        address = self._library.libxl_domain_config_to_json(self._context.pointer, self.room)
        return types.text_of(address) or ""


def as_json(definition: Definition) -> str:
    """`HypervisorError` for what is none."""
    if isinstance(definition, bytes):
        definition = definition.decode(errors="replace")
    if isinstance(definition, str):
        return definition
    try:
        return json.dumps(definition)
    except (TypeError, ValueError) as error:
        raise HypervisorError(
            f"a definition is JSON, or a mapping that JSON can say, and this is none: {error}"
        ) from None


def definition_of(context: Context, domid: int) -> str | None:
    """A domain's, as it is now; None where libxl does not know it, as of one that another toolstack has made."""
    try:
        with Config(context) as config:
            return config.retrieve(domid) or None
    except HypervisorError:
        return None
