"""The QMP codec under atheris, for as long as it is let.

    python -m tests.measurements.fuzz_qmp [libFuzzer's options]

Optional: atheris (pip install atheris) is not among what the tests install.  Where it is not there this says so, and
ends with 0.  What it looks for: anything but a message or a `WireError`, a difference by how the bytes are split, and
more held than the limit.
"""

from __future__ import annotations

import functools
import importlib
import sys
import tempfile
from types import ModuleType
from typing import Any

LIMIT = 4096
CODEC = "eventbridge.adapters.hypervisors.qmp.codec"


def decode(codec: ModuleType, pieces: list[bytes]) -> list[Any]:
    """The messages, and the words of the error that ends them."""
    decoder, found = codec.Decoder(LIMIT), []
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.held <= LIMIT + max(map(len, pieces))
        try:
            while (message := decoder.next()) is not None:
                found.append(message)
        except codec.WireError as error:
            return [*found, str(error)]
    return found


def check(codec: ModuleType, data: bytes) -> None:
    """The first byte says how large the pieces are."""
    if len(data) < 2:
        return
    size, rest = data[0] + 1, data[1:]
    pieces = [rest[start : start + size] for start in range(0, len(rest), size)]
    whole, split = decode(codec, [rest]), decode(codec, pieces)
    # A line over the limit is noticed before its end, or where its end is: the words show what was there by then.
    assert repr(whole) == repr(split) or f"more than {LIMIT} bytes" in str(whole[-1])


def main() -> int:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed, so nothing is fuzzed: pip install atheris")
        return 0
    with atheris.instrument_imports():
        codec = importlib.import_module(CODEC)
    options = list(sys.argv)
    if not any(option.startswith("-artifact_prefix=") for option in options):
        options.append(f"-artifact_prefix={tempfile.mkdtemp(prefix='fuzz-qmp-')}/")  # what crashes it, not in the tree
    atheris.Setup(options, functools.partial(check, codec))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
