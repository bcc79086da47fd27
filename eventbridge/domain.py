"""A domain, as far as every hypervisor agrees on what that is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DomainRef:
    """Which domain: its name, its UUID in lower-case text, and its id while it runs.  What a hypervisor does not say
    is None.
    """

    name: str | None
    uuid: str | None = None
    id: int | None = None

    def to_json(self) -> dict[str, str | int | None]:
        return {"name": self.name, "uuid": self.uuid, "id": self.id}
