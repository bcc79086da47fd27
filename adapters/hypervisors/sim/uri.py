"""``sim:///default?domains=100&seed=1``: what it means, and one clear error for what does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from eventbridge.errors import HypervisorError

# Parameter: the least, the most, and what it is where nothing is said.
LIMITS: dict[str, tuple[int, int, int | None]] = {
    "domains": (1, 10_000, 10),
    "seed": (0, 2**63 - 1, 1),
    "rate": (1, 100_000, 20),
    "events": (0, 2**63 - 1, None),
    "latency": (0, 60_000, 0),
    "memory": (1, 2**40, 65_536),
}
PARAMETERS = (*LIMITS, "world")
_WORLD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameters:
    """``rate``: events a second, of all domains together.  ``events``: how many until the story ends; None: it does
    not.  ``latency``: how long each call takes, in ms.  ``memory``: each domain's, in KiB.  ``world``: the name under
    which several connections share the same domains; None: it has its own.
    """

    domains: int
    seed: int
    rate: int
    events: int | None
    latency: int = 0
    memory: int = 65_536
    world: str | None = None


def refusal(uri: str, why: str) -> HypervisorError:
    return HypervisorError(f"{uri}: {why}", operation="open")


def parse(uri: str) -> Parameters:
    """`HypervisorError` for whatever is not understood."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise refusal(uri, f"this is no URI: {error}") from None
    if parts.scheme != "sim" or parts.netloc or parts.path != "/default" or parts.fragment:
        raise refusal(uri, "the simulated hypervisor's URI is sim:///default, with parameters after '?' where wanted")
    values: dict[str, Any] = {name: default for name, (_, _, default) in LIMITS.items()}
    seen: set[str] = set()
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in PARAMETERS:
            raise refusal(uri, f"no parameter is called {name!r}; there are: {', '.join(PARAMETERS)}")
        if name in seen:
            raise refusal(uri, f"{name} is given twice")
        seen.add(name)
        values[name] = _name(uri, text) if name == "world" else _number(uri, name, text)
    return Parameters(**values)


def _name(uri: str, text: str) -> str:
    if not _WORLD.fullmatch(text):
        raise refusal(uri, f"world must be 1 to 64 letters, digits, '_', '.' or '-'; found {text[:80]!r}")
    return text


def _number(uri: str, name: str, text: str) -> int:
    least, most, _ = LIMITS[name]
    if not (text.isascii() and text.isdigit()):
        raise refusal(uri, f"{name} must be a whole number from {least} to {most}; found {text!r}")
    number = int(text[:30])  # longer is out of every range, and int() minds very long texts
    if not least <= number <= most:
        raise refusal(uri, f"{name} must be from {least} to {most}; found {text[:30]}")
    return number
