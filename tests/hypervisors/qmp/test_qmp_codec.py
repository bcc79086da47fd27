"""The codec: whatever way the bytes come, the messages are those of a naive reading of them; and what is no QMP is one
error, never a crash, in bounded memory.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventbridge.adapters.hypervisors.qmp.codec import (
    LINE_LIMIT,
    Decoder,
    Event,
    Failure,
    Greeting,
    Message,
    Return,
    WireError,
    encode,
)

GREETING = {
    "QMP": {
        "version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"},
        "capabilities": ["oob"],
    }
}
TIMESTAMP = {"seconds": 1795518857, "microseconds": 551031}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=4)
messages = st.one_of(
    st.just(GREETING),
    st.builds(lambda name, data: {"timestamp": TIMESTAMP, "event": name, "data": data}, st.text(), objects),
    st.builds(lambda name: {"event": name, "timestamp": TIMESTAMP}, st.text(min_size=1)),
    st.builds(lambda value, id: {"return": value, "id": id}, values, values),
    st.builds(lambda value: {"return": value}, values),
    st.builds(
        lambda error, desc, id: {"error": {"class": error, "desc": desc}, "id": id}, st.text(), st.text(), values
    ),
)


def naive(found: dict[str, Any]) -> Message:
    """What a message is, as the specification has it."""
    if "QMP" in found:
        return Greeting("7.2.22", frozenset({"oob"}))
    if "event" in found:
        return Event(found["event"], found.get("data", {}), found)
    if "return" in found:
        return Return(found.get("id"), found["return"])
    return Failure(found.get("id"), found["error"]["class"], found["error"]["desc"])


def decode(pieces: list[bytes], limit: int = LINE_LIMIT) -> list[Message | str]:
    """Everything that comes of them; an error as its words, last, once."""
    decoder, found = Decoder(limit), []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while (message := decoder.next()) is not None:
                found.append(message)
        except WireError as error:
            with pytest.raises(WireError) as again:
                decoder.next()
            assert str(again.value) == str(error)
            decoder.feed(b'{"return": {}}\n')
            with pytest.raises(WireError):
                decoder.next()
            assert decoder.held == 0 and decoder.ready
            return [*found, str(error)]
        assert not decoder.ready
    return found


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(messages), st.lists(st.integers(0, 1 << 16)), st.sampled_from([b"\n", b"\r\n", b"\n\r\n"]))
def test_however_the_bytes_come_the_messages_are_the_same(sent: list[Any], cuts: list[int], end: bytes) -> None:
    data = b"".join(json.dumps(message).encode() + end for message in sent)
    assert decode(split(data, cuts)) == [naive(message) for message in sent]


@given(st.lists(messages, min_size=1))
def test_a_byte_at_a_time_and_not_in_ascii(sent: list[Any]) -> None:
    data = b"".join(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for message in sent)
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert decode(pieces) == decode([data])
    assert len(decode([data])) == len(sent)


@given(st.binary(), st.lists(st.integers(0, 1 << 16)))
@example(b"{\n", [])
@example(b"\xff\xfe{\x00}\x00\n", [])
@example(b'{"event": 1}\n', [])
@example(b'{"event": "A", "data": []}\n', [])
@example(b'{"return": NaN, "id": 1}\n', [])
@example(b'{"error": "x"}\n{"return": {}}\n', [])
@example(b'{"QMP": {"version": {"qemu": []}, "capabilities": [1]}}\n', [])
@example(b'{"QMP": null}\n', [])
@example(b"[]\n[]\n", [])
@example(b"9" * 5000 + b"\n", [])
@example(b'{"return": ' + b"9" * 5000 + b"}\n", [])
def test_garbage_is_one_error_and_never_a_crash(data: bytes, cuts: list[int]) -> None:
    whole = decode([data])
    assert decode(split(data, cuts)) == whole
    assert all(not isinstance(found, str) for found in whole[:-1])
    if whole and isinstance(whole[-1], str):
        assert "\n" not in whole[-1]
        assert len(whole[-1]) < 600


@given(st.lists(messages), st.binary(min_size=1).filter(lambda data: b"\n" not in data and data.strip()))
def test_what_came_before_the_garbage_is_told(sent: list[Any], garbage: bytes) -> None:
    good = b"".join(json.dumps(message).encode() + b"\n" for message in sent)
    found = decode([good + b"\x80" + garbage + b"\n" + good])
    assert found[:-1] == [naive(message) for message in sent]
    assert str(found[-1]).startswith("no JSON")


@pytest.mark.parametrize("bomb", [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 200_000 + b"]" * 200_000])
def test_a_nesting_bomb_is_an_error(bomb: bytes) -> None:
    (words,) = decode([b'{"return": ' + bomb + b"}\n"])
    assert str(words).startswith(("JSON that is nested too deeply", "no JSON"))


@pytest.mark.parametrize("size", [64 << 10, 1 << 20, (8 << 20) - 20])
def test_long_lines_are_messages_like_others(size: int) -> None:
    text = "x" * (size - 30)
    line = json.dumps({"return": text, "id": 7}).encode() + b"\n"
    assert decode(split(line * 2, list(range(0, 2 * len(line), 65536)))) == [Return(7, text)] * 2


def test_a_line_of_ten_mebibytes_is_refused_and_memory_stays_bounded() -> None:
    """While it arrives: at no time is more of it held than the limit and a read."""
    decoder, piece = Decoder(), b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(10 << 4):
            decoder.feed(piece)
            assert decoder.held <= LINE_LIMIT + len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * LINE_LIMIT
    with pytest.raises(WireError, match=f"a line of more than {LINE_LIMIT} bytes: 'x"):
        decoder.next()
    assert decoder.held == 0


@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_bound_can_be_set(end: bytes) -> None:
    """To the byte, and whether the newline has come or not."""
    line = b'{"return": {}}'
    assert decode([line + b"\n"], limit=len(line)) == [Return(None, {})]
    (words,) = decode([line + end], limit=len(line) - 1)
    assert str(words).startswith(f"a line of more than {len(line) - 1} bytes")


@pytest.mark.timeout(30)
def test_the_cost_is_linear_in_the_bytes() -> None:
    """A line of 8 MiB in pieces of 64 bytes, and 100,000 lines in one piece: were each byte looked at again for each
    piece or line, this would take hours.
    """
    decoder = Decoder()
    for _ in range((8 << 20) // 64):
        decoder.feed(b"x" * 64)
    assert not decoder.ready
    decoder = Decoder()
    decoder.feed(b'{"event": "A"}\n' * 100_000)
    count = 0
    while decoder.next() is not None:
        count += 1
    assert count == 100_000


def test_a_pretty_monitor_is_recognised() -> None:
    (words,) = decode([json.dumps(GREETING, indent=4).encode()])
    assert "pretty=on" in str(words)


@given(st.text(min_size=1), objects, st.integers(1), st.booleans())
def test_a_command_is_one_line_of_json(name: str, arguments: dict[str, Any], id: int, oob: bool) -> None:
    line = encode(name, arguments, id, oob=oob)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    found = json.loads(line)
    assert found.pop("exec-oob" if oob else "execute") == name
    assert found.pop("id") == id
    assert found == ({"arguments": arguments} if arguments else {})
