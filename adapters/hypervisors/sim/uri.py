"""``sim:///default?domains=100&seed=1``: what it means, and one clear error for what does not."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from eventbridge.errors import HypervisorError

# Parameter: the least, the most, and what it is where nothing is said.
LIMITS: dict[str, tuple[int, int, int | None]] = {
    "domains": (1, 10_000, 10),
    "seed": (0, 2**63 - 1, 1),
    "rate": (1, 100_000, 20),
    "events": (0, 2**63 - 1, None),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """``rate``: events a second, of all domains together.  ``events``: how many until the story ends; None: it does
    not.
    """

    domains: int
    seed: int
    rate: int
    events: int | None


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
    values: dict[str, int | None] = {name: default for name, (_, _, default) in LIMITS.items()}
    seen: set[str] = set()
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in LIMITS:
            raise refusal(uri, f"no parameter is called {name!r}; there are: {', '.join(LIMITS)}")
        if name in seen:
            raise refusal(uri, f"{name} is given twice")
        seen.add(name)
        values[name] = _number(uri, name, text)
    return Parameters(**values)  # type: ignore[arg-type]  # only events has no default, and may be None


def _number(uri: str, name: str, text: str) -> int:
    least, most, _ = LIMITS[name]
    if not (text.isascii() and text.isdigit()):
        raise refusal(uri, f"{name} must be a whole number from {least} to {most}; found {text!r}")
    number = int(text[:30])  # longer is out of every range, and int() minds very long texts
    if not least <= number <= most:
        raise refusal(uri, f"{name} must be from {least} to {most}; found {text[:30]}")
    return number
