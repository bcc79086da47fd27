"""zstd's frames undone with libzstd, which dpkg itself needs on every Debian: Python has no such module before 3.14.

What is called, and in what form, is in zstd.h ("Simple Core API")."""

from __future__ import annotations

import ctypes as C

LIBRARY = "libzstd.so.1"


class ZstdError(Exception):
    """libzstd is not here, or does not take the frame; says which."""


def decompress(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that the frame at the beginning of ``data`` holds; what follows the frame is left."""
    try:
        library = C.CDLL(LIBRARY)
    except OSError as error:
        raise ZstdError(f"{error}: apt-get install -y libzstd1") from None
    for name in ("ZSTD_findFrameCompressedSize", "ZSTD_decompress"):
        getattr(library, name).restype = C.c_size_t
    library.ZSTD_getErrorName.restype = C.c_char_p

    def checked(result: int) -> int:
        if library.ZSTD_isError(C.c_size_t(result)):
            raise ZstdError(library.ZSTD_getErrorName(C.c_size_t(result)).decode())
        return result

    frame = checked(library.ZSTD_findFrameCompressedSize(data, C.c_size_t(len(data))))
    target = C.create_string_buffer(size)
    length = checked(library.ZSTD_decompress(target, C.c_size_t(size), data, C.c_size_t(frame)))
    return target.raw[:length]
