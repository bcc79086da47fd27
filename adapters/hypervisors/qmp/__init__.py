"""QEMU by its own monitor protocol, QMP: a codec, a `eventbridge.core.models.DirectSource`, and no library."""

from .driver import QmpDriver, driver

__all__ = ["QmpDriver", "driver"]
