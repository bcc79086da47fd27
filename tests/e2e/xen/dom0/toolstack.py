"""A toolstack in a process of its own, which makes and ends guests with libxl's synchronous calls.

So what is tested hears of its guests as it does in life: from Xen.  A request is a line of JSON, ``[name,
argument...]``, and so is its answer, ``{"result": ...}`` or ``{"error": "..."}``; `guests.Toolstack` is the other end.
The functions are those of libxl.h; a NULL for their ``ao_how`` makes them wait.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_uint32, c_void_p
from typing import Any

from eventbridge.adapters.hypervisors.xen.support import library

CONFIG_BYTES = 1 << 16
"""More than any libxl_domain_config has (1288 bytes in 4.17)."""
_XTL_ERROR = 8  # xentoollog.h

# Function: its arguments after the context.  All return an int.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "libxl_domain_create_new": (c_void_p, POINTER(c_uint32), c_void_p, c_void_p),
    "libxl_domain_config_from_json": (c_void_p, c_char_p),
    "libxl_domain_unpause": (c_uint32, c_void_p),
    "libxl_domain_shutdown": (c_uint32, c_void_p),
    "libxl_domain_reboot": (c_uint32, c_void_p),
    "libxl_domain_destroy": (c_uint32, c_void_p),
}


def config(name: str, uuid: str, **build: Any) -> dict[str, Any]:
    """A guest's libxl_domain_config, in libxl's own JSON; ``build`` is of its ``b_info``."""
    return {
        "c_info": {"type": "pv", "name": name, "uuid": uuid},
        "b_info": {"max_vcpus": 1, "avail_vcpus": [0], "type.pv": {}, **build},
    }


class Refused(Exception):
    """libxl did not do it."""


def load_config(libxl: ctypes.CDLL, context: Any, made: dict[str, Any]) -> ctypes.Array[ctypes.c_char]:
    """As libxl has it, for create_new and create_restore; `free_config` ends it."""
    buffer = ctypes.create_string_buffer(CONFIG_BYTES)
    libxl.libxl_domain_config_init(buffer)
    code = libxl.libxl_domain_config_from_json(context, buffer, json.dumps(made).encode())
    if code:
        free_config(libxl, buffer)
        raise Refused(f"libxl_domain_config_from_json: {code} for {made}")
    return buffer


def free_config(libxl: ctypes.CDLL, buffer: ctypes.Array[ctypes.c_char]) -> None:
    libxl.libxl_domain_config_dispose(buffer)


class Toolstack:
    """A libxl context, and what it can be asked for."""

    def __init__(self) -> None:
        self._libxl = library.libxl()
        for name, arguments in SIGNATURES.items():
            getattr(self._libxl, name).argtypes = (c_void_p, *arguments)
        logging = ctypes.CDLL("libxentoollog.so.1")
        make_logger = logging.xtl_createlogger_stdiostream
        make_logger.restype, make_logger.argtypes = c_void_p, (c_void_p, c_int, c_uint)
        self._logger = c_void_p(make_logger(c_void_p.in_dll(ctypes.CDLL(None), "stderr"), _XTL_ERROR, 0))
        self._context = c_void_p()
        self._must("libxl_ctx_alloc", self._libxl.libxl_ctx_alloc(byref(self._context), 0, 0, self._logger))
        self.requests: dict[str, Callable[..., Any]] = {
            "create": self.create,
            "crash": self.crash,
            **{name: self._call(f"libxl_domain_{name}") for name in ("unpause", "shutdown", "reboot", "destroy")},
        }

    def create(self, made: dict[str, Any]) -> int:
        """A guest that runs; its domid."""
        buffer = load_config(self._libxl, self._context, made)
        domid = c_uint32()
        try:
            code = self._libxl.libxl_domain_create_new(self._context, buffer, byref(domid), None, None)
        finally:
            free_config(self._libxl, buffer)
        self._must("libxl_domain_create_new", code)
        self.requests["unpause"](domid.value)
        return domid.value

    def crash(self, domid: int) -> None:
        """As libxl's pvcontrol does it, which has no function for a crash: by control/shutdown."""
        subprocess.run(["xenstore-write", f"/local/domain/{domid}/control/shutdown", "crash"], check=True)

    def _call(self, name: str) -> Callable[[int], None]:
        function = getattr(self._libxl, name)
        return lambda domid: self._must(f"{name}({domid})", function(self._context, domid, None))

    @staticmethod
    def _must(what: str, code: int) -> None:
        if code:
            raise Refused(f"{what}: {code}")


def main() -> None:
    toolstack = Toolstack()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"result": toolstack.requests[name](*arguments)}
        except (Refused, OSError, subprocess.CalledProcessError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
