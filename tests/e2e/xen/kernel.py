"""The ELF file in a Linux bzImage, which Xen starts as domain 0 at once: unpacking it on an emulated CPU takes seconds.

Where it is in there is the kernel's boot protocol (Documentation/arch/x86/boot.rst).  Pure functions.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

from tests.e2e.xen import zstd

# What a payload begins with: the compression's name, and how to undo it.  What follows the payload (its size) is left;
# only zstd needs it.
_UNPACK: dict[bytes, tuple[str, Callable[[bytes], bytes] | None]] = {
    b"\xfd7zXZ\0": ("xz", lambda data: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)),
    b"\x5d\0\0": ("lzma", lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)),
    b"\x1f\x8b": ("gzip", lambda data: zlib.decompressobj(wbits=31).decompress(data)),
    b"BZh": ("bzip2", lambda data: bz2.BZ2Decompressor().decompress(data)),
    b"\x28\xb5\x2f\xfd": ("zstd", lambda data: zstd.decompress(data, int.from_bytes(data[-4:], "little"))),
    b"\x02\x21\x4c\x18": ("lz4", None),
    b"\x89LZO": ("lzo", None),
}
_HEADER = 0x250  # bytes, up to and with payload_length
_PAYLOAD_SINCE = 0x208  # the protocol's version that has payload_offset


class NotAKernel(ValueError):
    """The file is not what was expected; says what it is."""


def vmlinux(image: bytes) -> bytes:
    """The ELF file inside a bzImage; `NotAKernel` for anything else, or a compression that Python cannot undo."""
    if image[0x202:0x206] != b"HdrS":
        raise NotAKernel(f"no bzImage: its boot header would have HdrS at 0x202, it has {image[0x202:0x206]!r}")
    if len(image) < _HEADER:
        raise NotAKernel(f"a bzImage cut short: {len(image)} bytes, its header alone has {_HEADER}")
    version = struct.unpack_from("<H", image, 0x206)[0]
    if version < _PAYLOAD_SINCE:
        raise NotAKernel(f"a bzImage of boot protocol {version >> 8}.{version & 255:02}: 2.08 (Linux 2.6.26) is needed")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if len(payload) < length:
        raise NotAKernel(f"a bzImage cut short: its payload has {length} bytes, of which {len(payload)} are here")
    return _unpacked(payload)


def _unpacked(payload: bytes) -> bytes:
    known = [method for magic, method in _UNPACK.items() if payload.startswith(magic)]
    if not known:
        raise NotAKernel(f"a bzImage with a payload of no known compression: it begins with {payload[:6]!r}")
    name, unpack = known[0]
    if unpack is None:
        raise NotAKernel(f"a bzImage compressed with {name}, which Python's standard library cannot undo")
    try:
        elf = unpack(payload)
    except (lzma.LZMAError, zlib.error, zstd.ZstdError, OSError) as error:
        raise NotAKernel(f"a bzImage with a broken payload: {name} says {error}") from None
    if not elf.startswith(b"\x7fELF"):
        raise NotAKernel(f"a bzImage whose payload is no ELF file: it begins with {elf[:4]!r}")
    return elf
