"""QEMU by its own monitor protocol, QMP: a codec, a `eventbridge.models.DirectSource`, and no library."""

from .driver import QmpDriver, driver

__all__ = ["QmpDriver", "driver"]
