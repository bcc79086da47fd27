"""What ``define`` and ``create`` are given: a simulated domain as JSON, or a mapping: a name, and little else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from .uri import LIMITS

KEYS = ("name", "uuid", "memory")
EXAMPLE = '{"name": "web-1", "uuid": "5b0d4a3e-...", "memory": 65536}'


@dataclass(frozen=True, slots=True)
class Definition:
    """``memory`` in KiB; what is not said is None."""

    name: str
    uuid: str | None
    memory: int | None


def parse(given: object) -> Definition:
    """ValueError, in words, for what is not understood."""
    if isinstance(given, str | bytes):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its definition is no JSON: {error}; it should be as {EXAMPLE}") from None
    if not isinstance(given, Mapping):
        raise ValueError(f"its definition must be as {EXAMPLE}; found {type(given).__name__}")
    unknown = [repr(key) for key in given if key not in KEYS]
    if unknown:
        raise ValueError(f"its definition has no {', '.join(unknown)}; there are: {', '.join(KEYS)}")
    return Definition(_name(given.get("name")), _uuid(given.get("uuid")), _memory(given.get("memory")))


def _name(given: object) -> str:
    if not isinstance(given, str) or not given.isprintable() or not 1 <= len(given) <= 255:
        raise ValueError(f"its name must be 1 to 255 printable characters; found {str(given)[:80]!r}")
    return given


def _uuid(given: object) -> str | None:
    if given is None:
        return None
    try:
        return str(uuid.UUID(given if isinstance(given, str) else ""))
    except ValueError:
        raise ValueError(f"its uuid must be one; found {str(given)[:80]!r}") from None


def _memory(given: object) -> int | None:
    least, most, _ = LIMITS["memory"]
    if given is not None and (type(given) is not int or not least <= given <= most):
        raise ValueError(f"its memory must be from {least} to {most} KiB; found {str(given)[:80]!r}")
    return given
